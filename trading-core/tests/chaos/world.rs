//! What the recorders live in: simulated exchanges that know the truth, a real PostgreSQL, and a proxy before it for each
//! recorder. Shared by the rounds of one era.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rust_decimal::Decimal;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use trading_core::exchange::all;
use trading_core::simulator::{FaultsHandle, Market, Simulator, SimulatorOptions};
use trading_core::store::embedded::{Cluster, Durability, Options, command};

use crate::plan::{Era, Plan, Random, Server, Stop};
use crate::proxy::Proxy;
use crate::support::pooler::Bouncer;
use crate::support::postgres::{Scratch, server_pid};
use crate::support::tools;

/// Recorders beside each other at most.
const RECORDERS: usize = 2;
/// What every exchange lists, each with its own quote currency.
const BASES: [&str; 10] = ["BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "AVAX", "LINK", "DOT", "LTC"];
/// How long a server may take to come up or to go.
const UP_WITHIN: Duration = Duration::from_secs(60);
/// How long a connection is waited for while the server may be away.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The exchanges, the database, and the ways between them.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) era: Era,
    pub(crate) market: Market,
    pub(crate) faults: FaultsHandle,
    /// One for each recorder; none before an embedded server.
    pub(crate) proxies: Vec<Proxy>,
    /// Of the rounds so far: ticks, and gaps repaired, no loss, unrecoverable, and of these needless.
    pub(crate) counts: [usize; 5],
    exchanges: String,
    password: String,
    cluster: Option<Cluster>,
    /// Between the proxies and the server.
    pooler: Option<Bouncer>,
    pool: Option<PgPool>,
    options: Options,
    spool: PathBuf,
    stop: CancellationToken,
    serving: JoinSet<()>,
    // Last, so that the server ends after all that use it.
    _scratch: Scratch,
}

impl World {
    /// Starts the exchanges, and the server where it is ours.
    pub(crate) async fn start(era: Era) -> Self {
        let rate = Decimal::from(era.rate);
        let options = SimulatorOptions { seed: era.number, rate, ..SimulatorOptions::default() };
        let simulator = Simulator::bind(options).await.unwrap();
        let (market, faults) = (simulator.market().clone(), simulator.faults());
        let exchanges = simulator.address().to_string();
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        let run = simulator.run(stop.clone());
        serving.spawn(async move { run.await.unwrap() });

        let scratch = Scratch::new("-chaos");
        std::fs::write(scratch.path().join("port"), format!("{}\n", free_port(era))).unwrap();
        // What was committed must outlive the server's death.
        let options = Options { durability: Durability::Full, ..scratch.options() };
        let mut world = Self {
            era,
            market,
            faults,
            proxies: Vec::new(),
            counts: [0; 5],
            exchanges,
            password: String::new(),
            cluster: None,
            pooler: None,
            pool: None,
            options,
            spool: scratch.path().join("spool"),
            stop,
            serving,
            _scratch: scratch,
        };
        (0..RECORDERS).for_each(|who| world.set_clock(who, 0));
        if era.server == Server::Own {
            let cluster = Cluster::start(&world.options).await.unwrap();
            let pgpass = std::fs::read_to_string(cluster.pgpass()).unwrap();
            pgpass.trim().rsplit(':').next().unwrap().clone_into(&mut world.password);
            let options: PgConnectOptions = cluster.url().parse().unwrap();
            if era.is_pooled
                && let Some(tool) = tools::pgbouncer("a pooler in session mode")
            {
                world.pooler = Some(Bouncer::start(&tool, &options, "session", 50).await);
            }
            let port = world.pooler.as_ref().map_or_else(|| cluster.port(), |pooler| pooler.port);
            for _ in 0..RECORDERS {
                world.proxies.push(Proxy::start(port).await);
            }
            world.cluster = Some(cluster);
        }
        world
    }

    /// The settings of one recorder.
    pub(crate) fn settings(&self, plan: &Plan, who: usize) -> Vec<(String, String)> {
        let setting = |key: &str, value: &dyn std::fmt::Display| {
            (format!("TRADING_CORE__{key}"), value.to_string())
        };
        let ms = |time: Duration| format!("{}ms", time.as_millis());
        let mut settings = vec![
            setting("BATCH__MAX_TIME", &ms(plan.batch_time)),
            setting("BATCH__RETRY_DELAY", &ms(plan.retry_delay)),
            setting("SPOOL__MAX_BYTES", &plan.spool_bytes),
            setting("PIPELINE__HEALTH_INTERVAL", &"5s"),
        ];
        for (exchange, quote) in all().map(|it| (it.name(), it.usual_quote())) {
            let symbols: Vec<String> =
                BASES.iter().take(self.era.symbols).map(|base| format!("{base}{quote}")).collect();
            let own = |key: &str, value: &dyn std::fmt::Display| {
                setting(&format!("EXCHANGES__{}__{key}", exchange.to_uppercase()), value)
            };
            settings.extend([
                own("SYMBOLS", &symbols.join(",")),
                own("WS_URL", &format!("ws://{}/{exchange}", self.exchanges)),
                own("REST_URL", &format!("http://{}/{exchange}", self.exchanges)),
                own("CONNECTIONS", &plan.connections),
            ]);
        }
        if plan.sets_clocks()
            && let Some(library) = tools::faketime_library("clock steps")
        {
            let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            settings.extend([
                pair("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
                // Seconds for which what the file says is kept.
                pair("FAKETIME_CACHE_DURATION", "1"),
                pair("FAKETIME_TIMESTAMP_FILE", self.clock(who).to_str().unwrap()),
                pair("LD_PRELOAD", library.to_str().unwrap()),
            ]);
        }
        if let Some(proxy) = self.proxies.get(who) {
            settings.push(setting("SPOOL__DIR", &self.spool.display()));
            let (password, port) = (&self.password, proxy.port());
            let url = format!(
                "postgres://trading_core:{password}@127.0.0.1:{port}/trading_core?sslmode=disable"
            );
            settings.push(("DATABASE_URL".to_owned(), url));
        } else {
            // The spool lies beside it by itself.
            let data_dir = self.options.data_dir.as_deref().unwrap();
            settings.push(setting("DATABASE__DATA_DIR", &data_dir.display()));
        }
        settings
    }

    /// Where the clock that a recorder sees is read from.
    fn clock(&self, who: usize) -> PathBuf {
        self.spool.with_file_name(format!("clock-{who}"))
    }

    /// Sets the clock that a recorder sees so many seconds off.
    pub(crate) fn set_clock(&self, who: usize, off: i64) {
        // Replaced whole: it is read at any moment.
        let (file, new) = (self.clock(who), self.spool.with_file_name("clock-new"));
        std::fs::write(&new, format!("{off:+}\n")).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    /// Where batches wait that the database could not take.
    pub(crate) fn spool(&self) -> &Path {
        &self.spool
    }

    /// Whether the server runs.
    pub(crate) async fn is_up(&self) -> bool {
        server_pid(&self.options).await.is_some()
    }

    /// Takes the server away; says whether it was there.
    pub(crate) async fn take_away(&mut self, how: Stop) -> Result<bool, String> {
        let Some(pid) = server_pid(&self.options).await else { return Ok(false) };
        match how {
            Stop::Fast => {
                command::stop(&self.options).await.map_err(|error| error.to_string())?;
            }
            Stop::Immediate | Stop::Kill => {
                let signal = if how == Stop::Kill { Signal::SIGKILL } else { Signal::SIGQUIT };
                kill(Pid::from_raw(pid), signal).unwrap();
            }
        }
        // The guard of an embedded one may bring it back at any moment, as another process.
        let deadline = Instant::now() + UP_WITHIN;
        while server_pid(&self.options).await == Some(pid) {
            if Instant::now() > deadline {
                return Err("the server does not go".to_owned());
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(true)
    }

    /// Brings the server back, unless it is.
    pub(crate) async fn bring_back(&mut self) -> Result<(), String> {
        if !self.is_up().await || self.cluster.is_none() {
            let cluster = Cluster::start(&self.options).await.map_err(|error| error.to_string())?;
            // An embedded one is left to the recorders, as a killed one leaves it.
            self.cluster = (self.era.server == Server::Own).then_some(cluster);
        }
        Ok(())
    }

    /// Connections to the database, around all proxies, once it has been there. They come and go with it.
    pub(crate) async fn pool(&mut self) -> Result<PgPool, String> {
        let deadline = Instant::now() + UP_WITHIN;
        loop {
            if let Some(pool) = &self.pool {
                return Ok(pool.clone());
            }
            let status = command::status(&self.options).await.map_err(|error| error.to_string())?;
            if let Some(server) = status.server {
                let options =
                    PgPoolOptions::new().max_connections(2).acquire_timeout(ANSWER_WITHIN);
                let pool = options.connect_lazy(&server.url).map_err(|error| error.to_string())?;
                self.pool = Some(pool);
            } else if Instant::now() > deadline {
                return Err("the database does not come up".to_owned());
            } else {
                sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Ends all of it.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        while self.serving.join_next().await.is_some() {}
        if let Some(pool) = self.pool.take() {
            pool.close().await;
        }
        if let Some(cluster) = self.cluster.take() {
            cluster.stop().await.unwrap();
        }
    }
}

/// A port that stays free while the server is away: none that the system gives to others. Not drawn from the seed, so that two
/// runs beside each other do not meet.
fn free_port(era: Era) -> u16 {
    let mut random = Random::new(u64::from(std::process::id()), era.number);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let drawn = || u16::try_from(random.between(20_000, 30_000)).unwrap();
    std::iter::repeat_with(drawn).take(1_000).find(is_free).unwrap()
}
