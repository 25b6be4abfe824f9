//! A number of things as counters keep it.

/// The length of a list as a counter keeps it. No list is longer than a `u64` can count.
#[must_use]
pub fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
