//! Paper trading.

mod account;
mod changes;
mod desk;
mod engine;
mod error;
mod fills;
mod money;
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
pub use strategy::{
    KINDS, Kind, Parameter, Problem, Range, Signal, Size, Strategy, Values, View, check,
};
pub use summary::{StrategySummary, Summary, SummaryHandle};
