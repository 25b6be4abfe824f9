//! Sets of trade ids, kept as ranges: of millions of ids that come in runs, only the ends are remembered.

/// A set of ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct IdSet {
    /// First and last id of each run; sorted, no two of them touching.
    runs: Vec<(u64, u64)>,
}

impl FromIterator<(u64, u64)> for IdSet {
    /// The union of ranges, in any order; one whose ends are the wrong way round holds nothing.
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(ranges: I) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|(first, last)| first <= last).collect();
        ranges.sort_unstable();
        let mut runs: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match runs.last_mut() {
                Some(run) if first <= run.1.saturating_add(1) => run.1 = run.1.max(last),
                _ => runs.push((first, last)),
            }
        }
        Self { runs }
    }
}

/// From `first` to `last`; nothing where `last` comes before it.
pub(super) fn range(first: u64, last: u64) -> IdSet {
    [(first, last)].into_iter().collect()
}

impl IdSet {
    /// The runs of consecutive ids, lowest first.
    pub(super) fn runs(&self) -> impl Iterator<Item = (u64, u64)> {
        self.runs.iter().copied()
    }

    /// How many ids.
    pub(super) fn len(&self) -> u64 {
        self.runs
            .iter()
            .fold(0, |sum, (first, last)| sum.saturating_add(last - first).saturating_add(1))
    }

    /// The lowest and the highest id.
    pub(super) fn bounds(&self) -> Option<(u64, u64)> {
        Some((self.runs.first()?.0, self.runs.last()?.1))
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        let after = self.runs.partition_point(|(first, _)| *first <= id);
        after.checked_sub(1).and_then(|at| self.runs.get(at)).is_some_and(|(_, last)| id <= *last)
    }

    /// Adds an id. Ids that come in order, up or down, cost no more than a comparison.
    pub(super) fn insert(&mut self, id: u64) {
        let after = self.runs.partition_point(|(first, _)| *first <= id);
        let joins_after = self.runs.get(after).is_some_and(|(first, _)| first - 1 == id);
        let before = after.checked_sub(1).and_then(|at| self.runs.get_mut(at));
        match before {
            Some((_, last)) if id <= *last => {}
            Some((_, last)) if id - *last == 1 => {
                *last = id;
                if joins_after {
                    let (_, end) = self.runs.remove(after);
                    if let Some((_, last)) =
                        after.checked_sub(1).and_then(|at| self.runs.get_mut(at))
                    {
                        *last = end;
                    }
                }
            }
            _ if joins_after => {
                if let Some((first, _)) = self.runs.get_mut(after) {
                    *first = id;
                }
            }
            _ => self.runs.insert(after, (id, id)),
        }
    }

    /// The ids of this set that are not in the other.
    pub(super) fn without(&self, other: &Self) -> Self {
        let mut runs = Vec::new();
        let mut others = other.runs.iter().copied().peekable();
        for (mut first, last) in self.runs() {
            // Those that end before this run cannot touch the next ones either.
            while others.next_if(|(_, end)| *end < first).is_some() {}
            let mut is_left = true;
            while let Some((begin, end)) =
                others.peek().copied().filter(|(begin, _)| *begin <= last)
            {
                if first < begin {
                    runs.push((first, begin - 1));
                }
                if end >= last {
                    is_left = false;
                    break;
                }
                first = end + 1;
                others.next();
            }
            if is_left {
                runs.push((first, last));
            }
        }
        Self { runs }
    }

    /// Whether an id is in both.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.without(other) != *self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn all(set: &IdSet) -> BTreeSet<u64> {
        set.runs().flat_map(|(first, last)| first..=last).collect()
    }

    fn are_apart(set: &IdSet) -> bool {
        set.runs.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0)
            && set.runs().all(|(first, last)| first <= last)
    }

    fn ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((0_u64..60, 0_u64..60), 0..12)
    }

    #[test]
    fn the_highest_ids_that_there_are_do_no_harm() {
        let set: IdSet = [(u64::MAX - 1, u64::MAX), (u64::MAX, u64::MAX)].into_iter().collect();
        assert_eq!(set.bounds(), Some((u64::MAX - 1, u64::MAX)));
        assert_eq!(set.without(&set), IdSet::default());
    }

    proptest! {
        #[test]
        fn prop_a_set_of_ranges_is_the_set_of_their_ids(ranges in ranges(), more in prop::collection::vec(0_u64..60, 0..40)) {
            let mut truth: BTreeSet<u64> = ranges.iter().flat_map(|(first, last)| *first..=*last).collect();
            let mut set: IdSet = ranges.into_iter().collect();
            for id in more {
                set.insert(id);
                truth.insert(id);
            }
            prop_assert!(are_apart(&set));
            prop_assert_eq!(all(&set), truth.clone());
            prop_assert_eq!(set.bounds(), truth.first().copied().zip(truth.last().copied()));
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
