//! How far the records are durable, though writes overlap and end in any order, and which receipts wait for that.
//!
//! Pure: counts records in the order in which the pipeline takes them from the channel.

use std::collections::{BTreeMap, VecDeque};

use super::receipt::{Claim, Outcome};
use crate::domain::count;

/// The batches under way.
#[derive(Debug, Default)]
pub(super) struct Durable {
    begun: u64,
    under_way: BTreeMap<u64, Batch>,
    /// Where the last batch ended of which something was spooled.
    spooled_to: u64,
    /// Where the last batch ended that was lost, and where the first began.
    lost_to: u64,
    lost_from: Option<u64>,
    /// In the order of their ends.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Batch {
    /// The record after its last.
    end: u64,
    /// Since when its oldest record is held, on the steady clock.
    since: i64,
}

/// A claim for records of which the last is before `end`.
#[derive(Debug)]
struct Waiting {
    end: u64,
    outcome: Outcome,
    claim: Claim,
}

impl Durable {
    /// Registers the write of the next `records`, at least one, held since then; returns the write's number.
    pub(super) fn begin(&mut self, records: usize, since: i64) -> u64 {
        let number = self.begun;
        self.begun = number.saturating_add(count(records));
        self.under_way.insert(number, Batch { end: self.begun, since });
        number
    }

    /// Notes that a write has ended, and resolves the receipts that waited for it. What it carried is durable, or lost
    /// when the outcome is [`Outcome::Dropped`].
    pub(super) fn end(&mut self, number: u64, outcome: Outcome) {
        let Some(batch) = self.under_way.remove(&number) else { return };
        match outcome {
            Outcome::Stored => {}
            Outcome::Spooled => self.spooled_to = self.spooled_to.max(batch.end),
            Outcome::Dropped => {
                self.lost_to = self.lost_to.max(batch.end);
                self.lost_from = Some(self.lost_from.map_or(number, |first| first.min(number)));
            }
        }
        for it in &mut self.waiting {
            if it.claim.from() < batch.end && number < it.end {
                it.outcome = it.outcome.max(outcome);
            }
        }
        self.resolve();
    }

    /// Keeps a claim for records of which the last is before `end`, until all before `end` are durable.
    pub(super) fn wait_for(&mut self, claim: Claim, end: u64) {
        let outcome = match claim.from() {
            from if from < self.lost_to => Outcome::Dropped,
            from if from < self.spooled_to => Outcome::Spooled,
            _ => Outcome::Stored,
        };
        self.waiting.push_back(Waiting { end, outcome, claim });
        self.resolve();
    }

    fn resolve(&mut self) {
        let ended = self.ended();
        while let Some(it) = self.waiting.pop_front_if(|it| it.end <= ended) {
            it.claim.resolve(it.outcome);
        }
    }

    /// How many records are durable, from the first on without a hole.
    pub(super) fn through(&self) -> u64 {
        self.lost_from.unwrap_or(u64::MAX).min(self.ended())
    }

    /// How many records are under way no longer, from the first on without a hole.
    fn ended(&self) -> u64 {
        self.under_way.first_key_value().map_or(self.begun, |(first, _)| *first)
    }

    /// Since when records under way are held; `None`: none are.
    pub(super) fn since(&self) -> Option<i64> {
        self.under_way.values().map(|batch| batch.since).min()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;
    use crate::pipeline::Receipt;

    #[test]
    fn a_later_write_that_ends_first_waits_for_the_earlier_one() {
        let mut durable = Durable::default();
        let (one, two) = (durable.begin(500, 20), durable.begin(3, 10));
        assert_eq!(durable.since(), Some(10));
        durable.end(two, Outcome::Stored);
        assert_eq!(durable.since(), Some(20));
        assert_eq!(durable.through(), 0);
        durable.end(one, Outcome::Stored);
        assert_eq!(durable.through(), 503);
        let three = durable.begin(7, 30);
        assert_eq!(durable.through(), 503);
        durable.end(three, Outcome::Stored);
        assert_eq!(durable.through(), 510);
        assert_eq!(durable.since(), None);
    }

    /// A pipeline in small: records are numbers, in the channel, in the batch, under way or durable.
    #[derive(Default)]
    struct Model {
        durable: Durable,
        sent: u64,
        taken: u64,
        in_channel: usize,
        in_batch: usize,
        writes: Vec<(u64, std::ops::Range<u64>)>,
        lost: BTreeSet<u64>,
        safe: BTreeSet<u64>,
        spooled: BTreeSet<u64>,
        receipts: Vec<(std::ops::Range<u64>, Receipt)>,
        resolved: Vec<Outcome>,
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Send { records: u64, tracked: bool },
        Take(usize),
        Write,
        End { which: prop::sample::Index, outcome: Outcome },
    }

    fn step() -> impl Strategy<Value = Step> {
        let outcome = prop_oneof![
            6 => Just(Outcome::Stored),
            3 => Just(Outcome::Spooled),
            1 => Just(Outcome::Dropped),
        ];
        prop_oneof![
            (0_u64..20, any::<bool>())
                .prop_map(|(records, tracked)| Step::Send { records, tracked }),
            (1_usize..30).prop_map(Step::Take),
            Just(Step::Write),
            (any::<prop::sample::Index>(), outcome)
                .prop_map(|(which, outcome)| Step::End { which, outcome }),
        ]
    }

    impl Model {
        fn apply(&mut self, step: Step) {
            match step {
                Step::Send { records, tracked } => {
                    let batch = self.sent..self.sent + records;
                    self.sent = batch.end;
                    self.in_channel += usize::try_from(records).unwrap();
                    if tracked {
                        let (claim, receipt) = Claim::new(self.taken);
                        self.receipts.push((batch, receipt));
                        let end = self.taken + count(self.in_channel);
                        self.durable.wait_for(claim, end);
                    }
                }
                Step::Take(records) => {
                    let taken = records.min(self.in_channel);
                    self.in_channel -= taken;
                    self.in_batch += taken;
                    self.taken += count(taken);
                }
                Step::Write if self.in_batch > 0 => {
                    let number = self.durable.begin(std::mem::take(&mut self.in_batch), 0);
                    self.writes.push((number, number..self.taken));
                }
                Step::End { which, outcome } if !self.writes.is_empty() => {
                    self.end(which.index(self.writes.len()), outcome);
                }
                Step::Write | Step::End { .. } => {}
            }
        }

        fn end(&mut self, at: usize, outcome: Outcome) {
            let (number, records) = self.writes.swap_remove(at);
            match outcome {
                // Its task has panicked: what it carried is never durable.
                Outcome::Dropped => self.lost.extend(records),
                Outcome::Spooled => {
                    self.safe.extend(records.clone());
                    self.spooled.extend(records);
                }
                Outcome::Stored => self.safe.extend(records),
            }
            self.durable.end(number, outcome);
        }

        /// Takes the receipts that have their outcome, and checks it.
        fn check(&mut self) {
            for (batch, mut receipt) in std::mem::take(&mut self.receipts) {
                let Some(outcome) = receipt.outcome().now_or_never() else {
                    self.receipts.push((batch, receipt));
                    continue;
                };
                self.resolved.push(outcome);
                if outcome == Outcome::Dropped {
                    assert!(!self.lost.is_empty(), "nothing was lost");
                    continue;
                }
                assert!(batch.clone().all(|record| self.safe.contains(&record)), "too early");
                if batch.clone().any(|record| self.spooled.contains(&record)) {
                    assert_eq!(outcome, Outcome::Spooled, "{batch:?}");
                }
                if self.spooled.is_empty() {
                    assert_eq!(outcome, Outcome::Stored);
                }
            }
            let through = self.durable.through();
            assert!((0..through).all(|record| self.safe.contains(&record)), "a hole");
        }
    }

    proptest! {
        #[test]
        fn prop_a_receipt_is_resolved_once_and_never_before_its_records_are_durable(
            steps in prop::collection::vec(step(), 0..120),
        ) {
            let mut model = Model::default();
            let mut tracked = 0;
            for step in steps {
                tracked += usize::from(matches!(step, Step::Send { tracked: true, .. }));
                model.apply(step);
                model.check();
                prop_assert_eq!(model.resolved.len() + model.receipts.len(), tracked);
            }
            // The stop: all that was sent is taken and written.
            model.apply(Step::Take(usize::MAX));
            model.apply(Step::Write);
            while !model.writes.is_empty() {
                model.end(0, Outcome::Stored);
            }
            model.check();
            prop_assert!(model.receipts.is_empty(), "by the end each has its outcome");
            // A lost write keeps nothing that is sent later from its receipt.
            model.apply(Step::Send { records: 1, tracked: true });
            model.apply(Step::Take(1));
            model.apply(Step::Write);
            model.end(0, Outcome::Stored);
            model.check();
            prop_assert_eq!(model.resolved.last(), Some(&Outcome::Stored));
        }
    }
}
