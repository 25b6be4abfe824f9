//! When the simulated market of the embedded database was open: only while somebody recorded it.
//!
//! A demonstration that is started again the next day goes on where it had stopped, with nothing to fetch in between. So
//! the market's hours are kept beside its database: the times in which it was closed, and until when each recorder that
//! runs lets it stay open. That is always a little ahead of the time and renewed again and again, so that no trade is
//! ever later than what a killed recorder has left behind.
//!
//! ```text
//! closed 2026-11-28T01:00:00.000000Z 2026-11-28T09:30:00.000000Z
//! open 4711-1795858200000000 2026-11-28T09:31:07.000000Z
//! ```
//!
//! Promised: a closure never begins before a moment up to which somebody may have recorded, or trades that are stored
//! would get other times. A recorder that stands still announces nothing for a while and goes on later; so each one
//! holds a lock as long as it lives, and the market is closed only where nobody does.

use std::fmt::Write as _;
use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::domain::Timestamp;
use crate::simulator::{Clock, Closure, MARKET_BEGAN};
use crate::store::folder::{Folder, is_missing};
use crate::telemetry::RepeatLimiter;

/// The file that keeps the hours.
const FILE: &str = "market-hours";
/// Held while the file is read and written anew.
const LOCK: &str = "market-hours.lock";
/// Held by every recorder as long as it lives.
const HELD: &str = "market-hours.held";
/// How far ahead the market is open: after a kill, trades go on for at most this time without a recorder.
const AHEAD_MICROS: i64 = 5_000_000;
/// How long after a start the market opens: the feeds are subscribed by then, and miss nothing.
const OPENS_AFTER_MICROS: i64 = 3_000_000;
/// How often that is renewed.
const RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// The most bytes of the file: some sixty thousand runs.
const BYTES_MAX: u64 = 4 << 20;
/// How many bytes of the file are left free at a start, for the recorders that renew.
const BYTES_FREE: u64 = 64 << 10;

/// The hours cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error(
    "the hours of the simulated market cannot be kept in {path}; `trading-core db remove --simulated` removes it together \
     with its database"
)]
pub struct HoursError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The hours of a market, kept open by this recorder.
#[derive(Debug)]
pub(super) struct MarketHours {
    folder: Folder,
    /// Which run of which process this is.
    recorder: String,
    open_until: Arc<AtomicI64>,
    /// The latest time up to which trades may have been sent, also when the clock was set back since.
    traded_until: Arc<AtomicI64>,
    /// Locked as long as this lives.
    _held: File,
}

/// What the file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Hours {
    closures: Vec<Closure>,
    /// Until when each recorder keeps the market open.
    open: Vec<(String, Timestamp)>,
}

impl MarketHours {
    /// Opens the market of a data directory, and answers when it was closed before. A market that was never recorded
    /// has always been open.
    ///
    /// # Errors
    ///
    /// When the hours cannot be read or written.
    pub(super) fn open(
        folder: &Path,
        recorder: &str,
        now: Timestamp,
    ) -> Result<(Self, Vec<Closure>), HoursError> {
        let path = folder.join(FILE);
        let opened = || -> io::Result<(Self, Vec<Closure>)> {
            let folder = Folder::open(folder)?;
            let until = now.plus_micros(AHEAD_MICROS);
            let (held, hours) = change(&folder, BYTES_MAX - BYTES_FREE, |hours| {
                let (held, is_first) = hold(&folder)?;
                if is_first {
                    hours.close_until(now);
                }
                hours.keep(recorder, until, now);
                Ok((held, hours.clone()))
            })?;
            if let Some(ahead) = hours.ahead_of(now) {
                warn!(
                    "The simulated market was recorded or closed until {ahead}, which is still to come by this machine's clock: \
                     up to then little or nothing new is traded. Set the clock right, or begin anew with \
                     `trading-core db remove --simulated`"
                );
            }
            let market = Self {
                folder,
                recorder: recorder.to_owned(),
                open_until: Arc::new(AtomicI64::new(until.as_micros())),
                traded_until: Arc::new(AtomicI64::new(now.as_micros())),
                _held: held,
            };
            Ok((market, hours.closures))
        };
        opened().map_err(|source| HoursError { path, source })
    }

    /// The market's clock and when it was closed, for a command that only reads it; `None`: its hours are not kept.
    ///
    /// # Errors
    ///
    /// When the hours cannot be read.
    pub(super) fn read(folder: &Path) -> Result<Option<(Clock, Vec<Closure>)>, HoursError> {
        let path = folder.join(FILE);
        let hours = match Folder::open(folder).and_then(|folder| folder.read(FILE)) {
            Ok(file) => Hours::read(file).map_err(|source| HoursError { path, source })?,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(source) => return Err(HoursError { path, source }),
        };
        // Nothing is traded behind what the last recorder has left behind.
        let until = hours.open_until();
        let clock = Clock::new(move || {
            let now = Timestamp::now();
            until.map_or(now, |until| now.min(until))
        });
        Ok(Some((clock, hours.closures)))
    }

    /// The wall clock, which stands still where the market closes.
    pub(super) fn clock(&self) -> Clock {
        let (open_until, traded_until) =
            (Arc::clone(&self.open_until), Arc::clone(&self.traded_until));
        Clock::new(move || shown(&open_until, &traded_until, Timestamp::now()))
    }

    /// Keeps the market open until it is cancelled, and closes it then.
    pub(super) async fn run(self, stop: CancellationToken) {
        let hours = Arc::new(self);
        let mut renewals = tokio::time::interval(RENEW_INTERVAL);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut limiter = RepeatLimiter::default();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = renewals.tick() => {}
            }
            if let Err(error) = hours.on_disk(Self::renew).await
                && let Some(unsaid) = limiter.admit(tokio::time::Instant::now())
            {
                let path = hours.folder.path().join(FILE);
                error!(
                    "The simulated market stands still: {} cannot be written: {error}; make room, or look at that disk{unsaid}",
                    path.display()
                );
            }
        }
        // Trades end at this moment, before it is on disk.
        let now = Timestamp::now();
        hours.open_until.fetch_min(now.as_micros(), Ordering::AcqRel);
        if let Err(error) = hours.on_disk(move |hours, _| hours.close(now)).await {
            // Then the market closes a little later, and what was traded by then is fetched at the next start.
            tracing::debug!(%error, "Not noted when the simulated market closed");
        }
    }

    /// Does something with the file, not on the threads that serve the sockets.
    async fn on_disk(
        self: &Arc<Self>,
        work: impl FnOnce(&Self, Timestamp) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let hours = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&hours, Timestamp::now()));
        done.await.unwrap_or_else(|ended| Err(io::Error::other(ended)))
    }

    fn renew(&self, now: Timestamp) -> io::Result<()> {
        let until = now.plus_micros(AHEAD_MICROS);
        self.keep(until, now)?;
        // Not before it is on disk.
        self.open_until.store(until.as_micros(), Ordering::Release);
        Ok(())
    }

    fn close(&self, now: Timestamp) -> io::Result<()> {
        self.keep(now, now)
    }

    /// Notes until when the market is open, which is never before what may have been recorded.
    fn keep(&self, until: Timestamp, now: Timestamp) -> io::Result<()> {
        let traded = self.traded_until.fetch_max(now.as_micros(), Ordering::AcqRel);
        let until = Timestamp::from_micros(traded).map_or(until, |traded| until.max(traded));
        change(&self.folder, BYTES_MAX, |hours| {
            hours.keep(&self.recorder, until, now);
            Ok(())
        })
    }
}

/// What the market's clock shows; up to then trades may have been sent.
fn shown(open_until: &AtomicI64, traded_until: &AtomicI64, now: Timestamp) -> Timestamp {
    let until = Timestamp::from_micros(open_until.load(Ordering::Acquire));
    let shown = until.map_or(now, |until| now.min(until));
    traded_until.fetch_max(shown.as_micros(), Ordering::AcqRel);
    shown
}

/// Reads the hours and writes them anew, up to a limit in bytes, while nobody else does.
fn change<T>(
    folder: &Folder,
    bytes_max: u64,
    change: impl FnOnce(&mut Hours) -> io::Result<T>,
) -> io::Result<T> {
    let lock = folder.open_or_create(LOCK)?;
    lock.lock()?;
    let mut hours = match folder.read(FILE) {
        Ok(file) => Hours::read(file)?,
        Err(error) if is_missing(&error) => Hours::default(),
        Err(error) => return Err(error),
    };
    let answer = change(&mut hours)?;
    let text = hours.write();
    if u64::try_from(text.len()).is_ok_and(|bytes| bytes > bytes_max) {
        // None of them can be left out: each of them decides when all later trades are.
        return Err(full());
    }
    let staging = format!("{FILE}.new");
    match folder.remove(&staging) {
        Err(error) if !is_missing(&error) => return Err(error),
        _ => {}
    }
    let mut file = folder.create(&staging)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    folder.rename(&staging, FILE)?;
    Ok(answer)
}

/// Holds the market, and says whether nobody else does: a process that stands still holds it too. To be called while
/// [`LOCK`] is held, so that of several starts one is the first.
fn hold(folder: &Folder) -> io::Result<(File, bool)> {
    let held = folder.open_or_create(HELD)?;
    let is_first = match held.try_lock() {
        Ok(()) => {
            held.unlock()?;
            true
        }
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(error)) => return Err(error),
    };
    held.lock_shared()?;
    Ok((held, is_first))
}

fn full() -> io::Error {
    let bytes = BYTES_MAX >> 20;
    io::Error::other(format!(
        "it is full: {bytes} MiB, with the times between some sixty thousand runs"
    ))
}

impl Hours {
    fn read(file: File) -> io::Result<Self> {
        let mut text = String::new();
        file.take(BYTES_MAX + 1).read_to_string(&mut text)?;
        if u64::try_from(text.len()).is_ok_and(|bytes| bytes > BYTES_MAX) {
            return Err(full());
        }
        Self::parse(&text).ok_or_else(|| io::Error::other("it is damaged"))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut hours = Self::default();
        let time = |text: &str| Timestamp::from_rfc3339(text).ok();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match *words.as_slice() {
                ["closed", from, to] => {
                    let closure = Closure { from: time(from)?, to: time(to)? };
                    hours.add(Some(closure).filter(is_possible)?);
                }
                ["open", recorder, until] => hours.open.push((recorder.to_owned(), time(until)?)),
                _ => return None,
            }
        }
        Some(hours)
    }

    fn write(&self) -> String {
        let mut text = String::new();
        for Closure { from, to } in &self.closures {
            let written = writeln!(text, "closed {from} {to}");
            debug_assert!(written.is_ok(), "a string takes all text");
        }
        for (recorder, until) in &self.open {
            let written = writeln!(text, "open {recorder} {until}");
            debug_assert!(written.is_ok(), "a string takes all text");
        }
        text
    }

    /// Until when the market is open.
    fn open_until(&self) -> Option<Timestamp> {
        self.open.iter().map(|(_, until)| *until).max()
    }

    /// Notes that the market, which nobody records, is closed up to now and a little longer, if it is not open still.
    fn close_until(&mut self, now: Timestamp) {
        let Some(until) = self.open_until().filter(|until| *until < now) else { return };
        // In whole milliseconds, as the coarsest venue counts.
        let opens = now.plus_micros(OPENS_AFTER_MICROS);
        let closure = Closure { from: next_millisecond(until), to: next_millisecond(opens) };
        // Else a clock that was not set yet: no market was there.
        if is_possible(&closure) {
            self.add(closure);
        }
        self.open.clear();
    }

    /// Adds a closure. One that begins while the market is closed still makes that last longer: nothing was traded in
    /// between. A start that is stopped before the market opens leaves such a one, and so does a clock that was set back.
    fn add(&mut self, closure: Closure) {
        match self.closures.last_mut() {
            Some(last) if closure.from <= last.to => last.to = last.to.max(closure.to),
            _ => self.closures.push(closure),
        }
    }

    /// Until when the market was recorded or is closed, where that is later than a start at this time explains.
    fn ahead_of(&self, now: Timestamp) -> Option<Timestamp> {
        let closed_until = self.closures.last().map(|last| last.to);
        let until = closed_until.max(self.open_until());
        until.filter(|until| *until > now.plus_micros(AHEAD_MICROS))
    }

    /// Notes until when a recorder keeps the market open, and forgets those that are gone.
    fn keep(&mut self, recorder: &str, until: Timestamp, now: Timestamp) {
        self.open.retain(|(other, until)| other != recorder && *until >= now);
        self.open.push((recorder.to_owned(), until));
    }
}

/// Whether a market can be closed then.
fn is_possible(closure: &Closure) -> bool {
    let Closure { from, to } = closure;
    let is_whole = |time: &Timestamp| time.as_micros() % 1_000 == 0;
    from.as_micros() >= MARKET_BEGAN && from < to && is_whole(from) && is_whole(to)
}

fn next_millisecond(time: Timestamp) -> Timestamp {
    time.plus_micros(-time.as_micros().rem_euclid(1_000))
        .plus_micros(if time.as_micros() % 1_000 == 0 { 0 } else { 1_000 })
}

#[cfg(test)]
mod tests;
