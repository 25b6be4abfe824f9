//! `trading-core spool drain`: what dead recorders left in the spool, to the store, without recording anything.

use std::fmt;
use std::path::PathBuf;

use sqlx::postgres::PgPool;
use tracing::warn;

use super::database::Database;
use super::signals::StopSignals;
use super::spool::open_spool;
use super::start_error::{StartError, spool_id};
use crate::config::Settings;
use crate::domain::Tick;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::origin::{DatabaseName, database_name};
use crate::store::spool::{self, Losses, SlotStatus, Spool, SpoolError, SpoolNames};
use crate::store::{Store as _, StoreError, Written};
use crate::telemetry::{Progress, Total, Unit};

/// What became of the ticks in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drained {
    /// What became of those that were written.
    pub written: Written,
    /// What could not be read, and what was left alone.
    pub losses: Losses,
    /// Ticks that still wait, for another database or after a signal; those of a running recorder are not counted.
    pub left: u64,
    /// The spool.
    pub dir: PathBuf,
}

/// Why the spool could not be drained.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The database or the spool cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The spool failed.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Nothing waits for that database.
    #[error("nothing in the spool waits for database {id}; what waits is for: {waiting}")]
    NotThere {
        /// As it was asked for.
        id: String,
        /// What ids there are.
        waiting: String,
    },
    /// It waits for a database of the other kind of trades.
    #[error("what waits for {waiting} must not be mixed with the trades of this database ({held})")]
    Mixed {
        /// What names the database it waits for.
        waiting: String,
        /// What names this one.
        held: String,
    },
    /// The store failed.
    #[error("stopped with {left} ticks in the spool at {}", dir.display())]
    Store {
        /// Ticks that still wait.
        left: u64,
        /// Where.
        dir: PathBuf,
        /// The failure.
        #[source]
        error: StoreError<Tick>,
    },
}

impl Drained {
    /// Whether everything that could be stored is.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.left == 0 && self.losses.is_none()
    }
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Written { stored, duplicates, rejected } = self.written;
        write!(
            f,
            "{stored} ticks stored, {duplicates} were there already, {rejected} set aside as refused"
        )?;
        if !self.losses.is_none() {
            write!(f, "; {}", self.losses)?;
        }
        match self.left {
            0 => write!(f, "; nothing is left to drain in {}", self.dir.display()),
            left => write!(f, "; {left} ticks are left in {}", self.dir.display()),
        }
    }
}

/// What is stored beside what waits for the database of the settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct DrainOptions<'a> {
    /// What can be read of the files that are damaged, and of those that no longer say for which database they wait.
    pub damaged: bool,
    /// What waits for the database of this id, which is gone for good or was restored as this one.
    pub adopted: Option<&'a str>,
}

/// Stores what waits in the spool for the database of the settings and what no running recorder holds.
///
/// # Errors
///
/// When the database or the spool cannot be used; what was not stored stays in the spool.
pub async fn drain_spool(
    settings: &Settings,
    pg_bin: Option<PathBuf>,
    wanted: DrainOptions<'_>,
) -> Result<Drained, DrainError> {
    let mut signals = StopSignals::listen().map_err(StartError::Signals)?;
    let dir = spool::folder(&settings.spool, &settings.database).map_err(StartError::from)?;
    let mut drained =
        Drained { written: Written::default(), losses: Losses::default(), left: 0, dir };
    let status = spool::status(&drained.dir, settings.spool.max_bytes).map_err(StartError::from)?;
    let free = |slot: &&SlotStatus| !slot.held;
    let mut slots = status.slots.iter().filter(free);
    // No database is made for nothing.
    if !slots.any(|slot| slot.segments > 0 || (wanted.damaged && slot.damaged > 0)) {
        drained.losses.skipped = status.skipped;
        return Ok(drained);
    }
    let database = Database::open(settings, pg_bin).await?;
    let done = tokio::select! {
        done = with_database(settings, &database, wanted, &mut drained) => done,
        signal = signals.next() => {
            warn!("{signal}: stopped; what is not stored stays in the spool");
            Ok(())
        }
    };
    database.close().await;
    done?;
    drained.left = waiting(&drained.dir, settings)?;
    Ok(drained)
}

/// Ticks in slots that no running process holds.
fn waiting(dir: &std::path::Path, settings: &Settings) -> Result<u64, SpoolError> {
    let status = spool::status(dir, settings.spool.max_bytes)?;
    Ok(status.slots.iter().filter(|slot| !slot.held).map(|slot| slot.ticks).sum())
}

async fn with_database(
    settings: &Settings,
    database: &Database,
    wanted: DrainOptions<'_>,
    drained: &mut Drained,
) -> Result<(), DrainError> {
    let pool = database.migrated_pool(1).await?;
    let named = names(&pool, &drained.dir, settings, database, wanted.adopted).await;
    pool.close().await;
    let (names, original) = named?;
    let spool = open_spool(settings, names, original.as_deref(), wanted.damaged).await?;
    drained.losses = spool.losses();
    let store = database.store();
    let total = spool.backlog().ticks;
    let progress = Progress::start("Draining the spool", Unit::Of("ticks"), Total::Known(total));
    let done = empty(&spool, &store, settings.batch.max_coalesced.get(), &progress, drained).await;
    drained.losses = spool.losses();
    if done.is_ok() {
        progress.finish();
    }
    done
}

/// The names whose batches are stored: the database's own, that of one never seen at its address, and the adopted one. A
/// database that nobody has recorded into has no name, and only what is adopted is stored in it.
async fn names(
    pool: &PgPool,
    dir: &std::path::Path,
    settings: &Settings,
    database: &Database,
    adopted: Option<&str>,
) -> Result<(SpoolNames, Option<String>), DrainError> {
    let name = database_name(pool).await.map_err(StartError::from)?;
    let is_claimed = name.is_some();
    let DatabaseName { own, original } = name.unwrap_or_default();
    let origin = own.rsplit_once(", ").map(|(_id, origin)| origin.to_owned());
    let mut also = Vec::new();
    if let Some(origin) = &origin {
        also.push(format!("the first at {}, {origin}", database.address().name()));
    }
    if let Some(id) = adopted {
        let status = spool::status(dir, settings.spool.max_bytes)?;
        let waiting: Vec<String> = status.slots.into_iter().filter_map(|it| it.database).collect();
        let Some(found) = waiting.iter().find(|name| spool_id(name) == id || *name == id) else {
            return Err(DrainError::NotThere { id: id.to_owned(), waiting: listed(&waiting) });
        };
        let kind = found.rsplit_once(", ").map(|(_id, origin)| origin);
        if is_claimed && kind != origin.as_deref() {
            return Err(DrainError::Mixed { waiting: found.clone(), held: own });
        }
        also.push(found.clone());
    }
    Ok((SpoolNames { database: own, also }, original))
}

fn listed(names: &[String]) -> String {
    let mut ids: Vec<&str> = names.iter().map(|name| spool_id(name)).collect();
    ids.dedup();
    if ids.is_empty() { "nothing".to_owned() } else { ids.join("; ") }
}

async fn empty(
    spool: &Spool<Tick>,
    store: &PostgresStore,
    ticks_max: usize,
    progress: &Progress,
    drained: &mut Drained,
) -> Result<(), DrainError> {
    // Batches in a row of which nothing more can be stored, and why.
    let mut put_back: u64 = 0;
    let mut first_refusal: Option<StoreError<Tick>> = None;
    while let Some(oldest) = spool.oldest(ticks_max).await? {
        let failed = |error, left| DrainError::Store { left, dir: spool.dir().to_owned(), error };
        let written = match store.write(&oldest.records).await {
            Ok(written) => {
                put_back = 0;
                written
            }
            Err(StoreError::Days(days)) => {
                // What waits for its day goes behind the others, once round.
                let (written, left) = (days.written, days.left.clone());
                put_back = if days.goes_on { 0 } else { put_back + 1 };
                if days.cause.is_some() {
                    first_refusal.get_or_insert(StoreError::Days(days));
                }
                spool.append(left).await.1?;
                written
            }
            Err(error) => return Err(failed(error, spool.backlog().ticks)),
        };
        drained.written.stored += written.stored;
        drained.written.duplicates += written.duplicates;
        drained.written.rejected += written.rejected;
        spool.remove(oldest.position).await?;
        progress.advance(written.stored + written.duplicates + written.rejected);
        if put_back > spool.backlog().batches
            && let Some(error) = first_refusal
        {
            return Err(failed(error, spool.backlog().ticks));
        }
    }
    Ok(())
}
