//! How long a venue is left alone after an answer, from its status and its `Retry-After`; and the pause itself, which
//! all who go to that venue keep.

use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::domain::{Timestamp, lock};

/// The longest pause, whatever a venue asks for: Binance bans an address that goes on asking for up to three days.
/// <https://developers.binance.com/docs/binance-spot-api-docs/rest-api/limits>
const BAN_MAX: Duration = Duration::from_hours(72);
/// The longest pause after an error of the venue's own: one header must not stop everything for days.
const BROKEN_MAX: Duration = Duration::from_mins(10);
/// The pause after a ban without a time: Bybit's own.
const BANNED: Duration = Duration::from_mins(10);
/// The pause where the venue wants fewer requests and does not say for how long.
const FEWER_REQUESTS: Duration = Duration::from_secs(10);
/// The same for connections, which venues count over minutes.
const FEWER_CONNECTIONS: Duration = Duration::from_mins(1);
/// The pause after an error of the venue's own.
const BROKEN: Duration = Duration::from_secs(5);
/// Those who were sent away together come back spread over a tenth of the time, and no longer than this.
const JITTER_MAX: Duration = Duration::from_secs(10);
/// A pause that moves its end by less is not news.
const NEWS: Duration = Duration::from_secs(60);

/// Which way to a venue was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A request for history.
    Rest,
    /// The opening of a WebSocket.
    Socket,
}

/// How long to stay away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// For how long.
    pub wait: Duration,
    /// The venue sends this address away, whichever way it comes; else only the way that was answered is closed.
    pub is_ban: bool,
}

impl Hold {
    /// Of a venue that says in a body, with whatever status, that it was asked too often.
    pub const TOO_MANY: Self = Self { wait: FEWER_REQUESTS, is_ban: false };
}

/// How long to stay away after this answer; `None`: it is no matter of time. `date` is the answer's own `Date`, by
/// which a `Retry-After` that is a date is read: our clock may be wrong.
#[must_use]
pub fn after(
    side: Side,
    status: u16,
    retry_after: Option<&str>,
    date: Option<&str>,
    body: &str,
    now: Timestamp,
) -> Option<Hold> {
    let now = date.and_then(micros).unwrap_or(now.as_micros());
    // A ban that ends at once, as a cached page has it, is one without a time.
    let said = retry_after
        .and_then(|text| read(text.trim(), now))
        .filter(|wait| status != 418 || !wait.is_zero());
    let is_too_frequent = || {
        let body = body.to_ascii_lowercase();
        ["too frequent", "too many requests"].iter().any(|words| body.contains(words))
    };
    let (unsaid, longest, is_ban) = match (status, side) {
        (429, Side::Rest) => (FEWER_REQUESTS, BAN_MAX, said.is_some()),
        (429, Side::Socket) => (FEWER_CONNECTIONS, BAN_MAX, true),
        // Binance bans an address that goes on after a 429; Bybit, with these words, one that asks too often.
        (418, _) => (BANNED, BAN_MAX, true),
        (403, _) if is_too_frequent() => (BANNED, BAN_MAX, true),
        (500..=599, Side::Rest) => (BROKEN, BROKEN_MAX, false),
        // Without a time the feed's own backoff decides.
        (500..=599, Side::Socket) => (Duration::ZERO, BROKEN_MAX, false),
        _ => return None,
    };
    Some(Hold { wait: said.unwrap_or(unsaid).min(longest), is_ban })
}

/// Seconds, or a date of the kind that HTTP has.
fn read(text: &str, now: i64) -> Option<Duration> {
    // A part of a second is waited for in full.
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !whole.is_empty() && is_number(whole) && is_number(part) {
        let whole: u64 = whole.parse().unwrap_or(u64::MAX);
        let part = u64::from(part.bytes().any(|digit| digit != b'0'));
        return Some(Duration::from_secs(whole.saturating_add(part)));
    }
    let ahead = micros(text)?.saturating_sub(now);
    Some(Duration::from_micros(u64::try_from(ahead).unwrap_or(0)))
}

fn micros(date: &str) -> Option<i64> {
    DateTime::parse_from_rfc2822(date.trim()).ok().map(|date| date.timestamp_micros())
}

/// How long a venue is left alone, by all who share this.
#[derive(Debug, Default)]
pub struct Pause {
    venue: &'static str,
    /// Decides the jitter.
    seed: u64,
    until: Mutex<Option<Instant>>,
}

impl Pause {
    /// The pause of this venue; the seed decides the jitter of its ends.
    #[must_use]
    pub const fn new(venue: &'static str, seed: u64) -> Self {
        Self { venue, seed, until: Mutex::new(None) }
    }

    /// Keeps away as long as `hold` asks, or longer where that was known already. A ban is logged once, with the time it
    /// ends.
    pub fn hold(&self, hold: Hold, why: &str) {
        if hold.wait.is_zero() {
            return;
        }
        let now = Instant::now();
        let until = now + hold.wait + self.jitter(hold.wait);
        let mut known = lock(&self.until);
        let before = known.filter(|until| *until > now);
        *known = Some(before.map_or(until, |before| before.max(until)));
        drop(known);
        if hold.is_ban && before.is_none_or(|before| before + NEWS < until) {
            let seconds = i64::try_from(hold.wait.as_secs()).unwrap_or(i64::MAX);
            let end = Timestamp::now().plus_micros(seconds.saturating_mul(1_000_000));
            let end = DateTime::from_timestamp_micros(end.as_micros())
                .map(|end| end.to_rfc3339_opts(SecondsFormat::Secs, true));
            warn!(
                "{} sends this address away until {}: {why}. Neither its feeds nor its history ask before",
                self.venue,
                end.unwrap_or_default()
            );
        }
    }

    /// How long it still lasts; zero when it is over.
    #[must_use]
    pub fn left(&self) -> Duration {
        let until = *lock(&self.until);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Returns when it is over.
    pub async fn over(&self) {
        loop {
            let left = self.left();
            if left.is_zero() {
                return;
            }
            sleep_until(Instant::now() + left).await;
        }
    }

    fn jitter(&self, wait: Duration) -> Duration {
        let most = u64::try_from((wait / 10).min(JITTER_MAX).as_millis()).unwrap_or(0);
        // Seeds that lie beside each other are spread (the mixer of splitmix64).
        let spread = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let spread = (spread ^ (spread >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_millis((spread ^ (spread >> 31)) % (most + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(status: u16, retry_after: Option<&str>) -> Option<u64> {
        on(Side::Rest, status, retry_after).map(|hold| hold.wait.as_secs())
    }

    fn on(side: Side, status: u16, retry_after: Option<&str>) -> Option<Hold> {
        let now = Timestamp::from_rfc3339("2015-10-21T07:28:00Z").unwrap();
        after(side, status, retry_after, None, "", now)
    }

    #[test]
    fn a_venue_says_how_long_in_seconds_or_until_when() {
        assert_eq!(at(429, Some("7")), Some(7));
        assert_eq!(at(429, Some("1.5")), Some(2));
        assert_eq!(at(503, Some(" 120 ")), Some(120));
        assert_eq!(at(429, Some("Wed, 21 Oct 2015 07:28:42 GMT")), Some(42));
        assert_eq!(at(429, Some("Wed, 21 Oct 2015 07:27:00 GMT")), Some(0), "that is over");
    }

    #[test]
    fn a_date_is_read_by_the_clock_of_who_wrote_it() {
        // Ours is a year off.
        let now = Timestamp::from_rfc3339("2016-10-21T07:28:00Z").unwrap();
        let date = Some("Wed, 21 Oct 2015 07:28:00 GMT");
        let until = Some("Wed, 21 Oct 2015 07:33:00 GMT");
        let hold = after(Side::Socket, 418, until, date, "", now).unwrap();
        assert_eq!(hold.wait, Duration::from_mins(5));
    }

    #[test]
    fn where_it_says_nothing_that_can_be_read_the_status_does() {
        for unsaid in [None, Some("soon"), Some("-5"), Some(""), Some("."), Some("1.x")] {
            assert_eq!(at(429, unsaid), Some(10), "{unsaid:?}");
            assert_eq!(at(418, unsaid), Some(600), "{unsaid:?}");
            assert_eq!(at(502, unsaid), Some(5), "{unsaid:?}");
            assert_eq!(on(Side::Socket, 429, unsaid).unwrap().wait.as_secs(), 60, "{unsaid:?}");
            assert_eq!(on(Side::Socket, 502, unsaid).unwrap().wait.as_secs(), 0, "{unsaid:?}");
        }
        let now = Timestamp::from_micros(0).unwrap();
        for words in ["403, RequestId. access too frequent", "<h1>Access Too Frequent</h1>"] {
            let hold = Hold { wait: BANNED, is_ban: true };
            assert_eq!(after(Side::Socket, 403, None, None, words, now), Some(hold));
        }
    }

    #[test]
    fn a_ban_is_three_days_at_most_and_an_error_of_the_venues_own_ten_minutes() {
        assert_eq!(at(429, Some("86400")), Some(86_400));
        assert_eq!(at(429, Some("18446744073709551616")), Some(259_200));
        assert_eq!(at(418, Some("Wed, 21 Oct 2099 07:28:42 GMT")), Some(259_200));
        for side in [Side::Rest, Side::Socket] {
            let hold = Hold { wait: Duration::from_mins(10), is_ban: false };
            assert_eq!(on(side, 503, Some("259200")), Some(hold), "{side:?}");
        }
    }

    #[test]
    fn a_ban_closes_both_ways_and_a_busy_history_its_own() {
        assert!(on(Side::Socket, 429, None).unwrap().is_ban);
        assert!(on(Side::Rest, 418, None).unwrap().is_ban);
        assert!(on(Side::Rest, 429, Some("60")).unwrap().is_ban);
        assert!(!on(Side::Rest, 429, None).unwrap().is_ban);
    }

    #[test]
    fn what_time_does_not_mend_is_no_pause() {
        for status in [200, 301, 400, 403, 404, 451] {
            assert_eq!(at(status, Some("7")), None, "{status}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_lasts_as_long_as_the_longest_and_ends_spread() {
        let hold = |seconds| Hold { wait: Duration::from_secs(seconds), is_ban: true };
        let mut ends = std::collections::BTreeSet::new();
        for seed in 0..20 {
            let pause = Pause::new("test", seed);
            let start = Instant::now();
            pause.hold(hold(600), "one");
            pause.hold(hold(60), "a shorter one changes nothing");
            pause.over().await;
            let lasted = start.elapsed();
            assert!(lasted >= Duration::from_secs(600) && lasted <= Duration::from_secs(611));
            assert!(pause.left().is_zero());
            ends.insert(lasted.as_millis());
        }
        assert!(ends.len() > 15, "{ends:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn three_days_are_waited_for_in_full() {
        let pause = Pause::new("test", 1);
        let start = Instant::now();
        pause.hold(Hold { wait: BAN_MAX, is_ban: true }, "418");
        pause.over().await;
        assert!(start.elapsed() >= BAN_MAX);
    }
}
