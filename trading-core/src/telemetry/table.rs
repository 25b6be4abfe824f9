//! A table: as wide as it is where lines may have any length, and folded where they may not.

use super::screen::{Screen, Tone};
use super::text::Text;

/// Columns that a last column of words is folded to at least, before it goes into a line of its own.
const WORDS_LEAST: usize = 24;
/// Blanks between columns, and before what goes on in a further line.
const GAP: usize = 2;

/// How the cells of a column are aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Names, to the left.
    Left,
    /// Numbers, to the right.
    Right,
    /// Words, to the left, folded where there is little room. For the last column.
    Words,
}

/// Rows under heads.
///
/// Where a row is wider than the terminal, the columns that do not fit go to a second line under it, and so do their
/// heads: nothing is left out. So the columns that are read first come first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    heads: Vec<Text>,
    sides: Vec<Side>,
    rows: Vec<Vec<Text>>,
}

impl Table {
    /// A table without rows. Without heads where all of them are empty.
    #[must_use]
    pub fn new(columns: &[(&str, Side)]) -> Self {
        Self {
            heads: columns.iter().map(|(head, _)| Text::of(Tone::Head, head)).collect(),
            sides: columns.iter().map(|(_, side)| *side).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row: a cell for each column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Text>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether it has no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn write(&self, screen: Screen, out: &mut String) {
        let is_headed = self.heads.iter().any(|head| head.width() > 0);
        let rows = || is_headed.then_some(&self.heads).into_iter().chain(&self.rows);
        let mut widths = vec![0; self.sides.len()];
        for row in rows() {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.width().max(*width);
            }
        }
        let lines = self.lines(&mut widths, screen.width);
        for row in rows() {
            for (number, columns) in lines.iter().enumerate() {
                self.write_line(row, columns, &widths, number > 0, screen.colours, out);
            }
        }
    }

    /// Which columns are in which line of a row. The width of a column of words becomes what is left for it.
    fn lines(&self, widths: &mut [usize], room: Option<usize>) -> Vec<Vec<usize>> {
        let mut lines = vec![Vec::new()];
        let mut used = 0;
        for (column, (width, side)) in widths.iter_mut().zip(&self.sides).enumerate() {
            let least = if *side == Side::Words { (*width).min(WORDS_LEAST) } else { *width };
            let gap = if used == 0 { 0 } else { GAP };
            let is_full = used > 0 && room.is_some_and(|room| used + gap + least > room);
            let at = if is_full { GAP } else { used + gap };
            if is_full {
                lines.push(Vec::new());
            }
            if let (Side::Words, Some(room)) = (side, room) {
                *width = (*width).min(room.saturating_sub(at).max(1));
            }
            used = at + *width;
            if let Some(line) = lines.last_mut() {
                line.push(column);
            }
        }
        lines
    }

    fn write_line(
        &self,
        row: &[Text],
        columns: &[usize],
        widths: &[usize],
        is_further: bool,
        colours: bool,
        out: &mut String,
    ) {
        let mut line = Text::default();
        let mut further: Vec<Text> = Vec::new();
        let mut at = if is_further { GAP } else { 0 };
        let mut blanks = at;
        for (number, column) in columns.iter().enumerate() {
            let (Some(cell), Some(width), Some(side)) =
                (row.get(*column), widths.get(*column), self.sides.get(*column))
            else {
                continue;
            };
            if number > 0 {
                blanks += GAP;
                at += GAP;
            }
            let mut parts = match side {
                Side::Words => cell.folded(*width, 0),
                Side::Left | Side::Right => vec![cell.clone()],
            };
            further = parts.split_off(1);
            let cell = parts.pop().unwrap_or_default();
            let free = width.saturating_sub(cell.width());
            if *side == Side::Right {
                blanks += free;
            }
            if cell.width() > 0 {
                line = line.and(Tone::Plain, " ".repeat(blanks)).then(cell);
                blanks = 0;
            }
            if *side != Side::Right {
                blanks += free;
            }
            if number + 1 < columns.len() {
                at += width;
            }
        }
        // A further line of a row says something, or is left out.
        if line.width() > 0 || !is_further {
            line.write(colours, out);
            out.push('\n');
        }
        for part in further {
            Text::from(" ".repeat(at)).then(part).write(colours, out);
            out.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[
            ("exchange", Side::Left),
            ("symbol", Side::Left),
            ("rows", Side::Right),
            ("status", Side::Left),
            ("first id", Side::Right),
            ("from", Side::Left),
            ("note", Side::Words),
        ]);
        for (symbol, rows, status, note) in [
            ("BTCUSDT", "12,345", "complete", ""),
            ("币安人生USDT", "7", "NOT COMPLETE", "five words that say why"),
        ] {
            let tone = if note.is_empty() { Tone::Good } else { Tone::Bad };
            table.row([
                "binance".into(),
                symbol.into(),
                rows.into(),
                Text::of(tone, status),
                "2180147194".into(),
                "2026-11-21T09:04:52".into(),
                note.into(),
            ]);
        }
        table
    }

    fn shown(width: Option<usize>) -> String {
        let mut out = String::new();
        table().write(Screen { width, ..Screen::default() }, &mut out);
        out
    }

    #[test]
    fn a_table_is_as_wide_as_it_is_where_lines_may_have_any_length() {
        insta::assert_snapshot!("table_piped", shown(None));
        insta::assert_snapshot!("table_120", shown(Some(120)));
    }

    #[test]
    fn a_table_is_folded_where_it_does_not_fit_and_nothing_is_left_out() {
        insta::assert_snapshot!("table_80", shown(Some(80)));
        insta::assert_snapshot!("table_40", shown(Some(40)));
        for width in [1, 2, 20, 33, 60] {
            let text = shown(Some(width));
            for word in ["币安人生USDT", "12,345", "2180147194", "09:04:52", "words", "why"] {
                assert!(text.contains(word), "{word} at {width}:\n{text}");
            }
        }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_where_its_cells_are_not() {
        for width in 24..140 {
            for line in shown(Some(width)).lines() {
                assert!(Text::from(line).width() <= width, "{line:?} at {width}");
            }
        }
    }

    #[test]
    fn a_row_with_too_few_cells_and_a_table_without_heads_are_shown() {
        let mut table = Table::new(&[("", Side::Left), ("", Side::Words)]);
        table.row(["only".into()]);
        table.row(["two".into(), "cells".into()]);
        let mut out = String::new();
        table.write(Screen::default(), &mut out);
        assert_eq!(out, "only\ntwo   cells\n");
    }
}
