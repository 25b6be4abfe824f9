//! A page of Markdown, taken apart as far as the checks need it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A page.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) path: PathBuf,
    lines: Vec<String>,
}

/// A fenced block.
#[derive(Debug)]
pub(super) struct Block {
    /// What stands behind the fence.
    pub(super) language: String,
    /// The number of the line with the opening fence; the first line of the page is 1.
    pub(super) line: usize,
    /// What is inside, each with its number.
    pub(super) lines: Vec<(usize, String)>,
}

impl Block {
    pub(super) fn text(&self) -> String {
        self.lines.iter().map(|(_, line)| format!("{line}\n")).collect()
    }
}

impl Page {
    pub(super) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        Self { path: path.to_owned(), lines: text.lines().map(str::to_owned).collect() }
    }

    /// `README.md:12`, as editors take it.
    pub(super) fn at(&self, line: usize) -> String {
        let names: Vec<_> =
            self.path.iter().rev().take(2).filter_map(|part| part.to_str()).collect();
        match names.as_slice() {
            [file, "docs"] => format!("docs/{file}:{line}"),
            [file, ..] => format!("{file}:{line}"),
            [] => format!(":{line}"),
        }
    }

    pub(super) fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut is_inside = false;
        for (number, line) in (1..).zip(&self.lines) {
            let fence = line.trim_start().strip_prefix("```");
            match (fence, is_inside) {
                (Some(_), true) => is_inside = false,
                (Some(language), false) => {
                    is_inside = true;
                    let (language, lines) = (language.trim().to_owned(), Vec::new());
                    blocks.push(Block { language, line: number, lines });
                }
                (None, true) => {
                    blocks.last_mut().unwrap().lines.push((number, line.clone()));
                }
                (None, false) => {}
            }
        }
        blocks
    }

    /// Lines outside of the fenced blocks.
    pub(super) fn prose(&self) -> Vec<(usize, &str)> {
        let mut is_inside = false;
        let mut prose = Vec::new();
        for (number, line) in (1..).zip(&self.lines) {
            if line.trim_start().starts_with("```") {
                is_inside = !is_inside;
            } else if !is_inside {
                prose.push((number, line.as_str()));
            }
        }
        prose
    }

    /// What stands between backquotes in the prose, each with its line.
    pub(super) fn spans(&self) -> Vec<(usize, String)> {
        let mut spans = Vec::new();
        for (number, line) in self.prose() {
            // Every second piece is inside.
            let inside = line.split('`').skip(1).step_by(2);
            spans.extend(inside.map(|span| (number, span.to_owned())));
        }
        spans
    }

    /// The targets of the links in the prose.
    pub(super) fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (number, line) in self.prose() {
            for after in line.split("](").skip(1) {
                let target = after.split(')').next().unwrap_or_default();
                links.push((number, target.to_owned()));
            }
        }
        links
    }

    /// The names by which links find the headings, as code hosts make them: lower case, no punctuation, hyphens for spaces.
    pub(super) fn anchors(&self) -> BTreeSet<String> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut anchors = BTreeSet::new();
        for (_, line) in self.prose() {
            let Some(heading) = line.strip_prefix('#').map(|rest| rest.trim_start_matches('#'))
            else {
                continue;
            };
            let kept = |letter: char| letter.is_alphanumeric() || "-_ ".contains(letter);
            let name: String =
                heading.trim().to_lowercase().chars().filter(|it| kept(*it)).collect();
            let name = name.replace(' ', "-");
            let before = seen.entry(name.clone()).or_default();
            anchors.insert(if *before == 0 { name } else { format!("{name}-{before}") });
            *before += 1;
        }
        anchors
    }

    /// Paths that begin with a folder of the repository or of its sources: in the prose, and in what shells are given.
    /// `<venue>` is any venue.
    pub(super) fn paths(&self, root: &Path) -> Vec<(usize, String)> {
        let mut names = self.spans();
        for block in self.blocks().into_iter().filter(|block| block.language == "sh") {
            for (number, line) in block.lines {
                names.extend(line.split_whitespace().map(|word| (number, word.to_owned())));
            }
        }
        let is_path = |text: &str| {
            let letters = |it: char| it.is_ascii_alphanumeric() || "/._-<>".contains(it);
            text.contains('/') && text.chars().all(letters)
        };
        let is_ours = |text: &str| {
            let first = text.split('/').next().unwrap_or_default();
            // What is built and made is there on no fresh clone.
            let is_made = first == "target" || first.is_empty() || first == "..";
            !is_made
                && (root.join(first).is_dir() || root.join("trading-core/src").join(first).is_dir())
        };
        names.retain(|(_, name)| is_path(name) && is_ours(name));
        names.into_iter().map(|(line, name)| (line, name.replace("<venue>", "binance"))).collect()
    }

    /// Names such as `batch.max_size` between backquotes; what is set or listed behind them is cut off.
    pub(super) fn dotted_names(&self) -> Vec<(usize, String)> {
        let letters =
            |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || "._<>*".contains(it);
        let mut names = Vec::new();
        for (line, span) in self.spans() {
            let name: String = span.chars().take_while(|it| letters(*it)).collect();
            let rest = span.strip_prefix(&name).unwrap_or_default().trim_start();
            let is_file =
                [".toml", ".md", ".rs", ".sql", ".service"].iter().any(|end| name.ends_with(end));
            if name.contains('.') && !is_file && (rest.is_empty() || rest.starts_with('=')) {
                names.push((line, name));
            }
        }
        names
    }

    /// What follows `TRADING_CORE__` in the names of variables, wherever they stand.
    pub(super) fn variables(&self) -> Vec<(usize, String)> {
        let mut variables = Vec::new();
        for (number, line) in (1..).zip(&self.lines) {
            for piece in line.split("TRADING_CORE__").skip(1) {
                let letters =
                    |it: char| it.is_ascii_uppercase() || it.is_ascii_digit() || it == '_';
                variables.push((number, piece.chars().take_while(|it| letters(*it)).collect()));
            }
        }
        variables
    }
}
