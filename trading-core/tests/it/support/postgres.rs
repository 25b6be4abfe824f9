//! A real PostgreSQL for tests: one throw-away cluster for each test process, a fresh database for each test.
//!
//! The cluster is the product's own embedded one with durability off, in a short folder under the system's
//! temporary directory; it starts with the first test that asks (0.6 s). When the process ends, however it ends,
//! a shell that waits at the other end of a pipe stops the server and removes the folder.
//! Under `cargo test` all tests share it; a runner with a process for each test starts one each.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::sync::OnceCell;
use trading_core::store::embedded::{Cluster, Durability, Options, command};
use trading_core::store::postgres::migrate::migrate;

use super::waiting::{PATIENCE, until};

/// Waits for the end of the pipe, then for the end of the server, then clears up. Asks the server to end at
/// once (SIGQUIT), over and over: it may just have been starting.
const WATCHDOG: &str = r#"
cat >/dev/null
tries=0
while [ -e "$1" ] && [ $tries -lt 300 ]; do
    running=
    for data in "$1/postgres" "$1/simulated/postgres"; do
        pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null)
        if [ -n "$pid" ] && kill -QUIT "$pid" 2>/dev/null; then running=1; fi
    done
    [ -n "$running" ] || rm -rf "$1"
    tries=$((tries + 1))
    sleep 0.1
done
"#;

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A folder for a cluster that is removed, and its server stopped, when this process ends or this is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: PathBuf,
    is_simulated: bool,
    // Its standard input is the pipe that tells it.
    watchdog: Mutex<Child>,
}

impl Scratch {
    /// A new folder whose name ends in `name`, which may hold blanks.
    pub(crate) fn new(name: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("tc-")
            .suffix(name)
            .tempdir()
            .expect("a temporary folder")
            .keep();
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            // Ctrl-C ends the tests; the watchdog clears up after them.
            .process_group(0)
            .spawn()
            .expect("a shell");
        Self { folder, is_simulated: false, watchdog: Mutex::new(watchdog) }
    }

    /// The same for a recorder of the simulated market, `live --simulate`.
    pub(crate) fn simulated() -> Self {
        let mut scratch = Self::new("");
        scratch.is_simulated = true;
        scratch
    }

    /// What lies in it: the folder, or that of the simulated market in it.
    pub(crate) fn home(&self) -> PathBuf {
        if self.is_simulated { self.folder.join("simulated") } else { self.folder.clone() }
    }

    /// The folder: what `database.data_dir` is set to.
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    /// Options of a throw-away cluster in this folder.
    pub(crate) fn options(&self) -> Options {
        Options {
            data_dir: Some(self.folder.clone()),
            simulated: self.is_simulated,
            durability: Durability::None,
            any_port: true,
            tcp: true,
            ..Options::default()
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut watchdog = self.watchdog.lock().expect("no test panics here");
        drop(watchdog.stdin.take());
        if let Err(error) = watchdog.wait() {
            eprintln!("the watchdog of {} was lost: {error}", self.folder.display());
        }
    }
}

/// A database of one test's own.
#[derive(Debug)]
pub(crate) struct TestDatabase {
    /// Connections to it.
    pub(crate) pool: PgPool,
    /// Its URL, over the Unix socket.
    pub(crate) url: String,
    port: u16,
    pgpass: PathBuf,
}

/// A fresh, empty database in this process's cluster.
pub(crate) async fn database() -> TestDatabase {
    let cluster = cluster().await;
    let name = format!("t_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    let maker = connect(&cluster.url(), 1).await;
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&maker)
        .await
        .expect("a fresh database");
    maker.close().await;
    let url = cluster.url().replace("/trading_core?", &format!("/{name}?"));
    TestDatabase {
        pool: connect(&url, 5).await,
        url,
        port: cluster.port(),
        pgpass: cluster.pgpass(),
    }
}

impl TestDatabase {
    /// Through the Unix socket.
    pub(crate) fn socket(&self) -> PgConnectOptions {
        self.url.parse().expect("a URL of our own")
    }

    /// Over TCP, with the password.
    pub(crate) fn tcp(&self) -> PgConnectOptions {
        let pgpass = std::fs::read_to_string(&self.pgpass).expect("a password file");
        let password = pgpass.trim().rsplit(':').next().expect("a password");
        let options = self.socket();
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username(options.get_username())
            .password(password)
            .database(options.get_database().expect("a database"))
    }
}

/// As [`database`], with our tables.
pub(crate) async fn migrated() -> TestDatabase {
    let database = database().await;
    migrate(&database.pool).await.expect("our tables");
    database
}

/// This process's cluster, which every test shares: crash one of your own ([`Scratch`]), not this.
pub(crate) async fn cluster() -> &'static Cluster {
    static SCRATCH: Mutex<Option<Scratch>> = Mutex::new(None);
    CLUSTER
        .get_or_init(|| async {
            let scratch = Scratch::new("");
            let options = scratch.options();
            // Kept open to the end of the process: statics are not dropped, the kernel closes the pipe.
            *SCRATCH.lock().expect("no test panics here") = Some(scratch);
            Cluster::start(&options).await.expect("a cluster for tests")
        })
        .await
}

/// A pool on a URL.
pub(crate) async fn connect(url: &str, connections: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(PATIENCE)
        .connect(url)
        .await
        .expect("a connection")
}

/// Kills the server as a power cut would, and brings it back through `Cluster::ensure_running`.
pub(crate) async fn crash(cluster: &Cluster, options: &Options) {
    let pid = server_pid(options).await.expect("a running server");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("our own server");
    gone(options).await;
    assert!(cluster.ensure_running().await.expect("a recovery"), "it was seen to be down");
}

/// The server's process, if it runs.
pub(crate) async fn server_pid(options: &Options) -> Option<i32> {
    command::status(options).await.expect("a status").server.map(|server| server.pid)
}

/// Waits until no server runs.
pub(crate) async fn gone(options: &Options) {
    until(async || match server_pid(options).await {
        Some(pid) => Err(format!("the server still runs: process {pid}")),
        None => Ok(()),
    })
    .await;
}
