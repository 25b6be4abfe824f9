//! `doctor` says before a start what would go wrong: run as its user runs it, against simulated exchanges and a real
//! PostgreSQL.

use std::process::Output;

use serde_json::Value;
use trading_core::domain::Timestamp;
use trading_core::exchange::names;
use trading_core::simulator::{Clock, RestLimits, SimulatorOptions};
use trading_core::store::postgres::origin::{Origin, claim};

use crate::support::exchanges::{Exchanges, with_history};
use crate::support::postgres::migrated;
use crate::support::process::{Settings, command, setting};

/// Simulated exchanges whose clock is off by `clock_off` microseconds.
async fn serve(clock_off: i64) -> (Settings, Exchanges) {
    let exchanges = Exchanges::with(SimulatorOptions {
        rest_limits: RestLimits::none(),
        clock: Clock::new(move || Timestamp::now().plus_micros(clock_off)),
        ..SimulatorOptions::default()
    })
    .await;
    (exchanges.with_history(), exchanges)
}

fn doctor(settings: &Settings, arguments: &[&str]) -> Output {
    command().arg("doctor").args(arguments).envs(settings.iter().cloned()).output().unwrap()
}

fn doctor_with(url: &str, settings: &Settings, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut settings = settings.clone();
    settings.push(("DATABASE_URL".to_owned(), url.to_owned()));
    let mut arguments = arguments.to_vec();
    arguments.push("--json");
    let output = doctor(&settings, &arguments);
    let told = serde_json::from_slice(&output.stdout);
    (output.status.code(), told.unwrap_or_else(|error| panic!("{error}: {output:?}")))
}

/// What was found at one level: each as `area: found`.
fn found(told: &Value, level: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = told["checks"].as_array().unwrap().iter().filter(|check| check["level"] == level);
    checks.map(|check| format!("{}: {}", text(&check["area"]), text(&check["found"]))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_is_well_it_says_so_and_what_is_to_be_expected() {
    let database = migrated().await;
    let (settings, _serving) = serve(0).await;
    let arguments = ["--symbol", "BTC-USDT", "ETH-USDT"];
    let (code, told) = doctor_with(&database.url, &settings, &arguments);
    assert_eq!(found(&told, "fail"), Vec::<String>::new());
    assert_eq!((code, &told["would_fail"]), (Some(0), &Value::Bool(false)));
    let well = found(&told, "ok");
    for exchange in names() {
        for part in ["WebSocket reached", "its clock is ours", "2 of 2 symbols are traded there"] {
            let line = well.iter().find(|line| line.starts_with(exchange) && line.contains(part));
            assert!(line.is_some(), "{exchange}: {part}: {told:#}");
        }
    }
    assert!(
        well.contains(&"database: the tables are those of this version".to_owned()),
        "{told:#}"
    );
    // Ten a second and symbol, by what the exchanges' newest trades tell.
    let rate = told["rows_per_second"].as_f64().unwrap();
    assert!((50.0..200.0).contains(&rate), "{rate}");
    assert!(told["bytes_per_day"].as_u64().unwrap() > 100_000_000, "{told:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_symbol_that_does_not_exist_is_named_at_each_exchange() {
    let database = migrated().await;
    let (settings, _serving) = serve(0).await;
    let (code, told) =
        doctor_with(&database.url, &settings, &["--symbol", "BTC-USDT", "NOSUCH-USDT"]);
    assert_eq!(code, Some(2), "{told:#}");
    let failed = found(&told, "fail");
    assert_eq!(failed.len(), names().len(), "{failed:?}");
    for (line, exchange) in failed.iter().zip(names()) {
        assert!(line.starts_with(&format!("{exchange}: NOSUCHUSDT is not ")), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_off_is_told_and_one_that_is_far_off_would_fail() {
    let database = migrated().await;
    let arguments = ["--exchange", "okx", "--symbol", "BTC-USDT"];
    let (settings, _serving) = serve(10_000_000).await;
    let (code, told) = doctor_with(&database.url, &settings, &arguments);
    let warned = found(&told, "warn");
    assert_eq!(code, Some(0), "{told:#}");
    assert!(warned.iter().any(|line| line.contains("behind the exchange's")), "{warned:?}");
    let (settings, _serving) = serve(-600_000_000).await;
    let (code, told) = doctor_with(&database.url, &settings, &arguments);
    assert_eq!(code, Some(2), "{told:#}");
    let failed = found(&told, "fail");
    assert!(failed[0].contains("ahead of the exchange's"), "{failed:?}");
    assert_eq!(failed[1], "clock: this machine's is 10m ahead of the true time, by okx");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_down_keeps_nothing_else_from_being_looked_at() {
    let (settings, _serving) = serve(0).await;
    let down = "postgres://nobody@127.0.0.1:1/none";
    let (code, told) =
        doctor_with(down, &settings, &["--exchange", "kraken", "--symbol", "BTC-USD"]);
    assert_eq!(code, Some(2));
    let failed = found(&told, "fail");
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(
        failed[0].starts_with("database: ") && failed[0].contains("cannot be reached"),
        "{failed:?}"
    );
    assert!(found(&told, "ok").iter().any(|line| line.starts_with("kraken: 1 of 1")), "{told:#}");
}

#[tokio::test]
async fn without_a_network_it_says_so_of_each_exchange() {
    let database = migrated().await;
    // Nobody listens there.
    let (code, told) = doctor_with(&database.url, &with_history("127.0.0.1:9"), &[]);
    assert_eq!(code, Some(2));
    let failed = found(&told, "fail");
    assert_eq!(failed.len(), 2 * names().len(), "{failed:?}");
    for exchange in names() {
        let own = failed.iter().filter(|line| line.starts_with(exchange)).count();
        assert_eq!(own, 2, "its WebSocket and its REST side: {failed:?}");
    }
}

#[tokio::test]
async fn rights_a_newer_schema_and_simulated_trades_are_seen_before_they_hurt() {
    let database = migrated().await;
    let nowhere = with_history("127.0.0.1:9");
    let of_database = |url: &str| {
        let (_, told) = doctor_with(url, &nowhere, &["--exchange", "okx"]);
        let failed = found(&told, "fail");
        failed.into_iter().filter(|line| line.starts_with("database")).collect::<Vec<_>>()
    };
    assert_eq!(of_database(&database.url), Vec::<String>::new());

    let reader = format!("reader_{}", std::process::id());
    let run = async |sql: String| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&database.pool).await.unwrap();
    };
    run(format!(
        "CREATE ROLE {reader} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}"
    ))
    .await;
    let as_reader = database.url.replace("trading_core@", &format!("{reader}@"));
    let failed = of_database(&as_reader);
    for part in ["may not write to all tables", "today's partition of tick_data is missing"] {
        assert!(failed.iter().any(|line| line.contains(part)), "{part}: {failed:?}");
    }
    run(format!(
        "GRANT trading_core TO {reader}; ALTER ROLE {reader} SET default_transaction_read_only = on"
    ))
    .await;
    assert_eq!(of_database(&as_reader), ["database: it takes no writes: read-only"]);
    run(format!("DROP OWNED BY {reader}; DROP ROLE {reader}")).await;

    claim(&database.pool, &Origin::Simulated("seed 1".to_owned())).await.unwrap();
    let failed = of_database(&database.url);
    assert!(failed.len() == 1 && failed[0].contains("trades of a simulated market"), "{failed:?}");
    run("UPDATE _sqlx_migrations SET version = 9999 WHERE version = 1".to_owned()).await;
    assert_eq!(
        of_database(&database.url),
        ["database: a newer trading-core has changed the tables"]
    );
    run("DROP TABLE _sqlx_migrations".to_owned()).await;
    assert_eq!(of_database(&database.url), Vec::<String>::new());
}

#[tokio::test]
async fn it_makes_nothing_and_tells_of_bad_settings_like_of_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = with_history("127.0.0.1:9");
    settings.push(setting("DATABASE__DATA_DIR", folder.path().join("data").display()));
    let output = doctor(&settings, &["--exchange", "okx"]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("`live` makes it in"), "{told}");
    assert!(told.lines().last().unwrap().starts_with("NOT READY: "), "{told}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    settings.push(setting("BATCH__MAX_SIZE", 0));
    settings.push(setting("SPOOL__MAX_BYTES", "much"));
    let output = doctor(&settings, &["--json"]);
    assert_eq!(output.status.code(), Some(2));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let failed = found(&told, "fail");
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(failed.iter().all(|line| line.starts_with("settings: ")), "{failed:?}");
}
