//! The commands that run the recorder, the simulated exchanges and the embedded database.

mod backfill;
mod complete;
mod config;
mod doctor;
mod psql;
mod reader;
mod recording;
mod remove;
mod replay;
mod spool;
mod verify;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use trading_core::app::{
    self, Database, Exchanges, Interrupted, LiveOptions, Outcome, StopSignals, migrate_database,
};
use trading_core::cli::{Cli, DbArgs, DbCommand, ExitCode, LiveArgs, SimulateArgs};
use trading_core::config::{DatabaseUrl, Settings, SimulateSettings};
use trading_core::output;
use trading_core::simulator::{self, SimulatorOptions, Switches, SwitchesError};
use trading_core::store::embedded::{Options, command, flag};

pub(super) use backfill::backfill;
pub(super) use complete::{complete, completions};
pub(super) use config::config;
pub(super) use doctor::doctor;
pub(super) use replay::replay;
pub(super) use spool::spool;
pub(super) use verify::verify;

use config::{announce, load};

/// How long a user of the embedded database that was killed may take to be gone.
const LAST_USER_MAX: Duration = Duration::from_secs(3);

type Environment = BTreeMap<String, String>;

/// `live`
pub(super) fn live(cli: &Cli, arguments: &LiveArgs, environment: &Environment) -> ExitCode {
    with_settings(cli, environment, async |settings| {
        let exchanges = match arguments.simulate.as_deref() {
            None => Exchanges::Real,
            // Nothing behind the flag: simulated exchanges in this process.
            Some("") => {
                let options = simulated(&settings.simulate, Switches::default());
                // A port of its own: that of the settings may be taken by `simulate`.
                Exchanges::Simulated(Box::new(SimulatorOptions { port: 0, ..options }))
            }
            Some(address) => Exchanges::SimulatedAt(address.to_owned()),
        };
        let options = LiveOptions {
            exchanges,
            paper_trading: arguments.paper_trading,
            pg_bin: pg_bin(environment),
        };
        match app::live(&settings, options).await {
            Ok(Outcome::Clean) => ExitCode::Clean,
            Ok(Outcome::StageEnded(_)) => ExitCode::Failed,
            Ok(Outcome::NotStored(_)) => ExitCode::Loss,
            Err(error) => failed(&error),
        }
    })
}

/// `simulate`
pub(super) fn simulate(cli: &Cli, arguments: &SimulateArgs, environment: &Environment) -> ExitCode {
    let faults: Result<Switches, SwitchesError> = arguments.fault.join(",").parse();
    let faults = match faults {
        Ok(faults) => faults,
        Err(error) => {
            output::complain(&error);
            return ExitCode::Usage;
        }
    };
    with_settings(cli, environment, async |settings| {
        let cancel = CancellationToken::new();
        let mut signals = match StopSignals::listen() {
            Ok(signals) => signals,
            Err(error) => return failed(&error),
        };
        let mut options = simulated(&settings.simulate, faults);
        options.unissued = arguments.unissued.unwrap_or_default();
        let mut serving = std::pin::pin!(simulator::run(options, cancel.clone()));
        let ended = tokio::select! {
            ended = &mut serving => ended,
            _ = signals.next() => {
                cancel.cancel();
                serving.await
            }
        };
        match ended {
            Ok(()) => ExitCode::Clean,
            Err(error) => failed(&error),
        }
    })
}

/// `db`
pub(super) fn db(cli: &Cli, arguments: &DbArgs, environment: &Environment) -> ExitCode {
    let run = async |settings: Settings| {
        let options = Options::new(&settings.database, pg_bin(environment));
        let db_command = &arguments.command;
        // These work with other servers, or explain themselves why not.
        let is_for_all = matches!(
            db_command,
            DbCommand::Migrate
                | DbCommand::Reader(_)
                | DbCommand::Recording(_)
                | DbCommand::Remove { .. }
        );
        if !is_for_all && let Some(elsewhere) = elsewhere(&settings) {
            return usage(&elsewhere);
        }
        match db_command {
            DbCommand::Start => answer(command::start(&options).await),
            DbCommand::Stop { if_unused: false } => stop(&options).await,
            DbCommand::Stop { if_unused: true } => {
                answer(command::stop_unused(&options, LAST_USER_MAX).await)
            }
            DbCommand::Status { json: false } => answer(command::status(&options).await),
            DbCommand::Status { json: true } => match command::status(&options).await {
                Ok(status) => output::result(&format!("{:#}", serde_json::json!(status))),
                Err(error) => failed(&error),
            },
            DbCommand::Psql { args } => psql::psql(&settings, args, environment).await,
            DbCommand::Remove { yes } => remove::remove(&settings, *yes, environment).await,
            DbCommand::Migrate => match migrate_database(&settings, pg_bin(environment)).await {
                Ok(()) => output::text("the tables are up to date"),
                Err(error) => failed(&error),
            },
            DbCommand::Reader(wanted) => reader::reader(&settings, wanted, environment).await,
            DbCommand::Recording(wanted) => {
                recording::recording(&settings, wanted, environment).await
            }
        }
    };
    match &arguments.command {
        // Signals are psql's.
        DbCommand::Psql { .. } => with_settings(cli, environment, run),
        _ => interruptible(cli, environment, run),
    }
}

/// `db stop`
async fn stop(options: &Options) -> ExitCode {
    let stopped = match command::stop(options).await {
        Ok(stopped) => stopped,
        Err(error) => return failed(&error),
    };
    // Whoever stops one that does not run means the other one.
    let other = options.other();
    if stopped == command::Stop::NotRunning
        && command::status(&other).await.is_ok_and(|status| status.server.is_some())
    {
        let flag = flag(other.simulated);
        let which =
            if other.simulated { "of the simulated market" } else { "of the real exchanges" };
        return output::result(&format!(
            "{stopped}; that {which} is: `trading-core db stop{flag}` stops it"
        ));
    }
    output::result(&stopped.to_string())
}

/// A command for the embedded database, where the settings name another.
#[derive(Debug, thiserror::Error)]
#[error(
    "this is for the embedded database, and database.url is {url}: use that server's own tools"
)]
struct Elsewhere {
    url: String,
}

fn elsewhere(settings: &Settings) -> Option<Elsewhere> {
    match &settings.database.url {
        DatabaseUrl::Embedded => None,
        url @ DatabaseUrl::Server(_) => Some(Elsewhere { url: url.to_string() }),
    }
}

fn usage(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    output::complain(error);
    ExitCode::Usage
}

/// Runs a command with the checked settings, or reports what is wrong with them.
fn with_settings(
    cli: &Cli,
    environment: &Environment,
    run: impl AsyncFnOnce(Settings) -> ExitCode,
) -> ExitCode {
    let loaded = match load(cli, environment) {
        Ok(loaded) => loaded,
        Err(error) => return output::bad_settings(&error, cli.common.log_format),
    };
    announce(cli, &loaded);
    with_runtime(async || run(loaded.settings).await)
}

/// Runs a command that holds nothing which must be stored: a signal ends it where it is. The embedded database that was
/// started for it is stopped all the same.
fn interruptible(
    cli: &Cli,
    environment: &Environment,
    run: impl AsyncFnOnce(Settings) -> ExitCode,
) -> ExitCode {
    with_settings(cli, environment, async |settings| {
        let mut signals = match StopSignals::listen() {
            Ok(signals) => signals,
            Err(error) => return failed(&error),
        };
        let embedded = settings.clone();
        let signal = tokio::select! {
            code = run(settings) => return code,
            signal = signals.next() => signal,
        };
        Database::leave(&embedded, pg_bin(environment)).await;
        failed(&Interrupted { signal })
    })
}

/// Runs a command on threads of its own.
fn with_runtime(run: impl AsyncFnOnce() -> ExitCode) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(run());
            // A thread that still asks for a host's address must not hold the end up.
            runtime.shutdown_timeout(Duration::from_secs(1));
            code
        }
        Err(error) => failed(&error),
    }
}

fn simulated(settings: &SimulateSettings, faults: Switches) -> SimulatorOptions {
    let SimulateSettings { port, seed, rate } = *settings;
    SimulatorOptions { port, seed, rate, faults, announced: true, ..SimulatorOptions::default() }
}

fn pg_bin(environment: &Environment) -> Option<PathBuf> {
    environment.get("PG_BIN").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

fn answer(result: Result<impl std::fmt::Display, impl std::error::Error + 'static>) -> ExitCode {
    match result {
        Ok(answer) => output::text(&answer.to_string()),
        Err(error) => failed(&error),
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    output::complain(error);
    ExitCode::Failed
}
