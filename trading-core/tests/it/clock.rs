//! A recorder whose clock is wrong loses, misplaces and settles nothing by it, and says so.

use std::path::Path;

use sqlx::PgPool;
use sqlx::types::chrono::{DateTime, Utc};

use tokio::time::{Duration, sleep};
use trading_core::domain::Timestamp;
use trading_core::simulator::Clock;

use crate::support::exchanges::{Exchanges, grown};
use crate::support::postgres::{TestDatabase, database};
use crate::support::process::{Program, command, setting};
use crate::support::tools::faketime;
use crate::support::truth::stored;
use crate::support::waiting::until;

/// A database of its own, and five exchanges, whose clocks are right.
struct World {
    exchanges: Exchanges,
    database: TestDatabase,
    settings: Vec<(String, String)>,
    folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with_clock(Clock::default()).await
    }

    /// With exchanges that have this clock.
    async fn with_clock(clock: Clock) -> Self {
        // The newest sixty trades, which is all that Bybit shows, reach back over a restart.
        let exchanges = Exchanges::with_clock(3, clock).await;
        let database = database().await;
        let folder = tempfile::tempdir().unwrap();
        let mut settings = exchanges.with_history();
        settings.push(("DATABASE_URL".to_owned(), database.url.clone()));
        settings.push(setting("SPOOL__DIR", folder.path().join("spool").display()));
        settings.push(setting("BATCH__MAX_TIME", "200ms"));
        Self { exchanges, database, settings, folder }
    }

    fn pool(&self) -> &PgPool {
        &self.database.pool
    }

    /// Begins to record, with these settings too.
    async fn record(&self, run: &str, more: &[(String, String)]) -> Program {
        let folder = self.folder.path().join(run);
        std::fs::create_dir(&folder).unwrap();
        let settings: Vec<_> = self.settings.iter().chain(more).cloned().collect();
        let mut program = Program::start(&folder, &["live"], &settings);
        program.logged("Look at it").await;
        program
    }

    /// Records for a while, with these settings too, and answers the log.
    async fn recorded(&self, run: &str, more: &[(String, String)]) -> String {
        let program = self.record(run, more).await;
        grown(self.pool(), 60).await;
        self.end(program).await
    }

    async fn end(&self, mut program: Program) -> String {
        let status = program.stop().await;
        assert!(status.success(), "{status}\n{}", program.log());
        program.log()
    }

    /// Waits until every gap is closed, beside a recorder whose clock is right; answers its log.
    async fn repaired(&self) -> String {
        let mut program = self.record("last", &[]).await;
        grown(self.pool(), 30).await;
        let open = "SELECT count(*) FROM tick_gaps WHERE status = 'open'";
        while sqlx::query_scalar::<_, i64>(open).fetch_one(self.pool()).await.unwrap() > 0 {
            // Ends the test where the recorder has ended.
            program.logged("Look at it").await;
            sleep(Duration::from_millis(100)).await;
        }
        self.end(program).await
    }

    /// Nothing is missing, by the market and by `verify`.
    async fn assert_complete(&self, logs: &[&str]) {
        for ((exchange, symbol), stored) in stored(self.pool(), &self.exchanges.market).await {
            let missing = stored.missing();
            assert!(
                missing.is_empty(),
                "{exchange}:{symbol} {missing:?}\n{}",
                logs.join("\n---\n")
            );
        }
        let verify = command().arg("verify").env("DATABASE_URL", &self.database.url).output();
        let output = verify.unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{told}\n{}", logs.join("\n---\n"));
        let given_up =
            "SELECT count(*) FROM tick_gaps WHERE status IN ('unrecoverable', 'not_a_loss')";
        let given_up: i64 = sqlx::query_scalar(given_up).fetch_one(self.pool()).await.unwrap();
        assert_eq!(given_up, 0, "{}", logs.join("\n---\n"));
    }

    /// No live tick, and no connection, has a time that is not the true one.
    async fn assert_true_times(&self, begun_at: DateTime<Utc>) {
        let strays: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM tick_data WHERE source = 'live' \
                    AND received_at NOT BETWEEN time - interval '3 s' AND time + interval '1 minute') \
                + (SELECT count(*) FROM feed_sessions \
                    WHERE connected_at < $1 OR ended_at > now() OR ended_at < connected_at)",
        )
        .bind(begun_at)
        .fetch_one(self.pool())
        .await
        .unwrap();
        assert_eq!(strays, 0);
    }
}

async fn now(pool: &PgPool) -> DateTime<Utc> {
    sqlx::query_scalar("SELECT now()").fetch_one(pool).await.unwrap()
}

/// Three runs: the clock of the second is off.
async fn off_by(offset: &str, says: &str) {
    let Some(fake) = faketime("a clock that is off", offset) else { return };
    let world = World::new().await;
    let begun_at = now(world.pool()).await;
    let first = world.recorded("first", &[]).await;
    assert!(!first.contains("The clock"), "{first}");
    let second = world.recorded("second", &fake).await;
    let line = second.lines().find(|line| line.contains("ERROR The clock of this machine is"));
    let line = line.unwrap_or_else(|| panic!("{second}"));
    assert!(line.contains(says) && line.contains("timedatectl"), "{line}");
    assert!(!second.contains("refused"), "{second}");
    let third = world.repaired().await;
    assert!(!third.contains("The clock"), "{third}");
    world.assert_true_times(begun_at).await;
    world.assert_complete(&[&first, &second, &third]).await;
    world.exchanges.close().await;
}

#[tokio::test]
async fn a_recorder_whose_clock_is_three_days_behind_loses_nothing_and_says_so() {
    off_by("-3d", "3d behind the true time, by the database").await;
}

#[tokio::test]
async fn a_recorder_whose_clock_is_three_days_ahead_loses_nothing_and_says_so() {
    off_by("+3d", "3d ahead of the true time, by the database").await;
}

fn set_clock(file: &Path, offset: &str) {
    // In one step: the program reads it at any moment.
    let next = file.with_extension("next");
    std::fs::write(&next, format!("{offset}\n")).unwrap();
    std::fs::rename(&next, file).unwrap();
}

#[tokio::test]
async fn a_clock_that_is_set_while_recording_is_said_once_each_time_and_moves_no_time() {
    let Some(fake) = faketime("a clock that is set", "+0") else { return };
    let world = World::new().await;
    let begun_at = now(world.pool()).await;
    let file = world.folder.path().join("clock");
    set_clock(&file, "+0");
    let mut fake: Vec<_> = fake.into_iter().filter(|(name, _)| name != "FAKETIME").collect();
    fake.push(("FAKETIME_TIMESTAMP_FILE".to_owned(), file.display().to_string()));
    let mut program = world.record("first", &fake).await;
    grown(world.pool(), 30).await;
    for (offset, says) in [
        ("+1d", "was set forward by 1d"),
        ("+0", "was set back by 1d"),
        ("-3d", "was set back by 3d"),
        ("+1h", "was set forward by 3d 1h"),
    ] {
        set_clock(&file, offset);
        program.logged(says).await;
        grown(world.pool(), 20).await;
    }
    set_clock(&file, "+0");
    program.logged("was set back by 1h").await;
    program.logged("The clock of this machine is right again").await;
    grown(world.pool(), 20).await;
    let log = world.end(program).await;
    let said =
        log.lines().filter(|line| line.contains("The clock of this machine was set")).count();
    assert_eq!(said, 5, "{log}");
    let last = world.repaired().await;
    world.assert_true_times(begun_at).await;
    world.assert_complete(&[&log, &last]).await;
    world.exchanges.close().await;
}

#[tokio::test]
async fn a_database_that_reads_the_same_clock_is_no_witness_and_all_exchanges_are() {
    const HOUR: i64 = 3_600_000_000;
    let clock = Clock::new(|| Timestamp::now().plus_micros(HOUR));
    let world = World::with_clock(clock).await;
    let mut program = world.record("first", &[]).await;
    let line = program.logged("ERROR The clock of this machine is").await;
    assert!(line.contains("1h behind the true time, by ") && !line.contains("database"), "{line}");
    let corrected = "SELECT count(*) FROM tick_data WHERE source = 'live' \
         AND received_at BETWEEN time - interval '5 s' AND time + interval '1 minute'";
    until(async || {
        match sqlx::query_scalar::<_, i64>(corrected).fetch_one(world.pool()).await.unwrap() {
            100.. => Ok(()),
            rows => Err(format!("{rows} rows\n{}", program.log())),
        }
    })
    .await;
    let log = world.end(program).await;
    for ((exchange, symbol), stored) in stored(world.pool(), &world.exchanges.market).await {
        assert!(stored.missing().is_empty(), "{exchange}:{symbol} {:?}\n{log}", stored.missing());
    }
    world.exchanges.close().await;
}

#[tokio::test]
async fn one_exchange_whose_clock_is_off_is_named_and_moves_no_time() {
    let clock = Clock::new(|| Timestamp::now().plus_micros(90_000_000));
    let strays = Exchanges::with_clock(3, clock).await;
    let world = World::new().await;
    let begun_at = now(world.pool()).await;
    let okx: Vec<_> =
        strays.with_history().into_iter().filter(|(key, _)| key.contains("OKX")).collect();
    let mut program = world.record("first", &okx).await;
    let line = program.logged("The stamps of okx").await;
    assert!(
        line.contains("WARN The stamps of okx are 1m 30s ahead of the true time, by "),
        "{line}"
    );
    let log = world.end(program).await;
    assert!(!log.contains("The clock of this machine"), "{log}");
    let strays_seen: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM tick_data WHERE source = 'live' AND received_at > now() OR received_at < $1",
    )
    .bind(begun_at)
    .fetch_one(world.pool())
    .await
    .unwrap();
    assert_eq!(strays_seen, 0);
    strays.close().await;
    world.exchanges.close().await;
}
