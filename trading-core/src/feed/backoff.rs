//! How long to wait before the next connection.

use std::time::Duration;

use backon::BackoffBuilder as _;

/// The first wait.
const DELAY_MIN: Duration = Duration::from_secs(1);
/// Jitter may double a wait, and none is to be longer than a minute.
const DELAY_MAX: Duration = Duration::from_secs(30);
/// A connection that brought trades and lived this long was well; one that was cut sooner was not.
const LIVED_MIN: Duration = Duration::from_secs(10);

/// Exponential backoff with jitter, which only a connection that has lived resets.
#[derive(Debug)]
pub(super) struct Backoff {
    seed: u64,
    delays: backon::ExponentialBackoff,
}

impl Backoff {
    /// The seed decides the jitter, so that feeds cut together do not come back together.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, delays: Self::delays(seed) }
    }

    fn delays(seed: u64) -> backon::ExponentialBackoff {
        // Seeds that lie beside each other would give the same jitter: spread them (the mixer of splitmix64).
        let seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let seed = seed ^ (seed >> 31);
        backon::ExponentialBuilder::new()
            .with_min_delay(DELAY_MIN)
            .with_max_delay(DELAY_MAX)
            .with_factor(2.0)
            .with_jitter()
            .with_jitter_seed(seed)
            .without_max_times()
            .build()
    }

    /// The wait after a connection that lasted `lived` and brought this many trades. Zero for an attempt that failed.
    pub(super) fn after_connection(&mut self, lived: Duration, ticks: u64) -> Duration {
        if lived >= LIVED_MIN && ticks > 0 {
            self.seed = self.seed.wrapping_add(1);
            self.delays = Self::delays(self.seed);
        }
        self.delays.next().unwrap_or(DELAY_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_drops_at_once_does_not_reset_the_wait() {
        let mut backoff = Backoff::new(7);
        let waits: Vec<_> =
            (0..8).map(|_| backoff.after_connection(Duration::from_millis(50), 3)).collect();
        for (attempt, wait) in waits.iter().enumerate() {
            let least = DELAY_MAX.min(DELAY_MIN * 2_u32.pow(u32::try_from(attempt).unwrap()));
            assert!(*wait >= least, "wait {attempt} is {wait:?}, shorter than {least:?}");
            assert!(*wait <= Duration::from_secs(60), "wait {attempt} is {wait:?}");
        }
    }

    #[test]
    fn feeds_that_are_cut_together_do_not_come_back_together() {
        let waits: std::collections::BTreeSet<Duration> =
            (1..=5).map(|seed| Backoff::new(seed).after_connection(Duration::ZERO, 0)).collect();
        assert_eq!(waits.len(), 5, "{waits:?}");
    }

    #[test]
    fn a_connection_that_lived_resets_the_wait() {
        let mut backoff = Backoff::new(7);
        for _ in 0..6 {
            backoff.after_connection(Duration::ZERO, 0);
        }
        assert!(
            backoff.after_connection(Duration::from_secs(3600), 0) >= Duration::from_secs(30),
            "it brought nothing"
        );
        let wait = backoff.after_connection(Duration::from_secs(11), 1);
        assert!(wait <= Duration::from_secs(2), "{wait:?}");
    }
}
