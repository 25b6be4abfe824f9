//! Databases as people have them: behind a pooler, owned by somebody else, copied, and up later than the recorder.

mod arrival;
mod copies;
mod environment;
mod pooler;
mod reader;
mod rights;

use std::process::Output;
use std::time::Duration;

use sqlx::{AssertSqlSafe, PgPool};
use tokio::time::{Instant, sleep};

use crate::recorder::setting;
use crate::support::process::command;

/// Longer than anything is waited for; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(90);

type Settings = Vec<(String, String)>;

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
    let deadline = Instant::now() + PATIENCE;
    loop {
        let number = count(pool, sql).await;
        if number >= least {
            return;
        }
        assert!(Instant::now() < deadline, "{sql}: {number}, not {least}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// The program, run to its end.
fn program(arguments: &[&str], settings: &Settings) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        command().args(arguments).envs(settings.iter().cloned()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}
