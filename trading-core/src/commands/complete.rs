//! What the shells' completion asks for.

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use trading_core::cli::complete::{self, Listed, Shell};
use trading_core::cli::{Cli, ExitCode};
use trading_core::config::{self, Overrides, Search};
use trading_core::domain::Symbol;
use trading_core::output;

use super::Environment;

/// `completions`
pub(crate) fn completions(shell: Shell) -> ExitCode {
    let program = std::env::current_exe().unwrap_or_else(|_unknown| PathBuf::from("trading-core"));
    output::result(&complete::script(shell, &program))
}

/// `__complete`
pub(crate) fn complete(shell: Shell, words: &[String], environment: &Environment) -> ExitCode {
    let (words, word) = match (shell, words) {
        (Shell::Bash, [line, word, ..]) => (complete::split(line), word.as_str()),
        (Shell::Bash, [line]) => (complete::split(line), ""),
        (_, words) => (words.to_vec(), ""),
    };
    let mut program = Cli::command();
    program.build();
    let listed = |file: Option<&Path>| listed(file, environment);
    let completion = complete::complete(&program, &words, &listed);
    let current = words.last().map(String::as_str).unwrap_or_default();
    match completion.for_shell(shell, current, word).as_str() {
        "" => ExitCode::Clean,
        text => output::result(text),
    }
}

/// What the settings list, as far as they can be read.
fn listed(file: Option<&Path>, environment: &Environment) -> Vec<Listed> {
    let files = Search::new(file, environment).run();
    let examined = config::examine(files, environment, &Overrides::default());
    let exchanges = examined.exchanges.into_iter();
    exchanges.map(|it| (it.name.to_owned(), it.symbols.iter().map(written).collect())).collect()
}

/// A symbol so that it is read as the same again.
fn written(symbol: &Symbol) -> String {
    let joined = symbol.to_string();
    if joined.parse().as_ref() == Ok(symbol) {
        joined
    } else {
        format!("{}-{}", symbol.base(), symbol.quote())
    }
}
