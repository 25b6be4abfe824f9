//! Days that are older than what is to be kept are dropped, on nobody's word alone.
//!
//! What is dropped is gone for good, and clocks are wrong: so a day is old only when the recorder's clock, the
//! database's, and the newest stored day all say so, and when nothing was received for it lately. Each day goes in a
//! transaction of its own, which waits for no lock for long: one that cannot go keeps no other.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgPool};

use super::maintenance::MaintenanceError;
use crate::domain::Timestamp;
use crate::store::said;

/// Days that may be locked by somebody before the rest is left to the next time: each of them holds the writers up.
const LOCKED_MAX: usize = 3;
/// A day for which something was received within this time is not old.
const LATELY: TimeDelta = TimeDelta::days(1);
/// Two clocks that differ by more than this are not both right.
const CLOCKS_APART: TimeDelta = TimeDelta::days(1);
/// Partitions of up to this length are days; others were made by somebody else, for reasons of their own.
const PARTITION_MAX: TimeDelta = TimeDelta::hours(25);
/// Ranges of days, and refusals, that are named.
const NAMED_MAX: usize = 10;

/// What came of a look for old days.
#[derive(Debug, Default)]
pub struct Dropped {
    /// The days that were dropped, oldest first.
    pub days: Vec<NaiveDate>,
    /// Those that could not be dropped: the partition, what the database said, and its hint.
    pub refused: Vec<(String, String)>,
    /// Days that are old by their time and for which something was received lately: kept.
    pub written_lately: Vec<NaiveDate>,
    /// The clocks, where they cannot all be right: the recorder's, then the database's.
    pub clocks_differ: Option<(Timestamp, DateTime<Utc>)>,
}

/// Days in a row as their first and last.
struct Ranges<'a>(&'a [NaiveDate]);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges: Vec<(NaiveDate, NaiveDate)> = Vec::new();
        for day in self.0 {
            match ranges.last_mut() {
                Some((_, last)) if last.succ_opt() == Some(*day) => *last = *day,
                _ => ranges.push((*day, *day)),
            }
        }
        for (number, (first, last)) in ranges.iter().take(NAMED_MAX).enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first} to {last}")?;
            }
        }
        match ranges.len().saturating_sub(NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more ranges"),
        }
    }
}

impl Dropped {
    /// The dropped days, as text.
    #[must_use]
    pub fn names(&self) -> String {
        Ranges(&self.days).to_string()
    }

    /// The days that are kept because something was received for them lately, as text.
    #[must_use]
    pub fn names_written_lately(&self) -> String {
        Ranges(&self.written_lately).to_string()
    }

    /// What could not be dropped and why, as text.
    #[must_use]
    pub fn refusals(&self) -> String {
        let shown = self.refused.iter().take(NAMED_MAX);
        let mut text: Vec<String> =
            shown.map(|(partition, why)| format!("{partition}: {why}")).collect();
        if let Some(more @ 1..) = self.refused.len().checked_sub(NAMED_MAX) {
            text.push(format!("and {more} more"));
        }
        text.join("; ")
    }
}

/// Drops the days that lie wholly before `now - retention` by every clock, one after the other, and says what came of
/// each. `now` is the recorder's clock.
///
/// # Errors
///
/// When the server cannot be reached or refuses to tell its partitions.
pub async fn drop_old_partitions(
    pool: &PgPool,
    retention: Duration,
    now: Timestamp,
) -> Result<Dropped, MaintenanceError> {
    let database: DateTime<Utc> = sqlx::query_scalar("SELECT now()").fetch_one(pool).await?;
    let ours = now.to_datetime();
    let mut dropped = Dropped::default();
    if (ours - database).abs() > CLOCKS_APART {
        dropped.clocks_differ = Some((now, database));
    }
    let partitions: Vec<(String, DateTime<Utc>, DateTime<Utc>)> = sqlx::query_as(
        "SELECT partition::text, from_time, to_time FROM tick_partitions() \
         JOIN pg_class ON pg_class.oid = partition \
         WHERE NOT is_default AND relkind = 'r' AND isfinite(from_time) AND isfinite(to_time) ORDER BY from_time",
    )
    .fetch_all(pool)
    .await?;
    let Some(newest) = newest_stored(pool, &partitions).await? else { return Ok(dropped) };
    let retention = TimeDelta::from_std(retention).unwrap_or(TimeDelta::MAX);
    let clock = ours.min(database).min(newest);
    let Some(kept_from) = clock.checked_sub_signed(retention) else { return Ok(dropped) };
    let mut locked = 0;
    for (partition, from, to) in partitions {
        if to > kept_from || to - from > PARTITION_MAX || locked >= LOCKED_MAX {
            continue;
        }
        match drop_one(pool, &partition, ours.min(database) - LATELY).await {
            Ok(true) => dropped.days.push(from.date_naive()),
            Ok(false) => dropped.written_lately.push(from.date_naive()),
            Err(error) if error.as_database_error().is_some() => {
                locked += usize::from(is_locked(&error));
                dropped.refused.push((partition, said(&error).to_string()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(dropped)
}

fn is_locked(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|refusal| refusal.code().as_deref() == Some("55P03"))
}

/// The end of the newest day that holds a row; `None`: none does.
async fn newest_stored(
    pool: &PgPool,
    partitions: &[(String, DateTime<Utc>, DateTime<Utc>)],
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    for (partition, _, to) in partitions.iter().rev() {
        let sql = AssertSqlSafe(format!("SELECT EXISTS (SELECT FROM {partition})"));
        if sqlx::query_scalar(sql).persistent(false).fetch_one(pool).await? {
            return Ok(Some(*to));
        }
    }
    Ok(None)
}

/// Drops one day, unless something was received for it since a time.
async fn drop_one(
    pool: &PgPool,
    partition: &str,
    lately: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    // Every write waits behind a drop that waits for somebody's long query.
    transaction.execute("SET LOCAL lock_timeout = '300ms'").await?;
    transaction.execute("SET LOCAL statement_timeout = 0").await?;
    // From here on nothing is written to this day; the others are not concerned.
    let sql = AssertSqlSafe(format!("LOCK TABLE {partition} IN SHARE MODE"));
    sqlx::query(sql).persistent(false).execute(&mut *transaction).await?;
    let sql = format!("SELECT EXISTS (SELECT FROM {partition} WHERE received_at > $1)");
    let is_new: bool = sqlx::query_scalar(AssertSqlSafe(sql))
        .persistent(false)
        .bind(lately)
        .fetch_one(&mut *transaction)
        .await?;
    if is_new {
        return Ok(false);
    }
    let sql = AssertSqlSafe(format!("DROP TABLE {partition}"));
    sqlx::query(sql).persistent(false).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_in_a_row_are_named_by_the_first_and_the_last() {
        let day = |number| NaiveDate::from_ymd_opt(2026, 1, number).unwrap();
        let days = [1, 2, 3, 7, 9, 10].map(day);
        let text = Ranges(&days).to_string();
        assert_eq!(text, "2026-01-01 to 2026-01-03, 2026-01-07, 2026-01-09 to 2026-01-10");
        let alone: Vec<_> = (1..=31).step_by(2).map(day).collect();
        assert!(Ranges(&alone).to_string().ends_with("2026-01-19 and 6 more ranges"));
    }
}
