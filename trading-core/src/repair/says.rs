//! What the log says of repairs: a line of a gap, and one of all of them where many are done at once.

use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::time::Instant;
use tracing::{info, warn};

use super::ids::IdSet;
use crate::domain::Instrument;
use crate::store::postgres::{GapStatus, OpenGap, Part};
use crate::telemetry::{Lasting, RepeatLimiter, Unsaid};

/// While gap follows gap, what came of them is said so often.
const INTERVAL: Duration = Duration::from_secs(10);

/// The lines of repair at one exchange.
#[derive(Debug, Default)]
pub(super) struct Says {
    limiters: Mutex<FxHashMap<&'static str, RepeatLimiter>>,
    settled: Mutex<Settled>,
}

/// What came of the gaps since it was said last.
#[derive(Debug, Default)]
struct Settled {
    repaired: Tally,
    not_a_loss: Tally,
    unrecoverable: Tally,
    since: Option<Instant>,
    /// Gaps that somebody works on.
    worked_on: usize,
}

/// Gaps that ended in the same way.
#[derive(Debug, Default)]
struct Tally {
    /// What is said of the first of them.
    first: String,
    gaps: usize,
    trades: usize,
    /// Whether one of them was known by its ids: then something had been missing.
    has_ids: bool,
    symbols: FxHashSet<Instrument>,
}

impl Tally {
    fn add(&mut self, gap: &OpenGap, trades: usize, line: String) {
        if self.gaps == 0 {
            self.first = line;
        }
        self.gaps += 1;
        self.trades += trades;
        self.has_ids |= gap.ids.is_some();
        self.symbols.insert(gap.instrument);
    }

    /// How many gaps these are, and whose.
    fn whose(&self) -> String {
        let (gaps, symbols) = (self.gaps, self.symbols.len());
        let one = self.symbols.iter().next();
        let exchange = one.map_or("", |one| one.exchange());
        match one.filter(|_| symbols == 1) {
            Some(instrument) => format!("{gaps} of {instrument}"),
            None if symbols == gaps => format!("{symbols} symbols of {exchange}"),
            None => format!("{gaps} of {symbols} symbols of {exchange}"),
        }
    }

    /// Why nothing had to be fetched.
    const fn why_nothing(&self) -> &'static str {
        if self.has_ids {
            "stored meanwhile, by another recorder or connection or from the spool"
        } else {
            "nothing is missing"
        }
    }
}

impl Says {
    /// What came of a gap. It is said when [`Says::tell`] is called, and at last after some seconds.
    pub(super) fn settled(&self, gap: &OpenGap, parts: &[Part], ticks: usize, took: Duration) {
        let instrument = gap.instrument;
        let now = Instant::now();
        let mut settled = self.lock();
        let since = *settled.since.get_or_insert(now);
        let of = |status: GapStatus| parts.iter().filter(move |part| part.status == status);
        if let Some(all) = hull(of(GapStatus::Repaired)) {
            let line = format!("{instrument} {all}, {ticks} trades in {}", Lasting(took));
            settled.repaired.add(gap, ticks, line);
            if ticks == 0 && settled.repaired.gaps == 1 {
                let why = settled.repaired.why_nothing();
                settled.repaired.first = format!("{instrument} {all}: {why}");
            }
        }
        if let Some(first) = of(GapStatus::NotALoss).next() {
            let others = Others(of(GapStatus::NotALoss).count() - 1);
            let line = format!("{instrument} {first}{others}");
            settled.not_a_loss.add(gap, 0, line);
        }
        if let Some(first) = of(GapStatus::Unrecoverable).next() {
            let others = Others(of(GapStatus::Unrecoverable).count() - 1);
            let note = first.note.as_deref().unwrap_or_default();
            let line = format!("{instrument} {first}{others}: {note}");
            settled.unrecoverable.add(gap, 0, line);
        }
        if now.saturating_duration_since(since) >= INTERVAL {
            settled.say(now);
        }
    }

    /// Somebody begins to work on a gap.
    pub(super) fn begin(&self) {
        self.lock().worked_on += 1;
    }

    /// The work on a gap has ended, whatever came of it.
    pub(super) fn end(&self) {
        let mut settled = self.lock();
        settled.worked_on = settled.worked_on.saturating_sub(1);
    }

    /// No gap is due: says what came of those before, where nobody works on another one.
    pub(super) fn tell(&self) {
        let mut settled = self.lock();
        if settled.worked_on == 0 {
            settled.say(Instant::now());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Settled> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt that came to nothing.
    pub(super) fn postponed(&self, gap: &OpenGap, note: &str, retry_in: Duration) {
        let retry_in = Lasting(retry_in);
        self.line("postponed", |more| {
            warn!("Gap not repaired yet: {gap}: {note}; again in {retry_in}{more}");
        });
    }

    /// Gaps that nobody had noticed.
    pub(super) fn found(&self, instrument: Instrument, ids: &IdSet) {
        if let Some((first, last)) = ids.bounds() {
            let trades: u64 = ids.runs().map(|(first, last)| last - first + 1).sum();
            self.line("found", |more| {
                warn!("Missing in the database: {instrument} {trades} trades of ids {first} to {last}{more}");
            });
        }
    }

    fn line(&self, kind: &'static str, say: impl FnOnce(Unsaid)) {
        let due = self
            .limiters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(kind)
            .or_default()
            .admit(Instant::now());
        if let Some(unsaid) = due {
            say(unsaid);
        }
    }
}

impl Settled {
    /// One line of each kind, and begins anew.
    fn say(&mut self, now: Instant) {
        let rest = Self { worked_on: self.worked_on, ..Self::default() };
        let Self { repaired, not_a_loss, unrecoverable, since, .. } = std::mem::replace(self, rest);
        let took = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        match repaired.gaps {
            0 => {}
            1 => info!("Gap repaired: {}", repaired.first),
            _ if repaired.trades == 0 => {
                info!("Gaps repaired: {}: {}", repaired.whose(), repaired.why_nothing());
            }
            _ => info!(
                "Gaps repaired: {}, {} trades in {}",
                repaired.whose(),
                repaired.trades,
                Lasting(took)
            ),
        }
        match not_a_loss.gaps {
            0 => {}
            1 => info!("Gap is no loss: {}, never issued", not_a_loss.first),
            _ => info!("Gaps are no loss: {}, never issued", not_a_loss.whose()),
        }
        match unrecoverable.gaps {
            0 => {}
            1 => warn!("Gap unrecoverable: {}", unrecoverable.first),
            _ => warn!(
                "Gaps unrecoverable: {}, such as {}",
                unrecoverable.whose(),
                unrecoverable.first
            ),
        }
    }
}

/// From the first to the last of these parts.
fn hull<'a>(parts: impl Iterator<Item = &'a Part>) -> Option<Part> {
    parts.cloned().reduce(|mut all, part| {
        all.ids = all.ids.zip(part.ids).map(|(one, two)| (one.0, two.1));
        all.times.1 = part.times.1;
        all
    })
}

/// The number of other parts, where there are any.
struct Others(usize);

impl Display for Others {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => Ok(()),
            others => write!(f, " and {others} other parts"),
        }
    }
}
