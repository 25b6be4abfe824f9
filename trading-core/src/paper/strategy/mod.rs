//! Strategies: ticks in, signals out. Pure: no clock but the exchange's, no randomness, no I/O.
//!
//! A strategy trades one instrument and sees every tick of it in order. It says buy or sell; sizes, fills and
//! money are the engine's. The same ticks give the same signals, on every machine: no binary fractions.
//!
//! A new strategy is one file here, with a [`Kind`] that declares its parameters; its `mod` below; and its entry in
//! [`KINDS`], whose length grows by one.

mod bars;
mod mean_reversion;
mod parameters;
mod sma_crossover;

use std::fmt;
use std::time::Duration;

use rust_decimal::Decimal;

pub use parameters::{Conflict, Parameter, Problem, Range, Values, check, check_drafts};

use super::money::Overflow;
use crate::config::StrategySettings;
use crate::domain::{Side, Tick};

/// Every strategy there is, in order of name.
pub static KINDS: [&Kind; 2] = [&mean_reversion::KIND, &sma_crossover::KIND];

/// A strategy that can be configured.
#[derive(Debug)]
pub struct Kind {
    /// Its name in the settings.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// Its parameters.
    pub parameters: &'static [&'static Parameter],
    /// What its parameters must be to each other: those that do not go together, or nothing.
    pub conflict: fn(&Values) -> Option<Conflict>,
    /// Makes one for one instrument.
    pub build: fn(&Values) -> Box<dyn Strategy>,
}

impl Kind {
    /// The strategy of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        KINDS.into_iter().find(|kind| kind.name == name)
    }

    /// One as these settings want it, for one instrument. Parameters that [`check`] refuses count as not given.
    pub(super) fn make(&'static self, settings: &StrategySettings) -> Box<dyn Strategy> {
        let values = Values::read(self, &settings.name, &settings.parameters, &mut Vec::new());
        (self.build)(&values)
    }
}

/// What a strategy may know of its account when a tick comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Units of base held of its instrument.
    pub quantity: Decimal,
    /// What they were bought for, in quote currency.
    pub cost: Decimal,
    /// Cash of the account, in quote currency.
    pub cash: Decimal,
    /// The side of its open order.
    pub open_order: Option<Side>,
}

impl View {
    /// An account that has nothing.
    pub const NOTHING: Self = Self {
        quantity: Decimal::ZERO,
        cost: Decimal::ZERO,
        cash: Decimal::ZERO,
        open_order: None,
    };
}

/// How much to trade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// A buy: all that cash and position limit allow. A sell: all that is held.
    All,
    /// This many units of base.
    Quantity(Decimal),
}

/// What a strategy wants. An open order of the other side is cancelled first; while one of the same side is
/// open, a signal changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Buy at the next ticks.
    Buy(Size),
    /// Sell at the next ticks.
    Sell(Size),
}

/// Decides when to trade one instrument.
///
/// What it remembers comes from the ticks alone, never from the [`View`]: after a restart it is made anew and shown
/// the ticks of the past, with a view of nothing.
pub trait Strategy: fmt::Debug + Send {
    /// Takes the next tick of its instrument.
    ///
    /// # Errors
    ///
    /// When a number is too large to be exact; the account is stopped then.
    fn on_tick(&mut self, tick: &Tick, view: &View) -> Result<Option<Signal>, Overflow>;

    /// How much exchange time before a tick it must see, as a rule, so that older ticks cannot change its state.
    fn lookback(&self) -> Duration;

    /// Whether it has seen enough: nothing before its first tick could change its state any more. A strategy
    /// that is not settled after its lookback is shown more.
    fn is_settled(&self) -> bool;
}
