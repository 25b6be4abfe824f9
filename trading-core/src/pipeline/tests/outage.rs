//! What becomes of ticks while the store is away, with a spool on a real disk and time paused.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::store::spool::{Backlog, Spool};
use crate::store::{DaysLeft, StoreError, Written};

const DATABASE: &str = "a database";

struct Outage {
    folder: TempDir,
    spool: Spool<Tick>,
    spool_now: CancellationToken,
    store: Arc<ScriptedStore>,
}

impl Outage {
    async fn new(max_bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let opened = Spool::open(folder.path().to_owned(), max_bytes, DATABASE.to_owned()).await;
        let (spool, _) = opened.unwrap();
        Self {
            folder,
            spool,
            spool_now: CancellationToken::new(),
            store: ScriptedStore::new(1_000_000),
        }
    }

    fn start(&self) -> Bench {
        let (spool, spool_now) = (self.spool.clone(), self.spool_now.clone());
        start_with(&self.store, Vec::new(), Some(Spooling { spool, spool_now, seed: 7 }))
    }

    /// Turns a bit of the last batch.
    fn damage(&self) -> PathBuf {
        let path = self.folder.path().join("1/0000000001.segment");
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn store_is_away(&self, away: bool) {
        self.store.away.store(away, Ordering::Relaxed);
    }

    /// What was written, each tick once or more.
    fn stored(&self) -> BTreeSet<u64> {
        self.store.ids().into_iter().collect()
    }
}

/// Waits, in paused time, until it is so.
async fn until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(600);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within ten minutes");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn all(number: u64) -> BTreeSet<u64> {
    (0..number).collect()
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_spooled_drained_oldest_first_and_told_in_a_dozen_lines() {
    let log = Log::default();
    let guard = log.capture();
    let outage = Outage::new(1 << 30).await;
    let bench = outage.start();
    bench.send(ticks(0..1_000)).await;
    until(|| bench.ledger.read().stored == 1_000).await;
    outage.store_is_away(true);
    let start = Instant::now();
    for part in 1..121 {
        bench.send(ticks(part * 1_000..(part + 1) * 1_000)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(bench.ledger.read().balances(), "{}", bench.ledger.read());
    }
    assert!(start.elapsed() < Duration::from_secs(125), "the feeds never waited");
    let during = bench.ledger.read();
    assert!(during.spooled >= 118_000, "{during}");
    assert_eq!(bench.ledger.depth(), 120_000);
    let status = bench.probe.read();
    assert_eq!(status.store_circuit, StoreCircuitState::Open);
    assert!(status.outage.is_some_and(|outage| outage > Duration::from_secs(100)), "{status:?}");
    assert!(status.spool.ticks > 100_000, "{status:?}");
    assert!(
        during.failed <= 2,
        "a writer's each, and the others went straight to disk: {during:?}"
    );
    outage.store_is_away(false);
    until(|| outage.spool.backlog() == Backlog::default()).await;
    bench.send(ticks(121_000..122_000)).await;
    let reading = bench.end().await;
    assert_eq!(
        (reading.stored, reading.spooled, reading.balances()),
        (122_000, 0, true),
        "{reading}"
    );
    let ids = outage.store.ids();
    let first_drained = ids.iter().position(|id| *id == 1_000).unwrap();
    // Two writers append side by side, so neighbours may change places; nothing else does.
    let is_near = |(id, expected): (&u64, u64)| id.abs_diff(expected) < 15_000;
    assert!(ids[first_drained..].iter().zip(1_000..).all(is_near), "the oldest first");
    assert!(outage.store.sizes().contains(&10_000), "drained in large writes");
    drop(guard);

    let lines: Vec<String> =
        log.lines().into_iter().filter(|line| !line.starts_with("DEBUG")).collect();
    assert_eq!(log.count("ERROR Store circuit OPEN: the database cannot take the batch now"), 1);
    assert_eq!(log.count("WARN Store still away after "), 1, "{lines:#?}");
    assert_eq!(log.count("INFO Store circuit CLOSED after "), 1, "{lines:#?}");
    assert_eq!(log.count(" ticks) from the spool"), 1, "{lines:#?}");
    assert_eq!(log.count("INFO Spool drained: 120000 ticks in "), 1, "{lines:#?}");
    assert_eq!(log.count("Circuit: OPEN"), 4, "{lines:#?}");
    assert!(log.count("DEBUG Spooled batch not written") > 5, "probes");
    assert!(lines.len() <= 14, "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_for_ten_seconds_holds_no_feed_up() {
    let log = Log::default();
    let _guard = log.capture();
    let outage = Outage::new(1 << 30).await;
    // Takes writes, and never answers.
    outage.store.permits.forget_permits(1_000_000);
    let bench = outage.start();
    bench.send(ticks(0..2_000)).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(outage.spool.backlog().ticks, 0);
    until(|| outage.spool.backlog().ticks == 2_000).await;
    let silent = "ERROR Store circuit OPEN: the database has not answered for 10 s; batches go to the spool at ";
    assert_eq!(log.count(silent), 1, "{:#?}", log.lines());
    outage.store.permits.add_permits(1_000_000);
    until(|| outage.spool.backlog().ticks == 0).await;
    let reading = bench.end().await;
    assert_eq!((reading.stored, reading.balances()), (2_000, true), "{reading}");
    assert_eq!(outage.stored(), all(2_000));
}

#[tokio::test(start_paused = true)]
async fn a_batch_between_its_retries_notices_that_the_circuit_is_open() {
    let outage = Outage::new(1 << 30).await;
    outage.store_is_away(true);
    let bench = outage.start();
    bench.send(ticks(0..500)).await;
    // Its own retries take until 7 s at least; those of the first batch end before.
    tokio::time::sleep(Duration::from_secs(3)).await;
    bench.send(ticks(500..1_000)).await;
    until(|| outage.spool.backlog().batches > 0).await;
    let opened = Instant::now();
    until(|| outage.spool.backlog().batches == 2).await;
    assert!(opened.elapsed() < Duration::from_millis(100), "{:?}", opened.elapsed());
    assert_eq!(bench.ledger.read().failed, 1);
    drop(bench.running);
}

#[tokio::test(start_paused = true)]
async fn at_a_high_rate_the_feeds_do_not_wait_for_the_retries_either() {
    let log = Log::default();
    let _guard = log.capture();
    let outage = Outage::new(1 << 30).await;
    outage.store_is_away(true);
    let bench = outage.start();
    for part in 0..100 {
        bench.send(ticks(part * 1_000..(part + 1) * 1_000)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(log.count("Channel full!"), 0, "{:#?}", log.lines());
    assert!(bench.ledger.read().spooled >= 80_000, "{}", bench.ledger.read());
    outage.store_is_away(false);
    let reading = bench.end().await;
    assert_eq!(reading.stored + reading.spooled, 100_000, "{reading}");
    assert!(reading.balances());
}

#[tokio::test(start_paused = true)]
async fn a_database_that_needs_a_person_opens_the_circuit_at_once() {
    let outage = Outage::new(1 << 30).await;
    let unusable = StoreError::Unusable("no such table".into());
    outage.store.failures.lock().unwrap().push_back(unusable);
    let bench = outage.start();
    let start = Instant::now();
    bench.send(ticks(0..500)).await;
    until(|| outage.spool.backlog().batches == 1).await;
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
    until(|| outage.spool.backlog().batches == 0).await;
    assert_eq!(bench.end().await.stored, 500);
}

#[tokio::test(start_paused = true)]
async fn one_batch_that_needs_a_person_does_not_keep_the_others_from_the_store() {
    let outage = Outage::new(1 << 30).await;
    *outage.store.unusable.lock().unwrap() = Some(7);
    let bench = outage.start();
    bench.send(ticks(0..500)).await;
    until(|| outage.spool.backlog().batches == 1).await;
    let mut next = 500;
    while bench.ledger.read().stored == 0 && next < 50_000 {
        bench.send(ticks(next..next + 500)).await;
        next += 500;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let spooled = outage.spool.backlog().ticks;
    assert!(bench.ledger.read().stored > 0, "{}", bench.ledger.read());
    bench.send(ticks(next..next + 5_000)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(outage.spool.backlog().ticks, spooled, "the others go straight to the store");
    *outage.store.unusable.lock().unwrap() = None;
    until(|| outage.spool.backlog().batches == 0).await;
    let reading = bench.end().await;
    assert_eq!((reading.stored, reading.balances()), (next + 5_000, true), "{reading}");
}

#[tokio::test(start_paused = true)]
async fn a_spool_that_cannot_be_read_does_not_keep_the_others_from_the_store_either() {
    let outage = Outage::new(1 << 30).await;
    outage.store_is_away(true);
    let bench = outage.start();
    bench.send(ticks(0..500)).await;
    until(|| outage.spool.backlog().batches == 1).await;
    let path = outage.damage();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    outage.store_is_away(false);
    let mut next = 500;
    while bench.ledger.read().stored == 0 && next < 50_000 {
        bench.send(ticks(next..next + 500)).await;
        next += 500;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(bench.ledger.read().stored > 0, "{}", bench.ledger.read());
    outage.spool_now.cancel();
    let reading = bench.end().await;
    assert!(reading.spooled >= 500 && reading.balances(), "{reading}");
}

#[tokio::test(start_paused = true)]
async fn a_full_spool_is_said_holds_the_feeds_and_loses_nothing() {
    let log = Log::default();
    let _guard = log.capture();
    let outage = Outage::new(1 << 20).await;
    outage.store_is_away(true);
    let bench = outage.start();
    let sender = bench.sender.clone();
    // The spool takes some 18,000; two writers, the batcher and the channel 10,000 each.
    let sending = async {
        for part in 0..80 {
            sender.send_all(&mut ticks(part * 1_000..(part + 1) * 1_000)).await.unwrap();
        }
    };
    let relief = async {
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(bench.sender.utilization().percent(), 100, "the feeds wait");
        assert!(outage.spool.backlog().bytes <= 1 << 20);
        let reading = bench.ledger.read();
        assert!(reading.balances() && reading.spooled > 10_000, "{reading}");
        outage.store_is_away(false);
    };
    futures_util::join!(sending, relief);
    drop(sender);
    let reading = bench.end().await;
    assert_eq!((reading.stored, reading.dropped, reading.spooled), (80_000, 0, 0), "{reading}");
    assert!(reading.balances());
    assert_eq!(outage.stored(), all(80_000));
    let full = log.count("WARN Spool full at ");
    assert!((1..=13).contains(&full), "one line in ten seconds: {:#?}", log.lines());
    assert!(log.count("of 1.0 MiB are taken; batches are kept in memory") >= 1);
    assert!(log.count("WARN Channel full! ") >= 1);
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_left_is_stored_beside_what_comes_in() {
    let outage = Outage::new(1 << 30).await;
    for part in 0..40 {
        outage.spool.append(ticks(part * 500..(part + 1) * 500)).await.1.unwrap();
    }
    let bench = outage.start();
    assert_eq!((bench.ledger.read().received, bench.ledger.depth()), (20_000, 20_000));
    bench.send(ticks(20_000..20_500)).await;
    until(|| outage.stored().len() == 20_500).await;
    let reading = bench.end().await;
    assert_eq!((reading.received, reading.stored, reading.balances()), (20_500, 20_500, true));
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_the_drain_while_the_store_is_there() {
    let outage = Outage::new(1 << 30).await;
    outage.spool.append(ticks(0..5_000)).await.1.unwrap();
    // Every other write of the drain fails, in a way that passes.
    outage
        .store
        .failures
        .lock()
        .unwrap()
        .push_back(StoreError::Away("no connection became free".into()));
    let bench = outage.start();
    let reading = bench.end().await;
    assert_eq!((reading.stored, reading.spooled), (5_000, 0), "{reading}");
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_the_store_is_away_spools_everything_at_once() {
    let outage = Outage::new(1 << 30).await;
    outage.store_is_away(true);
    let bench = outage.start();
    bench.send(ticks(0..500)).await;
    until(|| outage.spool.backlog().batches == 1).await;
    bench.send(ticks(500..777)).await;
    let start = Instant::now();
    let reading = bench.end().await;
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
    assert_eq!(
        (reading.spooled, reading.in_flight, reading.balances()),
        (777, 0, true),
        "{reading}"
    );
    assert_eq!(outage.spool.backlog().ticks, 777);
    drop(outage.spool);
    let again =
        Spool::<Tick>::open(outage.folder.path().to_owned(), 1 << 30, DATABASE.to_owned()).await;
    assert_eq!(again.unwrap().1.backlog.ticks, 777, "the next start finds them");
}

#[tokio::test(start_paused = true)]
async fn in_a_hurry_what_is_being_written_goes_to_the_spool() {
    let outage = Outage::new(1 << 30).await;
    outage.store.permits.forget_permits(1_000_000);
    let bench = outage.start();
    bench.send(ticks(0..2_345)).await;
    let Bench { sender, ledger, mut running, .. } = bench;
    drop(sender);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(running.try_join_next().is_none(), "it waits for an answer");
    outage.spool_now.cancel();
    running.join_all().await;
    let reading = ledger.read();
    assert_eq!(
        (reading.spooled, reading.in_flight, reading.balances()),
        (2_345, 0, true),
        "{reading}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_in_the_spool_is_counted_as_dropped_and_the_rest_is_stored() {
    let outage = Outage::new(1 << 30).await;
    (outage.spool.append(ticks(0..10)).await).1.unwrap();
    (outage.spool.append(ticks(10..30)).await).1.unwrap();
    let path = outage.damage();
    let reading = outage.start().end().await;
    assert_eq!((reading.stored, reading.dropped, reading.balances()), (10, 20, true), "{reading}");
    assert!(path.with_extension("damaged").exists());
}

#[tokio::test(start_paused = true)]
async fn where_nothing_can_be_read_the_store_is_not_asked_and_not_said_to_be_back() {
    let log = Log::default();
    let _guard = log.capture();
    let outage = Outage::new(1 << 30).await;
    outage.store_is_away(true);
    let bench = outage.start();
    bench.send(ticks(0..500)).await;
    until(|| outage.spool.backlog().ticks == 500).await;
    let path = outage.damage();
    until(|| bench.ledger.read().dropped == 500).await;
    assert!(path.with_extension("damaged").exists());
    let reading = bench.end().await;
    assert_eq!((reading.spooled, reading.balances()), (0, true), "{reading}");
    assert_eq!(log.count("Store circuit OPEN"), 1, "{:#?}", log.lines());
    assert_eq!(log.count("Store circuit CLOSED"), 0, "{:#?}", log.lines());
}

/// The store takes all but the second tick of a batch, whose day it cannot make, or not yet.
fn days_left(batch: Vec<Tick>, goes_on: bool) -> StoreError<Tick> {
    let mut left = batch;
    let stored = u64::try_from(left.len()).unwrap() - 1;
    let waiting = left.remove(1);
    StoreError::Days(Box::new(DaysLeft {
        written: Written { stored, ..Written::default() },
        left: vec![waiting],
        day: if goes_on { String::new() } else { "2026-01-01".to_owned() },
        cure: if goes_on { String::new() } else { "end that session".to_owned() },
        cause: (!goes_on).then(|| "no connection became free".into()),
        goes_on,
    }))
}

#[tokio::test(start_paused = true)]
async fn ticks_of_a_day_that_cannot_be_made_wait_in_the_spool_and_open_no_circuit() {
    let log = Log::default();
    let guard = log.capture();
    let outage = Outage::new(1_000_000).await;
    let bench = outage.start();
    outage.store.failures.lock().unwrap().push_back(days_left(ticks(0..500), false));
    bench.send(ticks(0..500)).await;
    until(|| outage.stored().contains(&1)).await;
    assert_eq!(outage.store.ids(), [1], "the others were stored with the first write");
    let reading = bench.end().await;
    assert_eq!((reading.received, reading.stored, reading.in_flight), (500, 500, 0), "{reading}");
    drop(guard);
    assert_eq!(log.count("Store circuit OPEN"), 0, "{:?}", log.lines());
    assert_eq!(log.count("ERROR Ticks not stored yet: the partition of 2026-01-01 cannot"), 1);
    assert_eq!(log.count("end that session; they wait in the spool"), 1, "{:?}", log.lines());
}

#[tokio::test(start_paused = true)]
async fn days_that_are_still_being_made_are_written_on_at_once_and_no_failure() {
    let log = Log::default();
    let guard = log.capture();
    let outage = Outage::new(1_000_000).await;
    let bench = outage.start();
    outage.store.failures.lock().unwrap().push_back(days_left(ticks(0..500), true));
    bench.send(ticks(0..500)).await;
    until(|| outage.stored().contains(&1)).await;
    let reading = bench.end().await;
    assert_eq!((reading.stored, reading.failed, reading.retries), (500, 0, 0), "{reading}");
    drop(guard);
    let told = log.lines();
    assert!(told.iter().all(|line| !line.contains("ERROR") && !line.contains("WARN")), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_the_spool_for_its_day_goes_behind_what_can_be_stored() {
    let outage = Outage::new(1_000_000).await;
    let mut spool = outage.spool.clone();
    for range in [0..500, 500..1_000] {
        spool = append(spool, ticks(range)).await;
    }
    // The oldest two records, in one write.
    outage.store.failures.lock().unwrap().push_back(days_left(ticks(0..1_000), false));
    let bench = outage.start();
    until(|| spool.backlog().batches == 0).await;
    assert_eq!(outage.store.ids(), [1]);
    let reading = bench.end().await;
    assert_eq!((reading.stored, reading.spooled), (1_000, 0), "{reading}");
}

async fn append(spool: Spool<Tick>, batch: Vec<Tick>) -> Spool<Tick> {
    spool.append(batch).await.1.unwrap();
    spool
}
