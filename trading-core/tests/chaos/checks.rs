//! Everything that must hold after a round, once all recorders have stopped.

use std::path::PathBuf;

use serde_json::Value;
use sqlx::PgPool;
use trading_core::domain::Timestamp;

use crate::report::{Problems, Row};
use crate::support::process::command;
use crate::world::World;
use crate::{logs, spool, table};

/// The most memory that a recorder may use, through any fault.
const MEMORY_MAX: u64 = 96 << 20;

/// What ran in the round.
#[derive(Debug)]
pub(crate) struct Ran<'a> {
    /// One of each start.
    pub(crate) logs: &'a [PathBuf],
    /// Those whose recorder was stopped in order, with everything stored.
    pub(crate) orderly: &'a [PathBuf],
    /// Whether the database, or the way to it, was broken.
    pub(crate) is_disturbed: bool,
    /// Whether clocks were set.
    pub(crate) sets_clocks: bool,
    /// Of a recorder.
    pub(crate) settings: Vec<(String, String)>,
}

/// Checks the table, the spool, the logs, the memory and the program's own verdict; fills in the round's counts.
pub(crate) async fn all(
    world: &mut World,
    pool: &PgPool,
    ran: &Ran<'_>,
    row: &mut Row,
    problems: &mut Problems,
) -> sqlx::Result<()> {
    let stored = table::stored(pool, &world.market, problems).await?;
    let gaps = table::gaps(pool).await?;
    table::check(&world.market, &stored, &gaps, problems);

    let left = spool::segments(world.spool());
    if left > 0 {
        problems.add(format!("{left} files are left in the spool"));
    }
    for file in spool::damaged(world.spool()) {
        problems.add(format!("the spool lost something: {}", file.display()));
    }
    for log in ran.logs {
        logs::check(log, ran.is_disturbed, ran.sets_clocks, problems);
    }
    for log in ran.orderly {
        logs::check_ledger(log, problems);
    }
    if row.peak > MEMORY_MAX {
        problems.add(format!("a recorder used {} bytes of memory", row.peak));
    }
    let count = |status: &str| gaps.iter().filter(|gap| gap.status == status).count();
    let rows = stored.values().map(Vec::len).sum();
    verify(&ran.settings, rows, count("unrecoverable") > 0, problems);
    let needless = table::needless(&world.market, &stored, &gaps);
    let counts = [rows, count("repaired"), count("not_a_loss"), count("unrecoverable"), needless];
    let before = std::mem::replace(&mut world.counts, counts);
    // A repaired row may be opened again, and found to be another's.
    let added = |which: usize| counts[which].saturating_sub(before[which]);
    row.ticks = added(0);
    row.repaired = added(1);
    row.not_a_loss = added(2);
    row.unrecoverable = added(3);
    row.needless = added(4);
    Ok(())
}

/// What the program itself says of the table: the same rows, and complete but for what an exchange no longer has.
fn verify(settings: &[(String, String)], rows: usize, is_lossy: bool, problems: &mut Problems) {
    // Nothing is on its way any more: up to now.
    let now = Timestamp::now().to_string();
    let output = command()
        .args(["verify", "--json", "--to", &now])
        .envs(settings.iter().cloned())
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let findings = report["findings"].as_array().map_or(&[][..], Vec::as_slice);
    let foreign = findings
        .iter()
        .find(|finding| finding["exchange"].as_str().is_none_or(table::reaches_back));
    let expected = if is_lossy { 2 } else { 0 };
    if output.status.code() == Some(expected) && report["rows"] == rows && foreign.is_none() {
        return;
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    problems.add(format!(
        "verify ended with {}, not {expected}; it read {} of {rows} rows; findings: {:?}\n{said}",
        output.status,
        report["rows"],
        foreign.map_or(findings, std::slice::from_ref)
    ));
}
