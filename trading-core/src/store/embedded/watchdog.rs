//! What stops the server of a recorder that was killed: a shell that waits at the other end of a pipe.
//!
//! The kernel closes the pipe when the recorder dies, however it dies. The shell then becomes
//! `trading-core db stop --if-unused`, which does what an orderly end would have done: the server stops unless somebody
//! else uses it or `db start` keeps it. It is a shell that waits, and not another `trading-core`: it takes less memory,
//! and who kills all processes of that name means the recorder.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::OnceLock;

use super::environment::clean;
use super::home::Home;

/// A line means that all is in order; the end of the pipe without one means that the recorder is gone.
const WAIT: &str = r#"read -r _ || exec "$0" --config /dev/null db stop --if-unused"#;

/// Where this program is; not set in a program that has no such command, as tests are.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Lets the servers of this process stop when it is killed. `program` is `trading-core` itself. Without this call they
/// are left running for the next recorder.
pub fn stop_servers_when_killed(program: PathBuf) {
    // Said once by the program's first lines; a second call would say the same.
    drop(PROGRAM.set(program));
}

/// The shell that waits. Dropping this is what it waits for.
#[derive(Debug)]
pub(super) struct Watchdog(Child);

impl Watchdog {
    /// Begins to watch this process. Without a program to call there is none.
    pub(super) fn start(home: &Home) -> Option<Self> {
        let program = PROGRAM.get()?;
        match Self::spawn(program, home) {
            Ok(watchdog) => Some(watchdog),
            Err(error) => {
                tracing::warn!(%error, "The embedded database would outlive a killed recorder: no shell watches it");
                None
            }
        }
    }

    fn spawn(program: &Path, home: &Home) -> std::io::Result<Self> {
        let log = home.place().append("postgres.log");
        clean("sh")
            .args(["-c", WAIT])
            .arg(program)
            .env("TRADING_CORE__DATABASE__URL", "embedded")
            .env("TRADING_CORE__DATABASE__DATA_DIR", home.folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log.map_or_else(|_| Stdio::null(), Stdio::from))
            .current_dir("/")
            // Signals that are meant for the recorder's group are not meant for it.
            .process_group(0)
            .spawn()
            .map(Self)
    }

    /// Ends the watch: what it would do has been done, or is not wanted.
    pub(super) fn dismiss(mut self) {
        let told = self.0.stdin.take().map(|mut pipe| pipe.write_all(b"done\n"));
        if let Some(Err(error)) = told {
            tracing::debug!(%error, "the shell that watched the embedded database had ended before");
        }
        // It has nothing left to do but end.
        drop(self.0.wait());
    }
}
