//! What the tests of this room share.

use std::num::NonZeroUsize;
use std::time::Duration;

use rust_decimal::Decimal;

use super::strategy::{Signal, Strategy, View};
use crate::config::{PaperSettings, StrategySettings};
use crate::domain::{Instrument, Side, Source, Tick, Timestamp, TradeId};

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
    Tick {
        instrument: btc(),
        trade_id: TradeId::Number(id),
        price: decimal(price),
        quantity: decimal(quantity),
        side: Side::Buy,
        source: Source::Live,
        exchange_at: at(micros),
        received_at: at(micros),
    }
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
