//! Builds the stages, joins them, stops them in order.

mod arrival;
mod backfill;
mod clock_watch;
mod database;
mod doctor;
mod drain;
mod identity;
mod live;
mod market_hours;
mod mixed;
mod paper;
mod preparation;
mod reader;
mod recorded;
mod recorder;
mod recording;
mod registration;
mod replay;
mod served;
mod signals;
mod spool;
mod stand_in;
mod start_error;
mod status;
mod symbols;
mod tasks;
mod upkeep;
mod venues;
mod verify;
mod world;

pub use backfill::{
    BackfillError, BackfillOptions, BackfillReport, ExchangeReport, RangeReport, backfill,
};
pub use database::{Database, migrate_database};
pub use doctor::doctor;
pub use drain::{DrainError, Drained, Wanted, drain_spool};
pub use live::{LiveOptions, live};
pub use reader::{NoReader, ReaderOptions, reader};
pub use recorded::{NotThere, NothingRecorded, must_be_there};
pub use recorder::Outcome;
pub use recording::{Recording, RecordingStatus, recording};
pub use replay::{ReplayError, ReplayOptions, replay};
pub use signals::{Interrupted, StopSignals};
pub use stand_in::StandInError;
pub use start_error::StartError;
pub use status::{Status, StatusReader};
pub use verify::{VerifyFailure, VerifyOptions, verify};
pub use world::Exchanges;
