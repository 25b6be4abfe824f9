//! What the program says of itself.

mod limiter;

pub use limiter::RepeatLimiter;
