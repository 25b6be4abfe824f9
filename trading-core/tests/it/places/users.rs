//! Users: another one's database is told from none, and one without a name gets a database all the same.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use nix::unistd::geteuid;
use trading_core::store::postgres::origin::Origin;

use super::{made, settings};
use crate::support::postgres::Scratch;
use crate::support::process::{PROGRAM, Settings, command_of, ended, program, setting};

/// A user who has a number and no name.
const NAMELESS: u32 = 64_123;

/// Whether this can be tried; a test that is skipped says so.
fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: only root can be other users");
    }
    is_root
}

/// The program where every user may run it: the build's own folder can lie in a home that is shut to others.
struct Nameless {
    folder: tempfile::TempDir,
}

impl Nameless {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        allow(folder.path(), 0o755);
        fs::copy(PROGRAM, folder.path().join("trading-core")).unwrap();
        Self { folder }
    }

    fn command(&self) -> Command {
        let mut command = command_of(&self.folder.path().join("trading-core"));
        command.uid(NAMELESS).gid(NAMELESS).env("HOME", "/nonexistent");
        command
    }

    /// The program, run to its end by the user without a name.
    fn runs(&self, line: &str, settings: &Settings) -> (Option<i32>, String, String) {
        let mut command = self.command();
        ended(
            command.args(line.split_whitespace()).envs(settings.iter().cloned()).output().unwrap(),
        )
    }
}

fn allow(folder: &Path, mode: u32) {
    fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_database_of_another_user_is_told_from_none_and_the_answer_says_how_to_ask() {
    if !is_root() {
        return;
    }
    let nameless = Nameless::new();
    let scratch = Scratch::new("");
    made(&scratch, &Origin::Exchanges).await;
    let settings = settings(&scratch);
    // Passed through by the server's user, then shut to all, as other users' homes are.
    for mode in [0o711, 0o700] {
        allow(scratch.path(), mode);
        for line in [
            "db status",
            "db psql",
            "db stop",
            "db start",
            "db remove --yes",
            "verify",
            "replay --paper-trading",
            "backfill",
            "live",
            "spool status",
        ] {
            // The spool's folder was never made, and that can be seen.
            if mode == 0o711 && line == "spool status" {
                continue;
            }
            let (code, answer, log) = nameless.runs(line, &settings);
            assert_eq!(code, Some(1), "{mode:o} {line}: {answer}{log}");
            let dir = scratch.path().display();
            assert!(log.contains(&format!("{dir}")), "{mode:o} {line}: {log}");
            assert!(log.contains("belongs to the user root: ask as"), "{mode:o} {line}: {log}");
            assert!(log.contains("`sudo -E trading-core …`"), "{mode:o} {line}: {log}");
        }
        let (code, answer, _) = nameless.runs("doctor --exchange okx", &settings);
        assert_eq!(code, Some(2), "{answer}");
        assert!(answer.contains("belongs to the user root: ask as"), "{answer}");
    }
    let (code, answer, _) = program("db status", &settings);
    assert!(code == Some(0) && answer.starts_with("stopped"), "root may ask: {answer}");
}

#[tokio::test]
async fn the_other_user_is_named_by_whom_the_directory_belongs_to() {
    if !is_root() {
        return;
    }
    let nameless = Nameless::new();
    let scratch = Scratch::new("");
    chown(scratch.path(), Some(47_116), Some(47_116)).unwrap();
    made(&scratch, &Origin::Exchanges).await;
    let (code, answer, log) = nameless.runs("db status", &settings(&scratch));
    assert_eq!(code, Some(1), "{answer}{log}");
    assert!(log.contains("`sudo -E -u '#47116' trading-core …`"), "{log}");
}

#[tokio::test]
async fn a_user_without_a_name_gets_a_database() {
    if !is_root() {
        return;
    }
    let nameless = Nameless::new();
    let scratch = Scratch::new("");
    chown(scratch.path(), Some(NAMELESS), Some(NAMELESS)).unwrap();
    let settings = settings(&scratch);
    let (code, answer, log) = nameless.runs("db start", &settings);
    if log.contains("has no name on this machine") {
        assert!(log.contains("apt-get install libnss-wrapper"), "{log}");
        let left = fs::read_dir(scratch.path().join("postgres")).map(Iterator::count).unwrap_or(0);
        assert_eq!((code, left), (Some(1), 0), "{log}");
        eprintln!("SKIPPED: neither libnss-wrapper nor user namespaces here");
        return;
    }
    assert_eq!(code, Some(0), "{answer}{log}");
    let mut psql = nameless.command();
    psql.args(["db", "psql", "--", "-Atc", "SELECT 1"]);
    let (code, answer, log) = ended(psql.envs(settings.iter().cloned()).output().unwrap());
    assert_eq!((code, answer.as_str()), (Some(0), "1\n"), "{log}");
    let (code, _, log) = nameless.runs("db stop", &settings);
    assert_eq!(code, Some(0), "{log}");
    // Nothing of what gave it a name is left, and the next start needs none.
    let (code, _, log) = nameless.runs("db start", &settings);
    assert_eq!(code, Some(0), "{log}");
    let (code, _, log) = nameless.runs("db remove --yes", &settings);
    assert_eq!(code, Some(0), "{log}");
}

#[tokio::test]
async fn a_user_without_a_name_and_without_help_is_told_the_cure_before_anything_is_made() {
    let has_wrapper = fs::read_dir("/usr/lib").unwrap().filter_map(Result::ok);
    let has_wrapper =
        has_wrapper.map(|it| it.path().join("libnss_wrapper.so")).any(|it| it.exists());
    if !is_root() || has_wrapper {
        return;
    }
    let nameless = Nameless::new();
    let folder = tempfile::tempdir().unwrap();
    chown(folder.path(), Some(NAMELESS), Some(NAMELESS)).unwrap();
    // No unshare is found there.
    let settings = vec![
        setting("DATABASE__DATA_DIR", folder.path().display()),
        ("PATH".to_owned(), "/nonexistent".to_owned()),
    ];
    let (code, _, log) = nameless.runs("db start", &settings);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("user number 64123, which has no name"), "{log}");
    assert!(log.contains("apt-get install libnss-wrapper"), "{log}");
    let names = fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name());
    let names: Vec<_> = names.map(|it| it.to_string_lossy().into_owned()).collect();
    let is_made = |name: &String| name == "postgres" || name.starts_with("initdb.");
    assert!(!names.iter().any(is_made), "{names:?}");
}
