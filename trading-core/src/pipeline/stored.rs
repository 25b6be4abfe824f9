//! How far the ticks are stored, though writes overlap and end in any order.
//!
//! Pure: counts ticks in the order in which the pipeline took them.

use std::collections::BTreeSet;

/// The batches under way.
#[derive(Debug, Default)]
pub(super) struct StoredThrough {
    begun: u64,
    under_way: BTreeSet<u64>,
}

impl StoredThrough {
    /// The write of the next so many ticks, at least one, begins; what it is called.
    pub(super) fn begin(&mut self, ticks: usize) -> u64 {
        let first = self.begun;
        self.under_way.insert(first);
        self.begun = first.saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX));
        first
    }

    /// A write has ended, and what it carried is safe.
    pub(super) fn end(&mut self, first: u64) {
        self.under_way.remove(&first);
    }

    /// How many ticks are safe, from the first on without a hole.
    pub(super) fn ticks(&self) -> u64 {
        self.under_way.first().copied().unwrap_or(self.begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_write_that_ends_first_waits_for_the_earlier_one() {
        let mut stored = StoredThrough::default();
        let (one, two) = (stored.begin(500), stored.begin(3));
        stored.end(two);
        assert_eq!(stored.ticks(), 0);
        stored.end(one);
        assert_eq!(stored.ticks(), 503);
        let three = stored.begin(7);
        assert_eq!(stored.ticks(), 503);
        stored.end(three);
        assert_eq!(stored.ticks(), 510);
    }
}
