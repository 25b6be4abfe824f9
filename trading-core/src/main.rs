//! The `trading-core` program: arguments, then the log, then the settings, then the command, then an exit code.

mod commands;

use std::os::unix::process::CommandExt as _;

use trading_core::cli::{Cli, Command, ExitCode};
use trading_core::config;
use trading_core::store::embedded::stop_servers_when_killed;
use trading_core::store::postgres::SESSION_OPTIONS;
use trading_core::{output, telemetry};

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
    // Nothing may be printed beside the answer to a completion: the line under the cursor would be torn.
    let is_logged = !matches!(cli.command, Command::Complete { .. });
    if is_logged && let Err(error) = telemetry::start_logs(&cli.log_options(&environment)) {
        output::complain(&error);
        return ExitCode::Usage;
    }
    // Where this is not known, the next start takes over what a killed recorder left running.
    if let Ok(program) = std::env::current_exe() {
        stop_servers_when_killed(program);
    }
    match &cli.command {
        Command::Config(command) => commands::config(&cli, command, &environment),
        Command::Completions { shell } => commands::completions(*shell),
        Command::Complete { shell, words } => commands::complete(*shell, words, &environment),
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
