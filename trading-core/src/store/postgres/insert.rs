//! A batch as one INSERT: for small batches over TCP, and for those that hold ticks which are there already.

use rust_decimal::Decimal;
use sqlx::PgConnection;
use sqlx::types::chrono::{DateTime, Utc};

use crate::domain::{Tick, Timestamp};

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
    /// Leave them out. The rows go in in the order of their keys: two writers of the same ticks then wait for each
    /// other in one direction only, and never in a circle.
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
    let mut rows: Vec<(&Tick, String)> =
        batch.iter().map(|tick| (tick, tick.trade_id.to_string())).collect();
    if conflicts == Conflicts::Skip {
        rows.sort_by(|(one, one_id), (other, other_id)| {
            key(one, one_id).cmp(&key(other, other_id))
        });
    }
    let times: Vec<DateTime<Utc>> =
        rows.iter().map(|(tick, _)| tick.exchange_at.to_datetime()).collect();
    let received: Vec<DateTime<Utc>> =
        rows.iter().map(|(tick, _)| tick.received_at.to_datetime()).collect();
    let exchanges: Vec<&str> = rows.iter().map(|(tick, _)| tick.instrument.exchange()).collect();
    let symbols: Vec<&str> =
        rows.iter().map(|(tick, _)| tick.instrument.symbol().as_str()).collect();
    let sides: Vec<&str> = rows.iter().map(|(tick, _)| tick.side.as_str()).collect();
    let prices: Vec<Decimal> = rows.iter().map(|(tick, _)| tick.price).collect();
    let quantities: Vec<Decimal> = rows.iter().map(|(tick, _)| tick.quantity).collect();
    let sources: Vec<&str> = rows.iter().map(|(tick, _)| tick.source.as_str()).collect();
    let ids: Vec<String> = rows.into_iter().map(|(_, id)| id).collect();
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

/// The primary key of `tick_data`, compared as the index compares it (collation "C").
fn key<'a>(tick: &'a Tick, id: &'a str) -> (&'static str, &'static str, Timestamp, &'a str) {
    (tick.instrument.exchange(), tick.instrument.symbol().as_str(), tick.exchange_at, id)
}
