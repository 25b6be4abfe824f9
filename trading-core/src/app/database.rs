//! The database of the settings, reached in one way by every command.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::PgPool;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::recorded::must_be_meant;
use super::start_error::StartError;
use crate::config::{DatabaseUrl, Settings};
use crate::store::embedded::{Cluster, Options, command};
use crate::store::postgres::migrate::migrate;
use crate::store::postgres::pooler::pooler;
use crate::store::postgres::{PostgresStore, Server, Session};
use crate::store::with_causes;

/// The server's time for one statement of a recorder beside its writes; far longer than any of them takes on a healthy server.
const STATEMENT_MAX: Duration = Duration::from_secs(120);

/// The sessions of a recorder beside its writes.
const RECORDER: Session = Session { name: "trading-core", statement_max: Some(STATEMENT_MAX) };

/// How often it is checked that the embedded server runs: a crashed one is brought back.
const GUARD_INTERVAL: Duration = Duration::from_secs(2);

/// The embedded cluster, and a task that brings a crashed server back, to the very end: what was accepted is still
/// stored then.
#[derive(Debug)]
struct Guarded {
    cluster: Arc<Cluster>,
    guard: JoinSet<()>,
}

impl Guarded {
    fn new(cluster: Cluster) -> Self {
        let (cluster, mut guard) = (Arc::new(cluster), JoinSet::new());
        guard.spawn(bring_back(Arc::clone(&cluster)));
        Self { cluster, guard }
    }

    async fn stop(mut self) {
        // A start that is given up midway leaves at most a running server, which is stopped next.
        self.guard.shutdown().await;
        match Arc::into_inner(self.cluster).map(Cluster::stop) {
            Some(stopping) => {
                if let Err(error) = stopping.await {
                    warn!(%error, "The embedded database was not stopped");
                }
            }
            None => {
                warn!("The embedded database is still in use by this process, and is left running");
            }
        }
    }
}

async fn bring_back(cluster: Arc<Cluster>) {
    loop {
        tokio::time::sleep(GUARD_INTERVAL).await;
        match cluster.ensure_running().await {
            Ok(true) => info!("The embedded database runs again"),
            Ok(false) => {}
            Err(error) => {
                error!(error = %with_causes(&error), "The embedded database cannot be brought back");
            }
        }
    }
}

/// A database to record into.
#[derive(Debug)]
pub struct Database {
    cluster: Option<Guarded>,
    address: Address,
}

/// Where a database lies, and how it is shown.
#[derive(Debug, Clone)]
pub(super) struct Address {
    server: Server,
    /// Without a password.
    shown: String,
}

impl Database {
    /// Starts or joins the embedded cluster, or takes the server of the settings.
    ///
    /// # Errors
    ///
    /// When the cluster does not start or the URL is none.
    pub async fn open(settings: &Settings, pg_bin: Option<PathBuf>) -> Result<Self, StartError> {
        match &settings.database.url {
            DatabaseUrl::Embedded => {
                let cluster = Cluster::start(&Options::new(&settings.database, pg_bin)).await?;
                let (server, shown) = (cluster.connect_options().into(), cluster.url());
                let address = Address { server, shown };
                Ok(Self { cluster: Some(Guarded::new(cluster)), address })
            }
            url @ DatabaseUrl::Server(text) => {
                let (server, shown) = (Server::from_url(text)?, url.to_string());
                Ok(Self { cluster: None, address: Address { server, shown } })
            }
        }
    }

    /// Cleans up after an [`open`](Self::open) that was given up midway: the embedded server is stopped, unless another
    /// process uses it.
    pub async fn leave(settings: &Settings, pg_bin: Option<PathBuf>) {
        if settings.database.url != DatabaseUrl::Embedded {
            return;
        }
        let options = Options::new(&settings.database, pg_bin);
        if let Err(error) = command::stop_unused(&options, Duration::ZERO).await {
            tracing::warn!(%error, "The embedded database was not stopped");
        }
    }

    /// A pool of up to `connections`, on a schema that is up to date, for commands that may take their time.
    ///
    /// # Errors
    ///
    /// When the server does not answer or a migration fails.
    pub async fn migrated_pool(&self, connections: u32) -> Result<PgPool, StartError> {
        let pool = self.pool(connections).await?;
        migrate(&pool).await?;
        Ok(pool)
    }

    /// A pool of up to `connections`, on the schema as it is.
    ///
    /// # Errors
    ///
    /// When the server does not answer, or a pooler that keeps no sessions is in between.
    pub async fn pool(&self, connections: u32) -> Result<PgPool, StartError> {
        let session = Session { name: "trading-core", statement_max: None };
        self.address.probe(session).await?;
        Ok(self.address.server.pool(connections, session))
    }

    /// One session, whose statements are not logged.
    ///
    /// # Errors
    ///
    /// When the server does not let us in.
    pub async fn connect(&self) -> Result<PgConnection, StartError> {
        let session = Session { name: "trading-core", statement_max: None };
        let unreachable = |error| StartError::Database { url: self.address.shown.clone(), error };
        self.address.server.connect(session).await.map_err(unreachable)
    }

    /// A URL for another of its users; holds no password.
    #[must_use]
    pub fn url_of(&self, user: &str) -> String {
        self.address.server.url_of(user)
    }

    /// A store on it, with connections of its own.
    pub(super) fn store(&self) -> PostgresStore {
        self.address.store()
    }

    pub(super) const fn address(&self) -> &Address {
        &self.address
    }

    /// As it may be shown: without a password.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.address.shown
    }

    /// Leaves the embedded cluster, which stops with the last that uses it.
    pub async fn close(self) {
        if let Some(cluster) = self.cluster {
            cluster.stop().await;
        }
    }
}

/// `trading-core db migrate`: brings the tables up to date.
///
/// # Errors
///
/// When the database is not the one that is meant, cannot be used, or a migration fails.
pub async fn migrate_database(
    settings: &Settings,
    pg_bin: Option<PathBuf>,
) -> Result<(), StartError> {
    must_be_meant(settings, pg_bin.clone(), "db migrate").await?;
    let database = Database::open(settings, pg_bin).await?;
    let migrated = database.migrated_pool(1).await;
    if let Ok(pool) = &migrated {
        pool.close().await;
    }
    database.close().await;
    migrated.map(drop)
}

impl Address {
    /// A pool of up to `connections` for a recorder. It connects when it is used.
    pub(super) fn recorders_pool(&self, connections: u32) -> PgPool {
        self.server.pool(connections, RECORDER)
    }

    /// Whether a recorder can work with this server now.
    pub(super) async fn probe_as_recorder(&self) -> Result<(), StartError> {
        self.probe(RECORDER).await
    }

    pub(super) fn store(&self) -> PostgresStore {
        PostgresStore::new(self.server.clone())
    }

    /// Whether it runs on this machine, and most likely reads its clock.
    pub(super) fn is_on_this_machine(&self) -> bool {
        self.server.is_on_this_machine()
    }

    /// What names it to the spool: host, port, user and name, and no password.
    pub(super) fn name(&self) -> String {
        self.server.address()
    }

    /// Connects without the pool, which would retry for long and then report no more than that it timed out.
    async fn probe(&self, session: Session) -> Result<(), StartError> {
        let unreachable = |error| StartError::Database { url: self.shown.clone(), error };
        match pooler(&self.server, session).await.map_err(unreachable)? {
            None => Ok(()),
            Some(pooler) => Err(StartError::Pooler { url: self.shown.clone(), pooler }),
        }
    }
}
