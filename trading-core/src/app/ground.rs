//! What a recorder stands on: a schema that is up to date, a database that is its own, where recording goes on.
//!
//! A database that is away at the start is waited for while the recorder runs ([`Arrival`]): the spool is opened for the
//! database as the last start found it at this address.

use std::path::PathBuf;
use std::time::Duration;

use rustc_hash::FxHashMap;
use sqlx::PgPool;
use sqlx::migrate::MigrateError;

use super::arrival::{Arrival, Ready, ReadyStore};
use super::clock_watch::ClockWatch;
use super::database::{Address, Database};
use super::live::{LiveError, open_spool};
use super::recorder::Venue;
use crate::config::Settings;
use crate::domain::{Instrument, RecorderClock, TradeId};
use crate::exchange::IdRule;
use crate::store::postgres::{
    DatabaseName, LastStored, MaintenanceError, Origin, OriginError, carriers, claim, days,
    in_doubt_since, is_away, last_stored, list_time_until_now, migrate, upsert_instruments,
};
use crate::store::spool::{self, Spool, SpoolNames};

/// A trade is stamped by its exchange no longer before it is received, but for one that hangs.
const LAG_MAX: Duration = Duration::from_secs(5);

/// Everything a recorder needs of the database and the disk.
#[derive(Debug)]
pub struct Ground {
    /// For what is written beside the ticks.
    pub pool: PgPool,
    /// Where ticks end.
    pub(super) store: ReadyStore,
    /// Where they wait when that is away.
    pub spool: Spool,
    /// Where recording goes on; empty where that is not known yet.
    pub stored: Vec<LastStored>,
    /// Stamps what is received, and knows how far the machine's clock is off.
    pub clock: RecorderClock,
    /// Finds that out.
    pub(super) clock_watch: ClockWatch,
    pub(super) ready: Ready,
    /// What is left to do where the database was away.
    pub(super) arrival: Option<Arrival>,
}

/// What a database is asked before anything is written to it.
#[derive(Debug, Clone)]
pub(super) struct Question {
    address: Address,
    origin: Origin,
    /// Each with the venue's spelling, and what its ids prove.
    instruments: Vec<(Instrument, String, IdRule)>,
    spool_dir: PathBuf,
    keeps_days: bool,
}

/// What it says.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) name: DatabaseName,
    pub(super) stored: Vec<LastStored>,
}

impl Ground {
    pub(super) async fn prepare(
        settings: &Settings,
        venues: &[Venue],
        origin: &Origin,
        database: &Database,
    ) -> Result<Self, LiveError> {
        let spool_dir = spool::folder(&settings.spool, &settings.database)?;
        let instruments = venues.iter().flat_map(|venue| {
            venue.spellings().map(|(instrument, spelling)| (instrument, spelling, venue.ids()))
        });
        let question = Question {
            address: database.address().clone(),
            origin: origin.clone(),
            instruments: instruments.collect(),
            spool_dir,
            keeps_days: settings.database.retention.is_some(),
        };
        // The writers have connections of their own.
        let writers = u32::try_from(settings.batch.writers.get()).unwrap_or(u32::MAX);
        let pooled = settings.database.max_connections.get().saturating_sub(writers).max(1);
        let pool = question.address.recorders_pool(pooled);
        match question.ask(&pool).await {
            Ok(answers) => Self::known(settings, (question, venues), pool, answers).await,
            Err(error) if error.is_passing() => {
                Self::away(settings, (question, venues), pool, error).await
            }
            Err(error) => Err(error),
        }
    }

    async fn known(
        settings: &Settings,
        (question, venues): (Question, &[Venue]),
        pool: PgPool,
        answers: Answers,
    ) -> Result<Self, LiveError> {
        let Answers { name, stored } = answers;
        let names = SpoolNames { database: name.own.clone(), also: vec![question.unseen()] };
        let spool = open_spool(settings, names, name.original.as_deref(), false).await?;
        question.remember(&name.own)?;
        let (_opening, ready) = Ready::new(true);
        Ok(Self::new((&question, venues), pool, spool, stored, ready, None).await)
    }

    async fn away(
        settings: &Settings,
        (question, venues): (Question, &[Venue]),
        pool: PgPool,
        first: LiveError,
    ) -> Result<Self, LiveError> {
        let spooled_for = spool::recall(&question.spool_dir, &question.place());
        let unseen = question.unseen();
        let database = spooled_for.clone().unwrap_or_else(|| unseen.clone());
        let spool =
            open_spool(settings, SpoolNames { database, also: vec![unseen] }, None, false).await?;
        let (opening, ready) = Ready::new(false);
        let arrival = Arrival { question: question.clone(), opening, spooled_for, first };
        Ok(Self::new((&question, venues), pool, spool, Vec::new(), ready, Some(arrival)).await)
    }

    async fn new(
        (question, venues): (&Question, &[Venue]),
        pool: PgPool,
        spool: Spool,
        stored: Vec<LastStored>,
        ready: Ready,
        arrival: Option<Arrival>,
    ) -> Self {
        let clock = RecorderClock::default();
        let is_here = question.address.is_on_this_machine();
        let clock_watch = ClockWatch::start(clock.clone(), pool.clone(), is_here, venues).await;
        let store = question.address.store().with_clock(clock.clone());
        let store = ReadyStore::new(store, ready.clone());
        Self { pool, store, spool, stored, clock, clock_watch, ready, arrival }
    }

    /// Whether the database is there, from now on.
    pub(super) fn ready(&self) -> Ready {
        self.ready.clone()
    }
}

impl Question {
    pub(super) async fn ask(&self, pool: &PgPool) -> Result<Answers, LiveError> {
        self.address.look_as_recorder().await?;
        migrate(pool).await?;
        let name = claim(pool, &self.origin).await?;
        let spellings: Vec<_> = self.instruments.iter().map(|it| (it.0, it.1.clone())).collect();
        if let Err(error) = upsert_instruments(pool, &spellings).await {
            tell_skipped("The instruments are not noted", error)?;
        }
        self.tell_days(pool).await.map_err(MaintenanceError::from)?;
        let recorded: Vec<_> = self.instruments.iter().map(|it| it.0).collect();
        let mut stored = match last_stored(pool, &recorded).await {
            Ok(stored) => stored,
            Err(error) => {
                tell_skipped("Where recording goes on is not known", error.into())?;
                Vec::new()
            }
        };
        doubt(pool, &self.instruments, &mut stored).await.map_err(MaintenanceError::from)?;
        Ok(Answers { name, stored })
    }

    /// Notes which database lies at this address, for a start before it.
    pub(super) fn remember(&self, name: &str) -> Result<(), LiveError> {
        Ok(spool::remember(&self.spool_dir, &self.place(), name)?)
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
    fn unseen(&self) -> String {
        format!("the first at {}, {}", self.address.name(), self.origin)
    }

    /// A user with plain rights cannot make the days' partitions.
    async fn tell_days(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
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

/// A server that has no room for so many locks answers that every time: recording starts without what it would not do, and
/// what that misses is found by the audit of the stored ids.
fn tell_skipped(what: &str, error: MaintenanceError) -> Result<(), MaintenanceError> {
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
            since.insert(exchange, in_doubt_since(pool, exchange, LAG_MAX).await?);
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

impl LiveError {
    /// Whether the database may answer otherwise a moment later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Database { error, .. }
            | Self::Origin(OriginError::Database(error))
            | Self::Maintenance(
                MaintenanceError::Database(error)
                | MaintenanceError::Migrate(
                    MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _),
                ),
            ) => is_away(error),
            _ => false,
        }
    }
}
