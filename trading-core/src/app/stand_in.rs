//! Simulated exchanges beside a command that asks the exchanges of a simulated market's database: they serve the same
//! market, whose trades of any time are a function of its seed and rate.

use sqlx::PgPool;
use tracing::info;

use super::market_hours::MarketHours;
use super::served::ServedExchanges;
use super::start_error::StartError;
use crate::config::{DatabaseUrl, Settings};
use crate::domain::SimulatedMarket;
use crate::simulator::{Clock, Closure, MARKET_VERSION, SimulatorOptions};
use crate::store::embedded::Options;
use crate::store::postgres::origin::{Origin, origin};

/// Simulated exchanges that run inside this process until they are ended.
#[derive(Debug)]
pub(super) struct StandIn(ServedExchanges);

/// Why the exchanges of a database cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum StandInError {
    /// The trades of this database are simulated, and a real exchange would be asked.
    #[error(
        "this database holds trades of a simulated market, and {0} is a real exchange: add --simulated, which asks simulated \
         exchanges of that market. Or set exchanges.{0}.rest_url to those of `trading-core simulate`, with the seed and rate \
         that it was recorded with"
    )]
    Simulated(&'static str),
    /// The trades are real, and simulated exchanges would be asked.
    #[error("this database holds trades of real exchanges: leave --simulated out")]
    Real,
    /// The trades are simulated, and of a market that is not made here.
    #[error(
        "this database holds trades of a simulated market ({0}) that this version of trading-core does not make: what it would \
         be asked for are other trades (market {MARKET_VERSION}). To begin anew, type `trading-core db remove --simulated`, or \
         on a server of your own use another database"
    )]
    OtherVersion(String),
    /// The database cannot be asked whose trades it holds, or the simulated exchanges cannot be served.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl StandIn {
    /// The settings for asking the exchanges of this database: with `--simulated` simulated ones, which are started for
    /// it and given back.
    ///
    /// # Errors
    ///
    /// When the database holds trades of the other kind, or the simulated exchanges cannot be served.
    pub(super) async fn of_database(
        settings: &Settings,
        pool: &PgPool,
    ) -> Result<(Settings, Option<Self>), StandInError> {
        match (settings.database.simulated, origin(pool).await.map_err(StartError::from)?) {
            (true, Some(Origin::Exchanges)) => Err(StandInError::Real),
            (true, held) => {
                let market = match held {
                    Some(Origin::Simulated(market)) => Some(made_here(market)?),
                    _ => None,
                };
                let hours = match &settings.database.url {
                    DatabaseUrl::Embedded => {
                        let folder = Options::new(&settings.database, None).folder();
                        let folder = folder.map_err(StartError::from)?;
                        MarketHours::read(&folder).map_err(StartError::from)?
                    }
                    DatabaseUrl::Server(_) => None,
                };
                let (settings, stand_in) = Self::start(settings, market, hours).await?;
                Ok((settings, Some(stand_in)))
            }
            (false, Some(Origin::Simulated(_))) => {
                let real = settings.exchanges.iter().find(|it| it.enabled && it.rest_url.is_none());
                match real {
                    Some(real) => Err(StandInError::Simulated(real.name)),
                    None => Ok((settings.clone(), None)),
                }
            }
            (false, _) => Ok((settings.clone(), None)),
        }
    }

    /// Serves a market, that of the settings where a database does not name its own, with its clock and the times in which
    /// it was closed. Gives back settings that lead to it.
    ///
    /// # Errors
    ///
    /// When it cannot be served.
    pub(super) async fn start(
        settings: &Settings,
        market: Option<SimulatedMarket>,
        hours: Option<(Clock, Vec<Closure>)>,
    ) -> Result<(Settings, Self), StartError> {
        let mut settings = settings.clone();
        let simulate = &settings.simulate;
        let (seed, rate) = market.map_or((simulate.seed, simulate.rate), |it| (it.seed, it.rate));
        let (clock, closures) = hours.unwrap_or_default();
        let options =
            SimulatorOptions { seed, rate, clock, closures, ..SimulatorOptions::default() };
        let served = ServedExchanges::serve(options).await?;
        let address = served.address();
        for exchange in &mut settings.exchanges {
            exchange.ws_url = Some(format!("ws://{address}/{}", exchange.name));
            exchange.rest_url = Some(format!("http://{address}/{}", exchange.name));
        }
        info!("Simulated exchanges are asked (seed {seed}, rate {rate})");
        Ok((settings, Self(served)))
    }

    /// Ends them.
    pub(super) async fn end(self) {
        self.0.end().await;
    }
}

/// The market that a recorder has noted, where its trades are those that are served here.
fn made_here(noted: String) -> Result<SimulatedMarket, StandInError> {
    let market = SimulatedMarket::parse(&noted).filter(|it| it.version == MARKET_VERSION);
    market.ok_or(StandInError::OtherVersion(noted))
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;

    #[test]
    fn the_market_of_a_database_is_the_one_that_was_recorded_or_none_is_served() {
        let rate = Decimal::new(25, 1);
        let market = made_here(format!("seed 7, rate 2.5, market {MARKET_VERSION}")).unwrap();
        assert_eq!((market.seed, market.rate), (7, rate));
        for older in ["seed 7, rate 2.5", "seed 7, rate 2.5, market 1", ""] {
            let error = made_here(older.to_owned()).unwrap_err().to_string();
            assert!(error.contains("`trading-core db remove --simulated`"), "{error}");
        }
    }
}
