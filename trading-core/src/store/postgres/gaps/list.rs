//! The gaps as a whole: which wait, which are open, what came of the others.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::types::chrono::{DateTime, Utc};

use super::{GapScope, ListedGap, status};
use crate::domain::{GapStatus, TimeRange};

/// Makes every open gap of these due now, and opens those again that were given up and touch this time.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn ask_again(
    pool: &PgPool,
    scope: &GapScope,
    given_up: Option<TimeRange>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE tick_gaps SET status = 'open', closed_at = NULL, retry_at = now(), \
             attempts = CASE WHEN status = 'open' THEN attempts ELSE 0 END \
         WHERE exchange = $1 AND ($2::text[] IS NULL OR symbol = ANY($2)) \
             AND (status = 'open' \
                 OR status = 'unrecoverable' AND from_time <= $4 AND to_time >= $3)",
    )
    .bind(scope.exchange)
    .bind(&scope.symbols)
    .bind(given_up.map(|times| times.from.to_datetime()))
    .bind(given_up.map(|times| times.to.to_datetime()))
    .execute(pool)
    .await
    .map(|_done| ())
}

/// Makes those open gaps due now that bear this note: what they waited for is there.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn release_held(
    pool: &PgPool,
    exchanges: &[&'static str],
    note: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE tick_gaps SET retry_at = now() \
         WHERE status = 'open' AND exchange = ANY($1) AND note = $2 AND retry_at > now()",
    )
    .bind(exchanges)
    .bind(note)
    .execute(pool)
    .await
    .map(|_done| ())
}

/// The gaps of these that are open, or were closed since a time, up to `limit` of them.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn list_gaps(
    pool: &PgPool,
    scope: &GapScope,
    closed_since: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<ListedGap>, sqlx::Error> {
    sqlx::query_as(
        "SELECT exchange, symbol, first_id, last_id, from_time, to_time, status, note FROM tick_gaps \
         WHERE exchange = $1 AND ($2::text[] IS NULL OR symbol = ANY($2)) \
             AND (status = 'open' OR closed_at >= $3) \
         ORDER BY symbol, from_time, length(first_id), first_id LIMIT $4",
    )
    .bind(scope.exchange)
    .bind(&scope.symbols)
    .bind(closed_since)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// How many gaps of these are open, and how many were closed since a time, by their status.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn count_gaps(
    pool: &PgPool,
    scope: &GapScope,
    closed_since: DateTime<Utc>,
) -> Result<Vec<(GapStatus, u64)>, sqlx::Error> {
    let counts: Vec<(String, i64)> = sqlx::query_as(
        "SELECT status, count(*) FROM tick_gaps \
         WHERE exchange = $1 AND ($2::text[] IS NULL OR symbol = ANY($2)) \
             AND (status = 'open' OR closed_at >= $3) GROUP BY status",
    )
    .bind(scope.exchange)
    .bind(&scope.symbols)
    .bind(closed_since)
    .fetch_all(pool)
    .await?;
    counts.into_iter().map(|(name, count)| Ok((status(&name)?, count.unsigned_abs()))).collect()
}

/// The database's clock.
///
/// # Errors
///
/// When the server cannot be reached.
pub async fn database_time(pool: &PgPool) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar("SELECT now()").fetch_one(pool).await
}

/// How many gaps are worked on, or will be within `soon`.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn waiting_gaps(
    pool: &PgPool,
    scope: &GapScope,
    soon: Duration,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT count(*) FROM tick_gaps JOIN instruments USING (exchange, symbol) \
         WHERE status = 'open' AND exchange = $1 AND ($2::text[] IS NULL OR symbol = ANY($2)) \
             AND (first_id IS NULL OR first_id || last_id ~ '^[0-9]{1,36}$') \
             AND ($3::interval IS NULL OR from_time >= now() - $3) \
             AND (claimed_until >= now() OR retry_at <= now() + $4)",
    )
    .bind(scope.exchange)
    .bind(&scope.symbols)
    .bind(scope.max_age)
    .bind(soon)
    .fetch_one(pool)
    .await
}

/// The exchanges that have an open gap which is due and nobody's. One query for all of them: cheap, and often.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn exchanges_with_work(
    pool: &PgPool,
    exchanges: &[&'static str],
    max_age: Option<Duration>,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT DISTINCT exchange FROM tick_gaps \
         WHERE status = 'open' AND exchange = ANY($1) AND retry_at <= now() \
             AND (claimed_until IS NULL OR claimed_until < now()) \
             AND ($2::interval IS NULL OR from_time >= now() - $2)",
    )
    .bind(exchanges)
    .bind(max_age)
    .fetch_all(pool)
    .await
}
