//! The journal's statements of gaps. Each may be done twice: what a lost answer leaves in doubt is written again.

use sqlx::PgPool;
use tracing::warn;

use crate::domain::{GapCause, GapRecord, IdRange, Instrument};

/// Open gaps of ids of one symbol. What goes beyond widens the newest of them: whoever repairs it asks for what of it is
/// not stored.
const OPEN_MAX: i64 = 1_000;

/// What is noted of ids that were listed as missing and never were.
const RETRACTED: &str = "retracted: no trade followed the id that showed it";

/// The statement that lists a gap, by the index that knows it again.
macro_rules! gap_sql {
    ($known_by:literal) => {
        concat!(
            "INSERT INTO tick_gaps (exchange, symbol, first_id, last_id, from_time, to_time, cause, opened_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, now()) ON CONFLICT ",
            $known_by,
            " DO UPDATE SET status = 'open', closed_at = NULL, retry_at = now() WHERE tick_gaps.status = 'repaired'",
        )
    };
}

/// A gap that was found before is one gap: open still, or open again when it had been repaired, for what is missing
/// again was lost again. It is as old as its row, by the database's clock: by that it is given up one day. One that an open gap in time reaches up to makes that longer.
pub(super) async fn write_gap(pool: &PgPool, gap: &GapRecord) -> Result<(), sqlx::Error> {
    let is_wider = match gap.ids {
        Some(ids) => widen(pool, gap, ids).await?,
        None => lengthen(pool, gap).await?,
    };
    if is_wider {
        return Ok(());
    }
    let (by_ids, by_time) = (
        gap_sql!("(exchange, symbol, first_id, last_id) WHERE first_id IS NOT NULL"),
        gap_sql!("(exchange, symbol, from_time, to_time) WHERE first_id IS NULL"),
    );
    sqlx::query(if gap.ids.is_some() { by_ids } else { by_time })
        .bind(gap.instrument.exchange())
        .bind(gap.instrument.symbol().as_str())
        .bind(gap.ids.map(|ids| ids.first().to_string()))
        .bind(gap.ids.map(|ids| ids.last().to_string()))
        .bind(gap.times.from.to_datetime())
        .bind(gap.times.to.to_datetime())
        .bind(gap.cause.as_str())
        .execute(pool)
        .await
        .map(|_done| ())
}

/// Makes an open gap in time longer that this one continues; `false`: there is none. Whoever works on it begins anew.
async fn lengthen(pool: &PgPool, gap: &GapRecord) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE tick_gaps SET to_time = greatest(to_time, $4), opened_at = now(), claimed_by = NULL, claimed_until = NULL \
         WHERE id = (SELECT id FROM tick_gaps WHERE exchange = $1 AND symbol = $2 AND status = 'open' \
                 AND first_id IS NULL AND from_time <= $3 AND to_time >= $3 \
                 AND cause = $5 ORDER BY to_time DESC LIMIT 1) \
             AND NOT EXISTS (SELECT FROM tick_gaps AS other WHERE other.exchange = $1 AND other.symbol = $2 \
                 AND other.first_id IS NULL AND other.from_time = tick_gaps.from_time \
                 AND other.to_time = greatest(tick_gaps.to_time, $4) AND other.id <> tick_gaps.id)",
    )
    .bind(gap.instrument.exchange())
    .bind(gap.instrument.symbol().as_str())
    .bind(gap.times.from.to_datetime())
    .bind(gap.times.to.to_datetime())
    .bind(gap.cause.as_str())
    .execute(pool)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Makes the newest open gap of ids wider where a symbol has too many; `false`: it has not.
async fn widen(pool: &PgPool, gap: &GapRecord, ids: IdRange) -> Result<bool, sqlx::Error> {
    let open: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM tick_gaps \
         WHERE exchange = $1 AND symbol = $2 AND status = 'open' AND first_id IS NOT NULL",
    )
    .bind(gap.instrument.exchange())
    .bind(gap.instrument.symbol().as_str())
    .fetch_one(pool)
    .await?;
    if open < OPEN_MAX {
        return Ok(false);
    }
    let widened: Option<i64> = sqlx::query_scalar(
        "WITH open AS (SELECT id, first_id, last_id FROM tick_gaps \
             WHERE exchange = $1 AND symbol = $2 AND status = 'open' AND first_id ~ '^[0-9]{1,36}$' \
                 AND last_id ~ '^[0-9]{1,36}$'), \
         newest AS (SELECT id, least(first_id::numeric, $3::numeric)::text AS first_id, \
                 greatest(last_id::numeric, $4::numeric)::text AS last_id FROM open \
             WHERE (SELECT count(*) FROM open) >= $8 ORDER BY last_id::numeric DESC, id LIMIT 1), \
         gone AS (DELETE FROM tick_gaps AS other USING newest \
             WHERE other.exchange = $1 AND other.symbol = $2 AND other.first_id = newest.first_id \
                 AND other.last_id = newest.last_id AND other.id <> newest.id) \
         UPDATE tick_gaps SET first_id = newest.first_id, last_id = newest.last_id, \
             from_time = least(from_time, $5), to_time = greatest(to_time, $6), cause = $7, \
             claimed_by = NULL, claimed_until = NULL \
         FROM newest WHERE tick_gaps.id = newest.id \
         RETURNING tick_gaps.id",
    )
    .bind(gap.instrument.exchange())
    .bind(gap.instrument.symbol().as_str())
    .bind(ids.first().to_string())
    .bind(ids.last().to_string())
    .bind(gap.times.from.to_datetime())
    .bind(gap.times.to.to_datetime())
    .bind(GapCause::JumpedOften.as_str())
    .bind(OPEN_MAX)
    .fetch_optional(pool)
    .await?;
    Ok(widened.is_some())
}

/// Closes what is open of these ids: they were never traded. A gap that begins below them keeps the ids below.
pub(super) async fn retract_gap(
    pool: &PgPool,
    instrument: Instrument,
    ids: IdRange,
) -> Result<(), sqlx::Error> {
    let (exchange, symbol) = (instrument.exchange(), instrument.symbol().as_str());
    let mut transaction = pool.begin().await?;
    let rows: Vec<(i64, String)> = sqlx::query_as(
        "SELECT id, first_id FROM tick_gaps WHERE exchange = $1 AND symbol = $2 AND status = 'open' \
             AND CASE WHEN first_id || last_id ~ '^[0-9]+$' \
                 THEN last_id::numeric BETWEEN $3::numeric AND $4::numeric END FOR UPDATE",
    )
    .bind(exchange)
    .bind(symbol)
    .bind(ids.first().to_string())
    .bind(ids.last().to_string())
    .fetch_all(&mut *transaction)
    .await?;
    for (id, begin) in rows {
        let begin = begin.parse::<u64>().unwrap_or_default();
        // The row becomes what is taken back of it; what lies below becomes a row of its own.
        if begin < ids.first() {
            sqlx::query(
                "INSERT INTO tick_gaps (exchange, symbol, first_id, last_id, from_time, to_time, cause, opened_at) \
                 SELECT exchange, symbol, first_id, $2, from_time, to_time, cause, opened_at FROM tick_gaps WHERE id = $1 \
                 ON CONFLICT DO NOTHING",
            )
            .bind(id)
            .bind((ids.first() - 1).to_string())
            .execute(&mut *transaction)
            .await?;
        }
        let closed = sqlx::query(
            "UPDATE tick_gaps SET first_id = $2, status = 'not_a_loss', closed_at = now(), note = $3, \
                 claimed_by = NULL, claimed_until = NULL \
             WHERE id = $1 AND NOT EXISTS (SELECT FROM tick_gaps AS other WHERE other.exchange = tick_gaps.exchange \
                 AND other.symbol = tick_gaps.symbol AND other.first_id = $2 \
                 AND other.last_id = tick_gaps.last_id AND other.id <> $1)",
        )
        .bind(id)
        .bind(begin.max(ids.first()).to_string())
        .bind(RETRACTED)
        .execute(&mut *transaction)
        .await?;
        if closed.rows_affected() == 0 {
            warn!("A gap of {instrument} that was retracted stays open: another row holds its ids");
        }
    }
    transaction.commit().await
}
