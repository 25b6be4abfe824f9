//! What the log says of repairs: a line a gap, unless a symbol has many.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::Instant;
use tracing::{info, warn};

use super::ids::IdSet;
use crate::domain::Instrument;
use crate::store::postgres::{GapStatus, OpenGap, Part};
use crate::telemetry::{Lasting, RepeatLimiter, Unsaid};

/// The lines of repair, each limited for each symbol.
#[derive(Debug, Default)]
pub(super) struct Says {
    limiters: Mutex<FxHashMap<(Instrument, &'static str), RepeatLimiter>>,
}

impl Says {
    /// What came of a gap.
    pub(super) fn settled(&self, gap: &OpenGap, parts: &[Part], ticks: usize, took: Duration) {
        let instrument = gap.instrument;
        let of = |status: GapStatus| parts.iter().filter(move |part| part.status == status);
        if let Some(all) = hull(of(GapStatus::Repaired)) {
            let took = Lasting(took);
            self.line(instrument, "repaired", |more| {
                info!("Gap repaired: {instrument} {all}, {ticks} trades in {took}{more}");
            });
        }
        if let Some(first) = of(GapStatus::NotALoss).next() {
            let others = Others(of(GapStatus::NotALoss).count() - 1);
            self.line(instrument, "not a loss", |more| {
                info!("Gap is no loss: {instrument} {first}{others}, never issued{more}");
            });
        }
        if let Some(first) = of(GapStatus::Unrecoverable).next() {
            let others = Others(of(GapStatus::Unrecoverable).count() - 1);
            let note = first.note.as_deref().unwrap_or_default();
            self.line(instrument, "unrecoverable", |more| {
                warn!("Gap unrecoverable: {instrument} {first}{others}: {note}{more}");
            });
        }
    }

    /// An attempt that came to nothing.
    pub(super) fn postponed(&self, gap: &OpenGap, note: &str, retry_in: Duration) {
        let retry_in = Lasting(retry_in);
        self.line(gap.instrument, "postponed", |more| {
            warn!("Gap not repaired yet: {gap}: {note}; again in {retry_in}{more}");
        });
    }

    /// Gaps that nobody had noticed.
    pub(super) fn found(&self, instrument: Instrument, ids: &IdSet) {
        if let Some((first, last)) = ids.bounds() {
            let trades: u64 = ids.runs().map(|(first, last)| last - first + 1).sum();
            self.line(instrument, "found", |more| {
                warn!("Missing in the database: {instrument} {trades} trades of ids {first} to {last}{more}");
            });
        }
    }

    fn line(&self, instrument: Instrument, kind: &'static str, say: impl FnOnce(Unsaid)) {
        let due = self
            .limiters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry((instrument, kind))
            .or_default()
            .admit(Instant::now());
        if let Some(unsaid) = due {
            say(unsaid);
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
