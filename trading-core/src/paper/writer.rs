//! Changes to the store: gathered for a second, written in one transaction, again and again while the database is away.
//!
//! Nothing is written of a tick that is not stored itself: what a crash takes of the ticks it takes of the accounts
//! too, and a restart finds both as they were.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, error, info, warn};

use super::changes::Changes;
use super::error::PaperError;
use super::store::AccountStore;
use crate::domain::Backoff;
use crate::store::{Remedy, cause_of};

/// How long changes are gathered before they are written.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// Rows that may wait for the database; about 20 MB.
const WAITING_ROWS_MAX: usize = 50_000;

/// How often missed ticks are logged at most.
const MISSED_INTERVAL: Duration = Duration::from_secs(10);

/// The first wait before a database that is away is tried again.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest, which jitter may double.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A database that is away for longer than this needs somebody.
const AWAY_ALARM: Duration = Duration::from_secs(60);

/// How long the end of a run waits for a database that is away.
pub(super) const END_WAIT: Duration = Duration::from_secs(10);

/// What one chunk did.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) missed: u64,
    pub(super) changes: Changes,
    /// The ticks that must be stored first, counted as the tap counts them.
    pub(super) through: u64,
}

/// Gathers changes and writes them, again and again while the database is away.
pub(super) struct Writer<S> {
    store: S,
    /// How many ticks are stored.
    stored: watch::Receiver<u64>,
    /// Whether the pipeline has gone, so that no more will be.
    stored_at_last: bool,
    /// Changes that come together.
    gathered: Changes,
    gathered_through: u64,
    gather_until: Instant,
    /// Changes that are written next, and the ticks that must be stored first.
    sealed: Option<(u64, Changes)>,
    due: Instant,
    outage: Outage,
    missed: Missed,
    stopped: BTreeSet<Arc<str>>,
    give_up_at: Option<Instant>,
}

impl<S: AccountStore> Writer<S> {
    pub(super) fn new(store: S, stored: watch::Receiver<u64>) -> Self {
        Self {
            store,
            stored,
            stored_at_last: false,
            gathered: Changes::default(),
            gathered_through: 0,
            gather_until: Instant::now(),
            sealed: None,
            due: Instant::now(),
            outage: Outage::default(),
            missed: Missed { unsaid: 0, next: Instant::now() },
            stopped: BTreeSet::new(),
            give_up_at: None,
        }
    }

    /// Writes until the steps end, and then what is left.
    pub(super) async fn run(mut self, mut steps: mpsc::Receiver<Step>) -> Result<(), PaperError> {
        loop {
            let receives = self.give_up_at.is_none() && self.rows() < WAITING_ROWS_MAX;
            let gathers = self.sealed.is_none() && self.gathered.rows() > 0;
            let (writes, waits) = match &self.sealed {
                Some((through, _)) => {
                    let may = *self.stored.borrow_and_update() >= *through;
                    (may, !may)
                }
                None => (false, false),
            };
            // Nothing more will be stored, and nothing more is received: there is nothing to wait for.
            if waits && self.stored_at_last && !receives {
                return Err(PaperError::NotStored { rows: self.rows(), source: None });
            }
            // Every branch is cancel-safe: a step is received or it stays.
            select! {
                biased;
                () = sleep_until(self.due), if writes => self.write().await?,
                () = sleep_until(self.gather_until), if gathers => self.seal(),
                () = sleep_until(self.missed.next), if self.missed.unsaid > 0 => self.missed.log(),
                changed = self.stored.changed(), if waits && !self.stored_at_last => {
                    self.stored_at_last = changed.is_err();
                }
                step = steps.recv(), if receives => match step {
                    Some(step) => self.take(step),
                    None => {
                        self.gather_until = Instant::now();
                        self.give_up_at = Some(self.gather_until + END_WAIT);
                        self.missed.next = self.gather_until;
                    }
                },
                else => return Ok(()),
            }
        }
    }

    fn rows(&self) -> usize {
        self.gathered.rows() + self.sealed.as_ref().map_or(0, |(_, changes)| changes.rows())
    }

    fn take(&mut self, step: Step) {
        self.missed.unsaid = self.missed.unsaid.saturating_add(step.missed);
        for (name, state) in &step.changes.accounts {
            if let Some(why) = &state.stopped
                && self.stopped.insert(Arc::clone(name))
            {
                error!(strategy = %name, reason = %why, "Paper account stopped");
            }
        }
        if self.gathered.rows() == 0 {
            self.gather_until = Instant::now() + WRITE_INTERVAL;
        }
        self.gathered.append(step.changes);
        self.gathered_through = step.through;
    }

    fn seal(&mut self) {
        self.sealed = Some((self.gathered_through, std::mem::take(&mut self.gathered)));
        self.due = Instant::now();
    }

    async fn write(&mut self) -> Result<(), PaperError> {
        let Some((_, changes)) = &self.sealed else { return Ok(()) };
        let write = self.store.write(changes);
        let result = match self.give_up_at {
            // A database that does not answer at all counts as away.
            Some(at) => timeout_at(at, write).await.unwrap_or(Err(PaperError::Database {
                action: "written",
                source: sqlx::Error::PoolTimedOut,
            })),
            None => write.await,
        };
        match result {
            Ok(()) => {
                self.sealed = None;
                self.outage.over();
                Ok(())
            }
            Err(error) if error.remedy() == Remedy::Retry => {
                let now = Instant::now();
                self.due = self.outage.retry_at(&error);
                match self.give_up_at {
                    Some(at) if now >= at => Err(PaperError::NotStored {
                        rows: self.rows(),
                        source: Some(Box::new(error)),
                    }),
                    Some(at) => {
                        self.due = self.due.min(at);
                        Ok(())
                    }
                    None => Ok(()),
                }
            }
            Err(error) => Err(error),
        }
    }
}

/// A time in which the database is away.
#[derive(Debug)]
pub(super) struct Outage {
    since: Option<Instant>,
    backoff: Backoff,
}

impl Default for Outage {
    fn default() -> Self {
        Self { since: None, backoff: Backoff::new(RETRY_MIN, RETRY_MAX, 0) }
    }
}

impl Outage {
    /// When to try again after this error.
    pub(super) fn retry_at(&mut self, error: &PaperError) -> Instant {
        let now = Instant::now();
        let away = now.duration_since(*self.since.get_or_insert(now));
        let cause = cause_of(error);
        if away > AWAY_ALARM {
            error!(away_seconds = away.as_secs(), %error, cause, "Paper trading is not stored, trying on");
        } else {
            warn!(%error, cause, "Paper trading is not stored for now, trying again");
        }
        now + self.backoff.next_delay()
    }

    fn over(&mut self) {
        self.backoff.reset();
        if let Some(since) = self.since.take() {
            let away = since.elapsed();
            info!(away_seconds = away.as_secs(), "Paper trading is stored again");
        } else {
            debug!("Paper trading stored");
        }
    }
}

/// Missed ticks that were not logged yet.
#[derive(Debug)]
struct Missed {
    unsaid: u64,
    next: Instant,
}

impl Missed {
    fn log(&mut self) {
        warn!(ticks = self.unsaid, "Paper trading fell behind and missed ticks");
        self.unsaid = 0;
        self.next = Instant::now() + MISSED_INTERVAL;
    }
}
