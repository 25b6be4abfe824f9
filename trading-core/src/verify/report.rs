//! What was found: per symbol and in all, as text for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

use crate::domain::{Lines, Timestamp, escaped};

use super::gaps::GapStatus;

/// Findings that are told one by one, of one symbol; of the others the number is told.
const LISTED_PER_SYMBOL_MAX: usize = 20;
/// Findings that are told one by one, of all symbols.
const LISTED_MAX: usize = 1_000;
/// Findings in the text; `--json` has them all.
const SHOWN_MAX: usize = 40;

/// What speaks against completeness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Trades that are neither stored nor listed in `tick_gaps`; counted in trades.
    UnlistedHole,
    /// A row of `tick_gaps` that is open.
    OpenGap,
    /// A row of `tick_gaps` that is unrecoverable.
    UnrecoverableGap,
    /// A row of `tick_gaps` that says repaired, and is not.
    UntrueRepair,
    /// A row of `tick_gaps` that says open, and everything is stored.
    StoredOpenGap,
    /// Trades that the table refused; they are in `rejected_ticks`.
    Rejected,
    /// Rows that hold a trade which another row holds.
    Duplicate,
    /// Rows whose id does not belong to their time.
    AgainstTime,
    /// Rows whose id is no number, where the exchange counts.
    OddId,
    /// So many holes that they were not kept one by one.
    Scattered,
    /// Live rows that were received while nothing was connected.
    OutOfSession,
    /// Rows with a value that cannot be.
    OutOfDomain,
    /// Times without a connection that are not listed, where ids prove nothing.
    UnlistedDisconnect,
    /// Frames that could not be read, where ids do not prove what was in them.
    UnreadFrames,
    /// Minutes that differ from the exchange's own candles.
    UnlikeExchange,
    /// Symbols that could not be compared with the exchange.
    NotCompared,
    /// There is nothing to verify.
    NothingStored,
}

impl Kind {
    /// What so many of it are called.
    const fn noun(self) -> (&'static str, &'static str) {
        match self {
            Self::UnlistedHole => ("trade missing and not listed", "trades missing and not listed"),
            Self::OpenGap => ("gap open", "gaps open"),
            Self::UnrecoverableGap => ("gap unrecoverable", "gaps unrecoverable"),
            Self::UntrueRepair => {
                ("gap listed as repaired that is not", "gaps listed as repaired that are not")
            }
            Self::StoredOpenGap => {
                ("gap listed as open that is stored", "gaps listed as open that are stored")
            }
            Self::Rejected => ("trade rejected", "trades rejected"),
            Self::Duplicate => ("row stored twice", "rows stored twice"),
            Self::AgainstTime => {
                ("row with the id of another time", "rows with the id of another time")
            }
            Self::OddId => ("row whose id is no number", "rows whose id is no number"),
            Self::Scattered => {
                ("symbol with too many holes to list", "symbols with too many holes to list")
            }
            Self::OutOfSession => {
                ("live row outside every session", "live rows outside every session")
            }
            Self::OutOfDomain => ("row with an impossible value", "rows with an impossible value"),
            Self::UnlistedDisconnect => ("disconnect not listed", "disconnects not listed"),
            Self::UnreadFrames => ("unreadable frame", "unreadable frames"),
            Self::UnlikeExchange => {
                ("minute unlike the exchange's", "minutes unlike the exchange's")
            }
            Self::NotCompared => (
                "symbol not compared with its exchange",
                "symbols not compared with their exchange",
            ),
            Self::NothingStored => {
                ("question without an answer: nothing is stored", "questions without an answer")
            }
        }
    }
}

/// One thing that speaks against completeness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The exchange's name.
    pub exchange: String,
    /// The canonical symbol; `None`: the exchange as a whole.
    pub symbol: Option<String>,
    /// What kind it is of.
    pub kind: Kind,
    /// How many, in the kind's own unit.
    pub count: u64,
    /// The first id that it is about.
    pub first_id: Option<String>,
    /// The last id that it is about.
    pub last_id: Option<String>,
    /// Where in time it begins, by the exchange's clock (by ours for sessions).
    #[serde(serialize_with = "time_text")]
    pub from: Option<Timestamp>,
    /// Where in time it ends.
    #[serde(serialize_with = "time_text")]
    pub to: Option<Timestamp>,
    /// For people.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Words of tables, which others write too.
        let shown = |text| escaped(text, Lines::One);
        let (exchange, text) = (shown(&self.exchange), shown(&self.text));
        match (&self.symbol, &*exchange) {
            (Some(symbol), exchange) => write!(f, "{exchange}:{}: {text}", shown(symbol))?,
            (None, "") => f.write_str(&text)?,
            (None, exchange) => write!(f, "{exchange}: {text}")?,
        }
        match (&self.first_id, &self.last_id) {
            (Some(first), Some(last)) if first == last => write!(f, ": id {first}")?,
            (Some(first), Some(last)) => write!(f, ": ids {first} to {last}")?,
            _ => {}
        }
        match (self.from, self.to) {
            (Some(from), Some(to)) if from == to => write!(f, ", at {from}"),
            (Some(from), Some(to)) => write!(f, ", {from} to {to}"),
            _ => Ok(()),
        }
    }
}

/// Findings, of which the first are kept and all are counted.
#[derive(Debug, Default)]
pub(super) struct Findings {
    listed: Vec<Finding>,
    unlisted: u64,
    counts: BTreeMap<Kind, u64>,
    listed_max: usize,
}

impl Findings {
    /// For one symbol, or one exchange.
    pub(super) fn of_one() -> Self {
        Self { listed_max: LISTED_PER_SYMBOL_MAX, ..Self::default() }
    }

    /// For all of them.
    pub(super) fn of_all() -> Self {
        Self { listed_max: LISTED_MAX, ..Self::default() }
    }

    pub(super) fn push(&mut self, finding: Finding) {
        self.count(finding.kind, finding.count);
        if self.listed.len() < self.listed_max {
            self.listed.push(finding);
        } else {
            self.unlisted += 1;
        }
    }

    /// Counts what cannot be told one by one.
    pub(super) fn count(&mut self, kind: Kind, count: u64) {
        *self.counts.entry(kind).or_default() += count;
    }

    #[cfg(test)]
    pub(super) fn listed(&self) -> &[Finding] {
        &self.listed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    pub(super) fn append(&mut self, other: Self) {
        self.unlisted += other.unlisted;
        for (kind, count) in other.counts {
            self.count(kind, count);
        }
        for finding in other.listed {
            if self.listed.len() < self.listed_max {
                self.listed.push(finding);
            } else {
                self.unlisted += 1;
            }
        }
    }
}

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
    pub(super) fn of(&mut self, status: Option<GapStatus>) -> &mut u64 {
        match status {
            None => &mut self.unlisted,
            Some(GapStatus::Open) => &mut self.open,
            Some(GapStatus::Unrecoverable) => &mut self.unrecoverable,
            Some(GapStatus::Repaired) => &mut self.repaired,
            Some(GapStatus::NotALoss) => &mut self.not_a_loss,
        }
    }

    /// What is lost, for now or for good.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.unlisted + self.open + self.unrecoverable + self.repaired + self.rejected
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

/// The whole answer.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether everything in the window is there once.
    pub complete: bool,
    /// Where the window begins; `None`: with the first row.
    #[serde(serialize_with = "time_text")]
    pub from: Option<Timestamp>,
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
    /// Each symbol, by exchange and name.
    pub symbols: Vec<SymbolReport>,
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
        self.counts = findings.counts;
        self.findings = findings.listed;
        self.findings_not_listed = findings.unlisted;
    }

    /// Adds what the comparison of one symbol with its exchange found.
    pub(super) fn add_compared(
        &mut self,
        exchange: &str,
        symbol: &str,
        minutes: u64,
        found: Findings,
    ) {
        let mut symbols = self.symbols.iter_mut();
        if let Some(one) = symbols.find(|it| it.exchange == exchange && it.symbol == symbol) {
            one.minutes_compared = minutes;
            one.complete &= found.is_empty();
        }
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.symbols.is_empty() {
            table(f, &self.symbols)?;
        }
        for Quarantined { exchange, frames } in &self.quarantined {
            writeln!(
                f,
                "{exchange}: {} unreadable frames are in quarantined_frames",
                grouped(*frames)
            )?;
        }
        if !self.findings.is_empty() {
            writeln!(f, "\nFindings:")?;
            for finding in self.findings.iter().take(SHOWN_MAX) {
                writeln!(f, "  {finding}")?;
            }
            let hidden = self.findings.len().saturating_sub(SHOWN_MAX);
            let hidden = u64::try_from(hidden).unwrap_or(u64::MAX) + self.findings_not_listed;
            if hidden > 0 {
                writeln!(f, "  and {} more", grouped(hidden))?;
            }
            writeln!(f)?;
        }
        let verdict = if self.complete { "COMPLETE" } else { "NOT COMPLETE" };
        let symbols = self.symbols.len();
        let noun = if symbols == 1 { "symbol" } else { "symbols" };
        write!(f, "{verdict}: {} trades of {symbols} {noun}", grouped(self.rows))?;
        if self.complete {
            f.write_str(", each once and none missing")?;
        }
        let minutes: u64 = self.symbols.iter().map(|symbol| symbol.minutes_compared).sum();
        if minutes > 0 {
            let noun = if minutes == 1 { "minute" } else { "minutes" };
            write!(f, "; {} {noun} held against the exchanges' candles", grouped(minutes))?;
        }
        for (kind, count) in &self.counts {
            let (one, many) = kind.noun();
            write!(f, "; {} {}", grouped(*count), if *count == 1 { one } else { many })?;
        }
        match self.settle_seconds {
            Some(seconds) => {
                write!(f, "; without the newest {seconds} s, which may still be on their way")
            }
            None => write!(f, "; up to {}", self.to),
        }
    }
}

fn table(f: &mut fmt::Formatter<'_>, symbols: &[SymbolReport]) -> fmt::Result {
    const HEAD: [&str; 10] = [
        "exchange", "symbol", "rows", "first id", "last id", "from", "to", "missing", "twice",
        "status",
    ];
    let short = |time: Option<Timestamp>| {
        time.map_or_else(|| "-".to_owned(), |at| at.to_string().chars().take(19).collect())
    };
    let rows = symbols.iter().map(|it| {
        let id = |id: Option<u64>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        [
            escaped(&it.exchange, Lines::One).into_owned(),
            escaped(&it.symbol, Lines::One).into_owned(),
            grouped(it.rows),
            id(it.first_id),
            id(it.last_id),
            short(it.from),
            short(it.to),
            grouped(it.missing.lost()),
            grouped(it.duplicates),
            if it.complete { "complete" } else { "NOT COMPLETE" }.to_owned(),
        ]
    });
    let rows: Vec<[String; 10]> = std::iter::once(HEAD.map(str::to_owned)).chain(rows).collect();
    let mut widths = [0; 10];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            // Numbers end under each other.
            let cell = match column {
                2..=4 | 7 | 8 => format!("{cell:>width$}  "),
                _ => format!("{cell:<width$}  "),
            };
            line.push_str(&cell);
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

/// `12,345,678`
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[expect(clippy::ref_option, reason = "serde gives the field as it stands")]
fn time_text<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|at| at.to_string()).serialize(serializer)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives the field as it stands")]
fn exact_time_text<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")]
        {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn what_is_not_listed_is_counted() {
        let mut one = Findings::of_one();
        for id in 0..25_u64 {
            one.push(Finding {
                exchange: "okx".to_owned(),
                symbol: None,
                kind: Kind::Duplicate,
                count: 2,
                first_id: Some(id.to_string()),
                last_id: Some(id.to_string()),
                from: None,
                to: None,
                text: String::new(),
            });
        }
        let mut all = Findings::of_all();
        all.append(one);
        assert_eq!((all.listed.len(), all.unlisted), (LISTED_PER_SYMBOL_MAX, 5));
        assert_eq!(all.counts, BTreeMap::from([(Kind::Duplicate, 50)]));
    }
}
