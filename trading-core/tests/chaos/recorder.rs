//! One running recorder, and the keeper that ends all of them when the harness ends, however it ends.

use std::fs::{File, read_to_string};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::process::command;

/// Told of each recorder that begins and ends; kills those that are left when the harness is gone.
const KEEPER: &str = r#"
pids=
while read -r what pid; do
    case $what in
    +) pids="$pids $pid" ;;
    -)
        left=
        for one in $pids; do [ "$one" = "$pid" ] || left="$left $one"; done
        pids=$left
        ;;
    esac
done
[ -z "$pids" ] || kill -KILL $pids
"#;

/// A shell at the other end of a pipe, which closes with this process.
#[derive(Debug)]
pub(crate) struct Keeper(Mutex<Child>);

impl Keeper {
    pub(crate) fn start() -> Self {
        let shell = Command::new("sh")
            .args(["-c", KEEPER])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C ends the harness; this clears up after it.
            .process_group(0)
            .spawn()
            .unwrap();
        Self(Mutex::new(shell))
    }

    fn note(&self, what: char, pid: u32) {
        let mut shell = self.0.lock().unwrap();
        writeln!(shell.stdin.as_mut().unwrap(), "{what} {pid}").unwrap();
    }
}

/// A `trading-core live`; killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Recorder<'a> {
    child: Child,
    keeper: &'a Keeper,
    log: PathBuf,
    peak: u64,
}

impl<'a> Recorder<'a> {
    /// Starts it with these arguments and settings; its log goes to this file.
    pub(crate) fn start(
        keeper: &'a Keeper,
        log: &Path,
        arguments: &[&str],
        settings: Vec<(String, String)>,
    ) -> Self {
        let child = command()
            .args(arguments)
            .envs(settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log).unwrap())
            // Ctrl-C is for the harness.
            .process_group(0)
            .spawn()
            .unwrap();
        keeper.note('+', child.id());
        Self { child, keeper, log: log.to_owned(), peak: 0 }
    }

    /// Where its log is.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// The most memory that it was seen to use, in bytes.
    pub(crate) const fn peak(&self) -> u64 {
        self.peak
    }

    /// Looks at its memory, and whether it has ended.
    pub(crate) fn look(&mut self) -> Option<ExitStatus> {
        let status =
            read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        // A process that has ended and waits to be collected has none.
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        self.peak = self.peak.max(kib.unwrap_or(0) * 1024);
        self.child.try_wait().unwrap()
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.look();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.kill();
        }
        self.keeper.note('-', self.child.id());
    }
}
