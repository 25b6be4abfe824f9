//! The embedded database keeps what its front page promises, with real servers.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, fs};

use trading_core::store::embedded::command::{self, Stop};
use trading_core::store::embedded::{
    Arrival, Cluster, Departure, Durability, EmbeddedError, Options,
};

use crate::support::postgres::{Scratch, connect, crash, database, gone, server_pid};
use crate::support::waiting::until;

/// Set for a copy of this program that plays a recorder: the cluster's folder.
const RECORDER: &str = "TRADING_CORE_TEST_RECORDER";

async fn count(url: &str) -> i64 {
    let pool = connect(url, 1).await;
    let rows = sqlx::query_scalar("SELECT count(*) FROM kept").fetch_one(&pool).await.unwrap();
    pool.close().await;
    rows
}

async fn keep_a_row(url: &str) {
    let pool = connect(url, 1).await;
    sqlx::raw_sql("CREATE TABLE IF NOT EXISTS kept (n int); INSERT INTO kept VALUES (1)")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
}

/// For tests that crash: what is committed must be there.
fn durable(scratch: &Scratch) -> Options {
    Options { durability: Durability::Full, ..scratch.options() }
}

#[tokio::test]
async fn a_cluster_is_made_stopped_and_started_again_with_its_rows_and_its_url() {
    let scratch = Scratch::new("");
    let options = scratch.options();
    let cluster = Cluster::start(&options).await.unwrap();
    assert_eq!(cluster.arrival(), Arrival::Started);
    let url = cluster.url();
    keep_a_row(&url).await;
    assert_eq!(cluster.stop().await.unwrap(), Departure::Stopped);
    assert_eq!(server_pid(&options).await, None);

    let cluster = Cluster::start(&options).await.unwrap();
    assert_eq!(cluster.url(), url);
    assert_eq!(count(&url).await, 1);
    assert_eq!(cluster.stop().await.unwrap(), Departure::Stopped);
}

#[tokio::test]
async fn a_path_with_blanks_quotes_and_commas_works_for_sqlx_and_psql() {
    let scratch = Scratch::new(" a b, \"c\" d'e");
    let options = scratch.options();
    let cluster = Cluster::start(&options).await.unwrap();
    keep_a_row(&cluster.url()).await;
    let args = ["-Atc", "SELECT count(*) FROM kept"].map(Into::into).to_vec();
    let output = command::psql(&options, args).await.unwrap().output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n", "{output:?}");
    let socket_dir = command::status(&options).await.unwrap().server.unwrap().socket_dir;
    cluster.stop().await.unwrap();
    // Not beside the data: no URL can say a comma.
    assert!(!socket_dir.starts_with(scratch.path()));
    fs::remove_dir_all(socket_dir).unwrap();
}

#[tokio::test]
async fn a_path_with_blanks_and_quotes_keeps_its_socket_beside_the_data() {
    let scratch = Scratch::new(" a \"b\" c'd");
    let options = scratch.options();
    let cluster = Cluster::start(&options).await.unwrap();
    let args = ["-Atc", "SELECT 1"].map(Into::into).to_vec();
    let output = command::psql(&options, args).await.unwrap().output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n", "{output:?}");
    let socket_dir = command::status(&options).await.unwrap().server.unwrap().socket_dir;
    assert!(socket_dir.ends_with("run"));
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_works() {
    let scratch = Scratch::new("");
    let options =
        Options { data_dir: Some(scratch.path().join("l".repeat(120))), ..scratch.options() };
    if nix::unistd::geteuid().is_root() {
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o711)).unwrap();
    }
    let cluster = Cluster::start(&options).await.unwrap();
    keep_a_row(&cluster.url()).await;
    let socket_dir = command::status(&options).await.unwrap().server.unwrap().socket_dir;
    assert_eq!(fs::metadata(&socket_dir).unwrap().mode() & 0o777, 0o700);
    assert_eq!(cluster.stop().await.unwrap(), Departure::Stopped);
    fs::remove_dir_all(socket_dir).unwrap();
}

#[tokio::test]
async fn two_starts_at_once_share_one_server_and_the_last_stops_it() {
    let scratch = Scratch::new("");
    let options = scratch.options();
    let (one, other) = tokio::join!(Cluster::start(&options), Cluster::start(&options));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_ne!(one.arrival(), other.arrival(), "one starts, the other joins");
    assert_eq!(one.stop().await.unwrap(), Departure::LeftToOthers);
    keep_a_row(&other.url()).await;
    assert_eq!(other.stop().await.unwrap(), Departure::Stopped);
    assert_eq!(server_pid(&options).await, None);
}

#[tokio::test]
async fn db_start_keeps_it_running_past_a_recorder_until_db_stop() {
    let scratch = Scratch::new("");
    let options = scratch.options();
    let start = command::start(&options).await.unwrap();
    assert!(!start.ran_already);
    let server = start.status.server.unwrap();
    assert!(server.kept_running && !server.in_use && server.version.is_some());

    let recorder = Cluster::start(&options).await.unwrap();
    assert_eq!(recorder.arrival(), Arrival::Joined);
    assert!(command::status(&options).await.unwrap().server.unwrap().in_use);
    assert_eq!(recorder.stop().await.unwrap(), Departure::KeptRunning);
    assert_eq!(server_pid(&options).await, Some(server.pid));
    assert!(command::start(&options).await.unwrap().ran_already);

    assert_eq!(command::stop(&options).await.unwrap(), Stop::Stopped);
    assert_eq!(command::stop(&options).await.unwrap(), Stop::NotRunning);
    assert!(command::status(&options).await.unwrap().server.is_none());
}

#[tokio::test]
async fn db_stop_under_a_recorder_stops_it_and_the_recorder_leaves_it_stopped() {
    let scratch = Scratch::new("");
    let options = scratch.options();
    let recorder = Cluster::start(&options).await.unwrap();
    assert_eq!(command::stop(&options).await.unwrap(), Stop::StoppedInUse);
    assert!(!recorder.ensure_running().await.unwrap(), "stopped on purpose stays stopped");
    assert_eq!(server_pid(&options).await, None);
    assert_eq!(recorder.stop().await.unwrap(), Departure::WasStopped);
}

/// The other half of the next test: not a test of its own, so it ends at once when nobody asks for it.
#[tokio::test]
async fn a_recorder_for_others_to_kill() {
    let Some(folder) = env::var_os(RECORDER) else { return };
    let options = Options { data_dir: Some(PathBuf::from(folder)), ..Options::default() };
    let _cluster = Cluster::start(&options).await.unwrap();
    fs::write(options.data_dir.unwrap().join("spool"), "ready").unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_recorder_leaves_its_server_and_the_next_takes_it_over_and_stops_it() {
    let scratch = Scratch::new("");
    let options = scratch.options();
    // The first start makes the cluster with the options of tests; the recorder's own are another program's.
    Cluster::start(&options).await.unwrap().stop().await.unwrap();
    let mut recorder = Command::new(env::current_exe().unwrap())
        .args(["--exact", "embedded::a_recorder_for_others_to_kill"])
        .env(RECORDER, scratch.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until(async || {
        assert!(recorder.try_wait().unwrap().is_none(), "the recorder ended");
        let is_there = scratch.path().join("spool").exists();
        if is_there { Ok(()) } else { Err("the recorder is late".to_owned()) }
    })
    .await;
    let pid = server_pid(&options).await.unwrap();
    recorder.kill().unwrap();
    assert_eq!(recorder.wait().unwrap().signal(), Some(9));

    let server = command::status(&options).await.unwrap().server.unwrap();
    assert!(!server.in_use && !server.kept_running, "nobody dead is believed to use it");
    let next = Cluster::start(&options).await.unwrap();
    assert_eq!((next.arrival(), server.pid), (Arrival::Joined, pid));
    keep_a_row(&next.url()).await;
    assert_eq!(next.stop().await.unwrap(), Departure::Stopped);
}

#[tokio::test]
async fn a_crashed_server_is_brought_back_with_what_was_committed() {
    let scratch = Scratch::new("");
    let options = durable(&scratch);
    let cluster = Cluster::start(&options).await.unwrap();
    keep_a_row(&cluster.url()).await;
    crash(&cluster, &options).await;
    assert_eq!(count(&cluster.url()).await, 1);
    assert!(!cluster.ensure_running().await.unwrap(), "it runs");
    assert_eq!(cluster.stop().await.unwrap(), Departure::Stopped);
}

#[tokio::test]
async fn a_process_number_left_by_a_power_cut_and_taken_by_another_program_is_no_obstacle() {
    let scratch = Scratch::new("");
    let options = durable(&scratch);
    let cluster = Cluster::start(&options).await.unwrap();
    keep_a_row(&cluster.url()).await;
    let pid_file = scratch.path().join("postgres/postmaster.pid");
    let pid = server_pid(&options).await.unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
    gone(&options).await;
    // The number is now that of a program which lives, of the same user where we are not root.
    let mut other = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
    let text = fs::read_to_string(&pid_file).unwrap();
    let text = text.replacen(&pid.to_string(), &other.id().to_string(), 1);
    fs::write(&pid_file, text).unwrap();

    assert_eq!(server_pid(&options).await, None, "another program is not the server");
    let next = Cluster::start(&options).await.unwrap();
    assert_eq!(next.arrival(), Arrival::Started);
    assert_eq!(count(&next.url()).await, 1);
    assert!(other.try_wait().unwrap().is_none(), "and was not harmed");
    other.kill().unwrap();
    other.wait().unwrap();
    drop(cluster);
    assert_eq!(next.stop().await.unwrap(), Departure::Stopped);
}

#[tokio::test]
async fn a_database_half_made_by_a_killed_initdb_is_made_anew() {
    let scratch = Scratch::new("");
    let options = scratch.options();
    let half = scratch.path().join("initdb.cutoff");
    fs::create_dir_all(half.join("data/base")).unwrap();
    fs::write(half.join("data/PG_VERSION"), "15\n").unwrap();
    let cluster = Cluster::start(&options).await.unwrap();
    assert!(!half.exists());
    assert_eq!(cluster.stop().await.unwrap(), Departure::Stopped);
}

#[tokio::test]
async fn a_port_taken_by_another_program_gives_way_to_a_free_one_that_is_kept() {
    let scratch = Scratch::new("");
    let options = scratch.options();
    let cluster = Cluster::start(&options).await.unwrap();
    let port = cluster.port();
    cluster.stop().await.unwrap();
    assert_eq!(command::taken_port(&options).await.unwrap(), None);
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    assert_eq!(command::taken_port(&options).await.unwrap(), Some(port));
    // Without TCP nobody is in its way.
    let socket_only = Options { tcp: false, ..options.clone() };
    assert_eq!(command::taken_port(&socket_only).await.unwrap(), None);
    let cluster = Cluster::start(&socket_only).await.unwrap();
    assert_eq!(cluster.port(), port);
    cluster.stop().await.unwrap();

    let cluster = Cluster::start(&options).await.unwrap();
    let other = cluster.port();
    assert_ne!(other, port);
    keep_a_row(&cluster.url()).await;
    std::net::TcpStream::connect(("127.0.0.1", other)).unwrap();
    cluster.stop().await.unwrap();
    drop(taken);
    let cluster = Cluster::start(&options).await.unwrap();
    assert_eq!(cluster.port(), other, "programs that were given it need no third one");
    cluster.stop().await.unwrap();
    // As the warning says.
    fs::write(scratch.path().join("port"), port.to_string()).unwrap();
    let cluster = Cluster::start(&options).await.unwrap();
    assert_eq!(cluster.port(), port);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_port_taken_while_the_server_was_down_leaves_the_recorder_its_socket() {
    let scratch = Scratch::new("");
    let options = durable(&scratch);
    let cluster = Cluster::start(&options).await.unwrap();
    keep_a_row(&cluster.url()).await;
    let pid = server_pid(&options).await.unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
    gone(&options).await;
    let _taken = TcpListener::bind(("127.0.0.1", cluster.port())).unwrap();
    assert!(cluster.ensure_running().await.unwrap(), "it was seen to be down");
    assert_eq!(count(&cluster.url()).await, 1);
    let server = command::status(&options).await.unwrap().server.unwrap();
    assert_eq!((server.port, server.tcp), (cluster.port(), false));
    assert_eq!(cluster.stop().await.unwrap(), Departure::Stopped);
}

#[tokio::test]
async fn a_directory_of_something_else_is_refused_and_left_alone() {
    let scratch = Scratch::new("");
    fs::write(scratch.path().join("thesis.txt"), "years").unwrap();
    let error = Cluster::start(&scratch.options()).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::Foreign { .. }), "{error}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn data_of_another_major_version_is_refused_with_both_versions() {
    let scratch = Scratch::new("");
    let options = scratch.options();
    Cluster::start(&options).await.unwrap().stop().await.unwrap();
    fs::write(scratch.path().join("postgres/PG_VERSION"), "13\n").unwrap();
    let error = Cluster::start(&options).await.unwrap_err();
    assert!(matches!(&error, EmbeddedError::WrongMajor { data, .. } if data == "13"), "{error}");
}

#[tokio::test]
async fn a_folder_without_a_server_in_pg_bin_is_refused() {
    let scratch = Scratch::new("");
    let options = Options { bin_dir: Some(scratch.path().to_owned()), ..scratch.options() };
    let error = Cluster::start(&options).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::BadOverride { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_start_shows_the_end_of_its_log() {
    let scratch = Scratch::new("");
    let options = scratch.options();
    Cluster::start(&options).await.unwrap().stop().await.unwrap();
    let settings = scratch.path().join("postgres/postgresql.conf");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, text + "no_such_setting = 1\n").unwrap();
    let error = Cluster::start(&options).await.unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn over_tcp_the_password_in_its_file_is_asked_for() {
    let scratch = Scratch::new("");
    let options = scratch.options();
    let cluster = Cluster::start(&options).await.unwrap();
    assert_eq!(fs::metadata(cluster.pgpass()).unwrap().mode() & 0o777, 0o600);
    let psql = |pgpass: PathBuf| {
        Command::new("psql")
            .args(["-w", "-h", "127.0.0.1", "-p", &cluster.port().to_string()])
            .args(["-U", "trading_core", "-Atc", "SELECT 1", "trading_core"])
            .env("PGPASSFILE", pgpass)
            .output()
            .unwrap()
    };
    assert!(psql(cluster.pgpass()).status.success());
    let refused = psql(PathBuf::from("/nonexistent"));
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("password"), "{refused:?}");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn the_server_is_never_root_and_hears_no_ctrl_c_of_ours() {
    let scratch = Scratch::new("");
    let options = scratch.options();
    let cluster = Cluster::start(&options).await.unwrap();
    let pid = server_pid(&options).await.unwrap();
    assert_ne!(fs::metadata(scratch.path().join("postgres")).unwrap().uid(), 0);
    let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid))).unwrap();
    assert_eq!(group.as_raw(), pid, "a process group of its own");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn each_test_gets_a_database_of_its_own() {
    let (one, other) = tokio::join!(database(), database());
    assert_ne!(one.url, other.url);
    sqlx::raw_sql("CREATE TABLE mine ()").execute(&one.pool).await.unwrap();
    sqlx::raw_sql("CREATE TABLE mine ()").execute(&other.pool).await.unwrap();
}
