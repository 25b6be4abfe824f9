//! Which database and spool a command means.

use clap::Args;

/// Which database and spool a command means.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct DatabaseArgs {
    /// On the database and spool of the simulated market, which `live --simulate` records into
    #[arg(long, alias = "simulate", global = true)]
    pub simulated: bool,
    /// Which database: "embedded" or postgres://user@host/db
    ///
    /// Other users of the machine can see arguments: a URL with a password is better given in DATABASE_URL.
    #[arg(long, value_name = "URL", global = true)]
    pub database_url: Option<String>,
}
