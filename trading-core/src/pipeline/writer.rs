//! One batch to the store: tried again while the error can pass, and never given up.
//!
//! After the retries are spent the store is called away and the batch is kept trying, more slowly. Meanwhile the
//! other writers fill up, then the batcher, then the channel, and the feeds wait: that is the backpressure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use backon::BackoffBuilder as _;
use tracing::{error, info, warn};

use super::ledger::Ledger;
use crate::config::BatchSettings;
use crate::domain::Tick;
use crate::store::{Remedy, Store, StoreError, Written};

/// The longest wait between two attempts at a store that is away, which jitter may double: short enough that a store
/// which is back is found well before a stop's deadline.
const AWAY_DELAY_MAX: Duration = Duration::from_secs(5);

/// A write that takes longer than this is told: an operator sees it before the store is given up.
const ANSWER_SLOW: Duration = Duration::from_secs(10);

/// What every writer shares.
#[derive(Debug)]
pub(super) struct Writer<S> {
    store: Arc<S>,
    ledger: Arc<Ledger>,
    retries_max: u32,
    retry_delay: Duration,
    /// Batches whose retries are spent, or that wait long for an answer.
    away: AtomicUsize,
    /// Decides the jitter of each batch's waits, so that writers which failed together do not come back together.
    seed: AtomicU64,
}

impl<S: Store> Writer<S> {
    pub(super) const fn new(store: Arc<S>, ledger: Arc<Ledger>, settings: &BatchSettings) -> Self {
        Self {
            store,
            ledger,
            retries_max: settings.max_retry_attempts,
            retry_delay: settings.retry_delay,
            away: AtomicUsize::new(0),
            seed: AtomicU64::new(0x9e37_79b9_7f4a_7c15),
        }
    }

    /// Whether some batch has spent its retries and the store has not answered since.
    pub(super) fn store_is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed) > 0
    }

    /// The store's answer. One that takes long is told and counts as being away, before anybody gives up.
    async fn answer(&self, batch: &[Tick]) -> Result<Written, StoreError> {
        let mut writing = std::pin::pin!(self.store.write(batch));
        tokio::select! {
            written = &mut writing => return written,
            () = tokio::time::sleep(ANSWER_SLOW) => {}
        }
        warn!(ticks = batch.len(), "No answer from the store for {} s", ANSWER_SLOW.as_secs());
        self.away.fetch_add(1, Ordering::Relaxed);
        let written = writing.await;
        self.away.fetch_sub(1, Ordering::Relaxed);
        written
    }

    /// Writes a batch, however long it takes, and gives its buffer back, empty.
    pub(super) async fn write(&self, mut batch: Vec<Tick>) -> Vec<Tick> {
        let mut delays = backon::ExponentialBuilder::new()
            .with_min_delay(self.retry_delay)
            .with_max_delay(AWAY_DELAY_MAX.max(self.retry_delay))
            .with_factor(2.0)
            .with_jitter()
            .with_jitter_seed(self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
            .without_max_times()
            .build();
        let mut failures: u32 = 0;
        let mut away = false;
        let written = loop {
            match self.answer(&batch).await {
                Ok(written) => break written,
                Err(error) => {
                    failures = failures.saturating_add(1);
                    let spent = failures > self.retries_max || error.remedy() == Remedy::Stop;
                    if spent && !away {
                        away = true;
                        self.away.fetch_add(1, Ordering::Relaxed);
                        self.ledger.record_failed();
                    }
                    let delay = delays.next().unwrap_or(AWAY_DELAY_MAX);
                    tell_failure(&error, away, failures, batch.len(), delay);
                    tokio::time::sleep(delay).await;
                    self.ledger.record_retry();
                }
            }
        };
        if away {
            self.away.fetch_sub(1, Ordering::Relaxed);
        }
        if failures > 0 {
            info!(failures, ticks = batch.len(), "Batch written at last");
        }
        self.ledger.record_written(written);
        batch.clear();
        batch
    }
}

fn tell_failure(error: &StoreError, away: bool, failures: u32, ticks: usize, delay: Duration) {
    let cause = std::error::Error::source(error).map(tracing::field::display);
    if away {
        error!(
            ticks, failures, retry_in = ?delay, cause,
            "Store away: {error}. The batch is kept and tried again; feeds are held once the channel is full"
        );
    } else {
        warn!(ticks, failures, retry_in = ?delay, cause, "Batch not written: {error}");
    }
}
