//! The source tree keeps to the rules that no lint knows.
//!
//! Every violation is reported at once, as `file:line: what is wrong: what to do`. A rule that hinders is changed
//! here, with its reason, not worked around.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, each after all that it may import, with the reason. So there is no way round in a circle.
///
/// Those below `crates` are held to it by Cargo. Tests inside a room below `src` may import anything.
const ROOMS: &[(&str, &[&str], &str)] = &[
    ("domain", &[], "the words of the trade, which every room shares and which know of none"),
    ("telemetry", &["domain"], "what the program says of itself; any room may say something"),
    ("exchange", &["domain"], "pure: a venue knows its own protocol and no socket, clock or task"),
    (
        "simulator",
        &["domain"],
        "it must not share a reading of the protocols with exchange: each judges the other",
    ),
    (
        "config",
        &["domain", "exchange", "telemetry"],
        "settings are read before anything runs, and by every room; which exchanges there are is exchange's to say",
    ),
    (
        "network",
        BASE,
        "how a venue is reached: proxies, authorities, the opening of a WebSocket, and how long it is left alone",
    ),
    ("store", BASE, "the end of the way: it is handed ticks and does not ask from where"),
    ("pipeline", &["config", "domain", "store", "telemetry"], "it hands batches to a store"),
    (
        "feed",
        &["config", "domain", "exchange", "network", "pipeline", "store", "telemetry"],
        "the start of the way: speaks an exchange, sends into the channel, notes sessions and gaps in the journal",
    ),
    (
        "paper",
        &["config", "domain", "pipeline", "store", "telemetry"],
        "looks on through a tap of the pipeline, and keeps its own books in the store",
    ),
    (
        "rest",
        &["config", "domain", "exchange", "network", "telemetry"],
        "asks a venue over HTTP, within its limits; what to ask and how to read it is the venue's",
    ),
    (
        "repair",
        &["config", "domain", "exchange", "pipeline", "rest", "store", "telemetry"],
        "the second way in: reads the gaps, asks the venue's history, sends into the channel",
    ),
    (
        "verify",
        &["config", "domain", "exchange", "network", "rest", "store", "telemetry"],
        "trusts nobody: reads what is stored, and what the venues say of it",
    ),
    (
        "doctor",
        &["config", "domain", "exchange", "network", "rest", "store", "telemetry"],
        "looks at all that `live` will need, and at nothing that runs",
    ),
    ("app", ALL, "builds the stages and joins them: it sees all"),
    ("main", ALL, "the program and its command line: arguments to settings to app to exit code"),
];
/// Every room above it.
const ALL: &[&str] = &["*"];
/// What every room may import.
const BASE: &[&str] = &["config", "domain", "telemetry"];
/// Files of the command line, which is one room with `main.rs`.
const MAIN: [&str; 4] = ["main", "cli", "commands", "output"];
/// Names that say nothing of what is inside, so that everything ends up there.
const EMPTY_NAMES: [&str; 8] =
    ["common", "helper", "helpers", "imp", "manager", "misc", "util", "utils"];
/// What one can read in one go; a longer file is two things.
const LINES_MAX: usize = 600;
/// Migrations that a database may have run.
const APPLIED: &str = "APPLIED.sha384";

#[test]
fn rooms_import_only_what_the_table_allows() {
    report(&each_source("trading-core/src", |file, text| {
        // What other rooms only reach by `#[cfg(test)]` is test code as a whole.
        if is_test_module(file) { Vec::new() } else { import_problems(file, text) }
    }));
}

#[test]
fn each_room_imports_only_rooms_above_it_in_the_table() {
    let mut above = BTreeSet::new();
    for (room, allowed, _) in ROOMS {
        for other in allowed.iter().filter(|_| *allowed != ALL) {
            assert!(above.contains(other), "{room} imports {other}, which is not above it");
        }
        above.insert(*room);
    }
}

#[test]
fn the_import_rule_finds_what_it_forbids() {
    let find = |file: &str, text: &str| import_problems(Path::new(file), text).len();
    let network = "trading-core/src/network/dial.rs";
    assert_eq!(find(network, "use crate::exchange::Exchange;"), 1);
    assert_eq!(find(network, "use crate::{domain::Tick, exchange};"), 1);
    assert_eq!(find(network, "use super::super::exchange::Exchange;"), 1);
    assert_eq!(find(network, "fn run(it: &crate::feed::Feed) {}"), 1);
    assert_eq!(find("trading-core/src/telemetry/text.rs", "use crate::config::Settings;"), 1);
    assert_eq!(find("trading-core/src/lib.rs", "use crate::app::Tasks;"), 1);
    assert_eq!(find("trading-core/src/app/mod.rs", "use crate::cli::Cli;"), 1);
    assert_eq!(find("trading-core/src/cli.rs", "use trading_core::app::Tasks;"), 0);
    for allowed in [
        "use crate::domain::Tick;",
        "use crate::network::Network;",
        "use super::exchange::of_ours;",
        "// as crate::exchange does",
        "/// See [`crate::exchange`].\nfn documented() {}",
        "let it = 1; // as crate::exchange does",
        "#[cfg(test)]\nmod tests {\n    use crate::exchange::Binance;\n    fn braces() { \"}\"; }\n}",
        "    #[cfg(test)]\n    fn over_lines(\n        it: &crate::exchange::Binance,\n    ) -> usize {\n        1\n    }",
        "#[cfg(test)]\nuse crate::exchange::Binance;",
    ] {
        assert_eq!(find(network, allowed), 0, "{allowed}");
    }
    let after = "#[cfg(test)]\nmod tests {\n}\nuse crate::exchange::Binance;";
    let problems = import_problems(Path::new(network), after);
    assert!(problems.concat().contains("dial.rs:4: "), "{problems:?}");
}

#[test]
fn files_of_app_import_each_other_in_one_direction() {
    let app = Path::new("trading-core/src/app");
    let mut files: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in everything().into_iter().filter(|file| file.starts_with(app) && is_rust(file)) {
        let within = file.strip_prefix(app).unwrap().with_extension("");
        let parts: Vec<&str> = within.iter().filter_map(|part| part.to_str()).collect();
        if parts == ["mod"] || is_test_module(&file) {
            continue;
        }
        let depth = parts.len() - usize::from(parts.last() == Some(&"mod"));
        let code = without_tests(&code_of(&fs::read_to_string(root().join(&file)).unwrap()));
        let names = imports(&code, &["super::".repeat(depth).as_str()]).into_iter();
        files.entry(parts[0].to_owned()).or_default().extend(names.map(|(_, name)| name));
    }
    assert!(files["live"].contains("recorder"), "the rule reads no imports: {files:?}");
    let circle = in_a_circle(files);
    assert!(circle.is_empty(), "move what both need into a file of its own: {circle:?}");

    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let files = [("live", set(&["recorder"])), ("recorder", set(&["live", "tasks"]))];
    let circle = in_a_circle(files.map(|(name, imports)| (name.to_owned(), imports)).into());
    assert_eq!(circle.into_keys().collect::<Vec<_>>(), ["live", "recorder"]);
}

/// What is left when every file is taken away that imports none of those left.
fn in_a_circle(
    mut files: BTreeMap<String, BTreeSet<String>>,
) -> BTreeMap<String, BTreeSet<String>> {
    loop {
        let all: BTreeSet<String> = files.keys().cloned().collect();
        files.retain(|_, imports| !imports.is_disjoint(&all));
        if files.len() == all.len() {
            return files;
        }
    }
}

#[test]
fn every_file_says_first_what_it_is_for() {
    report(&each_source("trading-core", |file, text| {
        let first = text.lines().next().unwrap_or_default();
        // A room's own tests need no more than their name.
        if is_test_module(file)
            || first.strip_prefix("//! ").is_some_and(|doc| !doc.trim().is_empty())
        {
            return Vec::new();
        }
        vec![format!(
            "{}:1: there is no module documentation: begin with `//! ` and what it promises",
            file.display()
        )]
    }));
}

#[test]
fn files_are_short_enough_to_read() {
    report(&each_source("trading-core", |file, text| {
        let lines = text.lines().count();
        if lines <= LINES_MAX {
            return Vec::new();
        }
        vec![format!(
            "{}:{LINES_MAX}: {lines} lines, more than {LINES_MAX}: split it by what its parts are for",
            file.display()
        )]
    }));
}

#[test]
fn folders_have_a_front_page_and_a_name_that_says_something() {
    let mut problems = Vec::new();
    let all = everything();
    for path in &all {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if EMPTY_NAMES.contains(&stem) && (is_rust(path) || root().join(path).is_dir()) {
            let path = path.display();
            problems.push(format!("{path}:1: the name says nothing: name it after what is inside"));
        }
        // Folders of other things, such as snapshots, are no modules.
        let holds_rust = all.iter().any(|file| file.starts_with(path) && is_rust(file));
        let mut above = path.ancestors().skip(1).filter_map(Path::file_name);
        let below_src = above.any(|folder| folder == "src");
        let is_module = below_src && holds_rust && root().join(path).is_dir();
        if is_module && !root().join(path).join("mod.rs").is_file() {
            let path = path.display();
            problems.push(format!(
                "{path}:1: the folder has no mod.rs: add its front page, with its promise and its public face"
            ));
        }
    }
    report(&problems);
}

#[test]
fn nothing_is_left_for_later_in_a_comment() {
    // Written apart, so that this file keeps the rule too.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut problems = Vec::new();
    for file in everything() {
        // What is not text is no comment either.
        let Ok(text) = fs::read_to_string(root().join(&file)) else { continue };
        for (number, line) in text.lines().enumerate() {
            let found = marks.iter().find(|mark| words(line).any(|word| word == **mark));
            if let Some(mark) = found {
                problems.push(format!(
                    "{}:{}: {mark}: do it now, or open an issue and say here what holds until then",
                    file.display(),
                    number + 1
                ));
            }
        }
    }
    report(&problems);
}

#[test]
fn a_migration_that_was_applied_never_changes() {
    let migrations = sqlx::migrate!("../migrations");
    let list = fs::read_to_string(root().join("migrations").join(APPLIED)).unwrap_or_default();
    // As `sha384sum` writes it: hash, two spaces, file.
    let mut listed: BTreeMap<&str, (usize, &str)> = list
        .lines()
        .enumerate()
        .filter_map(|(number, line)| {
            line.split_once("  ").map(|(hash, file)| (file, (number + 1, hash)))
        })
        .collect();
    let mut problems = Vec::new();
    for file in everything() {
        let Some(name) = file.strip_prefix("migrations").ok().and_then(Path::to_str) else {
            continue;
        };
        let version = name.split_once('_').and_then(|(version, _)| version.parse::<i64>().ok());
        let Some(one) = migrations.iter().find(|one| Some(one.version) == version) else {
            continue;
        };
        let hash = one.checksum.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        });
        match listed.remove(name) {
            Some((_, before)) if before == hash => {}
            Some((number, _)) => problems.push(format!(
                "migrations/{APPLIED}:{number}: {name} is not what it was when it was listed, and a database that has \
                 run it would refuse to start: take the change back and put it into a new migration. (Only if no \
                 database anywhere has run it: cd migrations && sha384sum *.sql > {APPLIED})"
            )),
            None => problems.push(format!(
                "migrations/{name}:1: not listed in {APPLIED}: cd migrations && sha384sum {name} >> {APPLIED}"
            )),
        }
    }
    for (name, (number, _)) in listed {
        problems.push(format!(
            "migrations/{APPLIED}:{number}: {name} is gone, and a database that has run it would refuse to start: bring it back"
        ));
    }
    report(&problems);
}

#[test]
fn every_test_file_is_run() {
    let mut problems = Vec::new();
    let tests = Path::new("trading-core/tests");
    let declared = |file: &Path, name: &str| {
        let text = fs::read_to_string(root().join(file)).unwrap_or_default();
        let code = code_of(&text);
        [format!("mod {name};"), format!("mod {name} {{")].iter().any(|mod_| code.contains(mod_))
    };
    for file in everything().into_iter().filter(|file| file.starts_with(tests) && is_rust(file)) {
        let shown = file.display();
        let folder = file.parent().unwrap_or(tests);
        let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        // The chaos harness kills what it tests and runs as long as it is asked to: it has the machine to itself.
        let is_apart = file.starts_with(tests.join("chaos"));
        if !is_apart && !file.starts_with(tests.join("it")) {
            problems.push(format!(
                "{shown}:1: a second test binary, which links everything once more: make it a module of tests/it"
            ));
            continue;
        }
        // A file is declared by the front page of its folder, a front page by the one above.
        let (name, above) = if stem == "mod" {
            (folder.file_name().and_then(|name| name.to_str()).unwrap_or_default(), folder.parent())
        } else {
            (stem, Some(folder))
        };
        let above = above.unwrap_or(tests);
        let is_binary = above == tests.join("it") || above == tests.join("chaos");
        let page = if is_binary { "main.rs" } else { "mod.rs" };
        if stem != "main" && !declared(&above.join(page), name) {
            let page = above.join(page);
            problems.push(format!("{shown}:1: never run: add `mod {name};` to {}", page.display()));
        }
    }
    report(&problems);
}

/// Fails with all of them.
fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn import_problems(file: &Path, text: &str) -> Vec<String> {
    let within = file.strip_prefix("trading-core/src").unwrap_or(file);
    let parts: Vec<&str> = within.iter().filter_map(|part| part.to_str()).collect();
    let first = parts.first().map_or("", |first| first.strip_suffix(".rs").unwrap_or(first));
    let room = room_of(first);
    // The map names every room, and imports none.
    let known = ROOMS.iter().position(|(name, ..)| *name == room);
    let (allowed, why) = match known.map(|at| (at, ROOMS[at])) {
        Some((at, (_, allowed, why))) if allowed == ALL => {
            (ROOMS[..at].iter().map(|(name, ..)| *name).collect(), why)
        }
        Some((_, (_, allowed, why))) => (allowed.to_vec(), why),
        None if room == "lib" => (Vec::new(), "the map of the rooms"),
        None => {
            return vec![format!(
                "{}:1: the room `{room}` is not in the table of tests/it/tidy.rs: add it, with what it imports and why",
                file.display()
            )];
        }
    };
    // How many `super::` lead from this file to the crate's root.
    let depth = parts.len() - usize::from(parts.last() == Some(&"mod.rs"));
    let code = without_tests(&code_of(text));
    let mut problems = Vec::new();
    let above = "super::".repeat(depth.max(1));
    for (number, other) in imports(&code, &["crate::", "trading_core::", &above]) {
        let other = room_of(&other);
        let is_room = ROOMS.iter().any(|(name, ..)| *name == other);
        if is_room && other != room && !allowed.contains(&other) {
            problems.push(format!(
                "{}:{number}: `{room}` imports `{other}`, and may import [{}] ({why}): \
                 move what both need further down, or hand it in",
                file.display(),
                allowed.join(", ")
            ));
        }
    }
    problems
}

fn room_of(name: &str) -> &str {
    if MAIN.contains(&name) { "main" } else { name }
}

/// First names after one of these roots, each with its line.
fn imports(code: &str, roots: &[&str]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for root in roots {
        for (at, _) in code.match_indices(root) {
            let before = code.get(..at).unwrap_or_default();
            // `super::super::` holds `super::`, and `my_crate::` holds `crate::`.
            if before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let number = before.matches('\n').count() + 1;
            let rest = code.get(at + root.len()..).unwrap_or_default();
            found.extend(first_names(rest).into_iter().map(|name| (number, name)));
        }
    }
    found
}

/// `exchange::Binance` gives `exchange`; `{domain::Tick, exchange::{A, B}}` gives `domain` and `exchange`.
fn first_names(path: &str) -> Vec<String> {
    let Some(list) = path.strip_prefix('{') else {
        return words(path).next().map(str::to_owned).into_iter().collect();
    };
    let mut depth = 1_i32;
    let mut names = vec![String::new()];
    for letter in list.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(String::new()),
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if let Some(name) = names.last_mut() {
            name.push(letter);
        }
    }
    names.iter().filter_map(|name| words(name).next().map(str::to_owned)).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Code alone: comments become blank, lines stay lines.
fn code_of(text: &str) -> String {
    let code = text.lines().map(|line| match line.trim_start().starts_with("//") {
        true => "",
        false => line.split(" // ").next().unwrap_or_default(),
    });
    code.collect::<Vec<_>>().join("\n")
}

/// Blanks each item under `#[cfg(test)]`. The code is formatted: an item ends in the first line that is indented as it is
/// itself, and ends as items do.
fn without_tests(code: &str) -> String {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut item = None;
    let kept = code.lines().map(|line| match item {
        Some(its_indent) => {
            if indent(line) == its_indent && line.ends_with(['}', ';']) {
                item = None;
            }
            ""
        }
        None if line.trim() == "#[cfg(test)]" => {
            item = Some(indent(line));
            ""
        }
        None => line,
    });
    kept.collect::<Vec<_>>().join("\n")
}

/// Whether the file's front page declares it under `#[cfg(test)]`.
fn is_test_module(file: &Path) -> bool {
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let page = root().join(file.with_file_name("mod.rs"));
    let code = code_of(&fs::read_to_string(page).unwrap_or_default());
    let declaration = format!("mod {stem};");
    code.contains(&declaration) && !without_tests(&code).contains(&declaration)
}

fn is_rust(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "rs")
}

/// What a rule says of each Rust file below a folder.
fn each_source(below: &str, rule: impl Fn(&Path, &str) -> Vec<String>) -> Vec<String> {
    let files: Vec<PathBuf> =
        everything().into_iter().filter(|file| file.starts_with(below) && is_rust(file)).collect();
    assert!(!files.is_empty(), "no Rust below {below}: the rule looks in the wrong place");
    files
        .iter()
        .flat_map(|file| rule(file, &fs::read_to_string(root().join(file)).unwrap()))
        .collect()
}

/// The folder of the clone.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every folder and file of ours, relative to the clone, in order: not what is built or installed.
fn everything() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if name == "target" || name == ".git" || name == "node_modules" || name == "Cargo.lock"
            {
                continue;
            }
            let path = folder.join(&name);
            // A link may lead out of the clone, or round in a circle.
            if entry.file_type().unwrap().is_dir() {
                folders.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort_unstable();
    found
}
