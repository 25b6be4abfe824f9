//! `doctor`: the preflight.

use trading_core::app::StandIn;
use trading_core::cli::{Cli, DoctorArgs, ExitCode};
use trading_core::config::Settings;
use trading_core::doctor::{self, Diagnosis};
use trading_core::output;

use super::{Environment, failed, load, pg_bin, with_runtime};

/// `doctor`
pub(crate) fn doctor(cli: &Cli, arguments: &DoctorArgs, environment: &Environment) -> ExitCode {
    match load(cli, environment) {
        Ok(loaded) => with_runtime(async || {
            examined(&loaded.settings, &loaded.sources(), arguments, environment).await
        }),
        Err(error) => {
            let problems = error.problems().iter().map(ToString::to_string);
            tell(&Diagnosis::of_bad_settings(problems), arguments)
        }
    }
}

async fn examined(
    settings: &Settings,
    sources: &str,
    arguments: &DoctorArgs,
    environment: &Environment,
) -> ExitCode {
    if !settings.database.simulated {
        return tell(&doctor::examine(settings, sources, pg_bin(environment)).await, arguments);
    }
    // The exchanges that `live --simulate` records run inside this process too.
    match StandIn::start(settings, None, None).await {
        Ok((settings, stand_in)) => {
            let diagnosis = doctor::examine(&settings, sources, pg_bin(environment)).await;
            stand_in.end().await;
            tell(&diagnosis, arguments)
        }
        Err(error) => failed(&error),
    }
}

fn tell(diagnosis: &Diagnosis, arguments: &DoctorArgs) -> ExitCode {
    let printed = if arguments.json {
        output::result(&format!("{:#}", diagnosis.to_json()))
    } else {
        output::page(&diagnosis.page())
    };
    match printed {
        ExitCode::Clean if diagnosis.would_fail => ExitCode::Found,
        code => code,
    }
}
