//! An outage never costs a row, and a bad row is never taken for an outage: provoked on a real PostgreSQL.

use sqlx::postgres::PgConnectOptions;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, PgPool,
};
use trading_core::domain::{Tick, TradeId};
use trading_core::store::postgres::PostgresStore;
use trading_core::store::{Remedy, Store as _, StoreError, Written};

use crate::support::postgres::{TestDatabase, migrated};
use crate::support::ticks::{tick, ticks};
use crate::support::waiting::until;

/// Runs statements; the test's own database is `{database}`.
async fn run(database: &TestDatabase, statements: &str) {
    let name = name(database);
    let statements = statements.replace("{database}", &name).replace("{role}", &role(database));
    database.pool.execute(sqlx::raw_sql(AssertSqlSafe(statements))).await.unwrap();
}

fn name(database: &TestDatabase) -> String {
    database.socket().get_database().unwrap().to_owned()
}

fn role(database: &TestDatabase) -> String {
    format!("writer_{}", name(database))
}

/// A user that limits and rights hold for, as they do not for the owner of the cluster.
async fn ordinary_user(database: &TestDatabase) -> PgConnectOptions {
    run(database, "CREATE ROLE {role} LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; GRANT ALL ON SCHEMA public TO {role}").await;
    database.socket().username(&role(database))
}

async fn rows(pool: &PgPool, table: &'static str) -> i64 {
    let sql = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

fn sqlstate(error: &StoreError<Tick>) -> String {
    let source = std::error::Error::source(error).unwrap().downcast_ref::<sqlx::Error>().unwrap();
    let refusal = source.as_database_error();
    refusal.unwrap_or_else(|| panic!("{source:?}")).code().unwrap().into_owned()
}

/// The store fails with this SQLSTATE and this remedy, sets nothing aside, and stores everything afterwards.
async fn fails(
    database: &TestDatabase,
    store: &PostgresStore,
    batch: &[Tick],
    expected: (&str, Remedy),
) {
    let error = store.write(batch).await.unwrap_err();
    assert_eq!((sqlstate(&error).as_str(), error.remedy()), expected, "{error:?}");
    assert_eq!(
        rows(&database.pool, "rejected_ticks").await,
        0,
        "no row is blamed for {}",
        expected.0
    );
}

async fn recovers(store: &PostgresStore, batch: &[Tick]) {
    let written = store.write(batch).await.unwrap();
    let stored = u64::try_from(batch.len()).unwrap();
    assert_eq!(written, Written { stored, ..Written::default() });
}

/// Waits until a writer of this database waits for a lock.
async fn a_writer_waits(database: &TestDatabase) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'trading-core writer' \
         AND datname = current_database() AND wait_event_type = 'Lock'";
    until(async || {
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&database.pool).await.unwrap();
        if waiting > 0 { Ok(()) } else { Err("no writer waits".to_owned()) }
    })
    .await;
}

/// A second session that holds the whole table.
async fn lock_table(database: &TestDatabase) -> PgConnection {
    let mut blocker = database.socket().connect().await.unwrap();
    blocker.execute("BEGIN; LOCK TABLE tick_data IN ACCESS EXCLUSIVE MODE").await.unwrap();
    blocker
}

#[tokio::test]
async fn a_write_that_is_terminated_or_cancelled_is_an_outage() {
    let database = migrated().await;
    let store = PostgresStore::new(database.socket());
    store.write(&ticks(0..1)).await.unwrap();
    // Told 57P01, or only that the connection ended: what the server said last may be lost with it.
    let (error, ()) = futures_util::join!(
        interrupted(&database, &store),
        interrupt(&database, "pg_terminate_backend")
    );
    assert_eq!(error.remedy(), Remedy::Retry, "{error:?}");
    let (error, ()) = futures_util::join!(
        interrupted(&database, &store),
        interrupt(&database, "pg_cancel_backend")
    );
    assert_eq!((sqlstate(&error).as_str(), error.remedy()), ("57014", Remedy::Retry), "{error:?}");
    assert_eq!(rows(&database.pool, "rejected_ticks").await, 0);
    recovers(&store, &ticks(1..500)).await;
}

/// A write that waits for a lock until it fails.
async fn interrupted(database: &TestDatabase, store: &PostgresStore) -> StoreError<Tick> {
    let blocker = lock_table(database).await;
    let error = store.write(&ticks(1..500)).await.unwrap_err();
    blocker.close().await.unwrap();
    error
}

async fn interrupt(database: &TestDatabase, function: &str) {
    a_writer_waits(database).await;
    let which = "application_name = 'trading-core writer' AND datname = current_database()";
    run(database, &format!("SELECT {function}(pid) FROM pg_stat_activity WHERE {which}")).await;
}

#[tokio::test]
async fn a_server_that_takes_no_more_connections_is_an_outage() {
    let database = migrated().await;
    let store = PostgresStore::new(ordinary_user(&database).await);
    run(&database, "ALTER ROLE {role} CONNECTION LIMIT 0").await;
    fails(&database, &store, &ticks(0..10), ("53300", Remedy::Retry)).await;
    run(&database, "ALTER ROLE {role} CONNECTION LIMIT -1").await;
    store_partitions(&database, &store).await;
}

#[tokio::test]
async fn a_read_only_server_is_an_outage() {
    let database = migrated().await;
    let store = PostgresStore::new(database.socket());
    recovers(&store, &ticks(0..10)).await;
    run(&database, "ALTER DATABASE {database} SET default_transaction_read_only = on").await;
    let fresh = PostgresStore::new(database.socket());
    fails(&database, &fresh, &ticks(10..20), ("25006", Remedy::Retry)).await;
    run(
        &database,
        "BEGIN READ WRITE; ALTER DATABASE {database} SET default_transaction_read_only = off; COMMIT",
    )
    .await;
    recovers(&fresh, &ticks(10..20)).await;
}

#[tokio::test]
async fn a_lock_that_is_not_had_in_time_is_an_outage() {
    let database = migrated().await;
    let store = PostgresStore::new(database.socket());
    store.write(&ticks(0..1)).await.unwrap();
    run(&database, "ALTER DATABASE {database} SET lock_timeout = '50ms'").await;
    let fresh = PostgresStore::new(database.socket());
    let blocker = lock_table(&database).await;
    fails(&database, &fresh, &ticks(1..10), ("55P03", Remedy::Retry)).await;
    blocker.close().await.unwrap();
    recovers(&fresh, &ticks(1..10)).await;
}

#[tokio::test]
async fn two_that_lock_each_other_up_cost_no_tick() {
    let database = migrated().await;
    let store = PostgresStore::new(database.socket());
    store.write(&ticks(0..1)).await.unwrap();
    // Another session holds tick 20 and wants tick 10; the store writes 10 to 20 in that order.
    let mut other = database.socket().connect().await.unwrap();
    let insert = |tick: Tick| {
        sqlx::query(
            "INSERT INTO tick_data VALUES ($1, $1, $2, $3, $4, 'buy', 1, 1, 'live') ON CONFLICT DO NOTHING",
        )
        .bind(tick.exchange_at.to_datetime())
        .bind(tick.instrument.exchange())
        .bind(tick.instrument.symbol().as_str())
        .bind(tick.trade_id.to_string())
    };
    // The store is the one whom the server sends away.
    other.execute("SET deadlock_timeout = '1min'").await.unwrap();
    other.execute("BEGIN").await.unwrap();
    insert(tick(20)).execute(&mut other).await.unwrap();
    let batch = ticks(10..21);
    let meeting = async {
        a_writer_waits(&database).await;
        insert(tick(10)).execute(&mut other).await.unwrap();
        other.execute("COMMIT").await.unwrap();
    };
    let (written, ()) = futures_util::join!(store.write(&batch), meeting);
    // Redone at once, it may run into the same session again.
    let written = match written {
        Ok(written) => written,
        Err(error) => {
            assert_eq!((sqlstate(&error).as_str(), error.remedy()), ("40P01", Remedy::Retry));
            store.write(&batch).await.unwrap()
        }
    };
    assert_eq!(written, Written { stored: 9, duplicates: 2, rejected: 0 });
    assert_eq!(rows(&database.pool, "rejected_ticks").await, 0);
}

#[tokio::test]
async fn a_missing_right_or_table_needs_a_person_and_costs_no_row() {
    let database = migrated().await;
    let store = PostgresStore::new(ordinary_user(&database).await);
    store_partitions(&database, &store).await;
    run(&database, "REVOKE INSERT ON tick_data FROM {role}").await;
    fails(&database, &store, &ticks(10..20), ("42501", Remedy::Stop)).await;
    run(
        &database,
        "GRANT INSERT ON tick_data TO {role}; ALTER TABLE tick_data RENAME COLUMN side TO taker",
    )
    .await;
    fails(&database, &store, &ticks(10..20), ("42703", Remedy::Stop)).await;
    run(&database, "ALTER TABLE tick_data RENAME COLUMN taker TO side; ALTER TABLE tick_data RENAME TO elsewhere").await;
    fails(&database, &store, &ticks(10..20), ("42P01", Remedy::Stop)).await;
    run(&database, "ALTER TABLE elsewhere RENAME TO tick_data").await;
    recovers(&store, &ticks(10..20)).await;
}

#[tokio::test]
async fn somebodys_trigger_that_refuses_needs_a_person_and_costs_no_row() {
    let database = migrated().await;
    let store = PostgresStore::new(database.socket());
    recovers(&store, &ticks(0..10)).await;
    run(
        &database,
        "CREATE FUNCTION closed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''closed''; END'; \
         CREATE TRIGGER closed BEFORE INSERT ON tick_data FOR EACH ROW EXECUTE FUNCTION closed()",
    )
    .await;
    fails(&database, &store, &ticks(10..20), ("P0001", Remedy::Stop)).await;
    run(&database, "DROP TRIGGER closed ON tick_data").await;
    recovers(&store, &ticks(10..20)).await;
}

#[tokio::test]
async fn a_bad_row_is_set_aside_and_opens_no_circuit() {
    let database = migrated().await;
    run(&database, "ALTER TABLE tick_data ADD CONSTRAINT side_is_no_number CHECK (trade_id <> '7' OR trade_id::int / 0 = 1)").await;
    let store = PostgresStore::new(database.socket());
    let mut batch = ticks(0..100);
    batch[3].quantity = rust_decimal::Decimal::ZERO;
    batch[50].trade_id = TradeId::Text("nul\0".into());
    batch[60].trade_id = TradeId::Text(long_id());
    let written = store.write(&batch).await.unwrap();
    assert_eq!(written, Written { stored: 96, duplicates: 0, rejected: 4 });
    let states: Vec<String> =
        sqlx::query_scalar("SELECT sqlstate FROM rejected_ticks ORDER BY sqlstate")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    // Division by zero, a NUL in a text, a check, an index row that is too large.
    assert_eq!(states, ["22012", "22021", "23514", "54000"]);
}

/// Longer than an index takes, and of letters that do not compress.
fn long_id() -> Box<str> {
    let mut state = 1_u64;
    (0..9_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'!' + u8::try_from((state >> 33) % 90).unwrap())
        })
        .collect()
}

/// Makes the partitions as their owner, which an ordinary user cannot.
async fn store_partitions(database: &TestDatabase, store: &PostgresStore) {
    recovers(&PostgresStore::new(database.socket()), &ticks(0..1)).await;
    recovers(store, &ticks(1..10)).await;
}
