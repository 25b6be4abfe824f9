//! One symbol whose ids count its trades.
//!
//! An id that is the next, or a little above it, moves the count at once. One that lies far above, or below without
//! filling a hole, moves nothing by itself: the trade is sent on, and the count goes there when the following ids do. So
//! one wrong id costs nothing, and an exchange that counts anew, or further on, is followed after a few trades.

use std::time::Duration;

use tokio::time::Instant;

use super::Noticed;
use super::cluster::{Cluster, Place};
use super::holes::{Hole, Holes};
use super::stamps::Moment;
use crate::domain::bounds::{JUMP_CONFIRMED, JUMP_MAX};
use crate::domain::{GapCause, GapRecord, IdRange, Instrument, Tick, TimeRange, Timestamp};

/// Trades with ids below the last, and made after it, that show that the count goes on there.
pub(super) const CONFIRM_BEHIND: usize = 8;
/// Trades that go on from the last one, after which an id far above is taken for a mistake.
pub(super) const RETRACT_AFTER: usize = 3;
/// An id far above that nothing contradicts for this long is a gap, whether others follow it or not.
pub(super) const UNFOLLOWED_MAX: Duration = Duration::from_secs(30);
/// Heartbeats in a row that must name ids far above the last before they are believed.
pub(super) const CONFIRM_NAMED: u32 = 4;
/// Heartbeats in a row that name a lower id than an earlier one, and so take that back.
pub(super) const RETRACT_NAMED: u32 = 2;

/// The last trade.
#[derive(Debug, Clone, Copy)]
struct Last {
    id: u64,
    /// When the youngest trade was made, never later than its receipt.
    at: Timestamp,
}

/// Ids far above the last.
#[derive(Debug)]
struct Ahead {
    cluster: Cluster,
    cause: GapCause,
    seen_at: Timestamp,
    since: Instant,
    /// Trades that went on from the last one, since an id above came.
    against: usize,
    /// What was listed as missing below it.
    listed: Option<IdRange>,
}

/// Ids below the last that may show that the count went back.
#[derive(Debug, Default)]
struct Behind {
    cluster: Cluster,
    /// Whether they fill a hole that is larger than trust.
    fills: bool,
    /// Ids that were taken for repeats just before, and when the first of them was made.
    dropped: Option<(IdRange, Timestamp)>,
}

impl Behind {
    fn clear(&mut self) {
        self.cluster.clear();
        self.dropped = None;
    }

    fn note_dropped(&mut self, id: u64, at: Timestamp) {
        self.dropped = match self.dropped {
            Some((ids, from)) if id > ids.last() && id - ids.last() <= JUMP_MAX => {
                Some((ids.hull(IdRange::one(id)), from))
            }
            _ => Some((IdRange::one(id), at)),
        };
    }
}

/// What an exchange names by itself.
#[derive(Debug, Default)]
struct Named {
    /// The last trade id that it named.
    id: Option<u64>,
    /// Heartbeats in a row that named an id far above the last.
    far: u32,
    /// Heartbeats in a row that named less than an earlier one.
    less: u32,
}

/// What has been seen of one symbol.
#[derive(Debug, Default)]
pub(super) struct Count {
    last: Option<Last>,
    /// What was jumped over and has not come since.
    holes: Holes,
    ahead: Option<Ahead>,
    behind: Behind,
    named: Named,
}

/// A trade that came now, with what is believed of its time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub(super) tick: &'a Tick,
    pub(super) id: u64,
    pub(super) moment: Moment,
    /// Its time cannot be true: it moves nothing.
    pub(super) is_far: bool,
    pub(super) now: Instant,
}

impl Count {
    /// Goes on after this trade; these ids below it are missing.
    pub(super) fn resume(
        &mut self,
        id: u64,
        at: Timestamp,
        missing: impl Iterator<Item = IdRange>,
        now: Instant,
    ) {
        self.last = Some(Last { id, at });
        for ids in missing.filter(|ids| ids.last() < id) {
            let hole = Hole {
                ids,
                times: TimeRange::at(at),
                cause: GapCause::NotRunning,
                seen_at: at,
                opened_at: now,
                is_listed: true,
            };
            self.holes.open(hole, now);
        }
    }

    /// Whether a trade is to be sent on.
    pub(super) fn judge(
        &mut self,
        arrival: Arrival<'_>,
        away: &mut Option<GapCause>,
        noticed: &mut Noticed,
    ) -> bool {
        let Arrival { id, moment, is_far, .. } = arrival;
        let Some(last) = self.last else {
            if !is_far {
                self.last = Some(Last { id, at: moment.at });
                *away = None;
            }
            return true;
        };
        if id <= last.id {
            return self.judge_below(arrival, last, noticed);
        }
        if is_far {
            return true;
        }
        if id - last.id > JUMP_MAX {
            return self.judge_ahead(arrival, last, *away, noticed);
        }
        if id - last.id > 1 {
            self.open_up_to(arrival, last, away.unwrap_or(GapCause::Jumped));
        }
        *away = None;
        self.behind.clear();
        self.last = Some(Last { id, at: last.at.max(moment.at) });
        self.count_against_ahead(arrival.tick.instrument, noticed);
        true
    }

    fn open_up_to(&mut self, arrival: Arrival<'_>, last: Last, cause: GapCause) {
        let Arrival { tick, id, moment, now, .. } = arrival;
        let hole = Hole {
            ids: IdRange::between(last.id + 1, id - 1),
            times: TimeRange::new(
                last.at,
                if moment.at < last.at { moment.latest } else { moment.at },
            ),
            cause,
            seen_at: tick.received_at,
            opened_at: now,
            is_listed: false,
        };
        self.holes.open(hole, now);
    }

    fn judge_below(&mut self, arrival: Arrival<'_>, last: Last, noticed: &mut Noticed) -> bool {
        let Arrival { id, moment, is_far, now, .. } = arrival;
        if is_far {
            return self.holes.find(id).is_some();
        }
        if let Some(hole) = self.holes.fill(id, moment.at, now) {
            self.last = Some(Last { at: last.at.max(moment.at), ..last });
            if hole.ids.len() > JUMP_MAX {
                self.note_behind(arrival, true, noticed);
            }
            return true;
        }
        // What is sent again was made before the last trade.
        if moment.at <= last.at {
            self.behind.note_dropped(id, moment.at);
            return false;
        }
        self.note_behind(arrival, false, noticed)
    }

    /// Notes an id below the last that is no repeat. Whether its trade is to be sent on.
    fn note_behind(&mut self, arrival: Arrival<'_>, fills: bool, noticed: &mut Noticed) -> bool {
        let Arrival { tick, id, moment, .. } = arrival;
        if self.behind.cluster.is_empty() || self.behind.fills != fills {
            self.behind.cluster = Cluster::new(id, moment.at);
            self.behind.fills = fills;
        } else {
            match self.behind.cluster.add(id, moment.at) {
                Place::Known => return false,
                Place::Apart => self.behind.cluster = Cluster::new(id, moment.at),
                Place::Joined => {}
            }
        }
        if self.behind.cluster.len() >= CONFIRM_BEHIND {
            if fills {
                self.go_back(tick.instrument, noticed);
            } else {
                self.begin_anew(arrival, noticed);
            }
        }
        true
    }

    /// The exchange counts anew: what was missing of the old count is listed, and the new one begins.
    fn begin_anew(&mut self, arrival: Arrival<'_>, noticed: &mut Noticed) {
        let Arrival { tick, now, .. } = arrival;
        let instrument = tick.instrument;
        self.holes.list(instrument, None, &mut noticed.gaps);
        self.holes.clear();
        self.take_ahead_back(instrument, noticed);
        self.named = Named::default();
        let behind = std::mem::take(&mut self.behind);
        let Some((first, at)) = behind.cluster.first() else { return };
        // Of the new count, the first trades may have been taken for repeats.
        let dropped = behind
            .dropped
            .filter(|(ids, _)| ids.first() < first && first.saturating_sub(ids.last()) <= JUMP_MAX);
        if let Some((ids, since)) = dropped {
            noticed.gaps.push(GapRecord {
                instrument,
                ids: IdRange::new(ids.first(), first - 1),
                times: TimeRange::between(since, at),
                cause: GapCause::Jumped,
                seen_at: tick.received_at,
            });
        }
        self.walk(&behind.cluster, tick.received_at, now, GapCause::Jumped);
        noticed.resets.push(instrument);
    }

    /// Takes over the ids of a cluster as the newest ones.
    fn walk(&mut self, cluster: &Cluster, seen_at: Timestamp, now: Instant, cause: GapCause) {
        let mut before: Option<Last> = None;
        for (id, at) in cluster.iter() {
            if let Some(last) = before.filter(|last| id - last.id > 1) {
                let ids = IdRange::between(last.id + 1, id - 1);
                let times = TimeRange::new(last.at, at.max(last.at));
                let hole = Hole { ids, times, cause, seen_at, opened_at: now, is_listed: false };
                self.holes.open(hole, now);
            }
            before = Some(Last { id, at: before.map_or(at, |last| last.at.max(at)) });
        }
        self.last = before.or(self.last);
    }

    /// The trades go on far below an id that was taken for the last: that was a mistake.
    fn go_back(&mut self, instrument: Instrument, noticed: &mut Noticed) {
        let behind = std::mem::take(&mut self.behind);
        let Some((id, at)) = behind.cluster.iter().last() else { return };
        self.take_ahead_back(instrument, noticed);
        self.named = Named::default();
        let listed = self.holes.cut_above(id);
        retract(instrument, listed, noticed);
        self.last = Some(Last { id, at });
    }

    fn judge_ahead(
        &mut self,
        arrival: Arrival<'_>,
        last: Last,
        away: Option<GapCause>,
        noticed: &mut Noticed,
    ) -> bool {
        let Arrival { tick, id, moment, now, .. } = arrival;
        let place = self.ahead.as_mut().map(|ahead| ahead.cluster.add(id, moment.at));
        match (place, &mut self.ahead) {
            (Some(Place::Known), _) => return false,
            (Some(Place::Joined), Some(ahead)) => ahead.against = 0,
            _ => {
                self.take_ahead_back(tick.instrument, noticed);
                self.ahead = Some(Ahead {
                    cluster: Cluster::new(id, moment.at),
                    cause: away.unwrap_or(GapCause::Jumped),
                    seen_at: tick.received_at,
                    since: now,
                    against: 0,
                    listed: None,
                });
                noticed.ahead.push((tick.instrument, last.id, id));
            }
        }
        if self.ahead.as_ref().is_some_and(|ahead| ahead.cluster.len() >= JUMP_CONFIRMED) {
            self.go_ahead(last, tick.received_at, now);
        }
        true
    }

    /// The count goes on far above.
    fn go_ahead(&mut self, last: Last, seen_at: Timestamp, now: Instant) {
        let Some(ahead) = self.ahead.take() else { return };
        let Some((first, at)) = ahead.cluster.first() else { return };
        let hole = Hole {
            ids: IdRange::between(last.id + 1, first - 1),
            times: TimeRange::new(last.at, at.max(last.at)),
            cause: ahead.cause,
            seen_at: ahead.seen_at,
            opened_at: now,
            is_listed: ahead.listed.is_some(),
        };
        self.holes.open(hole, now);
        self.behind.clear();
        self.walk(&ahead.cluster, seen_at, now, ahead.cause);
    }

    /// A trade went on from the last one, and not from the ids far above.
    fn count_against_ahead(&mut self, instrument: Instrument, noticed: &mut Noticed) {
        let Some(ahead) = &mut self.ahead else { return };
        ahead.against += 1;
        // What is not far any more needs no proof.
        let is_near = ahead
            .cluster
            .first()
            .zip(self.last)
            .is_none_or(|((first, _), last)| first <= last.id.saturating_add(JUMP_MAX));
        if ahead.against >= RETRACT_AFTER || is_near {
            self.take_ahead_back(instrument, noticed);
        }
    }

    fn take_ahead_back(&mut self, instrument: Instrument, noticed: &mut Noticed) {
        if let Some(ids) = self.ahead.take().and_then(|ahead| ahead.listed) {
            retract(instrument, [ids], noticed);
        }
    }

    /// The exchange has named a last trade.
    pub(super) fn record_named(
        &mut self,
        instrument: Instrument,
        id: u64,
        now: Instant,
        at: Timestamp,
        away: &mut Option<GapCause>,
        noticed: &mut Noticed,
    ) {
        let before = self.named.id.replace(id);
        let Some((before, last)) = before.zip(self.last) else { return };
        self.weigh_less(instrument, id, last, noticed);
        // A trade may come after the message that names it, and a message may name what never was: only what two in a
        // row agree on is missing.
        let Some(last) = self.last else { return };
        let agreed = before.min(id);
        if agreed <= last.id {
            self.named.far = 0;
            return;
        }
        if agreed - last.id > JUMP_MAX {
            self.named.far += 1;
            if self.named.far < CONFIRM_NAMED {
                return;
            }
        }
        self.named.far = 0;
        // What trades show counts more than what is named: up to them they say themselves what is missing.
        let shown = self.ahead.as_ref().and_then(|ahead| ahead.cluster.first());
        let last = if shown.is_some_and(|(first, _)| first <= agreed) {
            self.go_ahead(last, at, now);
            *away = None;
            match self.last {
                Some(last) if last.id < agreed => last,
                _ => return,
            }
        } else {
            last
        };
        let hole = Hole {
            ids: IdRange::between(last.id + 1, agreed),
            times: TimeRange::new(last.at, at),
            cause: away.take().unwrap_or(GapCause::NamedLater),
            seen_at: at,
            opened_at: now,
            is_listed: false,
        };
        self.holes.open(hole, now);
        self.last = Some(Last { id: agreed, ..last });
    }

    /// An exchange that names less than before, again and again, takes back what it named.
    fn weigh_less(&mut self, instrument: Instrument, id: u64, last: Last, noticed: &mut Noticed) {
        // Whatever was seen itself is not taken back by a heartbeat.
        let top = self.holes.find(last.id).filter(|hole| hole.ids.last() == last.id);
        let Some(first) = top.filter(|_| id < last.id).map(|hole| hole.ids.first()) else {
            self.named.less = 0;
            return;
        };
        self.named.less += 1;
        if self.named.less >= RETRACT_NAMED {
            self.named.less = 0;
            let id = id.max(first.saturating_sub(1));
            let listed = self.holes.cut_above(id);
            retract(instrument, listed, noticed);
            self.last = Some(Last { id, ..last });
        }
    }

    /// The gaps whose grace is over; each is returned once.
    pub(super) fn due(&mut self, instrument: Instrument, now: Instant, gaps: &mut Vec<GapRecord>) {
        self.holes.list(instrument, Some(now), gaps);
        let Some((ahead, last)) = self.ahead.as_mut().zip(self.last) else { return };
        let is_due = ahead.listed.is_none() && now >= ahead.since + UNFOLLOWED_MAX;
        let Some((first, at)) = ahead.cluster.first().filter(|_| is_due) else { return };
        let ids = IdRange::new(last.id.saturating_add(1), first.saturating_sub(1));
        if ids.is_none() {
            return;
        }
        ahead.listed = ids;
        gaps.push(GapRecord {
            instrument,
            ids,
            times: TimeRange::between(last.at, at),
            cause: ahead.cause,
            seen_at: ahead.seen_at,
        });
    }

    /// Every hole that was not listed, when nothing will fill them any more. An id far above that was not followed is left
    /// to the next start, which knows what is stored.
    pub(super) fn rest(&mut self, instrument: Instrument, gaps: &mut Vec<GapRecord>) {
        self.holes.list(instrument, None, gaps);
    }
}

fn retract(
    instrument: Instrument,
    listed: impl IntoIterator<Item = IdRange>,
    noticed: &mut Noticed,
) {
    noticed.retracted.extend(listed.into_iter().map(|ids| (instrument, ids)));
}
