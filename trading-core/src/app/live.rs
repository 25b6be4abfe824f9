//! `trading-core live`: the world around the recorder. The database is up before the first feed connects, and goes
//! after the last tick is stored; the same holds for the simulated exchanges, where they stand for the real ones.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use sqlx::postgres::PgPool;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::database::Database;
use super::ground::Ground;
use super::identity::identity;
use super::market_hours::{HoursError, MarketHours};
use super::mixed::Mixed;
use super::recorder::{Outcome, Reach, Recorder, Venue, VenueError, venues};
use super::signals::StopSignals;
use super::tasks::Tasks;
use crate::config::{DatabaseUrl, ServerUrlError, Settings};
use crate::domain::Timestamp;
use crate::network::Network;
use crate::paper::{self, PgStore, SummaryHandle};
use crate::pipeline::{Onlooker, tap};
use crate::simulator::{MARKET_VERSION, Simulator, SimulatorError, SimulatorOptions};
use crate::store::embedded::{Cluster, EmbeddedError, Options, command};
use crate::store::postgres::{MaintenanceError, Origin, OriginError, Pooler, refusal};
use crate::store::spool::{self, Found, Spool, SpoolError, SpoolNames};
use crate::store::{cause_of, with_causes};

/// How often the embedded server is looked at: a crashed one is brought back.
const GUARD_INTERVAL: Duration = Duration::from_secs(2);
/// How long the pool may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// How long simulated exchanges of another process may take to answer.
const ASK_MAX: Duration = Duration::from_secs(5);
/// How long paper trading waits for the spool of an earlier run to be stored.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// The most that Bybit's REST side shows of a symbol in a demonstration.
const BYBIT_HISTORY_MAX: usize = 20_000;

/// What `live` is asked to do beside recording.
#[derive(Debug, Clone)]
pub struct LiveOptions {
    /// Record simulated exchanges, with these options, instead of the real ones.
    pub simulate: Option<SimulatorOptions>,
    /// Record the simulated exchanges that are served at this host and port, instead of the real ones.
    pub simulator_at: Option<String>,
    /// Run the strategies of the settings.
    pub paper_trading: bool,
    /// Where PostgreSQL's programs are (`PG_BIN`); `None`: searched for.
    pub pg_bin: Option<PathBuf>,
}

/// Why recording could not start.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// No signals can be listened for.
    #[error("signals cannot be listened for")]
    Signals(#[source] std::io::Error),
    /// The settings name an unknown exchange.
    #[error(transparent)]
    Venue(#[from] VenueError),
    /// The simulated exchanges cannot be served.
    #[error(transparent)]
    Simulator(#[from] SimulatorError),
    /// The simulated market's hours cannot be kept.
    #[error(transparent)]
    Hours(#[from] HoursError),
    /// No simulated exchanges are served there.
    #[error(
        "no simulated exchanges are at {address} ({reason}): `trading-core simulate` serves them, and says where"
    )]
    NoSimulator {
        /// The address that was given.
        address: String,
        /// What is there instead.
        reason: String,
    },
    /// The database holds trades of the market that `live --simulate` makes, which was closed at times.
    #[error(
        "the simulated database holds trades of the market that `live --simulate` makes and that is closed while nobody records \
         it; the one at {0} was open all the time, and has other trades. To record that one, throw the others away with \
         `trading-core db remove --simulated`, or set another TRADING_CORE__DATABASE__DATA_DIR"
    )]
    OtherHours(String),
    /// The embedded database does not run.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The URL of the database is none.
    #[error("database.url: {0}")]
    Url(#[from] ServerUrlError),
    /// A pooler between us and the database keeps no sessions.
    #[error("the database at {url}: {pooler}")]
    Pooler {
        /// The URL, without its password.
        url: String,
        /// What it does.
        pooler: Pooler,
    },
    /// The database of this address is not the one that ticks were spooled for.
    #[error(
        "the database is not the one that ticks are spooled for ({spooled}): correct database.url, or, if that one is gone for \
         good, `trading-core spool drain --adopt {}` stores them here",
        spool_id(spooled)
    )]
    Another {
        /// What names the one that they are spooled for.
        spooled: String,
    },
    /// The database cannot be reached.
    #[error("the database at {url} {}", refusal(error))]
    Database {
        /// The URL, without its password.
        url: String,
        /// What it said.
        #[source]
        error: sqlx::Error,
    },
    /// The database holds trades of another kind, and what to type.
    #[error("{0}")]
    Mixed(Box<Mixed>),
    /// The database holds trades of another kind, or whose trades it holds cannot be asked.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The schema cannot be brought up to date.
    #[error(transparent)]
    Maintenance(#[from] MaintenanceError),
    /// The spool cannot be used.
    #[error("the spool cannot be used; spool.dir names another place for it")]
    Spool(#[from] SpoolError),
}

impl LiveError {
    /// Says what to type where trades would be mixed.
    pub(super) fn with_commands(self, settings: &Settings) -> Self {
        match self {
            Self::Origin(OriginError::Mixed { held, wanted }) => {
                Self::Mixed(Box::new(Mixed::new(settings, held, wanted)))
            }
            other => other,
        }
    }
}

/// Records until it is told to stop. The last line it logs is the ledger.
///
/// # Errors
///
/// When recording cannot start; nothing was recorded then.
pub async fn live(settings: &Settings, options: LiveOptions) -> Result<Outcome, LiveError> {
    // Before anything is started: from here on a signal means an orderly stop.
    let mut signals = StopSignals::listen().map_err(LiveError::Signals)?;
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
    let ledger = recorder.ledger();
    let outcome = recorder.run(&mut signals).await;
    world.end().await;
    if tokio::time::timeout(CLOSE_MAX, pool.close()).await.is_err() {
        warn!("The database does not answer the farewell");
    }
    database.close().await;
    info!("Ledger: {}", ledger.read());
    Ok(outcome)
}

/// Says once, when the simulated market gets its own database, what becomes of the other one: an older version kept simulated
/// trades there.
async fn tell_places(settings: &Settings) {
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

async fn start(settings: &Settings, options: &LiveOptions) -> Result<Started, LiveError> {
    tell_places(settings).await;
    // What cannot be recorded at all is said before anything is started.
    venues(settings, Reach::Real)?;
    let database = Database::open(settings, options.pg_bin.clone()).await?;
    let world = match World::build(settings, options).await {
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
) -> Result<(PgPool, Recorder), LiveError> {
    let ground = Ground::prepare(settings, &world.venues, &world.origin, database).await?;
    introduce(&world.venues, database);

    let feeds = CancellationToken::new();
    let (onlookers, paper) = if options.paper_trading {
        let (onlooker, task) = paper_trading(settings, &world.venues, &ground, feeds.clone());
        (vec![onlooker], Some(task))
    } else {
        (Vec::new(), None)
    };
    let pool = ground.pool.clone();
    let mut recorder = Recorder::start(settings, &world.venues, ground, onlookers, feeds);
    if let Some(task) = paper {
        recorder.join("paper trading", task);
    }
    if let Some(close) = world.close.clone() {
        recorder.close_first(close);
    }
    Ok((pool, recorder))
}

/// Opens the spool for the batches of these names, and says what earlier runs left in it. With `salvage` what was set
/// aside is drained too.
pub(super) async fn open_spool(
    settings: &Settings,
    names: SpoolNames,
    original: Option<&str>,
    salvage: bool,
) -> Result<Spool, LiveError> {
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

/// What names a database in a command: its id, without whose trades it holds.
pub(super) fn spool_id(name: &str) -> &str {
    name.rsplit_once(", ").map_or(name, |(id, _origin)| id)
}

/// Paper trading beside the recorder: what the pipeline is given, and the task to run.
fn paper_trading(
    settings: &Settings,
    venues: &[Venue],
    ground: &Ground,
    stop: CancellationToken,
) -> (Onlooker, impl Future<Output = ()> + Send + 'static) {
    let settings = settings.paper.clone();
    for strategy in &settings.strategies {
        for symbol in &strategy.symbols {
            if !venues.iter().any(|venue| venue.records(&strategy.exchange, symbol)) {
                let (name, exchange) = (&strategy.name, &strategy.exchange);
                warn!(
                    "Strategy {name} will see no ticks of {exchange}:{symbol}: it is not recorded"
                );
            }
        }
    }
    let (sender, receiver) = tap(settings.channel_capacity.get());
    let summary = SummaryHandle::default();
    let shown = summary.clone();
    let onlooker = Onlooker { tap: sender, report: Box::new(move || shown.get().to_string()) };
    // Before the first feed: what arrives from now on comes over the tap, what did before is stored.
    let started_at = ground.clock.now();
    let store = PgStore::new(ground.pool.clone(), started_at);
    let (spool, ready) = (ground.spool.clone(), ground.ready());
    let task = async move {
        if !ready.or_stop(&stop).await {
            return;
        }
        drained(&spool, &stop).await;
        let ended = paper::run(settings, receiver, store, started_at, summary.clone()).await;
        match &ended {
            Ok(()) => info!("{}", summary.get()),
            Err(error) => error!(
                cause = cause_of(error),
                "Paper trading has ended; recording goes on: {error}"
            ),
        }
        if ended.is_err() {
            // Its end is no reason to end the recorder, which is told of every stage that ends.
            stop.cancelled().await;
        }
    };
    (onlooker, task)
}

/// Waits until what the run before left in the spool is in the table, where paper trading looks for it; meanwhile ticks
/// wait in the tap.
async fn drained(spool: &Spool, stop: &CancellationToken) {
    tokio::select! {
        biased;
        () = spool.until_empty_is(true) => {}
        () = stop.cancelled() => {}
        () = tokio::time::sleep(DRAIN_MAX) => warn!(
            "Paper trading begins without the ticks that are in the spool: strategies may decide otherwise than with them"
        ),
    }
}

/// Tells a newcomer what runs, where the data is and how to look at it.
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

/// The embedded cluster, and a task that brings a crashed server back, to the very end: what was accepted is still
/// stored then.
#[derive(Debug)]
pub(super) struct Guarded {
    cluster: Arc<Cluster>,
    guard: Tasks,
}

impl Guarded {
    pub(super) fn new(cluster: Cluster) -> Self {
        let (cluster, mut guard) = (Arc::new(cluster), Tasks::default());
        guard.spawn("guard", bring_back(Arc::clone(&cluster)));
        Self { cluster, guard }
    }

    pub(super) async fn stop(mut self) {
        // A start that is given up midway leaves at most a running server, which is stopped next.
        self.guard.abort().await;
        match Arc::into_inner(self.cluster).map(Cluster::stop) {
            Some(stopping) => {
                if let Err(error) = stopping.await {
                    warn!(%error, "The embedded database was not stopped");
                }
            }
            None => warn!("The embedded database is still looked at, and left running"),
        }
    }
}

async fn bring_back(cluster: Arc<Cluster>) {
    loop {
        tokio::time::sleep(GUARD_INTERVAL).await;
        match cluster.ensure_running().await {
            Ok(true) => info!("The embedded database runs again"),
            Ok(false) => {}
            Err(error) => {
                error!(error = %with_causes(&error), "The embedded database cannot be brought back");
            }
        }
    }
}

/// The exchanges: the real ones, or simulated ones that run inside this process.
struct World {
    venues: Vec<Venue>,
    origin: Origin,
    simulator: Tasks,
    stop: CancellationToken,
    /// Closes the simulated market, while its exchanges are served still.
    close: Option<CancellationToken>,
}

impl World {
    async fn build(settings: &Settings, options: &LiveOptions) -> Result<Self, LiveError> {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::default();
        let Some(mut simulated) = options.simulate.clone() else {
            if let Some(address) = &options.simulator_at {
                return Self::elsewhere(settings, address, tasks, stop).await;
            }
            let venues = venues(settings, Reach::Real)?;
            let origin = Origin::Exchanges;
            return Ok(Self { venues, origin, simulator: tasks, stop, close: None });
        };
        let (seed, rate) = (simulated.seed, simulated.rate);
        simulated.bybit_history = Some(bybit_history(rate));
        let hours = Self::open_market(settings, &mut simulated)?;
        let simulator = Simulator::bind(simulated).await?;
        let address: SocketAddr = simulator.address();
        info!(
            "Simulated exchanges at ws://{address}/<exchange> (seed {seed}, {rate} trades/s a symbol)"
        );
        let venues = venues(settings, Reach::Simulated(&address.to_string()))?;
        let run = simulator.run(stop.clone());
        tasks.spawn("simulator", async move {
            if let Err(error) = run.await {
                error!(%error, "The simulated exchanges have ended");
            }
        });
        let close = hours.map(|hours| {
            let close = stop.child_token();
            tasks.spawn("market hours", hours.run(close.clone()));
            close
        });
        let origin =
            Origin::Simulated(format!("seed {seed}, rate {rate}, market {MARKET_VERSION}"));
        Ok(Self { venues, origin, simulator: tasks, stop, close })
    }

    /// Opens the market of the embedded database, which stands still while nobody records it. With any other database,
    /// which recorders on several machines may share, it is always open.
    fn open_market(
        settings: &Settings,
        simulated: &mut SimulatorOptions,
    ) -> Result<Option<MarketHours>, LiveError> {
        if settings.database.url != DatabaseUrl::Embedded {
            return Ok(None);
        }
        let folder = Options::new(&settings.database, None).folder()?;
        let now = Timestamp::now();
        let (hours, closures) = MarketHours::open(&folder, &identity(now), now)?;
        if let Some(last) = closures.last().filter(|last| last.to > now) {
            let (from, to) = (last.from, last.to);
            info!(
                "The simulated market goes on where it stood at {from}, at {to}: while nobody records it, it is closed"
            );
        }
        simulated.clock = hours.clock();
        simulated.closures = closures;
        Ok(Some(hours))
    }

    /// Simulated exchanges that another process serves.
    async fn elsewhere(
        settings: &Settings,
        address: &str,
        simulator: Tasks,
        stop: CancellationToken,
    ) -> Result<Self, LiveError> {
        if settings.database.url == DatabaseUrl::Embedded {
            let folder = Options::new(&settings.database, None).folder()?;
            if MarketHours::look(&folder)?.is_some() {
                return Err(LiveError::OtherHours(address.to_owned()));
            }
        }
        let network = Network::new(&settings.network).map_err(VenueError::from)?;
        let asked = tokio::time::timeout(ASK_MAX, network.simulated_market(address)).await;
        let nobody =
            |reason: String| LiveError::NoSimulator { address: address.to_owned(), reason };
        let market = match asked {
            Ok(Ok(Some(market))) => market,
            Ok(Ok(None)) => return Err(nobody("what answers there is none".to_owned())),
            Ok(Err(error)) => return Err(nobody(error.to_string())),
            Err(_elapsed) => return Err(nobody("no answer in time".to_owned())),
        };
        info!("Simulated exchanges at ws://{address}/<exchange> ({market})");
        let venues = venues(settings, Reach::Simulated(address))?;
        let origin = Origin::Simulated(market);
        Ok(Self { venues, origin, simulator, stop, close: None })
    }

    /// Ends the simulated exchanges.
    async fn end(mut self) {
        self.stop.cancel();
        while self.simulator.join_next().await.is_some() {}
    }
}

/// Trades that Bybit's REST side shows in a demonstration, where the real one has sixty: ten minutes of a symbol, so that
/// what a killed run had in memory only is fetched again.
pub(super) fn bybit_history(rate: Decimal) -> usize {
    let trades = rate.checked_mul(Decimal::from(600)).and_then(|trades| trades.to_usize());
    trades.unwrap_or(BYBIT_HISTORY_MAX).clamp(1_000, BYBIT_HISTORY_MAX)
}
