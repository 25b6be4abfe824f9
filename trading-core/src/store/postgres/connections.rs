//! The writers' own connections.
//!
//! Not a pool: there are as many as writes under way at once, each is used again only after it did its work well, and
//! one that failed or fell silent is dropped whole, socket and all, whatever state the server left it in.

use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;

use super::server::{Server, Session};
use crate::domain::lock;

#[derive(Debug)]
pub(super) struct Connections {
    server: Server,
    session: Session,
    idle: Mutex<Vec<PgConnection>>,
}

impl Connections {
    pub(super) fn new(server: Server, statement_max: Duration) -> Self {
        let session = Session { name: "trading-core writer", statement_max: Some(statement_max) };
        Self { server, session, idle: Mutex::default() }
    }

    pub(super) async fn take(&self) -> Result<PgConnection, sqlx::Error> {
        let idle = lock(&self.idle).pop();
        match idle {
            Some(connection) => Ok(connection),
            None => self.server.connect(self.session).await,
        }
    }

    pub(super) fn give_back(&self, connection: PgConnection) {
        lock(&self.idle).push(connection);
    }

    /// Forgets the idle connections: the next writes connect anew.
    pub(super) fn clear(&self) {
        lock(&self.idle).clear();
    }
}

/// Whether these options connect through a Unix socket, where no acknowledgement is waited for.
#[must_use]
pub(super) fn is_local_socket(options: &PgConnectOptions) -> bool {
    options.get_socket().is_some() || options.get_host().starts_with('/')
}

/// Whether these options lead to a server on this machine, which most likely reads its clock.
#[must_use]
pub fn is_on_this_machine(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    let is_loopback = host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    is_local_socket(options) || host == "localhost" || is_loopback
}
