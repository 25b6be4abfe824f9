//! A batch as one INSERT: for small batches over TCP, and for those that hold ticks which are there already.

use rust_decimal::Decimal;
use sqlx::PgConnection;
use sqlx::types::chrono::{DateTime, Utc};

use crate::domain::Tick;

/// One array a column, unfolded row by row. `unnest` in the select list streams; in FROM each array would first be
/// copied into a store of its own (a fifth slower, measured by `benches/write.rs`).
macro_rules! insert {
    ($conflict:literal) => {
        concat!(
            "INSERT INTO tick_data \
                 (time, received_at, exchange, symbol, trade_id, side, price, quantity, source) \
             SELECT unnest($1::timestamptz[]), unnest($2::timestamptz[]), unnest($3::text[]), \
                 unnest($4::text[]), unnest($5::text[]), unnest($6::text[]), \
                 unnest($7::numeric[]), unnest($8::numeric[]), unnest($9::text[]) ",
            $conflict
        )
    };
}

/// What to do with ticks that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conflicts {
    /// Fail, and store nothing: the common case has none, and must not pay for looking.
    Refuse,
    /// Leave them out.
    Skip,
}

/// Inserts a batch, and says how many rows were stored.
pub(super) async fn insert(
    connection: &mut PgConnection,
    batch: &[Tick],
    conflicts: Conflicts,
) -> Result<u64, sqlx::Error> {
    let statement = match conflicts {
        Conflicts::Refuse => insert!(""),
        Conflicts::Skip => insert!("ON CONFLICT DO NOTHING"),
    };
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
    let done = sqlx::query(statement)
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
