//! The arguments of `trading-core spool`.

use clap::Subcommand;

/// `spool`
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
    },
    /// Store what waits, except what a running recorder holds and drains itself
    Drain,
}
