//! Old days are dropped on nobody's word alone, and one that cannot go keeps no other.

use std::time::Duration;

use trading_core::domain::{Tick, Timestamp};
use trading_core::store::Store as _;
use trading_core::store::postgres::PostgresStore;
use trading_core::store::postgres::retention::{Dropped, drop_old_partitions};

use super::{DAY, day, live, now, old, rows, run};
use crate::support::postgres::{TestDatabase, migrated};

const TWO_DAYS: Duration = Duration::from_secs(2 * 86_400);

/// A tick of so many days ago, received then.
fn received(id: u64, days_ago: i64) -> Tick {
    let tick = old(id, days_ago);
    Tick { received_at: tick.exchange_at, ..tick }
}

async fn holding(days_ago: &[i64]) -> TestDatabase {
    let database = migrated().await;
    let store = PostgresStore::new(database.socket());
    let batch: Vec<Tick> =
        (1..).zip(days_ago).map(|(id, days_ago)| received(id, *days_ago)).collect();
    store.write(&batch).await.unwrap();
    database
}

async fn drop_before(database: &TestDatabase, retention: Duration, now: Timestamp) -> Dropped {
    drop_old_partitions(&database.pool, retention, now).await.unwrap()
}

#[tokio::test]
async fn old_days_are_dropped_by_name_and_the_kept_days_stay() {
    let database = holding(&[0, 1, 2, 3, 10, 11, 20]).await;
    let dropped = drop_before(&database, TWO_DAYS, now()).await;
    assert_eq!(dropped.names(), format!("{}, {} to {}, {}", day(20), day(11), day(10), day(3)));
    assert!(dropped.refused.is_empty() && dropped.clocks_differ.is_none(), "{dropped:?}");
    assert_eq!(rows(&database.pool, "tick_data").await, 3);
}

#[tokio::test]
async fn a_recorder_whose_clock_is_ahead_drops_nothing_of_the_last_days() {
    let database = holding(&[0, 1, 29, 40]).await;
    let ahead = now().plus_micros(60 * DAY);
    let dropped = drop_before(&database, Duration::from_secs(30 * 86_400), ahead).await;
    assert_eq!(dropped.names(), day(40), "which is old by every clock");
    assert_eq!(dropped.clocks_differ.unwrap().0, ahead);
    assert_eq!(rows(&database.pool, "tick_data").await, 3);
}

#[tokio::test]
async fn when_recorder_and_database_share_a_clock_that_is_ahead_the_newest_stored_day_decides() {
    // As if both clocks were 40 days ahead of what the exchanges stamp.
    let database = holding(&[40, 41, 43]).await;
    run(&database.pool, format!("SELECT ensure_tick_partition('{}')", day(0))).await;
    let dropped = drop_before(&database, TWO_DAYS, now()).await;
    assert_eq!(dropped.names(), day(43));
    assert_eq!(rows(&database.pool, "tick_data").await, 2);
}

#[tokio::test]
async fn a_day_that_was_written_to_lately_is_not_old() {
    let database = holding(&[0, 9, 10]).await;
    let store = PostgresStore::new(database.socket());
    store.write(&[old(100, 10)]).await.unwrap();
    let dropped = drop_before(&database, TWO_DAYS, now()).await;
    assert_eq!((dropped.names(), dropped.names_written_lately()), (day(9), day(10)));
    assert_eq!(rows(&database.pool, "tick_data").await, 3);
}

#[tokio::test]
async fn a_day_that_cannot_be_dropped_is_named_with_the_cause_and_the_others_go() {
    let database = holding(&[0, 8, 9, 10]).await;
    let name = format!("tick_data_{}", day(9).replace('-', ""));
    run(&database.pool, format!("CREATE VIEW report AS SELECT symbol FROM {name}")).await;
    let dropped = drop_before(&database, TWO_DAYS, now()).await;
    assert_eq!(dropped.names(), format!("{}, {}", day(10), day(8)));
    let told = dropped.refusals();
    assert!(
        told.starts_with(&format!(
            "{name}: cannot drop table {name} because other objects depend on it"
        )),
        "{told}"
    );
    assert!(
        told.contains("view report depends on") && told.contains("Use DROP ... CASCADE"),
        "{told}"
    );
    assert_eq!(rows(&database.pool, "tick_data").await, 2);
}

#[tokio::test]
async fn tables_that_are_longer_than_a_day_or_not_tables_are_nobodys_to_drop() {
    let database = holding(&[0]).await;
    run(
        &database.pool,
        format!(
            "CREATE TABLE archive PARTITION OF tick_data FOR VALUES FROM ('{}') TO ('{}')",
            day(400),
            day(300)
        ),
    )
    .await;
    let dropped = drop_before(&database, TWO_DAYS, now()).await;
    assert!(dropped.days.is_empty() && dropped.refused.is_empty(), "{dropped:?}");
    PostgresStore::new(database.socket()).write(&[live("binance", 5)]).await.unwrap();
}
