//! Bets on the return to the mean: buys when the price lies far below the mean of its last bars, sells all when
//! it has come back.
//!
//! How far is the z-score: the close less the mean of the window (the close is part of it), over the window's
//! standard deviation. It buys at `z <= -entry` and sells at `z >= -exit`; so `exit = 0` waits for the mean, and
//! a window in which nothing moves has no score. Squares are compared, so that no root is taken and the same
//! ticks give the same signals.

use rust_decimal::Decimal;
use std::cmp::Ordering;
use std::time::Duration;

use super::bars::{BAR, Bars, Window};
use super::parameters::{Conflict, Parameter, Range, Values};
use super::{Kind, Signal, Size, Strategy, View};
use crate::domain::Tick;
use crate::paper::money::Overflow;

static WINDOW: Parameter = Parameter {
    name: "window",
    meaning: "bars over which mean and standard deviation are taken",
    range: Range::Whole { default: 20, min: 3, max: 10_000 },
};

static ENTRY: Parameter = Parameter {
    name: "entry",
    meaning: "standard deviations below the mean at which it buys, more than exit",
    range: Range::Number { default: hundredths(150), min: hundredths(10), max: hundredths(1_000) },
};

static EXIT: Parameter = Parameter {
    name: "exit",
    meaning: "standard deviations below the mean at which it sells again",
    range: Range::Number { default: Decimal::ZERO, min: Decimal::ZERO, max: hundredths(1_000) },
};

const fn hundredths(number: u32) -> Decimal {
    Decimal::from_parts(number, 0, 0, false, 2)
}

/// `kind = "mean_reversion"`
pub(super) static KIND: Kind = Kind {
    name: "mean_reversion",
    summary: "buys when the price is far below its recent mean, sells when it has come back",
    parameters: &[&BAR, &WINDOW, &ENTRY, &EXIT],
    conflict: |values| {
        let is_wrong = values.number(&EXIT) >= values.number(&ENTRY);
        is_wrong.then_some(Conflict { parameter: &EXIT, other: &ENTRY, allowed: "less than entry" })
    },
    build: |values| Box::new(MeanReversion::new(values)),
};

#[derive(Debug)]
struct MeanReversion {
    bars: Bars,
    window: Window,
    deviations: Deviations,
    entry: Decimal,
    exit: Decimal,
}

/// Sums of the window's closes less an origin among them. The z-score does not depend on the origin; near the
/// closes, squares stay small enough to be exact.
#[derive(Debug, Default)]
struct Deviations {
    origin: Decimal,
    sum: Decimal,
    squares: Decimal,
    pushed: u64,
}

impl Deviations {
    fn add(&mut self, close: Decimal) -> Option<()> {
        let deviation = close.checked_sub(self.origin)?;
        self.sum = self.sum.checked_add(deviation)?;
        self.squares = self.squares.checked_add(deviation.checked_mul(deviation)?)?;
        Some(())
    }

    fn remove(&mut self, close: Decimal) -> Option<()> {
        let deviation = close.checked_sub(self.origin)?;
        self.sum = self.sum.checked_sub(deviation)?;
        self.squares = self.squares.checked_sub(deviation.checked_mul(deviation)?)?;
        Some(())
    }

    /// Follows the window: with each close that comes in and out, and anew from a close of today each time the
    /// whole window was replaced, which costs one step per bar in the mean.
    fn follow(&mut self, window: &Window, close: Decimal, oldest: Option<Decimal>) -> Option<()> {
        self.pushed = self.pushed.saturating_add(1);
        if Decimal::from(self.pushed) >= window.length() {
            *self = Self { origin: close, ..Self::default() };
            return window.closes().try_for_each(|close| self.add(close));
        }
        if let Some(oldest) = oldest {
            self.remove(oldest)?;
        }
        self.add(close)
    }
}

impl MeanReversion {
    fn new(values: &Values) -> Self {
        Self {
            bars: Bars::new(values.whole(&BAR)),
            window: Window::new(values.whole(&WINDOW)),
            deviations: Deviations::default(),
            entry: values.number(&ENTRY),
            exit: values.number(&EXIT),
        }
    }

    /// How far a close is from the mean of the window: `None` while it is not full, or nothing in it moves.
    ///
    /// With n closes, their sum S and sum of squares Q: `z = (n x - S) / sqrt(n Q - S S)`.
    fn score(&self, close: Decimal) -> Result<Option<Score>, Overflow> {
        if !self.window.is_full() {
            return Ok(None);
        }
        let count = self.window.length();
        let Deviations { origin, sum, squares, .. } = self.deviations;
        let score = || {
            let distance = close.checked_sub(origin)?.checked_mul(count)?.checked_sub(sum)?;
            let spread = squares.checked_mul(count)?.checked_sub(sum.checked_mul(sum)?)?;
            Some(Score { distance, spread })
        };
        score().ok_or(Overflow).map(|score| Some(score).filter(|score| !score.spread.is_zero()))
    }
}

/// A z-score as a fraction: `distance` over the root of `spread`.
#[derive(Debug, Clone, Copy)]
struct Score {
    distance: Decimal,
    spread: Decimal,
}

impl Score {
    /// How the standard deviations that the close lies below the mean compare with this many, zero or more.
    fn below(self, deviations: Decimal) -> Result<Ordering, Overflow> {
        if self.distance > Decimal::ZERO {
            return Ok(Ordering::Less);
        }
        let square = |number: Decimal| number.checked_mul(number);
        let compare = || {
            let wanted = square(deviations)?.checked_mul(self.spread)?;
            Some(square(self.distance)?.cmp(&wanted))
        };
        compare().ok_or(Overflow)
    }
}

impl Strategy for MeanReversion {
    fn on_tick(&mut self, tick: &Tick, view: &View) -> Result<Option<Signal>, Overflow> {
        let Some(closed) = self.bars.on_tick(tick) else { return Ok(None) };
        for _ in 0..self.window.repeats(closed.bars) {
            let oldest = self.window.push(closed.close)?;
            self.deviations.follow(&self.window, closed.close, oldest).ok_or(Overflow)?;
        }
        let Some(score) = self.score(closed.close)? else { return Ok(None) };
        let idle = view.quantity.is_zero() && view.open_order.is_none();
        Ok(if idle {
            score.below(self.entry)?.is_ge().then_some(Signal::Buy(Size::All))
        } else {
            score.below(self.exit)?.is_le().then_some(Signal::Sell(Size::All))
        })
    }

    fn lookback(&self) -> Duration {
        self.bars.time_of(self.window.length())
    }

    fn is_settled(&self) -> bool {
        self.window.is_full()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::paper::testing::{holding, signals};

    fn strategy(window: &str, entry: &str, exit: &str) -> MeanReversion {
        let mut problems = Vec::new();
        let parameters = [("window", window), ("entry", entry), ("exit", exit)];
        let parameters = parameters.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let values = Values::read(&KIND, "test", &parameters, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        MeanReversion::new(&values)
    }

    #[test]
    fn it_buys_far_below_the_mean_and_sells_at_the_mean() {
        // 10 10 10 6: the mean is 9, the deviation the root of 3, so z is -1.73.
        let closes = ["10", "10", "10", "6", "7", "9", "9"];
        let told = signals(&mut strategy("4", "1.73", "0"), &closes, &holding("0"));
        assert_eq!(told, [(4, Signal::Buy(Size::All))]);
        assert!(signals(&mut strategy("4", "1.74", "0"), &closes, &holding("0")).is_empty());
        // 10 6 7 9: the mean is 8, so 9 is back.
        let told = signals(&mut strategy("4", "1.73", "0"), &closes, &holding("1"));
        assert_eq!(told, [(6, Signal::Sell(Size::All))]);
    }

    #[test]
    fn a_price_that_stands_still_has_no_score() {
        let closes = ["10"; 9];
        assert!(signals(&mut strategy("3", "1", "0"), &closes, &holding("0")).is_empty());
        assert!(signals(&mut strategy("3", "1", "0"), &closes, &holding("1")).is_empty());
    }

    proptest! {
        #[test]
        fn prop_the_running_sums_are_those_of_the_window(
            cents in proptest::collection::vec(1_u32..10_000_000, 1..60),
            length in 3_u64..9,
        ) {
            let mut window = Window::new(length);
            let mut deviations = Deviations::default();
            for cents in cents {
                let close = hundredths(cents);
                let oldest = window.push(close).unwrap();
                deviations.follow(&window, close, oldest).unwrap();
                let terms: Vec<Decimal> =
                    window.closes().map(|close| close - deviations.origin).collect();
                prop_assert_eq!(deviations.sum, terms.iter().sum::<Decimal>());
                prop_assert_eq!(deviations.squares, terms.iter().map(|term| term * term).sum());
            }
        }
    }
}
