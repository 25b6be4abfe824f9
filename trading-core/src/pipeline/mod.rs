//! From feeds to store: one bounded channel, batches, writers that overlap, and taps for who looks on.

mod tap;

pub use tap::{Chunk, Delivery, TapReceiver, TapSender, tap};
