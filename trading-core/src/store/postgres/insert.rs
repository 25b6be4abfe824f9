//! A batch as one INSERT that leaves out what is there already.

use rust_decimal::Decimal;
use sqlx::PgConnection;
use sqlx::types::chrono::{DateTime, Utc};

use crate::domain::Tick;

const STATEMENT: &str = "INSERT INTO tick_data \
         (time, received_at, exchange, symbol, trade_id, side, price, quantity, source) \
     SELECT * FROM unnest($1::timestamptz[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], \
         $6::text[], $7::numeric[], $8::numeric[], $9::text[]) \
     ON CONFLICT DO NOTHING";

/// Inserts the ticks that are not stored yet, and says how many those were.
pub(super) async fn insert_new(
    connection: &mut PgConnection,
    batch: &[Tick],
) -> Result<u64, sqlx::Error> {
    let times: Vec<DateTime<Utc>> =
        batch.iter().map(|tick| tick.exchange_at.to_datetime()).collect();
    let received: Vec<DateTime<Utc>> =
        batch.iter().map(|tick| tick.received_at.to_datetime()).collect();
    let exchanges: Vec<&str> = batch.iter().map(|tick| tick.instrument.exchange()).collect();
    let symbols: Vec<&str> = batch.iter().map(|tick| tick.instrument.symbol().as_str()).collect();
    let ids: Vec<String> = batch.iter().map(|tick| tick.trade_id.to_string()).collect();
    let sides: Vec<&str> = batch.iter().map(|tick| tick.side.as_str()).collect();
    let prices: Vec<Decimal> = batch.iter().map(|tick| tick.price).collect();
    let quantities: Vec<Decimal> = batch.iter().map(|tick| tick.quantity).collect();
    let sources: Vec<&str> = batch.iter().map(|tick| tick.source.as_str()).collect();
    let done = sqlx::query(STATEMENT)
        .bind(times)
        .bind(received)
        .bind(exchanges)
        .bind(symbols)
        .bind(ids)
        .bind(sides)
        .bind(prices)
        .bind(quantities)
        .bind(sources)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
