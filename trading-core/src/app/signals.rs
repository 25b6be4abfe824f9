//! Which signal means what: the first that asks for a stop asks for an orderly one, and impatience ends it at once.
//!
//! Every signal that would end the process by itself is heard, so that none takes what is in memory with it:
//!
//! - SIGINT, SIGTERM, SIGHUP (a closed terminal), SIGQUIT, SIGXCPU (the limit of processor time comes near) and SIGPWR
//!   ask for a stop.
//! - SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGSTKFLT and the real-time signals mean nothing here. They
//!   are logged, and recording goes on.
//! - SIGXFSZ (a file would pass the limit of the size of files) is heard and means nothing: the write itself then
//!   fails, as on a full disk. SIGPIPE is ignored by Rust's runtime to the same effect.
//!
//! SIGKILL and SIGSTOP cannot be heard, and a fault in the program (SIGSEGV, SIGABRT and the like) is no wish.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use nix::libc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tracing::info;

use crate::telemetry::RepeatLimiter;

/// Signals this close to the first are the same wish: `timeout` signals its child and then the child's group, a closed
/// terminal and its shell send one each.
const SAME_WISH: Duration = Duration::from_secs(1);
/// No hand is this quick: a SIGINT this soon after another came from the same key, or the same `timeout`.
const SAME_KEY: Duration = Duration::from_millis(50);

/// A signal came before the end.
#[derive(Debug, thiserror::Error)]
#[error("{signal}: stopped before the end")]
pub struct Interrupted {
    /// Its name.
    pub signal: &'static str,
}

/// A signal that is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// SIGINT: a hand at the terminal.
    Interrupt,
    /// Another one that asks for a stop.
    Stop(&'static str),
    /// SIGXCPU comes each second once it has come: it asks for a stop, and never again.
    Once(&'static str),
    /// One that has no meaning here.
    Meaningless(&'static str),
    /// One whose cause the interrupted call itself reports.
    Silent,
}

/// What is to be done about a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reaction {
    /// Stop in order; when a stop is under way: at once.
    Tell,
    /// Nothing: it repeats the wish.
    Same,
    /// Say that it was heard and means nothing.
    Say,
    /// Nothing, and nothing is logged.
    Nothing,
}

/// The wish to stop: when it was first heard, and when it was last heard as SIGINT.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wish {
    first: Option<Duration>,
    interrupted: Option<Duration>,
}

impl Wish {
    /// What a signal asks for that is heard `now`, a time on any clock that does not step.
    fn hear(&mut self, heard: Heard, now: Duration) -> Reaction {
        let since = |then: Option<Duration>| then.map(|then| now.saturating_sub(then));
        let (first, interrupted) = (since(self.first), since(self.interrupted));
        match heard {
            Heard::Silent => return Reaction::Nothing,
            Heard::Meaningless(_) => return Reaction::Say,
            Heard::Interrupt => self.interrupted = Some(now),
            Heard::Stop(_) | Heard::Once(_) => {}
        }
        let Some(first) = first else {
            self.first = Some(now);
            return Reaction::Tell;
        };
        let is_impatient = match (heard, interrupted) {
            (Heard::Interrupt, Some(interrupted)) => interrupted > SAME_KEY,
            (Heard::Once(_), _) => false,
            _ => first > SAME_WISH,
        };
        if is_impatient { Reaction::Tell } else { Reaction::Same }
    }
}

impl Heard {
    const fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Stop(name) | Self::Once(name) | Self::Meaningless(name) => name,
            Self::Silent => "SIGXFSZ",
        }
    }
}

/// What is heard on every system, by number.
const HEARD: [(libc::c_int, Heard); 11] = [
    (libc::SIGINT, Heard::Interrupt),
    (libc::SIGTERM, Heard::Stop("SIGTERM")),
    (libc::SIGQUIT, Heard::Stop("SIGQUIT")),
    (libc::SIGXCPU, Heard::Once("SIGXCPU")),
    (libc::SIGUSR1, Heard::Meaningless("SIGUSR1")),
    (libc::SIGUSR2, Heard::Meaningless("SIGUSR2")),
    (libc::SIGALRM, Heard::Meaningless("SIGALRM")),
    (libc::SIGVTALRM, Heard::Meaningless("SIGVTALRM")),
    (libc::SIGPROF, Heard::Meaningless("SIGPROF")),
    (libc::SIGIO, Heard::Meaningless("SIGIO")),
    (libc::SIGXFSZ, Heard::Silent),
];

/// What only Linux has.
#[cfg(target_os = "linux")]
fn of_the_system() -> Vec<(libc::c_int, Heard)> {
    let mut signals = vec![
        (libc::SIGPWR, Heard::Stop("SIGPWR")),
        (libc::SIGSTKFLT, Heard::Meaningless("SIGSTKFLT")),
    ];
    let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
    signals.extend(real_time.map(|number| (number, Heard::Meaningless("A real-time signal"))));
    signals
}

#[cfg(not(target_os = "linux"))]
fn of_the_system() -> Vec<(libc::c_int, Heard)> {
    Vec::new()
}

/// The signals that ask for a stop.
#[derive(Debug)]
pub struct StopSignals {
    sources: Vec<(Signal, Heard)>,
    began: Instant,
    wish: Wish,
    /// For the lines about signals that change nothing.
    limiter: RepeatLimiter,
}

impl StopSignals {
    /// Listens from now on: from here no signal that can be heard ends the process by itself.
    ///
    /// # Errors
    ///
    /// When the system refuses a handler.
    pub fn listen() -> std::io::Result<Self> {
        let mut sources = Vec::new();
        let hangup = (libc::SIGHUP, Heard::Stop("SIGHUP"));
        let hangup = (!ignores_hangup()).then_some(hangup);
        for (number, heard) in HEARD.into_iter().chain(of_the_system()).chain(hangup) {
            sources.push((signal(SignalKind::from_raw(number))?, heard));
        }
        let (wish, limiter) = (Wish::default(), RepeatLimiter::default());
        Ok(Self { sources, began: Instant::now(), wish, limiter })
    }

    /// Waits until a stop is asked for, and from the second call on until somebody is impatient with it; names the
    /// signal. What repeats the first wish is left out. Cancel-safe.
    pub async fn next(&mut self) -> &'static str {
        loop {
            let heard = poll_fn(|context| {
                for (source, heard) in &mut self.sources {
                    if source.poll_recv(context).is_ready() {
                        return Poll::Ready(*heard);
                    }
                }
                Poll::Pending
            })
            .await;
            let name = heard.name();
            match self.wish.hear(heard, self.began.elapsed()) {
                Reaction::Tell => return name,
                Reaction::Same => info!("{name}: already stopping"),
                Reaction::Say => {
                    if let Some(unsaid) = self.limiter.admit(Instant::now()) {
                        info!("{name} has no meaning here; SIGTERM stops in order{unsaid}");
                    }
                }
                Reaction::Nothing => {}
            }
        }
    }
}

/// Whether whoever started us wants the end of the terminal to mean nothing (`nohup`).
fn ignores_hangup() -> bool {
    // Where there is no such file, it cannot be known without unsafe code, and a stop in order is the safe answer.
    std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| is_ignored(&status, libc::SIGHUP))
}

/// Reads the mask of ignored signals: bit 0 is signal 1.
fn is_ignored(status: &str, number: libc::c_int) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << (number - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INT: Heard = Heard::Interrupt;
    const TERM: Heard = Heard::Stop("SIGTERM");
    const HUP: Heard = Heard::Stop("SIGHUP");
    const XCPU: Heard = Heard::Once("SIGXCPU");
    const USR1: Heard = Heard::Meaningless("SIGUSR1");

    /// What each of these signals asks for, heard at these milliseconds.
    fn reactions(signals: &[(u64, Heard)]) -> Vec<Reaction> {
        let mut wish = Wish::default();
        let hear = |(at, heard): &(u64, Heard)| wish.hear(*heard, Duration::from_millis(*at));
        signals.iter().map(hear).collect()
    }

    #[test]
    fn a_second_signal_is_impatience_only_as_sigint_or_a_second_later() {
        use Reaction::{Nothing, Same, Say, Tell};
        for (signals, expected) in [
            // `timeout` sends two, and so do a terminal that closes and its shell.
            (vec![(0, TERM), (0, TERM)], vec![Tell, Same]),
            (vec![(0, TERM), (999, TERM)], vec![Tell, Same]),
            (vec![(0, HUP), (300, HUP), (900, TERM)], vec![Tell, Same, Same]),
            (vec![(0, HUP), (700, TERM), (1_400, TERM)], vec![Tell, Same, Tell]),
            (vec![(0, TERM), (1_001, TERM)], vec![Tell, Tell]),
            (vec![(0, TERM), (5_000, HUP)], vec![Tell, Tell]),
            // A hand that presses twice.
            (vec![(0, INT), (200, INT)], vec![Tell, Tell]),
            (vec![(0, INT), (1, INT), (2_000, INT)], vec![Tell, Same, Tell]),
            (vec![(0, INT), (500, TERM)], vec![Tell, Same]),
            (vec![(0, TERM), (500, INT)], vec![Tell, Same]),
            (vec![(0, TERM), (500, INT), (700, INT)], vec![Tell, Same, Tell]),
            (vec![(0, TERM), (1_500, INT)], vec![Tell, Tell]),
            // The limit of processor time is said each second.
            (vec![(0, XCPU), (1_500, XCPU), (2_500, XCPU)], vec![Tell, Same, Same]),
            (vec![(0, TERM), (1_500, XCPU)], vec![Tell, Same]),
            // What means nothing starts nothing, and is no second signal.
            (vec![(0, USR1), (10, USR1), (5_000, TERM)], vec![Say, Say, Tell]),
            (vec![(0, TERM), (5_000, USR1)], vec![Tell, Say]),
            (vec![(0, Heard::Silent), (0, TERM)], vec![Nothing, Tell]),
        ] {
            assert_eq!(reactions(&signals), expected, "{signals:?}");
        }
    }

    #[test]
    fn nohup_is_read_from_the_mask_of_ignored_signals() {
        let ignored = |mask: &str| is_ignored(&format!("Name:\tx\nSigIgn:\t{mask}\n"), 1);
        assert!(ignored("0000000000001001"));
        assert!(!ignored("0000000000001000"));
        assert!(!is_ignored("Name:\tx\n", 1) && !is_ignored("SigIgn:\tzz\n", 1));
    }
}
