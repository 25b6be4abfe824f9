//! A result for people: lines and tables that fit the place where they are shown.
//!
//! Promised: in a pipe or a file each record is one line, whatever its length, so that `grep` finds it whole; on a
//! terminal lines are folded by words at its width, and continuation lines are indented. Both have the same words.

use std::fmt;

use super::screen::Screen;
use super::table::Table;
use super::text::Text;

/// Blanks before what goes on of a line that says nothing else.
const HANG: usize = 2;
/// Columns of a name at the begin of a line, with its blanks.
const NAME_MAX: usize = 16;
/// A line that is indented this far is a command to be copied.
const COMMAND_INDENT: usize = 4;
/// What an entry that is a command to be copied begins with.
const COMMANDS: [&str; 2] = ["psql ", "PGPASSFILE="];

/// Lines and tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    blocks: Vec<Block>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Block {
    Line { text: Text, hang: usize },
    Whole(Text),
    Table(Table),
}

impl Page {
    /// Adds a line.
    pub fn line(&mut self, text: impl Into<Text>) {
        self.hanging(HANG, text);
    }

    /// Adds a line whose continuation lines begin with `hang` blanks.
    pub fn hanging(&mut self, hang: usize, text: impl Into<Text>) {
        self.blocks.push(Block::Line { text: text.into(), hang });
    }

    /// Adds a line that is to be copied. It is never folded: where it is longer than a terminal is wide, the terminal wraps
    /// it, and knows when it is copied that it is one line.
    pub fn whole(&mut self, text: impl Into<Text>) {
        self.blocks.push(Block::Whole(text.into()));
    }

    /// Adds a line that begins with a name, padded to `width` columns and two blanks.
    pub fn entry(&mut self, name: &str, width: usize, text: impl Into<Text>) {
        let name = Text::from(name);
        let blanks = " ".repeat(width.saturating_sub(name.width()) + 2);
        let name = name.and(super::screen::Tone::Plain, blanks);
        self.hanging(width + 2, name.then(text.into()));
    }

    /// Adds each line of a text. One that begins with a name and two blanks or more goes on behind the name, any other a
    /// little further in than it begins. Commands stay whole: what begins four columns in or more, and an entry such as
    /// `psql      psql 'postgres://…'`.
    pub fn lines(&mut self, text: &str) {
        for line in text.lines() {
            let words = line.trim_start_matches(' ');
            let indent = line.len() - words.len();
            let named = words.find("  ").map(|name| {
                let rest = words.get(name..).unwrap_or_default();
                name + rest.len() - rest.trim_start_matches(' ').len()
            });
            let named = named.filter(|width| *width <= NAME_MAX && indent == 0);
            let entry = named.and_then(|width| line.get(width..)).unwrap_or_default();
            if Self::is_command(indent) || COMMANDS.iter().any(|it| entry.starts_with(it)) {
                self.whole(line);
                continue;
            }
            self.hanging(indent + named.unwrap_or(HANG), line);
        }
    }

    /// Whether a line of our own text that is indented so far is a command to be copied.
    #[must_use]
    pub const fn is_command(indent: usize) -> bool {
        indent >= COMMAND_INDENT
    }

    /// Adds a table.
    pub fn table(&mut self, table: Table) {
        self.blocks.push(Block::Table(table));
    }

    /// Its text for this place; each line ends with a line break.
    #[must_use]
    pub fn on(&self, screen: Screen) -> String {
        let mut out = String::new();
        for block in &self.blocks {
            match block {
                Block::Table(table) => table.write(screen, &mut out),
                Block::Line { text, hang } => write_line(text, *hang, screen, &mut out),
                Block::Whole(text) => {
                    text.write(screen.colours, &mut out);
                    out.push('\n');
                }
            }
        }
        out
    }
}

fn write_line(text: &Text, hang: usize, screen: Screen, out: &mut String) {
    let Some(width) = screen.width else {
        text.write(screen.colours, out);
        out.push('\n');
        return;
    };
    // Where half of a narrow terminal would be left empty, no column is kept.
    let hang = if hang > width / 2 { HANG } else { hang };
    for (number, line) in text.folded(width, hang).into_iter().enumerate() {
        let hang = if number == 0 { 0 } else { hang };
        Text::from(" ".repeat(hang)).then(line).write(screen.colours, out);
        out.push('\n');
    }
}

/// As it is in a pipe, without a line break at the end.
impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.on(Screen::default()).trim_end_matches('\n'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Side, Tone};

    fn page() -> Page {
        let mut page = Page::default();
        page.hanging(
            16,
            Text::of(Tone::Bad, "FAIL")
                .and(Tone::Plain, "  database  postgres://recorder@localhost/ticks refuses a right that the user needs"),
        );
        page.hanging(
            20,
            "                do: GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO recorder",
        );
        page.entry(
            "psql",
            9,
            "`psql 'host=/run/user/0 port=5433'`, while it runs and nobody stops it",
        );
        let mut table = Table::new(&[("exchange", Side::Left), ("rows", Side::Right)]);
        table.row(["币安".into(), "1,000".into()]);
        page.table(table);
        page.lines("data      /var/lib/trading-core/postgres (46.2 MiB), made by PostgreSQL 15");
        page.lines(
            "2 problems:\n  one that is long enough to be folded on a narrow terminal\n\nthe end",
        );
        page
    }

    fn at(width: usize) -> String {
        page().on(Screen { width: Some(width), ..Screen::default() })
    }

    #[test]
    fn a_page_is_folded_at_the_width_of_the_terminal() {
        insta::assert_snapshot!("page_40", at(40));
        insta::assert_snapshot!("page_80", at(80));
        insta::assert_snapshot!("page_120", at(120));
    }

    #[test]
    fn a_page_in_a_pipe_is_one_line_a_record() {
        insta::assert_snapshot!("page_piped", page().to_string());
    }

    #[test]
    fn a_command_is_whole_on_a_terminal_that_is_too_narrow_for_it() {
        let commands = [
            "    mkdir /var/lib/simulated && mv /var/lib/postgres /var/lib/simulated/",
            "psql      psql 'postgres://trading_core@/db?host=%2Frun%2Fuser&port=5433'",
            "tcp       PGPASSFILE='/var/lib/pgpass' psql -h 127.0.0.1 -p 5433 -U trading_core db",
        ];
        let mut page = Page::default();
        page.lines(&commands.join("\n"));
        page.line("or `trading-core live --simulate --database-url embedded`, if that is meant");
        let text = page.on(Screen { width: Some(40), ..Screen::default() });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.get(..3), Some(&commands[..]), "{text}");
        let quoted = "  `trading-core live --simulate --database-url embedded`,";
        assert_eq!(lines.get(3..), Some(&["or", quoted, "  if that is meant"][..]), "{text}");
    }

    #[test]
    fn any_width_shows_a_page() {
        for width in 0..50 {
            let text = at(width);
            assert!(text.contains("GRANT") && text.contains("recorder"), "{width}:\n{text}");
        }
    }

    #[test]
    fn colours_change_nothing_but_the_colour() {
        let screen = Screen { width: Some(60), colours: true, moves: true };
        let mut plain = String::new();
        for (number, part) in page().on(screen).split('\x1b').enumerate() {
            let rest = if number == 0 { part } else { part.split_once('m').unwrap().1 };
            plain.push_str(rest);
        }
        assert_eq!(plain, at(60));
        assert!(page().on(screen).starts_with("\x1b[31mFAIL\x1b[0m  database"));
    }
}
