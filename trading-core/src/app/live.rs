//! `trading-core live`: the world around the recorder. The database is up before the first feed connects, and goes
//! after the last tick is stored; the same holds for the simulated exchanges, which replace the real ones in a demonstration.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::postgres::PgPool;
use tracing::{debug, info, warn};

use super::database::Database;
use super::paper;
use super::preparation::Prepared;
use super::recorder::{Outcome, Recorder, RecorderParts};
use super::signals::StopSignals;
use super::start_error::StartError;
use super::tasks::Tasks;
use super::venues::{Venue, VenueKind, venues};
use super::world::{Exchanges, World};
use crate::config::{DatabaseUrl, Settings};
use crate::store::embedded::{Options, command};

/// How long the pool may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// What `live` is asked to do beside recording.
#[derive(Debug, Clone)]
pub struct LiveOptions {
    /// Which exchanges are recorded.
    pub exchanges: Exchanges,
    /// Run the strategies of the settings.
    pub paper_trading: bool,
    /// Where PostgreSQL's programs are (`PG_BIN`); `None`: searched for.
    pub pg_bin: Option<PathBuf>,
}

/// Records until a signal asks for a stop. The last line it logs is the ledger.
///
/// # Errors
///
/// When recording cannot start; nothing was recorded then.
pub async fn live(settings: &Settings, options: LiveOptions) -> Result<Outcome, StartError> {
    // Before anything is started: from here on a signal means an orderly stop.
    let mut signals = StopSignals::listen().map_err(StartError::Signals)?;
    let started = tokio::select! {
        signal = signals.next() => {
            info!("{signal}: stopped before anything was recorded");
            None
        }
        started = start(settings, &options) => {
            Some(started.map_err(|error| error.with_commands(settings))?)
        }
    };
    let Some(started) = started else {
        Database::leave(settings, options.pg_bin).await;
        return Ok(Outcome::Clean);
    };
    let Started { world, database, pool, recorder } = started;
    let status = recorder.status();
    let outcome = recorder.run(&mut signals).await;
    world.end().await;
    if tokio::time::timeout(CLOSE_MAX, pool.close()).await.is_err() {
        warn!(
            "The database did not answer within {} s when its connections were closed",
            CLOSE_MAX.as_secs()
        );
    }
    database.close().await;
    let status = status.read();
    for (exchange, counts) in &status.exchanges {
        debug!("{exchange}: {counts}");
    }
    info!("Ledger: {}", status.pipeline.ledger);
    Ok(outcome)
}

/// Logs once, when the simulated market gets its own database, what becomes of the other one: an older version kept simulated
/// trades there.
async fn log_other_place(settings: &Settings) {
    let options = Options::new(&settings.database, None);
    if !options.simulated || settings.database.url != DatabaseUrl::Embedded {
        return;
    }
    let is_made = async |options| command::is_made(options).await.unwrap_or(false);
    if !is_made(&options).await
        && is_made(&options.other()).await
        && let (Ok(own), Ok(other)) = (options.folder(), options.other().folder())
    {
        info!(
            "The simulated market gets a database of its own in {}. The one in {} is left as it is; `trading-core db remove` \
             removes it, if an older version recorded the simulated market there",
            own.display(),
            other.display()
        );
    }
}

/// Everything that runs.
struct Started {
    world: World,
    database: Database,
    pool: PgPool,
    recorder: Recorder,
}

async fn start(settings: &Settings, options: &LiveOptions) -> Result<Started, StartError> {
    log_other_place(settings).await;
    // What cannot be recorded at all is refused before anything is started.
    venues(settings, VenueKind::Real)?;
    let database = Database::open(settings, options.pg_bin.clone()).await?;
    let world = match World::build(settings, &options.exchanges).await {
        Ok(world) => world,
        Err(error) => {
            database.close().await;
            return Err(error);
        }
    };
    match start_recorder(settings, options, &world, &database).await {
        Ok((pool, recorder)) => Ok(Started { world, database, pool, recorder }),
        Err(error) => {
            world.end().await;
            database.close().await;
            Err(error)
        }
    }
}

async fn start_recorder(
    settings: &Settings,
    options: &LiveOptions,
    world: &World,
    database: &Database,
) -> Result<(PgPool, Recorder), StartError> {
    let prepared = Prepared::prepare(settings, &world.venues, &world.origin, database).await?;
    introduce(&world.venues, database);

    let mut tasks = Tasks::default();
    let mut observers = Vec::new();
    if options.paper_trading {
        observers.push(paper::spawn_into(&mut tasks, settings, &world.venues, &prepared));
    }
    let pool = prepared.pool.clone();
    let (venues, close_first) = (world.venues.as_slice(), world.close.clone());
    let parts = RecorderParts { settings, venues, prepared, observers, close_first };
    Ok((pool, Recorder::start(tasks, parts)))
}

/// Logs what runs, where the data is and how to query it.
fn introduce(venues: &[Venue], database: &Database) {
    for venue in venues {
        info!("Recording {venue}");
    }
    info!("Stored in {}", database.shown());
    // Without a password psql asks for it, or takes it from PGPASSWORD.
    let url = database.shown().replace(":***@", "@");
    info!(
        "Look at it: psql '{url}' -c \"SELECT symbol, COUNT(*) FROM tick_data GROUP BY symbol ORDER BY symbol;\""
    );
}
