//! How old what is only in memory is.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::steady_micros;

/// Stands for nothing.
const NOTHING: i64 = i64::MAX;

/// Since when a recorder holds ticks that are neither in the store nor in the spool: what a kill would lose. Clones share
/// it: the pipeline sets it, and the journal notes it.
#[derive(Debug, Clone)]
pub struct HeldSince(Arc<AtomicI64>);

impl Default for HeldSince {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(NOTHING)))
    }
}

impl HeldSince {
    /// The oldest of them was received at this reading of the steady clock or later; `None`: nothing is held.
    pub fn set(&self, steady: Option<i64>) {
        self.0.store(steady.unwrap_or(NOTHING), Ordering::Relaxed);
    }

    /// How old the oldest of them is; zero where nothing is held.
    #[must_use]
    pub fn age(&self) -> Duration {
        let age = steady_micros().saturating_sub(self.0.load(Ordering::Relaxed));
        Duration::from_micros(age.max(0).unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_grows_older_until_nothing_is() {
        let held = HeldSince::default();
        assert_eq!(held.age(), Duration::ZERO);
        held.clone().set(Some(steady_micros() - 7_000_000));
        assert!((Duration::from_secs(7)..Duration::from_secs(60)).contains(&held.age()));
        held.set(None);
        assert_eq!(held.age(), Duration::ZERO);
    }
}
