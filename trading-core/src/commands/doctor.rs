//! `doctor`: the diagnosis as text or JSON.

use trading_core::app;
use trading_core::cli::{Cli, DoctorArgs, ExitCode};
use trading_core::doctor::Diagnosis;
use trading_core::output;

use super::{Environment, failed, load, pg_bin, with_runtime};

/// `doctor`
pub(crate) fn doctor(cli: &Cli, arguments: &DoctorArgs, environment: &Environment) -> ExitCode {
    let loaded = match load(cli, environment) {
        Ok(loaded) => loaded,
        Err(error) => {
            let problems = error.problems().iter().map(ToString::to_string);
            return answer(&Diagnosis::of_bad_settings(problems), arguments);
        }
    };
    with_runtime(async || {
        match app::doctor(&loaded.settings, &loaded.sources(), pg_bin(environment)).await {
            Ok(diagnosis) => answer(&diagnosis, arguments),
            Err(error) => failed(&error),
        }
    })
}

fn answer(diagnosis: &Diagnosis, arguments: &DoctorArgs) -> ExitCode {
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
