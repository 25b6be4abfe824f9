//! From feeds to store: one bounded channel, batches, writers that overlap, and taps for observers.
//!
//! ```text
//! feeds ──▶ channel 10,000 ──▶ batcher 500 / 5 s ──▶ writers (side by side) ──▶ store
//!                                    │                  └──while it is away──▶ spool ──drain──▶ store
//!                                    └──chunks──▶ taps (paper trading): never waited for
//! ```
//!
//! Every tick that enters ends in the store, is kept there as rejected, waits in the spool, or is still in flight when the
//! process is stopped by force: the [`Ledger`] says which. When the store is slow the batch grows (to `max_coalesced`),
//! then the channel fills, then the feeds wait; when it is away batches go to the spool, and the feeds wait only once
//! that is full. A source that must know when what it sent is durable asks for a [`Receipt`]. The pipeline ends by itself
//! when the last feed has gone and everything is written, or spooled.

mod batcher;
mod channel;
mod decision;
mod drain;
mod durable;
mod health;
mod ledger;
mod probe;
mod receipt;
mod store_access;
mod store_circuit;
mod tap;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use batcher::Batcher;
pub use channel::{
    ChannelClosed, RecordReceiver, RecordSender, TickReceiver, TickSender, Utilization, channel,
};
pub use ledger::{Ledger, LedgerReading};
pub use probe::{PipelineProbe, PipelineStatus, StoreCircuitState};
pub use receipt::{Outcome, Receipt};
pub use tap::{Chunk, Delivery, Observer, TapReceiver, TapSender, tap};

use crate::config::{BatchSettings, PipelineSettings};
use crate::domain::{HeldSince, Tick, steady_micros};
use crate::store::Store;
use crate::store::spool::Spool;
use channel::Received;
use drain::Drain;
use durable::Durable;
use health::HealthLine;
use probe::Gauges;
use store_access::StoreAccess;
use writer::Writer;

/// Where batches go that the store cannot take.
#[derive(Debug)]
pub struct Spooling<R = Tick> {
    /// The spool; what it holds already is written first.
    pub spool: Spool<R>,
    /// When this is cancelled, what is not written yet goes to the spool at once.
    pub spool_now: CancellationToken,
    /// Decides when exactly a store that is away is tried again.
    pub seed: u64,
}

/// What a pipeline is made of.
#[derive(Debug)]
pub struct PipelineParts<S: Store> {
    /// Where its records come from.
    pub records: RecordReceiver<S::Record>,
    /// Where they go.
    pub store: Arc<S>,
    /// What is given every record beside the store.
    pub observers: Vec<Observer<S::Record>>,
    /// Where batches go that the store cannot take; without it they are kept in memory.
    pub spooling: Option<Spooling<S::Record>>,
}

/// The buffer of a batch that was written, and what became of its records.
type Written<R> = (Vec<R>, Outcome);

/// The batcher, its writers and taps, between the channel and the store.
#[derive(Debug)]
pub struct Pipeline<S: Store> {
    records: RecordReceiver<S::Record>,
    /// Records that were received and not yet given to the batcher; empty between two turns.
    incoming: Vec<S::Record>,
    batcher: Batcher<S::Record>,
    observers: Vec<Observer<S::Record>>,
    writer: Arc<Writer<S>>,
    writes: JoinSet<Written<S::Record>>,
    /// Of each task among the writes, its number.
    numbers: HashMap<Id, u64>,
    durable: Durable,
    /// When the channel was last seen empty: what waits in it was received later.
    emptied_at: i64,
    /// Since when the batcher holds its oldest record.
    batched_since: Option<i64>,
    /// What empties the spool, where there is one, until it runs.
    drain: Option<Drain<S>>,
    draining: JoinSet<()>,
    /// Buffers of batches that are written, for the next ones.
    spares: Vec<Vec<S::Record>>,
    probe: PipelineProbe<S::Record>,
    health_interval: std::time::Duration,
    reported: LedgerReading,
    input_ended: bool,
}

impl<S: Store> Pipeline<S> {
    /// A pipeline of these parts, which does nothing before it runs.
    #[must_use]
    pub fn new(
        parts: PipelineParts<S>,
        pipeline: &PipelineSettings,
        batch: &BatchSettings,
    ) -> Self {
        let PipelineParts { records, store, observers, spooling } = parts;
        let ledger = Arc::clone(records.ledger());
        let spool = spooling.as_ref().map(|spooling| spooling.spool.clone());
        let spool_now =
            spooling.as_ref().map(|spooling| spooling.spool_now.clone()).unwrap_or_default();
        let access = Arc::new(StoreAccess::new(store, batch.writers.get(), spool.clone()));
        let probe = PipelineProbe {
            gauges: Arc::new(Gauges::default()),
            circuit: Arc::clone(access.circuit()),
            backlog: spool.as_ref().map(Spool::watch),
            channel: records.weak(),
            channel_capacity: records.utilization().capacity,
            ledger: Arc::clone(&ledger),
            held: HeldSince::default(),
            batch_size: batch.max_size.get(),
            writers: batch.writers.get(),
        };
        ledger.record_found(probe.read().spool.ticks);
        let writer = Writer::new(Arc::clone(&access), Arc::clone(&ledger), spool, spool_now, batch);
        let reported = ledger.read();
        let drain = spooling
            .map(|spooling| Drain::new(access, ledger, spooling, batch.max_coalesced.get()));
        Self {
            records,
            incoming: Vec::with_capacity(batch.max_size.get()),
            batcher: Batcher::new(batch),
            observers,
            writer: Arc::new(writer),
            writes: JoinSet::new(),
            numbers: HashMap::new(),
            durable: Durable::default(),
            emptied_at: steady_micros(),
            batched_since: None,
            drain,
            draining: JoinSet::new(),
            spares: Vec::new(),
            probe,
            health_interval: pipeline.health_interval,
            reported,
            input_ended: false,
        }
    }

    /// What reads its state while it runs.
    #[must_use]
    pub fn probe(&self) -> PipelineProbe<S::Record> {
        self.probe.clone()
    }

    /// Since when it holds records that are nowhere else.
    #[must_use]
    pub fn held(&self) -> HeldSince {
        self.probe.held.clone()
    }

    /// Runs until every sender of the channel has gone and everything they sent is written or spooled.
    pub async fn run(mut self) {
        let mut health =
            tokio::time::interval_at(Instant::now() + self.health_interval, self.health_interval);
        health.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let finish = CancellationToken::new();
        if let Some(drain) = self.drain.take() {
            self.draining.spawn(drain.run(finish.clone()));
        }
        while !(self.is_through() && self.draining.is_empty()) {
            if self.is_through() {
                finish.cancel();
            }
            self.dispatch_due();
            self.note_held();
            let channel = self.records.utilization();
            self.probe.gauges.set(self.batcher.len(), self.writes.len(), channel.used);
            let writer_is_free = self.writer_is_free();
            let room = self.batcher.room(writer_is_free);
            self.writer.note_full(room == 0 && !writer_is_free);
            let due_at = self.batcher.due_at().unwrap_or_else(Instant::now);
            // Every branch is cancel-safe: a record is either still in the channel or in `incoming`.
            tokio::select! {
                biased;
                Some(written) = self.writes.join_next_with_id() => self.conclude(written),
                Some(drained) = self.draining.join_next() => log_panic(&drained),
                _ = health.tick() => self.report(),
                () = tokio::time::sleep_until(due_at), if writer_is_free && !self.batcher.is_empty() => {}
                received = self.records.receive(&mut self.incoming, room), if !self.input_ended => {
                    match received {
                        Received::Records(received) => self.take_in(received),
                        Received::Claim { claim, end } => self.durable.wait_for(claim, end),
                    }
                }
            }
        }
        while let Some((claim, end)) = self.records.waiting_claim() {
            self.durable.wait_for(claim, end);
        }
        // The probe outlives the pipeline.
        self.note_held();
        self.probe.gauges.set(0, 0, 0);
        debug!(ledger = %self.probe.ledger.read(), "Pipeline drained");
    }

    /// Whether everything that came in is written or spooled, and nothing more will come.
    fn is_through(&self) -> bool {
        self.input_ended && self.batcher.is_empty() && self.writes.is_empty()
    }

    fn writer_is_free(&self) -> bool {
        self.writes.len() < self.probe.writers
    }

    fn take_in(&mut self, received: usize) {
        if received == 0 {
            self.input_ended = true;
            return;
        }
        if !self.observers.is_empty() {
            let chunk: Chunk<S::Record> = self.incoming.as_slice().into();
            self.observers.iter_mut().for_each(|observer| observer.tap.offer(&chunk));
        }
        self.batched_since.get_or_insert(self.emptied_at);
        self.batcher.append(&mut self.incoming, Instant::now());
    }

    /// Notes since when records are held: by those under way, in the batcher and in the channel.
    fn note_held(&mut self) {
        let is_empty = self.records.utilization().used == 0;
        let waiting = (!is_empty).then_some(self.emptied_at);
        let since = [self.durable.since(), self.batched_since, waiting];
        self.probe.held.set(since.into_iter().flatten().min());
        if is_empty {
            self.emptied_at = steady_micros();
        }
    }

    /// Gives the batch to a free writer when it is full or due, or when nothing more will come.
    fn dispatch_due(&mut self) {
        let is_last = self.input_ended && !self.batcher.is_empty();
        if self.writer_is_free() && (is_last || self.batcher.is_due(Instant::now())) {
            let batch = self.batcher.take(self.spares.pop().unwrap_or_default());
            let writer = Arc::clone(&self.writer);
            let since = self.batched_since.take().unwrap_or(self.emptied_at);
            let number = self.durable.begin(batch.len(), since);
            let task = self.writes.spawn(async move { writer.write(batch).await });
            self.numbers.insert(task.id(), number);
        }
    }

    /// A write has ended: its records are stored or spooled, and its buffer is free; or it has panicked.
    fn conclude(&mut self, written: Result<(Id, Written<S::Record>), JoinError>) {
        log_panic(&written);
        let (task, outcome) = match written {
            Ok((task, (buffer, outcome))) => {
                self.spares.push(buffer);
                (task, outcome)
            }
            Err(panicked) => (panicked.id(), Outcome::Dropped),
        };
        if let Some(number) = self.numbers.remove(&task) {
            self.durable.end(number, outcome);
        }
        let through = self.durable.through();
        self.observers.iter().for_each(|observer| observer.tap.publish_stored(through));
    }

    fn report(&mut self) {
        let now = self.probe.read();
        let previous = std::mem::replace(&mut self.reported, now.ledger);
        let line = HealthLine { seconds: self.health_interval.as_secs(), previous, now };
        info!("{line}");
        self.observers.iter().for_each(|observer| info!("{}", (observer.report)()));
        debug!("Ledger: {}", now.ledger);
        if line.is_slow() {
            warn!(
                "Batch buffer {}% full ({}/{}), database writes may be slow",
                line.buffer_percent(),
                now.buffered,
                now.batch_size
            );
        }
    }
}

/// A writer or the drain has no reason to panic; if one does, its batch stays where the ledger says that it is.
fn log_panic<T>(ended: &Result<T, JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "A task of the pipeline panicked");
    }
}
