//! A simulator, a database and a pipeline between them: where gaps are made and repaired.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use trading_core::config::NetworkSettings;
use trading_core::config::{Overrides, load};
use trading_core::domain::{Instrument, RecorderClock, Symbol, Tick, Timestamp};
use trading_core::exchange::by_name;
use trading_core::exchange::history::HistoryRules;
use trading_core::network::Network;
use trading_core::pipeline::{Ledger, LedgerReading, Pipeline, PipelineParts, Spooling, channel};
use trading_core::repair::{self, RepairContext, RepairVenue};
use trading_core::rest::RestClient;
use trading_core::simulator::{FaultsHandle, Market, RestLimits, SimulatorOptions};
use trading_core::store::Store as _;
use trading_core::store::postgres::PostgresStore;
use trading_core::store::postgres::maintenance::upsert_instruments;

use super::exchanges::Exchanges;
use super::postgres::{TestDatabase, migrated};
use super::ticks::traded;
use super::waiting::{spawn, until};

/// One gap's row: its ids, status and note.
pub(crate) type Row = (Option<String>, Option<String>, String, Option<String>);

/// One exchange's past beside a database of its own.
pub(crate) struct Place {
    pub(crate) database: TestDatabase,
    pub(crate) market: Market,
    pub(crate) faults: FaultsHandle,
    pub(crate) instrument: Instrument,
    pub(crate) venue: RepairVenue,
    pub(crate) clock: RecorderClock,
    exchanges: Exchanges,
}

/// A repair that runs, with a pipeline of its own.
pub(crate) struct Repairing {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) context: RepairContext,
    stop: CancellationToken,
    running: Vec<AbortOnDropHandle<()>>,
    pipeline: AbortOnDropHandle<()>,
}

/// The options of most tests: nobody is refused for asking too often.
pub(crate) fn options() -> SimulatorOptions {
    SimulatorOptions { seed: 42, rest_limits: RestLimits::none(), ..SimulatorOptions::default() }
}

impl Place {
    /// Of BTC on one exchange.
    pub(crate) async fn new(exchange: &str, options: SimulatorOptions) -> Self {
        let database = migrated().await;
        let exchanges = Exchanges::with(options).await;
        let (market, faults) = (exchanges.market.clone(), exchanges.faults.clone());
        let exchange = by_name(exchange).unwrap();
        let symbol = Symbol::new("BTC", exchange.usual_quote()).unwrap();
        let instrument = Instrument::intern(exchange.name(), &symbol).unwrap();
        let spelling = exchange.venue_symbol(&symbol);
        upsert_instruments(&database.pool, &[(instrument, spelling)]).await.unwrap();
        let rules = HistoryRules {
            requests: 1_000.try_into().unwrap(),
            per: Duration::from_secs(1),
            ..exchange.history().rules()
        };
        let network = Network::new(&NetworkSettings::default()).unwrap();
        let venue = RepairVenue {
            exchange,
            instruments: vec![instrument],
            rest_url: exchanges.url("http", exchange.name()),
            client: Arc::new(RestClient::new(rules, &network, Arc::default()).unwrap()),
        };
        let clock = RecorderClock::default();
        Self { database, market, faults, instrument, venue, clock, exchanges }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.database.pool
    }

    /// The newest id.
    pub(crate) fn latest(&self) -> u64 {
        let (exchange, symbol) = (self.instrument.exchange(), self.instrument.symbol());
        self.market.latest(exchange, symbol, Timestamp::now()).unwrap()
    }

    /// The market's trade of this id; `None`: never issued.
    pub(crate) fn tick(&self, id: u64) -> Option<Tick> {
        traded(&self.market, self.instrument, id)
    }

    /// When the trade of this id was, or the next one before it.
    pub(crate) fn time(&self, id: u64) -> Timestamp {
        (0..).find_map(|back| self.tick(id - back)).unwrap().exchange_at
    }

    /// Stores these, as a recorder has; those that were never issued are left out.
    pub(crate) async fn store(&self, ids: impl IntoIterator<Item = u64>) {
        let ticks: Vec<Tick> = ids.into_iter().filter_map(|id| self.tick(id)).collect();
        self.store_ticks(&ticks).await;
    }

    /// Stores these ticks.
    pub(crate) async fn store_ticks(&self, ticks: &[Tick]) {
        let store = PostgresStore::new(self.database.socket());
        for batch in ticks.chunks(10_000) {
            store.write(batch).await.unwrap();
        }
    }

    /// Lists a gap of ids that was found a while ago.
    pub(crate) async fn gap(&self, first: u64, last: u64) {
        let ids = Some((first, last));
        self.list(ids, (self.time(first - 1), self.time(last + 1))).await;
    }

    /// Lists a gap that was found a while ago.
    pub(crate) async fn list(&self, ids: Option<(u64, u64)>, times: (Timestamp, Timestamp)) {
        sqlx::query(
            "INSERT INTO tick_gaps (exchange, symbol, first_id, last_id, from_time, to_time, cause, opened_at) \
             VALUES ($1, $2, $3, $4, $5, $6, 'a test', now() - interval '10 s')",
        )
        .bind(self.instrument.exchange())
        .bind(self.instrument.symbol().as_str())
        .bind(ids.map(|ids| ids.0.to_string()))
        .bind(ids.map(|ids| ids.1.to_string()))
        .bind(times.0.to_datetime())
        .bind(times.1.to_datetime())
        .execute(self.pool())
        .await
        .unwrap();
    }

    /// All gaps, in order.
    pub(crate) async fn gaps(&self) -> Vec<Row> {
        sqlx::query_as(
            "SELECT first_id, last_id, status, note FROM tick_gaps \
             ORDER BY from_time, length(first_id), first_id",
        )
        .fetch_all(self.pool())
        .await
        .unwrap()
    }

    /// The status of every gap, in order, once none is open.
    pub(crate) async fn closed(&self) -> Vec<String> {
        let open = "SELECT count(*) FROM tick_gaps WHERE status = 'open'";
        until(async || match sqlx::query_scalar(open).fetch_one(self.pool()).await.unwrap() {
            0_i64 => Ok(()),
            open => Err(format!("{open} are still open")),
        })
        .await;
        self.gaps().await.into_iter().map(|(_, _, status, _)| status).collect()
    }

    /// Waits until a query answers true.
    pub(crate) async fn until(&self, query: &'static str) {
        until(async || {
            // Null is not true either.
            let answer = sqlx::query_scalar::<_, Option<bool>>(query).fetch_one(self.pool()).await;
            if answer.unwrap() == Some(true) {
                return Ok(());
            }
            Err(format!("never: {query}\n{:?}", self.gaps().await))
        })
        .await;
    }

    /// Waits until the stored ids were looked through up to this one.
    pub(crate) async fn until_checked(&self, id: u64) {
        let query = "SELECT trade_id FROM checked_until";
        until(async || {
            let checked: Option<String> =
                sqlx::query_scalar(query).fetch_optional(self.pool()).await.unwrap();
            if checked == Some(id.to_string()) {
                return Ok(());
            }
            Err(format!("looked through to {checked:?} and not to {id}"))
        })
        .await;
    }

    /// Ids of the range that the market issued and that are not stored.
    pub(crate) async fn missing(&self, first: u64, last: u64) -> Vec<u64> {
        let stored: Vec<String> = sqlx::query_scalar("SELECT trade_id FROM tick_data")
            .fetch_all(self.pool())
            .await
            .unwrap();
        let stored: std::collections::BTreeSet<u64> =
            stored.iter().map(|id| id.parse().unwrap()).collect();
        (first..=last).filter(|id| self.tick(*id).is_some() && !stored.contains(id)).collect()
    }

    /// Begins to repair, under a name.
    pub(crate) fn repair(&self, name: &str) -> Repairing {
        let mut repairing = self.pipeline(name);
        self.repair_by(&mut repairing);
        repairing
    }

    /// Begins to repair through this pipeline.
    pub(crate) fn repair_by(&self, repairing: &mut Repairing) {
        let day = Duration::from_secs(86_400);
        let (venues, context) = (vec![self.venue.clone()], repairing.context.clone());
        let run = repair::run(context, venues, day, repairing.stop.clone());
        repairing.running.push(spawn(run));
    }

    /// Only the pipeline of a repair.
    pub(crate) fn pipeline(&self, name: &str) -> Repairing {
        self.pipeline_to(name, self.database.socket(), None)
    }

    /// The same, to a database that may be another one than repair reads, and with a spool.
    pub(crate) fn pipeline_to(
        &self,
        name: &str,
        database: PgConnectOptions,
        spooling: Option<Spooling>,
    ) -> Repairing {
        let settings = load(None, &BTreeMap::new(), &Overrides::default()).unwrap().settings;
        let mut batch = settings.batch.clone();
        batch.max_time = Duration::from_millis(50);
        batch.retry_delay = Duration::from_millis(50);
        let ledger = Arc::new(Ledger::default());
        let (sender, receiver) = channel(10_000, Arc::clone(&ledger));
        let store = Arc::new(PostgresStore::new(database));
        let parts = PipelineParts { records: receiver, store, observers: Vec::new(), spooling };
        let pipeline = Pipeline::new(parts, &settings.pipeline, &batch);
        let context = RepairContext {
            pool: self.pool().clone(),
            sender,
            ledger: Arc::clone(&ledger),
            recorder: name.to_owned(),
            clock: self.clock.clone(),
            held: pipeline.held(),
        };
        let stop = CancellationToken::new();
        let pipeline = spawn(pipeline.run());
        Repairing { ledger, context, stop, running: Vec::new(), pipeline }
    }

    /// Looks the stored ids through, beside a repair.
    pub(crate) fn audit(&self, repairing: &mut Repairing) {
        let (venues, context) = (vec![self.venue.clone()], repairing.context.clone());
        let day = Duration::from_secs(86_400);
        let audit = repair::audit(context, venues, day, repairing.stop.clone());
        repairing.running.push(spawn(audit));
    }

    pub(crate) async fn close(self) {
        self.exchanges.close().await;
    }
}

impl Repairing {
    /// Ends it in order: what was sent is stored then.
    pub(crate) async fn stop(self) -> LedgerReading {
        self.stop.cancel();
        for task in self.running {
            task.await.unwrap();
        }
        drop(self.context);
        self.pipeline.await.unwrap();
        let reading = self.ledger.read();
        assert!(reading.balances(), "{reading}");
        assert_eq!(reading.in_flight, 0, "{reading}");
        reading
    }

    /// Dies as a killed process does: nothing is said to anybody.
    pub(crate) async fn kill(self) {
        for task in &self.running {
            task.abort();
        }
        self.pipeline.abort();
        for task in self.running {
            assert!(task.await.is_err_and(|error| error.is_cancelled()));
        }
    }
}
