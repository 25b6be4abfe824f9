//! The stamps of an exchange against the steady clock: what one of its clocks says, from the trades that it sends.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use super::Timestamp;

/// Stamps that are remembered between two looks.
const KEPT: usize = 64;
/// Fewer say nothing.
const NEEDED: usize = 5;
/// Half of the stamps lie within so much where they follow one clock, in microseconds. Old trades that an exchange sends
/// at first, and trades under odd stamps, do not.
const SPREAD_MAX_MICROS: u64 = 2_000_000;

/// Notes the stamps of one exchange, once for each frame: two atomic writes. Clones share them.
#[derive(Debug, Clone)]
pub struct ExchangeStamps(Arc<Ring>);

#[derive(Debug)]
struct Ring {
    noted: AtomicUsize,
    ahead: [AtomicI64; KEPT],
}

impl Default for ExchangeStamps {
    fn default() -> Self {
        let ahead = std::array::from_fn(|_| AtomicI64::new(0));
        Self(Arc::new(Ring { noted: AtomicUsize::new(0), ahead }))
    }
}

impl ExchangeStamps {
    /// Notes the stamp of a live trade that was received at this reading of the steady clock.
    pub fn note(&self, exchange_at: Timestamp, steady: i64) {
        let place = self.0.noted.fetch_add(1, Ordering::Relaxed) % KEPT;
        if let Some(slot) = self.0.ahead.get(place) {
            slot.store(exchange_at.as_micros().saturating_sub(steady), Ordering::Relaxed);
        }
    }

    /// What the exchange's clock is ahead of the steady clock, by the stamps since the last answer; `None`: they are too
    /// few, which are kept, or follow no clock, which are forgotten.
    #[must_use]
    pub fn take(&self) -> Option<i64> {
        let noted = self.0.noted.load(Ordering::Relaxed);
        if noted < NEEDED {
            return None;
        }
        let slots = self.0.ahead.iter().take(noted);
        let mut ahead: Vec<i64> = slots.map(|slot| slot.load(Ordering::Relaxed)).collect();
        self.forget();
        ahead.sort_unstable();
        let at = |part: usize| ahead.get(ahead.len() * part / 4).copied();
        let (low, median, high) = (at(1)?, at(2)?, at(3)?);
        (high.abs_diff(low) <= SPREAD_MAX_MICROS).then_some(median)
    }

    /// Forgets what was noted: it came late through no fault of the clock.
    pub fn forget(&self) {
        self.0.noted.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    /// What the clock of these exchanges is ahead of the steady one.
    const AHEAD: i64 = 1_700_000_000 * SECOND;

    fn of(leads: impl IntoIterator<Item = i64>) -> ExchangeStamps {
        let stamps = ExchangeStamps::default();
        for (lead, number) in leads.into_iter().zip(1..) {
            let steady = number * SECOND;
            let at = Timestamp::from_micros(AHEAD + lead + steady).unwrap();
            stamps.note(at, steady);
        }
        stamps
    }

    #[test]
    fn stamps_of_one_clock_say_what_it_says_whatever_single_ones_say() {
        let day = 86_400 * SECOND;
        let stamps = of([-50_000, -60_000, 90 * SECOND, -40_000, -98 * day, -55_000, -45_000]);
        assert_eq!(stamps.take(), Some(AHEAD - 50_000));
        assert_eq!(stamps.take(), None, "asked again, there are no new ones");
    }

    #[test]
    fn few_stamps_are_kept_until_there_are_more() {
        let stamps = of([0; NEEDED - 1]);
        assert_eq!(stamps.take(), None);
        stamps.note(Timestamp::from_micros(AHEAD + 9 * SECOND).unwrap(), 9 * SECOND);
        assert_eq!(stamps.take(), Some(AHEAD));
    }

    #[test]
    fn old_trades_and_scattered_stamps_say_nothing() {
        assert_eq!(of((0..40).map(|hours| -hours * 3_600 * SECOND)).take(), None);
        let stamps = of((0..40).map(|seconds| seconds * 30 * SECOND));
        assert_eq!(stamps.take(), None);
        assert_eq!(stamps.take(), None, "they are forgotten");
    }

    #[test]
    fn the_newest_stamps_are_kept_where_there_are_many() {
        let old = std::iter::repeat_n(-900 * SECOND, 500);
        assert_eq!(of(old.chain([0; KEPT])).take(), Some(AHEAD));
    }
}
