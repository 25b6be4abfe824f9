//! `trading-core backfill`: the pipeline without feeds. Gaps are repaired, a range is loaded, or quarantined frames are
//! read again; beside a recorder on the same database, or alone.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::join_all;
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::database::Database;
use super::identity::identity;
use super::recorded::{must_be_meant, must_be_there};
use super::signals::StopSignals;
use super::stand_in::{StandIn, StandInError};
use super::start_error::StartError;
use super::venues::{Venue, VenueKind, venues};
use crate::config::{Settings, SimulateSettings};
use crate::domain::{GapStatus, Instrument, RecorderClock, TimeRange, Timestamp, count};
use crate::pipeline::{Ledger, LedgerReading, Pipeline, PipelineParts, channel};
use crate::repair::{self, LoadError, RepairContext, RepairVenue, Reread};
use crate::simulator::MARKET_VERSION;
use crate::store::postgres::gaps::{
    GapScope, ListedGap, ask_again, count_gaps, database_time, list_gaps, remove_doubles,
};
use crate::store::postgres::maintenance::{MaintenanceError, upsert_instruments};
use crate::store::postgres::origin::{Origin, claim, origin};
use crate::store::postgres::quarantine::remove_quarantined;
use crate::store::postgres::restore::restore_refused_for_time;
use crate::telemetry::{Progress, Total, Unit};

/// Gaps of one exchange that are listed at the end.
const LISTED_MAX: i64 = 1_000;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct BackfillOptions {
    /// Load everything between these two times, then repair; `None`: only repair.
    pub range: Option<TimeRange>,
    /// Only the symbols of the settings; else the gaps of any symbol.
    pub only_symbols: bool,
    /// Read quarantined frames again, and nothing else.
    pub quarantined: bool,
    /// Where PostgreSQL's programs are (`PG_BIN`); `None`: searched for.
    pub pg_bin: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct BackfillReport {
    /// Of each exchange.
    pub exchanges: Vec<ExchangeReport>,
    /// Where each tick is.
    pub ledger: LedgerReading,
    /// Stopped by a signal before the end.
    pub is_stopped: bool,
}

/// What came of one exchange.
#[derive(Debug)]
pub struct ExchangeReport {
    /// Its name.
    pub exchange: &'static str,
    /// Of the range: each symbol.
    pub range: Vec<RangeReport>,
    /// Of the quarantined frames, where they were read again.
    pub frames: Option<FramesReport>,
    /// The gaps that were closed, and those that are open still, up to a thousand of them.
    pub gaps: Vec<ListedGap>,
    /// How many of them there are, by status.
    pub counts: Vec<(GapStatus, u64)>,
}

/// What came of the quarantined frames of one exchange.
#[derive(Debug)]
pub struct FramesReport {
    /// Frames that could be read.
    pub read: u64,
    /// Frames that still cannot.
    pub unreadable: u64,
    /// What is wrong with the first of those.
    pub reason: Option<String>,
}

/// What came of a range of one symbol.
#[derive(Debug)]
pub struct RangeReport {
    /// Whose.
    pub instrument: Instrument,
    /// Ticks that the history holds there.
    pub ticks: u64,
    /// Why that is not all.
    pub error: Option<LoadError>,
}

impl BackfillReport {
    /// How many gaps have this status now.
    #[must_use]
    pub fn gaps(&self, status: GapStatus) -> u64 {
        let counts = self.exchanges.iter().flat_map(|it| &it.counts);
        counts.filter(|(known, _)| *known == status).map(|(_, number)| number).sum()
    }

    /// Whether all that was asked for is stored.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let is_missing = |status| matches!(status, GapStatus::Open | GapStatus::Unrecoverable);
        let is_whole = |it: &ExchangeReport| {
            it.range.iter().all(|symbol| symbol.error.is_none())
                && it.frames.as_ref().is_none_or(|frames| frames.unreadable == 0)
                && !it.counts.iter().any(|(status, _)| is_missing(*status))
        };
        !self.is_stopped && self.exchanges.iter().all(is_whole)
    }
}

/// Why nothing could be backfilled.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// The database or the exchanges cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The exchanges of this database cannot be asked.
    #[error(transparent)]
    StandIn(#[from] StandInError),
    /// The database does not answer.
    #[error("the database refused")]
    Database(#[from] sqlx::Error),
    /// The quarantined frames could not be read through.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// Fills what is missing over the exchanges' history, as far as they still have it.
///
/// # Errors
///
/// When nothing could be done at all; what could not be repaired is in the report.
pub async fn backfill(
    settings: &Settings,
    options: BackfillOptions,
) -> Result<BackfillReport, BackfillError> {
    let pg_bin = options.pg_bin.clone();
    // A past range may be loaded into a new database; where there is none, nothing else is to be done.
    match options.range {
        Some(_) => must_be_meant(settings, pg_bin.clone(), "backfill").await?,
        None => must_be_there(settings, pg_bin.clone(), "backfill").await?,
    }
    let mut signals = StopSignals::listen().map_err(StartError::Signals)?;
    let database = Database::open(settings, pg_bin).await?;
    let stop = CancellationToken::new();
    let report =
        until_stopped(fill(settings, &options, &database, &stop), &mut signals, &stop).await;
    database.close().await;
    report
}

/// The first signal stops the work in order, the second one ends it where it is.
async fn until_stopped(
    filling: impl Future<Output = Result<BackfillReport, BackfillError>>,
    signals: &mut StopSignals,
    stop: &CancellationToken,
) -> Result<BackfillReport, BackfillError> {
    let mut filling = std::pin::pin!(filling);
    tokio::select! {
        report = &mut filling => return report,
        signal = signals.next() => info!("{signal}: stopping; what was fetched is stored first"),
    }
    stop.cancel();
    tokio::select! {
        report = filling => report,
        signal = signals.next() => {
            warn!("{signal} again: stopped at once");
            Ok(BackfillReport { is_stopped: true, ..BackfillReport::default() })
        }
    }
}

async fn fill(
    settings: &Settings,
    options: &BackfillOptions,
    database: &Database,
    stop: &CancellationToken,
) -> Result<BackfillReport, BackfillError> {
    let writers = u32::try_from(settings.batch.writers.get()).unwrap_or(u32::MAX);
    let pooled = settings.database.max_connections.get().saturating_sub(writers).max(1);
    let pool = database.migrated_pool(pooled).await?;
    let (asked, stand_in) = match options.quarantined {
        // Nobody is asked.
        true => (settings.clone(), None),
        false => StandIn::of_database(settings, &pool).await?,
    };
    let filled = fill_from(&asked, options, database, pool, stop).await;
    if let Some(stand_in) = stand_in {
        stand_in.end().await;
    }
    filled
}

async fn fill_from(
    settings: &Settings,
    options: &BackfillOptions,
    database: &Database,
    pool: PgPool,
    stop: &CancellationToken,
) -> Result<BackfillReport, BackfillError> {
    let reach = match origin(&pool).await.map_err(StartError::from)? {
        Some(Origin::Simulated(_)) => VenueKind::Any,
        Some(Origin::Exchanges) => VenueKind::Real,
        None => {
            let SimulateSettings { seed, rate, .. } = settings.simulate;
            let (own, reach) = match settings.database.simulated {
                true => (
                    Origin::Simulated(format!("seed {seed}, rate {rate}, market {MARKET_VERSION}")),
                    VenueKind::Any,
                ),
                false => (Origin::Exchanges, VenueKind::Real),
            };
            claim(&pool, &own).await.map_err(StartError::from)?;
            reach
        }
    };
    let recorded = venues(settings, reach).map_err(StartError::from)?;
    let instruments: Vec<_> = recorded.iter().flat_map(Venue::spellings).collect();
    let noted = upsert_instruments(&pool, &instruments).await;
    noted.map_err(|error: MaintenanceError| StartError::from(error))?;

    let started_at = database_time(&pool).await?;
    // What a wrong clock had refused need not be fetched.
    let restored = restore_refused_for_time(&pool, RecorderClock::default().offset()).await?;
    if restored.stored > 0 {
        let (stored, gaps) = (restored.stored, restored.reopened);
        info!(
            "{stored} ticks that were refused only for their time are stored, and {gaps} gaps looked at again"
        );
    }
    let ledger = Arc::new(Ledger::default());
    let (sender, receiver) = channel(settings.pipeline.channel_capacity.get(), Arc::clone(&ledger));
    let store = Arc::new(database.store());
    // Without a spool: what could not be stored is fetched again.
    let parts = PipelineParts { records: receiver, store, observers: Vec::new(), spooling: None };
    let pipeline = Pipeline::new(parts, &settings.pipeline, &settings.batch);
    let mut tasks = JoinSet::new();
    let held = pipeline.held();
    tasks.spawn(pipeline.run());

    let recorder = identity(Timestamp::now());
    let context = RepairContext {
        pool: pool.clone(),
        sender,
        ledger: Arc::clone(&ledger),
        recorder,
        clock: RecorderClock::default(),
        held,
    };
    let asked = recorded.iter().filter_map(Venue::repair).collect::<Vec<_>>();
    let work = Work { context, options, stop };
    let done = work.of_all(&asked).await;
    drop(work);
    while tasks.join_next().await.is_some() {}

    let reading = ledger.read();
    let mut report = BackfillReport {
        ledger: reading,
        is_stopped: stop.is_cancelled(),
        ..BackfillReport::default()
    };
    for (venue, done) in asked.iter().zip(done) {
        let done = done?;
        let is_stored = reading.in_flight + reading.dropped == 0;
        report.exchanges.push(done.report(&pool, venue, options, started_at, is_stored).await?);
    }
    pool.close().await;
    Ok(report)
}

/// What is done at every exchange.
struct Work<'a> {
    context: RepairContext,
    options: &'a BackfillOptions,
    stop: &'a CancellationToken,
}

/// What was done at one exchange.
#[derive(Default)]
struct Done {
    range: Vec<RangeReport>,
    reread: Option<Reread>,
}

impl Work<'_> {
    /// The exchanges beside each other, each within its own limits.
    async fn of_all(&self, venues: &[RepairVenue]) -> Vec<Result<Done, BackfillError>> {
        let seconds = self.options.range.map(|range| {
            let symbols: usize = venues.iter().map(|venue| venue.instruments.len()).sum();
            range.duration().as_secs().saturating_mul(count(symbols))
        });
        let progress =
            seconds.map(|it| Progress::start("Loading", Unit::Seconds("trades"), Total::Known(it)));
        let done = join_all(venues.iter().map(|venue| self.of_one(venue, progress.as_ref()))).await;
        if let Some(progress) = progress {
            progress.finish();
        }
        done
    }

    async fn of_one(
        &self,
        venue: &RepairVenue,
        progress: Option<&Progress>,
    ) -> Result<Done, BackfillError> {
        let Self { context, options, stop } = self;
        if options.quarantined {
            let reread = repair::reread_quarantined(context, venue.exchange, stop).await?;
            return Ok(Done { reread: Some(reread), ..Done::default() });
        }
        let mut done = Done::default();
        if let (Some(times), Some(progress)) = (options.range, progress) {
            let loaded =
                repair::load(context, venue, &venue.instruments, times, progress, stop).await;
            done.range = loaded
                .into_iter()
                .map(|it| RangeReport {
                    instrument: it.instrument,
                    ticks: it.ticks,
                    error: it.error,
                })
                .collect();
        }
        let scope = scope(venue, options);
        ask_again(&context.pool, &scope, options.range).await?;
        repair::repair_all(context, venue, &scope, stop).await?;
        Ok(done)
    }
}

impl Done {
    /// What became of it in the database, now that everything is stored.
    async fn report(
        self,
        pool: &PgPool,
        venue: &RepairVenue,
        options: &BackfillOptions,
        started_at: chrono::DateTime<chrono::Utc>,
        is_stored: bool,
    ) -> Result<ExchangeReport, BackfillError> {
        let exchange = venue.exchange.name();
        let mut frames = None;
        if let Some(reread) = self.reread {
            let read = if is_stored { reread.read } else { Vec::new() };
            remove_quarantined(pool, exchange, &read).await?;
            let (unreadable, reason) = (reread.unreadable, reread.reason);
            frames = Some(FramesReport { read: count(read.len()), unreadable, reason });
        }
        if let Some(times) = options.range
            && let Some(apart) = venue.exchange.history().rules().times_apart
        {
            for instrument in &venue.instruments {
                remove_doubles(pool, *instrument, times, apart).await?;
            }
        }
        let (mut gaps, mut counts) = (Vec::new(), Vec::new());
        if !options.quarantined {
            let scope = scope(venue, options);
            gaps = list_gaps(pool, &scope, started_at, LISTED_MAX).await?;
            counts = count_gaps(pool, &scope, started_at).await?;
        }
        Ok(ExchangeReport { exchange, range: self.range, frames, gaps, counts })
    }
}

/// The gaps that are asked for, of any age.
fn scope(venue: &RepairVenue, options: &BackfillOptions) -> GapScope {
    let symbols = options
        .only_symbols
        .then(|| venue.instruments.iter().map(|item| item.symbol().as_str().to_owned()).collect());
    venue.scope(symbols, None)
}
