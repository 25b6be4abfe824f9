//! The stored ids of a symbol, looked through once, from where the last look ended.
//!
//! A step reads a bounded stretch of time through the primary key, so that its cost is that of what is new, never of
//! the whole table.

use chrono::TimeDelta;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use tracing::debug;

use super::gaps::number;
use crate::domain::{GapCause, IdRange, Instrument, TimeRange, Timestamp};

/// Exchange time that one step looks through, from the first trade of it.
const STEP: TimeDelta = TimeDelta::minutes(10);
/// Jumps that one step names; the next step begins after the last of them.
const JUMPS_MAX: i64 = 1_000;
/// Ids that go back although the trade is this much younger: the exchange counts anew.
const RESET_MIN: TimeDelta = TimeDelta::seconds(60);

/// A stored trade up to which all is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its id.
    pub id: u64,
    /// Its exchange time.
    pub time: Timestamp,
}

/// Ids between two stored trades whose ids are not consecutive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// The ids that were jumped over.
    pub ids: IdRange,
    /// From the exchange time of the trade before it to that of the trade after it.
    pub times: TimeRange,
}

/// What one step found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditStep {
    /// In order of time: some may be filled by trades that are stamped out of order.
    pub jumps: Vec<Jump>,
    /// Where the next step begins.
    pub next: Mark,
}

/// Open gaps of a symbol beyond which those of a step are listed as one, from the first of their ids to the last.
const OPEN_MAX: i64 = 10_000;
/// Ids further above the one before than this are where the count goes on only if others are near them.
const JUMP_MAX: i64 = 1_000;
/// The number of others: as many as make a feed follow a count that jumped.
const NEAR_MIN: i64 = 3;
/// How far above it they may be.
const NEAR_IDS: i64 = NEAR_MIN * JUMP_MAX;
/// How long after such an id others are looked for.
const NEAR_TIME: TimeDelta = TimeDelta::hours(6);
/// Ids without others that one step leaves out; it takes the next as they are.
const STRAYS_MAX: usize = 20;

type Row = (i64, DateTime<Utc>, i64, DateTime<Utc>);

/// Where the last look at a symbol ended.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn checked_until(
    pool: &PgPool,
    instrument: Instrument,
) -> Result<Option<Mark>, sqlx::Error> {
    let query = concat!(
        "SELECT ",
        number!(),
        ", time FROM checked_until WHERE exchange = $1 AND symbol = $2"
    );
    let row: Option<(Option<i64>, DateTime<Utc>)> = sqlx::query_as(query)
        .bind(instrument.exchange())
        .bind(instrument.symbol().as_str())
        .fetch_optional(pool)
        .await?;
    Ok(row.and_then(|(id, time)| mark(id?, time)))
}

/// The first stored trade of a symbol at or after a time.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn first_stored(
    pool: &PgPool,
    instrument: Instrument,
    since: Timestamp,
) -> Result<Option<Mark>, sqlx::Error> {
    let query = concat!(
        "SELECT id, time FROM (SELECT ",
        number!(),
        " AS id, time FROM tick_data WHERE exchange = $1 AND symbol = $2 AND time >= $3) AS ticks \
         WHERE id IS NOT NULL ORDER BY time, id LIMIT 1"
    );
    let row: Option<(i64, DateTime<Utc>)> = sqlx::query_as(query)
        .bind(instrument.exchange())
        .bind(instrument.symbol().as_str())
        .bind(since.to_datetime())
        .fetch_optional(pool)
        .await?;
    Ok(row.and_then(|(id, time)| mark(id, time)))
}

/// Looks through what is stored of a symbol after `from`, up to `until` or a step's length; `None`: nothing is there.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn audit_step(
    pool: &PgPool,
    instrument: Instrument,
    from: Mark,
    until: Timestamp,
) -> Result<Option<AuditStep>, sqlx::Error> {
    let begin: Option<DateTime<Utc>> = sqlx::query_scalar(
        "SELECT min(time) FROM tick_data WHERE exchange = $1 AND symbol = $2 AND time > $3 AND time <= $4",
    )
    .bind(instrument.exchange())
    .bind(instrument.symbol().as_str())
    .bind(from.time.to_datetime())
    .bind(until.to_datetime())
    .fetch_one(pool)
    .await?;
    let Some(begin) = begin else { return Ok(None) };
    let end = until.to_datetime().min(begin + STEP);
    let mut strays = Vec::new();
    let rows = loop {
        let rows = jumps(pool, instrument, from, end, &strays).await?;
        let stray = first_stray(pool, instrument, &rows, until).await?;
        match stray.filter(|_| strays.len() < STRAYS_MAX) {
            Some(stray) => strays.push(stray),
            None => break rows,
        }
    };
    let jumps = rows.iter().filter_map(jump).collect();
    if let Some(next) = rows.last().and_then(|(_, _, id, time)| mark(*id, *time)) {
        return Ok(Some(AuditStep { jumps, next }));
    }
    // Nothing but lower ids: strays, or an exchange that counts anew.
    let reset_at = from.time.to_datetime() + RESET_MIN;
    let anew = match instant(reset_at.max(begin)) {
        Some(since) if begin >= reset_at && strays.is_empty() => {
            first_stored(pool, instrument, since).await?
        }
        _ => None,
    };
    let skipped = instant(end).filter(|end| *end < until).map(|time| Mark { id: from.id, time });
    Ok(anew.or(skipped).map(|next| AuditStep { jumps, next }))
}

/// The jumps of the stored ids after `from`, and the last of them; those at and near these strays are left out.
async fn jumps(
    pool: &PgPool,
    instrument: Instrument,
    from: Mark,
    end: DateTime<Utc>,
    strays: &[i64],
) -> Result<Vec<Row>, sqlx::Error> {
    let query = concat!(
        "WITH new AS (SELECT id, time FROM (SELECT ",
        number!(),
        " AS id, time FROM tick_data WHERE exchange = $1 AND symbol = $2 AND time BETWEEN $3 AND $4) AS ticks \
         WHERE id > $5 AND NOT EXISTS (\
             SELECT FROM unnest($7::bigint[]) AS stray WHERE id BETWEEN stray AND stray + $8)), \
         pairs AS (SELECT lag(id, 1, $5) OVER ids AS before, lag(time, 1, $3) OVER ids AS time_before, \
             id, time, lead(id) OVER ids AS after FROM new WINDOW ids AS (ORDER BY id)) \
         SELECT before, time_before, id, time FROM pairs \
         WHERE id > before + 1 OR after IS NULL ORDER BY id LIMIT $6"
    );
    sqlx::query_as(query)
        .bind(instrument.exchange())
        .bind(instrument.symbol().as_str())
        .bind(from.time.to_datetime())
        .bind(end)
        .bind(i64::try_from(from.id).unwrap_or(i64::MAX))
        .bind(JUMPS_MAX)
        .bind(strays)
        .bind(NEAR_IDS)
        .fetch_all(pool)
        .await
}

/// The first id that is far above the one before, and has no others near it.
async fn first_stray(
    pool: &PgPool,
    instrument: Instrument,
    rows: &[Row],
    until: Timestamp,
) -> Result<Option<i64>, sqlx::Error> {
    for (before, _, id, time) in rows.iter().filter(|(before, _, id, _)| id - before > JUMP_MAX) {
        let query = concat!(
            "SELECT count(*) FROM (SELECT FROM (SELECT ",
            number!(),
            " AS id FROM tick_data WHERE exchange = $1 AND symbol = $2 AND time BETWEEN $3 AND $4) AS ticks \
             WHERE id > $5 AND id <= $5 + $6 LIMIT $7) AS others"
        );
        let others: i64 = sqlx::query_scalar(query)
            .bind(instrument.exchange())
            .bind(instrument.symbol().as_str())
            .bind(*time - RESET_MIN)
            .bind((*time + NEAR_TIME).min(until.to_datetime()))
            .bind(*id)
            .bind(NEAR_IDS)
            .bind(NEAR_MIN)
            .fetch_one(pool)
            .await?;
        if others < NEAR_MIN {
            debug!(%instrument, before, id, "An id that no others are near is left out");
            return Ok(Some(*id));
        }
    }
    Ok(None)
}

/// The ranges of a symbol that touch these ids and are listed as missing, or as explained.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn listed(
    pool: &PgPool,
    instrument: Instrument,
    ids: IdRange,
) -> Result<Vec<IdRange>, sqlx::Error> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT first_id, last_id FROM tick_gaps \
         WHERE exchange = $1 AND symbol = $2 AND status <> 'repaired' \
             AND CASE WHEN first_id || last_id ~ '^[0-9]+$' \
                 THEN first_id::numeric <= $4 AND last_id::numeric >= $3 END",
    )
    .bind(instrument.exchange())
    .bind(instrument.symbol().as_str())
    .bind(i64::try_from(ids.first()).unwrap_or(i64::MAX))
    .bind(i64::try_from(ids.last()).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|(first, last)| IdRange::new(first.parse().ok()?, last.parse().ok()?))
        .collect())
}

/// Lists gaps, as one where the symbol has very many, opens again those that were taken for repaired, and notes how far a symbol was looked through: all of
/// it or nothing.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn note_audit(
    pool: &PgPool,
    instrument: Instrument,
    found: &[Jump],
    until: Mark,
) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let found = match found {
        [first, .., last] if count_open(&mut transaction, instrument).await? >= OPEN_MAX => {
            &[Jump { ids: first.ids.hull(last.ids), times: first.times.hull(last.times) }][..]
        }
        found => found,
    };
    if !found.is_empty() {
        let first: Vec<_> = found.iter().map(|jump| jump.ids.first().to_string()).collect();
        let last: Vec<_> = found.iter().map(|jump| jump.ids.last().to_string()).collect();
        let from: Vec<_> = found.iter().map(|jump| jump.times.from.to_datetime()).collect();
        let to: Vec<_> = found.iter().map(|jump| jump.times.to.to_datetime()).collect();
        sqlx::query(
            "INSERT INTO tick_gaps (exchange, symbol, first_id, last_id, from_time, to_time, cause) \
             SELECT $1, $2, first_id, last_id, from_time, to_time, $7 \
             FROM unnest($3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[]) \
                 AS found (first_id, last_id, from_time, to_time) \
             ON CONFLICT (exchange, symbol, first_id, last_id) WHERE first_id IS NOT NULL \
             DO UPDATE SET status = 'open', closed_at = NULL, attempts = 0, retry_at = now(), \
                 cause = EXCLUDED.cause, opened_at = EXCLUDED.opened_at, note = NULL \
             WHERE tick_gaps.status = 'repaired'",
        )
        .bind(instrument.exchange())
        .bind(instrument.symbol().as_str())
        .bind(first)
        .bind(last)
        .bind(from)
        .bind(to)
        .bind(GapCause::NotInDatabase.as_str())
        .execute(&mut *transaction)
        .await?;
    }
    sqlx::query(
        "INSERT INTO checked_until (exchange, symbol, trade_id, time) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (exchange, symbol) DO UPDATE SET trade_id = EXCLUDED.trade_id, time = EXCLUDED.time \
         WHERE checked_until.time <= EXCLUDED.time",
    )
    .bind(instrument.exchange())
    .bind(instrument.symbol().as_str())
    .bind(until.id.to_string())
    .bind(until.time.to_datetime())
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}

/// Has the stored ids of a symbol looked through again from the first trade at or after this time on: older ones than
/// where the look began, or ended, may have come since.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn look_again(
    pool: &PgPool,
    instrument: Instrument,
    from: Timestamp,
) -> Result<(), sqlx::Error> {
    let Some(Mark { id, time }) = first_stored(pool, instrument, from).await? else {
        return Ok(());
    };
    sqlx::query(
        "UPDATE checked_until SET trade_id = $3, time = $4 \
         WHERE exchange = $1 AND symbol = $2 AND time > $4",
    )
    .bind(instrument.exchange())
    .bind(instrument.symbol().as_str())
    .bind(id.to_string())
    .bind(time.to_datetime())
    .execute(pool)
    .await
    .map(|_done| ())
}

async fn count_open(
    connection: &mut PgConnection,
    instrument: Instrument,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT count(*) FROM tick_gaps WHERE exchange = $1 AND symbol = $2 AND status = 'open'",
    )
    .bind(instrument.exchange())
    .bind(instrument.symbol().as_str())
    .fetch_one(connection)
    .await
}

fn instant(time: DateTime<Utc>) -> Option<Timestamp> {
    Timestamp::from_micros(time.timestamp_micros()).ok()
}

fn mark(id: i64, time: DateTime<Utc>) -> Option<Mark> {
    Some(Mark { id: u64::try_from(id).ok()?, time: instant(time)? })
}

fn jump((before, time_before, id, time): &Row) -> Option<Jump> {
    let ids = IdRange::new(u64::try_from(before + 1).ok()?, u64::try_from(id - 1).ok()?)?;
    Some(Jump { ids, times: TimeRange::between(instant(*time_before)?, instant(*time)?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::bounds;

    #[test]
    fn the_audit_follows_a_count_that_jumped_where_a_feed_does() {
        assert_eq!(u64::try_from(JUMP_MAX).unwrap(), bounds::JUMP_MAX);
        assert_eq!(usize::try_from(NEAR_MIN).unwrap() + 1, bounds::JUMP_CONFIRMED);
    }
}
