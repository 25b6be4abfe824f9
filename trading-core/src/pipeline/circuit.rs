//! Whether the store takes batches, as one switch that every writer sees.
//!
//! Closed: batches go to the store. Open: it is away, and they go to the spool until a write succeeds again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The switch. Shared; every method may be called from any task.
#[derive(Debug)]
pub(super) struct StoreCircuit {
    /// Since when it is open.
    open_since: watch::Sender<Option<Instant>>,
    /// Whether one batch is to try the store although it is open.
    wants_trial: AtomicBool,
}

impl StoreCircuit {
    pub(super) fn new() -> Self {
        Self { open_since: watch::Sender::new(None), wants_trial: AtomicBool::new(false) }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open_since.borrow().is_some()
    }

    /// Opens it, and says whether it was closed.
    pub(super) fn open(&self, now: Instant) -> bool {
        self.open_since.send_if_modified(|since| {
            let was_closed = since.is_none();
            since.get_or_insert(now);
            was_closed
        })
    }

    /// Closes it, and says for how long it was open, if it was.
    pub(super) fn close(&self, now: Instant) -> Option<Duration> {
        // Asked first without the right to change it: nearly always it is closed.
        if !self.is_open() {
            return None;
        }
        let mut open_for = None;
        self.open_since.send_if_modified(|since| {
            open_for = since.take().map(|since| now.saturating_duration_since(since));
            open_for.is_some()
        });
        open_for
    }

    /// Asks that the next batch tries the store.
    pub(super) fn ask_for_trial(&self) {
        self.wants_trial.store(true, Ordering::Relaxed);
    }

    /// Whether a batch may not go to the store: it is open, and no trial is asked for, which this would be.
    pub(super) fn bars(&self) -> bool {
        self.is_open() && !self.wants_trial.swap(false, Ordering::Relaxed)
    }

    /// For how long it is open.
    pub(super) fn open_for(&self, now: Instant) -> Option<Duration> {
        self.open_since.borrow().map(|since| now.saturating_duration_since(since))
    }

    /// Waits until it is open, or closed. Cancel-safe.
    pub(super) async fn until_open_is(&self, open: bool) {
        let mut state = self.open_since.subscribe();
        // Fails only when the sender has gone, which this holds.
        drop(state.wait_for(|since| since.is_some() == open).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_opens_once_and_says_for_how_long_it_was_open() {
        let circuit = StoreCircuit::new();
        let start = Instant::now();
        assert_eq!(circuit.close(start), None, "it was closed");
        assert!(circuit.open(start));
        assert!(!circuit.open(start + Duration::from_secs(1)), "only the first opens it");
        circuit.until_open_is(true).await;
        assert!(circuit.bars());
        circuit.ask_for_trial();
        assert_eq!([(); 2].map(|()| circuit.bars()), [false, true], "one batch tries");
        assert_eq!(circuit.close(start + Duration::from_secs(9)), Some(Duration::from_secs(9)));
        circuit.until_open_is(false).await;
        assert!(!circuit.is_open());
    }
}
