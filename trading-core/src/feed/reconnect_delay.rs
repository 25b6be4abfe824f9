//! How long to wait before the next connection.

use std::time::Duration;

use crate::domain::Backoff;

/// The first wait.
const DELAY_MIN: Duration = Duration::from_secs(1);
/// Jitter may double a wait, and none is to be longer than a minute.
const DELAY_MAX: Duration = Duration::from_secs(30);
/// A connection that brought trades and lived this long was well; one that was cut sooner was not.
const LIVED_MIN: Duration = Duration::from_secs(10);

/// A backoff that only a connection which has lived resets.
#[derive(Debug)]
pub(super) struct ReconnectDelay(Backoff);

impl ReconnectDelay {
    /// The seed decides the jitter, so that feeds cut together do not come back together.
    pub(super) fn new(seed: u64) -> Self {
        Self(Backoff::new(DELAY_MIN, DELAY_MAX, seed))
    }

    /// The wait after a connection that lasted `lived` and brought this many trades. Zero for an attempt that failed.
    pub(super) fn after_connection(&mut self, lived: Duration, ticks: u64) -> Duration {
        if lived >= LIVED_MIN && ticks > 0 {
            self.0.reset();
        }
        self.0.next_delay()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_drops_at_once_does_not_reset_the_wait() {
        let mut delay = ReconnectDelay::new(7);
        let waits: Vec<_> =
            (0..8).map(|_| delay.after_connection(Duration::from_millis(50), 3)).collect();
        for (attempt, wait) in waits.iter().enumerate() {
            let least = DELAY_MAX.min(DELAY_MIN * 2_u32.pow(u32::try_from(attempt).unwrap()));
            assert!(*wait >= least, "wait {attempt} is {wait:?}, shorter than {least:?}");
            assert!(*wait <= Duration::from_secs(60), "wait {attempt} is {wait:?}");
        }
    }

    #[test]
    fn a_connection_that_lived_resets_the_wait() {
        let mut delay = ReconnectDelay::new(7);
        for _ in 0..6 {
            delay.after_connection(Duration::ZERO, 0);
        }
        assert!(
            delay.after_connection(Duration::from_secs(3600), 0) >= Duration::from_secs(30),
            "it brought nothing"
        );
        let wait = delay.after_connection(Duration::from_secs(11), 1);
        assert!(wait <= Duration::from_secs(2), "{wait:?}");
    }
}
