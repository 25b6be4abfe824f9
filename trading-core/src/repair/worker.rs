//! One gap at a time: claimed, filled, confirmed, closed.
//!
//! A kill at any point leaves an open row whose lease runs out; whatever was stored by then is found stored by the next
//! who takes it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::admission::Admission;
use super::load::only_unknown_near;
use super::says::Says;
use super::verdict::{self, HistoryRead, KnownIds};
use super::{RANGES_MAX, RepairContext, RepairVenue, WORKERS};
use crate::domain::{DAY, GapStatus, IdRange, IdSet, OpenGap, Tick, TimeRange};
use crate::exchange::IdRule;
use crate::exchange::history::{Depth, Pages, Reach, Span};
use crate::pipeline::{ChannelClosed, Outcome, Receipt};
use crate::rest::RestError;
use crate::store::postgres::audit::look_again;
use crate::store::postgres::gaps::{
    Carried, GapScope, Gaps, LEASE, remove_doubles, retry_delay, waiting_gaps,
};
use crate::store::postgres::latest::last_stored;

/// Pages after which what was done is noted and the rest becomes a gap of its own.
const PAGES_MAX: usize = 100;
/// Times that a busy exchange is asked for a page before the gap is postponed.
const BUSY_MAX: usize = 3;
/// A trade that an exchange's history dates further than this from its gap is not believed.
const MISDATED: Duration = DAY;
/// How long ticks that were sent may take to be stored.
const STORED_MAX: Duration = Duration::from_secs(60);
/// How often it is asked whether the spool, in which they may wait, is empty by now.
const SPOOL_INTERVAL: Duration = Duration::from_secs(1);
/// How long the database may take to release a gap at the end.
const RELEASE_MAX: Duration = Duration::from_secs(2);
/// What an exchange may need to show a trade in its history that it has sent.
const HISTORY_DELAY: Duration = Duration::from_secs(2);
/// [`repair_all`] also waits for the gaps that are due within this time.
const SOON: Duration = Duration::from_secs(15);
/// How often it asks whether there are any.
const WAITING_INTERVAL: Duration = Duration::from_millis(500);

/// Why work on a gap ended without an answer.
#[derive(Debug)]
enum Setback {
    /// It is somebody else's by now.
    Lost,
    /// We are stopped.
    Stopped,
    /// The database.
    Store(sqlx::Error),
    /// Anything that another attempt may mend.
    Passing(String),
}

impl From<sqlx::Error> for Setback {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error)
    }
}

impl From<RestError> for Setback {
    fn from(error: RestError) -> Self {
        Self::Passing(error.to_string())
    }
}

impl From<ChannelClosed> for Setback {
    fn from(closed: ChannelClosed) -> Self {
        Self::Passing(closed.to_string())
    }
}

/// Ticks that were sent for a gap.
#[derive(Debug, Default)]
struct Sent {
    ids: IdSet,
    /// What the history showed with a time that is not believed; these were not sent.
    misdated: IdSet,
    number: usize,
    /// Of those that are not known to be stored yet.
    receipts: Vec<Receipt>,
    /// Of the first and the last of them.
    times: Option<TimeRange>,
}

impl Sent {
    fn note(&mut self, tick: &Tick) {
        if let Some(id) = tick.trade_id.number() {
            self.ids.insert(id);
        }
        self.number += 1;
        self.times = Some(self.widen(TimeRange::at(tick.exchange_at)));
    }

    /// Keeps of a page's ticks those that are absent, each id once, with a time near the gap's.
    fn choose(&mut self, ticks: &mut Vec<Tick>, absent: &IdSet, times: TimeRange) {
        let believed = times.widened(MISDATED);
        ticks.retain(|tick| {
            let id = tick.trade_id.number().filter(|id| absent.contains(*id));
            let Some(id) = id.filter(|id| !self.ids.contains(*id)) else { return false };
            let is_believed = believed.contains(tick.exchange_at);
            if is_believed {
                self.note(tick);
            } else {
                self.misdated.insert(id);
            }
            is_believed
        });
    }

    /// These times, and those of the ticks: a gap's own may be wrong.
    fn widen(&self, times: TimeRange) -> TimeRange {
        self.times.map_or(times, |own| own.hull(times))
    }
}

/// Works on the gaps of one exchange.
#[derive(Debug)]
pub(super) struct Worker {
    context: RepairContext,
    venue: RepairVenue,
    scope: GapScope,
    gaps: Gaps,
    admission: Arc<Admission>,
    says: Arc<Says>,
    stop: CancellationToken,
}

/// Repairs the gaps of an exchange until none is left that is due soon; those that others work on are waited for.
///
/// # Errors
///
/// When the database cannot be reached or refuses.
pub async fn repair_all(
    context: &RepairContext,
    venue: &RepairVenue,
    scope: &GapScope,
    stop: &CancellationToken,
) -> Result<(), sqlx::Error> {
    let work = async |worker: &Worker| -> Result<(), sqlx::Error> {
        while !stop.is_cancelled() {
            if worker.step().await? {
                continue;
            }
            worker.tell();
            if waiting_gaps(&context.pool, scope, SOON).await? == 0 {
                break;
            }
            stop.run_until_cancelled(sleep(WAITING_INTERVAL)).await;
        }
        Ok(())
    };
    let workers = Worker::several(context, venue, scope, WORKERS, stop);
    let done = try_join_all(workers.iter().map(work)).await;
    workers.iter().for_each(Worker::tell_rest);
    done.map(|_done| ())
}

impl Worker {
    /// Workers that share what they say and when they are held.
    pub(super) fn several(
        context: &RepairContext,
        venue: &RepairVenue,
        scope: &GapScope,
        number: usize,
        stop: &CancellationToken,
    ) -> Vec<Self> {
        let admission = Arc::new(Admission::new(&context.ledger));
        let says = Arc::new(Says::default());
        (1..=number)
            .map(|n| Self {
                context: context.clone(),
                venue: venue.clone(),
                scope: scope.clone(),
                gaps: Gaps::new(
                    context.pool.clone(),
                    format!("{} {}-{n}", context.recorder, scope.exchange),
                ),
                admission: Arc::clone(&admission),
                says: Arc::clone(&says),
                stop: stop.clone(),
            })
            .collect()
    }

    /// The exchange's name.
    pub(super) const fn exchange(&self) -> &'static str {
        self.scope.exchange
    }

    /// No gap is due: what came of those before is said.
    pub(super) fn tell(&self) {
        self.says.tell();
    }

    /// All is said, at the end.
    pub(super) fn tell_rest(&self) {
        self.says.tell_rest();
    }

    /// What has waited to be said is said, whoever works.
    pub(super) fn tell_due(&self) {
        self.says.tell_due();
    }

    /// Works on a gap; `false`: there is none that is due, or we are stopped.
    pub(super) async fn step(&self) -> Result<bool, sqlx::Error> {
        let claim = async {
            self.admission.wait(&self.context.sender).await;
            self.gaps.claim(&self.scope).await
        };
        let gap = match self.ask(claim).await {
            Ok(Some(gap)) => gap,
            Err(Setback::Store(error)) => return Err(error),
            _ => return Ok(false),
        };
        debug!(%gap, attempts = gap.attempts, "Working on a gap");
        self.says.begin();
        let worked = match gap.ids {
            Some(ids) => self.fill_ids(&gap, ids).await,
            None => self.fill_time(&gap).await,
        };
        self.says.end();
        match worked {
            Ok(()) | Err(Setback::Lost) => {}
            Err(Setback::Stopped) => {
                // Where the database does not answer, the lease runs out by itself.
                if let Ok(released) = timeout(RELEASE_MAX, self.gaps.release(&gap)).await {
                    released?;
                }
                return Ok(false);
            }
            Err(Setback::Store(error)) => return Err(error),
            Err(Setback::Passing(note)) => {
                self.says.postponed(&gap, &note, retry_delay(gap.attempts + 1));
                if let Err(Setback::Store(error)) = self.ask(self.gaps.postpone(&gap, &note)).await
                {
                    return Err(error);
                }
            }
        }
        Ok(true)
    }

    /// Asks the database; a stop does not wait for its answer.
    async fn ask<T>(
        &self,
        query: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, Setback> {
        match self.stop.run_until_cancelled(query).await {
            Some(answer) => Ok(answer?),
            None => Err(Setback::Stopped),
        }
    }

    async fn fill_ids(&self, gap: &OpenGap, ids: IdRange) -> Result<(), Setback> {
        let started = Instant::now();
        let mut known = self.look(gap, ids, gap.times).await?;
        let mut sent = Sent::default();
        let mut elsewhere = IdSet::default();
        if !known.absent.is_empty() {
            elsewhere = self.stored_elsewhere(gap, &known.absent).await?;
            known.absent = known.absent.without(&elsewhere);
        }
        if let Some(wanted) = known.absent.bounds() {
            let reading = self.fetch(gap, wanted, &known.absent, &mut sent).await?;
            // The history was read for what was missing then, and proves nothing about anything else.
            let (asked, until) = (known.absent, known.until);
            known = self.stored(gap, IdRange::between(ids.first(), until), &mut sent).await?;
            known.absent = known.absent.without(&elsewhere);
            if !known.absent.without(&asked).is_empty() {
                return Err(Setback::Passing("more went missing meanwhile".to_owned()));
            }
            known.reading = Some(reading);
        }
        let times = sent.widen(gap.times);
        let refused = self.gaps.refused(gap.instrument, ids, times, RANGES_MAX);
        let refused = self.ask(refused).await?;
        if let Some(ids) = refused.last().filter(|_| refused.len() == RANGES_MAX) {
            known.until = known.until.min(ids.last());
        }
        known.refused = refused.into_iter().collect();
        known.misdated = sent.misdated.without(&sent.ids);
        self.remove_doubles(gap, times).await?;
        let mut parts = verdict::of_ids(gap, ids, &known);
        if self.context.clock.is_off() {
            verdict::hold(&mut parts);
        }
        if !self.ask(self.gaps.settle(gap, &parts)).await? {
            return Err(Setback::Lost);
        }
        self.says.settled(gap, &parts, sent.number, started.elapsed());
        Ok(())
    }

    /// What came over a socket while it was fetched, and has another time there, is kept once.
    async fn remove_doubles(&self, gap: &OpenGap, times: TimeRange) -> Result<(), Setback> {
        if let Some(apart) = self.venue.exchange.history().rules().times_apart {
            self.ask(remove_doubles(&self.context.pool, gap.instrument, times, apart)).await?;
        }
        Ok(())
    }

    /// Those of these ids that are stored with a time that is not near the gap's.
    async fn stored_elsewhere(&self, gap: &OpenGap, absent: &IdSet) -> Result<IdSet, Setback> {
        let Some(ids) = absent.bounds() else { return Ok(IdSet::default()) };
        let found = self.gaps.stored_elsewhere(gap.instrument, ids, gap.times, RANGES_MAX);
        Ok(self.ask(found).await?.into_iter().collect())
    }

    /// What is missing of a gap, as much of it as can be known at once.
    async fn look(
        &self,
        gap: &OpenGap,
        ids: IdRange,
        times: TimeRange,
    ) -> Result<KnownIds, Setback> {
        let absent = self.ask(self.gaps.absent(gap.instrument, ids, times, RANGES_MAX)).await?;
        let until = match absent.last() {
            Some(run) if absent.len() == RANGES_MAX => run.last(),
            _ => ids.last(),
        };
        Ok(KnownIds { until, absent: absent.into_iter().collect(), ..KnownIds::default() })
    }

    /// Reads the history over the wanted ids, and sends on those that are absent.
    async fn fetch(
        &self,
        gap: &OpenGap,
        wanted: IdRange,
        absent: &IdSet,
        sent: &mut Sent,
    ) -> Result<HistoryRead, Setback> {
        let mut pages = self.pages(gap, Some(wanted));
        let mut ticks = Vec::new();
        for _ in 0..PAGES_MAX {
            if !self.page(gap, pages.as_mut(), &mut ticks).await? {
                break;
            }
            sent.choose(&mut ticks, absent, gap.times);
            self.send(gap, &mut ticks, sent).await?;
        }
        let reach = pages.reach();
        let is_complete = pages.next().is_none() || reach.is_none();
        Ok(HistoryRead { reach, is_complete })
    }

    /// What is missing once everything that was sent is stored, or refused by the database.
    async fn stored(
        &self,
        gap: &OpenGap,
        ids: IdRange,
        sent: &mut Sent,
    ) -> Result<KnownIds, Setback> {
        let unless_found = self.outcome(gap, sent).await?;
        let known = self.look(gap, ids, sent.widen(gap.times)).await?;
        if known.absent.meets(&sent.ids) { Err(unless_found) } else { Ok(known) }
    }

    /// Waits until everything that was sent is durable, and the spool empty where it went there, but not for ever. What
    /// is stored, only the table proves: the inner setback is that of what it does not show.
    async fn outcome(&self, gap: &OpenGap, sent: &mut Sent) -> Result<Setback, Setback> {
        let mut receipts = std::mem::take(&mut sent.receipts);
        let mut last = Outcome::Stored;
        let stored = async {
            for receipt in &mut receipts {
                last = last.max(receipt.outcome().await);
            }
            // A history that holds the newest trades only may not show them again later.
            while last == Outcome::Spooled && self.context.ledger.read().spooled > 0 {
                sleep(SPOOL_INTERVAL).await;
            }
        };
        let in_time = self.hold(gap, timeout(STORED_MAX, stored)).await?.is_ok();
        Ok(Setback::Passing(match last {
            Outcome::Dropped => return Err(ChannelClosed.into()),
            Outcome::Spooled if !in_time => "fetched, and waits in the spool".to_owned(),
            _ if in_time => "fetched, but not found in the table".to_owned(),
            // A receipt also waits for what was sent before: the table may show these all the same.
            _ => format!("fetched, but not stored within {} s", STORED_MAX.as_secs()),
        }))
    }

    async fn fill_time(&self, gap: &OpenGap) -> Result<(), Setback> {
        let started = Instant::now();
        let depth = self.venue.exchange.history().rules().depth;
        let mut sent = Sent::default();
        let mut read: Vec<TimeRange> = Vec::new();
        let mut is_complete = self.read_time(gap, &mut sent, &mut read).await?;
        let reaches_end =
            |read: &[TimeRange]| read.last().is_some_and(|last| last.to >= gap.times.to);
        // Either nothing was traded since, or the history is a little behind.
        if is_complete && !reaches_end(&read) {
            self.pause(gap, HISTORY_DELAY).await?;
            is_complete = self.read_time(gap, &mut sent, &mut read).await?;
            let last = read.last_mut().filter(|_| is_complete);
            if let Some(last) = last {
                // One that begins with the newest trade, and does not show what was traded since, is an old one.
                let is_behind = last.to.second() < gap.times.to.second() && depth != Depth::Whole;
                if is_behind && self.has_traded_since(gap).await? {
                    let is_old = "the exchange's history does not show what was traded since";
                    return Err(Setback::Passing(is_old.to_owned()));
                }
                last.to = last.to.max(gap.times.to);
            }
        }
        self.remove_doubles(gap, sent.widen(gap.times)).await?;
        let mut parts = if read.is_empty() {
            let shows_nothing = "the exchange's history shows nothing";
            // A history that does not show what was traded since shows less than there is.
            let has_traded = self.has_traded_since(gap).await?;
            let is_covered = match depth {
                Depth::Last(past) => gap.times.from + past > self.context.clock.now(),
                Depth::Whole | Depth::Newest => true,
            };
            let of_nothing = verdict::of_nothing(gap).filter(|_| is_covered && !has_traded);
            of_nothing.ok_or_else(|| Setback::Passing(shows_nothing.to_owned()))?
        } else {
            verdict::of_time(gap, &read, is_complete)
        };
        for part in parts.iter_mut().filter(|part| part.status == GapStatus::Unrecoverable) {
            match self.ask(self.gaps.carried(gap, part.times)).await? {
                Carried::Yes => verdict::carry(part),
                Carried::Unknown => verdict::await_carrier(part),
                Carried::No => {}
            }
        }
        if self.context.clock.is_off() {
            verdict::hold(&mut parts);
        }
        if !self.ask(self.gaps.settle(gap, &parts)).await? {
            return Err(Setback::Lost);
        }
        if self.venue.exchange.ids() == IdRule::Consecutive {
            // The ids show whether something is missing between what was fetched and what came since.
            self.ask(look_again(&self.context.pool, gap.instrument, gap.times.from)).await?;
        }
        self.says.settled(gap, &parts, sent.number, started.elapsed());
        Ok(())
    }

    /// Whether a trade is stored that was made after a gap.
    async fn has_traded_since(&self, gap: &OpenGap) -> Result<bool, Setback> {
        let stored = last_stored(&self.context.pool, std::slice::from_ref(&gap.instrument));
        let stored = self.ask(stored).await?;
        Ok(stored.iter().any(|last| last.until > gap.times.to))
    }

    /// Reads the history over the time of a gap, and sends it on page by page, each stored before the next. Answers
    /// whether there is no more.
    async fn read_time(
        &self,
        gap: &OpenGap,
        sent: &mut Sent,
        read: &mut Vec<TimeRange>,
    ) -> Result<bool, Setback> {
        let mut pages = self.pages(gap, None);
        let mut ticks = Vec::new();
        for _ in 0..PAGES_MAX {
            if !self.page(gap, pages.as_mut(), &mut ticks).await? {
                break;
            }
            self.ask(only_unknown_near(&self.gaps, gap.instrument, gap.times, &mut ticks)).await?;
            ticks.iter().for_each(|tick| sent.note(tick));
            let page = ticks.clone();
            self.send(gap, &mut ticks, sent).await?;
            let unless_found = self.outcome(gap, sent).await?;
            if self.ask(self.gaps.unstored(&page)).await? > 0 {
                return Err(unless_found);
            }
        }
        if let Some(Reach { times, .. }) = pages.reach() {
            read.push(times);
        }
        Ok(pages.next().is_none())
    }

    fn pages(&self, gap: &OpenGap, ids: Option<IdRange>) -> Box<dyn Pages> {
        let span = Span { instrument: gap.instrument, ids, times: gap.times };
        self.venue.exchange.history().pages(&self.venue.rest_url, span)
    }

    /// Reads the next page, however often the exchange has to be asked for it; `false`: there is none.
    async fn page(
        &self,
        gap: &OpenGap,
        pages: &mut dyn Pages,
        ticks: &mut Vec<Tick>,
    ) -> Result<bool, Setback> {
        self.hold(gap, self.admission.wait(&self.context.sender)).await?;
        let mut asked = 1;
        loop {
            match self.hold(gap, self.venue.client.page(pages, &self.context.clock, ticks)).await? {
                Err(RestError::Busy { .. }) if asked < BUSY_MAX => asked += 1,
                answer => return Ok(answer?),
            }
        }
    }

    /// Sends ticks in small portions, each only when recording does not need the channel.
    async fn send(
        &self,
        gap: &OpenGap,
        ticks: &mut Vec<Tick>,
        sent: &mut Sent,
    ) -> Result<(), Setback> {
        while !ticks.is_empty() {
            self.hold(gap, self.admission.wait(&self.context.sender)).await?;
            sent.receipts.push(self.context.send_some(ticks).await?);
        }
        Ok(())
    }

    async fn pause(&self, gap: &OpenGap, time: Duration) -> Result<(), Setback> {
        self.hold(gap, sleep(time)).await
    }

    /// Does something that may take long and may be given up, and holds the lease meanwhile.
    async fn hold<T>(&self, gap: &OpenGap, work: impl Future<Output = T>) -> Result<T, Setback> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Setback::Stopped),
                done = &mut work => return Ok(done),
                () = sleep(LEASE / 3) => {}
            }
            if !self.ask(self.gaps.renew(gap)).await? {
                return Err(Setback::Lost);
            }
        }
    }
}
