//! PostgreSQL: a batch is one statement, and a tick is stored once.
//!
//! The common case is a binary COPY straight into `tick_data`, encoded once, from sqlx's own encoders. Only when
//! it meets a tick that is already there is that batch written again as `INSERT … ON CONFLICT DO NOTHING`, in the order
//! of the keys; and so are the next ones for a while, since whoever wrote it is likely to be there still. A batch
//! that holds a refused row is halved until the row is found; the row is set aside in `rejected_ticks`, the rest is
//! stored.
//!
//! Over TCP a small batch is an INSERT too: sqlx sets no TCP_NODELAY, so that the two segments with which a COPY ends
//! wait some 40 ms for the server's delayed acknowledgement. A large batch hides that behind the others.

mod audit;
mod connections;
mod copy;
mod gaps;
mod insert;
mod latest;
mod maintenance;
mod neighbour;
mod origin;
mod partitions;
mod quarantine;
mod reject;

use std::time::Duration;

use connections::Connections;
use copy::CopyBuffers;
use insert::{Conflicts, insert};
use neighbour::Neighbour;
use partitions::Partitions;
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use tokio::time::Instant;

pub use audit::{
    AuditStep, Hole, Mark, audit_step, checked_until, first_stored, listed, look_again, note_audit,
};
pub use connections::{is_local_socket, is_on_this_machine};
pub use gaps::{
    Carried, GapScope, GapStatus, Gaps, LEASE, ListedGap, OpenGap, Part, ask_again, count_gaps,
    database_time, exchanges_with_work, list_gaps, release_held, remove_doubles, retry_delay,
    waiting_gaps,
};
pub use latest::{LastStored, in_doubt_since, last_stored, list_time_until_now, not_stored_for};
pub use maintenance::{
    MaintenanceError, Schema, drop_old_partitions, migrate, schema, upsert_instruments,
};

pub use origin::{Origin, OriginError, claim, database_name, origin};
pub use quarantine::{QuarantinedRow, instruments, quarantined, remove_quarantined};

use super::{Store, StoreError, Written};
use crate::domain::{RecorderClock, Tick};

/// The server's time for one statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Ours to wait for an answer: long enough that a server which lives gives up first, and says so.
const ANSWER_MAX: Duration = Duration::from_secs(40);

/// Over TCP, batches of up to this many ticks are inserted rather than copied: below it the 40 ms of a COPY
/// weigh more than what the INSERT costs (measured by `benches/write.rs`).
const INSERTED_OVER_TCP_MAX: usize = 2_000;

/// A neighbour that still writes in another order may lock us up again; by then it has noticed us too.
const REDONE_MAX: u32 = 3;

/// Ticks into `tick_data`.
#[derive(Debug)]
pub struct PostgresStore {
    connections: Connections,
    partitions: Partitions,
    buffers: CopyBuffers,
    neighbour: Neighbour,
    inserted_max: usize,
    clock: RecorderClock,
}

/// Why one attempt at a batch did not store all of it.
enum Attempt {
    /// Ticks of it are there already, or just being written by another, who waits for ours.
    Conflict,
    /// Anything else.
    Failed(StoreError),
}

impl From<sqlx::Error> for Attempt {
    fn from(error: sqlx::Error) -> Self {
        let refusal = error.as_database_error();
        if refusal.is_some_and(|refusal| refusal.is_unique_violation()) || is_deadlock(&error) {
            Self::Conflict
        } else {
            Self::Failed(error.into())
        }
    }
}

fn is_deadlock(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|refusal| refusal.code().as_deref() == Some("40P01"))
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
            neighbour: Neighbour::default(),
            inserted_max,
            clock: RecorderClock::default(),
        }
    }

    /// With the clock of the recorder, which knows how far the machine's is off.
    #[must_use]
    pub fn with_clock(self, clock: RecorderClock) -> Self {
        Self { clock, ..self }
    }

    /// Writes a batch as one statement, or as two when ticks of it are there already.
    async fn write_whole(
        &self,
        connection: &mut PgConnection,
        batch: &[Tick],
    ) -> Result<Written, StoreError> {
        if !self.neighbour.is_expected(Instant::now()) {
            let straight = if batch.len() > self.inserted_max {
                copy::copy(connection, &self.buffers, batch).await
            } else {
                insert(connection, batch, Conflicts::Refuse).await.map_err(Attempt::from)
            };
            match straight {
                Ok(stored) => return Ok(Written { stored, ..Written::default() }),
                Err(Attempt::Conflict) => self.neighbour.notice(Instant::now()),
                Err(Attempt::Failed(error)) => return Err(error),
            }
        }
        let mut redone = 1;
        let stored = loop {
            match insert(connection, batch, Conflicts::Skip).await {
                Err(error) if is_deadlock(&error) && redone < REDONE_MAX => redone += 1,
                stored => break stored?,
            }
        };
        let duplicates = u64::try_from(batch.len()).unwrap_or(u64::MAX).saturating_sub(stored);
        if duplicates > 0 {
            self.neighbour.notice(Instant::now());
        }
        Ok(Written { stored, duplicates, rejected: 0 })
    }

    /// Bounds one step of a write: a server that does not answer is given up, connection and all.
    async fn within<T, E: Into<StoreError>>(
        step: impl Future<Output = Result<T, E>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(ANSWER_MAX, step).await {
            Ok(done) => done.map_err(Into::into),
            Err(_elapsed) => Err(StoreError::Silent(ANSWER_MAX)),
        }
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
            match Self::within(self.write_whole(connection, part)).await {
                Ok(more) => {
                    written.stored += more.stored;
                    written.duplicates += more.duplicates;
                }
                Err(StoreError::Refused(reason)) => match part {
                    [tick] => {
                        Self::within(reject::set_aside(connection, tick, &reason)).await?;
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
        let now = self.clock.now();
        let prepared = Self::within(self.partitions.prepare(connection, batch, now)).await?;
        let (batch, out_of_range) = prepared;
        let mut written = match Self::within(self.write_whole(connection, &batch)).await {
            // Perhaps no row's fault: a partition that was there may have gone (retention, a restored server).
            Err(StoreError::Refused(_)) => {
                self.partitions.forget();
                Self::within(self.partitions.prepare(connection, &batch, now)).await?;
                self.write_halving(connection, &batch).await?
            }
            written => written?,
        };
        for tick in &out_of_range {
            Self::within(reject::set_aside_out_of_range(connection, tick)).await?;
            written.rejected += 1;
        }
        if written.rejected > 0 {
            tracing::warn!(
                ticks = written.rejected,
                "Ticks refused, and set aside in rejected_ticks"
            );
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
            let mut connection = Self::within(self.connections.take()).await?;
            let written = self.write_connected(&mut connection, batch).await?;
            // Only a connection that did its work well is used again.
            self.connections.give_back(connection);
            Ok(written)
        };
        let written = write.await;
        if written.is_err() {
            // What broke one connection (a restart of the server) has broken the idle ones too.
            self.connections.clear();
            self.partitions.forget();
        }
        written
    }
}
