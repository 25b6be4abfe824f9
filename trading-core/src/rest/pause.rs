//! How long a venue is left alone after an answer, from its status and its `Retry-After`. Pure.

use std::time::Duration;

use chrono::DateTime;

use crate::domain::Timestamp;

/// The longest pause, whatever a venue asks for: Binance bans for up to three days who goes on asking.
/// <https://developers.binance.com/docs/binance-spot-api-docs/rest-api/limits>
pub(super) const PAUSE_MAX: Duration = Duration::from_hours(72);
/// The pause of who is banned and not told for how long: Bybit's own.
const PAUSE_BANNED: Duration = Duration::from_mins(10);
/// The pause where the venue wants fewer requests and does not say for how long.
pub(super) const PAUSE: Duration = Duration::from_secs(10);
/// The pause after an error of the venue's own.
const PAUSE_BROKEN: Duration = Duration::from_secs(5);

/// How long to ask nothing after this answer; `None`: it is no matter of time.
pub(super) fn after(
    status: u16,
    retry_after: Option<&str>,
    body: &str,
    now: Timestamp,
) -> Option<Duration> {
    let unsaid = match status {
        429 => PAUSE,
        // Binance bans who goes on after a 429; Bybit, with these words, who asks too often.
        418 => PAUSE_BANNED,
        403 if body.contains("too frequent") => PAUSE_BANNED,
        500..=599 => PAUSE_BROKEN,
        _ => return None,
    };
    let said = retry_after.and_then(|text| read(text.trim(), now));
    Some(said.unwrap_or(unsaid).min(PAUSE_MAX))
}

/// Seconds, or a date of the kind that HTTP has.
fn read(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    let ahead = date.timestamp_micros().saturating_sub(now.as_micros());
    Some(Duration::from_micros(u64::try_from(ahead).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(status: u16, retry_after: Option<&str>) -> Option<u64> {
        let now = Timestamp::from_rfc3339("2015-10-21T07:28:00Z").unwrap();
        after(status, retry_after, "", now).map(|pause| pause.as_secs())
    }

    #[test]
    fn a_venue_says_how_long_in_seconds_or_until_when() {
        assert_eq!(at(429, Some("7")), Some(7));
        assert_eq!(at(503, Some(" 120 ")), Some(120));
        assert_eq!(at(429, Some("Wed, 21 Oct 2015 07:28:42 GMT")), Some(42));
        assert_eq!(at(429, Some("Wed, 21 Oct 2015 07:27:00 GMT")), Some(0), "that is over");
    }

    #[test]
    fn where_it_says_nothing_that_can_be_read_the_status_does() {
        for unsaid in [None, Some("soon"), Some("-5"), Some("")] {
            assert_eq!(at(429, unsaid), Some(10), "{unsaid:?}");
            assert_eq!(at(418, unsaid), Some(600), "{unsaid:?}");
            assert_eq!(at(502, unsaid), Some(5), "{unsaid:?}");
        }
        let now = Timestamp::from_micros(0).unwrap();
        let words = "403, RequestId. access too frequent";
        assert_eq!(after(403, None, words, now), Some(PAUSE_BANNED));
    }

    #[test]
    fn no_pause_is_longer_than_three_days() {
        assert_eq!(at(429, Some("86400")), Some(86_400));
        assert_eq!(at(429, Some("18446744073709551615")), Some(259_200));
        assert_eq!(at(429, Some("Wed, 21 Oct 2099 07:28:42 GMT")), Some(259_200));
    }

    #[test]
    fn what_time_does_not_mend_is_no_pause() {
        for status in [200, 301, 400, 403, 404, 451] {
            assert_eq!(at(status, Some("7")), None, "{status}");
        }
    }
}
