//! Words of others (a database, a venue, a table) on their way into a log or onto a terminal.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// How many lines a text may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// One: its line breaks and tabs are shown as `\n` and `\t`, so that it forges no line.
    One,
    /// As many as it has: its line breaks and tabs are our own.
    Many,
}

/// Shows what a terminal would obey instead of showing it, as `\u001b` and the like, which JSON reads back: control
/// characters (C0, DEL, C1), the line breaks of Unicode, and what turns the direction of writing. Every letter of every
/// alphabet stays.
///
/// # Examples
///
/// ```
/// use domain::{Lines, escaped};
///
/// assert_eq!(escaped("币安 \x1b[31m\n", Lines::One), r"币安 \u001b[31m\n");
/// assert_eq!(escaped("one\ntwo\r", Lines::Many), "one\ntwo\\r");
/// ```
#[must_use]
pub fn escaped(text: &str, lines: Lines) -> Cow<'_, str> {
    if !text.chars().any(|character| is_obeyed(character, lines)) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    if (Escaper { inner: &mut shown, lines }).write_str(text).is_err() {
        // A string takes everything.
    }
    Cow::Owned(shown)
}

/// Whether a terminal or a viewer of logs would do something at it rather than show it.
fn is_obeyed(character: char, lines: Lines) -> bool {
    match character {
        '\n' | '\t' => lines == Lines::One,
        '\u{061c}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' => true,
        other => other.is_control(),
    }
}

/// Writes on what it is given, as [`escaped`] would.
#[derive(Debug)]
pub struct Escaper<W> {
    /// Where it goes.
    pub inner: W,
    /// How many lines the text may have.
    pub lines: Lines,
}

impl<W: fmt::Write> fmt::Write for Escaper<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, character)) =
            rest.char_indices().find(|(_, character)| is_obeyed(*character, self.lines))
        {
            let (before, from) = rest.split_at(at);
            self.inner.write_str(before)?;
            match character {
                '\n' => self.inner.write_str("\\n")?,
                '\r' => self.inner.write_str("\\r")?,
                '\t' => self.inner.write_str("\\t")?,
                // All of them have four digits.
                other => write!(self.inner, "\\u{:04x}", u32::from(other))?,
            }
            rest = from.strip_prefix(character).unwrap_or_default();
        }
        self.inner.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown_and_letters_stay() {
        for (text, shown) in [
            ("plain", "plain"),
            ("Ünïcödé 币安 Ελλάδα עברית 👩\u{200d}🚀", "Ünïcödé 币安 Ελλάδα עברית 👩\u{200d}🚀"),
            ("\x1b[2J\x07\x7f\u{9b}31m", r"\u001b[2J\u0007\u007f\u009b31m"),
            ("a\r\nb\tc\0", r"a\r\nb\tc\u0000"),
            ("a\u{2028}b\u{2029}c\u{85}", r"a\u2028b\u2029c\u0085"),
            ("\u{202e}evil\u{2066}\u{200f}", r"\u202eevil\u2066\u200f"),
        ] {
            assert_eq!(escaped(text, Lines::One), shown);
        }
    }

    proptest! {
        #[test]
        fn prop_what_is_shown_holds_nothing_that_is_obeyed(text in any::<String>()) {
            for lines in [Lines::One, Lines::Many] {
                let shown = escaped(&text, lines).into_owned();
                prop_assert!(!shown.chars().any(|it| is_obeyed(it, lines)));
                prop_assert_eq!(escaped(&shown, lines), shown.as_str());
            }
        }

        #[test]
        fn prop_json_says_the_same_before_and_after(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            let read: String = serde_json::from_str(&escaped(&json, Lines::Many)).unwrap();
            prop_assert_eq!(read, text);
        }
    }
}
