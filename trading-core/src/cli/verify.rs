//! `verify`

use clap::Args;

use super::DatabaseArgs;
use crate::domain::{SymbolRef, When};

/// `verify`
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// Which database and spool.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Only these exchanges
    #[arg(help = super::exchanges_help("Only these exchanges"), long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    #[arg(value_parser = super::exchange_name(), ignore_case = true, hide_possible_values = true)]
    pub exchange: Vec<String>,
    /// Only these symbols, as BTCUSDT or BTC-USDT; binance:BTCUSDT: that one of that exchange
    #[arg(long, value_name = "S", num_args = 1.., value_delimiter = ',')]
    pub symbol: Vec<SymbolRef>,
    /// From this exchange time on: 2026-01-31T12:00:00Z, 2026-01-31, or an age as 2h [default: the first stored trade]
    #[arg(long, value_name = "T")]
    pub from: Option<When>,
    /// Up to this exchange time, excluded [default: now, or a minute ago while somebody records]
    ///
    /// While somebody records, trades of the last minute may still be on their way to the database.
    #[arg(long, value_name = "T")]
    pub to: Option<When>,
    /// Compare whole minutes with the exchanges' own candles too: trades, where they tell them, and volume
    ///
    /// With --from all minutes from there on, as far back as the exchanges tell; else the newest ones.
    #[arg(long)]
    pub against_exchange: bool,
    /// How many of the newest minutes --against-exchange compares
    #[arg(
        long,
        value_name = "N",
        default_value_t = 60,
        requires = "against_exchange",
        conflicts_with = "from"
    )]
    pub minutes: u32,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}
