//! Rows that the database refuses: kept, with the reason, where an operator finds them.

use sqlx::PgConnection;

use crate::domain::Tick;

const STATEMENT: &str = "INSERT INTO rejected_ticks \
         (time, received_at, exchange, symbol, trade_id, side, price, quantity, source, sqlstate, reason) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING";

/// Sets one tick aside with what the database said of it.
pub(super) async fn set_aside(
    connection: &mut PgConnection,
    tick: &Tick,
    reason: &sqlx::Error,
) -> Result<(), sqlx::Error> {
    let refusal = reason.as_database_error();
    let sqlstate = refusal.and_then(|refusal| refusal.code()).map(|code| code.into_owned());
    let text = refusal.map_or_else(|| reason.to_string(), |refusal| refusal.message().to_owned());
    insert(connection, tick, sqlstate.as_deref(), &text).await
}

/// Sets one tick aside whose time no partition is made for.
pub(super) async fn set_aside_out_of_range(
    connection: &mut PgConnection,
    tick: &Tick,
) -> Result<(), sqlx::Error> {
    insert(connection, tick, None, "time is before 2009 or more than two days ahead").await
}

/// The id as far as a key of the table can hold it: without NUL, and no longer than a page bears.
fn kept_id(tick: &Tick) -> String {
    let id = tick.trade_id.to_string();
    id.chars().take(200).map(|it| if it == '\0' { '\u{fffd}' } else { it }).collect()
}

async fn insert(
    connection: &mut PgConnection,
    tick: &Tick,
    sqlstate: Option<&str>,
    reason: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(STATEMENT)
        .bind(tick.exchange_at.to_datetime())
        .bind(tick.received_at.to_datetime())
        .bind(tick.instrument.exchange())
        .bind(tick.instrument.symbol().as_str())
        .bind(kept_id(tick))
        .bind(tick.side.as_str())
        .bind(tick.price)
        .bind(tick.quantity)
        .bind(tick.source.as_str())
        .bind(sqlstate)
        .bind(reason)
        .execute(connection)
        .await
        .map(|_done| ())
}
