//! Text in tones, measured as a terminal shows it, and folded by words.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr as _;

use super::screen::Tone;
use crate::domain::{Lines, escaped};

/// One line of text. What others wrote in it moves no cursor and forges no line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    pieces: Vec<(Tone, String)>,
}

impl Text {
    /// A text in one tone.
    #[must_use]
    pub fn of(tone: Tone, text: impl AsRef<str>) -> Self {
        Self::default().and(tone, text)
    }

    /// This text, and then one in a tone of its own.
    #[must_use]
    pub fn and(mut self, tone: Tone, text: impl AsRef<str>) -> Self {
        let text = escaped(text.as_ref(), Lines::One);
        if !text.is_empty() {
            self.pieces.push((tone, text.into_owned()));
        }
        self
    }

    /// This text, and then another one.
    #[must_use]
    pub fn then(mut self, other: Self) -> Self {
        self.pieces.extend(other.pieces);
        self
    }

    /// The columns that it takes: two for each wide letter.
    #[must_use]
    pub fn width(&self) -> usize {
        self.pieces.iter().map(|(_, text)| text.width()).sum()
    }

    /// Writes it.
    pub(super) fn write(&self, colours: bool, out: &mut String) {
        for (tone, text) in &self.pieces {
            let written = tone.paint(colours, out, |out| out.write_str(text));
            debug_assert!(written.is_ok(), "a string takes everything");
        }
    }

    /// Folds it by words into lines of at most `width` columns, of which all but the first have `hang` blanks left for
    /// them: they are not part of the answer. A word that is longer than a line has a line of its own, which the terminal
    /// wraps, so that it can be copied; what is in backticks is one word.
    pub(super) fn folded(&self, width: usize, hang: usize) -> Vec<Self> {
        let mut lines = Vec::new();
        let mut line = Self::default();
        let mut used = 0;
        for word in self.words() {
            let room = if lines.is_empty() { width } else { width.saturating_sub(hang) };
            if used > 0 && used + word.blanks + word.width > room {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            let is_first = lines.is_empty() && used == 0;
            let blanks = if used > 0 || is_first { word.blanks } else { 0 };
            if blanks > 0 {
                // Between two words of one tone the blank has it too.
                let (before, after) = (line.pieces.last(), word.pieces.first());
                let both = before.zip(after).filter(|(before, after)| before.0 == after.0);
                let tone = both.map_or(Tone::Plain, |(tone, _)| tone.0);
                line.append(tone, &" ".repeat(blanks));
            }
            for (tone, text) in &word.pieces {
                line.append(*tone, text);
            }
            used += blanks + word.width;
        }
        lines.push(line);
        lines
    }

    fn append(&mut self, tone: Tone, text: &str) {
        match self.pieces.last_mut() {
            Some((last, before)) if *last == tone => before.push_str(text),
            _ => self.pieces.push((tone, text.to_owned())),
        }
    }

    /// What is in backticks is one word: a command, which is copied whole or not at all.
    fn words(&self) -> Vec<Word> {
        let mut words: Vec<Word> = Vec::new();
        let mut word = Word::default();
        for (tone, text) in &self.pieces {
            for part in text.split_inclusive(' ') {
                let letters = part.strip_suffix(' ').unwrap_or(part);
                word.push(*tone, letters);
                if letters.len() == part.len() {
                    continue;
                }
                if word.width == 0 {
                    word.blanks += 1;
                } else {
                    words.push(std::mem::take(&mut word));
                    word.blanks = 1;
                }
            }
        }
        if word.width > 0 {
            words.push(word);
        }
        joined(words)
    }
}

/// Letters without a blank, and how many blanks precede them.
#[derive(Debug, Default)]
struct Word {
    blanks: usize,
    pieces: Vec<(Tone, String)>,
    width: usize,
}

impl Word {
    fn push(&mut self, tone: Tone, letters: &str) {
        if !letters.is_empty() {
            self.width += letters.width();
            self.pieces.push((tone, letters.to_owned()));
        }
    }

    /// Whether a backtick is open at its end.
    fn opens(&self) -> bool {
        let ticks: usize = self.pieces.iter().map(|(_, text)| text.matches('`').count()).sum();
        !ticks.is_multiple_of(2)
    }
}

/// Joins the words between two backticks. Of a backtick that nothing closes nothing is known.
fn joined(words: Vec<Word>) -> Vec<Word> {
    let mut all = Vec::with_capacity(words.len());
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        if !word.opens() {
            all.push(word);
            continue;
        }
        let mut quoted = vec![word];
        let mut is_closed = false;
        for next in words.by_ref() {
            is_closed = next.opens();
            quoted.push(next);
            if is_closed {
                break;
            }
        }
        if !is_closed {
            all.append(&mut quoted);
            continue;
        }
        all.extend(quoted.into_iter().reduce(|mut one, next| {
            one.push(Tone::Plain, &" ".repeat(next.blanks));
            next.pieces.iter().for_each(|(tone, text)| one.push(*tone, text));
            one
        }));
    }
    all
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::of(Tone::Plain, text)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::of(Tone::Plain, text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &Text) -> String {
        let mut out = String::new();
        text.write(false, &mut out);
        out
    }

    fn folded(text: &str, width: usize, hang: usize) -> Vec<String> {
        Text::from(text).folded(width, hang).iter().map(shown).collect()
    }

    #[test]
    fn a_text_is_folded_between_words_and_never_within_one() {
        assert_eq!(folded("one two three", 7, 2), ["one two", "three"]);
        assert_eq!(folded("one two three", 80, 2), ["one two three"]);
        assert_eq!(folded("  ok    settings  valid", 80, 2), ["  ok    settings  valid"]);
        assert_eq!(
            folded("at /a/very/long/path there", 10, 2),
            ["at", "/a/very/long/path", "there"]
        );
        assert_eq!(folded("", 10, 2), [""]);
    }

    #[test]
    fn a_command_in_backticks_is_one_word_however_long_it_is() {
        let text = "do: run `trading-core spool drain`, or wait";
        assert_eq!(folded(text, 32, 4), ["do: run", "`trading-core spool drain`,", "or wait"]);
        let narrow = folded(text, 20, 4);
        assert_eq!(narrow, ["do: run", "`trading-core spool drain`,", "or wait"]);
        assert_eq!(folded("an odd ` tick alone here", 12, 0), ["an odd `", "tick alone", "here"]);
    }

    #[test]
    fn wide_letters_take_two_columns() {
        let text = Text::from("币安人生USDT");
        assert_eq!(text.width(), 12);
        assert_eq!(folded("币安 人生 USDT", 9, 0), ["币安 人生", "USDT"]);
    }

    #[test]
    fn what_others_wrote_stays_in_its_line_and_in_its_tone() {
        let text = Text::of(Tone::Bad, "a\nb").and(Tone::Plain, " \x1b[2J c");
        let mut out = String::new();
        text.write(true, &mut out);
        assert_eq!(out, "\x1b[31ma\\nb\x1b[0m \\u001b[2J c");
        let folded = Text::of(Tone::Bad, "NOT COMPLETE").and(Tone::Plain, ": 12").folded(80, 2);
        let mut out = String::new();
        folded.iter().for_each(|line| line.write(true, &mut out));
        assert_eq!(out, "\x1b[31mNOT COMPLETE\x1b[0m: 12");
    }

    proptest! {
        #[test]
        fn prop_folding_keeps_every_word_and_the_width(
            words in prop::collection::vec("[a-z币`]{1,9}", 0..30),
            width in 1_usize..50,
            hang in 0_usize..60,
        ) {
            let text = words.join(" ");
            let lines = folded(&text, width, hang);
            let kept: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
            prop_assert_eq!(kept, words.iter().map(String::as_str).collect::<Vec<_>>());
            for (number, line) in lines.iter().enumerate() {
                let room = if number == 0 { width } else { width.saturating_sub(hang) };
                let is_one = !line.contains(' ') || line.matches('`').count() >= 2;
                prop_assert!(line.width() <= room || is_one, "{line:?} of {room}");
            }
        }
    }
}
