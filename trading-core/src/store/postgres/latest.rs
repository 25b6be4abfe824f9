//! What is stored last of each symbol: where recording goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use rustc_hash::FxHashMap;
use sqlx::PgPool;
use sqlx::types::chrono::{DateTime, Utc};

use crate::domain::bounds::SESSION_DEAD;
use crate::domain::{Instrument, Timestamp, TradeId};
use crate::store::journal::{GapCause, WITHOUT_A_WORD};

/// What a recorder of an earlier version, which noted nothing, may have held with its usual settings.
const UNNOTED: Duration = Duration::from_secs(30);

/// The newest stored trade of a symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastStored {
    /// Whose.
    pub instrument: Instrument,
    /// Its id.
    pub trade_id: TradeId,
    /// The exchange's time of it.
    pub exchange_at: Timestamp,
}

/// The newest stored trade of each of these, by time, then by id; of those with none, nothing. One descent of the
/// primary key for each, from the newest day back.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn last_stored(
    pool: &PgPool,
    instruments: &[Instrument],
) -> Result<Vec<LastStored>, sqlx::Error> {
    let by_name: FxHashMap<(&str, &str), Instrument> =
        instruments.iter().map(|item| ((item.exchange(), item.symbol().as_str()), *item)).collect();
    let exchanges: Vec<&str> = instruments.iter().map(|item| item.exchange()).collect();
    let symbols: Vec<&str> = instruments.iter().map(|item| item.symbol().as_str()).collect();
    let rows: Vec<(String, String, String, DateTime<Utc>)> = sqlx::query_as(
        "SELECT wanted.exchange, wanted.symbol, latest.trade_id, latest.time \
         FROM unnest($1::text[], $2::text[]) AS wanted (exchange, symbol) \
         CROSS JOIN LATERAL ( \
             SELECT trade_id, time FROM tick_data \
             WHERE tick_data.exchange = wanted.exchange AND tick_data.symbol = wanted.symbol \
             ORDER BY time DESC, length(trade_id) DESC, trade_id DESC LIMIT 1 \
         ) AS latest",
    )
    .bind(exchanges)
    .bind(symbols)
    .fetch_all(pool)
    .await?;
    let last = rows.into_iter().filter_map(|(exchange, symbol, trade_id, time)| {
        Some(LastStored {
            instrument: *by_name.get(&(exchange.as_str(), symbol.as_str()))?,
            trade_id: TradeId::from_text(&trade_id),
            exchange_at: Timestamp::from_micros(time.timestamp_micros()).ok()?,
        })
    });
    Ok(last.collect())
}

/// From when on what came of each symbol of an exchange may have been in the memory only of a recorder that did not end in
/// order: it was killed, or it stands. A time that was listed as a gap since then is not told again. `lag`: so much older
/// than its receipt a trade may be.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn in_doubt_since(
    pool: &PgPool,
    exchange: &str,
    lag: Duration,
) -> Result<BTreeMap<String, Timestamp>, sqlx::Error> {
    let rows: Vec<(String, DateTime<Utc>)> = sqlx::query_as(
        "SELECT symbol, min(since) FROM (\
             SELECT unnest(symbols) AS symbol, seen_at, \
                 coalesce(stored_until, seen_at - $4) - $3 AS since FROM feed_sessions \
             WHERE exchange = $1 AND (ended_at IS NULL OR stored_until < ended_at \
                 OR stored_until IS NULL AND starts_with(reason, $2))) AS session \
         WHERE NOT EXISTS (SELECT FROM tick_gaps AS gap \
             WHERE gap.exchange = $1 AND gap.symbol = session.symbol AND gap.first_id IS NULL \
                 AND gap.opened_at >= session.seen_at AND session.since BETWEEN gap.from_time AND gap.to_time) \
         GROUP BY symbol",
    )
    .bind(exchange)
    .bind(WITHOUT_A_WORD)
    .bind(lag)
    .bind(UNNOTED)
    .fetch_all(pool)
    .await?;
    let since = |(symbol, time): (String, DateTime<Utc>)| {
        Some((symbol, Timestamp::from_micros(time.timestamp_micros()).ok()?))
    };
    Ok(rows.into_iter().filter_map(since).collect())
}

/// Lists a gap of which only the time is known, from then to now, once.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn list_time_until_now(
    pool: &PgPool,
    instrument: Instrument,
    from: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO tick_gaps (exchange, symbol, from_time, to_time, cause) \
         SELECT $1, $2, least($3, now()), now(), $4 ON CONFLICT DO NOTHING",
    )
    .bind(instrument.exchange())
    .bind(instrument.symbol().as_str())
    .bind(from.to_datetime())
    .bind(GapCause::NotRunning.as_str())
    .execute(pool)
    .await
    .map(|_done| ())
}

/// For how long, of the recorders that have given a sign of life, the one that is furthest behind has not stored what
/// came; `None`: none records.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn not_stored_for(pool: &PgPool) -> Result<Option<Duration>, sqlx::Error> {
    let seconds: Option<f64> = sqlx::query_scalar(
        "SELECT extract(epoch FROM now() - min(coalesce(stored_until, seen_at)))::float8 FROM feed_sessions \
         WHERE ended_at IS NULL AND seen_at > now() - $1",
    )
    .bind(SESSION_DEAD)
    .fetch_one(pool)
    .await?;
    Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
}
