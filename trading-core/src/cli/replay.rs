//! The arguments of `replay`.

use clap::Args;

use super::DatabaseArgs;
use crate::domain::{SymbolRef, When};
use crate::paper::Speed;

/// `replay`
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// Which database and spool.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Run the strategies of the settings, each with a fresh account
    ///
    /// Nothing of the accounts of `live --paper-trading` is read or changed.
    #[arg(long, required = true)]
    pub paper_trading: bool,
    /// From this moment on: 2026-01-31T12:00:00Z, 2026-01-31, or an age as 2h [default: the first stored tick]
    #[arg(long, value_name = "T")]
    pub from: Option<When>,
    /// Up to this moment [default: now]
    #[arg(long, value_name = "T")]
    pub to: Option<When>,
    /// How fast: max, or times the speed at which the ticks arrived, as 1x or 10x
    #[arg(long, value_name = "SPEED", default_value = "max")]
    pub speed: Speed,
    /// Only strategies on these exchanges
    #[arg(help = super::exchanges_help("Only strategies on these exchanges"), long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    #[arg(value_parser = super::exchange_name(), ignore_case = true, hide_possible_values = true)]
    pub exchange: Vec<String>,
    /// Only these symbols, as BTCUSDT or BTC-USDT; binance:BTCUSDT: that one of that exchange
    #[arg(long, value_name = "S", num_args = 1.., value_delimiter = ',')]
    pub symbol: Vec<SymbolRef>,
    /// Only what arrived live, as the strategies saw it then; without ticks that were fetched later
    #[arg(long)]
    pub as_received: bool,
    /// Every fill too: as CSV before the table, or in the JSON
    #[arg(long)]
    pub fills: bool,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}
