//! `doctor`

use clap::Args;

use super::DatabaseArgs;

/// `doctor`
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Which database and spool.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Look at these exchanges and no others
    #[arg(help = super::exchanges_help("Look at these exchanges and no others"), long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    #[arg(value_parser = super::exchange_name(), ignore_case = true, hide_possible_values = true)]
    pub exchange: Vec<String>,
    /// Look for these symbols on every enabled exchange, as BTCUSDT or BTC-USDT; binance:BTCUSDT: there alone
    #[arg(long, value_name = "S", num_args = 1.., value_delimiter = ',')]
    pub symbol: Vec<String>,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}
