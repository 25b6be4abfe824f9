//! The gaps that were found, as work: who takes which, what of it is still missing, and what came of it.
//!
//! A gap is worked on under a lease, by the database's clock, which all recorders share: whoever is killed meanwhile
//! leaves it to the next. What came of it is written in one transaction, and only by who still holds the lease.

mod lease;
mod list;
mod missing;

use std::fmt;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::types::chrono::{DateTime, Utc};

pub use lease::{LEASE, retry_delay};
pub use list::{
    ask_again, count_gaps, database_time, exchanges_with_work, list_gaps, release_held,
    waiting_gaps,
};
pub use missing::{Carried, remove_doubles};

use crate::domain::{Instrument, Timestamp};

/// A trade id as a number, null where it is none: no id that somebody altered may fail a query.
macro_rules! number {
    () => {
        "CASE WHEN trade_id ~ '^(0|[1-9][0-9]{0,17})$' THEN trade_id::bigint END"
    };
}
pub(in crate::store::postgres) use number;

/// What is known of a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapStatus {
    /// To be worked on.
    Open,
    /// Stored since.
    Repaired,
    /// The exchange no longer has it, or the database refuses it.
    Unrecoverable,
    /// The exchange never issued these ids.
    NotALoss,
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
}

/// A gap that somebody works on.
#[derive(Debug, Clone)]
pub struct OpenGap {
    /// Its row.
    pub id: i64,
    /// Whose.
    pub instrument: Instrument,
    /// The first and the last missing id; `None`: only the time is known.
    pub ids: Option<(u64, u64)>,
    /// Exchange times of the trades before and after it.
    pub times: (Timestamp, Timestamp),
    /// Attempts that came to nothing.
    pub attempts: u32,
    /// How long ago it was found.
    pub age: Duration,
}

impl fmt::Display for OpenGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.instrument, Stretch { ids: self.ids, times: self.times })
    }
}

/// A part of a gap, and what came of it. The parts of a gap cover it and do not overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The first and the last id; `None`: only the time is known.
    pub ids: Option<(u64, u64)>,
    /// The times it lies between.
    pub times: (Timestamp, Timestamp),
    /// What is known of it now.
    pub status: GapStatus,
    /// Why, in words.
    pub note: Option<String>,
    /// Where it stays open: the attempts it has had; the next one waits as long as they demand.
    pub attempts: u32,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Stretch { ids: self.ids, times: self.times }.fmt(f)
    }
}

/// Ids, or a time.
struct Stretch {
    ids: Option<(u64, u64)>,
    times: (Timestamp, Timestamp),
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ids, self.times) {
            (Some((first, last)), _) if first == last => write!(f, "id {first}"),
            (Some((first, last)), _) => write!(f, "ids {first} to {last}"),
            (None, (from, to)) => write!(f, "from {from} to {to}"),
        }
    }
}

/// Which gaps are asked for.
#[derive(Debug, Clone)]
pub struct GapScope {
    /// Of this exchange.
    pub exchange: &'static str,
    /// Of these symbols; `None`: of all.
    pub symbols: Option<Vec<String>>,
    /// That begin no longer ago than this; `None`: of any age.
    pub max_age: Option<Duration>,
    /// Found at least so long ago: what was only late has come by then.
    pub settled: Duration,
    /// The newest first, where the exchange soon forgets; else the oldest.
    pub newest_first: bool,
}

/// A gap as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ListedGap {
    /// The exchange's name.
    pub exchange: String,
    /// The canonical symbol.
    pub symbol: String,
    /// The first missing id; `None`: only the time is known.
    pub first_id: Option<String>,
    /// The last missing id.
    pub last_id: Option<String>,
    /// Exchange time of the trade before it.
    pub from_time: DateTime<Utc>,
    /// Exchange time of the trade after it.
    pub to_time: DateTime<Utc>,
    /// What is known of it.
    pub status: String,
    /// What came of the last attempt.
    pub note: Option<String>,
}

/// The table of gaps, for one who works on them.
#[derive(Debug, Clone)]
pub struct Gaps {
    pool: PgPool,
    worker: String,
}

impl Gaps {
    /// For a worker whose name no other has.
    #[must_use]
    pub const fn new(pool: PgPool, worker: String) -> Self {
        Self { pool, worker }
    }
}
