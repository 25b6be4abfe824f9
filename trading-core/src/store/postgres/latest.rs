//! What is stored last of each symbol: where recording goes on.

use rustc_hash::FxHashMap;
use sqlx::PgPool;
use sqlx::types::chrono::{DateTime, Utc};

use crate::domain::{Instrument, Timestamp, TradeId};
use crate::store::journal::WITHOUT_A_WORD;

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

/// Whether a connection to an exchange that lived at or after a time has not ended in order: it stands, or its recorder
/// was killed, perhaps with ticks in memory that are older than the newest stored one.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn ended_without_a_word(
    pool: &PgPool,
    exchange: &str,
    since: Timestamp,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM feed_sessions WHERE exchange = $1 \
             AND (ended_at IS NULL OR starts_with(reason, $2) AND ended_at >= $3))",
    )
    .bind(exchange)
    .bind(WITHOUT_A_WORD)
    .bind(since.to_datetime())
    .fetch_one(pool)
    .await
}
