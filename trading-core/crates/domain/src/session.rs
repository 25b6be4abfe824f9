//! A connection to an exchange, as it is noted beside the trades that it brought.

use super::Timestamp;

/// How the reason begins with which the connections of a dead recorder are closed.
pub const ENDED_WITHOUT_A_WORD: &str = "its recorder ended without a word";

/// A connection to an exchange that is open.
#[derive(Debug, Clone)]
pub struct SessionStart {
    /// The exchange's name.
    pub exchange: &'static str,
    /// The connection's name.
    pub feed: String,
    /// When it was opened.
    pub connected_at: Timestamp,
    /// What it is to carry.
    pub symbols: Vec<String>,
}

/// How a connection to an exchange ended, and what came over it.
#[derive(Debug, Clone)]
pub struct SessionEnd {
    /// When it ended; of one that hung or broke, when its last frame came.
    pub ended_at: Timestamp,
    /// Why it ended.
    pub reason: String,
    /// Frames read.
    pub frames: i64,
    /// Ticks decoded, duplicates included.
    pub ticks: i64,
    /// Ticks that had been seen before.
    pub duplicates: i64,
    /// Frames that could not be read.
    pub malformed: i64,
}
