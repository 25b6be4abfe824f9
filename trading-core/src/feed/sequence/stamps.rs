//! How far an exchange's stamps may be believed: against the time of receipt, and what usually lies between the two.

use std::time::Duration;

use crate::domain::{Tick, Timestamp};

/// A stamp this much later than the exchange's clock is not believed.
const AHEAD_MAX: Duration = Duration::from_secs(1);
/// A trade whose stamp is not believed was made at most this long before its receipt.
const DELAY_MAX: Duration = Duration::from_secs(2);
/// The first trade after a gap ends it by its own stamp if that is at most this far from its receipt.
const END_MAX: Duration = Duration::from_secs(60);
/// A stamp further behind its receipt is not one of a trade that was just made, in microseconds.
const LATE_MAX: i64 = 5_000_000;
/// The smallest step by which the lead is moved, in microseconds.
const STEP_MIN: i64 = 50_000;
/// The largest, in microseconds.
const STEP_MAX: i64 = 3_600_000_000;

/// What an exchange's stamps are usually ahead of the receipt, which is nothing where both clocks are right: a running
/// median, which a few wrong stamps do not move far, and which finds a clock that is minutes ahead within some twenty
/// trades.
#[derive(Debug, Default)]
pub(super) struct Lead {
    micros: i64,
    step: i64,
    was_up: bool,
    /// When the last frame was received that was noted: one frame has one voice, however many trades it brings.
    noted_at: Option<Timestamp>,
}

impl Lead {
    fn note(&mut self, ahead: i64) {
        // What is sent again, or read late, says nothing of a clock.
        if ahead < -LATE_MAX {
            return;
        }
        let off = ahead.max(0).saturating_sub(self.micros);
        let is_up = off > 0;
        let step = if is_up == self.was_up { self.step.saturating_mul(2) } else { STEP_MIN };
        let step = step.clamp(STEP_MIN, STEP_MAX);
        self.was_up = is_up;
        self.step = if off.abs() > step { step } else { STEP_MIN };
        self.micros = self.micros.saturating_add(off.clamp(-step, step));
    }

    /// The exchange's time at one of ours.
    pub(super) fn at(&self, ours: Timestamp) -> Timestamp {
        ours.plus_micros(self.micros)
    }

    /// When a trade was made, as far as that can be believed: never later than its receipt. A stamp that is far from
    /// the receipt says nothing of the exchange's clock.
    pub(super) fn read(&mut self, tick: &Tick, is_far: bool) -> Moment {
        if !is_far && self.noted_at.replace(tick.received_at) != Some(tick.received_at) {
            self.note(tick.exchange_at.micros_since(tick.received_at));
        }
        let receipt = self.at(tick.received_at);
        let is_believed = tick.exchange_at <= receipt + AHEAD_MAX;
        let at = if is_believed { tick.exchange_at } else { receipt - DELAY_MAX };
        let is_near = tick.exchange_at.is_near(receipt, END_MAX);
        Moment { at, latest: if is_believed && is_near { at } else { receipt } }
    }
}

/// When a trade was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// By its stamp where that is believed, else at the earliest.
    pub(super) at: Timestamp,
    /// By its stamp where that is near its receipt, else at the latest.
    pub(super) latest: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::{self, instrument};

    const SECOND: i64 = 1_000_000;

    fn tick(exchange_at: i64, received_at: i64) -> Tick {
        let [exchange_at, received_at] =
            [exchange_at, received_at].map(|micros| Timestamp::from_micros(micros).unwrap());
        Tick {
            instrument: instrument("bybit", "BTCUSDT"),
            exchange_at,
            received_at,
            ..testing::tick(1)
        }
    }

    #[test]
    fn a_stamp_that_is_ahead_of_its_receipt_is_not_believed_and_others_are() {
        let mut lead = Lead::default();
        for n in 1_000..1_030 {
            let moment = lead.read(&tick(n * SECOND - 100_000, n * SECOND), false);
            assert_eq!(moment.at.as_micros(), n * SECOND - 100_000);
            assert_eq!(moment.latest, moment.at);
        }
        for wrong in [90 * SECOND, 36 * 3_600 * SECOND] {
            let moment = lead.read(&tick(2_000 * SECOND + wrong, 2_000 * SECOND), false);
            assert!((1_997 * SECOND..2_000 * SECOND).contains(&moment.at.as_micros()));
            assert!((1_999 * SECOND..2_001 * SECOND).contains(&moment.latest.as_micros()));
        }
        // One of the far past was made when it says, and ends no gap there.
        let moment = lead.read(&tick(SECOND, 2_000 * SECOND), false);
        assert_eq!(moment.at.as_micros(), SECOND);
        assert!((1_999 * SECOND..2_001 * SECOND).contains(&moment.latest.as_micros()));
    }

    #[test]
    fn trades_that_are_sent_again_do_not_make_the_next_ones_look_early() {
        let mut lead = Lead::default();
        for n in 1_000..1_100 {
            lead.read(&tick((n - 900) * SECOND, n * SECOND), false);
        }
        let moment = lead.read(&tick(1_100 * SECOND, 1_100 * SECOND), false);
        assert_eq!(moment.at.as_micros(), 1_100 * SECOND);
    }

    #[test]
    fn an_exchange_whose_clock_is_minutes_ahead_of_ours_is_believed_after_some_trades() {
        let mut lead = Lead::default();
        let mut believed = 0;
        for n in 1_000..1_040 {
            let moment = lead.read(&tick((n + 240) * SECOND, n * SECOND), false);
            believed += i32::from(moment.at.as_micros() == (n + 240) * SECOND);
        }
        assert!(believed > 20, "{believed}");
        assert!(lead.at(Timestamp::EPOCH).as_micros().abs_diff(240 * SECOND) < 1_000_000);
    }
}
