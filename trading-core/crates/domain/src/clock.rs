//! How far the recorder's clock is off, and which exchange times cannot be true.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::{DAY, Source, Tick, Timestamp};

/// A live tick is far from its receipt when its exchange time is more than a day before or after it. Feeds are seconds
/// late and clocks minutes off; a day is neither.
const FAR: Duration = DAY;

/// What must be added to the recorder's clock to get the true time, as far as the database and the exchanges agree on
/// one. Zero until they do. Clones share the value: one task sets it, every stage reads it.
#[derive(Debug, Clone, Default)]
pub struct ClockOffset(Arc<AtomicI64>);

impl ClockOffset {
    /// Sets the offset, in microseconds: positive where the recorder's clock is behind.
    pub fn set_micros(&self, micros: i64) {
        self.0.store(micros, Ordering::Relaxed);
    }

    /// The offset in microseconds: positive where the recorder's clock is behind.
    #[must_use]
    pub fn micros(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// A reading of the recorder's clock as the true time.
    #[must_use]
    pub fn corrected(&self, reading: Timestamp) -> Timestamp {
        reading.plus_micros(self.micros())
    }

    /// Whether the exchange's time of a live tick is more than a day from its receipt, by the recorder's clock and by
    /// the corrected one. Such a time is wrong: it makes no partition and moves no state. Ticks of a history are as old
    /// as what was asked for, and never far.
    #[must_use]
    pub fn is_far(&self, tick: &Tick) -> bool {
        let is_far_from = |at: Timestamp| !tick.exchange_at.is_near(at, FAR);
        tick.source == Source::Live
            && is_far_from(tick.received_at)
            && is_far_from(self.corrected(tick.received_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const DAY: i64 = 86_400_000_000;

    fn tick(exchange_at: i64, received_at: i64) -> Tick {
        let [exchange_at, received_at] =
            [exchange_at, received_at].map(|micros| Timestamp::from_micros(micros).unwrap());
        Tick { exchange_at, received_at, ..testing::tick(1) }
    }

    #[test]
    fn a_live_tick_is_far_from_its_receipt_by_more_than_a_day() {
        let offset = ClockOffset::default();
        assert!(!offset.is_far(&tick(9 * DAY, 10 * DAY)));
        assert!(!offset.is_far(&tick(11 * DAY, 10 * DAY)));
        assert!(offset.is_far(&tick(9 * DAY - 1, 10 * DAY)));
        assert!(offset.is_far(&tick(11 * DAY + 1, 10 * DAY)));
        let asked_for = Tick { source: Source::Backfill, ..tick(DAY, 10 * DAY) };
        assert!(!offset.is_far(&asked_for));
    }

    #[test]
    fn a_clock_that_is_known_to_be_off_makes_no_tick_far() {
        let offset = ClockOffset::default();
        let shared = offset.clone();
        shared.set_micros(3 * DAY);
        assert!(!offset.is_far(&tick(13 * DAY, 10 * DAY)), "three days behind, and known to be");
        assert!(!offset.is_far(&tick(10 * DAY, 10 * DAY)), "near its receipt");
        assert!(offset.is_far(&tick(15 * DAY, 10 * DAY)));
        assert_eq!(offset.corrected(Timestamp::EPOCH).as_micros(), 3 * DAY);
    }
}
