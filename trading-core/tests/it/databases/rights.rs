//! A schema that somebody else owns: plain rights are enough where it is current, and what is not enough is named.

use std::time::Duration;

use sqlx::Connection as _;
use trading_core::store::postgres::maintenance::MaintenanceError;
use trading_core::store::postgres::migrate::{migrate, migrate_within};

use super::{reached, run, settings};
use crate::support::exchanges::Exchanges;
use crate::support::postgres::{TestDatabase, migrated};
use crate::support::process::{Program, Settings, program};

/// A database whose schema is current, with days ahead, and a role of these rights on it; with its URL.
async fn owned(rights: &str) -> (TestDatabase, String, String) {
    let database = migrated().await;
    let role = format!("plain_{}", database.socket().get_database().unwrap());
    run(
        &database.pool,
        format!(
            "SELECT ensure_tick_partition((now() AT TIME ZONE 'UTC')::date + n) FROM generate_series(0, 3) AS n; \
             REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO PUBLIC; \
             REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC; \
             CREATE ROLE {role} LOGIN; GRANT {rights} ON ALL TABLES IN SCHEMA public TO {role}",
            database.socket().get_database().unwrap()
        ),
    )
    .await;
    let url = database.url.replace("trading_core@", &format!("{role}@"));
    (database, role, url)
}

async fn drop_role(database: &TestDatabase, role: &str) {
    run(&database.pool, format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

/// Of the doctor, what it says of the database at this level.
fn doctor(settings: &Settings, level: &str) -> Vec<String> {
    let (_, told, _) = program("doctor --exchange okx --json", settings);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let of_level = told["checks"].as_array().unwrap().iter().filter(|it| it["level"] == level);
    let database = of_level.filter(|it| it["area"] == "database");
    database.map(|it| format!("{}: {}", it["found"], it["remedy"])).collect()
}

#[tokio::test]
async fn plain_rights_are_enough_for_every_command_on_a_current_schema() {
    let (database, role, url) = owned("SELECT, INSERT, UPDATE, DELETE").await;
    let exchanges = Exchanges::start(40).await;
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&exchanges.settings, &url, folder.path());
    assert_eq!(doctor(&settings, "fail"), Vec::<String>::new());
    assert!(doctor(&settings, "ok").iter().any(|line| line.contains("may not make days")));

    let arguments = ["live", "--exchange", "binance", "--paper-trading"];
    let mut recorder = Program::start(folder.path(), &arguments, &settings);
    reached(&database.pool, "SELECT count(*) FROM tick_data", 500).await;
    reached(&database.pool, "SELECT count(*) FROM feed_sessions", 1).await;
    let status = recorder.stop().await;
    assert!(status.success(), "{}", recorder.log());
    assert!(!recorder.log().contains("WARN The days"), "{}", recorder.log());
    assert!(!recorder.log().contains("denied"), "{}", recorder.log());
    for (arguments, expected) in [
        ("verify --exchange binance", 0),
        ("replay --paper-trading", 0),
        ("spool drain", 0),
        ("backfill --exchange binance", 0),
        ("db migrate", 0),
    ] {
        let (code, told, log) = program(arguments, &settings);
        assert_eq!(code, Some(expected), "{arguments:?}: {told}{log}");
    }
    drop_role(&database, &role).await;
}

#[tokio::test]
async fn a_day_that_is_missing_and_a_right_that_is_missing_are_named_with_the_cure() {
    let (database, role, url) = owned("SELECT, INSERT, UPDATE, DELETE").await;
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&Vec::new(), &url, folder.path());
    let days = "DO $$ DECLARE day text; BEGIN FOR day IN SELECT inhrelid::regclass FROM pg_inherits \
         WHERE inhparent = 'tick_data'::regclass ORDER BY 1 OFFSET {} LOOP EXECUTE 'DROP TABLE ' || day; END LOOP; END $$";
    run(&database.pool, days.replace("{}", "1")).await;
    let warned = doctor(&settings, "warn");
    assert!(
        warned.iter().any(|it| it.contains("end with") && it.contains("ensure_tick_partition")),
        "{warned:?}"
    );
    run(&database.pool, days.replace("{}", "0")).await;
    let failed = doctor(&settings, "fail");
    assert!(
        failed.iter().any(|it| it.contains("today's partition of tick_data is missing")),
        "{failed:?}"
    );
    let mut recorder = Program::start(folder.path(), &["live", "--simulate"], &settings);
    let line = recorder.logged("today's partition of tick_data is missing").await;
    assert!(line.contains("let trading_core run SELECT ensure_tick_partition"), "{line}");
    recorder.logged("Feed connected").await;
    recorder.stop().await;
    drop_role(&database, &role).await;

    let (database, role, url) = owned("SELECT").await;
    settings.push(("DATABASE_URL".to_owned(), url));
    let failed = doctor(&settings, "fail");
    assert!(
        failed.iter().any(|it| it.contains("GRANT SELECT, INSERT, UPDATE, DELETE")),
        "{failed:?}"
    );
    let (code, _, told) = program("live --simulate", &settings);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("GRANT SELECT, INSERT, UPDATE, DELETE"), "{told}");
    drop_role(&database, &role).await;
}

#[tokio::test]
async fn a_user_without_rights_is_told_by_every_command_which_grant_is_missing() {
    // A right that helps with nothing.
    let (database, role, url) = owned("REFERENCES").await;
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&Vec::new(), &url, folder.path());
    for arguments in [
        "doctor --exchange okx",
        "verify",
        "replay --paper-trading",
        "backfill --exchange okx",
        "live --simulate",
        "db migrate",
    ] {
        let (code, told, log) = program(arguments, &settings);
        assert_ne!(code, Some(0), "{arguments:?}: {told}{log}");
        let all = format!("{told}{log}");
        assert!(all.contains("permission denied for table"), "{arguments:?}: {all}");
        assert!(all.contains("GRANT SELECT"), "{arguments:?}: {all}");
        // Lines of PostgreSQL's own source read like those of a user's file.
        assert!(!all.contains(" at line "), "{arguments:?}: {all}");
    }
    let failed = doctor(&settings, "fail");
    let grant =
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}");
    assert!(failed.iter().any(|it| it.contains(&grant)), "{failed:?}");
    drop_role(&database, &role).await;
}

#[tokio::test]
async fn what_only_reads_works_with_a_role_that_may_only_read() {
    let (database, role, url) = owned("SELECT").await;
    run(
        &database.pool,
        format!("ALTER ROLE {role} SET default_transaction_read_only = on; INSERT INTO tick_data VALUES \
             (now() - interval '1 minute', now(), 'binance', 'BTCUSDT', '1', 'buy', 1, 1, 'live')"),
    )
    .await;
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&Vec::new(), &url, folder.path());
    // No connection was noted that could have brought the row.
    for (arguments, code_of_it) in [("verify --exchange binance", 2), ("replay --paper-trading", 0)]
    {
        let (code, told, log) = program(arguments, &settings);
        assert_eq!(code, Some(code_of_it), "{arguments:?}: {told}{log}");
    }
    run(&database.pool, "DELETE FROM _sqlx_migrations WHERE version = 6").await;
    let (code, _, told) = program("replay --paper-trading", &settings);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("1 migrations behind, and the server is read-only"), "{told}");
    run(&database.pool, format!("ALTER ROLE {role} RESET default_transaction_read_only")).await;
    let (code, _, told) = program("replay --paper-trading", &settings);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("may not change them: run `trading-core db migrate`"), "{told}");
    drop_role(&database, &role).await;
}

#[tokio::test]
async fn a_newer_schema_is_told_in_the_same_words_by_live_and_doctor() {
    let (database, role, url) = owned("SELECT").await;
    run(&database.pool, "UPDATE _sqlx_migrations SET version = 9999 WHERE version = 1").await;
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&Vec::new(), &url, folder.path());
    let (code, _, told) = program("live --simulate", &settings);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("a newer trading-core has changed the tables"), "{told}");
    let failed = doctor(&settings, "fail");
    assert!(
        failed.iter().any(|it| it.contains("a newer trading-core has changed the tables")),
        "{failed:?}"
    );
    drop_role(&database, &role).await;
}

#[tokio::test]
async fn the_migration_lock_is_not_asked_for_when_nothing_is_to_migrate_else_its_holder_is_named() {
    let database = migrated().await;
    let name = database.socket().get_database().unwrap().to_owned();
    let holder = database.socket().application_name("forgotten tool");
    let mut holder = sqlx::PgConnection::connect_with(&holder).await.unwrap();
    let pid: i32 =
        sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut holder).await.unwrap();
    // As sqlx takes it, of any version.
    sqlx::migrate::Migrate::lock(&mut holder).await.unwrap();
    migrate(&database.pool).await.unwrap();

    run(&database.pool, "DELETE FROM _sqlx_migrations WHERE version = 6; ALTER TABLE recorded_from DROP COLUMN cluster, \
         DROP COLUMN database_oid, DROP COLUMN copied_from").await;
    let waited = Duration::from_millis(10);
    let error = migrate_within(&database.pool, waited).await.unwrap_err();
    let told = error.to_string();
    assert!(matches!(error, MaintenanceError::Locked { .. }), "{told}");
    for part in [&format!("pid {pid}"), "\"forgotten tool\"", "since ", "pg_terminate_backend"] {
        assert!(told.contains(part), "{told}");
    }
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&Vec::new(), &database.url, folder.path());
    let failed = doctor(&settings, "fail");
    assert!(failed.iter().any(|it| it.contains("forgotten tool")), "{failed:?}");
    let mut recorder = Program::start(folder.path(), &["live", "--simulate"], &settings);
    let line = recorder.logged("another session holds the migration lock").await;
    assert!(line.contains(&format!("pid {pid}")), "{line}");
    // Let go of, it is taken.
    holder.close().await.unwrap();
    reached(&database.pool, "SELECT count(*) FROM tick_data", 100).await;
    assert!(recorder.stop().await.success(), "{name}: {}", recorder.log());
}
