//! Simulated exchanges that are served inside this process.

use std::net::SocketAddr;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::market_hours::MarketHours;
use crate::simulator::{Simulator, SimulatorError, SimulatorOptions};

/// The most that such a REST side shows of a symbol in a demonstration.
const HISTORY_MAX: usize = 20_000;

/// Simulated exchanges, until they are ended.
#[derive(Debug)]
pub(super) struct ServedExchanges {
    address: SocketAddr,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl ServedExchanges {
    /// Serves them, with as much history as a demonstration needs.
    pub(super) async fn serve(options: SimulatorOptions) -> Result<Self, SimulatorError> {
        let history = Some(history(options.rate));
        let simulator = Simulator::bind(SimulatorOptions { history, ..options }).await?;
        let address = simulator.address();
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        let run = simulator.run(stop.clone());
        tasks.spawn(async move {
            if let Err(error) = run.await {
                error!(%error, "The simulated exchanges have ended");
            }
        });
        Ok(Self { address, tasks, stop })
    }

    /// Where they are served.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Keeps the hours of their market. Cancelling the token that is returned closes the market, while the exchanges are
    /// served still.
    pub(super) fn keep_hours(&mut self, hours: MarketHours) -> CancellationToken {
        let close = self.stop.child_token();
        self.tasks.spawn(hours.run(close.clone()));
        close
    }

    /// Ends them, and closes their market where it has hours.
    pub(super) async fn end(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Trades that a REST side shows in a demonstration where the real one has only a few (Bybit: sixty): ten minutes of a
/// symbol, so that what a killed run had in memory only is fetched again.
fn history(rate: Decimal) -> usize {
    let trades = rate.checked_mul(Decimal::from(600)).and_then(|trades| trades.to_usize());
    trades.unwrap_or(HISTORY_MAX).clamp(1_000, HISTORY_MAX)
}
