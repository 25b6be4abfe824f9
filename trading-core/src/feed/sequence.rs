//! What has been seen of each symbol: duplicates end here, and a jump is noticed.
//!
//! Lives as long as the feed, over all its connections, so that what an exchange sends again after a reconnect
//! (Kraken's fifty trades, Coinbase's `last_match`) is not sent on.

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::domain::{Instrument, Tick, Timestamp, TradeId};
use crate::exchange::IdRule;

/// An id that goes back although the trade is this much younger is no repeat: the exchange counts anew.
const RESET_MIN: Duration = Duration::from_secs(60);

/// Ranges of missing ids remembered per symbol: what comes late on the other of two connections fills them.
const HOLES_MAX: usize = 64;

/// Ids remembered per symbol where their order proves nothing: more than any exchange sends again.
const RECENT_MAX: usize = 4_096;

/// Trade ids of a symbol that were never sent to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Whose.
    pub instrument: Instrument,
    /// The first that is missing.
    pub first_id: u64,
    /// The last that is missing.
    pub last_id: u64,
}

impl Gap {
    /// How many trades are missing.
    #[must_use]
    pub const fn trades(&self) -> u64 {
        self.last_id - self.first_id + 1
    }
}

/// What was found in the ticks of a frame.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Ticks taken out, because they had been seen.
    pub duplicates: usize,
    /// Jumps of the ids.
    pub gaps: Vec<Gap>,
    /// Symbols whose exchange has begun to count anew.
    pub resets: Vec<Instrument>,
}

/// What has been seen, per symbol.
#[derive(Debug)]
pub struct Sequence {
    rule: IdRule,
    seen: FxHashMap<Instrument, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    last: Option<(u64, Timestamp)>,
    /// First and last id of what was jumped over and has not come since, oldest first.
    holes: VecDeque<(u64, u64)>,
    recent: FxHashSet<TradeId>,
    order: VecDeque<TradeId>,
}

enum Verdict {
    New,
    Seen,
    After(Gap),
    Reset,
}

impl Sequence {
    /// A sequence that has seen nothing.
    #[must_use]
    pub fn new(rule: IdRule) -> Self {
        Self { rule, seen: FxHashMap::default() }
    }

    /// Takes the ticks out that were seen before, and remembers the others.
    pub fn admit(&mut self, ticks: &mut Vec<Tick>) -> Findings {
        let mut findings = Findings::default();
        ticks.retain(|tick| {
            let seen = self.seen.entry(tick.instrument).or_default();
            let verdict = match (self.rule, tick.trade_id.number()) {
                (IdRule::Consecutive, Some(id)) => seen.judge_count(tick, id),
                _ => seen.judge_recent(tick),
            };
            match verdict {
                Verdict::New => true,
                Verdict::Seen => {
                    findings.duplicates += 1;
                    false
                }
                Verdict::After(gap) => {
                    findings.gaps.push(gap);
                    true
                }
                Verdict::Reset => {
                    findings.resets.push(tick.instrument);
                    true
                }
            }
        });
        findings
    }
}

impl Seen {
    fn judge_count(&mut self, tick: &Tick, id: u64) -> Verdict {
        let verdict = match self.last {
            None => Verdict::New,
            Some((last, at)) if id <= last => {
                if self.fill(id) {
                    return Verdict::New;
                }
                let younger = tick.exchange_at.as_micros() - at.as_micros();
                if u128::try_from(younger).unwrap_or(0) < RESET_MIN.as_micros() {
                    return Verdict::Seen;
                }
                self.holes.clear();
                Verdict::Reset
            }
            Some((last, _)) if id - last == 1 => Verdict::New,
            Some((last, _)) => {
                let (first_id, last_id) = (last + 1, id - 1);
                if self.holes.len() == HOLES_MAX {
                    self.holes.pop_front();
                }
                self.holes.push_back((first_id, last_id));
                Verdict::After(Gap { instrument: tick.instrument, first_id, last_id })
            }
        };
        self.last = Some((id, tick.exchange_at));
        verdict
    }

    /// Takes an id out of the hole that it is missing from, if there is one.
    fn fill(&mut self, id: u64) -> bool {
        let Some(at) = self.holes.iter().position(|(first, last)| (*first..=*last).contains(&id))
        else {
            return false;
        };
        let Some((first, last)) = self.holes.remove(at) else { return false };
        if id < last {
            self.holes.insert(at, (id + 1, last));
        }
        if first < id {
            self.holes.insert(at, (first, id - 1));
        }
        true
    }

    fn judge_recent(&mut self, tick: &Tick) -> Verdict {
        if !self.recent.insert(tick.trade_id.clone()) {
            return Verdict::Seen;
        }
        if self.order.len() == RECENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.recent.remove(&oldest);
        }
        self.order.push_back(tick.trade_id.clone());
        Verdict::New
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Side, Source};

    fn tick(id: u64, second: i64) -> Tick {
        Tick {
            instrument: Instrument::intern("kraken", &"BTCUSD".parse().unwrap()).unwrap(),
            trade_id: TradeId::Number(id),
            price: 1.into(),
            quantity: 1.into(),
            side: Side::Buy,
            source: Source::Live,
            exchange_at: Timestamp::from_millis(second * 1_000).unwrap(),
            received_at: Timestamp::from_millis(second * 1_000).unwrap(),
        }
    }

    fn ids(ticks: &[Tick]) -> Vec<u64> {
        ticks.iter().filter_map(|tick| tick.trade_id.number()).collect()
    }

    #[test]
    fn a_snapshot_after_a_reconnect_brings_only_what_is_new() {
        let mut sequence = Sequence::new(IdRule::Consecutive);
        sequence.admit(&mut (100..=110).map(|id| tick(id, 1)).collect());
        let mut snapshot: Vec<_> = (95..=115).map(|id| tick(id, 1)).collect();
        let findings = sequence.admit(&mut snapshot);
        assert_eq!(ids(&snapshot), [111, 112, 113, 114, 115]);
        assert_eq!(findings, Findings { duplicates: 16, ..Findings::default() });
    }

    #[test]
    fn a_jump_names_what_is_missing() {
        let mut sequence = Sequence::new(IdRule::Consecutive);
        let mut ticks = vec![tick(1, 1), tick(2, 1), tick(6, 1)];
        let findings = sequence.admit(&mut ticks);
        assert_eq!(ids(&ticks), [1, 2, 6]);
        let gap = Gap { instrument: ticks[0].instrument, first_id: 3, last_id: 5 };
        assert_eq!(findings.gaps, [gap]);
        assert_eq!(gap.trades(), 3);
    }

    #[test]
    fn what_was_jumped_over_and_comes_late_is_taken_once() {
        let mut sequence = Sequence::new(IdRule::Consecutive);
        // Two connections: the newer one is ahead.
        sequence.admit(&mut vec![tick(100, 1), tick(104, 1)]);
        let mut late = vec![tick(102, 1), tick(101, 1), tick(102, 1), tick(103, 1), tick(99, 1)];
        let findings = sequence.admit(&mut late);
        assert_eq!(ids(&late), [102, 101, 103]);
        assert_eq!(findings, Findings { duplicates: 2, ..Findings::default() });
        assert_eq!(sequence.admit(&mut vec![tick(105, 1)]), Findings::default());
    }

    #[test]
    fn as_many_holes_are_remembered_as_may_be_and_the_oldest_is_forgotten() {
        let mut sequence = Sequence::new(IdRule::Consecutive);
        let holes = u64::try_from(HOLES_MAX).unwrap();
        sequence.admit(&mut (0..=holes + 1).map(|n| tick(n * 2, 1)).collect());
        let mut late = vec![tick(1, 1), tick(3, 1)];
        assert_eq!(sequence.admit(&mut late).duplicates, 1);
        assert_eq!(ids(&late), [3]);
    }

    #[test]
    fn the_largest_id_there_can_be_breaks_nothing() {
        let mut sequence = Sequence::new(IdRule::Consecutive);
        let mut ticks =
            vec![tick(u64::MAX - 1, 1), tick(u64::MAX, 1), tick(u64::MAX, 1), tick(0, 1)];
        assert_eq!(sequence.admit(&mut ticks).duplicates, 2);
    }

    #[test]
    fn an_exchange_that_counts_anew_is_not_dropped_for_ever() {
        let mut sequence = Sequence::new(IdRule::Consecutive);
        sequence.admit(&mut vec![tick(1_000_000, 1)]);
        let mut ticks = vec![tick(1, 62), tick(2, 62)];
        let findings = sequence.admit(&mut ticks);
        assert_eq!(ids(&ticks), [1, 2]);
        assert_eq!(findings.resets.len(), 1);
    }

    #[test]
    fn unordered_ids_are_known_again_as_far_as_they_are_remembered() {
        let mut sequence = Sequence::new(IdRule::Unique);
        let limit = u64::try_from(RECENT_MAX).unwrap();
        let mut first: Vec<_> = (0..=limit).rev().map(|id| tick(id, 1)).collect();
        assert_eq!(sequence.admit(&mut first).duplicates, 0);
        let mut again = vec![tick(limit - 1, 1), tick(0, 1), tick(limit, 1)];
        // The very first was forgotten when the memory was full; the database knows it still.
        assert_eq!(sequence.admit(&mut again).duplicates, 2);
        assert_eq!(ids(&again), [limit]);
    }

    proptest! {
        #[test]
        fn prop_what_passes_is_each_id_once_and_nothing_is_lost(frames in prop::collection::vec(prop::collection::vec(0_u64..60, 0..20), 0..20)) {
            let mut sequence = Sequence::new(IdRule::Consecutive);
            let (mut passed, mut came, mut duplicates) = (Vec::new(), 0, 0);
            let all: Vec<u64> = frames.iter().flatten().copied().collect();
            for frame in frames {
                let mut ticks: Vec<_> = frame.iter().map(|id| tick(*id, 1)).collect();
                came += ticks.len();
                duplicates += sequence.admit(&mut ticks).duplicates;
                passed.extend(ids(&ticks));
            }
            prop_assert_eq!(passed.len() + duplicates, came);
            let first = passed.first().copied().unwrap_or_default();
            let unique: std::collections::BTreeSet<_> = passed.iter().copied().collect();
            prop_assert_eq!(unique.len(), passed.len(), "each once");
            // Everything from the first on, unless more holes were open at once than are remembered.
            let expected: std::collections::BTreeSet<_> = all.into_iter().filter(|id| *id >= first).collect();
            prop_assert_eq!(unique, expected);
        }
    }
}
