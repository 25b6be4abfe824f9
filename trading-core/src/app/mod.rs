//! Builds the stages, joins them, stops them in order.

mod arrival;
mod backfill;
mod clock_watch;
mod database;
mod drain;
mod identity;
mod live;
mod market_hours;
mod mixed;
mod paper;
mod preparation;
mod recorder;
mod registration;
mod served;
mod signals;
mod spool;
mod stand_in;
mod start_error;
mod symbols;
mod tasks;
mod upkeep;
mod venues;
mod world;

pub use backfill::{
    BackfillError, BackfillOptions, BackfillReport, ExchangeReport, RangeReport, backfill,
};
pub use database::Database;
pub use drain::{DrainError, Drained, Wanted, drain_spool};
pub use live::{LiveOptions, live};
pub use recorder::Outcome;
pub use signals::StopSignals;
pub use stand_in::{StandIn, StandInError};
pub use start_error::StartError;
pub use world::Exchanges;
