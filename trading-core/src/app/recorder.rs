//! The recorder: feeds, pipeline and store, joined; started together, stopped in order.
//!
//! Feeds are stopped first; every later stage ends when its input ends. So what was accepted is stored, unless the
//! deadline comes first: at two thirds of it what is not stored goes to the spool; at its end the late stages are
//! named, and the ledger says how many ticks are where.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::identity::identity;
use super::preparation::Prepared;
use super::signals::StopSignals;
use super::symbols;
use super::tasks::Tasks;
use super::upkeep;
use super::venues::Venue;
use crate::config::Settings;
use crate::domain::Timestamp;
use crate::feed;
use crate::pipeline::{Ledger, Observer, Pipeline, PipelineParts, Spooling, channel};
use crate::repair::{self, RepairContext, RepairVenue};
use crate::store::journal::{journal, note_all_stored};
use crate::store::said;
use crate::store::spool::{Losses, Spool};

/// How long the database may take to note at the end that all is stored.
const NOTE_MAX: Duration = Duration::from_secs(2);

/// After this time without a tick, everything that a simulated exchange has sent is received.
const QUIET_LOOK: Duration = Duration::from_millis(50);
/// How often that is looked at.
const QUIET_LOOKS: usize = 10;

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Asked to, and everything accepted is stored.
    Clean,
    /// A stage ended unasked.
    StageEnded(String),
    /// Asked to, and so many ticks are not stored: they wait in the spool, or were in memory.
    NotStored(u64),
}
/// The running stages.
#[derive(Debug)]
pub(super) struct Recorder {
    tasks: Tasks,
    feeds: CancellationToken,
    ledger: Arc<Ledger>,
    spool: Spool,
    /// Where it notes at the end that all is stored, and under which name.
    noted: (PgPool, String),
    /// Raised at two thirds of the deadline: what is not stored goes to the spool.
    hurry: CancellationToken,
    stop_deadline: Duration,
    /// Raised before the feeds are stopped.
    close_first: Option<CancellationToken>,
}

impl Recorder {
    /// Starts the stages. The spool takes what the store cannot, and is drained; the observers are given every tick that
    /// is recorded; `feeds` is cancelled when the stop begins.
    #[must_use]
    pub(super) fn start(
        settings: &Settings,
        venues: &[Venue],
        prepared: Prepared,
        observers: Vec<Observer>,
        feeds: CancellationToken,
    ) -> Self {
        let Prepared { pool, store, spool, stored, clock, clock_watch, ready, arrival } = prepared;
        let ledger = Arc::new(Ledger::default());
        let (sender, receiver) =
            channel(settings.pipeline.channel_capacity.get(), Arc::clone(&ledger));
        let started_at = Timestamp::now();
        let recorder = identity(started_at);
        let noted = (pool.clone(), recorder.clone());
        let (journal, journal_writer) = journal(recorder.clone());
        let seed = u64::try_from(started_at.as_micros()).unwrap_or_default();
        let hurry = CancellationToken::new();
        let spooling = Spooling { spool: spool.clone(), spool_now: hurry.clone(), seed };
        let parts = PipelineParts {
            records: receiver,
            store: Arc::new(store),
            observers,
            spooling: Some(spooling),
        };
        let pipeline = Pipeline::new(parts, &settings.pipeline, &settings.batch);
        let mut tasks = Tasks::default();
        let held = pipeline.held();
        let journal_writer = journal_writer.with_held(held.clone());
        tasks.spawn("pipeline", pipeline.run());
        tasks.spawn("clock", clock_watch.run(Arc::clone(&ledger), feeds.clone()));
        let (is_ready, stop, to) = (ready.clone(), feeds.clone(), pool.clone());
        tasks.spawn("journal", async move {
            // At the stop it is tried all the same, and what cannot be noted is said.
            is_ready.or_stop(&stop).await;
            journal_writer.run(to).await;
        });
        if let Some(arrival) = arrival {
            let (journal, stop) = (journal.clone(), feeds.clone());
            let running = arrival.run(pool.clone(), spool.clone(), journal, clock.now(), stop);
            tasks.spawn("wait for the database", running);
        }
        for venue in venues {
            for feed in venue.feeds(&stored, &sender, &ledger, &journal, &clock, seed) {
                tasks.spawn(format!("feed {}", feed.name), feed::run(feed, feeds.clone()));
            }
        }
        let questions = venues.iter().filter_map(Venue::question).collect();
        tasks.spawn("symbols", symbols::run(questions, feeds.clone()));
        let (retention, upkeep_clock) = (settings.database.retention, clock.clone());
        if settings.backfill.enabled {
            let context = RepairContext {
                pool: pool.clone(),
                sender,
                ledger: Arc::clone(&ledger),
                recorder,
                clock,
                held,
            };
            let venues: Vec<RepairVenue> = venues.iter().filter_map(Venue::repair).collect();
            let max_age = settings.backfill.max_age;
            let audit = repair::audit(context.clone(), venues.clone(), max_age, feeds.clone());
            tasks.spawn("audit", ready.clone().then(feeds.clone(), audit));
            let repair = repair::run(context, venues, max_age, feeds.clone());
            tasks.spawn("repair", ready.clone().then(feeds.clone(), repair));
        }
        let upkeep = upkeep::run(pool, retention, upkeep_clock, feeds.clone());
        tasks.spawn("upkeep", ready.then(feeds.clone(), upkeep));
        let stop_deadline = settings.pipeline.stop_deadline;
        let close_first = None;
        Self { tasks, feeds, ledger, spool, noted, hurry, stop_deadline, close_first }
    }

    /// Raises this at the stop, before the feeds are stopped: whoever makes the trades makes no more of them then, and
    /// what is on its way is waited for.
    pub(super) fn close_first(&mut self, close: CancellationToken) {
        self.close_first = Some(close);
    }

    /// Adds a task that ends by itself when its input does; it is waited for at the stop.
    pub(super) fn join(&mut self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(name, task);
    }

    /// The counters.
    #[must_use]
    pub(super) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// Runs until a signal or the end of a stage, then stops in order.
    pub(super) async fn run(mut self, signals: &mut StopSignals) -> Outcome {
        let unasked = tokio::select! {
            signal = signals.next() => {
                info!("{signal}: stopping; feeds first, then what they accepted is stored");
                None
            }
            ended = self.tasks.join_next() => {
                let name = ended.map_or_else(|| "every stage".to_owned(), |ended| {
                    error!(panic = ?ended.panic.map(|panic| panic.to_string()), "{} ended unasked", ended.name);
                    ended.name
                });
                Some(name)
            }
        };
        let in_time = self.stop(signals).await;
        let reading = self.ledger.read();
        let lost = reading.in_flight + reading.dropped;
        if reading.spooled > 0 {
            let dir = self.spool.dir().display();
            warn!(
                "{} ticks are in the spool at {dir}: the next start stores them",
                reading.spooled
            );
        }
        if lost > 0 {
            error!(
                "{lost} ticks are not stored: they were in memory when the recorder had to stop, or could not be read in the spool"
            );
        } else if !in_time && reading.spooled == 0 {
            warn!("Every tick is stored all the same");
        }
        let losses = self.tell_losses();
        if lost + losses.uncounted() == 0 {
            let (pool, recorder) = &self.noted;
            match tokio::time::timeout(NOTE_MAX, note_all_stored(pool, recorder)).await {
                Ok(Ok(())) => {}
                // The next start takes some of it for lost, and lists more than is missing.
                Ok(Err(error)) => debug!(error = %said(&error), "Not noted that all is stored"),
                Err(_elapsed) => debug!("Not noted that all is stored: no answer"),
            }
        }
        let not_stored = lost + reading.spooled + losses.uncounted();
        match unasked {
            _ if not_stored > 0 || !losses.is_none() => Outcome::NotStored(not_stored),
            Some(name) => Outcome::StageEnded(name),
            None => Outcome::Clean,
        }
    }

    /// What of the spool could not be stored; what was damaged when it was opened was never counted as received.
    fn tell_losses(&self) -> Losses {
        let losses = self.spool.losses();
        if !losses.is_none() {
            let dir = self.spool.dir().display();
            error!(
                "Not everything in the spool at {dir} could be stored: {losses}; `trading-core spool status` shows what is \
                 there, `trading-core spool inspect --damaged` what can be read of it"
            );
        }
        losses
    }

    /// Whether everything ended before the deadline and without a second signal.
    async fn stop(&mut self, signals: &mut StopSignals) -> bool {
        if let Some(close) = self.close_first.take() {
            close.cancel();
            self.until_quiet().await;
        }
        self.feeds.cancel();
        let now = Instant::now();
        let deadline = now + self.stop_deadline;
        let hurry_at = now + self.stop_deadline * 2 / 3;
        let in_time = self.drain(signals, hurry_at, deadline).await;
        self.tasks.abort().await;
        in_time
    }

    /// Waits until nothing more comes, for half a second at the most.
    async fn until_quiet(&self) {
        let mut received = None;
        for _ in 0..QUIET_LOOKS {
            let before = received.replace(self.ledger.read().received);
            if before == received {
                return;
            }
            tokio::time::sleep(QUIET_LOOK).await;
        }
    }

    async fn drain(
        &mut self,
        signals: &mut StopSignals,
        hurry_at: Instant,
        deadline: Instant,
    ) -> bool {
        loop {
            tokio::select! {
                biased;
                ended = self.tasks.join_next() => match ended {
                    None => return true,
                    Some(ended) => if let Some(panic) = ended.panic {
                        error!(%panic, "{} ended badly", ended.name);
                    },
                },
                () = tokio::time::sleep_until(hurry_at), if !self.hurry.is_cancelled() => {
                    info!("Two thirds of the time to stop have passed: what is not stored goes to the spool");
                    self.hurry.cancel();
                }
                () = tokio::time::sleep_until(deadline) => {
                    warn!("Not stopped within {} s: {}", self.stop_deadline.as_secs(), self.tasks.running().join(", "));
                    return false;
                }
                signal = signals.next() => {
                    warn!("{signal} again: stopped at once, without {}", self.tasks.running().join(", "));
                    return false;
                }
            }
        }
    }
}
