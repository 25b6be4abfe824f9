//! What can go wrong with a store, sorted by what to do about it.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::Written;

/// Why the server or the disk behind a store refused, in its own words.
pub type Cause = Box<dyn Error + Send + Sync>;

/// A write that failed. Generic over the record, because what is left of a batch comes back in [`StoreError::Days`].
#[derive(Debug, thiserror::Error)]
pub enum StoreError<R> {
    /// The server is away, or has no room or time for us now.
    #[error("the database cannot take the batch now")]
    Away(#[source] Cause),
    /// The connection was given up because no answer came for this long.
    #[error("the database has not answered for {} s", .0.as_secs())]
    Silent(Duration),
    /// The server refused the values of a row.
    #[error("the database refused a row")]
    Refused(#[source] Cause),
    /// All but the records of some days is done; those days have no partition yet.
    #[error(transparent)]
    Days(Box<DaysLeft<R>>),
    /// The server's tables or our rights are not what they must be.
    #[error("the database is not set up for writing ticks")]
    Unusable(#[source] Cause),
}

/// What is left of a batch of which the rest is done: records of days that have no partition yet.
#[derive(Debug)]
pub struct DaysLeft<R> {
    /// What became of the others.
    pub written: Written,
    /// The records that are left.
    pub left: Vec<R>,
    /// One of the days that are refused; empty where none is.
    pub day: String,
    /// What an operator can do about it.
    pub cure: String,
    /// Why its partition cannot be made; `None`: it was logged a moment ago, or nothing is refused.
    pub cause: Option<Cause>,
    /// Whether there was no time for all of the days, so that another write goes on at once.
    pub goes_on: bool,
}

impl<R> fmt::Display for DaysLeft<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { day, cure, left, .. } = self;
        let ticks = left.len();
        match (day.is_empty(), cure.is_empty()) {
            (true, _) => write!(f, "partitions are still being made for {ticks} ticks"),
            (false, true) => {
                write!(f, "the partition of {day} cannot be made, and {ticks} ticks wait for it")
            }
            (false, false) => {
                write!(
                    f,
                    "the partition of {day} cannot be made, and {ticks} ticks wait for it: {cure}"
                )
            }
        }
    }
}

impl<R: fmt::Debug> Error for DaysLeft<R> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// It can pass: write again later.
    Retry,
    /// It will not pass: find the rows that are refused and set them aside.
    Reject,
    /// A person must act; until then the batch waits in the spool.
    Stop,
}

impl<R> StoreError<R> {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Away(_) | Self::Silent(_) | Self::Days(_) => Remedy::Retry,
            Self::Refused(_) => Remedy::Reject,
            Self::Unusable(_) => Remedy::Stop,
        }
    }
}
