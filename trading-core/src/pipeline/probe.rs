//! How the pipeline is now, for whoever asks while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::WeakSender;
use tokio::sync::watch;
use tokio::time::Instant;

use super::channel::Utilization;
use super::ledger::{Ledger, LedgerReading};
use super::store_circuit::StoreCircuit;
use crate::domain::{HeldSince, Tick};
use crate::store::spool::Backlog;

/// A pipeline at one moment: the health line, the log and whoever asks read this and nothing else.
#[derive(Debug, Clone, Copy)]
pub struct PipelineStatus {
    /// Where every record is; it balances.
    pub ledger: LedgerReading,
    /// Records in the batch that is being filled.
    pub buffered: usize,
    /// Records that make a batch full; more wait while all writers are busy.
    pub batch_size: usize,
    /// How full the channel is.
    pub channel: Utilization,
    /// Writers that have a batch.
    pub writers_busy: usize,
    /// Writers there are.
    pub writers: usize,
    /// Whether the store takes batches.
    pub store_circuit: StoreCircuitState,
    /// How long the store's outage has lasted: batches may go to the store again, for a trial. `None`: there is none.
    pub outage: Option<Duration>,
    /// What waits in the spool; nothing without one.
    pub spool: Backlog,
    /// How long the oldest record has been held that is nowhere else; zero where none is.
    pub held_for: Duration,
}

/// Whether the store takes batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreCircuitState {
    /// It does.
    Closed,
    /// It is away: a batch has spent its retries, or waited long for an answer.
    Open,
}

/// What only the pipeline's own loop knows, as of its last turn.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    buffered: AtomicUsize,
    writers_busy: AtomicUsize,
    channel_used: AtomicUsize,
}

impl Gauges {
    pub(super) fn set(&self, buffered: usize, writers_busy: usize, channel_used: usize) {
        self.buffered.store(buffered, Ordering::Relaxed);
        self.writers_busy.store(writers_busy, Ordering::Relaxed);
        self.channel_used.store(channel_used, Ordering::Relaxed);
    }
}

/// Reads the state of a pipeline. It keeps no pipeline from ending.
#[derive(Debug, Clone)]
pub struct PipelineProbe<R = Tick> {
    pub(super) gauges: Arc<Gauges>,
    pub(super) circuit: Arc<StoreCircuit>,
    /// Of the spool, whose lock a probe does not keep.
    pub(super) backlog: Option<watch::Receiver<Backlog>>,
    pub(super) channel: WeakSender<R>,
    pub(super) channel_capacity: usize,
    pub(super) ledger: Arc<Ledger>,
    pub(super) held: HeldSince,
    pub(super) batch_size: usize,
    pub(super) writers: usize,
}

impl<R> PipelineProbe<R> {
    /// Its state now.
    #[must_use]
    pub fn read(&self) -> PipelineStatus {
        let get = |gauge: &AtomicUsize| gauge.load(Ordering::Relaxed);
        let capacity = self.channel_capacity;
        // Asked of the channel itself: it fills while the loop waits for a writer. Once every source has gone only the
        // loop changes it.
        let used = self.channel.upgrade().map_or_else(
            || get(&self.gauges.channel_used),
            |channel| capacity.saturating_sub(channel.capacity()),
        );
        PipelineStatus {
            ledger: self.ledger.read(),
            buffered: get(&self.gauges.buffered),
            batch_size: self.batch_size,
            channel: Utilization { used, capacity },
            writers_busy: get(&self.gauges.writers_busy),
            writers: self.writers,
            store_circuit: if self.circuit.is_open() {
                StoreCircuitState::Open
            } else {
                StoreCircuitState::Closed
            },
            outage: self.circuit.open_for(Instant::now()),
            spool: self.backlog.as_ref().map(|backlog| *backlog.borrow()).unwrap_or_default(),
            held_for: self.held.age(),
        }
    }
}
