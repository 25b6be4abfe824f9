//! What the program says about itself, and how: the log, progress, tables, numbers, colours.
//!
//! The log goes to standard error, a line an event, as text or as JSON; standard output belongs to results.
//! Promised: a line is `time LEVEL message fields`, so that the lines of the contract read as they are
//! written there. Not promised: that every line arrives; a closed standard error loses lines, not ticks.

mod figures;
mod limiter;
mod logs;
mod page;
mod progress;
mod screen;
mod table;
mod text;

pub use figures::{Grouped, Lasting, Rate};
pub use limiter::{RepeatLimiter, SharedLimiter, Unsaid};
pub use logs::{Level, LogError, LogFormat, LogOptions, start_logs};
pub use page::Page;
pub use progress::{Progress, Total, Unit, aside};
pub use screen::{Screen, Tone, Wishes};
pub use table::{Side, Table};
pub use text::Text;
