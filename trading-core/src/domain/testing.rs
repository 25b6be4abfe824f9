//! Ticks for tests and benchmarks, made in one place. What a test is about, it sets itself:
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
