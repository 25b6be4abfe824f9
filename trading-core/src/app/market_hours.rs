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

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::domain::Timestamp;
use crate::simulator::{Clock, Closure};
use crate::store::folder::{Folder, is_missing};
use crate::telemetry::RepeatLimiter;

/// The file that keeps the hours.
const FILE: &str = "market-hours";
/// Held while the file is read and written anew.
const LOCK: &str = "market-hours.lock";
/// How far ahead the market is open. After a kill so much is traded that nobody records.
const AHEAD_MICROS: i64 = 5_000_000;
/// So long after a start the market opens: the feeds are subscribed by then, and miss nothing.
const OPENS_AFTER_MICROS: i64 = 3_000_000;
/// How often that is renewed.
const RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes of the file that are read; some forty thousand runs.
const BYTES_MAX: u64 = 4 << 20;

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
}

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq)]
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
            let (recorder, open_until) = (recorder.to_owned(), Arc::new(AtomicI64::new(0)));
            let hours = Self { folder, recorder, open_until };
            let closures = hours.change(|hours| hours.open(now))?;
            hours.renew(now)?;
            Ok((hours, closures))
        };
        opened().map_err(|source| HoursError { path, source })
    }

    /// The market's clock and when it was closed, for who only looks at it; `None`: its hours are not kept.
    ///
    /// # Errors
    ///
    /// When the hours cannot be read.
    pub(super) fn look(folder: &Path) -> Result<Option<(Clock, Vec<Closure>)>, HoursError> {
        let path = folder.join(FILE);
        let hours = match Folder::open(folder).and_then(|folder| folder.read(FILE)) {
            Ok(file) => Hours::read(file).map_err(|source| HoursError { path, source })?,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(source) => return Err(HoursError { path, source }),
        };
        // Nothing is traded behind what the last recorder has left behind.
        let until = hours.open.iter().map(|(_, until)| *until).max();
        let clock = Clock::new(move || {
            let now = Timestamp::now();
            until.map_or(now, |until| now.min(until))
        });
        Ok(Some((clock, hours.closures)))
    }

    /// The wall clock, which stands still where the market closes.
    pub(super) fn clock(&self) -> Clock {
        let open_until = Arc::clone(&self.open_until);
        Clock::new(move || {
            let until = Timestamp::from_micros(open_until.load(Ordering::Acquire));
            until.map_or_else(|_| Timestamp::now(), |until| Timestamp::now().min(until))
        })
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
        self.change(|hours| hours.keep(&self.recorder, until, now))?;
        // Not before it is on disk.
        self.open_until.store(until.as_micros(), Ordering::Release);
        Ok(())
    }

    fn close(&self, now: Timestamp) -> io::Result<()> {
        self.change(|hours| hours.keep(&self.recorder, now, now))
    }

    /// Reads the hours and writes them anew, while nobody else does.
    fn change<T>(&self, change: impl FnOnce(&mut Hours) -> T) -> io::Result<T> {
        let lock = self.folder.open_or_create(LOCK)?;
        lock.lock()?;
        let mut hours = match self.folder.read(FILE) {
            Ok(file) => Hours::read(file)?,
            Err(error) if is_missing(&error) => Hours::default(),
            Err(error) => return Err(error),
        };
        let answer = change(&mut hours);
        let staging = format!("{FILE}.new");
        match self.folder.remove(&staging) {
            Err(error) if !is_missing(&error) => return Err(error),
            _ => {}
        }
        let mut file = self.folder.create(&staging)?;
        file.write_all(hours.write().as_bytes())?;
        file.sync_all()?;
        self.folder.rename(&staging, FILE)?;
        Ok(answer)
    }
}

impl Hours {
    fn read(file: File) -> io::Result<Self> {
        let mut text = String::new();
        file.take(BYTES_MAX).read_to_string(&mut text)?;
        Self::parse(&text).ok_or_else(|| io::Error::other("it is damaged"))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut hours = Self::default();
        let time = |text: &str| Timestamp::from_rfc3339(text).ok();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match *words.as_slice() {
                ["closed", from, to] => {
                    hours.closures.push(Closure { from: time(from)?, to: time(to)? });
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

    /// Opens the market, if it is not, and answers when it was closed.
    fn open(&mut self, now: Timestamp) -> Vec<Closure> {
        let until = self.open.iter().map(|(_, until)| *until).max();
        if let Some(until) = until.filter(|until| *until < now) {
            // In whole milliseconds, as the coarsest venue counts.
            let opens = now.plus_micros(OPENS_AFTER_MICROS);
            let (from, to) = (next_millisecond(until), next_millisecond(opens));
            if from < to {
                self.closures.push(Closure { from, to });
            }
            self.open.clear();
        }
        self.closures.clone()
    }

    /// Notes until when a recorder keeps the market open, and forgets those that are gone.
    fn keep(&mut self, recorder: &str, until: Timestamp, now: Timestamp) {
        self.open.retain(|(other, until)| other != recorder && *until >= now);
        self.open.push((recorder.to_owned(), until));
    }
}

fn next_millisecond(time: Timestamp) -> Timestamp {
    time.plus_micros(-time.as_micros().rem_euclid(1_000))
        .plus_micros(if time.as_micros() % 1_000 == 0 { 0 } else { 1_000 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_rfc3339("2026-11-28T01:00:00Z").unwrap().plus_micros(seconds * 1_000_000)
    }

    /// Closed until a start at this second.
    fn closed(from: i64, to: i64) -> Closure {
        Closure { from: at(from), to: at(to).plus_micros(OPENS_AFTER_MICROS) }
    }

    #[test]
    fn a_market_is_closed_from_the_end_of_a_run_to_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let open = |recorder: &str, seconds| {
            MarketHours::open(folder.path(), recorder, at(seconds)).unwrap()
        };
        let (first, closures) = open("first", 0);
        assert_eq!(closures, []);
        first.renew(at(2)).unwrap();
        first.close(at(3)).unwrap();
        let (second, closures) = open("second", 100);
        assert_eq!(closures, [closed(3, 100)]);
        // Killed: what was open is traded, up to the end of what it had announced.
        second.renew(at(110)).unwrap();
        let (_third, closures) = open("third", 200);
        assert_eq!(closures, [closed(3, 100), closed(115, 200)]);
    }

    #[test]
    fn a_market_stays_open_while_any_recorder_keeps_it_so() {
        let folder = tempfile::tempdir().unwrap();
        let open = |recorder: &str, seconds| {
            MarketHours::open(folder.path(), recorder, at(seconds)).unwrap()
        };
        let (first, _) = open("first", 0);
        let (second, closures) = open("second", 1);
        assert_eq!(closures, []);
        second.close(at(2)).unwrap();
        first.renew(at(4)).unwrap();
        assert_eq!(open("third", 8).1, []);
        // A start right after a kill finds it open still.
        assert_eq!(open("fourth", 12).1, []);
        assert_eq!(open("fifth", 30).1, [closed(17, 30)]);
    }

    #[test]
    fn the_clock_never_passes_what_is_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let past = Timestamp::now().plus_micros(-60_000_000);
        let (hours, _) = MarketHours::open(folder.path(), "first", past).unwrap();
        let clock = hours.clock();
        let until = past.plus_micros(AHEAD_MICROS);
        assert_eq!(clock.now(), until);
        let kept = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert_eq!(kept, format!("open first {until}\n"));
        hours.renew(Timestamp::now()).unwrap();
        assert!(clock.now() > until);
    }

    #[test]
    fn times_are_in_whole_milliseconds_and_never_before_the_last_trade() {
        let mut hours = Hours::default();
        hours.keep("first", at(0).plus_micros(1), at(0));
        assert_eq!(
            hours.open(at(5).plus_micros(999)),
            [Closure {
                from: at(0).plus_micros(1_000),
                to: at(5).plus_micros(1_000 + OPENS_AFTER_MICROS)
            }]
        );
        assert_eq!(Hours::parse(&hours.write()), Some(hours));
    }

    #[test]
    fn what_is_damaged_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "closed yesterday\n").unwrap();
        let error = MarketHours::open(folder.path(), "first", at(0)).unwrap_err();
        assert!(error.to_string().contains("db remove --simulated"), "{error}");
    }
}
