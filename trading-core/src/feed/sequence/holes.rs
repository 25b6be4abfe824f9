//! Ids of one symbol that were jumped over: what comes late fills them, what does not is told.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{Instrument, Timestamp};
use crate::store::journal::{GapCause, GapRecord};

/// Ranges of missing ids remembered per symbol: what comes late on the other of two connections fills them.
pub(super) const HOLES_MAX: usize = 64;
/// How long what was jumped over may still come, before it is called missing.
pub(super) const GRACE: Duration = Duration::from_secs(1);
/// Gaps of one symbol that are told at once; more are told as one, from the first to the last of their ids.
pub(super) const TOLD_MAX: usize = 8;
/// The longest wait between two gaps of a symbol that has more holes than are remembered.
const SPILL_MAX: Duration = Duration::from_mins(1);

/// Ids that were jumped over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hole {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) cause: GapCause,
    pub(super) seen_at: Timestamp,
    pub(super) opened_at: Instant,
    pub(super) is_told: bool,
}

impl Hole {
    pub(super) fn gap(&self, instrument: Instrument) -> GapRecord {
        let Self { first, last, from, to, cause, seen_at, .. } = *self;
        let ids = Some((first, last));
        // An exchange's clock may go back.
        GapRecord { instrument, ids, from: from.min(to), to: from.max(to), cause, seen_at }
    }

    fn join(&mut self, other: &Self) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.from = self.from.min(other.from);
        self.to = self.to.max(other.to);
        self.seen_at = self.seen_at.max(other.seen_at);
        self.cause = GapCause::JumpedOften;
    }
}

/// Holes that were forgotten, because there were too many, and not told yet.
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
    /// The wait before what is spilled next is told, and when something was spilled last.
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

    /// Forgets the oldest hole where there are too many; it is told together with the others that are forgotten.
    fn bound(&mut self, now: Instant) {
        while self.all.len() > HOLES_MAX {
            let Some(hole) = self.all.pop_front().filter(|hole| !hole.is_told) else { continue };
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
        let place = self.all.partition_point(|hole| hole.last < id);
        self.all.get(place).filter(|hole| hole.first <= id)
    }

    /// Takes an id out of the hole that it is missing from, if there is one, and says what the hole was.
    pub(super) fn fill(&mut self, id: u64, at: Timestamp, now: Instant) -> Option<Hole> {
        let place = self.all.partition_point(|hole| hole.last < id);
        let hole = self.all.get(place).copied().filter(|hole| hole.first <= id)?;
        // A stamp outside of the hole's times says nothing of what is left of it.
        let at = at.clamp(hole.from.min(hole.to), hole.from.max(hole.to));
        self.all.remove(place);
        if id < hole.last {
            self.all.insert(place, Hole { first: id + 1, from: at, ..hole });
        }
        if hole.first < id {
            self.all.insert(place, Hole { last: id - 1, to: at, ..hole });
        }
        self.bound(now);
        Some(hole)
    }

    /// Takes the ids above this one out, and says which ranges of them were told.
    pub(super) fn cut_above(
        &mut self,
        id: u64,
        which: impl Fn(&Hole) -> bool,
    ) -> Vec<RangeInclusive<u64>> {
        let mut told = Vec::new();
        let mut cut = |hole: &Hole, first: u64| {
            if hole.is_told {
                told.push(first..=hole.last);
            }
        };
        self.all.retain_mut(|hole| {
            if hole.last <= id || !which(hole) {
                return true;
            }
            if hole.first > id {
                cut(hole, hole.first);
                return false;
            }
            cut(hole, id + 1);
            hole.last = id;
            true
        });
        told
    }

    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.spilled = None;
    }

    /// The gaps of the holes that were not told and are due at this time, now told; of all with `None`.
    pub(super) fn tell(
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
        let is_due =
            |hole: &&mut Hole| !hole.is_told && now.is_none_or(|now| now >= hole.opened_at + GRACE);
        let mut due = self.all.iter_mut().filter(is_due).map(|hole| {
            hole.is_told = true;
            *hole
        });
        let first: Vec<Hole> = due.by_ref().take(TOLD_MAX).collect();
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
