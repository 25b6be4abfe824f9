//! One batch to the store, or to the spool while the store is away; never given up.
//!
//! A write is tried again while the error can pass. After the retries, without an answer for long, or when there is no
//! room left for what comes in meanwhile, the store circuit opens and the batch goes to the spool, and so does every
//! other at once, until a write succeeds again. What the spool does not take (it is full, its disk fails, there is
//! none) is kept and tried again slowly: the other writers fill up, then the batcher, then the channel, and the feeds
//! wait. That is the backpressure.
//!
//! What comes after what is decided in [`super::decision`]; here it is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::decision::{Event, Next, Progress, Rules};
use super::ledger::Ledger;
use super::receipt::Outcome;
use super::store_access::StoreAccess;
use crate::config::BatchSettings;
use crate::domain::Backoff;
use crate::store::spool::{Spool, SpoolError};
use crate::store::{Remedy, Store, StoreError, cause_of};
use crate::telemetry::{Lasting, SharedLimiter};

/// The longest wait between two attempts at a store that is away, which jitter may double: short enough that a store
/// which is back is found well before a stop's deadline.
const AWAY_DELAY_MAX: Duration = Duration::from_secs(5);

/// What every writer shares.
#[derive(Debug)]
pub(super) struct Writer<S: Store> {
    access: Arc<StoreAccess<S>>,
    ledger: Arc<Ledger>,
    spool: Option<Spool<S::Record>>,
    /// Cancelled near a stop's deadline: what is not written goes to the spool now.
    spool_now: CancellationToken,
    /// Whether the batcher is full and no writer is free: there is no time for retries.
    batcher_is_full: watch::Sender<bool>,
    rules: Rules,
    retry_delay: Duration,
    /// Decides the jitter of each batch's waits, so that writers which failed together do not come back together.
    seed: AtomicU64,
    retried: SharedLimiter,
    kept: SharedLimiter,
}

impl<S: Store> Writer<S> {
    pub(super) fn new(
        access: Arc<StoreAccess<S>>,
        ledger: Arc<Ledger>,
        spool: Option<Spool<S::Record>>,
        spool_now: CancellationToken,
        settings: &BatchSettings,
    ) -> Self {
        let rules = Rules { retries_max: settings.max_retry_attempts, has_spool: spool.is_some() };
        Self {
            access,
            ledger,
            spool,
            spool_now,
            batcher_is_full: watch::Sender::new(false),
            rules,
            retry_delay: settings.retry_delay,
            seed: AtomicU64::new(0),
            retried: SharedLimiter::default(),
            kept: SharedLimiter::default(),
        }
    }

    /// Notes whether what comes in has no room any more.
    pub(super) fn note_full(&self, is_full: bool) {
        self.batcher_is_full.send_if_modified(|noted| std::mem::replace(noted, is_full) != is_full);
    }

    /// Takes a batch to the store or to the spool; returns its buffer, empty, and where the last of it went.
    pub(super) async fn write(&self, mut batch: Vec<S::Record>) -> (Vec<S::Record>, Outcome) {
        let seed = self.seed.fetch_add(1, Ordering::Relaxed);
        let mut backoff = Backoff::new(self.retry_delay, AWAY_DELAY_MAX, seed);
        let mut progress = Progress::default();
        let mut event = Event::Arrived;
        let mut last_error = None;
        let outcome = loop {
            let next;
            (progress, next) = progress.next(event, self.rules);
            event = match next {
                Next::AskCircuit => self.ask_circuit(),
                Next::Store { is_patient } => {
                    if progress.failures > 0 {
                        self.ledger.record_retry();
                    }
                    self.store(&mut batch, is_patient, &mut last_error).await
                }
                Next::WaitForRetry => {
                    let delay = backoff.next_delay();
                    self.wait_for_retry(last_error.as_ref(), progress, batch.len(), delay).await
                }
                Next::GiveUp { is_first } => {
                    if is_first {
                        self.ledger.record_failed();
                    }
                    if let Some(error) = &last_error {
                        self.access.open(error, progress.failures);
                    }
                    Event::GivenUp
                }
                Next::Spool => self.spool(&mut batch).await,
                Next::WaitForStore => self.wait_for_store(backoff.next_delay()).await,
                Next::Done(outcome) => break outcome,
            };
        };
        if outcome == Outcome::Stored && progress.failures > 0 {
            info!(failures = progress.failures, ticks = batch.len(), "Batch written after retries");
        }
        batch.clear();
        (batch, outcome)
    }

    fn ask_circuit(&self) -> Event {
        let circuit = self.access.circuit();
        // While it is open, one batch that takes up the request for a trial may go all the same.
        if self.spool_now.is_cancelled() || (circuit.is_open() && !circuit.take_up_trial()) {
            Event::Barred
        } else {
            Event::Allowed
        }
    }

    /// One attempt at the store. What it leaves of the batch stays in it.
    async fn store(
        &self,
        batch: &mut Vec<S::Record>,
        is_patient: bool,
        last_error: &mut Option<StoreError<S::Record>>,
    ) -> Event {
        let written = tokio::select! {
            biased;
            written = self.access.try_write(batch, is_patient) => written,
            () = self.spool_now.cancelled(), if !is_patient => return Event::Abandoned,
        };
        match written {
            Ok(written) => {
                self.ledger.record_written(written);
                Event::Stored
            }
            Err(StoreError::Days(days)) => {
                self.ledger.record_written(days.written);
                *batch = days.left;
                Event::DaysLeft { goes_on: days.goes_on }
            }
            Err(error) => {
                let is_silent = matches!(error, StoreError::Silent(_));
                let can_pass = !is_silent && error.remedy() != Remedy::Stop;
                *last_error = Some(error);
                Event::Failed { can_pass }
            }
        }
    }

    async fn spool(&self, batch: &mut Vec<S::Record>) -> Event {
        let Some(spool) = &self.spool else { return Event::SpoolRefused };
        let ticks = batch.len();
        let done;
        (*batch, done) = spool.append(std::mem::take(batch)).await;
        match done {
            Ok(()) => {
                self.ledger.record_spooled(ticks);
                Event::Spooled
            }
            Err(error) => {
                self.log_kept(&error, spool);
                Event::SpoolRefused
            }
        }
    }

    /// After a failure that can pass. No longer than until the batch has another way.
    async fn wait_for_retry(
        &self,
        error: Option<&StoreError<S::Record>>,
        Progress { failures, .. }: Progress,
        ticks: usize,
        delay: Duration,
    ) -> Event {
        if let Some(error) = error
            && let Some(unsaid) = self.retried.admit(Instant::now())
        {
            let cause = cause_of(error);
            warn!(ticks, failures, retry_in = %Lasting(delay), cause, "Batch not written: {error}{unsaid}");
        }
        let mut is_full = self.batcher_is_full.subscribe();
        tokio::select! {
            () = sleep(delay) => Event::RetryDue,
            () = self.access.circuit().until_open_is(true) => Event::RetryDue,
            () = self.spool_now.cancelled() => Event::RetryDue,
            _ = is_full.wait_for(|is_full| *is_full), if self.rules.has_spool => Event::BatcherFull,
        }
    }

    /// With a batch that has no place. No longer than until the store is back.
    async fn wait_for_store(&self, delay: Duration) -> Event {
        let circuit = self.access.circuit();
        let is_open = circuit.is_open();
        tokio::select! {
            () = sleep(delay) => {}
            () = circuit.until_open_is(false), if is_open => {}
        }
        Event::WaitOver
    }

    fn log_kept(&self, error: &SpoolError, spool: &Spool<S::Record>) {
        let Some(unsaid) = self.kept.admit(Instant::now()) else { return };
        let dir = spool.dir().display();
        let then = "batches are kept in memory, and the feeds wait once the channel is full";
        if matches!(error, SpoolError::Full { .. }) {
            warn!("Spool full at {dir}: {error}; {then}{unsaid}");
        } else {
            let (cause, remedy) = (cause_of(error), error.remedy());
            error!(cause, "Spool not written at {dir}: {error}{remedy}; {then}{unsaid}");
        }
    }
}
