//! From the tap to the tables: the strategies on a thread of their own, the database beside it.
//!
//! ```text
//! tap ──ticks──▶ thread: engine ──changes, bounded──▶ task: one transaction a second ──▶ store
//! ```
//!
//! Every arrow is bounded and waits. So when the database is away, or a strategy hangs, the tap fills up, and
//! what comes then is missed and counted: recording never waits. When the pipeline ends, the tap ends, then the
//! thread, then what is left is stored.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::runtime::Handle;
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, error, info, warn};

use super::changes::Changes;
use super::engine::Engine;
use super::error::{PaperError, Remedy};
use super::store::Store;
use super::summary::SummaryHandle;
use crate::config::PaperSettings;
use crate::pipeline::TapReceiver;

/// How long a change waits at most before it is stored: what a crash can undo.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// Rows that may wait for the database; about 20 MB.
const WAITING_ROWS_MAX: usize = 50_000;

/// Changes of whole chunks that may wait for the task.
const WAITING_STEPS_MAX: usize = 16;

/// How often missed ticks are told at most.
const MISSED_INTERVAL: Duration = Duration::from_secs(10);

/// A database that is away for longer than this needs somebody.
const AWAY_ALARM: Duration = Duration::from_secs(60);

/// How long the end of a run waits for a database that is away.
const END_WAIT: Duration = Duration::from_secs(10);

/// What one chunk did.
#[derive(Debug, Default)]
struct Step {
    missed: u64,
    changes: Changes,
}

/// Trades on paper until the tap ends, and stores what came of it. Goes on from what the store holds.
///
/// When it is dropped, what was not stored did not happen: the next run goes on from the stored state.
///
/// # Errors
///
/// When the settings or the stored accounts cannot be worked with, the database refuses for good, is away at
/// the end, or a strategy panics. Recording goes on without paper trading.
pub async fn run(
    settings: PaperSettings,
    mut tap: TapReceiver,
    mut store: impl Store,
    summary: SummaryHandle,
) -> Result<(), PaperError> {
    let Some(engine) = start(&settings, &mut tap, &mut store).await? else { return Ok(()) };
    summary.set(engine.summary());
    info!(strategies = settings.strategies.len(), "Paper trading started");
    drive(engine, tap, store, summary).await
}

/// The engine with its stored accounts; `None` when the tap ended before the database answered. Ticks that come
/// while the database is away are missed.
async fn start(
    settings: &PaperSettings,
    tap: &mut TapReceiver,
    store: &mut impl Store,
) -> Result<Option<Engine>, PaperError> {
    // Settings that cannot work are told even when the database is away.
    Engine::new(settings)?;
    let names: Vec<String> =
        settings.strategies.iter().map(|strategy| strategy.name.clone()).collect();
    let mut outage = Outage::default();
    let mut missed = 0_u64;
    loop {
        match store.load(&names).await {
            Ok(stored) => {
                let mut engine = Engine::restore(settings, stored)?;
                engine.miss(missed);
                return Ok(Some(engine));
            }
            Err(error) if error.remedy() == Remedy::Retry => {
                let again_at = outage.retry_at(&error);
                while let Ok(delivery) = timeout_at(again_at, tap.recv()).await {
                    let Some(delivery) = delivery else { return Ok(None) };
                    let ticks = u64::try_from(delivery.chunk.len()).unwrap_or(u64::MAX);
                    missed = missed.saturating_add(delivery.missed).saturating_add(ticks);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

async fn drive(
    engine: Engine,
    tap: TapReceiver,
    store: impl Store,
    summary: SummaryHandle,
) -> Result<(), PaperError> {
    let (sender, steps) = mpsc::channel(WAITING_STEPS_MAX);
    let runtime = Handle::current();
    // Not a task: a strategy that never returns must not hold a worker that recording needs.
    let strategies = thread::Builder::new()
        .name("paper".to_owned())
        .spawn(move || trade(engine, tap, &sender, &summary, &runtime))
        .map_err(PaperError::Thread)?;
    Writer::new(store).run(steps).await?;
    // The thread has let go of its sender, so that it has ended.
    strategies.join().map_err(|_panic| PaperError::Panicked)
}

fn trade(
    mut engine: Engine,
    mut tap: TapReceiver,
    steps: &mpsc::Sender<Step>,
    summary: &SummaryHandle,
    runtime: &Handle,
) {
    let mut events = Vec::new();
    let mut told = 0_u64;
    loop {
        let delivery = runtime.block_on(tap.recv());
        let ended = delivery.is_none();
        let mut step = Step::default();
        if let Some(delivery) = delivery {
            step.missed = delivery.missed;
            for tick in delivery.chunk.iter() {
                engine.on_tick(tick, &mut events);
            }
        } else {
            step.missed = tap.missed_total().saturating_sub(told);
            engine.finish(&mut events);
        }
        told = told.saturating_add(step.missed);
        engine.miss(step.missed);
        for event in events.drain(..) {
            step.changes.record(event);
        }
        summary.set(engine.summary());
        let silent = step.missed == 0 && step.changes.rows() == 0;
        // A closed channel is a task that ended or was dropped: nobody stores what comes now.
        if (!silent && steps.blocking_send(step).is_err()) || ended {
            return;
        }
    }
}

/// Gathers changes and writes them, again and again while the database is away.
struct Writer<S> {
    store: S,
    waiting: Changes,
    due: Instant,
    outage: Outage,
    missed: Missed,
    stopped: BTreeSet<Arc<str>>,
    give_up_at: Option<Instant>,
}

impl<S: Store> Writer<S> {
    fn new(store: S) -> Self {
        Self {
            store,
            waiting: Changes::default(),
            due: Instant::now(),
            outage: Outage::default(),
            missed: Missed { unsaid: 0, next: Instant::now() },
            stopped: BTreeSet::new(),
            give_up_at: None,
        }
    }

    async fn run(mut self, mut steps: mpsc::Receiver<Step>) -> Result<(), PaperError> {
        loop {
            let rows = self.waiting.rows();
            let receives = self.give_up_at.is_none() && rows < WAITING_ROWS_MAX;
            select! {
                biased;
                () = sleep_until(self.due), if rows > 0 => self.write().await?,
                () = sleep_until(self.missed.next), if self.missed.unsaid > 0 => self.missed.tell(),
                // Cancel-safe: a step is received or it stays.
                step = steps.recv(), if receives => match step {
                    Some(step) => self.take(step),
                    None => {
                        self.due = Instant::now();
                        self.give_up_at = Some(self.due + END_WAIT);
                        self.missed.next = self.due;
                    }
                },
                else => return Ok(()),
            }
        }
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
        if self.waiting.rows() == 0 {
            self.due = Instant::now() + WRITE_INTERVAL;
        }
        self.waiting.append(step.changes);
    }

    async fn write(&mut self) -> Result<(), PaperError> {
        let write = self.store.write(&self.waiting);
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
                self.waiting = Changes::default();
                self.outage.over();
                Ok(())
            }
            Err(error) if error.remedy() == Remedy::Retry => {
                let now = Instant::now();
                self.due = self.outage.retry_at(&error);
                match self.give_up_at {
                    Some(at) if now >= at => Err(PaperError::NotStored {
                        rows: self.waiting.rows(),
                        source: Box::new(error),
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
#[derive(Debug, Default)]
struct Outage {
    state: Option<(Instant, ExponentialBackoff)>,
}

impl Outage {
    /// When to try again after this error.
    fn retry_at(&mut self, error: &PaperError) -> Instant {
        let now = Instant::now();
        let (since, backoff) = self.state.get_or_insert_with(|| {
            let backoff = ExponentialBuilder::new()
                .with_min_delay(Duration::from_secs(1))
                .with_max_delay(Duration::from_secs(30))
                .without_max_times()
                .with_jitter();
            (now, backoff.build())
        });
        let away = now.duration_since(*since);
        let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        if away > AWAY_ALARM {
            error!(away_seconds = away.as_secs(), %error, cause, "Paper trading is not stored, trying on");
        } else {
            warn!(%error, cause, "Paper trading is not stored for now, trying again");
        }
        now + backoff.next().unwrap_or(AWAY_ALARM)
    }

    fn over(&mut self) {
        if let Some((since, _)) = self.state.take() {
            let away = since.elapsed();
            info!(away_seconds = away.as_secs(), "Paper trading is stored again");
        } else {
            debug!("Paper trading stored");
        }
    }
}

/// Missed ticks that were not told yet.
#[derive(Debug)]
struct Missed {
    unsaid: u64,
    next: Instant,
}

impl Missed {
    fn tell(&mut self) {
        warn!(ticks = self.unsaid, "Paper trading fell behind and missed ticks");
        self.unsaid = 0;
        self.next = Instant::now() + MISSED_INTERVAL;
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Mutex, mpsc as std_mpsc};

    use tokio::task::JoinSet;

    use super::*;
    use crate::domain::Tick;
    use crate::paper::desk::StoredAccount;
    use crate::paper::strategy::{Signal, Size, Strategy, View};
    use crate::paper::testing::{Scripted, btc, desk, settings, tick};
    use crate::paper::{Overflow, Remedy};
    use crate::pipeline::{Chunk, tap};

    /// Keeps what it is given, after as many errors as it was told to make.
    #[derive(Debug, Clone, Default)]
    struct Memory {
        stored: Arc<Mutex<Changes>>,
        failures: usize,
        refuses: bool,
    }

    fn away() -> PaperError {
        let source = sqlx::Error::Io(io::ErrorKind::ConnectionRefused.into());
        PaperError::Database { action: "written", source }
    }

    impl Memory {
        fn answer(&mut self) -> Result<(), PaperError> {
            if self.refuses {
                return Err(PaperError::Taken { account: "test".to_owned() });
            }
            self.failures = self.failures.saturating_sub(1);
            if self.failures > 0 { Err(away()) } else { Ok(()) }
        }
    }

    impl Store for Memory {
        async fn load(&mut self, _: &[String]) -> Result<Vec<StoredAccount>, PaperError> {
            self.answer().map(|()| Vec::new())
        }

        async fn write(&mut self, changes: &Changes) -> Result<(), PaperError> {
            self.answer()?;
            self.stored.lock().unwrap().append(changes.clone());
            Ok(())
        }
    }

    /// Says that it hangs, then hangs until it is let go.
    #[derive(Debug)]
    struct Hanging {
        hangs: mpsc::Sender<()>,
        release: std_mpsc::Receiver<()>,
    }

    impl Strategy for Hanging {
        fn on_tick(&mut self, _: &Tick, _: &View) -> Result<Option<Signal>, Overflow> {
            // Both fail once the test has let go of its ends: then it no longer hangs.
            if self.hangs.try_send(()).is_ok() {
                self.release.recv().ok();
            }
            Ok(None)
        }
    }

    /// Has a fault.
    #[derive(Debug)]
    struct Faulty;

    impl Strategy for Faulty {
        fn on_tick(&mut self, _: &Tick, _: &View) -> Result<Option<Signal>, Overflow> {
            panic!("a strategy with a fault")
        }
    }

    fn chunk(ids: std::ops::Range<u64>) -> Chunk {
        ids.map(|id| tick(id, i64::try_from(id).unwrap(), "100", "1")).collect()
    }

    fn buying() -> Engine {
        let signals = vec![Some(Signal::Buy(Size::Quantity(3.into())))];
        Engine::of(vec![desk("test", &[btc()], || Box::new(Scripted::new(signals.clone())))])
    }

    #[tokio::test]
    async fn a_strategy_that_hangs_does_not_hold_up_recording_and_the_missed_are_told() {
        let (hangs, mut hanging) = mpsc::channel(1);
        let (release, released) = std_mpsc::channel();
        let parts = Mutex::new(Some((hangs, released)));
        let desk = desk("test", &[btc()], || {
            let (hangs, release) = parts.lock().unwrap().take().unwrap();
            Box::new(Hanging { hangs, release })
        });
        let (mut sender, receiver) = tap(10);
        let (store, summary) = (Memory::default(), SummaryHandle::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(drive(Engine::of(vec![desk]), receiver, store, summary.clone()));
        sender.offer(&chunk(0..1));
        hanging.recv().await.unwrap();

        // The pipeline goes on: nothing here waits, though nothing is taken.
        sender.offer(&chunk(1..11));
        sender.offer(&chunk(11..18));
        assert_eq!(sender.missed_total(), 7);
        assert_eq!(summary.get().missed, 0);

        drop((release, hanging));
        drop(sender);
        tasks.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(summary.get().missed, 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_comes_back_gets_everything_once() {
        let (mut sender, receiver) = tap(100);
        for id in 0..5 {
            sender.offer(&chunk(id..id + 1));
        }
        drop(sender);
        let store = Memory { failures: 4, ..Memory::default() };
        let stored = Arc::clone(&store.stored);
        drive(buying(), receiver, store, SummaryHandle::default()).await.unwrap();
        let stored = stored.lock().unwrap();
        assert_eq!(stored.fills.len(), 3);
        assert_eq!(stored.accounts["test"].last_fill, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_stays_away_at_the_end_is_told_in_rows() {
        let (mut sender, receiver) = tap(100);
        sender.offer(&chunk(0..5));
        drop(sender);
        let store = Memory { failures: usize::MAX, ..Memory::default() };
        let started = Instant::now();
        let error = drive(buying(), receiver, store, SummaryHandle::default()).await.unwrap_err();
        assert!(matches!(error, PaperError::NotStored { rows: 8, .. }), "{error}");
        assert_eq!(error.remedy(), Remedy::Stop);
        assert!(started.elapsed() >= END_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn ticks_that_come_before_the_accounts_are_read_are_missed() {
        let (mut sender, mut receiver) = tap(100);
        sender.offer(&chunk(0..5));
        let mut store = Memory { failures: 3, ..Memory::default() };
        let settings = settings("sma_crossover");
        let engine = start(&settings, &mut receiver, &mut store).await.unwrap().unwrap();
        assert_eq!(engine.summary().missed, 5);

        drop(sender);
        let mut store = Memory { failures: usize::MAX, ..Memory::default() };
        assert!(start(&settings, &mut receiver, &mut store).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_strategy_that_panics_ends_paper_trading_and_nothing_else() {
        let (mut sender, receiver) = tap(100);
        sender.offer(&chunk(0..5));
        let engine = Engine::of(vec![desk("test", &[btc()], || Box::new(Faulty))]);
        let error =
            drive(engine, receiver, Memory::default(), SummaryHandle::default()).await.unwrap_err();
        assert!(matches!(error, PaperError::Panicked), "{error}");
        sender.offer(&chunk(5..7));
        assert_eq!(sender.missed_total(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_ends_paper_trading_and_the_tap_counts_on() {
        let (mut sender, receiver) = tap(100);
        sender.offer(&chunk(0..5));
        let store = Memory { refuses: true, ..Memory::default() };
        let error = run(settings("sma_crossover"), receiver, store, SummaryHandle::default())
            .await
            .unwrap_err();
        assert!(matches!(error, PaperError::Taken { .. }), "{error}");
        sender.offer(&chunk(5..7));
        assert_eq!(sender.missed_total(), 2);
    }
}
