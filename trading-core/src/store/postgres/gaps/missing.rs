//! What of a range of ids is stored, and what is not.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::types::chrono::{DateTime, Utc};

use super::{Gaps, number};
use crate::domain::bounds::{ACKNOWLEDGE_MAX, SILENCE_MAX};
use crate::domain::{DAY, IdRange, Instrument, OpenGap, Tick, TimeRange, Timestamp};

/// The ids of a gap lie between the times of its neighbours, give or take the order in which a venue stamps trades.
const SLACK: Duration = Duration::from_secs(60);
/// For this long after a gap was found, what another connection brought may still wait in its recorder's spool.
const SPOOLED_MAX: Duration = Duration::from_secs(3_600);
/// A trade that is stored further than [`SLACK`] from its gap, but not further than this, is the same trade with another
/// time: fetched again it would be a second row.
const ELSEWHERE: Duration = DAY;

/// The numbers of ids `$5` to `$6` of a symbol that are stored, or were refused for good: not for their time only.
macro_rules! stored {
    () => {
        concat!(
            "SELECT id FROM (SELECT ",
            number!(),
            " AS id FROM tick_data WHERE exchange = $1 AND symbol = $2 AND time BETWEEN $3 AND $4) AS ticks \
             WHERE id BETWEEN $5 AND $6"
        )
    };
}
macro_rules! refused {
    () => {
        concat!(
            "SELECT id FROM (SELECT ",
            number!(),
            " AS id FROM rejected_ticks WHERE exchange = $1 AND symbol = $2 AND NOT ",
            only_time!(),
            ") AS ticks WHERE id BETWEEN $5 AND $6"
        )
    };
}

impl Gaps {
    /// Of these ids, whose trades lie between these times, the first `limit` ranges that are neither stored nor set
    /// aside as refused.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    pub async fn absent(
        &self,
        instrument: Instrument,
        ids: IdRange,
        times: TimeRange,
        limit: usize,
    ) -> Result<Vec<IdRange>, sqlx::Error> {
        let query = concat!(
            "WITH there AS (",
            stored!(),
            " UNION ",
            refused!(),
            " UNION VALUES ($5 - 1), ($6 + 1)) \
             SELECT before + 1, id - 1 FROM (\
                 SELECT id, lag(id) OVER (ORDER BY id) AS before FROM there) AS pairs \
             WHERE id > before + 1 ORDER BY id LIMIT $7"
        );
        self.runs(query, instrument, ids, times, limit).await
    }

    /// Of these ids, the first `limit` runs that are not stored because the database refused them.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    pub async fn refused(
        &self,
        instrument: Instrument,
        ids: IdRange,
        times: TimeRange,
        limit: usize,
    ) -> Result<Vec<IdRange>, sqlx::Error> {
        let query = concat!(
            "WITH gone AS (",
            refused!(),
            " EXCEPT ",
            stored!(),
            ") SELECT min(id), max(id) FROM (\
                 SELECT id, id - row_number() OVER (ORDER BY id) AS run FROM gone) AS ids \
             GROUP BY run ORDER BY 1 LIMIT $7"
        );
        self.runs(query, instrument, ids, times, limit).await
    }

    /// Of these ids, the first `limit` runs that are stored up to a day before or after the times of their gap. Reads
    /// these two days of the symbol's index.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    pub async fn stored_elsewhere(
        &self,
        instrument: Instrument,
        ids: IdRange,
        times: TimeRange,
        limit: usize,
    ) -> Result<Vec<IdRange>, sqlx::Error> {
        let query = concat!(
            "SELECT min(id), max(id) FROM (\
                 SELECT id, id - row_number() OVER (ORDER BY id) AS run FROM (SELECT DISTINCT id FROM (",
            stored!(),
            ") AS found) AS ids) AS numbered GROUP BY run ORDER BY 1 LIMIT $7"
        );
        let before = TimeRange::new(times.from - ELSEWHERE, times.from);
        let after = TimeRange::new(times.to, times.to + ELSEWHERE);
        let mut found = self.runs(query, instrument, ids, before, limit).await?;
        found.extend(self.runs(query, instrument, ids, after, limit).await?);
        Ok(found)
    }

    /// Of the ticks of one symbol, those whose id is not stored yet within a minute of their gap, at whatever time.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    pub async fn unknown_ids(
        &self,
        instrument: Instrument,
        ids: &[String],
        times: TimeRange,
    ) -> Result<Vec<String>, sqlx::Error> {
        sqlx::query_scalar(concat!(
            "SELECT id FROM unnest($3::text[]) AS wanted (id) \
             EXCEPT SELECT trade_id FROM tick_data \
                 WHERE exchange = $1 AND symbol = $2 AND time BETWEEN $4 AND $5 \
             EXCEPT SELECT trade_id FROM rejected_ticks \
                 WHERE exchange = $1 AND symbol = $2 AND time BETWEEN $4 AND $5 AND NOT ",
            only_time!(),
        ))
        .bind(instrument.exchange())
        .bind(instrument.symbol().as_str())
        .bind(ids)
        .bind(times.from.to_datetime() - SLACK)
        .bind(times.to.to_datetime() + SLACK)
        .fetch_all(&self.pool)
        .await
    }

    async fn runs(
        &self,
        query: &'static str,
        instrument: Instrument,
        ids: IdRange,
        times: TimeRange,
        limit: usize,
    ) -> Result<Vec<IdRange>, sqlx::Error> {
        let rows: Vec<(i64, i64)> = sqlx::query_as(query)
            .bind(instrument.exchange())
            .bind(instrument.symbol().as_str())
            .bind(times.from.to_datetime() - SLACK)
            .bind(times.to.to_datetime() + SLACK)
            .bind(i64::try_from(ids.first()).unwrap_or(i64::MAX - 1))
            .bind(i64::try_from(ids.last()).unwrap_or(i64::MAX - 1))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await?;
        let number = |id| u64::try_from(id).unwrap_or_default();
        let range = |(first, last)| IdRange::between(number(first), number(last));
        Ok(rows.into_iter().map(range).collect())
    }

    /// How many of these ticks are neither stored nor set aside as refused.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    pub async fn unstored(&self, ticks: &[Tick]) -> Result<usize, sqlx::Error> {
        let ids: Vec<String> = ticks.iter().map(|tick| tick.trade_id.to_string()).collect();
        let times: Vec<_> = ticks.iter().map(|tick| tick.exchange_at.to_datetime()).collect();
        let exchanges: Vec<&str> = ticks.iter().map(|tick| tick.instrument.exchange()).collect();
        let symbols: Vec<&str> =
            ticks.iter().map(|tick| tick.instrument.symbol().as_str()).collect();
        // Only the days between these are looked at, and locked.
        let (oldest, newest) = (times.iter().min().copied(), times.iter().max().copied());
        let count: i64 = sqlx::query_scalar(concat!(
            "SELECT count(*) FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[]) \
                 AS want (exchange, symbol, time, trade_id) \
             WHERE NOT EXISTS (SELECT FROM tick_data AS it \
                 WHERE it.exchange = want.exchange AND it.symbol = want.symbol \
                     AND it.time = want.time AND it.trade_id = want.trade_id AND it.time BETWEEN $5 AND $6) \
             AND NOT EXISTS (SELECT FROM rejected_ticks AS it \
                 WHERE it.exchange = want.exchange AND it.symbol = want.symbol \
                     AND it.time = want.time AND it.trade_id = want.trade_id AND NOT ",
            only_time!(),
            ")"
        ))
        .bind(exchanges)
        .bind(symbols)
        .bind(times)
        .bind(ids)
        .bind(oldest)
        .bind(newest)
        .fetch_one(&self.pool)
        .await?;
        Ok(usize::try_from(count).unwrap_or_default())
    }

    /// Whether a connection, of whichever recorder, carried a gap's symbol between these times: it stood over all of them,
    /// and brought trades of them. To stand is not enough: a connection may hang, and a subscription may be lost on one
    /// that lives.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    pub async fn carried(&self, gap: &OpenGap, times: TimeRange) -> Result<Carried, sqlx::Error> {
        // A connection carries a symbol from its acknowledgement on; one that hangs is found in time, and then has ended
        // with its last frame.
        let (has_stood, may_have_stood, is_stored): (bool, bool, bool) = sqlx::query_as(
            "SELECT coalesce(bool_or(CASE WHEN ended_at IS NULL THEN seen_at - $5 \
                     ELSE least(seen_at, ended_at) END >= $4), false), \
                 coalesce(bool_or(ended_at IS NULL AND seen_at - $5 < $4), false), \
                 EXISTS (SELECT FROM tick_data WHERE exchange = $1 AND symbol = $2 AND time > $3 AND time < $4 \
                     AND source = 'live') \
             FROM feed_sessions \
             WHERE exchange = $1 AND $2 = ANY (symbols) AND connected_at <= $3 - $6",
        )
        .bind(gap.instrument.exchange())
        .bind(gap.instrument.symbol().as_str())
        .bind(times.from.to_datetime())
        .bind(times.to.to_datetime())
        .bind(SILENCE_MAX)
        .bind(ACKNOWLEDGE_MAX)
        .fetch_one(&self.pool)
        .await?;
        let may_come = gap.age < SPOOLED_MAX;
        Ok(match (has_stood, is_stored) {
            (true, true) => Carried::Yes,
            (true, false) if may_come => Carried::Unknown,
            _ if may_have_stood => Carried::Unknown,
            _ => Carried::No,
        })
    }
}

/// Whether a connection stood while another did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    /// It was seen to live before and after, and its trades are stored.
    Yes,
    /// It lived before and has not been heard of since, or what it brought may wait in a spool.
    Unknown,
    /// None did.
    No,
}

/// The times of a symbol's gaps in time that were repaired within the last day, the newest thousand.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn repaired_lately(
    pool: &PgPool,
    instrument: Instrument,
) -> Result<Vec<TimeRange>, sqlx::Error> {
    let rows: Vec<(DateTime<Utc>, DateTime<Utc>)> = sqlx::query_as(
        "SELECT from_time, to_time FROM tick_gaps \
         WHERE exchange = $1 AND symbol = $2 AND first_id IS NULL AND status = 'repaired' \
             AND closed_at > now() - interval '1 day' \
         ORDER BY closed_at DESC LIMIT 1000",
    )
    .bind(instrument.exchange())
    .bind(instrument.symbol().as_str())
    .fetch_all(pool)
    .await?;
    let times = rows.into_iter().map(|(from, to)| {
        let at = |time: DateTime<Utc>| Timestamp::from_micros(time.timestamp_micros()).ok();
        Some(TimeRange::new(at(from)?, at(to)?))
    });
    Ok(times.flatten().collect())
}

/// Removes the backfilled ticks of a symbol between two times whose trade came over the socket too, with a time that is
/// `apart` from theirs at most, and answers how many: for exchanges that stamp a trade differently here and there.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn remove_doubles(
    pool: &PgPool,
    instrument: Instrument,
    times: TimeRange,
    apart: Duration,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "DELETE FROM tick_data AS it \
         WHERE exchange = $1 AND symbol = $2 AND time BETWEEN $3 AND $4 AND source = 'backfill' \
             AND EXISTS (SELECT FROM tick_data AS other \
                 WHERE other.exchange = $1 AND other.symbol = $2 AND other.trade_id = it.trade_id \
                     AND other.time BETWEEN $3 - $5 AND $4 + $5 \
                     AND other.time BETWEEN it.time - $5 AND it.time + $5 \
                     AND other.source <> 'backfill')",
    )
    .bind(instrument.exchange())
    .bind(instrument.symbol().as_str())
    .bind(times.from.to_datetime() - apart)
    .bind(times.to.to_datetime() + apart)
    .bind(apart)
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}
