use sqlx::Executor as _;
use sqlx::postgres::{PgConnectOptions, PgPool};
pub(crate) struct TestDatabase {
    pub(crate) pool: PgPool,
    pub(crate) options: PgConnectOptions,
    pub(crate) tcp: PgConnectOptions,
}
static N: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
pub(crate) async fn database() -> TestDatabase {
    let name = format!(
        "t_{}_{}",
        std::process::id(),
        N.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    );
    let base = PgConnectOptions::new_without_pgpass().port(55990).username("postgres");
    let admin =
        PgPool::connect_with(base.clone().socket("/tmp/pgb").database("postgres")).await.unwrap();
    admin.execute(sqlx::AssertSqlSafe(format!("create database {name}"))).await.unwrap();
    let options = base.clone().socket("/tmp/pgb").database(&name);
    let pool = PgPool::connect_with(options.clone()).await.unwrap();
    TestDatabase { pool, options, tcp: base.host("127.0.0.1").database(&name) }
}
