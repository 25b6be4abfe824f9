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

/// Whether a row of `rejected_ticks` was refused for its time only, which is not final: by this program, or by an earlier
/// version that had no code for it.
macro_rules! only_time {
    () => {
        "(coalesce(sqlstate, '') = 'TC001' \
            OR sqlstate IS NULL AND reason = 'time is before 2009 or more than two days ahead')"
    };
}

pub mod arrived;
pub mod audit;
mod connections;
mod copy;
pub mod gaps;
mod insert;
pub mod latest;
pub mod maintenance;
pub mod migrate;
mod neighbour;
pub mod origin;
mod partitions;
pub mod pooler;
pub mod quarantine;
pub mod reader;
mod reject;
pub mod restore;
pub mod retention;
pub mod rights;
mod rows;
mod server;
mod sqlstate;
mod tick_data;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use connections::Connections;
use copy::CopyBuffers;
use insert::{Conflicts, insert};
use neighbour::Neighbour;
use partitions::{Clocks, Partitions, Unmade};
use reject::Refusal;
use sqlstate::Failure;
use sqlx::PgConnection;
use tokio::time::Instant;

pub use connections::is_on_this_machine;
pub use partitions::make_days_ahead;
pub use reject::REJECTED_MAX;
pub(in crate::store) use server::url_encoded;
pub use server::{SESSION_OPTIONS, Server, Session, is_away, refusal};
pub use sqlstate::remedy;

use super::{DaysLeft, Remedy, Store, StoreError, Written};
use crate::domain::{RecorderClock, Tick, count};
use crate::telemetry::SharedLimiter;

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
    clocks: Clocks,
    rejected_max: u32,
    refused: SharedLimiter,
}

/// A batch by what is to become of its ticks.
struct Sorted<'a> {
    /// To be stored.
    good: Cow<'a, [Tick]>,
    /// To be set aside.
    refusals: Vec<Refusal>,
}

/// Why one attempt at a batch did not store all of it.
enum Attempt {
    /// Ticks of it are there already, or just being written by another, who waits for ours.
    Conflict,
    /// Anything else.
    Failed(sqlx::Error),
}

impl From<sqlx::Error> for Attempt {
    fn from(error: sqlx::Error) -> Self {
        let refusal = error.as_database_error();
        if refusal.is_some_and(|refusal| refusal.is_unique_violation()) || is_deadlock(&error) {
            Self::Conflict
        } else {
            Self::Failed(error)
        }
    }
}

fn is_deadlock(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|refusal| refusal.code().as_deref() == Some("40P01"))
}

impl PostgresStore {
    /// A store on this server; connects when it writes.
    #[must_use]
    pub fn new(server: impl Into<Server>) -> Self {
        let server = server.into();
        let inserted_max = if server.is_local_socket() { 0 } else { INSERTED_OVER_TCP_MAX };
        Self {
            connections: Connections::new(server, STATEMENT_TIMEOUT),
            partitions: Partitions::default(),
            buffers: CopyBuffers::default(),
            neighbour: Neighbour::default(),
            inserted_max,
            clocks: Clocks::default(),
            rejected_max: REJECTED_MAX,
            refused: SharedLimiter::default(),
        }
    }

    /// With the clock of the recorder, which knows how far the machine's is off.
    #[must_use]
    pub fn with_clock(mut self, clock: RecorderClock) -> Self {
        self.clocks = Clocks::new(clock);
        self
    }

    /// Keeps this many refused ticks of an exchange instead of [`REJECTED_MAX`]; the others are counted.
    #[must_use]
    pub const fn with_rejected_max(mut self, rows: u32) -> Self {
        self.rejected_max = rows;
        self
    }

    /// Writes a batch as one statement, or as two when ticks of it are there already.
    async fn write_whole(
        &self,
        connection: &mut PgConnection,
        batch: &[Tick],
    ) -> Result<Written, sqlx::Error> {
        // All of it may have been refused.
        if batch.is_empty() {
            return Ok(Written::default());
        }
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
        let duplicates = count(batch.len()).saturating_sub(stored);
        if duplicates > 0 {
            self.neighbour.notice(Instant::now());
        }
        Ok(Written { stored, duplicates, rejected: 0 })
    }

    /// Bounds one step of a write: a server that does not answer is given up, connection and all.
    async fn within<T>(step: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Failure> {
        match tokio::time::timeout(ANSWER_MAX, step).await {
            Ok(done) => done.map_err(Failure::from),
            Err(_elapsed) => Err(Failure::Silent(ANSWER_MAX)),
        }
    }

    /// Writes a batch; where rows of it are refused, finds each by halving, and adds it to the refusals.
    async fn write_halving(
        &self,
        connection: &mut PgConnection,
        batch: &[Tick],
        refusals: &mut Vec<Refusal>,
    ) -> Result<Written, Failure> {
        let mut written = Written::default();
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            match Self::within(self.write_whole(connection, part)).await {
                Ok(more) => {
                    written.stored += more.stored;
                    written.duplicates += more.duplicates;
                }
                Err(Failure::Database(reason)) if remedy(&reason) == Remedy::Reject => match part {
                    [tick] => refusals.push(Refusal::by_database(tick, &reason)),
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

    /// Parts a batch from the ticks that no row can be made of: before any partition is made for them.
    async fn sort<'a>(
        &self,
        connection: &mut PgConnection,
        batch: &'a [Tick],
    ) -> Result<Sorted<'a>, sqlx::Error> {
        let database = self.clocks.database_now(connection).await?;
        let is_good =
            |tick: &Tick| self.clocks.allow(tick, database) && Refusal::in_any_case(tick).is_none();
        if batch.iter().all(is_good) {
            return Ok(Sorted { good: Cow::Borrowed(batch), refusals: Vec::new() });
        }
        let mut refusals = Vec::new();
        let mut good = Vec::with_capacity(batch.len());
        for tick in batch {
            if !self.clocks.allow(tick, database) {
                refusals.push(Refusal::of_time(tick));
            } else if let Some(refusal) = Refusal::in_any_case(tick) {
                refusals.push(refusal);
            } else {
                good.push(tick.clone());
            }
        }
        Ok(Sorted { good: Cow::Owned(good), refusals })
    }

    /// Makes the days of a batch, and parts it from the ticks whose day is not there.
    async fn place<'a>(
        &self,
        connection: &mut PgConnection,
        batch: Cow<'a, [Tick]>,
    ) -> Result<(Cow<'a, [Tick]>, Vec<Tick>, BTreeMap<i64, Unmade>), Failure> {
        let missing = self.partitions.missing(&batch);
        if missing.is_empty() {
            return Ok((batch, Vec::new(), BTreeMap::new()));
        }
        let unmade = Self::within(self.partitions.make(connection, missing)).await?;
        if unmade.is_empty() {
            return Ok((batch, Vec::new(), unmade));
        }
        let has_day = |tick: &Tick| !unmade.contains_key(&tick.exchange_at.day());
        let (placed, left): (Vec<Tick>, Vec<Tick>) = batch.iter().cloned().partition(has_day);
        if placed.is_empty() {
            // Nothing is held up by asking for the day again at once.
            self.partitions.forget_refusals();
        }
        Ok((Cow::Owned(placed), left, unmade))
    }

    async fn write_connected(
        &self,
        connection: &mut PgConnection,
        batch: &[Tick],
    ) -> Result<Written, StoreError<Tick>> {
        let Sorted { good, mut refusals } = Self::within(self.sort(connection, batch)).await?;
        let (placed, mut left, mut unmade) = self.place(connection, good).await?;
        let mut written = match Self::within(self.write_whole(connection, &placed)).await {
            // Perhaps no row's fault: a partition that was there may have gone (retention, a restored server).
            Err(Failure::Database(error)) if remedy(&error) == Remedy::Reject => {
                self.partitions.forget();
                let (placed, more_left, more_unmade) = self.place(connection, placed).await?;
                left.extend(more_left);
                unmade.extend(more_unmade);
                self.write_halving(connection, &placed, &mut refusals).await?
            }
            written => written?,
        };
        if !refusals.is_empty() {
            let keeping = reject::keep(connection, &refusals, self.rejected_max);
            let counted = Self::within(keeping).await?;
            self.tell_refused(&refusals, counted);
            written.rejected += count(refusals.len());
        }
        if left.is_empty() {
            return Ok(written);
        }
        let (day, cure, cause, goes_on) = (String::new(), String::new(), None, false);
        let mut days = DaysLeft { written, left, day, cure, cause, goes_on };
        Self::explain(connection, unmade, &mut days).await;
        Err(StoreError::Days(Box::new(days)))
    }

    /// Says why days are not there, and what to do about it.
    async fn explain(
        connection: &mut PgConnection,
        unmade: BTreeMap<i64, Unmade>,
        days: &mut DaysLeft<Tick>,
    ) {
        for (day, reason) in unmade {
            let date = partitions::date(day);
            match reason {
                Unmade::Later => days.goes_on = true,
                Unmade::Refused(error) if days.cause.is_none() => {
                    let holder = partitions::holder(connection, &error).await.unwrap_or_default();
                    days.cure = format!("{holder}{}", partitions::cure(&error, date));
                    days.day = date.to_string();
                    days.cause = Some(error.into());
                }
                Unmade::Refused(_) | Unmade::RefusedBefore => {
                    if days.day.is_empty() {
                        days.day = date.to_string();
                    }
                }
            }
        }
    }

    fn tell_refused(&self, refusals: &[Refusal], counted: i64) {
        let Some(unsaid) = self.refused.admit(Instant::now()) else { return };
        let ticks = refusals.len();
        let of_time: Vec<&Tick> =
            refusals.iter().filter(|it| it.is_of_time()).map(Refusal::tick).collect();
        let counted = match counted {
            0 => String::new(),
            counted => format!(
                "; {counted} of them are only counted, in rejected_overflow, because rejected_ticks holds {} of the exchange",
                self.rejected_max
            ),
        };
        match of_time.first() {
            None => tracing::warn!(
                ticks,
                "Ticks refused, and set aside in rejected_ticks{counted}{unsaid}"
            ),
            Some(tick) => tracing::warn!(
                ticks,
                "Ticks refused, and set aside in rejected_ticks: {} of them for their time; {}:{} is stamped {} and was \
                 received at {} by our clock: the exchange's stamp is wrong, or our clock and the database's are. They are \
                 stored when the clocks agree{counted}{unsaid}",
                of_time.len(),
                tick.instrument.exchange(),
                tick.instrument.symbol().as_str(),
                tick.exchange_at,
                tick.received_at,
            ),
        }
    }
}

impl Store for PostgresStore {
    type Record = Tick;

    async fn write(&self, batch: &[Tick]) -> Result<Written, StoreError<Tick>> {
        if batch.is_empty() {
            return Ok(Written::default());
        }
        let write = async {
            let mut connection = Self::within(self.connections.take()).await?;
            let written = self.write_connected(&mut connection, batch).await;
            // Only a connection that did its work well is used again.
            if matches!(written, Ok(_) | Err(StoreError::Days(_))) {
                self.connections.give_back(connection);
            }
            written
        };
        let written = write.await;
        if written.as_ref().is_err_and(|error| !matches!(error, StoreError::Days(_))) {
            // What broke one connection (a restart of the server) has broken the idle ones too.
            self.connections.clear();
            self.partitions.forget();
        }
        written
    }
}
