//! What a new cluster is given: the database, and a password for TCP.

use sqlx::{ConnectOptions as _, Connection as _};

use super::home::Home;
use super::server::Endpoint;
use super::{DATABASE, EmbeddedError, USER, random_text};
use crate::store::password::verifier;

/// Makes the database, and the password for TCP, where they are missing.
pub(super) async fn furnish(home: &Home, endpoint: &Endpoint) -> Result<(), EmbeddedError> {
    let refused = |what: &'static str| move |source| EmbeddedError::Refused { what, source };
    let mut connection =
        endpoint.options("postgres").connect().await.map_err(refused("let us in"))?;
    let there: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(DATABASE)
            .fetch_one(&mut connection)
            .await
            .map_err(refused("list its databases"))?;
    if !there {
        sqlx::raw_sql("CREATE DATABASE trading_core")
            .execute(&mut connection)
            .await
            .map_err(refused("make the database trading_core"))?;
    }
    let pgpass = home.pgpass();
    if !pgpass.exists() {
        let password = random_text(32)?;
        let verifier = verifier(&password, random_text(16)?.as_bytes());
        // Of letters, digits and `$:+/=-` only. First the server, then the file: cut off in between, it is done again.
        let statement = format!("ALTER ROLE {USER} PASSWORD '{verifier}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
            .map_err(refused("set its password"))?;
        home.write(&pgpass, format!("*:*:*:{USER}:{password}\n").as_bytes())?;
    }
    connection.close().await.map_err(refused("say good-bye"))
}
