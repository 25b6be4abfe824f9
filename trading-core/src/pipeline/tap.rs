//! A side channel for observers (paper trading, subscribers): recording never waits for them.
//!
//! Bounded in records. A chunk that does not fit is not delivered at all, and counted: the next delivery says how many
//! records were missed before it. What is delivered is in order. The pipeline also publishes how far the records are
//! stored, for an observer that must not run ahead of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{mpsc, watch};

use crate::domain::{Record, Tick, count};

/// Records in the order in which the pipeline took them, shared by all observers.
pub type Chunk<R = Tick> = Arc<[R]>;

/// One chunk, and what was lost before it.
#[derive(Debug, Clone)]
pub struct Delivery<R = Tick> {
    /// Records that did not fit since the delivery before this one.
    pub missed: u64,
    /// The records.
    pub chunk: Chunk<R>,
    /// Records offered since the start, with these and those missed: what [`TapReceiver::stored`] counts in.
    pub through: u64,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: AtomicUsize,
    missed_total: AtomicU64,
}

/// The pipeline's end of a tap.
#[derive(Debug)]
pub struct TapSender<R = Tick> {
    chunks: mpsc::Sender<Delivery<R>>,
    shared: Arc<Shared>,
    capacity: usize,
    missed: u64,
    offered: u64,
    stored: watch::Sender<u64>,
}

/// An observer: a tap, and a line beside the health line.
pub struct Observer<R = Tick> {
    /// Where it is given the records.
    pub tap: TapSender<R>,
    /// Its own line, logged after each health line.
    pub report: Box<dyn Fn() -> String + Send>,
}

impl<R: Record> std::fmt::Debug for Observer<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").field("tap", &self.tap).finish_non_exhaustive()
    }
}

/// The observer's end of a tap.
#[derive(Debug)]
pub struct TapReceiver<R = Tick> {
    chunks: mpsc::Receiver<Delivery<R>>,
    shared: Arc<Shared>,
    stored: watch::Receiver<u64>,
}

/// A tap that holds up to `capacity` records.
#[must_use]
pub fn tap<R: Record>(capacity: usize) -> (TapSender<R>, TapReceiver<R>) {
    let shared = Arc::new(Shared::default());
    // A chunk holds at least one record, so this many chunks never bound it before the count of records does.
    let (sender, receiver) = mpsc::channel(capacity.max(1));
    let (stored, stored_receiver) = watch::channel(0);
    let sender = TapSender {
        chunks: sender,
        shared: Arc::clone(&shared),
        capacity,
        missed: 0,
        offered: 0,
        stored,
    };
    (sender, TapReceiver { chunks: receiver, shared, stored: stored_receiver })
}

impl<R: Record> TapSender<R> {
    /// Offers a chunk; never waits. What does not fit, or is offered after the receiver has gone, is counted as missed.
    pub fn offer(&mut self, chunk: &Chunk<R>) {
        let waiting = self.shared.waiting.load(Ordering::Acquire);
        let fits = waiting.saturating_add(chunk.len()) <= self.capacity || waiting == 0;
        let length = count(chunk.len());
        self.offered = self.offered.saturating_add(length);
        let delivery =
            Delivery { missed: self.missed, chunk: Arc::clone(chunk), through: self.offered };
        self.shared.waiting.fetch_add(chunk.len(), Ordering::AcqRel);
        if fits && self.chunks.try_send(delivery).is_ok() {
            self.missed = 0;
        } else {
            self.shared.waiting.fetch_sub(chunk.len(), Ordering::AcqRel);
            self.missed += length;
            self.shared.missed_total.fetch_add(length, Ordering::Relaxed);
        }
    }

    /// Publishes that the first `records` of those offered are where a crash does not reach them.
    pub fn publish_stored(&self, records: u64) {
        self.stored.send_if_modified(|stored| std::mem::replace(stored, records) != records);
    }

    /// Records missed since the start.
    #[must_use]
    pub fn missed_total(&self) -> u64 {
        self.shared.missed_total.load(Ordering::Relaxed)
    }
}

impl<R: Record> TapReceiver<R> {
    /// The next chunk; `None` when the pipeline has ended and everything was delivered. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Delivery<R>> {
        let delivery = self.chunks.recv().await?;
        self.shared.waiting.fetch_sub(delivery.chunk.len(), Ordering::AcqRel);
        Some(delivery)
    }

    /// How many of the records offered are stored, from the first on without a hole. A pipeline that ended before it had
    /// stored everything leaves the count where it was.
    #[must_use]
    pub fn stored(&self) -> watch::Receiver<u64> {
        self.stored.clone()
    }

    /// Records missed since the start.
    #[must_use]
    pub fn missed_total(&self) -> u64 {
        self.shared.missed_total.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::tick;

    fn chunk(ids: std::ops::Range<u64>) -> Chunk {
        ids.map(tick).collect()
    }

    #[tokio::test]
    async fn what_does_not_fit_is_missed_and_told_with_the_next_chunk() {
        let (mut sender, mut receiver) = tap(10);
        sender.offer(&chunk(0..6));
        sender.offer(&chunk(6..12)); // 12 would wait: missed.
        sender.offer(&chunk(12..16)); // Exactly full.
        assert_eq!(sender.missed_total(), 6);
        let first = receiver.recv().await.unwrap();
        assert_eq!((first.missed, first.chunk.len()), (0, 6));
        let second = receiver.recv().await.unwrap();
        assert_eq!((second.missed, second.chunk.len()), (6, 4));
        assert_eq!((first.through, second.through), (6, 16));
        drop(sender);
        assert!(receiver.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_chunk_larger_than_the_tap_passes_when_nothing_waits() {
        let (mut sender, mut receiver) = tap(2);
        sender.offer(&chunk(0..5));
        assert_eq!(receiver.recv().await.unwrap().chunk.len(), 5);
        assert_eq!(receiver.missed_total(), 0);
    }
}
