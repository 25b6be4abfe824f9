//! Numbers and durations for people, in one form everywhere.
//!
//! Promised: whole numbers in results and progress have their thousands apart (`12,345,678`), durations have one unit or
//! two (`74ms`, `1.1s`, `2m 3s`, `3h 5m`, `90d`), rates have no more digits than are significant. The lines of the log that
//! scripts read keep their plain digits, and settings are written as they are read.

use std::fmt;
use std::time::Duration;

const SECOND: u128 = 1_000;
const MINUTE: u128 = 60 * SECOND;
const HOUR: u128 = 60 * MINUTE;
const DAY: u128 = 24 * HOUR;

/// A whole number with its thousands apart.
///
/// ```
/// # use trading_core::telemetry::Grouped;
/// assert_eq!(Grouped(12_345_678).to_string(), "12,345,678");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grouped(pub u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() + digits.len() / 3);
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        // A width asked for is kept.
        f.pad_integral(true, "", &text)
    }
}

/// How long something took, or takes: to the tenth of a second below ten seconds, to the second below an hour, to the
/// minute below a day, to the hour beyond.
///
/// ```
/// # use std::time::Duration;
/// # use trading_core::telemetry::Lasting;
/// assert_eq!(Lasting(Duration::from_millis(1_074)).to_string(), "1.1s");
/// assert_eq!(Lasting(Duration::from_secs(123)).to_string(), "2m 3s");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lasting(pub Duration);

impl fmt::Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return f.pad("0s");
        }
        let millis = self.0.as_micros().saturating_add(500) / 1_000;
        let step = match millis {
            0 => return f.pad("<1ms"),
            1..SECOND => 1,
            SECOND..10_000 => 100,
            10_000..HOUR => SECOND,
            HOUR..DAY => MINUTE,
            DAY.. => HOUR,
        };
        // Rounded before it is written, so that no `60s` is.
        let millis = millis.saturating_add(step / 2) / step * step;
        let two = |unit: u128, name: &str, below: u128, its_name: &str| {
            let (whole, rest) = (millis / unit, millis % unit / below);
            if rest == 0 {
                format!("{whole}{name}")
            } else {
                format!("{whole}{name} {rest}{its_name}")
            }
        };
        let text = match millis {
            0..SECOND => format!("{millis}ms"),
            SECOND..MINUTE if millis.is_multiple_of(SECOND) => format!("{}s", millis / SECOND),
            SECOND..MINUTE => format!("{}.{}s", millis / SECOND, millis % SECOND / 100),
            MINUTE..HOUR => two(MINUTE, "m", SECOND, "s"),
            HOUR..DAY => two(HOUR, "h", MINUTE, "m"),
            DAY.. => two(DAY, "d", HOUR, "h"),
        };
        f.pad(&text)
    }
}

/// So many things in such a time, as `27,881 ticks/s`; with one decimal below ten a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub done: u64,
    /// In which time.
    pub over: Duration,
    /// What they are, in the plural.
    pub unit: &'static str,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.over.as_micros().max(1);
        let tenths = (u128::from(self.done) * 10_000_000 + micros / 2) / micros;
        let unit = self.unit;
        if tenths < 100 && !tenths.is_multiple_of(10) {
            return write!(f, "{}.{} {unit}/s", tenths / 10, tenths % 10);
        }
        let whole = u64::try_from((tenths + 5) / 10).unwrap_or(u64::MAX);
        write!(f, "{} {unit}/s", Grouped(whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three_and_keep_a_width() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")]
        {
            assert_eq!(Grouped(number).to_string(), text);
        }
        assert_eq!(format!("{:>9}|{:<6}|", Grouped(12_345), Grouped(1_000)), "   12,345|1,000 |");
        assert_eq!(Grouped(u64::MAX).to_string(), "18,446,744,073,709,551,615");
    }

    #[test]
    fn a_duration_has_one_unit_or_two_and_no_more_digits_than_tell_something() {
        for (micros, text) in [
            (0, "0s"),
            (1, "<1ms"),
            (499, "<1ms"),
            (16_400, "16ms"),
            (999_400, "999ms"),
            (999_600, "1s"),
            (1_074_000, "1.1s"),
            (2_000_000, "2s"),
            (9_949_000, "9.9s"),
            (9_960_000, "10s"),
            (21_400_000, "21s"),
            (59_600_000, "1m"),
            (123_000_000, "2m 3s"),
            (3_599_700_000, "1h"),
            (11_100_000_000, "3h 5m"),
            (86_399_000_000, "1d"),
            (90 * 86_400_000_000, "90d"),
            (36 * 3_600_000_000, "1d 12h"),
        ] {
            assert_eq!(Lasting(Duration::from_micros(micros)).to_string(), text, "{micros} us");
        }
        assert!(!Lasting(Duration::MAX).to_string().is_empty());
    }

    #[test]
    fn a_rate_has_its_unit_and_no_odd_decimals() {
        let rate = |done, millis| {
            Rate { done, over: Duration::from_millis(millis), unit: "ticks" }.to_string()
        };
        assert_eq!(rate(278_813, 10_000), "27,881 ticks/s");
        assert_eq!(rate(1_024, 10_000), "102 ticks/s");
        assert_eq!(rate(12, 5_000), "2.4 ticks/s");
        assert_eq!(rate(20, 10_000), "2 ticks/s");
        assert_eq!(rate(0, 1_000), "0 ticks/s");
        assert_eq!(rate(u64::MAX, 0), "18,446,744,073,709,551,615 ticks/s");
    }
}
