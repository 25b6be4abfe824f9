//! What `tick_gaps` says of one symbol, and which of its rows speaks for a missing id.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::GapStatus;

use super::ids::{IdRange, Span};

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GapRow {
    /// The row's own id.
    pub(super) id: i64,
    /// What it says.
    pub(super) status: GapStatus,
    /// The ids it speaks of; `None`: the time only.
    pub(super) ids: Option<IdRange>,
    /// The time it speaks of.
    pub(super) at: Span,
}

/// The rows with ids of one symbol as pieces that do not overlap, each with the status that weighs most.
#[derive(Debug, Default)]
pub(super) struct Listed(Vec<(IdRange, GapStatus)>);

impl Listed {
    /// From rows in any order.
    pub(super) fn new(rows: &[GapRow]) -> Self {
        // Where a row begins and where it has ended. Beyond the last id nothing ends.
        let mut turns: BTreeMap<u64, Vec<(GapStatus, i32)>> = BTreeMap::new();
        for row in rows {
            let Some((first, last)) = row.ids.filter(|(first, last)| first <= last) else {
                continue;
            };
            turns.entry(first).or_default().push((row.status, 1));
            if let Some(after) = last.checked_add(1) {
                turns.entry(after).or_default().push((row.status, -1));
            }
        }
        let mut standing: BTreeMap<GapStatus, i32> = BTreeMap::new();
        let mut pieces = Vec::new();
        let mut open: Option<(u64, GapStatus)> = None;
        for (id, changes) in turns {
            for (status, by) in changes {
                *standing.entry(status).or_default() += by;
            }
            if let Some((first, status)) = open {
                pieces.push(((first, id - 1), status));
            }
            let heaviest = standing.iter().rev().find(|(_, count)| **count > 0);
            open = heaviest.map(|(status, _)| (id, *status));
        }
        if let Some((first, status)) = open {
            pieces.push(((first, u64::MAX), status));
        }
        Self(pieces)
    }

    /// A range of ids in parts, each with what is said of it.
    pub(super) fn parts(&self, (first, last): IdRange) -> Vec<(IdRange, Option<GapStatus>)> {
        let mut parts = Vec::new();
        let mut at = first;
        let start = self.0.partition_point(|((_, end), _)| *end < first);
        for ((from, to), status) in
            self.0.iter().skip(start).take_while(|((from, _), _)| *from <= last)
        {
            if *from > at {
                parts.push(((at, from - 1), None));
            }
            parts.push((((*from).max(first), (*to).min(last)), Some(*status)));
            let Some(next) = to.checked_add(1) else { return parts };
            at = next;
        }
        if at <= last {
            parts.push(((at, last), None));
        }
        parts
    }
}

/// The parts of a span that no row with a time speaks of. Each row is taken for `slack` longer at both ends: its times
/// are the exchange's, the span's are ours.
pub(super) fn unlisted(rows: &[GapRow], span: Span, slack: Duration) -> Vec<Span> {
    let spans = rows.iter().map(|row| (row.at.0 - slack, Some(row.at.1 + slack)));
    super::coverage::Coverage::new(spans).outside(span)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Timestamp;

    fn row(ids: IdRange, status: GapStatus) -> GapRow {
        GapRow { id: 0, status, ids: Some(ids), at: (Timestamp::EPOCH, Timestamp::EPOCH) }
    }

    #[test]
    fn a_hole_is_told_in_the_parts_that_the_rows_make_of_it() {
        let rows = [
            row((10, 20), GapStatus::NotALoss),
            row((15, 17), GapStatus::Open),
            row((30, u64::MAX), GapStatus::Repaired),
        ];
        let parts = Listed::new(&rows).parts((5, 40));
        let expected = [
            ((5, 9), None),
            ((10, 14), Some(GapStatus::NotALoss)),
            ((15, 17), Some(GapStatus::Open)),
            ((18, 20), Some(GapStatus::NotALoss)),
            ((21, 29), None),
            ((30, 40), Some(GapStatus::Repaired)),
        ];
        assert_eq!(parts, expected);
        assert_eq!(Listed::default().parts((1, 2)), [((1, 2), None)]);
    }

    proptest! {
        #[test]
        fn prop_each_id_gets_the_heaviest_status_of_the_rows_that_hold_it(
            rows in proptest::collection::vec((0_u64..60, 0_u64..30, 0_usize..4), 0..12),
            hole in (0_u64..70, 0_u64..40),
        ) {
            let statuses = ["open", "repaired", "unrecoverable", "not_a_loss"];
            let rows: Vec<GapRow> = rows
                .into_iter()
                .map(|(first, len, status)| {
                    row((first, first + len), GapStatus::from_name(statuses[status]).unwrap())
                })
                .collect();
            let mut next = hole.0;
            for ((first, last), status) in Listed::new(&rows).parts((hole.0, hole.0 + hole.1)) {
                prop_assert_eq!(first, next);
                for id in first..=last {
                    let holding = rows.iter().filter(|row| {
                        row.ids.is_some_and(|(from, to)| (from..=to).contains(&id))
                    });
                    prop_assert_eq!(status, holding.map(|row| row.status).max());
                }
                next = last + 1;
            }
            prop_assert_eq!(next, hole.0 + hole.1 + 1);
        }
    }
}
