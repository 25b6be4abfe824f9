//! The schema brought up to date: looked at first, so that a schema which is current needs no lock and no right to change
//! it. A lock that another session holds is named, waited for, and given up in time.

use std::time::Duration;

use sqlx::migrate::Migrate as _;
use sqlx::{PgConnection, PgPool};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::maintenance::{MaintenanceError, Schema, schema};
use crate::telemetry::RepeatLimiter;

/// How long another session may hold the lock: a migration of ours takes less.
const LOCK_MAX: Duration = Duration::from_secs(60);
/// The pause between two looks at it.
const LOCK_POLL: Duration = Duration::from_millis(500);

/// Who holds the lock of migrations.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct LockHolder {
    /// Its backend.
    pub pid: i32,
    /// Its `application_name`.
    pub application: String,
    /// Who it is, and from where.
    pub client: String,
    /// What it does, and since when.
    pub activity: String,
}

impl std::fmt::Display for LockHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pid, application, client, activity } = self;
        write!(f, "pid {pid}, application_name {application:?}, {client}, {activity}")
    }
}

/// Brings the schema up to date. Safe when several start at once: one migrates, the others wait.
///
/// # Errors
///
/// When the server cannot be reached, a migration fails, the database is newer than this program, the user may not
/// change the schema, or another session holds the lock for a minute.
pub async fn migrate(pool: &PgPool) -> Result<(), MaintenanceError> {
    migrate_within(pool, LOCK_MAX).await
}

/// [`migrate`], with another bound on the wait for the lock.
///
/// # Errors
///
/// As for [`migrate`].
pub async fn migrate_within(pool: &PgPool, lock_max: Duration) -> Result<(), MaintenanceError> {
    let mut connection = pool.acquire().await?;
    let pending = match pending(&mut connection).await? {
        0 => return Ok(()),
        pending => pending,
    };
    may_migrate(&mut connection, pending).await?;
    if !lock(&mut connection, lock_max).await? {
        return Ok(());
    }
    // A migration may take longer than what the pool allows a statement.
    let mut migrator = sqlx::migrate!("../migrations");
    migrator.set_locking(false);
    let done = async {
        sqlx::raw_sql("SET statement_timeout = 0").execute(&mut *connection).await?;
        migrator.run_direct(None, &mut *connection, false).await?;
        Ok::<_, MaintenanceError>(())
    }
    .await;
    // With its settings and its lock it is no connection for others.
    drop(sqlx::Connection::close(connection.detach()).await);
    done
}

/// How many migrations are to be run.
async fn pending(connection: &mut PgConnection) -> Result<usize, MaintenanceError> {
    match schema(connection).await? {
        Schema::Current => Ok(0),
        Schema::Missing => Ok(sqlx::migrate!("../migrations").iter().count()),
        Schema::Behind(pending) => Ok(pending),
        Schema::Newer => Err(MaintenanceError::Newer),
        Schema::Broken(version) => Err(MaintenanceError::Broken(version)),
    }
}

async fn may_migrate(
    connection: &mut PgConnection,
    pending: usize,
) -> Result<(), MaintenanceError> {
    let (may_create, is_read_only, schema, user): (bool, bool, Option<String>, String) =
        sqlx::query_as(
            "SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), \
                 current_setting('transaction_read_only')::boolean, current_schema()::text, current_user::text",
        )
        .fetch_one(connection)
        .await?;
    match schema {
        _ if is_read_only => Err(MaintenanceError::ReadOnly { pending }),
        None => Err(MaintenanceError::NoSchema),
        Some(schema) if !may_create => Err(MaintenanceError::NoRight { pending, schema, user }),
        Some(_) => Ok(()),
    }
}

/// Takes the lock under which migrations are run, the same as every version took; `false`: there is nothing to do any more.
async fn lock(connection: &mut PgConnection, lock_max: Duration) -> Result<bool, MaintenanceError> {
    let name: String =
        sqlx::query_scalar("SELECT current_database()").fetch_one(&mut *connection).await?;
    let key = lock_key(&name);
    let deadline = Instant::now() + lock_max;
    let mut said = RepeatLimiter::default();
    loop {
        let is_ours: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(key)
            .fetch_one(&mut *connection)
            .await?;
        if is_ours {
            // Whoever had it may have done the work.
            if pending(connection).await? > 0 {
                return Ok(true);
            }
            connection.unlock().await?;
            return Ok(false);
        }
        let holder = holder(connection, key).await?;
        if Instant::now() >= deadline {
            return Err(MaintenanceError::Locked { waited: lock_max, holder });
        }
        if let Some(holder) = holder
            && let Some(unsaid) = said.admit(Instant::now())
        {
            warn!(
                "Waiting: another session holds the migration lock of this database: {holder}{unsaid}"
            );
        }
        sleep(LOCK_POLL).await;
        if pending(connection).await? == 0 {
            info!("The tables are up to date: another session has migrated them");
            return Ok(false);
        }
    }
}

/// The key of sqlx's advisory lock, so that other versions of this program and its tools exclude us.
fn lock_key(database: &str) -> i64 {
    0x3d32_ad9e * i64::from(crc32fast::hash(database.as_bytes()))
}

/// Who holds the lock of migrations of the connection's database.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn lock_holder(connection: &mut PgConnection) -> Result<Option<LockHolder>, sqlx::Error> {
    let name: String =
        sqlx::query_scalar("SELECT current_database()").fetch_one(&mut *connection).await?;
    holder(connection, lock_key(&name)).await
}

async fn holder(
    connection: &mut PgConnection,
    key: i64,
) -> Result<Option<LockHolder>, sqlx::Error> {
    sqlx::query_as(
        "SELECT pid, coalesce(application_name, '') AS application, \
             'user ' || coalesce(usename, '?') || coalesce(' from ' || host(client_addr), '') AS client, \
             coalesce(state, 'of another user') || coalesce(' since ' \
                 || to_char(state_change AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC', '') AS activity \
         FROM pg_locks LEFT JOIN pg_stat_activity USING (pid) \
         WHERE locktype = 'advisory' AND granted AND objsubid = 1 \
             AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
             AND classid = (($1 >> 32) & 4294967295)::oid AND objid = ($1 & 4294967295)::oid LIMIT 1",
    )
    .bind(key)
    .fetch_optional(connection)
    .await
}
