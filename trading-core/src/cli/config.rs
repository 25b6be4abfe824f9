//! The arguments of `trading-core config`.

use std::path::PathBuf;

use clap::{Subcommand, ValueHint};

use super::EXIT_CODES;

/// `config`
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Say everything that is wrong with the settings, at once
    #[command(after_long_help = EXIT_CODES)]
    Check {
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the effective settings and where each came from; passwords are masked
    #[command(after_long_help = EXIT_CODES)]
    Show {
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a settings file with every setting in it, commented out
    ///
    /// A file that is there is left as it is.
    #[command(after_long_help = EXIT_CODES)]
    Init {
        /// Where [default: ~/.config/trading-core/trading-core.toml]
        #[arg(value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
}
