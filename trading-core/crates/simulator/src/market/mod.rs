//! The pure market: trade n of a symbol on an exchange is a function of the options and n, and nothing else.
//!
//! So any past trade can be served again, a restarted simulator goes on where the exchange would be, and a stored
//! table can be checked against the truth without a log. Time is an argument everywhere; there is no state. The rate
//! and the bursts decide when a trade happens, and so its price, which follows what all venues agree on at that time;
//! its quantity and its side depend on the seed and n alone.

mod candle;
mod fair;
mod listing;
mod noise;
mod timetable;

use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use self::fair::well_known_bases;
pub(super) use self::noise::{hash, stream};
use self::timetable::Timetable;
use super::venue::Venue;
use domain::{Symbol, Timestamp};

pub use self::candle::Candle;
pub use self::listing::{Listing, TakerOrder, Trade};
pub use self::timetable::{Bursts, Closure, MARKET_BEGAN};

/// Raised when the same options begin to give other trades: what was stored from an older market does not agree with
/// this one. Version 1 had a price of its own for each venue.
pub const MARKET_VERSION: u32 = 2;

/// Which market.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarketOptions {
    /// The same seed gives the same trades.
    pub seed: u64,
    /// Trades per second of each symbol, on average.
    pub rate: Decimal,
    /// Trades that arrive together; `None`: the rate is even.
    pub bursts: Option<Bursts>,
    /// Symbols that every exchange lists beside the well-known ones.
    pub symbols: Vec<Symbol>,
    /// The share of ids that are never issued, from 0 to 0.1: no trade has them, on the WebSocket or in the history.
    pub unissued: Decimal,
    /// When the market stood still, oldest first, in whole milliseconds.
    pub closures: Vec<Closure>,
}

impl Default for MarketOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            rate: Decimal::TEN,
            bursts: None,
            symbols: Vec::new(),
            unissued: Decimal::ZERO,
            closures: Vec::new(),
        }
    }
}

/// A market that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MarketError {
    /// The rate is out of range.
    #[error("rate = {0}: a simulated symbol trades 0.001 to 10000000 times a second")]
    Rate(Decimal),
    /// The bursts leave no trade between them, or are too long to count.
    #[error(
        "bursts of {trades} in every {every} trades: fewer than every, which is at most 10000000"
    )]
    Bursts {
        /// How many trades arrive together.
        trades: u64,
        /// Of how many.
        every: u64,
    },
    /// Too many ids are never issued.
    #[error("unissued = {0}: a share of 0 to 0.1 of the ids is never issued")]
    Unissued(Decimal),
    /// The closures do not follow each other.
    #[error("the market's closures do not follow each other, or are not in whole milliseconds")]
    Closures,
}

/// The market of all simulated exchanges.
#[derive(Debug, Clone)]
pub struct Market {
    seed: u64,
    listings: Arc<BTreeMap<(Venue, String), Arc<Listing>>>,
}

impl Market {
    /// Lists every symbol.
    ///
    /// # Errors
    ///
    /// When the rate, the bursts or the share of ids that are never issued are out of range.
    pub fn new(options: &MarketOptions) -> Result<Self, MarketError> {
        let period_ns = period_ns(options.rate).ok_or(MarketError::Rate(options.rate))?;
        if let Some(Bursts { every, trades, .. }) = options.bursts
            && (!(1..every).contains(&trades) || every > 10_000_000)
        {
            return Err(MarketError::Bursts { trades, every });
        }
        let unissued = Some(options.unissued)
            .filter(|share| (Decimal::ZERO..=Decimal::new(1, 1)).contains(share))
            .and_then(|share| (share * Decimal::from(1_000_000)).to_u32())
            .ok_or(MarketError::Unissued(options.unissued))?;
        let timetable = Timetable::new(period_ns, options.bursts, &options.closures)
            .ok_or(MarketError::Closures)?;
        let mut listings = BTreeMap::new();
        for venue in Venue::ALL.iter().copied() {
            let added = options.symbols.iter().map(|symbol| venue.listed(symbol));
            for symbol in well_known(venue).chain(added) {
                let listing =
                    Listing::new(options.seed, venue.facts(), &symbol, &timetable, unissued);
                listings.insert((venue, symbol.as_str().to_owned()), Arc::new(listing));
            }
        }
        Ok(Self { seed: options.seed, listings: Arc::new(listings) })
    }

    /// The seed.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// A symbol on a venue, by its canonical name; `None` where the venue does not list it.
    #[must_use]
    pub fn listing(&self, venue: Venue, symbol: &str) -> Option<&Arc<Listing>> {
        self.listings.get(&(venue, symbol.to_owned()))
    }

    /// A symbol as the venue's own WebSocket frames spell it, exactly.
    pub(super) fn spelled(&self, venue: Venue, spelling: &str) -> Option<&Arc<Listing>> {
        let canonical = spelling.replace(['-', '/'], "");
        let capitals = || self.listing(venue, &canonical.to_ascii_uppercase());
        let listing = self.listing(venue, &canonical).or_else(capitals);
        listing.filter(|listing| listing.spelling() == spelling)
    }

    /// All symbols of a venue, in order of name.
    pub fn listings(&self, venue: Venue) -> impl Iterator<Item = &Arc<Listing>> {
        let range = (venue, String::new())..;
        self.listings.range(range).take_while(move |((of, _), _)| *of == venue).map(|(_, it)| it)
    }

    /// The truth about one trade: `None` for what is not listed, below the first id, and where there is none.
    #[must_use]
    pub fn trade(&self, exchange: &str, symbol: &Symbol, id: u64) -> Option<Trade> {
        self.listing(exchange.parse().ok()?, symbol.as_str())?.trade(id)
    }

    /// Whether there is a trade of this id, now or one day.
    #[must_use]
    pub fn is_issued(&self, exchange: &str, symbol: &Symbol, id: u64) -> bool {
        let listing = exchange.parse().ok().and_then(|venue| self.listing(venue, symbol.as_str()));
        listing.is_some_and(|listing| listing.is_issued(id))
    }

    /// The id of the newest trade at a time.
    #[must_use]
    pub fn latest(&self, exchange: &str, symbol: &Symbol, now: Timestamp) -> Option<u64> {
        self.listing(exchange.parse().ok()?, symbol.as_str())?.latest(now)
    }
}

fn well_known(venue: Venue) -> impl Iterator<Item = Symbol> {
    let common = venue.facts().quotes.iter().flat_map(|quote| {
        well_known_bases().filter(move |base| base != quote).map(move |base| (base, *quote))
    });
    let all = common.chain(venue.facts().own_pairs.iter().copied());
    all.filter_map(|(base, quote)| Symbol::new(base, quote).ok())
}

fn period_ns(rate: Decimal) -> Option<u64> {
    let range = Decimal::new(1, 3)..=Decimal::new(10_000_000, 0);
    if !range.contains(&rate) {
        return None;
    }
    Decimal::new(1_000_000_000, 0).checked_div(rate)?.round().to_u64()
}

#[cfg(test)]
mod tests;
