//! Signals and limits of the system, sent to the real program with ticks in memory.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::time::sleep;

use crate::support::postgres::{TestDatabase, database};
use crate::support::process::{Program, command, setting};
use crate::support::waiting::until;

/// Nothing is written before the stop: what is stored then was in memory.
fn settings(database: &TestDatabase, folder: &Path) -> Vec<(String, String)> {
    vec![
        ("DATABASE_URL".to_owned(), database.url.clone()),
        setting("SPOOL__DIR", folder.join("spool").display()),
        setting("BATCH__MAX_TIME", "60s"),
        setting("BATCH__MAX_SIZE", "10000"),
        setting("PIPELINE__HEALTH_INTERVAL", "1s"),
        setting("SIMULATE__RATE", "10"),
    ]
}

/// Waits until ticks are in memory: the first health line that has counted some.
async fn ticks_in_memory(program: &mut Program) {
    until(async || {
        // Ends the test where the program has ended.
        program.logged("Pipeline Health").await;
        let log = program.log();
        let holds_some = |line: &str| line.contains("| Buffer: ") && !line.contains("| Buffer: 0/");
        if log.lines().any(holds_some) { Ok(()) } else { Err(log) }
    })
    .await;
}

fn number(log: &str, word: &str) -> i64 {
    let ledger = log.lines().find(|line| line.contains("Ledger: received")).unwrap();
    let rest = ledger.split_once(&format!("{word} ")).unwrap().1;
    rest.split(' ').next().unwrap().parse().unwrap()
}

async fn all_is_stored(database: &TestDatabase, log: &str) {
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM tick_data")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert!(rows > 0 && rows == number(log, "stored"), "{rows} rows\n{log}");
    assert_eq!(number(log, "received"), rows + number(log, "duplicates"), "{log}");
    let open: i64 = sqlx::query_scalar("SELECT count(*) FROM feed_sessions WHERE ended_at IS NULL")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(open, 0, "sessions that are not ended");
}

#[tokio::test]
async fn a_closed_terminal_stops_in_order_and_what_means_nothing_stops_nothing() {
    let database = database().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&database, folder.path());
    let mut program = Program::start(folder.path(), &["live", "--simulate"], &settings);
    ticks_in_memory(&mut program).await;
    for signal in [
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGIO,
        Signal::SIGSTKFLT,
        Signal::SIGXFSZ,
        Signal::SIGPIPE,
    ] {
        program.signal(signal);
    }
    // Real-time signals have numbers and no names.
    for number in [34, 50, 64] {
        let pid = program.pid().to_string();
        let line = ["-c", "kill -$1 $2", "sh", &number.to_string(), &pid];
        assert!(Command::new("sh").args(line).status().unwrap().success(), "{number}");
    }
    program.logged("has no meaning here").await;
    // A terminal that closes: its kernel and its shell both say so.
    program.signal(Signal::SIGHUP);
    program.signal(Signal::SIGTERM);
    let status = program.gone().await;
    let log = program.log();
    assert_eq!(status.code(), Some(0), "{status}\n{log}");
    assert!(log.contains(": stopping; feeds first"), "{log}");
    assert!(!log.contains("again"), "{log}");
    all_is_stored(&database, &log).await;
}

#[tokio::test]
async fn the_limit_of_processor_time_a_quit_and_a_failing_power_supply_stop_in_order() {
    for signal in [Signal::SIGXCPU, Signal::SIGQUIT, Signal::SIGPWR] {
        let database = database().await;
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(&database, folder.path());
        let mut program = Program::start(folder.path(), &["live", "--simulate"], &settings);
        ticks_in_memory(&mut program).await;
        program.signal(signal);
        let status = program.gone().await;
        assert_eq!(status.code(), Some(0), "{signal} {status}\n{}", program.log());
        all_is_stored(&database, &program.log()).await;
    }
}

#[tokio::test]
async fn a_second_signal_of_the_same_wish_waits_and_a_second_ctrl_c_does_not() {
    let database = database().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&database, folder.path());
    let mut program = Program::start(folder.path(), &["live", "--simulate"], &settings);
    ticks_in_memory(&mut program).await;
    // Nothing can be written, so that the stop lasts.
    let mut lock = database.pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE tick_data IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    program.signal(Signal::SIGTERM);
    program.logged("SIGTERM: stopping").await;
    program.signal(Signal::SIGINT);
    program.logged("SIGINT: already stopping").await;
    // A hand takes longer than this to press again.
    sleep(Duration::from_millis(100)).await;
    program.signal(Signal::SIGINT);
    let status = program.gone().await;
    let log = program.log();
    assert_eq!(status.code(), Some(70), "{status}\n{log}");
    assert!(log.contains("SIGINT again: stopped at once"), "{log}");
    lock.rollback().await.unwrap();
}

#[tokio::test]
async fn nohup_keeps_its_meaning() {
    let database = database().await;
    let folder = tempfile::tempdir().unwrap();
    let line = r#"trap '' HUP; exec "$0" live --simulate"#;
    let settings = settings(&database, folder.path());
    let mut program = Program::start_in_shell(folder.path(), line, &settings);
    ticks_in_memory(&mut program).await;
    program.signal(Signal::SIGHUP);
    // It is not heard; what is heard next says so.
    program.signal(Signal::SIGUSR1);
    program.logged("SIGUSR1 has no meaning here").await;
    assert!(!program.log().contains("SIGHUP"), "{}", program.log());
    assert_eq!(program.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_limit_of_the_size_of_files_is_told_as_a_full_disk_is() {
    let database = database().await;
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&database, folder.path());
    settings.extend([
        setting("BATCH__MAX_SIZE", "200"),
        setting("BATCH__MAX_RETRY_ATTEMPTS", "0"),
        setting("SIMULATE__RATE", "100"),
    ]);
    // Of 512 bytes each: room for the log, not for what is spooled.
    let line = r#"ulimit -f 512; exec "$0" live --simulate"#;
    let mut program = Program::start_in_shell(folder.path(), line, &settings);
    program.logged("Feed connected").await;
    // The database is away for the writers; a connection of ours keeps it.
    sqlx::raw_sql("ALTER TABLE tick_data RENAME TO hidden").execute(&database.pool).await.unwrap();
    program.logged("File too large").await;
    sqlx::raw_sql("ALTER TABLE hidden RENAME TO tick_data").execute(&database.pool).await.unwrap();
    program.logged("Spool drained").await;
    let status = program.stop().await;
    let log = program.log();
    assert_eq!(status.code(), Some(0), "{status}\n{log}");
    all_is_stored(&database, &log).await;
}

#[tokio::test]
async fn a_signal_ends_a_check_with_a_word() {
    // A server that takes connections and says nothing.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("postgres://me@{}/x", silent.local_addr().unwrap());
    let child = command()
        .args(["verify"])
        .env("DATABASE_URL", url)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _connection = silent.accept().unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    let (settings, rest) = told.split_once('\n').unwrap();
    assert!(settings.contains("INFO Settings: "), "{told}");
    assert_eq!(rest, "error: SIGTERM: stopped before the end\n");
}
