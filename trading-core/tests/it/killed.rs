//! A recorder that is killed with any legal settings loses nothing that is not listed.

use nix::sys::signal::Signal;
use sqlx::PgPool;
use sqlx::types::chrono::{DateTime, Utc};
use trading_core::exchange::{IdRule, by_name, names};

use crate::support::exchanges::{Exchanges, grown};
use crate::support::postgres::{TestDatabase, database};
use crate::support::process::{Program, setting};
use crate::support::truth::stored;
use crate::support::waiting::until;

/// Ticks that are in memory only when the recorder is killed.
const HELD: u64 = 400;

/// The largest values that the settings take: nothing is written for an hour, or given up for days.
fn extreme() -> [(String, String); 6] {
    [
        setting("BATCH__MAX_TIME", "1h"),
        setting("BATCH__MAX_SIZE", 100_000),
        setting("BATCH__MAX_COALESCED", 1_000_000),
        setting("BATCH__MAX_RETRY_ATTEMPTS", 20),
        setting("BATCH__RETRY_DELAY", "1h"),
        setting("PIPELINE__HEALTH_INTERVAL", "1s"),
    ]
}

struct World {
    exchanges: Exchanges,
    database: TestDatabase,
    settings: Vec<(String, String)>,
    folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let exchanges = Exchanges::start(5).await;
        let database = database().await;
        let folder = tempfile::tempdir().unwrap();
        let mut settings = exchanges.with_history();
        settings.push(("DATABASE_URL".to_owned(), database.url.clone()));
        settings.push(setting("SPOOL__DIR", folder.path().join("spool").display()));
        Self { exchanges, database, settings, folder }
    }

    fn pool(&self) -> &PgPool {
        &self.database.pool
    }

    async fn record(&self, run: &str, more: &[(String, String)]) -> Program {
        let folder = self.folder.path().join(run);
        std::fs::create_dir(&folder).unwrap();
        let settings: Vec<_> = self.settings.iter().chain(more).cloned().collect();
        let mut program = Program::start(&folder, &["live"], &settings);
        program.logged("Look at it").await;
        program
    }

    /// Records with the extreme settings until much is in memory only, and kills the recorder.
    async fn kill(&self) {
        let mut program = self.record("killed", &extreme()).await;
        until(async || {
            // Ends the test where the recorder has ended.
            program.logged("Look at it").await;
            let log = program.log();
            let buffered =
                log.lines().filter_map(|line| line.split_once("Buffer: ")?.1.split_once('/'));
            let mut held = buffered.filter_map(|(held, _)| held.parse().ok());
            if held.any(|held: u64| held >= HELD) { Ok(()) } else { Err(log) }
        })
        .await;
        program.signal(Signal::SIGKILL);
        program.gone().await;
    }

    /// Records as usual until no gap is open, and every trade is there or, of Bybit, in a gap that is listed.
    async fn assert_listed(&self) {
        let mut program = self.record("next", &[setting("BATCH__MAX_TIME", "200ms")]).await;
        grown(self.pool(), 60).await;
        let unsettled = "SELECT count(*) FROM tick_gaps WHERE status = 'open'";
        // The auditor looks twice a minute.
        until(async || {
            let open: i64 = sqlx::query_scalar(unsettled).fetch_one(self.pool()).await.unwrap();
            let unlisted = self.unlisted().await;
            if open == 0 && unlisted.is_empty() {
                return Ok(());
            }
            Err(format!("{open} open; {unlisted:#?}\n{}", program.log()))
        })
        .await;
        assert!(program.stop().await.success(), "{}", program.log());
    }

    /// Trades that are neither stored nor, where ids prove nothing, in a time that is listed.
    async fn unlisted(&self) -> Vec<String> {
        let gaps: Vec<(String, String, DateTime<Utc>, DateTime<Utc>)> = sqlx::query_as(
            "SELECT exchange, symbol, from_time, to_time FROM tick_gaps WHERE first_id IS NULL",
        )
        .fetch_all(self.pool())
        .await
        .unwrap();
        let market = &self.exchanges.market;
        let mut unlisted = Vec::new();
        for ((exchange, symbol), stored) in stored(self.pool(), market).await {
            for id in stored.missing() {
                let trade = market.trade(&exchange, &symbol.parse().unwrap(), id).unwrap();
                let at = trade.at.to_datetime();
                let is_listed = gaps.iter().any(|(of, item, from, to)| {
                    (of, item) == (&exchange, &symbol) && *from <= at && at <= *to
                });
                if by_name(&exchange).unwrap().ids() == IdRule::Consecutive || !is_listed {
                    unlisted.push(format!("{exchange}:{symbol} {id} {at}"));
                }
            }
        }
        unlisted
    }
}

#[tokio::test]
async fn killed_with_the_largest_settings_everything_is_listed_or_repaired() {
    let world = World::new().await;
    let mut program = world.record("first", &[setting("BATCH__MAX_TIME", "200ms")]).await;
    grown(world.pool(), 30).await;
    assert!(program.stop().await.success(), "{}", program.log());
    world.kill().await;
    world.assert_listed().await;
    world.exchanges.close().await;
}

#[tokio::test]
async fn killed_before_anything_was_stored_the_time_since_the_connection_stood_is_listed() {
    let world = World::new().await;
    world.kill().await;
    world.assert_listed().await;
    let symbols: i64 = sqlx::query_scalar(
        "SELECT count(DISTINCT (gap.exchange, gap.symbol)) FROM tick_gaps AS gap JOIN feed_sessions AS session \
         ON session.exchange = gap.exchange AND gap.symbol = ANY (session.symbols) \
         WHERE gap.first_id IS NULL AND gap.from_time <= session.connected_at",
    )
    .fetch_one(world.pool())
    .await
    .unwrap();
    assert_eq!(symbols, i64::try_from(10 * names().len()).unwrap());
    world.exchanges.close().await;
}
