//! Ticks that were refused for their time only are stored once the clocks agree: then it was a clock that was wrong, and
//! not the exchange's stamp.
//!
//! Three things show that, each enough: the database took the tick in within a day of its time; the recorder's clock is
//! known to have been off by just as much; or two exchanges were refused in the same hour for being off by the same.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use sqlx::PgPool;
use sqlx::types::chrono::{DateTime, Utc};

use super::partitions::Partitions;
use super::tick_data;
use crate::domain::{ClockOffset, Timestamp};

/// Ticks that one statement stores.
const STEP: i64 = 2_000;
/// Days that are looked through for ticks which came another way meanwhile.
const DAYS_MAX: i64 = 50;

/// What came of a look at the refused ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restored {
    /// Stored now.
    pub stored: u64,
    /// Stored before, from another connection or the exchange's history.
    pub already_there: u64,
    /// Gaps that were given up because of them, and are open again.
    pub reopened: u64,
}

type Key = (String, String, DateTime<Utc>, String);

const FIND: &str = concat!(
    "WITH refused AS ( \
         SELECT *, date_trunc('hour', received_at) AS hour, time - received_at AS lag FROM rejected_ticks \
         WHERE ",
    only_time!(),
    "    AND price > 0 AND quantity > 0 AND trade_id NOT LIKE '%' || chr(65533) || '%' \
             AND time >= '2009-01-03Z' AND time < now() + interval '2 days' \
     ), lags AS ( \
         SELECT exchange, hour, percentile_disc(0.5) WITHIN GROUP (ORDER BY lag) AS lag FROM refused GROUP BY 1, 2 \
     ), agreed AS ( \
         SELECT exchange, hour, lag FROM lags WHERE EXISTS (SELECT FROM lags AS other WHERE other.hour = lags.hour \
             AND other.exchange <> lags.exchange \
             AND other.lag BETWEEN lags.lag - interval '1 hour' AND lags.lag + interval '1 hour') \
     ) \
     SELECT exchange, symbol, time, trade_id FROM refused LEFT JOIN agreed USING (exchange, hour) \
     WHERE (time BETWEEN rejected_at - interval '1 day' AND rejected_at + interval '1 day' \
         OR refused.lag BETWEEN $1 - interval '1 hour' AND $1 + interval '1 hour' \
         OR refused.lag BETWEEN agreed.lag - interval '1 hour' AND agreed.lag + interval '1 hour') \
         AND NOT (time AT TIME ZONE 'UTC')::date = ANY ($2) \
     ORDER BY time, exchange, symbol, trade_id LIMIT $3"
);

/// Gaps that were given up because of a moved tick are open again: what is left of them decides anew.
static MOVE: LazyLock<String> = LazyLock::new(|| {
    let columns = tick_data::names();
    format!(
        "WITH moved AS ( \
         DELETE FROM rejected_ticks AS it USING unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[]) \
             AS key (exchange, symbol, time, trade_id) \
         WHERE it.exchange = key.exchange AND it.symbol = key.symbol AND it.time = key.time AND it.trade_id = key.trade_id \
         RETURNING it.* \
     ), stored AS ( \
         INSERT INTO tick_data ({columns}) SELECT {columns} FROM moved \
         ORDER BY exchange, symbol, time, trade_id ON CONFLICT DO NOTHING RETURNING 1 \
     ), reopened AS ( \
         UPDATE tick_gaps SET status = 'open', closed_at = NULL, retry_at = now(), attempts = 0, claimed_by = NULL, \
             claimed_until = NULL \
         WHERE status = 'unrecoverable' AND starts_with(note, 'refused by the database') AND EXISTS ( \
             SELECT FROM moved WHERE moved.exchange = tick_gaps.exchange AND moved.symbol = tick_gaps.symbol \
                 AND CASE WHEN first_id IS NULL THEN moved.time BETWEEN from_time AND to_time \
                     WHEN first_id || last_id || moved.trade_id ~ '^[0-9]+$' \
                         THEN moved.trade_id::numeric BETWEEN first_id::numeric AND last_id::numeric \
                     ELSE false END) RETURNING 1) \
     SELECT (SELECT count(*) FROM moved), (SELECT count(*) FROM stored), (SELECT count(*) FROM reopened)"
    )
});

/// Stores the ticks that were refused for their time only and whose time is known to be right, in steps, and takes those
/// out of `rejected_ticks` that are stored by now.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn restore_refused_for_time(
    pool: &PgPool,
    offset: &ClockOffset,
) -> Result<Restored, sqlx::Error> {
    let mut restored = Restored::default();
    let partitions = Partitions::default();
    let mut unmade: BTreeSet<i64> = BTreeSet::new();
    let offset =
        sqlx::postgres::types::PgInterval { months: 0, days: 0, microseconds: offset.micros() };
    loop {
        let passed_over: Vec<_> = unmade.iter().map(|day| super::partitions::date(*day)).collect();
        let mut keys: Vec<Key> =
            sqlx::query_as(FIND).bind(offset).bind(passed_over).bind(STEP).fetch_all(pool).await?;
        if keys.is_empty() {
            break;
        }
        let days = keys.iter().map(day_of).collect();
        let mut connection = pool.acquire().await?;
        let left = partitions.make(&mut connection, days).await?;
        drop(connection);
        unmade.extend(left.into_keys());
        keys.retain(|key| !unmade.contains(&day_of(key)));
        if keys.is_empty() {
            continue;
        }
        let (moved, stored, reopened) = store(pool, keys).await?;
        restored.stored += stored;
        restored.already_there += moved.saturating_sub(stored);
        restored.reopened += reopened;
    }
    restored.already_there += remove_stored(pool).await?;
    Ok(restored)
}

fn day_of((_, _, time, _): &Key) -> i64 {
    Timestamp::from_micros(time.timestamp_micros()).unwrap_or(Timestamp::EPOCH).day()
}

async fn store(pool: &PgPool, keys: Vec<Key>) -> Result<(u64, u64, u64), sqlx::Error> {
    let (mut exchanges, mut symbols, mut times, mut ids) = (vec![], vec![], vec![], vec![]);
    for (exchange, symbol, time, id) in keys {
        exchanges.push(exchange);
        symbols.push(symbol);
        times.push(time);
        ids.push(id);
    }
    let (moved, stored, reopened): (i64, i64, i64) = sqlx::query_as(MOVE.as_str())
        .bind(exchanges)
        .bind(symbols)
        .bind(times)
        .bind(ids)
        .fetch_one(pool)
        .await?;
    let number = |count| u64::try_from(count).unwrap_or_default();
    Ok((number(moved), number(stored), number(reopened)))
}

/// Takes out what the exchange's history or another recorder has brought since, day by day: only those partitions are
/// looked at.
async fn remove_stored(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let days: Vec<DateTime<Utc>> = sqlx::query_scalar(concat!(
        "SELECT DISTINCT date_trunc('day', time, 'UTC') AS day FROM rejected_ticks WHERE ",
        only_time!(),
        " ORDER BY day DESC LIMIT $1"
    ))
    .bind(DAYS_MAX)
    .fetch_all(pool)
    .await?;
    let mut removed = 0;
    for day in days {
        let done = sqlx::query(concat!(
            "DELETE FROM rejected_ticks AS refused WHERE ",
            only_time!(),
            " AND time >= $1 AND time < $1 + interval '24 hours' AND EXISTS (SELECT FROM tick_data AS it \
                 WHERE it.exchange = refused.exchange AND it.symbol = refused.symbol AND it.time = refused.time \
                 AND it.trade_id = refused.trade_id AND it.time >= $1 AND it.time < $1 + interval '24 hours')"
        ))
        .persistent(false)
        .bind(day)
        .execute(pool)
        .await?;
        removed += done.rows_affected();
    }
    Ok(removed)
}
