//! Asks a venue over HTTP, within its limits.
//!
//! One [`RestClient`] for each venue, shared by all who ask it: its requests are spread evenly over time, and when
//! the venue wants fewer, all of them wait. What to ask and how to read the answer is the venue's own
//! [`crate::exchange::history`].
//!
//! Promised: no answer is kept beyond 16 MiB, no request lasts beyond 20 s, and none is redirected to another host.
//! Not promised: retries. Who asks decides what a failure is worth.

mod client;
mod error;
mod listing;
#[cfg(test)]
mod listing_tests;
#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod tests;

pub use client::RestClient;
pub use error::RestError;
pub use listing::{Asking, Listing};
