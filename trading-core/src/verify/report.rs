//! The whole answer, per symbol and in all, as data and as JSON.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::domain::{GapStatus, Timestamp};

use super::findings::{Finding, Findings, Kind, LISTED_MAX};

/// Trades of one symbol that are not stored, by what `tick_gaps` says of them; before the first stored one and after the
/// last only those that it lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Listed in no way.
    pub unlisted: u64,
    /// In open gaps.
    pub open: u64,
    /// In unrecoverable gaps.
    pub unrecoverable: u64,
    /// In gaps that are said to be repaired.
    pub repaired: u64,
    /// Refused by the table.
    pub rejected: u64,
    /// Never issued by the exchange: no loss.
    pub not_a_loss: u64,
}

impl Missing {
    /// Counts trades of which this is said.
    pub(super) fn add(&mut self, status: Option<GapStatus>, count: u64) {
        let sum = match status {
            None => &mut self.unlisted,
            Some(GapStatus::Open) => &mut self.open,
            Some(GapStatus::Unrecoverable) => &mut self.unrecoverable,
            Some(GapStatus::Repaired) => &mut self.repaired,
            Some(GapStatus::NotALoss) => &mut self.not_a_loss,
        };
        *sum = sum.saturating_add(count);
    }

    /// What is lost, for now or for good.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.unlisted
            .saturating_add(self.open)
            .saturating_add(self.unrecoverable)
            .saturating_add(self.repaired)
            .saturating_add(self.rejected)
    }
}

/// One symbol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SymbolReport {
    /// The exchange's name.
    pub exchange: String,
    /// The canonical symbol.
    pub symbol: String,
    /// Whether the exchange's ids prove completeness: `consecutive`, else `unique`.
    pub ids: &'static str,
    /// Rows in the window.
    pub rows: u64,
    /// The lowest id, where ids are consecutive.
    pub first_id: Option<u64>,
    /// The highest id, where ids are consecutive.
    pub last_id: Option<u64>,
    /// Exchange time of the first row.
    #[serde(serialize_with = "time_text")]
    pub from: Option<Timestamp>,
    /// Exchange time of the last row.
    #[serde(serialize_with = "time_text")]
    pub to: Option<Timestamp>,
    /// Holes between the first and the last id; where ids prove nothing, times that `tick_gaps` lists as lost or open.
    pub holes: u64,
    /// How many ids the holes hold, by what is said of them.
    pub missing: Missing,
    /// Rows that hold a trade which another row holds.
    pub duplicates: u64,
    /// Rows in `rejected_ticks`.
    pub rejected: u64,
    /// Minutes compared with the exchange's candles.
    pub minutes_compared: u64,
    /// Minutes that were to be compared, as far as whole ones are stored.
    pub minutes_asked: u64,
    /// Whether nothing speaks against this symbol's completeness.
    pub complete: bool,
}

/// Frames of one exchange that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quarantined {
    /// The exchange's name.
    pub exchange: String,
    /// How often such frames came.
    pub frames: u64,
}

/// The answer in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that was looked at is there once.
    Complete,
    /// Something speaks against it.
    NotComplete,
    /// Nothing of what was asked for is stored: neither can be said.
    NothingToJudge,
}

/// Connections that brought trades, by what their counts were good for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sessions {
    /// Ended ones whose count was held against the rows.
    pub judged: u64,
    /// Ended ones whose count was not: they ended a moment ago, began in days that are gone, or carried more symbols than
    /// were asked for.
    pub not_judged: u64,
    /// Those of which no count is known: they stand, or their recorder ended without a word.
    pub not_counted: u64,
}

/// The whole answer.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether everything in the window is there once: [`Verdict::Complete`].
    pub complete: bool,
    /// The answer in one word.
    pub verdict: Verdict,
    /// Where the window begins; `None`: with the first row.
    #[serde(serialize_with = "time_text")]
    pub from: Option<Timestamp>,
    /// The earliest time of the window that any table knows of; `None`: none does.
    #[serde(serialize_with = "time_text")]
    pub known_from: Option<Timestamp>,
    /// The latest time of the window that a stored trade or a connection speaks for; `None`: none does.
    #[serde(serialize_with = "time_text")]
    pub known_to: Option<Timestamp>,
    /// Where the window ends, excluded.
    #[serde(serialize_with = "exact_time_text")]
    pub to: Timestamp,
    /// How many of the newest seconds are left out, because what was traded then may still be on its way; `None`: the
    /// end was given.
    pub settle_seconds: Option<u64>,
    /// Rows in the window.
    pub rows: u64,
    /// Days that were read.
    pub days: u64,
    /// Connections that stand, by `feed_sessions`.
    pub open_sessions: u64,
    /// What the counts of ended connections were good for.
    pub sessions: Sessions,
    /// Each symbol, by exchange and name.
    pub symbols: Vec<SymbolReport>,
    /// Symbols that a connection carried and of which the window holds no row, as `exchange:symbol`.
    pub without_rows: Vec<String>,
    /// Unreadable frames per exchange.
    pub quarantined: Vec<Quarantined>,
    /// How much of each kind was found, in the kind's own unit.
    pub counts: BTreeMap<Kind, u64>,
    /// What was found, one by one.
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub findings_not_listed: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Report {
    pub(super) fn tell(&mut self, findings: Findings) {
        self.complete = findings.is_empty();
        let is_only_empty =
            self.rows == 0 && findings.counts.keys().all(|kind| *kind == Kind::NothingStored);
        self.verdict = match (self.complete, is_only_empty) {
            (true, _) => Verdict::Complete,
            (false, true) => Verdict::NothingToJudge,
            (false, false) => Verdict::NotComplete,
        };
        self.counts = findings.counts;
        self.findings = findings.listed;
        self.findings_not_listed = findings.unlisted;
    }

    /// Adds what the comparison of one symbol with its exchange found. `minutes`: compared, and to be compared.
    pub(super) fn add_compared(
        &mut self,
        exchange: &str,
        symbol: &str,
        (compared, asked): (u64, u64),
        found: Findings,
    ) {
        let mut symbols = self.symbols.iter_mut();
        if let Some(one) = symbols.find(|it| it.exchange == exchange && it.symbol == symbol) {
            one.minutes_compared = compared;
            one.minutes_asked = asked;
            one.complete &= found.is_empty();
        }
        self.add(found);
    }

    /// Adds findings.
    pub(super) fn add(&mut self, found: Findings) {
        let mut all = Findings {
            listed: std::mem::take(&mut self.findings),
            unlisted: self.findings_not_listed,
            counts: std::mem::take(&mut self.counts),
            listed_max: LISTED_MAX,
        };
        all.append(found);
        self.tell(all);
    }

    /// As one JSON document.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!(self)
    }
}

#[expect(clippy::ref_option, reason = "serde gives the field as it stands")]
pub(super) fn time_text<S: Serializer>(
    time: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    time.map(|at| at.to_string()).serialize(serializer)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives the field as it stands")]
fn exact_time_text<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}
