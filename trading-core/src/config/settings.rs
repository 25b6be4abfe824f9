//! The checked settings: what the rest of the program is given. Built only by this room, from the defaults,
//! the file, the environment and the flags, in that order.

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use rust_decimal::Decimal;

use super::NetworkSettings;
use crate::domain::Symbol;

/// All settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where ticks end.
    pub database: DatabaseSettings,
    /// The channel and the health line.
    pub pipeline: PipelineSettings,
    /// The batcher and its writes.
    pub batch: BatchSettings,
    /// What the store could not take.
    pub spool: SpoolSettings,
    /// How venues are reached.
    pub network: NetworkSettings,
    /// What was missed.
    pub backfill: BackfillSettings,
    /// The venues, in order of name; disabled ones are here too.
    pub exchanges: Vec<ExchangeSettings>,
    /// Paper trading.
    pub paper: PaperSettings,
    /// The simulated exchanges.
    pub simulate: SimulateSettings,
}

/// `[database]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// Which server.
    pub url: DatabaseUrl,
    /// The most connections of the pool.
    pub max_connections: NonZeroU32,
    /// The embedded cluster's directory; `None`: the platform's data directory.
    pub data_dir: Option<PathBuf>,
    /// Whether the database and the spool of the simulated market are meant, which lie in a folder of their own below that
    /// directory (and below `spool.dir`). No key: the command line says it.
    pub simulated: bool,
    /// Whether the embedded server listens on 127.0.0.1 beside its socket.
    pub tcp: bool,
    /// Day partitions older than this are dropped; `None`: never.
    pub retention: Option<Duration>,
}

/// Which PostgreSQL. Its `Debug` and `Display` never show a password.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// The private cluster that this program keeps.
    Embedded,
    /// Any other server: a `postgres://` URL, which may hold a password.
    Server(String),
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::Server(text) => f.write_str(&super::value::mask(text)),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `[pipeline]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineSettings {
    /// Ticks that the channel between feeds and batcher holds.
    pub channel_capacity: NonZeroUsize,
    /// How often the health line is logged.
    pub health_interval: Duration,
    /// How long a stop may take before it names the tasks that are late.
    pub stop_deadline: Duration,
}

/// `[batch]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSettings {
    /// Ticks that make a batch full.
    pub max_size: NonZeroUsize,
    /// How long the first tick of a batch waits at most.
    pub max_time: Duration,
    /// Ticks that one write carries at most when the writers are behind; at least `max_size`.
    pub max_coalesced: NonZeroUsize,
    /// Retries of a failed write before its batch goes to the spool.
    pub max_retry_attempts: u32,
    /// The wait before the first retry; doubled each time, with jitter.
    pub retry_delay: Duration,
    /// Writes that may be under way at once.
    pub writers: NonZeroUsize,
}

/// `[spool]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolSettings {
    /// Where it lives; `None`: beside the embedded database, or in the platform's data directory.
    pub dir: Option<PathBuf>,
    /// Bytes it may take on disk; when they are taken, the feeds wait.
    pub max_bytes: u64,
}

/// `[backfill]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackfillSettings {
    /// Whether `live` repairs gaps by itself.
    pub enabled: bool,
    /// Gaps that begin longer ago are left to the command `backfill`.
    pub max_age: Duration,
}

/// `[exchanges.<name>]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeSettings {
    /// One of [`crate::exchange::names`].
    pub name: &'static str,
    /// Whether it is recorded.
    pub enabled: bool,
    /// What is recorded; no symbol twice.
    pub symbols: Vec<Symbol>,
    /// Another WebSocket base than the venue's own (a proxy, a test server), without trailing slash.
    pub ws_url: Option<String>,
    /// Another REST base than the venue's own, without trailing slash.
    pub rest_url: Option<String>,
    /// Another limit than the venue's default for a connection without trades.
    pub idle: Option<Duration>,
    /// Connections that carry the same symbols beside each other; the first that brings a trade decides.
    pub connections: NonZeroUsize,
}

/// `[paper]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaperSettings {
    /// Ticks that may wait for the strategies; what comes when it is full is missed, and counted.
    pub channel_capacity: NonZeroUsize,
    /// How often equity is stored.
    pub equity_interval: Duration,
    /// The strategies that run side by side, each with an account of its own.
    pub strategies: Vec<StrategySettings>,
}

/// `[paper.strategies.<name>]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrategySettings {
    /// Its name, unique; the account's name too.
    pub name: String,
    /// Which strategy: `sma_crossover`, `mean_reversion`. Checked by the paper room, which knows them.
    pub kind: String,
    /// The exchange whose ticks it sees.
    pub exchange: String,
    /// The symbols it trades.
    pub symbols: Vec<Symbol>,
    /// Cash at the start, in quote currency.
    pub cash: Decimal,
    /// Fee per traded value: `0.001` is 0.1 %.
    pub fee_rate: Decimal,
    /// Price moved against the order when it fills, as a part of the price: `0.0005`.
    pub slippage: Decimal,
    /// The most value held of one symbol, in quote currency.
    pub position_limit: Decimal,
    /// The strategy's own settings, as written; checked by the strategy.
    pub parameters: BTreeMap<String, String>,
}

/// The keys that every strategy has.
pub(super) const STRATEGY_KEYS: [&str; 7] =
    ["kind", "exchange", "symbols", "cash", "fee_rate", "slippage", "position_limit"];

/// A strategy as far as it could be read: what is wrong or missing is `None`, and is a problem already.
///
/// The room that knows strategies checks the rest of it, and its problems are reported together with those of here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrategyDraft {
    /// As [`StrategySettings::name`].
    pub name: String,
    /// As [`StrategySettings::kind`].
    pub kind: Option<String>,
    /// As [`StrategySettings::exchange`].
    pub exchange: Option<String>,
    /// As [`StrategySettings::symbols`]; not empty.
    pub symbols: Option<Vec<Symbol>>,
    /// As [`StrategySettings::cash`].
    pub cash: Option<Decimal>,
    /// As [`StrategySettings::fee_rate`].
    pub fee_rate: Option<Decimal>,
    /// As [`StrategySettings::slippage`].
    pub slippage: Option<Decimal>,
    /// As [`StrategySettings::position_limit`].
    pub position_limit: Option<Decimal>,
    /// As [`StrategySettings::parameters`].
    pub parameters: BTreeMap<String, String>,
}

impl StrategyDraft {
    /// The strategy, where nothing of it is wrong.
    pub(super) fn complete(self) -> Option<StrategySettings> {
        Some(StrategySettings {
            name: self.name,
            kind: self.kind?,
            exchange: self.exchange?,
            symbols: self.symbols?,
            cash: self.cash?,
            fee_rate: self.fee_rate?,
            slippage: self.slippage?,
            position_limit: self.position_limit?,
            parameters: self.parameters,
        })
    }
}

impl From<&StrategySettings> for StrategyDraft {
    fn from(settings: &StrategySettings) -> Self {
        Self {
            name: settings.name.clone(),
            kind: Some(settings.kind.clone()),
            exchange: Some(settings.exchange.clone()),
            symbols: Some(settings.symbols.clone()),
            cash: Some(settings.cash),
            fee_rate: Some(settings.fee_rate),
            slippage: Some(settings.slippage),
            position_limit: Some(settings.position_limit),
            parameters: settings.parameters.clone(),
        }
    }
}

/// `[simulate]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulateSettings {
    /// Port of the simulated exchanges on loopback; 0: one that the system chooses.
    pub port: u16,
    /// Which market: the same seed gives the same trades.
    pub seed: u64,
    /// Trades per second of each symbol.
    pub rate: Decimal,
}
