//! Databases as people have them: behind a pooler, owned by somebody else, copied, and up later than the recorder.

mod arrival;
mod copies;
mod environment;
mod pooler;
mod reader;
mod rights;

use sqlx::{AssertSqlSafe, PgPool};

use crate::support::process::{Settings, setting};
use crate::support::waiting::until;

/// Settings of a quick recorder on the database of a URL, with a spool of its own.
fn settings(exchanges: &Settings, url: &str, folder: &std::path::Path) -> Settings {
    let mut settings = exchanges.clone();
    settings.extend([
        ("DATABASE_URL".to_owned(), url.to_owned()),
        setting("SPOOL__DIR", folder.join("spool").display()),
        setting("BATCH__MAX_TIME", "200ms"),
        setting("BATCH__MAX_RETRY_ATTEMPTS", "0"),
    ]);
    settings
}

async fn run(pool: &PgPool, sql: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(pool).await.unwrap();
}

async fn count(pool: &PgPool, sql: &str) -> i64 {
    // Of a table that is not there yet there are none.
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(pool).await.unwrap_or(0)
}

/// Waits until a count is at least this.
async fn reached(pool: &PgPool, sql: &str, least: i64) {
    until(async || match count(pool, sql).await {
        number if number >= least => Ok(()),
        number => Err(format!("{sql}: {number}, not {least}")),
    })
    .await;
}
