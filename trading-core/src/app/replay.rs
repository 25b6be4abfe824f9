//! `trading-core replay`: the strategies of the settings trade on what is stored.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use sqlx::PgPool;

use super::database::Database;
use super::recorded::must_be_there;
use super::signals::{Interrupted, StopSignals};
use super::start_error::StartError;
use crate::config::{PaperSettings, Settings};
use crate::domain::Timestamp;
use crate::paper::{self, Engine, Fill, PaperError, Replayed, Speed, TickQuery, TickStream};
use crate::telemetry::{Progress, Total, Unit};

/// At less than full speed no query is about more than this takes.
const QUERY_TIME: Duration = Duration::from_secs(60);

/// What is replayed.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// The strategies, each with a fresh account.
    pub strategies: PaperSettings,
    /// When the ticks arrived, the end excluded.
    pub arrived: Range<Timestamp>,
    /// Only what arrived live, without ticks that were fetched later.
    pub as_received: bool,
    /// How fast.
    pub speed: Speed,
    /// Where PostgreSQL's programs are (`PG_BIN`); `None`: searched for.
    pub pg_bin: Option<PathBuf>,
}

/// Why nothing could be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The database is not there, or cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Stopped before it began.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The strategies cannot trade on what is stored.
    #[error(transparent)]
    Paper(#[from] PaperError),
}

/// Replays what is stored; a signal ends it where it is, which the answer says. `on_fill` is given each fill with its
/// account, and ends the replay by `false`.
///
/// # Errors
///
/// When it cannot begin, or the database fails on the way.
pub async fn replay(
    settings: &Settings,
    options: ReplayOptions,
    on_fill: impl FnMut(&str, &Fill) -> bool + Send,
) -> Result<Replayed, ReplayError> {
    let pg_bin = options.pg_bin.clone();
    must_be_there(settings, pg_bin.clone(), "replay --paper-trading").await?;
    let mut signals = StopSignals::listen().map_err(StartError::Signals)?;
    let database = tokio::select! {
        database = Database::open(settings, pg_bin.clone()) => database?,
        signal = signals.next() => {
            Database::leave(settings, pg_bin).await;
            return Err(Interrupted { signal }.into());
        }
    };
    // One reads ticks, one is asked how many there are.
    let replayed = match database.migrated_pool(2).await {
        Ok(pool) => {
            let replayed = run(&pool, options, &mut signals, on_fill).await;
            pool.close().await;
            replayed.map_err(ReplayError::from)
        }
        Err(error) => Err(error.into()),
    };
    database.close().await;
    replayed
}

async fn run(
    pool: &PgPool,
    options: ReplayOptions,
    signals: &mut StopSignals,
    on_fill: impl FnMut(&str, &Fill) -> bool + Send,
) -> Result<Replayed, PaperError> {
    let ReplayOptions { strategies, arrived, as_received, speed, .. } = options;
    let engine = Engine::new(&strategies)?;
    let mut query = TickQuery::new(engine.instruments(), arrived, as_received);
    if let Some(time) = speed.market_time(QUERY_TIME) {
        query.slice_max = query.slice_max.min(time);
    }
    let total = query.estimate(pool).await?.map_or(Total::Unknown, Total::About);
    let what = format!("Replay at {speed}");
    let progress = Progress::start(what, Unit::Of("ticks"), total);
    let ticks = TickStream::start(pool.clone(), query);
    let stop = async {
        signals.next().await;
    };
    let replayed = paper::replay(engine, ticks, speed, &progress, stop, on_fill).await?;
    progress.finish();
    Ok(replayed)
}
