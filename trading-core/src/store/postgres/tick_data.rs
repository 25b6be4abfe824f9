//! The table `tick_data`: its columns, and how a tick gives the value of each. COPY, INSERT and the table of refused ticks
//! are derived from here.

use sqlx::error::BoxDynError;

use super::rows::RowBuffer;
use crate::domain::{Tick, Timestamp};

/// Name and type of each column, in the order in which [`put`] gives the values.
pub(super) const COLUMNS: [(&str, &str); 9] = [
    ("time", "timestamptz"),
    ("received_at", "timestamptz"),
    ("exchange", "text"),
    ("symbol", "text"),
    ("trade_id", "text"),
    ("side", "text"),
    ("price", "numeric"),
    ("quantity", "numeric"),
    ("source", "text"),
];

/// Gives a tick's values to a row. `text` is a buffer that is used again, so that no id allocates.
pub(super) fn put(
    tick: &Tick,
    text: &mut String,
    row: &mut impl RowBuffer,
) -> Result<(), BoxDynError> {
    text.clear();
    tick.trade_id.append_to(text);
    row.put(tick.exchange_at.to_datetime())?;
    row.put(tick.received_at.to_datetime())?;
    row.put(tick.instrument.exchange())?;
    row.put(tick.instrument.symbol().as_str())?;
    row.put(text.as_str())?;
    row.put(tick.side.as_str())?;
    row.put(tick.price)?;
    row.put(tick.quantity)?;
    row.put(tick.source.as_str())
}

/// The primary key, compared as the index compares it (collation "C"). `id` is the text of the trade's id.
pub(super) fn key<'a>(
    tick: &'a Tick,
    id: &'a str,
) -> (&'static str, &'static str, Timestamp, &'a str) {
    (tick.instrument.exchange(), tick.instrument.symbol().as_str(), tick.exchange_at, id)
}

/// The names of the columns, as a statement lists them.
pub(super) fn names() -> String {
    COLUMNS.map(|(name, _)| name).join(", ")
}

/// The parameters of a statement that takes one array a column: `$1::timestamptz[]` and so on.
pub(super) fn arrays() -> Vec<String> {
    let numbered = COLUMNS.iter().enumerate();
    numbered.map(|(index, (_, kind))| format!("${}::{kind}[]", index + 1)).collect()
}
