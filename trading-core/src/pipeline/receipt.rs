//! The way back: a source learns when what it sent is where a crash does not reach it.
//!
//! A source that must know sends with [`RecordSender::send_tracked`](super::RecordSender::send_tracked) and keeps the
//! [`Receipt`]. Nothing rides with the records: they are durable once all are that the pipeline has taken up to the last
//! of them, and the pipeline counts those anyhow. A source that sends without a receipt pays nothing.
//!
//! A bridge that must acknowledge messages to its broker sends the records of a message, keeps the receipt beside the
//! message, reads on, and awaits the receipts in the order of sending, which is about the order in which they come.
//! [`Outcome::Stored`] and [`Outcome::Spooled`] acknowledge the message. [`Outcome::Dropped`] does not: the broker
//! delivers it again, and what was stored all the same is found to be a duplicate.

use tokio::sync::oneshot;

/// What became of a batch that a source sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The store has all of its records: stored now, found stored, or refused and kept with the reason.
    Stored,
    /// All are durable, and at least one of them, or of those that were sent beside them, waits in the spool.
    Spooled,
    /// The pipeline has ended by force, or a write of it by a fault: nothing vouches for all of them.
    Dropped,
}

/// The promise of an [`Outcome`] for one batch.
#[derive(Debug)]
#[must_use = "a source that does not wait for the outcome sends without a receipt"]
pub struct Receipt {
    receiver: oneshot::Receiver<Outcome>,
    outcome: Option<Outcome>,
}

impl Receipt {
    /// Waits until every record of the batch is durable, or the pipeline has ended. Cancel-safe.
    pub async fn outcome(&mut self) -> Outcome {
        if let Some(outcome) = self.outcome {
            return outcome;
        }
        let outcome = (&mut self.receiver).await.unwrap_or(Outcome::Dropped);
        *self.outcome.insert(outcome)
    }
}

/// The pipeline's end of a receipt.
#[derive(Debug)]
pub(super) struct Claim {
    /// Records that the pipeline had taken before the first of the batch was sent.
    from: u64,
    outcome: oneshot::Sender<Outcome>,
}

impl Claim {
    /// A claim for a batch that is sent after `from` records were taken.
    pub(super) fn new(from: u64) -> (Self, Receipt) {
        let (outcome, receiver) = oneshot::channel();
        (Self { from, outcome }, Receipt { receiver, outcome: None })
    }

    pub(super) const fn from(&self) -> u64 {
        self.from
    }

    pub(super) fn resolve(self, outcome: Outcome) {
        // A source that no longer waits has no use for it.
        self.outcome.send(outcome).ok();
    }
}
