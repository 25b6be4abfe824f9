//! Strategies that trade on paper against the live ticks.
//!
//! In come the ticks of a tap, in the order in which the pipeline took them. Out go orders, fills, positions and
//! equity, stored in one transaction with the state of their accounts, and a [`Summary`] for the health line.
//!
//! Promised: recording never waits for a strategy or for these tables. A strategy sees every tick of its symbols
//! in order, or the number of those that it missed is told. Orders fill at the ticks after the one that caused
//! them. Money is exact: cash, fills and fees balance to the last digit. The same ticks give the same fills,
//! live and in a replay. A restart goes on from the last stored state; strategies warm up again.
//!
//! Not promised: what happened within the last second before a crash is undone, cash and fills alike. All
//! strategies share one thread, so that one that hangs holds up the others.
//!
//! ```text
//! tap ──▶ engine ──▶ desk per strategy: strategy ──▶ orders ──▶ fills ──▶ account
//!                      └──events──▶ changes ──▶ store (paper_*)
//! ```

mod account;
mod changes;
mod desk;
mod engine;
mod error;
mod fills;
mod money;
mod run;
mod store;
mod strategy;
mod summary;
#[cfg(test)]
mod testing;

pub use account::{Account, AccountError, Position, Valuation};
pub use changes::{AccountState, Change, Changes, Event};
pub use desk::StoredAccount;
pub use engine::Engine;
pub use error::{PaperError, Remedy};
pub use fills::{Fill, Order, OrderStatus, Reason, Terms};
pub use money::Overflow;
pub use run::run;
pub use store::{PgStore, Store};
pub use strategy::{
    KINDS, Kind, Parameter, Problem, Range, Signal, Size, Strategy, Values, View, check,
};
pub use summary::{StrategySummary, Summary, SummaryHandle};
