//! The one queue between feeds and batcher.
//!
//! Bounded in records. A feed tries; when the channel is full that is logged and it waits, so that backpressure reaches
//! the socket. Nothing is lost here: a record is delivered, or counted as dropped when the channel closed during a stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::ledger::Ledger;
use super::receipt::{Claim, Receipt};
use crate::domain::{Record, Tick, count};
use crate::telemetry::SharedLimiter;

/// The channel is closed: the pipeline has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the channel is closed")]
pub struct ChannelClosed;

/// A source's end of the channel.
#[derive(Debug)]
pub struct RecordSender<R> {
    records: mpsc::Sender<R>,
    claims: mpsc::Sender<Claim>,
    /// Records that the pipeline has taken.
    taken: Arc<AtomicU64>,
    ledger: Arc<Ledger>,
    limits: Arc<Limiters>,
}

/// A feed's end of the channel.
pub type TickSender = RecordSender<Tick>;

/// The batcher's end of the channel.
#[derive(Debug)]
pub struct RecordReceiver<R> {
    records: mpsc::Receiver<R>,
    claims: mpsc::Receiver<Claim>,
    taken: Arc<AtomicU64>,
    ledger: Arc<Ledger>,
    weak: mpsc::WeakSender<R>,
}

/// The batcher's end of the channel of ticks.
pub type TickReceiver = RecordReceiver<Tick>;

/// What comes out of the channel.
#[derive(Debug)]
pub(super) enum Received {
    /// How many records; zero: every sender has gone.
    Records(usize),
    /// A claim, for records of which the last is before `end`, counted in the order of the channel.
    Claim { claim: Claim, end: u64 },
}

/// Claims that may wait to be taken note of.
const CLAIMS_MAX: usize = 64;

#[derive(Debug, Default)]
struct Limiters {
    half: SharedLimiter,
    behind: SharedLimiter,
    full: SharedLimiter,
}

/// How full a channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Utilization {
    /// Records waiting.
    pub used: usize,
    /// Records that fit.
    pub capacity: usize,
}

impl Utilization {
    /// In whole percent.
    #[must_use]
    pub const fn percent(self) -> usize {
        match (self.used * 100).checked_div(self.capacity) {
            Some(percent) => percent,
            None => 0,
        }
    }
}

/// A channel of `capacity` records, which are counted in this ledger.
#[must_use]
pub fn channel<R: Record>(
    capacity: usize,
    ledger: Arc<Ledger>,
) -> (RecordSender<R>, RecordReceiver<R>) {
    let (sender, receiver) = mpsc::channel(capacity);
    let (claim, claims) = mpsc::channel(CLAIMS_MAX);
    info!("Data pipeline initialized with buffer capacity: {capacity} {}", R::KIND);
    let taken = Arc::new(AtomicU64::new(0));
    let weak = sender.downgrade();
    let sender = RecordSender {
        records: sender,
        claims: claim,
        taken: Arc::clone(&taken),
        ledger: Arc::clone(&ledger),
        limits: Arc::default(),
    };
    (sender, RecordReceiver { records: receiver, claims, taken, ledger, weak })
}

// Not derived: a sender is cloned without its records.
impl<R> Clone for RecordSender<R> {
    fn clone(&self) -> Self {
        Self {
            records: self.records.clone(),
            claims: self.claims.clone(),
            taken: Arc::clone(&self.taken),
            ledger: Arc::clone(&self.ledger),
            limits: Arc::clone(&self.limits),
        }
    }
}

impl<R: Record> RecordSender<R> {
    /// Sends records in order, all of which are new, and counts them as received; waits while the channel is full, and
    /// returns for how long.
    ///
    /// # Errors
    ///
    /// When the pipeline has ended. What was not sent is counted as dropped.
    ///
    /// Not cancel-safe: what was not sent yet would be lost, and stays counted as in flight.
    pub async fn send_all(&self, records: &mut Vec<R>) -> Result<Duration, ChannelClosed> {
        self.send_new(records, records.len(), 0).await
    }

    /// As [`RecordSender::send_all`], what is new of the `received` records of a frame; the others, which were seen
    /// before, are counted as duplicates.
    ///
    /// # Errors
    ///
    /// As [`RecordSender::send_all`]; nor is it cancel-safe.
    pub async fn send_new(
        &self,
        records: &mut Vec<R>,
        received: usize,
        duplicates: usize,
    ) -> Result<Duration, ChannelClosed> {
        self.ledger.record_received(received, duplicates, records.len());
        let mut blocked = Duration::ZERO;
        let mut rest = records.drain(..);
        while let Some(record) = rest.next() {
            match self.send(record).await {
                Ok(waited) => blocked += waited,
                Err(closed) => {
                    let dropped = 1 + rest.len();
                    debug!(ticks = dropped, "Channel closed during shutdown");
                    self.ledger.record_dropped(dropped);
                    return Err(closed);
                }
            }
        }
        self.observe();
        Ok(blocked)
    }

    /// As [`RecordSender::send_all`], with a receipt: it has its outcome once all of the records are durable.
    ///
    /// # Errors
    ///
    /// When the pipeline has ended. What was not sent is counted as dropped; of what was sent nothing is known.
    ///
    /// Not cancel-safe.
    pub async fn send_tracked(&self, records: &mut Vec<R>) -> Result<Receipt, ChannelClosed> {
        let (claim, receipt) = Claim::new(self.taken.load(Ordering::Acquire));
        self.send_all(records).await?;
        // After the last record: all of them are counted when the claim is taken note of.
        self.claims.send(claim).await.map_err(|_returned| ChannelClosed)?;
        Ok(receipt)
    }

    /// Sends one; returns how long it waited for room.
    async fn send(&self, record: R) -> Result<Duration, ChannelClosed> {
        match self.records.try_send(record) {
            Ok(()) => Ok(Duration::ZERO),
            Err(TrySendError::Closed(_counted_by_caller)) => Err(ChannelClosed),
            Err(TrySendError::Full(record)) => {
                let since = Instant::now();
                if let Some(unsaid) = self.limits.full.admit(since) {
                    let summary = record.summary();
                    warn!("Channel full! Blocking until space available. {summary}{unsaid}");
                }
                self.records.send(record).await.map_err(|_counted| ChannelClosed)?;
                Ok(since.elapsed())
            }
        }
    }

    /// How full the channel is now.
    #[must_use]
    pub fn utilization(&self) -> Utilization {
        let capacity = self.records.max_capacity();
        Utilization { used: capacity - self.records.capacity(), capacity }
    }

    /// Logs when the channel fills up.
    fn observe(&self) {
        let now = self.utilization();
        let Utilization { used, capacity } = now;
        let percent = now.percent();
        if used * 10 > capacity * 8 {
            if let Some(unsaid) = self.limits.behind.admit(Instant::now()) {
                warn!(
                    "Processing backpressure detected: channel {percent}% full ({used}/{capacity}), \
                     data processing may be falling behind{}",
                    unsaid
                );
            }
        } else if used * 2 > capacity
            && let Some(unsaid) = self.limits.half.admit(Instant::now())
        {
            debug!("Channel utilization: {percent}% ({used}/{capacity}){}", unsaid);
        }
    }
}

impl<R: Record> RecordReceiver<R> {
    /// Appends up to `limit` waiting records; waits for the first. Zero: every sender has gone. Cancel-safe.
    pub async fn recv_many(&mut self, records: &mut Vec<R>, limit: usize) -> usize {
        let received = self.records.recv_many(records, limit).await;
        self.taken.fetch_add(count(received), Ordering::Release);
        received
    }

    /// How full the channel is now.
    #[must_use]
    pub fn utilization(&self) -> Utilization {
        Utilization { used: self.records.len(), capacity: self.records.max_capacity() }
    }

    /// As [`RecordReceiver::recv_many`], or the next claim, whichever comes first; with a limit of zero only a claim.
    /// Cancel-safe.
    pub(super) async fn receive(&mut self, records: &mut Vec<R>, limit: usize) -> Received {
        tokio::select! {
            biased;
            Some(claim) = self.claims.recv() => Received::Claim { claim, end: self.entered() },
            received = self.records.recv_many(records, limit), if limit > 0 => {
                self.taken.fetch_add(count(received), Ordering::Release);
                Received::Records(received)
            }
            else => std::future::pending().await,
        }
    }

    /// The next claim, if one waits.
    pub(super) fn waiting_claim(&mut self) -> Option<(Claim, u64)> {
        let claim = self.claims.try_recv().ok()?;
        Some((claim, self.entered()))
    }

    /// Records taken from the channel, and those in it.
    fn entered(&self) -> u64 {
        self.taken.load(Ordering::Relaxed).saturating_add(count(self.records.len()))
    }

    /// A sender that keeps no pipeline from ending, to read the channel's use by.
    pub(super) fn weak(&self) -> mpsc::WeakSender<R> {
        self.weak.clone()
    }

    /// Where its records are counted.
    pub(super) const fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }
}
