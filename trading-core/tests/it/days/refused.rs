//! What is refused is kept within bounds, and stored later where only a clock was wrong.

use sqlx::PgPool;
use trading_core::domain::{ClockOffset, Source, Tick, TradeId};
use trading_core::store::postgres::PostgresStore;
use trading_core::store::postgres::restore::{Restored, restore_refused_for_time};
use trading_core::store::{Store as _, Written};

use super::{DAY, day, live, now, number, old, rows, run, stored};
use crate::support::exchanges::Exchanges;
use crate::support::postgres::{TestDatabase, migrated};
use crate::support::process::{Program, setting};
use crate::support::tools::faketime;
use crate::support::waiting::until;

/// A live tick that the exchange stamps so many days before its receipt.
fn stamped(exchange: &'static str, id: u64, days_before: i64) -> Tick {
    Tick { exchange_at: now().plus_micros(-days_before * DAY), ..live(exchange, id) }
}

#[tokio::test]
async fn a_venue_that_stamps_thousands_of_days_makes_no_partition_and_holds_up_no_other() {
    let database = migrated().await;
    let store = PostgresStore::new(database.socket());
    for round in 0..4 {
        // As many as one write carries: a statement that reads the table for each of them is cut off by the server.
        let mut batch: Vec<Tick> = (0..10_000)
            .map(|id| stamped("bybit", 10_000 * round + id, 2 + i64::try_from(id % 6_000).unwrap()))
            .collect();
        batch.extend((0..100).map(|id| live("kraken", 100 * round + id)));
        let written = store.write(&batch).await.unwrap();
        assert_eq!(written, Written { stored: 100, duplicates: 0, rejected: 10_000 });
    }
    assert_eq!(rows(&database.pool, "tick_partitions()").await, 1);
    assert_eq!(rows(&database.pool, "tick_data").await, 400);
    let refused: Vec<(String, i64)> =
        sqlx::query_as("SELECT sqlstate, count(*) FROM rejected_ticks GROUP BY 1")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    assert_eq!(refused, [("TC001".to_owned(), 40_000)]);
}

#[tokio::test]
async fn refused_ticks_beyond_the_bound_are_counted_by_symbol_and_reason() {
    let database = migrated().await;
    let store = PostgresStore::new(database.socket()).with_rejected_max(10);
    let mut batch: Vec<Tick> = (0..25).map(|id| stamped("bybit", id, 5)).collect();
    batch.extend((100..107).map(|id| Tick { quantity: 0.into(), ..live("bybit", id) }));
    batch.extend((0..4).map(|id| Tick { quantity: 0.into(), ..live("okx", id) }));
    let written = store.write(&batch).await.unwrap();
    assert_eq!(
        written,
        Written { stored: 0, duplicates: 0, rejected: 36 },
        "each is accounted for"
    );
    let kept = "SELECT count(*) FROM rejected_ticks WHERE exchange = ";
    assert_eq!(number(&database.pool, format!("{kept}'bybit'")).await, 10);
    assert_eq!(
        number(&database.pool, format!("{kept}'okx'")).await,
        4,
        "each exchange has its own"
    );
    let counted: Vec<(String, String, String, i64)> = sqlx::query_as(
        "SELECT exchange, symbol, reason, count FROM rejected_overflow ORDER BY reason",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    let total: i64 = counted.iter().map(|row| row.3).sum();
    assert_eq!(total, 22, "{counted:?}");
    assert!(counted.iter().all(|row| row.0 == "bybit" && row.1 == "BTCUSDT"), "{counted:?}");

    // The same again: what is kept is not counted, what was counted is counted once more.
    store.write(&batch).await.unwrap();
    assert_eq!(
        number(&database.pool, "SELECT sum(count)::bigint FROM rejected_overflow").await,
        44
    );
    assert_eq!(rows(&database.pool, "rejected_ticks").await, 14);
}

#[tokio::test]
async fn of_a_refused_tick_no_more_is_kept_than_its_bound() {
    let database = migrated().await;
    let store = PostgresStore::new(database.socket());
    let id: String = "é\0".repeat(4_000);
    let tick = Tick { trade_id: TradeId::Text(id.into()), ..stamped("bybit", 0, 5) };
    assert_eq!(store.write(&[tick]).await.unwrap().rejected, 1);
    let query =
        "SELECT octet_length(trade_id)::bigint FROM rejected_ticks WHERE sqlstate = 'TC002'";
    assert!((100..=128).contains(&number(&database.pool, query).await));
    let restored = restore_refused_for_time(&database.pool, &ClockOffset::default()).await;
    assert_eq!(restored.unwrap(), Restored::default(), "it is not the tick that came");
}

/// Rows as a recorder of an earlier version left them whose clock was three days behind.
async fn left_by_an_earlier_version(pool: &PgPool) {
    run(
        pool,
        "INSERT INTO instruments VALUES ('binance', 'BTCUSDT', 'BTC', 'USDT', 'BTCUSDT'); \
         INSERT INTO rejected_ticks (time, received_at, exchange, symbol, trade_id, side, price, quantity, source, reason) \
             SELECT now() - interval '1 hour', now() - interval '3 days 1 hour', 'binance', 'BTCUSDT', id::text, 'buy', 1, 1, \
                 'live', 'time is before 2009 or more than two days ahead' FROM generate_series(1, 5000) AS id; \
         UPDATE rejected_ticks SET rejected_at = time; \
         INSERT INTO tick_gaps (exchange, symbol, first_id, last_id, from_time, to_time, cause, status, note, closed_at) \
             VALUES ('binance', 'BTCUSDT', '1', '5000', now() - interval '2 hours', now() - interval '1 hour', 'no connection', \
                 'unrecoverable', 'refused by the database: see rejected_ticks', now()), \
                 ('binance', 'BTCUSDT', '9001', '9002', now() - interval '2 hours', now() - interval '1 hour', 'no connection', \
                 'unrecoverable', 'refused by the database: see rejected_ticks', now())",
    )
    .await;
}

#[tokio::test]
async fn what_an_earlier_version_refused_for_its_clock_is_stored_and_its_gap_asked_about_again() {
    let database = migrated().await;
    left_by_an_earlier_version(&database.pool).await;
    run(
        &database.pool,
        "INSERT INTO rejected_ticks SELECT 'binance', 'BTCUSDT', '7001', now(), now(), 'buy', 0, 1, 'live', '23514', 'a check', now()",
    )
    .await;
    let restored = restore_refused_for_time(&database.pool, &ClockOffset::default()).await.unwrap();
    assert_eq!(restored, Restored { stored: 5_000, already_there: 0, reopened: 1 });
    assert_eq!(rows(&database.pool, "tick_data").await, 5_000);
    assert_eq!(rows(&database.pool, "rejected_ticks").await, 1, "refused for another reason");
    let open: Vec<String> = sqlx::query_scalar("SELECT first_id FROM open_gaps")
        .fetch_all(&database.pool)
        .await
        .unwrap();
    assert_eq!(open, ["1"]);
}

/// Ticks of this exchange, refused at a database that shares its clock with the recorder, three days behind.
async fn refused_with_the_host(database: &TestDatabase, exchange: &str, lag: &str) {
    run(
        &database.pool,
        format!(
            "INSERT INTO rejected_ticks SELECT '{exchange}', 'BTCUSDT', id::text, now() - interval '4 days' + interval '{lag}', \
                 now() - interval '4 days', 'buy', 1, 1, 'live', 'TC001', '', now() - interval '4 days' \
             FROM generate_series(1, 9) AS id"
        ),
    )
    .await;
}

#[tokio::test]
async fn a_clock_that_is_known_to_be_off_or_two_exchanges_that_agree_let_refused_ticks_in() {
    let database = migrated().await;
    refused_with_the_host(&database, "binance", "3 days").await;
    let none = restore_refused_for_time(&database.pool, &ClockOffset::default()).await.unwrap();
    assert_eq!(none, Restored::default(), "one exchange says so, and two clocks do not");
    refused_with_the_host(&database, "bybit", "1 day 5 hours").await;
    let none = restore_refused_for_time(&database.pool, &ClockOffset::default()).await.unwrap();
    assert_eq!(none, Restored::default(), "two exchanges that say different things");
    refused_with_the_host(&database, "kraken", "3 days 10 minutes").await;
    let two = restore_refused_for_time(&database.pool, &ClockOffset::default()).await.unwrap();
    assert_eq!(two.stored, 18, "binance and kraken agree");
    let offset = ClockOffset::default();
    offset.set_micros(29 * 3_600_000_000);
    let known = restore_refused_for_time(&database.pool, &offset).await.unwrap();
    assert_eq!(known.stored, 9, "bybit's too, by what is known of the clock");
    assert_eq!(rows(&database.pool, "rejected_ticks").await, 0);
}

#[tokio::test]
async fn a_refused_tick_that_came_another_way_is_no_longer_refused() {
    let database = migrated().await;
    let store = PostgresStore::new(database.socket());
    let far = stamped("binance", 1, 9);
    assert_eq!(store.write(std::slice::from_ref(&far)).await.unwrap().rejected, 1);
    let fetched = Tick { source: Source::Backfill, ..far };
    assert_eq!(store.write(&[fetched, old(2, 9)]).await.unwrap(), stored(2));
    let restored = restore_refused_for_time(&database.pool, &ClockOffset::default()).await.unwrap();
    assert_eq!(restored, Restored { already_there: 1, ..Restored::default() });
    assert_eq!(rows(&database.pool, "rejected_ticks").await, 0);
}

#[tokio::test]
async fn a_recorder_whose_clock_is_three_days_behind_stores_its_ticks_and_those_refused_before() {
    let Some(clock) = faketime("a recorder three days behind", "-3d") else { return };
    let database = migrated().await;
    left_by_an_earlier_version(&database.pool).await;
    let exchanges = Exchanges::start(40).await;
    let folder = tempfile::tempdir().unwrap();
    let mut settings = exchanges.settings.clone();
    settings.extend(clock);
    settings.push(setting("SPOOL__DIR", folder.path().join("spool").display()));
    settings.push(setting("BATCH__MAX_TIME", "1s"));
    settings.push(setting("DATABASE__RETENTION", "2d"));
    settings.push(("DATABASE_URL".to_owned(), database.url.clone()));
    let mut program = Program::start(folder.path(), &["live", "--exchange", "kraken"], &settings);
    program.logged("refused only for their time are in tick_data now: 5000 stored").await;
    program.logged("set the wrong one right").await;
    let of_kraken = "SELECT count(*) FROM tick_data WHERE exchange = 'kraken'";
    until(async || match number(&database.pool, of_kraken).await {
        100.. => Ok(()),
        rows => Err(format!("{rows} rows\n{}", program.log())),
    })
    .await;
    let status = program.stop().await;
    assert!(status.success(), "{}", program.log());
    assert!(program.log().contains("+ rejected 0 +"), "{}", program.log());
    assert_eq!(rows(&database.pool, "rejected_ticks").await, 0);
    assert_eq!(
        number(&database.pool, format!("SELECT count(*) FROM tick_data WHERE time < '{}'", day(1)))
            .await,
        0
    );
}

#[tokio::test]
async fn a_recorder_whose_clock_is_sixty_days_ahead_drops_nothing() {
    let Some(clock) = faketime("a recorder sixty days ahead", "+60d") else { return };
    let database = migrated().await;
    let store = PostgresStore::new(database.socket());
    let received =
        |id, days_ago| Tick { received_at: old(id, days_ago).exchange_at, ..old(id, days_ago) };
    store.write(&[received(1, 0), received(2, 1), received(3, 20)]).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut settings = clock.to_vec();
    settings.push(setting("SPOOL__DIR", folder.path().join("spool").display()));
    settings.push(setting("DATABASE__RETENTION", "30d"));
    settings.push(setting("EXCHANGES__BINANCE__WS_URL", "ws://127.0.0.1:9"));
    settings.push(("DATABASE_URL".to_owned(), database.url.clone()));
    let mut program = Program::start(folder.path(), &["live", "--exchange", "binance"], &settings);
    program.logged("set the wrong one right").await;
    program.stop().await;
    assert!(!program.log().contains("Old days dropped"), "{}", program.log());
    assert_eq!(rows(&database.pool, "tick_data").await, 3);
}
