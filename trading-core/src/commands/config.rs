//! The settings for all commands, checked by every room that knows something of them; and `trading-core config`.

use std::path::PathBuf;

use serde_json::{Value as Json, json};
use tracing::{debug, info, warn};
use trading_core::cli::{
    Cli, Command, ConfigCommand, DbArgs, DbCommand, ExitCode, SpoolArgs, SpoolCommand,
};
use trading_core::config::{self, ConfigError, Examined, Loaded, Search, SettingsFiles};
use trading_core::domain::Symbol;
use trading_core::{exchange, output, paper};

use super::{Environment, failed};

/// The settings, checked by the configuration and by the rooms that know more of them: everything that is wrong at once.
pub(super) fn load(cli: &Cli, environment: &Environment) -> Result<Loaded, ConfigError> {
    let mut loaded = examine(cli, environment).into_result()?;
    loaded.settings.database.simulated = cli.is_simulated();
    Ok(loaded)
}

fn examine(cli: &Cli, environment: &Environment) -> Examined {
    let files = Search::new(cli.common.config.as_deref(), environment).run();
    let mut examined = config::examine(files, environment, &cli.overrides());
    for problem in paper::check_drafts(&examined.strategies) {
        examined.refuse(&problem.key, problem.allowed);
    }
    for settings in examined.exchanges.clone().into_iter().filter(|it| it.enabled) {
        for allowed in twice(settings.name, &settings.symbols) {
            examined.refuse(&format!("exchanges.{}.symbols", settings.name), allowed);
        }
    }
    for strategy in examined.strategies.clone() {
        let (Some(exchange), Some(symbols)) = (&strategy.exchange, &strategy.symbols) else {
            continue;
        };
        for allowed in twice(exchange, symbols) {
            let key = format!("paper.strategies.{}.symbols", strategy.name);
            // A strategy that does not run does no harm.
            match &cli.command {
                command if command.is_paper_trading() => examined.refuse(&key, allowed),
                Command::Config(_) => {
                    let warning = format!("{key}: {allowed}; paper trading is refused with both");
                    examined.warnings.push(warning);
                }
                _ => {}
            }
        }
    }
    examined
}

/// What is wrong with the symbols of a list that are one pair at their exchange.
fn twice(exchange: &str, symbols: &[Symbol]) -> Vec<String> {
    let Some(venue) = exchange::by_name(exchange) else { return Vec::new() };
    let same = exchange::same_pairs(venue, symbols).into_iter();
    let each = same.map(|(one, other, pair)| {
        format!("each pair once: {one} and {other} are both {pair} at {exchange}; keep one of them")
    });
    each.collect()
}

/// Logs which settings apply, where a command records, changes something or takes long; elsewhere only at level debug.
pub(super) fn announce(cli: &Cli, loaded: &Loaded) {
    let is_query = matches!(
        &cli.command,
        Command::Db(DbArgs {
            command: DbCommand::Status { .. }
                | DbCommand::Psql { .. }
                | DbCommand::Stop { .. }
                | DbCommand::Recording(_),
            ..
        }) | Command::Spool(SpoolArgs {
            command: SpoolCommand::Status { .. } | SpoolCommand::Inspect { .. },
            ..
        })
    );
    if is_query {
        debug!("Settings: {}", loaded.sources());
    } else {
        info!("Settings: {}", loaded.sources());
    }
    for warning in &loaded.warnings {
        if is_query {
            debug!("Settings: {warning}");
        } else {
            warn!("Settings: {warning}");
        }
    }
    for path in loaded.files.passed_over() {
        debug!("Settings: {} is there too, and does not apply", path.display());
    }
}

/// `config`
pub(crate) fn config(cli: &Cli, command: &ConfigCommand, environment: &Environment) -> ExitCode {
    match command {
        ConfigCommand::Check { json } => check(cli, *json, environment),
        ConfigCommand::Show { json } => show(cli, *json, environment),
        ConfigCommand::Init { file } => init(file.clone(), environment),
    }
}

fn check(cli: &Cli, json: bool, environment: &Environment) -> ExitCode {
    let examined = examine(cli, environment);
    let (files, warnings) = (examined.files.clone(), examined.warnings.clone());
    match (examined.into_result(), json) {
        (Ok(_), true) => answer(true, &[], &files, &warnings),
        (Ok(loaded), false) => {
            let sources = loaded.sources();
            let warnings: String = warnings.iter().map(|it| format!("\nwarning: {it}")).collect();
            output::text(&format!("the settings are valid: {sources}\n{files}{warnings}"))
        }
        (Err(error), true) => {
            let problem = |it: &config::Problem| {
                let origin = it.origin.to_string();
                json!({"key": it.key, "value": it.value, "allowed": it.allowed, "origin": origin})
            };
            let problems: Vec<Json> = error.problems().iter().map(problem).collect();
            match answer(false, &problems, &files, &warnings) {
                ExitCode::Clean => ExitCode::Usage,
                failed => failed,
            }
        }
        (Err(error), false) => output::bad_settings(&error, cli.common.log_format),
    }
}

fn answer(valid: bool, problems: &[Json], files: &SettingsFiles, warnings: &[String]) -> ExitCode {
    let files = files.to_json();
    let answer =
        json!({"valid": valid, "problems": problems, "files": files, "warnings": warnings});
    output::result(&format!("{answer:#}"))
}

fn show(cli: &Cli, json: bool, environment: &Environment) -> ExitCode {
    match load(cli, environment) {
        Ok(loaded) if json => {
            let mut shown = loaded.effective.to_json();
            if let Some(sections) = shown.as_object_mut() {
                sections.insert("files".to_owned(), loaded.files.to_json());
            }
            output::result(&format!("{shown:#}"))
        }
        Ok(loaded) => {
            let head = format!("Settings: {}\n{}", loaded.sources(), loaded.files);
            let warnings = loaded.warnings.iter().map(|it| format!("# Warning: {it}\n"));
            let head = head.lines().map(|line| format!("# {line}\n")).chain(warnings);
            let head: String = head.collect();
            output::text(&format!("{head}\n{}", loaded.effective))
        }
        Err(error) => output::bad_settings(&error, cli.common.log_format),
    }
}

/// There is no folder to write to.
#[derive(Debug, thiserror::Error)]
#[error(
    "neither XDG_CONFIG_HOME nor HOME is set: name the file, as `trading-core config init FILE`"
)]
struct NoFolder;

fn init(file: Option<PathBuf>, environment: &Environment) -> ExitCode {
    let Some(path) = file.or_else(|| config::user_file(environment)) else {
        return failed(&NoFolder);
    };
    if let Err(error) = config::write_starter(&path) {
        return failed(&error);
    }
    let files = Search::new(None, environment).run();
    let full = std::path::absolute(&path).unwrap_or(path);
    let mut text = format!("{} is written: every setting, commented out", full.display());
    // Where another file applies here, what is changed in the new one changes nothing.
    let applies =
        files.places.iter().any(|it| it.path == full && it.found == config::Found::Applies);
    if !applies {
        text.push_str(&format!("\nfrom here it applies with --config {}", full.display()));
        text.push_str(&format!(" or {}={}", config::CONFIG_FILE, full.display()));
    }
    output::result(&text)
}
