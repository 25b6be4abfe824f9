//! The clock by which a recorder stamps what it receives: it never steps with the machine's clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::{ClockOffset, Tick, Timestamp};

/// Two stamps that are further apart than the time that passed between them are of two readings of the calendar: the
/// order between them is not kept.
const ORDER_KEPT: Duration = Duration::from_secs(1);

/// Microseconds since some moment before the start, at a steady pace: also while the machine sleeps, where the system
/// counts that (Linux), and whatever somebody does to the machine's clock.
#[must_use]
pub fn steady_micros() -> i64 {
    #[cfg(target_os = "linux")]
    {
        use nix::time::{ClockId, clock_gettime};
        if let Ok(time) = clock_gettime(ClockId::CLOCK_BOOTTIME) {
            return time.tv_sec().saturating_mul(1_000_000).saturating_add(time.tv_nsec() / 1_000);
        }
    }
    steady_since_first_call()
}

fn steady_since_first_call() -> i64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let elapsed = FIRST.get_or_init(Instant::now).elapsed();
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}

/// Stamps what is received: the steady clock, set by the machine's clock and by what is known of how far that is off.
/// A step of the machine's clock does not reach the stamps by itself: the watch over the clock decides what it means,
/// and sets the stamps by it. Clones share everything.
#[derive(Debug, Clone)]
pub struct RecorderClock {
    /// What is added to the steady clock to get a stamp, in microseconds.
    anchor: Arc<AtomicI64>,
    offset: ClockOffset,
}

impl Default for RecorderClock {
    /// Set by the machine's clock as it is now.
    fn default() -> Self {
        let clock = Self { anchor: Arc::new(AtomicI64::new(0)), offset: ClockOffset::default() };
        clock.set(Timestamp::now().as_micros().saturating_sub(steady_micros()), 0);
        clock
    }
}

impl RecorderClock {
    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.at(steady_micros())
    }

    /// The time at a reading of [`steady_micros`].
    #[must_use]
    pub fn at(&self, steady: i64) -> Timestamp {
        Timestamp::EPOCH.plus_micros(steady.saturating_add(self.anchor.load(Ordering::Relaxed)))
    }

    /// Sets the stamps: what the machine's clock is ahead of the steady one, and what must be added to that to get the
    /// true time, both in microseconds.
    pub fn set(&self, machine_ahead: i64, offset: i64) {
        self.offset.set_micros(offset);
        self.anchor.store(machine_ahead.saturating_add(offset), Ordering::Relaxed);
    }

    /// How far the machine's clock is known to be off.
    #[must_use]
    pub const fn offset(&self) -> &ClockOffset {
        &self.offset
    }

    /// Whether the machine's clock is known to be off. Nothing final is decided by times then.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.offset.micros() != 0
    }

    /// See [`ClockOffset::is_far`].
    #[must_use]
    pub fn is_far(&self, tick: &Tick) -> bool {
        self.offset.is_far(tick)
    }
}

/// When something was received: the stamp, and the steady clock at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The time.
    pub at: Timestamp,
    /// The steady clock, in microseconds.
    pub steady: i64,
}

impl Stamp {
    /// Now.
    #[must_use]
    pub fn now(clock: &RecorderClock) -> Self {
        let steady = steady_micros();
        Self { at: clock.at(steady), steady }
    }

    /// This stamp, which was read after `last`, made later than it where both lie within a second of what passed
    /// between them. `true`: they do not, for the clock was set meanwhile: the stamp is what the clock says now, also
    /// where that is earlier.
    #[must_use]
    pub fn after(self, last: Self) -> (Self, bool) {
        let expected = last.at.plus_micros(self.steady.saturating_sub(last.steady));
        if !self.at.is_near(expected, ORDER_KEPT) {
            return (self, true);
        }
        (Self { at: self.at.strictly_after(last.at), ..self }, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn stamp(at: i64, steady: i64) -> Stamp {
        Stamp { at: Timestamp::from_micros(at).unwrap(), steady }
    }

    #[test]
    fn stamps_keep_their_order_through_what_a_clock_is_corrected_by_and_not_through_a_step() {
        let last = stamp(100 * SECOND, 10 * SECOND);
        let after = |at: i64, steady: i64| {
            let (stamp, is_set) = stamp(at, steady).after(last);
            (stamp.at.as_micros(), is_set)
        };
        let soon = 10 * SECOND + 1;
        assert_eq!(after(100 * SECOND, soon), (100 * SECOND + 1, false), "one microsecond");
        assert_eq!(after(99 * SECOND + 1, soon), (100 * SECOND + 1, false), "put back a second");
        assert_eq!(after(99 * SECOND, soon), (99 * SECOND, true), "put back by more");
        assert_eq!(after(4_000 * SECOND, soon), (4_000 * SECOND, true), "put forward an hour");
        let later = 3_910 * SECOND;
        assert_eq!(after(4_000 * SECOND, later), (4_000 * SECOND, false), "an hour has passed");
        assert_eq!(after(100 * SECOND, later), (100 * SECOND, true), "stood still for an hour");
    }

    #[test]
    fn a_step_of_the_machines_clock_reaches_the_stamps_only_when_they_are_set_by_it() {
        let clock = RecorderClock::default();
        let shared = clock.clone();
        let before = clock.at(SECOND);
        clock.set(1_700_000_000 * SECOND, 0);
        assert_ne!(shared.at(SECOND), before);
        assert_eq!(shared.at(SECOND).as_micros(), 1_700_000_001 * SECOND);
        assert!(!shared.is_off());
        clock.set((1_700_000_000 - 86_400) * SECOND, 86_400 * SECOND);
        assert_eq!(shared.at(SECOND).as_micros(), 1_700_000_001 * SECOND, "off, and known to be");
        assert!(shared.is_off());
    }

    #[test]
    fn the_steady_clock_does_not_go_back() {
        let readings: Vec<i64> = (0..1_000).map(|_| steady_micros()).collect();
        assert!(readings.is_sorted());
        let others: Vec<i64> = (0..10).map(|_| steady_since_first_call()).collect();
        assert!(others.is_sorted());
    }
}
