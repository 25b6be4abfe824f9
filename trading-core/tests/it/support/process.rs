//! The program itself, run as its user runs it.

use std::fs::{File, read_to_string};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use trading_core::config::CONFIG_FILE;

use super::waiting::until;

/// Settings as variables of the environment.
pub(crate) type Settings = Vec<(String, String)>;

/// A setting: its key as `SECTION__KEY`, and its value.
pub(crate) fn setting(key: &str, value: impl std::fmt::Display) -> (String, String) {
    (format!("TRADING_CORE__{key}"), value.to_string())
}

/// What a command has left that has ended: exit code, standard output (the answer), standard error (the log).
pub(crate) type Ended = (Option<i32>, String, String);

/// Runs the program to its end, with these arguments, parted by blanks.
pub(crate) fn program(line: &str, settings: &[(String, String)]) -> Ended {
    program_with(&line.split_whitespace().collect::<Vec<_>>(), settings)
}

/// The same with arguments that may hold blanks, or nothing.
pub(crate) fn program_with(arguments: &[&str], settings: &[(String, String)]) -> Ended {
    let mut command = command();
    ended(command.args(arguments).envs(settings.iter().cloned()).output().unwrap())
}

pub(crate) fn ended(output: Output) -> Ended {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// All of it, for the message of a test that fails.
pub(crate) fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// A `trading-core` that runs; killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it with these arguments and settings; its log goes to a file in `folder`.
    pub(crate) fn start(folder: &Path, arguments: &[&str], settings: &[(String, String)]) -> Self {
        let mut command = command();
        command.args(arguments);
        Self::spawn(command, folder, settings)
    }

    /// As [`Program::start`], by a shell: a command line whose `$0` is the program.
    pub(crate) fn start_in_shell(folder: &Path, line: &str, settings: &[(String, String)]) -> Self {
        let mut shell = away_from_settings(Command::new("sh"));
        shell.args(["-c", line, PROGRAM]);
        Self::spawn(shell, folder, settings)
    }

    fn spawn(mut command: Command, folder: &Path, settings: &[(String, String)]) -> Self {
        let log = folder.join("trading-core.log");
        let child = command
            .envs(settings.iter().cloned())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        read_to_string(&self.log).unwrap()
    }

    /// The first logged line that holds this text, once there is one.
    pub(crate) async fn logged(&mut self, part: &str) -> String {
        until(async || {
            // Asked before the log is read: what it logged last counts too.
            let ended = self.child.try_wait().unwrap();
            let log = self.log();
            if let Some(line) = log.lines().find(|line| line.contains(part)) {
                return Ok(line.to_owned());
            }
            assert!(ended.is_none(), "it has ended ({ended:?}):\n{log}");
            Err(format!("{part:?} was not logged:\n{log}"))
        })
        .await
    }

    /// The URL of the embedded database, as it is logged once the program has it.
    pub(crate) async fn cluster_url(&mut self) -> String {
        let line = self.logged("Look at it: psql '").await;
        line.split('\'').nth(1).unwrap().to_owned()
    }

    /// Asks it to stop, and says how it ended.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.gone().await
    }

    /// Waits for its end, and says how it ended.
    pub(crate) async fn gone(&mut self) -> ExitStatus {
        until(async || {
            let status = self.child.try_wait().unwrap();
            status.ok_or_else(|| format!("it does not stop:\n{}", self.log()))
        })
        .await
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// The most memory it has used, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

/// Where the build has put the program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_trading-core");

/// The program, away from the settings of whoever runs the tests.
pub(crate) fn command() -> Command {
    command_of(Path::new(PROGRAM))
}

/// A copy of the program, away from the settings of whoever runs the tests.
pub(crate) fn command_of(program: &Path) -> Command {
    away_from_settings(Command::new(program))
}

fn away_from_settings(mut command: Command) -> Command {
    command.current_dir("/");
    command.env(CONFIG_FILE, "/dev/null");
    for name in trading_core::config::environment().into_keys() {
        let is_setting = (name.starts_with("TRADING_CORE") && name != CONFIG_FILE)
            || name.to_ascii_lowercase().ends_with("_proxy")
            || ["DATABASE_URL", "RUST_LOG", "SSL_CERT_FILE"].contains(&name.as_str());
        if is_setting {
            command.env_remove(&name);
        }
    }
    command
}
