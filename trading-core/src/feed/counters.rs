//! What came from one exchange, counted.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::domain::count;

/// Counters that the feeds of one exchange share.
#[derive(Debug, Default)]
pub(super) struct ExchangeCounters {
    frames: AtomicU64,
    malformed: AtomicU64,
    received: AtomicU64,
    duplicates: AtomicU64,
    reconnects: AtomicU64,
    blocked_micros: AtomicU64,
}

/// What came from one exchange over WebSocket since the start.
///
/// Counted beside the pipeline's ledger, not taken from it: at rest `received` and `duplicates` of all exchanges together
/// are what the ledger has of the feeds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExchangeCounts {
    /// Frames read, of text.
    pub frames: u64,
    /// Frames that could not be read.
    pub malformed: u64,
    /// Ticks decoded from frames.
    pub received: u64,
    /// Of these, ticks that had been seen before.
    pub duplicates: u64,
    /// Connections made after the first of each.
    pub reconnects: u64,
    /// How long its connections waited for a full channel, together.
    pub blocked: Duration,
}

impl fmt::Display for ExchangeCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frames, malformed, received, duplicates, reconnects, blocked } = self;
        write!(
            f,
            "{frames} frames ({malformed} malformed), {received} ticks ({duplicates} duplicates), \
             {reconnects} reconnects, {} ms blocked",
            blocked.as_millis()
        )
    }
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

impl ExchangeCounters {
    /// A frame was read.
    pub(super) fn record_frame(&self) {
        add(&self.frames, 1);
    }

    /// A frame brought ticks, of which some had been seen before.
    pub(super) fn record_ticks(&self, received: usize, duplicates: usize) {
        add(&self.received, count(received));
        add(&self.duplicates, count(duplicates));
    }

    /// A frame could not be read.
    pub(super) fn record_malformed(&self) {
        add(&self.malformed, 1);
    }

    /// A connection was made after the first.
    pub(super) fn record_reconnect(&self) {
        add(&self.reconnects, 1);
    }

    /// A connection has waited for a full channel.
    pub(super) fn record_blocked(&self, blocked: Duration) {
        if !blocked.is_zero() {
            add(&self.blocked_micros, u64::try_from(blocked.as_micros()).unwrap_or(u64::MAX));
        }
    }

    pub(super) fn read(&self) -> ExchangeCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ExchangeCounts {
            frames: get(&self.frames),
            malformed: get(&self.malformed),
            received: get(&self.received),
            duplicates: get(&self.duplicates),
            reconnects: get(&self.reconnects),
            blocked: Duration::from_micros(get(&self.blocked_micros)),
        }
    }
}
