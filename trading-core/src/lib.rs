//! Records every public trade of crypto exchanges into PostgreSQL, exactly once.
//!
//! The rooms, in the order of a tick's way.

// The words of the trade; imports nothing of ours.
pub mod domain;

// Settings: defaults, file, environment, flags; all problems at once.
pub mod config;

// One pure file per venue: URLs, subscribe text, frames to ticks.
pub mod exchange;

// The bounded channel, the batcher, the writers, and taps for who looks on.
pub mod pipeline;

// Where ticks end: PostgreSQL, and the private cluster that the program keeps where none is given.
pub mod store;
