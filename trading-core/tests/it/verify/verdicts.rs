//! Tables that were damaged at random, the small ones too: no verdict is better than what a plain reading in SQL finds, and
//! where that finds nothing the verdict is complete.

use trading_core::domain::Timestamp;
use trading_core::verify::Verdict;

use super::agreement::{first_seed, next};
use super::{DAY_MICROS, Recorded};

const ROUNDS: u64 = 40;

/// A recording with everything that a healthy one has: two connections that share the symbol, a reconnect where ids prove
/// nothing, which is listed, and the counts of all of them. A copy of each table is kept beside it.
async fn recorded() -> Recorded {
    let recorded = Recorded::new(10).await;
    let at = |micros: i64| Timestamp::from_micros(recorded.begin.as_micros() + micros).unwrap();
    let (away, back) = (at(DAY_MICROS * 3 / 2), at(DAY_MICROS * 3 / 2 + 600_000_000));
    let (left, relief) = (at(DAY_MICROS), at(DAY_MICROS - 5_000_000));
    let end = recorded.end();
    recorded
        .run(format!(
            "DELETE FROM tick_data WHERE exchange = 'bybit' AND received_at > '{away}' AND received_at < '{back}'; \
             INSERT INTO tick_gaps (exchange, symbol, from_time, to_time, cause, status, closed_at) \
             SELECT 'bybit', 'BTCUSDT', max(time) FILTER (WHERE received_at <= '{away}'), \
                 min(time) FILTER (WHERE received_at >= '{back}'), 'no connection', 'repaired', now() \
             FROM tick_data WHERE exchange = 'bybit'; \
             UPDATE feed_sessions SET ended_at = '{away}' WHERE exchange = 'bybit'; \
             UPDATE feed_sessions SET ended_at = '{left}' WHERE exchange = 'binance'; \
             INSERT INTO feed_sessions (recorder, exchange, feed, connected_at, ended_at, seen_at, reason, symbols) VALUES \
                 ('test', 'bybit', 'bybit-1', '{back}', '{end}'::timestamptz + interval '1 s', now(), 'stopped', '{{BTCUSDT}}'), \
                 ('test', 'binance', 'binance-1', '{relief}', '{end}'::timestamptz + interval '1 s', now(), 'stopped', \
                     '{{BTCUSDT}}'); \
             UPDATE feed_sessions AS it SET duplicates = 7, ticks = 7 + (SELECT count(*) FROM tick_data AS tick \
                 WHERE tick.exchange = it.exchange AND received_at BETWEEN connected_at AND ended_at \
                     AND NOT (it.exchange = 'binance' AND connected_at <> '{relief}' AND received_at >= '{relief}')); \
             CREATE SCHEMA kept; \
             CREATE TABLE kept.ticks AS SELECT * FROM tick_data; \
             CREATE TABLE kept.gaps AS SELECT * FROM tick_gaps; \
             CREATE TABLE kept.sessions AS SELECT * FROM feed_sessions"
        ))
        .await;
    recorded
}

async fn restore(recorded: &Recorded) {
    recorded
        .run(
            "DO $$ DECLARE part text; BEGIN \
                 FOR part IN SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^tick_data_' LOOP \
                     EXECUTE format('DROP TABLE %I', part); \
                 END LOOP; \
                 PERFORM ensure_tick_partition(day) \
                 FROM (SELECT DISTINCT (time AT TIME ZONE 'UTC')::date AS day FROM kept.ticks) AS days; \
             END $$; \
             INSERT INTO tick_data SELECT * FROM kept.ticks; \
             DELETE FROM rejected_ticks; DELETE FROM tick_gaps; DELETE FROM feed_sessions; \
             INSERT INTO tick_gaps OVERRIDING SYSTEM VALUE SELECT * FROM kept.gaps; \
             INSERT INTO feed_sessions OVERRIDING SYSTEM VALUE SELECT * FROM kept.sessions",
        )
        .await;
}

/// The table of a day; all of them, where it is gone.
async fn partition(recorded: &Recorded, day: Timestamp) -> String {
    let name: Option<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid \
         WHERE inhparent = 'tick_data'::regclass AND relname = 'tick_data_' || to_char($1 AT TIME ZONE 'UTC', 'YYYYMMDD')",
    )
    .bind(day.to_datetime())
    .fetch_optional(&recorded.database.pool)
    .await
    .unwrap();
    name.unwrap_or_else(|| "tick_data".to_owned())
}

/// One thing that is done to the tables. Some of them are no damage.
async fn damage(recorded: &Recorded, random: &mut u64) -> String {
    let (exchange, symbol) = super::SYMBOLS[usize::try_from(next(random) % 3).unwrap()];
    let of = format!("exchange = '{exchange}' AND symbol = '{symbol}'");
    let count = 1 + next(random) % 200;
    let day = recorded
        .begin
        .plus_micros(DAY_MICROS * i64::try_from(next(random) % 3).unwrap() + 1_000_000);
    let partition = partition(recorded, day).await;
    let minutes = i64::try_from(next(random) % 120).unwrap() - 60;
    let some = |order: &str, offset: u64| {
        format!(
            "(SELECT trade_id FROM tick_data WHERE {of} ORDER BY time {order} OFFSET {offset} LIMIT {count})"
        )
    };
    let one = format!(
        "(SELECT trade_id FROM tick_data WHERE {of} ORDER BY time OFFSET {} LIMIT 1)",
        300 + next(random) % 1_500
    );
    let columns = "exchange, symbol, trade_id, side, price, quantity, source";
    let sql = match next(random) % 16 {
        0 => format!("DELETE FROM tick_data WHERE {of} AND trade_id IN {}", some("ASC", 0)),
        1 => format!("DELETE FROM tick_data WHERE {of} AND trade_id IN {}", some("DESC", 0)),
        2 => format!("DELETE FROM tick_data WHERE {of} AND trade_id IN {}", some("ASC", count * 9)),
        3 => format!("TRUNCATE {partition}"),
        4 if partition != "tick_data" => format!("DROP TABLE {partition}"),
        5 if partition != "tick_data" => {
            format!("ALTER TABLE tick_data DETACH PARTITION {partition}")
        }
        6 => format!(
            "UPDATE tick_gaps SET from_time = from_time + interval '{minutes} min', to_time = to_time + interval '{minutes} min'"
        ),
        7 => "UPDATE tick_gaps SET status = 'open', closed_at = NULL".to_owned(),
        8 => "UPDATE tick_gaps SET status = 'unrecoverable', closed_at = now()".to_owned(),
        9 => format!(
            "INSERT INTO rejected_ticks (time, received_at, {columns}, reason) \
             SELECT time + interval '{minutes} days', received_at, exchange, symbol, trade_id || '0{count}', side, price, \
                 quantity, source, 'test' FROM tick_data WHERE {of} AND trade_id IN {one}"
        ),
        10 => format!(
            "UPDATE feed_sessions SET ticks = ticks + {count} WHERE exchange = '{exchange}'"
        ),
        11 => format!(
            "UPDATE feed_sessions SET ticks = greatest(ticks - {count}, 0) WHERE exchange = '{exchange}'"
        ),
        12 => format!(
            "UPDATE tick_data SET trade_id = '900000000000{count}' WHERE {of} AND trade_id IN {one}"
        ),
        13 => format!(
            "UPDATE tick_data SET time = time + CASE WHEN (time AT TIME ZONE 'UTC')::time < '12:00' THEN 1 ELSE -1 END \
                 * interval '9 hours' WHERE {of} AND trade_id IN {one}"
        ),
        14 => format!(
            "INSERT INTO tick_data (time, received_at, {columns}) SELECT time + interval '{count} us', received_at, {columns} \
             FROM tick_data WHERE {of} AND trade_id IN {one}"
        ),
        15 => format!(
            "INSERT INTO tick_gaps (exchange, symbol, first_id, last_id, from_time, to_time, cause, status) \
             VALUES ('{exchange}', '{symbol}', '1', '{count}', '{0}'::timestamptz - interval '9 days', \
                 '{0}'::timestamptz + interval '{minutes} min', 'test', 'open')",
            recorded.begin
        ),
        _ => "SELECT 1".to_owned(),
    };
    recorded.run(sql.clone()).await;
    sql
}

/// Everything that the tables say against completeness, each in one plain query.
const PLAIN: [(&str, &str); 9] = [
    (
        "a hole that is not said to be none, or an id that is no number",
        "SELECT EXISTS (SELECT FROM (SELECT exchange, trade_id::numeric AS id, \
                 lead(trade_id::numeric) OVER (PARTITION BY exchange ORDER BY trade_id::numeric) AS later \
             FROM tick_data WHERE exchange <> 'bybit') AS ids WHERE later > id + 1)",
    ),
    (
        "a trade that is stored twice",
        "SELECT EXISTS (SELECT FROM tick_data GROUP BY exchange, symbol, trade_id HAVING count(*) > 1)",
    ),
    (
        "an id of another time",
        "SELECT EXISTS (SELECT FROM (SELECT trade_id::numeric AS id, max(trade_id::numeric) OVER (PARTITION BY exchange ORDER BY \
                 time RANGE BETWEEN UNBOUNDED PRECEDING AND interval '1 second' PRECEDING) AS before \
             FROM tick_data WHERE exchange <> 'bybit') AS ids WHERE before > id)",
    ),
    (
        "a refused trade",
        "SELECT EXISTS (SELECT FROM rejected_ticks AS it WHERE greatest(time, received_at, rejected_at) >= (SELECT begin FROM kept))",
    ),
    (
        "a gap that is open or unrecoverable",
        "SELECT EXISTS (SELECT FROM tick_gaps \
         WHERE status IN ('open', 'unrecoverable') AND to_time >= (SELECT begin FROM kept))",
    ),
    (
        "trades that came and are not stored",
        "SELECT EXISTS (SELECT FROM (SELECT exchange, sum(ticks - duplicates) AS came, min(connected_at) AS since, \
                 max(ended_at) AS until FROM feed_sessions WHERE connected_at >= (SELECT begin FROM kept) \
                 GROUP BY exchange, CASE WHEN exchange = 'bybit' THEN id END) AS sessions \
             WHERE came > (SELECT count(*) FROM tick_data WHERE tick_data.exchange = sessions.exchange \
                 AND received_at BETWEEN since AND until))",
    ),
    (
        "a table that was detached",
        "SELECT EXISTS (SELECT FROM pg_class WHERE relkind = 'r' AND relname ~ '^tick_data_' \
             AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = pg_class.oid) AND pg_relation_size(oid) > 0)",
    ),
    (
        "a time without a connection that is not listed",
        "WITH hole AS (SELECT ended_at AS gone, lead(connected_at) OVER (ORDER BY connected_at) AS back \
                 FROM feed_sessions WHERE exchange = 'bybit'), \
             edge AS (SELECT gone, back, \
                 (SELECT time FROM tick_data WHERE exchange = 'bybit' AND received_at < back ORDER BY received_at DESC LIMIT 1) AS last, \
                 (SELECT time FROM tick_data WHERE exchange = 'bybit' AND received_at >= back ORDER BY received_at LIMIT 1) AS first \
                 FROM hole WHERE back > gone), \
             listed AS (SELECT coalesce(range_agg(tstzrange(from_time, to_time, '[]')), '{}') AS spans \
                 FROM tick_gaps WHERE exchange = 'bybit') \
         SELECT EXISTS (SELECT FROM edge, listed WHERE last < first \
             AND EXISTS (SELECT FROM unnest(tstzmultirange(tstzrange(last, first)) - spans) AS open \
                 WHERE upper(open) - lower(open) > interval '0.5 s') \
             AND EXISTS (SELECT FROM unnest(tstzmultirange(tstzrange(gone, back)) - spans) AS open \
                 WHERE upper(open) - lower(open) > interval '0.5 s'))",
    ),
    ("nothing at all", "SELECT NOT EXISTS (SELECT FROM tick_data)"),
];

async fn plain_reading(recorded: &Recorded) -> Vec<&'static str> {
    let mut found = Vec::new();
    for (what, query) in PLAIN {
        // What was before the oldest day that is there was dropped, and is no loss.
        let query = format!(
            "WITH kept AS (SELECT coalesce(min(to_date(substring(relname FROM '\\d{{8}}'), 'YYYYMMDD')), '2000-01-01')::timestamp \
                 AT TIME ZONE 'UTC' AS begin FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid \
                 WHERE inhparent = 'tick_data'::regclass) SELECT ({query})"
        );
        let is_found: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .fetch_one(&recorded.database.pool)
            .await
            .unwrap();
        if is_found {
            found.push(what);
        }
    }
    found
}

#[tokio::test]
async fn no_verdict_is_better_than_a_plain_reading_of_all_the_tables() {
    let recorded = recorded().await;
    let report = recorded.verify().await;
    assert!(report.complete && report.sessions.judged == 5, "{report}");
    let first_seed = first_seed();
    let mut complete = 0;
    for seed in first_seed..first_seed + ROUNDS {
        let mut random = seed;
        let mut done = Vec::new();
        for _ in 0..=next(&mut random) % 2 {
            done.push(damage(&recorded, &mut random).await);
        }
        let plain = plain_reading(&recorded).await;
        let report = recorded.verify().await;
        let said = format!(
            "{}={seed} repeats it\n{done:#?}\na plain reading finds: {plain:?}\n{report}",
            super::agreement::SEED
        );
        assert_eq!(report.complete, plain.is_empty(), "{said}");
        assert_eq!(report.complete, report.verdict == Verdict::Complete, "{said}");
        complete += u64::from(report.complete);
        restore(&recorded).await;
    }
    assert!(complete > 0 && complete < ROUNDS, "{complete} of {ROUNDS} from seed {first_seed} on");
    assert!(recorded.verify().await.complete, "what was restored is what was recorded");
}
