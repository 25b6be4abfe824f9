//! Writing needs only the days it writes, and no clock is trusted alone: with the partitions, the sessions and the clocks
//! that other people's databases have.

mod refused;
mod retention;

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgPool};
use trading_core::domain::testing::instrument;
use trading_core::domain::{Source, Tick, Timestamp, TradeId};
use trading_core::store::postgres::latest::last_stored;
use trading_core::store::postgres::{PostgresStore, make_days_ahead};
use trading_core::store::{DaysLeft, Remedy, Store as _, StoreError, Written};

use crate::support::postgres::migrated;
use crate::support::ticks::{now, tick};

const DAY: i64 = 86_400_000_000;

/// A tick of a history, traded so many days ago.
fn old(id: u64, days_ago: i64) -> Tick {
    let at = now().plus_micros(-days_ago * DAY);
    Tick { source: Source::Backfill, exchange_at: at, ..live("binance", id) }
}

fn live(exchange: &str, id: u64) -> Tick {
    Tick { instrument: instrument(exchange, "BTCUSDT"), ..tick(id) }
}

fn day(days_ago: i64) -> String {
    now().plus_micros(-days_ago * DAY).to_datetime().date_naive().to_string()
}

async fn run(pool: &PgPool, statements: impl Into<String>) {
    pool.execute(sqlx::raw_sql(AssertSqlSafe(statements.into()))).await.unwrap();
}

async fn number(pool: &PgPool, query: impl Into<String>) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(query.into())).fetch_one(pool).await.unwrap()
}

async fn rows(pool: &PgPool, table: &str) -> i64 {
    number(pool, format!("SELECT count(*) FROM {table}")).await
}

/// Writes a batch of which ticks must be left over.
async fn left_of(store: &PostgresStore, batch: &[Tick]) -> DaysLeft<Tick> {
    match store.write(batch).await {
        Err(StoreError::Days(days)) => *days,
        other => panic!("{other:?}"),
    }
}

fn stored(ticks: u64) -> Written {
    Written { stored: ticks, ..Written::default() }
}

#[tokio::test]
async fn a_write_makes_its_own_days_only_and_the_next_ones_are_made_aside() {
    let database = migrated().await;
    // A restored or detached table of that name.
    run(
        &database.pool,
        format!(
            "CREATE TABLE somebodys (); CREATE VIEW \"tick_data_{}\" AS SELECT 1",
            day(-2).replace('-', "")
        ),
    )
    .await;
    let store = PostgresStore::new(database.socket());
    assert_eq!(store.write(&[live("binance", 1)]).await.unwrap(), stored(1));
    assert_eq!(rows(&database.pool, "tick_partitions()").await, 1);
    assert_eq!(make_days_ahead(&database.pool).await.unwrap(), None);
    assert_eq!(rows(&database.pool, "tick_partitions()").await, 3);
}

#[tokio::test]
async fn a_day_that_cannot_be_made_ahead_is_told_with_the_cure_and_writing_goes_on() {
    let database = migrated().await;
    let store = PostgresStore::new(database.socket());
    store.write(&[live("binance", 1)]).await.unwrap();
    let mut blocker = database.socket().application_name("somebody").connect().await.unwrap();
    blocker.execute("BEGIN; LOCK TABLE tick_data IN SHARE UPDATE EXCLUSIVE MODE").await.unwrap();
    let told = make_days_ahead(&database.pool).await.unwrap().unwrap();
    assert!(told.starts_with(&day(-1)) && told.contains("lock timeout"), "{told}");
    assert!(told.contains("(somebody) holds a ShareUpdateExclusiveLock on tick_data"), "{told}");
    assert!(told.contains("end the session that holds the lock"), "{told}");
    assert_eq!(store.write(&[live("binance", 2)]).await.unwrap(), stored(1));
    blocker.close().await.unwrap();
    assert_eq!(make_days_ahead(&database.pool).await.unwrap(), None);
}

#[tokio::test]
async fn while_a_lock_keeps_a_day_from_being_made_the_ticks_of_other_days_are_stored() {
    let database = migrated().await;
    let store = PostgresStore::new(database.socket());
    store.write(&[live("binance", 1)]).await.unwrap();
    let mut blocker = database.socket().application_name("somebody").connect().await.unwrap();
    blocker.execute("BEGIN; LOCK TABLE tick_data IN SHARE UPDATE EXCLUSIVE MODE").await.unwrap();
    let batch = [live("binance", 2), old(3, 5), live("binance", 4)];
    let days = left_of(&store, &batch).await;
    assert_eq!((days.written, days.left.as_slice()), (stored(2), &batch[1..2]));
    assert!(!days.goes_on);
    assert_eq!(days.day, day(5));
    assert!(days.to_string().contains("(somebody) holds a ShareUpdateExclusiveLock"), "{days}");
    let error = StoreError::Days(Box::new(days));
    assert_eq!(error.remedy(), Remedy::Retry);
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("lock timeout"));
    // Asked again at once, it does not wait for the lock once more.
    let days = left_of(&store, &[live("binance", 5), old(3, 5)]).await;
    assert_eq!((days.written, days.left.len(), days.cause.is_none()), (stored(1), 1, true));
    blocker.close().await.unwrap();
    let fresh = PostgresStore::new(database.socket());
    assert_eq!(fresh.write(&[old(3, 5)]).await.unwrap(), stored(1));
}

#[tokio::test]
async fn a_day_that_somebody_made_under_another_name_or_with_other_bounds_is_used() {
    let database = migrated().await;
    let part = |name: &str, from: &str, to: &str| {
        format!(
            "CREATE TABLE {name} PARTITION OF tick_data FOR VALUES FROM ('{from}') TO ('{to}');"
        )
    };
    // As pg_partman names them; a month; a day of another time zone, beside which a part of two days is left.
    let month = format!("{} 00:00+00", day(400));
    run(
        &database.pool,
        part("tick_data_p1", &format!("{} 00:00+00", day(1)), &format!("{} 00:00+00", day(0)))
            + &part("a_month", &format!("{} 00:00+00", day(430)), &month)
            + &part("berlin", &format!("{} 23:00+00", day(51)), &format!("{} 23:00+00", day(50))),
    )
    .await;
    let at = |id, days_ago: i64, micros: i64| {
        let start = Timestamp::from_micros((now().day() - days_ago) * DAY + micros).unwrap();
        Tick { exchange_at: start, ..old(id, 0) }
    };
    let store = PostgresStore::new(database.socket());
    let batch = [
        at(1, 1, 0),
        at(2, 410, 5),
        at(3, 51, 0),
        at(4, 51, DAY - 1),
        at(5, 50, 0),
        at(6, 50, DAY - 1),
    ];
    assert_eq!(store.write(&batch).await.unwrap(), stored(6));
    let by_table: Vec<(String, i64)> = sqlx::query_as(
        "SELECT tableoid::regclass::text, count(*) FROM tick_data GROUP BY 1 ORDER BY 1",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    let names: Vec<(&str, i64)> =
        by_table.iter().map(|(name, rows)| (name.as_str(), *rows)).collect();
    let compact = |days_ago| day(days_ago).replace('-', "");
    let before = format!("tick_data_{}_from_000000", compact(51));
    let after = format!("tick_data_{}_from_230000", compact(50));
    assert_eq!(
        names,
        [
            ("a_month", 1),
            ("berlin", 2),
            (before.as_str(), 1),
            (after.as_str(), 1),
            ("tick_data_p1", 1)
        ]
    );
}

#[tokio::test]
async fn a_default_partition_takes_the_days_that_cannot_be_attached_beside_it() {
    let database = migrated().await;
    run(&database.pool, "CREATE TABLE rest PARTITION OF tick_data DEFAULT").await;
    run(
        &database.pool,
        format!("INSERT INTO tick_data VALUES ('{} 12:00+00', now(), 'a', 'b', 'c', 'buy', 1, 1, 'live')", day(3)),
    )
    .await;
    let store = PostgresStore::new(database.socket());
    assert_eq!(store.write(&[old(1, 3), old(2, 4)]).await.unwrap(), stored(2));
    assert_eq!(rows(&database.pool, "rest").await, 2, "that of the day which it holds already");
    assert_eq!(rows(&database.pool, "tick_partitions()").await, 2);
    assert_eq!(rows(&database.pool, "rejected_ticks").await, 0);
    // Somebody drops a day: a write between that and the next start fills the DEFAULT partition.
    let name = format!("tick_data_{}", day(4).replace('-', ""));
    run(&database.pool, format!("DROP TABLE {name}")).await;
    assert_eq!(store.write(&[old(3, 4)]).await.unwrap(), stored(1));
    let fresh = PostgresStore::new(database.socket());
    assert_eq!(fresh.write(&[old(4, 4)]).await.unwrap(), stored(1));
    assert_eq!(rows(&database.pool, "rest").await, 4);
}

#[tokio::test]
async fn a_detached_day_does_not_stop_the_recording_of_that_day() {
    let database = migrated().await;
    let store = PostgresStore::new(database.socket());
    store.write(&[live("binance", 1)]).await.unwrap();
    let name = format!("tick_data_{}", day(0).replace('-', ""));
    run(&database.pool, format!("ALTER TABLE tick_data DETACH PARTITION {name}")).await;
    assert_eq!(store.write(&[live("binance", 2)]).await.unwrap(), stored(1));
    assert_eq!(rows(&database.pool, "tick_data").await, 1);
    assert_eq!(rows(&database.pool, "rejected_ticks").await, 0);
    // The cure that the log names.
    run(
        &database.pool,
        format!(
            "INSERT INTO tick_data SELECT * FROM {name} ON CONFLICT DO NOTHING; DROP TABLE {name}"
        ),
    )
    .await;
    assert_eq!(store.write(&[live("binance", 3)]).await.unwrap(), stored(1));
    assert_eq!(rows(&database.pool, "tick_data").await, 3);
}

#[tokio::test]
async fn a_role_that_may_not_make_tables_stores_what_has_a_day_and_is_told_the_cure() {
    let database = migrated().await;
    let role = format!("plain_{}", database.socket().get_database().unwrap());
    run(
        &database.pool,
        format!("CREATE ROLE {role} LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; SELECT ensure_tick_partition('{}')", day(0)),
    )
    .await;
    let store = PostgresStore::new(database.socket().username(&role));
    let days = left_of(&store, &[live("binance", 1), old(2, 3)]).await;
    assert_eq!((days.written, days.left.len()), (stored(1), 1));
    let told = days.to_string();
    assert!(told.contains(&format!("run SELECT ensure_tick_partition('{}')", day(3))), "{told}");
}

#[tokio::test]
async fn hundreds_of_old_days_at_once_are_made_in_steps_and_each_tick_is_stored_once() {
    let database = migrated().await;
    let store = PostgresStore::new(database.socket());
    let mut left: Vec<Tick> = (1..=250).map(|id| old(id, i64::try_from(id).unwrap())).collect();
    left.push(live("binance", 1_000));
    let mut total = 0;
    loop {
        match store.write(&left).await {
            Ok(written) => {
                total += written.stored;
                break;
            }
            Err(StoreError::Days(days)) => {
                assert!(days.goes_on && days.left.len() < left.len(), "{days}");
                total += days.written.stored;
                left = days.left;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(total, 251);
    assert_eq!(rows(&database.pool, "tick_data").await, 251);
}

#[tokio::test]
async fn the_newest_trade_of_a_symbol_is_found_however_many_days_back_it_is() {
    let database = migrated().await;
    let days: BTreeSet<i64> = (0..65).collect();
    for days_ago in &days {
        run(&database.pool, format!("SELECT ensure_tick_partition('{}')", day(*days_ago))).await;
    }
    let store = PostgresStore::new(database.socket());
    let kraken = Tick { instrument: live("kraken", 1).instrument, ..old(7, 64) };
    let okx = Tick { instrument: live("okx", 1).instrument, ..old(8, 30) };
    store.write(&[old(5, 64), live("binance", 6), kraken.clone(), okx.clone()]).await.unwrap();
    let recorded = ["binance", "kraken", "okx", "bybit"].map(|name| live(name, 1).instrument);
    let mut found = last_stored(&database.pool, &recorded).await.unwrap();
    found.sort_by_key(|last| last.instrument.exchange());
    let found: Vec<(&str, TradeId, Timestamp)> = found
        .into_iter()
        .map(|last| (last.instrument.exchange(), last.trade_id, last.exchange_at))
        .collect();
    assert_eq!(
        found,
        [
            ("binance", TradeId::Number(6), now()),
            ("kraken", TradeId::Number(7), kraken.exchange_at),
            ("okx", TradeId::Number(8), okx.exchange_at),
        ]
    );
}
