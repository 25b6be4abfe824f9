//! Frames on their way to one client: written into one buffer, sent together.
//!
//! A frame is a range of the buffer, so that a trade costs its digits and no allocation. The buffer is bounded by
//! whoever fills it: a session writes at most one turn's trades before the socket has taken the last ones.

use std::ops::Range;

use bytes::Bytes;
use rust_decimal::Decimal;

use domain::Timestamp;

/// One thing to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// A text message: this range of the buffer.
    Text(Range<usize>),
    /// A WebSocket ping with this payload.
    Ping(String),
    /// A WebSocket close; nothing is sent after it.
    Close(u16, &'static str),
}

/// The frames that one client is to be sent next, in order.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    text: String,
    frames: Vec<Frame>,
}

impl Outbox {
    /// The frame that is being written. It is sent once [`Outbox::end`] was called.
    pub(super) const fn text(&mut self) -> &mut String {
        &mut self.text
    }

    /// Ends the frame that was written.
    pub(super) fn end(&mut self) {
        let start = self.written();
        self.frames.push(Frame::Text(start..self.text.len()));
    }

    /// Adds a whole text frame.
    pub(super) fn send(&mut self, text: &str) {
        self.text.push_str(text);
        self.end();
    }

    /// Adds a ping.
    pub(super) fn ping(&mut self, payload: String) {
        self.frames.push(Frame::Ping(payload));
    }

    /// Adds a close.
    pub(super) fn close(&mut self, code: u16, reason: &'static str) {
        self.frames.push(Frame::Close(code, reason));
    }

    /// Cuts the last text frame in half, which no parser of JSON will take.
    pub(super) fn garble_last(&mut self) {
        if let Some(Frame::Text(range)) = self.frames.last_mut() {
            let mut half = range.start + range.len() / 2;
            while !self.text.is_char_boundary(half) {
                half -= 1;
            }
            range.end = half;
            self.text.truncate(half);
        }
    }

    /// Writes the last text frame again, with `to` in every place of `from`.
    pub(super) fn replace_in_last(&mut self, from: &str, to: &str) {
        if let Some(Frame::Text(range)) = self.frames.last_mut() {
            let replaced = self.text.get(range.clone()).unwrap_or_default().replace(from, to);
            self.text.truncate(range.start);
            self.text.push_str(&replaced);
            range.end = self.text.len();
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether the connection ends with these frames.
    pub(super) fn closes(&self) -> bool {
        matches!(self.frames.last(), Some(Frame::Close(..)))
    }

    /// Takes all frames, and the buffer that their ranges point into.
    pub(super) fn take(&mut self) -> (Bytes, std::vec::Drain<'_, Frame>) {
        // The next turn is likely to be as large as this one.
        let next = String::with_capacity(self.text.len());
        (std::mem::replace(&mut self.text, next).into(), self.frames.drain(..))
    }

    fn written(&self) -> usize {
        self.frames
            .iter()
            .rev()
            .find_map(|frame| match frame {
                Frame::Text(range) => Some(range.end),
                Frame::Ping(_) | Frame::Close(..) => None,
            })
            .unwrap_or(0)
    }

    /// The frames as a test reads them.
    #[cfg(test)]
    pub(super) fn drain_lines(&mut self) -> Vec<String> {
        let (text, frames) = self.take();
        frames
            .map(|frame| match frame {
                Frame::Text(range) => String::from_utf8(text[range].to_vec()).unwrap(),
                Frame::Ping(payload) => format!("<ping {payload}>"),
                Frame::Close(code, reason) => format!("<close {code} {reason}>"),
            })
            .collect()
    }
}

/// Appends a whole number.
pub(super) fn number(text: &mut String, value: u64) {
    padded(text, value, 1);
}

/// Appends a whole number with at least `width` digits.
pub(super) fn padded(text: &mut String, mut value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        if value == 0 && used >= width {
            break;
        }
        // Below ten: it always fits.
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        used += 1;
    }
    let tail = digits.get(digits.len() - used..).unwrap_or_default();
    text.push_str(str::from_utf8(tail).unwrap_or_default());
}

/// Appends a decimal with all its digits, trailing zeros included. Not negative: prices and quantities are not.
pub(super) fn decimal(text: &mut String, value: Decimal) {
    let steps = u64::try_from(value.mantissa()).unwrap_or(0);
    let scale = value.scale();
    if scale == 0 {
        number(text, steps);
        return;
    }
    let one = 10_u64.saturating_pow(scale);
    number(text, steps / one);
    text.push('.');
    padded(text, steps % one, usize::try_from(scale).unwrap_or(0));
}

/// Appends whole milliseconds since 1970.
pub(super) fn millis(text: &mut String, at: Timestamp) {
    number(text, at.as_millis().cast_unsigned());
}

/// Appends an RFC 3339 time with microseconds, as [`Timestamp`] prints itself, without its cost.
pub(super) fn rfc3339(text: &mut String, at: Timestamp) {
    let micros = at.as_micros().cast_unsigned();
    let (days, of_day) = (micros / 86_400_000_000, micros % 86_400_000_000);
    // Days to a date by 400-year eras that begin in March (Howard Hinnant's algorithm).
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    padded(text, year_of_era + era * 400 + u64::from(month <= 2), 4);
    for (mark, part) in [('-', month), ('-', day), ('T', of_day / 3_600_000_000)] {
        text.push(mark);
        padded(text, part, 2);
    }
    for part in [of_day / 60_000_000 % 60, of_day / 1_000_000 % 60] {
        text.push(':');
        padded(text, part, 2);
    }
    text.push('.');
    padded(text, of_day % 1_000_000, 6);
    text.push('Z');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn prop_numbers_are_written_as_the_types_print_themselves(
            whole: u64, steps in 0..i64::MAX, scale in 0..12_u32, micros in 0..253_402_300_799_999_999_i64,
        ) {
            let mut text = String::new();
            number(&mut text, whole);
            prop_assert_eq!(&text, &whole.to_string());
            text.clear();
            decimal(&mut text, Decimal::new(steps, scale));
            prop_assert_eq!(&text, &Decimal::new(steps, scale).to_string());
            text.clear();
            let at = Timestamp::from_micros(micros).unwrap();
            rfc3339(&mut text, at);
            prop_assert_eq!(&text, &at.to_string());
        }
    }

    #[test]
    fn frames_come_out_as_they_were_written() {
        let mut out = Outbox::default();
        out.send("one");
        out.ping("7".to_owned());
        out.text().push_str("second");
        out.end();
        out.garble_last();
        out.send("third");
        out.close(1008, "enough");
        assert!(out.closes());
        assert_eq!(out.drain_lines(), ["one", "<ping 7>", "sec", "third", "<close 1008 enough>"]);
        assert!(out.is_empty());
    }
}
