//! What the environment says of other servers does not reach the embedded database; what a URL says is understood, or
//! refused by its name.

use sqlx::postgres::PgPool;
use trading_core::store::embedded::command;

use super::reached;
use crate::support::postgres::{Scratch, connect};
use crate::support::process::{Program, program, setting};

#[tokio::test]
async fn variables_of_another_server_do_not_reach_the_embedded_database() {
    let scratch = Scratch::simulated();
    let folder = tempfile::tempdir().unwrap();
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let settings = vec![
        setting("DATABASE__DATA_DIR", scratch.path().display()),
        setting("BATCH__MAX_TIME", "200ms"),
        variable("PGSSLMODE", "require"),
        variable("PGSSLROOTCERT", "/nonexistent"),
        variable("PGSSLCERT", "/nonexistent"),
        variable("PGSSLKEY", "/nonexistent"),
        variable(
            "PGOPTIONS",
            "-c default_transaction_read_only=on -c search_path=nowhere -c no.such=1 -d 5",
        ),
        variable("PGHOST", "db.invalid"),
        variable("PGHOSTADDR", "192.0.2.1"),
        variable("PGPORT", "1"),
        variable("PGUSER", "nobody"),
        variable("PGDATABASE", "none"),
        variable("PGPASSWORD", "wrong"),
        variable("PGPASSFILE", "/nonexistent"),
        variable("PGSERVICE", "none"),
        variable("PGSERVICEFILE", "/nonexistent"),
        variable("PGAPPNAME", "somebody"),
        variable("PGCHANNELBINDING", "require"),
        variable("PGTARGETSESSIONATTRS", "standby"),
        variable("PGCONNECT_TIMEOUT", "1"),
    ];
    let arguments = ["live", "--simulate", "--exchange", "okx"];
    let mut recorder = Program::start(folder.path(), &arguments, &settings);
    recorder.logged("Look at it").await;
    let pool: PgPool = connect(&recorder.cluster_url().await, 2).await;
    reached(&pool, "SELECT count(*) FROM tick_data", 100).await;
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT application_name FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> '' ORDER BY 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(names, ["trading-core", "trading-core writer"]);
    pool.close().await;
    let (_, told, _) = program("doctor --simulated --exchange okx", &settings);
    assert!(told.contains("the tables are those of this version"), "{told}");
    assert!(recorder.stop().await.success(), "{}", recorder.log());
    let status = command::status(&scratch.options()).await.unwrap();
    assert_eq!(status.server, None, "it stopped with its recorder");
}

#[tokio::test]
async fn settings_of_the_environment_reach_another_server_without_its_start() {
    let database = crate::support::postgres::database().await;
    super::run(&database.pool, "CREATE SCHEMA elsewhere").await;
    let settings = vec![
        ("DATABASE_URL".to_owned(), database.url.clone()),
        ("PGOPTIONS".to_owned(), "-c search_path=elsewhere".to_owned()),
    ];
    let (code, _, told) = program("db migrate", &settings);
    assert_eq!(code, Some(0), "{told}");
    let there = "SELECT count(*) FROM pg_class WHERE oid = to_regclass('elsewhere.tick_data')";
    assert_eq!(super::count(&database.pool, there).await, 1);
}

#[test]
fn an_option_of_the_url_that_cannot_be_kept_is_named_at_the_check() {
    let check = |url: &str| {
        let settings = vec![("DATABASE_URL".to_owned(), url.to_owned())];
        let (code, _, told) = program("config check", &settings);
        assert!(!told.contains("hunter2"), "{told}");
        (code, told)
    };
    for (options, named) in [
        ("sslmode=bogus", "sslmode is one of disable, allow"),
        (
            "sslmode=require&channel_binding=require",
            "channel_binding=require with sslmode=verify-full",
        ),
        ("sslpassword=hunter2", "no option \"sslpassword\""),
        ("gssencmode=require", "gssencmode"),
    ] {
        let (code, told) = check(&format!("postgres://me:hunter2@host/db?{options}"));
        assert_eq!(code, Some(64), "{told}");
        assert!(told.contains(named), "{told}");
    }
    let (code, told) = check("postgres://me:hunter2@one:1,two:2/db");
    assert_eq!(code, Some(64), "{told}");
    assert!(told.contains("one host"), "{told}");
    let good = "sslmode=verify-full&channel_binding=require&connect_timeout=5&target_session_attrs=read-write&keepalives=1";
    assert_eq!(check(&format!("postgres://me:hunter2@host/db?{good}")).0, Some(0));
}
