//! Symbols as the venues list them, and as people write them: recorded, repaired, proven, told apart, and told when they
//! are wrong.

use std::process::Output;

use serde_json::Value;
use trading_core::domain::Timestamp;
use trading_core::simulator::{Action, Target};

use crate::support::exchanges::Exchanges;
use crate::support::postgres::{Scratch, database};
use crate::support::process::{Program, command, setting, shown};
use crate::support::truth::stored;
use crate::support::waiting::until;

/// Chinese, a small letter that is told from its capital, and a dot; as they are stored.
const NAMES: [(&str, &str); 3] =
    [("binance", "币安人生USDT"), ("kraken", "AAPLxUSD"), ("kraken", "ETH2.SETH")];
/// The same as they are asked for.
const ASKED: &str = "binance:币安人生USDT,kraken:AAPLx/USD,kraken:ETH2.S/ETH";

async fn run(arguments: &[&str], settings: &[(String, String)]) -> Output {
    let mut command = command();
    command.args(arguments).envs(settings.iter().cloned());
    // Not on this thread: the exchanges are served by it.
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_any_letters_are_recorded_repaired_and_proven_against_the_exchange() {
    let exchanges = Exchanges::start(40).await;
    let database = database().await;
    let folder = tempfile::tempdir().unwrap();
    let mut settings = exchanges.with_history();
    settings.push(("DATABASE_URL".to_owned(), database.url.clone()));
    settings.push(setting("SPOOL__DIR", folder.path().join("spool").display()));
    settings.push(setting("BATCH__MAX_TIME", "1s"));
    let mut program = Program::start(folder.path(), &["live", "--symbol", ASKED], &settings);
    let until = async |query: &'static str| {
        until(async || {
            let answer = sqlx::query_scalar::<_, bool>(query).fetch_one(&database.pool).await;
            answer.unwrap_or(false).then_some(()).ok_or_else(|| format!("never: {query}"))
        })
        .await;
    };
    until("SELECT count(DISTINCT symbol) = 3 AND count(*) > 600 FROM tick_data").await;
    for (_, symbol) in NAMES {
        let only = Target { symbol: Some(symbol.to_owned()), ..Target::default() };
        exchanges.faults.act(&only, Action::Skip(20), Timestamp::now()).unwrap();
    }
    until("SELECT count(DISTINCT symbol) = 3 FROM tick_gaps WHERE status = 'repaired'").await;
    let status = program.stop().await;
    let log = program.log();
    assert!(status.success(), "{status}\n{log}");
    // Letters are shown as they are, nothing else is recorded, and nobody doubts these names.
    for part in ["Recording binance", ": 币安人生USDT\n", ": AAPLxUSD ETH2.SETH\n"] {
        assert!(log.contains(part), "{part}\n{log}");
    }
    assert!(!log.contains("Recording okx") && !log.contains("ERROR"), "{log}");
    // Whole minutes to compare, of the time before the start.
    let backfill = run(&["backfill", "--symbol", ASKED, "--from", "4m"], &settings).await;
    assert!(backfill.status.success(), "{}", shown(&backfill));
    let verify = ["verify", "--symbol", ASKED, "--against-exchange", "--json"];
    let verify = run(&verify, &settings).await;
    assert!(verify.status.success(), "{}", shown(&verify));
    let report: Value = serde_json::from_slice(&verify.stdout).unwrap();
    let symbols = report["symbols"].as_array().unwrap();
    assert_eq!(symbols.len(), 3, "{report:#}");
    for (symbol, (exchange, name)) in symbols.iter().zip(NAMES) {
        assert_eq!((&symbol["exchange"], &symbol["symbol"]), (&exchange.into(), &name.into()));
        assert!(symbol["minutes_compared"].as_u64().unwrap() >= 2, "{report:#}");
    }
    for ((exchange, symbol), stored) in stored(&database.pool, &exchanges.market).await {
        assert_eq!(stored.missing(), [0_u64; 0], "{exchange}:{symbol}");
    }
    let spelled: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT base, quote, venue_symbol FROM instruments ORDER BY exchange, symbol",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    let spelled: Vec<_> =
        spelled.iter().map(|(b, q, v)| (b.as_str(), q.as_str(), v.as_str())).collect();
    let expected = [
        ("币安人生", "USDT", "币安人生USDT"),
        ("AAPLx", "USD", "AAPLx/USD"),
        ("ETH2.S", "ETH", "ETH2.S/ETH"),
    ];
    assert_eq!(spelled, expected);
    exchanges.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_not_listed_is_told_with_the_one_that_was_meant_and_the_others_are_recorded()
{
    let scratch = Scratch::new("");
    let folder = tempfile::tempdir().unwrap();
    let settings =
        [setting("DATABASE__DATA_DIR", scratch.path().display()), setting("BATCH__MAX_TIME", "1s")];
    let asked = "binance:BTC-USDT,binance:BTC-USTD,kraken:aaplx/usd,kraken:BTC-USD,okx:NOSUCH-XYZ";
    let arguments = ["live", "--simulate", "--symbol", asked];
    let mut program = Program::start(folder.path(), &arguments, &settings);
    let line = program.logged("binance:BTCUSTD is not listed by the exchange").await;
    assert!(line.contains("ERROR") && line.contains("Did you mean BTCUSDT"), "{line}");
    let line = program.logged("kraken:AAPLXUSD is not listed by the exchange").await;
    assert!(line.contains("Did you mean AAPLx/USD?"), "{line}");
    let line = program.logged("okx:NOSUCHXYZ is not listed by the exchange").await;
    assert!(line.contains("exchanges.okx.symbols or --symbol") && !line.contains("mean"), "{line}");
    let status = program.stop().await;
    assert!(status.success(), "{status}\n{}", program.log());
    for known in ["BTCUSDT is not listed", "BTCUSD is not listed"] {
        assert!(!program.log().contains(&format!(":{known}")), "{}", program.log());
    }
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_a_usage_error_that_says_what_to_write() {
    for (arguments, parts) in [
        (&["live", "--symbol", "BTCMXN"][..], &["BTCMXN", "write it as BASE-QUOTE"][..]),
        (&["live", "--symbol", "BTC?USDT"], &["'?' cannot stand there"]),
        (&["live", "--symbol", "BTCUSDT,binance:BTC-USDT"], &["\"BTCUSDT\"", "binance:BTC-USDT"]),
        (&["doctor", "--exchange", "okx", "--symbol", "kraken:BTC-USD"], &["kraken", "okx"]),
        (&["backfill", "--exchange", "okx", "--symbol", "kraken:BTC-USD"], &["kraken", "okx"]),
        (&["verify", "--exchange", "okx", "--symbol", "kraken:BTC-USD"], &["kraken", "okx"]),
        (
            &["replay", "--paper-trading", "--exchange", "okx", "--symbol", "kraken:BTC-USD"],
            &["kraken", "okx"],
        ),
        (&["verify", "--symbol", "BTC USDT"], &["' ' cannot stand there"]),
        (
            &["live", "--exchange", "kraken", "--symbol", "XBT-USD,BTC-USD"],
            &["XBTUSD and BTCUSD are both BTC/USD at kraken"],
        ),
    ] {
        let output = run(arguments, &[]).await;
        let told = shown(&output);
        // What `doctor` finds it tells as a finding.
        let code = if arguments[0] == "doctor" { 2 } else { 64 };
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{told}");
        for part in parts {
            assert!(told.contains(part), "{arguments:?}: {part}\n{told}");
        }
    }
    let strategy = [
        setting("PAPER__STRATEGIES__SMA_CROSSOVER__EXCHANGE", "kraken"),
        setting("PAPER__STRATEGIES__SMA_CROSSOVER__SYMBOLS", "XDG-USD,kraken:DOGE/USD"),
    ];
    let output = run(&["config", "check"], &strategy).await;
    // Without paper trading nobody reads the list.
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(shown(&output).contains("XDGUSD and DOGEUSD are both DOGE/USD"), "{}", shown(&output));
    let output = run(&["replay", "--paper-trading"], &strategy).await;
    assert_eq!(output.status.code(), Some(64), "{}", shown(&output));
    assert!(shown(&output).contains("XDGUSD and DOGEUSD are both DOGE/USD"), "{}", shown(&output));
    let folder = tempfile::tempdir().unwrap();
    let own = [&strategy[..], &[setting("DATABASE__DATA_DIR", folder.path().display())]].concat();
    let output = run(&["db", "status"], &own).await;
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
}
