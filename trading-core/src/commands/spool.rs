//! `trading-core spool`

use std::path::Path;

use serde_json::{Value, json};
use tracing::{info, warn};
use trading_core::app::{DrainError, DrainOptions, Drained, drain_spool};
use trading_core::cli::{Cli, ExitCode, SpoolArgs, SpoolCommand};
use trading_core::config::Settings;
use trading_core::domain::{Tick, count};
use trading_core::output;
use trading_core::store::embedded::flag;
use trading_core::store::spool;
use trading_core::telemetry::{Grouped, Page};

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
                    let mut page = status.page();
                    if let Some(hint) = elsewhere(&settings) {
                        page.line(hint);
                    }
                    output::page(&page)
                }
                Err(error) => failed(&error),
            },
            SpoolCommand::Inspect { json, limit, damaged } => {
                let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
                match spool::inspect(&dir, limit, *damaged) {
                    Ok(ticks) if ticks.is_empty() => ExitCode::Clean,
                    Ok(ticks) => {
                        let code = match json {
                            true => output::result(&json_lines(&ticks)),
                            false => output::page(&listed(&ticks)),
                        };
                        log_others(&dir, ticks.len(), *damaged);
                        code
                    }
                    Err(error) => failed(&error),
                }
            }
            SpoolCommand::Drain { damaged, adopt, json } => {
                let wanted = DrainOptions { damaged: *damaged, adopted: adopt.as_deref() };
                answer(drain_spool(&settings, pg_bin(environment), wanted).await, *json)
            }
        }
    })
}

fn answer(drained: Result<Drained, DrainError>, as_json: bool) -> ExitCode {
    match drained {
        Ok(drained) => {
            let printed = if as_json {
                output::result(&format!("{:#}", json_of(&drained)))
            } else {
                output::text(&drained.to_string())
            };
            match printed {
                ExitCode::Clean if !drained.is_complete() => ExitCode::Loss,
                code => code,
            }
        }
        Err(error) => match (failed(&error), error) {
            (_, DrainError::Store { .. }) => ExitCode::Loss,
            (code, _) => code,
        },
    }
}

fn json_of(drained: &Drained) -> Value {
    let Drained { written, losses, left, dir } = drained;
    json!({
        "complete": drained.is_complete(),
        "dir": dir,
        "stored": written.stored,
        "duplicates": written.duplicates,
        "rejected": written.rejected,
        "left": left,
        "losses": losses,
    })
}

/// What waits in the other spool, of the simulated market or of the real exchanges, and the command that shows it.
fn elsewhere(settings: &Settings) -> Option<String> {
    let mut database = settings.database.clone();
    database.simulated = !database.simulated;
    let dir = spool::folder(&settings.spool, &database).ok()?;
    let status = spool::status(&dir, settings.spool.max_bytes).ok()?;
    let flag = flag(database.simulated);
    let which = if database.simulated { "the simulated market" } else { "real exchanges" };
    let ticks = Grouped(status.ticks);
    (status.ticks > 0).then(|| {
        format!("Of {which} {ticks} ticks wait elsewhere: `trading-core spool status{flag}`")
    })
}

/// Says on standard error how many more there are: standard output has ticks only.
fn log_others(dir: &Path, printed: usize, damaged: bool) {
    let printed = count(printed);
    match spool::inspectable(dir, damaged) {
        Ok(all) if all > printed => info!(
            "{printed} of {all} ticks are printed, the oldest of each slot first; --limit N prints more"
        ),
        Ok(_) => {}
        Err(error) => warn!(%error, "How many ticks there are is not known"),
    }
}

fn json_lines(ticks: &[(u32, Tick)]) -> String {
    let mut text = String::new();
    for (slot, tick) in ticks {
        let tick = json!({
            "slot": slot,
            "exchange": tick.instrument.exchange(),
            "symbol": tick.instrument.symbol().as_str(),
            "trade_id": tick.trade_id.to_string(),
            "time": tick.exchange_at.to_string(),
            "received_at": tick.received_at.to_string(),
            "side": tick.side.as_str(),
            "price": tick.price.to_string(),
            "quantity": tick.quantity.to_string(),
            "source": tick.source.as_str(),
        });
        text.push_str(&tick.to_string());
        text.push('\n');
    }
    text
}

/// Exchange, symbol, trade id, time, side, price, quantity.
fn listed(ticks: &[(u32, Tick)]) -> Page {
    let mut page = Page::default();
    for (_, tick) in ticks {
        let Tick { instrument, trade_id, price, quantity, side, exchange_at, .. } = tick;
        let (exchange, symbol) = (instrument.exchange(), instrument.symbol());
        let side = side.as_str();
        page.line(format!(
            "{exchange} {symbol} {trade_id} {exchange_at} {side} {price} {quantity}"
        ));
    }
    page
}
