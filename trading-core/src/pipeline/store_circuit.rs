//! Whether the store takes batches, as one switch that every writer sees.
//!
//! Closed: batches go to the store. Open: it is away, and they go to the spool until a write succeeds again.
//!
//! One write proves little where single sessions of a server hang, or where it comes and goes: the next one may hang
//! again. So after a write without an answer, and when it opens again soon after it closed, a success begins a trial:
//! batches go to the store again, but the outage is over, and said to be, only when no write has failed for a while.
//! Each failure meanwhile makes the trial longer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How long a trial is at first: longer than a write may stay without an answer.
const TRIAL: Duration = Duration::from_secs(15);
/// The longest trial.
const TRIAL_MAX: Duration = Duration::from_secs(60);
/// Opening again within this time after it closed begins with a trial.
const RELAPSE: Duration = Duration::from_secs(60);

/// What made it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The store refused, or could not be reached.
    Refused,
    /// The store has not answered: others of its sessions may hang too.
    Silent,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Since when there is an outage.
    open_since: Option<Instant>,
    /// Since when, in an outage, batches go to the store for trial.
    trial_since: Option<Instant>,
    /// How long a trial must go well in this outage; zero: one success is enough.
    trial: Duration,
    /// When the last outage was over.
    closed_at: Option<Instant>,
}

impl State {
    fn is_open(&self) -> bool {
        self.open_since.is_some() && self.trial_since.is_none()
    }
}

/// The switch. Shared; every method may be called from any task. Not the circuit that refuses work when much waits.
#[derive(Debug)]
pub(super) struct StoreCircuit {
    state: watch::Sender<State>,
    /// Whether one live batch shall try the store although it is open.
    trial_requested: AtomicBool,
}

impl StoreCircuit {
    pub(super) fn new() -> Self {
        Self {
            state: watch::Sender::new(State::default()),
            trial_requested: AtomicBool::new(false),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.borrow().is_open()
    }

    /// Opens it; returns whether an outage begins with that.
    pub(super) fn open(&self, now: Instant, trouble: Trouble) -> bool {
        let mut begins = false;
        self.state.send_if_modified(|state| {
            let was_open = state.is_open();
            if state.open_since.is_none() {
                begins = true;
                let soon = |then| now.saturating_duration_since(then) < RELAPSE;
                let is_doubtful = trouble == Trouble::Silent || state.closed_at.is_some_and(soon);
                state.trial = if is_doubtful { TRIAL } else { Duration::ZERO };
                state.open_since = Some(now);
            } else if state.trial_since.take().is_some() {
                state.trial = (state.trial * 2).clamp(TRIAL, TRIAL_MAX);
            } else if trouble == Trouble::Silent {
                state.trial = state.trial.max(TRIAL);
            }
            !was_open
        });
        begins
    }

    /// Closes it after a write that succeeded; returns how long the outage was, if one ends with that.
    pub(super) fn close(&self, now: Instant) -> Option<Duration> {
        // Asked first without the right to change it: nearly always it is closed.
        self.state.borrow().open_since?;
        let mut open_for = None;
        self.state.send_if_modified(|state| {
            let was_open = state.is_open();
            let since = *state.trial_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= state.trial {
                open_for =
                    state.open_since.take().map(|since| now.saturating_duration_since(since));
                state.trial_since = None;
                state.closed_at = Some(now);
            }
            was_open
        });
        open_for
    }

    /// Requests that one live batch tries the store although it is open.
    pub(super) fn request_trial(&self) {
        self.trial_requested.store(true, Ordering::Relaxed);
    }

    /// Takes up the request for a trial: true once for each request.
    pub(super) fn take_up_trial(&self) -> bool {
        self.trial_requested.swap(false, Ordering::Relaxed)
    }

    /// How long the outage has lasted; `None`: there is none.
    pub(super) fn open_for(&self, now: Instant) -> Option<Duration> {
        self.state.borrow().open_since.map(|since| now.saturating_duration_since(since))
    }

    /// Waits until it is open, or closed. Cancel-safe.
    pub(super) async fn until_open_is(&self, open: bool) {
        let mut state = self.state.subscribe();
        // Fails only when the sender has gone, which this holds.
        drop(state.wait_for(|state| state.is_open() == open).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_once_and_says_for_how_long_it_was_open() {
        let circuit = StoreCircuit::new();
        let start = Instant::now();
        assert_eq!(circuit.close(start), None, "it was closed");
        assert!(circuit.open(start, Trouble::Refused));
        assert!(!circuit.open(start + seconds(1), Trouble::Refused), "only the first opens it");
        circuit.until_open_is(true).await;
        assert!(circuit.is_open() && !circuit.take_up_trial());
        circuit.request_trial();
        assert_eq!([(); 2].map(|()| circuit.take_up_trial()), [true, false], "one batch tries");
        assert_eq!(circuit.close(start + seconds(9)), Some(seconds(9)));
        circuit.until_open_is(false).await;
        assert!(!circuit.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn while_single_sessions_hang_it_is_one_outage() {
        let circuit = StoreCircuit::new();
        let start = Instant::now();
        let at = |after: u64| start + seconds(after);
        assert!(circuit.open(at(0), Trouble::Silent));
        // Every eleven seconds another session hangs; between them writes succeed.
        let mut ends = Vec::new();
        for after in 1..110 {
            if after % 11 == 0 {
                assert!(!circuit.open(at(after), Trouble::Silent), "no other outage begins");
                assert!(circuit.is_open());
            } else {
                ends.extend(circuit.close(at(after)));
                assert!(!circuit.is_open(), "batches go to the store meanwhile");
            }
        }
        assert_eq!(ends, [Duration::ZERO; 0], "and none ends");
        // Once all is well for a minute it is over.
        let end =
            (110..300).find_map(|after| circuit.close(at(after)).map(|open_for| (after, open_for)));
        assert_eq!(end, Some((160, seconds(160))));
    }

    #[tokio::test(start_paused = true)]
    async fn what_opens_again_soon_must_be_well_for_longer() {
        let circuit = StoreCircuit::new();
        let start = Instant::now();
        let at = |after: u64| start + seconds(after);
        assert!(circuit.open(at(0), Trouble::Refused));
        assert_eq!(circuit.close(at(1)), Some(seconds(1)), "one success is enough");
        assert!(circuit.open(at(20), Trouble::Refused));
        assert_eq!(circuit.close(at(21)), None);
        assert_eq!(circuit.close(at(35)), None);
        assert_eq!(circuit.close(at(36)), Some(seconds(16)));
        assert!(circuit.open(at(100), Trouble::Refused), "a minute later it is another outage");
        assert_eq!(circuit.close(at(101)), Some(seconds(1)));
    }
}
