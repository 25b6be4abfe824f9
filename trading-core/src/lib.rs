//! Records every public trade of crypto exchanges into PostgreSQL, exactly once.
//!
//! The rooms, in the order of a tick's way. What their words mean, and which file to read for what, is in `docs/guide.md`
//! ("Words", "Where to find what in the code").

// The words of the trade; imports nothing of ours.
pub use domain;

// Settings: defaults, file, environment, flags; all problems at once.
pub mod config;

// What the program says of itself: logs, limited repeats.
pub mod telemetry;

// The way to a venue: proxies, authorities, the opening of a WebSocket, and the pauses that a venue asks for.
pub mod network;

// The list of venues, each a pure folder: URLs, subscribe text, frames to ticks, the past.
pub use exchange;

// One task per feed: its connections, backoff, what was seen, what is missing, who is silent.
pub mod feed;

// The bounded channel, the batcher, the writers, and taps for who looks on.
pub mod pipeline;

// Where ticks end: PostgreSQL, by binary COPY, each tick once; and the private cluster for those who have none.
pub mod store;

// Asks a venue over HTTP, within its limits.
pub mod rest;

// The second way in: gaps are filled from the venues' history, through the same channel.
pub mod repair;

// Strategies that trade on paper against the live ticks; recording never waits for them.
pub mod paper;

// The proof, from what is stored: every trade once, or what is not.
pub mod verify;

// The preflight: what would go wrong, and what to do about it.
pub mod doctor;

// The simulated exchanges: a pure market behind the real protocols, on loopback.
pub use simulator;

// The command line and its exit codes.
pub mod cli;

// The one place that prints.
pub mod output;

// Builds the stages, joins them, stops them in order. Only `main` uses it.
pub mod app;
