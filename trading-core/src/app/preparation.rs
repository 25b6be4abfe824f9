//! What a recorder needs before it starts: a schema that is up to date, a database that is its own, where recording goes
//! on, and the spool.
//!
//! A database that is away at the start is waited for while the recorder runs ([`Arrival`]): the spool is opened for the
//! database as the last start found it at this address.

use sqlx::PgPool;

use super::arrival::{Arrival, Ready, ReadyStore};
use super::clock_watch::ClockWatch;
use super::database::Database;
use super::registration::{Registered, Registration};
use super::spool::open_spool;
use super::start_error::StartError;
use super::venues::Venue;
use crate::config::Settings;
use crate::domain::{LastStored, RecorderClock, Tick};
use crate::store::postgres::origin::Origin;
use crate::store::spool::{Spool, SpoolNames};

/// Everything a recorder needs of the database and the disk.
#[derive(Debug)]
pub(super) struct Prepared {
    /// For what is written beside the ticks.
    pub(super) pool: PgPool,
    /// Where ticks end.
    pub(super) store: ReadyStore,
    /// Where they wait when that is away.
    pub(super) spool: Spool<Tick>,
    /// Where recording goes on; empty where that is not known yet.
    pub(super) stored: Vec<LastStored>,
    /// Stamps what is received, and knows how far the machine's clock is off.
    pub(super) clock: RecorderClock,
    /// Finds that out.
    pub(super) clock_watch: ClockWatch,
    /// Whether the database is there, from now on.
    pub(super) ready: Ready,
    /// What is left to do where the database was away.
    pub(super) arrival: Option<Arrival>,
}

/// What differs by whether the database answers at the start.
struct Found {
    spool: Spool<Tick>,
    stored: Vec<LastStored>,
    ready: Ready,
    arrival: Option<Arrival>,
}

impl Prepared {
    /// Prepares the database and the spool for these venues, whose trades are of this origin.
    pub(super) async fn prepare(
        settings: &Settings,
        venues: &[Venue],
        origin: &Origin,
        database: &Database,
    ) -> Result<Self, StartError> {
        let registration = Registration::new(settings, venues, origin, database)?;
        let address = database.address();
        // The writers have connections of their own.
        let writers = u32::try_from(settings.batch.writers.get()).unwrap_or(u32::MAX);
        let pooled = settings.database.max_connections.get().saturating_sub(writers).max(1);
        let pool = address.recorders_pool(pooled);
        let found = match registration.register(&pool).await {
            Ok(registered) => known(settings, &registration, registered).await?,
            Err(error) if error.is_passing() => away(settings, registration, error).await?,
            Err(error) => return Err(error),
        };
        let Found { spool, stored, ready, arrival } = found;
        let clock = RecorderClock::default();
        let is_here = address.is_on_this_machine();
        let clock_watch = ClockWatch::start(clock.clone(), pool.clone(), is_here, venues).await;
        let store = ReadyStore::new(address.store().with_clock(clock.clone()), ready.clone());
        Ok(Self { pool, store, spool, stored, clock, clock_watch, ready, arrival })
    }
}

async fn known(
    settings: &Settings,
    registration: &Registration,
    registered: Registered,
) -> Result<Found, StartError> {
    let Registered { name, stored } = registered;
    let names = SpoolNames { database: name.own.clone(), also: vec![registration.unseen()] };
    let spool = open_spool(settings, names, name.original.as_deref(), false).await?;
    registration.remember(&name.own)?;
    let (_opening, ready) = Ready::new(true);
    Ok(Found { spool, stored, ready, arrival: None })
}

async fn away(
    settings: &Settings,
    registration: Registration,
    first: StartError,
) -> Result<Found, StartError> {
    let spooled_for = registration.recall();
    let unseen = registration.unseen();
    let database = spooled_for.clone().unwrap_or_else(|| unseen.clone());
    let names = SpoolNames { database, also: vec![unseen] };
    let spool = open_spool(settings, names, None, false).await?;
    let (opening, ready) = Ready::new(false);
    let arrival = Some(Arrival { registration, opening, spooled_for, first });
    Ok(Found { spool, stored: Vec::new(), ready, arrival })
}
