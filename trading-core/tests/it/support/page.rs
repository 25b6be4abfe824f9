//! Markdown, in pages and in the comments of Rust, taken apart as far as the checks need it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the clone.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The folders below which the pages name files: the clone's, that of the sources, and that above the crates.
pub(crate) fn bases() -> [PathBuf; 3] {
    ["", "trading-core/src", "trading-core"].map(|folder| root().join(folder))
}

/// The README, the changelog and all of docs/, in order.
pub(crate) fn pages() -> Vec<Page> {
    let mut files = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        files.push(entry.unwrap().path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    files.sort_unstable();
    assert!(files.len() > 3, "{files:?}");
    files.iter().map(|file| Page::read(file)).collect()
}

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) path: PathBuf,
    lines: Vec<String>,
}

/// A fenced block.
#[derive(Debug)]
pub(crate) struct Block {
    /// What stands behind the fence.
    pub(crate) language: String,
    /// The number of the line with the opening fence; the first line of the page is 1.
    pub(crate) line: usize,
    /// The line before it, blank ones left out, where that is of no other block.
    pub(crate) before: String,
    /// What is inside, each with its number.
    pub(crate) lines: Vec<(usize, String)>,
}

impl Block {
    pub(crate) fn text(&self) -> String {
        self.lines.iter().map(|(_, line)| format!("{line}\n")).collect()
    }
}

impl Page {
    pub(crate) fn read(path: &Path) -> Self {
        Self::of(path, &fs::read_to_string(path).unwrap_or_default())
    }

    /// This text, as if it were in this file.
    pub(crate) fn of(path: &Path, text: &str) -> Self {
        Self { path: path.to_owned(), lines: text.lines().map(str::to_owned).collect() }
    }

    /// The comments of this Rust, each in its line.
    pub(crate) fn of_comments(path: &Path, rust: &str) -> Self {
        let comment = |line: &str| {
            let text = line.trim_start().strip_prefix("//").unwrap_or_default();
            text.trim_start_matches(['/', '!']).to_owned()
        };
        Self { path: path.to_owned(), lines: rust.lines().map(comment).collect() }
    }

    /// `README.md:12`, as editors take it.
    pub(crate) fn at(&self, line: usize) -> String {
        let names: Vec<_> =
            self.path.iter().rev().take(2).filter_map(|part| part.to_str()).collect();
        match names.as_slice() {
            [file, "docs"] => format!("docs/{file}:{line}"),
            [file, ..] => format!("{file}:{line}"),
            [] => format!(":{line}"),
        }
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut is_inside = false;
        let mut before = String::new();
        for (number, line) in (1..).zip(&self.lines) {
            let fence = line.trim_start().strip_prefix("```");
            match (fence, is_inside) {
                (Some(_), true) => is_inside = false,
                (Some(language), false) => {
                    is_inside = true;
                    blocks.push(Block {
                        language: language.trim().to_owned(),
                        line: number,
                        before: std::mem::take(&mut before),
                        lines: Vec::new(),
                    });
                }
                (None, true) => {
                    blocks.last_mut().unwrap().lines.push((number, line.clone()));
                }
                (None, false) if line.trim().is_empty() => {}
                (None, false) => line.trim().clone_into(&mut before),
            }
        }
        assert!(!is_inside, "{}: the last block has no end", self.path.display());
        blocks
    }

    /// Lines outside of the fenced blocks.
    pub(crate) fn prose(&self) -> Vec<(usize, &str)> {
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
    pub(crate) fn spans(&self) -> Vec<(usize, String)> {
        let mut spans = Vec::new();
        for (number, line) in self.prose() {
            // Every second piece is inside.
            let inside = line.split('`').skip(1).step_by(2);
            spans.extend(inside.map(|span| (number, span.to_owned())));
        }
        spans
    }

    /// The targets of the links in the prose.
    pub(crate) fn links(&self) -> Vec<(usize, String)> {
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
    pub(crate) fn anchors(&self) -> BTreeSet<String> {
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

    /// Paths that begin with a folder of the repository or of its sources, and names of Rust files: in the prose, in
    /// drawings, and in what shells are given. `<venue>` is any venue.
    pub(crate) fn paths(&self) -> Vec<(usize, String)> {
        let mut names = self.spans();
        let drawn = ["sh", "text"];
        for block in self.blocks().iter().filter(|block| drawn.contains(&block.language.as_str())) {
            for (number, line) in &block.lines {
                names.extend(line.split_whitespace().map(|word| (*number, word.to_owned())));
            }
        }
        let is_path = |text: &str| {
            let letters = |it: char| it.is_ascii_alphanumeric() || "/._-<>".contains(it);
            text.chars().all(letters)
        };
        let is_ours = |text: &str| {
            let Some((first, _)) = text.split_once('/') else { return text.ends_with(".rs") };
            // What is built and made is there on no fresh clone.
            let is_made = first == "target" || first.is_empty() || first == "..";
            !is_made && bases().iter().any(|base| base.join(first).is_dir())
        };
        names.retain(|(_, name)| is_path(name) && is_ours(name));
        names.into_iter().map(|(line, name)| (line, name.replace("<venue>", "binance"))).collect()
    }

    /// Names such as `batch.max_size` between backquotes; what is set or listed behind them is cut off.
    pub(crate) fn dotted_names(&self) -> Vec<(usize, String)> {
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
    pub(crate) fn variables(&self) -> Vec<(usize, String)> {
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
