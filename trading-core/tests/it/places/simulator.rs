//! A served simulator says that it is one: nobody records it as a real exchange by accident, and whoever means it may.

use trading_core::simulator::MARKET_VERSION;
use trading_core::store::postgres::migrate::migrate;
use trading_core::store::postgres::origin::{Origin, claim};

use super::{made, of_a_market, settings};
use crate::support::postgres::{Scratch, TestDatabase, database, migrated};
use crate::support::process::{Program, Settings, program, setting};
use crate::support::waiting::until;

/// `trading-core simulate`, and its address.
async fn served(folder: &std::path::Path) -> (Program, String) {
    let mut served = Program::start(folder, &["simulate", "--port", "0", "--rate", "20"], &[]);
    let line = served.logged("Simulated okx: ws://").await;
    let address = line.split("ws://").nth(1).unwrap().split('/').next().unwrap();
    (served, address.to_owned())
}

async fn rows(database: &TestDatabase) -> i64 {
    let rows = sqlx::query_scalar("SELECT count(*) FROM tick_data");
    rows.fetch_one(&database.pool).await.unwrap()
}

fn on(database: &TestDatabase, folder: &std::path::Path, address: &str) -> Settings {
    vec![
        ("DATABASE_URL".to_owned(), database.url.clone()),
        setting("SPOOL__DIR", folder.join("spool").display()),
        setting("BATCH__MAX_TIME", "200ms"),
        setting("EXCHANGES__BINANCE__WS_URL", format!("ws://{address}/binance")),
        setting("EXCHANGES__BINANCE__REST_URL", format!("http://{address}/binance")),
    ]
}

#[tokio::test]
async fn a_served_simulator_is_recorded_as_what_it_is_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let logs = ["served", "real", "simulated"].map(|name| folder.path().join(name));
    logs.iter().for_each(|log| std::fs::create_dir(log).unwrap());
    let (mut simulator, address) = served(&logs[0]).await;
    let real = database().await;
    let settings = on(&real, &logs[1], &address);
    let arguments = ["live", "--exchange", "binance", "--symbol", "BTC-USDT"];
    let mut recorder = Program::start(&logs[1], &arguments, &settings);
    let line = recorder.logged("is a simulated market (seed 42, rate 20").await;
    let typed = format!("trading-core live --simulate={address}");
    assert!(line.contains(&typed), "{line}");
    assert!(recorder.stop().await.success(), "{}", recorder.log());
    assert_eq!(rows(&real).await, 0);
    // Nor over its REST side.
    let backfill = "backfill --exchange binance --symbol BTC-USDT --from 10s";
    let (code, answer, log) = program(backfill, &settings);
    assert_eq!(code, Some(2), "{answer}{log}");
    assert!(answer.contains("a simulated market answers (seed 42, rate 20"), "{answer}");
    assert_eq!(rows(&real).await, 0);
    let (_, answer, _) = program("doctor --exchange binance --symbol BTC-USDT", &settings);
    assert!(answer.contains("is a simulated market (seed 42, rate 20"), "{answer}");

    let simulated = database().await;
    let settings = on(&simulated, &logs[2], "127.0.0.1:9");
    let flag = format!("--simulate={address}");
    let arguments = ["live", &flag, "--exchange", "binance", "--symbol", "BTC-USDT"];
    let mut recorder = Program::start(&logs[2], &arguments, &settings);
    recorder.logged("Feed connected").await;
    until(async || match rows(&simulated).await {
        20.. => Ok(()),
        rows => Err(format!("{rows} rows\n{}", recorder.log())),
    })
    .await;
    assert!(recorder.stop().await.success(), "{}", recorder.log());
    let (origin, market): (String, String) =
        sqlx::query_as("SELECT origin, detail FROM recorded_from")
            .fetch_one(&simulated.pool)
            .await
            .unwrap();
    assert_eq!(
        (origin.as_str(), market.as_str()),
        ("a simulated market", format!("seed 42, rate 20, market {MARKET_VERSION}").as_str())
    );
    assert!(simulator.stop().await.success());
    let (code, _, log) = program(&format!("live {flag}"), &settings);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains(&format!("no simulated exchanges are at {address}")), "{log}");
}

#[tokio::test]
async fn what_asks_the_exchanges_asks_simulated_ones_of_the_same_market() {
    let scratch = Scratch::simulated();
    made(&scratch, &of_a_market()).await;
    let settings = settings(&scratch);
    let backfill = "backfill --simulated --exchange okx --symbol BTC-USDT --from 150s";
    let (code, answer, log) = program(backfill, &settings);
    assert_eq!(code, Some(0), "{answer}{log}");
    assert!(log.contains("Simulated exchanges are asked (seed 42, rate 10)"), "{log}");
    let verify = "verify --simulated --exchange okx --against-exchange --minutes 1 --json";
    let (code, answer, log) = program(verify, &settings);
    let report: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let symbol = &report["symbols"][0];
    assert!(symbol["minutes_compared"].as_u64().unwrap() >= 1, "{report:#}\n{log}");
    assert_eq!(symbol["minutes_compared"], symbol["minutes_asked"], "{report:#}");
    assert_eq!(report["counts"]["unlike_exchange"], serde_json::Value::Null, "{report:#}");
    assert_eq!((code, &report["verdict"]), (Some(0), &"complete".into()), "{report:#}\n{log}");
    let doctor = "doctor --simulated --exchange okx --symbol BTC-USDT";
    let (code, answer, log) = program(doctor, &settings);
    assert_eq!(code, Some(0), "{answer}{log}");
    assert!(answer.contains("1 of 1 symbols are traded there"), "{answer}");
}

#[tokio::test]
async fn nobody_asks_the_exchanges_of_the_other_kind() {
    let (real, simulated) = (database().await, database().await);
    for (database, origin) in [(&real, Origin::Exchanges), (&simulated, of_a_market())] {
        migrate(&database.pool).await.unwrap();
        claim(&database.pool, &origin).await.unwrap();
        sqlx::raw_sql(
            "SELECT ensure_tick_partition((now() AT TIME ZONE 'UTC')::date); \
             INSERT INTO tick_data VALUES (now(), now(), 'okx', 'BTCUSDT', '1', 'buy', 1, 1, 'live')",
        )
        .execute(&database.pool)
        .await
        .unwrap();
    }
    for (database, flag, told) in
        [(&real, " --simulated", "leave --simulated out"), (&simulated, "", "add --simulated")]
    {
        let settings = vec![("DATABASE_URL".to_owned(), database.url.clone())];
        for line in ["backfill --from 10s", "verify --against-exchange --to 2030-01-01"] {
            let (code, answer, log) = program(&format!("{line}{flag}"), &settings);
            assert_eq!(code, Some(1), "{line}{flag}: {answer}{log}");
            assert!(log.contains(told), "{line}{flag}: {log}");
        }
    }
}

#[tokio::test]
async fn another_simulated_market_is_refused_with_what_to_set_or_to_type() {
    let version = MARKET_VERSION;
    for (held, typed) in [
        (format!("seed 7, rate 10, market {version}"), "set TRADING_CORE__SIMULATE__SEED=7. "),
        (format!("seed 42, rate 3, market {version}"), "set TRADING_CORE__SIMULATE__RATE=3. "),
        ("seed 42, rate 10".to_owned(), "Another version of trading-core made it. "),
    ] {
        let (folder, held_by) = (tempfile::tempdir().unwrap(), migrated().await);
        claim(&held_by.pool, &Origin::Simulated(held.clone())).await.unwrap();
        let settings = vec![
            ("DATABASE_URL".to_owned(), held_by.url.clone()),
            setting("SPOOL__DIR", folder.path().join("spool").display()),
            setting("SIMULATE__RATE", "10"),
            setting("SIMULATE__SEED", "42"),
        ];
        let (code, answer, log) = program("live --simulate", &settings);
        assert_eq!(code, Some(1), "{held}: {answer}{log}");
        assert!(log.contains(typed), "{held}: {log}");
        assert!(log.contains("`trading-core db remove --simulated`"), "{held}: {log}");
        assert_eq!(rows(&held_by).await, 0, "{held}");
    }
}

#[tokio::test]
async fn the_trades_of_an_older_market_are_not_asked_for() {
    let older = migrated().await;
    claim(&older.pool, &Origin::Simulated("seed 42, rate 10".to_owned())).await.unwrap();
    sqlx::raw_sql(
        "SELECT ensure_tick_partition((now() AT TIME ZONE 'UTC')::date); \
         INSERT INTO tick_data VALUES (now(), now(), 'okx', 'BTCUSDT', '1', 'buy', 1, 1, 'live')",
    )
    .execute(&older.pool)
    .await
    .unwrap();
    let settings = vec![("DATABASE_URL".to_owned(), older.url.clone())];
    for line in
        ["backfill --simulated --from 10s", "verify --simulated --against-exchange --to 2030-01-01"]
    {
        let (code, answer, log) = program(line, &settings);
        assert_eq!(code, Some(1), "{line}: {answer}{log}");
        assert!(log.contains("`trading-core db remove --simulated`"), "{line}: {log}");
        assert_eq!(rows(&older).await, 1, "{line}");
    }
}
