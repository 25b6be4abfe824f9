//! What the tests of all venues share: generated trades, and the promises that each decoder keeps.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;
use rust_decimal::Decimal;

use super::history::{Candle, HistoryError, Pages, Span};
use super::{DecodeError, Exchange, IdRule, Message, Subscribed};
use domain::testing::written_value;
use domain::{IdRange, Instrument, Side, Tick, TimeRange, Timestamp, parse_decimal};

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

/// A JSON number in any notation, with more digits than can be kept or with fewer.
const NUMBER: &str = "(0|[1-9][0-9]{0,30})(\\.[0-9]{1,32})?([eE][+-]?[0-9]{1,2})?";

/// A number in any notation and of any length is read to its last digit, or its trade is refused.
pub(super) fn prop_a_number_is_exact_or_refused(
    exchange: &'static dyn Exchange,
    write: fn(&[Trade]) -> Vec<String>,
) {
    let told = (trades(exchange, false), NUMBER, NUMBER);
    let checked = TestRunner::default().run(&told, |(mut told, price, quantity)| {
        told.truncate(1);
        let trade = &mut told[0];
        (trade.price, trade.quantity) = (price.clone(), quantity.clone());
        for frame in write(&told) {
            let (answer, ticks) = decode(exchange, &frame);
            prop_assert_eq!(answer.is_ok(), ticks.len() == 1, "{}", frame);
            for tick in ticks {
                prop_assert_eq!(written_value(&tick.price.to_string()), written_value(&price));
                prop_assert_eq!(
                    written_value(&tick.quantity.to_string()),
                    written_value(&quantity)
                );
            }
        }
        Ok(())
    });
    checked.unwrap();
}

/// The same for a history. Of the pages that `write` makes the price is `"1.5"`; `candles` is an answer with this volume.
pub(super) fn prop_a_number_of_the_past_is_exact_or_refused(
    exchange: &'static dyn Exchange,
    write: fn(&[(u64, i64)]) -> String,
    (candles, volume): (&str, &str),
) {
    let at = 1_790_000_000_000;
    let page = write(&[(500, at)]);
    assert!(page.contains("\"1.5\"") && candles.contains(volume));
    let ids = (exchange.ids() == IdRule::Consecutive).then_some((500, 500));
    let checked = TestRunner::default().run(&NUMBER, |number| {
        let span = span(exchange, "BTCUSDT", ids, at * 1_000 - 1, at * 1_000 + 1);
        let mut pages = exchange.history().pages(REST, span);
        let page = page.replace("\"1.5\"", &format!("\"{number}\""));
        for tick in take(&mut *pages, &page).unwrap_or_default() {
            prop_assert_eq!(written_value(&tick.price.to_string()), written_value(&number));
        }
        let candles = candles.replace(volume, &number);
        let candles = exchange.history().decode_candles(&candles).unwrap_or_default();
        if !candles.is_empty() {
            let is_told = |candle: &Candle| {
                written_value(&candle.volume.to_string()) == written_value(&number)
            };
            prop_assert!(candles.iter().any(is_told), "{}", number);
        }
        Ok(())
    });
    checked.unwrap();
    // The property looks at something: this number is read.
    let span = span(exchange, "BTCUSDT", ids, at * 1_000 - 1, at * 1_000 + 1);
    assert_eq!(take_one(&mut *exchange.history().pages(REST, span), &page).price, decimal("1.5"));
}

/// Any text, and any damage done to a real message, is answered without a panic.
pub(super) fn prop_any_text_is_answered(exchange: &'static dyn Exchange, frames: &[&str]) {
    let checked = TestRunner::default().run(&any_text(frames), |text| {
        let (_answer, _ticks) = decode(exchange, &text);
        Ok(())
    });
    checked.unwrap();
}

/// Any text, and any damage done to these, mostly the latter.
fn any_text(real: &[&str]) -> impl Strategy<Value = String> + use<> {
    let frames: Vec<String> = real.iter().map(|text| (*text).to_owned()).collect();
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
    prop_oneof![1 => any::<String>(), 1 => "[\\[\\]{}\",:a-z0-9 ]{0,60}", 8 => damaged]
}

/// Bytes that mean something in JSON come often.
fn edited_byte() -> impl Strategy<Value = u8> {
    prop_oneof![select(b"{}[]\",:\\-.eE019tn ".to_vec()), any::<u8>()]
}

/// Where the tests of a venue's history ask.
pub(super) const REST: &str = "http://venue";

/// A span of bitcoin in dollars; times in microseconds.
pub(super) fn span(
    exchange: &dyn Exchange,
    symbol: &str,
    ids: Option<(u64, u64)>,
    from: i64,
    to: i64,
) -> Span {
    let at = |micros| Timestamp::from_micros(micros).unwrap();
    let ids = ids.map(|(first, last)| IdRange::between(first, last));
    let times = TimeRange::new(at(from), at(to));
    Span { instrument: instrument(exchange, symbol), ids, times }
}

/// Reads one page, and answers the ids of what was kept.
pub(super) fn take(pages: &mut dyn Pages, body: &str) -> Result<Vec<Tick>, HistoryError> {
    let mut ticks = Vec::new();
    pages.take(body, received_at(), &mut ticks).map(|()| ticks)
}

/// The one kept tick of an answer that holds one wanted trade.
pub(super) fn take_one(pages: &mut dyn Pages, body: &str) -> Tick {
    let mut ticks = take(pages, body).unwrap();
    assert_eq!(ticks.len(), 1, "{body}");
    ticks.remove(0)
}

/// The numbers of trade ids.
pub(super) fn ids(ticks: &[Tick]) -> Vec<u64> {
    ticks.iter().map(|tick| tick.trade_id.number().unwrap()).collect()
}

/// Whatever a venue answers, its pages never panic and never come round: an answer that is refused changes nothing,
/// and one that is taken leads to a page that was not asked for yet, or to the end. What is kept lies in the span, as
/// exactly as the venue tells its times, and within the reach.
///
/// `write` makes an answer of some trades, from their ids and their times in milliseconds.
pub(super) fn prop_no_answer_leads_in_a_circle(
    exchange: &'static dyn Exchange,
    real: &[&str],
    write: fn(&[(u64, i64)]) -> String,
) {
    let trades = prop::collection::btree_map(0..3_000_u64, 0..50_i64, 0..40);
    let well_formed =
        (trades, 0..3_000_u64, any::<bool>()).prop_map(move |(trades, skip, newest)| {
            // Times rise with the ids, as they do at a venue.
            let trades = trades.into_iter().filter(|(id, _)| *id >= skip);
            let mut trades: Vec<(u64, i64)> = trades
                .map(|(id, jitter)| (id, 10_000_000 * (1 + id.cast_signed()) + jitter))
                .collect();
            if newest {
                trades.reverse();
            }
            write(&trades)
        });
    let answers = prop_oneof![4 => well_formed, 1 => any_text(real)];
    let ids = prop::option::of((0..3_000_u64, 0..1_000_u64));
    let asked = (ids, 0..40_000_000_000_i64, 0..20_000_000_000_i64);
    let runs = (asked, prop::collection::vec(answers, 1..40));
    let checked = TestRunner::default().run(&runs, |((ids, from, lasting), answers)| {
        let ids = ids.map(|(first, more)| (first, first + more));
        let span = span(exchange, "BTCUSDT", ids, from, from + lasting);
        let apart = exchange.history().rules().times_apart.unwrap_or_default();
        let times = span.times.widened(apart);
        let mut pages = exchange.history().pages(REST, span);
        let mut asked = BTreeSet::new();
        for answer in answers {
            let (before, reach) = (pages.next(), pages.reach());
            match take(&mut *pages, &answer) {
                Err(_) => prop_assert_eq!((pages.next(), pages.reach()), (before, reach)),
                Ok(ticks) => {
                    let Some(before) = before else {
                        prop_assert_eq!((ticks.len(), pages.next()), (0, None));
                        continue;
                    };
                    prop_assert!(asked.insert(before.clone()), "{} came round", before);
                    prop_assert!(pages.next().is_none_or(|next| !asked.contains(&next)));
                    for tick in ticks {
                        let id = tick.trade_id.number().unwrap();
                        let reach = pages.reach().unwrap();
                        prop_assert!(reach.ids.is_some_and(|ids| ids.contains(id)));
                        match ids {
                            Some((first, last)) => prop_assert!((first..=last).contains(&id)),
                            None => prop_assert!(times.contains(tick.exchange_at)),
                        }
                    }
                }
            }
        }
        Ok(())
    });
    checked.unwrap();
}
