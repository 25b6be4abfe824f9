//! `backfill`: what is asked for, and what came of it as a table or as JSON.

use serde_json::json;
use trading_core::app::{self, BackfillError, BackfillOptions, BackfillReport, FramesReport};
use trading_core::cli::{BackfillArgs, Cli, ExitCode};
use trading_core::domain::{GapStatus, TimeRange, Timestamp};
use trading_core::output;
use trading_core::store::postgres::gaps::ListedGap;
use trading_core::store::with_causes;
use trading_core::telemetry::{Grouped, Page, Side, Table, Text, Tone};

use super::{Environment, failed, pg_bin, with_settings};

/// A range that ends before it begins.
#[derive(Debug, thiserror::Error)]
#[error("--from {from} is not before --to {to}")]
struct EmptyRange {
    from: Timestamp,
    to: Timestamp,
}

/// `backfill`
pub(crate) fn backfill(cli: &Cli, arguments: &BackfillArgs, environment: &Environment) -> ExitCode {
    let now = Timestamp::now();
    let to = arguments.to.map_or(now, |to| to.instant(now)).min(now);
    let range = arguments.from.map(|from| TimeRange::new(from.instant(now), to));
    if let Some(TimeRange { from, to }) = range.filter(|range| range.from >= range.to) {
        output::complain(&EmptyRange { from, to });
        return ExitCode::Usage;
    }
    let options = BackfillOptions {
        range,
        only_symbols: !arguments.symbol.is_empty(),
        quarantined: arguments.quarantined,
        pg_bin: pg_bin(environment),
    };
    with_settings(cli, environment, async |settings| {
        answer(app::backfill(&settings, options).await, arguments)
    })
}

fn answer(result: Result<BackfillReport, BackfillError>, arguments: &BackfillArgs) -> ExitCode {
    match result {
        Ok(report) => {
            let lost = report.ledger.in_flight + report.ledger.dropped;
            let printed = if arguments.json {
                output::result(&as_json(&report))
            } else {
                output::page(&page(&report))
            };
            match printed {
                ExitCode::Clean if lost > 0 => ExitCode::Loss,
                ExitCode::Clean if !report.is_complete() => ExitCode::Found,
                code => code,
            }
        }
        Err(error) => failed(&error),
    }
}

fn as_json(report: &BackfillReport) -> String {
    let time = |time: &chrono::DateTime<chrono::Utc>| time.to_rfc3339();
    let gap = |gap: &ListedGap| {
        json!({
            "exchange": gap.exchange, "symbol": gap.symbol,
            "first_id": gap.first_id, "last_id": gap.last_id,
            "from": time(&gap.from_time), "to": time(&gap.to_time),
            "status": gap.status.as_str(), "note": gap.note,
        })
    };
    let gaps: Vec<_> = report.exchanges.iter().flat_map(|it| it.gaps.iter().map(gap)).collect();
    let ranges: Vec<_> = report
        .exchanges
        .iter()
        .flat_map(|it| &it.range)
        .map(|it| {
            json!({
                "exchange": it.instrument.exchange(), "symbol": it.instrument.symbol().as_str(),
                "ticks": it.ticks, "error": it.error.as_ref().map(ToString::to_string),
            })
        })
        .collect();
    let frames: Vec<_> = report
        .exchanges
        .iter()
        .filter_map(|it| {
            let FramesReport { read, unreadable, reason } = it.frames.as_ref()?;
            Some(json!({"exchange": it.exchange, "read": read, "unreadable": unreadable, "reason": reason}))
        })
        .collect();
    let ledger = report.ledger;
    let value = json!({
        "complete": report.is_complete(),
        "repaired": report.gaps(GapStatus::Repaired), "not_a_loss": report.gaps(GapStatus::NotALoss),
        "unrecoverable": report.gaps(GapStatus::Unrecoverable), "open": report.gaps(GapStatus::Open),
        "gaps": gaps, "ranges": ranges, "quarantined": frames,
        "ticks": {
            "received": ledger.received, "stored": ledger.stored,
            "duplicates": ledger.duplicates, "rejected": ledger.rejected,
        },
    });
    format!("{value:#}")
}

fn page(report: &BackfillReport) -> Page {
    let words = ("", Side::Words);
    let mut ranges = Table::new(&[("", Side::Left), ("", Side::Right), words]);
    let mut gaps = Table::new(&[("", Side::Left), ("", Side::Left), words]);
    for exchange in &report.exchanges {
        for symbol in &exchange.range {
            let ticks = Grouped(symbol.ticks).to_string();
            let what = match &symbol.error {
                None => Text::from("trades in the range"),
                Some(error) => Text::from("trades, ")
                    .and(Tone::Bad, "not all")
                    .and(Tone::Plain, format!(": {}", with_causes(error))),
            };
            ranges.row([symbol.instrument.to_string().into(), ticks.into(), what]);
        }
        if let Some(FramesReport { read, unreadable, reason }) = &exchange.frames {
            let what = format!("frames read, {} still cannot be", Grouped(*unreadable));
            let cells = [exchange.exchange.to_owned(), Grouped(*read).to_string(), what];
            ranges.row(cells.map(Text::from));
            if let Some(reason) = reason {
                ranges.row(["".into(), "".into(), format!("the first: {reason}").into()]);
            }
        }
        for gap in &exchange.gaps {
            let name = format!("{}:{}", gap.exchange, gap.symbol);
            let note = gap.note.as_ref().map_or_else(String::new, |note| format!(": {note}"));
            let tone = match gap.status {
                GapStatus::Unrecoverable => Tone::Bad,
                GapStatus::Open => Tone::Notice,
                GapStatus::Repaired | GapStatus::NotALoss => Tone::Good,
            };
            let what = format!("{}{note}", what(gap));
            gaps.row([name.into(), Text::of(tone, gap.status.as_str()), what.into()]);
        }
    }
    let mut page = Page::default();
    page.table(ranges);
    page.table(gaps);
    let ledger = report.ledger;
    page.line(format!(
        "gaps: {} repaired, {} no loss, {} unrecoverable, {} open; trades: {} stored, {} there already, {} refused",
        Grouped(report.gaps(GapStatus::Repaired)),
        Grouped(report.gaps(GapStatus::NotALoss)),
        Grouped(report.gaps(GapStatus::Unrecoverable)),
        Grouped(report.gaps(GapStatus::Open)),
        Grouped(ledger.stored),
        Grouped(ledger.duplicates),
        Grouped(ledger.rejected),
    ));
    page
}

fn what(gap: &ListedGap) -> String {
    match (&gap.first_id, &gap.last_id) {
        (Some(first), Some(last)) if first == last => format!("id {first}"),
        (Some(first), Some(last)) => format!("ids {first} to {last}"),
        _ => format!("from {} to {}", gap.from_time, gap.to_time),
    }
}
