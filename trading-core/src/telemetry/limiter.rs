//! Repeats of a log line, limited, with the number of those not shown.

use std::time::Duration;

use tokio::time::Instant;

/// Admits one event in an interval and counts the others.
#[derive(Debug)]
pub struct RepeatLimiter {
    interval: Duration,
    admitted_at: Option<Instant>,
    unsaid: u64,
}

impl RepeatLimiter {
    /// How often one line is repeated at most.
    pub const INTERVAL: Duration = Duration::from_secs(10);

    /// A limiter of one event in `interval`.
    #[must_use]
    pub const fn new(interval: Duration) -> Self {
        Self { interval, admitted_at: None, unsaid: 0 }
    }

    /// The number of events not shown since the last that was, when this one may be shown; else `None`.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.admitted_at.is_some_and(|last| now < last + self.interval) {
            self.unsaid += 1;
            return None;
        }
        self.admitted_at = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl Default for RepeatLimiter {
    fn default() -> Self {
        Self::new(Self::INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_shown_and_the_next_tells_how_many_were_not() {
        let mut limiter = RepeatLimiter::new(Duration::from_secs(10));
        let start = Instant::now();
        assert_eq!(limiter.admit(start), Some(0));
        assert_eq!(limiter.admit(start + Duration::from_secs(3)), None);
        assert_eq!(limiter.admit(start + Duration::from_secs(9)), None);
        assert_eq!(limiter.admit(start + Duration::from_secs(10)), Some(2));
    }
}
