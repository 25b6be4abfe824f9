//! How the pipeline is now, for whoever asks while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::WeakSender;
use tokio::time::Instant;

use super::channel::Utilization;
use super::health::StoreCircuitState;
use super::ledger::Ledger;
use super::store_circuit::StoreCircuit;
use crate::domain::{HeldSince, Tick};
use crate::store::spool::{Backlog, Spool};

/// What only the pipeline's own loop knows, as of its last turn.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    buffered: AtomicUsize,
    writers_busy: AtomicUsize,
}

impl Gauges {
    pub(super) fn set(&self, buffered: usize, writers_busy: usize) {
        self.buffered.store(buffered, Ordering::Relaxed);
        self.writers_busy.store(writers_busy, Ordering::Relaxed);
    }
}

/// Reads the state of a pipeline. It keeps no pipeline from ending.
#[derive(Debug, Clone)]
pub struct PipelineProbe<R = Tick> {
    pub(super) gauges: Arc<Gauges>,
    pub(super) circuit: Arc<StoreCircuit>,
    pub(super) spool: Option<Spool<Tick>>,
    pub(super) channel: WeakSender<R>,
    pub(super) channel_capacity: usize,
    pub(super) ledger: Arc<Ledger>,
    pub(super) held: HeldSince,
    pub(super) batch_size: usize,
    pub(super) writers: usize,
}

impl<R> PipelineProbe<R> {
    /// Records in the batch that is being filled.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.gauges.buffered.load(Ordering::Relaxed)
    }

    /// Records that make a batch full; more wait while all writers are busy.
    #[must_use]
    pub const fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// How full the channel is. Empty once every source has gone.
    #[must_use]
    pub fn channel(&self) -> Utilization {
        let capacity = self.channel_capacity;
        let free = self.channel.upgrade().map_or(capacity, |channel| channel.capacity());
        Utilization { used: capacity.saturating_sub(free), capacity }
    }

    /// Writers that have a batch.
    #[must_use]
    pub fn writers_busy(&self) -> usize {
        self.gauges.writers_busy.load(Ordering::Relaxed)
    }

    /// Writers there are.
    #[must_use]
    pub const fn writers(&self) -> usize {
        self.writers
    }

    /// What waits in the spool; nothing without one.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        self.spool.as_ref().map(Spool::backlog).unwrap_or_default()
    }

    /// Whether the store takes batches.
    #[must_use]
    pub fn store_circuit(&self) -> StoreCircuitState {
        if self.circuit.is_open() { StoreCircuitState::Open } else { StoreCircuitState::Closed }
    }

    /// How long the store's outage has lasted: batches may go to the store again, for a trial. `None`: there is none.
    #[must_use]
    pub fn outage(&self) -> Option<Duration> {
        self.circuit.open_for(Instant::now())
    }

    /// Since when the pipeline holds records that are nowhere else.
    #[must_use]
    pub fn held(&self) -> HeldSince {
        self.held.clone()
    }

    /// Its counters.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}
