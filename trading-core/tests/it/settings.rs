//! Settings as a user has them: which file applies, what is wrong with it, and which variables there are.

use std::collections::BTreeSet;
use std::fs::{self, create_dir_all, read_to_string, write};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value as Json;
use tempfile::TempDir;
use trading_core::config::{CONFIG_FILE, OTHER_VARIABLES};

use crate::support::process::{Program, command};

/// A user's home, without a settings file yet.
fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The program in this home, looking for its settings as it does for everybody.
fn at_home(home: &Path) -> Command {
    let mut command = command();
    command.env_remove(CONFIG_FILE).env("XDG_CONFIG_HOME", home.join("settings")).current_dir(home);
    command
}

fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    format!("{out}{}", String::from_utf8_lossy(&output.stderr))
}

fn json(command: &mut Command) -> Json {
    serde_json::from_slice(&command.output().unwrap().stdout).unwrap()
}

#[test]
fn a_users_own_file_applies_wherever_he_is_and_is_named() {
    let home = home();
    let written = at_home(home.path()).args(["config", "init"]).output().unwrap();
    assert!(written.status.success(), "{}", text(&written));
    let path = home.path().join("settings/trading-core/trading-core.toml");
    assert!(text(&written).contains(path.to_str().unwrap()), "{}", text(&written));
    write(&path, "[batch]\nmax_size = 7\n").unwrap();

    let checked = at_home(home.path()).args(["config", "check"]).output().unwrap();
    let told = text(&checked);
    assert!(told.starts_with(&format!("the settings are valid: {}\n", path.display())), "{told}");
    assert!(told.contains("config/trading-core.toml"), "every place is named: {told}");
    assert!(told.contains("/etc/trading-core/trading-core.toml"), "every place is named: {told}");
    let shown = json(at_home(home.path()).args(["config", "show", "--json"]));
    assert_eq!(shown["batch"]["max_size"]["value"], 7);
    assert_eq!(shown["files"]["applies"], path.to_str().unwrap());
    assert_eq!(shown["files"]["places"][0]["found"], "nothing");

    // A file of the working directory comes first, and the other is named.
    create_dir_all(home.path().join("config")).unwrap();
    write(home.path().join("config/trading-core.toml"), "[batch]\nmax_size = 8\n").unwrap();
    let shown = text(&at_home(home.path()).args(["config", "show"]).output().unwrap());
    assert!(shown.contains("batch.max_size = 8"), "{shown}");
    assert!(shown.contains("trading-core.toml  is there, and does not apply"), "{shown}");
    assert!(
        trading_core::config::load(
            Some(&trading_core::config::File { path: "shown".into(), text: shown }),
            &std::collections::BTreeMap::new(),
            &trading_core::config::Overrides::default(),
        )
        .is_ok()
    );

    let again = at_home(home.path()).args(["config", "init"]).output().unwrap();
    assert_eq!(again.status.code(), Some(1), "{}", text(&again));
    assert_eq!(read_to_string(&path).unwrap(), "[batch]\nmax_size = 7\n");
}

#[tokio::test]
async fn live_logs_which_settings_apply() {
    let home = home();
    let path = home.path().join("mine.toml");
    write(&path, "[simulate]\nport = 0\n").unwrap();
    let settings = [
        (CONFIG_FILE.to_owned(), path.to_str().unwrap().to_owned()),
        ("TRADING_CORE__SPOOL__DIR".to_owned(), home.path().join("spool").display().to_string()),
    ];
    // Nobody listens there: the line is the first of all.
    let nobody = "postgres://nobody@127.0.0.1:1/db";
    let arguments = ["live", "--simulate", "--database-url", nobody];
    let mut live = Program::start(home.path(), &arguments, &settings);
    let line = live.logged("Settings: ").await;
    let expected = format!("Settings: {} (and 1 environment variable, 1 flag)", path.display());
    assert!(line.contains(&expected), "{line}");
}

#[test]
fn everything_that_is_wrong_is_told_in_one_go_with_its_line() {
    let home = home();
    let path = home.path().join("bad.toml");
    let bad = "[batch]\nmax_size = 0\n[exchanges.bitfinex]\nenabled = true\nsymbols = []\n[paper.strategies.mine]\n\
               kind = \"sma_crosover\"\nexchange = \"binanc\"\nsymbols = [\"BTCUSDT\", \"!\"]\ncash = \"0\"\n\
               fee_rate = \"0\"\nslippage = \"0\"\nposition_limit = \"1\"\nfast = 20\nslow = 5\nfats = 1\n\
               [paper.strategies.short]\nkind = \"nosuch\"\n";
    write(&path, bad).unwrap();
    let mut check = command();
    check.args(["config", "check", "--json"]).env(CONFIG_FILE, &path);
    check.env("TRADING_CORE_BATCH_MAX_SIZE", "3");
    let told = json(&mut check);
    let problems = told["problems"].as_array().unwrap();
    let part = |problem: &Json, name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    let lines: Vec<String> = problems
        .iter()
        .map(|it| {
            let origin = part(it, "origin");
            format!("{} {}", part(it, "key"), origin.rsplit([':', ' ']).next().unwrap())
        })
        .collect();
    let expected = [
        "batch.max_size 2",
        "exchanges.bitfinex 3",
        "paper.strategies.mine.kind 7",
        "paper.strategies.mine.exchange 8",
        "paper.strategies.mine.symbols 9",
        "paper.strategies.mine.cash 10",
        "paper.strategies.mine.slow 15",
        "paper.strategies.mine.fats 16",
        "paper.strategies.short 17",
        "paper.strategies.short.kind 18",
        "TRADING_CORE_BATCH_MAX_SIZE TRADING_CORE_BATCH_MAX_SIZE",
    ];
    assert_eq!(lines, expected, "{told:#}");
    assert_eq!(told["files"]["applies"], path.to_str().unwrap());
}

#[test]
fn an_exchange_with_a_slip_gets_one_answer_from_every_command() {
    for line in ["live", "verify", "backfill", "doctor", "replay --paper-trading"] {
        let mut program = command();
        let output = program.args(line.split(' ')).args(["--exchange", "binanc"]).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{line}");
        let told = text(&output);
        assert!(told.contains("'binance'") && !told.contains("enabled"), "{line}: {told}");
    }
}

#[test]
fn every_variable_that_begins_as_ours_is_known() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = BTreeSet::new();
    let ours = ["src", "crates", "tests", "benches"].map(|folder| format!("trading-core/{folder}"));
    for folder in ours.iter().map(String::as_str).chain(["scripts", "config"]) {
        names_below(&root.join(folder), &mut found);
    }
    let known: BTreeSet<String> =
        OTHER_VARIABLES.iter().map(|(name, _)| (*name).to_owned()).collect();
    // What tests of slips write wrong on purpose, and what Kubernetes sets.
    let slips = read_to_string(root.join("trading-core/src/config/tests/slips.rs")).unwrap();
    let own = read_to_string(root.join("trading-core/tests/it/settings.rs")).unwrap();
    let docs = read_to_string(root.join("trading-core/src/config/variables.rs")).unwrap();
    for name in found {
        let is_example = [&slips, &own, &docs].iter().any(|text| text.contains(&name));
        assert!(known.contains(&name) || is_example, "{name} is not in OTHER_VARIABLES");
    }
    assert!(known.contains(trading_core::store::postgres::SESSION_OPTIONS));
}

/// The names in all files below a folder that begin as ours and have one underscore behind it.
fn names_below(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names_below(&path, found);
            continue;
        }
        let Ok(text) = read_to_string(&path) else { continue };
        let is_part = |it: char| it.is_ascii_uppercase() || it.is_ascii_digit() || it == '_';
        let prefix = "TRADING_CORE_";
        for rest in text.split(prefix).skip(1) {
            let name: String = rest.chars().take_while(|it| is_part(*it)).collect();
            if !name.is_empty() && !name.starts_with('_') {
                found.insert(format!("{prefix}{name}"));
            }
        }
    }
}
