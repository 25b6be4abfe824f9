//! Simulated exchanges on loopback: a pure market, behind the protocols that the exchanges speak.
//!
//! A second, independent reading of each venue's protocol, written from its documentation and never from our
//! decoders: where the two disagree, one of them is wrong. Any client of those exchanges works here with its base
//! URL changed.
//!
//! ```text
//!  (seed, n) ─▶ market ─▶ session + one protocol per venue ─▶ server ─▶ client
//!   truth         │            ▲ faults: skip, repeat, stall …
//!                 └─▶ REST history, always whole
//! ```
//!
//! Promised: trade n is always the same, and every trade due on a subscription is sent or is in the journal.
//! Not simulated: order books, private routes, a ban for asking on, and any address but one: all clients share each
//! venue's limit. To add a venue: see `venue.rs`.

mod binance;
mod bitstamp;
mod bybit;
mod coinbase;
mod control;
mod faults;
#[cfg(test)]
mod harness;
mod journal;
mod kraken;
mod limits;
mod market;
mod okx;
mod outbox;
mod reply;
mod server;
mod session;
mod shared;
mod venue;

pub use faults::{
    Action, FaultError, FaultOrder, FaultReport, FaultsHandle, RestFault, Switches, SwitchesError,
    Target,
};
pub use journal::{Count, Entry, EntryKind, Journal};
pub use limits::RestLimits;
pub use market::{
    Bursts, Candle, Closure, Listing, MARKET_BEGAN, MARKET_VERSION, Market, MarketError,
    MarketOptions, TakerOrder, Trade,
};
pub use server::{Simulator, SimulatorError, SimulatorOptions, run};
pub use shared::Clock;
pub use venue::{RestLimit, UnknownVenue, Venue};
