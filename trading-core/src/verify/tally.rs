//! What the first look at the table gives of one symbol: rows, ids, and where a closer look is needed.

use crate::exchange::IdRule;

use super::away::Holes;
use super::coverage::joined;
use super::ids::{Block, Ids, Span, hull};
use super::sessions::Connected;

/// Times that are looked at again, per symbol; when there are more they are taken together.
const DOUBTFUL_MAX: usize = 4_096;

/// Rows of one symbol in one part of a day, and in one block of ids where ids are consecutive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// The exchange's name.
    pub(super) exchange: String,
    /// The symbol, as stored.
    pub(super) symbol: String,
    /// The block's number (id / 64), and which of its ids are there. `None`: the ids are no numbers, or prove nothing.
    pub(super) ids: Option<(u64, u64)>,
    /// How many rows.
    pub(super) rows: u64,
    /// When they were traded.
    pub(super) at: Span,
    /// When the live ones among them were received.
    pub(super) received: Option<Span>,
    /// How many hold a value that cannot be.
    pub(super) out_of_domain: u64,
    /// Which 64 seconds the live rows were received in, where ids are no count.
    pub(super) bucket: Option<i64>,
    /// How many are live.
    pub(super) live: u64,
}

/// One symbol so far.
#[derive(Debug)]
pub(super) struct Tally {
    /// What its ids prove.
    pub(super) rule: IdRule,
    /// When it was connected.
    pub(super) connected: Connected,
    /// Times without a connection, where ids prove nothing.
    pub(super) holes: Holes,
    /// How many rows.
    pub(super) rows: u64,
    /// When they were traded.
    pub(super) at: Option<Span>,
    /// Their ids, where they are consecutive.
    pub(super) ids: Ids,
    /// Its ids of before the exchange counted anew, latest count first.
    pub(super) earlier: Vec<Ids>,
    /// Rows whose id is no number where it should be.
    pub(super) odd_ids: u64,
    /// Rows with values that cannot be.
    pub(super) out_of_domain: u64,
    /// Exchange times in which live rows may lie outside every session.
    doubtful: Vec<Span>,
}

impl Tally {
    pub(super) fn new(rule: IdRule, connected: Connected) -> Self {
        let holes = match rule {
            IdRule::Unique => Holes::between(connected.proven.spans()),
            IdRule::Consecutive => Holes::default(),
        };
        Self {
            rule,
            connected,
            holes,
            rows: 0,
            at: None,
            ids: Ids::default(),
            earlier: Vec::new(),
            odd_ids: 0,
            out_of_domain: 0,
            doubtful: Vec::new(),
        }
    }

    /// Adds what one look found.
    pub(super) fn add(&mut self, group: &Group) {
        self.rows += group.rows;
        self.at = Some(self.at.map_or(group.at, |at| hull(at, group.at)));
        self.out_of_domain += group.out_of_domain;
        match (self.rule, group.ids) {
            (IdRule::Consecutive, Some((number, bits))) => {
                self.ids.add(number, Block { bits, rows: group.rows, at: group.at });
            }
            (IdRule::Consecutive, None) => self.odd_ids += group.rows,
            (IdRule::Unique, _) => {
                if let Some((bucket, received)) = group.bucket.zip(group.received) {
                    self.holes.add(bucket, received, group.at);
                }
            }
        }
        if group.received.is_some_and(|received| !self.connected.claimed.covers(received)) {
            self.doubtful.push(group.at);
            if self.doubtful.len() > DOUBTFUL_MAX {
                self.doubtful = thinned(&joined(std::mem::take(&mut self.doubtful)));
            }
        }
    }

    /// All its counts of ids.
    pub(super) fn counts(&self) -> impl Iterator<Item = &Ids> {
        std::iter::once(&self.ids).chain(&self.earlier)
    }

    /// Exchange times in which live rows may lie outside every session; none overlap.
    pub(super) fn doubtful(&self) -> Vec<Span> {
        joined(self.doubtful.clone())
    }
}

/// At most half as many spans as may be kept, which hold all that is given, ascending.
fn thinned(spans: &[Span]) -> Vec<Span> {
    let together = spans.len().div_ceil(DOUBTFUL_MAX / 2).max(1);
    spans.chunks(together).filter_map(|some| Some((some.first()?.0, some.last()?.1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::verify::coverage::Coverage;

    fn group(second: i64) -> Group {
        let at = Timestamp::from_millis(second * 1_000).unwrap();
        Group {
            exchange: "okx".to_owned(),
            symbol: "BTCUSDT".to_owned(),
            ids: None,
            rows: 1,
            at: (at, at),
            received: Some((at, at)),
            out_of_domain: 0,
            bucket: None,
            live: 1,
        }
    }

    #[test]
    fn times_in_doubt_stay_bounded_and_none_is_lost() {
        let mut tally = Tally::new(IdRule::Unique, Connected::default());
        for second in 0..20_000 {
            tally.add(&group(second * 10));
        }
        let doubtful = tally.doubtful();
        assert!(doubtful.len() <= DOUBTFUL_MAX, "{}", doubtful.len());
        for second in 0..20_000 {
            let (at, _) = group(second * 10).at;
            assert!(doubtful.iter().any(|span| span.0 <= at && at <= span.1), "{at}");
        }
        assert_eq!(tally.rows, 20_000);
    }

    #[test]
    fn what_was_received_in_a_session_is_in_no_doubt() {
        let (from, to) = (group(10).at.0, group(20).at.0);
        let claimed = Coverage::new([(from, Some(to))]);
        let connected = Connected { claimed, ..Connected::default() };
        let mut tally = Tally::new(IdRule::Unique, connected);
        (10..=20).for_each(|second| tally.add(&group(second)));
        assert_eq!(tally.doubtful(), []);
        tally.add(&group(21));
        assert_eq!(tally.doubtful(), [group(21).at]);
    }
}
