//! The second way in: gaps are filled from the exchanges' history, through the same channel.
//!
//! ```text
//! tick_gaps ──▶ claim ──▶ what is missing? ──▶ history, page by page ──▶ channel ──▶ store
//!                              ▲                                                       │
//!                              └────────── stored? then the gap is closed ◀────────────┘
//! ```
//!
//! Repair is batch work: it waits while recording needs the channel or the store. A gap is closed by what the database
//! holds, never by what was sent: as repaired, as unrecoverable (the exchange no longer has it), as no loss (the
//! exchange's history skips the ids too), or in parts. A gap that cannot be closed stays open, and is tried again later.
//!
//! The auditor looks through what is stored, once, and opens what nobody noticed.

mod admission;
mod audit;
mod load;
mod quarantine;
mod says;
mod verdict;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

pub use audit::audit;
pub use load::{LoadError, Loaded, load};
pub use quarantine::{Reread, reread_quarantined};
pub use worker::repair_all;

use crate::domain::{HeldSince, Instrument, RecorderClock, Tick};
use crate::exchange::history::Depth;
use crate::exchange::{Exchange, IdRule};
use crate::pipeline::{ChannelClosed, Ledger, Receipt, TickSender};
use crate::rest::RestClient;
use crate::store::postgres::gaps::{GapScope, exchanges_with_work, release_held};
use crate::store::postgres::remedy;
use crate::store::{Remedy, said};
use crate::telemetry::RepeatLimiter;
use worker::Worker;

/// Gaps of one exchange that are worked on at once: while one waits to be stored, the next is asked for.
const WORKERS: usize = 4;
/// How often it is asked whether there is work for idle workers.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is logged that the database is away.
const AWAY_INTERVAL: Duration = Duration::from_secs(60);
/// The age from which on a gap is repaired, so that late ticks can fill it first; zero where the exchange soon forgets.
const SETTLED: Duration = Duration::from_secs(2);
/// Where a trade is dated otherwise in the history, and no id tells which are missing, those that came since are to be
/// stored first, so that they are known.
const WRITTEN: Duration = Duration::from_secs(10);
/// Ranges of missing ids that are known at once.
const RANGES_MAX: usize = 5_000;
/// Ticks that enter the channel at once.
const PORTION: usize = 500;

/// What all of repair is given. It holds an end of the channel: the pipeline ends after it.
#[derive(Debug, Clone)]
pub struct RepairContext {
    /// Connections to the database.
    pub pool: PgPool,
    /// Where ticks go.
    pub sender: TickSender,
    /// Where they are counted.
    pub ledger: Arc<Ledger>,
    /// Which run of which process this is; no other has this name.
    pub recorder: String,
    /// Whether this machine's clock is off: then nothing is given up.
    pub clock: RecorderClock,
    /// Since when the pipeline holds what is not stored.
    pub held: HeldSince,
}

impl RepairContext {
    /// Takes a portion of these ticks and sends it. Not cancel-safe.
    async fn send_some(&self, ticks: &mut Vec<Tick>) -> Result<Receipt, ChannelClosed> {
        self.sender.send_tracked(&mut portion(ticks)).await
    }
}

/// Takes of these ticks those that enter the channel at once.
fn portion(ticks: &mut Vec<Tick>) -> Vec<Tick> {
    ticks.drain(..ticks.len().min(PORTION)).collect()
}

/// An exchange whose gaps are repaired.
#[derive(Debug, Clone)]
pub struct RepairVenue {
    /// Its protocol.
    pub exchange: &'static dyn Exchange,
    /// What of it is recorded.
    pub instruments: Vec<Instrument>,
    /// Its REST base, without trailing slash.
    pub rest_url: String,
    /// The one client of this exchange, which keeps its limits.
    pub client: Arc<RestClient>,
}

impl RepairVenue {
    /// Its gaps, of these symbols or of all, that begin no longer ago than this.
    #[must_use]
    pub fn scope(&self, symbols: Option<Vec<String>>, max_age: Option<Duration>) -> GapScope {
        let rules = self.exchange.history().rules();
        let is_hurried = rules.depth == Depth::Newest;
        GapScope {
            exchange: self.exchange.name(),
            symbols,
            max_age,
            settled: match (self.exchange.ids(), rules.times_apart) {
                _ if is_hurried => Duration::ZERO,
                (IdRule::Unique, Some(_)) => WRITTEN,
                _ => SETTLED,
            },
            newest_first: is_hurried,
        }
    }
}

/// Repairs the gaps of these exchanges that begin no longer ago than `max_age`, as they are found, until it is stopped.
pub async fn run(
    context: RepairContext,
    venues: Vec<RepairVenue>,
    max_age: Duration,
    stop: CancellationToken,
) {
    let (wake, woken) = watch::channel(Vec::new());
    let workers: Vec<Worker> = venues
        .iter()
        .flat_map(|venue| {
            let scope = venue.scope(None, Some(max_age));
            Worker::several(&context, venue, &scope, WORKERS, &stop)
        })
        .collect();
    let names: Vec<&'static str> = venues.iter().map(|venue| venue.exchange.name()).collect();
    let loops = workers.iter().map(|worker| attend(worker, woken.clone(), &stop));
    let look = look_for_work(&context, &names, max_age, &wake);
    let tell = async {
        loop {
            sleep(LOOK_INTERVAL).await;
            workers.iter().for_each(Worker::tell_due);
        }
    };
    // A worker that is stopped still sends on what it has begun to send.
    let work = join_all(loops);
    futures_util::join!(work, stop.run_until_cancelled(look), stop.run_until_cancelled(tell));
    workers.iter().for_each(Worker::tell_rest);
}

/// Works on one gap after the other, and waits where there is none.
async fn attend(
    worker: &Worker,
    mut woken: watch::Receiver<Vec<String>>,
    stop: &CancellationToken,
) {
    while !stop.is_cancelled() {
        match worker.step().await {
            Ok(true) => {}
            Ok(false) => {
                worker.tell();
                let called = async {
                    while woken.changed().await.is_ok() {
                        if woken.borrow().iter().any(|name| name == worker.exchange()) {
                            break;
                        }
                    }
                };
                stop.run_until_cancelled(called).await;
            }
            // Said by the one who looks for work.
            Err(_away) => {
                stop.run_until_cancelled(sleep(LOOK_INTERVAL)).await;
            }
        }
    }
}

/// Calls the workers of the exchanges that have open gaps.
async fn look_for_work(
    RepairContext { pool, clock, .. }: &RepairContext,
    exchanges: &[&'static str],
    max_age: Duration,
    wake: &watch::Sender<Vec<String>>,
) {
    let mut away = RepeatLimiter::new(AWAY_INTERVAL);
    // An earlier run may have held some, by a clock that was off.
    let mut holds = true;
    loop {
        if clock.is_off() {
            holds = true;
        } else if holds {
            holds = release_held(pool, exchanges, verdict::HELD).await.is_err();
        }
        match exchanges_with_work(pool, exchanges, Some(max_age)).await {
            Ok(names) if names.is_empty() => {}
            Ok(names) => {
                wake.send_replace(names);
            }
            // A database that is away is told of by who writes to it.
            Err(error) if remedy(&error) == Remedy::Retry => {
                debug!(error = %said(&error), "The gaps wait for the database");
            }
            Err(error) => {
                if away.admit(Instant::now()).is_some() {
                    warn!(error = %said(&error), "The gaps cannot be read, and wait");
                }
            }
        }
        sleep(LOOK_INTERVAL).await;
    }
}
