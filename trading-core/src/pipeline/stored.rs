//! How far the ticks are stored, though writes overlap and end in any order.
//!
//! Pure: counts ticks in the order in which the pipeline took them.

use std::collections::BTreeMap;

use crate::domain::count;

/// The batches under way.
#[derive(Debug, Default)]
pub(super) struct StoredThrough {
    begun: u64,
    /// Since when each holds ticks.
    under_way: BTreeMap<u64, i64>,
}

impl StoredThrough {
    /// The write of the next so many ticks, at least one, begins, which were received since then; what it is called.
    pub(super) fn begin(&mut self, ticks: usize, since: i64) -> u64 {
        let first = self.begun;
        self.under_way.insert(first, since);
        self.begun = first.saturating_add(count(ticks));
        first
    }

    /// A write has ended, and what it carried is safe.
    pub(super) fn end(&mut self, first: u64) {
        self.under_way.remove(&first);
    }

    /// How many ticks are safe, from the first on without a hole.
    pub(super) fn ticks(&self) -> u64 {
        self.under_way.first_key_value().map_or(self.begun, |(first, _)| *first)
    }

    /// Since when ticks under way are held; `None`: none are.
    pub(super) fn since(&self) -> Option<i64> {
        self.under_way.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_write_that_ends_first_waits_for_the_earlier_one() {
        let mut stored = StoredThrough::default();
        let (one, two) = (stored.begin(500, 20), stored.begin(3, 10));
        assert_eq!(stored.since(), Some(10));
        stored.end(two);
        assert_eq!(stored.since(), Some(20));
        assert_eq!(stored.ticks(), 0);
        stored.end(one);
        assert_eq!(stored.ticks(), 503);
        let three = stored.begin(7, 30);
        assert_eq!(stored.ticks(), 503);
        stored.end(three);
        assert_eq!(stored.ticks(), 510);
        assert_eq!(stored.since(), None);
    }
}
