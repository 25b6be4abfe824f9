//! The line that an operator reads every 30 seconds.

use std::fmt;

use super::ledger::LedgerReading;
use super::probe::{PipelineStatus, StoreCircuitState};

/// What the health line says.
#[derive(Debug, Clone, Copy)]
pub(super) struct HealthLine {
    pub(super) seconds: u64,
    pub(super) previous: LedgerReading,
    pub(super) now: PipelineStatus,
}

impl HealthLine {
    /// Whether the batch buffer is over 80 %.
    pub(super) const fn is_slow(&self) -> bool {
        self.now.buffered * 10 > self.now.batch_size * 8
    }

    /// How full the batch buffer is, in percent; over 100 while writes carry several batches.
    pub(super) const fn buffer_percent(&self) -> usize {
        self.now.buffered * 100 / self.now.batch_size
    }
}

impl fmt::Display for HealthLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, previous, now } = self;
        let PipelineStatus { ledger, buffered, batch_size, channel, spool, .. } = now;
        write!(
            f,
            "Pipeline Health: {} ticks/{seconds}s | Total: {} | Batches: {} | Failed: {} | Retries: {} | \
             Buffer: {buffered}/{batch_size} | Channel: {}% ({}/{}) | Spool: {} | Circuit: {}",
            ledger.received - previous.received,
            ledger.received,
            ledger.batches,
            ledger.failed,
            ledger.retries,
            channel.percent(),
            channel.used,
            channel.capacity,
            spool.batches,
            match now.store_circuit {
                StoreCircuitState::Closed => "CLOSED",
                StoreCircuitState::Open => "OPEN",
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::channel::Utilization;
    use super::*;
    use crate::store::spool::Backlog;

    #[test]
    fn the_line_reads_as_the_contract_has_it() {
        let now = PipelineStatus {
            ledger: LedgerReading { received: 12_450, batches: 25, ..LedgerReading::default() },
            buffered: 120,
            batch_size: 500,
            channel: Utilization { used: 1200, capacity: 10_000 },
            writers_busy: 1,
            writers: 2,
            store_circuit: StoreCircuitState::Closed,
            outage: None,
            spool: Backlog::default(),
            held_for: Duration::from_secs(1),
        };
        let previous = LedgerReading { received: 12_205, ..LedgerReading::default() };
        let line = HealthLine { seconds: 30, previous, now };
        assert_eq!(
            line.to_string(),
            "Pipeline Health: 245 ticks/30s | Total: 12450 | Batches: 25 | Failed: 0 | Retries: 0 | \
             Buffer: 120/500 | Channel: 12% (1200/10000) | Spool: 0 | Circuit: CLOSED"
        );
        assert!(!line.is_slow());
        let slow = HealthLine { now: PipelineStatus { buffered: 460, ..now }, ..line };
        assert!(slow.is_slow());
        assert_eq!(slow.buffer_percent(), 92);
    }
}
