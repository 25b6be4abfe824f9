//! Where a database is: the real exchanges' and the simulated market's lie apart, another user's is told from none, a look
//! starts it, and `db remove` throws it away.

mod mixed;
mod remove;
mod simulator;
mod users;

use trading_core::simulator::MARKET_VERSION;
use trading_core::store::embedded::{Cluster, command as db};
use trading_core::store::postgres::migrate::migrate;
use trading_core::store::postgres::origin::{Origin, claim};

use crate::support::exchanges::{Exchanges, grown};
use crate::support::postgres::{Scratch, connect, server_pid};
use crate::support::process::{Program, Settings, command, ended, program, setting};

fn settings(scratch: &Scratch) -> Settings {
    vec![
        setting("DATABASE__DATA_DIR", scratch.path().display()),
        setting("BATCH__MAX_TIME", "200ms"),
    ]
}

/// A stopped database that holds one trade of this origin.
async fn made(scratch: &Scratch, origin: &Origin) {
    let cluster = Cluster::start(&scratch.options()).await.unwrap();
    let pool = connect(&cluster.url(), 1).await;
    migrate(&pool).await.unwrap();
    claim(&pool, origin).await.unwrap();
    sqlx::raw_sql(
        "SELECT ensure_tick_partition((now() AT TIME ZONE 'UTC')::date); \
         INSERT INTO tick_data VALUES (now(), now(), 'binance', 'BTCUSDT', '1', 'buy', 1, 1, 'live')",
    )
    .execute(&pool)
    .await
    .unwrap();
    pool.close().await;
    cluster.stop().await.unwrap();
}

fn of_a_market() -> Origin {
    Origin::Simulated(format!("seed 42, rate 10, market {MARKET_VERSION}"))
}

#[tokio::test]
async fn the_demo_and_the_real_exchanges_follow_each_other_in_one_directory_and_never_meet() {
    let exchanges = Exchanges::start(20).await;
    // Made by both, and cleared up with both.
    let scratch = Scratch::simulated();
    let mut settings = settings(&scratch);
    settings.push(setting("SIMULATE__RATE", "20"));
    let demo = tempfile::tempdir().unwrap();
    let mut recorder = Program::start(demo.path(), &["live", "--simulate"], &settings);
    recorder.logged("Look at it").await;
    let pool = connect(&recorder.cluster_url().await, 1).await;
    grown(&pool, 50).await;
    pool.close().await;
    assert!(recorder.stop().await.success(), "{}", recorder.log());
    assert!(!scratch.path().join("postgres").exists() && !scratch.path().join("spool").exists());

    settings.extend(exchanges.settings.clone());
    let real = tempfile::tempdir().unwrap();
    let mut recorder = Program::start(real.path(), &["live"], &settings);
    recorder.logged("Look at it").await;
    let pool = connect(&recorder.cluster_url().await, 1).await;
    grown(&pool, 50).await;
    let origin: String =
        sqlx::query_scalar("SELECT origin FROM recorded_from").fetch_one(&pool).await.unwrap();
    assert_eq!(origin, "real exchanges");
    pool.close().await;
    assert!(recorder.stop().await.success(), "{}", recorder.log());
    let psql = |flag: &str| {
        let mut command = command();
        command.args(["db", "psql"]).args(flag.split_whitespace());
        command.args(["--", "-Atc", "SELECT origin FROM recorded_from"]);
        ended(command.envs(settings.iter().cloned()).output().unwrap())
    };
    assert_eq!(psql("").1, "real exchanges\n");
    assert_eq!(psql("--simulated").1, "a simulated market\n");
    let (_, status, _) = program("db status", &settings);
    let simulated = format!("simulated {} (", scratch.home().display());
    assert!(status.contains(&simulated) && status.contains("--simulated"), "{status}");
}

#[tokio::test]
async fn where_only_the_simulated_database_is_there_each_command_says_what_to_type() {
    let scratch = Scratch::simulated();
    made(&scratch, &of_a_market()).await;
    let settings = settings(&scratch);
    for line in [
        "verify",
        "replay --paper-trading",
        "backfill",
        "db psql",
        "db migrate",
        "db remove --yes",
        "db reader NAME",
    ] {
        let (code, answer, log) = program(line, &settings);
        assert_eq!(code, Some(1), "{line}: {answer}{log}");
        let typed = line.trim_end_matches(" --yes");
        let typed = format!("\n  trading-core {typed} --simulated\n");
        assert!(log.contains(&typed), "{line}: {log}");
        assert!(!scratch.path().join("postgres").exists(), "{line} made a database");
    }
    let (code, status, _) = program("db status", &settings);
    assert_eq!(code, Some(0));
    assert!(status.starts_with("not made yet"), "{status}");
    assert!(status.contains("`trading-core db status --simulated`"), "{status}");
    let (_, told, _) = program("doctor --exchange okx", &settings);
    assert!(told.contains("`trading-core doctor --simulated` looks at it"), "{told}");

    let (code, answer, log) = program("db start --simulated", &settings);
    assert_eq!(code, Some(0), "{log}");
    assert!(answer.contains("until `trading-core db stop --simulated`"), "{answer}");
    let (code, answer, _) = program("db stop", &settings);
    assert_eq!(code, Some(0));
    assert!(answer.contains("`trading-core db stop --simulated` stops it"), "{answer}");
    assert!(server_pid(&scratch.options()).await.is_some(), "it was not meant");
    assert_eq!(db::stop(&scratch.options()).await.unwrap(), db::Stop::Stopped);
    let (code, answer, log) = program("replay --paper-trading --simulated", &settings);
    assert_eq!(code, Some(0), "{answer}{log}");
}

#[tokio::test]
async fn where_only_the_real_database_is_there_the_simulated_one_is_not_made_up() {
    let scratch = Scratch::new("");
    made(&scratch, &Origin::Exchanges).await;
    let settings = settings(&scratch);
    let (code, _, log) = program("verify --simulated", &settings);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.ends_with("\n  trading-core verify\n"), "{log}");
    assert!(log.contains("`trading-core live --simulate` begins"), "{log}");
    assert!(!scratch.path().join("simulated").exists());
}

#[tokio::test]
async fn psql_on_a_stopped_database_starts_it_for_as_long_as_it_runs() {
    let scratch = Scratch::new("");
    made(&scratch, &Origin::Exchanges).await;
    let settings = settings(&scratch);
    let psql = |arguments: &[&str]| {
        let mut command = command();
        command.args(["db", "psql", "--"]).args(arguments);
        ended(command.envs(settings.iter().cloned()).output().unwrap())
    };
    let (code, answer, log) = psql(&["-Atc", "SELECT count(*) FROM tick_data"]);
    assert_eq!((code, answer.as_str()), (Some(0), "1\n"), "{log}");
    assert!(log.contains("it is started for as long as psql runs"), "{log}");
    assert_eq!(server_pid(&scratch.options()).await, None);
    // Its exit codes are handed on.
    let script = scratch.path().join("spool");
    std::fs::write(&script, "SELECT 1 / 0;").unwrap();
    let (code, _, log) = psql(&["-v", "ON_ERROR_STOP=1", "-f", script.to_str().unwrap()]);
    assert_eq!(code, Some(3), "{log}");
    assert_eq!(server_pid(&scratch.options()).await, None);
    let (code, _, log) = program("db psql", &[setting("DATABASE__DATA_DIR", "/nonexistent/x")]);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("nothing is recorded in /nonexistent/x yet"), "{log}");
}

#[tokio::test]
async fn doctor_says_before_a_start_that_the_port_is_taken() {
    let scratch = Scratch::new("");
    made(&scratch, &Origin::Exchanges).await;
    let mut settings = settings(&scratch);
    let port = std::fs::read_to_string(scratch.path().join("port")).unwrap();
    let _taken = std::net::TcpListener::bind(format!("127.0.0.1:{}", port.trim())).unwrap();
    let warning = format!("port {} of 127.0.0.1 is in use by another program", port.trim());
    let (_, told, _) = program("doctor --exchange okx", &settings);
    assert!(!told.contains(&warning), "without TCP nothing is in its way: {told}");
    settings.push(setting("DATABASE__TCP", "true"));
    let (_, told, _) = program("doctor --exchange okx", &settings);
    assert!(told.contains(&warning), "{told}");
    let (code, answer, log) = program("db start", &settings);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains(&format!("WARN Port {} of 127.0.0.1 is in use", port.trim())), "{log}");
    assert!(answer.contains("-h 127.0.0.1 -p ") && !answer.contains(port.trim()), "{answer}");
    assert_eq!(db::stop(&scratch.options()).await.unwrap(), db::Stop::Stopped);
}
