//! Which database and spool a command means.

use clap::Args;

/// Which database and spool a command means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub struct PlaceArgs {
    /// On the database and spool of the simulated market, which `live --simulate` records into
    #[arg(long, alias = "simulate", global = true)]
    pub simulated: bool,
}
