//! A throw-away cluster of the product's own, fully durable: what is measured is what a recorder gets.

use sqlx::postgres::PgConnectOptions;
use trading_core::store::embedded::{Cluster, Options, command};

/// A running server.
pub(crate) struct Server {
    cluster: Cluster,
    options: Options,
    folder: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("tc-bench-").tempdir().unwrap();
        let data_dir = Some(folder.path().join("db"));
        let options = Options { data_dir, any_port: true, tcp: true, ..Options::default() };
        let cluster = Cluster::start(&options).await.unwrap();
        Self { cluster, options, folder }
    }

    /// Through the Unix socket.
    pub(crate) fn socket(&self) -> PgConnectOptions {
        self.cluster.url().parse().unwrap()
    }

    /// Over TCP, with the password.
    pub(crate) fn tcp(&self) -> PgConnectOptions {
        let pgpass = std::fs::read_to_string(self.cluster.pgpass()).unwrap();
        let socket = self.socket();
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.cluster.port())
            .username(socket.get_username())
            .password(pgpass.trim().rsplit(':').next().unwrap())
            .database(socket.get_database().unwrap())
    }

    /// A file that goes with the server.
    pub(crate) fn scratch(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Runs one command of psql.
    pub(crate) async fn psql(&self, psql_command: &str) {
        let arguments = ["-q", "-v", "ON_ERROR_STOP=1", "-c", psql_command].map(Into::into);
        let mut psql = command::psql(&self.options, arguments.to_vec()).await.unwrap();
        assert!(psql.status().unwrap().success());
    }

    pub(crate) async fn stop(self) {
        self.cluster.stop().await.unwrap();
    }
}
