//! A database that is up later than its recorder: nothing that comes in meanwhile is lost, and what was missed before the
//! start is listed.

use nix::sys::signal::Signal;
use trading_core::domain::Timestamp;
use trading_core::store::embedded::{Cluster, command};

use super::{count, reached, settings};
use crate::support::exchanges::Exchanges;
use crate::support::postgres::{Scratch, connect};
use crate::support::process::{Program, Settings, program};
use crate::support::truth::stored;
use crate::support::waiting::until;

const ARGUMENTS: [&str; 4] = ["live", "--exchange", "binance", "bybit"];

/// A stopped server and its URL, as of any other server: nobody starts it unasked.
async fn stopped(scratch: &Scratch) -> String {
    let cluster = Cluster::start(&scratch.options()).await.unwrap();
    let url = cluster.url();
    cluster.stop().await.unwrap();
    url
}

/// Waits until the spool holds this many ticks.
async fn spooled(settings: &Settings, least: u64) {
    until(async || {
        let (_, answer, _) = program("spool status --json", settings);
        let status: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let waiting = status["ticks"].as_u64().unwrap();
        if waiting >= least { Ok(()) } else { Err(answer) }
    })
    .await;
}

#[tokio::test]
async fn a_database_that_comes_later_is_waited_for_and_gets_everything() {
    let exchanges = Exchanges::start(40).await;
    let scratch = Scratch::new("");
    let folder = tempfile::tempdir().unwrap();
    let url = stopped(&scratch).await;
    let settings = settings(&exchanges.settings, &url, folder.path());

    // Never seen before: killed while it is still away, and found by the next start.
    let mut recorder = Program::start(folder.path(), &ARGUMENTS, &settings);
    let line = recorder.logged("Waiting for the database").await;
    assert!(line.contains("cannot be reached"), "{line}");
    spooled(&settings, 500).await;
    recorder.signal(Signal::SIGKILL);
    recorder.gone().await;

    // The server comes while this one runs.
    let mut recorder = Program::start(folder.path(), &ARGUMENTS, &settings);
    recorder.logged("Waiting for the database").await;
    spooled(&settings, 1_000).await;
    command::start(&scratch.options()).await.unwrap();
    recorder.logged("The database is there after").await;
    let pool = connect(&url, 2).await;
    reached(&pool, "SELECT count(*) FROM tick_data", 1_500).await;
    let status = recorder.stop().await;
    assert!(status.success() && recorder.log().contains("spooled 0"), "{}", recorder.log());
    pool.close().await;
    command::stop(&scratch.options()).await.unwrap();

    // Seen before, and away again.
    let begun = Timestamp::now();
    let mut recorder = Program::start(folder.path(), &ARGUMENTS, &settings);
    recorder.logged("Waiting for the database").await;
    spooled(&settings, 500).await;
    command::start(&scratch.options()).await.unwrap();
    recorder.logged("The database is there after").await;
    let pool = connect(&url, 2).await;
    // Of both times between the runs: of Bybit, whose ids prove nothing, and the ids of the other.
    for exchange in ["binance", "bybit"] {
        let sql = format!(
            "SELECT count(*) FROM tick_gaps WHERE exchange = '{exchange}' \
                 AND cause = 'the recorder was not running' AND to_time > '{begun}'"
        );
        // A gap in time that the one before reaches up to makes that longer.
        reached(&pool, &sql, 1).await;
    }
    let status = recorder.stop().await;
    assert!(status.success(), "{}", recorder.log());
    let table = stored(&pool, &exchanges.market).await;
    for ((exchange, symbol), symbol_stored) in &table {
        let missing = symbol_stored.missing();
        for id in &missing {
            let listed = format!(
                "SELECT count(*) FROM tick_gaps WHERE exchange = '{exchange}' AND symbol = '{symbol}' \
                 AND (first_id IS NULL OR {id} BETWEEN first_id::bigint AND last_id::bigint)"
            );
            assert!(count(&pool, &listed).await > 0, "{exchange}:{symbol} {id} is nowhere");
        }
    }
    pool.close().await;
    command::stop(&scratch.options()).await.unwrap();
}

#[tokio::test]
async fn what_no_wait_can_mend_ends_the_start_at_once_with_the_cure() {
    let database = crate::support::postgres::database().await;
    let folder = tempfile::tempdir().unwrap();
    for (url, told) in [
        (database.url.replace("/t_", "/no_such_"), "is not there (CREATE DATABASE makes it)"),
        (database.url.replace("trading_core@", "nobody@"), "does not let this user in"),
    ] {
        let settings = settings(&Vec::new(), &url, folder.path());
        let (code, _, log) = program("live --simulate", &settings);
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(told), "{log}");
    }
}

#[tokio::test]
async fn a_database_that_turns_out_to_be_another_gets_nothing_of_what_was_spooled() {
    let exchanges = Exchanges::start(40).await;
    let scratch = Scratch::new("");
    let folder = tempfile::tempdir().unwrap();
    let url = stopped(&scratch).await;
    let settings = settings(&exchanges.settings, &url, folder.path());
    command::start(&scratch.options()).await.unwrap();
    let (code, _, log) = program("db migrate", &settings);
    assert_eq!(code, Some(0), "{log}");
    let mut recorder = Program::start(folder.path(), &ARGUMENTS, &settings);
    recorder.logged("Feed connected").await;
    recorder.stop().await;
    let pool = connect(&url, 1).await;
    super::run(&pool, "TRUNCATE tick_data; UPDATE recorded_from SET id = gen_random_uuid()").await;
    pool.close().await;
    command::stop(&scratch.options()).await.unwrap();

    let mut recorder = Program::start(folder.path(), &ARGUMENTS, &settings);
    recorder.logged("Waiting for the database").await;
    spooled(&settings, 200).await;
    command::start(&scratch.options()).await.unwrap();
    let line = recorder.logged("is not the one that ticks are spooled for").await;
    assert!(line.contains("spool drain --adopt"), "{line}");
    assert_eq!(recorder.gone().await.code(), Some(70), "{}", recorder.log());
    let pool = connect(&url, 1).await;
    assert_eq!(count(&pool, "SELECT count(*) FROM tick_data").await, 0);
    pool.close().await;
    command::stop(&scratch.options()).await.unwrap();
}
