//! Day partitions, made before a tick needs them: those that a batch needs, and no others.
//!
//! A day that cannot be made (somebody holds a lock, another partition is in the way, the rights are missing) holds up
//! its own ticks only. Many days at once are made in steps, each well within the time that a write may take.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use sqlx::types::chrono::{DateTime, NaiveDate, Utc};
use sqlx::{PgConnection, PgPool};
use tokio::time::Instant;

use crate::domain::{RecorderClock, Source, Tick, Timestamp, lock};
use crate::store::said;
use crate::telemetry::SharedLimiter;

/// 2009-01-03, the day of the first Bitcoin block: no trade of a cryptocurrency is older.
const FIRST_DAY: i64 = 14_247;
/// Days made ahead, so that midnight finds its partition; a later time than these is a wrong one.
pub(super) const DAYS_AHEAD: i64 = 2;
/// A live tick is of now within this, in microseconds, by the database's clock.
const DAY_MICROS: u64 = 86_400_000_000;
/// How long one write makes partitions: with the write itself it stays below the 10 s after which the pipeline gives up.
const MAKING_MAX: Duration = Duration::from_secs(3);
/// How long a day that was refused is not tried again.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// How long the database's clock is known without another look.
const CLOCK_AGE_MAX: Duration = Duration::from_secs(60);

/// The days known to have a partition.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    known: Mutex<BTreeSet<i64>>,
    /// When a day was refused last: so that a lock on it does not hold up each write of other days.
    refused: Mutex<BTreeMap<i64, Instant>>,
    noted: SharedLimiter,
}

/// Why a day has no partition yet.
#[derive(Debug)]
pub(super) enum Unmade {
    /// There was no time for it in this write: the next one goes on.
    Later,
    /// The database refused it a moment ago.
    RefusedBefore,
    /// The database refuses it.
    Refused(sqlx::Error),
}

impl Partitions {
    /// Makes the partitions of these days, as far as the time reaches, and gives back the days that are left.
    ///
    /// # Errors
    ///
    /// When the server is away, or the tables are not what they must be.
    pub(super) async fn make(
        &self,
        connection: &mut PgConnection,
        days: BTreeSet<i64>,
    ) -> Result<BTreeMap<i64, Unmade>, sqlx::Error> {
        let until = Instant::now() + MAKING_MAX;
        let mut unmade = BTreeMap::new();
        let mut is_made = false;
        for day in days {
            if Instant::now() >= until {
                // A batch whose days are all refused waits in the spool; one of which some are made goes on at once.
                let why = if is_made { Unmade::Later } else { Unmade::RefusedBefore };
                unmade.insert(day, why);
            } else if self.was_refused(day) {
                unmade.insert(day, Unmade::RefusedBefore);
            } else {
                match self.make_one(connection, day).await {
                    Ok(()) => is_made = true,
                    Err(error) if is_of_the_day(&error) => {
                        let now = Instant::now();
                        lock(&self.refused).insert(day, now);
                        unmade.insert(day, Unmade::Refused(error));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(unmade)
    }

    fn was_refused(&self, day: i64) -> bool {
        let mut refused = lock(&self.refused);
        refused.retain(|_, at| at.elapsed() < REFUSED_PAUSE);
        refused.contains_key(&day)
    }

    /// Makes the partition of one day, unless something takes its rows already.
    pub(super) async fn make_one(
        &self,
        connection: &mut PgConnection,
        day: i64,
    ) -> Result<(), sqlx::Error> {
        let note: Option<String> = sqlx::query_scalar("SELECT ensure_tick_partition($1)::text")
            .bind(date(day))
            .fetch_one(connection)
            .await?;
        lock(&self.known).insert(day);
        if let Some((kind, table)) = note.as_deref().and_then(|note| note.split_once(' ')) {
            self.tell(kind, table, date(day));
        }
        Ok(())
    }

    fn tell(&self, kind: &str, table: &str, day: NaiveDate) {
        let Some(unsaid) = self.noted.admit(Instant::now()) else { return };
        if kind == "default" {
            tracing::warn!(
                "The ticks of {day} go to {table}, the DEFAULT partition of tick_data, because a partition of that day \
                 cannot be attached beside it; database.retention does not drop them there. To part them: detach {table}, \
                 run SELECT ensure_tick_partition('{day}') and insert its rows into tick_data{unsaid}"
            );
        } else {
            tracing::warn!(
                "{table} exists and is not attached to tick_data: the ticks of {day} go to another partition, and no query \
                 over tick_data sees those in {table}. If they belong there: INSERT INTO tick_data SELECT * FROM {table} \
                 ON CONFLICT DO NOTHING, then drop or rename {table}{unsaid}"
            );
        }
    }

    /// Asks the database again before the next write.
    pub(super) fn forget(&self) {
        lock(&self.known).clear();
    }

    /// Tries the days that were refused again with the next write.
    pub(super) fn forget_refusals(&self) {
        lock(&self.refused).clear();
    }

    /// The days of these ticks that are not known to have a partition.
    pub(super) fn missing(&self, batch: &[Tick]) -> BTreeSet<i64> {
        let known = lock(&self.known);
        batch.iter().map(|tick| tick.exchange_at.day()).filter(|day| !known.contains(day)).collect()
    }
}

/// Makes the partitions of today and the next days, by the database's clock, so that no write has to; and says which could
/// not be made, why, and what to do about it.
///
/// # Errors
///
/// When the server cannot be reached, or the tables are not what they must be.
pub async fn make_days_ahead(pool: &PgPool) -> Result<Option<String>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let today = Clocks::default().database_now(&mut connection).await?.day();
    let partitions = Partitions::default();
    let mut told = None;
    for day in today..=today + DAYS_AHEAD {
        match partitions.make_one(&mut connection, day).await {
            Ok(()) => {}
            Err(error) if is_of_the_day(&error) => {
                let holder = holder(&mut connection, &error).await.unwrap_or_default();
                let (date, error_text) = (date(day), said(&error).without_cure());
                let cure = cure(&error, date);
                told.get_or_insert(format!("{date}: {error_text}: {holder}{cure}"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(told)
}

/// A day as PostgreSQL takes it.
pub(super) fn date(day: i64) -> NaiveDate {
    NaiveDate::from_epoch_days(i32::try_from(day).unwrap_or_default()).unwrap_or_default()
}

/// Whether a refusal to make a partition is about that day, and says nothing of other days or of the server.
fn is_of_the_day(error: &sqlx::Error) -> bool {
    let Some(refusal) = error.as_database_error() else { return false };
    matches!(
        refusal.code().as_deref(),
        // check_violation: rows of the day in a DEFAULT partition; insufficient_privilege: nobody's right to make tables;
        // duplicate_table, invalid_object_definition and the like: something is in the way; out_of_memory: no room for
        // more locks; lock_not_available, query_canceled: somebody holds a lock.
        Some(
            "23514"
                | "42501"
                | "42P07"
                | "42P16"
                | "42P17"
                | "42804"
                | "42809"
                | "0A000"
                | "53200"
                | "55P03"
                | "55006"
                | "57014"
        )
    )
}

/// Where a lock was waited for: who holds one that keeps partitions from being made.
pub(super) async fn holder(connection: &mut PgConnection, error: &sqlx::Error) -> Option<String> {
    if error.as_database_error()?.code()?.as_ref() != "55P03" {
        return None;
    }
    let (pid, name, mode): (i32, String, String) = sqlx::query_as(
        "SELECT pid, coalesce(nullif(application_name, ''), usename::text, 'a session'), mode FROM pg_locks \
         JOIN pg_stat_activity USING (pid) \
         WHERE granted AND pid <> pg_backend_pid() AND (relation = to_regclass('tick_data') \
             AND mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', \
                 'AccessExclusiveLock') \
             OR locktype = 'advisory' AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                 AND (classid::bigint << 32) | objid::bigint = hashtextextended('trading-core.partitions', 0)) \
         ORDER BY xact_start LIMIT 1",
    )
    .fetch_optional(connection)
    .await
    .ok()??;
    Some(format!("process {pid} ({name}) holds a {mode} on tick_data; "))
}

/// What to do about a partition that cannot be made.
pub(super) fn cure(error: &sqlx::Error, day: NaiveDate) -> String {
    let code = error.as_database_error().and_then(|refusal| refusal.code()).unwrap_or_default();
    match &*code {
        "55P03" | "57014" | "55006" => {
            "end the session that holds the lock; it is tried again by itself".to_owned()
        }
        "42501" => format!(
            "let the owner of tick_data run SELECT ensure_tick_partition('{day}'), or make the recorder's role its owner"
        ),
        "53200" => {
            "set a higher max_locks_per_transaction and restart PostgreSQL, or drop old days"
                .to_owned()
        }
        "23514" => {
            "move the rows of that day out of the DEFAULT partition of tick_data, or drop it"
                .to_owned()
        }
        _ => format!(
            "look at the partitions of tick_data around {day} (SELECT * FROM tick_partitions()), and detach or drop what is in the way"
        ),
    }
}

/// Which times can be true, by three clocks: the recorder's, the database's, and the exchange's own.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    recorder: RecorderClock,
    database: Mutex<Option<(Instant, Timestamp)>>,
}

impl Clocks {
    pub(super) fn new(recorder: RecorderClock) -> Self {
        Self { recorder, database: Mutex::default() }
    }

    /// The database's time, asked for once a minute.
    pub(super) async fn database_now(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Timestamp, sqlx::Error> {
        let known = *lock(&self.database);
        if let Some((asked_at, time)) = known
            && asked_at.elapsed() < CLOCK_AGE_MAX
        {
            let since = i64::try_from(asked_at.elapsed().as_micros()).unwrap_or(i64::MAX);
            return Ok(time.plus_micros(since));
        }
        let now: DateTime<Utc> =
            sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(connection).await?;
        let now = Timestamp::from_micros(now.timestamp_micros()).unwrap_or(Timestamp::EPOCH);
        *lock(&self.database) = Some((Instant::now(), now));
        Ok(now)
    }

    /// Whether the exchange's time of a tick can be true. A live tick is of now, by one of the two other clocks; one of a
    /// history is not older than cryptocurrencies, and not of the future by both clocks.
    pub(super) fn allow(&self, tick: &Tick, database: Timestamp) -> bool {
        let at = tick.exchange_at;
        if at.day() < FIRST_DAY {
            return false;
        }
        if tick.source == Source::Live {
            let from_database = at.as_micros().abs_diff(database.as_micros());
            return !self.recorder.is_far(tick) || from_database <= DAY_MICROS;
        }
        at.day() <= database.max(self.recorder.now()).day() + DAYS_AHEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{steady_micros, testing};

    const DAY: i64 = 86_400_000_000;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_micros(day * DAY + DAY / 2).unwrap()
    }

    fn tick(source: Source, exchange: i64, received: i64) -> Tick {
        Tick { source, exchange_at: at(exchange), received_at: at(received), ..testing::tick(1) }
    }

    #[test]
    fn a_live_tick_is_allowed_when_two_of_three_clocks_agree() {
        let clocks = Clocks::default();
        let live = |exchange, recorder, database| {
            clocks.allow(&tick(Source::Live, exchange, recorder), at(database))
        };
        assert!(live(20_000, 20_000, 20_000));
        assert!(live(20_000, 19_997, 20_000), "the recorder is behind");
        assert!(live(20_000, 20_060, 20_000), "the recorder is ahead");
        assert!(live(20_000, 20_000, 19_000), "the database is behind");
        assert!(!live(20_002, 20_000, 20_000), "the exchange is ahead");
        assert!(!live(15_000, 20_000, 20_000), "the exchange is years behind");
        assert!(!live(20_000, 19_997, 19_997), "who is right cannot be known yet");
        clocks.recorder.set(0, 3 * DAY);
        assert!(live(20_000, 19_997, 19_997), "the other exchanges have said so");
        assert!(!live(FIRST_DAY - 1, FIRST_DAY - 1, FIRST_DAY - 1), "clocks without a battery");
    }

    #[test]
    fn a_tick_of_a_history_is_allowed_from_2009_to_two_days_ahead_by_either_clock() {
        let clocks = Clocks::default();
        let allow = |exchange, recorder: i64, database| {
            let machine = at(recorder).as_micros() - steady_micros();
            clocks.recorder.set(machine, 0);
            clocks.allow(&tick(Source::Backfill, exchange, recorder), at(database))
        };
        assert!(allow(FIRST_DAY, 20_000, 20_000));
        assert!(!allow(FIRST_DAY - 1, 20_000, 20_000));
        assert!(allow(20_002, 20_000, 20_000));
        assert!(!allow(20_003, 20_000, 20_000));
        assert!(allow(20_003, 19_990, 20_001), "the database's clock counts");
        assert!(allow(20_003, 20_001, 19_990), "and so does ours");
    }
}
