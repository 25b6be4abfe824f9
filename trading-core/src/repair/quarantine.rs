//! Frames that an older version could not read, read again with today's decoder.

use tokio_util::sync::CancellationToken;

use super::RepairContext;
use super::admission::Admission;
use super::load::{LoadError, only_unknown, send};
use crate::domain::{Instrument, Source, Tick, Timestamp, count};
use crate::exchange::{DecodeError, Exchange, Subscribed};
use crate::store::postgres::gaps::Gaps;
use crate::store::postgres::quarantine::{instruments, quarantined};

/// Frames that are held at once.
const FRAMES: i64 = 100;

/// What came of the frames of one exchange.
#[derive(Debug, Default)]
pub struct Reread {
    /// Keys of those that could be read: they may go when their ticks are stored.
    pub read: Vec<Vec<u8>>,
    /// Ticks that were sent on.
    pub ticks: u64,
    /// Frames that still cannot be read.
    pub unreadable: u64,
    /// What was wrong with the first of them.
    pub reason: Option<String>,
}

/// Reads an exchange's frames again, and sends their ticks on.
///
/// # Errors
///
/// When the database cannot be reached, the pipeline has ended, or we are stopped.
pub async fn reread_quarantined(
    context: &RepairContext,
    exchange: &'static dyn Exchange,
    stop: &CancellationToken,
) -> Result<Reread, LoadError> {
    let admission = Admission::new(&context.ledger);
    let gaps = Gaps::new(context.pool.clone(), context.recorder.clone());
    let recorded = instruments(&context.pool, exchange.name()).await?;
    let symbols = Subscribed::new(exchange, recorded);
    let mut reread = Reread::default();
    let mut after = Vec::new();
    loop {
        let frames = quarantined(&context.pool, exchange.name(), &after, FRAMES).await?;
        let Some(last) = frames.last() else { return Ok(reread) };
        after.clone_from(&last.hash);
        for row in frames {
            if stop.is_cancelled() {
                return Err(LoadError::Stopped);
            }
            let mut ticks = Vec::new();
            let decoded = Timestamp::from_micros(row.first_seen.timestamp_micros())
                .map_err(DecodeError::from)
                .and_then(|seen| exchange.decode(&row.frame, &symbols, seen, &mut ticks));
            if let Err(error) = decoded {
                reread.unreadable += 1;
                reread.reason.get_or_insert_with(|| error.to_string());
                continue;
            }
            ticks.iter_mut().for_each(|tick| tick.source = Source::Backfill);
            if exchange.history().rules().times_apart.is_some() {
                ticks = unknown_of_each(&gaps, ticks).await?;
            }
            reread.ticks += count(ticks.len());
            send(context, &admission, &mut ticks).await?;
            reread.read.push(row.hash);
        }
    }
}

/// The ticks whose ids are not stored; a frame may carry several symbols.
async fn unknown_of_each(gaps: &Gaps, mut ticks: Vec<Tick>) -> Result<Vec<Tick>, sqlx::Error> {
    let mut unknown = Vec::new();
    while let Some(instrument) = ticks.first().map(|tick| tick.instrument) {
        let is_of = |tick: &Tick, of: Instrument| tick.instrument == of;
        let (mut own, others) = ticks.into_iter().partition(|tick| is_of(tick, instrument));
        only_unknown(gaps, instrument, &mut own).await?;
        unknown.append(&mut own);
        ticks = others;
    }
    Ok(unknown)
}
