//! One symbol whose ids are unique and in no order: only the time in which no connection was open shows what may be missing.

use std::collections::VecDeque;

use rustc_hash::FxHashSet;

use super::stamps::Moment;
use crate::domain::{GapCause, GapRecord, Instrument, Tick, TimeRange, Timestamp, TradeId};

/// Ids remembered per symbol where their order proves nothing: more than any exchange sends again.
pub(super) const RECENT_MAX: usize = 4_096;

/// What has been seen of one symbol.
#[derive(Debug, Default)]
pub(super) struct Recent {
    ids: FxHashSet<TradeId>,
    order: VecDeque<TradeId>,
    /// Up to here nothing is missing that is not told: when the youngest trade was made, never later than its receipt,
    /// or where the last gap ends.
    until: Option<Timestamp>,
}

impl Recent {
    /// Goes on after this trade.
    pub(super) fn resume(&mut self, id: &TradeId, at: Timestamp) {
        self.remember(id);
        self.until = Some(at);
    }

    /// Whether a trade is to be sent on.
    pub(super) fn judge(
        &mut self,
        tick: &Tick,
        moment: Moment,
        is_far: bool,
        away: &mut Option<GapCause>,
        gaps: &mut Vec<GapRecord>,
    ) -> bool {
        if !self.remember(&tick.trade_id) {
            return false;
        }
        if !is_far {
            gaps.extend(self.end_away(tick.instrument, moment.latest, tick.received_at, away));
            self.until = self.until.max(Some(moment.at));
        }
        true
    }

    /// Whether the id is a new one.
    fn remember(&mut self, id: &TradeId) -> bool {
        if !self.ids.insert(id.clone()) {
            return false;
        }
        if self.order.len() == RECENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        self.order.push_back(id.clone());
        true
    }

    /// The time in which there was no connection, which ends now.
    pub(super) fn end_away(
        &mut self,
        instrument: Instrument,
        to: Timestamp,
        seen_at: Timestamp,
        away: &mut Option<GapCause>,
    ) -> Option<GapRecord> {
        let from = self.until?;
        let cause = away.take()?;
        // Not later than now: a later gap that begins too early costs a question, one that begins too late a loss.
        self.until = Some(from.max(to.min(seen_at)));
        // An exchange's clock may go back.
        Some(GapRecord {
            instrument,
            ids: None,
            times: TimeRange::between(from, to),
            cause,
            seen_at,
        })
    }
}
