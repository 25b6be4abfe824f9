//! Records of another kind go through the same pipeline, spool and receipts.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::domain::count;
use crate::store::spool::Spool;
use crate::store::spool::tests::kinds::{Quote, quotes};
use crate::store::{StoreError, Written};

#[derive(Debug)]
struct QuoteStore {
    bids: Mutex<BTreeSet<i64>>,
    is_away: AtomicBool,
}

impl Store for QuoteStore {
    type Record = Quote;

    async fn write(&self, batch: &[Quote]) -> Result<Written, StoreError<Quote>> {
        if self.is_away.load(Ordering::Relaxed) {
            return Err(StoreError::Away("no connection became free".into()));
        }
        self.bids.lock().unwrap().extend(batch.iter().map(|quote| quote.bid));
        Ok(Written { stored: count(batch.len()), ..Written::default() })
    }
}

#[tokio::test(start_paused = true)]
async fn another_kind_of_record_is_spooled_drained_and_stored() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(folder.path().to_owned(), 1 << 30, "x".to_owned()).await.unwrap();
    let store = Arc::new(QuoteStore { bids: Mutex::default(), is_away: AtomicBool::new(true) });
    let (pipeline, batch) = settings();
    let ledger = Arc::new(Ledger::default());
    let (sender, records) = channel(10_000, Arc::clone(&ledger));
    let waiting = spool.clone();
    let spooling = Spooling { spool, spool_now: CancellationToken::new(), seed: 7 };
    let (tap, mut observed) = tap(10_000);
    let observers = vec![Observer { tap, report: Box::new(String::new) }];
    let parts =
        PipelineParts { records, store: Arc::clone(&store), observers, spooling: Some(spooling) };
    let pipeline = Pipeline::new(parts, &pipeline, &batch);
    let mut running = JoinSet::new();
    running.spawn(pipeline.run());

    let mut receipt = sender.send_tracked(&mut quotes(0..700)).await.unwrap();
    assert_eq!(receipt.outcome().await, Outcome::Spooled);
    store.is_away.store(false, Ordering::Relaxed);
    waiting.until_empty_is(true).await;
    drop(sender);
    running.join_all().await;
    assert_eq!(*store.bids.lock().unwrap(), (0..700).collect());
    let delivery = observed.recv().await.unwrap();
    assert_eq!((delivery.missed, delivery.chunk[0].bid), (0, 0));
    assert_eq!((ledger.read().stored, ledger.depth()), (700, 0));
}
