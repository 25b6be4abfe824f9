//! The simulated exchanges, served by the test's own process, and the rows that a recorder of them stores.

use std::net::SocketAddr;

use rust_decimal::Decimal;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use trading_core::domain::Timestamp;
use trading_core::exchange::names;
use trading_core::simulator::{
    Action, Clock, FaultsHandle, Market, Simulator, SimulatorOptions, Target,
};

use super::process::{Settings, setting};
use super::waiting::{spawn, until};

/// All simulated exchanges on one port of this machine, until they are closed or dropped.
pub(crate) struct Exchanges {
    pub(crate) address: SocketAddr,
    /// What they trade.
    pub(crate) market: Market,
    /// Their switches.
    pub(crate) faults: FaultsHandle,
    /// The settings that name their WebSockets.
    pub(crate) settings: Settings,
    cancel: CancellationToken,
    serving: AbortOnDropHandle<()>,
}

impl Exchanges {
    /// A market that trades this often a second in each symbol.
    pub(crate) async fn start(rate: i64) -> Self {
        Self::with_clock(rate, Clock::default()).await
    }

    /// With this clock, by which they trade, stamp and answer.
    pub(crate) async fn with_clock(rate: i64, clock: Clock) -> Self {
        let rate = Decimal::from(rate);
        Self::with(SimulatorOptions { seed: 42, rate, clock, ..SimulatorOptions::default() }).await
    }

    /// With these options.
    pub(crate) async fn with(options: SimulatorOptions) -> Self {
        let simulator = Simulator::bind(options).await.unwrap();
        let (market, faults) = (simulator.market().clone(), simulator.faults());
        let (address, cancel) = (simulator.address(), CancellationToken::new());
        let run = simulator.run(cancel.clone());
        let serving = spawn(async move { run.await.unwrap() });
        let settings = urls(&address.to_string(), "WS").collect();
        Self { address, market, faults, settings, cancel, serving }
    }

    /// Where one of them is reached by this scheme, `ws` or `http`.
    pub(crate) fn url(&self, scheme: &str, exchange: &str) -> String {
        format!("{scheme}://{}/{exchange}", self.address)
    }

    /// The settings that name their REST sides too, so that gaps are repaired.
    pub(crate) fn with_history(&self) -> Settings {
        with_history(&self.address.to_string())
    }

    /// Does this at all of them.
    pub(crate) fn act(&self, action: Action) {
        self.faults.act(&Target::default(), action, Timestamp::now()).unwrap();
    }

    /// Ends them in order, and fails where serving has failed.
    pub(crate) async fn close(self) {
        self.cancel.cancel();
        self.serving.await.unwrap();
    }
}

/// The settings of all exchanges at `<base>/<name>`, their REST sides included.
pub(crate) fn with_history(base: &str) -> Settings {
    urls(base, "WS").chain(urls(base, "REST")).collect()
}

fn urls(base: &str, side: &str) -> impl Iterator<Item = (String, String)> {
    let scheme = if side == "WS" { "ws" } else { "http" };
    names().into_iter().map(move |name| {
        let key = format!("EXCHANGES__{}__{side}_URL", name.to_uppercase());
        setting(&key, format!("{scheme}://{base}/{name}"))
    })
}

async fn count(pool: &PgPool, exchange: &str) -> Option<i64> {
    let rows = sqlx::query_scalar("SELECT count(*) FROM tick_data WHERE exchange = $1");
    // None while the database is away, or its tables are not made yet.
    rows.bind(exchange).fetch_one(pool).await.ok()
}

/// Waits until each exchange has `by` more rows than now.
pub(crate) async fn grown(pool: &PgPool, by: i64) {
    for exchange in names() {
        let mut goal = None;
        until(async || match count(pool, exchange).await {
            Some(rows) if rows >= *goal.get_or_insert(rows + by) => Ok(()),
            rows => Err(format!("{exchange} has {rows:?} rows and should have {goal:?}")),
        })
        .await;
    }
}
