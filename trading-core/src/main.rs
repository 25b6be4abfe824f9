//! The `trading-core` program: arguments, then the log, then the settings, then the command, then an exit code.

mod commands;

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;

use serde_json::json;
use trading_core::cli::{self, Cli, Command, ConfigCommand, ExitCode};
use trading_core::config::{self, ConfigError, Loaded, Settings};
use trading_core::store::embedded::stop_servers_when_killed;
use trading_core::store::postgres::SESSION_OPTIONS;
use trading_core::{exchange, output, paper, telemetry};

fn main() -> std::process::ExitCode {
    run().into()
}

fn run() -> ExitCode {
    if let Some(code) = without_session_options() {
        return code;
    }
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let environment = config::environment();
    if let Err(error) = telemetry::start_logs(&cli.log_options(&environment)) {
        output::complain(&error);
        return ExitCode::Usage;
    }
    // Where this is not known, the next start takes over what a killed recorder left running.
    if let Ok(program) = std::env::current_exe() {
        stop_servers_when_killed(program);
    }
    match &cli.command {
        Command::Config(command) => configuration(&cli, command, &environment),
        Command::Completions { shell } => output::result(&cli::completions(*shell)),
        Command::Live(arguments) => commands::live(&cli, arguments, &environment),
        Command::Backfill(arguments) => commands::backfill(&cli, arguments, &environment),
        Command::Simulate(arguments) => commands::simulate(&cli, arguments, &environment),
        Command::Verify(arguments) => commands::verify(&cli, arguments, &environment),
        Command::Doctor(arguments) => commands::doctor(&cli, arguments, &environment),
        Command::Replay(arguments) => commands::replay(&cli, arguments, &environment),
        Command::Db(command) => commands::db(&cli, command, &environment),
        Command::Spool(command) => commands::spool(&cli, command, &environment),
    }
}

/// sqlx sends what is in `PGOPTIONS` at the start of every connection, also to the embedded database, which it does not
/// mean, and through poolers, which refuse it. So this process begins anew without it; for other servers its settings are
/// kept, and set in every session.
fn without_session_options() -> Option<ExitCode> {
    let options = std::env::var_os("PGOPTIONS")?;
    let arguments: Vec<_> = std::env::args_os().collect();
    let (name, rest) = arguments.split_first()?;
    // Its file may have been replaced or removed since.
    let own = std::env::current_exe().ok().filter(|path| path.exists());
    let program = own.unwrap_or_else(|| "/proc/self/exe".into());
    let mut command = std::process::Command::new(program);
    command.arg0(name).args(rest).env_remove("PGOPTIONS").env(SESSION_OPTIONS, options);
    // Returns only when this process could not be replaced.
    output::complain(&command.exec());
    Some(ExitCode::Failed)
}

/// The settings, checked by the configuration and by the rooms that know more of them.
fn load(cli: &Cli, environment: &BTreeMap<String, String>) -> Result<Loaded, ConfigError> {
    let mut loaded = config::read(cli.common.config.as_deref(), environment, &cli.overrides())?;
    loaded.settings.database.simulated = cli.is_simulated();
    let mut problems = ConfigError::default();
    for problem in paper::check(&loaded.settings.paper) {
        problems.push(loaded.effective.problem(&problem.key, problem.allowed));
    }
    let Settings { exchanges, paper, .. } = &loaded.settings;
    let recorded = exchanges.iter().filter(|settings| settings.enabled);
    let recorded = recorded.map(|it| (format!("exchanges.{}", it.name), it.name, &it.symbols));
    let traded = paper.strategies.iter();
    let traded = traded
        .map(|it| (format!("paper.strategies.{}", it.name), it.exchange.as_str(), &it.symbols));
    for (section, name, symbols) in recorded.chain(traded) {
        let Some(venue) = exchange::by_name(name) else { continue };
        for (one, other, pair) in exchange::same_pairs(venue, symbols) {
            let allowed = format!(
                "each pair once: {one} and {other} are both {pair} at {name}; keep one of them"
            );
            problems.push(loaded.effective.problem(&format!("{section}.symbols"), allowed));
        }
    }
    problems.into_result()?;
    Ok(loaded)
}

fn configuration(
    cli: &Cli,
    command: &ConfigCommand,
    environment: &BTreeMap<String, String>,
) -> ExitCode {
    let loaded = load(cli, environment);
    match (command, loaded) {
        (ConfigCommand::Check { json: true }, Err(error)) => {
            let problems: Vec<_> = error
                .problems()
                .iter()
                .map(|it| {
                    let origin = it.origin.to_string();
                    json!({"key": it.key, "value": it.value, "allowed": it.allowed, "origin": origin})
                })
                .collect();
            match output::result(&format!("{:#}", json!({"valid": false, "problems": problems}))) {
                ExitCode::Clean => ExitCode::Usage,
                failed => failed,
            }
        }
        (_, Err(error)) => output::bad_settings(&error, cli.common.log_format),
        (ConfigCommand::Check { json: true }, Ok(_)) => {
            output::result(&format!("{:#}", json!({"valid": true, "problems": []})))
        }
        (ConfigCommand::Check { json: false }, Ok(loaded)) => output::result(&match loaded.file {
            Some(file) => format!("the settings are valid ({})", file.display()),
            None => "the settings are valid (no file: built-in defaults)".to_owned(),
        }),
        (ConfigCommand::Show { json: true }, Ok(loaded)) => {
            output::result(&format!("{:#}", loaded.effective.to_json()))
        }
        (ConfigCommand::Show { json: false }, Ok(loaded)) => {
            output::text(&loaded.effective.to_string())
        }
    }
}
