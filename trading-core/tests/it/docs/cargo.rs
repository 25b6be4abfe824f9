//! The tests that the pages have their readers run are there: Cargo passes with 0 tests where a filter meets none.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::commands::{commands, shell_lines};
use super::report;
use crate::support::page::{pages, root};

/// What the pages write for an exchange's name, and an exchange.
const PLACEHOLDER: (&str, &str) = ("NAME", "bitstamp");

#[test]
fn every_test_that_a_page_runs_is_there() {
    let packages = packages();
    let (mut problems, mut found) = (Vec::new(), 0);
    for page in pages() {
        for (line, text) in shell_lines(&page) {
            for words in commands(&text).iter().filter(|words| is_test(words)) {
                found += 1;
                if let Err(problem) = check(words, &packages) {
                    problems.push(format!("{}: {text}: {problem}", page.at(line)));
                }
            }
        }
    }
    assert!(found > 3, "only {found} such commands were found: the rule looks in the wrong place");
    report(&problems);
}

#[test]
fn a_test_that_is_not_there_is_noticed() {
    let packages = packages();
    for (line, problem) in [
        ("cargo test -p trading-exchange --lib NAME::history", None),
        ("cargo test --locked -p trading-core --test it -- venues:: captures::", None),
        ("cargo test -p trading-core --lib rest::round_trip", None),
        ("cargo test -p trading-core --lib exchange::NAME", Some("no test has exchange::NAME")),
        ("cargo test -p trading-kernel --lib", Some("there is no package trading-kernel")),
        ("cargo test -p trading-core --test at", Some("no test is there at all")),
        ("cargo test -p trading-core --test it venues captures", Some("one filter before `--`")),
    ] {
        let words = commands(line).remove(0);
        assert_eq!(check(&words, &packages), problem.map_or(Ok(()), |it| Err(it.to_owned())));
    }
}

fn is_test(words: &[String]) -> bool {
    words.iter().map(String::as_str).take(2).eq(["cargo", "test"])
}

/// Whether each filter of `cargo test -p PACKAGE --lib|--test NAME FILTER -- FILTERS` meets a test.
fn check(words: &[String], packages: &BTreeMap<String, PathBuf>) -> Result<(), String> {
    let (mut package, mut below, mut filters, mut is_behind) = (None, None, Vec::new(), false);
    let mut rest = words.iter().skip(2).map(String::as_str);
    while let Some(word) = rest.next() {
        match word {
            "--" => is_behind = true,
            "-p" => package = rest.next(),
            "--lib" => below = Some(PathBuf::from("src")),
            "--test" => below = rest.next().map(|name| Path::new("tests").join(name)),
            word if word.starts_with('-') => {}
            _ if !is_behind && !filters.is_empty() => return Err("one filter before `--`".into()),
            word => filters.push(word),
        }
    }
    let package = package.ok_or("a package is to be named, by -p")?;
    let folder = packages.get(package).ok_or(format!("there is no package {package}"))?;
    let tests = tests(&folder.join(below.ok_or("--lib or --test NAME is to be named")?));
    if tests.is_empty() {
        return Err("no test is there at all".to_owned());
    }
    let is_met = |filter: &str| {
        let filter = filter.replace(PLACEHOLDER.0, PLACEHOLDER.1);
        tests.iter().any(|test| test.contains(&filter))
    };
    filters
        .iter()
        .find(|filter| !is_met(filter))
        .map_or(Ok(()), |filter| Err(format!("no test has {filter}")))
}

/// The folder of each package of the workspace.
fn packages() -> BTreeMap<String, PathBuf> {
    let core = root().join("trading-core");
    let crates = fs::read_dir(core.join("crates")).unwrap().map(|entry| entry.unwrap().path());
    std::iter::once(core.clone())
        .chain(crates)
        .filter_map(|folder| {
            let manifest = fs::read_to_string(folder.join("Cargo.toml")).ok()?;
            let name = manifest.lines().find_map(|line| line.strip_prefix("name = \""))?;
            Some((name.trim_end_matches('"').to_owned(), folder))
        })
        .collect()
}

/// The tests of the sources in a folder, as `module::tests::name`.
fn tests(folder: &Path) -> Vec<String> {
    let mut tests = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(at).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let module = path.strip_prefix(folder).unwrap().with_extension("");
                tests.extend(tests_of(&module, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    tests
}

/// The tests of one file.
fn tests_of(module: &Path, text: &str) -> Vec<String> {
    let is_root = |name: &&str| ["lib", "main", "mod"].contains(name);
    let mut modules: Vec<&str> = module.iter().filter_map(|part| part.to_str()).collect();
    modules.pop_if(|name| is_root(&&**name));
    let (mut tests, mut is_test) = (Vec::new(), false);
    for line in text.lines().map(str::trim_start) {
        if line == "mod tests {" {
            modules.push("tests");
        } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
            let name = rest.split('(').next().unwrap_or_default();
            tests.push(modules.iter().copied().chain([name]).collect::<Vec<_>>().join("::"));
            is_test = false;
        }
    }
    tests
}
