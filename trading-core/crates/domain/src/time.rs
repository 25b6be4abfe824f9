//! Instants in microseconds, the finest unit that PostgreSQL stores.
//!
//! Every calculation stops at the ends of what a time can be: none wraps, none panics.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

/// An instant in UTC, in microseconds since 1970-01-01.
///
/// Only years 1970 to 9999 can be built from outside: a venue's `0001-01-01` is an error, not a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// A time outside 1970 to 9999, or a text that is no RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a time between 1970 and 9999: {text:?}")]
pub struct TimestampError {
    /// What was refused, cut to 40 characters.
    pub text: String,
}

/// 9999-12-31T23:59:59.999999Z.
const MICROS_MAX: i64 = 253_402_300_799_999_999;

/// One day.
pub const DAY: Duration = Duration::from_hours(24);

impl Timestamp {
    /// 1970-01-01: before everything else.
    pub const EPOCH: Self = Self(0);
    /// The end of the year 9999: after everything else.
    pub const MAX: Self = Self(MICROS_MAX);

    /// The wall clock. Called at the edges only (socket read, start of a run); everything else is told the time.
    #[must_use]
    pub fn now() -> Self {
        Self(Utc::now().timestamp_micros())
    }

    /// From microseconds since 1970.
    ///
    /// # Errors
    ///
    /// When the time lies outside the years 1970 to 9999.
    pub fn from_micros(micros: i64) -> Result<Self, TimestampError> {
        if (0..=MICROS_MAX).contains(&micros) {
            Ok(Self(micros))
        } else {
            Err(TimestampError { text: format!("{micros} us") })
        }
    }

    /// From milliseconds since 1970, as most venues send it.
    ///
    /// # Errors
    ///
    /// When the time lies outside the years 1970 to 9999.
    pub fn from_millis(millis: i64) -> Result<Self, TimestampError> {
        millis
            .checked_mul(1_000)
            .and_then(|micros| Self::from_micros(micros).ok())
            .ok_or_else(|| TimestampError { text: format!("{millis} ms") })
    }

    /// From an RFC 3339 text; digits below the microsecond are cut.
    ///
    /// # Errors
    ///
    /// When the text is no RFC 3339 time, or lies outside the years 1970 to 9999.
    pub fn from_rfc3339(text: &str) -> Result<Self, TimestampError> {
        DateTime::parse_from_rfc3339(text)
            .ok()
            .and_then(|time| Self::from_micros(time.timestamp_micros()).ok())
            .ok_or_else(|| TimestampError { text: text.chars().take(40).collect() })
    }

    /// This time, or the first one after `other` where it is not later: two readings of a clock in one microsecond.
    #[must_use]
    pub const fn strictly_after(self, other: Self) -> Self {
        if self.0 > other.0 { self } else { Self(other.0.saturating_add(1)) }
    }

    /// Microseconds since 1970.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole milliseconds since 1970.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0 / 1_000
    }

    /// The same instant for chrono and sqlx.
    #[must_use]
    pub fn to_datetime(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or_default()
    }

    /// The beginning of the second that it lies in.
    #[must_use]
    pub const fn second(self) -> Self {
        Self(self.0 - self.0.rem_euclid(1_000_000))
    }

    /// The beginning of the minute that it lies in.
    #[must_use]
    pub const fn minute(self) -> Self {
        Self(self.0 - self.0.rem_euclid(60_000_000))
    }

    /// How long after `earlier` this is; zero where it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.micros_since(earlier).max(0).unsigned_abs())
    }

    /// How far this is from `other`, whichever comes first.
    #[must_use]
    pub const fn apart(self, other: Self) -> Duration {
        Duration::from_micros(self.0.abs_diff(other.0))
    }

    /// Whether this is at most `within` before or after `other`.
    #[must_use]
    pub fn is_near(self, other: Self, within: Duration) -> bool {
        self.0.abs_diff(other.0) <= micros(within).unsigned_abs()
    }

    /// Microseconds from `other` to this, negative where this comes first: for what one clock is ahead of another.
    #[must_use]
    pub const fn micros_since(self, other: Self) -> i64 {
        self.0.saturating_sub(other.0)
    }

    /// Moved by an offset in microseconds, back where it is negative. Where the sign is known, add or subtract a
    /// [`Duration`].
    #[must_use]
    pub fn plus_micros(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros).clamp(0, MICROS_MAX))
    }

    /// Days since 1970-01-01: the number of the day partition.
    #[must_use]
    pub const fn day(self) -> i64 {
        self.0.div_euclid(86_400_000_000)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// Later by this much, in whole microseconds; at most [`Self::MAX`].
    fn add(self, time: Duration) -> Self {
        self.plus_micros(micros(time))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    /// Earlier by this much, in whole microseconds; at least [`Self::EPOCH`].
    fn sub(self, time: Duration) -> Self {
        self.plus_micros(-micros(time))
    }
}

/// Whole microseconds; a time too long for them is longer than all of them.
fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_datetime().to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_to_the_microsecond_and_printed_back() {
        let time = Timestamp::from_rfc3339("2026-09-02T07:44:10.104422Z").unwrap();
        assert_eq!(time.to_string(), "2026-09-02T07:44:10.104422Z");
        assert_eq!(time.as_millis() * 1_000 + 422, time.as_micros());
    }

    #[test]
    fn a_time_is_moved_within_what_a_time_can_be() {
        let time = Timestamp::from_micros(123_456_789).unwrap();
        assert_eq!(time.second().as_micros(), 123_000_000);
        assert_eq!(time.minute().as_micros(), 120_000_000);
        assert_eq!(time.plus_micros(-456_789).as_micros(), 123_000_000);
        assert_eq!(time.plus_micros(i64::MIN).as_micros(), 0);
        assert_eq!(time.plus_micros(i64::MAX).as_micros(), MICROS_MAX);
    }

    #[test]
    fn a_duration_is_added_and_taken_away_within_what_a_time_can_be() {
        let time = Timestamp::from_micros(123_456_789).unwrap();
        assert_eq!((time + Duration::from_millis(1)).as_micros(), 123_457_789);
        assert_eq!((time - Duration::from_nanos(1_999)).as_micros(), 123_456_788);
        assert_eq!(time - DAY, Timestamp::EPOCH);
        assert_eq!(time + Duration::MAX, Timestamp::MAX);
        assert_eq!(time - Duration::MAX, Timestamp::EPOCH);
        assert_eq!((Timestamp::EPOCH + DAY).day(), 1);
    }

    #[test]
    fn of_two_times_one_is_so_much_after_the_other_or_not_at_all() {
        let (early, late) = (Timestamp::EPOCH + DAY, Timestamp::EPOCH + DAY * 3);
        assert_eq!((late.since(early), early.since(late)), (DAY * 2, Duration::ZERO));
        assert_eq!((late.apart(early), early.apart(late)), (DAY * 2, DAY * 2));
        assert_eq!(early.micros_since(late), -172_800_000_000);
        assert!(early.is_near(late, DAY * 2) && late.is_near(early, Duration::MAX));
        assert!(!early.is_near(late, DAY * 2 - Duration::from_micros(1)));
        assert_eq!(Timestamp::EPOCH + Timestamp::MAX.since(Timestamp::EPOCH), Timestamp::MAX);
    }

    #[test]
    fn two_readings_in_one_microsecond_are_told_apart() {
        let time = |micros| Timestamp::from_micros(micros).unwrap();
        assert_eq!(time(7).strictly_after(time(7)), time(8));
        assert_eq!(time(5).strictly_after(time(7)), time(8), "a clock that was put back");
        assert_eq!(time(9).strictly_after(time(7)), time(9));
    }

    #[test]
    fn the_year_one_that_coinbase_has_sent_is_no_time() {
        assert!(Timestamp::from_rfc3339("0001-01-01T00:00:00.000000Z").is_err());
        assert!(Timestamp::from_millis(i64::MAX).is_err());
        assert!(Timestamp::from_micros(-1).is_err());
    }
}
