//! A database that goes away: what comes in waits on disk, is found again after a kill, and is stored once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use nix::sys::signal::Signal;
use rust_decimal::Decimal;
use serde_json::Value;
use trading_core::exchange::names;
use trading_core::simulator::{Market, MarketOptions};
use trading_core::store::embedded::Cluster;
use trading_core::store::embedded::command;

use crate::support::exchanges::{Exchanges, grown};
use crate::support::postgres::{Scratch, connect};
use crate::support::process::{self, Program, Settings, setting};
use crate::support::truth::{Stored, stored};
use crate::support::waiting::until;

/// Small and quick, so that an outage is seen soon.
fn settings(scratch: &Scratch, more: &[(String, String)]) -> Settings {
    let mut settings = more.to_vec();
    settings.extend([
        setting("DATABASE__DATA_DIR", scratch.path().display()),
        setting("BATCH__MAX_TIME", "1s"),
        setting("BATCH__MAX_RETRY_ATTEMPTS", "1"),
        setting("BATCH__RETRY_DELAY", "100ms"),
    ]);
    settings
}

/// A stopped cluster on a port of the system's choice: it keeps that port while it is stopped, and the first port that
/// recorders take by themselves would be another's by then.
async fn prepared(scratch: &Scratch) {
    Cluster::start(&scratch.options()).await.unwrap().stop().await.unwrap();
}

/// `trading-core spool …`
fn spool(settings: &Settings, arguments: &[&str]) -> Output {
    let mut command = process::command();
    command.arg("spool").args(arguments).envs(settings.iter().cloned());
    // Only the simulated market has a rate.
    if settings.iter().any(|(name, _)| name.contains("SIMULATE__RATE")) {
        command.arg("--simulated");
    }
    command.output().unwrap()
}

fn answer(settings: &Settings, arguments: &[&str]) -> String {
    let output = spool(settings, arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {}\n{told}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn status(settings: &Settings) -> Value {
    serde_json::from_str(&answer(settings, &["status", "--json"])).unwrap()
}

fn waiting(settings: &Settings) -> u64 {
    status(settings)["ticks"].as_u64().unwrap()
}

async fn spooled(settings: &Settings, ticks: u64) {
    until(async || match waiting(settings) {
        waiting if waiting >= ticks => Ok(()),
        waiting => Err(format!("{waiting} ticks wait, and not {ticks}")),
    })
    .await;
}

/// The ids in the spool, by exchange and symbol.
fn spooled_ids(settings: &Settings) -> BTreeMap<(String, String), BTreeSet<u64>> {
    let mut ids: BTreeMap<_, BTreeSet<u64>> = BTreeMap::new();
    for line in answer(settings, &["inspect", "--json", "--limit", "1000000"]).lines() {
        let tick: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| tick[key].as_str().unwrap().to_owned();
        let symbol = (text("exchange"), text("symbol"));
        ids.entry(symbol).or_default().insert(text("trade_id").parse().unwrap());
    }
    ids
}

fn ledger(log: &str) -> BTreeMap<String, u64> {
    let line = log.lines().rev().find(|line| line.contains("Ledger: received")).unwrap();
    assert!(line.contains(" = "), "{line}");
    let counts = line.split_once("Ledger: ").unwrap().1.split([' ', '=', '+']);
    let words: Vec<&str> = counts.filter(|word| !word.is_empty()).collect();
    words.windows(2).filter_map(|pair| Some((pair[0].to_owned(), pair[1].parse().ok()?))).collect()
}

async fn stored_by(scratch: &Scratch, market: &Market) -> BTreeMap<(String, String), Stored> {
    let cluster = Cluster::start(&scratch.options()).await.unwrap();
    let pool = connect(&cluster.url(), 2).await;
    let stored = stored(&pool, market).await;
    pool.close().await;
    cluster.stop().await.unwrap();
    stored
}

#[tokio::test]
async fn through_an_outage_and_a_kill_everything_spooled_is_found_and_stored_once() {
    let exchanges = Exchanges::start(40).await;
    let scratch = Scratch::new("");
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&scratch, &exchanges.settings);
    prepared(&scratch).await;
    let mut program = Program::start(folder.path(), &["live"], &settings);
    program.logged("Look at it").await;
    let pool = connect(&program.cluster_url().await, 2).await;
    grown(&pool, 500).await;
    pool.close().await;
    assert_eq!(status(&settings)["ticks"], 0);

    assert_eq!(command::stop(&scratch.options()).await.unwrap(), command::Stop::StoppedInUse);
    let opened = program.logged("Store circuit OPEN").await;
    assert!(opened.contains("batches go to the spool at "), "{opened}");
    spooled(&settings, 10_000).await;
    let seen = status(&settings);
    assert_eq!(seen["slots"][0]["held"], true, "{seen}");
    let some = spool(&settings, &["inspect", "--limit", "7"]);
    let lines = String::from_utf8(some.stdout).unwrap();
    let told = String::from_utf8(some.stderr).unwrap();
    assert_eq!(lines.lines().count(), 7, "{lines}");
    assert!(told.contains("7 of ") && told.contains("--limit N prints more"), "{told}");
    assert!(lines.lines().all(|line| line.split(' ').count() == 7), "{lines}");
    let drained = answer(&settings, &["drain"]);
    assert!(drained.starts_with("0 ticks stored"), "a running recorder's is its own: {drained}");
    assert!(!program.log().contains("Feed disconnected"), "{}", program.log());
    assert!(!program.log().contains("Channel full!"), "{}", program.log());

    program.signal(Signal::SIGKILL);
    drop(program);
    let left = spooled_ids(&settings);
    let seen = status(&settings);
    assert_eq!(seen["slots"][0]["held"], false, "the lock dies with its process: {seen}");

    let again = tempfile::tempdir().unwrap();
    let mut program = Program::start(again.path(), &["live"], &settings);
    let found = program.logged("of an earlier run in the spool; storing them").await;
    let ticks: usize = left.values().map(BTreeSet::len).sum();
    assert!(found.contains(&format!("({ticks} ticks)")), "{found}");
    program.logged("Spool drained: ").await;
    let status_at_end = program.stop().await;
    assert!(status_at_end.success(), "{}", program.log());
    let counts = ledger(&program.log());
    assert_eq!((counts["spooled"], counts["flight"], counts["rejected"]), (0, 0, 0), "{counts:?}");
    assert_eq!(waiting(&settings), 0);

    let stored = stored_by(&scratch, &exchanges.market).await;
    assert_eq!(left.len(), 10 * names().len(), "every symbol went to the spool");
    for (symbol, ids) in &left {
        // What came after the last spooled batch was in memory when the recorder was killed.
        let missing = stored[symbol].missing_through(*ids.last().unwrap());
        assert_eq!(missing, Vec::<u64>::new(), "{symbol:?}");
    }
}

#[tokio::test]
async fn a_database_that_comes_back_is_found_and_nothing_is_missing() {
    let exchanges = Exchanges::start(40).await;
    let scratch = Scratch::new("");
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&scratch, &exchanges.settings);
    prepared(&scratch).await;
    let mut program = Program::start(folder.path(), &["live"], &settings);
    program.logged("Look at it").await;
    let pool = connect(&program.cluster_url().await, 2).await;
    grown(&pool, 200).await;
    command::stop(&scratch.options()).await.unwrap();
    program.logged("Store circuit OPEN").await;
    spooled(&settings, 5_000).await;
    command::start(&scratch.options()).await.unwrap();
    program.logged("Store circuit CLOSED after ").await;
    program.logged("Spool drained: ").await;
    grown(&pool, 200).await;
    pool.close().await;
    let ended = program.stop().await;
    let log = program.log();
    assert!(ended.success(), "{log}");
    assert!(!log.contains("Feed disconnected"), "{log}");
    let counts = ledger(&log);
    assert_eq!(counts["received"], counts["stored"] + counts["duplicates"], "{counts:?}");
    for (symbol, stored) in stored_by(&scratch, &exchanges.market).await {
        assert_eq!(stored.missing(), Vec::<u64>::new(), "{symbol:?}");
    }
}

#[tokio::test]
async fn at_its_limit_the_feeds_wait_it_is_said_and_nothing_is_lost() {
    let scratch = Scratch::simulated();
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&scratch, &[setting("SPOOL__MAX_BYTES", "1MiB")]);
    settings.extend([
        setting("SIMULATE__RATE", "60"),
        setting("PIPELINE__CHANNEL_CAPACITY", "1000"),
        setting("BATCH__MAX_COALESCED", "1000"),
    ]);
    prepared(&scratch).await;
    let mut program = Program::start(folder.path(), &["live", "--simulate"], &settings);
    program.logged("Look at it").await;
    let pool = connect(&program.cluster_url().await, 2).await;
    grown(&pool, 100).await;
    pool.close().await;
    command::stop(&scratch.options()).await.unwrap();
    let full = program.logged("Spool full at ").await;
    assert!(full.contains("of 1.0 MiB are taken"), "{full}");
    assert!(full.contains("the feeds wait once the channel is full"), "{full}");
    program.logged("Channel full! ").await;
    let bytes = status(&settings)["bytes"].as_u64().unwrap();
    assert!((900_000..=1 << 20).contains(&bytes), "{bytes}");
    command::start(&scratch.options()).await.unwrap();
    program.logged("Spool drained: ").await;
    let ended = program.stop().await;
    let log = program.log();
    assert!(ended.success(), "{log}");
    let counts = ledger(&log);
    assert_eq!((counts["dropped"], counts["spooled"], counts["flight"]), (0, 0, 0), "{counts:?}");
    assert_eq!(counts["received"], counts["stored"] + counts["duplicates"], "{counts:?}");
    let rows: usize = stored_by(&scratch, &market(60)).await.values().map(|it| it.ids.len()).sum();
    assert_eq!(u64::try_from(rows).unwrap(), counts["stored"]);
}

#[tokio::test]
async fn what_a_stop_during_an_outage_leaves_is_stored_by_drain() {
    let scratch = Scratch::simulated();
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&scratch, &[setting("SIMULATE__RATE", "40")]);
    settings.push(setting("PIPELINE__STOP_DEADLINE", "3s"));
    let nothing = answer(&settings, &["drain"]);
    assert!(nothing.starts_with("0 ticks stored"), "{nothing}");
    assert!(!scratch.home().join("postgres").exists(), "no database is made for nothing");
    prepared(&scratch).await;
    let mut program = Program::start(folder.path(), &["live", "--simulate"], &settings);
    program.logged("Look at it").await;
    let pool = connect(&program.cluster_url().await, 2).await;
    grown(&pool, 100).await;
    pool.close().await;
    command::stop(&scratch.options()).await.unwrap();
    program.logged("Store circuit OPEN").await;
    let ended = program.stop().await;
    let log = program.log();
    assert_eq!(ended.code(), Some(70), "{log}");
    let left = ledger(&log)["spooled"];
    let line = format!("{left} ticks are in the spool at {}", spool_dir(&scratch).display());
    assert!(left > 0 && log.contains(&line), "{log}");
    assert_eq!(waiting(&settings), left);

    refuse_everything(&scratch, true).await;
    let refused = spool(&settings, &["drain"]);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(70), "{told}");
    let line = format!("{left} ticks in the spool at {}", spool_dir(&scratch).display());
    assert!(told.contains(&line), "{told}");
    refuse_everything(&scratch, false).await;

    let drained = answer(&settings, &["drain", "--json"]);
    let drained: Value = serde_json::from_str(&drained).unwrap();
    assert_eq!((&drained["complete"], &drained["left"]), (&true.into(), &0.into()), "{drained}");
    let count = |name: &str| drained[name].as_u64().unwrap();
    assert_eq!(count("stored") + count("duplicates"), left, "{drained}");
    assert_eq!(drained["dir"], spool_dir(&scratch).to_str().unwrap());
    assert_eq!(waiting(&settings), 0);
    assert!(answer(&settings, &["inspect"]).is_empty());
    for (symbol, stored) in stored_by(&scratch, &market(40)).await {
        assert_eq!(stored.missing(), Vec::<u64>::new(), "{symbol:?}");
    }
}

/// Segments that wait, the oldest first.
fn segments(scratch: &Scratch) -> Vec<PathBuf> {
    let slot = spool_dir(scratch).join("1");
    let entries = fs::read_dir(slot).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "segment")).collect();
    files.sort_unstable();
    files
}

/// Where the records of a file begin, by their lengths.
fn records(bytes: &[u8]) -> Vec<usize> {
    let mut at = 8;
    let mut places = Vec::new();
    while let Some(length) = bytes.get(at..at + 4) {
        places.push(at);
        at += 16 + usize::try_from(u32::from_le_bytes(length.try_into().unwrap())).unwrap();
    }
    places
}

#[tokio::test]
async fn a_damaged_and_odd_spool_gives_all_that_can_be_read_and_says_what_it_could_not() {
    let scratch = Scratch::simulated();
    let folder = tempfile::tempdir().unwrap();
    let more = [setting("SIMULATE__RATE", "40"), setting("PIPELINE__STOP_DEADLINE", "3s")];
    let settings =
        settings(&scratch, &[&more[..], &[setting("SPOOL__MAX_BYTES", "2MiB")]].concat());
    prepared(&scratch).await;
    let mut program = Program::start(folder.path(), &["live", "--simulate"], &settings);
    program.logged("Look at it").await;
    command::stop(&scratch.options()).await.unwrap();
    program.logged("Store circuit OPEN").await;
    until(async || match segments(&scratch).len() {
        4.. => Ok(()),
        files => Err(format!("{files} files\n{}", program.log())),
    })
    .await;
    program.stop().await;
    drop(program);
    let before = spooled_ids(&settings);
    let all: usize = before.values().map(BTreeSet::len).sum();

    // One bit of a frame, one of a head, and things that are no files.
    let files = segments(&scratch);
    let flip = |path: &Path, at: usize| {
        let mut bytes = fs::read(path).unwrap();
        let place = records(&bytes)[at] + usize::from(at == 0) * 20;
        bytes[place] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let hit = fs::read(&files[0]).unwrap();
    let ticks_hit = hit.get(records(&hit)[1] + 4..).unwrap().first_chunk::<4>().unwrap();
    let ticks_hit = usize::try_from(u32::from_le_bytes(*ticks_hit)).unwrap();
    flip(&files[0], 1);
    flip(&files[1], 0);
    let odd = files[0].with_file_name("0000000098.segment");
    nix::unistd::mkfifo(&odd, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let seen = status(&settings);
    assert_eq!(seen["ticks"], all - ticks_hit, "{seen}");
    assert!(seen["skipped"][0]["why"].as_str().unwrap().contains("a named pipe"), "{seen}");

    let drained = spool(&settings, &["drain"]);
    let told = String::from_utf8_lossy(&drained.stdout).into_owned();
    assert_eq!(drained.status.code(), Some(70), "{told}");
    assert!(told.contains("could not be read; kept in ") && told.contains(".damaged"), "{told}");
    assert!(told.contains("0000000098.segment was left alone: it is a named pipe"), "{told}");
    assert!(told.contains("nothing is left to drain"), "{told}");
    let stored: usize =
        stored_by(&scratch, &market(40)).await.values().map(|it| it.ids.len()).sum();
    assert!(stored >= all - ticks_hit, "{stored} of {all}");

    // What can be read of the files that were set aside is shown, and stored again, once.
    let shown = answer(&settings, &["inspect", "--damaged", "--limit", "1000000"]);
    assert!(shown.lines().count() > ticks_hit, "{}", shown.lines().count());
    assert!(answer(&settings, &["inspect"]).is_empty());
    let again = spool(&settings, &["drain", "--damaged"]);
    let told = String::from_utf8_lossy(&again.stdout).into_owned();
    assert_eq!(again.status.code(), Some(70), "{told}");
    assert!(told.starts_with("0 ticks stored, "), "{told}");

    // A recorder starts all the same, names what is odd, and ends with 70 as long as it is there.
    let again = tempfile::tempdir().unwrap();
    let mut program = Program::start(again.path(), &["live", "--simulate"], &settings);
    let line = program.logged("WARN In the spool").await;
    assert!(line.contains("0000000098.segment was left alone"), "{line}");
    program.logged("Look at it").await;
    let ended = program.stop().await;
    assert_eq!(ended.code(), Some(70), "{}", program.log());
    assert!(program.log().contains("Not everything in the spool at "), "{}", program.log());
    fs::remove_file(odd).unwrap();
    assert!(spool(&settings, &["drain"]).status.success());
}

/// A trigger that refuses every row, as somebody might make one.
async fn refuse_everything(scratch: &Scratch, refuses: bool) {
    let statements = if refuses {
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$; \
         CREATE TRIGGER refuse BEFORE INSERT ON tick_data FOR EACH ROW EXECUTE FUNCTION refuse();"
    } else {
        "DROP FUNCTION refuse CASCADE"
    };
    let cluster = Cluster::start(&scratch.options()).await.unwrap();
    let pool = connect(&cluster.url(), 1).await;
    sqlx::raw_sql(statements).execute(&pool).await.unwrap();
    pool.close().await;
    cluster.stop().await.unwrap();
}

fn spool_dir(scratch: &Scratch) -> std::path::PathBuf {
    scratch.home().join("spool")
}

fn market(rate: i64) -> Market {
    let rate = Decimal::from(rate);
    Market::new(&MarketOptions { seed: 42, rate, ..MarketOptions::default() }).unwrap()
}
