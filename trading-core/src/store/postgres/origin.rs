//! Whose trades a database holds, and which database it is. Simulated trades carry the names and ids of real exchanges, so
//! the two must never share a table.
//!
//! A database has an id, which a dump carries along, and a place (the cluster's system identifier and the database's oid),
//! which it does not. Where the place has changed this is a copy, and gets an id of its own: what waits in a spool for the
//! original is not stored in the copy. A physical standby has the same place, and stays the same database.

use sqlx::PgPool;

use crate::domain::SimulatedMarket;

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
        "this database holds trades of {held}, and {wanted} must not be mixed with them: use another database"
    )]
    Mixed {
        /// What it holds.
        held: String,
        /// What was to be recorded.
        wanted: String,
    },
    /// Another simulated market: the same ids are other trades there.
    #[error(
        "this database holds trades of another simulated market ({held}), and the same ids are other trades in the one that is \
         asked for ({wanted}). {}To begin anew, type `trading-core db remove --simulated`, or on a server of your own use \
         another database",
        to_go_on(held, wanted)
    )]
    OtherMarket {
        /// The market that it holds.
        held: String,
        /// The one that was to be recorded.
        wanted: String,
    },
    /// It may not be written to.
    #[error(
        "the user may not write to this database: GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA … TO the user"
    )]
    NoRight(#[source] sqlx::Error),
    /// It could not be asked.
    #[error("the database refused maintenance")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for OriginError {
    fn from(error: sqlx::Error) -> Self {
        match error.as_database_error().and_then(|it| it.code()).as_deref() {
            Some("42501") => Self::NoRight(error),
            _ => Self::Database(error),
        }
    }
}

/// What to set to go on with the market that a database holds, where this version makes it.
fn to_go_on(held: &str, wanted: &str) -> String {
    let (held, wanted) = (SimulatedMarket::parse(held), SimulatedMarket::parse(wanted));
    let Some((held, wanted)) =
        held.zip(wanted).filter(|(held, wanted)| held.version == wanted.version)
    else {
        return "Another version of trading-core made it. ".to_owned();
    };
    let seed = format!(" TRADING_CORE__SIMULATE__SEED={}", held.seed);
    let rate = format!(" TRADING_CORE__SIMULATE__RATE={}", held.rate);
    let seed = if held.seed == wanted.seed { "" } else { &seed };
    let rate = if held.rate == wanted.rate { "" } else { &rate };
    format!("To go on with it, set{seed}{rate}. ")
}

/// What names a database to the spool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabaseName {
    /// Its own name: its id, and whose trades it holds.
    pub own: String,
    /// The name of the database that it is a copy of.
    pub original: Option<String>,
}

/// Whose trades, without which market.
impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind())
    }
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
/// When it holds trades of the other kind or of another simulated market, may not be written to, or cannot be asked.
pub async fn claim(pool: &PgPool, origin: &Origin) -> Result<DatabaseName, OriginError> {
    let held = "SELECT origin, detail FROM recorded_from";
    let row: Option<(String, String)> = sqlx::query_as(held).fetch_optional(pool).await?;
    let (held, detail) = match row {
        Some(row) => row,
        None => {
            sqlx::query(
                "INSERT INTO recorded_from (origin, detail) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            )
            .bind(origin.kind())
            .bind(origin.detail())
            .execute(pool)
            .await?;
            sqlx::query_as(held).fetch_one(pool).await?
        }
    };
    if held != origin.kind() {
        return Err(OriginError::Mixed { held, wanted: origin.kind().to_owned() });
    }
    let wanted = origin.detail();
    if !SimulatedMarket::is_same(&detail, wanted) {
        return Err(OriginError::OtherMarket { held: detail, wanted: wanted.to_owned() });
    }
    Ok(database_name(pool).await?.unwrap_or_default())
}

/// What names a database, and whose trades it holds, to the spool; `None`: nobody has claimed it yet. A copy is given
/// an id of its own, and that is said.
///
/// # Errors
///
/// When it may not be written to, or cannot be asked.
pub async fn database_name(pool: &PgPool) -> Result<Option<DatabaseName>, OriginError> {
    let cluster = cluster(pool).await?;
    // In one statement each, so that of several recorders one decides.
    let is_copy = "UPDATE recorded_from SET copied_from = id, id = gen_random_uuid(), cluster = $1, database_oid = here.oid \
         FROM (SELECT oid::bigint FROM pg_database WHERE datname = current_database()) AS here \
         WHERE database_oid <> here.oid OR cluster <> $1";
    if sqlx::query(is_copy).bind(&cluster).execute(pool).await?.rows_affected() > 0 {
        tracing::warn!(
            "This database is a copy of another one, or was restored from a dump: it goes on under a name of its own, and \
             what waits in a spool for the other is left there"
        );
    }
    let is_new = "UPDATE recorded_from SET cluster = coalesce($1, cluster), database_oid = here.oid \
         FROM (SELECT oid::bigint FROM pg_database WHERE datname = current_database()) AS here \
         WHERE database_oid IS NULL OR (cluster IS NULL AND $1 IS NOT NULL)";
    let place =
        "SELECT database_oid IS NULL OR (cluster IS NULL AND $1 IS NOT NULL) FROM recorded_from";
    let unplaced: Option<bool> =
        sqlx::query_scalar(place).bind(&cluster).fetch_optional(pool).await?;
    if unplaced == Some(true) {
        sqlx::query(is_new).bind(&cluster).execute(pool).await?;
    }
    let row: Option<(String, String, Option<String>)> =
        sqlx::query_as("SELECT id::text, origin, copied_from::text FROM recorded_from")
            .fetch_optional(pool)
            .await?;
    Ok(row.map(|(id, origin, original)| DatabaseName {
        own: format!("{id}, {origin}"),
        original: original.map(|id| format!("{id}, {origin}")),
    }))
}

/// The cluster's system identifier, where it may be asked for.
async fn cluster(pool: &PgPool) -> Result<Option<String>, sqlx::Error> {
    let may_ask = "SELECT has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')";
    if !sqlx::query_scalar::<_, bool>(may_ask).fetch_one(pool).await? {
        return Ok(None);
    }
    let asked = sqlx::query_scalar("SELECT system_identifier::text FROM pg_control_system()");
    // Some hosted servers grant it and do not have it.
    Ok(asked.fetch_one(pool).await.ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_market_is_refused_with_what_to_set_or_to_type() {
        let told = |held: &str| {
            let (held, wanted) = (held.to_owned(), "seed 7, rate 10, market 2".to_owned());
            OriginError::OtherMarket { held, wanted }.to_string()
        };
        let seed = told("seed 42, rate 10, market 2");
        assert!(seed.contains("set TRADING_CORE__SIMULATE__SEED=42. To begin"), "{seed}");
        let both = told("seed 42, rate 2.5, market 2");
        let set = "set TRADING_CORE__SIMULATE__SEED=42 TRADING_CORE__SIMULATE__RATE=2.5. ";
        assert!(both.contains(set), "{both}");
        let older = told("seed 7, rate 10");
        assert!(older.contains("Another version") && !older.contains("SIMULATE__"), "{older}");
        for told in [seed, both, older] {
            assert!(told.contains("`trading-core db remove --simulated`"), "{told}");
        }
    }
}
