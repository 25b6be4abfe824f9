//! The database: whether it is there, lets us in, and is as the recorder needs it. Nothing is started or made.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::Check;
use super::stored::{self, Load};
use crate::config::{DatabaseUrl, Settings};
use crate::domain::{DATABASE, Timestamp, Witness};
use crate::store::embedded::{Options, command};
use crate::store::postgres::{Schema, is_on_this_machine, schema};

const AREA: &str = "database";
/// How long a server may take to let us in.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// The oldest server that the tables are made for, as it numbers itself.
const VERSION_LEAST: i32 = 140_000;

/// What was found.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) checks: Vec<Check>,
    /// What the newest hour of recording tells.
    pub(super) load: Option<Load>,
    /// Its folder, where it lies on this machine.
    pub(super) on_this_machine: Option<PathBuf>,
    /// What its clock says.
    pub(super) clock: Option<Witness>,
}

impl Database {
    /// It did not answer in time.
    pub(super) fn silent(within: Duration) -> Self {
        let found = format!("no answer within {} s", within.as_secs());
        let check = Check::fail(AREA, found, "look at the server's log");
        Self { checks: vec![check], load: None, on_this_machine: None, clock: None }
    }
}

/// Looks at the database of the settings.
pub(super) async fn examine(settings: &Settings, pg_bin: Option<PathBuf>) -> Database {
    match &settings.database.url {
        DatabaseUrl::Embedded => embedded(settings, pg_bin).await,
        url @ DatabaseUrl::Server(text) => {
            let mut found =
                Database { checks: Vec::new(), load: None, on_this_machine: None, clock: None };
            match text.parse() {
                Ok(options) => server(&mut found, settings, options, &url.to_string()).await,
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

async fn embedded(settings: &Settings, pg_bin: Option<PathBuf>) -> Database {
    let options = Options::new(&settings.database, pg_bin);
    let mut found = Database { checks: Vec::new(), load: None, on_this_machine: None, clock: None };
    let status = match command::status(&options).await {
        Ok(status) => status,
        Err(error) => {
            found.checks.push(Check::fail(AREA, error.to_string(), "set database.data_dir"));
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
            let found_text = format!("embedded, PostgreSQL {version}; `live` makes it in {folder}");
            found.checks.push(Check::ok(AREA, found_text));
        }
        Err(error) => {
            let remedy = "install PostgreSQL's server, or set PG_BIN to the folder of its programs";
            found.checks.push(Check::fail(AREA, error.to_string(), remedy));
        }
    }
    match status.server {
        Some(running) => match running.url.parse() {
            Ok(options) => server(&mut found, settings, options, &running.url).await,
            Err(error) => {
                found.checks.push(Check::fail(AREA, error.to_string(), "`trading-core db status`"));
            }
        },
        None if made => {
            found.checks.push(Check::ok(
                AREA,
                "stopped, so its tables are not looked at; `live` starts it",
            ));
        }
        None => {}
    }
    found
}

async fn server(found: &mut Database, settings: &Settings, options: PgConnectOptions, shown: &str) {
    let is_here = settings.database.url == DatabaseUrl::Embedded || is_on_this_machine(&options);
    let options = options.application_name("trading-core doctor").disable_statement_logging();
    let connected = tokio::time::timeout(CONNECT_MAX, options.connect()).await;
    let mut connection = match connected {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            let remedy = "start it, or correct database.url (a password belongs in DATABASE_URL)";
            found.checks.push(Check::fail(
                AREA,
                format!("{shown} cannot be reached: {error}"),
                remedy,
            ));
            return;
        }
        Err(_elapsed) => {
            let text = format!("{shown} does not answer within {} s", CONNECT_MAX.as_secs());
            found.checks.push(Check::fail(AREA, text, "start it, or correct database.url"));
            return;
        }
    };
    found.clock = clock(&mut connection, is_here).await.ok();
    match look(&mut connection, settings).await {
        Ok((checks, load)) => {
            found.checks.push(Check::ok(AREA, format!("reached at {shown}")));
            found.checks.extend(checks);
            found.load = load;
        }
        Err(error) => {
            let text = format!("{shown} does not answer what it is asked: {error}");
            found.checks.push(Check::fail(AREA, text, "look at the server's log"));
        }
    }
    // What was asked is answered; how the server takes the farewell changes nothing.
    drop(connection.close().await);
}

/// What its clock says, half of the way taken off.
async fn clock(connection: &mut PgConnection, is_here: bool) -> Result<Witness, sqlx::Error> {
    let before = Timestamp::now();
    let time: DateTime<Utc> =
        sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(connection).await?;
    let ours = before.as_micros().midpoint(Timestamp::now().as_micros());
    let ahead = time.timestamp_micros().saturating_sub(ours);
    Ok(Witness { name: DATABASE.to_owned(), ahead, is_here })
}

/// What the server says of itself.
#[derive(Debug, sqlx::FromRow)]
struct Server {
    version: String,
    number: i32,
    encoding: String,
    is_read_only: bool,
    may_create: bool,
    connections_max: i32,
    connections_used: i64,
}

/// What it says of the tables.
#[derive(Debug, sqlx::FromRow)]
struct Tables {
    may_write: bool,
    may_partition: bool,
    origin: Option<String>,
    open_gaps: i64,
}

async fn look(
    connection: &mut PgConnection,
    settings: &Settings,
) -> Result<(Vec<Check>, Option<Load>), sqlx::Error> {
    let server: Server = sqlx::query_as(
        "SELECT current_setting('server_version') AS version, \
             current_setting('server_version_num')::integer AS number, \
             current_setting('server_encoding') AS encoding, \
             current_setting('transaction_read_only')::boolean OR pg_is_in_recovery() AS is_read_only, \
             coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create, \
             current_setting('max_connections')::integer \
                 - current_setting('superuser_reserved_connections')::integer AS connections_max, \
             (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()) \
                 AS connections_used",
    )
    .fetch_one(&mut *connection)
    .await?;
    let mut checks = judge_server(&server, settings.database.max_connections.get());
    let schema = schema(&mut *connection).await?;
    checks.push(judge_schema(schema, server.may_create));
    if !matches!(schema, Schema::Current) {
        return Ok((checks, None));
    }
    let tables: Tables = sqlx::query_as(
        "SELECT has_table_privilege('tick_data', 'SELECT') AND has_table_privilege('tick_data', 'INSERT') AS may_write, \
             (SELECT pg_has_role(relowner, 'MEMBER') FROM pg_class WHERE oid = 'tick_data'::regclass) AS may_partition, \
             (SELECT origin FROM recorded_from) AS origin, \
             (SELECT count(*) FROM open_gaps) AS open_gaps",
    )
    .fetch_one(&mut *connection)
    .await?;
    checks.extend(judge_tables(&tables));
    checks.extend(super::locks::check(&mut *connection).await?);
    let load = stored::load(connection).await?;
    Ok((checks, load))
}

fn judge_server(server: &Server, needed: u32) -> Vec<Check> {
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

fn judge_schema(schema: Schema, may_create: bool) -> Check {
    let newer = "use the newer trading-core, or another database";
    let rights = "GRANT CREATE ON SCHEMA public TO the user, or use the database's owner";
    match schema {
        Schema::Missing | Schema::Behind(_) if !may_create => {
            Check::fail(AREA, "the user may not make the tables", rights)
        }
        Schema::Missing => Check::ok(AREA, "there are no tables yet; `live` makes them"),
        Schema::Behind(pending) => {
            Check::ok(AREA, format!("{pending} migrations are to be run; `live` runs them"))
        }
        Schema::Current if !may_create => {
            Check::fail(AREA, "the user may not make the partitions of the days", rights)
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

fn judge_tables(tables: &Tables) -> Vec<Check> {
    let mut checks = Vec::new();
    if !tables.may_write {
        let remedy = "GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO the user";
        checks.push(Check::fail(AREA, "the user may not write ticks", remedy));
    }
    if !tables.may_partition {
        let remedy = "use the user who made the tables, or GRANT that role to this one";
        checks.push(Check::fail(
            AREA,
            "the user does not own tick_data, and cannot add a day to it",
            remedy,
        ));
    }
    if let Some(origin) = tables.origin.as_deref().filter(|origin| *origin != "real exchanges") {
        let remedy = "use another database (--database-url, database.data_dir); `live --simulate` goes on with this one";
        checks.push(Check::fail(
            AREA,
            format!("it holds trades of {origin}: real ones are never mixed with them"),
            remedy,
        ));
    }
    if tables.open_gaps > 0 {
        let found = format!("{} gaps are open", tables.open_gaps);
        checks.push(Check::warn(
            AREA,
            found,
            "`live` repairs those of the last day, `trading-core backfill` the others",
        ));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn server_with(change: impl FnOnce(&mut Server)) -> Vec<Level> {
        let mut server = Server {
            version: "15.1".to_owned(),
            number: 150_001,
            encoding: "UTF8".to_owned(),
            is_read_only: false,
            may_create: true,
            connections_max: 97,
            connections_used: 3,
        };
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
            (Schema::Current, false, Level::Fail),
            (Schema::Newer, true, Level::Fail),
            (Schema::Broken(3), true, Level::Fail),
        ] {
            assert_eq!(judge_schema(schema, may_create).level, level, "{schema:?}");
        }
    }
}
