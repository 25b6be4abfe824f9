//! Written values to trusted types. Every value is checked, also after a wrong one, and each that is
//! wrong becomes a problem.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rust_decimal::Decimal;
use url::Url;

use super::merge::{Merged, strategy_key};
use super::network::{PROXY_ALLOWED, Proxies, Proxy, authorities};
use super::schema::{STRATEGIES, one_of_exchanges};
use super::server_url::ServerUrl;
use super::settings::STRATEGY_KEYS;
use super::symbols::read_list;
use super::value::{Origin, Value};
use super::{
    BackfillSettings, BatchSettings, DatabaseSettings, DatabaseUrl, ExchangeSettings,
    NetworkSettings, PaperSettings, PipelineSettings, Problem, Settings, SimulateSettings,
    SpoolSettings, StrategyDraft,
};
use crate::domain::{Symbol, parse_decimal};
use crate::exchange::{self, Exchange};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Less than a mebibyte would not hold one large write.
const SPOOL_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 40;

/// Reads values by key and keeps what is wrong with them.
pub(super) struct Checker<'a> {
    merged: &'a Merged,
    problems: Vec<Problem>,
    /// Which keys were asked for: a key of the defaults that nobody reads would be a setting without effect.
    read: Vec<String>,
}

/// What came of a check.
#[derive(Debug)]
pub(super) struct Checked {
    /// All settings; `None` where any is wrong.
    pub(super) settings: Option<Settings>,
    /// The exchanges that nothing is wrong with.
    pub(super) exchanges: Vec<ExchangeSettings>,
    /// Every strategy, as far as it could be read.
    pub(super) strategies: Vec<StrategyDraft>,
    /// The keys that were read.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test asks whether every key is read"))]
    pub(super) read: Vec<String>,
}

/// All settings, or problems with them.
pub(super) fn check(
    merged: &Merged,
    environment: &BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) -> Checked {
    let mut checker = Checker { merged, problems: Vec::new(), read: Vec::new() };
    let database = checker.database();
    let pipeline = checker.pipeline();
    let batch = checker.batch();
    let spool = checker.spool();
    let network = checker.network(environment);
    let backfill = checker.backfill();
    let exchanges = checker.exchanges();
    let readable = exchanges.iter().flatten().cloned().collect();
    let exchanges: Option<Vec<_>> = exchanges.into_iter().collect();
    let strategies = checker.strategies();
    let paper = checker.paper(&strategies);
    let simulate = checker.simulate();
    checker.connections(database.as_ref(), batch.as_ref());
    let clean = checker.problems.is_empty();
    problems.append(&mut checker.problems);
    let settings = || {
        Some(Settings {
            database: database?,
            pipeline: pipeline?,
            batch: batch?,
            spool: spool?,
            network: network?,
            backfill: backfill?,
            exchanges: exchanges?,
            paper: paper?,
            simulate: simulate?,
        })
    };
    let settings = if clean { settings() } else { None };
    Checked { settings, exchanges: readable, strategies, read: checker.read }
}

/// The sections.
impl Checker<'_> {
    fn database(&mut self) -> Option<DatabaseSettings> {
        let url = self.database_url("database.url");
        // PostgreSQL itself admits a hundred by default; a thousand is past what any server bears.
        let max_connections = self.whole::<NonZeroU32>("database.max_connections", 1..=1000);
        let data_dir = self.folder("database.data_dir", "the platform's data directory");
        let tcp = self.take("database.tcp", "true or false", |it| it.scalar()?.parse().ok());
        let retention =
            self.take("database.retention", "\"none\", or from \"1d\" to \"36500d\"", |value| {
                match value {
                    Value::Text(text) if text == "none" => Some(None),
                    value => duration(value, DAY..=DAY * 36_500).map(Some),
                }
            });
        Some(DatabaseSettings {
            url: url?,
            max_connections: max_connections?,
            data_dir: data_dir?,
            simulated: false,
            tcp: tcp?,
            retention: retention?,
        })
    }

    fn database_url(&mut self, key: &str) -> Option<DatabaseUrl> {
        self.read.push(key.to_owned());
        let text = self.merged.get(key).and_then(|entry| entry.value.scalar()).unwrap_or_default();
        if text == "embedded" {
            return Some(DatabaseUrl::Embedded);
        }
        match ServerUrl::parse(text) {
            Ok(_read) => Some(DatabaseUrl::Server(text.to_owned())),
            Err(error) => {
                self.refuse(key, error.to_string());
                None
            }
        }
    }

    /// The writers take connections of their own out of the same number.
    fn connections(&mut self, database: Option<&DatabaseSettings>, batch: Option<&BatchSettings>) {
        let (Some(database), Some(batch)) = (database, batch) else { return };
        let connections = usize::try_from(database.max_connections.get()).unwrap_or(usize::MAX);
        if connections <= batch.writers.get() {
            let writers = batch.writers;
            let allowed =
                format!("more than batch.writers, which is {writers}: each writes on its own");
            self.refuse("database.max_connections", allowed);
        }
    }

    fn pipeline(&mut self) -> Option<PipelineSettings> {
        // 80 bytes a tick: ten millions are 800 MB, past which memory and not the channel is the limit.
        let channel_capacity =
            self.whole::<NonZeroUsize>("pipeline.channel_capacity", 1..=10_000_000);
        let health_interval = self.duration("pipeline.health_interval", SECOND..=DAY);
        let stop_deadline = self.duration("pipeline.stop_deadline", SECOND / 10..=HOUR);
        Some(PipelineSettings {
            channel_capacity: channel_capacity?,
            health_interval: health_interval?,
            stop_deadline: stop_deadline?,
        })
    }

    fn batch(&mut self) -> Option<BatchSettings> {
        let max_size = self.whole::<NonZeroUsize>("batch.max_size", 1..=100_000);
        let max_time = self.duration("batch.max_time", SECOND / 1000..=HOUR);
        // One write is one COPY held in memory, about 100 bytes a row.
        let max_coalesced = self.whole::<NonZeroUsize>("batch.max_coalesced", 1..=1_000_000);
        // Twenty doublings of one second are twelve days.
        let max_retry_attempts = self.whole::<u32>("batch.max_retry_attempts", 0..=20);
        let retry_delay = self.duration("batch.retry_delay", SECOND / 1000..=HOUR);
        let writers = self.whole::<NonZeroUsize>("batch.writers", 1..=64);
        if let (Some(size), Some(coalesced)) = (max_size, max_coalesced)
            && coalesced < size
        {
            self.refuse("batch.max_coalesced", format!("at least batch.max_size, which is {size}"));
        }
        Some(BatchSettings {
            max_size: max_size?,
            max_time: max_time?,
            max_coalesced: max_coalesced?,
            max_retry_attempts: max_retry_attempts?,
            retry_delay: retry_delay?,
            writers: writers?,
        })
    }

    fn spool(&mut self) -> Option<SpoolSettings> {
        let dir = self.folder("spool.dir", "a place beside the embedded database");
        let max_bytes = self.take(
            "spool.max_bytes",
            "a size with its unit from \"1MiB\" to \"1TiB\"",
            |value| {
                let Value::Text(text) = value else { return None };
                let size: bytesize::ByteSize = text.trim().parse().ok()?;
                let has_unit = text.trim().ends_with(['B', 'b']);
                (has_unit && SPOOL_BYTES.contains(&size.as_u64())).then(|| size.as_u64())
            },
        );
        Some(SpoolSettings { dir: dir?, max_bytes: max_bytes? })
    }

    fn network(&mut self, environment: &BTreeMap<String, String>) -> Option<NetworkSettings> {
        let key = "network.proxy";
        let proxy = self.take(key, PROXY_ALLOWED, |value| match value.scalar()? {
            "" => Some(None),
            text => Proxy::parse(text, key).map(Some),
        });
        let (proxies, wrong) = Proxies::new(proxy.as_ref().and_then(Option::as_ref), environment);
        for name in wrong {
            let value = environment.get(&name).cloned().map(Value::Text);
            self.problems.push(Problem {
                value: value.map(|value| value.masked(key).to_string()),
                allowed: PROXY_ALLOWED.to_owned(),
                origin: Origin::Environment(name.clone()),
                key: name,
            });
        }
        let own = self.folder("network.ca_file", "the public authorities alone");
        let mut found = Vec::new();
        if let Some(path) = own.as_ref().and_then(Option::as_deref) {
            match authorities(path) {
                Ok(mut more) => found.append(&mut more),
                Err(allowed) => self.refuse("network.ca_file", allowed),
            }
        }
        let name = "SSL_CERT_FILE";
        if let Some(path) = environment.get(name).filter(|path| !path.is_empty()) {
            match authorities(Path::new(path)) {
                Ok(mut more) => found.append(&mut more),
                Err(allowed) => self.problems.push(Problem {
                    key: name.to_owned(),
                    value: Some(Value::Text(path.clone()).to_string()),
                    allowed,
                    origin: Origin::Environment(name.to_owned()),
                }),
            }
        }
        own.zip(proxy).map(|_| NetworkSettings { proxies, authorities: found })
    }

    fn backfill(&mut self) -> Option<BackfillSettings> {
        let enabled =
            self.take("backfill.enabled", "true or false", |it| it.scalar()?.parse().ok());
        let max_age = self.duration("backfill.max_age", SECOND..=DAY * 365);
        Some(BackfillSettings { enabled: enabled?, max_age: max_age? })
    }

    fn exchanges(&mut self) -> Vec<Option<ExchangeSettings>> {
        let all: Vec<_> = exchange::all().map(|exchange| self.exchange(exchange)).collect();
        if all.iter().flatten().count() == all.len() && !all.iter().flatten().any(|it| it.enabled) {
            let first = exchange::names().first().copied().unwrap_or("*");
            let first = format!("exchanges.{first}.enabled");
            self.refuse(&first, "at least one exchange must be enabled".to_owned());
        }
        all
    }

    fn exchange(&mut self, exchange: &dyn Exchange) -> Option<ExchangeSettings> {
        let name = exchange.name();
        let key = |leaf: &str| format!("exchanges.{name}.{leaf}");
        let enabled = self.take(&key("enabled"), "true or false", |it| it.scalar()?.parse().ok());
        let symbols = self.symbols(&key("symbols"), Some(name));
        if enabled == Some(true) && symbols.as_ref().is_some_and(Vec::is_empty) {
            let allowed = format!("at least one symbol, or exchanges.{name}.enabled = false");
            self.refuse(&key("symbols"), allowed);
        }
        let ws_url = self.endpoint(&key("ws_url"), ["ws", "wss"], exchange.base_queries());
        let rest_url = self.endpoint(&key("rest_url"), ["http", "https"], &[]);
        let idle = self.take(
            &key("idle"),
            "a duration from \"1s\" to \"24h\", or \"\" for the venue's own limit",
            |value| match value {
                Value::Text(text) if text.is_empty() => Some(None),
                value => duration(value, SECOND..=DAY).map(Some),
            },
        );
        // Each venue bounds the connections of one address; four are more than any outage of one needs.
        let connections = self.whole::<NonZeroUsize>(&key("connections"), 1..=4);
        Some(ExchangeSettings {
            name,
            enabled: enabled?,
            symbols: symbols?,
            ws_url: ws_url?,
            rest_url: rest_url?,
            idle: idle?,
            connections: connections?,
        })
    }

    fn paper(&mut self, strategies: &[StrategyDraft]) -> Option<PaperSettings> {
        let channel_capacity = self.whole::<NonZeroUsize>("paper.channel_capacity", 1..=10_000_000);
        let equity_interval = self.duration("paper.equity_interval", SECOND / 10..=DAY);
        let strategies = strategies.iter().cloned().map(StrategyDraft::complete);
        Some(PaperSettings {
            channel_capacity: channel_capacity?,
            equity_interval: equity_interval?,
            strategies: strategies.collect::<Option<_>>()?,
        })
    }

    fn strategies(&mut self) -> Vec<StrategyDraft> {
        let merged = self.merged;
        merged.strategies().iter().map(|(name, by)| self.strategy(name, by)).collect()
    }

    fn strategy(&mut self, name: &str, by: &Origin) -> StrategyDraft {
        let key = |leaf: &str| format!("{STRATEGIES}.{name}.{leaf}");
        let lacks = |leaf: &&str| self.merged.get(&key(leaf)).is_none();
        let missing: Vec<&str> = STRATEGY_KEYS.into_iter().filter(lacks).collect();
        if !missing.is_empty() && !self.merged.is_unreadable(name) {
            self.problems.push(Problem {
                key: format!("{STRATEGIES}.{name}"),
                value: None,
                allowed: format!("lacks {}; every strategy has them", missing.join(", ")),
                origin: by.clone(),
            });
        }
        // A missing key is reported already.
        let there = |leaf: &str| Some(key(leaf)).filter(|_| !missing.contains(&leaf));
        let kind = there("kind").and_then(|key| {
            self.take(&key, "the name of a strategy", |it| it.scalar().map(str::to_owned))
        });
        let exchange = there("exchange").and_then(|key| self.exchange_name(&key));
        let symbols = there("symbols").and_then(|key| {
            let list = self.symbols(&key, exchange.as_deref())?;
            Some((key, list))
        });
        let symbols = symbols.and_then(|(key, symbols)| {
            if symbols.is_empty() {
                self.refuse(&key, "at least one symbol".to_owned());
            }
            (!symbols.is_empty()).then_some(symbols)
        });
        let positive = |it: &Decimal| *it > Decimal::ZERO;
        let part = |it: &Decimal| *it >= Decimal::ZERO && *it < Decimal::ONE;
        let part_of_one = "a decimal from 0 up to, not including, 1";
        let above = "a decimal above 0";
        let cash = there("cash").and_then(|key| self.decimal(&key, above, positive));
        let fee_rate = there("fee_rate").and_then(|key| self.decimal(&key, part_of_one, part));
        let slippage = there("slippage").and_then(|key| self.decimal(&key, part_of_one, part));
        let limit = there("position_limit").and_then(|key| self.decimal(&key, above, positive));
        StrategyDraft {
            name: name.to_owned(),
            kind,
            exchange,
            symbols,
            cash,
            fee_rate,
            slippage,
            position_limit: limit,
            parameters: self.parameters(name),
        }
    }

    fn exchange_name(&mut self, key: &str) -> Option<String> {
        let entry = self.merged.get(key);
        let written = entry.and_then(|entry| entry.value.scalar()).unwrap_or_default();
        self.take(key, &one_of_exchanges(written), |value| {
            let name = value.scalar()?;
            exchange::by_name(name).map(|known| known.name().to_owned())
        })
    }

    /// The keys of a strategy that are not common to all, as text.
    fn parameters(&self, name: &str) -> BTreeMap<String, String> {
        let mut parameters = BTreeMap::new();
        for entry in self.merged.entries() {
            if let Some((owner, leaf)) = strategy_key(&entry.key)
                && owner == name
                && !STRATEGY_KEYS.contains(&leaf)
                && entry.value != Value::Unreadable
            {
                let text =
                    entry.value.scalar().map_or_else(|| entry.value.to_string(), str::to_owned);
                parameters.insert(leaf.to_owned(), text);
            }
        }
        parameters
    }

    fn simulate(&mut self) -> Option<SimulateSettings> {
        let port = self.whole::<u16>("simulate.port", 0..=65_535);
        let seed = self.whole::<u64>("simulate.seed", 0..=u64::MAX);
        let rate = self.decimal("simulate.rate", "a decimal above 0, at most 1000000", |rate| {
            *rate > Decimal::ZERO && *rate <= Decimal::from(1_000_000)
        });
        Some(SimulateSettings { port: port?, seed: seed?, rate: rate? })
    }
}

/// The kinds of values.
impl Checker<'_> {
    /// Reads one key, or says what is allowed there.
    fn take<T>(
        &mut self,
        key: &str,
        allowed: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        self.read.push(key.to_owned());
        let found = self.merged.get(key).and_then(|entry| read(&entry.value));
        if found.is_none() {
            self.refuse(key, allowed.to_owned());
        }
        found
    }

    fn refuse(&mut self, key: &str, allowed: String) {
        let entry = self.merged.get(key);
        if entry.is_some_and(|entry| entry.value == Value::Unreadable) {
            return;
        }
        self.problems.push(Problem {
            key: key.to_owned(),
            value: entry.map(|entry| entry.value.masked(key).to_string()),
            allowed,
            origin: entry.map_or(Origin::Default, |entry| entry.origin.clone()),
        });
    }

    fn whole<T: TryFromWhole>(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<T> {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        self.take(key, &allowed, |value| {
            let number = value.scalar()?.parse().ok()?;
            range.contains(&number).then_some(number).and_then(T::try_from_whole)
        })
    }

    fn duration(&mut self, key: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let allowed = format!(
            "a duration with its unit from \"{}\" to \"{}\"",
            humantime::format_duration(*range.start()),
            humantime::format_duration(*range.end())
        );
        self.take(key, &allowed, |value| duration(value, range))
    }

    fn decimal(
        &mut self,
        key: &str,
        allowed: &str,
        holds: impl FnOnce(&Decimal) -> bool,
    ) -> Option<Decimal> {
        self.take(key, allowed, |value| parse_decimal(value.scalar()?).ok().filter(holds))
    }

    /// A folder; `Some(None)` where the program's own choice is meant.
    fn folder(&mut self, key: &str, own: &str) -> Option<Option<PathBuf>> {
        let allowed = format!("a path, written in full (~ has no meaning here), or \"\" for {own}");
        self.take(key, &allowed, |value| match value {
            Value::Text(text) if text.is_empty() => Some(None),
            Value::Text(text) if !text.starts_with('~') => Some(Some(PathBuf::from(text))),
            _ => None,
        })
    }

    /// A base URL without trailing slash; `Some(None)` where the venue's own is meant.
    fn endpoint(
        &mut self,
        key: &str,
        schemes: [&str; 2],
        queries: &[&str],
    ) -> Option<Option<String>> {
        let [plain, secure] = schemes;
        let query = match queries {
            [] => "query and fragment".to_owned(),
            queries => format!("fragment and query but ?{}", queries.join(" or ?")),
        };
        let allowed = format!(
            "{plain}:// or {secure}:// with a host, without user, {query}, or \"\" for the venue's own"
        );
        self.take(key, &allowed, |value| {
            let text = value.scalar()?.trim_end_matches('/');
            if text.is_empty() {
                return value.scalar()?.is_empty().then_some(None);
            }
            let url = Url::parse(text).ok()?;
            let plain_base = url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none_or(|query| queries.contains(&query))
                && url.fragment().is_none();
            let good = schemes.contains(&url.scheme()) && url.has_host() && plain_base;
            good.then(|| Some(text.to_owned()))
        })
    }

    /// A list of symbols of an exchange, no symbol twice; one problem for each wrong one.
    fn symbols(&mut self, key: &str, exchange: Option<&str>) -> Option<Vec<Symbol>> {
        let items =
            self.take(
                key,
                "a list of symbols, [\"BTCUSDT\", \"ETH-USDT\"]",
                |value| match value {
                    Value::List(items) => Some(items.clone()),
                    _ => None,
                },
            )?;
        let texts = items.iter().map(|item| item.scalar().unwrap_or_default());
        let (symbols, wrong) = read_list(exchange, texts);
        let origin = self.merged.get(key).map_or(Origin::Default, |entry| entry.origin.clone());
        let clean = wrong.is_empty();
        for (text, allowed) in wrong {
            let value = Some(Value::Text(text.to_owned()).masked(key).to_string());
            let origin = origin.clone();
            self.problems.push(Problem { key: key.to_owned(), value, allowed, origin });
        }
        clean.then_some(symbols)
    }
}

/// A duration with its unit: a bare number would leave the reader to guess seconds or milliseconds.
fn duration(value: &Value, range: RangeInclusive<Duration>) -> Option<Duration> {
    let Value::Text(text) = value else { return None };
    humantime::parse_duration(text.trim()).ok().filter(|duration| range.contains(duration))
}

/// Whole numbers of the settings, each from the widest one.
trait TryFromWhole: Sized {
    fn try_from_whole(number: u64) -> Option<Self>;
}

impl TryFromWhole for u16 {
    fn try_from_whole(number: u64) -> Option<Self> {
        number.try_into().ok()
    }
}

impl TryFromWhole for u32 {
    fn try_from_whole(number: u64) -> Option<Self> {
        number.try_into().ok()
    }
}

impl TryFromWhole for u64 {
    fn try_from_whole(number: u64) -> Option<Self> {
        Some(number)
    }
}

impl TryFromWhole for NonZeroU32 {
    fn try_from_whole(number: u64) -> Option<Self> {
        u32::try_from(number).ok().and_then(Self::new)
    }
}

impl TryFromWhole for NonZeroUsize {
    fn try_from_whole(number: u64) -> Option<Self> {
        usize::try_from(number).ok().and_then(Self::new)
    }
}
