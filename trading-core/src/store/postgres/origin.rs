//! Whose trades a database holds. Simulated ones carry the names and ids of real exchanges, so the two must never
//! share a table.

use sqlx::PgPool;

/// Where ticks come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The real exchanges.
    Exchanges,
    /// A simulated market: its seed and rate, as text.
    Simulated(String),
}

/// The database holds trades of the other kind.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// Not the kind that is to be recorded now.
    #[error(
        "this database holds trades of {held}, and {wanted} must not be mixed with them: use another database \
         (--database-url, or database.data_dir for another embedded one)"
    )]
    Mixed {
        /// What it holds.
        held: String,
        /// What was to be recorded.
        wanted: String,
    },
    /// It could not be asked.
    #[error("the database refused maintenance")]
    Database(#[from] sqlx::Error),
}

impl Origin {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Exchanges => "real exchanges",
            Self::Simulated(_) => "a simulated market",
        }
    }

    fn detail(&self) -> &str {
        match self {
            Self::Exchanges => "",
            Self::Simulated(detail) => detail,
        }
    }
}

/// Whose trades a database holds; `None`: nobody has claimed it.
///
/// # Errors
///
/// When it cannot be asked.
pub async fn origin(pool: &PgPool) -> Result<Option<Origin>, OriginError> {
    let row: Option<(String, String)> =
        sqlx::query_as("SELECT origin, detail FROM recorded_from").fetch_optional(pool).await?;
    Ok(row.map(|(held, detail)| match held == Origin::Exchanges.kind() {
        true => Origin::Exchanges,
        false => Origin::Simulated(detail),
    }))
}

/// Claims a database for trades of this origin; the first to claim it decides. Gives back what names the database to
/// the spool.
///
/// # Errors
///
/// When it holds trades of the other kind, or cannot be asked.
pub async fn claim(pool: &PgPool, origin: &Origin) -> Result<String, OriginError> {
    sqlx::query(
        "INSERT INTO recorded_from (origin, detail) VALUES ($1, $2) ON CONFLICT DO NOTHING",
    )
    .bind(origin.kind())
    .bind(origin.detail())
    .execute(pool)
    .await?;
    let (held, detail): (String, String) =
        sqlx::query_as("SELECT origin, detail FROM recorded_from").fetch_one(pool).await?;
    if held != origin.kind() {
        return Err(OriginError::Mixed { held, wanted: origin.kind().to_owned() });
    }
    if detail != origin.detail() {
        tracing::warn!(
            held = detail,
            now = origin.detail(),
            "This database holds trades of another simulated market: ids of the two will meet"
        );
    }
    Ok(database_name(pool).await?.unwrap_or_default())
}

/// What names a database, and whose trades it holds, to the spool; `None`: nobody has claimed it yet.
///
/// # Errors
///
/// When it cannot be asked.
pub async fn database_name(pool: &PgPool) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT id::text || ', ' || origin FROM recorded_from")
        .fetch_optional(pool)
        .await
}
