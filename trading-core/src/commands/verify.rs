//! `verify`: the report as text or JSON.

use trading_core::app::{self, VerifyOptions};
use trading_core::cli::{Cli, ExitCode, VerifyArgs, check_symbols};
use trading_core::output;

use super::{Environment, failed, interruptible, pg_bin};

/// `verify`
pub(crate) fn verify(cli: &Cli, arguments: &VerifyArgs, environment: &Environment) -> ExitCode {
    if let Err(error) = check_symbols(&arguments.exchange, &arguments.symbol) {
        output::complain(&error);
        return ExitCode::Usage;
    }
    let options = VerifyOptions {
        exchanges: arguments.exchange.clone(),
        symbols: arguments.symbol.clone(),
        from: arguments.from,
        to: arguments.to,
        against_exchange: arguments.against_exchange,
        minutes: arguments.minutes,
        pg_bin: pg_bin(environment),
    };
    interruptible(cli, environment, async |settings| {
        let report = match app::verify(&settings, options).await {
            Ok(report) => report,
            Err(error) => return failed(&error),
        };
        let printed = if arguments.json {
            output::result(&format!("{:#}", report.to_json()))
        } else {
            output::page(&report.page())
        };
        match printed {
            ExitCode::Clean if !report.complete => ExitCode::Found,
            code => code,
        }
    })
}
