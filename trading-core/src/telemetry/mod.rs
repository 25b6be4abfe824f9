//! What the program says about itself: the log, and the limit on lines that repeat.
//!
//! The log goes to standard error, a line an event, as text or as JSON; standard output belongs to results.
//! Promised: a line is `time LEVEL message fields`, so that the lines of the contract read as they are
//! written there. Not promised: that every line arrives; a closed standard error loses lines, not ticks.

mod limiter;
mod logs;
mod progress;

pub use limiter::{RepeatLimiter, SharedLimiter, Unsaid};
pub use logs::{Level, LogError, LogFormat, LogOptions, start_logs};
pub use progress::Progress;
