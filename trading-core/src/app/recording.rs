//! `trading-core db recording`: whether somebody records, by what is stored and spooled.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{DatabaseUrl, Settings};
use crate::domain::Timestamp;
use crate::store::embedded::{Options, command};
use crate::store::journal::{Standing, standing};
use crate::store::postgres::{Server, Session};
use crate::store::{said, spool};
use sqlx::Connection as _;

/// The server's time for the question.
const STATEMENT_MAX: Duration = Duration::from_secs(5);

/// Where what comes in goes.
#[derive(Debug)]
pub enum Recording {
    /// Into the database.
    Stored(Standing),
    /// To the spool.
    Spooled {
        /// How long ago it was written.
        age: Duration,
        /// Why nothing is stored.
        away: String,
    },
    /// Nowhere: nobody records.
    Nothing {
        /// By what that is known.
        why: String,
    },
}

/// What was found, and where.
#[derive(Debug)]
pub struct RecordingStatus {
    /// Where what comes in goes.
    pub recording: Recording,
    /// Whether that is the simulated market's.
    pub simulated: bool,
}

/// Whether somebody records: what came in within this time is stored, or at least spooled. Nothing is started or changed.
pub async fn recording(
    settings: &Settings,
    within: Duration,
    pg_bin: Option<PathBuf>,
) -> RecordingStatus {
    let found = examine(settings, within, pg_bin.clone()).await;
    // A recorder of the simulated market is healthy too, for a check that does not know what is recorded.
    if matches!(found, Recording::Nothing { .. })
        && is_only_simulated(settings, pg_bin.clone()).await
    {
        let mut settings = settings.clone();
        settings.database.simulated = true;
        let recording = examine(&settings, within, pg_bin).await;
        return RecordingStatus { recording, simulated: true };
    }
    RecordingStatus { recording: found, simulated: settings.database.simulated }
}

/// Whether the database of the simulated market is there, and that of the real exchanges, which was asked for, is not.
async fn is_only_simulated(settings: &Settings, pg_bin: Option<PathBuf>) -> bool {
    if settings.database.url != DatabaseUrl::Embedded || settings.database.simulated {
        return false;
    }
    let options = Options::new(&settings.database, pg_bin);
    let made = (command::is_made(&options).await, command::is_made(&options.other()).await);
    matches!(made, (Ok(false), Ok(true)))
}

async fn examine(settings: &Settings, within: Duration, pg_bin: Option<PathBuf>) -> Recording {
    let away = match ask(settings, pg_bin).await {
        Ok(Some(standing)) if standing.stored_until() <= within => {
            return Recording::Stored(standing);
        }
        Ok(Some(standing)) => {
            format!("nothing that came in the last {} s is stored", standing.stored_until_seconds)
        }
        Ok(None) => "no connection to an exchange is open".to_owned(),
        Err(error) => error,
    };
    let spooled =
        spool::folder(&settings.spool, &settings.database).and_then(|dir| spooled_before(&dir));
    match spooled {
        Ok(Some(age)) if age <= within => Recording::Spooled { age, away },
        Ok(_) => Recording::Nothing { why: away },
        Err(error) => Recording::Nothing { why: format!("{away}; {error}") },
    }
}

fn spooled_before(dir: &Path) -> Result<Option<Duration>, spool::SpoolError> {
    let written = spool::written_at(dir)?;
    // A clock that was set back meanwhile makes it no older than now.
    Ok(written.map(|at| Timestamp::now().since(at)))
}

/// Asks the database, which is not started for it.
async fn ask(settings: &Settings, pg_bin: Option<PathBuf>) -> Result<Option<Standing>, String> {
    let server: Server = match &settings.database.url {
        DatabaseUrl::Embedded => {
            let options = Options::new(&settings.database, pg_bin);
            let status = command::status(&options).await.map_err(|error| error.to_string())?;
            let running = status.server.ok_or("the embedded database does not run")?;
            running.connect_options().into()
        }
        DatabaseUrl::Server(text) => Server::from_url(text).map_err(|error| error.to_string())?,
    };
    let session = Session { name: "trading-core recording", statement_max: Some(STATEMENT_MAX) };
    let away = |error: sqlx::Error| format!("the database does not answer: {}", said(&error));
    let mut connection = server.connect(session).await.map_err(away)?;
    let standing = standing(&mut connection).await.map_err(away);
    // The answer is there already.
    drop(connection.close().await);
    standing
}
