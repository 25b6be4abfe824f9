//! Repair is batch work: it waits while recording needs the way for itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::info;

use crate::pipeline::{Ledger, TickSender};
use crate::telemetry::SharedLimiter;

/// From this depth on batch work is held.
const DEPTH_MAX: u64 = 10_000;
/// How often a held worker looks again.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often it says that it is held.
const SAID_INTERVAL: Duration = Duration::from_secs(60);

/// Lets batch work pass, or holds it. Shared by all of it.
#[derive(Debug)]
pub(super) struct Admission {
    ledger: Arc<Ledger>,
    held: SharedLimiter,
}

impl Admission {
    pub(super) fn new(ledger: &Arc<Ledger>) -> Self {
        Self { ledger: Arc::clone(ledger), held: SharedLimiter::new(SAID_INTERVAL) }
    }

    /// Whether ticks wait for the store, so that batch work has to.
    pub(super) fn is_held(&self, sender: &TickSender) -> bool {
        let channel = sender.utilization();
        let is_half_full = channel.used * 2 > channel.capacity;
        // What the spool holds is not missing, and the store may be away.
        self.ledger.depth() >= DEPTH_MAX || is_half_full || self.ledger.read().spooled > 0
    }

    /// Waits until batch work may pass. Cancel-safe.
    pub(super) async fn wait(&self, sender: &TickSender) {
        while self.is_held(sender) {
            let due = self.held.admit(Instant::now()).is_some();
            if due {
                info!(
                    depth = self.ledger.depth(),
                    "Repair held: recording has more than {DEPTH_MAX} ticks to store, ticks in the spool, or a channel half full"
                );
            }
            sleep(LOOK_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::tick;
    use crate::pipeline::channel;
    use crate::store::Written;

    #[tokio::test(start_paused = true)]
    async fn batch_work_is_held_by_depth_and_by_a_half_full_channel() {
        let ledger = Arc::new(Ledger::default());
        let (sender, mut receiver) = channel(10, Arc::clone(&ledger));
        let admission = Admission::new(&ledger);
        admission.wait(&sender).await;

        let depth = usize::try_from(DEPTH_MAX).unwrap();
        ledger.record_received(depth - 1, 0, depth - 1);
        assert!(!admission.is_held(&sender));
        ledger.record_received(1, 0, 1);
        let held = tokio::time::timeout(Duration::from_secs(60), admission.wait(&sender)).await;
        assert!(held.is_err(), "as long as it takes");
        ledger.record_dropped(depth);
        admission.wait(&sender).await;

        ledger.record_found(1);
        assert!(admission.is_held(&sender), "the smallest spool");
        ledger.record_drained(Written { stored: 1, ..Written::default() });
        admission.wait(&sender).await;

        sender.send_all(&mut vec![tick(1); 5]).await.unwrap();
        assert!(!admission.is_held(&sender), "just half full");
        sender.send_all(&mut vec![tick(1)]).await.unwrap();
        assert!(admission.is_held(&sender));
        receiver.recv_many(&mut Vec::new(), 1).await;
        admission.wait(&sender).await;
    }
}
