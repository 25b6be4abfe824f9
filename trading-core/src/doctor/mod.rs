//! The preflight: what would go wrong if `live` were started now, and what to do about it.
//!
//! Promised: nothing is changed, nothing is asked for longer than its deadline, and one thing that is broken does not
//! keep the others from being examined. Exchanges are asked beside each other, within their limits.
//!
//! Not promised: what only time shows, such as a disk that is slow under load.

mod clock;
mod database;
mod locks;
mod machine;
mod stored;
mod venue;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use rust_decimal::prelude::ToPrimitive as _;
use serde::Serialize;

use crate::config::Settings;
use crate::domain::count;
use crate::network::Network;
use crate::telemetry::{Page, Progress, Text, Tone, Total, Unit};

use stored::Load;

/// What looking at the database may take.
const DATABASE_MAX: Duration = Duration::from_secs(30);
/// What asking one exchange may take: one request a second for its symbols, at the slowest.
const VENUE_MAX: Duration = Duration::from_secs(90);
/// Columns of `warn`.
const LEVEL_WIDTH: usize = 4;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It will run, and this should be known.
    Warn,
    /// It would fail.
    Fail,
}

/// One thing that was examined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it belongs to: `database`, `disk`, an exchange's name.
    pub area: String,
    /// How it went.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do about it; `None` where nothing is to be done.
    pub remedy: Option<String>,
}

impl Check {
    fn ok(area: &str, found: impl Into<String>) -> Self {
        Self { area: area.to_owned(), level: Level::Ok, found: found.into(), remedy: None }
    }

    fn warn(area: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warn, remedy: Some(remedy.into()), ..Self::ok(area, found) }
    }

    fn fail(area: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Fail, remedy: Some(remedy.into()), ..Self::ok(area, found) }
    }
}

/// Everything that was examined.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnosis {
    /// Whether something would fail.
    pub would_fail: bool,
    /// Ticks a second that are to be expected, where that is known.
    pub rows_per_second: Option<f64>,
    /// Bytes a day that they take in the database.
    pub bytes_per_day: Option<u64>,
    /// The checks, in the order of a tick's way back: settings, machine, database, exchanges.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// The settings cannot be used: that is all there is to say. Each problem is one check.
    #[must_use]
    pub fn of_bad_settings(problems: impl IntoIterator<Item = String>) -> Self {
        let remedy = "`trading-core config check` says where each comes from";
        let checks = problems.into_iter().map(|it| Check::fail("settings", it, remedy)).collect();
        Self { would_fail: true, rows_per_second: None, bytes_per_day: None, checks }
    }

    /// As one JSON document.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!(self)
    }
}

impl Diagnosis {
    /// For people: a line for each check, what to do under it, and a verdict.
    #[must_use]
    pub fn page(&self) -> Page {
        let mut page = Page::default();
        let width = self.checks.iter().map(|check| check.area.len()).max().unwrap_or_default();
        // Two blanks on each side of the area.
        let hang = LEVEL_WIDTH + 2 + width + 2;
        for Check { area, level, found, remedy } in &self.checks {
            let (level, tone) = match level {
                Level::Ok => ("ok", Tone::Good),
                Level::Warn => ("warn", Tone::Notice),
                Level::Fail => ("FAIL", Tone::Bad),
            };
            let mut lines = found.lines();
            let first = lines.next().unwrap_or_default();
            let blanks = LEVEL_WIDTH - level.len() + 2;
            let head = format!("{:blanks$}{area:<width$}  {first}", "");
            page.hanging(hang, Text::of(tone, level).and(Tone::Plain, head));
            // A database's words begin no line.
            for line in lines {
                page.hanging(hang, format!("{:1$}{line}", "", LEVEL_WIDTH + 2));
            }
            if let Some(remedy) = remedy {
                page.hanging(hang + 4, format!("{:hang$}do: {remedy}", ""));
            }
        }
        let count = |level| self.checks.iter().filter(|check| check.level == level).count();
        let (fail, warn) = (count(Level::Fail), count(Level::Warn));
        let (verdict, tone) = match (self.would_fail, warn) {
            (true, _) => ("NOT READY", Tone::Bad),
            (false, 0) => ("READY", Tone::Good),
            (false, _) => ("READY", Tone::Notice),
        };
        let all = self.checks.len();
        let counts = format!(": {all} checks, {fail} would fail, {warn} to know of");
        page.line(Text::of(tone, verdict).and(Tone::Plain, counts));
        page
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.page().fmt(f)
    }
}

/// Looks at everything that `live` needs with these settings. `sources`: which file they come from, and what else.
/// `pg_bin`: where PostgreSQL's programs are (`PG_BIN`).
pub async fn examine(settings: &Settings, sources: &str, pg_bin: Option<PathBuf>) -> Diagnosis {
    let mut checks = vec![Check::ok("settings", format!("valid: {sources}"))];
    checks.push(machine::files(settings));
    let database = tokio::time::timeout(DATABASE_MAX, database::examine(settings, pg_bin)).await;
    let database =
        database.unwrap_or_else(|_elapsed| database::DatabaseFindings::silent(DATABASE_MAX));
    checks.extend(database.checks);

    // How much will come is asked of the exchanges only where the database does not show it.
    let is_stored = database.load.is_some();
    let venues = settings.exchanges.iter().filter(|venue| venue.enabled);
    let venues: Vec<_> = venues.collect();
    let total = venues.iter().map(|venue| venue.symbols.len()).sum::<usize>();
    let total = count(total);
    let progress =
        Progress::start("Asking the exchanges", Unit::Of("symbols"), Total::Known(total));
    let answers = match Network::new(&settings.network) {
        Ok(network) => {
            // As `live` does: simulated exchanges are not recorded as real ones.
            let network = match settings.database.simulated {
                true => network,
                false => network.without_simulators(),
            };
            let ask = |venue| venue::examine(venue, &network, !is_stored, VENUE_MAX, &progress);
            join_all(venues.into_iter().map(ask)).await
        }
        Err(error) => {
            checks.push(Check::fail("network", error.to_string(), "look at this machine's TLS"));
            Vec::new()
        }
    };
    progress.finish();

    let load = database.load.or_else(|| Load::sum(answers.iter().filter_map(|answer| answer.load)));
    checks.extend(machine::disks(settings, load, database.on_this_machine.as_deref()));
    checks.extend(machine::spool(settings).await);
    let clocks: Vec<_> =
        answers.iter().filter_map(|answer| answer.clock.clone()).chain(database.clock).collect();
    checks.extend(answers.into_iter().flat_map(|answer| answer.checks));
    checks.extend(clock::judge(&clocks));
    if settings.exchanges.iter().all(|venue| !venue.enabled) {
        let remedy = "set enabled = true for one of them";
        checks.push(Check::fail("exchanges", "none is enabled", remedy));
    }
    Diagnosis {
        would_fail: checks.iter().any(|check| check.level == Level::Fail),
        rows_per_second: load.and_then(|load| load.rows_per_second.to_f64()),
        bytes_per_day: load.map(Load::bytes_per_day),
        checks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnosis_is_a_line_for_each_check_and_a_verdict() {
        let checks = vec![
            Check::ok("settings", "valid"),
            Check::fail("binance", "BTCXYZ is not traded there", "take it out"),
        ];
        let diagnosis =
            Diagnosis { would_fail: true, rows_per_second: None, bytes_per_day: None, checks };
        let expected = "ok    settings  valid\nFAIL  binance   BTCXYZ is not traded there\n      \
                        \x20         do: take it out\nNOT READY: 2 checks, 1 would fail, 0 to know of";
        assert_eq!(diagnosis.to_string(), expected);
        let json = diagnosis.to_json();
        assert_eq!(
            (&json["would_fail"], &json["checks"][1]["level"]),
            (&true.into(), &"fail".into())
        );
    }

    #[test]
    fn settings_that_cannot_be_used_are_all_there_is_to_say() {
        let diagnosis = Diagnosis::of_bad_settings(["batch.max_size = 0".to_owned()]);
        assert!(diagnosis.would_fail);
        assert_eq!(diagnosis.checks.len(), 1);
    }
}
