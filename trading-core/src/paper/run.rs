//! From the tap to the tables: the strategies on a thread of their own, the database beside it.
//!
//! ```text
//! tap ──ticks, in order of arrival──▶ thread: engine ──changes, bounded──▶ task: one transaction a second ──▶ store
//! ```
//!
//! Every arrow is bounded and waits. So when the database is away, or a strategy hangs, the tap fills up, and
//! what comes then is missed and counted: recording never waits. When the pipeline ends, the tap ends, then the
//! thread, then what is left is stored.

use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};
use tracing::info;

use super::arrivals::Arrivals;
use super::changes::{Changes, Event};
use super::engine::Engine;
use super::error::PaperError;
use super::resume::resume;
use super::store::AccountStore;
use super::summary::SummaryHandle;
use super::ticks::earlier;
use super::writer::{Outage, Step, Writer};
use crate::config::PaperSettings;
use crate::domain::{Source, Timestamp, count};
use crate::pipeline::{Delivery, TapReceiver};
use crate::store::Remedy;

/// Changes of whole chunks that may wait for the task.
const WAITING_STEPS_MAX: usize = 16;

/// How long a tick waits for those that arrived before it over another connection.
const ORDER_WAIT: Duration = Duration::from_secs(1);

/// Ticks that may wait for them: some 10 MB.
const ORDER_WAITING_MAX: usize = 100_000;

/// Trades on paper until the tap ends, and stores what came of it. Goes on from what the store holds: ticks that arrived
/// before `started_at` are read from there, later ones come over the tap.
///
/// When it is dropped, what was not stored did not happen: the next run does it again, with the same ticks.
///
/// # Errors
///
/// When the settings or the stored accounts cannot be worked with, the database refuses for good, is away at
/// the end, or a strategy panics. Recording goes on without paper trading.
pub async fn run(
    settings: PaperSettings,
    mut tap: TapReceiver,
    mut store: impl AccountStore,
    started_at: Timestamp,
    summary: SummaryHandle,
) -> Result<(), PaperError> {
    let Some(started) = start(&settings, &mut tap, &mut store, started_at).await? else {
        return Ok(());
    };
    summary.set(started.engine.summary());
    info!(strategies = settings.strategies.len(), "Paper trading started");
    drive(started, tap, store, summary).await
}

/// An engine where the run before was.
#[derive(Debug)]
struct Started {
    engine: Engine,
    /// What it has done to get there.
    events: Vec<Event>,
    /// Missed ticks that the tap has reported.
    reported: u64,
}

/// `None` when the tap ended before the database answered. Ticks that come while the database is away are missed.
async fn start(
    settings: &PaperSettings,
    tap: &mut TapReceiver,
    store: &mut impl AccountStore,
    started_at: Timestamp,
) -> Result<Option<Started>, PaperError> {
    // Settings that cannot work are refused even when the database is away.
    Engine::new(settings)?;
    let mut outage = Outage::default();
    let (mut missed, mut reported) = (0_u64, 0_u64);
    loop {
        match restore(settings, store, started_at).await {
            Ok((mut engine, events)) => {
                engine.miss(missed);
                return Ok(Some(Started { engine, events, reported }));
            }
            Err(error) if error.remedy() == Remedy::Retry => {
                let again_at = outage.retry_at(&error);
                while let Ok(delivery) = timeout_at(again_at, tap.recv()).await {
                    let Some(delivery) = delivery else { return Ok(None) };
                    let ticks = count(delivery.chunk.len());
                    reported = reported.saturating_add(delivery.missed);
                    missed = missed.saturating_add(delivery.missed).saturating_add(ticks);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

async fn restore(
    settings: &PaperSettings,
    store: &mut impl AccountStore,
    started_at: Timestamp,
) -> Result<(Engine, Vec<Event>), PaperError> {
    let names: Vec<String> =
        settings.strategies.iter().map(|strategy| strategy.name.clone()).collect();
    let mut engine = Engine::restore(settings, store.load(&names).await?)?;
    let mut events = Vec::new();
    resume(settings, &mut engine, store, started_at, &mut events).await?;
    // Stored before the first tick, so that a crash from here on finds where an account began.
    let mut begun = Vec::new();
    engine.begin(started_at, &mut begun);
    if !begun.is_empty() {
        let mut changes = Changes::default();
        begun.into_iter().for_each(|event| changes.record(event));
        store.write(&changes).await?;
    }
    Ok((engine, events))
}

async fn drive(
    started: Started,
    tap: TapReceiver,
    store: impl AccountStore,
    summary: SummaryHandle,
) -> Result<(), PaperError> {
    let (sender, steps) = mpsc::channel(WAITING_STEPS_MAX);
    let writer = Writer::new(store, tap.stored());
    let runtime = Handle::current();
    // Not a task: a strategy that never returns must not hold a worker that recording needs.
    let strategies = thread::Builder::new()
        .name("paper".to_owned())
        .spawn(move || trade(Trader::new(started), tap, &sender, &summary, &runtime))
        .map_err(PaperError::Thread)?;
    writer.run(steps).await?;
    // The thread has let go of its sender, so that it has ended.
    strategies.join().map_err(|_panic| PaperError::Panicked)
}

fn trade(
    mut trader: Trader,
    mut tap: TapReceiver,
    steps: &mpsc::Sender<Step>,
    summary: &SummaryHandle,
    runtime: &Handle,
) {
    loop {
        let received = if trader.arrivals.is_empty() {
            Ok(runtime.block_on(tap.recv()))
        } else {
            runtime.block_on(async { timeout(ORDER_WAIT, tap.recv()).await })
        };
        let ended = matches!(received, Ok(None));
        match received {
            Ok(Some(delivery)) => trader.take(&delivery),
            Ok(None) => trader.finish(tap.missed_total()),
            // Nothing has come within the wait: nothing comes before what waits.
            Err(_elapsed) => trader.trade_all(),
        }
        let step = trader.step();
        summary.set(trader.engine.summary());
        let silent = step.missed == 0 && step.changes.rows() == 0;
        // A closed channel is a task that ended or was dropped: nobody stores what comes now.
        if (!silent && steps.blocking_send(step).is_err()) || ended {
            return;
        }
    }
}

/// The engine, and the ticks on their way to it.
struct Trader {
    engine: Engine,
    arrivals: Arrivals,
    newest: Timestamp,
    events: Vec<Event>,
    /// Missed ticks that the tap has reported, and of them those that no step has yet.
    reported: u64,
    missed: u64,
    through: u64,
}

impl Trader {
    fn new(Started { engine, events, reported }: Started) -> Self {
        Self {
            engine,
            arrivals: Arrivals::new(ORDER_WAITING_MAX),
            newest: Timestamp::EPOCH,
            events,
            reported,
            missed: 0,
            through: 0,
        }
    }

    fn take(&mut self, delivery: &Delivery) {
        self.miss(delivery.missed);
        self.through = delivery.through;
        for tick in delivery.chunk.iter() {
            if tick.source == Source::Backfill {
                self.engine.leave_out(tick);
                continue;
            }
            self.newest = self.newest.max(tick.received_at);
            if self.engine.trades(tick.instrument) {
                self.arrivals.push(tick.received_at, tick.clone());
                self.trade_before(earlier(self.newest, ORDER_WAIT));
            }
        }
        self.trade_before(earlier(self.newest, ORDER_WAIT));
    }

    fn trade_before(&mut self, before: Timestamp) {
        while let Some((_, tick)) = self.arrivals.pop_before(before) {
            self.engine.on_tick(&tick, &mut self.events);
        }
    }

    fn trade_all(&mut self) {
        while let Some((_, tick)) = self.arrivals.pop() {
            self.engine.on_tick(&tick, &mut self.events);
        }
    }

    fn finish(&mut self, missed_total: u64) {
        self.miss(missed_total.saturating_sub(self.reported));
        self.trade_all();
        self.engine.finish(&mut self.events);
    }

    fn miss(&mut self, ticks: u64) {
        self.reported = self.reported.saturating_add(ticks);
        self.missed = self.missed.saturating_add(ticks);
        self.engine.miss(ticks);
    }

    /// What has happened since the last step.
    fn step(&mut self) -> Step {
        self.engine.displace(self.arrivals.displaced());
        let mut changes = Changes::default();
        self.events.drain(..).for_each(|event| changes.record(event));
        Step { missed: std::mem::take(&mut self.missed), changes, through: self.through }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex, mpsc as std_mpsc};

    use tokio::task::JoinSet;
    use tokio::time::Instant;

    use super::*;
    use crate::domain::Tick;
    use crate::paper::desk::StoredAccount;
    use crate::paper::strategy::{Signal, Size, Strategy, View};
    use crate::paper::testing::{Scripted, btc, desk, settings, tick};
    use crate::paper::writer::END_WAIT;
    use crate::paper::{Overflow, TickQuery, TickStream};
    use crate::pipeline::{Chunk, tap};

    /// Keeps what it is given, after as many errors as it is asked for.
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

    impl AccountStore for Memory {
        async fn load(&mut self, _: &[String]) -> Result<Vec<StoredAccount>, PaperError> {
            self.answer().map(|()| Vec::new())
        }

        async fn write(&mut self, changes: &Changes) -> Result<(), PaperError> {
            self.answer()?;
            self.stored.lock().unwrap().append(changes.clone());
            Ok(())
        }

        fn ticks(&self, _: TickQuery) -> TickStream {
            TickStream::of(Vec::new())
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

        fn lookback(&self) -> Duration {
            Duration::ZERO
        }

        fn is_settled(&self) -> bool {
            true
        }
    }

    /// Has a fault.
    #[derive(Debug)]
    struct Faulty;

    impl Strategy for Faulty {
        fn on_tick(&mut self, _: &Tick, _: &View) -> Result<Option<Signal>, Overflow> {
            panic!("a strategy with a fault")
        }

        fn lookback(&self) -> Duration {
            Duration::ZERO
        }

        fn is_settled(&self) -> bool {
            true
        }
    }

    fn chunk(ids: std::ops::Range<u64>) -> Chunk {
        ids.map(|id| tick(id, i64::try_from(id).unwrap(), "100", "1")).collect()
    }

    fn started(engine: Engine) -> Started {
        Started { engine, events: Vec::new(), reported: 0 }
    }

    fn buying() -> Started {
        let signals = vec![Some(Signal::Buy(Size::Quantity(3.into())))];
        started(Engine::of(vec![desk("test", &[btc()], || {
            Box::new(Scripted::new(signals.clone()))
        })]))
    }

    fn now() -> Timestamp {
        Timestamp::from_micros(1_000_000).unwrap()
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
        tasks.spawn(drive(started(Engine::of(vec![desk])), receiver, store, summary.clone()));
        sender.offer(&chunk(0..1));
        hanging.recv().await.unwrap();

        // The pipeline goes on: nothing here waits, though nothing is taken.
        sender.offer(&chunk(1..11));
        sender.offer(&chunk(11..18));
        assert_eq!(sender.missed_total(), 7);
        assert_eq!(summary.get().missed, 0);

        drop((release, hanging));
        sender.publish_stored(18);
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
        sender.publish_stored(5);
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
        sender.publish_stored(5);
        drop(sender);
        let store = Memory { failures: usize::MAX, ..Memory::default() };
        let begun_at = Instant::now();
        let error = drive(buying(), receiver, store, SummaryHandle::default()).await.unwrap_err();
        assert!(matches!(error, PaperError::NotStored { rows: 8, .. }), "{error}");
        assert_eq!(error.remedy(), Remedy::Stop);
        assert!(begun_at.elapsed() >= END_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn ticks_that_come_before_the_accounts_are_read_are_missed() {
        let (mut sender, mut receiver) = tap(100);
        sender.offer(&chunk(0..5));
        let mut store = Memory { failures: 3, ..Memory::default() };
        let settings = settings("sma_crossover");
        let begun = start(&settings, &mut receiver, &mut store, now()).await.unwrap().unwrap();
        assert_eq!(begun.engine.summary().missed, 5);

        drop(sender);
        let mut store = Memory { failures: usize::MAX, ..Memory::default() };
        assert!(start(&settings, &mut receiver, &mut store, now()).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_strategy_that_panics_ends_paper_trading_and_nothing_else() {
        let (mut sender, receiver) = tap(100);
        sender.offer(&chunk(0..5));
        let engine = Engine::of(vec![desk("test", &[btc()], || Box::new(Faulty))]);
        let error = drive(started(engine), receiver, Memory::default(), SummaryHandle::default())
            .await
            .unwrap_err();
        assert!(matches!(error, PaperError::Panicked), "{error}");
        sender.offer(&chunk(5..7));
        assert_eq!(sender.missed_total(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_ends_paper_trading_and_the_tap_counts_on() {
        let (mut sender, receiver) = tap(100);
        sender.offer(&chunk(0..5));
        let store = Memory { refuses: true, ..Memory::default() };
        let error =
            run(settings("sma_crossover"), receiver, store, now(), SummaryHandle::default())
                .await
                .unwrap_err();
        assert!(matches!(error, PaperError::Taken { .. }), "{error}");
        sender.offer(&chunk(5..7));
        assert_eq!(sender.missed_total(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_stored_of_a_tick_that_is_not_stored() {
        let (mut sender, receiver) = tap(100);
        sender.offer(&chunk(0..5));
        sender.publish_stored(4);
        drop(sender);
        let store = Memory::default();
        let stored = Arc::clone(&store.stored);
        let error = drive(buying(), receiver, store, SummaryHandle::default()).await.unwrap_err();
        assert!(matches!(error, PaperError::NotStored { rows: 8, source: None }), "{error}");
        assert_eq!(stored.lock().unwrap().rows(), 0);

        let (mut sender, receiver) = tap(100);
        sender.offer(&chunk(0..5));
        let store = Memory::default();
        let stored = Arc::clone(&store.stored);
        let mut tasks = JoinSet::new();
        tasks.spawn(drive(buying(), receiver, store, SummaryHandle::default()));
        sender.publish_stored(5);
        drop(sender);
        tasks.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(stored.lock().unwrap().fills.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_fetched_afterwards_is_left_out_and_what_came_late_gets_its_place() {
        let (mut sender, receiver) = tap(100);
        let live = |id| tick(id, i64::try_from(id).unwrap(), "100", "1");
        let fetched = Tick { source: Source::Backfill, ..live(9) };
        sender.offer(&[live(2), live(1), live(4), fetched, live(3)].into());
        sender.publish_stored(5);
        drop(sender);
        let (store, summary) = (Memory::default(), SummaryHandle::default());
        let stored = Arc::clone(&store.stored);
        drive(buying(), receiver, store, summary.clone()).await.unwrap();
        let stored = stored.lock().unwrap();
        let filled: Vec<_> = stored.fills.values().map(|fill| fill.trade_id.number()).collect();
        assert_eq!(filled, [Some(2), Some(3), Some(4)]);
        let summary = summary.get();
        assert_eq!((summary.strategies[0].late, summary.displaced), (1, 0));
    }
}
