//! The recorder at one moment, as plain data: what the log says of it at the end, and all that can be asked of it.

use std::collections::BTreeMap;

use crate::domain::steady_micros;
use crate::feed::{ExchangeCounts, FeedBoard, FeedStatus};
use crate::pipeline::{PipelineProbe, PipelineStatus};

/// A recorder at one moment.
#[derive(Debug, Clone)]
pub struct Status {
    /// Where every tick is, which balances, and the stages from the channel to the store.
    pub pipeline: PipelineStatus,
    /// Each feed, with its connections and symbols.
    pub feeds: Vec<FeedStatus>,
    /// What came from each exchange, by name.
    pub exchanges: BTreeMap<&'static str, ExchangeCounts>,
}

/// Reads the status of a recorder, at any time and after its end. It holds nothing up and keeps nothing from ending.
#[derive(Debug, Clone)]
pub struct StatusReader {
    pub(super) pipeline: PipelineProbe,
    pub(super) board: FeedBoard,
}

impl StatusReader {
    /// The status now.
    #[must_use]
    pub fn read(&self) -> Status {
        Status {
            pipeline: self.pipeline.read(),
            feeds: self.board.feeds(steady_micros()),
            exchanges: self.board.exchanges(),
        }
    }
}
