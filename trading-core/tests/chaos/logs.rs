//! What the recorders logged: no panic, no error that no fault explains, and a ledger that adds up.

use std::fs::read_to_string;
use std::path::Path;

use crate::report::Problems;

/// Lines of a log that are shown when a round fails.
const TAIL: usize = 30;
/// Errors that a missing or broken database explains.
const DATABASE: [&str; 5] =
    ["Store circuit OPEN", "Store away", "database", "ticks are in the spool", "spool is full"];

/// Looks for panics and for errors without a cause.
pub(crate) fn check(
    log: &Path,
    database_faults: bool,
    clock_faults: bool,
    problems: &mut Problems,
) {
    let text = read_to_string(log).unwrap();
    let shown = log.display();
    for line in text.lines() {
        let is_error = line.split_whitespace().nth(1) == Some("ERROR");
        let is_explained = database_faults && DATABASE.iter().any(|part| line.contains(part))
            || clock_faults && line.contains("clock");
        if line.contains("panicked") || line.contains('≠') || (is_error && !is_explained) {
            problems.add(format!("{shown}: {line}"));
        }
    }
}

/// The last line of an orderly end: what was received is accounted for, and nothing is on its way.
pub(crate) fn check_ledger(log: &Path, problems: &mut Problems) {
    let text = read_to_string(log).unwrap();
    let ledger = text.lines().rfind(|line| line.contains("Ledger: received"));
    let is_whole =
        |ledger: &str| ledger.contains(" = ") && ledger.trim_end().ends_with("in flight 0");
    // Who is stopped before it has begun has none.
    let is_early = text.contains("stopped before anything was recorded");
    if !ledger.map_or(is_early, is_whole) {
        problems.add(format!(
            "{}: the ledger of an orderly end: {}",
            log.display(),
            ledger.unwrap_or("there is none")
        ));
    }
}

/// Whether nothing was said yet.
pub(crate) fn is_empty(log: &Path) -> bool {
    read_to_string(log).is_ok_and(|text| text.is_empty())
}

/// The end of a log.
pub(crate) fn tail(log: &Path) -> String {
    let text = read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}
