//! Where text is shown: whether that is a terminal, how wide it is, and whether it takes colours. All colours are here.
//!
//! Promised: a colour never says what no word says; what goes into a pipe or a file has none, and keeps one record a line.
//! `NO_COLOR` and `TERM=dumb` turn colours off, `CLICOLOR_FORCE` turns them on where there is no terminal either.

use std::fmt;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::sync::OnceLock;

/// The width of a terminal that does not say one.
const WIDTH_USUAL: usize = 80;
/// Narrower than this nothing is laid out; such a terminal wraps by itself.
const WIDTH_LEAST: usize = 20;

/// A place for text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Screen {
    /// Columns of the terminal; `None`: there is none, and lines may have any length.
    pub width: Option<usize>,
    /// Whether colours are shown.
    pub colours: bool,
    /// Whether the cursor can be moved, as a progress bar does.
    pub moves: bool,
}

/// What the environment says of colours and of the terminal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes {
    /// `NO_COLOR`: never colours.
    pub no_colours: bool,
    /// `CLICOLOR_FORCE`: colours also where there is no terminal.
    pub colours: bool,
    /// `TERM=dumb`: a terminal that only takes text.
    pub is_dumb: bool,
}

impl Wishes {
    /// Reads them from the environment's variables.
    #[must_use]
    pub fn read<'a>(variable: impl Fn(&str) -> Option<&'a str>) -> Self {
        Self {
            no_colours: variable("NO_COLOR").is_some_and(|value| !value.is_empty()),
            colours: variable("CLICOLOR_FORCE").is_some_and(|it| !it.is_empty() && it != "0"),
            is_dumb: variable("TERM").is_some_and(|term| term == "dumb"),
        }
    }
}

/// The wishes of this process; as if there were none before they are known.
static WISHES: OnceLock<Wishes> = OnceLock::new();

/// From now on screens are as the user wants them. The first call counts.
pub(super) fn heed(wishes: Wishes) {
    WISHES.get_or_init(|| wishes);
}

/// What a piece of text is about. In colour, where colours are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing in particular.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Somebody should know this.
    Notice,
    /// It fails, or something is lost.
    Bad,
    /// What can be read over.
    Aside,
    /// The head of a table.
    Head,
    /// What helps to find a fault.
    Detail,
}

impl Tone {
    /// The parameters of the terminal's sequence; `None`: as it is.
    const fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Notice => Some("33"),
            Self::Bad => Some("31"),
            Self::Aside => Some("2"),
            Self::Head => Some("1"),
            Self::Detail => Some("34"),
        }
    }

    /// Writes what `write` writes in this tone.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn paint<W: fmt::Write>(
        self,
        colours: bool,
        writer: &mut W,
        write: impl FnOnce(&mut W) -> fmt::Result,
    ) -> fmt::Result {
        match self.code().filter(|_| colours) {
            None => write(writer),
            Some(code) => {
                write!(writer, "\x1b[{code}m")?;
                write(writer)?;
                writer.write_str("\x1b[0m")
            }
        }
    }
}

impl Screen {
    /// Standard output.
    #[must_use]
    pub fn of_output() -> Self {
        Self::of(&std::io::stdout())
    }

    /// Standard error.
    #[must_use]
    pub fn of_errors() -> Self {
        Self::of(&std::io::stderr())
    }

    fn of(stream: &(impl IsTerminal + AsFd)) -> Self {
        let terminal = stream.is_terminal().then(|| {
            terminal_size::terminal_size_of(stream).map_or(0, |(width, _)| usize::from(width.0))
        });
        Self::judged(terminal, WISHES.get().copied().unwrap_or_default())
    }

    /// `terminal`: the width that it says, 0 where it says none; `None`: it is no terminal.
    fn judged(terminal: Option<usize>, wishes: Wishes) -> Self {
        let width = terminal.map(|width| match width {
            0 => WIDTH_USUAL,
            width => width.max(WIDTH_LEAST),
        });
        let moves = width.is_some() && !wishes.is_dumb;
        Self { width, colours: !wishes.no_colours && (wishes.colours || moves), moves }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(terminal: Option<usize>, variables: &[(&str, &str)]) -> (Option<usize>, bool, bool) {
        let value =
            |name: &str| variables.iter().find(|(it, _)| *it == name).map(|(_, value)| *value);
        let Screen { width, colours, moves } = Screen::judged(terminal, Wishes::read(value));
        (width, colours, moves)
    }

    #[test]
    fn colours_are_shown_on_a_terminal_unless_somebody_says_otherwise() {
        assert_eq!(judged(Some(100), &[]), (Some(100), true, true));
        assert_eq!(judged(Some(100), &[("NO_COLOR", "1")]), (Some(100), false, true));
        assert_eq!(judged(Some(100), &[("NO_COLOR", "")]), (Some(100), true, true));
        assert_eq!(judged(Some(100), &[("TERM", "dumb")]), (Some(100), false, false));
        assert_eq!(judged(None, &[]), (None, false, false));
        assert_eq!(judged(None, &[("CLICOLOR_FORCE", "1")]), (None, true, false));
        assert_eq!(judged(None, &[("CLICOLOR_FORCE", "0")]), (None, false, false));
        let both = [("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")];
        assert_eq!(judged(Some(80), &both), (Some(80), false, true));
    }

    #[test]
    fn a_terminal_that_says_no_width_or_a_silly_one_gets_a_usable_one() {
        assert_eq!(judged(Some(0), &[]).0, Some(80));
        assert_eq!(judged(Some(3), &[]).0, Some(20));
    }

    #[test]
    fn a_tone_is_a_sequence_only_where_colours_are_shown() {
        let text = |colours| {
            let mut text = String::new();
            Tone::Bad.paint(colours, &mut text, |it| fmt::Write::write_str(it, "FAIL")).unwrap();
            text
        };
        assert_eq!(text(true), "\x1b[31mFAIL\x1b[0m");
        assert_eq!(text(false), "FAIL");
    }
}
