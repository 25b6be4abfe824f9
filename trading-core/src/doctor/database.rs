//! The database: whether it is there, lets us in, and is as the recorder needs it. Nothing is started or made.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use chrono::{DateTime, Utc};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::Check;
use super::stored::{self, Load};
use crate::config::{DatabaseUrl, Settings};
use crate::domain::{DATABASE, Timestamp, Witness};
use crate::store::embedded::{Options, command};
use crate::store::postgres::maintenance::{Schema, schema};
use crate::store::postgres::migrate::lock_holder;
use crate::store::postgres::pooler::{Pooler, pooler};
use crate::store::postgres::rights::{Days, days};
use crate::store::postgres::{Server, Session, is_away, refusal};
use crate::store::{said, with_causes};
use crate::telemetry::Grouped;

const AREA: &str = "database";
/// The server's time for one question.
const STATEMENT_MAX: Duration = Duration::from_secs(10);
/// The oldest server that the tables are made for, as it numbers itself.
const VERSION_LEAST: i32 = 140_000;

/// What was found.
#[derive(Debug)]
pub(super) struct DatabaseFindings {
    pub(super) checks: Vec<Check>,
    /// By the newest hour of recording.
    pub(super) load: Option<Load>,
    /// Its folder, where it lies on this machine.
    pub(super) on_this_machine: Option<PathBuf>,
    /// Its time.
    pub(super) clock: Option<Witness>,
}

impl DatabaseFindings {
    /// It did not answer in time.
    pub(super) fn silent(within: Duration) -> Self {
        let found = format!("no answer within {} s", within.as_secs());
        let check = Check::fail(AREA, found, "look at the server's log");
        Self { checks: vec![check], load: None, on_this_machine: None, clock: None }
    }
}

/// Looks at the database of the settings.
pub(super) async fn examine(settings: &Settings, pg_bin: Option<PathBuf>) -> DatabaseFindings {
    match &settings.database.url {
        DatabaseUrl::Embedded => embedded(settings, pg_bin).await,
        url @ DatabaseUrl::Server(text) => {
            let mut found = DatabaseFindings {
                checks: Vec::new(),
                load: None,
                on_this_machine: None,
                clock: None,
            };
            match Server::from_url(text) {
                Ok(reached) => server(&mut found, settings, &reached, &url.to_string()).await,
                Err(error) => {
                    let remedy = "write database.url as postgres://user@host/db";
                    found.checks.push(Check::fail(
                        AREA,
                        format!("{url} is no URL: {error}"),
                        remedy,
                    ));
                }
            }
            found
        }
    }
}

async fn embedded(settings: &Settings, pg_bin: Option<PathBuf>) -> DatabaseFindings {
    let options = Options::new(&settings.database, pg_bin);
    let mut found =
        DatabaseFindings { checks: Vec::new(), load: None, on_this_machine: None, clock: None };
    let status = match command::status(&options).await {
        Ok(status) => status,
        Err(error) => {
            found.checks.push(Check::fail(AREA, with_causes(&error), "set database.data_dir"));
            return found;
        }
    };
    found.on_this_machine = Some(status.data_dir.clone());
    let folder = status.data_dir.display();
    let (made, size) = (status.data_version.is_some(), ByteSize(status.data_bytes));
    match command::server_version(&options).await {
        Ok(version) if made => {
            let found_text = format!("embedded, PostgreSQL {version}, {size} in {folder}");
            found.checks.push(Check::ok(AREA, found_text));
        }
        Ok(version) => {
            let live = if status.simulated { "live --simulate" } else { "live" };
            let found_text =
                format!("embedded, PostgreSQL {version}; `{live}` makes it in {folder}");
            found.checks.push(Check::ok(AREA, found_text));
            if let Some(other) = status.other_dir.filter(|_| !status.simulated) {
                let found_text = format!(
                    "the simulated market's is in {}: `trading-core doctor --simulated` looks at it",
                    other.display()
                );
                found.checks.push(Check::ok(AREA, found_text));
            }
        }
        Err(error) => {
            let remedy = "install PostgreSQL's server, or set PG_BIN to the folder of its programs";
            found.checks.push(Check::fail(AREA, with_causes(&error), remedy));
        }
    }
    match status.server {
        Some(running) => {
            let reached = running.connect_options().into();
            server(&mut found, settings, &reached, &running.url).await;
        }
        None if made => {
            found.checks.push(Check::ok(
                AREA,
                "stopped, so its tables are not looked at; `live` starts it",
            ));
            if let Ok(Some(port)) = command::taken_port(&options).await {
                let text = format!(
                    "port {port} of 127.0.0.1 is in use by another program: `live` takes another one"
                );
                let remedy = "end that program; or give those that connect over TCP the new port, which `trading-core db \
                              status` shows";
                found.checks.push(Check::warn(AREA, text, remedy));
            }
        }
        None => {}
    }
    found
}

async fn server(found: &mut DatabaseFindings, settings: &Settings, reached: &Server, shown: &str) {
    let is_here = reached.is_on_this_machine();
    // As the writers connect, and twice.
    let session = Session { name: "trading-core doctor", statement_max: Some(STATEMENT_MAX) };
    let kept = pooler(reached, session).await;
    let connected = match kept {
        Ok(None) => reached.connect(session).await,
        Ok(Some(pooler)) => {
            let (found_text, remedy) = about(pooler);
            found.checks.push(Check::fail(AREA, format!("{shown}: {found_text}"), remedy));
            return;
        }
        Err(error) => Err(error),
    };
    let mut connection = match connected {
        Ok(connection) => connection,
        Err(error) => {
            let (refusal, remedy) = (refusal(&error), remedy_for(&error));
            let words = said(&error).without_cure();
            found.checks.push(Check::fail(AREA, format!("{shown} {refusal}: {words}"), remedy));
            return;
        }
    };
    found.clock = clock(&mut connection, is_here).await.ok();
    match describe(&mut connection, settings).await {
        Ok((checks, load)) => {
            found.checks.push(Check::ok(AREA, format!("reached at {shown}")));
            found.checks.extend(checks);
            found.load = load;
        }
        Err(error) => {
            let words = said(&error).without_cure().to_string();
            let text = format!("{shown} does not answer what it is asked: {words}");
            let remedy = remedy_for_refused(&mut connection, &error).await;
            found.checks.push(Check::fail(AREA, text, remedy));
        }
    }
    // What was asked is answered; how the connection closes changes nothing.
    drop(connection.close().await);
}

/// Its time, half of the way taken off.
async fn clock(connection: &mut PgConnection, is_here: bool) -> Result<Witness, sqlx::Error> {
    let before = Timestamp::now();
    let time: DateTime<Utc> =
        sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(connection).await?;
    let ours = before.as_micros().midpoint(Timestamp::now().as_micros());
    let ahead = time.timestamp_micros().saturating_sub(ours);
    Ok(Witness { name: DATABASE.to_owned(), ahead, is_here })
}

/// What to do about a server that lets nobody in.
fn remedy_for(error: &sqlx::Error) -> &'static str {
    let code = error.as_database_error().and_then(|it| it.code());
    match (error, code.as_deref()) {
        (_, Some("28P01")) => "give the right password in DATABASE_URL",
        (_, Some("28000")) => {
            "make the role, or let it in (ALTER ROLE … LOGIN, and a line of pg_hba.conf), or correct the user in database.url"
        }
        (_, Some("3D000")) => "make it with CREATE DATABASE, or correct its name in database.url",
        (_, Some("42501")) => "let its owner run GRANT CONNECT ON DATABASE … TO the user",
        _ if is_away(error) => "start it, or correct database.url; `live` spools until it is there",
        (sqlx::Error::Tls(_), _) => "look at sslmode, sslrootcert and sslcert in database.url",
        _ => "correct database.url (a password belongs in DATABASE_URL), or mend it at the server",
    }
}

/// What to do about a server that lets us in, and does not answer.
async fn remedy_for_refused(connection: &mut PgConnection, error: &sqlx::Error) -> String {
    let code = error.as_database_error().and_then(|it| it.code());
    match code.as_deref() {
        Some("42501") => {
            let names: Result<(String, Option<String>), _> =
                sqlx::query_as("SELECT current_user::text, current_schema()::text")
                    .fetch_one(connection)
                    .await;
            let (user, schema) = names.unwrap_or_else(|_error| ("the user".to_owned(), None));
            grant(schema.as_deref().unwrap_or("public"), &user)
        }
        Some("57014" | "55P03") => {
            "look in pg_stat_activity who holds it up, or look again later".to_owned()
        }
        Some("42P01" | "42703" | "42883") => {
            "let the owner of the tables run `trading-core db migrate`".to_owned()
        }
        _ => "look at the server's log".to_owned(),
    }
}

/// What gives a user all rights that recording needs.
fn grant(schema: &str, user: &str) -> String {
    format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {user}")
}

fn about(pooler: Pooler) -> (&'static str, &'static str) {
    let found = match pooler {
        Pooler::Transaction => {
            "a pooler in transaction mode is in between, which keeps no sessions"
        }
        Pooler::Statement => {
            "a pooler in statement mode is in between, which allows no transactions"
        }
    };
    (found, "use the pooler's session mode, or connect to the server itself")
}

/// The server, as it describes itself.
#[derive(Debug, sqlx::FromRow)]
struct About {
    version: String,
    number: i32,
    encoding: String,
    is_read_only: bool,
    may_create: bool,
    /// The first schema of the search path that the user may look into.
    schema: Option<String>,
    user: String,
    connections_max: i32,
    connections_used: i64,
}

/// The tables, as it describes them.
#[derive(Debug, sqlx::FromRow)]
struct Tables {
    /// The first of the tables that the user lacks a right to.
    unwritable: Option<String>,
    user: String,
    schema: String,
    origin: Option<String>,
    open_gaps: i64,
}

async fn describe(
    connection: &mut PgConnection,
    settings: &Settings,
) -> Result<(Vec<Check>, Option<Load>), sqlx::Error> {
    let server: About = sqlx::query_as(
        "SELECT current_setting('server_version') AS version, \
             current_setting('server_version_num')::integer AS number, \
             current_setting('server_encoding') AS encoding, \
             current_setting('transaction_read_only')::boolean OR pg_is_in_recovery() AS is_read_only, \
             coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create, \
             current_schema()::text AS schema, current_user::text AS \"user\", \
             current_setting('max_connections')::integer \
                 - current_setting('superuser_reserved_connections')::integer AS connections_max, \
             (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()) \
                 AS connections_used",
    )
    .fetch_one(&mut *connection)
    .await?;
    let mut checks = judge_server(&server, settings.database.max_connections.get());
    let schema = schema(&mut *connection).await?;
    checks.push(judge_schema(schema, &server));
    if !matches!(schema, Schema::Current)
        && let Some(holder) = lock_holder(connection).await?
    {
        let found = format!("another session holds the migration lock: {holder}");
        let remedy = "let it end, or end it with SELECT pg_terminate_backend(pid)";
        checks.push(Check::fail(AREA, found, remedy));
    }
    if !matches!(schema, Schema::Current) {
        return Ok((checks, None));
    }
    let tables: Tables = sqlx::query_as(
        "SELECT (SELECT min(relname)::text FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition \
                 AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'tick_data'::regclass) \
                 AND relname IN ('tick_data', 'instruments', 'rejected_ticks', 'quarantined_frames', 'feed_sessions', \
                     'tick_gaps', 'checked_until', 'recorded_from') \
                 AND NOT (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT') \
                     AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))) AS unwritable, \
             current_user::text AS \"user\", \
             (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'tick_data'::regclass) AS schema, \
             (SELECT origin FROM recorded_from) AS origin, \
             (SELECT count(*) FROM open_gaps) AS open_gaps",
    )
    .fetch_one(&mut *connection)
    .await?;
    checks.extend(judge_tables(&tables, settings.database.simulated));
    checks.extend(super::locks::check(&mut *connection).await?);
    let days = days(&mut *connection).await?;
    checks.extend(judge_days(&days, settings.database.retention.is_some()));
    let load = stored::load(connection).await?;
    Ok((checks, load))
}

fn judge_server(server: &About, needed: u32) -> Vec<Check> {
    let mut checks = Vec::new();
    if server.number < VERSION_LEAST {
        let found = format!("PostgreSQL {}: the tables need 14 or newer", server.version);
        checks.push(Check::fail(AREA, found, "use a newer server"));
    } else {
        checks.push(Check::ok(AREA, format!("PostgreSQL {}", server.version)));
    }
    if server.encoding != "UTF8" {
        let found = format!("its encoding is {}: not every text can be stored", server.encoding);
        checks.push(Check::fail(
            AREA,
            found,
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        ));
    }
    if server.is_read_only {
        let remedy = "use the primary server, or a user without default_transaction_read_only";
        checks.push(Check::fail(AREA, "it takes no writes: read-only", remedy));
    }
    let free = i64::from(server.connections_max) - server.connections_used;
    let found = format!(
        "{free} of {} connections are free; a recorder takes up to {needed}",
        server.connections_max
    );
    checks.push(if free < i64::from(needed) {
        Check::fail(
            AREA,
            found,
            "raise the server's max_connections, or lower database.max_connections",
        )
    } else {
        Check::ok(AREA, found)
    });
    checks
}

fn judge_schema(schema: Schema, server: &About) -> Check {
    let newer = "use the newer trading-core, or another database";
    match (schema, &server.schema) {
        (Schema::Missing, None) => {
            let found = "the user may look into no schema of its search_path";
            let remedy = format!("GRANT USAGE ON SCHEMA public TO {}", server.user);
            return Check::fail(AREA, found, remedy);
        }
        (Schema::Missing | Schema::Behind(_), name) if !server.may_create => {
            let (name, user) = (name.as_deref().unwrap_or("public"), &server.user);
            let remedy = format!(
                "GRANT CREATE ON SCHEMA {name} TO {user}, or let the owner run `trading-core db migrate`"
            );
            return Check::fail(AREA, "the user may not make the tables", remedy);
        }
        _ => {}
    }
    match schema {
        Schema::Missing => Check::ok(AREA, "there are no tables yet; `live` makes them"),
        Schema::Behind(pending) => {
            Check::ok(AREA, format!("{pending} migrations are to be run; `live` runs them"))
        }
        Schema::Current => Check::ok(AREA, "the tables are those of this version"),
        Schema::Newer => Check::fail(AREA, "a newer trading-core has changed the tables", newer),
        Schema::Broken(version) => {
            let found =
                format!("migration {version} failed midway, or is not the one of this version");
            Check::fail(AREA, found, "restore a backup, or use another database")
        }
    }
}

fn judge_tables(tables: &Tables, simulated: bool) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(table) = &tables.unwritable {
        let Tables { user, schema, .. } = tables;
        let remedy = grant(schema, user);
        let found = format!("the user may not write to all tables: {table} is one of those");
        checks.push(Check::fail(AREA, found, remedy));
    }
    let (other, live) = match simulated {
        true => ("simulated", "live --simulate"),
        false => ("real", "live"),
    };
    let is_other = |origin: &&str| (*origin != "real exchanges") != simulated;
    if let Some(origin) = tables.origin.as_deref().filter(is_other) {
        checks.push(Check::fail(
            AREA,
            format!("it holds trades of {origin}: {other} ones are never mixed with them"),
            format!("use another database, or remove this one; `{live}` says what to type"),
        ));
    }
    if tables.open_gaps > 0 {
        let gaps = Grouped(tables.open_gaps.unsigned_abs());
        let found = format!("{gaps} gaps are open");
        checks.push(Check::warn(
            AREA,
            found,
            "`live` repairs those of the last day, `trading-core backfill` the others",
        ));
    }
    checks
}

fn judge_days(days: &Days, keeps_days: bool) -> Vec<Check> {
    let mut checks = Vec::new();
    match days.problem() {
        Some(problem) => {
            let level = if days.has_today { Check::warn } else { Check::fail };
            let (found, remedy) = problem.split_once(": ").unwrap_or((&problem, ""));
            checks.push(level(AREA, found, remedy));
        }
        None if !days.may_make => {
            let found = format!(
                "the user may not make days: those up to {} are there, more are for {} to make",
                days.until, days.owner
            );
            checks.push(Check::ok(AREA, found));
        }
        None => {}
    }
    if keeps_days && !days.may_drop {
        let remedy = "set database.retention to \"none\", or GRANT the owner's role to the user";
        let found = "the user does not own tick_data, and cannot drop old days";
        checks.push(Check::warn(AREA, found, remedy));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn good() -> About {
        About {
            version: "15.1".to_owned(),
            number: 150_001,
            encoding: "UTF8".to_owned(),
            is_read_only: false,
            may_create: true,
            schema: Some("ticks".to_owned()),
            user: "recorder".to_owned(),
            connections_max: 97,
            connections_used: 3,
        }
    }

    fn server_with(change: impl FnOnce(&mut About)) -> Vec<Level> {
        let mut server = good();
        change(&mut server);
        judge_server(&server, 5).into_iter().map(|check| check.level).collect()
    }

    #[test]
    fn a_server_is_judged_by_what_a_recorder_needs_of_it() {
        assert_eq!(server_with(|_| {}), [Level::Ok; 2]);
        assert_eq!(server_with(|it| it.number = 139_999), [Level::Fail, Level::Ok]);
        assert_eq!(
            server_with(|it| it.encoding = "SQL_ASCII".to_owned()),
            [Level::Ok, Level::Fail, Level::Ok]
        );
        assert_eq!(server_with(|it| it.is_read_only = true), [Level::Ok, Level::Fail, Level::Ok]);
        assert_eq!(server_with(|it| it.connections_used = 93), [Level::Ok, Level::Fail]);
        assert_eq!(server_with(|it| it.connections_used = 92), [Level::Ok; 2]);
    }

    #[test]
    fn tables_are_judged_by_whether_live_could_go_on_with_them() {
        for (schema, may_create, level) in [
            (Schema::Missing, true, Level::Ok),
            (Schema::Missing, false, Level::Fail),
            (Schema::Behind(1), true, Level::Ok),
            (Schema::Behind(1), false, Level::Fail),
            (Schema::Current, true, Level::Ok),
            (Schema::Current, false, Level::Ok),
            (Schema::Newer, true, Level::Fail),
            (Schema::Broken(3), true, Level::Fail),
        ] {
            let server = About { may_create, ..good() };
            assert_eq!(judge_schema(schema, &server).level, level, "{schema:?}");
        }
    }

    #[test]
    fn rights_that_are_missing_are_named_with_the_user_and_the_schema() {
        let remedy = |server: About| judge_schema(Schema::Missing, &server).remedy.unwrap();
        let no_tables = About { may_create: false, ..good() };
        assert!(remedy(no_tables).contains("GRANT CREATE ON SCHEMA ticks TO recorder"));
        let no_schema = About { may_create: false, schema: None, ..good() };
        assert!(remedy(no_schema).contains("GRANT USAGE ON SCHEMA public TO recorder"));
    }
}
