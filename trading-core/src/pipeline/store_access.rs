//! The way to the store, for live batches and for those of the spool: no more writes at once than there are writers.
//!
//! Here, and nowhere else, the store circuit opens and closes. It opens when a writer gives a batch up, and when a
//! write that has no other place to go is not answered for long. It closes when the store has taken a batch.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::{error, info};

use super::store_circuit::{StoreCircuit, Trouble};
use crate::domain::bounds::WRITE_MAX;
use crate::store::spool::{Backlog, Spool};
use crate::store::{DaysLeft, Store, StoreError, Written, cause_of};
use crate::telemetry::{Lasting, SharedLimiter};

/// What the writers and the drain share.
#[derive(Debug)]
pub(super) struct StoreAccess<S: Store> {
    store: Arc<S>,
    circuit: Arc<StoreCircuit>,
    /// Where batches go meanwhile; named in the log.
    spool: Option<Spool<S::Record>>,
    /// One for each write at a time.
    turns: Semaphore,
    days_left: SharedLimiter,
}

impl<S: Store> StoreAccess<S> {
    pub(super) fn new(store: Arc<S>, writes_max: usize, spool: Option<Spool<S::Record>>) -> Self {
        Self {
            store,
            circuit: Arc::new(StoreCircuit::new()),
            spool,
            turns: Semaphore::new(writes_max),
            days_left: SharedLimiter::default(),
        }
    }

    pub(super) const fn circuit(&self) -> &Arc<StoreCircuit> {
        &self.circuit
    }

    /// What waits in the spool.
    pub(super) fn backlog(&self) -> Backlog {
        self.spool.as_ref().map(Spool::backlog).unwrap_or_default()
    }

    /// Writes a batch when it is its turn.
    pub(super) async fn write(
        &self,
        batch: &[S::Record],
    ) -> Result<Written, StoreError<S::Record>> {
        let written = {
            // Nobody closes the semaphore; if somebody did, a write out of turn is better than none.
            let _turn = self.turns.acquire().await.ok();
            self.store.write(batch).await
        };
        match &written {
            Ok(_) => self.close(),
            Err(StoreError::Days(days)) => {
                self.close();
                self.log_days(days);
            }
            Err(_) => {}
        }
        written
    }

    /// Writes a batch, and does not wait longer than [`WRITE_MAX`] for the answer, unless it is patient.
    pub(super) async fn try_write(
        &self,
        batch: &[S::Record],
        is_patient: bool,
    ) -> Result<Written, StoreError<S::Record>> {
        let mut writing = std::pin::pin!(self.write(batch));
        if let Ok(written) = timeout(WRITE_MAX, &mut writing).await {
            return written;
        }
        let silent = StoreError::Silent(WRITE_MAX);
        if !is_patient {
            return Err(silent);
        }
        self.open(&silent, 0);
        writing.await
    }

    /// Opens the store circuit after this error, the last of several failures of one batch.
    pub(super) fn open(&self, error: &StoreError<S::Record>, failures: u32) {
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

    fn close(&self) {
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

    /// Logs which day has no partition, and what the operator can do about it.
    fn log_days(&self, days: &DaysLeft<S::Record>) {
        // Only the first refusal of a day comes with its cause.
        if days.goes_on || days.cause.is_none() {
            return;
        }
        if let Some(unsaid) = self.days_left.admit(Instant::now()) {
            let then = if self.spool.is_some() { "; they wait in the spool" } else { "" };
            error!(cause = cause_of(days), "Ticks not stored yet: {days}{then}{unsaid}");
        }
    }
}
