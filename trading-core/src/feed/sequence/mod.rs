//! What has been seen of each symbol: duplicates end here, and what is missing is noticed.
//!
//! Lives as long as the feed, over all its connections, so that what an exchange sends again after a reconnect
//! (Kraken's fifty trades, Coinbase's `last_match`) is not sent on, and what one connection lost another may bring.
//! A jump of the ids makes a hole; what comes late fills it; what is still missing after a grace is a gap. Where ids
//! prove nothing, the time in which no connection was open is a gap.
//!
//! No single id and no single stamp is trusted: an id far from the others moves nothing before the next ones follow it,
//! and a stamp counts for no more than the time of receipt allows. What is in doubt is sent on: the store keeps each
//! trade once.

mod cluster;
mod count;
mod holes;
mod recent;
mod stamps;

use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use crate::domain::bounds::FIRST_TRADE_MAX;
use crate::domain::{
    GapCause, GapRecord, IdRange, Instrument, LastStored, RecorderClock, Tick, Timestamp,
};
use crate::exchange::IdRule;
use count::{Arrival, Count};
use recent::Recent;
use stamps::Lead;

/// A connection that brought nothing for this long is open in name only.
const HEARD_MAX: Duration = Duration::from_secs(5);

/// A symbol that brings nothing but repeats for this long, and at least [`REPEATS_MIN`], is reported.
const REPEATS_TIME: Duration = Duration::from_secs(10);
/// See [`REPEATS_TIME`].
const REPEATS_MIN: u32 = 10;

/// What was found in the ticks of a frame, or in what an exchange named.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Noticed {
    /// Ticks taken out, because they had been seen.
    pub duplicates: usize,
    /// Gaps that are listed at once, because nothing can fill them any more.
    pub gaps: Vec<GapRecord>,
    /// Ids that were listed as missing and never were: what showed them was a mistake.
    pub retracted: Vec<(Instrument, IdRange)>,
    /// Symbols whose exchange has begun to count anew.
    pub resets: Vec<Instrument>,
    /// Symbols with an id far ahead of the last one: the last, and that one.
    pub ahead: Vec<(Instrument, u64, u64)>,
    /// Symbols that have brought nothing but repeats for long.
    pub only_repeats: Vec<Instrument>,
}

/// What has been seen, per symbol.
#[derive(Debug)]
pub struct Sequence {
    rule: IdRule,
    clock: RecorderClock,
    seen: FxHashMap<Instrument, Seen>,
    lead: Lead,
    /// Connections that are subscribed.
    open: usize,
    heard_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Seen {
    count: Count,
    /// Allocated only where ids prove nothing.
    recent: Recent,
    /// Why trades may be missing before the next one, if there is a reason.
    away: Option<GapCause>,
    /// Since when a connection is subscribed to it.
    since: Option<Instant>,
    /// Since when it has brought repeats only, and how many.
    repeats: Option<(Instant, u32)>,
}

impl Sequence {
    /// A sequence that goes on where the store ends; of the other symbols it has seen nothing. The clock knows which
    /// exchange times cannot be true.
    #[must_use]
    pub fn new<'a>(
        rule: IdRule,
        stored: impl IntoIterator<Item = &'a LastStored>,
        clock: RecorderClock,
    ) -> Self {
        let now = Instant::now();
        let seen = stored.into_iter().map(|last| {
            let away = match last.is_carried {
                true => GapCause::NotStoredYet,
                false => GapCause::NotRunning,
            };
            let mut seen = Seen { away: Some(away), ..Seen::default() };
            match (rule, last.trade_id.number()) {
                (IdRule::Consecutive, Some(id)) => {
                    seen.count.resume(id, last.exchange_at, last.missing.iter().copied(), now);
                }
                (IdRule::Consecutive, None) => {}
                (IdRule::Unique, _) => seen.recent.resume(&last.trade_id, last.until),
            }
            (last.instrument, seen)
        });
        let seen = seen.collect();
        Self { rule, clock, seen, lead: Lead::default(), open: 0, heard_at: None }
    }

    /// Takes the ticks out that were seen before, and remembers the others.
    pub fn admit(&mut self, ticks: &mut Vec<Tick>, now: Instant) -> Noticed {
        let mut noticed = Noticed::default();
        self.heard_at = Some(now);
        let Self { rule, clock, seen, lead, .. } = self;
        ticks.retain(|tick| {
            let seen = seen.entry(tick.instrument).or_default();
            let is_far = clock.is_far(tick);
            let moment = lead.read(tick, is_far);
            let is_new = match (*rule, tick.trade_id.number()) {
                (IdRule::Consecutive, Some(id)) => {
                    let arrival = Arrival { tick, id, moment, is_far, now };
                    seen.count.judge(arrival, &mut seen.away, &mut noticed)
                }
                _ => seen.recent.judge(tick, moment, is_far, &mut seen.away, &mut noticed.gaps),
            };
            seen.count_repeats(tick.instrument, is_new, now, &mut noticed);
            is_new
        });
        noticed
    }

    /// The exchange has named the last trade of a symbol, at `at` by our clock. A trade may come after the message
    /// that names it: only what was named before and has still not come is missing.
    #[must_use]
    pub fn record_named(
        &mut self,
        instrument: Instrument,
        id: u64,
        now: Instant,
        at: Timestamp,
    ) -> Noticed {
        let mut noticed = Noticed::default();
        if let Some(Seen { count, away, .. }) = self.seen.get_mut(&instrument) {
            count.record_named(instrument, id, now, at, away, &mut noticed);
        }
        noticed
    }

    /// A connection is subscribed to these symbols.
    pub fn record_subscribed(&mut self, symbols: impl Iterator<Item = Instrument>, now: Instant) {
        let is_heard = self.heard_at.is_some_and(|heard| now < heard + HEARD_MAX);
        if self.open > 0 && !is_heard {
            self.set_away();
        }
        self.open += 1;
        symbols.for_each(|instrument| self.record_confirmed(instrument, now));
    }

    /// A connection that is subscribed already carries this symbol too from now on.
    pub fn record_confirmed(&mut self, instrument: Instrument, now: Instant) {
        self.seen.entry(instrument).or_default().since = Some(now);
    }

    /// A connection carries this symbol no more until it is confirmed again.
    pub fn record_interrupted(&mut self, instrument: Instrument) {
        if self.open <= 1
            && let Some(seen) = self.seen.get_mut(&instrument)
        {
            seen.set_away();
        }
    }

    /// A connection has ended.
    pub fn record_ended(&mut self, was_subscribed: bool) {
        self.open = self.open.saturating_sub(usize::from(was_subscribed));
        if self.open == 0 {
            self.set_away();
        }
    }

    fn set_away(&mut self) {
        self.seen.values_mut().for_each(Seen::set_away);
    }

    /// The gaps whose grace is over; each is returned once. `at`: the time now.
    pub fn due(&mut self, now: Instant, at: Timestamp) -> Vec<GapRecord> {
        let mut gaps = Vec::new();
        // An exchange whose clock is ahead stamps its next trade later than we would.
        let until = self.lead.at(at).max(at);
        for (instrument, seen) in &mut self.seen {
            seen.count.due(*instrument, now, &mut gaps);
            // A symbol without a trade for this long: our clock, taken to be less than that behind the exchange's, ends
            // the gap.
            let is_settled = seen.since.is_some_and(|since| now >= since + FIRST_TRADE_MAX);
            if is_settled {
                gaps.extend(seen.recent.end_away(*instrument, until, at, &mut seen.away));
            }
        }
        gaps
    }

    /// Every hole that was not returned yet, when nothing will fill them any more.
    pub fn rest(&mut self) -> Vec<GapRecord> {
        let mut gaps = Vec::new();
        for (instrument, seen) in &mut self.seen {
            seen.count.rest(*instrument, &mut gaps);
        }
        gaps
    }
}

impl Seen {
    fn set_away(&mut self) {
        self.away.get_or_insert(GapCause::NoConnection);
        self.since = None;
    }

    fn count_repeats(
        &mut self,
        instrument: Instrument,
        is_new: bool,
        now: Instant,
        noticed: &mut Noticed,
    ) {
        if is_new {
            self.repeats = None;
            return;
        }
        noticed.duplicates += 1;
        let (since, count) = self.repeats.unwrap_or((now, 0));
        let count = count.saturating_add(1);
        let is_due = count >= REPEATS_MIN && now >= since + REPEATS_TIME;
        if is_due {
            noticed.only_repeats.push(instrument);
        }
        self.repeats = Some(if is_due { (now, 0) } else { (since, count) });
    }
}

#[cfg(test)]
mod tests;
