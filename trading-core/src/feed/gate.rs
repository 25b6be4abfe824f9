//! One door to an exchange: its feeds go through it one after the other, no faster than it allows, and not while it
//! sends this address away.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::network::{Hold, Pause};

/// Spaces the connection attempts that all feeds of an exchange make.
#[derive(Debug)]
pub struct ConnectGate {
    interval: Duration,
    next_at: Mutex<Option<Instant>>,
    /// What the exchange asks of every connection and request, shared with its REST side.
    banned: Arc<Pause>,
    /// What its WebSocket side asks for alone.
    closed: Pause,
}

impl ConnectGate {
    /// A gate that opens once in `interval`, and not while the exchange sends this address away.
    #[must_use]
    pub fn new(interval: Duration, banned: Arc<Pause>) -> Self {
        Self { interval, next_at: Mutex::default(), banned, closed: Pause::default() }
    }

    /// Keeps the gate closed as long as `hold` asks, and logs why.
    pub fn hold(&self, hold: Hold, why: &str) {
        let pause = if hold.is_ban { &self.banned } else { &self.closed };
        pause.hold(hold, why);
    }

    /// How long the exchange wants to be left alone.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.banned.left().max(self.closed.left())
    }

    /// Waits until the caller's connection may be attempted.
    pub async fn pass(&self) {
        // Held while waiting: a later caller waits behind.
        let mut next_at = self.next_at.lock().await;
        let turn = loop {
            let turn = next_at.map_or_else(Instant::now, |next| next.max(Instant::now()));
            sleep_until(turn).await;
            let left = self.left();
            if left.is_zero() {
                break turn;
            }
            sleep_until(Instant::now() + left).await;
        };
        *next_at = Some(turn + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn attempts_are_spaced_however_many_ask_at_once() {
        let gate = ConnectGate::new(Duration::from_millis(300), Arc::default());
        let start = Instant::now();
        futures_util::join!(gate.pass(), gate.pass(), gate.pass());
        assert_eq!(start.elapsed(), Duration::from_millis(600));
    }

    #[tokio::test(start_paused = true)]
    async fn a_ban_holds_every_attempt_and_the_rest_side_and_an_outage_only_the_gate() {
        let banned = Arc::new(Pause::new("test", 1));
        let gate = ConnectGate::new(Duration::from_millis(300), Arc::clone(&banned));
        let start = Instant::now();
        let hour = Duration::from_hours(1);
        gate.hold(Hold { wait: hour, is_ban: false }, "503");
        assert!(banned.left().is_zero());
        // Asked for by the other side, while attempts wait already.
        let waiting = futures_util::future::join(gate.pass(), gate.pass());
        let banning = async {
            tokio::time::sleep(hour / 2).await;
            banned.hold(Hold { wait: hour, is_ban: true }, "418");
        };
        futures_util::join!(waiting, banning);
        let waited = start.elapsed();
        assert!(waited >= hour * 3 / 2 && waited < hour * 2, "{waited:?}");
        gate.hold(Hold { wait: hour, is_ban: true }, "418");
        assert!(banned.left() >= hour);
    }
}
