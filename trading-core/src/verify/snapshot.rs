//! One moment of the database, looked at through several connections and many short transactions.
//!
//! Everything that is compared with each other is read as it was at that moment, whatever is written meanwhile. Each look
//! ends its transaction, so that no lock on a day is held for longer than one query: a recorder's daily work passes by.

use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};

use super::error::VerifyError;

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The moment. It lasts as long as this does.
#[derive(Debug)]
pub(super) struct Snapshot {
    pool: PgPool,
    /// Keeps the moment; reads nothing that it would lock.
    keeper: Transaction<'static, Postgres>,
    enter: String,
}

impl Snapshot {
    /// Now.
    pub(super) async fn take(pool: &PgPool) -> Result<Self, VerifyError> {
        let mut keeper = pool.begin_with(BEGIN).await?;
        sqlx::query("SET LOCAL idle_in_transaction_session_timeout = 0")
            .execute(&mut *keeper)
            .await?;
        let id: String =
            sqlx::query_scalar("SELECT pg_export_snapshot()").fetch_one(&mut *keeper).await?;
        // It goes into a statement that takes no parameters.
        if !id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
            return Err(VerifyError::Snapshot(id));
        }
        // Compiling a query costs more than one look at a part of a day.
        let enter = format!(
            "SET TRANSACTION SNAPSHOT '{id}'; SET LOCAL jit = off; SET LOCAL TimeZone = 'UTC'"
        );
        Ok(Self { pool: pool.clone(), keeper, enter })
    }

    /// A transaction that sees that moment.
    pub(super) async fn look(&self) -> Result<Transaction<'static, Postgres>, VerifyError> {
        let mut transaction = self.pool.begin_with(BEGIN).await?;
        sqlx::raw_sql(AssertSqlSafe(self.enter.clone())).execute(&mut *transaction).await?;
        Ok(transaction)
    }

    /// The moment is over.
    pub(super) async fn end(self) -> Result<(), VerifyError> {
        Ok(self.keeper.rollback().await?)
    }
}
