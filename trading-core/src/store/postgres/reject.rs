//! Ticks that cannot be stored: kept, with the reason, where an operator finds them, or only counted once there are too
//! many of them.

use std::sync::LazyLock;

use rust_decimal::Decimal;
use sqlx::error::BoxDynError;
use sqlx::{PgConnection, Row as _};

use super::rows::{Arrays, RowBuffer};
use super::tick_data;
use crate::domain::{Tick, TradeId};

/// Refused ticks that are kept of one exchange; writes that meet at the bound may pass it by their own ticks.
/// An id of 128 bytes, a reason of 200 and two exact numbers make some 600 bytes a row, so 60 MB an exchange.
pub const REJECTED_MAX: u32 = 100_000;
/// Of an id this much is kept, in bytes.
const ID_BYTES_MAX: usize = 128;
/// Of a reason this much is kept, in bytes.
const REASON_BYTES_MAX: usize = 200;

/// The code of a tick of which only the time was refused.
pub(super) const ONLY_TIME: &str = "TC001";
/// As [`ONLY_TIME`], but something else of the tick could not be kept either.
const TIME_AND_MORE: &str = "TC002";
const TIME_REASON: &str = "its time is more than a day from its receipt and from the database's clock, or before 2009, or of the future";

/// A tick that is not to be stored.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Its id is only what is kept of it.
    tick: Tick,
    sqlstate: Option<String>,
    reason: String,
}

impl Refusal {
    /// Refused by the database.
    pub(super) fn by_database(tick: &Tick, error: &sqlx::Error) -> Self {
        let refusal = error.as_database_error();
        let sqlstate = refusal.and_then(|refusal| refusal.code()).map(|code| code.into_owned());
        let reason =
            refusal.map_or_else(|| error.to_string(), |refusal| refusal.message().to_owned());
        Self::new(tick, sqlstate, reason)
    }

    fn new(tick: &Tick, sqlstate: Option<String>, reason: String) -> Self {
        let trade_id = TradeId::from_text(&kept_id(&tick.trade_id));
        Self { tick: Tick { trade_id, ..tick.clone() }, sqlstate, reason }
    }

    /// Of a time that cannot be true.
    pub(super) fn of_time(tick: &Tick) -> Self {
        let is_whole = kept_id(&tick.trade_id) == tick.trade_id.to_string()
            && is_positive(tick.price)
            && is_positive(tick.quantity);
        let code = if is_whole { ONLY_TIME } else { TIME_AND_MORE };
        Self::new(tick, Some(code.to_owned()), TIME_REASON.to_owned())
    }

    /// What the table refuses of a tick in any case, known without asking it row by row; in the database's words.
    pub(super) fn in_any_case(tick: &Tick) -> Option<Self> {
        let (sqlstate, reason) = if !is_positive(tick.price) {
            ("23514", "a row of tick_data violates check constraint \"price_is_positive\"")
        } else if !is_positive(tick.quantity) {
            ("23514", "a row of tick_data violates check constraint \"quantity_is_positive\"")
        } else if matches!(&tick.trade_id, TradeId::Text(id) if id.contains('\0')) {
            ("22021", "invalid byte sequence for encoding \"UTF8\": 0x00")
        } else {
            return None;
        };
        Some(Self::new(tick, Some(sqlstate.to_owned()), reason.to_owned()))
    }

    /// Gives the values of the tick, then the code and the reason of the refusal.
    fn put(&self, text: &mut String, row: &mut impl RowBuffer) -> Result<(), BoxDynError> {
        tick_data::put(&self.tick, text, row)?;
        row.put(self.sqlstate.as_deref())?;
        row.put(kept(&self.reason, REASON_BYTES_MAX))
    }

    /// Whose refusal it is.
    pub(super) const fn tick(&self) -> &Tick {
        &self.tick
    }

    /// Whether it was refused for its time.
    pub(super) fn is_of_time(&self) -> bool {
        self.sqlstate.as_deref().is_some_and(|code| code == ONLY_TIME || code == TIME_AND_MORE)
    }
}

/// Cheaper than a comparison, which would bring both numbers to the same scale.
const fn is_positive(number: Decimal) -> bool {
    number.is_sign_positive() && !number.is_zero()
}

/// The id as far as it is kept: without NUL, which PostgreSQL's text cannot hold.
fn kept_id(id: &TradeId) -> String {
    kept(&id.to_string(), ID_BYTES_MAX)
}

fn kept(text: &str, bytes_max: usize) -> String {
    let mut kept = String::new();
    for it in text.chars().map(|it| if it == '\0' { '\u{fffd}' } else { it }) {
        if kept.len() + it.len_utf8() > bytes_max {
            break;
        }
        kept.push(it);
    }
    kept
}

/// One array a column. The rows of an exchange are counted once, and not for each tick. What is there already is neither
/// kept nor counted once more; what has no room is counted.
static STATEMENT: LazyLock<String> = LazyLock::new(|| {
    let columns = format!("{}, sqlstate, reason", tick_data::names());
    let ticks = tick_data::arrays();
    let (arrays, next) = (ticks.join(", "), ticks.len() + 1);
    let (sqlstates, reasons, rows_max) = (next, next + 1, next + 2);
    format!(
        "WITH given AS ( \
             SELECT DISTINCT ON (exchange, symbol, time, trade_id) * \
             FROM unnest({arrays}, ${sqlstates}::text[], ${reasons}::text[]) AS given ({columns}) \
             WHERE NOT EXISTS (SELECT FROM rejected_ticks AS it WHERE it.exchange = given.exchange \
                 AND it.symbol = given.symbol AND it.time = given.time AND it.trade_id = given.trade_id) \
         ), room AS MATERIALIZED ( \
             SELECT exchange, ${rows_max} - (SELECT count(*) FROM rejected_ticks AS it \
                 WHERE it.exchange = venues.exchange) AS rows \
             FROM (SELECT DISTINCT exchange FROM given) AS venues \
         ), placed AS ( \
             SELECT given.*, row_number() OVER (PARTITION BY exchange ORDER BY symbol, time, trade_id) <= room.rows AS fits \
             FROM given JOIN room USING (exchange) \
         ), kept AS ( \
             INSERT INTO rejected_ticks ({columns}) SELECT {columns} FROM placed WHERE fits \
             ORDER BY exchange, symbol, time, trade_id ON CONFLICT DO NOTHING \
         ), counted AS ( \
             INSERT INTO rejected_overflow AS it (exchange, symbol, reason, count, first_time, last_time) \
             SELECT exchange, symbol, coalesce(sqlstate, ''), count(*), min(time), max(time) \
             FROM placed WHERE NOT fits GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 \
             ON CONFLICT (exchange, symbol, reason) DO UPDATE SET count = it.count + EXCLUDED.count, \
                 first_time = least(it.first_time, EXCLUDED.first_time), \
                 last_time = greatest(it.last_time, EXCLUDED.last_time), last_seen = EXCLUDED.last_seen \
             RETURNING 1) \
         SELECT count(*) FROM placed WHERE NOT fits"
    )
});

/// Keeps these ticks in `rejected_ticks` in one statement, up to `rows_max` rows an exchange, and returns how many of them had
/// no room there and are only counted.
pub(super) async fn keep(
    connection: &mut PgConnection,
    refusals: &[Refusal],
    rows_max: u32,
) -> Result<i64, sqlx::Error> {
    let (mut arrays, mut text) = (Arrays::default(), String::new());
    for refusal in refusals {
        refusal.put(&mut text, &mut arrays).map_err(sqlx::Error::Encode)?;
        arrays.end_row();
    }
    // Planned each time: a plan that was made while the table was empty might read all of it for each tick.
    let query = arrays.bind(&STATEMENT).persistent(false).bind(i64::from(rows_max));
    query.fetch_one(connection).await?.try_get(0)
}
