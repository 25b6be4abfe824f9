//! The arguments of `backfill`.

use clap::Args;

use super::DatabaseArgs;
use crate::domain::When;

/// `backfill`
#[derive(Debug, Clone, Args)]
pub struct BackfillArgs {
    /// Which database and spool.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Only these exchanges
    #[arg(help = super::exchanges_help("Only these exchanges"), long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    #[arg(value_parser = super::exchange_name(), ignore_case = true, hide_possible_values = true)]
    pub exchange: Vec<String>,
    /// Only these symbols, as BTCUSDT or BTC-USDT; binance:BTCUSDT: that one of that exchange
    #[arg(long, value_name = "S", num_args = 1.., value_delimiter = ',')]
    pub symbol: Vec<String>,
    /// Load everything from this moment on, and ask again for what was given up there
    ///
    /// 2026-01-31T12:00:00Z, 2026-01-31 (its first moment in UTC), or an age as 2h. Whatever is stored already stays as
    /// it is. Without it the open gaps are repaired, of whatever age.
    #[arg(long, value_name = "T")]
    pub from: Option<When>,
    /// Load up to this moment [default: now]
    #[arg(long, value_name = "T", requires = "from")]
    pub to: Option<When>,
    /// Read the frames again that could not be read, and nothing else
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub quarantined: bool,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}
