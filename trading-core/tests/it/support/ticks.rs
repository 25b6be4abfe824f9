//! Ticks as a database takes them.

use std::sync::OnceLock;

use trading_core::domain::testing;
use trading_core::domain::{Instrument, Source, Tick, Timestamp, TradeId};
use trading_core::simulator::Market;

/// One instant for the whole test run, so that a tick written twice is the same tick.
pub(crate) fn now() -> Timestamp {
    static NOW: OnceLock<Timestamp> = OnceLock::new();
    *NOW.get_or_init(Timestamp::now)
}

/// A made tick of now: its day has a partition.
pub(crate) fn tick(id: u64) -> Tick {
    testing::tick(id).at(now())
}

/// Those with these ids.
pub(crate) fn ticks(ids: std::ops::Range<u64>) -> Vec<Tick> {
    ids.map(tick).collect()
}

/// A trade of the market as a recorder has it that receives it at once; `None` where the market never issued its id.
pub(crate) fn traded(market: &Market, instrument: Instrument, id: u64) -> Option<Tick> {
    let trade = market.trade(instrument.exchange(), instrument.symbol(), id)?;
    Some(Tick {
        instrument,
        trade_id: TradeId::Number(id),
        price: trade.price,
        quantity: trade.quantity,
        side: trade.side,
        source: Source::Live,
        exchange_at: trade.at,
        received_at: trade.at,
    })
}
