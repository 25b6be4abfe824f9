//! `trading-core db recording`: the answer as text or JSON.

use serde_json::{Value, json};
use trading_core::app::{self, Recording, RecordingStatus};
use trading_core::cli::{ExitCode, RecordingArgs};
use trading_core::config::Settings;
use trading_core::output;
use trading_core::store::journal::Standing;

use super::{Environment, pg_bin};

/// `db recording`
pub(super) async fn recording(
    settings: &Settings,
    wanted: &RecordingArgs,
    environment: &Environment,
) -> ExitCode {
    let found = app::recording(settings, wanted.within, pg_bin(environment)).await;
    let RecordingStatus { recording, simulated } = &found;
    let printed = if wanted.json {
        output::result(&format!("{:#}", json_of(&found)))
    } else if *simulated && !settings.database.simulated {
        let text = text_of(recording);
        output::text(&format!("{text} (the simulated market: no other database is made yet)"))
    } else {
        output::text(&text_of(recording))
    };
    match (printed, recording) {
        (ExitCode::Clean, Recording::Nothing { .. }) => ExitCode::Found,
        (code, _) => code,
    }
}

fn json_of(RecordingStatus { recording, simulated }: &RecordingStatus) -> Value {
    match recording {
        Recording::Stored(standing) => json!({
            "recording": true, "to": "database", "sessions": standing, "simulated": simulated,
        }),
        Recording::Spooled { age, away } => json!({
            "recording": true, "to": "spool", "spool_written_seconds": age.as_secs(), "because": away,
            "simulated": simulated,
        }),
        Recording::Nothing { why } => {
            json!({ "recording": false, "because": why, "simulated": simulated })
        }
    }
}

fn text_of(recording: &Recording) -> String {
    match recording {
        Recording::Stored(Standing { connections, exchanges, stored_until_seconds }) => format!(
            "recording: {connections} connections to {}; what came before {stored_until_seconds} s ago is stored",
            exchanges.join(", ")
        ),
        Recording::Spooled { age, away } => {
            format!("recording to disk: the spool was written {} s ago; {away}", age.as_secs())
        }
        Recording::Nothing { why } => format!("not recording: {why}"),
    }
}
