//! The one queue between feeds and batcher.
//!
//! Bounded in ticks. A feed tries; when the channel is full it says so and waits, so that backpressure reaches the
//! socket. Nothing is lost here: a tick is delivered, or counted as dropped when the channel closed during a stop.

use std::sync::Arc;

use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::ledger::Ledger;
use crate::domain::Tick;
use crate::telemetry::SharedLimiter;

/// The channel is closed: the pipeline has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the channel is closed")]
pub struct ChannelClosed;

/// A feed's end of the channel.
#[derive(Debug, Clone)]
pub struct TickSender {
    ticks: mpsc::Sender<Tick>,
    ledger: Arc<Ledger>,
    limits: Arc<Limiters>,
}

/// The batcher's end of the channel.
#[derive(Debug)]
pub struct TickReceiver {
    ticks: mpsc::Receiver<Tick>,
}

#[derive(Debug, Default)]
struct Limiters {
    half: SharedLimiter,
    behind: SharedLimiter,
    full: SharedLimiter,
}

/// How full a channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Utilization {
    /// Ticks waiting.
    pub used: usize,
    /// Ticks that fit.
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

/// A channel of `capacity` ticks.
#[must_use]
pub fn channel(capacity: usize, ledger: Arc<Ledger>) -> (TickSender, TickReceiver) {
    let (sender, receiver) = mpsc::channel(capacity);
    info!("Data pipeline initialized with buffer capacity: {capacity} ticks");
    let sender = TickSender { ticks: sender, ledger, limits: Arc::default() };
    (sender, TickReceiver { ticks: receiver })
}

impl TickSender {
    /// Sends the ticks of one frame in order; waits while the channel is full.
    ///
    /// # Errors
    ///
    /// When the pipeline has ended. What was not sent is counted as dropped.
    ///
    /// Not cancel-safe: what was not sent yet would be lost, and stays counted as in flight.
    pub async fn send_all(&self, ticks: &mut Vec<Tick>) -> Result<(), ChannelClosed> {
        self.ledger.record_accepted(ticks.len());
        let mut rest = ticks.drain(..);
        while let Some(tick) = rest.next() {
            if self.send(tick).await.is_err() {
                let dropped = 1 + rest.len();
                debug!(ticks = dropped, "Channel closed during shutdown");
                self.ledger.record_dropped(dropped);
                return Err(ChannelClosed);
            }
        }
        self.observe();
        Ok(())
    }

    async fn send(&self, tick: Tick) -> Result<(), ChannelClosed> {
        match self.ticks.try_send(tick) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(_counted_by_caller)) => Err(ChannelClosed),
            Err(TrySendError::Full(tick)) => {
                let since = Instant::now();
                if let Some(unsaid) = self.limits.full.admit(since) {
                    let (symbol, price) = (tick.instrument.symbol(), tick.price);
                    warn!(
                        "Channel full! Blocking until space available. Symbol: {symbol}, Price: {price}{}",
                        unsaid
                    );
                }
                let sent = self.ticks.send(tick).await.map_err(|_counted| ChannelClosed);
                self.ledger.record_blocked(since.elapsed());
                sent
            }
        }
    }

    /// How full the channel is now.
    #[must_use]
    pub fn utilization(&self) -> Utilization {
        let capacity = self.ticks.max_capacity();
        Utilization { used: capacity - self.ticks.capacity(), capacity }
    }

    /// Says when the channel fills up.
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

impl TickReceiver {
    /// Appends up to `limit` waiting ticks; waits for the first. Zero: every sender has gone. Cancel-safe.
    pub async fn recv_many(&mut self, ticks: &mut Vec<Tick>, limit: usize) -> usize {
        self.ticks.recv_many(ticks, limit).await
    }

    /// How full the channel is now.
    #[must_use]
    pub fn utilization(&self) -> Utilization {
        Utilization { used: self.ticks.len(), capacity: self.ticks.max_capacity() }
    }
}
