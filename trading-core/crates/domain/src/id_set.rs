//! Sets of trade ids, kept as ranges: of millions of ids that come in runs, only the ends are remembered.

use super::IdRange;

/// A set of ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdSet {
    /// Sorted, no two of them touching.
    runs: Vec<IdRange>,
}

impl FromIterator<IdRange> for IdSet {
    /// The union of ranges, in any order.
    fn from_iter<I: IntoIterator<Item = IdRange>>(ranges: I) -> Self {
        let mut runs: Vec<IdRange> = ranges.into_iter().collect();
        runs.sort_unstable();
        runs.dedup_by(|next, run| {
            let touches = next.first() <= run.last().saturating_add(1);
            if touches {
                *run = run.hull(*next);
            }
            touches
        });
        Self { runs }
    }
}

impl FromIterator<u64> for IdSet {
    fn from_iter<I: IntoIterator<Item = u64>>(ids: I) -> Self {
        ids.into_iter().map(IdRange::one).collect()
    }
}

impl From<IdRange> for IdSet {
    fn from(range: IdRange) -> Self {
        Self { runs: vec![range] }
    }
}

impl IdSet {
    /// From `first` to `last`; nothing where `last` comes before it.
    #[must_use]
    pub fn span(first: u64, last: u64) -> Self {
        IdRange::new(first, last).into_iter().collect()
    }

    /// The runs of consecutive ids, lowest first.
    pub fn runs(&self) -> impl Iterator<Item = IdRange> {
        self.runs.iter().copied()
    }

    /// How many ids.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.runs().fold(0, |sum, run| sum.saturating_add(run.len()))
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// From the lowest id to the highest; `None`: it is empty.
    #[must_use]
    pub fn bounds(&self) -> Option<IdRange> {
        self.runs.first().copied().zip(self.runs.last().copied()).map(|(low, high)| low.hull(high))
    }

    /// Whether it holds this id.
    #[must_use]
    pub fn contains(&self, id: u64) -> bool {
        let after = self.runs.partition_point(|run| run.first() <= id);
        after.checked_sub(1).and_then(|at| self.runs.get(at)).is_some_and(|run| run.contains(id))
    }

    /// Adds an id. Ids that come in order, up or down, cost no more than a comparison.
    pub fn insert(&mut self, id: u64) {
        let after = self.runs.partition_point(|run| run.first() <= id);
        let before = after.checked_sub(1);
        let joins_after = self.runs.get(after).is_some_and(|run| run.first() - 1 == id);
        match before.and_then(|at| self.runs.get_mut(at)) {
            Some(run) if run.contains(id) => {}
            Some(run) if id - run.last() == 1 => {
                *run = run.hull(IdRange::one(id));
                if joins_after {
                    let next = self.runs.remove(after);
                    if let Some(run) = before.and_then(|at| self.runs.get_mut(at)) {
                        *run = run.hull(next);
                    }
                }
            }
            _ if joins_after => {
                if let Some(run) = self.runs.get_mut(after) {
                    *run = run.hull(IdRange::one(id));
                }
            }
            _ => self.runs.insert(after, IdRange::one(id)),
        }
    }

    /// The ids of this set that are not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut runs = Vec::new();
        let mut others = other.runs().peekable();
        for run in self.runs() {
            let (mut first, last) = (run.first(), run.last());
            // Those that end before this run cannot touch the next ones either.
            while others.next_if(|other| other.last() < first).is_some() {}
            let mut is_left = true;
            while let Some(other) = others.peek().copied().filter(|other| other.first() <= last) {
                runs.extend(other.first().checked_sub(1).and_then(|end| IdRange::new(first, end)));
                if other.last() >= last {
                    is_left = false;
                    break;
                }
                first = other.last() + 1;
                others.next();
            }
            runs.extend(IdRange::new(first, last).filter(|_| is_left));
        }
        Self { runs }
    }

    /// Whether an id is in both.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.without(other) != *self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn all(set: &IdSet) -> BTreeSet<u64> {
        set.runs().flat_map(|run| run.first()..=run.last()).collect()
    }

    fn are_apart(set: &IdSet) -> bool {
        set.runs.windows(2).all(|pair| pair[0].last() + 1 < pair[1].first())
    }

    fn ranges() -> impl Strategy<Value = Vec<IdRange>> {
        let range = (0_u64..60, 0_u64..60).prop_map(|(one, other)| IdRange::between(one, other));
        prop::collection::vec(range, 0..12)
    }

    #[test]
    fn the_highest_ids_that_there_are_do_no_harm() {
        let highest = IdRange::between(u64::MAX - 1, u64::MAX);
        let set: IdSet = [highest, IdRange::one(u64::MAX)].into_iter().collect();
        assert_eq!(set.bounds(), Some(highest));
        assert_eq!(set.without(&set), IdSet::default());
        assert_eq!(IdSet::span(0, u64::MAX).without(&set), IdSet::span(0, u64::MAX - 2));
        assert_eq!(IdSet::span(1, 0), IdSet::default());
    }

    proptest! {
        #[test]
        fn prop_a_set_of_ranges_is_the_set_of_their_ids(ranges in ranges(), more in prop::collection::vec(0_u64..60, 0..40)) {
            let mut truth: BTreeSet<u64> = ranges.iter().flat_map(|run| run.first()..=run.last()).collect();
            let mut set: IdSet = ranges.into_iter().collect();
            for id in more {
                set.insert(id);
                truth.insert(id);
            }
            prop_assert!(are_apart(&set));
            prop_assert_eq!(all(&set), truth.clone());
            prop_assert_eq!(set.len(), u64::try_from(truth.len()).unwrap());
            prop_assert_eq!(set.is_empty(), truth.is_empty());
            prop_assert_eq!(set.bounds(), IdRange::around(truth.iter().copied()));
            for id in 0..62 {
                prop_assert_eq!(set.contains(id), truth.contains(&id));
            }
        }

        #[test]
        fn prop_what_is_left_without_others_is_the_difference(one in ranges(), two in ranges()) {
            let (one, two): (IdSet, IdSet) = (one.into_iter().collect(), two.into_iter().collect());
            let left = one.without(&two);
            prop_assert!(are_apart(&left));
            prop_assert_eq!(all(&left), &all(&one) - &all(&two));
            prop_assert_eq!(one.meets(&two), !all(&one).is_disjoint(&all(&two)));
        }
    }
}
