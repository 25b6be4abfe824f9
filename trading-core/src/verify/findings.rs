//! What speaks against completeness: kinds, single findings, and their number.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::domain::{Lines, Timestamp, escaped};

use super::report::time_text;

/// Findings that are told one by one, of one symbol; of the others the number is told.
const LISTED_PER_SYMBOL_MAX: usize = 20;
/// Findings that are told one by one, of all symbols.
pub(super) const LISTED_MAX: usize = 1_000;

/// What speaks against completeness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Trades that are neither stored nor listed in `tick_gaps`; counted in trades.
    UnlistedHole,
    /// A row of `tick_gaps` that is open.
    OpenGap,
    /// A row of `tick_gaps` that is unrecoverable.
    UnrecoverableGap,
    /// A row of `tick_gaps` that says repaired, and is not.
    UntrueRepair,
    /// A row of `tick_gaps` that says open, and everything is stored.
    StoredOpenGap,
    /// Trades that the table refused; they are in `rejected_ticks`.
    Rejected,
    /// Rows that hold a trade which another row holds.
    Duplicate,
    /// Rows whose id does not belong to their time.
    AgainstTime,
    /// Rows whose id is no number, where the exchange counts.
    OddId,
    /// So many holes that they were not kept one by one.
    Scattered,
    /// Live rows that were received while nothing was connected.
    OutOfSession,
    /// Rows with a value that cannot be.
    OutOfDomain,
    /// Times without a connection that are not listed, where ids prove nothing.
    UnlistedDisconnect,
    /// Frames that could not be read, where ids do not prove what was in them.
    UnreadFrames,
    /// Minutes that differ from the exchange's own candles.
    UnlikeExchange,
    /// Symbols that could not be compared with the exchange.
    NotCompared,
    /// There is nothing to verify: nothing at all, or nothing of an exchange or symbol that was asked for.
    NothingStored,
    /// Trades that came over a connection and are neither stored nor refused.
    ReceivedNotStored,
    /// A table of ticks that is no part of `tick_data`.
    Detached,
    /// Ids of a symbol that begin anew: what was traded in between is not known.
    CountedAnew,
}

impl Kind {
    /// What so many of it are called.
    pub(super) const fn noun(self) -> (&'static str, &'static str) {
        match self {
            Self::UnlistedHole => ("trade missing and not listed", "trades missing and not listed"),
            Self::OpenGap => ("gap open", "gaps open"),
            Self::UnrecoverableGap => ("gap unrecoverable", "gaps unrecoverable"),
            Self::UntrueRepair => {
                ("gap listed as repaired that is not", "gaps listed as repaired that are not")
            }
            Self::StoredOpenGap => {
                ("gap listed as open that is stored", "gaps listed as open that are stored")
            }
            Self::Rejected => ("trade rejected", "trades rejected"),
            Self::Duplicate => ("row stored twice", "rows stored twice"),
            Self::AgainstTime => {
                ("row with the id of another time", "rows with the id of another time")
            }
            Self::OddId => ("row whose id is no number", "rows whose id is no number"),
            Self::Scattered => {
                ("symbol with too many holes to list", "symbols with too many holes to list")
            }
            Self::OutOfSession => {
                ("live row outside every session", "live rows outside every session")
            }
            Self::OutOfDomain => ("row with an impossible value", "rows with an impossible value"),
            Self::UnlistedDisconnect => ("disconnect not listed", "disconnects not listed"),
            Self::UnreadFrames => ("unreadable frame", "unreadable frames"),
            Self::UnlikeExchange => {
                ("minute unlike the exchange's", "minutes unlike the exchange's")
            }
            Self::NotCompared => (
                "symbol not compared with its exchange",
                "symbols not compared with their exchange",
            ),
            Self::NothingStored => ("question without an answer", "questions without an answer"),
            Self::ReceivedNotStored => {
                ("trade received and not stored", "trades received and not stored")
            }
            Self::Detached => ("detached table with ticks", "detached tables with ticks"),
            Self::CountedAnew => ("count begun anew", "counts begun anew"),
        }
    }
}

/// One thing that speaks against completeness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The exchange's name.
    pub exchange: String,
    /// The canonical symbol; `None`: the exchange as a whole.
    pub symbol: Option<String>,
    /// What kind it is of.
    pub kind: Kind,
    /// How many, in the kind's own unit.
    pub count: u64,
    /// The first id that it is about.
    pub first_id: Option<String>,
    /// The last id that it is about.
    pub last_id: Option<String>,
    /// Where in time it begins, by the exchange's clock (by ours for sessions).
    #[serde(serialize_with = "time_text")]
    pub from: Option<Timestamp>,
    /// Where in time it ends.
    #[serde(serialize_with = "time_text")]
    pub to: Option<Timestamp>,
    /// For people.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Words of tables, which others write too.
        let shown = |text| escaped(text, Lines::One);
        let (exchange, text) = (shown(&self.exchange), shown(&self.text));
        match (&self.symbol, &*exchange) {
            (Some(symbol), exchange) => write!(f, "{exchange}:{}: {text}", shown(symbol))?,
            (None, "") => f.write_str(&text)?,
            (None, exchange) => write!(f, "{exchange}: {text}")?,
        }
        match (&self.first_id, &self.last_id) {
            (Some(first), Some(last)) if first == last => write!(f, ": id {first}")?,
            (Some(first), Some(last)) => write!(f, ": ids {first} to {last}")?,
            _ => {}
        }
        match (self.from, self.to) {
            (Some(from), Some(to)) if from == to => write!(f, ", at {from}"),
            (Some(from), Some(to)) => write!(f, ", {from} to {to}"),
            _ => Ok(()),
        }
    }
}

/// Findings, of which the first are kept and all are counted.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) listed: Vec<Finding>,
    pub(super) unlisted: u64,
    pub(super) counts: BTreeMap<Kind, u64>,
    pub(super) listed_max: usize,
}

impl Findings {
    /// For one symbol, or one exchange.
    pub(super) fn of_one() -> Self {
        Self { listed_max: LISTED_PER_SYMBOL_MAX, ..Self::default() }
    }

    /// For all of them.
    pub(super) fn of_all() -> Self {
        Self { listed_max: LISTED_MAX, ..Self::default() }
    }

    pub(super) fn push(&mut self, finding: Finding) {
        self.count(finding.kind, finding.count);
        if self.listed.len() < self.listed_max {
            self.listed.push(finding);
        } else {
            self.unlisted += 1;
        }
    }

    /// Counts what cannot be told one by one.
    pub(super) fn count(&mut self, kind: Kind, count: u64) {
        let sum = self.counts.entry(kind).or_default();
        *sum = sum.saturating_add(count);
    }

    #[cfg(test)]
    pub(super) fn listed(&self) -> &[Finding] {
        &self.listed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    pub(super) fn append(&mut self, other: Self) {
        self.unlisted += other.unlisted;
        for (kind, count) in other.counts {
            self.count(kind, count);
        }
        for finding in other.listed {
            if self.listed.len() < self.listed_max {
                self.listed.push(finding);
            } else {
                self.unlisted += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_is_counted() {
        let mut one = Findings::of_one();
        for id in 0..25_u64 {
            one.push(Finding {
                exchange: "okx".to_owned(),
                symbol: None,
                kind: Kind::Duplicate,
                count: 2,
                first_id: Some(id.to_string()),
                last_id: Some(id.to_string()),
                from: None,
                to: None,
                text: String::new(),
            });
        }
        let mut all = Findings::of_all();
        all.append(one);
        assert_eq!((all.listed.len(), all.unlisted), (LISTED_PER_SYMBOL_MAX, 5));
        assert_eq!(all.counts, BTreeMap::from([(Kind::Duplicate, 50)]));
    }
}
