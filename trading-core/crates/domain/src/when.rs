//! A moment as people write it: a time, a day, or how long ago.

use std::str::FromStr;
use std::time::Duration;

use super::Timestamp;

/// A moment as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// An instant.
    At(Timestamp),
    /// This long before now.
    Ago(Duration),
}

/// A text that is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "write 2026-01-31T12:00:00Z, 2026-01-31 (its first moment in UTC), an age as 90s, 2h or 7d, or now"
)]
pub struct WhenError;

impl FromStr for When {
    type Err = WhenError;

    fn from_str(text: &str) -> Result<Self, WhenError> {
        if text == "now" {
            return Ok(Self::Ago(Duration::ZERO));
        }
        if let Ok(at) = Timestamp::from_rfc3339(text) {
            return Ok(Self::At(at));
        }
        if let Ok(at) = Timestamp::from_rfc3339(&format!("{text}T00:00:00Z")) {
            return Ok(Self::At(at));
        }
        humantime::parse_duration(text).map(Self::Ago).map_err(|_not_an_age| WhenError)
    }
}

impl When {
    /// The instant meant, `now` being the time.
    #[must_use]
    pub fn instant(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(age) => (now - age).max(Timestamp::EPOCH),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_a_day_or_an_age() {
        let now = Timestamp::from_rfc3339("2026-03-01T12:00:00Z").unwrap();
        let instant = |text: &str| text.parse::<When>().map(|when| when.instant(now).to_string());
        let expected = [
            ("2026-02-03T04:05:06.7+01:00", "2026-02-03T03:05:06.700000Z"),
            ("2026-02-03", "2026-02-03T00:00:00.000000Z"),
            ("2h", "2026-03-01T10:00:00.000000Z"),
            ("90000d", "1970-01-01T00:00:00.000000Z"),
            ("now", "2026-03-01T12:00:00.000000Z"),
        ];
        for (text, meant) in expected {
            assert_eq!(instant(text).as_deref(), Ok(meant), "{text}");
        }
        for text in ["", "yesterday", "2026-02-30", "12:00", "5"] {
            assert_eq!(instant(text), Err(WhenError), "{text}");
        }
    }
}
