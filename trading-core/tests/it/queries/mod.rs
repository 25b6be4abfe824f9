//! The views and functions for queries: the answers are right, and no day is read in vain, over any length of history.
//!
//! What was read is taken from the server's own counts of a transaction: the scans that began of each partition and its
//! index. That sees into functions, where no plan is shown, and no clock is asked.

mod answers;
mod docs;
mod pruning;
mod text;

use std::collections::BTreeSet;

use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Executor as _, PgPool, Postgres};

/// Scans that were begun of each day, by this connection.
const SCANS: &str = "SELECT pg_class.oid::bigint, (pg_stat_get_xact_numscans(pg_class.oid) \
        + (SELECT coalesce(sum(pg_stat_get_xact_numscans(indexrelid)), 0) FROM pg_index WHERE indrelid = pg_class.oid))::bigint, \
        from_time::date - current_date \
    FROM tick_partitions() JOIN pg_class ON pg_class.oid = partition ORDER BY 1";

/// What one query did.
#[derive(Debug)]
struct Looked {
    /// The days that were read, counted from today: -1 is yesterday.
    read: BTreeSet<i32>,
    /// The days that were locked for it: those that it was planned for.
    locked: BTreeSet<i32>,
    /// What it could not do.
    error: Option<sqlx::Error>,
}

async fn run(pool: &PgPool, sql: impl Into<String>) {
    pool.execute(sqlx::raw_sql(AssertSqlSafe(sql.into()))).await.unwrap();
}

async fn number(pool: &PgPool, sql: impl Into<String>) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.into())).fetch_one(pool).await.unwrap()
}

/// Symbols that trade every ten seconds since two hours ago, and a few times on each of these days before.
async fn history(pool: &PgPool, days: i32) {
    run(
        pool,
        format!(
            "SELECT ensure_tick_partition(current_date + n) FROM generate_series(-{days}, 7) AS n; \
             INSERT INTO instruments SELECT exchange, base || 'USDT', base, 'USDT', base || 'USDT' \
                 FROM unnest('{{binance,bybit,coinbase,kraken,okx}}'::text[]) AS exchange, unnest('{{BTC,ETH}}'::text[]) AS base; \
             INSERT INTO tick_data SELECT at, at, exchange, symbol, extract(epoch FROM at)::bigint, \
                     CASE WHEN extract(second FROM at) < 30 THEN 'buy' ELSE 'sell' END, 100 + extract(minute FROM at), 1.5, 'live' \
                 FROM instruments, generate_series(now() - interval '2 hours', now(), interval '10 seconds') AS at; \
             INSERT INTO tick_data SELECT at, at, exchange, symbol, extract(epoch FROM at)::bigint, 'buy', 100, 1.5, 'backfill' \
                 FROM instruments, generate_series(current_date - {days} + interval '1 hour', now() - interval '3 hours', \
                     interval '7 hours') AS at; \
             INSERT INTO tick_gaps (exchange, symbol, from_time, to_time, cause) \
                 SELECT exchange, symbol, now() - interval '2 days', now() - interval '1 day', 'a test' FROM instruments; \
             ANALYZE"
        ),
    )
    .await;
}

async fn scans(connection: &mut PoolConnection<Postgres>) -> Vec<(i64, i64, i32)> {
    sqlx::query_as(SCANS).persistent(false).fetch_all(&mut **connection).await.unwrap()
}

/// Runs a query in a transaction that is taken back, and looks which days it touched.
async fn look(pool: &PgPool, sql: &str) -> Looked {
    let mut connection = pool.acquire().await.unwrap();
    // The counts are of one process.
    connection.execute("BEGIN; SET LOCAL max_parallel_workers_per_gather = 0").await.unwrap();
    let before = scans(&mut connection).await;
    connection.execute("SAVEPOINT asked").await.unwrap();
    let done = connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await;
    let locked: Result<Vec<i32>, _> = sqlx::query_scalar(
        "SELECT DISTINCT from_time::date - current_date FROM pg_locks \
         JOIN tick_partitions() ON relation IN (SELECT partition UNION ALL SELECT indexrelid FROM pg_index WHERE indrelid = partition) \
         WHERE pid = pg_backend_pid()",
    )
    .persistent(false)
    .fetch_all(&mut *connection)
    .await;
    let mut looked = Looked { read: BTreeSet::new(), locked: BTreeSet::new(), error: done.err() };
    if looked.error.is_some() {
        connection.execute("ROLLBACK").await.unwrap();
        return looked;
    }
    looked.locked.extend(locked.unwrap());
    let after = scans(&mut connection).await;
    connection.execute("ROLLBACK").await.unwrap();
    for ((day, began, _), (same, ended, ago)) in before.into_iter().zip(after) {
        assert_eq!(day, same);
        if ended > began {
            looked.read.insert(ago);
        }
    }
    looked
}
