//! The recorder: feeds, pipeline and store, joined; started together, stopped phase after phase ([`Phase`]).
//!
//! So what was accepted is stored, unless the deadline comes first: at two thirds of it what is not stored goes to the
//! spool; at its end the late stages are named, and the ledger says how many ticks are where.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::identity::identity;
use super::preparation::Prepared;
use super::signals::StopSignals;
use super::status::StatusReader;
use super::symbols;
use super::tasks::{Phase, Tasks};
use super::upkeep;
use super::venues::{FeedParts, Venue};
use crate::config::Settings;
use crate::domain::{Tick, Timestamp};
use crate::feed::{self, FeedBoard};
use crate::pipeline::{Ledger, Observer, Pipeline, PipelineParts, Spooling, channel};
use crate::repair::{self, RepairContext, RepairVenue};
use crate::store::journal::{journal, note_all_stored};
use crate::store::said;
use crate::store::spool::{Losses, Spool};

/// How long the database may take to note at the end that all is stored.
const NOTE_MAX: Duration = Duration::from_secs(2);

/// After this time without a tick, everything that a simulated exchange has sent is received.
const QUIET_INTERVAL: Duration = Duration::from_millis(50);
/// How many such times are waited for at most.
const QUIET_INTERVALS_MAX: usize = 10;

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Asked to, and everything accepted is stored.
    Clean,
    /// A stage ended before the stop.
    StageEnded(String),
    /// This many ticks are not stored: they wait in the spool, or were in memory.
    NotStored(u64),
}

/// What a recorder is started with.
#[derive(Debug)]
pub(super) struct RecorderParts<'a> {
    pub(super) settings: &'a Settings,
    pub(super) venues: &'a [Venue],
    pub(super) prepared: Prepared,
    /// Each is given every tick that is recorded.
    pub(super) observers: Vec<Observer>,
    /// Cancelled before the stop begins: what makes the trades makes no more of them then, and what is on its way is
    /// waited for.
    pub(super) close_first: Option<CancellationToken>,
}

/// The running stages.
#[derive(Debug)]
pub(super) struct Recorder {
    tasks: Tasks,
    status: StatusReader,
    spool: Spool<Tick>,
    /// Where it notes at the end that all is stored, and under which name.
    noted: (PgPool, String),
    /// Cancelled at two thirds of the deadline: what is not stored goes to the spool.
    hurry: CancellationToken,
    stop_deadline: Duration,
    close_first: Option<CancellationToken>,
}

impl Recorder {
    /// Starts the stages beside the tasks that are there already, and owns all of them. The spool takes what the store
    /// cannot, and is drained.
    #[must_use]
    pub(super) fn start(mut tasks: Tasks, parts: RecorderParts<'_>) -> Self {
        let RecorderParts { settings, venues, prepared, observers, close_first } = parts;
        let Prepared { pool, store, spool, stored, clock, clock_watch, ready, arrival } = prepared;
        let (ledger, board) = (Arc::new(Ledger::default()), FeedBoard::default());
        let (sender, receiver) =
            channel(settings.pipeline.channel_capacity.get(), Arc::clone(&ledger));
        let started_at = Timestamp::now();
        let recorder = identity(started_at);
        let noted = (pool.clone(), recorder.clone());
        let (journal, journal_writer) = journal(recorder.clone());
        let seed = u64::try_from(started_at.as_micros()).unwrap_or_default();
        let stop = tasks.stop_of(Phase::Sources);

        let hurry = CancellationToken::new();
        let spooling = Spooling { spool: spool.clone(), spool_now: hurry.clone(), seed };
        let parts = PipelineParts {
            records: receiver,
            store: Arc::new(store),
            observers,
            spooling: Some(spooling),
        };
        let pipeline = Pipeline::new(parts, &settings.pipeline, &settings.batch);
        let (held, probe) = (pipeline.held(), pipeline.probe());
        tasks.spawn(Phase::Pipeline, "pipeline", pipeline.run());

        let journal_writer = journal_writer.with_held(held.clone());
        let (is_ready, stopping, to) = (ready.clone(), stop.clone(), pool.clone());
        tasks.spawn(Phase::Sinks, "journal", async move {
            // At the stop it is tried all the same, and what cannot be noted is logged.
            is_ready.or_stop(&stopping).await;
            journal_writer.run(to).await;
        });

        tasks.spawn(Phase::Sources, "clock", clock_watch.run(board.clone(), stop.clone()));
        if let Some(arrival) = arrival {
            let (pool, spool, journal) = (pool.clone(), spool.clone(), journal.clone());
            let arriving = arrival.run(pool, spool, journal, clock.now(), stop.clone());
            tasks.spawn(Phase::Sources, "wait for the database", arriving);
        }
        let parts = FeedParts {
            stored: &stored,
            sender: &sender,
            board: &board,
            journal: &journal,
            clock: &clock,
            seed,
        };
        for venue in venues {
            for feed in venue.feeds(&parts) {
                let name = format!("feed {}", feed.name);
                tasks.spawn(Phase::Sources, name, feed::run(feed, stop.clone()));
            }
        }
        let checks = venues.iter().filter_map(Venue::symbol_check).collect();
        tasks.spawn(Phase::Sources, "symbols", symbols::run(checks, stop.clone()));
        let upkeep =
            upkeep::run(pool.clone(), settings.database.retention, clock.clone(), stop.clone());
        tasks.spawn(Phase::Sources, "upkeep", ready.clone().then(stop.clone(), upkeep));
        if settings.backfill.enabled {
            let context = RepairContext { pool, sender, ledger, recorder, clock, held };
            let venues: Vec<RepairVenue> = venues.iter().filter_map(Venue::repair).collect();
            let max_age = settings.backfill.max_age;
            let audit = repair::audit(context.clone(), venues.clone(), max_age, stop.clone());
            tasks.spawn(Phase::Sources, "audit", ready.clone().then(stop.clone(), audit));
            let repair = repair::run(context, venues, max_age, stop.clone());
            tasks.spawn(Phase::Sources, "repair", ready.then(stop, repair));
        }
        let stop_deadline = settings.pipeline.stop_deadline;
        let status = StatusReader { pipeline: probe, board };
        Self { tasks, status, spool, noted, hurry, stop_deadline, close_first }
    }

    /// What reads its state, while it runs and after.
    #[must_use]
    pub(super) fn status(&self) -> StatusReader {
        self.status.clone()
    }

    /// Runs until a signal or the end of a stage, then stops in order.
    pub(super) async fn run(mut self, signals: &mut StopSignals) -> Outcome {
        let unexpected = tokio::select! {
            signal = signals.next() => {
                info!("{signal}: stopping; feeds first, then what they accepted is stored");
                None
            }
            ended = self.tasks.join_next() => {
                let name = ended.map_or_else(|| "every stage".to_owned(), |ended| {
                    error!(panic = ?ended.panic.map(|panic| panic.to_string()), "{} has ended, and nothing had asked it to: the recorder stops", ended.name);
                    ended.name
                });
                Some(name)
            }
        };
        if let Some(close) = self.close_first.take() {
            close.cancel();
            self.until_quiet().await;
        }
        let in_time = self.tasks.stop(self.stop_deadline, &self.hurry, signals.next()).await;
        let reading = self.status.read().pipeline.ledger;
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
        let losses = self.log_losses();
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
        match unexpected {
            _ if not_stored > 0 || !losses.is_none() => Outcome::NotStored(not_stored),
            Some(name) => Outcome::StageEnded(name),
            None => Outcome::Clean,
        }
    }

    /// Logs what of the spool could not be stored; what was damaged when it was opened was never counted as received.
    fn log_losses(&self) -> Losses {
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

    /// Waits until nothing more comes, for half a second at the most.
    async fn until_quiet(&self) {
        let mut received = None;
        for _ in 0..QUIET_INTERVALS_MAX {
            let before = received.replace(self.status.read().pipeline.ledger.received);
            if before == received {
                return;
            }
            tokio::time::sleep(QUIET_INTERVAL).await;
        }
    }
}
