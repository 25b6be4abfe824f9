//! The words of the trade: tick, instrument, side, exact decimals, time.
//!
//! No I/O and no clock but [`Timestamp::now`] and [`RecorderClock::now`], which only the edges call. Imports nothing else of ours, so
//! every room may use it.

mod clock;
mod decimal;
mod instrument;
mod recorder_clock;
mod tick;
mod time;

pub use clock::ClockOffset;
#[cfg(test)]
pub(crate) use decimal::written_value;
pub use decimal::{DecimalError, parse_decimal};
pub use instrument::{Instrument, InstrumentError, Symbol, SymbolError};
pub use recorder_clock::{RecorderClock, Stamp, steady_micros};
pub use tick::{Side, Source, Tick, TradeId};
pub use time::{Timestamp, TimestampError};
