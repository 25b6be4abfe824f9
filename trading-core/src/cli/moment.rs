//! Times as people write them on the command line.

use crate::domain::{Timestamp, TimestampError};

/// Reads `2026-11-20`, `2026-11-20 07:30`, `2026-11-20T07:30:05` (UTC), or any RFC 3339 time.
pub(super) fn moment(text: &str) -> Result<Timestamp, TimestampError> {
    let joined = text.trim().replacen(' ', "T", 1);
    let (date, time) = joined.split_once('T').unwrap_or((joined.as_str(), "00:00:00Z"));
    let has_offset = time.ends_with(['Z', 'z']) || time.contains(['+', '-']);
    let (clock, offset) = if has_offset { (time, "") } else { (time, "Z") };
    let seconds = if clock.len() == 5 { ":00" } else { "" };
    Timestamp::from_rfc3339(&format!("{date}T{clock}{seconds}{offset}"))
        .map_err(|_unreadable| TimestampError { text: text.chars().take(40).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_a_minute_and_a_whole_time_are_understood() {
        for (text, time) in [
            ("2026-11-20", "2026-11-20T00:00:00.000000Z"),
            ("2026-11-20 07:30", "2026-11-20T07:30:00.000000Z"),
            ("2026-11-20T07:30:05", "2026-11-20T07:30:05.000000Z"),
            ("2026-11-20T07:30:05.25Z", "2026-11-20T07:30:05.250000Z"),
            ("2026-11-20 07:30:05+02:00", "2026-11-20T05:30:05.000000Z"),
        ] {
            assert_eq!(moment(text).map(|at| at.to_string()).as_deref(), Ok(time), "{text}");
        }
        for text in ["", "yesterday", "2026-13-01", "2026-11-20T25:00", "20261120"] {
            assert_eq!(moment(text), Err(TimestampError { text: text.to_owned() }));
        }
    }
}
