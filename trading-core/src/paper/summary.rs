//! How each strategy does, in one line for the log and one value for whoever asks.

use std::fmt;
use std::sync::{Arc, Mutex};

use super::account::Valuation;
use crate::domain::lock;

/// How paper trading does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Each strategy, in order of the settings.
    pub strategies: Vec<StrategySummary>,
    /// Ticks that did not reach the strategies since the start.
    pub missed: u64,
    /// Ticks since the start that came too late for their place in the order of arrival: a replay, which has them in
    /// their place, may trade otherwise.
    pub displaced: u64,
}

/// How one strategy does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrategySummary {
    /// Its name.
    pub name: Arc<str>,
    /// The currency of the amounts.
    pub quote: String,
    /// Orders since its first run.
    pub orders: u64,
    /// Fills since its first run.
    pub fills: u64,
    /// What its account is worth; `None` when that is too much to be exact.
    pub valuation: Option<Valuation>,
    /// Ticks left out since the start, as older than one seen before.
    pub late: u64,
    /// Why it was stopped, if it was.
    pub stopped: Option<String>,
}

impl fmt::Display for Summary {
    /// One line: `Paper Trading: sma 12 fills, equity 10012.34 USDT, PnL +12.34, … | missed 0 ticks`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Paper Trading: ")?;
        for strategy in &self.strategies {
            write!(f, "{strategy} | ")?;
        }
        write!(f, "missed {} ticks", self.missed)?;
        match self.displaced {
            0 => Ok(()),
            displaced => write!(f, ", {displaced} out of order"),
        }
    }
}

impl fmt::Display for StrategySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} fills", self.name, self.fills)?;
        if let Some(worth) = &self.valuation {
            let [equity, pnl, cash, positions, fees] =
                [worth.equity, worth.pnl, worth.cash, worth.position_value, worth.fees]
                    .map(|amount| worth.shown(amount));
            write!(
                f,
                ", equity {equity} {}, PnL {pnl:+}, cash {cash}, positions {positions}, fees {fees}",
                self.quote,
            )?;
        }
        if self.late > 0 {
            write!(f, ", {} late ticks left out", self.late)?;
        }
        match &self.stopped {
            Some(why) => write!(f, ", STOPPED: {why}"),
            None => Ok(()),
        }
    }
}

/// The newest summary, for the health line and the API. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct SummaryHandle(Arc<Mutex<Summary>>);

impl SummaryHandle {
    /// The summary after the newest ticks; empty before the first.
    #[must_use]
    pub fn get(&self) -> Summary {
        lock(&self.0).clone()
    }

    pub(super) fn set(&self, summary: Summary) {
        *lock(&self.0) = summary;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paper::testing::decimal;

    #[test]
    fn a_summary_is_one_line() {
        let valuation = Valuation {
            cash: decimal("9000"),
            position_value: decimal("1012.344"),
            equity: decimal("10012.344"),
            realized: decimal("15"),
            unrealized: decimal("-1.5"),
            fees: decimal("1.2"),
            pnl: decimal("-12.346"),
        };
        let strategy = StrategySummary {
            name: "sma".into(),
            quote: "USDT".to_owned(),
            orders: 6,
            fills: 12,
            valuation: Some(valuation),
            late: 0,
            stopped: None,
        };
        let mut summary = Summary { strategies: vec![strategy], missed: 3, displaced: 0 };
        assert_eq!(
            summary.to_string(),
            "Paper Trading: sma 12 fills, equity 10012.34 USDT, PnL -12.35, cash 9000.00, \
             positions 1012.34, fees 1.20 | missed 3 ticks"
        );
        summary.strategies[0].valuation = None;
        summary.strategies[0].stopped = Some("too large".to_owned());
        summary.strategies[0].late = 2;
        summary.displaced = 1;
        assert_eq!(
            summary.to_string(),
            "Paper Trading: sma 12 fills, 2 late ticks left out, STOPPED: too large | missed 3 ticks, \
             1 out of order"
        );
    }
}
