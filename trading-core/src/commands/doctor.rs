//! `doctor`: the preflight.

use trading_core::cli::{Cli, DoctorArgs, ExitCode};
use trading_core::doctor::{self, Diagnosis};
use trading_core::output;

use super::{Environment, load, pg_bin, with_runtime};

/// `doctor`
pub(crate) fn doctor(cli: &Cli, arguments: &DoctorArgs, environment: &Environment) -> ExitCode {
    match load(cli, environment) {
        Ok(loaded) => with_runtime(async || {
            let (settings, sources) = (&loaded.settings, loaded.sources());
            tell(&doctor::examine(settings, &sources, pg_bin(environment)).await, arguments)
        }),
        Err(error) => {
            let problems = error.problems().iter().map(ToString::to_string);
            tell(&Diagnosis::of_bad_settings(problems), arguments)
        }
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
