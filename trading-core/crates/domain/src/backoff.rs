//! How long to wait before the next attempt.

use std::time::Duration;

/// The step of the sequence behind the jitter (splitmix64).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Exponential backoff: each wait is twice the last one, up to a longest, and jitter adds up to as much again.
///
/// Pure: the seed decides the jitter, so that those that failed together do not come back together, and a test sees
/// the same waits each time.
///
/// ```
/// # use std::time::Duration;
/// # use domain::Backoff;
/// let second = Duration::from_secs(1);
/// let mut backoff = Backoff::new(second, 3 * second, 7).without_jitter();
/// assert_eq!([(); 4].map(|()| backoff.next_delay().as_secs()), [1, 2, 3, 3]);
/// backoff.reset();
/// assert_eq!(backoff.next_delay(), second);
/// ```
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    has_jitter: bool,
    seed: u64,
    next: Duration,
}

impl Backoff {
    /// The first wait is `min`, none is longer than `max`, and jitter may double each. `max` is not below `min`.
    #[must_use]
    pub fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self { min, max: max.max(min), has_jitter: true, seed, next: min }
    }

    /// The same waits, exactly.
    #[must_use]
    pub const fn without_jitter(mut self) -> Self {
        self.has_jitter = false;
        self
    }

    /// The next wait.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = delay.saturating_mul(2).min(self.max);
        if self.has_jitter { delay.saturating_add(delay.mul_f64(self.fraction())) } else { delay }
    }

    /// After a success: the next wait is the first one again. Its jitter is another.
    pub const fn reset(&mut self) {
        self.next = self.min;
    }

    /// From 0 to 1. Seeds that lie beside each other give fractions that do not.
    fn fraction(&mut self) -> f64 {
        self.seed = self.seed.wrapping_add(STEP);
        let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or_default();
        f64::from(high) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn those_that_fail_together_do_not_come_back_together() {
        let first = |seed| Backoff::new(SECOND, 30 * SECOND, seed).next_delay();
        assert_eq!((0..100).map(first).collect::<BTreeSet<_>>().len(), 100);
    }

    #[test]
    fn the_same_seed_gives_the_same_waits_and_after_a_reset_others() {
        let waits = |backoff: &mut Backoff| [(); 5].map(|()| backoff.next_delay());
        let mut one = Backoff::new(SECOND, 30 * SECOND, 7);
        let mut other = one.clone();
        let first = waits(&mut one);
        assert_eq!(first, waits(&mut other));
        one.reset();
        assert_ne!(first, waits(&mut one), "the jitter of each outage is its own");
    }

    proptest! {
        #[test]
        fn prop_waits_double_up_to_the_longest_and_jitter_at_most_doubles_them(
            min in 1_u64..10_000, max in 1_u64..100_000, seed: u64,
        ) {
            let [min, max] = [min, max].map(Duration::from_millis);
            let mut backoff = Backoff::new(min, max, seed);
            for attempt in 0..20 {
                let least = (min * 2_u32.pow(attempt)).min(max.max(min));
                let wait = backoff.next_delay();
                prop_assert!(wait >= least && wait <= 2 * least, "wait {attempt} is {wait:?}, not about {least:?}");
            }
        }
    }
}
