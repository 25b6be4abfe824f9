//! When somebody was connected: the sessions of one symbol laid over each other, both ends included.

use crate::domain::Timestamp;

use super::ids::Span;

/// The times in which at least one session carried a symbol.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Coverage(Vec<Span>);

impl Coverage {
    /// From sessions in any order; one that still stands has no end.
    pub(super) fn new(sessions: impl IntoIterator<Item = (Timestamp, Option<Timestamp>)>) -> Self {
        let end = |end: Option<Timestamp>| end.unwrap_or(Timestamp::MAX);
        let mut spans: Vec<Span> = sessions.into_iter().map(|(from, to)| (from, end(to))).collect();
        spans.retain(|(from, to)| from <= to);
        Self(joined(spans))
    }

    /// Whether all of a span lies in it.
    pub(super) fn covers(&self, (from, to): Span) -> bool {
        let after = self.0.partition_point(|span| span.0 <= from);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|span| to <= span.1)
    }

    /// The parts of a span that do not lie in it, ends excluded.
    pub(super) fn outside(&self, (from, to): Span) -> Vec<Span> {
        let mut found = Vec::new();
        let mut open = from;
        for span in self.0.iter().filter(|span| span.1 >= from && span.0 <= to) {
            if span.0 > open {
                found.push((open, span.0));
            }
            open = open.max(span.1);
        }
        if open < to {
            found.push((open, to));
        }
        found
    }

    /// Its spans, ascending.
    pub(super) fn spans(&self) -> &[Span] {
        &self.0
    }
}

/// Spans that touch or overlap become one; ascending.
pub(super) fn joined(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match joined.last_mut() {
            Some(last) if span.0 <= last.1 => last.1 = last.1.max(span.1),
            _ => joined.push(span),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000).unwrap()
    }

    fn span((from, to): (i64, i64)) -> Span {
        (at(from), at(to))
    }

    #[test]
    fn sessions_beside_each_other_and_one_that_stands_are_joined() {
        let sessions = [(50, None), (10, Some(20)), (15, Some(30)), (30, Some(31)), (70, Some(60))];
        let coverage = Coverage::new(sessions.map(|(from, to)| (at(from), to.map(at))));
        assert_eq!(coverage.spans(), [span((10, 31)), (at(50), Timestamp::MAX)]);
        for (within, is_covered) in [
            ((10, 31), true),
            ((12, 12), true),
            ((9, 12), false),
            ((31, 32), false),
            ((40, 41), false),
            ((20, 60), false),
            ((50, 1_000_000), true),
        ] {
            assert_eq!(coverage.covers(span(within)), is_covered, "{within:?}");
        }
    }

    #[test]
    fn what_lies_outside_is_told_without_what_lies_inside() {
        let sessions = [(10, 20), (30, 40)].map(|(from, to)| (at(from), Some(at(to))));
        let coverage = Coverage::new(sessions);
        assert_eq!(coverage.outside(span((0, 50))), [(0, 10), (20, 30), (40, 50)].map(span));
        assert_eq!(coverage.outside(span((12, 35))), [span((20, 30))]);
        assert_eq!(coverage.outside(span((11, 19))), []);
        assert_eq!(coverage.outside(span((22, 28))), [span((22, 28))]);
        assert_eq!(Coverage::default().outside(span((1, 2))), [span((1, 2))]);
    }
}
