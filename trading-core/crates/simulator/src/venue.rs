//! A simulated venue: a folder that gives its facts to the market and its protocol to the server.
//!
//! To add one: a folder with a [`Twin`] and a constant of [`Venue`], and its line in [`Venue::ALL`]. What one venue is
//! changes no trade of another.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use super::market::Market;
use super::reply::{Query, Reply, Request};
use super::session::Protocol;
use domain::{Symbol, Timestamp};

/// A venue that can be simulated. Each folder has its constant, as `Venue::BINANCE`.
#[derive(Clone, Copy)]
pub struct Venue(pub(super) &'static dyn Twin);

impl Venue {
    /// Every venue, in order of name.
    pub const ALL: &[Self] =
        &[Self::BINANCE, Self::BITSTAMP, Self::BYBIT, Self::COINBASE, Self::KRAKEN, Self::OKX];

    /// The name as in the settings and in the paths of the simulator.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    pub(super) fn facts(self) -> &'static Facts {
        self.0.facts()
    }

    /// A symbol in the letters in which the venue would list it.
    pub(super) fn listed(self, symbol: &Symbol) -> Symbol {
        if self.facts().has_small_letters { symbol.clone() } else { symbol.in_capitals() }
    }
}

impl fmt::Debug for Venue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for Venue {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Venue {}

impl PartialOrd for Venue {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Venue {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name())
    }
}

/// A name that is no simulated venue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no simulated exchange is named {name:?}; there are {}", names().join(", "))]
pub struct UnknownVenue {
    /// The refused name, cut to 40 characters.
    pub name: String,
}

fn names() -> Vec<&'static str> {
    Venue::ALL.iter().map(|venue| venue.name()).collect()
}

impl FromStr for Venue {
    type Err = UnknownVenue;

    fn from_str(name: &str) -> Result<Self, UnknownVenue> {
        let mut venues = Self::ALL.iter().copied();
        venues
            .find(|venue| venue.name() == name)
            .ok_or_else(|| UnknownVenue { name: name.chars().take(40).collect() })
    }
}

/// What a venue's folder implements.
pub(super) trait Twin: Send + Sync {
    /// What the market must know.
    fn facts(&self) -> &'static Facts;

    /// One client's connection to a path behind the exchange's name; `None`: nothing is served there.
    /// `number` counts the connections from 1.
    fn connect(
        &self,
        market: &Market,
        path: &[&str],
        query: &Query,
        number: u64,
    ) -> Option<Box<dyn Protocol>>;

    /// Answers a REST request.
    fn rest(&self, market: &Market, request: &Request<'_>) -> Reply;

    /// What a REST request costs of the venue's [`Facts::limit`].
    fn weight(&self, _path: &[&str]) -> u64 {
        1
    }

    /// The answer to a REST request above the limit, which may be repeated after `retry_after` seconds.
    fn refusal(&self, retry_after: u64, now: Timestamp) -> Reply;

    /// How a client follows bitcoin against the venue's usual quote, for tests of all venues.
    #[cfg(test)]
    fn example(&self) -> super::harness::Example;
}

/// What the simulated market must know of a venue: its name, its markets, how it counts and how it writes.
#[derive(Debug)]
pub(super) struct Facts {
    /// The name as in the settings and in the paths of the simulator.
    pub(super) name: &'static str,
    /// Quotes in which every well-known base is listed, the usual one first.
    pub(super) quotes: &'static [&'static str],
    /// Pairs that it lists beside the well-known ones, as only it spells them: Chinese letters, a small letter that is
    /// different from its capital, a dot.
    pub(super) own_pairs: &'static [(&'static str, &'static str)],
    /// Whether it lists names that differ only in small letters and capitals.
    pub(super) has_small_letters: bool,
    /// The resolution of its clock, in microseconds.
    pub(super) resolution_us: u64,
    /// Significant digits of a price of at least 10,000.
    pub(super) significant_digits: u32,
    /// The most digits after the point of a price.
    pub(super) price_decimals_max: u32,
    /// Digits of a lot beyond those in front of the price's point, and the most there are.
    pub(super) lot_decimals: (u32, u32),
    /// How it writes prices.
    pub(super) price_digits: Digits,
    /// How it writes quantities.
    pub(super) quantity_digits: Digits,
    /// The id of a symbol's trade number 0, from 16 bits that belong to the symbol.
    pub(super) first_id: fn(u64) -> u64,
    /// Of its ids, how many millionths are of other pairs than a symbol's own: as if they were never issued.
    pub(super) other_ids: u32,
    /// Its own spelling of a symbol in its WebSocket frames.
    pub(super) spelling: fn(&Symbol) -> String,
    /// How often its REST side may be asked, as it documents it or is said to do.
    pub(super) limit: RestLimit,
    /// The HTTP status of its answers to an address that it has banned.
    pub(super) banned: u16,
}

/// How a venue writes a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Digits {
    /// Always this many after the point, zeros included.
    Padded(u32),
    /// Without trailing zeros.
    Trimmed,
    /// As many as the tick or lot has.
    Exact,
}

/// How often a venue's REST side may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestLimit {
    /// What may be asked at once, in requests; at Binance in weight.
    pub burst: u64,
    /// What may be asked each second from then on; not zero.
    pub per_second: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn venues_are_sorted_and_found_by_their_names() {
        assert!(Venue::ALL.is_sorted());
        for venue in Venue::ALL {
            assert_eq!(venue.name().parse(), Ok(*venue));
        }
        let unknown = "mtgox".parse::<Venue>().unwrap_err().to_string();
        let words = r#"no simulated exchange is named "mtgox"; there are binance, "#;
        assert!(unknown.starts_with(words), "{unknown}");
    }
}
