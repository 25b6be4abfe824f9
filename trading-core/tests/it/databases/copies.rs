//! A copy of a database is not that database: what waits in the spool for the one is stored in the other only when its
//! user says so.

use sqlx::postgres::PgPoolOptions;
use trading_core::store::postgres::origin::{Origin, claim, database_name};
use trading_core::store::spool::Spool;

use super::{count, run, settings};
use crate::support::postgres::{TestDatabase, database, migrated};
use crate::support::process::program;
use crate::support::ticks::tick;

/// A database of this name, made from the other as a dump would make it.
async fn copied(from: &TestDatabase, name: &str) -> (sqlx::PgPool, String) {
    let original = from.socket().get_database().unwrap().to_owned();
    from.pool.close().await;
    let maker = database().await;
    run(&maker.pool, format!("CREATE DATABASE {name} TEMPLATE {original}")).await;
    let url = from.url.replace(&format!("/{original}?"), &format!("/{name}?"));
    (PgPoolOptions::new().max_connections(2).connect(&url).await.unwrap(), url)
}

#[tokio::test]
async fn what_waits_for_a_database_is_not_stored_in_a_copy_of_it_unless_it_is_adopted() {
    let original = migrated().await;
    let name = claim(&original.pool, &Origin::Exchanges).await.unwrap();
    assert_eq!(name.original, None);
    assert_eq!(
        claim(&original.pool, &Origin::Exchanges).await.unwrap(),
        name,
        "the same at every start"
    );
    let folder = tempfile::tempdir().unwrap();
    {
        let (spool, _) =
            Spool::open(folder.path().join("spool"), 1 << 20, name.own.clone()).await.unwrap();
        spool.append((1..=10).map(tick).collect()).await.1.unwrap();
    }
    let copy_name = format!("copy_of_{}", original.socket().get_database().unwrap());
    let (copy, url) = copied(&original, &copy_name).await;
    let settings = settings(&Vec::new(), &url, folder.path());
    let id = name.own.split(',').next().unwrap().to_owned();

    let (code, told, log) = program("spool drain", &settings);
    assert_eq!(code, Some(70), "{told}{log}");
    assert!(told.contains("0 ticks stored") && told.contains("10 ticks are left"), "{told}");
    assert!(log.contains("This database is a copy of another one"), "{log}");
    assert!(log.contains("the database that this one is a copy of"), "{log}");
    assert!(log.contains(&format!("spool drain --adopt '{id}'")), "{log}");
    let own = database_name(&copy).await.unwrap().unwrap();
    assert_ne!(own.own, name.own);
    assert_eq!(own.original.as_ref(), Some(&name.own));

    let (code, _, log) = program("spool drain --adopt no-such-id", &settings);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains(&id), "it names what there is: {log}");
    let (code, told, log) = program(&format!("spool drain --adopt {id}"), &settings);
    assert_eq!(code, Some(0), "{told}{log}");
    assert_eq!(count(&copy, "SELECT count(*) FROM tick_data").await, 10);
    copy.close().await;
}

#[tokio::test]
async fn a_spool_from_before_databases_had_places_is_still_its_database_s() {
    let database = migrated().await;
    // As the version before has claimed it.
    run(&database.pool, "INSERT INTO recorded_from (origin, detail) VALUES ('real exchanges', '')")
        .await;
    let before: String = sqlx::query_scalar("SELECT id::text || ', ' || origin FROM recorded_from")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    let claimed = claim(&database.pool, &Origin::Exchanges).await.unwrap();
    assert_eq!((claimed.own, claimed.original), (before.clone(), None));
    // A cluster that may not be asked for its identifier any more is no other one.
    run(&database.pool, "UPDATE recorded_from SET cluster = NULL").await;
    assert_eq!(database_name(&database.pool).await.unwrap().unwrap().own, before);
    // Restored in another cluster.
    run(&database.pool, "UPDATE recorded_from SET cluster = '1'").await;
    let restored = database_name(&database.pool).await.unwrap().unwrap();
    assert_eq!(restored.original, Some(before));
}
