//! The command, run as its user runs it.

use std::process::Output;

use serde_json::Value;
use trading_core::domain::Timestamp;
use trading_core::exchange::names;

use super::Recorded;
use crate::support::postgres::{Scratch, migrated};
use crate::support::process::{Program, command, setting};
use crate::support::waiting::until;

fn verify(url: &str, arguments: &[&str]) -> Output {
    command().arg("verify").args(arguments).env("DATABASE_URL", url).output().unwrap()
}

fn text(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

#[tokio::test]
async fn it_ends_with_0_when_complete_and_with_2_when_not() {
    let recorded = Recorded::new(10).await;
    let output = verify(&recorded.database.url, &[]);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}{}", text(&output.stderr));
    let last = told.lines().last().unwrap();
    assert!(last.starts_with("COMPLETE: ") && last.contains("; up to "), "{told}");

    let id = recorded.id_at("binance", "BTCUSDT", 500).await;
    recorded
        .run(format!("DELETE FROM tick_data WHERE exchange = 'binance' AND trade_id = '{id}'"))
        .await;
    let output = verify(&recorded.database.url, &[]);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.lines().last().unwrap().starts_with("NOT COMPLETE: "), "{told}");
    assert!(told.contains(&format!("id {id}")), "{told}");

    let others = ["--exchange", "kraken", "bybit"];
    assert_eq!(verify(&recorded.database.url, &others).status.code(), Some(0));
    let none = verify(&recorded.database.url, &["--symbol", "XRPUSDT"]);
    assert_eq!(none.status.code(), Some(2), "what is not there is not complete");
    let some =
        verify(&recorded.database.url, &["--exchange", "kraken,okx", "--symbol", "ETHUSD,XRPUSDT"]);
    let told = text(&some.stdout);
    assert_eq!(some.status.code(), Some(2), "{told}");
    assert!(told.contains("okx: nothing is stored") && told.contains("of XRPUSDT in"), "{told}");
    assert!(told.lines().last().unwrap().starts_with("NOT COMPLETE: "), "{told}");
}

#[tokio::test]
async fn a_symbol_that_is_not_stored_is_answered_with_those_that_are() {
    let recorded = Recorded::new(10).await;
    let told = |arguments: &[&str]| text(&verify(&recorded.database.url, arguments).stdout);
    let all = "binance:BTCUSDT, bybit:BTCUSDT, kraken:ETHUSD";
    let nothing = told(&["--symbol", "NOSUCH-XYZ"]);
    assert!(nothing.contains(&format!("(NOSUCHXYZ: stored are {all})")), "{nothing}");
    assert!(nothing.lines().last().unwrap().starts_with("NOTHING TO JUDGE"), "{nothing}");
    let near = told(&["--symbol", "BTCUSDT,okx:ETH-USDT"]);
    let line = "nothing is stored of okx:ETHUSDT in the asked time: the nearest that is stored is kraken:ETHUSD";
    assert!(near.contains(line), "{near}");
    assert!(!near.contains("kraken  "), "only what was asked for is judged: {near}");
    let other_time = told(&["--symbol", "kraken:ETHUSD,BTCUSDT", "--to", "2020-01-01"]);
    assert!(other_time.contains("kraken:ETHUSD: there is some of another time"), "{other_time}");
}

#[tokio::test]
async fn a_symbol_of_one_exchange_is_judged_there_alone() {
    let recorded = Recorded::new(10).await;
    let symbols = |arguments: &[&str]| {
        let output = verify(&recorded.database.url, &[arguments, &["--json"]].concat());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let of = |it: &Value| {
            format!("{}:{}", it["exchange"].as_str().unwrap(), it["symbol"].as_str().unwrap())
        };
        let told: Vec<String> = report["symbols"].as_array().unwrap().iter().map(of).collect();
        (output.status.code(), told.join(" "))
    };
    let (binance, bybit) =
        ("binance:BTCUSDT".to_owned(), "binance:BTCUSDT bybit:BTCUSDT".to_owned());
    assert_eq!(symbols(&["--symbol", "binance:btc-usdt"]), (Some(0), binance));
    assert_eq!(symbols(&["--symbol", "BTC-USDT"]), (Some(0), bybit));
    let both = "bybit:BTCUSDT kraken:ETHUSD".to_owned();
    assert_eq!(symbols(&["--symbol", "bybit:BTCUSDT,kraken:ETH-USD"]), (Some(0), both));
    // What is wrong at another exchange is not told.
    recorded.run("DELETE FROM tick_data WHERE exchange = 'bybit' AND trade_id LIKE '%7'").await;
    let binance = "binance:BTCUSDT kraken:ETHUSD".to_owned();
    assert_eq!(symbols(&["--symbol", "binance:BTCUSDT,kraken:ETHUSD"]), (Some(0), binance));
}

#[tokio::test]
async fn the_newest_minute_is_left_out_only_while_somebody_records() {
    let database = migrated().await;
    super::run(
        &database.pool,
        "SELECT ensure_tick_partition(((now() - interval '10 s') AT TIME ZONE 'UTC')::date); \
         INSERT INTO feed_sessions (recorder, exchange, feed, connected_at, ended_at, seen_at, reason, symbols) \
             VALUES ('test', 'binance', 'binance-1', now() - interval '2 min', now(), now(), 'stopped', '{BTCUSDT}'); \
         INSERT INTO tick_data SELECT now() - interval '10 s', now() - interval '10 s', 'binance', 'BTCUSDT', id::text, \
             'buy', 1, 1, 'live' FROM generate_series(1, 3) AS id",
    )
    .await;
    let output = verify(&database.url, &[]);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}{}", text(&output.stderr));
    assert!(told.lines().last().unwrap().starts_with("COMPLETE: "), "{told}");

    super::run(&database.pool, "UPDATE feed_sessions SET ended_at = NULL, reason = NULL").await;
    let told = text(&verify(&database.url, &[]).stdout);
    assert!(told.contains("younger than 60 s") && told.contains("newest 60 s"), "{told}");
    assert!(!told.contains("nothing is stored"), "there is something: {told}");
    assert!(told.lines().last().unwrap().starts_with("NOTHING TO JUDGE: 0 trades"), "{told}");
    assert!(told.contains("with --to now") && told.contains("Without a trade"), "{told}");
    let told = text(&verify(&database.url, &["--to", "now"]).stdout);
    assert!(told.lines().last().unwrap().starts_with("COMPLETE: 3 trades"), "{told}");
    let young = verify(&database.url, &["--json"]);
    let report: Value = serde_json::from_slice(&young.stdout).unwrap();
    let said = (&report["verdict"], &report["complete"], young.status.code());
    assert_eq!(said, (&"nothing_to_judge".into(), &false.into(), Some(2)));
    assert_eq!(report["without_rows"], serde_json::json!(["binance:BTCUSDT"]));

    // A recorder that was killed more than a minute ago.
    super::run(&database.pool, "UPDATE feed_sessions SET seen_at = now() - interval '61 s'").await;
    assert_eq!(verify(&database.url, &[]).status.code(), Some(0));
}

#[tokio::test]
async fn a_program_can_read_all_of_it() {
    let recorded = Recorded::new(10).await;
    let id = recorded.id_at("kraken", "ETHUSD", 500).await;
    recorded
        .run(format!("DELETE FROM tick_data WHERE exchange = 'kraken' AND trade_id = '{id}'"))
        .await;
    let to = recorded.scope().to.to_string();
    let output = verify(&recorded.database.url, &["--json", "--to", &to]);
    assert_eq!(output.status.code(), Some(2));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["complete"], false);
    assert_eq!((&report["from"], &report["to"]), (&Value::Null, &Value::from(to)));
    assert_eq!(report["settle_seconds"], Value::Null);
    assert_eq!(report["counts"], serde_json::json!({"unlisted_hole": 1}));
    let finding = &report["findings"][0];
    assert_eq!((&finding["exchange"], &finding["symbol"]), (&"kraken".into(), &"ETHUSD".into()));
    assert_eq!((&finding["kind"], &finding["count"]), (&"unlisted_hole".into(), &1.into()));
    assert_eq!(finding["first_id"], Value::from(id.to_string()));
    let symbols = report["symbols"].as_array().unwrap();
    assert_eq!(symbols.len(), 3);
    let kraken = symbols.iter().find(|it| it["exchange"] == "kraken").unwrap();
    assert_eq!((&kraken["complete"], &kraken["ids"]), (&false.into(), &"consecutive".into()));
    assert_eq!((&kraken["holes"], &kraken["missing"]["unlisted"]), (&1.into(), &1.into()));
    let rows: u64 = symbols.iter().map(|it| it["rows"].as_u64().unwrap()).sum();
    assert_eq!(report["rows"].as_u64(), Some(rows));
}

#[tokio::test]
async fn what_cannot_be_read_is_a_failure_and_no_finding() {
    let output = verify("postgres://nobody@127.0.0.1:1/none", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot be reached"), "{}", text(&output.stderr));

    let empty = crate::support::postgres::database().await;
    let output = verify(&empty.url, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("db migrate"), "{}", text(&output.stderr));

    let folder = tempfile::tempdir().unwrap();
    let output = command()
        .arg("verify")
        .env("TRADING_CORE__DATABASE__DATA_DIR", folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("nothing is recorded"), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "to look makes nothing");
}

#[tokio::test]
async fn beside_a_running_recorder_what_is_settled_is_complete() {
    let scratch = Scratch::simulated();
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        setting("DATABASE__DATA_DIR", scratch.path().display()),
        setting("SIMULATE__RATE", "40"),
        setting("BATCH__MAX_TIME", "500ms"),
    ];
    let mut program = Program::start(folder.path(), &["live", "--simulate"], &settings);
    program.logged("Feed connected").await;
    let mut rows = 0;
    // Three looks at a table that has grown since the one before.
    for _look in 0..3 {
        rows = until(async || {
            let settled = Timestamp::now().plus_micros(-10_000_000).to_string();
            let output = command()
                .args(["verify", "--simulated", "--json", "--to", &settled])
                .envs(settings.iter().cloned())
                .output()
                .unwrap();
            let report: Value = serde_json::from_slice(&output.stdout)
                .unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
            let found = report["rows"].as_u64().unwrap();
            if found <= rows + 4_000 {
                return Err(format!("it does not grow: {report:#}\n{}", program.log()));
            }
            assert_eq!(output.status.code(), Some(0), "{report:#}\n{}", program.log());
            assert_eq!(report["symbols"].as_array().unwrap().len(), 10 * names().len());
            Ok(found)
        })
        .await;
    }
    assert!(program.stop().await.success(), "{}", program.log());
}
