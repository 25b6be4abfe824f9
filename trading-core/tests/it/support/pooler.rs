//! PgBouncer before a database of a test.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::unistd::{Gid, Uid, User, chown};
use sqlx::postgres::PgConnectOptions;

use super::waiting::until;

/// A pooler between us and a database; ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Bouncer {
    child: Child,
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
    _folder: tempfile::TempDir,
}

impl Bouncer {
    /// In this mode; it ignores nothing of what a connection asks for at its start.
    pub(crate) async fn start(
        program: &Path,
        server: &PgConnectOptions,
        mode: &str,
        pool_size: u32,
    ) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let socket = server.get_socket().unwrap();
        let settings = format!(
            "[databases]\n* = host={} port={} user={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = {pool_size}\n\
             server_login_retry = 1\n\
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
        until(async || {
            let log = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            let connected = TcpStream::connect(("127.0.0.1", port));
            connected.map_err(|_| format!("the pooler does not listen: {}", log()))
        })
        .await;
        Self { child, port, _folder: folder }
    }

    /// A URL of the database behind it.
    pub(crate) fn url(&self, server: &PgConnectOptions, options: &str) -> String {
        let (user, name) = (server.get_username(), server.get_database().unwrap());
        format!("postgres://{user}@127.0.0.1:{}/{name}{options}", self.port)
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
