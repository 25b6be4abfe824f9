//! A range of the past, whole, through the same channel: what is stored already is found to be a duplicate.

use std::time::Duration;

use rustc_hash::FxHashSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::{RepairContext, RepairVenue};
use crate::domain::{Backoff, Instrument, Tick, TimeRange, count};
use crate::exchange::history::{Depth, Pages, Span};
use crate::pipeline::ChannelClosed;
use crate::rest::RestError;
use crate::store::postgres::gaps::Gaps;
use crate::telemetry::{Lasting, Progress};

/// Times that an exchange is asked for one page.
const ATTEMPTS_MAX: u32 = 5;
/// The wait before it is asked again; doubled each time.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest of these waits.
const RETRY_MAX: Duration = Duration::from_secs(8);

/// Why a range was not loaded to its end.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The exchange keeps its newest trades only.
    #[error("its history holds only the newest trades: no range can be loaded")]
    TooShort,
    /// The exchange keeps the trades of this time up to now only; those of the range are loaded.
    #[error("its history reaches back {} only: what is older could not be loaded", Lasting(*.0))]
    TooOld(Duration),
    /// We were stopped.
    #[error("stopped before the end")]
    Stopped,
    /// The exchange has not answered.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// The pipeline has ended.
    #[error(transparent)]
    Closed(#[from] ChannelClosed),
    /// The database has not answered.
    #[error("the database does not answer")]
    Database(#[from] sqlx::Error),
}

/// What came of one symbol.
#[derive(Debug)]
pub struct Loaded {
    /// Whose.
    pub instrument: Instrument,
    /// Ticks that were read and sent on.
    pub ticks: u64,
    /// Why that is not all.
    pub error: Option<LoadError>,
}

/// Loads everything of a time, one symbol after the other; progress is counted in seconds of the past.
pub async fn load(
    context: &RepairContext,
    venue: &RepairVenue,
    instruments: &[Instrument],
    times: TimeRange,
    progress: &Progress,
    stop: &CancellationToken,
) -> Vec<Loaded> {
    let loader = Loader {
        context,
        venue,
        admission: Admission::new(&context.ledger),
        gaps: Gaps::new(context.pool.clone(), context.recorder.clone()),
        times,
        progress,
    };
    let mut all = Vec::new();
    for instrument in instruments {
        let mut loaded = Loaded { instrument: *instrument, ticks: 0, error: None };
        let loading = loader.load(*instrument, &mut loaded.ticks, stop);
        loaded.error = loading.await.err();
        all.push(loaded);
    }
    all
}

struct Loader<'a> {
    context: &'a RepairContext,
    venue: &'a RepairVenue,
    admission: Admission,
    gaps: Gaps,
    times: TimeRange,
    progress: &'a Progress,
}

impl Loader<'_> {
    async fn load(
        &self,
        instrument: Instrument,
        loaded: &mut u64,
        stop: &CancellationToken,
    ) -> Result<(), LoadError> {
        let history = self.venue.exchange.history();
        let rules = history.rules();
        if rules.depth == Depth::Newest {
            return Err(LoadError::TooShort);
        }
        let span = Span { instrument, ids: None, times: self.times };
        let mut pages = history.pages(&self.venue.rest_url, span);
        let mut ticks = Vec::new();
        let mut covered = 0;
        let mut cover = |seconds: u64| {
            self.progress.advance(seconds.saturating_sub(covered));
            covered = covered.max(seconds);
        };
        loop {
            let page = stop.run_until_cancelled(self.page(pages.as_mut(), &mut ticks)).await;
            if !page.unwrap_or(Err(LoadError::Stopped))? {
                break;
            }
            only_unknown(&self.gaps, instrument, &mut ticks).await?;
            *loaded += count(ticks.len());
            send(self.context, &self.admission, &mut ticks).await?;
            if let Some(reach) = pages.reach() {
                let read = self.times.intersect(reach.times);
                cover(read.map_or(0, |read| read.duration().as_secs()));
            }
        }
        cover(self.times.duration().as_secs());
        match rules.depth {
            Depth::Last(depth) if self.times.from < self.context.clock.now() - depth => {
                Err(LoadError::TooOld(depth))
            }
            _ => Ok(()),
        }
    }

    async fn page(&self, pages: &mut dyn Pages, ticks: &mut Vec<Tick>) -> Result<bool, LoadError> {
        self.admission.wait(&self.context.sender).await;
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX, 0).without_jitter();
        for _ in 1..ATTEMPTS_MAX {
            match self.venue.client.page(pages, &self.context.clock, ticks).await {
                Err(error) if error.is_passing() => sleep(backoff.next_delay()).await,
                answer => return Ok(answer?),
            }
        }
        Ok(self.venue.client.page(pages, &self.context.clock, ticks).await?)
    }
}

/// Of these ticks of one symbol, keeps each whose id is not stored within a minute of theirs, and each id once: an
/// exchange that dates a trade otherwise a second time does not make two of it.
pub(super) async fn only_unknown(
    gaps: &Gaps,
    instrument: Instrument,
    ticks: &mut Vec<Tick>,
) -> Result<(), sqlx::Error> {
    let times = TimeRange::around(ticks.iter().map(|tick| tick.exchange_at));
    let Some(times) = times else { return Ok(()) };
    only_unknown_near(gaps, instrument, times, ticks).await
}

/// The same, within a minute of these times.
pub(super) async fn only_unknown_near(
    gaps: &Gaps,
    instrument: Instrument,
    times: TimeRange,
    ticks: &mut Vec<Tick>,
) -> Result<(), sqlx::Error> {
    let ids: Vec<String> = ticks.iter().map(|tick| tick.trade_id.to_string()).collect();
    let unknown = gaps.unknown_ids(instrument, &ids, times).await?;
    let mut unknown: FxHashSet<String> = unknown.into_iter().collect();
    ticks.retain(|tick| unknown.remove(&tick.trade_id.to_string()));
    Ok(())
}

/// Sends ticks in small portions, each only when recording does not need the channel.
pub(super) async fn send(
    context: &RepairContext,
    admission: &Admission,
    ticks: &mut Vec<Tick>,
) -> Result<(), ChannelClosed> {
    while !ticks.is_empty() {
        admission.wait(&context.sender).await;
        // What loads waits for the pipeline's end, not for each portion.
        context.sender.send_all(&mut super::portion(ticks)).await?;
    }
    Ok(())
}
