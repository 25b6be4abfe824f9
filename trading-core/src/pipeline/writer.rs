//! One batch to the store, or to the spool while the store is away; never given up.
//!
//! A write is tried again while the error can pass. After the retries, without an answer for long, or when there is no
//! room left for what comes in meanwhile, the store circuit opens and the batch goes to the spool, and so does every
//! other at once, until a write succeeds again. What the spool does not take (it is full, its disk fails, there is
//! none) is kept and tried again slowly: the other writers fill up, then the batcher, then the channel, and the feeds
//! wait. That is the backpressure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backon::BackoffBuilder as _;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::circuit::{StoreCircuit, Trouble};
use super::ledger::Ledger;
use crate::config::BatchSettings;
use crate::domain::Tick;
use crate::store::spool::{Backlog, Spool, SpoolError};
use crate::store::{DaysLeft, Remedy, Store, StoreError, Written, cause_of};
use crate::telemetry::{Lasting, SharedLimiter};

/// The longest wait between two attempts at a store that is away, which jitter may double: short enough that a store
/// which is back is found well before a stop's deadline.
const AWAY_DELAY_MAX: Duration = Duration::from_secs(5);

/// A write without an answer for so long is given up where the spool can take its batch: writing it again is
/// harmless, and the feeds do not wait for it.
const ANSWER_SLOW: Duration = Duration::from_secs(10);

/// What every writer shares, and the drain.
#[derive(Debug)]
pub(super) struct Writer<S> {
    store: Arc<S>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) circuit: StoreCircuit,
    spool: Option<Spool>,
    /// Raised near a stop's deadline: what is not written goes to the spool now.
    pub(super) hurry: CancellationToken,
    /// Whether the batcher is full and no writer is free: there is no time for retries.
    pressed: watch::Sender<bool>,
    /// A turn at the store: as many writes at once as there are writers, the drain's among them.
    turns: Semaphore,
    retries_max: u32,
    retry_delay: Duration,
    /// Decides the jitter of each batch's waits, so that writers which failed together do not come back together.
    seed: AtomicU64,
    retried: SharedLimiter,
    kept: SharedLimiter,
    unmade: SharedLimiter,
}

impl<S: Store> Writer<S> {
    pub(super) fn new(store: Arc<S>, ledger: Arc<Ledger>, settings: &BatchSettings) -> Self {
        Self {
            store,
            ledger,
            circuit: StoreCircuit::new(),
            spool: None,
            hurry: CancellationToken::new(),
            pressed: watch::Sender::new(false),
            turns: Semaphore::new(settings.writers.get()),
            retries_max: settings.max_retry_attempts,
            retry_delay: settings.retry_delay,
            seed: AtomicU64::new(0x9e37_79b9_7f4a_7c15),
            retried: SharedLimiter::default(),
            kept: SharedLimiter::default(),
            unmade: SharedLimiter::default(),
        }
    }

    /// From here on the spool takes what the store does not.
    pub(super) fn use_spool(&mut self, spool: Spool, hurry: CancellationToken) {
        self.spool = Some(spool);
        self.hurry = hurry;
    }

    /// What waits in the spool.
    pub(super) fn backlog(&self) -> Backlog {
        self.spool.as_ref().map(Spool::backlog).unwrap_or_default()
    }

    /// Says whether what comes in has no room any more.
    pub(super) fn press(&self, is_pressed: bool) {
        self.pressed
            .send_if_modified(|pressed| std::mem::replace(pressed, is_pressed) != is_pressed);
    }

    /// Takes a batch to the store or to the spool, and gives its buffer back, empty.
    pub(super) async fn write(&self, mut batch: Vec<Tick>) -> Vec<Tick> {
        let mut delays = backon::ExponentialBuilder::new()
            .with_min_delay(self.retry_delay)
            .with_max_delay(AWAY_DELAY_MAX.max(self.retry_delay))
            .with_factor(2.0)
            .with_jitter()
            .with_jitter_seed(self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
            .without_max_times()
            .build();
        let mut delay = move || delays.next().unwrap_or(AWAY_DELAY_MAX);
        let mut failures: u32 = 0;
        let mut spent = false;
        let written = loop {
            let is_kept = if spent || self.circuit.bars() || self.hurry.is_cancelled() {
                batch = match self.shelve(batch).await {
                    Ok(emptied) => return emptied,
                    Err(kept) => kept,
                };
                self.wait_for_store(delay()).await;
                true
            } else {
                false
            };
            if failures > 0 {
                self.ledger.record_retry();
            }
            match self.attempt(&batch, is_kept || self.spool.is_none()).await {
                None => {}
                Some(Ok(written)) => break written,
                Some(Err(StoreError::Days(days))) => {
                    batch = self.take_left(*days, &mut spent, delay()).await;
                }
                Some(Err(error)) => {
                    failures = failures.saturating_add(1);
                    let is_last = failures > self.retries_max
                        || error.remedy() == Remedy::Stop
                        || matches!(error, StoreError::Silent(_));
                    if is_last || !self.wait_for_retry(&error, failures, batch.len(), delay()).await
                    {
                        if !spent {
                            self.ledger.record_failed();
                        }
                        spent = true;
                        self.open_circuit(&error, failures);
                    }
                }
            }
        };
        self.close_circuit();
        if failures > 0 {
            info!(failures, ticks = batch.len(), "Batch written at last");
        }
        self.ledger.record_written(written);
        batch.clear();
        batch
    }

    /// The store is there and has taken all but the ticks of some days. What is left is written again at once where that
    /// goes on; else it waits in the spool, and no other batch waits for it.
    async fn take_left(&self, days: DaysLeft, spent: &mut bool, delay: Duration) -> Vec<Tick> {
        self.close_circuit();
        self.ledger.record_written(days.written);
        if !days.goes_on {
            self.tell_days(&days);
            *spent = true;
            if self.spool.is_none() {
                tokio::time::sleep(delay).await;
            }
        }
        days.left
    }

    /// Says which day cannot be made, and what can be done about it.
    pub(super) fn tell_days(&self, days: &DaysLeft) {
        // Only the first refusal of a day has a cause to tell.
        if days.cause.is_none() {
            return;
        }
        if let Some(unsaid) = self.unmade.admit(Instant::now()) {
            let then = if self.spool.is_some() { "; they wait in the spool" } else { "" };
            error!(cause = cause_of(days), "Ticks not stored yet: {days}{then}{unsaid}");
        }
    }

    /// One attempt. Only a patient one waits as long as the store itself does; `None`: given up in a hurry.
    async fn attempt(
        &self,
        batch: &[Tick],
        is_patient: bool,
    ) -> Option<Result<Written, StoreError>> {
        let mut writing = std::pin::pin!(self.write_in_turn(batch));
        tokio::select! {
            biased;
            written = &mut writing => return Some(written),
            () = self.hurry.cancelled(), if !is_patient => return None,
            () = tokio::time::sleep(ANSWER_SLOW) => {}
        }
        let silent = StoreError::Silent(ANSWER_SLOW);
        if !is_patient {
            return Some(Err(silent));
        }
        self.open_circuit(&silent, 0);
        Some(writing.await)
    }

    /// Writes when it is our turn.
    pub(super) async fn write_in_turn(&self, batch: &[Tick]) -> Result<Written, StoreError> {
        // Closed by nobody; if it were, a write out of turn is better than none.
        let _turn = self.turns.acquire().await.ok();
        self.store.write(batch).await
    }

    /// To the spool; the batch itself comes back where the spool does not take it.
    async fn shelve(&self, batch: Vec<Tick>) -> Result<Vec<Tick>, Vec<Tick>> {
        let Some(spool) = &self.spool else { return Err(batch) };
        let ticks = batch.len();
        let (batch, done) = spool.append(batch).await;
        match done {
            Ok(()) => {
                self.ledger.record_spooled(ticks);
                Ok(batch)
            }
            Err(error) => {
                self.tell_kept(&error, spool);
                Err(batch)
            }
        }
    }

    /// After a failure that can pass. No longer than until the batch has another way; `false`: there is no time for a
    /// retry.
    async fn wait_for_retry(
        &self,
        error: &StoreError,
        failures: u32,
        ticks: usize,
        delay: Duration,
    ) -> bool {
        if let Some(unsaid) = self.retried.admit(Instant::now()) {
            let (cause, unsaid) = (cause_of(error), unsaid);
            warn!(ticks, failures, retry_in = %Lasting(delay), cause, "Batch not written: {error}{unsaid}");
        }
        let mut pressed = self.pressed.subscribe();
        tokio::select! {
            () = tokio::time::sleep(delay) => true,
            () = self.circuit.until_open_is(true) => true,
            () = self.hurry.cancelled() => true,
            _ = pressed.wait_for(|pressed| *pressed), if self.spool.is_some() => false,
        }
    }

    /// With a batch that nobody takes. No longer than until the store is back.
    async fn wait_for_store(&self, delay: Duration) {
        let is_open = self.circuit.is_open();
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.circuit.until_open_is(false), if is_open => {}
        }
    }

    pub(super) fn open_circuit(&self, error: &StoreError, failures: u32) {
        let trouble = match error {
            StoreError::Silent(_) => Trouble::Silent,
            _ => Trouble::Refused,
        };
        if !self.circuit.open(Instant::now(), trouble) {
            return;
        }
        let cause = cause_of(error);
        match &self.spool {
            Some(spool) => error!(
                failures,
                cause,
                "Store circuit OPEN: {error}; batches go to the spool at {}",
                spool.dir().display()
            ),
            None => error!(
                failures,
                cause,
                "Store circuit OPEN: {error}; batches are kept in memory, and the feeds wait once the channel is full"
            ),
        }
    }

    pub(super) fn close_circuit(&self) {
        let Some(open_for) = self.circuit.close(Instant::now()) else { return };
        let open_for = Lasting(open_for);
        let Backlog { batches, ticks, .. } = self.backlog();
        if batches > 0 {
            info!(
                "Store circuit CLOSED after {open_for}; draining {batches} batches ({ticks} ticks) from the spool"
            );
        } else {
            info!("Store circuit CLOSED after {open_for}; nothing waits in the spool");
        }
    }

    fn tell_kept(&self, error: &SpoolError, spool: &Spool) {
        let Some(unsaid) = self.kept.admit(Instant::now()) else { return };
        let (cause, unsaid) = (cause_of(error), unsaid);
        let (dir, then) = (
            spool.dir().display(),
            "batches are kept in memory, and the feeds wait once the channel is full",
        );
        if matches!(error, SpoolError::Full { .. }) {
            warn!("Spool full at {dir}: {error}; {then}{unsaid}");
        } else {
            let remedy = error.remedy();
            error!(cause, "Spool not written at {dir}: {error}{remedy}; {then}{unsaid}");
        }
    }
}
