//! The README and the pages of docs/ say what is: their links lead somewhere, their commands are the program's, their
//! settings are those that there are.
//!
//! What a fenced block is checked for, its language says: `sh` and `console` hold commands, `toml` settings, `sql` queries that
//! run as they are (tests of the queries run them). Each problem is reported as `file:line: what is wrong`.

mod cargo;
mod commands;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use trading_core::config::{DEFAULTS, File, Overrides, load};

use crate::support::page::{Page, bases, pages, root};

/// Languages of fenced blocks; a block in another one is checked by nobody.
const LANGUAGES: [&str; 11] =
    ["console", "ini", "json", "psql", "python", "rust", "sh", "sql", "text", "toml", "yaml"];

/// The authority that examples name. Settings are refused whose authority cannot be read, so the test makes one.
const AUTHORITY: &str = "/etc/ssl/certs/company.pem";

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_are_there() {
    let mut problems = Vec::new();
    for page in pages() {
        for (line, target) in page.links() {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let linked = match file {
                "" => page.path.clone(),
                file => page.path.parent().unwrap().join(file),
            };
            let Ok(linked) = linked.canonicalize() else {
                problems.push(format!("{}: {file} is not there", page.at(line)));
                continue;
            };
            if !anchor.is_empty() && !Page::read(&linked).anchors().contains(anchor) {
                problems.push(format!("{}: {target} leads to no heading", page.at(line)));
            }
        }
    }
    report(&problems);
}

#[test]
fn every_path_of_the_repository_that_is_named_is_there() {
    let files = files();
    let is_there = |path: &str| {
        let end = format!("/{path}");
        let is_end = || files.iter().any(|file| file.ends_with(&end));
        bases().iter().any(|base| base.join(path).exists()) || (path.ends_with(".rs") && is_end())
    };
    let comments = files.iter().filter(|file| file.ends_with(".rs")).map(|file| {
        let path = root().join(file);
        Page::of_comments(&path, &fs::read_to_string(&path).unwrap())
    });
    let mut problems = Vec::new();
    for page in pages().into_iter().chain(comments) {
        let is_rust = page.path.extension().is_some_and(|extension| extension == "rs");
        for (line, path) in page.paths() {
            // A page may name a file that its reader is to make.
            let is_ours = is_rust || path.contains('/');
            if is_ours && !is_there(&path) {
                problems.push(format!("{}:{line}: {path} is not there", page.path.display()));
            }
        }
    }
    report(&problems);
}

/// Every file of the crate, from the clone's folder on.
fn files() -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from("trading-core")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else {
                files.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    files
}

#[test]
fn every_fenced_block_says_its_language() {
    let mut problems = Vec::new();
    for page in pages() {
        for block in page.blocks() {
            if !LANGUAGES.contains(&block.language.as_str()) {
                problems.push(format!(
                    "{}: {:?} is none of {LANGUAGES:?}",
                    page.at(block.line),
                    block.language
                ));
            }
        }
    }
    report(&problems);
}

#[test]
fn what_stands_between_backquotes_ends_in_its_line() {
    // The other checks read line by line.
    let mut problems = Vec::new();
    for page in pages() {
        for (line, text) in page.prose() {
            if text.matches('`').count() % 2 == 1 {
                problems.push(format!("{}: a backquote is not closed in its line", page.at(line)));
            }
        }
    }
    report(&problems);
}

#[test]
fn every_setting_that_is_named_exists() {
    let keys = keys();
    let sections: BTreeSet<&str> =
        keys.iter().filter_map(|key| key.split_once('.')).map(|(section, _)| section).collect();
    let mut problems = Vec::new();
    for page in pages() {
        for (line, name) in page.dotted_names() {
            let section = name.split('.').next().unwrap_or_default();
            if sections.contains(section) && !is_known(&keys, &name) {
                problems.push(format!("{}: there is no setting {name}", page.at(line)));
            }
        }
        for (line, variable) in page.variables() {
            let key = variable.replace("__", ".").to_lowercase();
            // The pattern itself, as it is explained.
            if key != "section.key" && !is_known(&keys, &key) {
                problems.push(format!("{}: TRADING_CORE__{variable} sets nothing", page.at(line)));
            }
        }
    }
    report(&problems);
}

#[test]
fn every_toml_block_is_a_settings_file_without_a_problem() {
    let authority = rcgen::generate_simple_self_signed(["company".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("company.pem");
    fs::write(&pem, authority.cert.pem()).unwrap();
    let mut problems = Vec::new();
    let mut blocks = 0;
    for page in pages() {
        for block in page.blocks().into_iter().filter(|block| block.language == "toml") {
            blocks += 1;
            let file = File {
                path: PathBuf::from("settings.toml"),
                text: block.text().replace(AUTHORITY, pem.to_str().unwrap()),
            };
            if let Err(error) = load(Some(&file), &BTreeMap::new(), &Overrides::default()) {
                problems.push(format!("{}: {error}", page.at(block.line)));
            }
        }
    }
    assert!(blocks > 0, "no toml block was found: the rule looks in the wrong place");
    report(&problems);
}

/// Fails with all of them.
fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// Every key of the settings, as `section.key`.
fn keys() -> BTreeSet<String> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| is_word(key)) {
            keys.insert(format!("{section}.{key}"));
        }
    }
    keys
}

/// Whether a name is a key or a section; `<name>` is any name, and strategies may be called as people like.
fn is_known(keys: &BTreeSet<String>, name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    let is_same =
        |(part, of_key): (&&str, &str)| *part == of_key || part.starts_with('<') || *part == "*";
    let is_strategy = name.starts_with("paper.strategies.");
    is_strategy
        || keys.iter().any(|key| {
            parts.iter().zip(key.split('.')).all(is_same) && key.split('.').count() >= parts.len()
        })
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_')
}
