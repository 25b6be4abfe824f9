//! `db remove` asks, says what goes, and removes what is ours and nothing else.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::geteuid;
use trading_core::store::embedded::command as db;
use trading_core::store::postgres::origin::Origin;
use trading_core::store::spool::{self, Spool};

use super::{made, of_a_market, settings};
use crate::support::postgres::{Scratch, server_pid};
use crate::support::process::{self, Program, program, setting};
use crate::support::ticks::tick;

#[tokio::test]
async fn without_a_terminal_it_takes_yes_and_says_what_goes() {
    let scratch = Scratch::simulated();
    made(&scratch, &of_a_market()).await;
    let settings = settings(&scratch);
    let (code, _, log) = program("db remove --simulated", &settings);
    assert_eq!(code, Some(64), "{log}");
    let what = format!("of a simulated market: {}, ", scratch.home().display());
    assert!(log.contains(&what) && log.contains("MiB"), "{log}");
    assert!(log.ends_with("\n  trading-core db remove --simulated --yes\n"), "{log}");
    assert!(scratch.home().join("postgres/PG_VERSION").exists());

    // A server that nobody uses is stopped first, and counts what it holds.
    db::start(&scratch.options()).await.unwrap();
    let (code, answer, log) = program("db remove --simulated --yes", &settings);
    assert_eq!(code, Some(0), "{log}");
    assert!(answer.starts_with("removed: ") && answer.contains(", 1 trades from "), "{answer}");
    assert!(!scratch.home().exists(), "{answer}");
    assert!(scratch.path().exists(), "the directory of the real exchanges is not meant");
    let (code, _, log) = program("db remove --simulated --yes", &settings);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("nothing is recorded in "), "{log}");
}

#[tokio::test]
async fn the_real_one_goes_without_the_simulated_one_in_it() {
    let scratch = Scratch::simulated();
    made(&scratch, &of_a_market()).await;
    let settings = settings(&scratch);
    let (code, _, log) = program("db start", &settings);
    assert_eq!(code, Some(0), "{log}");
    let (code, answer, log) = program("db remove --yes", &settings);
    assert_eq!(code, Some(0), "{log}");
    assert!(answer.contains("`trading-core db remove --simulated` removes it"), "{answer}");
    let left: Vec<_> = fs::read_dir(scratch.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(scratch.home().join("postgres/PG_VERSION").exists());
}

/// At a terminal, as util-linux's `script` makes one.
fn at_a_terminal(answer: &str, settings: &[(String, String)]) -> (bool, String) {
    let line = format!("{} db remove", env!("CARGO_BIN_EXE_trading-core"));
    let mut child = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .envs(settings.iter().cloned())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{answer}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn at_a_terminal_it_asks_and_takes_yes_or_the_directorys_name() {
    let scratch = Scratch::new("");
    made(&scratch, &Origin::Exchanges).await;
    let settings = settings(&scratch);
    for answer in ["", "no", "y", "simulated"] {
        let (is_done, told) = at_a_terminal(answer, &settings);
        assert!(!is_done && told.contains("nothing was removed"), "{answer:?}: {told}");
        assert!(told.contains("This removes, for good,"), "{told}");
        assert!(scratch.path().join("postgres/PG_VERSION").exists(), "{answer:?}: {told}");
    }
    let name = scratch.path().file_name().unwrap().to_string_lossy().into_owned();
    let (is_done, told) = at_a_terminal(&name, &settings);
    assert!(is_done && told.contains("removed: "), "{told}");
    assert!(!scratch.path().exists());
}

#[tokio::test]
async fn while_a_recorder_uses_it_nothing_is_removed_and_the_recorder_is_named() {
    let scratch = Scratch::simulated();
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&scratch);
    settings.push(setting("SIMULATE__RATE", "1"));
    let mut recorder = Program::start(folder.path(), &["live", "--simulate"], &settings);
    recorder.logged("Feed connected").await;
    let (code, _, log) = program("db remove --simulated --yes", &settings);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains(&format!("(kill {})", recorder.pid())), "{log}");
    assert!(server_pid(&scratch.options()).await.is_some());
    assert!(recorder.stop().await.success());
}

#[tokio::test]
async fn links_are_removed_and_not_followed_and_what_is_not_ours_stays() {
    let scratch = Scratch::new("");
    made(&scratch, &Origin::Exchanges).await;
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("thesis.txt"), "years").unwrap();
    symlink(elsewhere.path(), scratch.path().join("postgres/pg_tblspc/16999")).unwrap();
    symlink(elsewhere.path(), scratch.path().join("initdb.old")).unwrap();
    fs::create_dir(scratch.path().join("lost+found")).unwrap();
    fs::write(scratch.path().join("notes.txt"), "mine").unwrap();
    let (code, answer, log) = program("db remove --yes", &settings(&scratch));
    assert_eq!(code, Some(0), "{log}");
    assert!(answer.contains("lost+found, notes.txt"), "{answer}");
    let told = format!("not: {}, to which a link in it leads", elsewhere.path().display());
    assert!(answer.contains(&told), "{answer}");
    assert_eq!(fs::read(elsewhere.path().join("thesis.txt")).unwrap(), b"years");
    assert_eq!(fs::read(scratch.path().join("notes.txt")).unwrap(), b"mine");
    assert!(!scratch.path().join("postgres").exists());
}

#[tokio::test]
async fn what_waits_for_it_in_its_spool_goes_and_what_waits_for_another_database_stays() {
    let scratch = Scratch::new("");
    made(&scratch, &Origin::Exchanges).await;
    let settings = settings(&scratch);
    let dir = scratch.path().join("spool");
    // As recorders note it, of this database and of another server's.
    let own = format!(
        "trading_core@{}:5433/trading_core, real exchanges",
        scratch.path().join("run").display()
    );
    spool::remember(&dir, &own, "own id, real exchanges").unwrap();
    spool::remember(&dir, "me@db.example:5432/x, real exchanges", "other id, real exchanges")
        .unwrap();
    let unseen = format!("the first at {own}");
    for (name, ticks) in
        [("own id, real exchanges", 2), (&unseen, 1), ("other id, real exchanges", 4)]
    {
        let (spool, _) = Spool::open(dir.clone(), 1 << 20, name).await.unwrap();
        spool.append(vec![tick(1); ticks]).await.1.unwrap();
    }
    let (code, answer, log) = program("db remove --yes", &settings);
    assert_eq!(code, Some(0), "{log}");
    assert!(
        answer.contains("and 3 trades in its spool, which are stored nowhere else"),
        "{answer}"
    );
    assert!(
        answer.contains("not: 4 trades in its spool that wait for another database"),
        "{answer}"
    );
    let left = spool::status(&dir, 1 << 20).unwrap();
    assert_eq!(left.ticks, 4);
    assert_eq!(left.slots.len(), 1, "{left:?}");
    assert_eq!(spool::recall(&dir, &own), None);
}

/// As recorders spool for the database at this directory.
async fn spooled(dir: &Path, home: &Path, origin: &str, ticks: usize) {
    let run = home.join("run");
    let unseen = format!("the first at trading_core@{}:5433/trading_core, {origin}", run.display());
    let (spool, _) = Spool::open(dir.to_owned(), 1 << 20, unseen.as_str()).await.unwrap();
    spool.append(vec![tick(1); ticks]).await.1.unwrap();
}

#[tokio::test]
async fn a_simulated_spool_elsewhere_goes_too_and_one_that_others_may_use_stays_and_is_named() {
    let elsewhere = tempfile::tempdir().unwrap();
    let dir = elsewhere.path().join("spool");
    for scratch in [Scratch::simulated(), Scratch::new("")] {
        let is_simulated = scratch.options().simulated;
        let origin = if is_simulated { of_a_market() } else { Origin::Exchanges };
        made(&scratch, &origin).await;
        let mut settings = settings(&scratch);
        settings.push(setting("SPOOL__DIR", dir.display()));
        let own = if is_simulated { dir.join("simulated") } else { dir.clone() };
        spooled(&own, &scratch.home(), &origin.to_string(), 3).await;
        let flag = if is_simulated { " --simulated" } else { "" };
        let (code, answer, log) = program(&format!("db remove --yes{flag}"), &settings);
        assert_eq!(code, Some(0), "{log}");
        assert!(!scratch.home().exists(), "{answer}");
        if is_simulated {
            assert!(
                answer.contains(&format!("\nand its spool in {}\n", own.display())),
                "{answer}"
            );
            assert!(answer.contains("and 3 trades in its spool, which are stored"), "{answer}");
            assert!(!own.exists() && dir.exists(), "{answer}");
        } else {
            let stays = format!(
                "not: the spool in {}, which other recorders may use; 3 trades in it wait",
                dir.display()
            );
            assert!(answer.contains(&stays), "{answer}");
            assert_eq!(spool::status(&dir, 1 << 20).unwrap().ticks, 3);
        }
    }
}

#[tokio::test]
async fn data_behind_a_link_is_not_removed_and_the_answer_says_what_to_delete() {
    let scratch = Scratch::new("");
    made(&scratch, &Origin::Exchanges).await;
    let disk = tempfile::tempdir().unwrap();
    fs::set_permissions(disk.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (data, target) = (scratch.path().join("postgres"), disk.path().join("postgres"));
    fs::rename(&data, &target).unwrap();
    symlink(&target, &data).unwrap();
    for line in ["db remove --yes", "db start"] {
        let (code, _, log) = program(line, &settings(&scratch));
        assert_eq!(code, Some(1), "{line}: {log}");
        let told = format!("{} is a symbolic link to {}", data.display(), target.display());
        assert!(log.contains(&told) && log.contains("by hand"), "{line}: {log}");
    }
    assert!(target.join("PG_VERSION").exists() && data.is_symlink());
    fs::remove_file(&data).unwrap();
    fs::rename(&target, &data).unwrap();

    // A link to the whole directory stays, and can be used again.
    let link = disk.path().join("data");
    symlink(scratch.path(), &link).unwrap();
    let settings = vec![setting("DATABASE__DATA_DIR", link.display())];
    for line in ["db start", "db remove --yes", "db start", "db remove --yes"] {
        let (code, _, log) = program(line, &settings);
        assert_eq!(code, Some(0), "{line}: {log}");
    }
    assert_eq!(fs::read_dir(&link).unwrap().count(), 0);
}

#[tokio::test]
async fn another_servers_database_and_a_directory_of_something_else_are_refused() {
    let url = ("DATABASE_URL".to_owned(), "postgres://me:secret@host:5432/market".to_owned());
    let (code, _, log) = program("db remove --yes", &[url]);
    assert_eq!(code, Some(64), "{log}");
    assert!(log.contains("DROP DATABASE \"market\"") && !log.contains("secret"), "{log}");

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("PG_VERSION"), "15").unwrap();
    fs::create_dir(folder.path().join("postgres")).unwrap();
    fs::write(folder.path().join("postgres/PG_VERSION"), "15").unwrap();
    let settings = vec![setting("DATABASE__DATA_DIR", folder.path().display())];
    let (code, _, log) = program("db remove --yes", &settings);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("did not make"), "{log}");
    assert!(folder.path().join("postgres/PG_VERSION").exists());
}

#[tokio::test]
async fn root_removes_another_users_database_with_that_users_rights_only() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root can work in another user's directory");
        return;
    }
    const OTHER: u32 = 47_116;
    let scratch = Scratch::new("");
    chown(scratch.path(), Some(OTHER), Some(OTHER)).unwrap();
    made(&scratch, &Origin::Exchanges).await;
    // Root's own, into which that user lays a link where the data was.
    let private = tempfile::tempdir().unwrap();
    fs::write(private.path().join("PG_VERSION"), "root's").unwrap();
    fs::set_permissions(private.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(scratch.path().join("postgres"), scratch.path().join("initdb.mine")).unwrap();
    symlink(private.path(), scratch.path().join("postgres")).unwrap();
    let settings = settings(&scratch);
    let mut remove = process::command();
    remove.args(["db", "remove", "--yes"]).envs(settings.iter().cloned());
    let first = remove.output().unwrap();
    assert_eq!(fs::read(private.path().join("PG_VERSION")).unwrap(), b"root's", "{first:?}");
    if !first.status.success() {
        fs::remove_file(scratch.path().join("postgres")).unwrap();
        fs::rename(scratch.path().join("initdb.mine"), scratch.path().join("postgres")).unwrap();
        let second = remove.output().unwrap();
        assert!(second.status.success(), "{second:?}");
    }
    let left: Vec<_> = fs::read_dir(scratch.path()).into_iter().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}
