//! What the engine did, on its way to the store.
//!
//! Events come in the order in which they happened. [`Changes`] gathers them: every fill and equity point, and
//! only the last state of each order, position and account, so that what waits while the database is away
//! grows with what was traded, not with time.

use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::Decimal;

use super::account::{Position, Valuation};
use super::fills::{Fill, Order};
use crate::domain::{Instrument, Timestamp};

/// One thing that happened to one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The account: its strategy's name.
    pub account: Arc<str>,
    /// What happened.
    pub change: Change,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An order was placed, filled, cancelled or rejected: its state now.
    Order(Order),
    /// A tick filled a part of an order.
    Fill(Fill),
    /// A position, now.
    Position(Instrument, Position),
    /// What the account was worth at one moment.
    Equity(Timestamp, Valuation),
    /// The account, now.
    Account(AccountState),
}

/// An account without its positions and orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountState {
    /// Its strategy's kind, as `sma_crossover`.
    pub kind: &'static str,
    /// The exchange that it trades on.
    pub exchange: String,
    /// The currency of its cash.
    pub quote: String,
    /// Cash at the start, in quote currency.
    pub initial_cash: Decimal,
    /// Cash, in quote currency.
    pub cash: Decimal,
    /// Fees paid, in quote currency.
    pub fees: Decimal,
    /// The last order's id, 0 before the first.
    pub last_order: u64,
    /// The last fill's id, 0 before the first: the number of fills.
    pub last_fill: u64,
    /// Exchange time of the newest tick seen; `None` before the first.
    pub seen_at: Option<Timestamp>,
    /// When its strategies began to take ticks.
    pub began_at: Option<Timestamp>,
    /// When the newest tick that it takes account of arrived.
    pub taken_until: Option<Timestamp>,
    /// Why it was stopped, if it was.
    pub stopped: Option<String>,
}

/// Changes that are stored together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Accounts, by name.
    pub accounts: BTreeMap<Arc<str>, AccountState>,
    /// Orders, by account and id.
    pub orders: BTreeMap<(Arc<str>, u64), Order>,
    /// Fills, by account and id.
    pub fills: BTreeMap<(Arc<str>, u64), Fill>,
    /// Positions, by account and instrument.
    pub positions: BTreeMap<(Arc<str>, Instrument), Position>,
    /// Equity, by account and time.
    pub equity: BTreeMap<(Arc<str>, Timestamp), Valuation>,
}

impl Changes {
    /// Adds what happened after everything here.
    pub fn record(&mut self, Event { account, change }: Event) {
        match change {
            Change::Order(order) => {
                self.orders.insert((account, order.id), order);
            }
            Change::Fill(fill) => {
                self.fills.insert((account, fill.id), fill);
            }
            Change::Position(instrument, position) => {
                self.positions.insert((account, instrument), position);
            }
            Change::Equity(at, valuation) => {
                self.equity.insert((account, at), valuation);
            }
            Change::Account(state) => {
                self.accounts.insert(account, state);
            }
        }
    }

    /// Adds changes that happened after these.
    pub fn append(&mut self, later: Self) {
        self.accounts.extend(later.accounts);
        self.orders.extend(later.orders);
        self.fills.extend(later.fills);
        self.positions.extend(later.positions);
        self.equity.extend(later.equity);
    }

    /// How many rows these are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.accounts.len()
            + self.orders.len()
            + self.fills.len()
            + self.positions.len()
            + self.equity.len()
    }
}
