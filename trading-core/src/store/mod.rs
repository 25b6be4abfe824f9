//! Where records end.
//!
//! A store takes a batch of records of one kind and returns how many of them were stored, were there already, or were
//! rejected: each record is one of the three, or the whole batch is still the caller's. Writing the same record twice
//! stores it once, so a write whose outcome is unknown is repeated.

pub mod embedded;
mod error;
pub(crate) mod folder;
pub mod journal;
mod password;
pub mod postgres;
mod said;
pub mod spool;

use std::future::Future;

pub use error::{Cause, DaysLeft, Remedy, StoreError};
pub use said::{Said, cause_of, said, with_causes};

use spool::Spooled;

/// What became of the records of one batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Stored by this write, durably.
    pub stored: u64,
    /// Already there: written before, by us or by a recorder beside us.
    pub duplicates: u64,
    /// Refused by the database, and kept with the reason in a table of their own.
    pub rejected: u64,
}

/// A place for records of one kind.
pub trait Store: Send + Sync + 'static {
    /// The kind of record that it takes. What it cannot take now waits in the spool.
    type Record: Spooled;

    /// Writes a batch. When it returns, every record of it is durable: stored, or kept as rejected.
    ///
    /// If it is cancelled, the batch may or may not be stored; writing it again is safe.
    ///
    /// # Errors
    ///
    /// When the batch as a whole could not be written. The part of it that was stored all the same counts as duplicates
    /// when the batch is written again.
    fn write(
        &self,
        batch: &[Self::Record],
    ) -> impl Future<Output = Result<Written, StoreError<Self::Record>>> + Send;
}
