//! The answer as text for people.

use std::fmt;

use crate::domain::{Lines, Timestamp, escaped};

use super::findings::grouped;
use super::report::{Quarantined, Report, Sessions, SymbolReport, Verdict};

/// Symbols without a trade that are named.
const NAMED_MAX: usize = 10;
/// Findings in the text; `--json` has them all.
const SHOWN_MAX: usize = 40;

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
        self.looked_at(f)?;
        let verdict = match self.verdict {
            Verdict::Complete => "COMPLETE",
            Verdict::NotComplete => "NOT COMPLETE",
            Verdict::NothingToJudge => "NOTHING TO JUDGE",
        };
        let symbols = self.symbols.iter().filter(|symbol| symbol.rows > 0).count();
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

impl Report {
    /// What the answer is about, and what of it was not looked at.
    fn looked_at(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((from, to)) = self.known_from.zip(self.known_to) {
            write!(f, "Looked at: {from} to {to}")?;
            let Sessions { judged, not_judged, not_counted } = self.sessions;
            write!(f, "; the counts of {} ended connections", grouped(judged))?;
            if not_judged > 0 {
                write!(
                    f,
                    ", not those of {} more, which ended a moment ago, began in a day that is gone, or carried other symbols too",
                    grouped(not_judged)
                )?;
            }
            if not_counted > 0 {
                write!(
                    f,
                    "; {} stand or were ended by a kill, and have no count",
                    grouped(not_counted)
                )?;
            }
            writeln!(f)?;
        }
        if !self.without_rows.is_empty() {
            let named = self.without_rows.iter().take(NAMED_MAX);
            let named: Vec<_> = named.map(|it| escaped(it, Lines::One)).collect();
            write!(f, "Without a trade in this time: {}", named.join(", "))?;
            match self.without_rows.len().saturating_sub(NAMED_MAX) {
                0 => writeln!(f)?,
                more => writeln!(f, " and {more} more")?,
            }
        }
        Ok(())
    }
}

fn table(f: &mut fmt::Formatter<'_>, symbols: &[SymbolReport]) -> fmt::Result {
    const HEAD: [&str; 11] = [
        "exchange", "symbol", "rows", "first id", "last id", "from", "to", "missing", "twice",
        "compared", "status",
    ];
    let is_compared = symbols.iter().any(|it| it.minutes_asked > 0);
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
            format!("{} of {} min", it.minutes_compared, it.minutes_asked),
            if it.complete { "complete" } else { "NOT COMPLETE" }.to_owned(),
        ]
    });
    let rows: Vec<[String; 11]> = std::iter::once(HEAD.map(str::to_owned)).chain(rows).collect();
    let mut widths = [0; 11];
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
                9 if !is_compared => continue,
                2..=4 | 7..=9 => format!("{cell:>width$}  "),
                _ => format!("{cell:<width$}  "),
            };
            line.push_str(&cell);
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}
