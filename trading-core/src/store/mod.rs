//! Where ticks end.
//!
//! A store takes a batch and answers how many of its ticks were stored, were there already, or were set
//! aside as refused: each tick is one of the three, or the whole batch is still the caller's. Writing the same
//! tick twice stores it once, so whoever is in doubt writes again.

pub mod embedded;
mod error;
pub(crate) mod folder;
pub mod journal;
mod password;
pub mod postgres;
mod said;
pub mod spool;

use std::future::Future;

pub use error::{DaysLeft, Remedy, StoreError};
pub use said::{Said, cause_of, said, with_causes};

use crate::domain::Tick;

/// What became of the ticks of one batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Stored by this write, durably.
    pub stored: u64,
    /// Already there: written before, by us or by a recorder beside us.
    pub duplicates: u64,
    /// Refused, and set aside with the reason.
    pub rejected: u64,
}

/// A place for ticks.
pub trait Store: Send + Sync + 'static {
    /// Writes a batch. When it returns, every tick of it is durable or set aside.
    ///
    /// # Errors
    ///
    /// When the batch as a whole could not be written; what of it was stored all the same is found to be a
    /// duplicate when it is written again. Not cancel-safe in its answer, but in its effect.
    fn write(&self, batch: &[Tick]) -> impl Future<Output = Result<Written, StoreError>> + Send;
}
