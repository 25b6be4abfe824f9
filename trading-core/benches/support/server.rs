pub(crate) struct Server;
use sqlx::postgres::PgConnectOptions;
impl Server {
    pub(crate) async fn start() -> Self {
        Self
    }
    pub(crate) fn socket(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket("/tmp/bench")
            .port(55990)
            .username("postgres")
            .database("t2")
    }
    pub(crate) fn tcp(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(55990)
            .username("postgres")
            .database("t2")
    }
    pub(crate) fn scratch(&self, name: &str) -> String {
        format!("/tmp/bench/{name}")
    }
    pub(crate) fn psql(&self, command: &str) {
        let out = std::process::Command::new("psql")
            .args([
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "host=/tmp/bench port=55990 user=postgres dbname=t2",
                "-c",
                command,
            ])
            .status()
            .unwrap();
        assert!(out.success());
    }
    pub(crate) async fn stop(self) {}
}
