//! The schema, and what is done to it outside of writing.

use sqlx::{PgConnection, PgPool};

use crate::domain::Instrument;

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
