//! What a recorder stands on: a schema that is up to date, a database that is its own, where recording goes on.
//!
//! A database that falters just then is asked again; one that is away for long is told, and nothing is started.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::migrate::MigrateError;
use tracing::warn;

use super::clock_watch::ClockWatch;
use super::live::{Database, LiveError, open_spool};
use super::recorder::Venue;
use crate::config::Settings;
use crate::domain::{RecorderClock, TradeId};
use crate::exchange::IdRule;
use crate::store::Remedy;
use crate::store::postgres::{
    LastStored, MaintenanceError, Origin, OriginError, PostgresStore, claim, in_doubt_since,
    last_stored, list_time_until_now, upsert_instruments,
};
use crate::store::spool::Spool;

/// Attempts at a database that answers badly, and the wait before the next.
const ATTEMPTS_MAX: u32 = 5;
/// See [`ATTEMPTS_MAX`].
const ATTEMPT_DELAY: Duration = Duration::from_secs(1);

/// A trade is stamped by its exchange no longer before it is received, but for one that hangs.
const LAG_MAX: Duration = Duration::from_secs(5);

/// Everything a recorder needs of the database and the disk.
#[derive(Debug)]
pub struct Ground {
    /// For what is written beside the ticks.
    pub pool: PgPool,
    /// Where ticks end.
    pub store: PostgresStore,
    /// Where they wait when that is away.
    pub spool: Spool,
    /// Where recording goes on.
    pub stored: Vec<LastStored>,
    /// Stamps what is received, and knows how far the machine's clock is off.
    pub clock: RecorderClock,
    /// Finds that out.
    pub(super) clock_watch: ClockWatch,
}

impl Ground {
    pub(super) async fn prepare(
        settings: &Settings,
        venues: &[Venue],
        origin: &Origin,
        database: &Database,
    ) -> Result<Self, LiveError> {
        let mut attempt = 1;
        let (pool, name, stored) = loop {
            match ask(settings, venues, origin, database).await {
                Ok(answers) => break answers,
                Err(error) if attempt < ATTEMPTS_MAX && is_passing(&error) => {
                    tell_not_started(&error, attempt);
                    attempt += 1;
                    tokio::time::sleep(ATTEMPT_DELAY).await;
                }
                Err(error) => return Err(error),
            }
        };
        let spool = open_spool(settings, name, false).await?;
        let clock = RecorderClock::default();
        let is_here = database.is_on_this_machine();
        let clock_watch = ClockWatch::start(clock.clone(), pool.clone(), is_here, venues).await;
        let store = database.store().with_clock(clock.clone());
        Ok(Self { pool, store, spool, stored, clock, clock_watch })
    }
}

async fn ask(
    settings: &Settings,
    venues: &[Venue],
    origin: &Origin,
    database: &Database,
) -> Result<(PgPool, String, Vec<LastStored>), LiveError> {
    // The writers have connections of their own.
    let writers = u32::try_from(settings.batch.writers.get()).unwrap_or(u32::MAX);
    let pooled = settings.database.max_connections.get().saturating_sub(writers).max(1);
    let pool = database.migrated_pool(pooled).await?;
    let name = claim(&pool, origin).await?;
    let instruments: Vec<_> = venues.iter().flat_map(Venue::spellings).collect();
    if let Err(error) = upsert_instruments(&pool, &instruments).await {
        tell_skipped("The instruments are not noted", error)?;
    }
    let recorded: Vec<_> = instruments.iter().map(|(instrument, _)| *instrument).collect();
    let mut stored = match last_stored(&pool, &recorded).await {
        Ok(stored) => stored,
        Err(error) => {
            tell_skipped("Where recording goes on is not known", error.into())?;
            Vec::new()
        }
    };
    for venue in venues {
        doubt(&pool, venue, &mut stored).await.map_err(MaintenanceError::from)?;
    }
    Ok((pool, name, stored))
}

/// A server that has no room for so many locks answers that every time: recording starts without what it would not do, and
/// what that misses is found by the audit of the stored ids.
fn tell_skipped(what: &str, error: MaintenanceError) -> Result<(), MaintenanceError> {
    let MaintenanceError::Database(sqlx::Error::Database(refusal)) = &error else {
        return Err(error);
    };
    if refusal.code().as_deref() != Some("53200") {
        return Err(error);
    }
    warn!(
        cause = %refusal.message(),
        "{what}, and recording starts all the same. Set max_locks_per_transaction to 1024 and restart PostgreSQL: tick_data \
         has more partitions than it has room to lock"
    );
    Ok(())
}

/// What a killed recorder had in memory only is lost: trades that are older than the newest stored one, where writes
/// overlap, and all of a symbol of which none was stored yet. Where ids show it the auditor finds the former; where they
/// prove nothing, the time from then on is in doubt. Of a symbol with nothing stored, that is listed as a gap in time.
async fn doubt(
    pool: &PgPool,
    venue: &Venue,
    stored: &mut Vec<LastStored>,
) -> Result<(), sqlx::Error> {
    let since = in_doubt_since(pool, venue.name(), LAG_MAX).await?;
    for (instrument, _) in venue.spellings() {
        let Some(since) = since.get(instrument.symbol().as_str()) else { continue };
        match stored.iter_mut().find(|last| last.instrument == instrument) {
            Some(last) if venue.ids() == IdRule::Unique => {
                last.until = last.until.min(*since);
            }
            Some(_) => {}
            // Its first trade ends the gap.
            None if venue.ids() == IdRule::Unique => stored.push(LastStored {
                instrument,
                trade_id: TradeId::from_text(""),
                exchange_at: *since,
                until: *since,
                missing: Vec::new(),
            }),
            None => list_time_until_now(pool, instrument, *since).await?,
        }
    }
    Ok(())
}

fn tell_not_started(error: &LiveError, attempt: u32) {
    let cause = std::error::Error::source(error).map(tracing::field::display);
    warn!(attempt, cause, "Not started yet: {error}");
}

/// Whether the database may answer otherwise a moment later.
fn is_passing(error: &LiveError) -> bool {
    let error = match error {
        LiveError::Database { error, .. }
        | LiveError::Origin(OriginError::Database(error))
        | LiveError::Maintenance(
            MaintenanceError::Database(error)
            | MaintenanceError::Migrate(
                MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _),
            ),
        ) => error,
        _ => return false,
    };
    Remedy::of(error) == Remedy::Retry
}
