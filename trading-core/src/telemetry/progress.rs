//! How far a long operation has come: a bar on a terminal, a line in the log now and then otherwise.

use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;
use tracing::info;

/// Where there is no terminal, a line so often.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The progress of one operation. Shared; every method may be called from any task.
#[derive(Debug)]
pub struct Progress {
    what: String,
    unit: &'static str,
    bar: ProgressBar,
    since: Instant,
    said_at: Mutex<Instant>,
}

impl Progress {
    /// An operation begins, of so many `unit`s (plural) where that is known.
    #[must_use]
    pub fn start(what: impl Into<String>, unit: &'static str, total: Option<u64>) -> Self {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let what = what.into();
        let bar = ProgressBar::with_draw_target(total, target);
        let template = match total {
            Some(_) => "{msg} [{bar:30}] {human_pos}/{human_len} {prefix} {per_sec}, {eta} left",
            None => "{msg} {spinner} {human_pos} {prefix} {per_sec}",
        };
        // A template that cannot be read leaves indicatif's own.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.clone());
        bar.set_prefix(unit);
        let now = Instant::now();
        Self { what, unit, bar, since: now, said_at: Mutex::new(now) }
    }

    /// So many more are done.
    pub fn advance(&self, by: u64) {
        self.bar.inc(by);
        if self.bar.is_hidden() {
            let mut said_at = self.said_at.lock().unwrap_or_else(PoisonError::into_inner);
            if said_at.elapsed() >= LINE_INTERVAL {
                *said_at = Instant::now();
                info!("{}: {}", self.what, self.line());
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
        // The bar would end at its total, which may be an estimate, or not be reached.
        let line = self.line();
        self.bar.finish_and_clear();
        info!("{}: done, {line}", self.what);
    }

    fn line(&self) -> String {
        let done = self.bar.position();
        let of = self.bar.length().map_or_else(String::new, |total| format!(" of {total}"));
        let took = Duration::from_secs(self.since.elapsed().as_secs());
        format!("{done}{of} {} in {}", self.unit, humantime::format_duration(took))
    }
}
