//! Builds the stages, joins them, stops them in order.

mod arrival;
mod backfill;
mod clock_watch;
mod database;
mod drain;
mod ground;
mod identity;
mod live;
mod market_hours;
mod mixed;
mod recorder;
mod signals;
mod stand_in;
mod symbols;
mod tasks;
mod upkeep;

pub use backfill::{
    BackfillError, BackfillOptions, BackfillReport, ExchangeReport, RangeReport, backfill,
};
pub use database::Database;
pub use drain::{DrainError, Drained, Wanted, drain_spool};
pub use ground::Ground;
pub use identity::identity;
pub use live::{LiveError, LiveOptions, live};
pub use market_hours::HoursError;
pub use mixed::Mixed;
pub use recorder::{Outcome, Reach, Recorder, Venue, VenueError, venues};
pub use signals::StopSignals;
pub use stand_in::{StandIn, StandInError};
pub use tasks::{Ended, Tasks};
