//! The numbers by which a recording is judged. They are verify's own, so that a change in what the recorder does cannot
//! change in silence what is proven of it; a test compares them with what the recorder goes by.

use std::time::Duration;

/// What came over a connection that ended this long ago is stored, or in a spool.
pub(super) const SETTLED: Duration = Duration::from_secs(60);
/// A recorder runs whose last sign of life is no older than this.
pub(super) const SIGN_OF_LIFE_MAX: Duration = Duration::from_secs(60);
/// The last note of a connection may be this much older than its end: connections are noted as alive every ten seconds.
pub(super) const SEEN_LATE_MAX: Duration = Duration::from_secs(15);
/// The exchange's clock and ours may differ by this much where a time without a connection is compared with `tick_gaps`.
pub(super) const CLOCKS_APART_MAX: Duration = Duration::from_secs(5);
/// Ids may run against the exchange's time by this much; a trade that is further off does not belong where its id says.
pub(super) const DISORDER_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{APART_MICROS, bounds};

    #[test]
    fn verify_judges_by_no_other_numbers_than_the_recorder_goes_by() {
        assert_eq!(SETTLED, bounds::SETTLED);
        assert_eq!(SIGN_OF_LIFE_MAX, bounds::SESSION_DEAD);
        assert!(SEEN_LATE_MAX > bounds::SESSION_REFRESH && SEEN_LATE_MAX < bounds::SESSION_DEAD);
        assert_eq!(CLOCKS_APART_MAX, Duration::from_micros(APART_MICROS));
        assert_eq!(DISORDER_MAX, bounds::DISORDER_MAX);
    }
}
