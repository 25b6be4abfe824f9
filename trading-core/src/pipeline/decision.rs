//! What a writer does next with its batch, as a pure function of what the batch has been through and what happened.
//!
//! ```text
//! Arrived ─▶ AskCircuit ─Allowed─▶ Store ─Stored─▶ Done
//!                │                  │ ▲ └─Failed─▶ WaitForRetry ─RetryDue─▶ AskCircuit
//!              Barred          last │ └────────────────────┐
//!                ▼          failure ▼                      │
//!              Spool ◀────────── GiveUp                 WaitOver
//!                │ └─SpoolRefused─▶ WaitForStore ──────────┘
//!                └─Spooled─▶ Done
//! ```
//!
//! Three events are not drawn: `DaysLeft` leads to `AskCircuit` where another write goes on and retries are left, else to
//! `Spool`; `Abandoned` leads to `Spool`; `BatcherFull`, which ends `WaitForRetry`, to `GiveUp`.
//!
//! A batch ends stored or spooled, in no other way. Without a spool, `WaitForStore` takes the place of `Spool`.

use super::receipt::Outcome;

/// What stays the same for every batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    /// Retries after the first attempt.
    pub(super) retries_max: u32,
    /// Whether there is another place than the store.
    pub(super) has_spool: bool,
}

/// What a batch has been through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Attempts that failed.
    pub(super) failures: u32,
    /// Whether its retries are used up: from then on the spool comes before the store.
    pub(super) is_spent: bool,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The batch came from the batcher.
    Arrived,
    /// The batch may go to the store.
    Allowed,
    /// The store circuit is open, or the stop's deadline is near.
    Barred,
    /// The store has taken all of it.
    Stored,
    /// The store has taken all but the records of some days.
    DaysLeft {
        /// Whether another write goes on with them at once.
        goes_on: bool,
    },
    /// The store has not taken it.
    Failed {
        /// Whether another attempt soon may succeed.
        can_pass: bool,
    },
    /// The attempt was given up because the stop's deadline is near.
    Abandoned,
    /// The wait for the next attempt is over.
    RetryDue,
    /// While it waited for the next attempt, the batcher has filled up.
    BatcherFull,
    /// The failure is counted, and the store circuit open.
    GivenUp,
    /// The spool has taken it.
    Spooled,
    /// The spool has not taken it.
    SpoolRefused,
    /// The wait for the store is over.
    WaitOver,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask the store circuit whether the batch may go to the store.
    AskCircuit,
    /// Write it to the store.
    Store {
        /// As long as the store itself waits for an answer, because the batch has no other place.
        is_patient: bool,
    },
    /// Wait for the next attempt, but no longer than until the batch has another way.
    WaitForRetry,
    /// Open the store circuit.
    GiveUp {
        /// Whether the batch does so for the first time.
        is_first: bool,
    },
    /// Append it to the spool.
    Spool,
    /// Keep it in memory, and wait before the store is tried again.
    WaitForStore,
    /// The batch is durable.
    Done(Outcome),
}

impl Progress {
    /// What to do after an event, and what the batch has been through then.
    pub(super) const fn next(self, event: Event, rules: Rules) -> (Self, Next) {
        match event {
            Event::Arrived | Event::RetryDue | Event::DaysLeft { goes_on: true } => {
                (self, if self.is_spent { rules.elsewhere() } else { Next::AskCircuit })
            }
            Event::Allowed => (self, Next::Store { is_patient: !rules.has_spool }),
            Event::Barred | Event::Abandoned | Event::GivenUp => (self, rules.elsewhere()),
            Event::DaysLeft { goes_on: false } => {
                (Self { is_spent: true, ..self }, rules.elsewhere())
            }
            Event::Failed { can_pass } => {
                let failed = Self { failures: self.failures.saturating_add(1), ..self };
                if can_pass && failed.failures <= rules.retries_max {
                    (failed, Next::WaitForRetry)
                } else {
                    failed.give_up()
                }
            }
            Event::BatcherFull => self.give_up(),
            Event::SpoolRefused => (self, Next::WaitForStore),
            Event::WaitOver => (self, Next::Store { is_patient: true }),
            Event::Stored => (self, Next::Done(Outcome::Stored)),
            Event::Spooled => (self, Next::Done(Outcome::Spooled)),
        }
    }

    const fn give_up(self) -> (Self, Next) {
        (Self { is_spent: true, ..self }, Next::GiveUp { is_first: !self.is_spent })
    }
}

impl Rules {
    /// Where a batch goes that the store cannot take now.
    const fn elsewhere(self) -> Next {
        if self.has_spool { Next::Spool } else { Next::WaitForStore }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPOOL: Rules = Rules { retries_max: 2, has_spool: true };
    const STORED: Next = Next::Done(Outcome::Stored);
    const SPOOLED: Next = Next::Done(Outcome::Spooled);
    const NO_SPOOL: Rules = Rules { retries_max: 2, has_spool: false };

    const fn after(failures: u32, is_spent: bool) -> Progress {
        Progress { failures, is_spent }
    }

    /// What can happen while this is done.
    fn events(next: Next, rules: Rules) -> Vec<Event> {
        let days = [true, false].map(|goes_on| Event::DaysLeft { goes_on });
        let failures = [true, false].map(|can_pass| Event::Failed { can_pass });
        match next {
            Next::AskCircuit => vec![Event::Allowed, Event::Barred],
            Next::Store { is_patient } => {
                let mut events = vec![Event::Stored];
                events.extend(days.into_iter().chain(failures));
                if !is_patient {
                    events.push(Event::Abandoned);
                }
                events
            }
            Next::WaitForRetry if rules.has_spool => vec![Event::RetryDue, Event::BatcherFull],
            Next::WaitForRetry => vec![Event::RetryDue],
            Next::GiveUp { .. } => vec![Event::GivenUp],
            Next::Spool => vec![Event::Spooled, Event::SpoolRefused],
            Next::WaitForStore => vec![Event::WaitOver],
            Next::Done(_) => Vec::new(),
        }
    }

    #[test]
    fn every_state_and_event_has_its_next_step() {
        let (fresh, spent) = (after(0, false), after(0, true));
        let impatient = Next::Store { is_patient: false };
        let patient = Next::Store { is_patient: true };
        let days = |goes_on| Event::DaysLeft { goes_on };
        let failed = |can_pass| Event::Failed { can_pass };
        let gives_up = |is_first| Next::GiveUp { is_first };
        let cases = [
            // A batch that still has its retries.
            (fresh, Event::Arrived, SPOOL, fresh, Next::AskCircuit),
            (fresh, Event::Arrived, NO_SPOOL, fresh, Next::AskCircuit),
            (fresh, Event::Allowed, SPOOL, fresh, impatient),
            (fresh, Event::Allowed, NO_SPOOL, fresh, patient),
            (fresh, Event::Barred, SPOOL, fresh, Next::Spool),
            (fresh, Event::Barred, NO_SPOOL, fresh, Next::WaitForStore),
            (fresh, Event::Stored, SPOOL, fresh, STORED),
            (fresh, Event::Stored, NO_SPOOL, fresh, STORED),
            (fresh, Event::Abandoned, SPOOL, fresh, Next::Spool),
            (fresh, days(true), SPOOL, fresh, Next::AskCircuit),
            (fresh, days(true), NO_SPOOL, fresh, Next::AskCircuit),
            (fresh, days(false), SPOOL, spent, Next::Spool),
            (fresh, days(false), NO_SPOOL, spent, Next::WaitForStore),
            (fresh, failed(true), SPOOL, after(1, false), Next::WaitForRetry),
            (fresh, failed(true), NO_SPOOL, after(1, false), Next::WaitForRetry),
            (fresh, failed(false), SPOOL, after(1, true), gives_up(true)),
            (fresh, failed(false), NO_SPOOL, after(1, true), gives_up(true)),
            (after(1, false), failed(true), SPOOL, after(2, false), Next::WaitForRetry),
            (after(2, false), failed(true), SPOOL, after(3, true), gives_up(true)),
            (after(2, false), failed(true), NO_SPOOL, after(3, true), gives_up(true)),
            (after(1, false), Event::RetryDue, SPOOL, after(1, false), Next::AskCircuit),
            (after(1, false), Event::RetryDue, NO_SPOOL, after(1, false), Next::AskCircuit),
            (after(1, false), Event::BatcherFull, SPOOL, after(1, true), gives_up(true)),
            (fresh, Event::Spooled, SPOOL, fresh, SPOOLED),
            (fresh, Event::SpoolRefused, SPOOL, fresh, Next::WaitForStore),
            (fresh, Event::WaitOver, SPOOL, fresh, patient),
            (fresh, Event::WaitOver, NO_SPOOL, fresh, patient),
            // A batch that has none left.
            (after(3, true), Event::GivenUp, SPOOL, after(3, true), Next::Spool),
            (after(3, true), Event::GivenUp, NO_SPOOL, after(3, true), Next::WaitForStore),
            (after(3, true), Event::Spooled, SPOOL, after(3, true), SPOOLED),
            (after(3, true), Event::SpoolRefused, SPOOL, after(3, true), Next::WaitForStore),
            (after(3, true), Event::WaitOver, SPOOL, after(3, true), patient),
            (after(3, true), Event::WaitOver, NO_SPOOL, after(3, true), patient),
            (after(3, true), Event::Stored, SPOOL, after(3, true), STORED),
            (after(3, true), Event::Stored, NO_SPOOL, after(3, true), STORED),
            (after(3, true), failed(true), SPOOL, after(4, true), gives_up(false)),
            (after(3, true), failed(true), NO_SPOOL, after(4, true), gives_up(false)),
            (after(3, true), failed(false), SPOOL, after(4, true), gives_up(false)),
            (spent, days(true), SPOOL, spent, Next::Spool),
            (spent, days(true), NO_SPOOL, spent, Next::WaitForStore),
            (spent, days(false), SPOOL, spent, Next::Spool),
            (spent, failed(true), SPOOL, after(1, true), Next::WaitForRetry),
            (after(1, true), Event::RetryDue, SPOOL, after(1, true), Next::Spool),
            (after(1, true), Event::RetryDue, NO_SPOOL, after(1, true), Next::WaitForStore),
            (after(1, true), Event::BatcherFull, SPOOL, after(1, true), gives_up(false)),
        ];
        for (before, event, rules, expected, next) in cases {
            assert_eq!(
                before.next(event, rules),
                (expected, next),
                "{before:?} {event:?} {rules:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn prop_no_sequence_of_events_loses_a_batch(
            choices in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
            has_spool in any::<bool>(),
            retries_max in 0_u32..5,
        ) {
            let rules = Rules { retries_max, has_spool };
            let (mut progress, mut next) = Progress::default().next(Event::Arrived, rules);
            let mut given_up_first = 0;
            let mut choices = choices.into_iter();
            // First anything happens; then the store takes what it is given, and the spool nothing.
            let mut steps_to_end = 0;
            while !matches!(next, Next::Done(_)) {
                given_up_first += u32::from(next == Next::GiveUp { is_first: true });
                prop_assert!(has_spool || next != Next::Spool);
                prop_assert!(has_spool || next != Next::Store { is_patient: false }, "it is all that there is");
                let possible = events(next, rules);
                let event = if let Some(choice) = choices.next() {
                    *choice.get(&possible)
                } else {
                    steps_to_end += 1;
                    let settles = [Event::Stored, Event::SpoolRefused, Event::Allowed];
                    *possible.iter().find(|event| settles.contains(event)).unwrap_or(&possible[0])
                };
                let (before, doing) = (progress, next);
                (progress, next) = progress.next(event, rules);
                prop_assert_eq!(
                    (next == STORED, next == SPOOLED),
                    (event == Event::Stored, event == Event::Spooled),
                    "{:?} {:?} {:?}", before, doing, event
                );
                prop_assert!(progress.failures >= before.failures && progress.is_spent >= before.is_spent);
                prop_assert!(steps_to_end < 6, "a batch that the store would take is written soon");
            }
            prop_assert!(given_up_first <= 1, "a batch is counted as failed once");
        }
    }
}
