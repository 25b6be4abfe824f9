//! Where every tick is: received = stored + duplicates + rejected + dropped + spooled + in flight, at every moment.
//!
//! `in flight` and `spooled` are counted for themselves, not derived, so that the sum is a proof and not a tautology. A
//! tick moves between two of the counts in one step, under a lock that is taken once for each frame and each batch: so
//! every reading balances, whenever it is taken.

use std::fmt;
use std::sync::Mutex;

use crate::domain::{count, lock};
use crate::store::Written;

/// The pipeline's counters. Shared; every method may be called from any task.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<LedgerReading>);

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LedgerReading {
    /// Ticks decoded from frames or from an exchange's history, and those of earlier runs found in the spool.
    pub received: u64,
    /// Ticks that were there already: seen before by the feed, or found stored.
    pub duplicates: u64,
    /// Of these, those that the feeds had seen before.
    pub feed_duplicates: u64,
    /// Ticks in the store.
    pub stored: u64,
    /// Ticks that the store refused, kept in `rejected_ticks`.
    pub rejected: u64,
    /// Ticks dropped because the channel was closed during a stop, or that could not be read in a damaged spool.
    pub dropped: u64,
    /// Ticks on disk in the spool, which are not in the store.
    pub spooled: u64,
    /// Ticks in memory: accepted, and neither in the store nor in the spool.
    pub in_flight: u64,
    /// Batches committed.
    pub batches: u64,
    /// Batches whose retries were spent at least once.
    pub failed: u64,
    /// Attempts after a first one.
    pub retries: u64,
}

impl Ledger {
    /// A source hands over what it has received: `accepted` ticks enter the channel and are in flight from here on, the
    /// duplicates it had seen before do not.
    pub fn record_received(&self, received: usize, duplicates: usize, accepted: usize) {
        self.change(|counts| {
            counts.received += count(received);
            counts.duplicates += count(duplicates);
            counts.feed_duplicates += count(duplicates);
            counts.in_flight += count(accepted);
        });
    }

    /// Ticks that were to enter the channel found it closed.
    pub fn record_dropped(&self, ticks: usize) {
        self.change(|counts| {
            counts.dropped += count(ticks);
            counts.leave_flight(count(ticks));
        });
    }

    /// A batch was written.
    pub(super) fn record_written(&self, written: Written) {
        self.change(|counts| {
            let ticks = counts.settle(written);
            counts.leave_flight(ticks);
        });
    }

    /// Batches of earlier runs were found in the spool.
    pub fn record_found(&self, ticks: u64) {
        self.change(|counts| {
            counts.received += ticks;
            counts.spooled += ticks;
        });
    }

    /// A batch went to the spool.
    pub(super) fn record_spooled(&self, ticks: usize) {
        self.change(|counts| {
            counts.spooled += count(ticks);
            counts.leave_flight(count(ticks));
        });
    }

    /// A batch of the spool was written.
    pub fn record_drained(&self, written: Written) {
        self.change(|counts| {
            let ticks = counts.settle(written);
            counts.leave_spool(ticks);
        });
    }

    /// Ticks in the spool could not be read.
    pub(super) fn record_unreadable(&self, ticks: u64) {
        self.change(|counts| {
            counts.dropped += ticks;
            counts.leave_spool(ticks);
        });
    }

    /// A write is tried again.
    pub(super) fn record_retry(&self) {
        self.change(|counts| counts.retries += 1);
    }

    /// A batch has spent its retries.
    pub(super) fn record_failed(&self) {
        self.change(|counts| counts.failed += 1);
    }

    /// The depth: ticks accepted and not yet committed to the store, in memory and in the spool.
    #[must_use]
    pub fn depth(&self) -> u64 {
        let counts = self.read();
        counts.in_flight + counts.spooled
    }

    /// All counters now.
    #[must_use]
    pub fn read(&self) -> LedgerReading {
        *lock(&self.0)
    }

    fn change(&self, act: impl FnOnce(&mut LedgerReading)) {
        act(&mut lock(&self.0));
    }
}

impl LedgerReading {
    /// What became of a batch; how many ticks that accounts for.
    const fn settle(&mut self, written: Written) -> u64 {
        self.batches += 1;
        self.stored += written.stored;
        self.duplicates += written.duplicates;
        self.rejected += written.rejected;
        written.stored + written.duplicates + written.rejected
    }

    // More than there are cannot leave; if more do, the sum no longer balances, which every line of it shows.

    const fn leave_flight(&mut self, ticks: u64) {
        self.in_flight = self.in_flight.saturating_sub(ticks);
    }

    const fn leave_spool(&mut self, ticks: u64) {
        self.spooled = self.spooled.saturating_sub(ticks);
    }

    /// Whether every tick received is accounted for.
    #[must_use]
    pub const fn balances(&self) -> bool {
        let settled = self.stored + self.duplicates + self.rejected + self.dropped;
        self.received == settled + self.spooled + self.in_flight
    }
}

impl fmt::Display for LedgerReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "received {} {} stored {} + duplicates {} + rejected {} + dropped {} + \
             spooled {} + in flight {}",
            self.received,
            if self.balances() { "=" } else { "≠" },
            self.stored,
            self.duplicates,
            self.rejected,
            self.dropped,
            self.spooled,
            self.in_flight
        )
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Moves ticks all the ways that there are, with numbers that differ from step to step.
    fn work(ledger: &Ledger, rounds: usize) {
        for round in 0..rounds {
            let (received, duplicates) = (100 + round % 7, round % 5);
            let accepted = received - duplicates;
            ledger.record_received(received, duplicates, accepted);
            let spooled = round % 50;
            ledger.record_spooled(spooled);
            ledger.record_dropped(round % 3);
            let left = count(accepted - spooled - round % 3);
            ledger.record_written(Written { stored: left - 2, duplicates: 1, rejected: 1 });
            let unreadable = count(spooled) / 10;
            ledger.record_unreadable(unreadable);
            ledger.record_drained(Written {
                stored: count(spooled) - unreadable,
                ..Written::default()
            });
            ledger.record_found(1);
            ledger.record_retry();
        }
    }

    #[test]
    fn every_reading_balances_while_many_threads_move_ticks() {
        const READINGS: u64 = 50_000;
        let ledger = Ledger::default();
        let is_read = std::sync::atomic::AtomicBool::new(false);
        let different = thread::scope(|scope| {
            let workers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        while !is_read.load(std::sync::atomic::Ordering::Relaxed) {
                            work(&ledger, 100);
                        }
                    })
                })
                .collect();
            let (mut different, mut last) = (0_u64, LedgerReading::default());
            for number in 0.. {
                let now = ledger.read();
                assert!(now.balances(), "{now}");
                assert!(now.received >= last.received && now.stored >= last.stored);
                different += u64::from(now != last);
                last = now;
                // On a slow machine the others may not have begun yet.
                if number >= READINGS && different >= 1_000 {
                    break;
                }
            }
            is_read.store(true, std::sync::atomic::Ordering::Relaxed);
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            different
        });
        let rest = ledger.read();
        assert!(different >= 1_000 && rest.balances(), "{different} different readings, {rest}");
        assert_eq!(rest.in_flight, 0, "{rest}");
    }

    #[test]
    fn a_tick_that_is_lost_between_two_steps_unbalances_the_sum() {
        let ledger = Ledger::default();
        ledger.record_received(10, 3, 7);
        assert!(ledger.read().balances());
        // The feed took two away and named one of them.
        ledger.record_received(10, 1, 8);
        let reading = ledger.read();
        assert!(!reading.balances());
        assert!(
            reading.to_string().starts_with("received 20 ≠ stored 0 + duplicates 4 +"),
            "{reading}"
        );
        // More is written than ever was in flight.
        let ledger = Ledger::default();
        ledger.record_written(Written { stored: 1, ..Written::default() });
        assert!(!ledger.read().balances());
    }
}
