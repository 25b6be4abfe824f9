//! The lease under which a gap is worked on, and what comes of it.

use std::time::Duration;

use sqlx::types::chrono::{DateTime, Utc};

use super::{GapScope, Gaps};
use crate::domain::{GapPart, IdRange, Instrument, OpenGap, Symbol, TimeRange, Timestamp};

/// How long a gap is somebody's without a renewal.
pub const LEASE: Duration = Duration::from_secs(30);
/// The wait after a first attempt that came to nothing; doubled each time.
const RETRY_MIN: Duration = Duration::from_secs(5);
/// The longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(3_600);

type ClaimedRow = (
    i64,
    String,
    String,
    Option<String>,
    Option<String>,
    DateTime<Utc>,
    DateTime<Utc>,
    i32,
    DateTime<Utc>,
    DateTime<Utc>,
);

impl Gaps {
    /// Takes an open gap that is due and nobody's, and holds it for [`LEASE`].
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    pub async fn claim(&self, scope: &GapScope) -> Result<Option<OpenGap>, sqlx::Error> {
        let row: Option<ClaimedRow> = sqlx::query_as(
            "UPDATE tick_gaps AS gap SET claimed_by = $1, claimed_until = now() + $2 \
             FROM instruments \
             WHERE gap.id = (\
                 SELECT id FROM tick_gaps JOIN instruments USING (exchange, symbol) \
                 WHERE status = 'open' AND exchange = $3 AND retry_at <= now() \
                     AND opened_at <= now() - $4 \
                     AND (claimed_until IS NULL OR claimed_until < now()) \
                     AND ($5::interval IS NULL OR from_time >= now() - $5) \
                     AND ($6::text[] IS NULL OR symbol = ANY($6)) \
                     AND (first_id IS NULL OR first_id || last_id ~ '^[0-9]{1,36}$') \
                 ORDER BY CASE WHEN $7 THEN from_time END DESC, from_time \
                 LIMIT 1 FOR UPDATE OF tick_gaps SKIP LOCKED) \
             AND instruments.exchange = gap.exchange AND instruments.symbol = gap.symbol \
             RETURNING gap.id, base, quote, first_id, last_id, from_time, to_time, attempts, opened_at, now()",
        )
        .bind(&self.worker)
        .bind(LEASE)
        .bind(scope.exchange)
        .bind(scope.settled)
        .bind(scope.max_age)
        .bind(&scope.symbols)
        .bind(scope.newest_first)
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| claimed(scope.exchange, row)).transpose()
    }

    /// Holds a claimed gap for another [`LEASE`]; `false`: it is somebody else's by now.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    pub async fn renew(&self, gap: &OpenGap) -> Result<bool, sqlx::Error> {
        let done = sqlx::query(
            "UPDATE tick_gaps SET claimed_until = now() + $3 \
             WHERE id = $1 AND claimed_by = $2 AND status = 'open'",
        )
        .bind(gap.id)
        .bind(&self.worker)
        .bind(LEASE)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Lets go of a gap after an attempt that came to nothing; the next one waits the longer the more there were.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    pub async fn postpone(&self, gap: &OpenGap, note: &str) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE tick_gaps SET attempts = attempts + 1, retry_at = now() + $3, note = $4, \
                 claimed_by = NULL, claimed_until = NULL \
             WHERE id = $1 AND claimed_by = $2 AND status = 'open'",
        )
        .bind(gap.id)
        .bind(&self.worker)
        .bind(retry_delay(gap.attempts + 1))
        .bind(note)
        .execute(&self.pool)
        .await
        .map(|_done| ())
    }

    /// Lets go of a gap that was not worked on.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    pub async fn release(&self, gap: &OpenGap) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE tick_gaps SET claimed_by = NULL, claimed_until = NULL \
             WHERE id = $1 AND claimed_by = $2 AND status = 'open'",
        )
        .bind(gap.id)
        .bind(&self.worker)
        .execute(&self.pool)
        .await
        .map(|_done| ())
    }

    /// Writes down what came of a gap: its row becomes the first part, the others are added. A part that is listed
    /// already, from another finding, is replaced by what is known now. `false`: the gap is somebody else's by now,
    /// and nothing was written.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    pub async fn settle(&self, gap: &OpenGap, parts: &[GapPart]) -> Result<bool, sqlx::Error> {
        let first: Vec<_> =
            parts.iter().map(|part| part.ids.map(|ids| ids.first().to_string())).collect();
        let last: Vec<_> =
            parts.iter().map(|part| part.ids.map(|ids| ids.last().to_string())).collect();
        let from: Vec<_> = parts.iter().map(|part| part.times.from.to_datetime()).collect();
        let to: Vec<_> = parts.iter().map(|part| part.times.to.to_datetime()).collect();
        let status: Vec<_> = parts.iter().map(|part| part.status.as_str()).collect();
        let notes: Vec<_> = parts.iter().map(|part| part.note.as_deref()).collect();
        let attempts: Vec<_> =
            parts.iter().map(|part| i32::try_from(part.attempts).unwrap_or(i32::MAX)).collect();
        let delays: Vec<_> = parts.iter().map(|part| retry_delay(part.attempts)).collect();
        let mut transaction = self.pool.begin().await?;
        let row: Option<(String, DateTime<Utc>)> = sqlx::query_as(
            "DELETE FROM tick_gaps WHERE id = $1 AND claimed_by = $2 AND status = 'open' \
             RETURNING cause, opened_at",
        )
        .bind(gap.id)
        .bind(&self.worker)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some((cause, opened_at)) = row else { return Ok(false) };
        sqlx::query(
            "DELETE FROM tick_gaps USING unnest($3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::text[]) \
                 AS part (first_id, last_id, from_time, to_time, status) \
             WHERE exchange = $1 AND symbol = $2 \
                 AND (part.status <> 'open' OR tick_gaps.status = 'repaired') \
                 AND (tick_gaps.first_id = part.first_id AND tick_gaps.last_id = part.last_id \
                     OR tick_gaps.first_id IS NULL AND part.first_id IS NULL \
                         AND tick_gaps.from_time = part.from_time AND tick_gaps.to_time = part.to_time)",
        )
        .bind(gap.instrument.exchange())
        .bind(gap.instrument.symbol().as_str())
        .bind(&first)
        .bind(&last)
        .bind(&from)
        .bind(&to)
        .bind(&status)
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "INSERT INTO tick_gaps (id, exchange, symbol, cause, opened_at, closed_at, \
                 first_id, last_id, from_time, to_time, status, note, attempts, retry_at) \
             OVERRIDING SYSTEM VALUE \
             SELECT CASE WHEN part = 1 THEN $1 ELSE nextval(pg_get_serial_sequence('tick_gaps', 'id')) END, \
                 $2, $3, $4, $5, CASE WHEN status <> 'open' THEN now() END, \
                 first_id, last_id, from_time, to_time, status, note, attempts, now() + delay \
             FROM unnest($6::text[], $7::text[], $8::timestamptz[], $9::timestamptz[], $10::text[], $11::text[], $12::int[], $13::interval[]) \
                 WITH ORDINALITY AS parts (first_id, last_id, from_time, to_time, status, note, attempts, delay, part) \
             ON CONFLICT DO NOTHING",
        )
        .bind(gap.id)
        .bind(gap.instrument.exchange())
        .bind(gap.instrument.symbol().as_str())
        .bind(cause)
        .bind(opened_at)
        .bind(first)
        .bind(last)
        .bind(from)
        .bind(to)
        .bind(status)
        .bind(notes)
        .bind(attempts)
        .bind(delays)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// How long the next attempt waits after `attempts` that came to nothing.
#[must_use]
pub fn retry_delay(attempts: u32) -> Duration {
    match attempts.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => RETRY_MIN.saturating_mul(2_u32.saturating_pow(doublings)).min(RETRY_MAX),
    }
}

fn claimed(exchange: &str, row: ClaimedRow) -> Result<OpenGap, sqlx::Error> {
    let (id, base, quote, first, last, from, to, attempts, opened_at, now) = row;
    let unreadable = |error: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(error);
    let symbol = Symbol::new(&base, &quote).map_err(|error| unreadable(error.into()))?;
    let instrument =
        Instrument::intern(exchange, &symbol).map_err(|error| unreadable(error.into()))?;
    let number = |text: String| text.parse().map_err(|error| unreadable(Box::new(error)));
    let ids = match first.zip(last) {
        Some((first, last)) => Some(IdRange::between(number(first)?, number(last)?)),
        None => None,
    };
    let time = |time: DateTime<Utc>| {
        Timestamp::from_micros(time.timestamp_micros()).map_err(|error| unreadable(error.into()))
    };
    Ok(OpenGap {
        id,
        instrument,
        ids,
        times: TimeRange::new(time(from)?, time(to)?),
        attempts: u32::try_from(attempts).unwrap_or_default(),
        age: (now - opened_at).to_std().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_waits_twice_as_long_up_to_an_hour() {
        let seconds: Vec<u64> = (0..=12).map(|attempts| retry_delay(attempts).as_secs()).collect();
        assert_eq!(seconds, [0, 5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600, 3_600]);
        assert_eq!(retry_delay(u32::MAX), RETRY_MAX);
    }
}
