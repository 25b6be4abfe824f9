//! A settings file to begin with: every setting with its default and its reason, and all of them commented out, so that
//! a default that changes in a later version changes here too until somebody wants it otherwise.

use std::fs::{OpenOptions, create_dir_all};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::DEFAULTS;

const HEAD: &str = "\
# The settings of trading-core. Every setting is here with its default, commented out: take the # away before what is to
# be otherwise, and before its [section] where that has one.
#
# Later layers win: this file, then the environment (DATABASE_URL, and TRADING_CORE__SECTION__KEY, for example
# TRADING_CORE__BATCH__MAX_SIZE=1000 or TRADING_CORE__EXCHANGES__BINANCE__SYMBOLS=\"BTCUSDT,ETHUSDT\"), then flags.
# Durations are written as \"500ms\", \"5s\", \"24h\", \"90d\". `trading-core config check` says everything that is
# wrong at once; `trading-core config show` prints what applies and where each value came from.
";

/// Why no settings file was written.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Something is there.
    #[error("{} is there already, and is left as it is", path.display())]
    IsThere {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        error: io::Error,
    },
}

/// The text of a new settings file.
#[must_use]
pub fn starter() -> String {
    let body = DEFAULTS.split_once("\n\n").map_or(DEFAULTS, |(_, body)| body);
    let mut text = format!("{HEAD}\n");
    for line in body.lines() {
        // A section of a strategy that is there names it: then those that are not named do not run.
        let is_kept = line.is_empty()
            || line.starts_with('#')
            || (line.starts_with('[') && !line.starts_with("[paper.strategies."));
        if !is_kept {
            text.push('#');
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Writes a new settings file, and the folders that lead to it.
///
/// # Errors
///
/// When something is there, or it cannot be written. Half a file is never left.
pub fn write_starter(path: &Path) -> Result<(), InitError> {
    let failed = |error: io::Error| InitError::Write { path: path.to_owned(), error };
    if path.symlink_metadata().is_ok() {
        return Err(InitError::IsThere { path: path.to_owned() });
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        create_dir_all(folder).map_err(failed)?;
    }
    let opened = OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => InitError::IsThere { path: path.to_owned() },
        _ => failed(error),
    })?;
    let written = file.write_all(starter().as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|error| {
        drop(std::fs::remove_file(path));
        failed(error)
    })
}
