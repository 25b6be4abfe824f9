//! The exchanges of the settings: where each is reached, what of it is recorded, and what each room needs of it.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;
use tracing::warn;

use super::symbols::SymbolCheck;
use crate::config::{ExchangeSettings, Settings};
use crate::domain::{ExchangeStamps, Instrument, LastStored, RecorderClock, Symbol, Timestamp};
use crate::exchange::{self, Exchange, IdRule};
use crate::feed::{self, ConnectGate, FeedBoard, FeedContext, LivenessRules};
use crate::network::{Network, Pause};
use crate::pipeline::TickSender;
use crate::repair::RepairVenue;
use crate::rest::{RestClient, RestError};
use crate::store::journal::Journal;

/// One exchange to record: its protocol, where it is reached, what of it is recorded.
#[derive(Debug, Clone)]
pub(super) struct Venue {
    exchange: &'static dyn Exchange,
    settings: ExchangeSettings,
    instruments: Vec<Instrument>,
    ws_url: String,
    /// `None`: the settings do not say where the REST side of that WebSocket is.
    rest_url: Option<String>,
    client: Arc<RestClient>,
    /// Its clock, by the stamps of its trades.
    stamps: ExchangeStamps,
    network: Network,
    /// How long the venue sends this address away, from both of its sides.
    banned: Arc<Pause>,
}

/// A setting names an exchange that does not exist, or more instruments than there may be.
#[derive(Debug, thiserror::Error)]
pub enum VenueError {
    /// No such exchange.
    #[error("no exchange is called {0:?}")]
    Unknown(&'static str),
    /// Too many symbols.
    #[error(transparent)]
    Instruments(#[from] crate::domain::InstrumentError),
    /// Its REST side cannot be asked from this machine.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// TLS cannot be used on this machine.
    #[error("no TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Which exchanges are recorded: real or simulated ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VenueKind<'a> {
    /// The real ones, at the URLs of the settings: simulated ones are refused there.
    Real,
    /// Whoever answers at the URLs of the settings.
    Any,
    /// Simulated ones, each at `<name>` below this address.
    Simulated(&'a str),
}

/// The enabled exchanges of the settings.
///
/// # Errors
///
/// When an exchange is not known, or HTTP cannot be used.
pub(super) fn venues(settings: &Settings, reach: VenueKind<'_>) -> Result<Vec<Venue>, VenueError> {
    let mut venues = Vec::new();
    let network = Network::new(&settings.network)?;
    let (network, simulated) = match reach {
        VenueKind::Real => (network.without_simulators(), None),
        VenueKind::Any => (network, None),
        VenueKind::Simulated(address) => (network, Some(address)),
    };
    for settings in settings.exchanges.iter().filter(|exchange| exchange.enabled) {
        let exchange =
            exchange::by_name(settings.name).ok_or(VenueError::Unknown(settings.name))?;
        let instruments = settings
            .symbols
            .iter()
            .map(|symbol| Instrument::intern(settings.name, symbol))
            .collect::<Result<_, _>>()?;
        let ws_url = match (simulated, &settings.ws_url) {
            (Some(address), _) => format!("ws://{address}/{}", settings.name),
            (None, Some(url)) => url.clone(),
            (None, None) => exchange.endpoints().ws_url.to_owned(),
        };
        let rest_url = match (simulated, &settings.rest_url, &settings.ws_url) {
            (Some(address), ..) => Some(format!("http://{address}/{}", settings.name)),
            (None, Some(url), _) => Some(url.clone()),
            // The venue's own, asked for another unit of time.
            (None, None, Some(url)) if is_own(exchange, url) => {
                Some(exchange.endpoints().rest_url.to_owned())
            }
            // What another server sent must not be mixed with the real exchange's history.
            (None, None, Some(_)) => None,
            (None, None, None) => Some(exchange.endpoints().rest_url.to_owned()),
        };
        let seed = u64::try_from(Timestamp::now().as_micros()).unwrap_or_default();
        let banned = Arc::new(Pause::new(exchange.name(), seed));
        let rules = exchange.history().rules();
        let client = RestClient::new(rules, &network, Arc::clone(&banned))?
            .with_headers(exchange.history_headers(&ws_url));
        let client = Arc::new(client);
        let stamps = ExchangeStamps::default();
        let (settings, network) = (settings.clone(), network.clone());
        venues.push(Venue {
            exchange,
            settings,
            instruments,
            ws_url,
            rest_url,
            client,
            network,
            banned,
            stamps,
        });
    }
    Ok(venues)
}

/// Whether this base is the venue's own, whatever its query asks for.
fn is_own(exchange: &dyn Exchange, base: &str) -> bool {
    let base = base.split_once('?').map_or(base, |(base, _)| base);
    base.trim_end_matches('/') == exchange.endpoints().ws_url
}

/// What all feeds of a recorder are given.
#[derive(Debug, Clone, Copy)]
pub(super) struct FeedParts<'a> {
    /// Where recording goes on, of all symbols.
    pub(super) stored: &'a [LastStored],
    pub(super) sender: &'a TickSender,
    pub(super) board: &'a FeedBoard,
    pub(super) journal: &'a Journal,
    pub(super) clock: &'a RecorderClock,
    pub(super) seed: u64,
}

impl Venue {
    /// Whether this symbol of this exchange is recorded.
    pub(super) fn records(&self, exchange: &str, symbol: &Symbol) -> bool {
        self.exchange.name() == exchange
            && self.instruments.iter().any(|item| item.symbol() == symbol)
    }

    /// What repair needs of it; `None`: it cannot be repaired, which is logged.
    pub(super) fn repair(&self) -> Option<RepairVenue> {
        let Some(rest_url) = self.rest_url.clone() else {
            let name = self.exchange.name();
            warn!(
                "The gaps of {name} are listed and not repaired: exchanges.{name}.ws_url is set and rest_url is not"
            );
            return None;
        };
        Some(RepairVenue {
            exchange: self.exchange,
            instruments: self.instruments.clone(),
            rest_url,
            client: Arc::clone(&self.client),
        })
    }

    /// What is asked of it about its symbols; `None` where its REST side is not known.
    pub(super) fn symbol_check(&self) -> Option<SymbolCheck> {
        Some(SymbolCheck {
            exchange: self.exchange,
            rest_url: self.rest_url.clone()?,
            client: Arc::clone(&self.client),
            symbols: self.instruments.iter().map(|item| item.symbol().clone()).collect(),
        })
    }

    /// Its clock, by the stamps of its trades.
    pub(super) fn stamps(&self) -> ExchangeStamps {
        self.stamps.clone()
    }

    /// Its time, where it can be asked.
    pub(super) async fn time(&self) -> Option<Timestamp> {
        let history = self.exchange.history();
        let body = self.client.get(&history.clock_url(self.rest_url.as_deref()?)).await.ok()?;
        history.decode_clock(&body).ok()
    }

    pub(super) fn name(&self) -> &'static str {
        self.exchange.name()
    }

    /// What can be concluded from the ids of its trades.
    pub(super) fn ids(&self) -> IdRule {
        self.exchange.ids()
    }

    /// Each instrument with the venue's spelling.
    pub(super) fn spellings(&self) -> impl Iterator<Item = (Instrument, String)> {
        self.instruments.iter().map(|item| (*item, self.exchange.venue_symbol(item.symbol())))
    }

    /// The feeds of this venue, as many as its limits demand; each goes on where the store ends.
    pub(super) fn feeds(&self, parts: &FeedParts<'_>) -> Vec<FeedContext> {
        let FeedParts { stored, sender, board, journal, clock, seed } = *parts;
        let mut limits = self.exchange.limits();
        limits.idle = self.settings.idle.unwrap_or(limits.idle);
        let gate = Arc::new(ConnectGate::new(limits.connect_interval, Arc::clone(&self.banned)));
        feed::shards(&self.instruments, limits)
            .zip(1_u64..)
            .map(|(instruments, number)| FeedContext {
                name: format!("{}-{number}", self.exchange.name()),
                exchange: self.exchange,
                url: self.exchange.connect_url(&self.ws_url),
                limits,
                liveness: LivenessRules::default(),
                instruments: instruments.to_vec(),
                stored: stored
                    .iter()
                    .filter(|last| instruments.contains(&last.instrument))
                    .cloned()
                    .collect(),
                connections: self.settings.connections,
                clock: clock.clone(),
                stamps: self.stamps(),
                sender: sender.clone(),
                board: board.clone(),
                journal: journal.clone(),
                network: self.network.clone(),
                gate: Arc::clone(&gate),
                seed: seed ^ FxBuildHasher.hash_one((self.exchange.name(), number)),
            })
            .collect()
    }
}

impl std::fmt::Display for Venue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let symbols: Vec<&str> =
            self.instruments.iter().map(|item| item.symbol().as_str()).collect();
        write!(f, "{} at {}", self.exchange.name(), self.ws_url)?;
        let proxy = self.ws_url.parse().ok().and_then(|url| self.network.proxy_to(&url));
        if let Some(proxy) = proxy {
            write!(f, " through {proxy} (of {})", proxy.named_by)?;
        }
        write!(f, ": {}", symbols.join(" "))
    }
}
