//! Whether a recorder records into a database, by what recorders note there of their connections.

use std::time::Duration;

use serde::Serialize;
use sqlx::PgConnection;

use crate::domain::bounds::SESSION_DEAD;

/// What the recorders of a database hold open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Open connections to exchanges.
    pub connections: u32,
    /// Their exchanges, by name.
    pub exchanges: Vec<String>,
    /// What came before this many seconds ago is stored, or in the spool of its recorder.
    pub stored_until_seconds: u64,
}

impl Standing {
    /// What came before that age is stored.
    #[must_use]
    pub const fn stored_until(&self) -> Duration {
        Duration::from_secs(self.stored_until_seconds)
    }
}

/// The open connections, of all recorders together; `None`: there is none.
///
/// # Errors
///
/// When the server fails, or has none of our tables.
pub async fn standing(connection: &mut PgConnection) -> Result<Option<Standing>, sqlx::Error> {
    let (connections, exchanges, age): (i64, Vec<String>, Option<i64>) = sqlx::query_as(
        "SELECT count(*), coalesce(array_agg(DISTINCT exchange ORDER BY exchange), '{}'), \
             ceil(extract(epoch FROM now() - max(stored_until)))::bigint \
         FROM feed_sessions WHERE ended_at IS NULL AND seen_at > now() - $1",
    )
    .bind(SESSION_DEAD)
    .persistent(false)
    .fetch_one(connection)
    .await?;
    Ok(age.map(|age| Standing {
        connections: u32::try_from(connections).unwrap_or(u32::MAX),
        exchanges,
        stored_until_seconds: u64::try_from(age).unwrap_or_default(),
    }))
}
