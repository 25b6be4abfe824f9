//! Trades on both sides of a start, by when they were received: what lies between them was missed.

use sqlx::PgPool;
use sqlx::types::chrono::{DateTime, Utc};

use crate::domain::{Instrument, LastStored, Timestamp, TradeId};

/// A trade that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTrade {
    /// Whose.
    pub instrument: Instrument,
    /// Its id.
    pub trade_id: TradeId,
    /// The exchange's time of it.
    pub exchange_at: Timestamp,
}

impl From<&LastStored> for StoredTrade {
    fn from(last: &LastStored) -> Self {
        let LastStored { instrument, trade_id, exchange_at, .. } = last.clone();
        Self { instrument, trade_id, exchange_at }
    }
}

/// The newest stored trade of each of these that was received before a time; of those with none, nothing.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn last_received(
    pool: &PgPool,
    instruments: &[Instrument],
    before: Timestamp,
) -> Result<Vec<StoredTrade>, sqlx::Error> {
    let exchanges: Vec<&str> = instruments.iter().map(|item| item.exchange()).collect();
    let symbols: Vec<&str> = instruments.iter().map(|item| item.symbol().as_str()).collect();
    let rows: Vec<(i64, String, DateTime<Utc>)> = sqlx::query_as(
        "SELECT wanted.number, latest.trade_id, latest.time \
         FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted (exchange, symbol, number) \
         CROSS JOIN LATERAL ( \
             SELECT trade_id, time FROM tick_data \
             WHERE tick_data.exchange = wanted.exchange AND tick_data.symbol = wanted.symbol AND received_at < $3 \
                 AND time BETWEEN $3 - interval '30 days' AND $3 + interval '2 days' \
             ORDER BY time DESC, length(trade_id) DESC, trade_id DESC LIMIT 1 \
         ) AS latest",
    )
    .bind(exchanges)
    .bind(symbols)
    .bind(before.to_datetime())
    .fetch_all(pool)
    .await?;
    let trades = rows.into_iter().filter_map(|(number, trade_id, time)| {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        trade(*instruments.get(index)?, &trade_id, time)
    });
    Ok(trades.collect())
}

/// The first stored trade of a symbol after this one; with a time, of those that were received at or after it.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn first_received(
    pool: &PgPool,
    last: &StoredTrade,
    since: Option<Timestamp>,
) -> Result<Option<StoredTrade>, sqlx::Error> {
    let row: Option<(String, DateTime<Utc>)> = sqlx::query_as(
        "SELECT trade_id, time FROM tick_data WHERE exchange = $1 AND symbol = $2 AND time >= $3 \
             AND ($4::timestamptz IS NULL OR received_at >= $4) \
             AND (time, length(trade_id), trade_id) > ($3, length($5), $5) \
         ORDER BY time, length(trade_id), trade_id LIMIT 1",
    )
    .bind(last.instrument.exchange())
    .bind(last.instrument.symbol().as_str())
    .bind(last.exchange_at.to_datetime())
    .bind(since.map(Timestamp::to_datetime))
    .bind(last.trade_id.to_string())
    .fetch_optional(pool)
    .await?;
    Ok(row.and_then(|(trade_id, time)| trade(last.instrument, &trade_id, time)))
}

fn trade(instrument: Instrument, trade_id: &str, time: DateTime<Utc>) -> Option<StoredTrade> {
    let exchange_at = Timestamp::from_micros(time.timestamp_micros()).ok()?;
    Some(StoredTrade { instrument, trade_id: TradeId::from_text(trade_id), exchange_at })
}
