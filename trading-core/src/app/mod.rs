//! Builds the stages, joins them, stops them in order.

mod tasks;

pub use tasks::{Ended, Tasks};
