//! The line that an operator reads every 30 seconds.

use std::fmt;

use super::channel::Utilization;
use super::ledger::LedgerReading;

/// Whether the store takes batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreCircuitState {
    /// It does.
    Closed,
    /// It is away: a batch has spent its retries, or waited long for an answer.
    Open,
}

/// What the health line says.
#[derive(Debug, Clone, Copy)]
pub(super) struct HealthLine {
    pub(super) seconds: u64,
    pub(super) previous: LedgerReading,
    pub(super) now: LedgerReading,
    pub(super) buffered: usize,
    pub(super) batch_size: usize,
    pub(super) channel: Utilization,
    /// Batches in the spool.
    pub(super) spooled: u64,
    pub(super) store_circuit: StoreCircuitState,
}

impl HealthLine {
    /// Whether the batch buffer is over 80 %.
    pub(super) const fn is_slow(&self) -> bool {
        self.buffered * 10 > self.batch_size * 8
    }

    /// How full the batch buffer is, in percent; over 100 while writes carry several batches.
    pub(super) const fn buffer_percent(&self) -> usize {
        self.buffered * 100 / self.batch_size
    }
}

impl fmt::Display for HealthLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, previous, now, buffered, batch_size, channel, spooled, store_circuit } =
            self;
        write!(
            f,
            "Pipeline Health: {} ticks/{seconds}s | Total: {} | Batches: {} | Failed: {} | Retries: {} | \
             Buffer: {buffered}/{batch_size} | Channel: {}% ({}/{}) | Spool: {spooled} | Circuit: {}",
            now.received - previous.received,
            now.received,
            now.batches,
            now.failed,
            now.retries,
            channel.percent(),
            channel.used,
            channel.capacity,
            match store_circuit {
                StoreCircuitState::Closed => "CLOSED",
                StoreCircuitState::Open => "OPEN",
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_reads_as_the_contract_has_it() {
        let now = LedgerReading { received: 12_450, batches: 25, ..LedgerReading::default() };
        let line = HealthLine {
            seconds: 30,
            previous: LedgerReading { received: 12_205, ..LedgerReading::default() },
            now,
            buffered: 120,
            batch_size: 500,
            channel: Utilization { used: 1200, capacity: 10_000 },
            spooled: 0,
            store_circuit: StoreCircuitState::Closed,
        };
        assert_eq!(
            line.to_string(),
            "Pipeline Health: 245 ticks/30s | Total: 12450 | Batches: 25 | Failed: 0 | Retries: 0 | \
             Buffer: 120/500 | Channel: 12% (1200/10000) | Spool: 0 | Circuit: CLOSED"
        );
        assert!(!line.is_slow());
        let slow = HealthLine { buffered: 460, ..line };
        assert!(slow.is_slow());
        assert_eq!(slow.buffer_percent(), 92);
    }
}
