//! Where a command looks: at the database of the real exchanges, or with `--simulated` at that of the simulated market. To
//! look for one is no reason to make it; where only the other one is there, the answer says what to type.

use std::path::PathBuf;

use crate::config::{DatabaseUrl, Settings};
use crate::store::embedded::{EmbeddedError, Options, command};

/// There is no database yet.
#[derive(Debug, thiserror::Error)]
pub enum NothingRecorded {
    /// Neither of the two, or not the one that was asked for and nobody knows of the other.
    #[error("nothing is recorded in {} yet: `trading-core {}` begins", folder.display(), begins(*simulated))]
    Here {
        /// Where it would be.
        folder: PathBuf,
        /// Which of the two.
        simulated: bool,
    },
    /// Only that of the simulated market.
    #[error(
        "nothing of real exchanges is recorded in {} yet: `trading-core live` begins. There is the database of the \
         simulated market:\n  trading-core {command} --simulated",
        folder.display()
    )]
    OnlySimulated {
        /// Where the other one would be.
        folder: PathBuf,
        /// As it is typed.
        command: &'static str,
    },
    /// Only that of the real exchanges.
    #[error(
        "nothing of a simulated market is recorded in {} yet: `trading-core live --simulate` begins. There is the other \
         database, in {}:\n  trading-core {command}",
        folder.display(), other.display()
    )]
    OnlyReal {
        /// Where that of the simulated market would be.
        folder: PathBuf,
        /// Where this one is.
        other: PathBuf,
        /// As it is typed.
        command: &'static str,
    },
}

const fn begins(simulated: bool) -> &'static str {
    if simulated { "live --simulate" } else { "live" }
}

/// Why a command has nothing to look at.
#[derive(Debug, thiserror::Error)]
pub enum NotThere {
    /// It is not made yet.
    #[error(transparent)]
    NothingRecorded(#[from] NothingRecorded),
    /// It cannot be found out.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
}

/// Refuses a command that needs a database where none is made yet; a server's is taken to be there. `command` is as it is
/// typed (`db psql`).
///
/// # Errors
///
/// When there is none, with what to type instead.
pub async fn must_be_there(
    settings: &Settings,
    pg_bin: Option<PathBuf>,
    command: &'static str,
) -> Result<(), NotThere> {
    if settings.database.url != DatabaseUrl::Embedded {
        return Ok(());
    }
    let options = Options::new(&settings.database, pg_bin);
    if command::is_made(&options).await? {
        return Ok(());
    }
    let (folder, simulated) = (options.folder()?, options.simulated);
    let other = options.other();
    // The other database may belong to another user, which is no problem of this command.
    let is_other_made = command::is_made(&other).await.unwrap_or(false);
    Err(match (is_other_made, simulated) {
        (false, _) => NothingRecorded::Here { folder, simulated },
        (true, false) => NothingRecorded::OnlySimulated { folder, command },
        (true, true) => NothingRecorded::OnlyReal { folder, other: other.folder()?, command },
    }
    .into())
}

/// The same for a command that may make a database, as long as the other one was not meant.
///
/// # Errors
///
/// When only the other one is there, with what to type for it.
pub(super) async fn must_be_meant(
    settings: &Settings,
    pg_bin: Option<PathBuf>,
    command: &'static str,
) -> Result<(), NotThere> {
    match must_be_there(settings, pg_bin, command).await {
        Err(NotThere::NothingRecorded(NothingRecorded::Here { .. })) => Ok(()),
        answer => answer,
    }
}
