//! How often the venues' REST sides may be asked.
//!
//! A leaky bucket for each venue: a request fills it by what it costs, time empties it, and what does not fit is
//! refused until it would. All clients share it, as all of them have one address.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::venue::{RestLimit, Venue};
use domain::{Timestamp, lock};

const SECOND_US: u64 = 1_000_000;

/// The limits of all venues; one that is not here has none. The default is what the venues document, or are said to
/// have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestLimits(pub BTreeMap<Venue, RestLimit>);

impl RestLimits {
    /// No limits at all.
    #[must_use]
    pub const fn none() -> Self {
        Self(BTreeMap::new())
    }
}

impl Default for RestLimits {
    fn default() -> Self {
        Self(Venue::ALL.iter().map(|venue| (*venue, venue.facts().limit)).collect())
    }
}

/// The buckets of all venues.
#[derive(Debug)]
pub(super) struct Limiter {
    limits: RestLimits,
    buckets: Mutex<BTreeMap<Venue, Bucket>>,
}

/// What is in a bucket, in millionths of a request.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: u64,
    at: Timestamp,
}

impl Limiter {
    pub(super) const fn new(limits: RestLimits) -> Self {
        Self { limits, buckets: Mutex::new(BTreeMap::new()) }
    }

    /// Lets a request through, or answers in how many seconds it would be.
    pub(super) fn charge(&self, venue: Venue, path: &[&str], now: Timestamp) -> Result<(), u64> {
        let Some(limit) = self.limits.0.get(&venue) else { return Ok(()) };
        let cost = venue.0.weight(path);
        let mut buckets = lock(&self.buckets);
        let bucket = buckets.entry(venue).or_insert(Bucket { level: 0, at: now });
        let passed = u64::try_from(now.as_micros() - bucket.at.as_micros()).unwrap_or(0);
        let level = bucket.level.saturating_sub(passed.saturating_mul(limit.per_second));
        *bucket = Bucket { level, at: now };
        let filled = level + cost * SECOND_US;
        let above = filled.saturating_sub(limit.burst.saturating_mul(SECOND_US));
        if above > 0 {
            return Err(above.div_ceil(limit.per_second.max(1) * SECOND_US));
        }
        bucket.level = filled;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::START;
    use super::*;

    fn start() -> Timestamp {
        Timestamp::from_rfc3339(START).unwrap()
    }

    #[test]
    fn a_burst_is_let_through_and_then_so_many_a_second() {
        let limiter = Limiter::new(RestLimits::default());
        let ask = |after_ms: i64| {
            limiter.charge(Venue::COINBASE, &["products"], start().plus_micros(after_ms * 1_000))
        };
        assert!((0..15).all(|_| ask(0).is_ok()));
        assert_eq!(ask(0), Err(1));
        assert_eq!(ask(99), Err(1), "a refusal costs nothing");
        assert_eq!(ask(100), Ok(()));
        assert_eq!(ask(100), Err(1));
        assert!((0..15).all(|_| ask(60_000).is_ok()), "no more than a burst is saved");
        assert_eq!(ask(60_000), Err(1));
    }

    #[test]
    fn binance_counts_what_a_request_weighs() {
        let limiter = Limiter::new(RestLimits::default());
        let ask = |route| limiter.charge(Venue::BINANCE, &["api", "v3", route], start());
        assert!((0..240).all(|_| ask("historicalTrades").is_ok()));
        assert_eq!(ask("time"), Err(1));
        assert_eq!(ask("historicalTrades"), Err(1));
    }

    #[test]
    fn a_venue_without_a_limit_is_asked_for_ever() {
        let limiter = Limiter::new(RestLimits::none());
        assert!((0..10_000).all(|_| limiter.charge(Venue::KRAKEN, &[], start()).is_ok()));
    }
}
