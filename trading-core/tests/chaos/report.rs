//! What is said: problems as they are found, a line for each round, a table of all rounds.

use std::fmt::Write as _;
use std::time::Duration;

/// Problems that are told; the rest is counted.
const TOLD: usize = 40;

/// What is wrong: the first of them, and how many more.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    told: Vec<String>,
    more: usize,
}

impl Problems {
    pub(crate) fn add(&mut self, problem: String) {
        if self.told.len() < TOLD {
            self.told.push(problem);
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Those that are told.
    pub(crate) fn told(&self) -> &[String] {
        &self.told
    }

    pub(crate) fn print(&self) {
        for problem in &self.told {
            println!("  PROBLEM {problem}");
        }
        if self.more > 0 {
            println!("  and {} more", self.more);
        }
    }
}

/// What came of a round.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) round: u64,
    pub(crate) server: &'static str,
    pub(crate) faults: String,
    /// Rows that it added.
    pub(crate) ticks: usize,
    /// Rows of `tick_gaps` that it added, by status.
    pub(crate) repaired: usize,
    pub(crate) not_a_loss: usize,
    pub(crate) unrecoverable: usize,
    /// Of these: all is stored, which nobody could know.
    pub(crate) needless: usize,
    /// The most that was seen in the spool, in bytes.
    pub(crate) spooled: u64,
    pub(crate) kills: u64,
    /// The most memory of any process, in bytes.
    pub(crate) peak: u64,
    pub(crate) took: Duration,
    pub(crate) passed: bool,
}

const HEAD: &str = "\
| round | database | faults | ticks | gaps opened | repaired | not a loss | unrecoverable | (stored) | spool peak | kills | memory peak | seconds | result |
| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |";

/// All rounds as a Markdown table.
pub(crate) fn table(rows: &[Row]) -> String {
    rows.iter().fold(HEAD.to_owned(), |mut text, row| {
        write!(text, "\n{}", row.line()).unwrap();
        text
    })
}

impl Row {
    /// Its line of the table.
    pub(crate) fn line(&self) -> String {
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} KiB | {} | {:.1} MiB | {} | {} |",
            self.round,
            self.server,
            self.faults,
            self.ticks,
            self.repaired + self.not_a_loss + self.unrecoverable,
            self.repaired,
            self.not_a_loss,
            self.unrecoverable,
            self.needless,
            self.spooled / 1024,
            self.kills,
            f64::from(u32::try_from(self.peak / 1024).unwrap()) / 1024.0,
            self.took.as_secs(),
            if self.passed { "passed" } else { "FAILED" }
        )
    }
}
