//! Why nothing could be proven.

/// Verification could not be done.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The database cannot be read.
    #[error("the ticks cannot be read")]
    Database(#[from] sqlx::Error),
    /// The tables are not those of this version.
    #[error(
        "the tables are not those of this version: run `trading-core db migrate`, or `live` once"
    )]
    Schema(#[source] sqlx::Error),
    /// Retention dropped a day meanwhile.
    #[error("a day was dropped while it was being read (retention): verify again")]
    DayDropped,
    /// A partition that no range of time describes.
    #[error(
        "the partition {0} of tick_data has no range of time: trading-core makes one partition a day"
    )]
    Partition(String),
    /// The server named its snapshot in a way that is not known.
    #[error("the server's name for its snapshot is not understood: {0:?}")]
    Snapshot(String),
}

impl VerifyError {
    /// An error of the first queries: a table or column that is not there means another schema.
    pub(super) fn of_schema(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|refusal| refusal.code());
        match code.as_deref() {
            Some("42P01" | "42703" | "42883") => Self::Schema(error),
            _ => Self::Database(error),
        }
    }
}
