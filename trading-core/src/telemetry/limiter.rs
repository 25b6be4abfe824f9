//! Repeats of one log line, limited to one in an interval, with the number that was not said.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::lock;

/// Says when a line that may come often is due again.
///
/// Pure: the time is an argument. One limiter belongs to one line (or to one line of one symbol).
///
/// ```
/// # use std::time::Duration;
/// # use tokio::time::Instant;
/// # use trading_core::telemetry::{RepeatLimiter, Unsaid};
/// let mut full = RepeatLimiter::default();
/// let now = Instant::now();
/// assert_eq!(full.admit(now), Some(Unsaid(0)));
/// assert_eq!(full.admit(now), None);
/// assert_eq!(full.admit(now + Duration::from_secs(10)), Some(Unsaid(1)));
/// ```
#[derive(Debug, Clone)]
pub struct RepeatLimiter {
    interval: Duration,
    said_at: Option<Instant>,
    unsaid: u64,
}

impl RepeatLimiter {
    /// One line in `interval`.
    #[must_use]
    pub const fn new(interval: Duration) -> Self {
        Self { interval, said_at: None, unsaid: 0 }
    }

    /// `Some` when the line is to be logged, with how many were held back since the last one; `None` when
    /// this one is held back, and counted.
    pub fn admit(&mut self, now: Instant) -> Option<Unsaid> {
        // A time before the last one counts as the same: the clock of another thread may have been read earlier.
        let due = self
            .said_at
            .is_none_or(|said_at| now.saturating_duration_since(said_at) >= self.interval);
        if due {
            self.said_at = Some(now);
            Some(Unsaid(std::mem::take(&mut self.unsaid)))
        } else {
            self.unsaid = self.unsaid.saturating_add(1);
            None
        }
    }
}

/// A limiter that several tasks share.
#[derive(Debug, Default)]
pub struct SharedLimiter(Mutex<RepeatLimiter>);

impl SharedLimiter {
    /// One line in `interval`.
    #[must_use]
    pub const fn new(interval: Duration) -> Self {
        Self(Mutex::new(RepeatLimiter::new(interval)))
    }

    /// As [`RepeatLimiter::admit`], for whoever asks first.
    pub fn admit(&self, now: Instant) -> Option<Unsaid> {
        lock(&self.0).admit(now)
    }
}

/// How many repeats of a line were not shown: the end of the line, empty where there were none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsaid(pub u64);

impl fmt::Display for Unsaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            unsaid => write!(f, " ({unsaid} more not shown)"),
        }
    }
}

/// One line in ten seconds: often enough to see that it goes on, seldom enough to read the rest.
impl Default for RepeatLimiter {
    fn default() -> Self {
        Self::new(Duration::from_secs(10))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_comes_at_once_then_once_in_ten_seconds_with_what_was_unsaid() {
        let mut limiter = RepeatLimiter::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(limiter.admit(at(0)), Some(Unsaid(0)));
        assert_eq!(limiter.admit(at(1)), None);
        assert_eq!(limiter.admit(at(9_999)), None);
        assert_eq!(limiter.admit(at(10_000)), Some(Unsaid(2)));
        assert_eq!(limiter.admit(at(9_000)), None, "an earlier time is not later");
        assert_eq!(limiter.admit(at(60_000)), Some(Unsaid(1)));
    }

    proptest! {
        #[test]
        fn prop_every_line_is_said_or_counted(steps in prop::collection::vec(0_u64..20_000, 1..100)) {
            let mut limiter = RepeatLimiter::default();
            let mut now = Instant::now();
            let (mut said, mut unsaid) = (0, 0);
            for step in &steps {
                now += Duration::from_millis(*step);
                if let Some(held_back) = limiter.admit(now) {
                    said += 1;
                    unsaid += held_back.0;
                }
            }
            unsaid += limiter.unsaid;
            prop_assert_eq!(said + unsaid, steps.len() as u64);
        }
    }
}
