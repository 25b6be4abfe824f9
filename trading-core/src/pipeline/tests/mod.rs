//! The pipeline's promises, with time paused and a store that does as it is told.

mod kinds;
mod outage;
mod receipts;

use std::collections::VecDeque;
use std::io;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::domain::testing::tick;
use crate::store::{StoreError, Written};

fn ticks(ids: std::ops::Range<u64>) -> Vec<Tick> {
    ids.map(tick).collect()
}

fn settings() -> (PipelineSettings, BatchSettings) {
    let size = |number| NonZeroUsize::new(number).unwrap();
    (
        PipelineSettings {
            channel_capacity: size(10_000),
            health_interval: Duration::from_secs(30),
            stop_deadline: Duration::from_secs(30),
        },
        BatchSettings {
            max_size: size(500),
            max_time: Duration::from_secs(5),
            max_coalesced: size(10_000),
            max_retry_attempts: NonZeroU32::new(3).unwrap().get(),
            retry_delay: Duration::from_secs(1),
            writers: size(2),
        },
    )
}

/// Notes each batch and when it came; fails as often as it is told; writes only while it has permits.
#[derive(Debug)]
struct ScriptedStore {
    batches: Mutex<Vec<(Instant, Vec<u64>)>>,
    failures: Mutex<VecDeque<StoreError<Tick>>>,
    permits: Semaphore,
    /// While it is, every write fails at once, after those that were told to.
    away: AtomicBool,
    /// A batch with this tick needs a person.
    unusable: Mutex<Option<u64>>,
}

impl ScriptedStore {
    fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            batches: Mutex::default(),
            failures: Mutex::default(),
            permits: Semaphore::new(permits),
            away: AtomicBool::new(false),
            unusable: Mutex::default(),
        })
    }

    fn sizes(&self) -> Vec<usize> {
        self.batches.lock().unwrap().iter().map(|(_, ids)| ids.len()).collect()
    }

    fn ids(&self) -> Vec<u64> {
        self.batches.lock().unwrap().iter().flat_map(|(_, ids)| ids.clone()).collect()
    }
}

impl Store for ScriptedStore {
    type Record = Tick;

    async fn write(&self, batch: &[Tick]) -> Result<Written, StoreError<Tick>> {
        self.permits.acquire().await.unwrap().forget();
        if let Some(error) = self.failures.lock().unwrap().pop_front() {
            return Err(error);
        }
        if self.away.load(Ordering::Relaxed) {
            return Err(StoreError::Away("no connection became free".into()));
        }
        let ids: Vec<u64> = batch.iter().filter_map(|tick| tick.trade_id.number()).collect();
        if self.unusable.lock().unwrap().is_some_and(|id| ids.contains(&id)) {
            return Err(StoreError::Unusable("no such table".into()));
        }
        self.batches.lock().unwrap().push((Instant::now(), ids));
        Ok(Written { stored: u64::try_from(batch.len()).unwrap(), ..Written::default() })
    }
}

/// What was logged, for tests of the lines that operators and their scripts rely on.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    fn capture(&self) -> tracing::subscriber::DefaultGuard {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(self.clone())
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| line.trim().to_owned()).collect()
    }

    fn count(&self, part: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(part)).count()
    }
}

struct Bench {
    sender: TickSender,
    ledger: Arc<Ledger>,
    probe: PipelineProbe,
    running: JoinSet<()>,
}

fn start(store: &Arc<ScriptedStore>, taps: Vec<TapSender>) -> Bench {
    start_with(store, taps, None)
}

fn start_with(
    store: &Arc<ScriptedStore>,
    taps: Vec<TapSender>,
    spooling: Option<Spooling>,
) -> Bench {
    let report = || -> Box<dyn Fn() -> String + Send> { Box::new(|| "Observer: fine".to_owned()) };
    let observers = taps.into_iter().map(|tap| Observer { tap, report: report() }).collect();
    let (pipeline, batch) = settings();
    let ledger = Arc::new(Ledger::default());
    let (sender, receiver) = channel(pipeline.channel_capacity.get(), Arc::clone(&ledger));
    let parts = PipelineParts { records: receiver, store: Arc::clone(store), observers, spooling };
    let pipeline = Pipeline::new(parts, &pipeline, &batch);
    let probe = pipeline.probe();
    let mut running = JoinSet::new();
    running.spawn(pipeline.run());
    Bench { sender, ledger, probe, running }
}

impl Bench {
    /// Sends ticks; for how long that was held up.
    async fn send(&self, mut batch: Vec<Tick>) -> Duration {
        self.sender.send_all(&mut batch).await.unwrap()
    }

    async fn end(self) -> LedgerReading {
        drop(self.sender);
        self.running.join_all().await;
        self.ledger.read()
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_written_when_it_is_full() {
    let store = ScriptedStore::new(100);
    let bench = start(&store, Vec::new());
    let start = Instant::now();
    bench.send(ticks(0..1_200)).await;
    let reading = bench.end().await;
    assert_eq!(store.ids(), (0..1_200).collect::<Vec<_>>());
    assert!(start.elapsed() < Duration::from_secs(5), "nothing waited for the deadline");
    assert_eq!((reading.stored, reading.in_flight, reading.balances()), (1_200, 0, true));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_not_full_is_written_five_seconds_after_its_first_tick() {
    let store = ScriptedStore::new(100);
    let bench = start(&store, Vec::new());
    let start = Instant::now();
    bench.send(ticks(0..10)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    bench.send(ticks(10..20)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let batches = store.batches.lock().unwrap().clone();
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].1.len(), 20);
    assert_eq!(batches[0].0 - start, Duration::from_secs(5));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn one_write_carries_what_waits_while_the_writers_are_busy_but_no_more_than_its_limit() {
    let store = ScriptedStore::new(0);
    let bench = start(&store, Vec::new());
    // Two writers take 500 each; 10,000 gather in the batch; 10,000 more fill the channel.
    bench.send(ticks(0..21_000)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.ledger.depth(), 21_000);
    // The loop waits for a writer, and all of it can be asked for meanwhile.
    let status = bench.probe.read();
    assert_eq!((status.buffered, status.batch_size), (10_000, 500));
    assert_eq!(status.channel, Utilization { used: 10_000, capacity: 10_000 });
    assert_eq!((status.writers_busy, status.writers), (2, 2));
    assert_eq!((status.store_circuit, status.outage), (StoreCircuitState::Closed, None));
    assert_eq!((status.ledger.in_flight, status.ledger.balances()), (21_000, true));
    assert!(!status.held_for.is_zero());
    store.permits.add_permits(100);
    let reading = bench.end().await;
    let sizes = store.sizes();
    assert_eq!(sizes[..3], [500, 500, 10_000], "{sizes:?}");
    assert_eq!((reading.stored, reading.balances()), (21_000, true));
    assert_eq!(store.ids(), (0..21_000).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_full_channel_says_so_once_in_ten_seconds_and_loses_nothing() {
    let log = Log::default();
    let _guard = log.capture();
    let store = ScriptedStore::new(0);
    let bench = start(&store, Vec::new());
    let sending = async {
        let mut blocked = Duration::ZERO;
        for part in 0..30_u64 {
            blocked += bench.send(ticks(part * 1_000..(part + 1) * 1_000)).await;
        }
        blocked
    };
    let relief = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        store.permits.add_permits(1_000);
    };
    let (blocked, ()) = futures_util::join!(sending, relief);
    let reading = bench.end().await;
    assert_eq!((reading.stored, reading.dropped, reading.balances()), (30_000, 0, true));
    assert!(blocked >= Duration::from_secs(3), "{blocked:?}");
    let full =
        "WARN Channel full! Blocking until space available. Symbol: BTCUSDT, Price: 95234.50";
    assert_eq!(log.count("INFO Data pipeline initialized with buffer capacity: 10000 ticks"), 1);
    assert_eq!(log.lines().iter().filter(|line| *line == full).count(), 1, "{:#?}", log.lines());
    assert_eq!(log.count("DEBUG Channel utilization: "), 1, "{:#?}", log.lines());
    assert_eq!(log.count("WARN Processing backpressure detected: channel "), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_is_retried_and_the_circuit_opens_after_three_retries() {
    let log = Log::default();
    let _guard = log.capture();
    let store = ScriptedStore::new(100);
    let away = || StoreError::Away("no connection became free".into());
    store.failures.lock().unwrap().extend((0..5).map(|_| away()));
    let bench = start(&store, Vec::new());
    bench.send(ticks(0..500)).await;
    let reading = bench.end().await;
    assert_eq!((reading.stored, reading.retries, reading.failed), (500, 5, 1));
    let lines = log.lines();
    assert_eq!(log.count("WARN Batch not written: the database cannot"), 1, "{lines:#?}");
    assert_eq!(log.count("ERROR Store circuit OPEN: the database cannot"), 1, "{lines:#?}");
    assert_eq!(log.count("batches are kept in memory, and the feeds wait"), 1, "{lines:#?}");
    assert_eq!(log.count("INFO Store circuit CLOSED after "), 1, "{lines:#?}");
    assert_eq!(log.count("INFO Batch written after retries"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_told_and_shows_in_the_health_line() {
    let log = Log::default();
    let _guard = log.capture();
    let store = ScriptedStore::new(0);
    let bench = start(&store, Vec::new());
    bench.send(ticks(0..500)).await;
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(
        log.count("ERROR Store circuit OPEN: the database has not answered for 10 s"),
        1,
        "{:#?}",
        log.lines()
    );
    assert_eq!(log.count("Circuit: OPEN"), 1);
    store.permits.add_permits(1);
    assert_eq!(bench.end().await.stored, 500);
}

#[tokio::test(start_paused = true)]
async fn the_health_line_comes_every_thirty_seconds_and_warns_of_a_buffer_that_fills() {
    let log = Log::default();
    let _guard = log.capture();
    let store = ScriptedStore::new(0);
    let (observer, _receiver) = tap(10_000);
    let bench = start(&store, vec![observer]);
    bench.send(ticks(0..1_460)).await;
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(
        log.count(
            "INFO Pipeline Health: 1460 ticks/30s | Total: 1460 | Batches: 0 | Failed: 0 | Retries: 0 | \
             Buffer: 460/500 | Channel: 0% (0/10000) | Spool: 0 | Circuit: OPEN"
        ),
        1,
        "{:#?}",
        log.lines()
    );
    assert_eq!(log.count("INFO Observer: fine"), 1);
    let slow = "WARN Batch buffer 92% full (460/500), database writes may be slow";
    assert_eq!(log.count(slow), 1, "{:#?}", log.lines());
    store.permits.add_permits(100);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_hangs_holds_nothing_up_and_is_told_what_it_missed() {
    let store = ScriptedStore::new(1_000);
    let (sender, mut receiver) = tap(1_000);
    let bench = start(&store, vec![sender]);
    let start = Instant::now();
    bench.send(ticks(0..5_000)).await;
    let reading = bench.end().await;
    assert_eq!((reading.stored, start.elapsed()), (5_000, Duration::ZERO));
    let (mut seen, mut missed) = (0, 0);
    while let Some(delivery) = receiver.recv().await {
        seen += delivery.chunk.len();
        missed += delivery.missed;
    }
    assert_eq!(seen, 1_000);
    assert_eq!((missed, receiver.missed_total()), (0, 4_000));
}

#[tokio::test]
async fn ticks_sent_after_the_pipeline_has_gone_are_counted_as_dropped() {
    let ledger = Arc::new(Ledger::default());
    let (sender, receiver) = channel(10, Arc::clone(&ledger));
    drop(receiver);
    assert_eq!(sender.send_all(&mut ticks(0..7)).await, Err(ChannelClosed));
    let reading = ledger.read();
    assert_eq!((reading.dropped, reading.in_flight, reading.balances()), (7, 0, true));
}

proptest! {
    #[test]
    fn prop_the_batcher_loses_nothing_doubles_nothing_and_keeps_order(
        arrivals in prop::collection::vec((0_usize..700, 0_u64..4_000, any::<bool>()), 0..40)
    ) {
        let (_, settings) = settings();
        let mut batcher = Batcher::new(&settings);
        let mut now = Instant::now();
        let (mut next, mut out) = (0, Vec::new());
        for (number, pause, writer_is_free) in arrivals {
            let number = u64::try_from(number.min(batcher.room(writer_is_free))).unwrap();
            batcher.append(&mut ticks(next..next + number), now);
            next += number;
            prop_assert!(batcher.len() <= 10_000);
            now += Duration::from_millis(pause);
            if writer_is_free && batcher.is_due(now) {
                let batch = batcher.take(Vec::new());
                prop_assert!(!batch.is_empty());
                out.extend(batch.iter().filter_map(|tick| tick.trade_id.number()));
            }
        }
        out.extend(batcher.take(Vec::new()).iter().filter_map(|tick| tick.trade_id.number()));
        prop_assert_eq!(out, (0..next).collect::<Vec<_>>());
    }
}
