//! The embedded server and the program that runs it: neither outlives the other unasked, and what one knows that is
//! secret the other does not say.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;
use sqlx::Connection as _;
use trading_core::store::embedded::command::{self as db, Stop};
use trading_core::store::embedded::{Cluster, EmbeddedError, Options};

use crate::support::postgres::{Scratch, gone, server_pid};
use crate::support::process::{Program, command, setting};

fn settings(scratch: &Scratch) -> Vec<(String, String)> {
    vec![setting("DATABASE__DATA_DIR", scratch.path().display()), setting("SIMULATE__RATE", "1")]
}

#[tokio::test]
async fn a_killed_recorder_takes_its_server_with_it() {
    let scratch = Scratch::simulated();
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path(), &["live", "--simulate"], &settings(&scratch));
    program.logged("Feed connected").await;
    assert!(server_pid(&scratch.options()).await.is_some());
    program.signal(Signal::SIGKILL);
    program.gone().await;
    gone(&scratch.options()).await;
    // In order: nothing is left to recover.
    let log = fs::read_to_string(scratch.home().join("postgres.log")).unwrap();
    assert!(log.contains("database system is shut down"), "{log}");
}

#[tokio::test]
async fn a_killed_recorder_leaves_a_server_that_another_uses_or_db_start_keeps() {
    let scratch = Scratch::simulated();
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path(), &["live", "--simulate"], &settings(&scratch));
    program.logged("Feed connected").await;
    let other = Cluster::start(&scratch.options()).await.unwrap();
    program.signal(Signal::SIGKILL);
    program.gone().await;
    // What the watchdog does, asked for by hand: it is done once this has an answer.
    let answer = || async {
        let unused = ["db", "stop", "--if-unused", "--simulated"];
        let output = command().args(unused).envs(settings(&scratch)).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(answer().await.contains("left running"));
    let mut connection = sqlx::PgConnection::connect(&other.url()).await.unwrap();
    connection.ping().await.unwrap();
    connection.close().await.unwrap();
    let start =
        command().args(["db", "start", "--simulated"]).envs(settings(&scratch)).output().unwrap();
    assert!(start.status.success(), "{start:?}");
    other.stop().await.unwrap();
    assert!(answer().await.contains("left running"), "db start keeps it");
    assert!(server_pid(&scratch.options()).await.is_some());
    assert_eq!(db::stop(&scratch.options()).await.unwrap(), Stop::Stopped);
    assert!(answer().await.contains("was not running"));
}

#[tokio::test]
async fn a_start_that_fails_midway_leaves_no_server() {
    let scratch = Scratch::new("");
    let options = scratch.options();
    Cluster::start(&options).await.unwrap().stop().await.unwrap();
    // The server starts, and its password cannot be kept.
    fs::remove_file(scratch.path().join("pgpass")).unwrap();
    fs::create_dir(scratch.path().join("pgpass.new")).unwrap();
    let error = Cluster::start(&options).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::Io { .. }), "{error}");
    assert_eq!(server_pid(&options).await, None);
}

#[tokio::test]
async fn a_signal_during_the_first_start_leaves_no_server() {
    let scratch = Scratch::simulated();
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path(), &["live", "--simulate"], &settings(&scratch));
    program.logged("Making the embedded database").await;
    let status = program.stop().await;
    assert_eq!(status.code(), Some(0), "{status}\n{}", program.log());
    assert!(program.log().contains("SIGTERM: stopped before anything was recorded"));
    assert_eq!(server_pid(&scratch.options()).await, None);
}

#[tokio::test]
async fn no_log_at_any_level_holds_the_password() {
    let scratch = Scratch::simulated();
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&scratch);
    settings.push(("RUST_LOG".to_owned(), "trace".to_owned()));
    let mut program = Program::start(folder.path(), &["-vvv", "live", "--simulate"], &settings);
    program.logged("Feed connected").await;
    program.stop().await;
    let pgpass = fs::read_to_string(scratch.home().join("pgpass")).unwrap();
    let password = pgpass.trim().rsplit(':').next().unwrap();
    assert_eq!(password.len(), 32);
    let server = fs::read_to_string(scratch.home().join("postgres.log")).unwrap();
    for log in [program.log(), server] {
        assert!(!log.contains(password), "the password is in a log");
        assert!(!log.contains("SCRAM-SHA-256$"), "nor what is made of it");
    }
}

#[tokio::test]
async fn children_know_nothing_of_our_environment() {
    let scratch = Scratch::simulated();
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&scratch);
    for (name, value) in [
        ("MY_SECRET", "hunter2"),
        ("PGSSLMODE", "require"),
        ("PGOPTIONS", "-c work_mem=1MB"),
        ("TZ", "Asia/Kolkata"),
        ("LC_ALL", "C.UTF-8"),
        ("MALLOC_ARENA_MAX", "1"),
    ] {
        settings.push((name.to_owned(), value.to_owned()));
    }
    let mut program = Program::start(folder.path(), &["live", "--simulate"], &settings);
    program.logged("Embedded database started").await;
    let pid = server_pid(&scratch.options()).await.unwrap();
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let names: Vec<&str> = environment
        .split('\0')
        .filter_map(|it| it.split('=').next())
        .filter(|it| !it.is_empty())
        .collect();
    let known = ["PATH", "LD_LIBRARY_PATH", "TMPDIR", "LC_ALL", "HOME", "PWD"];
    // The server adds its own: what it tells its children of itself.
    let ours = |name: &&&str| !name.starts_with("PG") && !name.starts_with("LC_");
    let strange: Vec<_> = names.iter().filter(ours).filter(|name| !known.contains(name)).collect();
    assert!(strange.is_empty(), "{strange:?} of {names:?}");
    assert!(!environment.contains("PGOPTIONS") && !environment.contains("PGSSLMODE"), "{names:?}");
    assert!(program.stop().await.success());
}

#[tokio::test]
async fn it_listens_on_its_socket_alone_until_tcp_is_asked_for() {
    let scratch = Scratch::new("");
    let socket_only = Options { tcp: false, ..scratch.options() };
    let cluster = Cluster::start(&socket_only).await.unwrap();
    let tcp = |port: u16| std::net::TcpStream::connect(("127.0.0.1", port));
    assert!(tcp(cluster.port()).is_err(), "nobody can knock");
    let status = db::status(&socket_only).await.unwrap();
    assert!(status.to_string().contains("tcp       off; database.tcp = true"), "{status}");
    let mut connection = sqlx::PgConnection::connect(&cluster.url()).await.unwrap();
    let locks: String = sqlx::query_scalar("SHOW max_locks_per_transaction")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(locks, "1024");
    connection.close().await.unwrap();
    cluster.stop().await.unwrap();

    // An operator's own number stands.
    let file = scratch.path().join("postgres/postgresql.conf");
    let text = fs::read_to_string(&file).unwrap() + "max_locks_per_transaction = 256\n";
    fs::write(&file, text).unwrap();
    let cluster = Cluster::start(&scratch.options()).await.unwrap();
    assert!(tcp(cluster.port()).is_ok());
    let status = db::status(&socket_only).await.unwrap();
    assert!(status.to_string().contains("psql -h 127.0.0.1"), "{status}");
    let args = ["-Atc", "SHOW max_locks_per_transaction"].map(Into::into).to_vec();
    let output = db::psql(&socket_only, args).await.unwrap().output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "256\n");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_clock_that_is_made_up_for_the_recorder_is_not_the_servers() {
    let Some(fake) = crate::support::tools::faketime("the_servers_clock", "+60d") else { return };
    let scratch = Scratch::new("");
    let start =
        command().args(["db", "start"]).envs(settings(&scratch)).envs(fake).output().unwrap();
    assert!(start.status.success(), "{start:?}");
    let args = ["-Atc", "SELECT extract(epoch FROM now())::bigint"].map(Into::into).to_vec();
    let output = db::psql(&scratch.options(), args).await.unwrap().output().unwrap();
    let server: i64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    let date = Command::new("date").arg("+%s").output().unwrap();
    let ours: i64 = String::from_utf8(date.stdout).unwrap().trim().parse().unwrap();
    assert!((ours - server).abs() < 3_600, "{ours} {server}");
    db::stop(&scratch.options()).await.unwrap();
}
