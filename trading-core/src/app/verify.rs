//! `trading-core verify`: judges what is stored, also while a recorder stores more.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::PgPool;

use super::database::Database;
use super::recorded::must_be_there;
use super::stand_in::{StandIn, StandInError};
use super::start_error::StartError;
use crate::config::{ExchangeSettings, Settings};
use crate::domain::bounds::SETTLED;
use crate::domain::{SymbolRef, Timestamp, When};
use crate::exchange;
use crate::store::postgres::gaps::database_time;
use crate::store::postgres::latest::not_stored_for;
use crate::verify::{self, Comparison, Report, Scope, VerifyError};

/// Connections that read at once: the server computes, one core each.
const READERS_MAX: usize = 4;

/// What is judged.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// Only these exchanges; empty: all.
    pub exchanges: Vec<String>,
    /// Only these symbols; empty: all.
    pub symbols: Vec<SymbolRef>,
    /// From this exchange time on; `None`: from the first stored trade.
    pub from: Option<When>,
    /// Up to this exchange time, excluded; `None`: now, without what may still be on its way to the database.
    pub to: Option<When>,
    /// Compare with the exchanges' own candles too.
    pub against_exchange: bool,
    /// How many of the newest minutes are compared, where `from` is not given.
    pub minutes: u32,
    /// Where PostgreSQL's programs are (`PG_BIN`); `None`: searched for.
    pub pg_bin: Option<PathBuf>,
}

/// Why it could not be judged.
#[derive(Debug, thiserror::Error)]
pub enum VerifyFailure {
    /// The database is not there, or cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// What is stored cannot be judged.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The database does not answer.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The exchanges of this database cannot be asked.
    #[error(transparent)]
    StandIn(#[from] StandInError),
}

/// Judges what is stored.
///
/// # Errors
///
/// When it cannot be judged; what is missing is in the report.
pub async fn verify(settings: &Settings, options: VerifyOptions) -> Result<Report, VerifyFailure> {
    must_be_there(settings, options.pg_bin.clone(), "verify").await?;
    let database = Database::open(settings, options.pg_bin.clone()).await?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let readers = cores.min(READERS_MAX);
    // One more keeps the moment that all of them see.
    let connections = u32::try_from(readers).unwrap_or(1) + 1;
    let judged = match database.pool(connections).await {
        Ok(pool) => {
            let judged = judge(&pool, settings, &options, readers).await;
            pool.close().await;
            judged
        }
        Err(error) => Err(error.into()),
    };
    database.close().await;
    judged
}

async fn judge(
    pool: &PgPool,
    settings: &Settings,
    options: &VerifyOptions,
    readers: usize,
) -> Result<Report, VerifyFailure> {
    // Where nobody records, nothing is on its way.
    let is_settling = options.to.is_none() && verify::is_recording(pool).await?;
    let held = not_stored_for(pool).await?.unwrap_or_default();
    let settled = SETTLED.max(held).as_secs();
    let settle_seconds = is_settling.then_some(settled);
    // This machine's clock may be off; the one that noted what is stored is the database's.
    let now = database_time(pool).await?.timestamp_micros();
    let now = Timestamp::from_micros(now).unwrap_or_else(|_| Timestamp::now());
    let scope = scope(options, settle_seconds, now);
    let mut report = verify::verify(pool, &scope, readers).await?;
    if options.against_exchange {
        let (settings, stand_in) = StandIn::of_database(settings, pool).await?;
        let comparison = comparison(options, &scope, &settings);
        let compared = verify::compare(pool, &mut report, &comparison).await;
        if let Some(stand_in) = stand_in {
            stand_in.end().await;
        }
        compared?;
    }
    Ok(report)
}

/// `settle_seconds`: how many of the newest seconds are left out where no end is given.
fn scope(options: &VerifyOptions, settle_seconds: Option<u64>, now: Timestamp) -> Scope {
    let settled = now - Duration::from_secs(settle_seconds.unwrap_or(0));
    Scope {
        exchanges: options.exchanges.clone(),
        symbols: options.symbols.clone(),
        from: options.from.map(|from| from.instant(now)),
        to: options.to.map_or(settled, |to| to.instant(now)),
        settle_seconds,
    }
}

fn comparison(options: &VerifyOptions, scope: &Scope, settings: &Settings) -> Comparison {
    let rest_url = |venue: &ExchangeSettings| {
        let own = || exchange::by_name(venue.name).map(|it| it.endpoints().rest_url.to_owned());
        Some((venue.name.to_owned(), venue.rest_url.clone().or_else(own)?))
    };
    Comparison {
        rest_urls: settings.exchanges.iter().filter_map(rest_url).collect(),
        network: settings.network.clone(),
        from: scope.from,
        to: scope.to,
        minutes: options.minutes,
    }
}
