//! What has been seen of each symbol: duplicates end here, and what is missing is noticed.
//!
//! Lives as long as the feed, over all its connections, so that what an exchange sends again after a reconnect
//! (Kraken's fifty trades, Coinbase's `last_match`) is not sent on, and what one connection lost another may bring.
//! A jump of the ids makes a hole; what comes late fills it; what is still missing after a grace is a gap. Where ids
//! prove nothing, the time in which no connection stood is a gap.

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::time::Instant;

use crate::domain::{Instrument, Tick, Timestamp, TradeId};
use crate::exchange::IdRule;
use crate::store::journal::{GapCause, GapRecord};
use crate::store::postgres::LastStored;

/// An id that goes back although the trade is this much younger is no repeat: the exchange counts anew.
const RESET_MIN: Duration = Duration::from_secs(60);

/// Ranges of missing ids remembered per symbol: what comes late on the other of two connections fills them.
const HOLES_MAX: usize = 64;

/// How long what was jumped over may still come, before it is called missing.
const GRACE: Duration = Duration::from_secs(1);

/// Ids remembered per symbol where their order proves nothing: more than any exchange sends again.
const RECENT_MAX: usize = 4_096;

/// Where ids prove nothing, the first trade of a new connection ends the gap. A symbol that has none for so long ends
/// it by our clock, which is further behind the exchange's than this on no machine that keeps its time.
const FIRST_TRADE_MAX: Duration = Duration::from_secs(5);

/// A connection that brought nothing for so long stands in name only.
const HEARD_MAX: Duration = Duration::from_secs(5);

/// What was found in the ticks of a frame.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Ticks taken out, because they had been seen.
    pub duplicates: usize,
    /// Gaps that are told at once, because nothing can fill them any more.
    pub gaps: Vec<GapRecord>,
    /// Symbols whose exchange has begun to count anew.
    pub resets: Vec<Instrument>,
}

/// What has been seen, per symbol.
#[derive(Debug)]
pub struct Sequence {
    rule: IdRule,
    seen: FxHashMap<Instrument, Seen>,
    /// Connections that are subscribed.
    standing: usize,
    heard_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The highest id, and the exchange's time of it.
    last: Option<(u64, Timestamp)>,
    /// What was jumped over and has not come since, in the order of the ids.
    holes: VecDeque<Hole>,
    /// The last trade id that the exchange named by itself.
    named: Option<u64>,
    recent: FxHashSet<TradeId>,
    order: VecDeque<TradeId>,
    /// Where ids prove nothing: the exchange's time of the youngest trade.
    newest: Option<Timestamp>,
    /// Why trades may be missing before the next one, if there is a reason.
    away: Option<GapCause>,
    /// Since when a connection is subscribed to it.
    since: Option<Instant>,
}

/// Ids that were jumped over.
#[derive(Debug, Clone, Copy)]
struct Hole {
    first: u64,
    last: u64,
    from: Timestamp,
    to: Timestamp,
    cause: GapCause,
    seen_at: Timestamp,
    opened_at: Instant,
    is_told: bool,
}

impl Hole {
    fn gap(&self, instrument: Instrument) -> GapRecord {
        let Self { first, last, from, to, cause, seen_at, .. } = *self;
        let ids = Some((first, last));
        // An exchange's clock may go back.
        GapRecord { instrument, ids, from: from.min(to), to: from.max(to), cause, seen_at }
    }
}

enum Verdict {
    New,
    Seen,
    /// New, and this is told at once.
    NewAnd(GapRecord),
    Reset(Vec<GapRecord>),
}

impl Sequence {
    /// A sequence that goes on where the store ends; of the other symbols it has seen nothing.
    #[must_use]
    pub fn new<'a>(rule: IdRule, stored: impl IntoIterator<Item = &'a LastStored>) -> Self {
        let seen = stored.into_iter().map(|last| {
            let mut seen = Seen { away: Some(GapCause::NotRunning), ..Seen::default() };
            match (rule, last.trade_id.number()) {
                (IdRule::Consecutive, Some(id)) => seen.last = Some((id, last.exchange_at)),
                (IdRule::Consecutive, None) => {}
                (IdRule::Unique, _) => {
                    seen.newest = Some(last.exchange_at);
                    seen.remember(&last.trade_id);
                }
            }
            (last.instrument, seen)
        });
        Self { rule, seen: seen.collect(), standing: 0, heard_at: None }
    }

    /// Takes the ticks out that were seen before, and remembers the others.
    pub fn admit(&mut self, ticks: &mut Vec<Tick>, now: Instant) -> Findings {
        let mut findings = Findings::default();
        self.heard_at = Some(now);
        ticks.retain(|tick| {
            let seen = self.seen.entry(tick.instrument).or_default();
            let verdict = match (self.rule, tick.trade_id.number()) {
                (IdRule::Consecutive, Some(id)) => seen.judge_count(tick, id, now),
                _ => seen.judge_recent(tick),
            };
            match verdict {
                Verdict::New => true,
                Verdict::Seen => {
                    findings.duplicates += 1;
                    false
                }
                Verdict::NewAnd(gap) => {
                    findings.gaps.push(gap);
                    true
                }
                Verdict::Reset(mut gaps) => {
                    findings.gaps.append(&mut gaps);
                    findings.resets.push(tick.instrument);
                    true
                }
            }
        });
        findings
    }

    /// The exchange has named the last trade of a symbol, at `at` by our clock. A trade may come after the message
    /// that names it: only what was named before and has still not come is missing. Answers like
    /// [`Findings::gaps`].
    #[must_use]
    pub fn record_named(
        &mut self,
        instrument: Instrument,
        id: u64,
        now: Instant,
        at: Timestamp,
    ) -> Option<GapRecord> {
        let seen = self.seen.get_mut(&instrument)?;
        let named = seen.named.replace(id)?;
        let (last, from) = seen.last.filter(|(last, _)| *last < named)?;
        seen.last = Some((named, from));
        let cause = seen.away.take().unwrap_or(GapCause::NamedLater);
        seen.open(
            instrument,
            Hole {
                first: last + 1,
                last: named,
                from,
                to: at,
                cause,
                seen_at: at,
                opened_at: now,
                is_told: false,
            },
        )
    }

    /// A connection is subscribed to these symbols.
    pub fn record_subscribed(&mut self, symbols: impl Iterator<Item = Instrument>, now: Instant) {
        let is_heard = self.heard_at.is_some_and(|heard| now < heard + HEARD_MAX);
        if self.standing > 0 && !is_heard {
            self.set_away();
        }
        self.standing += 1;
        symbols.for_each(|instrument| self.record_confirmed(instrument, now));
    }

    /// A connection that is subscribed already carries this symbol too from now on.
    pub fn record_confirmed(&mut self, instrument: Instrument, now: Instant) {
        self.seen.entry(instrument).or_default().since = Some(now);
    }

    /// A connection carries this symbol no more until it is confirmed again.
    pub fn record_interrupted(&mut self, instrument: Instrument) {
        if self.standing <= 1
            && let Some(seen) = self.seen.get_mut(&instrument)
        {
            seen.set_away();
        }
    }

    /// A connection has ended.
    pub fn record_ended(&mut self, was_subscribed: bool) {
        self.standing = self.standing.saturating_sub(usize::from(was_subscribed));
        if self.standing == 0 {
            self.set_away();
        }
    }

    fn set_away(&mut self) {
        self.seen.values_mut().for_each(Seen::set_away);
    }

    /// The gaps whose grace is over; each is told once.
    pub fn due(&mut self, now: Instant, at: Timestamp) -> Vec<GapRecord> {
        let mut gaps = Vec::new();
        for (instrument, seen) in &mut self.seen {
            gaps.extend(seen.tell(*instrument, |hole| now >= hole.opened_at + GRACE));
            let is_settled = seen.since.is_some_and(|since| now >= since + FIRST_TRADE_MAX);
            if is_settled {
                gaps.extend(seen.end_away(*instrument, at, at));
            }
        }
        gaps
    }

    /// Every hole that was not told, when nothing will fill them any more.
    pub fn rest(&mut self) -> Vec<GapRecord> {
        let all = |(instrument, seen): (&Instrument, &mut Seen)| {
            seen.tell(*instrument, |_any| true).collect::<Vec<_>>()
        };
        self.seen.iter_mut().flat_map(all).collect()
    }
}

impl Seen {
    fn judge_count(&mut self, tick: &Tick, id: u64, now: Instant) -> Verdict {
        let verdict = match self.last {
            None => Verdict::New,
            Some((last, at)) if id <= last => {
                if self.fill(id, tick.exchange_at) {
                    self.last = Some((last, at.max(tick.exchange_at)));
                    return self.forget(tick.instrument).map_or(Verdict::New, Verdict::NewAnd);
                }
                let younger = tick.exchange_at.as_micros() - at.as_micros();
                if u128::try_from(younger).unwrap_or(0) < RESET_MIN.as_micros() {
                    return Verdict::Seen;
                }
                let untold = self.tell(tick.instrument, |_any| true).collect();
                self.holes.clear();
                self.named = None;
                Verdict::Reset(untold)
            }
            Some((last, _)) if id - last == 1 => Verdict::New,
            Some((last, from)) => {
                let hole = Hole {
                    first: last + 1,
                    last: id - 1,
                    from,
                    to: tick.exchange_at,
                    cause: self.away.unwrap_or(GapCause::Jumped),
                    seen_at: tick.received_at,
                    opened_at: now,
                    is_told: false,
                };
                self.open(tick.instrument, hole).map_or(Verdict::New, Verdict::NewAnd)
            }
        };
        self.away = None;
        self.last = Some((id, tick.exchange_at));
        verdict
    }

    fn open(&mut self, instrument: Instrument, hole: Hole) -> Option<GapRecord> {
        self.holes.push_back(hole);
        self.forget(instrument)
    }

    /// Forgets the oldest hole where there are too many; it is told at once, when it was not yet.
    fn forget(&mut self, instrument: Instrument) -> Option<GapRecord> {
        let forgotten = if self.holes.len() > HOLES_MAX { self.holes.pop_front() } else { None };
        forgotten.filter(|hole| !hole.is_told).map(|hole| hole.gap(instrument))
    }

    /// Takes an id out of the hole that it is missing from, if there is one.
    fn fill(&mut self, id: u64, at: Timestamp) -> bool {
        let place = self.holes.partition_point(|hole| hole.last < id);
        let Some(hole) = self.holes.get(place).copied().filter(|hole| hole.first <= id) else {
            return false;
        };
        self.holes.remove(place);
        if id < hole.last {
            self.holes.insert(place, Hole { first: id + 1, from: at, ..hole });
        }
        if hole.first < id {
            self.holes.insert(place, Hole { last: id - 1, to: at, ..hole });
        }
        true
    }

    /// The holes that were not told and are due, now told.
    fn tell(
        &mut self,
        instrument: Instrument,
        is_due: impl Fn(&Hole) -> bool,
    ) -> impl Iterator<Item = GapRecord> {
        let due = self.holes.iter_mut().filter(move |hole| !hole.is_told && is_due(hole));
        due.map(move |hole| {
            hole.is_told = true;
            hole.gap(instrument)
        })
    }

    fn judge_recent(&mut self, tick: &Tick) -> Verdict {
        if !self.remember(&tick.trade_id) {
            return Verdict::Seen;
        }
        let gap = self.end_away(tick.instrument, tick.exchange_at, tick.received_at);
        self.newest = self.newest.max(Some(tick.exchange_at));
        gap.map_or(Verdict::New, Verdict::NewAnd)
    }

    /// Whether the id is a new one.
    fn remember(&mut self, id: &TradeId) -> bool {
        if !self.recent.insert(id.clone()) {
            return false;
        }
        if self.order.len() == RECENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.recent.remove(&oldest);
        }
        self.order.push_back(id.clone());
        true
    }

    fn set_away(&mut self) {
        self.away.get_or_insert(GapCause::NoConnection);
        self.since = None;
    }

    /// Where ids prove nothing: the time in which there was no connection, which ends now.
    fn end_away(
        &mut self,
        instrument: Instrument,
        to: Timestamp,
        seen_at: Timestamp,
    ) -> Option<GapRecord> {
        let from = self.newest?;
        let cause = self.away.take()?;
        // An exchange's clock may go back.
        Some(GapRecord {
            instrument,
            ids: None,
            from: from.min(to),
            to: from.max(to),
            cause,
            seen_at,
        })
    }
}

#[cfg(test)]
mod tests;
