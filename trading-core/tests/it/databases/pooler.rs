//! PgBouncer: in session mode it is as if it were not there; in the other modes it is named before anything is lost.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::unistd::{Gid, Uid, User, chown};
use tokio::time::{Instant, sleep};
use trading_core::store::postgres::{Pooler, Server, Session, pooler};

use super::{PATIENCE, program, reached, run, settings};
use crate::recorder::Exchanges;
use crate::support::postgres::{TestDatabase, database};
use crate::support::process::Program;
use crate::support::tools::pgbouncer;

const SESSION: Session =
    Session { name: "test", statement_max: Some(Duration::from_millis(4_321)) };

/// A pooler between us and a database; ended when this is dropped.
struct Bouncer {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Bouncer {
    /// In this mode; it ignores nothing of what a connection asks for at its start.
    async fn start(program: &Path, database: &TestDatabase, mode: &str, pool_size: u32) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let server = database.socket();
        let socket = server.get_socket().unwrap();
        let settings = format!(
            "[databases]\n* = host={} port={} user={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = {pool_size}\n\
             logfile = {}\n",
            socket.display(),
            server.get_port(),
            server.get_username(),
            folder.path().join("log").display(),
        );
        let path = folder.path().join("pgbouncer.ini");
        std::fs::write(&path, settings).unwrap();
        let mut command = Command::new(program);
        // As the server's own user, who may enter the socket's folder: it refuses to be root.
        if Uid::effective().is_root() {
            let about = std::fs::metadata(socket).unwrap();
            let (uid, gid) = (Uid::from_raw(about.uid()), Gid::from_raw(about.gid()));
            for path in [folder.path(), &path] {
                chown(path, Some(uid), Some(gid)).unwrap();
            }
            command.arg("-u").arg(User::from_uid(uid).unwrap().unwrap().name);
        }
        let child = command
            .arg(&path)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the pooler does not listen: {log}");
            sleep(Duration::from_millis(20)).await;
        }
        Self { child, port, _folder: folder }
    }

    fn url(&self, database: &TestDatabase, options: &str) -> String {
        let socket = database.socket();
        let (user, name) = (socket.get_username(), socket.get_database().unwrap());
        format!("postgres://{user}@127.0.0.1:{}/{name}{options}", self.port)
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test]
async fn in_session_mode_everything_is_stored_and_the_settings_of_a_session_hold() {
    let Some(tool) = pgbouncer("a pooler in session mode") else { return };
    let database = database().await;
    run(&database.pool, "CREATE SCHEMA mkt").await;
    let bouncer = Bouncer::start(&tool, &database, "session", 20).await;
    let url = bouncer.url(&database, "?options=-c%20search_path%3Dmkt");

    let server = Server::from_url(&url).unwrap();
    assert_eq!(pooler(&server, SESSION).await.unwrap(), None);
    let mut connection = server.connect(SESSION).await.unwrap();
    for (name, value) in [("statement_timeout", "4321ms"), ("search_path", "mkt")] {
        let show = sqlx::AssertSqlSafe(format!("SHOW {name}"));
        let shown: String = sqlx::query_scalar(show).fetch_one(&mut connection).await.unwrap();
        assert_eq!(shown, value, "{name}");
    }

    let exchanges = Exchanges::start(40).await;
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&exchanges.settings, &url, folder.path());
    let mut recorder = Program::start(folder.path(), &["live", "--exchange", "binance"], &settings);
    reached(&database.pool, "SELECT count(*) FROM mkt.tick_data", 1_000).await;
    let status = recorder.stop().await;
    let log = recorder.log();
    assert!(status.success() && log.contains("spooled 0"), "{status}\n{log}");
    assert!(!log.contains("Store circuit OPEN"), "{log}");
    let (_, told, _) = program(&["doctor", "--exchange", "binance"], &settings);
    assert!(told.contains("the tables are those of this version"), "{told}");
}

#[tokio::test]
async fn in_transaction_and_statement_mode_doctor_and_live_name_the_pooler_and_the_cure() {
    let Some(tool) = pgbouncer("a pooler in transaction mode") else { return };
    let database = database().await;
    for (mode, found) in [("transaction", Pooler::Transaction), ("statement", Pooler::Statement)] {
        for pool_size in [1, 20] {
            let bouncer = Bouncer::start(&tool, &database, mode, pool_size).await;
            let url = bouncer.url(&database, "");
            let server = Server::from_url(&url).unwrap();
            assert_eq!(pooler(&server, SESSION).await.unwrap(), Some(found), "{mode} {pool_size}");

            let folder = tempfile::tempdir().unwrap();
            let settings = settings(&Vec::new(), &url, folder.path());
            let (code, _, told) = program(&["live", "--simulate"], &settings);
            assert_eq!(code, Some(1), "{told}");
            assert!(told.contains(mode) && told.contains("use its session mode"), "{told}");
            let (code, told, _) = program(&["doctor", "--exchange", "okx"], &settings);
            assert_eq!(code, Some(2), "{told}");
            assert!(told.contains(&format!("a pooler in {mode} mode")), "{told}");
        }
    }
}
