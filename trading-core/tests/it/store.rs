//! PostgreSQL holds each tick once, with its exact values, whatever is written twice or refused.

use rust_decimal::Decimal;
use sqlx::postgres::PgConnectOptions;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{Executor as _, PgPool};
use trading_core::domain::{Source, Tick, Timestamp, TradeId, parse_decimal};
use trading_core::store::postgres::PostgresStore;
use trading_core::store::postgres::maintenance::upsert_instruments;
use trading_core::store::postgres::migrate::migrate;
use trading_core::store::{Remedy, Store as _, Written};

use crate::support::postgres::{TestDatabase, database, migrated};
use crate::support::ticks::{now, tick, ticks};

/// Both ways to a server: through its socket a batch is copied, over TCP a small one is inserted.
async fn both_ways() -> [(&'static str, TestDatabase, PgConnectOptions); 2] {
    let (one, two) = (migrated().await, migrated().await);
    let (socket, tcp) = (one.socket(), two.tcp());
    [("socket", one, socket), ("tcp", two, tcp)]
}

async fn count(pool: &PgPool, table: &'static str) -> i64 {
    let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_tick_is_stored_with_its_exact_values() {
    for (way, database, options) in both_ways().await {
        let store = PostgresStore::new(options);
        let mut odd = tick(7);
        odd.trade_id = TradeId::from_text("a1-é");
        odd.price = parse_decimal("0.0000000000000000000000000001").unwrap();
        odd.quantity = parse_decimal("79228162514264337593543950335").unwrap();
        odd.exchange_at = Timestamp::from_rfc3339("2024-02-29T23:59:59.999999Z").unwrap();
        odd.source = Source::Backfill;
        let batch = [tick(8), odd];
        let written = store.write(&batch).await.unwrap();
        assert_eq!(written, Written { stored: 2, ..Written::default() }, "{way}");
        for tick in &batch {
            let row: (
                DateTime<Utc>,
                DateTime<Utc>,
                String,
                String,
                String,
                Decimal,
                Decimal,
                String,
            ) = sqlx::query_as(
                "SELECT time, received_at, exchange, symbol, side, price, quantity, source \
                     FROM tick_data WHERE trade_id = $1",
            )
            .bind(tick.trade_id.to_string())
            .fetch_one(&database.pool)
            .await
            .unwrap();
            let expected = (
                tick.exchange_at.to_datetime(),
                tick.received_at.to_datetime(),
                "binance".to_owned(),
                "BTCUSDT".to_owned(),
                tick.side.as_str().to_owned(),
                tick.price,
                tick.quantity,
                tick.source.as_str().to_owned(),
            );
            assert_eq!(row, expected, "{way}");
        }
        let digits: String =
            sqlx::query_scalar("SELECT price::text FROM tick_data WHERE trade_id = '8'")
                .fetch_one(&database.pool)
                .await
                .unwrap();
        assert_eq!(digits, "95234.50", "{way}: the exchange's own digits");
    }
}

#[tokio::test]
async fn a_tick_written_again_is_stored_once() {
    for (way, database, options) in both_ways().await {
        let store = PostgresStore::new(options);
        store.write(&ticks(0..500)).await.unwrap();
        let again = store.write(&ticks(250..750)).await.unwrap();
        assert_eq!(again, Written { stored: 250, duplicates: 250, rejected: 0 }, "{way}");
        let twice_in_one = store.write(&[tick(900), tick(900), tick(901)]).await.unwrap();
        assert_eq!(twice_in_one, Written { stored: 2, duplicates: 1, rejected: 0 }, "{way}");
        assert_eq!(count(&database.pool, "tick_data").await, 752, "{way}");
    }
}

#[tokio::test]
async fn a_large_batch_over_tcp_is_copied_and_a_tick_in_it_twice_is_stored_once() {
    let database = migrated().await;
    let store = PostgresStore::new(database.tcp());
    let mut batch = ticks(0..3_000);
    let written = store.write(&batch).await.unwrap();
    assert_eq!(written.stored, 3_000);
    batch.extend(ticks(3_000..3_010));
    let written = store.write(&batch).await.unwrap();
    assert_eq!(written, Written { stored: 10, duplicates: 3_000, rejected: 0 });
}

#[tokio::test]
async fn two_recorders_beside_each_other_store_each_tick_once() {
    let database = migrated().await;
    let (one, two) = (PostgresStore::new(database.socket()), PostgresStore::new(database.socket()));
    let mut stored = 0;
    for round in 0..20 {
        let (first, second) =
            (ticks(round * 100..round * 100 + 150), ticks(round * 100 + 50..round * 100 + 200));
        let (a, b) = futures_util::join!(one.write(&first), two.write(&second));
        stored += a.unwrap().stored + b.unwrap().stored;
    }
    assert_eq!(stored, 2_100);
    assert_eq!(count(&database.pool, "tick_data").await, 2_100);
}

#[tokio::test]
async fn two_recorders_that_write_the_same_ticks_in_opposite_orders_lock_each_other_up_never_for_good()
 {
    let database = migrated().await;
    let (one, two) = (PostgresStore::new(database.socket()), PostgresStore::new(database.tcp()));
    let mut stored = 0;
    for round in 0..30 {
        let forth = ticks(round * 1_000..(round + 1) * 1_000);
        let back: Vec<Tick> = forth.iter().rev().cloned().collect();
        let (a, b) = futures_util::join!(one.write(&forth), two.write(&back));
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!(a.stored + b.stored, 1_000, "round {round}");
        assert_eq!(a.duplicates + b.duplicates, 1_000, "round {round}");
        stored += a.stored + b.stored;
    }
    assert_eq!(stored, 30_000);
    assert_eq!(count(&database.pool, "tick_data").await, 30_000);
    assert_eq!(count(&database.pool, "rejected_ticks").await, 0);
}

#[tokio::test]
async fn refused_rows_are_set_aside_with_their_reason_and_the_others_stored() {
    for (way, database, options) in both_ways().await {
        let store = PostgresStore::new(options);
        let mut batch = ticks(0..500);
        batch[3].quantity = Decimal::ZERO;
        batch[250].price = Decimal::NEGATIVE_ONE;
        batch[499].trade_id = TradeId::Text("nul\0nul".into());
        batch[400].exchange_at = Timestamp::from_rfc3339("2008-12-31T00:00:00Z").unwrap();
        batch[401].exchange_at = Timestamp::from_rfc3339("9999-01-01T00:00:00Z").unwrap();
        let written = store.write(&batch).await.unwrap();
        assert_eq!(written, Written { stored: 495, duplicates: 0, rejected: 5 }, "{way}");
        let again = store.write(&batch).await.unwrap();
        assert_eq!(again, Written { stored: 0, duplicates: 495, rejected: 5 }, "{way}");
        let reasons: Vec<(String, Option<String>, String)> = sqlx::query_as(
            "SELECT trade_id, sqlstate, reason FROM rejected_ticks ORDER BY length(trade_id), trade_id",
        )
        .fetch_all(&database.pool)
        .await
        .unwrap();
        let states: Vec<_> =
            reasons.iter().map(|(id, state, _)| (id.as_str(), state.as_deref())).collect();
        let expected = [
            ("3", Some("23514")),
            ("250", Some("23514")),
            ("400", Some("TC001")),
            ("401", Some("TC001")),
            ("nul\u{fffd}nul", Some("22021")),
        ];
        assert_eq!(states, expected, "{way}");
        assert!(reasons[0].2.contains("quantity_is_positive"), "{}", reasons[0].2);
        let partitions =
            count(&database.pool, "pg_inherits WHERE inhparent = 'tick_data'::regclass").await;
        assert_eq!(partitions, 1, "{way}: today, and none for a wrong clock");
    }
}

#[tokio::test]
async fn migrations_run_once_when_several_start_together() {
    let database = database().await;
    let (a, b, c) = futures_util::join!(
        migrate(&database.pool),
        migrate(&database.pool),
        migrate(&database.pool)
    );
    a.and(b).and(c).unwrap();
    assert_eq!(count(&database.pool, "tick_data").await, 0);
}

#[tokio::test]
async fn a_server_that_is_away_is_worth_a_retry_and_a_missing_table_is_not() {
    let database = migrated().await;
    let nowhere = database.socket().socket("/nonexistent");
    let error = PostgresStore::new(nowhere).write(&[tick(1)]).await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Retry, "{error}");

    let store = PostgresStore::new(database.socket());
    store.write(&[tick(1)]).await.unwrap();
    database.pool.execute("ALTER TABLE tick_data RENAME TO elsewhere").await.unwrap();
    let error = store.write(&[tick(2)]).await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Stop, "{error}");
    database.pool.execute("ALTER TABLE elsewhere RENAME TO tick_data").await.unwrap();
    assert_eq!(store.write(&[tick(2)]).await.unwrap().stored, 1);
}

#[tokio::test]
async fn a_terminated_connection_costs_one_retry() {
    let database = migrated().await;
    let store = PostgresStore::new(database.socket());
    store.write(&[tick(1)]).await.unwrap();
    database
        .pool
        .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'trading-core writer' AND datname = current_database()")
        .await
        .unwrap();
    let error = store.write(&[tick(2)]).await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Retry, "{error}");
    assert_eq!(store.write(&[tick(2)]).await.unwrap().stored, 1);
}

#[tokio::test]
async fn a_partition_that_has_gone_is_made_again_and_no_row_is_blamed() {
    for (way, database, options) in both_ways().await {
        let store = PostgresStore::new(options);
        store.write(&ticks(0..10)).await.unwrap();
        database.pool.execute("SELECT drop_tick_partitions_before('9999-01-01')").await.unwrap();
        let written = store.write(&ticks(10..20)).await.unwrap();
        assert_eq!(written, Written { stored: 10, ..Written::default() }, "{way}");
        assert_eq!(count(&database.pool, "rejected_ticks").await, 0, "{way}");
    }
}

#[tokio::test]
async fn the_views_answer_what_people_ask_first() {
    let database = migrated().await;
    let store = PostgresStore::new(database.socket());
    let minute =
        |at: i64| Timestamp::from_micros(now().day() * 86_400_000_000 + at * 1_000_000).unwrap();
    let mut batch = ticks(1..5);
    for (tick, (second, price)) in batch.iter_mut().zip([(0, 10), (20, 30), (40, 5), (61, 7)]) {
        tick.exchange_at = minute(second);
        tick.price = Decimal::from(price);
        tick.quantity = Decimal::from(2);
    }
    store.write(&batch).await.unwrap();
    let instrument = batch[0].instrument;
    upsert_instruments(&database.pool, &[(instrument, "BTCUSDT".into())]).await.unwrap();
    upsert_instruments(&database.pool, &[(instrument, "BTCUSDT".into())]).await.unwrap();

    let latest: Vec<(String, Decimal)> = sqlx::query_as("SELECT symbol, price FROM latest_prices")
        .fetch_all(&database.pool)
        .await
        .unwrap();
    assert_eq!(latest, [("BTCUSDT".to_owned(), Decimal::from(7))]);

    type Candle = (Decimal, Decimal, Decimal, Decimal, Decimal, i64);
    let candles: Vec<Candle> = sqlx::query_as(
        "SELECT open, high, low, close, volume, trades FROM candles_1m ORDER BY minute",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    let d = |number: i64| Decimal::from(number);
    assert_eq!(candles, [(d(10), d(30), d(5), d(5), d(6), 3), (d(7), d(7), d(7), d(7), d(2), 1)]);

    let per_minute: Vec<i64> =
        sqlx::query_scalar("SELECT ticks FROM ticks_per_minute ORDER BY minute")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    assert_eq!(per_minute, [3, 1]);
    assert_eq!(count(&database.pool, "open_gaps").await, 0);
}
