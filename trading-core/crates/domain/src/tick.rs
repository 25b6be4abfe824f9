//! One public trade.

use std::fmt;

use rust_decimal::Decimal;

use super::{Instrument, Timestamp};

/// One public trade of one instrument, as the exchange told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    /// What was traded, and where.
    pub instrument: Instrument,
    /// The exchange's own id of the trade.
    pub trade_id: TradeId,
    /// Quote currency per unit of base, with the exchange's digits.
    pub price: Decimal,
    /// Units of base, with the exchange's digits.
    pub quantity: Decimal,
    /// The side of the order that took liquidity.
    pub side: Side,
    /// How the tick came to us.
    pub source: Source,
    /// When the exchange matched it.
    pub exchange_at: Timestamp,
    /// When its frame was read from the socket, by our clock. May lie before `exchange_at`: clocks differ.
    pub received_at: Timestamp,
}

/// The taker's (aggressor's) side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The taker bought.
    Buy,
    /// The taker sold.
    Sell,
}

impl Side {
    /// `buy` or `sell`, as stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Buy => "buy",
            Self::Sell => "sell",
        }
    }

    /// The other side: a venue that names the maker's side means this one.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Buy => Self::Sell,
            Self::Sell => Self::Buy,
        }
    }
}

/// How a tick came to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Over an exchange's WebSocket.
    Live,
    /// Over an exchange's REST history.
    Backfill,
    /// Pushed by another producer over our API.
    Pushed,
    /// Consumed from a message broker.
    Bridge,
}

impl Source {
    /// The name as stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Backfill => "backfill",
            Self::Pushed => "pushed",
            Self::Bridge => "bridge",
        }
    }

    /// The source with this stored name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Live, Self::Backfill, Self::Pushed, Self::Bridge]
            .into_iter()
            .find(|source| source.as_str() == name)
    }
}

/// A trade's id. Most venues count; the few that do not keep their text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TradeId {
    /// A count, printed without leading zeros.
    Number(u64),
    /// Anything else: UUIDs, hashes, numbers too long to count with.
    Text(Box<str>),
}

impl TradeId {
    /// Reads an id from the exchange's text; [`fmt::Display`] gives that same text back.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let canonical = text == "0" || !text.starts_with(['0', '+']);
        match text.parse() {
            Ok(number) if canonical => Self::Number(number),
            _ => Self::Text(text.into()),
        }
    }

    /// Appends the exchange's text to a string, without allocating one.
    pub fn append_to(&self, text: &mut String) {
        match self {
            Self::Number(number) => text.push_str(itoa::Buffer::new().format(*number)),
            Self::Text(id) => text.push_str(id),
        }
    }

    /// The count, where the id is one.
    #[must_use]
    pub const fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(_) => None,
        }
    }
}

impl fmt::Display for TradeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tick_is_eighty_bytes() {
        assert_eq!(size_of::<Tick>(), 80);
    }

    proptest! {
        #[test]
        fn prop_an_id_is_printed_as_it_came(text in "[0-9+a-f-]{1,40}") {
            prop_assert_eq!(TradeId::from_text(&text).to_string(), text);
        }
    }
}
