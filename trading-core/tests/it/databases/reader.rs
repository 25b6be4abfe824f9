//! A role for programs that only look: it reads all that there is and all that comes, and changes nothing.

use std::os::unix::fs::PermissionsExt as _;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor as _};
use trading_core::store::embedded::command;
use trading_core::store::postgres::migrate::migrate;

use super::{run, settings};
use crate::support::postgres::{Scratch, TestDatabase, database};
use crate::support::process::{Settings, program, program_with, setting};

/// What follows a word in what the program printed.
fn said<'a>(told: &'a str, what: &str) -> &'a str {
    let mut lines = told.lines().filter_map(|line| line.strip_prefix(what));
    lines.next().unwrap_or_else(|| panic!("no {what} in {told}")).trim()
}

/// Over TCP, where the password is asked for.
async fn session(options: PgConnectOptions) -> Result<PgPool, sqlx::Error> {
    PgPoolOptions::new().max_connections(1).connect_with(options).await
}

async fn reading(database: &TestDatabase, name: &str, password: &str) -> PgPool {
    session(database.tcp().username(name).password(password)).await.unwrap()
}

/// The code with which the server refuses a statement.
async fn refused(pool: &PgPool, sql: &str) -> String {
    let error = pool.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap_err();
    error.as_database_error().unwrap().code().unwrap().into_owned()
}

async fn there(name: &str) -> (TestDatabase, String, Settings, tempfile::TempDir) {
    let database = database().await;
    let name = format!("{name}{}", database.socket().get_database().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&Vec::new(), &database.url, folder.path());
    (database, name, settings, folder)
}

async fn drop_role(database: &TestDatabase, name: &str) {
    let quoted = format!("\"{}\"", name.replace('"', "\"\""));
    run(&database.pool, format!("DROP OWNED BY {quoted}; DROP ROLE {quoted}")).await;
}

#[tokio::test]
async fn a_reader_of_any_name_reads_what_is_there_and_what_comes_and_changes_nothing() {
    let (database, name, settings, folder) =
        there("o'Neill\"; DROP TABLE tick_data; -- :\\ %I ").await;
    let (code, told, log) = program_with(&["db", "reader", &name, "-vvv"], &settings);
    assert_eq!(code, Some(0), "{told}{log}");
    let password = said(&told, "password").to_owned();
    assert!(password.len() == 32 && !log.contains(&password) && !log.contains("SCRAM"), "{log}");
    let kept: String = sqlx::query_scalar("SELECT rolpassword FROM pg_authid WHERE rolname = $1")
        .bind(&name)
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert!(kept.starts_with("SCRAM-SHA-256$"), "{kept}");
    let by_url: PgConnectOptions = said(&told, "url").parse().unwrap();
    assert_eq!(by_url.get_username(), name);
    session(by_url).await.unwrap().close().await;

    // Days, tables and views of later.
    run(
        &database.pool,
        "SELECT ensure_tick_partition('2031-01-02'); CREATE TABLE later (a int); CREATE VIEW view_of_later AS TABLE later; \
         INSERT INTO tick_data VALUES ('2031-01-02 12:00Z', now(), 'binance', 'BTCUSDT', '1', 'buy', 1, 1, 'live')",
    )
    .await;
    let reader = reading(&database, &name, &password).await;
    let relations: Vec<String> = sqlx::query_scalar(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace \
             AND relkind IN ('r', 'p', 'v')",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    assert!(relations.iter().any(|it| it == "tick_data_20310102"), "{relations:?}");
    for relation in relations {
        let sql = format!("SELECT count(*) FROM {relation}");
        let number: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&reader).await.unwrap();
        assert!(number >= i64::from(relation.starts_with("tick_data")), "{relation}: {number}");
    }
    reader.execute("SELECT * FROM tick_partitions()").await.unwrap();

    let changes = [
        "INSERT INTO later VALUES (1)",
        "INSERT INTO tick_data SELECT * FROM tick_data",
        "DELETE FROM tick_data",
        "UPDATE tick_data SET price = 2",
        "TRUNCATE tick_data_20310102",
        "DROP VIEW candles_1m",
        "CREATE TABLE mine (a int)",
        "SELECT ensure_tick_partition('2031-01-03')",
    ];
    for sql in changes {
        assert_eq!(refused(&reader, sql).await, "25006", "{sql}");
    }
    // Not even where it asks for it.
    reader.execute("SET default_transaction_read_only = off").await.unwrap();
    for sql in changes {
        assert_eq!(refused(&reader, sql).await, "42501", "{sql}");
    }
    let limit: String =
        sqlx::query_scalar("SHOW statement_timeout").fetch_one(&reader).await.unwrap();
    assert_eq!(limit, "5min");
    let jit: String = sqlx::query_scalar("SHOW jit").fetch_one(&reader).await.unwrap();
    assert_eq!(jit, "off");
    reader
        .execute("SELECT FROM candles('binance', 'BTCUSDT', '2031-01-02Z', '2031-01-03Z')")
        .await
        .unwrap();
    // What only reads works for it. No connection was noted that could have brought the row.
    let own = super::settings(&Vec::new(), said(&told, "url"), folder.path());
    for (arguments, expected) in [("verify", 2), ("replay --paper-trading", 0)] {
        let (code, told, log) = program(arguments, &own);
        assert_eq!(code, Some(expected), "{arguments:?}: {told}{log}");
    }
    reader.close().await;
    drop_role(&database, &name).await;
}

#[tokio::test]
async fn a_second_call_keeps_the_password_and_grants_what_is_missing() {
    let (database, name, settings, folder) = there("twice_").await;
    let (_, first, _) = program(&format!("db reader {name}"), &settings);
    let password = said(&first, "password").to_owned();
    run(
        &database.pool,
        format!("REVOKE SELECT ON tick_data FROM {name}; ALTER ROLE {name} IN DATABASE {} SET statement_timeout = '7min'",
            database.socket().get_database().unwrap()),
    )
    .await;
    let file = folder.path().join("pgpass");
    let path = file.to_str().unwrap();
    let (code, again, log) =
        program(&format!("db reader {name} --password-file {path}"), &settings);
    assert_eq!(code, Some(0), "{again}{log}");
    assert!(said(&again, "password").contains("--new-password") && !file.exists(), "{again}");
    let reader = reading(&database, &name, &password).await;
    reader.execute("SELECT FROM tick_data").await.unwrap();
    let limit: String =
        sqlx::query_scalar("SHOW statement_timeout").fetch_one(&reader).await.unwrap();
    assert_eq!(limit, "7min", "what its owner set is left");
    reader.close().await;

    let new = format!("db reader {name} --new-password --password-file {path}");
    let (code, told, log) = program(&new, &settings);
    assert_eq!(code, Some(0), "{told}{log}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let kept = std::fs::read_to_string(&file).unwrap();
    let new_password = kept.trim().strip_prefix(&format!("*:*:*:{name}:")).unwrap().to_owned();
    assert!(!told.contains(&new_password), "{told}");
    reading(&database, &name, &new_password).await.close().await;
    session(database.tcp().username(&name).password(&password)).await.unwrap_err();
    // A file that is there is nobody's to overwrite, and then nothing changes.
    let (code, _, log) = program(&new, &settings);
    assert!(code == Some(1) && log.contains("nothing was changed"), "{log}");
    reading(&database, &name, &new_password).await.close().await;
    drop_role(&database, &name).await;
}

#[tokio::test]
async fn a_role_that_does_other_work_and_a_user_who_may_not_make_one_are_refused() {
    let (database, name, settings, folder) = there("writes_").await;
    migrate(&database.pool).await.unwrap();
    let group = format!("group_of_{name}");
    run(
        &database.pool,
        format!(
            "CREATE ROLE {group}; GRANT INSERT ON tick_data TO {group}; \
             CREATE ROLE {name} LOGIN NOINHERIT IN ROLE {group}"
        ),
    )
    .await;
    for role in [&*name, &*group, "trading_core"] {
        let (code, told, log) = program(&format!("db reader {role}"), &settings);
        assert_eq!((code, &*told), (Some(1), ""), "{log}");
        assert!(log.contains("may do more than read"), "{log}");
    }
    let changed: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_db_role_setting JOIN pg_database ON pg_database.oid = setdatabase \
         WHERE datname = current_database()",
    )
    .fetch_one(&database.pool)
    .await
    .unwrap();
    assert_eq!(changed, 0);

    let plain = database.url.replace("trading_core@", &format!("{name}@"));
    run(&database.pool, format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")).await;
    let plain = super::settings(&Vec::new(), &plain, folder.path());
    let (code, _, log) = program("db reader nobody_yet", &plain);
    assert!(code == Some(1) && log.contains("run this as a user with CREATEROLE"), "{log}");
    run(&database.pool, format!("ALTER ROLE {name} CREATEROLE")).await;
    let (code, _, log) = program("db reader nobody_yet", &plain);
    assert!(code == Some(1) && log.contains("GRANT trading_core TO"), "{log}");
    for wrong in ["", "a\nb", &"x".repeat(64)] {
        let (code, _, log) = program_with(&["db", "reader", wrong], &settings);
        assert!(code == Some(1) && log.contains("1 to 63 bytes"), "{log}");
    }
    drop_role(&database, &name).await;
    drop_role(&database, &group).await;
}

#[tokio::test]
async fn the_embedded_database_gets_a_reader_who_is_let_in_over_tcp_with_the_password() {
    let scratch = Scratch::new("");
    let mut settings = vec![setting("DATABASE__DATA_DIR", scratch.path().display())];
    let (code, told, log) = program("db reader grafana", &settings);
    assert_eq!(code, Some(0), "{told}{log}");
    assert!(told.contains("database.tcp = true"), "{told}");
    let password = said(&told, "password").to_owned();
    settings.push(setting("DATABASE__TCP", "true"));
    let (code, _, log) = program("db start", &settings);
    assert_eq!(code, Some(0), "{log}");
    let (code, told, log) = program("db reader grafana", &settings);
    assert_eq!(code, Some(0), "{log}");
    assert!(told.contains("127.0.0.1"), "{told}");
    let port = command::status(&scratch.options()).await.unwrap().server.unwrap().port;
    let tcp = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port);
    let tcp = tcp.database("trading_core").username("grafana");
    let reader = session(tcp.clone().password(&password)).await.unwrap();
    reader.execute("SELECT FROM candles_1m").await.unwrap();
    reader.close().await;
    session(tcp.password("wrong")).await.unwrap_err();
    let (code, _, log) = program("db stop", &settings);
    assert_eq!(code, Some(0), "{log}");
}
