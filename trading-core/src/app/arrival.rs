//! A database that comes later than the recorder, as after a reboot: feeds are read and their ticks spooled meanwhile.
//!
//! Until it is there nothing is written to it, not even by mistake: first it is seen that its schema is ours and that it
//! is the one that the spool is kept for. What was missed before the start is listed then: it could not be known
//! earlier what is stored last.

use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::registration::{Registered, Registration};
use super::start_error::StartError;
use crate::domain::bounds::FIRST_TRADE_MAX;
use crate::domain::{
    GapCause, GapRecord, IdRange, Instrument, LastStored, Tick, TimeRange, Timestamp,
};
use crate::exchange::IdRule;
use crate::feed::GapLines;
use crate::store::journal::Journal;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::arrived::{StoredTrade, first_received, last_received};
use crate::store::spool::Spool;
use crate::store::{Store, StoreError, Written, cause_of, said};
use crate::telemetry::{Lasting, RepeatLimiter};

/// The wait before a database that is away is asked again.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// How long a stop waits for the spool to be stored, so that what was missed before the start is listed.
const LISTED_AT_STOP_MAX: Duration = Duration::from_secs(5);

/// Whether the database has been reached since the start.
#[derive(Debug, Clone)]
pub(super) struct Ready(watch::Receiver<bool>);

/// Says that it has.
#[derive(Debug)]
pub(super) struct Opening(watch::Sender<bool>);

impl Ready {
    pub(super) fn new(is_ready: bool) -> (Opening, Self) {
        let (sender, receiver) = watch::channel(is_ready);
        (Opening(sender), Self(receiver))
    }

    /// Waits until the database is there; `false`: the stop came first.
    pub(super) async fn or_stop(&self, stop: &CancellationToken) -> bool {
        let mut ready = self.0.clone();
        tokio::select! {
            biased;
            is_ready = ready.wait_for(|is_ready| *is_ready) => is_ready.is_ok(),
            () = stop.cancelled() => false,
        }
    }

    /// Runs a task once the database is there; not at all where the stop comes first.
    pub(super) async fn then(self, stop: CancellationToken, task: impl Future<Output = ()>) {
        if self.or_stop(&stop).await {
            task.await;
        }
    }

    fn is_ready(&self) -> bool {
        *self.0.borrow()
    }
}

/// A store that is away until the database has been reached, and seen to be the right one.
#[derive(Debug)]
pub(super) struct ReadyStore {
    store: PostgresStore,
    ready: Ready,
}

impl ReadyStore {
    pub(super) const fn new(store: PostgresStore, ready: Ready) -> Self {
        Self { store, ready }
    }
}

impl Store for ReadyStore {
    type Record = Tick;

    async fn write(&self, batch: &[Tick]) -> Result<Written, StoreError<Tick>> {
        if self.ready.is_ready() {
            return self.store.write(batch).await;
        }
        let text = "it has not been reached since the start";
        Err(StoreError::Away(text.into()))
    }
}

/// What is left to do when the database is there.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) registration: Registration,
    pub(super) opening: Opening,
    /// What the spool's new batches are written for; `None`: a database that was never reached at this address.
    pub(super) spooled_for: Option<String>,
    /// Why it was not there at the start.
    pub(super) first: StartError,
}

impl Arrival {
    /// Waits for the database, lets the writers in, and lists what was missed before the start. Ends with the stop, or
    /// when the database is there and cannot be used.
    pub(super) async fn run(
        self,
        pool: PgPool,
        spool: Spool<Tick>,
        journal: Journal,
        started_at: Timestamp,
        stop: CancellationToken,
    ) {
        let began = Instant::now();
        let waited = stop.run_until_cancelled(self.wait(&pool, began)).await;
        let stored = match waited {
            None => return,
            Some(Ok(stored)) => stored,
            Some(Err(error)) => {
                error!(
                    cause = cause_of(&error),
                    "The database is there, and cannot be used: {error}"
                );
                return;
            }
        };
        // What is spooled is still stored after the stop has begun.
        let too_late = async {
            stop.cancelled().await;
            sleep(LISTED_AT_STOP_MAX).await;
        };
        tokio::select! {
            biased;
            listed = self.list_missed(&pool, &spool, &journal, &stored, started_at) => {
                if let Err(error) = listed {
                    warn!(error = %said(&error), "What was missed before the start is left to the auditor");
                }
            }
            () = too_late => {}
        }
        stop.cancelled().await;
    }

    async fn wait(&self, pool: &PgPool, began: Instant) -> Result<Vec<LastStored>, StartError> {
        let mut limiter = RepeatLimiter::default();
        log_away(&self.first, None, &mut limiter);
        loop {
            sleep(RETRY_DELAY).await;
            match self.registration.register(pool).await {
                Ok(Registered { name, stored }) => {
                    if let Some(spooled) = self.spooled_for.as_ref().filter(|it| **it != name.own) {
                        return Err(StartError::Another { spooled: spooled.clone() });
                    }
                    self.registration.remember(&name.own)?;
                    let waited = Lasting(began.elapsed());
                    info!("The database is there after {waited}; what was spooled goes to it");
                    self.opening.0.send_replace(true);
                    return Ok(stored);
                }
                Err(error) if error.is_passing() => log_away(&error, Some(began), &mut limiter),
                Err(error) => return Err(error),
            }
        }
    }

    /// Lists what was missed before the start: trades between the last stored one of each symbol and the first of this
    /// run, or those of an earlier run that were in the spool.
    async fn list_missed(
        &self,
        pool: &PgPool,
        spool: &Spool<Tick>,
        journal: &Journal,
        stored: &[LastStored],
        started_at: Timestamp,
    ) -> Result<(), sqlx::Error> {
        let lines = GapLines::default();
        let list = |gap: Option<GapRecord>| {
            if let Some(gap) = gap {
                lines.add(&gap);
                journal.gap(gap);
            }
        };
        // At once: these are known, and a stop must not lose them.
        for last in stored {
            list(self.gap_in_time(last.instrument, last.until, started_at, cause(last)));
        }
        lines.log_rest();
        // The first trades of this run are in the table when the spool is empty. Where this is not reached, the auditor
        // finds the ids.
        spool.until_empty_is(true).await;
        let instruments: Vec<_> = self.registration.instruments().collect();
        let before = last_received(pool, &instruments, started_at).await?;
        for last in &before {
            // What an earlier run had spooled: it has ended since.
            let cause = GapCause::NotRunning;
            if !stored.iter().any(|known| known.instrument == last.instrument) {
                list(self.gap_in_time(last.instrument, last.exchange_at, started_at, cause));
            }
            let next = first_received(pool, last, Some(started_at)).await?;
            list(self.gap_in_ids(last, next, cause));
        }
        for last in stored {
            let cause = cause(last);
            let last = last.into();
            list(self.gap_in_ids(&last, first_received(pool, &last, None).await?, cause));
        }
        lines.log_rest();
        Ok(())
    }

    /// Where ids prove nothing, all of the time up to this run may be missing.
    fn gap_in_time(
        &self,
        instrument: Instrument,
        from: Timestamp,
        started_at: Timestamp,
        cause: GapCause,
    ) -> Option<GapRecord> {
        let is_unproved = self.registration.ids_of(instrument) == Some(IdRule::Unique);
        let times = TimeRange::new(from, started_at + FIRST_TRADE_MAX);
        let gap = GapRecord { instrument, ids: None, times, cause, seen_at: Timestamp::now() };
        (is_unproved && from < started_at).then_some(gap)
    }

    fn gap_in_ids(
        &self,
        last: &StoredTrade,
        next: Option<StoredTrade>,
        cause: GapCause,
    ) -> Option<GapRecord> {
        let StoredTrade { instrument, exchange_at: from, .. } = *last;
        let numbers = next.and_then(|next| {
            Some((last.trade_id.number()?, next.trade_id.number()?, next.exchange_at))
        });
        let (before, after, to) = numbers.filter(|(before, after, _)| before + 1 < *after)?;
        let ids = IdRange::new(before + 1, after - 1);
        let times = TimeRange::new(from, to);
        let is_proved = self.registration.ids_of(instrument) == Some(IdRule::Consecutive);
        is_proved.then_some(GapRecord { instrument, ids, times, cause, seen_at: Timestamp::now() })
    }
}

/// Why trades after this one may be missing.
const fn cause(last: &LastStored) -> GapCause {
    match last.is_carried {
        true => GapCause::NotStoredYet,
        false => GapCause::NotRunning,
    }
}

fn log_away(error: &StartError, since: Option<Instant>, limiter: &mut RepeatLimiter) {
    let Some(unsaid) = limiter.admit(Instant::now()) else { return };
    let cause = cause_of(error);
    let since = since.map(|began| Lasting(began.elapsed()));
    match since {
        None => warn!(cause, "Waiting for the database, and spooling meanwhile: {error}{unsaid}"),
        Some(since) => warn!(
            cause,
            "Waiting for the database for {since}, and spooling meanwhile: {error}{unsaid}"
        ),
    }
}
