//! The frames that could not be read, for one who tries again.

use sqlx::PgPool;
use sqlx::types::chrono::{DateTime, Utc};

use crate::domain::{Instrument, Symbol};

/// A frame that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct QuarantinedRow {
    /// Its key, beside the exchange.
    pub hash: Vec<u8>,
    /// The raw text, as much of it as was kept.
    pub frame: String,
    /// When it first came.
    pub first_seen: DateTime<Utc>,
}

/// The next `limit` frames of an exchange, in the order of their keys, after one of them.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn quarantined(
    pool: &PgPool,
    exchange: &str,
    after: &[u8],
    limit: i64,
) -> Result<Vec<QuarantinedRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT hash, frame, first_seen FROM quarantined_frames \
         WHERE exchange = $1 AND hash > $2 ORDER BY hash LIMIT $3",
    )
    .bind(exchange)
    .bind(after)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// Removes frames of an exchange that could be read after all.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn remove_quarantined(
    pool: &PgPool,
    exchange: &str,
    hashes: &[Vec<u8>],
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query("DELETE FROM quarantined_frames WHERE exchange = $1 AND hash = ANY($2)")
        .bind(exchange)
        .bind(hashes)
        .execute(pool)
        .await?;
    Ok(done.rows_affected())
}

/// What is or was recorded of an exchange.
///
/// # Errors
///
/// When the server cannot be reached or refuses, or there are more than there may be.
pub async fn instruments(pool: &PgPool, exchange: &str) -> Result<Vec<Instrument>, sqlx::Error> {
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT base, quote FROM instruments WHERE exchange = $1 ORDER BY symbol")
            .bind(exchange)
            .fetch_all(pool)
            .await?;
    rows.iter()
        .map(|(base, quote)| {
            let symbol =
                Symbol::new(base, quote).map_err(|error| sqlx::Error::Decode(error.into()))?;
            Instrument::intern(exchange, &symbol).map_err(|error| sqlx::Error::Decode(error.into()))
        })
        .collect()
}
