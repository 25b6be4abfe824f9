//! The words of the trade: tick, instrument, side, exact decimals, time, ranges, gaps, connections.
//!
//! No I/O and no clock but [`Timestamp::now`] and [`RecorderClock::now`], which only the edges call. Imports nothing else
//! of ours, so every room may use it.

mod backoff;
pub mod bounds;
mod clock;
mod consensus;
mod count;
mod decimal;
mod exchange_stamps;
mod gap;
mod held;
mod id_set;
mod instrument;
mod last_stored;
mod lock;
mod ranges;
mod record;
mod recorder_clock;
mod session;
mod simulator;
mod symbol;
pub mod testing;
mod text;
mod tick;
mod time;
mod when;

pub use backoff::Backoff;
pub use clock::ClockOffset;
pub use consensus::{APART_MICROS, Consensus, DATABASE, Witness, consensus};
pub use count::count;
pub use decimal::{DecimalError, parse_decimal};
pub use exchange_stamps::ExchangeStamps;
pub use gap::{GapCause, GapPart, GapRecord, GapStatus, OpenGap};
pub use held::HeldSince;
pub use id_set::IdSet;
pub use instrument::{Instrument, InstrumentError};
pub use last_stored::LastStored;
pub use lock::lock;
pub use ranges::{IdRange, TimeRange};
pub use record::Record;
pub use recorder_clock::{RecorderClock, Stamp, steady_micros};
pub use session::{ENDED_WITHOUT_A_WORD, SessionEnd, SessionStart};
pub use simulator::{SIMULATOR, SimulatedMarket, announced_market};
pub use symbol::{Symbol, SymbolError, SymbolRef, nearest};
pub use text::{Escaper, Lines, escaped};
pub use tick::{Side, Source, Tick, TradeId};
pub use time::{DAY, Timestamp, TimestampError};
pub use when::{When, WhenError};
