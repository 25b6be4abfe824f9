//! `trading-core db reader`: a role that may read what is recorded, and change nothing.

use std::path::PathBuf;

use sqlx::Connection as _;

use super::database::Database;
use super::recorded::must_be_meant;
use super::start_error::StartError;
use crate::config::Settings;
use crate::store::postgres::reader::{Reader, ReaderError, ReaderPassword, make_reader};

/// Which role is wanted.
#[derive(Debug, Clone)]
pub struct ReaderOptions {
    /// Its name.
    pub name: String,
    /// Give it a new password, if it is there already.
    pub new_password: bool,
    /// Where PostgreSQL's programs are (`PG_BIN`); `None`: searched for.
    pub pg_bin: Option<PathBuf>,
}

/// Why there is no reader.
#[derive(Debug, thiserror::Error)]
pub enum NoReader {
    /// The database cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It cannot be made there.
    #[error(transparent)]
    Reader(#[from] ReaderError),
}

/// Makes the role, or finds it; returned with the URL that it connects to, without its password.
///
/// # Errors
///
/// When the database cannot be used, or the role cannot be made.
pub async fn reader(
    settings: &Settings,
    options: &ReaderOptions,
    password: &ReaderPassword,
) -> Result<(Reader, String), NoReader> {
    let ReaderOptions { name, new_password, pg_bin } = options;
    must_be_meant(settings, pg_bin.clone(), "db reader NAME").await?;
    let database = Database::open(settings, pg_bin.clone()).await?;
    let made = async {
        database.migrated_pool(1).await?.close().await;
        let mut connection = database.connect().await?;
        let made = make_reader(&mut connection, name, password, *new_password).await;
        drop(connection.close().await);
        Ok((made?, database.url_of(name)))
    }
    .await;
    database.close().await;
    made
}
