//! Trades of a symbol that are missing: what shows it, where they lie, and what came of them.

use std::fmt;
use std::time::Duration;

use super::{IdRange, Instrument, TimeRange, Timestamp};

/// What shows that something is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapCause {
    /// Of two trades in a row, the second's id is not the next.
    Jumped,
    /// It was traded between the last stored trade and the first after the start.
    NotRunning,
    /// The same, and another recorder carried the symbol then, which records still or was killed: what it held may come
    /// yet.
    NotStoredYet,
    /// It was traded while no connection brought it.
    NoConnection,
    /// The exchange named a last trade that never came.
    NamedLater,
    /// Very many ids in a row were not the next, and are listed as one gap; some of its ids came.
    JumpedOften,
    /// The audit of the stored ids did not find them.
    NotInDatabase,
}

impl GapCause {
    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jumped => "the ids jumped",
            Self::NotRunning => "the recorder was not running",
            Self::NotStoredYet => {
                "another recorder records, or one was killed: what it held is not stored yet"
            }
            Self::NoConnection => "no connection",
            Self::NamedLater => "a heartbeat named a later id",
            Self::JumpedOften => "the ids jumped again and again",
            Self::NotInDatabase => "found missing in the database",
        }
    }
}

/// What is known of a gap. Where listed gaps overlap, the greatest status is the one that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GapStatus {
    /// Stored since.
    Repaired,
    /// The exchange never issued these ids.
    NotALoss,
    /// The exchange no longer has it, or the database refuses it.
    Unrecoverable,
    /// To be worked on.
    Open,
}

impl GapStatus {
    /// The name as stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Repaired => "repaired",
            Self::Unrecoverable => "unrecoverable",
            Self::NotALoss => "not_a_loss",
        }
    }

    /// The status with this stored name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Repaired, Self::NotALoss, Self::Unrecoverable, Self::Open]
            .into_iter()
            .find(|status| status.as_str() == name)
    }
}

impl fmt::Display for GapStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Trades of a symbol that never came to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GapRecord {
    /// Whose.
    pub instrument: Instrument,
    /// The ids that are missing; `None`: all of the time in between.
    pub ids: Option<IdRange>,
    /// From the exchange's time of the trade before it to that of the trade after it; where there is none yet, to ours,
    /// when it was noticed.
    pub times: TimeRange,
    /// What shows it.
    pub cause: GapCause,
    /// When it was noticed.
    pub seen_at: Timestamp,
}

/// A gap that is worked on.
#[derive(Debug, Clone)]
pub struct OpenGap {
    /// Its row.
    pub id: i64,
    /// Whose.
    pub instrument: Instrument,
    /// The missing ids; `None`: only the time is known.
    pub ids: Option<IdRange>,
    /// Exchange times of the trades before and after it.
    pub times: TimeRange,
    /// Attempts that came to nothing.
    pub attempts: u32,
    /// How long ago it was found.
    pub age: Duration,
}

impl fmt::Display for OpenGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.instrument)?;
        write_place(f, self.ids, self.times)
    }
}

/// A part of a gap, and what came of it. The parts of a gap cover it and do not overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapPart {
    /// Its ids; `None`: only the time is known.
    pub ids: Option<IdRange>,
    /// The time it lies in.
    pub times: TimeRange,
    /// What is known of it now.
    pub status: GapStatus,
    /// Why, in words.
    pub note: Option<String>,
    /// Where it stays open: the attempts it has had; the next one waits as long as they demand.
    pub attempts: u32,
}

impl fmt::Display for GapPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, self.ids, self.times)
    }
}

fn write_place(f: &mut fmt::Formatter<'_>, ids: Option<IdRange>, times: TimeRange) -> fmt::Result {
    match ids {
        Some(ids) => write!(f, "{ids}"),
        None => write!(f, "from {times}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_as_it_is_stored() {
        for name in ["repaired", "not_a_loss", "unrecoverable", "open"] {
            assert_eq!(GapStatus::from_name(name).unwrap().to_string(), name);
        }
        assert_eq!(GapStatus::from_name("closed"), None);
    }

    #[test]
    fn where_listed_gaps_overlap_the_one_that_is_open_counts_most() {
        use GapStatus::{NotALoss, Open, Repaired, Unrecoverable};
        assert!([Repaired, NotALoss, Unrecoverable, Open].is_sorted());
    }
}
