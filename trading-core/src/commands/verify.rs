//! `verify`: proves that what is stored is complete, or says what is not.

use sqlx::PgPool;
use trading_core::app::{Database, StandIn, StandInError};
use trading_core::cli::{Cli, ExitCode, VerifyArgs, check_places};
use trading_core::config::{ExchangeSettings, Settings};
use trading_core::domain::Timestamp;
use trading_core::domain::bounds::SETTLED;
use trading_core::exchange;
use trading_core::output;
use trading_core::store::postgres::{database_time, not_stored_for};
use trading_core::verify::{self, Comparison, Scope, VerifyError};

use super::place::must_be_there;
use super::{Environment, failed, interruptible, pg_bin};

/// Connections that read at once: the server computes, one core each.
const LOOKS_MAX: usize = 4;

/// Why it could not be looked at.
#[derive(Debug, thiserror::Error)]
enum Unverified {
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    StandIn(#[from] StandInError),
}

/// `verify`
pub(crate) fn verify(cli: &Cli, arguments: &VerifyArgs, environment: &Environment) -> ExitCode {
    if let Err(error) = check_places(&arguments.exchange, &arguments.symbol) {
        output::complain(&error);
        return ExitCode::Usage;
    }
    interruptible(cli, environment, async |settings| {
        match report(&settings, environment, arguments).await {
            Ok(report) => {
                let printed = if arguments.json {
                    output::result(&format!("{:#}", report.to_json()))
                } else {
                    output::page(&report.page())
                };
                match printed {
                    ExitCode::Clean if !report.complete => ExitCode::Found,
                    code => code,
                }
            }
            Err(code) => code,
        }
    })
}

/// `settle_seconds`: how many of the newest seconds are left out where no end is given.
fn scope(arguments: &VerifyArgs, settle_seconds: Option<u32>, now: Timestamp) -> Scope {
    let settled = now.plus_micros(-i64::from(settle_seconds.unwrap_or(0)) * 1_000_000);
    Scope {
        exchanges: arguments.exchange.clone(),
        symbols: arguments.symbol.clone(),
        from: arguments.from.map(|from| from.instant(now)),
        to: arguments.to.map_or(settled, |to| to.instant(now)),
        settle_seconds: settle_seconds.map(u64::from),
    }
}

fn comparison(arguments: &VerifyArgs, scope: &Scope, settings: &Settings) -> Comparison {
    let rest_url = |venue: &ExchangeSettings| {
        let own = || exchange::by_name(venue.name).map(|it| it.endpoints().rest_url.to_owned());
        Some((venue.name.to_owned(), venue.rest_url.clone().or_else(own)?))
    };
    Comparison {
        rest_urls: settings.exchanges.iter().filter_map(rest_url).collect(),
        network: settings.network.clone(),
        from: scope.from,
        to: scope.to,
        minutes: arguments.minutes,
    }
}

async fn report(
    settings: &Settings,
    environment: &Environment,
    arguments: &VerifyArgs,
) -> Result<verify::Report, ExitCode> {
    must_be_there(settings, environment, "verify").await?;
    let opened = Database::open(settings, pg_bin(environment)).await;
    let database = opened.map_err(|error| failed(&error))?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let looks = cores.min(LOOKS_MAX);
    // One more keeps the moment that all of them see.
    let connections = u32::try_from(looks).unwrap_or(1) + 1;
    let outcome = match database.pool(connections).await {
        Ok(pool) => {
            let report = verified(&pool, settings, arguments, looks).await;
            pool.close().await;
            report.map_err(|error| failed(&error))
        }
        Err(error) => Err(failed(&error)),
    };
    database.close().await;
    outcome
}

async fn verified(
    pool: &PgPool,
    settings: &Settings,
    arguments: &VerifyArgs,
    looks: usize,
) -> Result<verify::Report, Unverified> {
    // Where nobody records, nothing is on its way.
    let is_settling = arguments.to.is_none() && verify::is_recording(pool).await?;
    let held = not_stored_for(pool).await?.unwrap_or_default();
    let settled = u32::try_from(SETTLED.max(held).as_secs()).unwrap_or(u32::MAX);
    let settle_seconds = is_settling.then_some(settled);
    // This machine's clock may be off; the one that noted what is stored is the database's.
    let now = database_time(pool).await?.timestamp_micros();
    let now = Timestamp::from_micros(now).unwrap_or_else(|_| Timestamp::now());
    let scope = scope(arguments, settle_seconds, now);
    let mut report = verify::verify(pool, &scope, looks).await?;
    if arguments.against_exchange {
        let (settings, stand_in) = StandIn::of_database(settings, pool).await?;
        let comparison = comparison(arguments, &scope, &settings);
        let compared = verify::compare(pool, &mut report, &comparison).await;
        if let Some(stand_in) = stand_in {
            stand_in.end().await;
        }
        compared?;
    }
    Ok(report)
}
