//! Follows the trend: buys when the fast simple moving average of bar closes crosses above the slow one, sells
//! all when it crosses below.
//!
//! Averages are over closes of bars of exchange time (see [`super::bars`]). It is warm after `slow` bars; the
//! first crossing after that is the first signal. Averages that touch do not cross.

use std::time::Duration;

use super::bars::{BAR, Bars, Window};
use super::parameters::{Conflict, Parameter, Range, Values};
use super::{Kind, Signal, Size, Strategy, View};
use crate::domain::Tick;
use crate::paper::money::Overflow;

static FAST: Parameter = Parameter {
    name: "fast",
    meaning: "bars in the fast average",
    range: Range::Whole { default: 5, min: 1, max: 10_000 },
};

static SLOW: Parameter = Parameter {
    name: "slow",
    meaning: "bars in the slow average, more than in the fast one",
    range: Range::Whole { default: 20, min: 2, max: 10_000 },
};

/// `kind = "sma_crossover"`
pub(super) static KIND: Kind = Kind {
    name: "sma_crossover",
    summary: "buys when a fast moving average crosses above a slow one, sells when it crosses below",
    parameters: &[&BAR, &FAST, &SLOW],
    conflict: |values| {
        let is_wrong = values.whole(&FAST) >= values.whole(&SLOW);
        is_wrong.then_some(Conflict { parameter: &SLOW, other: &FAST, allowed: "more than fast" })
    },
    build: |values| Box::new(SmaCrossover::new(values)),
};

#[derive(Debug)]
struct SmaCrossover {
    bars: Bars,
    fast: Window,
    slow: Window,
    above: Option<bool>,
}

impl SmaCrossover {
    fn new(values: &Values) -> Self {
        Self {
            bars: Bars::new(values.whole(&BAR)),
            fast: Window::new(values.whole(&FAST)),
            slow: Window::new(values.whole(&SLOW)),
            above: None,
        }
    }

    /// Whether the fast average is above the slow one; as before while they are equal.
    fn is_above(&self) -> Result<Option<bool>, Overflow> {
        if !self.slow.is_full() {
            return Ok(None);
        }
        // fast sum / fast length > slow sum / slow length, without a division.
        let fast = self.fast.sum().checked_mul(self.slow.length()).ok_or(Overflow)?;
        let slow = self.slow.sum().checked_mul(self.fast.length()).ok_or(Overflow)?;
        Ok(if fast == slow { self.above } else { Some(fast > slow) })
    }
}

impl Strategy for SmaCrossover {
    fn on_tick(&mut self, tick: &Tick, view: &View) -> Result<Option<Signal>, Overflow> {
        let Some(closed) = self.bars.on_tick(tick) else { return Ok(None) };
        for _ in 0..self.slow.repeats(closed.bars) {
            self.fast.push(closed.close)?;
            self.slow.push(closed.close)?;
        }
        let above = self.is_above()?;
        let before = std::mem::replace(&mut self.above, above);
        Ok(match (before, above) {
            (Some(false), Some(true)) if view.quantity.is_zero() => Some(Signal::Buy(Size::All)),
            (Some(true), Some(false)) => {
                let nothing = view.quantity.is_zero() && view.open_order.is_none();
                (!nothing).then_some(Signal::Sell(Size::All))
            }
            _ => None,
        })
    }

    fn lookback(&self) -> Duration {
        self.bars.time_of(self.slow.length())
    }

    // While the averages are equal, which was above before them decides.
    fn is_settled(&self) -> bool {
        self.above.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paper::testing::{holding, signals};

    fn strategy() -> SmaCrossover {
        let mut problems = Vec::new();
        let parameters = [("fast", "2"), ("slow", "3")];
        let parameters = parameters.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let values = Values::read(&KIND, "test", &parameters, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        SmaCrossover::new(&values)
    }

    // One tick per bar; a bar closes when the next one begins, so a signal comes one tick after its crossing.
    #[test]
    fn it_buys_when_the_fast_average_crosses_above_and_sells_when_it_crosses_below() {
        let closes = ["10", "9", "8", "7", "12", "13", "5", "4", "4"];
        let told = signals(&mut strategy(), &closes, &holding("0"));
        assert_eq!(told, [(5, Signal::Buy(Size::All))]);
        let told = signals(&mut strategy(), &closes, &holding("1"));
        assert_eq!(told, [(7, Signal::Sell(Size::All))]);
    }

    #[test]
    fn averages_that_touch_do_not_cross() {
        let closes = ["10", "9", "8", "8", "8", "8", "8", "8"];
        assert!(signals(&mut strategy(), &closes, &holding("0")).is_empty());
    }
}
