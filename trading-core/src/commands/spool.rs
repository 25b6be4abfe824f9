//! `trading-core spool`

use std::fmt::Write as _;

use serde_json::json;
use trading_core::app::{DrainError, Wanted, drain_spool};
use trading_core::cli::{Cli, ExitCode, SpoolArgs, SpoolCommand};
use trading_core::config::Settings;
use trading_core::domain::Tick;
use trading_core::output;
use trading_core::store::spool;

use super::{Environment, failed, pg_bin, with_settings};

/// `spool`
pub(crate) fn spool(cli: &Cli, arguments: &SpoolArgs, environment: &Environment) -> ExitCode {
    with_settings(cli, environment, async |settings| {
        let dir = match spool::folder(&settings.spool, &settings.database) {
            Ok(dir) => dir,
            Err(error) => return failed(&error),
        };
        match &arguments.command {
            SpoolCommand::Status { json } => match spool::status(&dir, settings.spool.max_bytes) {
                Ok(status) if *json => output::result(&format!("{:#}", json!(status))),
                Ok(status) => {
                    let hint = elsewhere(&settings).unwrap_or_default();
                    output::result(&format!("{status}{hint}"))
                }
                Err(error) => failed(&error),
            },
            SpoolCommand::Inspect { json, limit, damaged } => {
                let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
                match spool::inspect(&dir, limit, *damaged) {
                    Ok(ticks) if ticks.is_empty() => ExitCode::Clean,
                    Ok(ticks) => output::result(&listed(&ticks, *json)),
                    Err(error) => failed(&error),
                }
            }
            SpoolCommand::Drain { damaged, adopt } => {
                let wanted = Wanted { damaged: *damaged, adopted: adopt.as_deref() };
                match drain_spool(&settings, pg_bin(environment), wanted).await {
                    Ok(drained) => match output::result(&drained.to_string()) {
                        ExitCode::Clean if !drained.is_complete() => ExitCode::Loss,
                        code => code,
                    },
                    Err(error) => match (failed(&error), error) {
                        (_, DrainError::Store { .. }) => ExitCode::Loss,
                        (code, _) => code,
                    },
                }
            }
        }
    })
}

/// What waits in the other spool, of the simulated market or of the real exchanges, and the command that shows it.
fn elsewhere(settings: &Settings) -> Option<String> {
    let mut database = settings.database.clone();
    database.simulated = !database.simulated;
    let dir = spool::folder(&settings.spool, &database).ok()?;
    let status = spool::status(&dir, settings.spool.max_bytes).ok()?;
    let (which, flag) = match database.simulated {
        true => ("the simulated market", " --simulated"),
        false => ("real exchanges", ""),
    };
    let ticks = status.ticks;
    (ticks > 0).then(|| {
        format!("\nOf {which} {ticks} ticks wait elsewhere: `trading-core spool status{flag}`")
    })
}

fn listed(ticks: &[(u32, Tick)], as_json: bool) -> String {
    let mut text = String::new();
    for (slot, tick) in ticks {
        let Tick { instrument, trade_id, price, quantity, side, .. } = tick;
        let (exchange, symbol, time) =
            (instrument.exchange(), instrument.symbol(), tick.exchange_at);
        let side = side.as_str();
        let written = if as_json {
            let tick = json!({
                "slot": slot,
                "exchange": exchange,
                "symbol": symbol.as_str(),
                "trade_id": trade_id.to_string(),
                "time": time.to_string(),
                "received_at": tick.received_at.to_string(),
                "side": side,
                "price": price.to_string(),
                "quantity": quantity.to_string(),
                "source": tick.source.as_str(),
            });
            writeln!(text, "{tick}")
        } else {
            writeln!(text, "{exchange} {symbol} {trade_id} {time} {side} {price} {quantity}")
        };
        // A string takes everything.
        debug_assert!(written.is_ok());
    }
    text
}
