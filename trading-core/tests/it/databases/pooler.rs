//! PgBouncer: in session mode it is as if it were not there; in the other modes it is named before anything is lost.

use std::time::Duration;

use trading_core::store::postgres::pooler::{Pooler, pooler};
use trading_core::store::postgres::{Server, Session};

use super::{reached, run, settings};
use crate::support::exchanges::Exchanges;
use crate::support::pooler::Bouncer;
use crate::support::postgres::database;
use crate::support::process::{Program, program};
use crate::support::tools::pgbouncer;

const SESSION: Session =
    Session { name: "test", statement_max: Some(Duration::from_millis(4_321)) };

#[tokio::test]
async fn in_session_mode_everything_is_stored_and_the_settings_of_a_session_hold() {
    let Some(tool) = pgbouncer("a pooler in session mode") else { return };
    let database = database().await;
    run(&database.pool, "CREATE SCHEMA mkt").await;
    let bouncer = Bouncer::start(&tool, &database.socket(), "session", 20).await;
    let url = bouncer.url(&database.socket(), "?options=-c%20search_path%3Dmkt");

    let server = Server::from_url(&url).unwrap();
    assert_eq!(pooler(&server, SESSION).await.unwrap(), None);
    let mut connection = server.connect(SESSION).await.unwrap();
    for (name, value) in [("statement_timeout", "4321ms"), ("search_path", "mkt")] {
        let show = sqlx::AssertSqlSafe(format!("SHOW {name}"));
        let shown: String = sqlx::query_scalar(show).fetch_one(&mut connection).await.unwrap();
        assert_eq!(shown, value, "{name}");
    }

    let exchanges = Exchanges::start(40).await;
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&exchanges.settings, &url, folder.path());
    let mut recorder = Program::start(folder.path(), &["live", "--exchange", "binance"], &settings);
    reached(&database.pool, "SELECT count(*) FROM mkt.tick_data", 1_000).await;
    let status = recorder.stop().await;
    let log = recorder.log();
    assert!(status.success() && log.contains("spooled 0"), "{status}\n{log}");
    assert!(!log.contains("Store circuit OPEN"), "{log}");
    let (_, told, _) = program("doctor --exchange binance", &settings);
    assert!(told.contains("the tables are those of this version"), "{told}");
}

#[tokio::test]
async fn in_transaction_and_statement_mode_doctor_and_live_name_the_pooler_and_the_cure() {
    let Some(tool) = pgbouncer("a pooler in transaction mode") else { return };
    let database = database().await;
    for (mode, found) in [("transaction", Pooler::Transaction), ("statement", Pooler::Statement)] {
        for pool_size in [1, 20] {
            let bouncer = Bouncer::start(&tool, &database.socket(), mode, pool_size).await;
            let url = bouncer.url(&database.socket(), "");
            let server = Server::from_url(&url).unwrap();
            assert_eq!(pooler(&server, SESSION).await.unwrap(), Some(found), "{mode} {pool_size}");

            let folder = tempfile::tempdir().unwrap();
            let settings = settings(&Vec::new(), &url, folder.path());
            let (code, _, told) = program("live --simulate", &settings);
            assert_eq!(code, Some(1), "{told}");
            assert!(told.contains(mode) && told.contains("use its session mode"), "{told}");
            let (code, told, _) = program("doctor --exchange okx", &settings);
            assert_eq!(code, Some(2), "{told}");
            assert!(told.contains(&format!("a pooler in {mode} mode")), "{told}");
        }
    }
}
