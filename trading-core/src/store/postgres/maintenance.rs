//! The schema, and what is done to it outside of writing.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::types::chrono::NaiveDate;

use crate::domain::{Instrument, Timestamp};

/// The schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// A migration failed, or the database holds ones that this program does not know.
    #[error("migrations failed")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A statement failed.
    #[error("the database refused maintenance")]
    Database(#[from] sqlx::Error),
}

/// Brings the schema up to date. Safe when several start at once: one migrates, the others wait.
///
/// # Errors
///
/// When the server cannot be reached, a migration fails, or the database is newer than this program.
pub async fn migrate(pool: &PgPool) -> Result<(), MaintenanceError> {
    sqlx::migrate!("../migrations").run(pool).await?;
    Ok(())
}

/// Notes the instruments that are recorded, with the venue's spelling of each.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn upsert_instruments(
    pool: &PgPool,
    instruments: &[(Instrument, String)],
) -> Result<(), MaintenanceError> {
    let column = |read: fn(&Instrument) -> &'static str| -> Vec<&'static str> {
        instruments.iter().map(|(instrument, _)| read(instrument)).collect()
    };
    let spellings: Vec<&str> = instruments.iter().map(|(_, spelling)| spelling.as_str()).collect();
    sqlx::query(
        "INSERT INTO instruments (exchange, symbol, base, quote, venue_symbol) \
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) \
         ON CONFLICT (exchange, symbol) DO UPDATE SET venue_symbol = EXCLUDED.venue_symbol",
    )
    .bind(column(|item| item.exchange()))
    .bind(column(|item| item.symbol().as_str()))
    .bind(column(|item| item.symbol().base()))
    .bind(column(|item| item.symbol().quote()))
    .bind(spellings)
    .execute(pool)
    .await?;
    Ok(())
}

/// Drops the day partitions that lie wholly before `now - retention`, and says how many.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn drop_old_partitions(
    pool: &PgPool,
    retention: Duration,
    now: Timestamp,
) -> Result<u32, MaintenanceError> {
    let kept_micros =
        now.as_micros().saturating_sub(i64::try_from(retention.as_micros()).unwrap_or(i64::MAX));
    let first_kept = kept_micros.div_euclid(86_400_000_000);
    let first_kept = NaiveDate::from_epoch_days(i32::try_from(first_kept).unwrap_or_default());
    let (dropped,): (i32,) = sqlx::query_as("SELECT drop_tick_partitions_before($1)")
        .bind(first_kept)
        .fetch_one(pool)
        .await?;
    Ok(u32::try_from(dropped).unwrap_or_default())
}
