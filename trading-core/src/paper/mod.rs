//! Strategies that trade on paper against the live ticks.
//!
//! In come the ticks of a tap, in the order in which the pipeline took them. Out go orders, fills, positions and
//! equity, stored in one transaction with the state of their accounts, and a [`Summary`] for the health line.
//!
//! Promised: recording never waits for a strategy or for these tables. A strategy sees every tick of its symbols
//! in order of arrival, or learns how many it missed. Orders fill at the ticks after the one that
//! caused them. Money is exact: cash, fills and fees balance to the last digit. The same ticks give the same fills,
//! live and in a replay. Nothing is stored of a tick that is not stored itself, and a restart, after a crash too, goes
//! on as if there had been none: ticks that were traded and not yet accounted for are traded again, with the same fills.
//!
//! Not promised: all strategies share one thread, so that one that hangs holds up the others.
//!
//! ```text
//! tap ──▶ engine ──▶ desk per strategy: strategy ──▶ orders ──▶ fills ──▶ account
//!                      └──events──▶ changes ──▶ store (paper_*)
//! ```

mod account;
mod arrivals;
mod changes;
mod desk;
mod engine;
mod error;
mod fills;
mod money;
mod replay;
mod resume;
mod run;
mod store;
mod strategy;
mod summary;
#[cfg(test)]
mod testing;
mod ticks;
mod writer;

pub use account::{Account, AccountError, Position, Valuation};
pub use changes::{AccountState, Change, Changes, Event};
pub use desk::StoredAccount;
pub use engine::Engine;
pub use error::PaperError;
pub use fills::{Fill, Order, OrderStatus, Reason, Terms};
pub use money::Overflow;
pub use replay::{Replayed, Speed, SpeedError, narrowed, replay};
pub use run::run;
pub use store::{AccountStore, PgStore};
pub use strategy::{
    Conflict, KINDS, Kind, Parameter, Problem, Range, Signal, Size, Strategy, Values, View, check,
    check_drafts,
};
pub use summary::{StrategySummary, Summary, SummaryHandle};
pub use ticks::{TickQuery, TickStream};
