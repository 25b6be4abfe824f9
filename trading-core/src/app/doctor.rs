//! `trading-core doctor`: the preflight, on simulated exchanges where `live --simulate` is meant.

use std::path::PathBuf;

use super::stand_in::StandIn;
use super::start_error::StartError;
use crate::config::Settings;
use crate::doctor::{self, Diagnosis};

/// Examines everything that `live` needs with these settings. `sources`: which file they come from, and what else.
///
/// # Errors
///
/// When the simulated exchanges cannot be served; what is wrong is in the diagnosis.
pub async fn doctor(
    settings: &Settings,
    sources: &str,
    pg_bin: Option<PathBuf>,
) -> Result<Diagnosis, StartError> {
    if !settings.database.simulated {
        return Ok(doctor::examine(settings, sources, pg_bin).await);
    }
    // The exchanges that `live --simulate` records run inside this process too.
    let (settings, stand_in) = StandIn::start(settings, None, None).await?;
    let diagnosis = doctor::examine(&settings, sources, pg_bin).await;
    stand_in.end().await;
    Ok(diagnosis)
}
