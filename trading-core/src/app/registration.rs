//! What a recorder asks of a database, and leaves in it, before the first tick: the schema is brought up to date, the
//! database is claimed for this kind of trades, the instruments are noted, and it answers where recording goes on.

use std::path::PathBuf;

use rustc_hash::FxHashMap;
use sqlx::PgPool;

use super::database::{Address, Database};
use super::start_error::StartError;
use super::venues::Venue;
use crate::config::Settings;
use crate::domain::bounds::LATENESS_MAX;
use crate::domain::{Instrument, LastStored, TradeId};
use crate::exchange::IdRule;
use crate::store::postgres::latest::{carriers, in_doubt_since, last_stored, list_time_until_now};
use crate::store::postgres::maintenance::{MaintenanceError, upsert_instruments};
use crate::store::postgres::migrate::migrate;
use crate::store::postgres::origin::{DatabaseName, Origin, claim};
use crate::store::postgres::rights::days;
use crate::store::spool;

/// What a recorder brings to a database.
#[derive(Debug, Clone)]
pub(super) struct Registration {
    address: Address,
    origin: Origin,
    /// Each with the venue's spelling, and what its ids prove.
    instruments: Vec<(Instrument, String, IdRule)>,
    spool_dir: PathBuf,
    keeps_days: bool,
}

/// What the database answers.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) name: DatabaseName,
    /// Where recording goes on.
    pub(super) stored: Vec<LastStored>,
}

impl Registration {
    pub(super) fn new(
        settings: &Settings,
        venues: &[Venue],
        origin: &Origin,
        database: &Database,
    ) -> Result<Self, StartError> {
        let spool_dir = spool::folder(&settings.spool, &settings.database)?;
        let instruments = venues.iter().flat_map(|venue| {
            venue.spellings().map(|(instrument, spelling)| (instrument, spelling, venue.ids()))
        });
        Ok(Self {
            address: database.address().clone(),
            origin: origin.clone(),
            instruments: instruments.collect(),
            spool_dir,
            keeps_days: settings.database.retention.is_some(),
        })
    }

    /// Registers this recorder; safe to repeat.
    pub(super) async fn register(&self, pool: &PgPool) -> Result<Registered, StartError> {
        self.address.probe_as_recorder().await?;
        migrate(pool).await?;
        let name = claim(pool, &self.origin).await?;
        let spellings: Vec<_> = self.instruments.iter().map(|it| (it.0, it.1.clone())).collect();
        if let Err(error) = upsert_instruments(pool, &spellings).await {
            log_skipped("The instruments are not noted", error)?;
        }
        self.log_days_problems(pool).await.map_err(MaintenanceError::from)?;
        let recorded: Vec<_> = self.instruments.iter().map(|it| it.0).collect();
        let mut stored = match last_stored(pool, &recorded).await {
            Ok(stored) => stored,
            Err(error) => {
                log_skipped("Where recording goes on is not known", error.into())?;
                Vec::new()
            }
        };
        doubt(pool, &self.instruments, &mut stored).await.map_err(MaintenanceError::from)?;
        Ok(Registered { name, stored })
    }

    /// Notes which database lies at this address, for a start before it.
    pub(super) fn remember(&self, name: &str) -> Result<(), StartError> {
        Ok(spool::remember(&self.spool_dir, &self.place(), name)?)
    }

    /// Which database lay at this address when it was last reached.
    pub(super) fn recall(&self) -> Option<String> {
        spool::recall(&self.spool_dir, &self.place())
    }

    pub(super) fn instruments(&self) -> impl Iterator<Item = Instrument> {
        self.instruments.iter().map(|it| it.0)
    }

    /// What the ids of its trades prove.
    pub(super) fn ids_of(&self, instrument: Instrument) -> Option<IdRule> {
        self.instruments.iter().find(|it| it.0 == instrument).map(|it| it.2)
    }

    fn place(&self) -> String {
        format!("{}, {}", self.address.name(), self.origin)
    }

    /// What names a database to the spool that was never seen at this address.
    pub(super) fn unseen(&self) -> String {
        format!("the first at {}, {}", self.address.name(), self.origin)
    }

    /// A user with plain rights cannot make the days' partitions.
    async fn log_days_problems(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let mut connection = pool.acquire().await?;
        let days = days(&mut connection).await?;
        if let Some(problem) = days.problem() {
            tracing::warn!("{problem}");
        }
        if self.keeps_days && !days.may_drop {
            tracing::warn!(
                "Old days will not be dropped: the user does not own tick_data; set database.retention to \"none\" and \
                 leave that to its owner, or GRANT the owner's role to the user"
            );
        }
        Ok(())
    }
}

/// A server with too few locks refuses this every time: recording starts without it, and the audit of the stored ids finds
/// what that misses.
fn log_skipped(what: &str, error: MaintenanceError) -> Result<(), MaintenanceError> {
    let MaintenanceError::Database(sqlx::Error::Database(refusal)) = &error else {
        return Err(error);
    };
    if refusal.code().as_deref() != Some("53200") {
        return Err(error);
    }
    tracing::warn!(
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
    instruments: &[(Instrument, String, IdRule)],
    stored: &mut Vec<LastStored>,
) -> Result<(), sqlx::Error> {
    let mut since = FxHashMap::default();
    let carriers = carriers(pool).await?;
    for &(instrument, _, ids) in instruments {
        let exchange = instrument.exchange();
        if !since.contains_key(exchange) {
            since.insert(exchange, in_doubt_since(pool, exchange, LATENESS_MAX).await?);
        }
        let Some(since) = since.get(exchange) else { continue };
        let Some(since) = since.get(instrument.symbol().as_str()) else { continue };
        match stored.iter_mut().find(|last| last.instrument == instrument) {
            Some(last) if ids == IdRule::Unique => {
                last.until = last.until.min(*since);
            }
            Some(_) => {}
            // Its first trade ends the gap.
            None if ids == IdRule::Unique => stored.push(LastStored {
                instrument,
                trade_id: TradeId::from_text(""),
                exchange_at: *since,
                until: *since,
                missing: Vec::new(),
                is_carried: carriers.may_hold(instrument, *since, None),
            }),
            None => list_time_until_now(pool, instrument, *since).await?,
        }
    }
    Ok(())
}
