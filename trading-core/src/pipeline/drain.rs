//! The spool to the store: the batches that wait longest first, beside the live ones, until nothing waits.
//!
//! While the store circuit is open this is its probe: one batch now and then, and the circuit closes when it is written.
//! A batch that cannot be read, or that only a person can help, does not keep it open: then a live one is tried too.
//! A batch leaves the spool only when it is in the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::Spooling;
use super::ledger::Ledger;
use super::store_access::StoreAccess;
use crate::domain::{Backoff, count};
use crate::store::spool::{Backlog, Oldest, Spool};
use crate::store::{DaysLeft, Remedy, Store, StoreError, cause_of};
use crate::telemetry::{Lasting, RepeatLimiter};

/// The wait before the first probe of a store that is away; doubled each time.
const PROBE_DELAY: Duration = Duration::from_secs(1);
/// The longest wait between two probes, which jitter may double.
const PROBE_DELAY_MAX: Duration = Duration::from_secs(10);
/// How often the log says that the store is still away.
const AWAY_INTERVAL: Duration = Duration::from_secs(60);

/// What empties the spool.
#[derive(Debug)]
pub(super) struct Drain<S: Store> {
    access: Arc<StoreAccess<S>>,
    ledger: Arc<Ledger>,
    spool: Spool<S::Record>,
    /// Cancelled near a stop's deadline: what waits stays in the spool.
    spool_now: CancellationToken,
    /// Ticks that one write carries at most, unless one batch has more.
    ticks_max: usize,
    backoff: Backoff,
    /// Whether the last attempt failed: the next one comes after a wait.
    has_failed: bool,
    /// Ticks drained since the spool was last empty, and since when.
    drained: Option<(Instant, u64)>,
    progress: RepeatLimiter,
    failed: RepeatLimiter,
    away: RepeatLimiter,
}

impl<S: Store> Drain<S> {
    pub(super) fn new(
        access: Arc<StoreAccess<S>>,
        ledger: Arc<Ledger>,
        spooling: Spooling<S::Record>,
        ticks_max: usize,
    ) -> Self {
        let Spooling { spool, spool_now, seed } = spooling;
        Self {
            access,
            ledger,
            spool,
            spool_now,
            ticks_max,
            backoff: Backoff::new(PROBE_DELAY, PROBE_DELAY_MAX, seed),
            has_failed: false,
            drained: None,
            progress: RepeatLimiter::default(),
            failed: RepeatLimiter::default(),
            away: RepeatLimiter::new(AWAY_INTERVAL),
        }
    }

    /// Runs until `finish` is cancelled and nothing waits or the store is away, or until the stop's deadline is near.
    pub(super) async fn run(mut self, finish: CancellationToken) {
        let (access, spool) = (Arc::clone(&self.access), self.spool.clone());
        let spool_now = self.spool_now.clone();
        let finished = async {
            finish.cancelled().await;
            tokio::select! {
                () = spool.until_empty_is(true) => {}
                () = access.circuit().until_open_is(true) => {}
            }
        };
        let mut finished = std::pin::pin!(finished);
        loop {
            // Given up anywhere, a step loses nothing: a batch that is written and not removed is written again.
            tokio::select! {
                biased;
                () = &mut finished => return,
                () = spool_now.cancelled() => return,
                () = self.step() => {}
            }
        }
    }

    /// Waits for something to do, and does it.
    async fn step(&mut self) {
        self.spool.until_empty_is(false).await;
        self.wait_for_turn().await;
        // What failed is tried again as small as it can be.
        let ticks_max = if self.has_failed { 1 } else { self.ticks_max };
        let oldest = match self.spool.oldest(ticks_max).await {
            Ok(Some(oldest)) => oldest,
            Ok(None) => return,
            Err(error) => {
                self.has_failed = true;
                self.access.circuit().request_trial();
                if let Some(unsaid) = self.failed.admit(Instant::now()) {
                    error!(cause = cause_of(&error), "Spool not read: {error}{}", unsaid);
                }
                return;
            }
        };
        if oldest.records.is_empty() {
            // Nothing of it can be read. That says nothing of the store, which would take no ticks though it is away.
            self.ledger.record_unreadable(oldest.unreadable);
            self.remove(oldest).await;
            return;
        }
        match self.access.write(&oldest.records).await {
            Ok(written) => {
                self.ledger.record_drained(written);
                self.ledger.record_unreadable(oldest.unreadable);
                self.succeed();
                self.remove(oldest).await;
            }
            Err(StoreError::Days(days)) => self.put_back(oldest, *days).await,
            Err(error) => {
                self.has_failed = true;
                if error.remedy() == Remedy::Stop {
                    // Perhaps only this batch is refused: the next live one says whether the store takes others.
                    self.access.circuit().request_trial();
                }
                self.log_failure(&error);
            }
        }
    }

    /// The store is there and has taken all but the ticks of some days: those go to the end of the spool, so that what
    /// waits behind them is stored.
    async fn put_back(&mut self, oldest: Oldest<S::Record>, days: DaysLeft<S::Record>) {
        if days.goes_on {
            self.succeed();
        } else {
            self.has_failed = true;
        }
        let (_, done) = self.spool.append(days.left).await;
        match done {
            Ok(()) => {
                self.ledger.record_drained(days.written);
                self.ledger.record_unreadable(oldest.unreadable);
                self.remove(oldest).await;
            }
            Err(error) => {
                // All of it is still there, and written again later.
                self.has_failed = true;
                if let Some(unsaid) = self.failed.admit(Instant::now()) {
                    warn!(cause = cause_of(&error), "Spooled ticks not put back: {error}{unsaid}");
                }
            }
        }
    }

    /// Between two attempts at a store that is away. No longer than until a live batch finds it back.
    async fn wait_for_turn(&mut self) {
        let is_open = self.access.circuit().is_open();
        self.has_failed |= is_open;
        if !self.has_failed {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(self.backoff.next_delay()) => {}
            () = self.access.circuit().until_open_is(false), if is_open => self.succeed(),
        }
    }

    /// The store is there: the next attempt comes at once.
    const fn succeed(&mut self) {
        self.has_failed = false;
        self.backoff.reset();
    }

    async fn remove(&mut self, oldest: Oldest<S::Record>) {
        if oldest.unreadable > 0 {
            error!(
                ticks = oldest.unreadable,
                "Ticks in the spool cannot be read; their file, where it is there, is set aside"
            );
        }
        let now = Instant::now();
        let (_, drained) = self.drained.get_or_insert((now, 0));
        *drained = drained.saturating_add(count(oldest.records.len()));
        if let Err(error) = self.spool.remove(oldest.position).await {
            self.has_failed = true;
            error!(cause = cause_of(&error), "Drained batches not removed from the spool: {error}");
            return;
        }
        let Backlog { batches, ticks, .. } = self.spool.backlog();
        if batches > 0 {
            if self.progress.admit(now).is_some() {
                info!("Draining the spool: {batches} batches ({ticks} ticks) left");
            }
        } else if let Some((since, ticks)) = self.drained.take() {
            info!("Spool drained: {ticks} ticks in {}", Lasting(since.elapsed()));
        }
    }

    fn log_failure(&mut self, error: &StoreError<S::Record>) {
        let now = Instant::now();
        let cause = cause_of(error);
        let Backlog { batches, ticks, .. } = self.spool.backlog();
        debug!(cause, "Spooled batch not written: {error}");
        match self.access.circuit().open_for(now) {
            Some(open_for) => {
                if open_for >= AWAY_INTERVAL && self.away.admit(now).is_some() {
                    let open_for = Lasting(open_for);
                    warn!(
                        cause,
                        "Store still away after {open_for}: {error}; {batches} batches ({ticks} ticks) in the spool"
                    );
                }
            }
            None => {
                if let Some(unsaid) = self.failed.admit(now) {
                    warn!(
                        cause,
                        "Spooled batch not written: {error}; {batches} batches ({ticks} ticks) in the spool{}",
                        unsaid
                    );
                }
            }
        }
    }
}
