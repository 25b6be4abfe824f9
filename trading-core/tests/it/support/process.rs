//! The program itself, run as its user runs it.

use std::fs::{File, read_to_string};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};
use trading_core::config::CONFIG_FILE;

/// Longer than anything is waited for; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(90);

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
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.log().lines().find(|line| line.contains(part)) {
                return line.to_owned();
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it has ended ({ended:?}):\n{}", self.log());
            assert!(Instant::now() < deadline, "{part:?} was not logged:\n{}", self.log());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks it to stop, and says how it ended.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.gone().await
    }

    /// Waits for its end, and says how it ended.
    pub(crate) async fn gone(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not stop:\n{}", self.log());
            sleep(Duration::from_millis(20)).await;
        }
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
