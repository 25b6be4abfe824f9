//! PostgreSQL: a batch is one statement, and a tick is stored once.
//!
//! The common case is a binary COPY straight into `tick_data`, encoded once, from sqlx's own encoders. Only when
//! it meets a tick that is already there is that batch written again as `INSERT … ON CONFLICT DO NOTHING`. A batch
//! that holds a refused row is halved until the row is found; the row is set aside in `rejected_ticks`, the rest is
//! stored.
//!
//! Over TCP a small batch is an INSERT too: sqlx sets no TCP_NODELAY, so that the two segments with which a COPY ends
//! wait some 40 ms for the server's delayed acknowledgement. A large batch hides that behind the others.

mod connections;
mod copy;
mod insert;
mod maintenance;
mod origin;
mod partitions;
mod reject;

use std::time::Duration;

use connections::Connections;
use copy::CopyBuffers;
use insert::{Conflicts, insert};
use partitions::Partitions;
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;

pub use connections::is_local_socket;
pub use maintenance::{MaintenanceError, drop_old_partitions, migrate, upsert_instruments};

pub use origin::{Origin, OriginError, claim};

use super::{Store, StoreError, Written};
use crate::domain::{Tick, Timestamp};

/// The server's time for one statement, and ours to wait for it before the connection is given up.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Over TCP, batches of up to this many ticks are inserted rather than copied: below it the 40 ms of a COPY
/// weigh more than what the INSERT costs (measured by `benches/write.rs`).
const INSERTED_OVER_TCP_MAX: usize = 2_000;

/// Ticks into `tick_data`.
#[derive(Debug)]
pub struct PostgresStore {
    connections: Connections,
    partitions: Partitions,
    buffers: CopyBuffers,
    inserted_max: usize,
}

/// Why one attempt at a batch did not store all of it.
enum Attempt {
    /// Ticks of it are there already.
    Conflict,
    /// Anything else.
    Failed(StoreError),
}

impl From<sqlx::Error> for Attempt {
    fn from(error: sqlx::Error) -> Self {
        if error.as_database_error().is_some_and(|refusal| refusal.is_unique_violation()) {
            Self::Conflict
        } else {
            Self::Failed(error.into())
        }
    }
}

impl PostgresStore {
    /// A store on this server; connects when it writes.
    #[must_use]
    pub fn new(options: PgConnectOptions) -> Self {
        let inserted_max = if is_local_socket(&options) { 0 } else { INSERTED_OVER_TCP_MAX };
        Self {
            connections: Connections::new(options, STATEMENT_TIMEOUT),
            partitions: Partitions::default(),
            buffers: CopyBuffers::default(),
            inserted_max,
        }
    }

    /// Writes a batch as one statement, or as two when ticks of it are there already.
    async fn write_whole(
        &self,
        connection: &mut PgConnection,
        batch: &[Tick],
    ) -> Result<Written, StoreError> {
        let straight = if batch.len() > self.inserted_max {
            copy::copy(connection, &self.buffers, batch).await
        } else {
            insert(connection, batch, Conflicts::Refuse).await.map_err(Attempt::from)
        };
        match straight {
            Ok(stored) => return Ok(Written { stored, ..Written::default() }),
            Err(Attempt::Conflict) => {}
            Err(Attempt::Failed(error)) => return Err(error),
        }
        let stored = insert(connection, batch, Conflicts::Skip).await?;
        let duplicates = u64::try_from(batch.len()).unwrap_or(u64::MAX).saturating_sub(stored);
        Ok(Written { stored, duplicates, rejected: 0 })
    }

    /// Writes a batch; where rows of it are refused, finds each by halving, and sets it aside.
    async fn write_halving(
        &self,
        connection: &mut PgConnection,
        batch: &[Tick],
    ) -> Result<Written, StoreError> {
        let mut written = Written::default();
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            match self.write_whole(connection, part).await {
                Ok(more) => {
                    written.stored += more.stored;
                    written.duplicates += more.duplicates;
                }
                Err(StoreError::Refused(reason)) => match part {
                    [tick] => {
                        reject::set_aside(connection, tick, &reason).await?;
                        written.rejected += 1;
                    }
                    _ => {
                        let (first, second) = part.split_at(part.len() / 2);
                        parts.extend([second, first]);
                    }
                },
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    async fn write_connected(
        &self,
        connection: &mut PgConnection,
        batch: &[Tick],
    ) -> Result<Written, StoreError> {
        let (batch, out_of_range) =
            self.partitions.prepare(connection, batch, Timestamp::now()).await?;
        let mut written = self.write_halving(connection, &batch).await?;
        for tick in &out_of_range {
            reject::set_aside_out_of_range(connection, tick).await?;
            written.rejected += 1;
        }
        Ok(written)
    }
}

impl Store for PostgresStore {
    async fn write(&self, batch: &[Tick]) -> Result<Written, StoreError> {
        if batch.is_empty() {
            return Ok(Written::default());
        }
        let write = async {
            let mut connection = self.connections.take().await?;
            let written = self.write_connected(&mut connection, batch).await?;
            // Only a connection that did its work well is used again.
            self.connections.give_back(connection);
            Ok(written)
        };
        match tokio::time::timeout(STATEMENT_TIMEOUT, write).await {
            Ok(Err(error)) => {
                // What broke one connection (a restart of the server) has broken the idle ones too.
                self.connections.clear();
                Err(error)
            }
            Ok(written) => written,
            Err(_elapsed) => {
                self.connections.clear();
                Err(StoreError::Silent(STATEMENT_TIMEOUT))
            }
        }
    }
}
