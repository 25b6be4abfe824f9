//! Whether somebody else writes the same ticks just now: a recorder beside this one, or a backfill of the same hours.
//!
//! Then a COPY would fail again and again, and two that wait for each other's rows in opposite orders would lock each
//! other up. So for a while after a conflict every batch goes in in the order of its keys, without looking first.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::lock;

/// How long a neighbour is expected after it was noticed.
const EXPECTED: Duration = Duration::from_secs(10);

/// When a neighbour was noticed last. Shared; the time is an argument.
#[derive(Debug, Default)]
pub(super) struct Neighbour {
    noticed_at: Mutex<Option<Instant>>,
}

impl Neighbour {
    /// Ticks were there already, or two writers locked each other up.
    pub(super) fn notice(&self, now: Instant) {
        *lock(&self.noticed_at) = Some(now);
    }

    /// Whether it is likely to meet one.
    pub(super) fn is_expected(&self, now: Instant) -> bool {
        let noticed_at = *lock(&self.noticed_at);
        noticed_at.is_some_and(|noticed_at| now.saturating_duration_since(noticed_at) < EXPECTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_is_expected_for_ten_seconds_after_it_was_noticed() {
        let neighbour = Neighbour::default();
        let start = Instant::now();
        assert!(!neighbour.is_expected(start));
        neighbour.notice(start);
        assert!(neighbour.is_expected(start + Duration::from_millis(9_999)));
        assert!(!neighbour.is_expected(start + Duration::from_secs(10)));
        neighbour.notice(start + Duration::from_secs(20));
        assert!(neighbour.is_expected(start + Duration::from_secs(25)));
    }
}
