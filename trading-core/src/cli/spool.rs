//! The arguments of `trading-core spool`.

use clap::{Args, Subcommand};

use super::DatabaseArgs;

/// `spool`
#[derive(Debug, Clone, Args)]
pub struct SpoolArgs {
    /// Which spool.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// What to do with it.
    #[command(subcommand)]
    pub command: SpoolCommand,
}

/// What to do with the spool.
#[derive(Debug, Clone, Subcommand)]
pub enum SpoolCommand {
    /// Say what waits in it, and who uses it
    Status {
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the ticks that wait, the oldest first
    ///
    /// Columns: exchange, symbol, trade id, time, side, price, quantity.
    Inspect {
        /// Answer in JSON, an object a line
        #[arg(long)]
        json: bool,
        /// Print no more ticks than this
        #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        limit: u32,
        /// Print instead what can be read of the files that were set aside as damaged
        #[arg(long)]
        damaged: bool,
    },
    /// Store what waits, except what a running recorder holds and drains itself
    Drain {
        /// Store also what can be read of the files that were set aside as damaged, and of those that no longer say for
        /// which database they wait; the files stay
        #[arg(long)]
        damaged: bool,
        /// Store what waits for another database too, named by its id: one that is gone for good, or restored as this one
        #[arg(long, value_name = "ID")]
        adopt: Option<String>,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
}
