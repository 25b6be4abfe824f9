//! What a source learns of what it sent, through the whole pipeline, with time paused.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use proptest::prelude::*;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::store::StoreError;
use crate::store::spool::Spool;

impl Bench {
    async fn send_tracked(&self, ids: std::ops::Range<u64>) -> Receipt {
        self.sender.send_tracked(&mut ticks(ids)).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_receipt_waits_for_the_last_record_and_for_no_later_one() {
    let store = ScriptedStore::new(0);
    let bench = start(&store, Vec::new());
    bench.send(ticks(0..400)).await;
    let mut receipt = bench.send_tracked(400..600).await;
    bench.send(ticks(600..900)).await;
    // Two batches are under way, the second ends at its deadline; neither has an answer yet.
    sleep(Duration::from_secs(6)).await;
    assert_eq!(receipt.outcome().now_or_never(), None);
    store.permits.add_permits(1);
    sleep(Duration::from_secs(1)).await;
    assert_eq!((store.sizes(), receipt.outcome().now_or_never()), (vec![500], None));
    store.permits.add_permits(1);
    assert_eq!(receipt.outcome().await, Outcome::Stored);
    assert_eq!(store.sizes(), [500, 400]);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_receipt_of_nothing_is_that_of_what_was_sent_before() {
    let store = ScriptedStore::new(1);
    let bench = start(&store, Vec::new());
    bench.send(ticks(0..500)).await;
    let mut receipt = bench.send_tracked(500..500).await;
    assert_eq!(receipt.outcome().await, Outcome::Stored);
    assert_eq!(store.sizes(), [500]);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_receipt_that_is_asked_for_last_of_all_is_honoured_before_the_pipeline_ends() {
    let store = ScriptedStore::new(10);
    let bench = start(&store, Vec::new());
    let probe = bench.probe.clone();
    let mut receipt = bench.send_tracked(0..7).await;
    assert_eq!(bench.end().await.stored, 7);
    let end = probe.read();
    assert_eq!((end.buffered, end.writers_busy, end.channel.used), (0, 0, 0));
    assert_eq!(end.held_for, Duration::ZERO);
    assert_eq!(receipt.outcome().now_or_never(), Some(Outcome::Stored));
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_is_stopped_by_force_vouches_for_nothing() {
    let store = ScriptedStore::new(0);
    let bench = start(&store, Vec::new());
    let mut receipt = bench.send_tracked(0..500).await;
    sleep(Duration::from_secs(1)).await;
    drop(bench.running);
    assert_eq!(receipt.outcome().await, Outcome::Dropped);
    assert!(bench.sender.send_tracked(&mut ticks(500..501)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_a_source_sends_to_a_store_that_is_away_is_spooled() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(folder.path().to_owned(), 1 << 30, "x".to_owned()).await.unwrap();
    let store = ScriptedStore::new(1_000);
    let waiting = spool.clone();
    let spooling = Spooling { spool, spool_now: CancellationToken::new(), seed: 7 };
    let bench = start_with(&store, Vec::new(), Some(spooling));
    let mut before = bench.send_tracked(0..500).await;
    assert_eq!(before.outcome().await, Outcome::Stored);
    store.away.store(true, Ordering::Relaxed);
    let mut during = bench.send_tracked(500..1_000).await;
    assert_eq!(during.outcome().await, Outcome::Spooled);
    store.away.store(false, Ordering::Relaxed);
    waiting.until_empty_is(true).await;
    let mut after = bench.send_tracked(1_000..1_500).await;
    assert_eq!(after.outcome().await, Outcome::Stored);
    let probe = bench.probe.clone();
    assert_eq!(bench.end().await.stored, 1_500);
    drop(waiting);
    // The next process has the same slot, though the probe is kept.
    let slots = || std::fs::read_dir(folder.path()).unwrap().count();
    let before = slots();
    let next = Spool::<Tick>::open(folder.path().to_owned(), 1 << 30, "x".to_owned()).await;
    assert_eq!((slots(), next.is_ok(), probe.read().spool.ticks), (before, true, 0));
}

/// What one source does.
#[derive(Debug, Clone)]
struct Portion {
    records: u64,
    is_tracked: bool,
    pause_ms: u64,
}

fn portions() -> impl Strategy<Value = Vec<Portion>> {
    let portion = (0_u64..1_500, any::<bool>(), 0_u64..4_000)
        .prop_map(|(records, is_tracked, pause_ms)| Portion { records, is_tracked, pause_ms });
    prop::collection::vec(portion, 0..12)
}

/// Every record of a batch whose receipt has its outcome is in the store or in the spool; returns the outcome.
async fn check(
    mut receipt: Receipt,
    ids: std::ops::Range<u64>,
    store: Arc<ScriptedStore>,
    spool: Option<Spool<Tick>>,
) -> Outcome {
    let outcome = receipt.outcome().await;
    // The spool is read first: what leaves it meanwhile is in the store.
    let oldest = match spool {
        Some(spool) => spool.oldest(usize::MAX).await.unwrap(),
        None => None,
    };
    let waiting = oldest.map(|oldest| oldest.records).unwrap_or_default();
    let stored: BTreeSet<u64> = store.ids().into_iter().collect();
    let spooled: BTreeSet<u64> = waiting.iter().filter_map(|tick| tick.trade_id.number()).collect();
    for id in ids {
        match outcome {
            Outcome::Stored => assert!(stored.contains(&id), "{id}"),
            Outcome::Spooled => assert!(stored.contains(&id) || spooled.contains(&id), "{id}"),
            Outcome::Dropped => panic!("nothing ended by force"),
        }
    }
    outcome
}

/// One source: sends its portions, and checks each receipt when it has its outcome, beside sending on.
async fn source(
    bench: &Bench,
    portions: Vec<Portion>,
    first: u64,
    store: Arc<ScriptedStore>,
    spool: Option<Spool<Tick>>,
) -> Vec<Outcome> {
    let (mut next, mut checks) = (first, JoinSet::new());
    for Portion { records, is_tracked, pause_ms } in portions {
        let ids = next..next + records;
        next = ids.end;
        if is_tracked {
            let receipt = bench.send_tracked(ids.clone()).await;
            checks.spawn(check(receipt, ids, Arc::clone(&store), spool.clone()));
        } else {
            bench.send(ticks(ids)).await;
        }
        sleep(Duration::from_millis(pause_ms)).await;
    }
    checks.join_all().await
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn prop_every_receipt_has_its_outcome_once_its_records_are_durable(
        sources in prop::collection::vec(portions(), 1..4),
        failures in prop::collection::vec(0_usize..4, 0..30),
        outage in prop::option::of((0_u64..20, 1_u64..60)),
        has_spool in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let (spool, _) =
                Spool::open(folder.path().to_owned(), 1 << 30, "x".to_owned()).await.unwrap();
            let spool = has_spool.then_some(spool);
            let store = ScriptedStore::new(1_000_000);
            store.failures.lock().unwrap().extend(failures.iter().map(|kind| match kind {
                0 => StoreError::Unusable("away".into()),
                1 => StoreError::Silent(Duration::from_secs(10)),
                _ => StoreError::Away("away".into()),
            }));
            let spooling = spool.clone().map(|spool| Spooling {
                spool,
                spool_now: CancellationToken::new(),
                seed: 7,
            });
            let bench = start_with(&store, Vec::new(), spooling);
            let tracked: usize =
                sources.iter().flatten().filter(|portion| portion.is_tracked).count();
            let sending = sources.into_iter().zip(0_u64..).map(|(portions, n)| {
                source(&bench, portions, n * 1_000_000, Arc::clone(&store), spool.clone())
            });
            let disturbing = async {
                if let Some((from, seconds)) = outage {
                    sleep(Duration::from_secs(from)).await;
                    store.away.store(true, Ordering::Relaxed);
                    sleep(Duration::from_secs(seconds)).await;
                    store.away.store(false, Ordering::Relaxed);
                }
            };
            let sending = futures_util::future::join_all(sending);
            let all = async { futures_util::join!(sending, disturbing).0 };
            let outcomes = timeout(Duration::from_secs(3_600), all).await.unwrap();
            assert_eq!(outcomes.iter().map(Vec::len).sum::<usize>(), tracked);
            if !has_spool {
                assert!(outcomes.iter().flatten().all(|outcome| *outcome == Outcome::Stored));
            }
            let reading = bench.end().await;
            assert!(reading.balances() && reading.in_flight == 0, "{reading}");
        });
    }
}
