//! The spool of the settings, opened in one way by what records and by what drains.

use tracing::{info, warn};

use super::start_error::{StartError, spool_id};
use crate::config::Settings;
use crate::domain::Tick;
use crate::store::spool::{self, Found, Spool, SpoolNames};

/// Opens the spool for the batches of these names, and logs what earlier runs left in it. With
/// `salvage` what can be read of damaged files is drained too.
pub(super) async fn open_spool(
    settings: &Settings,
    names: SpoolNames,
    original: Option<&str>,
    salvage: bool,
) -> Result<Spool<Tick>, StartError> {
    let dir = spool::folder(&settings.spool, &settings.database)?;
    let max_bytes = settings.spool.max_bytes;
    let (spool, found) = match salvage {
        false => Spool::open(dir, max_bytes, names).await?,
        true => Spool::salvage(dir, max_bytes, names).await?,
    };
    let Found { backlog, foreign, losses, .. } = found;
    for foreign in foreign {
        let (folder, name) = (foreign.folder.display(), foreign.database.escape_debug());
        let whose = if original == Some(&foreign.database) {
            "the database that this one is a copy of"
        } else {
            "another database"
        };
        let id = spool_id(&foreign.database).escape_debug();
        warn!(
            "Left alone: {folder} in the spool waits for {whose} ({name}); if that one is gone for good, \
             `trading-core spool drain --adopt '{id}'` stores it in this one"
        );
    }
    for skipped in &losses.skipped {
        warn!("In the spool {skipped}");
    }
    if backlog.batches > 0 {
        info!(
            "Found {} batches ({} ticks) of an earlier run in the spool; storing them",
            backlog.batches, backlog.ticks
        );
    }
    Ok(spool)
}
