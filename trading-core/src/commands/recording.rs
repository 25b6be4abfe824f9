//! `trading-core db recording`

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use sqlx::Connection as _;
use trading_core::cli::{ExitCode, RecordingArgs};
use trading_core::config::{DatabaseUrl, Settings};
use trading_core::domain::Timestamp;
use trading_core::output;
use trading_core::store::embedded::{Options, command};
use trading_core::store::journal::{Standing, standing};
use trading_core::store::postgres::{Server, Session};
use trading_core::store::{said, spool};

use super::{Environment, pg_bin};

/// The server's time for the question.
const STATEMENT_MAX: Duration = Duration::from_secs(5);

/// Where what comes in goes.
#[derive(Debug)]
enum Recording {
    Stored(Standing),
    Spooled { age: Duration, away: String },
    Nothing { why: String },
}

/// `db recording`
pub(super) async fn recording(
    settings: &Settings,
    wanted: &RecordingArgs,
    environment: &Environment,
) -> ExitCode {
    let mut found = look(settings, wanted.within, environment).await;
    let mut simulated = settings.database.simulated;
    // A recorder of the simulated market is healthy too, for a check that does not know what is recorded.
    if matches!(found, Recording::Nothing { .. }) && is_only_simulated(settings, environment).await
    {
        let mut settings = settings.clone();
        (settings.database.simulated, simulated) = (true, true);
        found = look(&settings, wanted.within, environment).await;
    }
    let printed = if wanted.json {
        let mut answer = found.json();
        if let Some(parts) = answer.as_object_mut() {
            parts.insert("simulated".to_owned(), simulated.into());
        }
        output::result(&format!("{answer:#}"))
    } else if simulated && !settings.database.simulated {
        output::text(&format!("{found} (the simulated market: no other database is made yet)"))
    } else {
        output::text(&found.to_string())
    };
    match (printed, found) {
        (ExitCode::Clean, Recording::Nothing { .. }) => ExitCode::Found,
        (code, _) => code,
    }
}

/// Whether the database of the simulated market is there, and that of the real exchanges, which was asked for, is not.
async fn is_only_simulated(settings: &Settings, environment: &Environment) -> bool {
    if settings.database.url != DatabaseUrl::Embedded || settings.database.simulated {
        return false;
    }
    let options = Options::new(&settings.database, pg_bin(environment));
    let made = (command::is_made(&options).await, command::is_made(&options.other()).await);
    matches!(made, (Ok(false), Ok(true)))
}

async fn look(settings: &Settings, within: Duration, environment: &Environment) -> Recording {
    let away = match ask(settings, environment).await {
        Ok(Some(standing)) if standing.stored_until() <= within => {
            return Recording::Stored(standing);
        }
        Ok(Some(standing)) => {
            format!("nothing that came in the last {} s is stored", standing.stored_until_seconds)
        }
        Ok(None) => "no connection to an exchange stands".to_owned(),
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
    let age = |at: Timestamp| Timestamp::now().as_micros().saturating_sub(at.as_micros());
    // A clock that was set back meanwhile makes it no older than now.
    Ok(written.map(|at| Duration::from_micros(u64::try_from(age(at)).unwrap_or_default())))
}

/// Asks the database, which is not started for it.
async fn ask(settings: &Settings, environment: &Environment) -> Result<Option<Standing>, String> {
    let server: Server = match &settings.database.url {
        DatabaseUrl::Embedded => {
            let options = Options::new(&settings.database, pg_bin(environment));
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

impl Recording {
    fn json(&self) -> serde_json::Value {
        match self {
            Self::Stored(standing) => {
                json!({ "recording": true, "to": "database", "sessions": standing })
            }
            Self::Spooled { age, away } => json!({
                "recording": true, "to": "spool", "spool_written_seconds": age.as_secs(), "because": away,
            }),
            Self::Nothing { why } => json!({ "recording": false, "because": why }),
        }
    }
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored(Standing { connections, exchanges, stored_until_seconds }) => write!(
                f,
                "recording: {connections} connections to {}; what came before {stored_until_seconds} s ago is stored",
                exchanges.join(", ")
            ),
            Self::Spooled { age, away } => write!(
                f,
                "recording to disk: the spool was written {} s ago; {away}",
                age.as_secs()
            ),
            Self::Nothing { why } => write!(f, "not recording: {why}"),
        }
    }
}
