//! Ranges of trade ids and of time, with a name for each end.

use std::fmt;
use std::time::Duration;

use super::Timestamp;

/// Trade ids in a row, both ends included. It holds one id at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdRange {
    first: u64,
    last: u64,
}

#[expect(clippy::len_without_is_empty, reason = "no range is empty")]
impl IdRange {
    /// From `first` to `last`; `None` where `last` comes before it.
    #[must_use]
    pub const fn new(first: u64, last: u64) -> Option<Self> {
        if first <= last { Some(Self { first, last }) } else { None }
    }

    /// From the lower of two ids to the higher.
    #[must_use]
    pub const fn between(one: u64, other: u64) -> Self {
        if one <= other {
            Self { first: one, last: other }
        } else {
            Self { first: other, last: one }
        }
    }

    /// This id alone.
    #[must_use]
    pub const fn one(id: u64) -> Self {
        Self { first: id, last: id }
    }

    /// From the lowest of these ids to the highest; `None`: there are none.
    #[must_use]
    pub fn around(ids: impl IntoIterator<Item = u64>) -> Option<Self> {
        ids.into_iter().map(Self::one).reduce(Self::hull)
    }

    /// The lowest id.
    #[must_use]
    pub const fn first(self) -> u64 {
        self.first
    }

    /// The highest id.
    #[must_use]
    pub const fn last(self) -> u64 {
        self.last
    }

    /// How many ids; `u64::MAX` also for all there are.
    #[must_use]
    pub const fn len(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }

    /// Whether this id lies in it.
    #[must_use]
    pub const fn contains(self, id: u64) -> bool {
        self.first <= id && id <= self.last
    }

    /// The ids in both; `None`: there are none.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }

    /// The smallest range that holds both.
    #[must_use]
    pub fn hull(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { first, last } if first == last => write!(f, "id {first}"),
            Self { first, last } => write!(f, "ids {first} to {last}"),
        }
    }
}

/// A stretch of time, both ends included. One whose `to` lies before its `from` holds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeRange {
    /// When it begins.
    pub from: Timestamp,
    /// When it ends.
    pub to: Timestamp,
}

impl TimeRange {
    /// From `from` to `to`.
    #[must_use]
    pub const fn new(from: Timestamp, to: Timestamp) -> Self {
        Self { from, to }
    }

    /// From the earlier of two times to the later: the clock of an exchange may go back.
    #[must_use]
    pub fn between(one: Timestamp, other: Timestamp) -> Self {
        Self { from: one.min(other), to: one.max(other) }
    }

    /// This instant alone.
    #[must_use]
    pub const fn at(time: Timestamp) -> Self {
        Self { from: time, to: time }
    }

    /// From the earliest of these times to the latest; `None`: there are none.
    #[must_use]
    pub fn around(times: impl IntoIterator<Item = Timestamp>) -> Option<Self> {
        times.into_iter().map(Self::at).reduce(Self::hull)
    }

    /// How long it lasts; zero where it holds no more than an instant.
    #[must_use]
    pub fn duration(self) -> Duration {
        self.to.since(self.from)
    }

    /// Whether this instant lies in it.
    #[must_use]
    pub fn contains(self, time: Timestamp) -> bool {
        self.from <= time && time <= self.to
    }

    /// The time in both; `None`: there is none.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        let both = Self { from: self.from.max(other.from), to: self.to.min(other.to) };
        (both.from <= both.to).then_some(both)
    }

    /// The shortest stretch that holds both.
    #[must_use]
    pub fn hull(self, other: Self) -> Self {
        Self { from: self.from.min(other.from), to: self.to.max(other.to) }
    }

    /// Longer by this much at both ends.
    #[must_use]
    pub fn widened(self, by: Duration) -> Self {
        Self { from: self.from - by, to: self.to + by }
    }
}

impl fmt::Display for TimeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.from, self.to)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::EPOCH + Duration::from_secs(second)
    }

    fn time(from: u64, to: u64) -> TimeRange {
        TimeRange::new(at(from), at(to))
    }

    #[test]
    fn a_range_is_printed_with_both_ends_or_as_one_id() {
        assert_eq!(IdRange::between(7, 5).to_string(), "ids 5 to 7");
        assert_eq!(IdRange::one(5).to_string(), "id 5");
        let text = "1970-01-01T00:00:05.000000Z to 1970-01-01T00:00:07.000000Z";
        assert_eq!(time(5, 7).to_string(), text);
    }

    #[test]
    fn the_highest_ids_that_there_are_do_no_harm() {
        let all = IdRange::between(0, u64::MAX);
        assert_eq!(all.len(), u64::MAX);
        assert_eq!(IdRange::one(u64::MAX).intersect(all), Some(IdRange::one(u64::MAX)));
        assert_eq!(IdRange::new(1, 0), None);
        assert_eq!(IdRange::around([]), None);
    }

    #[test]
    fn a_stretch_of_time_that_ends_before_it_begins_holds_nothing() {
        let nothing = time(7, 5);
        assert_eq!(nothing.duration(), Duration::ZERO);
        assert!((4..9).all(|second| !nothing.contains(at(second))));
        assert_eq!(nothing.intersect(time(0, 9)), None);
        assert_eq!(TimeRange::between(at(7), at(5)), time(5, 7));
    }

    #[test]
    fn a_stretch_of_time_is_widened_to_both_sides() {
        let wider = time(5, 7).widened(Duration::from_secs(2));
        assert_eq!((wider, wider.duration()), (time(3, 9), Duration::from_secs(6)));
        assert_eq!(time(5, 7).widened(Duration::MAX).from, Timestamp::EPOCH);
    }

    proptest! {
        #[test]
        fn prop_ranges_of_ids_are_the_sets_of_their_ids(
            one in (0_u64..40, 0_u64..40),
            two in (0_u64..40, 0_u64..40),
        ) {
            let (one, two) = (IdRange::between(one.0, one.1), IdRange::between(two.0, two.1));
            let ids = |range: IdRange| (0..50).filter(move |id| range.contains(*id));
            prop_assert_eq!(one.len(), u64::try_from(ids(one).count()).unwrap());
            prop_assert_eq!(IdRange::around(ids(one)), Some(one));
            prop_assert_eq!(IdRange::around(ids(one).chain(ids(two))), Some(one.hull(two)));
            let both = ids(one).filter(|id| two.contains(*id));
            prop_assert_eq!(IdRange::around(both), one.intersect(two));
        }

        #[test]
        fn prop_ranges_of_time_are_the_sets_of_their_instants(
            one in (0_u64..40, 0_u64..40),
            two in (0_u64..40, 0_u64..40),
        ) {
            let one = TimeRange::between(at(one.0), at(one.1));
            let two = TimeRange::between(at(two.0), at(two.1));
            let instants = |range: TimeRange| (0..50).map(at).filter(move |it| range.contains(*it));
            prop_assert_eq!(TimeRange::around(instants(one)), Some(one));
            prop_assert_eq!(TimeRange::around(instants(one).chain(instants(two))), Some(one.hull(two)));
            let both = instants(one).filter(|it| two.contains(*it));
            prop_assert_eq!(TimeRange::around(both), one.intersect(two));
            prop_assert_eq!(one.from + one.duration(), one.to);
        }
    }
}
