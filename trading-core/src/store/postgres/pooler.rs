//! Whether a session is one: behind a pooler in transaction or statement mode each statement may come to another
//! backend. What is set is lost then, prepared statements are somebody else's, and locks are nobody's.
//!
//! Two connections are held against each other. While the first does nothing, such a pooler gives its backend to the
//! second; and while the second is in a transaction, the first is given another one.

use std::time::Duration;

use sqlx::{Executor as _, PgConnection, Row as _};
use tokio::time::timeout;

use super::server::{Server, Session};

/// Looks taken: other clients of the pooler may take the backend in between.
const LOOKS: u32 = 3;
/// How long a pooler may leave us without a backend before that is an answer too.
const BACKEND_MAX: Duration = Duration::from_secs(5);

/// How a pooler shares backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Pooler {
    /// A backend for each transaction.
    #[error(
        "a connection pooler in transaction mode is in between: sessions are not kept, which prepared statements, locks \
         and settings need; use its session mode, or connect to the server itself"
    )]
    Transaction,
    /// A backend for each statement.
    #[error(
        "a connection pooler in statement mode is in between: it allows no transactions; use its session mode, or connect \
         to the server itself"
    )]
    Statement,
}

/// Whether a pooler between us and the server keeps no sessions; `None`: sessions are kept.
///
/// # Errors
///
/// When the server cannot be reached, or refuses.
pub async fn pooler(server: &Server, session: Session) -> Result<Option<Pooler>, sqlx::Error> {
    let mut first = server.connect(session).await?;
    let mut second = server.connect(session).await?;
    for look in 0..LOOKS {
        let mark = format!("{}-{look}", std::process::id());
        let own = backend(&mut first, Some(&mark)).await?;
        if let Err(error) = second.execute(sqlx::raw_sql("BEGIN")).await {
            return if is_statement_mode(&error) {
                Ok(Some(Pooler::Statement))
            } else {
                Err(error)
            };
        }
        let other = backend(&mut second, None).await?;
        if other.pid == own.pid || other.mark == own.mark {
            return Ok(Some(Pooler::Transaction));
        }
        match timeout(BACKEND_MAX, backend(&mut first, None)).await {
            Ok(again) if again.as_ref().is_ok_and(|again| *again == own) => {}
            Ok(Err(error)) => return Err(error),
            Ok(Ok(_other)) => return Ok(Some(Pooler::Transaction)),
            // The second connection's transaction holds the only one.
            Err(_elapsed) => return Ok(Some(Pooler::Transaction)),
        }
        second.execute(sqlx::raw_sql("ROLLBACK")).await?;
    }
    // What was asked is answered; how the server takes the farewell changes nothing.
    drop(sqlx::Connection::close(first).await);
    drop(sqlx::Connection::close(second).await);
    Ok(None)
}

/// Which backend answered, and what was set in it.
#[derive(Debug, PartialEq, Eq)]
struct Backend {
    pid: i32,
    mark: String,
}

/// Asks in the simple protocol, which needs no prepared statements.
async fn backend(
    connection: &mut PgConnection,
    mark: Option<&str>,
) -> Result<Backend, sqlx::Error> {
    let name = "trading_core.session";
    let setting = match mark {
        Some(mark) => format!("set_config('{name}', '{mark}', false)"),
        None => format!("coalesce(current_setting('{name}', true), '')"),
    };
    let statement = sqlx::AssertSqlSafe(format!("SELECT pg_backend_pid(), {setting}"));
    let row = connection.fetch_one(sqlx::raw_sql(statement)).await?;
    Ok(Backend { pid: row.try_get(0)?, mark: row.try_get(1)? })
}

fn is_statement_mode(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|it| it.message().contains("statement pooling"))
}
