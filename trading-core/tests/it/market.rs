//! A demonstration that is started again loses nothing, however it ended: its market stands still while nobody records it.

use std::path::Path;

use nix::sys::signal::Signal;
use sqlx::PgPool;
use trading_core::domain::Timestamp;
use trading_core::exchange::names;
use trading_core::simulator::{Closure, Market, MarketOptions};
use trading_core::store::embedded::Cluster;

use crate::support::exchanges::grown;
use crate::support::postgres::{Scratch, connect};
use crate::support::process::{Program, program, setting};
use crate::support::truth::stored;
use crate::support::waiting::until;

/// When the market was closed, and until when a recorder keeps it open, as the data directory says.
fn hours(folder: &Path) -> (Vec<Closure>, Timestamp) {
    let text = std::fs::read_to_string(folder.join("market-hours")).unwrap();
    let time = |text: &str| Timestamp::from_rfc3339(text).unwrap();
    let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let closed = lines.clone().filter(|words| words[0] == "closed");
    let open = lines.filter(|words| words[0] == "open").map(|words| time(words[2])).max();
    (
        closed.map(|words| Closure { from: time(words[1]), to: time(words[2]) }).collect(),
        open.unwrap(),
    )
}

/// Waits until the time is later than this.
async fn later_than(time: impl Fn() -> Timestamp + Sync, program: &Program) {
    until(async || match time() {
        time if Timestamp::now() > time => Ok(()),
        time => Err(format!("never later than {time}\n{}", program.log())),
    })
    .await;
}

/// The market has closed by itself, or was closed.
async fn closed(folder: &Path, program: &Program) {
    later_than(|| hours(folder).1, program).await;
}

/// Waits until the minute in which the market went on is over, and a trade of a later one is stored.
async fn minute_of_an_opening_stored(pool: &PgPool, opening: Timestamp, program: &Program) {
    let minute = 60_000_000;
    let over = opening.plus_micros(minute - opening.as_micros().rem_euclid(minute));
    let newest =
        "SELECT max(time) > $1 FROM tick_data WHERE exchange = 'okx' AND symbol = 'BTCUSDT'";
    until(async || {
        let is_stored: Option<bool> =
            sqlx::query_scalar(newest).bind(over.to_datetime()).fetch_one(pool).await.unwrap();
        if is_stored == Some(true) {
            return Ok(());
        }
        Err(format!("nothing later than {over}\n{}", program.log()))
    })
    .await;
}

/// What a command answers and logs, after it has ended with this code.
fn ended(code: i32, line: &str, settings: &[(String, String)]) -> (String, String) {
    let (ended, answer, log) = program(line, settings);
    assert_eq!(ended, Some(code), "{line}: {answer}{log}");
    (answer, log)
}

/// A command that asks simulated exchanges of the same market: its answer, after it has ended well.
fn answer(line: &str, settings: &[(String, String)]) -> String {
    ended(0, line, settings).0
}

/// Every trade between the first and the last that are stored of a symbol is there, as the market of these hours has it,
/// at every exchange; and no gap is open.
async fn whole(pool: &PgPool, folder: &Path, program: &Program) {
    until(async || {
        let (rate, (closures, _)) = (5.into(), hours(folder));
        let market =
            Market::new(&MarketOptions { seed: 42, rate, closures, ..MarketOptions::default() });
        let symbols = stored(pool, &market.unwrap()).await;
        assert_eq!(symbols.len(), 10 * names().len());
        let missing: usize = symbols.values().map(|stored| stored.missing().len()).sum();
        let open: i64 =
            sqlx::query_scalar("SELECT count(*) FROM tick_gaps WHERE status <> 'repaired'")
                .fetch_one(pool)
                .await
                .unwrap();
        if (missing, open) == (0, 0) {
            return Ok(());
        }
        Err(format!("{missing} missing, {open} open\n{}", program.log()))
    })
    .await;
}

#[tokio::test]
async fn a_simulated_run_goes_on_where_the_one_before_stood_also_after_a_kill() {
    let scratch = Scratch::simulated();
    let cluster = Cluster::start(&scratch.options()).await.unwrap();
    let pool = connect(&cluster.url(), 2).await;
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        setting("DATABASE__DATA_DIR", scratch.path().display()),
        setting("SIMULATE__RATE", "5"),
        setting("BATCH__MAX_TIME", "1s"),
    ];
    let start = || Program::start(folder.path(), &["live", "--simulate"], &settings);

    let mut first = start();
    grown(&pool, 100).await;
    first.signal(Signal::SIGKILL);
    first.gone().await;
    closed(&scratch.home(), &first).await;

    let mut second = start();
    second.logged("The simulated market goes on where it stood").await;
    grown(&pool, 100).await;
    whole(&pool, &scratch.home(), &second).await;
    assert!(second.stop().await.success(), "{}", second.log());
    closed(&scratch.home(), &second).await;

    let mut third = start();
    third.logged("The simulated market goes on where it stood").await;
    grown(&pool, 100).await;
    whole(&pool, &scratch.home(), &third).await;
    let (closures, _) = hours(&scratch.home());
    assert_eq!(closures.len(), 2);
    minute_of_an_opening_stored(&pool, closures[0].to, &third).await;
    assert!(third.stop().await.success(), "{}", third.log());

    // The exchanges' own candles agree over the time in which the market was closed.
    answer("backfill --simulated --exchange okx --symbol BTC-USDT --from 4m", &settings);
    let verify = "verify --simulated --exchange okx --symbol BTC-USDT --against-exchange --json";
    let report: serde_json::Value = serde_json::from_str(&answer(verify, &settings)).unwrap();
    let symbol = &report["symbols"][0];
    assert_eq!(report["verdict"], "complete", "{report:#}");
    assert!(symbol["minutes_compared"].as_u64().unwrap() >= 2, "{report:#}");
    assert_eq!(symbol["minutes_compared"], symbol["minutes_asked"], "{report:#}");
    // A market that was never closed has other trades.
    let (_, log) = ended(1, "live --simulate=127.0.0.1:9", &settings);
    assert!(log.contains("`trading-core db remove --simulated`"), "{log}");
    pool.close().await;
    cluster.stop().await.unwrap();
}
