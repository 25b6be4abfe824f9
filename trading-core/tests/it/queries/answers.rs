//! Candles and views give what a plain query over the ticks gives.

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor as _, PgPool};
use trading_core::store::postgres::migrate::migrate;

use super::{number, run};
use crate::support::postgres::{database, migrated};

/// Trades over three months, many at the same time, whose ids are in no order of text, in partitions of all kinds.
const TICKS: &str = "\
    SELECT ensure_tick_partition('2026-03-28'::date + n) FROM generate_series(0, 3) AS n; \
    CREATE TABLE tick_data_may PARTITION OF tick_data FOR VALUES FROM ('2026-05-01Z') TO ('2026-06-01Z'); \
    CREATE TABLE tick_data_rest PARTITION OF tick_data DEFAULT; \
    INSERT INTO instruments SELECT exchange, symbol, symbol, 'USD', symbol \
        FROM unnest('{binance,kraken}'::text[]) AS exchange, unnest('{A,B,NONE}'::text[]) AS symbol; \
    INSERT INTO tick_data SELECT at, at, exchange, symbol, \
            (CASE WHEN symbol = 'B' THEN 'id-' ELSE '' END) || (7 * n % 1100), CASE WHEN n % 3 = 0 THEN 'buy' ELSE 'sell' END, \
            100 + (n * 7919 % 1000) / 100.0, 1 + (n * 104729 % 1000) / 1000.0, 'live' \
        FROM unnest('{binance,kraken}'::text[]) AS exchange, unnest('{A,B}'::text[]) AS symbol, \
            generate_series(1, 1000) AS n, \
            LATERAL (SELECT timestamptz '2026-03-28 22:58:30Z' + n / 4 * CASE WHEN n < 700 THEN interval '7 seconds' \
                ELSE interval '6 hours 1 minute' END AS at) AS times; \
    ANALYZE";

/// Candles as a plain query computes them; `{begin}` is when the one of a `time` begins.
const PLAIN: &str = "SELECT {begin} AS time, (array_agg(price ORDER BY time, length(trade_id), trade_id))[1] AS open, \
        max(price) AS high, min(price) AS low, \
        (array_agg(price ORDER BY time DESC, length(trade_id) DESC, trade_id DESC))[1] AS close, sum(quantity) AS volume, \
        sum(price * quantity) AS quote_volume, coalesce(sum(quantity) FILTER (WHERE side = 'buy'), 0) AS buy_volume, \
        sum(price * quantity) / sum(quantity) AS vwap, count(*) AS trades \
    FROM tick_data WHERE exchange = 'kraken' AND symbol = '{symbol}' AND {begin} >= '{from}' AND {begin} < '{to}' GROUP BY 1";

/// How many rows two queries have, which must be the same rows to the last digit.
async fn same(pool: &PgPool, one: &str, other: &str) -> i64 {
    let text = |query: &str| format!("SELECT it::text FROM ({query}) AS it");
    let (one, other) = (text(one), text(other));
    let differ = format!(
        "SELECT count(*) FROM (({one} EXCEPT ALL {other}) UNION ALL ({other} EXCEPT ALL {one})) AS it"
    );
    assert_eq!(number(pool, differ).await, 0, "{one}\n{other}");
    number(pool, format!("SELECT count(*) FROM ({one}) AS it")).await
}

#[tokio::test]
async fn candles_of_any_step_are_those_of_a_plain_query() {
    let database = migrated().await;
    run(&database.pool, TICKS).await;
    // Where days are not 24 hours long.
    let options: PgConnectOptions = database.url.parse().unwrap();
    let options = options.options([("timezone", "Europe/Berlin")]);
    let pool = PgPoolOptions::new().connect_with(options).await.unwrap();
    let fixed = |seconds: i64| {
        format!("to_timestamp(floor(extract(epoch FROM time) / {seconds}) * {seconds})")
    };
    let calendar = |unit: &str| format!("date_trunc('{unit}', time, 'UTC')");
    for (step, begin) in [
        ("1 second", fixed(1)),
        ("1m", fixed(60)),
        ("7 minutes", fixed(420)),
        ("1 hour", fixed(3_600)),
        ("5 hours", fixed(18_000)),
        ("1 day", fixed(86_400)),
        ("3 days", fixed(3 * 86_400)),
        ("7 days", calendar("week")),
        ("1 week", calendar("week")),
        ("1 month", calendar("month")),
        ("3 months", calendar("quarter")),
        ("1 year", calendar("year")),
    ] {
        let mut rows = 0;
        for symbol in ["A", "B"] {
            for (from, to) in [
                ("2026-03-28 23:00Z", "2026-03-29 00:00Z"),
                ("2026-03-28 23:00:01Z", "2026-04-02 13:00:01Z"),
                ("2026-03-30Z", "2026-03-30Z"),
                ("-infinity", "infinity"),
            ] {
                let plain = PLAIN.replace("{begin}", &begin).replace("{symbol}", symbol);
                let plain = plain.replace("{from}", from).replace("{to}", to);
                let candles = format!(
                    "SELECT * FROM candles('kraken', '{symbol}', '{from}', '{to}', '{step}')"
                );
                rows += same(&pool, &candles, &plain).await;
            }
        }
        assert!(rows > 0, "{step}");
    }
    let in_order = "SELECT count(*) FROM (SELECT time < lag(time) OVER () AS is_wrong \
        FROM candles('kraken', 'A', '-infinity', step => '1 hour')) AS it WHERE is_wrong";
    assert_eq!(number(&pool, in_order).await, 0);
    // Of each symbol, beside others, with the usual step and end.
    let all = number(
        &pool,
        "SELECT sum(trades)::bigint FROM instruments, candles(exchange, symbol, '2026-01-01')",
    )
    .await;
    assert_eq!(all, number(&pool, "SELECT count(*) FROM tick_data WHERE time < now()").await);
}

#[tokio::test]
async fn what_has_no_candles_is_refused_with_what_to_do() {
    let database = migrated().await;
    for (arguments, code, said) in [
        ("now(), now(), '0'", "22023", "longer than nothing"),
        ("now(), now(), '-1 hour'", "22023", "longer than nothing"),
        ("now(), now(), '-1 month'", "22023", "longer than nothing"),
        ("now(), now(), '1 month 1 day'", "22023", "mixes months"),
        ("now(), now(), '1 year 1 second'", "22023", "mixes months"),
        ("now(), now() - interval '1 second'", "22023", "later than"),
        ("now(), NULL", "22004", "must not be null"),
        ("NULL", "22004", "must not be null"),
        ("now(), now(), NULL", "22004", "must not be null"),
    ] {
        let sql = format!("SELECT * FROM candles('binance', 'BTCUSDT', {arguments})");
        let error = database.pool.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap_err();
        let error = error.as_database_error().unwrap();
        assert_eq!(error.code().as_deref(), Some(code), "{arguments}: {error}");
        assert!(error.message().contains(said), "{arguments}: {error}");
    }
    assert_eq!(
        number(&database.pool, "SELECT count(*) FROM candles('binance', 'NONE', '-infinity')")
            .await,
        0
    );
}

#[tokio::test]
async fn the_views_give_what_a_plain_query_gives() {
    let database = migrated().await;
    let empty = number(
        &database.pool,
        "SELECT (SELECT count(*) FROM candles_1m) + (SELECT count(*) FROM ticks_per_minute)",
    );
    assert_eq!(empty.await, 0);
    run(&database.pool, TICKS).await;
    // A few days: every minute of them is looked at.
    run(&database.pool, "DELETE FROM tick_data WHERE time > '2026-04-02Z'; ANALYZE").await;
    let minutes = "SELECT date_trunc('minute', time) AS minute, exchange, symbol, count(*) AS ticks \
        FROM tick_data GROUP BY 1, 2, 3";
    let rows = same(&database.pool, "SELECT * FROM ticks_per_minute", minutes).await;
    assert!(rows > 50, "{rows}");
    same(&database.pool, "SELECT * FROM ticks_per_minute('-infinity', 'infinity')", minutes).await;
    let some = "minute >= '2026-03-28 23:00Z' AND minute < '2026-03-28 23:10Z'";
    same(
        &database.pool,
        "SELECT * FROM ticks_per_minute('2026-03-28 22:59:01Z', '2026-03-28 23:09:00.000001Z')",
        &format!("SELECT * FROM ticks_per_minute WHERE {some}"),
    )
    .await;
    let candles = "SELECT date_trunc('minute', time) AS minute, exchange, symbol, \
            (array_agg(price ORDER BY time, length(trade_id), trade_id))[1] AS open, max(price) AS high, min(price) AS low, \
            (array_agg(price ORDER BY time DESC, length(trade_id) DESC, trade_id DESC))[1] AS close, \
            sum(quantity) AS volume, sum(price * quantity) AS quote_volume, count(*) AS trades \
        FROM tick_data GROUP BY 1, 2, 3";
    assert_eq!(same(&database.pool, "SELECT * FROM candles_1m", candles).await, rows);
    // The rest goes, and with it the rows that only a DEFAULT partition takes.
    run(&database.pool, "ALTER TABLE tick_data DETACH PARTITION tick_data_rest").await;
    same(&database.pool, "SELECT * FROM candles_1m", candles).await;
    same(
        &database.pool,
        "SELECT sum(about_ticks), count(*) FROM tick_days",
        "SELECT count(*)::numeric, 5::bigint FROM tick_data",
    )
    .await;
}

#[tokio::test]
async fn a_reader_is_answered_in_any_schema_and_with_any_search_path() {
    let database = database().await;
    run(&database.pool, "CREATE SCHEMA \"a Market\"").await;
    let options: PgConnectOptions = database.url.parse().unwrap();
    let of_owner = options.clone().options([("search_path", "\"a Market\"")]);
    let owner = PgPoolOptions::new().connect_with(of_owner).await.unwrap();
    migrate(&owner).await.unwrap();
    run(&owner, TICKS).await;
    let role = format!("reader_of_{}", database.url.len()) + &std::process::id().to_string();
    run(
        &database.pool,
        format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA \"a Market\" TO {role}; \
             GRANT SELECT ON ALL TABLES IN SCHEMA \"a Market\" TO {role}; \
             CREATE TABLE public.tick_data (decoy int); CREATE TABLE public.instruments (decoy int)"
        ),
    )
    .await;
    // Not on the days themselves: rights on the whole are enough.
    run(
        &owner,
        format!("REVOKE ALL ON tick_data_20260328, tick_data_may, tick_data_rest FROM {role}"),
    )
    .await;
    let of_reader = options.username(&role).options([("default_transaction_read_only", "on")]);
    let reader = PgPoolOptions::new().max_connections(1).connect_with(of_reader).await.unwrap();
    for sql in [
        "candles('kraken', 'A', '-infinity', 'infinity')",
        "ticks_per_minute('-infinity', 'infinity')",
        "candles_1m",
        "ticks_per_minute",
        "latest_prices",
        "tick_days",
        "tick_partitions()",
        "stored_ranges()",
    ] {
        for path in ["public", "pg_catalog", "nowhere"] {
            run(&reader, format!("SET search_path = {path}")).await;
            let count = format!("SELECT count(*) FROM \"a Market\".{sql}");
            assert!(number(&reader, count).await > 0, "{sql}");
        }
    }
    reader.close().await;
    run(&database.pool, format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}
