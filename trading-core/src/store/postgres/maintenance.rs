//! The schema, and what is done to it outside of writing.

use sqlx::{PgConnection, PgPool};

use std::time::Duration;

use super::migrate::LockHolder;
use crate::domain::Instrument;

/// The schema could not be brought up to date, or is not for this program.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// A migration failed.
    #[error("migrations failed")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A newer program has changed the tables.
    #[error(
        "a newer trading-core has changed the tables: use the newer trading-core, or another database"
    )]
    Newer,
    /// A migration is there halfway.
    #[error(
        "migration {0} of the tables failed midway, or is not the one of this version: restore a backup, or use another \
         database"
    )]
    Broken(i64),
    /// Another session migrates, or has forgotten that it does.
    #[error(
        "another session has held the migration lock of this database for more than {} s{}: let it end, or end it with \
         SELECT pg_terminate_backend(pid)",
        waited.as_secs(),
        holder.as_ref().map(|it| format!(" ({it})")).unwrap_or_default()
    )]
    Locked {
        /// How long it was waited for.
        waited: Duration,
        /// Who holds it.
        holder: Option<LockHolder>,
    },
    /// The user may not change the schema.
    #[error(
        "the tables are {pending} migrations behind, and user {user} may not change them: run `trading-core db migrate` \
         as their owner, or GRANT CREATE ON SCHEMA {schema} TO {user}"
    )]
    NoRight {
        /// Migrations to be run.
        pending: usize,
        /// Where.
        schema: String,
        /// Who.
        user: String,
    },
    /// Nothing can be changed there.
    #[error(
        "the tables are {pending} migrations behind, and the server is read-only: run `trading-core db migrate` on its \
         primary"
    )]
    ReadOnly {
        /// Migrations to be run.
        pending: usize,
    },
    /// The search path leads nowhere.
    #[error("no schema of the search_path exists: CREATE SCHEMA, or correct search_path")]
    NoSchema,
    /// A statement failed.
    #[error("the database refused maintenance")]
    Database(#[from] sqlx::Error),
}

/// How the tables stand to this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// There are none yet.
    Missing,
    /// So many migrations are still to be run.
    Behind(usize),
    /// As this program makes them.
    Current,
    /// A newer program has changed them.
    Newer,
    /// A migration of this number failed midway, or is not the one that this program knows.
    Broken(i64),
}

/// Looks how the tables stand to this program, and changes nothing.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn schema(connection: &mut PgConnection) -> Result<Schema, sqlx::Error> {
    let is_there: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !is_there {
        return Ok(Schema::Missing);
    }
    let applied: Vec<(i64, bool, Vec<u8>)> =
        sqlx::query_as("SELECT version, success, checksum FROM _sqlx_migrations ORDER BY version")
            .fetch_all(connection)
            .await?;
    let known = sqlx::migrate!("../migrations");
    for (version, is_done, checksum) in &applied {
        match known.iter().find(|one| one.version == *version) {
            None => return Ok(Schema::Newer),
            Some(one) if !is_done || *one.checksum != **checksum => {
                return Ok(Schema::Broken(*version));
            }
            Some(_) => {}
        }
    }
    Ok(match known.iter().count().saturating_sub(applied.len()) {
        0 => Schema::Current,
        pending => Schema::Behind(pending),
    })
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
