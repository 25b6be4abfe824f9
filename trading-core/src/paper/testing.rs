//! What the tests of this room share.

use std::num::NonZeroUsize;
use std::time::Duration;

use rust_decimal::Decimal;

use super::desk::{Book, Desk};
use super::fills::Terms;
use super::money::Overflow;
use super::strategy::{Signal, Strategy, View};
use crate::config::{PaperSettings, StrategySettings};
use crate::domain::testing;
use crate::domain::{Instrument, Tick, Timestamp};

pub(super) fn decimal(text: &str) -> Decimal {
    Decimal::from_str_exact(text).unwrap()
}

pub(super) fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

pub(super) fn instrument(symbol: &str) -> Instrument {
    Instrument::intern("binance", &symbol.parse().unwrap()).unwrap()
}

pub(super) fn btc() -> Instrument {
    instrument("BTCUSDT")
}

pub(super) fn tick(id: u64, micros: i64, price: &str, quantity: &str) -> Tick {
    let (price, quantity) = (decimal(price), decimal(quantity));
    Tick { price, quantity, ..testing::tick(id).at(at(micros)) }
}

pub(super) fn holding(quantity: &str) -> View {
    View {
        quantity: decimal(quantity),
        cost: Decimal::ZERO,
        cash: decimal("1000"),
        open_order: None,
    }
}

/// The signals for one tick a second at these prices, each with the number of its tick.
pub(super) fn signals(
    strategy: &mut dyn Strategy,
    prices: &[&str],
    view: &View,
) -> Vec<(usize, Signal)> {
    let mut told = Vec::new();
    for (number, price) in prices.iter().enumerate() {
        let seconds = i64::try_from(number).unwrap();
        let tick = tick(seconds.unsigned_abs(), seconds * 1_000_000, price, "1");
        told.extend(strategy.on_tick(&tick, view).unwrap().map(|signal| (number, signal)));
    }
    told
}

/// One strategy, `test`, on Binance's BTCUSDT and ETHUSDT.
pub(super) fn settings(kind: &str) -> PaperSettings {
    PaperSettings {
        channel_capacity: NonZeroUsize::new(100_000).unwrap(),
        equity_interval: Duration::from_secs(10),
        strategies: vec![StrategySettings {
            name: "test".to_owned(),
            kind: kind.to_owned(),
            exchange: "binance".to_owned(),
            symbols: vec!["BTCUSDT".parse().unwrap(), "ETHUSDT".parse().unwrap()],
            cash: decimal("10000"),
            fee_rate: decimal("0.001"),
            slippage: decimal("0.0005"),
            position_limit: decimal("2000"),
            parameters: std::collections::BTreeMap::new(),
        }],
    }
}

/// Says what it was told to, one entry a tick, whatever the market does.
#[derive(Debug)]
pub(super) struct Scripted(std::vec::IntoIter<Option<Signal>>);

impl Scripted {
    pub(super) fn new(signals: Vec<Option<Signal>>) -> Self {
        Self(signals.into_iter())
    }
}

impl Strategy for Scripted {
    fn on_tick(&mut self, _: &Tick, _: &View) -> Result<Option<Signal>, Overflow> {
        Ok(self.0.next().flatten())
    }

    fn lookback(&self) -> Duration {
        Duration::ZERO
    }

    fn is_settled(&self) -> bool {
        true
    }
}

/// A desk on the terms of [`settings`].
pub(super) fn desk(
    name: &str,
    instruments: &[Instrument],
    strategy: impl Fn() -> Box<dyn Strategy>,
) -> Desk {
    let settings = settings("sma_crossover").strategies.remove(0);
    let terms = Terms {
        fee_rate: settings.fee_rate,
        slippage: settings.slippage,
        position_limit: settings.position_limit,
    };
    let books = instruments.iter().map(|instrument| (*instrument, Book::new(strategy())));
    Desk::new(
        (name, "scripted"),
        ("binance", "USDT"),
        terms,
        settings.cash,
        10_000_000,
        books.collect(),
    )
}

/// Ticks of two symbols that walk at random, each at ten a second: steps of up to 0.02 %.
pub(super) fn walk(seed: u64, count: usize) -> Vec<Tick> {
    let mut state = seed | 1;
    let mut random = move |below: u64| {
        // xorshift64*: https://en.wikipedia.org/wiki/Xorshift
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        i64::try_from((state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below).unwrap()
    };
    let mut cents = [9_500_000_i64, 350_000];
    let instruments = [btc(), instrument("ETHUSDT")];
    (0..count)
        .map(|number| {
            let which = number % 2;
            let step = cents[which] / 5_000;
            cents[which] += random(u64::try_from(2 * step + 1).unwrap()) - step;
            let id = u64::try_from(number).unwrap();
            let micros = 1_700_000_000_000_000 + i64::try_from(number).unwrap() * 50_000;
            Tick {
                instrument: instruments[which],
                price: Decimal::new(cents[which], 2),
                quantity: Decimal::new(random(1_000_000) + 1, 6),
                ..tick(id, micros, "1", "1")
            }
        })
        .collect()
}
