//! What is recorded: the real exchanges, simulated ones inside this process, or simulated ones of another process.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::identity::identity;
use super::market_hours::MarketHours;
use super::served::ServedExchanges;
use super::start_error::StartError;
use super::venues::{Venue, VenueError, VenueKind, venues};
use crate::config::{DatabaseUrl, Settings};
use crate::domain::Timestamp;
use crate::network::Network;
use crate::simulator::{MARKET_VERSION, SimulatorOptions};
use crate::store::embedded::Options;
use crate::store::postgres::origin::Origin;

/// How long simulated exchanges of another process may take to answer.
const ASK_MAX: Duration = Duration::from_secs(5);

/// Which exchanges are recorded.
#[derive(Debug, Clone)]
pub enum Exchanges {
    /// The real ones.
    Real,
    /// Simulated ones, which are served inside this process with these options.
    Simulated(Box<SimulatorOptions>),
    /// The simulated ones that another process serves at this host and port.
    SimulatedAt(String),
}

/// The exchanges that are recorded, as long as they are.
pub(super) struct World {
    pub(super) venues: Vec<Venue>,
    /// Whose trades the database holds then.
    pub(super) origin: Origin,
    served: Option<ServedExchanges>,
    /// Closes the simulated market, while its exchanges are served still.
    pub(super) close: Option<CancellationToken>,
}

impl World {
    /// Finds the exchanges, and serves the simulated ones.
    pub(super) async fn build(
        settings: &Settings,
        exchanges: &Exchanges,
    ) -> Result<Self, StartError> {
        match exchanges {
            Exchanges::Real => Ok(Self {
                venues: venues(settings, VenueKind::Real)?,
                origin: Origin::Exchanges,
                served: None,
                close: None,
            }),
            Exchanges::Simulated(options) => {
                Self::here(settings, SimulatorOptions::clone(options)).await
            }
            Exchanges::SimulatedAt(address) => Self::elsewhere(settings, address).await,
        }
    }

    /// Simulated exchanges inside this process.
    async fn here(settings: &Settings, mut options: SimulatorOptions) -> Result<Self, StartError> {
        let (seed, rate) = (options.seed, options.rate);
        let hours = open_market(settings, &mut options)?;
        let mut served = ServedExchanges::serve(options).await?;
        let address = served.address();
        info!(
            "Simulated exchanges at ws://{address}/<exchange> (seed {seed}, {rate} trades/s a symbol)"
        );
        let venues = venues(settings, VenueKind::Simulated(&address.to_string()))?;
        let close = hours.map(|hours| served.keep_hours(hours));
        let origin =
            Origin::Simulated(format!("seed {seed}, rate {rate}, market {MARKET_VERSION}"));
        Ok(Self { venues, origin, served: Some(served), close })
    }

    /// Simulated exchanges that another process serves.
    async fn elsewhere(settings: &Settings, address: &str) -> Result<Self, StartError> {
        if settings.database.url == DatabaseUrl::Embedded {
            let folder = Options::new(&settings.database, None).folder()?;
            if MarketHours::read(&folder)?.is_some() {
                return Err(StartError::OtherHours(address.to_owned()));
            }
        }
        let network = Network::new(&settings.network).map_err(VenueError::from)?;
        let asked = tokio::time::timeout(ASK_MAX, network.simulated_market(address)).await;
        let nobody =
            |reason: String| StartError::NoSimulator { address: address.to_owned(), reason };
        let market = match asked {
            Ok(Ok(Some(market))) => market,
            Ok(Ok(None)) => return Err(nobody("what answers there is none".to_owned())),
            Ok(Err(error)) => return Err(nobody(error.to_string())),
            Err(_elapsed) => return Err(nobody("no answer in time".to_owned())),
        };
        info!("Simulated exchanges at ws://{address}/<exchange> ({market})");
        let venues = venues(settings, VenueKind::Simulated(address))?;
        Ok(Self { venues, origin: Origin::Simulated(market), served: None, close: None })
    }

    /// Ends the simulated exchanges of this process.
    pub(super) async fn end(self) {
        if let Some(served) = self.served {
            served.end().await;
        }
    }
}

/// Opens the market of the embedded database, which stands still while nobody records it. With any other database,
/// which recorders on several machines may share, it is always open.
fn open_market(
    settings: &Settings,
    simulated: &mut SimulatorOptions,
) -> Result<Option<MarketHours>, StartError> {
    if settings.database.url != DatabaseUrl::Embedded {
        return Ok(None);
    }
    let folder = Options::new(&settings.database, None).folder()?;
    let now = Timestamp::now();
    let (hours, closures) = MarketHours::open(&folder, &identity(now), now)?;
    if let Some(last) = closures.last().filter(|last| last.to > now) {
        let (from, to) = (last.from, last.to);
        info!(
            "The simulated market goes on where it stood at {from}, at {to}: while nobody records it, it is closed"
        );
    }
    simulated.clock = hours.clock();
    simulated.closures = closures;
    Ok(Some(hours))
}
