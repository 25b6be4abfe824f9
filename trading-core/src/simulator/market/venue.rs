//! What the simulated market must know of each venue: its name, its markets, how it counts and how it writes.
//!
//! Facts only; the protocols are in one file per venue.

use std::str::FromStr;

use crate::domain::Symbol;

/// A venue that can be simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Venue {
    /// Binance spot.
    Binance,
    /// Coinbase Exchange.
    Coinbase,
    /// Kraken spot, WebSocket v2.
    Kraken,
    /// OKX spot, v5.
    Okx,
    /// Bybit spot, v5.
    Bybit,
}

/// A name that is no simulated venue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no simulated exchange is named {name:?}; there are {}", Venue::NAMES.join(", "))]
pub struct UnknownVenue {
    /// The refused name, cut to 40 characters.
    pub name: String,
}

/// How a venue writes quantities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Digits {
    /// Always this many after the point, zeros included.
    Padded(u32),
    /// Without trailing zeros.
    Trimmed,
    /// As many as the tick or lot has.
    Exact,
}

impl Venue {
    /// Every venue, in the order in which they are documented.
    pub const ALL: [Self; 5] =
        [Self::Binance, Self::Coinbase, Self::Kraken, Self::Okx, Self::Bybit];

    const NAMES: [&'static str; 5] = ["binance", "coinbase", "kraken", "okx", "bybit"];

    /// The name as in the settings and in the paths of the simulator.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Binance => "binance",
            Self::Coinbase => "coinbase",
            Self::Kraken => "kraken",
            Self::Okx => "okx",
            Self::Bybit => "bybit",
        }
    }

    /// Quotes in which every well-known base is listed.
    pub(super) const fn quotes(self) -> &'static [&'static str] {
        match self {
            Self::Binance => &["USDT", "USDC", "FDUSD", "EUR", "BTC"],
            Self::Coinbase => &["USD", "USDC", "USDT", "EUR", "BTC"],
            Self::Kraken => &["USD", "EUR", "USDT", "USDC", "BTC"],
            Self::Okx => &["USDT", "USDC", "USD", "BTC"],
            Self::Bybit => &["USDT", "USDC", "EUR", "BTC"],
        }
    }

    /// Pairs that it lists beside the well-known ones, as only it spells them: Chinese letters, a small letter that is told
    /// from its capital, a dot.
    pub(super) const fn own_pairs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Binance => &[("币安人生", "USDT")],
            Self::Kraken => &[("AAPLx", "USD"), ("ETH2.S", "ETH")],
            Self::Coinbase | Self::Okx | Self::Bybit => &[],
        }
    }

    /// A symbol in the letters in which the venue would list it: only Kraken has small ones.
    pub(super) fn listed(self, symbol: &Symbol) -> Symbol {
        if self == Self::Kraken { symbol.clone() } else { symbol.in_capitals() }
    }

    /// The venue's clock resolution in microseconds.
    pub(super) const fn resolution_us(self) -> u64 {
        match self {
            Self::Binance | Self::Okx | Self::Bybit => 1_000,
            Self::Coinbase | Self::Kraken => 1,
        }
    }

    /// Digits of a price that the venue tells apart: this many significant ones.
    pub(super) const fn significant_digits(self) -> u32 {
        match self {
            Self::Binance | Self::Coinbase => 7,
            Self::Kraken | Self::Okx | Self::Bybit => 6,
        }
    }

    /// The most digits after the point of a price.
    pub(super) const fn price_decimals_max(self) -> u32 {
        match self {
            Self::Binance => 8,
            Self::Coinbase | Self::Kraken | Self::Okx | Self::Bybit => 10,
        }
    }

    /// Digits of a lot beyond those in front of the price's point, and the most there are.
    pub(super) const fn lot_decimals(self) -> (u32, u32) {
        match self {
            Self::Binance => (0, 5),
            Self::Bybit => (1, 6),
            Self::Coinbase | Self::Kraken | Self::Okx => (3, 8),
        }
    }

    pub(super) const fn price_digits(self) -> Digits {
        match self {
            Self::Binance => Digits::Padded(8),
            Self::Coinbase | Self::Kraken => Digits::Exact,
            Self::Okx | Self::Bybit => Digits::Trimmed,
        }
    }

    pub(super) const fn quantity_digits(self) -> Digits {
        match self {
            Self::Binance | Self::Kraken => Digits::Padded(8),
            Self::Coinbase | Self::Okx | Self::Bybit => Digits::Trimmed,
        }
    }

    /// The id of a symbol's trade number 0, from 16 bits that belong to the symbol.
    pub(super) const fn first_id(self, bits: u64) -> u64 {
        match self {
            Self::Binance => 100_000_000 + bits * 10_007,
            Self::Coinbase => 10_000_000 + bits * 1_009,
            Self::Kraken => 1_000_000 + bits * 101,
            Self::Okx => 50_000_000 + bits * 5_003,
            // A prefix per symbol, then a count: 2290000000050703789 in real frames.
            Self::Bybit => {
                2_200_000_000_000_000_000 + (bits % 1_000) * 1_000_000_000_000_000 + 50_000_000
            }
        }
    }

    /// The venue's own spelling in its WebSocket frames.
    pub(super) fn spelling(self, symbol: &Symbol) -> String {
        match self {
            Self::Binance | Self::Bybit => symbol.as_str().to_owned(),
            Self::Coinbase | Self::Okx => format!("{}-{}", symbol.base(), symbol.quote()),
            Self::Kraken => format!("{}/{}", symbol.base(), symbol.quote()),
        }
    }
}

impl FromStr for Venue {
    type Err = UnknownVenue;

    fn from_str(name: &str) -> Result<Self, UnknownVenue> {
        Self::ALL
            .into_iter()
            .find(|venue| venue.name() == name)
            .ok_or_else(|| UnknownVenue { name: name.chars().take(40).collect() })
    }
}
