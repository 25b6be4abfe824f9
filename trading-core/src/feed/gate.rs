//! One door to an exchange: its feeds go through it one after the other, no faster than it allows.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Spaces the connection attempts that all feeds of an exchange make.
#[derive(Debug)]
pub struct ConnectGate {
    interval: Duration,
    next_at: Mutex<Option<Instant>>,
}

impl ConnectGate {
    /// A gate that opens once in `interval`.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, next_at: Mutex::default() }
    }

    /// Waits for one's turn.
    pub async fn pass(&self) {
        let mut next_at = self.next_at.lock().await;
        let turn = next_at.map_or_else(Instant::now, |next| next.max(Instant::now()));
        // Held while waiting: who comes later waits behind.
        sleep_until(turn).await;
        *next_at = Some(turn + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn attempts_are_spaced_however_many_ask_at_once() {
        let gate = ConnectGate::new(Duration::from_millis(300));
        let start = Instant::now();
        futures_util::join!(gate.pass(), gate.pass(), gate.pass());
        assert_eq!(start.elapsed(), Duration::from_millis(600));
    }
}
