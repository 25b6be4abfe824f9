//! Where a command looks: at the database of the real exchanges, or with `--simulated` at that of the simulated market. To
//! look for one is no reason to make it; where only the other one is there, the answer says what to type.

use std::path::PathBuf;

use trading_core::cli::ExitCode;
use trading_core::config::{DatabaseUrl, Settings};
use trading_core::store::embedded::{EmbeddedError, Options, command};

use super::{Environment, failed, pg_bin};

/// There is no database yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum NothingRecorded {
    /// Neither of the two, or not the one that was asked for and nobody knows of the other.
    #[error("nothing is recorded in {} yet: `trading-core {}` begins", folder.display(), begins(*simulated))]
    Here { folder: PathBuf, simulated: bool },
    /// Only that of the simulated market.
    #[error(
        "nothing of real exchanges is recorded in {} yet: `trading-core live` begins. There is the database of the \
         simulated market:\n  trading-core {command} --simulated",
        folder.display()
    )]
    OnlySimulated { folder: PathBuf, command: &'static str },
    /// Only that of the real exchanges.
    #[error(
        "nothing of a simulated market is recorded in {} yet: `trading-core live --simulate` begins. There is the other \
         database, in {}:\n  trading-core {command}",
        folder.display(), other.display()
    )]
    OnlyReal { folder: PathBuf, other: PathBuf, command: &'static str },
}

const fn begins(simulated: bool) -> &'static str {
    if simulated { "live --simulate" } else { "live" }
}

/// Why a command has nothing to look at.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    #[error(transparent)]
    Nothing(#[from] NothingRecorded),
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
}

/// Whether the database is there for this command, which is named as it is typed (`db psql`); another server's is.
pub(super) async fn must_be_there(
    settings: &Settings,
    environment: &Environment,
    command: &'static str,
) -> Result<(), ExitCode> {
    look(settings, environment, command).await.map_err(|error| failed(&error))
}

async fn look(
    settings: &Settings,
    environment: &Environment,
    command: &'static str,
) -> Result<(), PlaceError> {
    if settings.database.url != DatabaseUrl::Embedded {
        return Ok(());
    }
    let options = Options::new(&settings.database, pg_bin(environment));
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

/// The same where a database may be made, as long as it is not the other one that was meant.
pub(super) async fn must_be_meant(
    settings: &Settings,
    environment: &Environment,
    command: &'static str,
) -> Result<(), ExitCode> {
    match look(settings, environment, command).await {
        Err(PlaceError::Nothing(NothingRecorded::Here { .. })) | Ok(()) => Ok(()),
        Err(error) => Err(failed(&error)),
    }
}
