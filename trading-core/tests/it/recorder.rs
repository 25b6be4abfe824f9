//! The whole program: every trade of the simulated exchanges is stored once, with its exact values, through a plain
//! run and through faults.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rust_decimal::Decimal;
use sqlx::PgPool;
use trading_core::exchange::names;
use trading_core::simulator::{Action, EntryKind, Market, MarketOptions};
use trading_core::store::embedded::Cluster;
use trading_core::store::embedded::command::stop;

use crate::support::exchanges::{Exchanges, grown};
use crate::support::postgres::{Scratch, connect, database, server_pid};
use crate::support::process::{Program, command, setting};
use crate::support::truth::stored;

/// What the recorder may use at the most, through any fault.
const MEMORY_MAX: u64 = 64 * 1024 * 1024;

#[tokio::test]
async fn a_simulated_run_stores_every_trade_once_and_the_ledger_adds_up() {
    let scratch = Scratch::simulated();
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        setting("DATABASE__DATA_DIR", scratch.path().display()),
        setting("SIMULATE__RATE", "40"),
        setting("BATCH__MAX_TIME", "1s"),
    ];
    let arguments = ["live", "--simulate", "--paper-trading"];
    let mut program = Program::start(folder.path(), &arguments, &settings);
    program.logged("Look at it").await;
    let pool = connect(&program.cluster_url().await, 2).await;
    grown(&pool, 1_500).await;
    pool.close().await;
    assert!(program.peak_memory() < MEMORY_MAX, "{} bytes", program.peak_memory());
    let status = program.stop().await;
    let log = program.log();
    assert!(status.success(), "{status}\n{log}");

    let ledger = log.lines().find(|line| line.contains("Ledger: received")).unwrap();
    let number = |word: &str| -> u64 {
        let rest = ledger.split_once(&format!("{word} ")).unwrap().1;
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    assert!(ledger.contains(" = "), "{ledger}");

    let cluster = Cluster::start(&scratch.options()).await.unwrap();
    let pool = connect(&cluster.url(), 2).await;
    let rate = Decimal::from(40);
    let market =
        Market::new(&MarketOptions { seed: 42, rate, ..MarketOptions::default() }).unwrap();
    let stored = stored(&pool, &market).await;
    assert_eq!(stored.len(), 10 * names().len(), "ten symbols of each exchange");
    for ((exchange, symbol), symbol_stored) in &stored {
        assert_eq!(symbol_stored.missing(), Vec::<u64>::new(), "{exchange}:{symbol}");
        assert!(symbol_stored.ids.len() >= 50, "{exchange}:{symbol}");
    }
    let rows: usize = stored.values().map(|symbol| symbol.ids.len()).sum();
    assert_eq!(number("stored"), u64::try_from(rows).unwrap());
    assert_eq!(number("received"), number("stored") + number("duplicates"));
    assert_eq!(number("in flight"), 0);
    pool.close().await;
    cluster.stop().await.unwrap();
}

type Session = (String, DateTime<Utc>, DateTime<Utc>);

/// Whether an exchange had no settled connection to us at this time.
fn was_away(sessions: &[Session], exchange: &str, at: DateTime<Utc>) -> bool {
    // What was under way when a connection was cut, and what came before the next one was subscribed, is gone.
    let (before_cut, to_subscribe) = (TimeDelta::seconds(1), TimeDelta::seconds(4));
    let mut own = sessions.iter().filter(|(name, ..)| name == exchange);
    !own.any(|(_, from, to)| *from + to_subscribe < at && at < *to - before_cut)
}

/// Two rounds of every fault, each after the recorder has recovered from the one before.
async fn break_everything(
    exchanges: &Exchanges,
    scratch: &Scratch,
    program: &mut Program,
    pool: &PgPool,
) {
    for _round in 0..2 {
        exchanges.act(Action::Skip(5));
        exchanges.act(Action::Repeat(200));
        exchanges.act(Action::Malformed(5));
        grown(pool, 300).await;
        exchanges.act(Action::Stall(Duration::from_secs(1)));
        grown(pool, 300).await;
        exchanges.act(Action::Cut);
        grown(pool, 300).await;
        let server = server_pid(&scratch.options()).await.unwrap();
        kill(Pid::from_raw(server), Signal::SIGKILL).unwrap();
        program.logged("The embedded database runs again").await;
        grown(pool, 300).await;
        exchanges.act(Action::Shutdown(Duration::from_secs(2)));
        grown(pool, 300).await;
    }
}

#[tokio::test]
async fn through_cuts_stalls_repeats_broken_frames_and_a_crashed_database_only_what_a_fault_dropped_is_missing()
 {
    let exchanges = Exchanges::start(40).await;
    let scratch = Scratch::new("");
    let folder = tempfile::tempdir().unwrap();
    let mut settings = exchanges.settings.clone();
    settings.push(setting("DATABASE__DATA_DIR", scratch.path().display()));
    settings.push(setting("BATCH__MAX_TIME", "1s"));
    let mut program = Program::start(folder.path(), &["live"], &settings);
    program.logged("Look at it").await;
    let pool = connect(&program.cluster_url().await, 2).await;
    grown(&pool, 500).await;

    break_everything(&exchanges, &scratch, &mut program, &pool).await;
    pool.close().await;
    assert!(program.peak_memory() < MEMORY_MAX, "{} bytes", program.peak_memory());
    let status = program.stop().await;
    assert!(status.success(), "{status}\n{}", program.log());
    let (faults, market) = (exchanges.faults.clone(), exchanges.market.clone());
    exchanges.close().await;

    let cluster = Cluster::start(&scratch.options()).await.unwrap();
    let pool = connect(&cluster.url(), 2).await;
    let sessions: Vec<Session> =
        sqlx::query_as("SELECT exchange, connected_at, ended_at FROM feed_sessions")
            .fetch_all(&pool)
            .await
            .unwrap();
    let journal = faults.journal();
    assert_eq!(journal.forgotten, 0, "the journal explains every fault");
    let dropped: BTreeSet<(String, String, u64)> = journal
        .entries
        .iter()
        .filter(|entry| matches!(entry.kind, EntryKind::Skip | EntryKind::Malformed))
        .filter_map(|entry| Some((entry, entry.symbol.clone()?, entry.first?, entry.last?)))
        .flat_map(|(entry, symbol, first, last)| {
            (first..=last).map(move |id| (entry.exchange.to_owned(), symbol.clone(), id))
        })
        .collect();
    let stored = stored(&pool, &market).await;
    let mut explained = 0;
    for ((exchange, symbol), symbol_stored) in &stored {
        for id in symbol_stored.missing() {
            let canonical = symbol.parse().unwrap();
            let at = market.trade(exchange, &canonical, id).unwrap().at.to_datetime();
            let by_journal = dropped.contains(&(exchange.clone(), symbol.clone(), id));
            assert!(
                by_journal || was_away(&sessions, exchange, at),
                "{exchange}:{symbol} {id} of {at} is missing and no fault explains it\n{}",
                program.log()
            );
            explained += usize::from(by_journal);
        }
    }
    assert!(explained > 0, "the faults did something");
    let malformed: i64 =
        sqlx::query_scalar("SELECT coalesce(sum(count), 0)::bigint FROM quarantined_frames")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert!(malformed > 0, "broken frames are kept aside");
    pool.close().await;
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_stop_while_the_database_is_away_says_where_the_ticks_are_and_exits_70() {
    let scratch = Scratch::simulated();
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        setting("DATABASE__DATA_DIR", scratch.path().display()),
        setting("PIPELINE__STOP_DEADLINE", "2s"),
        setting("BATCH__MAX_RETRY_ATTEMPTS", "0"),
        setting("BATCH__MAX_TIME", "1s"),
    ];
    let mut program = Program::start(folder.path(), &["live", "--simulate"], &settings);
    program.logged("Feed connected").await;
    stop(&scratch.options()).await.unwrap();
    program.logged("Store circuit OPEN").await;
    let status = program.stop().await;
    let log = program.log();
    assert_eq!(status.code(), Some(70), "{log}");
    let spooled = log.lines().find(|line| line.contains(" ticks are in the spool at ")).unwrap();
    assert!(spooled.ends_with("/spool: the next start stores them"), "{log}");
    assert!(!log.contains("ticks are not stored"), "{log}");
    assert!(log.lines().last().unwrap().contains(" + in flight 0"), "{log}");
    assert!(log.lines().last().unwrap().contains("Ledger: received"), "{log}");
}

#[test]
fn five_mistakes_in_the_settings_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    let text = "[batch]\nmax_size = 0\nmax_tme = \"5s\"\n[pipeline]\nhealth_interval = \"soon\"\n\
                [exchanges.binance]\nsymbols = [\"BTC_USDT\"]\n[database]\nurl = \"mysql://x\"\n";
    std::fs::write(&file, text).unwrap();
    let output = command().args(["config", "check", "--config"]).arg(&file).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{told}");
    for key in [
        "batch.max_size",
        "batch.max_tme",
        "pipeline.health_interval",
        "exchanges.binance.symbols",
        "database.url",
    ] {
        assert!(told.contains(key), "{key} is not told:\n{told}");
    }
}

#[test]
fn two_spellings_of_one_pair_are_told_with_both_names() {
    let symbols = setting("EXCHANGES__KRAKEN__SYMBOLS", "XBTUSD,ETHUSD,BTCUSD");
    let output = command().args(["config", "check"]).envs([symbols]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{told}");
    assert!(told.contains("XBTUSD and BTCUSD are both BTC/USD at kraken"), "{told}");
}

#[tokio::test]
async fn real_and_simulated_trades_are_never_mixed() {
    let database = database().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("DATABASE_URL".to_owned(), database.url.clone()),
        setting("SPOOL__DIR", folder.path().join("spool").display()),
        // Nobody listens there: the real exchanges are not asked for.
        setting("EXCHANGES__BINANCE__WS_URL", "ws://127.0.0.1:9"),
    ];
    let mut program = Program::start(folder.path(), &["live", "--simulate"], &settings);
    program.logged("Feed connected").await;
    assert!(program.stop().await.success());
    let output = command().args(["live", "--exchange", "binance"]).envs(settings).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("holds trades of a simulated market"), "{told}");
}
