//! How far a long operation has come: a bar on a terminal, a line in the log now and then otherwise.
//!
//! Promised: the bar is one line, whatever the width of the terminal; a time that is left is said only when it is known; a
//! total that was an estimate is left out once it is passed.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use bytesize::ByteSize;
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use tokio::time::Instant;
use tracing::info;
use unicode_width::UnicodeWidthStr as _;

use super::figures::{Grouped, Lasting, Rate};
use super::screen::Screen;
use crate::domain::lock;

/// How often a line is written where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Before that nothing is said of the time that is left.
const LEFT_AFTER: Duration = Duration::from_secs(2);
/// Over less time nothing is a rate.
const RATE_AFTER: Duration = Duration::from_secs(1);
/// Columns of the bar itself.
const BAR_MOST: usize = 30;
const BAR_LEAST: usize = 10;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things of this name, in the plural.
    Of(&'static str),
    /// Bytes, shown as `1.2 GiB`.
    Bytes,
    /// Seconds of something of this name, shown as `2h 5m of trades`.
    Seconds(&'static str),
}

/// How much there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Total {
    /// So much.
    Known(u64),
    /// An estimate.
    About(u64),
    /// Nobody knows.
    Unknown,
}

/// The progress of one operation. Shared; every method may be called from any task.
#[derive(Debug)]
pub struct Progress {
    what: String,
    unit: Unit,
    total: Total,
    bar: ProgressBar,
    is_shown: bool,
    since: Instant,
    said_at: Mutex<Instant>,
}

/// Bars that are on the screen.
static SHOWN: AtomicUsize = AtomicUsize::new(0);
/// The log is for programs: nothing moves between its lines.
static NO_BARS: AtomicBool = AtomicBool::new(false);

fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(MultiProgress::new)
}

/// From now on progress is said in the log only.
pub(super) fn without_bars() {
    NO_BARS.store(true, Ordering::Relaxed);
}

/// Writes to the terminal while no bar is in the way: what is written appears above it.
pub fn aside<T>(write: impl FnOnce() -> T) -> T {
    if SHOWN.load(Ordering::Relaxed) == 0 { write() } else { bars().suspend(write) }
}

impl Progress {
    /// An operation begins.
    #[must_use]
    pub fn start(what: impl Into<String>, unit: Unit, total: Total) -> Self {
        let what = what.into();
        let is_shown = Screen::of_errors().moves && !NO_BARS.load(Ordering::Relaxed);
        let bar = ProgressBar::hidden();
        if is_shown {
            SHOWN.fetch_add(1, Ordering::Relaxed);
            bars().add(bar.clone());
            let name = what.clone();
            let line = move |state: &ProgressState, out: &mut dyn fmt::Write| {
                let width = Screen::of_errors().width.unwrap_or(usize::MAX);
                let reading = Reading { unit, total, done: state.pos(), took: state.elapsed() };
                // In the last column some terminals begin a new line.
                if out.write_str(&reading.bar(&name, width.saturating_sub(1))).is_err() {
                    // The bar is drawn again a moment later.
                }
            };
            // A template that cannot be read leaves indicatif's own.
            if let Ok(style) = ProgressStyle::with_template("{line}") {
                bar.set_style(style.with_key("line", line));
            }
            bar.tick();
        }
        let now = Instant::now();
        Self { what, unit, total, bar, is_shown, since: now, said_at: Mutex::new(now) }
    }

    /// So many more are done.
    pub fn advance(&self, by: u64) {
        self.bar.inc(by);
        if !self.is_shown {
            let mut said_at = lock(&self.said_at);
            if said_at.elapsed() >= LINE_INTERVAL {
                *said_at = Instant::now();
                info!("{}: {}", self.what, self.reading().facts().join(", "));
            }
        }
    }

    /// How many are done.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.bar.position()
    }

    /// The operation has ended: the bar goes.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
        info!("{}: done, {}", self.what, self.reading().end());
    }

    fn reading(&self) -> Reading {
        let (unit, total) = (self.unit, self.total);
        Reading { unit, total, done: self.bar.position(), took: self.since.elapsed() }
    }
}

/// What was left unfinished is not left on the screen either.
impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            self.bar.finish_and_clear();
            bars().remove(&self.bar);
            SHOWN.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy)]
struct Reading {
    unit: Unit,
    total: Total,
    done: u64,
    took: Duration,
}

impl Reading {
    /// The total, as long as it holds.
    fn total(&self) -> Option<u64> {
        let (Total::Known(total) | Total::About(total)) = self.total else { return None };
        (total >= self.done && total > 0).then_some(total)
    }

    /// The share that is done, in percent.
    fn percent(&self) -> Option<u128> {
        self.total().map(|total| u128::from(self.done) * 100 / u128::from(total))
    }

    fn shown(&self, amount: u64) -> String {
        match self.unit {
            Unit::Of(_) => Grouped(amount).to_string(),
            Unit::Bytes => ByteSize(amount).to_string(),
            Unit::Seconds(_) => Lasting(Duration::from_secs(amount)).to_string(),
        }
    }

    /// `394 of 1,000 ticks`
    fn count(&self, total: Option<u64>) -> String {
        let about = if matches!(self.total, Total::About(_)) { "about " } else { "" };
        let of = total.map_or_else(String::new, |it| format!(" of {about}{}", self.shown(it)));
        let name = match self.unit {
            Unit::Of(name) => format!(" {name}"),
            Unit::Bytes => String::new(),
            Unit::Seconds(name) => format!(" of {name}"),
        };
        format!("{}{of}{name}", self.shown(self.done))
    }

    fn rate(&self) -> Option<String> {
        if self.took < RATE_AFTER {
            return None;
        }
        let rate = |unit| Rate { done: self.done, over: self.took, unit }.to_string();
        match self.unit {
            Unit::Of(name) => Some(rate(name)),
            Unit::Bytes => {
                let micros = self.took.as_micros().max(1);
                let a_second = u128::from(self.done) * 1_000_000 / micros;
                Some(format!("{}/s", ByteSize(u64::try_from(a_second).unwrap_or(u64::MAX))))
            }
            Unit::Seconds(_) => None,
        }
    }

    /// The time that is left, by the mean so far.
    fn left(&self) -> Option<String> {
        let rest = self.total()? - self.done;
        if rest == 0 || self.done == 0 || self.took < LEFT_AFTER {
            return None;
        }
        let millis = self.took.as_millis() * u128::from(rest) / u128::from(self.done);
        let seconds = u64::try_from(millis.div_ceil(1_000)).unwrap_or(u64::MAX);
        Some(format!("{} left", Lasting(Duration::from_secs(seconds))))
    }

    /// All that is known, the most important first.
    fn facts(&self) -> Vec<String> {
        let percent = self.percent().map_or_else(String::new, |it| format!(" ({it}%)"));
        let count = format!("{}{percent}", self.count(self.total()));
        [Some(count), self.left(), self.rate()].into_iter().flatten().collect()
    }

    /// What was done in the end. A total is said only where it was not reached, and is no estimate.
    fn end(&self) -> String {
        let missed = match self.total {
            Total::Known(total) if total > self.done => Some(total),
            _ => None,
        };
        let rate = self.rate().map_or_else(String::new, |rate| format!(", {rate}"));
        format!("{} in {}{rate}", self.count(missed), Lasting(self.took))
    }

    /// One line of at most `width` columns: what there is no room for is left out, the least important first.
    fn bar(&self, what: &str, width: usize) -> String {
        let mut facts = self.facts();
        loop {
            let said = facts.join(", ");
            let used = what.width() + said.width();
            if let Some(percent) = self.percent()
                && let Some(room) = width.checked_sub(used + 4).filter(|room| *room >= BAR_LEAST)
            {
                return format!("{what} {} {said}", drawn(percent, room.min(BAR_MOST)));
            }
            if used + 2 <= width {
                return format!("{what}: {said}");
            }
            if facts.len() <= 1 {
                return cut(&format!("{what}: {}", self.count(self.total())), width);
            }
            facts.pop();
        }
    }
}

/// `[=====>    ]`; `room`: the columns between the brackets.
fn drawn(percent: u128, room: usize) -> String {
    let done = usize::try_from(percent).unwrap_or(100).min(100) * room / 100;
    let head = if done < room { ">" } else { "" };
    let bar = format!("{}{head}", "=".repeat(done));
    format!("[{bar:<room$}]")
}

/// As much of a text as fits.
fn cut(text: &str, width: usize) -> String {
    let mut kept = String::new();
    for character in text.chars() {
        kept.push(character);
        if kept.width() > width {
            kept.pop();
            break;
        }
    }
    kept.truncate(kept.trim_end().len());
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(total: Total, done: u64, seconds: u64) -> Reading {
        Reading { unit: Unit::Of("ticks"), total, done, took: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_bar_fits_its_terminal_and_leaves_out_the_least_important_first() {
        let half = reading(Total::Known(557_626), 278_813, 10);
        let shown: Vec<String> = [120, 80, 70, 60, 50, 40, 30]
            .iter()
            .map(|width| half.bar("Replay at max", *width))
            .collect();
        insta::assert_snapshot!(shown.join("\n"));
        for width in 0..130 {
            assert!(half.bar("Replay at max", width).width() <= width, "{width}");
            assert!(half.bar("币安人生", width).width() <= width, "{width}");
        }
    }

    #[test]
    fn a_total_that_is_passed_is_said_no_more() {
        assert_eq!(
            reading(Total::About(1), 394, 1).bar("Replay", 80),
            "Replay: 394 ticks, 394 ticks/s"
        );
        assert_eq!(reading(Total::About(1), 394, 0).end(), "394 ticks in 0s");
        assert_eq!(reading(Total::About(500), 394, 10).end(), "394 ticks in 10s, 39 ticks/s");
        assert_eq!(reading(Total::Known(500), 394, 0).end(), "394 of 500 ticks in 0s");
        assert_eq!(
            reading(Total::About(500), 250, 1).facts(),
            ["250 of about 500 ticks (50%)", "250 ticks/s"]
        );
        assert_eq!(reading(Total::Known(0), 0, 0).facts(), ["0 ticks"]);
    }

    #[test]
    fn the_time_that_is_left_is_said_when_it_is_known() {
        assert_eq!(reading(Total::Known(10), 0, 60).left(), None);
        assert_eq!(reading(Total::Known(10), 5, 1).left(), None);
        assert_eq!(reading(Total::Known(10), 10, 60).left(), None);
        assert_eq!(reading(Total::Unknown, 5, 60).left(), None);
        assert_eq!(reading(Total::Known(10), 5, 61).left().unwrap(), "1m 1s left");
        assert_eq!(reading(Total::Known(u64::MAX), 1, 61).bar("x", 0), "");
    }

    #[test]
    fn bytes_and_times_are_shown_as_people_say_them() {
        let bytes = Reading { unit: Unit::Bytes, ..reading(Total::Known(4 << 30), 1 << 30, 4) };
        assert_eq!(bytes.facts(), ["1.0 GiB of 4.0 GiB (25%)", "12s left", "256.0 MiB/s"]);
        let times =
            Reading { unit: Unit::Seconds("trades"), ..reading(Total::Known(7_200), 3_600, 4) };
        assert_eq!(times.facts(), ["1h of 2h of trades (50%)", "4s left"]);
    }
}
