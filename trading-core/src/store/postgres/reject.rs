//! Ticks that cannot be stored: kept, with the reason, where an operator finds them, or only counted once there are too
//! many of them.

use rust_decimal::Decimal;
use sqlx::PgConnection;
use sqlx::types::chrono::{DateTime, Utc};

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
        Self { tick: tick.clone(), sqlstate, reason }
    }

    /// Of a time that cannot be true.
    pub(super) fn of_time(tick: Tick) -> Self {
        let is_whole = kept_id(&tick.trade_id) == tick.trade_id.to_string()
            && is_positive(tick.price)
            && is_positive(tick.quantity);
        let code = if is_whole { ONLY_TIME } else { TIME_AND_MORE };
        Self { tick, sqlstate: Some(code.to_owned()), reason: TIME_REASON.to_owned() }
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
        let (sqlstate, reason) = (Some(sqlstate.to_owned()), reason.to_owned());
        Some(Self { tick: tick.clone(), sqlstate, reason })
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

/// One array a column. The rows of an exchange are counted once, and not for each tick. What is there already is neither kept nor counted once more; what has no room is counted.
const STATEMENT: &str = "WITH given AS ( \
         SELECT DISTINCT ON (exchange, symbol, time, trade_id) * \
         FROM unnest($1::timestamptz[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::numeric[], \
             $8::numeric[], $9::text[], $10::text[], $11::text[]) \
             AS given (time, received_at, exchange, symbol, trade_id, side, price, quantity, source, sqlstate, reason) \
         WHERE NOT EXISTS (SELECT FROM rejected_ticks AS it WHERE it.exchange = given.exchange \
             AND it.symbol = given.symbol AND it.time = given.time AND it.trade_id = given.trade_id) \
     ), room AS MATERIALIZED ( \
         SELECT exchange, $12 - (SELECT count(*) FROM rejected_ticks AS it WHERE it.exchange = venues.exchange) AS rows \
         FROM (SELECT DISTINCT exchange FROM given) AS venues \
     ), placed AS ( \
         SELECT given.*, row_number() OVER (PARTITION BY exchange ORDER BY symbol, time, trade_id) <= room.rows AS fits \
         FROM given JOIN room USING (exchange) \
     ), kept AS ( \
         INSERT INTO rejected_ticks \
             (time, received_at, exchange, symbol, trade_id, side, price, quantity, source, sqlstate, reason) \
         SELECT time, received_at, exchange, symbol, trade_id, side, price, quantity, source, sqlstate, reason \
         FROM placed WHERE fits ORDER BY exchange, symbol, time, trade_id ON CONFLICT DO NOTHING \
     ), counted AS ( \
         INSERT INTO rejected_overflow AS it (exchange, symbol, reason, count, first_time, last_time) \
         SELECT exchange, symbol, coalesce(sqlstate, ''), count(*), min(time), max(time) \
         FROM placed WHERE NOT fits GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 \
         ON CONFLICT (exchange, symbol, reason) DO UPDATE SET count = it.count + EXCLUDED.count, \
             first_time = least(it.first_time, EXCLUDED.first_time), \
             last_time = greatest(it.last_time, EXCLUDED.last_time), last_seen = EXCLUDED.last_seen \
         RETURNING 1) \
     SELECT count(*) FROM placed WHERE NOT fits";

/// Sets these ticks aside in one statement, and says how many of them had no room in `rejected_ticks` of `rows_max` rows
/// an exchange, and are only counted.
pub(super) async fn set_aside(
    connection: &mut PgConnection,
    refusals: &[Refusal],
    rows_max: u32,
) -> Result<i64, sqlx::Error> {
    let ticks = || refusals.iter().map(|refusal| &refusal.tick);
    let times: Vec<DateTime<Utc>> = ticks().map(|tick| tick.exchange_at.to_datetime()).collect();
    let received: Vec<DateTime<Utc>> = ticks().map(|tick| tick.received_at.to_datetime()).collect();
    let exchanges: Vec<&str> = ticks().map(|tick| tick.instrument.exchange()).collect();
    let symbols: Vec<&str> = ticks().map(|tick| tick.instrument.symbol().as_str()).collect();
    let ids: Vec<String> = ticks().map(|tick| kept_id(&tick.trade_id)).collect();
    let sides: Vec<&str> = ticks().map(|tick| tick.side.as_str()).collect();
    let prices: Vec<Decimal> = ticks().map(|tick| tick.price).collect();
    let quantities: Vec<Decimal> = ticks().map(|tick| tick.quantity).collect();
    let sources: Vec<&str> = ticks().map(|tick| tick.source.as_str()).collect();
    let states: Vec<Option<&str>> = refusals.iter().map(|it| it.sqlstate.as_deref()).collect();
    let reasons: Vec<String> =
        refusals.iter().map(|it| kept(&it.reason, REASON_BYTES_MAX)).collect();
    // Planned each time: a plan that was made while the table was empty might read all of it for each tick.
    sqlx::query_scalar(STATEMENT)
        .persistent(false)
        .bind(times)
        .bind(received)
        .bind(exchanges)
        .bind(symbols)
        .bind(ids)
        .bind(sides)
        .bind(prices)
        .bind(quantities)
        .bind(sources)
        .bind(states)
        .bind(reasons)
        .bind(i64::from(rows_max))
        .fetch_one(connection)
        .await
}
