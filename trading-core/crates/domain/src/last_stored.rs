//! Where the stored trades of a symbol end.

use super::{IdRange, Instrument, Timestamp, TradeId};

/// Where the stored trades of a symbol end, and where recording goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastStored {
    /// Whose.
    pub instrument: Instrument,
    /// The last id of where its count was.
    pub trade_id: TradeId,
    /// The exchange's time of it, no later than its receipt allows.
    pub exchange_at: Timestamp,
    /// When the youngest of its trades was made, whatever their ids.
    pub until: Timestamp,
    /// Ids that are listed as missing, in order.
    pub missing: Vec<IdRange>,
    /// Whether a recorder carries it, or one that was killed did: what it took after this may not be stored yet.
    pub is_carried: bool,
}
