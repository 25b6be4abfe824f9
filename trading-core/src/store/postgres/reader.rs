//! A role for programs that only look: it reads all that the recorder stores, now and later, and changes nothing.
//!
//! Names are quoted by the server (`format('%I')`), and a password reaches it only as the verifier that it keeps.

use std::fmt;
use std::io;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::store::password::{random_text, verifier};

/// The longest name of a role, in bytes; the server would cut a longer one off.
const NAME_BYTES_MAX: usize = 63;

/// A password for a reader. Shown only where [`ReaderPassword::reveal`] is asked.
#[derive(Clone)]
pub struct ReaderPassword(String);

impl fmt::Debug for ReaderPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReaderPassword(…)")
    }
}

impl ReaderPassword {
    /// A new one, of letters and digits.
    ///
    /// # Errors
    ///
    /// When the system gives no random bytes.
    pub fn random() -> io::Result<Self> {
        random_text(32).map(Self)
    }

    /// The password itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What the server keeps of it.
    fn verifier(&self) -> io::Result<String> {
        Ok(verifier(&self.0, random_text(16)?.as_bytes()))
    }
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    /// The role was not there before.
    pub is_new: bool,
    /// The password was given to it; else it has the one that it had.
    pub has_new_password: bool,
    /// The database that it reads.
    pub database: String,
    /// A schema in which everybody may make tables, so this role too.
    pub open_schema: Option<String>,
}

/// No reader was made, and nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// No role can be called so.
    #[error("a role's name has 1 to {NAME_BYTES_MAX} bytes, and no control characters")]
    Name,
    /// It may change what it should read.
    #[error(
        "role {0:?} may do more than read here, by its own rights, those of a role that it is in, or those of PUBLIC: choose \
         another name, or take these rights away"
    )]
    Writes(String),
    /// The tables are somebody else's.
    #[error(
        "user {user} may not grant rights on the tables of {owner}: run this as {owner}, or GRANT {owner} TO {user}"
    )]
    NotOwner {
        /// Who asks.
        user: String,
        /// Who owns them.
        owner: String,
    },
    /// Roles are made by others.
    #[error("this user may not make or change roles: run this as a user with CREATEROLE")]
    NoRight(#[source] sqlx::Error),
    /// No random bytes.
    #[error("no password could be made")]
    Random(#[from] io::Error),
    /// The server refused.
    #[error("the database refused")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for ReaderError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|refusal| refusal.code());
        if code.as_deref() == Some("42501") { Self::NoRight(error) } else { Self::Database(error) }
    }
}

/// Makes a role that reads, or grants to the one that is there what it lacks. All of it is done, or nothing.
///
/// The schema must be current. The connection must not log its statements.
///
/// # Errors
///
/// When the name is none, the role may do more, the user may not make it, or the server refuses.
pub async fn make_reader(
    connection: &mut PgConnection,
    name: &str,
    password: &ReaderPassword,
    replace_password: bool,
) -> Result<Reader, ReaderError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
        return Err(ReaderError::Name);
    }
    let mut transaction = connection.begin().await?;
    // Two at once would change the same rows of the catalog.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('trading-core.reader', 0))")
        .execute(&mut *transaction)
        .await?;
    let can_login: Option<bool> =
        sqlx::query_scalar("SELECT rolcanlogin FROM pg_roles WHERE rolname = $1::name")
            .bind(name)
            .fetch_optional(&mut *transaction)
            .await?;
    let (is_new, has_new_password) = (can_login.is_none(), can_login.is_none() || replace_password);
    if is_new {
        run(&mut transaction, "SELECT format('CREATE ROLE %I', $1::name)", name, None).await?;
    }
    if may_write(&mut transaction, name).await? {
        return Err(ReaderError::Writes(name.to_owned()));
    }
    if has_new_password {
        let verifier = password.verifier()?;
        let login = "SELECT format('ALTER ROLE %I LOGIN PASSWORD %L', $1::name, $2::text)";
        run(&mut transaction, login, name, Some(&verifier)).await?;
    } else if can_login == Some(false) {
        run(&mut transaction, "SELECT format('ALTER ROLE %I LOGIN', $1::name)", name, None).await?;
    }
    run(&mut transaction, GRANTS, name, None).await?;
    let (may_read, database, user, owner, open_schema): (bool, String, String, String, _) =
        sqlx::query_as(
            "SELECT has_table_privilege($1::name, pg_class.oid, 'SELECT') \
                     AND has_schema_privilege($1::name, relnamespace, 'USAGE'), \
                 current_database()::text, current_user::text, pg_get_userbyid(relowner)::text, \
                 CASE WHEN has_schema_privilege($1::name, relnamespace, 'CREATE') THEN nspname::text END \
             FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace \
             WHERE pg_class.oid = 'tick_data'::regclass",
        )
        .bind(name)
        .fetch_one(&mut *transaction)
        .await?;
    if !may_read {
        return Err(ReaderError::NotOwner { user, owner });
    }
    transaction.commit().await?;
    Ok(Reader { is_new, has_new_password, database, open_schema })
}

/// Whether the role, by itself or as a member of others, does more than read here. Its settings must not be changed then.
async fn may_write(connection: &mut PgConnection, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT $1::name = current_user OR EXISTS (SELECT FROM pg_roles AS role \
             WHERE pg_has_role($1::name, role.oid, 'MEMBER') AND (rolsuper OR rolcreaterole OR rolreplication \
                 OR rolname IN ('pg_write_server_files', 'pg_execute_server_program') \
                 OR has_database_privilege(role.oid, current_database(), 'CREATE') \
                 OR EXISTS (SELECT FROM pg_class JOIN pg_class AS ticks ON ticks.oid = 'tick_data'::regclass \
                     WHERE pg_class.relnamespace = ticks.relnamespace AND pg_class.relkind IN ('r', 'p', 'v') \
                         AND has_table_privilege(role.oid, pg_class.oid, 'INSERT, UPDATE, DELETE, TRUNCATE'))))",
    )
    .bind(name)
    .fetch_one(connection)
    .await
}

/// What a reader of name `$1` still lacks, as statements. Tables of others in the same schema are left alone.
const GRANTS: &str = "\
    WITH ticks AS MATERIALIZED (SELECT nspname, relnamespace FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace \
        WHERE pg_class.oid = 'tick_data'::regclass), \
    ours AS MATERIALIZED (SELECT pg_class.oid, relowner FROM pg_class JOIN ticks USING (relnamespace) \
        WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND pg_has_role(relowner, 'USAGE')), \
    makers AS (SELECT relowner AS maker FROM ours \
        UNION SELECT pg_roles.oid FROM pg_roles WHERE rolname = current_user), \
    wanted (name, value) AS (VALUES ('default_transaction_read_only', 'on'), ('statement_timeout', '5min'), \
        ('idle_in_transaction_session_timeout', '5min'), ('jit', 'off'), \
        ('search_path', (SELECT nspname::text FROM ticks WHERE nspname <> 'public'))), \
    has AS (SELECT split_part(unnest(setconfig), '=', 1) AS name FROM pg_db_role_setting \
        WHERE setrole = (SELECT oid FROM pg_roles WHERE rolname = $1::name) \
            AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))) \
    SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), $1::name) \
        WHERE NOT has_database_privilege($1::name, current_database(), 'CONNECT') \
    UNION ALL SELECT format('GRANT USAGE ON SCHEMA %I TO %I', nspname, $1::name) FROM ticks \
        WHERE NOT has_schema_privilege($1::name, relnamespace, 'USAGE') \
    UNION ALL SELECT format('GRANT SELECT ON TABLE %s TO %I', oid::regclass, $1::name) FROM ours \
        WHERE NOT has_table_privilege($1::name, oid, 'SELECT') \
    UNION ALL SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I', pg_proc.oid::regprocedure, $1::name) \
        FROM pg_proc JOIN ticks ON pronamespace = relnamespace \
        WHERE proname IN ('tick_partitions', 'stored_ranges', 'candle_begin', 'candles', 'ticks_per_minute') \
            AND NOT has_function_privilege($1::name, pg_proc.oid, 'EXECUTE') \
    UNION ALL SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT SELECT ON TABLES TO %I', \
        pg_get_userbyid(maker), nspname, $1::name) FROM makers, ticks \
    UNION ALL SELECT format('ALTER ROLE %I IN DATABASE %I SET %s = %L', $1::name, current_database(), name, value) \
        FROM wanted WHERE value IS NOT NULL AND (name = 'default_transaction_read_only' OR name NOT IN (SELECT name FROM has))";

/// Runs the statements that a query writes.
async fn run(
    connection: &mut PgConnection,
    query: &'static str,
    name: &str,
    verifier: Option<&str>,
) -> Result<(), sqlx::Error> {
    let query = sqlx::query_scalar(query).bind(name);
    let query = match verifier {
        Some(verifier) => query.bind(verifier),
        None => query,
    };
    let statements: Vec<String> = query.fetch_all(&mut *connection).await?;
    if !statements.is_empty() {
        // Every name in them was quoted by the server.
        sqlx::raw_sql(AssertSqlSafe(statements.join("; "))).execute(connection).await?;
    }
    Ok(())
}
