//! The answer as text for people.

use std::fmt::{self, Write as _};

use crate::domain::{Timestamp, count};
use crate::telemetry::{Grouped, Page, Side, Table, Text, Tone};

use super::report::{Quarantined, Report, Sessions, SymbolReport, Verdict};

/// Symbols without a trade that are named.
const NAMED_MAX: usize = 10;
/// Findings in the text; `--json` has them all.
const SHOWN_MAX: usize = 40;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.page().fmt(f)
    }
}

impl Report {
    /// The answer for people: what was found of each symbol, the findings, and the verdict.
    #[must_use]
    pub fn page(&self) -> Page {
        let mut page = Page::default();
        if !self.symbols.is_empty() {
            page.table(table(&self.symbols));
        }
        for Quarantined { exchange, frames } in &self.quarantined {
            let frames = Grouped(*frames);
            page.line(format!("{exchange}: {frames} unreadable frames are in quarantined_frames"));
        }
        if !self.findings.is_empty() {
            page.line("");
            page.line("Findings:");
            for finding in self.findings.iter().take(SHOWN_MAX) {
                page.hanging(4, format!("  {finding}"));
            }
            let hidden = self.findings.len().saturating_sub(SHOWN_MAX);
            let hidden = count(hidden) + self.findings_not_listed;
            if hidden > 0 {
                page.line(format!("  and {} more", Grouped(hidden)));
            }
            page.line("");
        }
        self.looked_at(&mut page);
        page.line(self.verdict());
        page
    }

    /// The answer in one line.
    fn verdict(&self) -> Text {
        let (verdict, tone) = match self.verdict {
            Verdict::Complete => ("COMPLETE", Tone::Good),
            Verdict::NotComplete => ("NOT COMPLETE", Tone::Bad),
            Verdict::NothingToJudge => ("NOTHING TO JUDGE", Tone::Notice),
        };
        let symbols = self.symbols.iter().filter(|symbol| symbol.rows > 0).count();
        let noun = if symbols == 1 { "symbol" } else { "symbols" };
        let mut text = format!(": {} trades of {symbols} {noun}", Grouped(self.rows));
        if self.complete {
            text.push_str(", each once and none missing");
        }
        let minutes: u64 = self.symbols.iter().map(|symbol| symbol.minutes_compared).sum();
        if minutes > 0 {
            let noun = if minutes == 1 { "minute" } else { "minutes" };
            let minutes = Grouped(minutes);
            add(&mut text, format_args!("; {minutes} {noun} held against the exchanges' candles"));
        }
        for (kind, count) in &self.counts {
            let (one, many) = kind.noun();
            let noun = if *count == 1 { one } else { many };
            add(&mut text, format_args!("; {} {noun}", Grouped(*count)));
        }
        match self.settle_seconds {
            Some(seconds) => add(
                &mut text,
                format_args!("; without the newest {seconds} s, which may still be on their way"),
            ),
            None => add(&mut text, format_args!("; up to {}", self.to)),
        }
        Text::of(tone, verdict).and(Tone::Plain, text)
    }

    /// What the answer is about, and what of it was not looked at.
    fn looked_at(&self, page: &mut Page) {
        if let Some((from, to)) = self.known_from.zip(self.known_to) {
            let Sessions { judged, not_judged, not_counted } = self.sessions;
            let mut text = format!(
                "Looked at: {from} to {to}; the counts of {} ended connections",
                Grouped(judged)
            );
            if not_judged > 0 {
                add(
                    &mut text,
                    format_args!(
                        ", not those of {} more, which ended a moment ago, began in a day that is gone, or carried other symbols too",
                        Grouped(not_judged)
                    ),
                );
            }
            if not_counted > 0 {
                add(
                    &mut text,
                    format_args!(
                        "; {} stand or were ended by a kill, and have no count",
                        Grouped(not_counted)
                    ),
                );
            }
            page.line(text);
        }
        if !self.without_rows.is_empty() {
            let named: Vec<&str> =
                self.without_rows.iter().take(NAMED_MAX).map(String::as_str).collect();
            let mut text = format!("Without a trade in this time: {}", named.join(", "));
            match self.without_rows.len().saturating_sub(NAMED_MAX) {
                0 => {}
                more => add(&mut text, format_args!(" and {more} more")),
            }
            page.line(text);
        }
    }
}

fn add(text: &mut String, more: fmt::Arguments<'_>) {
    let written = text.write_fmt(more);
    debug_assert!(written.is_ok(), "a string takes everything");
}

/// What is looked at first comes first: a narrow terminal shows the rest in a second line.
fn table(symbols: &[SymbolReport]) -> Table {
    const COLUMNS: [(&str, Side); 11] = [
        ("exchange", Side::Left),
        ("symbol", Side::Left),
        ("rows", Side::Right),
        ("missing", Side::Right),
        ("twice", Side::Right),
        ("compared", Side::Right),
        ("status", Side::Left),
        ("first id", Side::Right),
        ("last id", Side::Right),
        ("from", Side::Left),
        ("to", Side::Left),
    ];
    let is_compared = symbols.iter().any(|it| it.minutes_asked > 0);
    let columns = COLUMNS.into_iter().filter(|(head, _)| is_compared || *head != "compared");
    let mut table = Table::new(&columns.collect::<Vec<_>>());
    let short = |time: Option<Timestamp>| {
        time.map_or_else(|| "-".to_owned(), |at| at.to_string().chars().take(19).collect())
    };
    let id = |id: Option<u64>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let fault = |count: u64| {
        Text::of(if count > 0 { Tone::Bad } else { Tone::Plain }, Grouped(count).to_string())
    };
    for it in symbols {
        let status = if it.complete {
            Text::of(Tone::Good, "complete")
        } else {
            Text::of(Tone::Bad, "NOT COMPLETE")
        };
        let compared = format!("{} of {} min", it.minutes_compared, it.minutes_asked);
        let first = [
            it.exchange.as_str().into(),
            it.symbol.as_str().into(),
            Grouped(it.rows).to_string().into(),
            fault(it.missing.lost()),
            fault(it.duplicates),
        ];
        let last = [
            status,
            id(it.first_id).into(),
            id(it.last_id).into(),
            short(it.from).into(),
            short(it.to).into(),
        ];
        let compared = is_compared.then(|| Text::from(compared));
        table.row(first.into_iter().chain(compared).chain(last));
    }
    table
}
