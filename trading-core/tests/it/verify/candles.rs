//! The exchanges' own candles find what ids cannot: an altered quantity, and a missing trade where ids prove nothing.

use std::collections::BTreeMap;

use trading_core::domain::Timestamp;
use trading_core::simulator::{Clock, RestLimits, SimulatorOptions};
use trading_core::verify::{Comparison, Kind, Report, compare};

use super::{Recorded, SYMBOLS};
use crate::support::exchanges::Exchanges;
use crate::support::process::command;
use crate::support::waiting::spawn;

/// The exchanges of the market that was recorded, a minute and a half after the last trade.
struct History {
    rest_urls: BTreeMap<String, String>,
    _exchanges: Exchanges,
}

impl History {
    async fn serve(recorded: &Recorded) -> Self {
        let now = recorded.end().plus_micros(90_000_000);
        let options = SimulatorOptions {
            seed: recorded.market.seed(),
            rate: rust_decimal::Decimal::new(10, 3),
            rest_limits: RestLimits::none(),
            clock: Clock::new(move || now),
            ..SimulatorOptions::default()
        };
        let exchanges = Exchanges::with(options).await;
        let rest_url = |(name, _): (&str, &str)| (name.to_owned(), exchanges.url("http", name));
        Self { rest_urls: SYMBOLS.map(rest_url).into(), _exchanges: exchanges }
    }

    async fn compare(&self, recorded: &Recorded, from: Option<Timestamp>) -> Report {
        let comparison = Comparison {
            rest_urls: self.rest_urls.clone(),
            network: trading_core::config::NetworkSettings::default(),
            from,
            to: recorded.scope().to,
            minutes: 60,
        };
        let mut report = recorded.verify().await;
        compare(&recorded.database.pool, &mut report, &comparison).await.unwrap();
        report
    }
}

fn minutes(report: &Report) -> Vec<u64> {
    report.symbols.iter().map(|symbol| symbol.minutes_compared).collect()
}

#[tokio::test]
async fn what_was_recorded_is_what_the_exchanges_candles_say() {
    let recorded = Recorded::new(10).await;
    let exchanges = History::serve(&recorded).await;
    let report = exchanges.compare(&recorded, None).await;
    assert!(report.complete, "{report}");
    assert_eq!(minutes(&report), [60, 60, 60], "{report}");
    assert!(report.to_string().contains("180 minutes held against"), "{report}");

    let report = exchanges.compare(&recorded, Some(recorded.begin)).await;
    assert!(report.complete, "{report}");
    let [binance, bybit, kraken] = minutes(&report)[..] else { panic!("{report}") };
    let day = 24 * 60;
    assert!(binance > 2 * day && bybit > 2 * day, "several answers each: {binance}, {bybit}");
    assert!((600..=720).contains(&kraken), "it tells no more than 720 minutes: {kraken}");
}

#[tokio::test]
async fn an_altered_quantity_and_a_trade_that_no_id_misses_are_found() {
    let recorded = Recorded::new(10).await;
    let exchanges = History::serve(&recorded).await;
    let (altered, gone) = (
        recorded.id_at("binance", "BTCUSDT", 500).await,
        recorded.id_at("bybit", "BTCUSDT", 300).await,
    );
    let minute = |exchange: &str, id| {
        let trade = recorded.market.trade(exchange, &"BTCUSDT".parse().unwrap(), id).unwrap();
        trade.at.minute()
    };
    recorded
        .run(format!(
            "UPDATE tick_data SET quantity = quantity + 0.00000001 WHERE exchange = 'binance' AND trade_id = '{altered}'; \
             DELETE FROM tick_data WHERE exchange = 'bybit' AND trade_id = '{gone}'"
        ))
        .await;
    assert!(recorded.verify().await.complete, "ids alone prove nothing here");
    let report = exchanges.compare(&recorded, Some(recorded.begin)).await;
    assert!(!report.complete);
    assert_eq!(report.counts, BTreeMap::from([(Kind::UnlikeExchange, 2)]), "{report}");
    let mut found: Vec<_> =
        report.findings.iter().map(|it| (it.exchange.as_str(), it.from.unwrap())).collect();
    found.sort_unstable();
    assert_eq!(found, [("binance", minute("binance", altered)), ("bybit", minute("bybit", gone))]);
    let complete: Vec<bool> = report.symbols.iter().map(|symbol| symbol.complete).collect();
    assert_eq!(complete, [false, false, true]);
}

#[tokio::test]
async fn a_symbol_of_which_no_minute_was_compared_was_not_looked_at() {
    let recorded = Recorded::new(10).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let _serving = spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4_096];
            let _read = tokio::io::AsyncReadExt::read(&mut socket, &mut request).await.unwrap();
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]";
            let sent = tokio::io::AsyncWriteExt::write_all(&mut socket, answer.as_bytes());
            sent.await.unwrap();
        }
    });
    let rest_urls = BTreeMap::from([("binance".to_owned(), format!("http://{address}"))]);
    let scope =
        trading_core::verify::Scope { exchanges: vec!["binance".to_owned()], ..recorded.scope() };
    let look = async |to: Timestamp| {
        let comparison = Comparison {
            rest_urls: rest_urls.clone(),
            network: trading_core::config::NetworkSettings::default(),
            from: None,
            to,
            minutes: 5,
        };
        let pool = &recorded.database.pool;
        let mut report = trading_core::verify::verify(pool, &scope, 2).await.unwrap();
        assert!(report.complete, "{report}");
        compare(pool, &mut report, &comparison).await.unwrap();
        assert_eq!(report.counts, BTreeMap::from([(Kind::NotCompared, 1)]), "{report}");
        assert!(!report.complete && report.to_string().contains("not looked at"), "{report}");
        (report.symbols[0].minutes_compared, report.symbols[0].minutes_asked)
    };
    assert_eq!(look(recorded.scope().to).await, (0, 5), "the exchange tells none");
    assert_eq!(look(recorded.begin.plus_micros(1)).await, (0, 0), "no whole minute is stored");
}

// The exchanges serve from this process while it waits for the program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_compares_and_says_who_could_not_be_asked() {
    let recorded = Recorded::new(10).await;
    let exchanges = History::serve(&recorded).await;
    let mut rest_urls = exchanges.rest_urls.clone();
    // Nobody listens there.
    rest_urls.insert("kraken".to_owned(), "http://127.0.0.1:9".to_owned());
    let settings = rest_urls.into_iter().map(|(name, url)| {
        (format!("TRADING_CORE__EXCHANGES__{}__REST_URL", name.to_uppercase()), url)
    });
    let output = command()
        .args(["verify", "--against-exchange", "--minutes", "5", "--json"])
        .env("DATABASE_URL", &recorded.database.url)
        .envs(settings)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["counts"], serde_json::json!({"not_compared": 1}), "{report:#}");
    let compared: Vec<_> = report["symbols"]
        .as_array()
        .unwrap()
        .iter()
        .map(|symbol| symbol["minutes_compared"].as_u64().unwrap())
        .collect();
    assert_eq!(compared, [5, 5, 0]);
    let text = report["findings"][0]["text"].as_str().unwrap();
    assert!(text.contains("not reached"), "{text}");
}
