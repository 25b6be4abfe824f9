//! Which database a command reads: that of the real exchanges, or with `--simulated` that of the simulated market. Reading is
//! no reason to make one; where only the other one is there, the error says what to type.

use std::path::PathBuf;

use super::start_error::{NothingRecorded, StartError};
use crate::config::{DatabaseUrl, Settings};
use crate::store::embedded::{Options, command};

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
) -> Result<(), StartError> {
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
) -> Result<(), StartError> {
    match must_be_there(settings, pg_bin, command).await {
        Err(StartError::NothingRecorded(NothingRecorded::Here { .. })) => Ok(()),
        answer => answer,
    }
}
