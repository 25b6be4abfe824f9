//! Ticks for tests and benchmarks, made in one place, and a second reading of numbers. What a test is about, it sets itself:
//! `Tick { source: Source::Backfill, ..tick(7) }`.
//!
//! It is compiled always, so that the tests of every room, of `tests/` and of `benches/` see it; the program calls none of it.

use rust_decimal::Decimal;

use super::{Instrument, Side, Source, Tick, Timestamp, TradeId};

/// An instrument by its exchange and symbol, such as `binance` and `BTCUSDT`.
///
/// # Panics
///
/// When the text is no symbol, or when too many instruments are known.
#[must_use]
#[expect(clippy::expect_used, reason = "in a test a panic is the report")]
pub fn instrument(exchange: &str, symbol: &str) -> Instrument {
    let symbol = symbol.parse().expect("a symbol");
    Instrument::intern(exchange, &symbol).expect("room for an instrument")
}

/// A live trade of BTC for USDT on Binance with this id, at the epoch; those with even ids were bought.
#[must_use]
pub fn tick(id: u64) -> Tick {
    Tick {
        instrument: instrument("binance", "BTCUSDT"),
        trade_id: TradeId::Number(id),
        price: Decimal::new(9_523_450, 2),
        quantity: Decimal::new(10_900, 8),
        side: if id.is_multiple_of(2) { Side::Buy } else { Side::Sell },
        source: Source::Live,
        exchange_at: Timestamp::EPOCH,
        received_at: Timestamp::EPOCH,
    }
}

impl Tick {
    /// The same trade, matched and received at this time.
    #[must_use]
    pub fn at(self, time: Timestamp) -> Self {
        Self { exchange_at: time, received_at: time, ..self }
    }
}

/// What a number's text says, in a form that is equal for equal numbers: sign, digits without the zeros at either end,
/// power of ten. It reads the text by hand, so that it can judge [`parse_decimal`](super::parse_decimal).
///
/// # Panics
///
/// When the text is no number.
#[must_use]
#[expect(clippy::expect_used, reason = "in a test a panic is the report")]
pub fn written_value(text: &str) -> (bool, String, i64) {
    let length = |digits: &str| i64::try_from(digits.len()).expect("a short number");
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_negative = whole.starts_with('-');
    let digits = format!("{}{fraction}", whole.trim_start_matches(['-', '+']));
    let shortened = digits.trim_end_matches('0');
    let zeros = length(&digits) - length(shortened);
    let power = exponent.parse::<i64>().expect("an exponent") - length(fraction) + zeros;
    match shortened.trim_start_matches('0') {
        "" => (false, String::new(), 0),
        digits => (is_negative, digits.to_owned(), power),
    }
}
