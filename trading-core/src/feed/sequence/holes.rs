//! Ids of one symbol that were jumped over: what comes late fills them, what does not is listed.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{GapCause, GapRecord, IdRange, Instrument, TimeRange, Timestamp};

/// Ranges of missing ids remembered per symbol: what comes late on the other of two connections fills them.
pub(super) const HOLES_MAX: usize = 64;
/// How long what was jumped over may still come, before it is called missing.
pub(super) const GRACE: Duration = Duration::from_secs(1);
/// Gaps of one symbol that are listed at once; more are listed as one, from the first to the last of their ids.
pub(super) const LISTED_MAX: usize = 8;
/// The longest wait between two gaps of a symbol that has more holes than are remembered.
const SPILL_MAX: Duration = Duration::from_mins(1);

/// Ids that were jumped over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hole {
    pub(super) ids: IdRange,
    pub(super) times: TimeRange,
    pub(super) cause: GapCause,
    pub(super) seen_at: Timestamp,
    pub(super) opened_at: Instant,
    pub(super) is_listed: bool,
}

impl Hole {
    pub(super) fn gap(&self, instrument: Instrument) -> GapRecord {
        let Self { ids, times, cause, seen_at, .. } = *self;
        // An exchange's clock may go back.
        let times = TimeRange::between(times.from, times.to);
        GapRecord { instrument, ids: Some(ids), times, cause, seen_at }
    }

    fn join(&mut self, other: &Self) {
        self.ids = self.ids.hull(other.ids);
        self.times = self.times.hull(other.times);
        self.seen_at = self.seen_at.max(other.seen_at);
        self.cause = GapCause::JumpedOften;
    }
}

/// Holes that were forgotten, because there were too many, and are not listed yet.
#[derive(Debug)]
struct Spilled {
    all: Hole,
    due: Instant,
}

/// In the order of the ids.
#[derive(Debug, Default)]
pub(super) struct Holes {
    all: VecDeque<Hole>,
    spilled: Option<Spilled>,
    /// The wait before what is spilled next is listed, and when something was spilled last.
    wait: Duration,
    spilled_at: Option<Instant>,
}

impl Holes {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.spilled.is_none()
    }

    /// Adds a hole above all others.
    pub(super) fn open(&mut self, hole: Hole, now: Instant) {
        self.all.push_back(hole);
        self.bound(now);
    }

    /// Forgets the oldest hole where there are too many; it is listed together with the others that are forgotten.
    fn bound(&mut self, now: Instant) {
        while self.all.len() > HOLES_MAX {
            let Some(hole) = self.all.pop_front().filter(|hole| !hole.is_listed) else { continue };
            let is_calm = self.spilled_at.is_none_or(|at| now >= at + SPILL_MAX * 2);
            self.spilled_at = Some(now);
            match &mut self.spilled {
                Some(spilled) => spilled.all.join(&hole),
                None => {
                    let longer = (self.wait * 2).clamp(GRACE, SPILL_MAX);
                    self.wait = if is_calm { GRACE } else { longer };
                    self.spilled = Some(Spilled { all: hole, due: now + self.wait });
                }
            }
        }
    }

    /// The hole that an id is missing from.
    pub(super) fn find(&self, id: u64) -> Option<&Hole> {
        let place = self.all.partition_point(|hole| hole.ids.last() < id);
        self.all.get(place).filter(|hole| hole.ids.contains(id))
    }

    /// Takes an id out of the hole that it is missing from, if there is one, and returns that hole as it was.
    pub(super) fn fill(&mut self, id: u64, at: Timestamp, now: Instant) -> Option<Hole> {
        let place = self.all.partition_point(|hole| hole.ids.last() < id);
        let hole = self.all.get(place).copied().filter(|hole| hole.ids.contains(id))?;
        // A stamp outside of the hole's times says nothing of what is left of it.
        let times = TimeRange::between(hole.times.from, hole.times.to);
        let at = at.clamp(times.from, times.to);
        self.all.remove(place);
        if id < hole.ids.last() {
            let ids = IdRange::between(id + 1, hole.ids.last());
            self.all.insert(place, Hole { ids, times: TimeRange::new(at, hole.times.to), ..hole });
        }
        if hole.ids.first() < id {
            let ids = IdRange::between(hole.ids.first(), id - 1);
            self.all
                .insert(place, Hole { ids, times: TimeRange::new(hole.times.from, at), ..hole });
        }
        self.bound(now);
        Some(hole)
    }

    /// Takes the ids above this one out, and returns those of them that were listed.
    pub(super) fn cut_above(&mut self, id: u64) -> Vec<IdRange> {
        let mut listed = Vec::new();
        self.all.retain_mut(|hole| {
            let ids = hole.ids;
            if ids.last() <= id {
                return true;
            }
            let cut = IdRange::between(ids.first().max(id + 1), ids.last());
            if hole.is_listed {
                listed.push(cut);
            }
            hole.ids = IdRange::between(ids.first(), id.max(ids.first()));
            ids.first() <= id
        });
        listed
    }

    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.spilled = None;
    }

    /// The gaps of the holes that were not listed and are due at this time, now listed; of all with `None`.
    pub(super) fn list(
        &mut self,
        instrument: Instrument,
        now: Option<Instant>,
        gaps: &mut Vec<GapRecord>,
    ) {
        if self.is_empty() {
            return;
        }
        let is_spill_due = |spilled: &mut Spilled| now.is_none_or(|now| now >= spilled.due);
        if let Some(spilled) = self.spilled.take_if(is_spill_due) {
            gaps.push(spilled.all.gap(instrument));
        }
        let is_due = |hole: &&mut Hole| {
            !hole.is_listed && now.is_none_or(|now| now >= hole.opened_at + GRACE)
        };
        let mut due = self.all.iter_mut().filter(is_due).map(|hole| {
            hole.is_listed = true;
            *hole
        });
        let first: Vec<Hole> = due.by_ref().take(LISTED_MAX).collect();
        match due.next() {
            None => gaps.extend(first.iter().map(|hole| hole.gap(instrument))),
            Some(next) => {
                let all = first.into_iter().chain(due).fold(next, |mut all, hole| {
                    all.join(&hole);
                    all
                });
                gaps.push(all.gap(instrument));
            }
        }
    }
}
