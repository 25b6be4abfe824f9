//! Ticks to closes of equal bars of exchange time, and windows over them.
//!
//! A bar without a trade closes at the price before it, as on a chart. A bar is known to be over when a later
//! tick comes: decisions fall at the first tick after a bar.

use std::collections::VecDeque;
use std::time::Duration;

use rust_decimal::Decimal;

use super::parameters::{Parameter, Range};
use crate::domain::{Tick, count};
use crate::paper::money::Overflow;

/// The setting of every strategy that works on bars.
pub(super) static BAR: Parameter = Parameter {
    name: "bar",
    meaning: "length of a bar, in exchange time",
    range: Range::Time {
        default: Duration::from_secs(1),
        min: Duration::from_millis(100),
        max: Duration::from_secs(86_400),
    },
};

/// Cuts exchange time into bars.
#[derive(Debug)]
pub(super) struct Bars {
    length_micros: i64,
    current: Option<(i64, Decimal)>,
}

/// Bars that closed at one price: the last traded one, and those without a trade after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) close: Decimal,
    pub(super) bars: u64,
}

impl Bars {
    /// Bars of this many microseconds, at least one.
    pub(super) fn new(length_micros: u64) -> Self {
        let length_micros = i64::try_from(length_micros).unwrap_or(i64::MAX).max(1);
        Self { length_micros, current: None }
    }

    /// The time of `bars` bars and the one under way.
    pub(super) fn time_of(&self, bars: Decimal) -> Duration {
        let micros = Decimal::from(self.length_micros).saturating_mul(bars + Decimal::ONE);
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// Takes the next tick; what closed before it. A tick of an earlier bar counts to the current one.
    pub(super) fn on_tick(&mut self, tick: &Tick) -> Option<Closed> {
        let bar = tick.exchange_at.as_micros().div_euclid(self.length_micros);
        let Some((current, close)) = self.current else {
            self.current = Some((bar, tick.price));
            return None;
        };
        self.current = Some((bar.max(current), tick.price));
        let bars = u64::try_from(bar.checked_sub(current)?).ok().filter(|bars| *bars > 0)?;
        // Without trailing zeros, sums and squares of prices stay far below the digits that a decimal holds.
        Some(Closed { close: close.normalize(), bars })
    }
}

/// The last closes, at most `length` of them, with their sum kept as they come and go.
#[derive(Debug)]
pub(super) struct Window {
    closes: VecDeque<Decimal>,
    length: usize,
    sum: Decimal,
}

impl Window {
    /// An empty window of this many closes.
    pub(super) fn new(length: u64) -> Self {
        let length = usize::try_from(length).unwrap_or(usize::MAX).max(1);
        Self { closes: VecDeque::new(), length, sum: Decimal::ZERO }
    }

    /// Adds a close; the one that it pushes out.
    pub(super) fn push(&mut self, close: Decimal) -> Result<Option<Decimal>, Overflow> {
        let oldest = if self.is_full() { self.closes.pop_front() } else { None };
        self.closes.push_back(close);
        self.sum = self
            .sum
            .checked_add(close)
            .and_then(|sum| sum.checked_sub(oldest.unwrap_or_default()))
            .ok_or(Overflow)?;
        Ok(oldest)
    }

    /// Whether it holds all the closes it can.
    pub(super) fn is_full(&self) -> bool {
        self.closes.len() >= self.length
    }

    /// How many closes make it full.
    pub(super) fn length(&self) -> Decimal {
        Decimal::from(self.length)
    }

    /// The sum of the closes held.
    pub(super) const fn sum(&self) -> Decimal {
        self.sum
    }

    /// The closes held, oldest first.
    pub(super) fn closes(&self) -> impl Iterator<Item = Decimal> {
        self.closes.iter().copied()
    }

    /// How often one price must be pushed to fill it: more would change nothing.
    pub(super) fn repeats(&self, bars: u64) -> u64 {
        bars.min(count(self.length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paper::testing::{decimal, tick};

    #[test]
    fn bars_without_a_trade_close_at_the_price_before_them() {
        let mut bars = Bars::new(1_000_000);
        assert_eq!(bars.on_tick(&tick(1, 200_000, "10", "1")), None);
        assert_eq!(bars.on_tick(&tick(2, 999_999, "11", "1")), None);
        let one = Closed { close: decimal("11"), bars: 1 };
        assert_eq!(bars.on_tick(&tick(3, 1_000_000, "12", "1")), Some(one));
        let three = Closed { close: decimal("12"), bars: 3 };
        assert_eq!(bars.on_tick(&tick(4, 4_100_000, "13", "1")), Some(three));
        assert_eq!(bars.on_tick(&tick(5, 4_000_000, "14", "1")), None);
    }

    #[test]
    fn a_window_sums_what_it_holds() {
        let mut window = Window::new(2);
        for close in ["1", "2", "3.5"] {
            window.push(decimal(close)).unwrap();
        }
        assert_eq!(window.sum(), decimal("5.5"));
        assert_eq!(window.closes().collect::<Vec<_>>(), [decimal("2"), decimal("3.5")]);
    }
}
