//! Records to batches: full at `max_size`, due `max_time` after the first record, larger only when the writers are behind.
//!
//! Pure: it knows no clock, no channel and no database. Nothing is lost or doubled in it, and order is kept.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::BatchSettings;

/// The batch that is being filled.
#[derive(Debug)]
pub struct Batcher<R> {
    buffer: Vec<R>,
    first_at: Option<Instant>,
    max_size: usize,
    max_coalesced: usize,
    max_time: Duration,
}

impl<R> Batcher<R> {
    /// An empty batcher.
    #[must_use]
    pub fn new(settings: &BatchSettings) -> Self {
        let max_size = settings.max_size.get();
        Self {
            buffer: Vec::with_capacity(max_size),
            first_at: None,
            max_size,
            max_coalesced: settings.max_coalesced.get().max(max_size),
            max_time: settings.max_time,
        }
    }

    /// How many more records it takes: to a full batch while a writer is free to take it, to the largest write while
    /// all are busy.
    #[must_use]
    pub const fn room(&self, writer_is_free: bool) -> usize {
        let limit = if writer_is_free { self.max_size } else { self.max_coalesced };
        limit.saturating_sub(self.buffer.len())
    }

    /// Takes records in, which came at `now`; the list is empty afterwards.
    pub fn append(&mut self, records: &mut Vec<R>, now: Instant) {
        if !records.is_empty() {
            self.first_at.get_or_insert(now);
            self.buffer.append(records);
        }
    }

    /// When the batch must be written although it is not full; `None` while it is empty.
    #[must_use]
    pub fn due_at(&self) -> Option<Instant> {
        self.first_at.map(|first| first + self.max_time)
    }

    /// Whether the batch is full or due.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.buffer.len() >= self.max_size || self.due_at().is_some_and(|due| now >= due)
    }

    /// The batch, all of it; the batcher goes on with an empty `buffer`.
    #[must_use]
    pub fn take(&mut self, buffer: Vec<R>) -> Vec<R> {
        debug_assert!(buffer.is_empty(), "records in the spare buffer would be batched twice");
        self.first_at = None;
        std::mem::replace(&mut self.buffer, buffer)
    }

    /// Records in the batch.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether the batch is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Records that make a batch full.
    #[must_use]
    pub const fn max_size(&self) -> usize {
        self.max_size
    }
}
