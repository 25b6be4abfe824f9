//! What may follow on a line, without a shell.

use clap::CommandFactory as _;

use super::*;
use crate::cli::Cli;

fn listed(_file: Option<&Path>) -> Vec<Listed> {
    let of = |name: &str, symbols: &[&str]| {
        (name.to_owned(), symbols.iter().map(|it| (*it).to_owned()).collect())
    };
    vec![of("binance", &["BTCUSDT", "ETHUSDT"]), of("kraken", &["BTCUSD"])]
}

fn completed(line: &str) -> Completion {
    let mut program = Cli::command();
    program.build();
    complete(&program, &split(line), &listed)
}

fn words(line: &str) -> Vec<String> {
    match completed(line) {
        Completion::Words(words) => words.into_iter().map(|(word, _)| word).collect(),
        path => panic!("{line}: {path:?}"),
    }
}

#[test]
fn commands_and_their_commands_are_completed_and_hidden_ones_are_not() {
    assert_eq!(words("trading-core li"), ["live"]);
    assert_eq!(words("trading-core db st"), ["start", "stop", "status"]);
    assert_eq!(words("trading-core config "), ["check", "show", "init", "help"]);
    assert_eq!(words("trading-core help li"), ["live"]);
    assert!(words("trading-core ").contains(&"doctor".to_owned()));
    assert_eq!(words("trading-core __"), Vec::<String>::new());
}

#[test]
fn options_are_completed_once_each_and_where_nothing_else_may_stand() {
    assert_eq!(words("trading-core live --ex"), ["--exchange"]);
    assert_eq!(words("trading-core live --simulate --simul"), Vec::<String>::new());
    let all = words("trading-core live ");
    assert!(all.contains(&"--paper-trading".to_owned()) && all.contains(&"--config".to_owned()));
    assert_eq!(words("trading-core --log-f"), ["--log-format"]);
}

#[test]
fn values_are_those_that_the_command_line_takes() {
    assert_eq!(words("trading-core live --exchange "), crate::exchange::names());
    assert_eq!(words("trading-core live --exchange=k"), ["--exchange=kraken"]);
    assert_eq!(words("trading-core live --exchange kraken,o"), ["kraken,okx"]);
    assert_eq!(words("trading-core live --exchange kraken o"), ["okx"]);
    assert!(!words("trading-core live --exchange kraken ").contains(&"kraken".to_owned()));
    assert_eq!(words("trading-core live --log-format "), ["text", "json"]);
    assert_eq!(words("trading-core --log-level w"), ["warn"]);
    assert_eq!(words("trading-core completions "), ["bash", "zsh", "fish"]);
    assert_eq!(words("trading-core live --database-url e"), ["embedded"]);
    assert_eq!(words("trading-core simulate --fault st"), ["stall="]);
    assert_eq!(words("trading-core replay --speed m"), ["max"]);
}

#[test]
fn every_fault_that_is_offered_is_one() {
    let (_, faults) = BEGINNINGS.iter().find(|(name, _)| *name == "fault").unwrap();
    let value = |fault: &str| match fault {
        "stall=" => "10s/1s",
        "drop=" | "rest=" => "1s",
        "slow=" => "100",
        "none" => "",
        _ => "0.1",
    };
    for fault in *faults {
        let written = format!("{fault}{}", value(fault));
        let read = written.parse::<crate::simulator::Switches>();
        assert!(read.is_ok(), "{written}: {read:?}");
    }
}

#[test]
fn symbols_are_those_of_the_settings_alone_or_with_their_exchange() {
    let all = ["BTCUSDT", "ETHUSDT", "BTCUSD", "binance:", "kraken:"];
    assert_eq!(words("trading-core live --symbol "), all);
    assert_eq!(words("trading-core live --symbol btcusdt,eth"), ["btcusdt,ETHUSDT"]);
    assert_eq!(words("trading-core verify --exchange kraken --symbol B"), ["BTCUSD"]);
    assert_eq!(words("trading-core live --symbol bin"), ["binance:"]);
    let of_binance = ["binance:BTCUSDT", "binance:ETHUSDT"];
    assert_eq!(words("trading-core live --symbol binance:"), of_binance);
    assert_eq!(
        words("trading-core live --symbol kraken:BTCUSD,binance:e"),
        ["kraken:BTCUSD,binance:ETHUSDT"]
    );
    let mut program = Cli::command();
    program.build();
    let line = split("trading-core --config my.toml live --symbol ");
    let named = |file: Option<&Path>| {
        assert_eq!(file, Some(Path::new("my.toml")));
        Vec::new()
    };
    assert_eq!(complete(&program, &line, &named), Completion::Words(Vec::new()));
}

#[test]
fn paths_are_completed_where_a_path_is_meant_and_nowhere_else() {
    assert_eq!(completed("trading-core live --config /et"), Completion::Files);
    assert_eq!(completed("trading-core config init "), Completion::Files);
    assert_eq!(completed("trading-core db reader me --password-file="), Completion::Files);
    assert_eq!(words("trading-core live --from"), Vec::<String>::new());
    assert_eq!(words("trading-core verify --from "), Vec::<String>::new());
}

#[test]
fn a_line_is_parted_as_a_shell_parts_it() {
    assert_eq!(split("a  b"), ["a", "b"]);
    assert_eq!(split("a b "), ["a", "b", ""]);
    assert_eq!(split("a 'b c' \"d\\\"e\" f\\ g"), ["a", "b c", "d\"e", "f g"]);
    assert_eq!(split("a '' x"), ["a", "", "x"]);
    assert_eq!(split(""), [""]);
    assert_eq!(split("a 'open "), ["a", "open "]);
}

#[test]
fn bash_is_given_what_it_replaces() {
    let found = completed("trading-core live --symbol binance:BT");
    assert_eq!(found.for_shell(Shell::Bash, "binance:BT", "BT"), "BTCUSDT\n");
    assert_eq!(found.for_shell(Shell::Bash, "binance:BT", "binance:BT"), "binance:BTCUSDT\n");
    assert_eq!(found.for_shell(Shell::Fish, "binance:BT", ""), "binance:BTCUSDT\n");
    let found = completed("trading-core li");
    let fish = found.for_shell(Shell::Fish, "li", "");
    assert!(fish.starts_with("live\tRecord: "), "{fish}");
    assert_eq!(Completion::Files.for_shell(Shell::Zsh, "x", ""), ":files\n");
}

#[test]
fn a_script_names_the_program_that_printed_it() {
    let odd = Path::new("/opt/it's here/trading-core");
    assert!(script(Shell::Bash, odd).contains(r"program='/opt/it'\''s here/trading-core'"));
    assert!(script(Shell::Zsh, odd).contains(r"program='/opt/it'\''s here/trading-core'"));
    assert!(script(Shell::Fish, odd).contains(r"echo '/opt/it\'s here/trading-core'"));
}
