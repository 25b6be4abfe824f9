//! Paper trading beside the recorder: it sees every tick through a tap of the pipeline, and recording never waits for it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::preparation::Prepared;
use super::tasks::{Phase, Tasks};
use super::venues::Venue;
use crate::config::Settings;
use crate::domain::Tick;
use crate::paper::{self, PgStore, SummaryHandle};
use crate::pipeline::{Observer, tap};
use crate::store::cause_of;
use crate::store::spool::Spool;

/// How long paper trading waits for the spool of an earlier run to be stored.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// Starts paper trading; what is returned is for the pipeline.
pub(super) fn spawn_into(
    tasks: &mut Tasks,
    settings: &Settings,
    venues: &[Venue],
    prepared: &Prepared,
) -> Observer {
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
    let observer = Observer { tap: sender, report: Box::new(move || shown.get().to_string()) };
    // Before the first feed: what arrives from now on comes over the tap, what did before is stored.
    let started_at = prepared.clock.now();
    let store = PgStore::new(prepared.pool.clone(), started_at);
    let (spool, ready) = (prepared.spool.clone(), prepared.ready.clone());
    let stop = tasks.stop_of(Phase::Sources);
    tasks.spawn(Phase::Sinks, "paper trading", async move {
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
            // Its end is no reason to end the recorder, which stops when a stage ends.
            stop.cancelled().await;
        }
    });
    observer
}

/// Waits until what the run before left in the spool is in the table, where paper trading looks for it; meanwhile ticks
/// wait in the tap.
async fn drained(spool: &Spool<Tick>, stop: &CancellationToken) {
    tokio::select! {
        biased;
        () = spool.until_empty_is(true) => {}
        () = stop.cancelled() => {}
        () = tokio::time::sleep(DRAIN_MAX) => warn!(
            "Paper trading begins without the ticks that are in the spool: strategies may decide otherwise than with them"
        ),
    }
}
