//! `db psql`: in the place of this process where the server runs. Else the server runs for as long as psql does, so that
//! reading the data needs no recorder.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use trading_core::app::{Database, Interrupted, StopSignals, must_be_there};
use trading_core::cli::ExitCode;
use trading_core::config::Settings;
use trading_core::store::embedded::{Cluster, EmbeddedError, Options, command};

use super::{Environment, failed, pg_bin};

/// `db psql`
pub(super) async fn psql(
    settings: &Settings,
    arguments: &[String],
    environment: &Environment,
) -> ExitCode {
    if let Err(error) = must_be_there(settings, pg_bin(environment), "db psql").await {
        return failed(&error);
    }
    let options = Options::new(&settings.database, pg_bin(environment));
    match command::psql(&options, arguments.iter().map(Into::into).collect()).await {
        // Returns only when psql could not take this process over.
        Ok(mut psql) => failed(&psql.exec()),
        Err(EmbeddedError::NotRunning { .. }) => {
            beside_a_server(settings, &options, arguments, environment).await
        }
        Err(error) => failed(&error),
    }
}

async fn beside_a_server(
    settings: &Settings,
    options: &Options,
    arguments: &[String],
    environment: &Environment,
) -> ExitCode {
    let mut signals = match StopSignals::listen() {
        Ok(signals) => signals,
        Err(error) => return failed(&error),
    };
    info!("The embedded database is stopped: it is started for as long as psql runs");
    let started = tokio::select! {
        started = Cluster::start(options) => started,
        signal = signals.next() => {
            Database::leave(settings, pg_bin(environment)).await;
            return failed(&Interrupted { signal });
        }
    };
    let cluster = match started {
        Ok(cluster) => cluster,
        Err(error) => return failed(&error),
    };
    let arguments = arguments.iter().map(Into::into).collect();
    let code = match command::psql(options, arguments).await {
        Ok(psql) => match run(psql).await {
            Ok(status) => code_of(status),
            Err(error) => failed(&error),
        },
        Err(error) => failed(&error),
    };
    match cluster.stop().await {
        Ok(_departure) => code,
        Err(error) => failed(&error),
    }
}

/// Runs psql to its end. Ctrl-C is psql's: it cancels a query there. What asks this process to end is passed on, and the
/// server is stopped after psql.
async fn run(psql: Command) -> std::io::Result<ExitStatus> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut psql = process::Command::from(psql).spawn()?;
    loop {
        tokio::select! {
            ended = psql.wait() => return ended,
            Some(()) = terminate.recv() => {}
            Some(()) = hang_up.recv() => {}
        }
        // One that has ended just now has no number, and needs no signal.
        let pid = psql.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid
            && let Err(error) = kill(Pid::from_raw(pid), Signal::SIGTERM)
        {
            tracing::debug!(%error, "psql could not be sent a signal");
        }
    }
}

/// As a shell has it: a signal's number comes after 128.
fn code_of(status: ExitStatus) -> ExitCode {
    let of_signal = status.signal().map(|number| number.saturating_add(128));
    let code = status.code().or(of_signal).and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::Failed, ExitCode::OfAnother)
}
