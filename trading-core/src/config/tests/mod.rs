//! The layers together, as a user writes them.

mod places;
mod slips;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::exchange;

fn file(text: &str) -> File {
    File { path: PathBuf::from("my.toml"), text: text.to_owned() }
}

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn from_file(text: &str) -> Result<Loaded, ConfigError> {
    load(Some(&file(text)), &BTreeMap::new(), &Overrides::default())
}

fn from_env(pairs: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    load(None, &variables(pairs), &Overrides::default())
}

fn defaults() -> Loaded {
    from_env(&[]).unwrap()
}

fn lines(error: &ConfigError) -> Vec<String> {
    error.problems().iter().map(ToString::to_string).collect()
}

fn settings_of<'a>(loaded: &'a Loaded, name: &str) -> &'a ExchangeSettings {
    loaded.settings.exchanges.iter().find(|exchange| exchange.name == name).unwrap()
}

fn names(symbols: &[crate::domain::Symbol]) -> Vec<&str> {
    symbols.iter().map(crate::domain::Symbol::as_str).collect()
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let loaded = defaults();
    let Settings {
        database,
        pipeline,
        batch,
        spool,
        network,
        backfill,
        exchanges,
        paper,
        simulate,
    } = &loaded.settings;
    assert_eq!(database.url, DatabaseUrl::Embedded);
    assert_eq!(database.max_connections.get(), 5);
    assert_eq!((&database.data_dir, database.retention), (&None, None));
    assert_eq!(pipeline.channel_capacity.get(), 10_000);
    assert_eq!(pipeline.health_interval, Duration::from_secs(30));
    assert_eq!(pipeline.stop_deadline, Duration::from_secs(30));
    assert_eq!((batch.max_size.get(), batch.max_time), (500, Duration::from_secs(5)));
    assert_eq!((batch.max_coalesced.get(), batch.writers.get()), (10_000, 3));
    assert_eq!((batch.max_retry_attempts, batch.retry_delay), (3, Duration::from_secs(1)));
    assert_eq!((&spool.dir, spool.max_bytes), (&None, 4 << 30));
    assert_eq!(*network, NetworkSettings::default());
    assert_eq!((backfill.enabled, backfill.max_age), (true, Duration::from_secs(86_400)));
    assert!(exchanges.iter().all(|exchange| exchange.connections.get() == 1));
    assert_eq!(
        exchanges.iter().map(|exchange| exchange.name).collect::<Vec<_>>(),
        exchange::names()
    );
    assert!(exchanges.iter().all(|exchange| exchange.enabled && exchange.symbols.len() == 10));
    assert_eq!(paper.channel_capacity.get(), 100_000);
    let kinds: Vec<_> = paper.strategies.iter().map(|it| it.kind.as_str()).collect();
    assert_eq!(kinds, ["mean_reversion", "sma_crossover"]);
    assert_eq!((simulate.port, simulate.seed, simulate.rate.to_string()), (9400, 42, "10".into()));
}

/// What the default symbols are bought and sold with the usual quote of each exchange.
const BASES: [&str; 10] = ["BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "AVAX", "LINK", "DOT", "LTC"];

/// The section of an exchange in the file of the defaults, without its comments.
fn section(exchange: &dyn exchange::Exchange) -> String {
    let symbols = BASES.map(|base| format!("\"{base}{}\"", exchange.usual_quote()));
    let (first, second) = symbols.split_at(5);
    format!(
        "[exchanges.{}]\nenabled = true\nsymbols = [\n    {},\n    {},\n]\nws_url = \"\"\nrest_url = \"\"\nidle = \"\"\n\
         connections = 1\n",
        exchange.name(),
        first.join(", "),
        second.join(", ")
    )
}

#[test]
fn every_exchange_has_its_section_in_the_file_of_the_defaults() {
    let is_setting = |line: &&str| !line.starts_with('#');
    let settings: Vec<&str> = DEFAULTS.lines().filter(is_setting).collect();
    let settings = settings.join("\n");
    let sections: Vec<String> = exchange::all().map(section).collect();
    for section in &sections {
        assert!(settings.contains(section), "config/trading-core.toml: add this\n{section}");
    }
    let all = sections.join("\n");
    assert!(settings.contains(&all), "config/trading-core.toml: the order of names is\n{all}");
}

#[test]
fn the_file_in_the_repository_gives_the_built_in_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/trading-core.toml");
    let files = Search::new(Some(&path), &BTreeMap::new()).run();
    let read = examine(files, &BTreeMap::new(), &Overrides::default()).into_result().unwrap();
    assert_eq!(read.settings, defaults().settings);
}

#[test]
fn every_key_of_the_default_file_has_an_effect() {
    let mut problems = Vec::new();
    let merged =
        merge(None, &BTreeMap::new(), &Overrides::default(), &mut problems, &mut Vec::new());
    let checked = check::check(&merged, &BTreeMap::new(), &mut problems);
    assert_eq!(problems, []);
    let read: BTreeSet<_> = checked.read.into_iter().collect();
    for entry in merged.entries() {
        // A strategy's own parameters are read by the strategy.
        let common = merge::strategy_key(&entry.key).is_none();
        assert!(!common || read.contains(&entry.key), "{} is not read", entry.key);
    }
}

#[test]
fn each_layer_wins_over_the_one_before() {
    let text = "[batch]\nmax_size = 100\nmax_time = \"1s\"\nwriters = 3\n[simulate]\nseed = 1";
    let environment = variables(&[
        ("TRADING_CORE__BATCH__MAX_SIZE", "200"),
        ("TRADING_CORE__SIMULATE__SEED", "2"),
        ("TRADING_CORE_SERVICE_PORT", "what Kubernetes sets"),
    ]);
    let mut flags = Overrides::default();
    flags.set("simulate.seed", "--seed", "3");
    let loaded = load(Some(&file(text)), &environment, &flags).unwrap();
    assert_eq!(loaded.settings.batch.max_time, Duration::from_secs(1));
    assert_eq!(loaded.settings.batch.max_size.get(), 200);
    assert_eq!(loaded.settings.simulate.seed, 3);
    let json = loaded.effective.to_json();
    assert_eq!(json["batch"]["writers"]["origin"], "my.toml:4");
    assert_eq!(json["batch"]["max_size"]["origin"], "environment TRADING_CORE__BATCH__MAX_SIZE");
    assert_eq!(json["batch"]["max_size"]["value"], 200);
    assert_eq!(json["simulate"]["seed"]["origin"], "flag --seed");
    assert_eq!(json["batch"]["retry_delay"]["origin"], "default");
}

#[test]
fn the_environment_sets_lists_with_commas() {
    let name = "TRADING_CORE__EXCHANGES__BINANCE__SYMBOLS";
    let loaded = from_env(&[(name, "BTCUSDT, eth-usdt,SOL/USDT,")]).unwrap();
    let symbols = &settings_of(&loaded, "binance").symbols;
    assert_eq!(names(symbols), ["BTCUSDT", "ETHUSDT", "SOLUSDT"]);
}

#[test]
fn all_problems_are_told_at_once_with_key_value_allowed_and_origin() {
    let text = r#"
[database]
url = "mysql://me:hunter2@host/db"
[batch]
max_sise = 100
max_size = 0
max_time = 5
max_coalesced = "many"
[exchanges.binance]
symbols = ["BTCUSDT", "BTC-USDT", "DOGE"]
ws_url = "https://example.com"
[exchanges.okx]
symbols = []
[spool]
max_byts = "4GiB"
max_bytes = "4"
[pipeline.health_interval]
"#;
    let environment = variables(&[
        ("TRADING_CORE__DATABASE__MAX_CONECTIONS", "7"),
        ("TRADING_CORE__SIMULATE__PORT", "70000"),
    ]);
    let mut flags = Overrides::default();
    flags.only_exchanges(&["binance".into(), "okx".into(), "krakn".into()]);
    flags.set("simulate.rate", "--rate", "-1");
    let error = load(Some(&file(text)), &environment, &flags).unwrap_err();
    insta::assert_snapshot!(error, @r#"
    16 problems in the settings:
      database.url = "mysql://me:***@host/db": "embedded", or postgres://user:password@host/db with special characters percent-encoded (my.toml:3)
      batch.max_sise = 100: unknown key; did you mean batch.max_size? (my.toml:5)
      batch.max_size = 0: a whole number from 1 to 100000 (my.toml:6)
      batch.max_time = 5: a duration with its unit from "1ms" to "1h" (my.toml:7)
      batch.max_coalesced = "many": a whole number from 1 to 1000000 (my.toml:8)
      exchanges.binance.symbols = "BTC-USDT": BTCUSDT is there already, written as "BTCUSDT": each pair once (my.toml:10)
      exchanges.binance.symbols = "DOGE": it ends with no quote currency that is known (USDT, USDC, USD, EUR, BTC and the like): write it as BASE-QUOTE (my.toml:10)
      exchanges.binance.ws_url = "https://example.com": ws:// or wss:// with a host, without user, fragment and query but ?timeUnit=MICROSECOND or ?timeUnit=MILLISECOND, or "" for the venue's own (my.toml:11)
      exchanges.okx.symbols = []: at least one symbol, or exchanges.okx.enabled = false (my.toml:13)
      spool.max_byts = "4GiB": unknown key; did you mean spool.max_bytes? (my.toml:15)
      spool.max_bytes = "4": a size with its unit from "1MiB" to "1TiB" (my.toml:16)
      pipeline.health_interval = {}: a duration with its unit from "1s" to "1day" (my.toml:17)
      database.max_conections = "7": unknown key; did you mean TRADING_CORE__DATABASE__MAX_CONNECTIONS? (environment TRADING_CORE__DATABASE__MAX_CONECTIONS)
      simulate.port = 70000: a whole number from 0 to 65535 (environment TRADING_CORE__SIMULATE__PORT)
      --exchange = "krakn": did you mean kraken? (one of binance, bitstamp, bybit, coinbase, kraken, okx) (flag --exchange)
      simulate.rate = "-1": a decimal above 0, at most 1000000 (flag --rate)
    "#);
}

#[test]
fn a_broken_line_does_not_hide_what_is_wrong_elsewhere() {
    let error = from_file("[batch]\nmax_size = \nmax_time = \"never\"\n").unwrap_err();
    let lines = lines(&error);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("batch.max_size: a value behind the ="), "{lines:?}");
    assert!(lines[1].starts_with("batch.max_time = \"never\": "), "{lines:?}");
}

#[test]
fn a_broken_line_does_not_show_a_password() {
    let error = from_file("[database]\nurl = \"postgres://me:hunter2@host/db\n").unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn a_write_may_not_carry_less_than_a_batch() {
    let error = from_file("[batch]\nmax_coalesced = 499").unwrap_err();
    assert_eq!(
        lines(&error),
        ["batch.max_coalesced = 499: at least batch.max_size, which is 500 (my.toml:2)"]
    );
}

#[test]
fn one_exchange_must_be_enabled() {
    let pairs: Vec<_> = exchange::names()
        .into_iter()
        .map(|name| format!("TRADING_CORE__EXCHANGES__{}__ENABLED", name.to_uppercase()))
        .collect();
    let pairs: Vec<_> = pairs.iter().map(|name| (name.as_str(), "false")).collect();
    let error = from_env(&pairs).unwrap_err();
    assert_eq!(
        lines(&error),
        ["exchanges.binance.enabled = false: at least one exchange must be enabled \
          (environment TRADING_CORE__EXCHANGES__BINANCE__ENABLED)"]
    );
}

#[test]
fn endpoints_lose_their_trailing_slashes() {
    let text = "[exchanges.binance]\nws_url = \"wss://h:1/?timeUnit=MICROSECOND\"";
    let loaded = load(Some(&file(text)), &BTreeMap::new(), &Overrides::default()).unwrap();
    let unit = settings_of(&loaded, "binance").ws_url.as_deref();
    assert_eq!(unit, Some("wss://h:1/?timeUnit=MICROSECOND"));
    for (name, query) in [("binance", "x=1"), ("okx", "timeUnit=MICROSECOND")] {
        let text = format!("[exchanges.{name}]\nws_url = \"wss://h?{query}\"");
        assert!(load(Some(&file(&text)), &BTreeMap::new(), &Overrides::default()).is_err());
    }
    let text = "[exchanges.okx]\nws_url = \"ws://127.0.0.1:9/okx//\"\nrest_url = \"http://h/\"";
    let loaded = from_file(text).unwrap();
    let okx = settings_of(&loaded, "okx");
    assert_eq!(okx.ws_url.as_deref(), Some("ws://127.0.0.1:9/okx"));
    assert_eq!(okx.rest_url.as_deref(), Some("http://h"));
    assert_eq!(settings_of(&loaded, "binance").ws_url, None);
}

#[test]
fn an_exchange_flag_enables_those_named_and_no_others() {
    let mut flags = Overrides::default();
    flags.only_exchanges(&["Kraken".into(), "okx".into()]);
    flags.only_symbols(&["BTC-USDT".into(), "FOO-BAR".into()]);
    let text = "[exchanges.okx]\nenabled = false";
    let loaded = load(Some(&file(text)), &BTreeMap::new(), &flags).unwrap();
    for exchange in &loaded.settings.exchanges {
        let named = ["kraken", "okx"].contains(&exchange.name);
        assert_eq!(exchange.enabled, named, "{}", exchange.name);
        if named {
            assert_eq!(names(&exchange.symbols), ["BTCUSDT", "FOOBAR"]);
        } else {
            assert_eq!(exchange.symbols.len(), 10, "left as configured");
        }
    }
}

#[test]
fn a_wrong_symbol_flag_is_one_problem_not_one_for_each_exchange() {
    let mut flags = Overrides::default();
    flags.only_symbols(&["NOSUCH".into()]);
    let error = load(None, &BTreeMap::new(), &flags).unwrap_err();
    assert_eq!(error.problems().len(), 1);
    assert_eq!(error.problems()[0].key, "--symbol");
}

#[test]
fn a_file_that_names_strategies_names_all_that_run() {
    let text = r#"
[paper.strategies.sma_crossover]
cash = "5"
[paper.strategies.mine]
kind = "sma_crossover"
exchange = "okx"
symbols = ["SOLUSDT"]
cash = "1000.50"
fee_rate = 0.002
slippage = "0"
position_limit = "10"
fast = 5
mode = "wide"
"#;
    let strategies = from_file(text).unwrap().settings.paper.strategies;
    let [mine, crossover] = strategies.as_slice() else { panic!("{strategies:?}") };
    assert_eq!((mine.name.as_str(), mine.exchange.as_str()), ("mine", "okx"));
    assert_eq!(
        (mine.cash.to_string(), mine.fee_rate.to_string()),
        ("1000.50".into(), "0.002".into())
    );
    assert_eq!(mine.parameters["fast"], "5");
    assert_eq!(mine.parameters["mode"], "wide");
    assert_eq!(
        (crossover.name.as_str(), crossover.cash.to_string()),
        ("sma_crossover", "5".into())
    );
    let none = from_file("[paper.strategies]").unwrap();
    assert_eq!(none.settings.paper.strategies, []);
}

#[test]
fn the_environment_changes_one_key_of_a_strategy_and_leaves_the_rest() {
    let name = "TRADING_CORE__PAPER__STRATEGIES__SMA_CROSSOVER__SYMBOLS";
    let strategies = from_env(&[(name, "LTCUSDT")]).unwrap().settings.paper.strategies;
    assert_eq!(strategies.len(), 2);
    assert_eq!(names(&strategies[1].symbols), ["LTCUSDT"]);
}

#[test]
fn a_strategy_is_checked_like_everything_else() {
    let text = r#"
[paper.strategies.a]
kind = "sma_crossover"
exchange = "mtgox"
symbols = []
cash = "0"
fee_rate = "1"
slippage = "-0.1"
position_limit = "much"
[paper.strategies.empty]
[paper.strategies."Not plain"]
kind = "x"
"#;
    insta::assert_snapshot!(from_file(text).unwrap_err(), @r#"
    8 problems in the settings:
      paper.strategies.a.exchange = "mtgox": one of binance, bitstamp, bybit, coinbase, kraken, okx (my.toml:4)
      paper.strategies.a.symbols = []: at least one symbol (my.toml:5)
      paper.strategies.a.cash = "0": a decimal above 0 (my.toml:6)
      paper.strategies.a.fee_rate = "1": a decimal from 0 up to, not including, 1 (my.toml:7)
      paper.strategies.a.slippage = "-0.1": a decimal from 0 up to, not including, 1 (my.toml:8)
      paper.strategies.a.position_limit = "much": a decimal above 0 (my.toml:9)
      paper.strategies.empty: lacks kind, exchange, symbols, cash, fee_rate, slippage, position_limit; every strategy has them (my.toml:10)
      paper.strategies."Not plain": a strategy has a name of a-z, 0-9, _ and -, and no sections inside (my.toml:11)
    "#);
}

#[test]
fn what_is_shown_can_be_read_back_and_gives_the_same() {
    let loaded = from_env(&[
        ("TRADING_CORE__DATABASE__DATA_DIR", "/a \"b\"\\c"),
        ("TRADING_CORE__EXCHANGES__OKX__SYMBOLS", "BTCUSDT"),
    ])
    .unwrap();
    let again = from_file(&loaded.effective.to_string()).unwrap();
    assert_eq!(again.settings, loaded.settings);
}

#[test]
fn a_password_is_used_but_never_shown() {
    let url = "postgres://me:hunter2@db.example/ticks?password=hunter2";
    let loaded = from_env(&[("DATABASE_URL", url)]).unwrap();
    assert_eq!(loaded.settings.database.url, DatabaseUrl::Server(url.to_owned()));
    let shown = [
        format!("{loaded:?}"),
        loaded.effective.to_string(),
        loaded.effective.to_json().to_string(),
        loaded.effective.problem("database.url", "something else").to_string(),
    ];
    for text in shown {
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("db.example"), "{text}");
    }
}

#[test]
fn an_option_of_the_url_that_is_not_known_is_refused_and_its_value_not_shown() {
    let url = "postgres://me@db.example/ticks?sslpassword=hunter2";
    let told = from_env(&[("DATABASE_URL", url)]).unwrap_err().to_string();
    assert!(told.contains("database.url") && !told.contains("hunter2"), "{told}");
}

#[test]
fn the_writers_leave_a_connection_for_the_rest() {
    let told = from_env(&[("TRADING_CORE__DATABASE__MAX_CONNECTIONS", "3")]).unwrap_err();
    assert!(told.to_string().contains("more than batch.writers, which is 3"), "{told}");
}

#[test]
fn a_named_file_that_is_not_there_is_a_problem_beside_the_others() {
    let environment = variables(&[("TRADING_CORE__BATCH__WRITERS", "0")]);
    let files = Search::new(Some(Path::new("no/such/file.toml")), &environment).run();
    let error = examine(files, &environment, &Overrides::default()).into_result().unwrap_err();
    let lines = lines(&error);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("batch.writers"), "{lines:?}");
    assert!(lines[1].starts_with("settings file = \"no/such/file.toml\": a file that can be read"));
    assert!(lines[1].ends_with("(flag --config)"));
}

#[test]
fn another_room_adds_its_problems_with_the_origin_known_here() {
    let text = "[paper.strategies.sma_crossover]\nfast = 0";
    let files = SettingsFiles { file: Some(file(text)), ..SettingsFiles::default() };
    let examined = examine(files, &BTreeMap::new(), &Overrides::default());
    assert!(examined.clone().into_result().is_ok());
    let mut refused = examined;
    refused.refuse("paper.strategies.sma_crossover.fast", "at least 1");
    assert_eq!(
        refused.into_result().unwrap_err().to_string(),
        "1 problem in the settings:\n  paper.strategies.sma_crossover.fast = 0: at least 1 (my.toml:2)"
    );
}

proptest! {
    #[test]
    fn prop_any_text_loads_or_says_what_is_wrong(text in "[\\[\\]a-z.=\"0-9\n@:/{}-]{0,80}") {
        if let Err(error) = from_file(&text) {
            prop_assert!(!error.problems().is_empty());
        }
    }

    #[test]
    fn prop_any_variable_loads_or_says_what_is_wrong(value in ".{0,40}") {
        for name in ["DATABASE_URL", "TRADING_CORE__EXCHANGES__OKX__WS_URL", "TRADING_CORE__BATCH__MAX_TIME"] {
            if let Err(error) = from_env(&[(name, &value)]) {
                prop_assert!(!error.problems().is_empty());
            }
        }
    }
}
