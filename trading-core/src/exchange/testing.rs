//! What the tests of all venues share: generated trades, and the promises that each decoder keeps.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;
use rust_decimal::Decimal;

use super::{DecodeError, Exchange, Message, Subscribed};
use crate::domain::{Instrument, Side, Tick, Timestamp, parse_decimal};

const SYMBOLS: [&str; 4] = ["BTC-USDT", "ETH-USDT", "BTC-USD", "ETH-USD"];

/// The instrument that the tests of a venue subscribe under this symbol.
pub(super) fn instrument(exchange: &dyn Exchange, symbol: &str) -> Instrument {
    Instrument::intern(exchange.name(), &symbol.parse().unwrap()).unwrap()
}

pub(super) fn received_at() -> Timestamp {
    Timestamp::from_micros(1_790_000_000_000_007).unwrap()
}

pub(super) fn decimal(text: &str) -> Decimal {
    parse_decimal(text).unwrap()
}

/// Reads a frame on a connection that is subscribed to bitcoin and ether in USDT and in USD.
pub(super) fn decode(
    exchange: &dyn Exchange,
    frame: &str,
) -> (Result<Message, DecodeError>, Vec<Tick>) {
    let instruments = SYMBOLS.map(|symbol| instrument(exchange, symbol));
    let symbols = Subscribed::new(exchange, instruments);
    let mut ticks = Vec::new();
    let answer = exchange.decode(frame, &symbols, received_at(), &mut ticks);
    (answer, ticks)
}

/// The one tick of a frame that holds one trade.
pub(super) fn decode_trade(exchange: &dyn Exchange, frame: &str) -> Tick {
    let (answer, mut ticks) = decode(exchange, frame);
    assert_eq!(answer.unwrap(), Message::Trades, "{frame}");
    assert_eq!(ticks.len(), 1, "{frame}");
    ticks.remove(0)
}

/// What a frame without trades says.
pub(super) fn decode_message(exchange: &dyn Exchange, frame: &str) -> Message {
    let (answer, ticks) = decode(exchange, frame);
    assert_eq!(ticks, [], "{frame}");
    answer.unwrap_or_else(|error| panic!("{error:?}: {frame}"))
}

/// Why a frame without a readable trade is refused.
pub(super) fn decode_error(exchange: &dyn Exchange, frame: &str) -> DecodeError {
    let (answer, ticks) = decode(exchange, frame);
    assert_eq!(ticks, [], "{frame}");
    answer.expect_err(frame)
}

/// A trade as a venue would tell it.
#[derive(Debug, Clone)]
pub(super) struct Trade {
    pub(super) instrument: Instrument,
    /// In the venue's spelling.
    pub(super) symbol: String,
    pub(super) id: u64,
    pub(super) price: String,
    pub(super) quantity: String,
    pub(super) side: Side,
    pub(super) at: Timestamp,
}

impl Trade {
    /// The taker's side, `buy` or `sell`.
    pub(super) fn taker(&self) -> &'static str {
        self.side.as_str()
    }

    fn is(&self, tick: &Tick) -> bool {
        tick.instrument == self.instrument
            && tick.trade_id.to_string() == self.id.to_string()
            && tick.price.to_string() == self.price
            && tick.quantity.to_string() == self.quantity
            && tick.side == self.side
            && tick.exchange_at == self.at
            && tick.received_at == received_at()
    }
}

/// One to twenty trades, ids rising; times in milliseconds, or in microseconds where the venue has them.
fn trades(exchange: &'static dyn Exchange, micros: bool) -> impl Strategy<Value = Vec<Trade>> {
    let decimal = "(0|[1-9][0-9]{0,8})(\\.[0-9]{1,10})?";
    let one =
        (select(&SYMBOLS), decimal, decimal, any::<bool>(), 0..4_000_000_000_000_i64, 0..1_000_i64);
    (any::<u32>(), prop::collection::vec(one, 1..20)).prop_map(move |(first, all)| {
        let numbered = (u64::from(first)..).zip(all);
        numbered
            .map(|(id, (symbol, price, quantity, buys, millis, below))| {
                let instrument = instrument(exchange, symbol);
                let below = if micros { below } else { 0 };
                Trade {
                    instrument,
                    symbol: exchange.venue_symbol(instrument.symbol()),
                    id,
                    price,
                    quantity,
                    side: if buys { Side::Buy } else { Side::Sell },
                    at: Timestamp::from_micros(millis * 1_000 + below).unwrap(),
                }
            })
            .collect()
    })
}

/// Every generated trade comes back as it was told, digit for digit.
pub(super) fn prop_a_trade_is_read_as_it_was_told(
    exchange: &'static dyn Exchange,
    micros: bool,
    write: fn(&[Trade]) -> Vec<String>,
) {
    let told = trades(exchange, micros);
    let checked = TestRunner::default().run(&told, |told| {
        let mut read = Vec::new();
        for frame in write(&told) {
            let (answer, ticks) = decode(exchange, &frame);
            prop_assert_eq!(answer.unwrap(), Message::Trades);
            read.extend(ticks);
        }
        prop_assert_eq!(read.len(), told.len());
        for (tick, trade) in read.iter().zip(&told) {
            prop_assert!(trade.is(tick), "{:?} is not {:?}", tick, trade);
        }
        Ok(())
    });
    checked.unwrap();
}

/// Any text, and any damage done to a real message, is answered without a panic.
pub(super) fn prop_any_text_is_answered(exchange: &'static dyn Exchange, frames: &[&str]) {
    let frames: Vec<String> = frames.iter().map(|frame| (*frame).to_owned()).collect();
    let edits = prop::collection::vec((any::<Index>(), edited_byte()), 0..4);
    let damaged = (select(frames), edits, prop::option::weighted(0.3, any::<Index>()));
    let damaged = damaged.prop_map(|(frame, edits, cut)| {
        let mut bytes = frame.into_bytes();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let text = prop_oneof![1 => any::<String>(), 1 => "[\\[\\]{}\",:a-z0-9 ]{0,60}", 8 => damaged];
    let checked = TestRunner::default().run(&text, |text| {
        let (_answer, _ticks) = decode(exchange, &text);
        Ok(())
    });
    checked.unwrap();
}

/// Bytes that mean something in JSON come often.
fn edited_byte() -> impl Strategy<Value = u8> {
    prop_oneof![select(b"{}[]\",:\\-.eE019tn ".to_vec()), any::<u8>()]
}
