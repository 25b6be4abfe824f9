//! Which days are planned for, locked and read.

use std::collections::BTreeSet;

use sqlx::postgres::PgPoolOptions;

use super::{history, look, number, run};
use crate::support::postgres::migrated;

#[tokio::test]
async fn candles_plan_lock_and_read_only_the_days_that_are_asked_for() {
    let database = migrated().await;
    history(&database.pool, 60).await;
    let day = |ago: i32| format!("current_date - {ago}");
    for (arguments, first, last) in [
        (format!("{}, {}", day(50), day(49)), -50, -50),
        (format!("{}, {}, '1 hour'", day(50), day(48)), -50, -49),
        // A candle is whole, however short the time in which it begins.
        (format!("{0}, {0} + interval '1 second', '1 day'", day(40)), -40, -40),
        (
            format!("to_time => {}, from_time => {}, step => '7 minutes'", day(30), day(31)),
            -31,
            -30,
        ),
        // What is not known before it runs.
        (format!("(SELECT max({})), (SELECT max({}))", day(20), day(19)), -20, -20),
    ] {
        let sql = format!("SELECT * FROM candles('binance', 'BTCUSDT', {arguments})");
        // The plans of the sixth time are those that a server keeps.
        let looked = look(&database.pool, &format!("{};", [&*sql; 7].join(";"))).await;
        assert!(looked.error.is_none(), "{sql}: {looked:?}");
        let days: BTreeSet<i32> = (first..=last).collect();
        assert!(looked.read.is_subset(&days) && !looked.read.is_empty(), "{sql}: {looked:?}");
        assert!(looked.locked.is_subset(&days), "{sql}: {looked:?}");
        let found = number(&database.pool, sql.replace('*', "count(*)")).await;
        assert!(found > 0, "{sql}");
    }
}

#[tokio::test]
async fn a_single_old_day_costs_a_view_no_more_than_itself() {
    let database = migrated().await;
    history(&database.pool, 3).await;
    run(
        &database.pool,
        "SELECT ensure_tick_partition('2020-02-29'); \
         INSERT INTO tick_data VALUES ('2020-02-29 12:00:01Z', now(), 'okx', 'BTCUSDT', '1', 'buy', 1, 1, 'backfill')",
    )
    .await;
    let minutes =
        "SELECT (sum(extract(epoch FROM last - first)) / 60)::bigint FROM stored_ranges()";
    let minutes = number(&database.pool, minutes).await;
    assert!((2 * 1440..=5 * 1440).contains(&minutes), "{minutes} minutes are looked at");
    for view in ["candles_1m", "ticks_per_minute"] {
        let old = format!("SELECT count(*) FROM {view} WHERE minute = '2020-02-29 12:00Z'");
        assert_eq!(number(&database.pool, old).await, 1, "{view}");
    }
}

#[tokio::test]
async fn a_view_reads_only_the_days_of_the_minutes_that_are_asked_for() {
    let database = migrated().await;
    history(&database.pool, 60).await;
    for (sql, first, last) in [
        ("candles_1m WHERE minute >= current_date - 50 AND minute < current_date - 49", -50, -50),
        (
            "ticks_per_minute WHERE minute >= current_date - 50 AND minute < current_date - 49",
            -50,
            -50,
        ),
        (
            "candles_1m WHERE exchange = 'okx' AND symbol = 'ETHUSDT' AND minute BETWEEN current_date - 31 AND current_date - 30",
            -31,
            -30,
        ),
        ("ticks_per_minute(current_date - 40, current_date - 39)", -40, -40),
    ] {
        let looked = look(&database.pool, &format!("SELECT * FROM {sql}")).await;
        assert!(looked.error.is_none(), "{sql}: {looked:?}");
        // Today is looked at for the last minute that there is, and the days ahead on the way to it.
        let days: BTreeSet<i32> = (first..=last).chain(-2..=7).collect();
        assert!(looked.read.is_subset(&days), "{sql}: {looked:?}");
        assert!(looked.read.contains(&first), "{sql}: {looked:?}");
    }
    let looked = look(&database.pool, "SELECT * FROM latest_prices").await;
    assert!(looked.read.first().is_some_and(|oldest| *oldest >= -1), "{looked:?}");
    let looked = look(&database.pool, "SELECT sum(about_ticks), sum(bytes) FROM tick_days").await;
    assert!(looked.error.is_none() && looked.read.is_empty(), "{looked:?}");
}

#[tokio::test]
async fn refused_ticks_of_other_reasons_are_not_looked_through_each_minute() {
    let database = migrated().await;
    run(
        &database.pool,
        "INSERT INTO rejected_ticks SELECT 'binance', 'BTCUSDT', number, now(), now(), 'buy', 1, 1, 'live', '23514', 'a test' \
             FROM generate_series(1, 20000) AS number; ANALYZE rejected_ticks",
    )
    .await;
    // One connection: the counts that are read are its own.
    let pool = PgPoolOptions::new().max_connections(1).connect(&database.url).await.unwrap();
    let scans = "SELECT pg_stat_get_xact_numscans('rejected_ticks'::regclass)";
    let by_index = "SELECT pg_stat_get_xact_numscans('rejected_ticks_only_time'::regclass)";
    run(&pool, "SELECT pg_stat_force_next_flush()").await;
    let all = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'rejected_ticks'";
    let before = number(&pool, all).await + number(&pool, scans).await;
    let offset = trading_core::domain::ClockOffset::default();
    trading_core::store::postgres::restore::restore_refused_for_time(&pool, &offset).await.unwrap();
    let indexed = number(&pool, by_index).await;
    run(&pool, "SELECT pg_stat_force_next_flush()").await;
    let after = number(&pool, all).await + number(&pool, scans).await;
    assert_eq!(after, before, "it read the whole table");
    let kept =
        "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'rejected_ticks_only_time'";
    assert!(indexed + number(&pool, kept).await > 0);
}
