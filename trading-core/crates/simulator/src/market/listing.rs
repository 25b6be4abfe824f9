//! One symbol on one venue: its price's level, its steps, and each of its trades.
//!
//! Trade n is a function of the seed and n; nothing is stored and nothing moves. Trades come in orders: a taker's
//! order fills one or more trades in a row, which share side, price and time, as on the venues that aggregate.

use std::ops::RangeInclusive;

use rust_decimal::Decimal;

use super::super::venue::{Digits, Facts};
use super::fair::{DOLLAR, Fair, LEVEL_DIGITS};
use super::noise;
use super::timetable::{Moment, Timetable};
use domain::{Side, Symbol, Timestamp};

/// One trade of the simulated market: the truth about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trade {
    /// The venue's id, consecutive per symbol.
    pub id: u64,
    /// The price, with the venue's digits.
    pub price: Decimal,
    /// The quantity in units of base, with the venue's digits.
    pub quantity: Decimal,
    /// The taker's side.
    pub side: Side,
    /// When it was matched, in the venue's resolution.
    pub at: Timestamp,
}

/// A taker's order: the trades that it filled, and its own number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakerOrder {
    /// Consecutive per symbol, as Binance numbers its aggregated trades.
    pub number: u64,
    /// The id of the first trade. It is always issued.
    pub first: u64,
    /// The id of the last trade, issued or not.
    pub last: u64,
}

/// One symbol on one venue.
#[derive(Debug, Clone)]
pub struct Listing {
    facts: &'static Facts,
    symbol: Symbol,
    spelling: String,
    timetable: Timetable,
    stream: u64,
    first_id: u64,
    fair: Fair,
    price_scale: u32,
    typical_lots: u64,
    lot_scale: u32,
    /// How many of 2^32 ids that begin no order are never issued.
    unissued: u64,
}

/// Trades per block of [`MASKS`], and orders in each.
const BLOCK: u64 = 16;
const ORDERS: u64 = 10;
/// Which trades of a block begin an order: every pattern has ten of them, so that orders can be counted.
const MASKS: [u16; 8] = [
    0b0110_1011_0110_1101,
    0b1011_0110_1101_0101,
    0b0000_1111_1011_0111,
    0b1111_1100_0011_0101,
    0b1101_0101_1010_1011,
    0b0111_0111_0011_1001,
    0b1110_0101_1011_0011,
    0b1010_1010_1111_0101,
];

/// Streams of one listing; each has its own values.
const SIDE: u64 = 2;
const QUANTITY: u64 = 3;
const PATTERN: u64 = 4;
const ISSUED: u64 = 10;

impl Listing {
    /// `unissued` is the share of ids that are never issued, in millionths; at most a tenth. The venue's own share, at
    /// most three tenths, may be more.
    pub(super) fn new(
        seed: u64,
        facts: &'static Facts,
        symbol: &Symbol,
        timetable: &Timetable,
        unissued: u32,
    ) -> Self {
        let stream = noise::stream(seed, &[facts.name, symbol.as_str()]);
        let unissued = unissued.max(facts.other_ids);
        let mut integer_digits = None;
        let (fair, price_scale) = Fair::new(seed, symbol, stream, |level| {
            integer_digits = (level / 10_u128.pow(LEVEL_DIGITS)).checked_ilog10();
            price_scale(facts, level)
        });
        let (beyond, lot_max) = facts.lot_decimals;
        let lot_scale = integer_digits.map_or(0, |digits| digits + 1 + beyond).min(lot_max);
        // A trade is worth about 500 dollars.
        let worth = 500 * u128::from(DOLLAR);
        let lots = worth * u128::from(10_u64.pow(lot_scale)) / u128::from(fair.base_level());
        Self {
            facts,
            symbol: symbol.clone(),
            spelling: (facts.spelling)(symbol),
            timetable: timetable.for_stream(stream, facts.resolution_us),
            stream,
            first_id: (facts.first_id)(noise::hash(stream, 0) >> 48),
            fair,
            price_scale,
            typical_lots: u64::try_from(lots).unwrap_or(u64::MAX).clamp(1, 1 << 40),
            lot_scale,
            unissued: (u64::from(unissued) << 32) * BLOCK / (BLOCK - ORDERS) / 1_000_000,
        }
    }

    /// The canonical symbol.
    #[must_use]
    pub const fn symbol(&self) -> &Symbol {
        &self.symbol
    }

    /// The venue's own spelling in its WebSocket frames.
    #[must_use]
    pub fn spelling(&self) -> &str {
        &self.spelling
    }

    /// The id of the oldest trade there is.
    #[must_use]
    pub const fn first_id(&self) -> u64 {
        self.first_id
    }

    /// The smallest step of a price.
    #[must_use]
    pub fn tick_size(&self) -> Decimal {
        Decimal::new(1, self.price_scale)
    }

    /// The smallest step of a quantity.
    #[must_use]
    pub fn lot_size(&self) -> Decimal {
        Decimal::new(1, self.lot_scale)
    }

    /// Digits after the point of a price's step.
    pub(in super::super) const fn price_scale(&self) -> u32 {
        self.price_scale
    }

    /// Digits after the point of a quantity's step.
    pub(in super::super) const fn lot_scale(&self) -> u32 {
        self.lot_scale
    }

    /// A number that belongs to this trade and looks like nothing else, for order ids and the like.
    pub(in super::super) fn mark(&self, id: u64, kind: u64) -> u64 {
        noise::hash(self.stream.wrapping_add(kind << 8), id)
    }

    /// Whether there is a trade of this id, now or one day. A venue may leave ids out; here never an order's first.
    #[must_use]
    pub fn is_issued(&self, id: u64) -> bool {
        id.checked_sub(self.first_id)
            .is_some_and(|n| self.is_kept(n, head(self.mask(n / BLOCK), n)))
    }

    fn is_kept(&self, n: u64, head: u64) -> bool {
        self.unissued == 0
            || n == head
            || noise::hash(self.stream.wrapping_add(ISSUED), n) >> 32 >= self.unissued
    }

    /// The trade of an id; `None` below the first id, and for an id that was never issued. Ids of the future are
    /// answered too: the market is settled.
    #[must_use]
    pub fn trade(&self, id: u64) -> Option<Trade> {
        let n = id.checked_sub(self.first_id)?;
        let head = head(self.mask(n / BLOCK), n);
        if !self.is_kept(n, head) {
            return None;
        }
        let side = if noise::hash(self.stream.wrapping_add(SIDE), head) & 1 == 0 {
            Side::Buy
        } else {
            Side::Sell
        };
        let traded = self.timetable.moment(head)?;
        Some(Trade {
            id,
            price: self.price(traded, side),
            quantity: self.quantity(n),
            side,
            at: self.timetable.shown(traded)?,
        })
    }

    /// When a trade was matched, without the rest of it.
    #[must_use]
    pub fn at(&self, id: u64) -> Option<Timestamp> {
        let n = id.checked_sub(self.first_id)?;
        self.timetable.at(head(self.mask(n / BLOCK), n))
    }

    /// The newest trade at a time; `None` before the first.
    #[must_use]
    pub fn latest(&self, now: Timestamp) -> Option<u64> {
        let due = self.due(now)?;
        self.order(due).map(|order| self.last_issued(order.first, due))
    }

    /// The newest id that is due at a time, issued or not: the inverse of [`Listing::at`].
    pub(in super::super) fn due(&self, now: Timestamp) -> Option<u64> {
        let n = self.timetable.latest(now, |n| head(self.mask(n / BLOCK), n))?;
        Some(self.first_id + n)
    }

    /// The newest issued id of these, the first of which is.
    pub(in super::super) fn last_issued(&self, first: u64, last: u64) -> u64 {
        (first..=last).rev().find(|id| self.is_issued(*id)).unwrap_or(first)
    }

    /// The trades of these ids that were issued, oldest first.
    pub(in super::super) fn trades(
        &self,
        ids: RangeInclusive<u64>,
    ) -> impl DoubleEndedIterator<Item = Trade> {
        ids.filter_map(|id| self.trade(id))
    }

    /// The sum of the quantities of these trades.
    pub(in super::super) fn traded(&self, first: u64, last: u64) -> Decimal {
        self.trades(first..=last).map(|trade| trade.quantity).sum()
    }

    /// The first id that is not older than a time.
    #[must_use]
    pub fn first_since(&self, time: Timestamp) -> u64 {
        Timestamp::from_micros(time.as_micros() - 1)
            .ok()
            .and_then(|before| self.due(before))
            .map_or(self.first_id, |id| id + 1)
    }

    /// The taker's order to which a trade belongs; `None` below the first id.
    #[must_use]
    pub fn order(&self, id: u64) -> Option<TakerOrder> {
        let n = id.checked_sub(self.first_id)?;
        let (block, place) = (n / BLOCK, n % BLOCK);
        let mask = self.mask(block);
        let upto = u64::from(mask) & ((2 << place) - 1);
        let after = u64::from(mask) >> (place + 1);
        let length = if after == 0 { BLOCK - place } else { u64::from(after.trailing_zeros()) + 1 };
        Some(TakerOrder {
            number: block * ORDERS + u64::from(upto.count_ones()) - 1,
            first: self.first_id + head(mask, n),
            last: id + length - 1,
        })
    }

    /// The order of a number, as [`TakerOrder::number`] counts.
    #[must_use]
    pub fn order_numbered(&self, number: u64) -> Option<TakerOrder> {
        let mut mask = self.mask(number / ORDERS);
        for _ in 0..number % ORDERS {
            mask &= mask.wrapping_sub(1);
        }
        let n = (number / ORDERS).checked_mul(BLOCK)? + u64::from(mask.trailing_zeros());
        self.order(self.first_id.checked_add(n)?)
    }

    fn mask(&self, block: u64) -> u16 {
        let pattern = noise::hash(self.stream.wrapping_add(PATTERN), block) % 8;
        usize::try_from(pattern).ok().and_then(|place| MASKS.get(place)).copied().unwrap_or(1)
    }

    fn price(&self, traded: Moment, side: Side) -> Decimal {
        // A buyer pays one step more than a seller gets.
        let steps = self.fair.steps(traded.micros()) + i64::from(side == Side::Buy);
        written(steps, self.price_scale, self.facts.price_digits)
    }

    fn quantity(&self, n: u64) -> Decimal {
        // Cubed, so that most trades are small and a few are large.
        let even = noise::hash(self.stream.wrapping_add(QUANTITY), n) >> 32;
        let skewed = (((even * even) >> 32) * even) >> 32;
        let lots = 1 + ((u128::from(self.typical_lots) * 8 * u128::from(skewed)) >> 32);
        let lots = i64::try_from(lots).unwrap_or(i64::MAX);
        written(lots, self.lot_scale, self.facts.quantity_digits)
    }
}

/// The first trade of the order to which trade `n` belongs: each block begins one.
fn head(mask: u16, n: u64) -> u64 {
    let place = n % BLOCK;
    let upto = u64::from(mask) & ((2 << place) - 1);
    n - place + u64::from(upto.checked_ilog2().unwrap_or(0))
}

fn written(steps: i64, scale: u32, digits: Digits) -> Decimal {
    match digits {
        Digits::Exact => Decimal::new(steps, scale),
        Digits::Padded(width) => {
            let factor = 10_i64.pow(width.saturating_sub(scale));
            Decimal::from_i128_with_scale(i128::from(steps) * i128::from(factor), width.max(scale))
        }
        Digits::Trimmed => {
            let (mut steps, mut scale) = (steps, scale);
            while scale > 0 && steps % 10 == 0 {
                steps /= 10;
                scale -= 1;
            }
            Decimal::new(steps, scale)
        }
    }
}

/// Digits after the point of a price's step, by the price's level: as many as the venues have of such prices, and a
/// hundred steps at least, whatever the venue's rules say.
fn price_scale(facts: &Facts, level: u128) -> u32 {
    let digits = level.checked_ilog10().unwrap_or(0);
    let significant = match digits.saturating_sub(LEVEL_DIGITS) {
        4.. => facts.significant_digits,
        3 => 6,
        1 => 4,
        0 | 2 => 5,
    };
    let usual = (significant + LEVEL_DIGITS - 1).saturating_sub(digits);
    let least = (LEVEL_DIGITS + 2).saturating_sub(digits);
    usual.min(facts.price_decimals_max).max(least)
}
