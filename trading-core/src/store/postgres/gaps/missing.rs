//! What of a range of ids is stored, and what is not.

use std::time::Duration;

use sqlx::PgPool;

use super::{Gaps, number};
use crate::domain::{Instrument, Tick, Timestamp};

/// The ids of a gap lie between the times of its neighbours, give or take the order in which a venue stamps trades.
const SLACK: Duration = Duration::from_secs(60);
/// The numbers of ids `$5` to `$6` of a symbol that are stored, or were refused.
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
            " AS id FROM rejected_ticks WHERE exchange = $1 AND symbol = $2) AS ticks \
             WHERE id BETWEEN $5 AND $6"
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
        ids: (u64, u64),
        times: (Timestamp, Timestamp),
        limit: usize,
    ) -> Result<Vec<(u64, u64)>, sqlx::Error> {
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
        ids: (u64, u64),
        times: (Timestamp, Timestamp),
        limit: usize,
    ) -> Result<Vec<(u64, u64)>, sqlx::Error> {
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

    async fn runs(
        &self,
        query: &'static str,
        instrument: Instrument,
        ids: (u64, u64),
        times: (Timestamp, Timestamp),
        limit: usize,
    ) -> Result<Vec<(u64, u64)>, sqlx::Error> {
        let rows: Vec<(i64, i64)> = sqlx::query_as(query)
            .bind(instrument.exchange())
            .bind(instrument.symbol().as_str())
            .bind(times.0.to_datetime() - SLACK)
            .bind(times.1.to_datetime() + SLACK)
            .bind(i64::try_from(ids.0).unwrap_or(i64::MAX - 1))
            .bind(i64::try_from(ids.1).unwrap_or(i64::MAX - 1))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await?;
        let number = |id| u64::try_from(id).unwrap_or_default();
        Ok(rows.into_iter().map(|(first, last)| (number(first), number(last))).collect())
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
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[]) \
                 AS want (exchange, symbol, time, trade_id) \
             WHERE NOT EXISTS (SELECT FROM tick_data AS it \
                 WHERE it.exchange = want.exchange AND it.symbol = want.symbol \
                     AND it.time = want.time AND it.trade_id = want.trade_id) \
             AND NOT EXISTS (SELECT FROM rejected_ticks AS it \
                 WHERE it.exchange = want.exchange AND it.symbol = want.symbol \
                     AND it.time = want.time AND it.trade_id = want.trade_id)",
        )
        .bind(exchanges)
        .bind(symbols)
        .bind(times)
        .bind(ids)
        .fetch_one(&self.pool)
        .await?;
        Ok(usize::try_from(count).unwrap_or_default())
    }
}

/// Takes the backfilled ticks of a symbol between two times away whose trade came over the socket too, stamped a little
/// otherwise, and says how many: for exchanges that stamp a trade differently here and there.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn remove_doubles(
    pool: &PgPool,
    instrument: Instrument,
    times: (Timestamp, Timestamp),
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "DELETE FROM tick_data AS it \
         WHERE exchange = $1 AND symbol = $2 AND time BETWEEN $3 AND $4 AND source = 'backfill' \
             AND EXISTS (SELECT FROM tick_data AS other \
                 WHERE other.exchange = $1 AND other.symbol = $2 AND other.trade_id = it.trade_id \
                     AND other.time BETWEEN it.time - interval '1 ms' AND it.time + interval '1 ms' \
                     AND other.source <> 'backfill')",
    )
    .bind(instrument.exchange())
    .bind(instrument.symbol().as_str())
    .bind(times.0.to_datetime())
    .bind(times.1.to_datetime())
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}
