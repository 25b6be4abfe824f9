//! Where every tick is: received = stored + duplicates + rejected + dropped + spooled + in flight, at every moment.
//!
//! `in flight` and `spooled` are counted for themselves, not derived, so that the sum is a proof and not a tautology. A
//! tick moves between two of the counts in two steps: a reading taken in between may be off by what moves.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::count;
use crate::store::Written;

/// The pipeline's counters. Shared; every method may be called from any task.
#[derive(Debug, Default)]
pub struct Ledger {
    received: AtomicU64,
    feed_duplicates: AtomicU64,
    store_duplicates: AtomicU64,
    stored: AtomicU64,
    rejected: AtomicU64,
    dropped_closed: AtomicU64,
    dropped_damaged: AtomicU64,
    spooled: AtomicU64,
    in_flight: AtomicU64,
    batches: AtomicU64,
    failed: AtomicU64,
    retries: AtomicU64,
    frames: AtomicU64,
    malformed: AtomicU64,
    reconnects: AtomicU64,
    blocked_micros: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LedgerReading {
    /// Ticks decoded from frames or from an exchange's history, and those of earlier runs found in the spool.
    pub received: u64,
    /// Ticks that were there already: seen before by the feed, or found stored.
    pub duplicates: u64,
    /// Ticks in the store.
    pub stored: u64,
    /// Ticks that the store refused, set aside.
    pub rejected: u64,
    /// Ticks dropped because the channel was closed during a stop, or set aside unread because the spool was damaged.
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
    /// Frames read.
    pub frames: u64,
    /// Frames that could not be read.
    pub malformed: u64,
    /// Connections made after the first of each feed.
    pub reconnects: u64,
    /// Time that feeds waited for a full channel, in microseconds.
    pub blocked_micros: u64,
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

impl Ledger {
    /// A frame was read; this many ticks came of it, and this many of those had been seen before.
    pub fn record_frame(&self, ticks: usize, duplicates: usize) {
        add(&self.frames, 1);
        add(&self.received, count(ticks));
        add(&self.feed_duplicates, count(duplicates));
    }

    /// Ticks came from an exchange's history.
    pub fn record_backfilled(&self, ticks: usize) {
        add(&self.received, count(ticks));
    }

    /// A frame could not be read.
    pub fn record_malformed(&self) {
        add(&self.malformed, 1);
    }

    /// A feed connected again.
    pub fn record_reconnect(&self) {
        add(&self.reconnects, 1);
    }

    /// Ticks are about to enter the channel: from here on they are in flight.
    pub fn record_accepted(&self, ticks: usize) {
        add(&self.in_flight, count(ticks));
    }

    /// Ticks that were to enter the channel found it closed.
    pub fn record_dropped(&self, ticks: usize) {
        add(&self.dropped_closed, count(ticks));
        self.in_flight.fetch_sub(count(ticks), Ordering::Relaxed);
    }

    /// A feed waited this long for a full channel.
    pub fn record_blocked(&self, time: std::time::Duration) {
        add(&self.blocked_micros, u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// A batch was written.
    pub fn record_written(&self, written: Written) {
        self.in_flight.fetch_sub(self.record_stored(written), Ordering::Relaxed);
    }

    /// Batches of earlier runs were found in the spool.
    pub fn record_found(&self, ticks: u64) {
        add(&self.received, ticks);
        add(&self.spooled, ticks);
    }

    /// A batch went to the spool.
    pub fn record_spooled(&self, ticks: usize) {
        add(&self.spooled, count(ticks));
        self.in_flight.fetch_sub(count(ticks), Ordering::Relaxed);
    }

    /// A batch of the spool was written.
    pub fn record_drained(&self, written: Written) {
        self.spooled.fetch_sub(self.record_stored(written), Ordering::Relaxed);
    }

    /// Ticks in the spool could not be read.
    pub fn record_unreadable(&self, ticks: u64) {
        add(&self.dropped_damaged, ticks);
        self.spooled.fetch_sub(ticks, Ordering::Relaxed);
    }

    /// How many ticks a write accounts for.
    fn record_stored(&self, written: Written) -> u64 {
        add(&self.batches, 1);
        add(&self.stored, written.stored);
        add(&self.store_duplicates, written.duplicates);
        add(&self.rejected, written.rejected);
        written.stored + written.duplicates + written.rejected
    }

    /// A write is tried again.
    pub fn record_retry(&self) {
        add(&self.retries, 1);
    }

    /// A batch has spent its retries.
    pub fn record_failed(&self) {
        add(&self.failed, 1);
    }

    /// The depth: ticks accepted and not yet committed to the store, in memory and in the spool.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed) + self.spooled.load(Ordering::Relaxed)
    }

    /// All counters now.
    #[must_use]
    pub fn read(&self) -> LedgerReading {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LedgerReading {
            received: get(&self.received),
            duplicates: get(&self.feed_duplicates) + get(&self.store_duplicates),
            stored: get(&self.stored),
            rejected: get(&self.rejected),
            dropped: get(&self.dropped_closed) + get(&self.dropped_damaged),
            spooled: get(&self.spooled),
            in_flight: get(&self.in_flight),
            batches: get(&self.batches),
            failed: get(&self.failed),
            retries: get(&self.retries),
            frames: get(&self.frames),
            malformed: get(&self.malformed),
            reconnects: get(&self.reconnects),
            blocked_micros: get(&self.blocked_micros),
        }
    }
}

impl LedgerReading {
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
