//! The spool: batches that the store could not take, on disk until it can.
//!
//! ```text
//! <dir>/
//!   claims.lock              held for a moment by who claims slots
//!   1c291ca3.database        what names the database at an address, for a start before that database is up
//!   1/                       a slot: the place of one process
//!     slot.lock              held by that process; the kernel lets go of it when it dies, however it dies
//!     0000000007.segment     batches, some megabytes of them; deleted when all of it is drained
//!     0000000003.damaged     a segment of which something could not be read: drained as far as it could be
//!   2/                       the slot of a second recorder
//!   simulated/               where `spool.dir` is set: the spool of the simulated market (`live --simulate`)
//! ```
//!
//! Promised:
//!
//! - What was appended is there after a kill of the process or of the machine, and comes back exactly.
//! - A torn tail is cut off. Damage costs the blocks that it touches; its file is kept as `.damaged` and never deleted; both
//!   are logged.
//! - What is no file of ours is left alone and named, and keeps nothing else from being drained.
//! - It never takes more than its limit: what does not fit stays with the caller.
//! - Each process has a slot of its own, and whoever starts next takes over those of dead ones; what waits there for
//!   another database is left alone, and named.
//! - What an earlier version of this program wrote is read. What a later one wrote, in a format or of a kind of record that
//!   this one does not know, is left alone, and named: it waits until that version runs again.
//!
//! Not promised: that a batch is drained only once. Writing it again stores nothing twice.

mod block;
mod error;
mod files;
mod known;
mod queue;
mod recover;
mod remove;
mod segment;
mod slot;
mod survey;
#[cfg(test)]
pub(crate) mod tests;
mod ticks;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

pub use block::Spooled;
pub use error::SpoolError;
pub use files::Skipped;
pub use known::{recall, remember};
pub use recover::Losses;
pub use remove::{Leaving, leaving, remove};
pub use slot::{Foreign, SpoolNames};
pub use survey::{SlotStatus, Status, inspect, inspectable, status, written_at};

use crate::config::{DatabaseSettings, DatabaseUrl, SpoolSettings};
use crate::domain::lock;
use crate::store::embedded::{SIMULATED, default_data_dir};
use queue::Queue;

/// Processes that may use one spool at a time.
pub const SLOTS_MAX: u32 = 64;

/// What waits in a spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Batches.
    pub batches: u64,
    /// Ticks in them.
    pub ticks: u64,
    /// Bytes of the files that hold them.
    pub bytes: u64,
}

/// What [`Spool::open`] came upon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Batches of earlier runs, which are drained now.
    pub backlog: Backlog,
    /// Slots that nobody holds, and that wait for another database.
    pub foreign: Vec<Foreign>,
    /// Bytes cut off because a crash had cut them short; their write was never reported as done.
    pub torn_bytes: u64,
    /// What cannot be read, and what was left alone.
    pub losses: Losses,
}

/// The batches that wait longest.
#[derive(Debug)]
pub struct Oldest<R> {
    /// For [`Spool::remove`], once they are stored.
    pub position: Position,
    /// Their records.
    pub records: Vec<R>,
    /// Records beside them that cannot be read; their file is renamed to `.damaged`.
    pub unreadable: u64,
}

/// A place in the spool, from one batch to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    path: PathBuf,
    from: u64,
    to: u64,
    blocks: u64,
    records: u64,
    /// Of these records, those that cannot be read.
    unreadable: u64,
}

impl<R> Oldest<R> {
    const fn starting(path: PathBuf, at: u64) -> Self {
        let position = Position { path, from: at, to: at, blocks: 0, records: 0, unreadable: 0 };
        Self { position, records: Vec::new(), unreadable: 0 }
    }

    const fn pass_unread(&mut self, records: u64) {
        self.unreadable = self.unreadable.saturating_add(records);
        self.position.unreadable = self.unreadable;
    }
}

/// Where the spool lies: as set, else beside the embedded database, else in the platform's data directory.
///
/// # Errors
///
/// When the settings do not say and the user has no home directory.
pub fn folder(spool: &SpoolSettings, database: &DatabaseSettings) -> Result<PathBuf, SpoolError> {
    // What is simulated never waits beside what is real.
    let place = |folder: PathBuf| if database.simulated { folder.join(SIMULATED) } else { folder };
    match (&spool.dir, &database.url, &database.data_dir) {
        (Some(dir), ..) => Ok(place(dir.clone())),
        (None, DatabaseUrl::Embedded, Some(data_dir)) => Ok(place(data_dir.clone()).join("spool")),
        _ => match default_data_dir() {
            Ok(folder) => Ok(place(folder).join("spool")),
            Err(_no_home) => Err(SpoolError::NoHome),
        },
    }
}

/// A spool of one kind of record that this process writes to and drains. Shared; every method may be called from any task.
#[derive(Debug, Clone)]
pub struct Spool<R> {
    queue: Arc<Mutex<Queue<R>>>,
    backlog: Arc<watch::Sender<Backlog>>,
    losses: Arc<watch::Sender<Losses>>,
    dir: Arc<Path>,
    max_bytes: u64,
}

impl<R: Spooled> Spool<R> {
    /// Opens a spool for the batches of one database, and takes over what dead processes left there for it.
    ///
    /// # Errors
    ///
    /// When the folder cannot be used, or too many processes use it.
    pub async fn open(
        dir: PathBuf,
        max_bytes: u64,
        database: impl Into<SpoolNames>,
    ) -> Result<(Self, Found), SpoolError> {
        Self::open_what(dir, max_bytes, database.into(), false).await
    }

    /// The same, and what can still be read of the files that were set aside, and of those that no longer say for which
    /// database they wait, is drained too. They stay where they are.
    ///
    /// # Errors
    ///
    /// As [`Spool::open`].
    pub async fn salvage(
        dir: PathBuf,
        max_bytes: u64,
        database: impl Into<SpoolNames>,
    ) -> Result<(Self, Found), SpoolError> {
        Self::open_what(dir, max_bytes, database.into(), true).await
    }

    async fn open_what(
        dir: PathBuf,
        max_bytes: u64,
        names: SpoolNames,
        salvage: bool,
    ) -> Result<(Self, Found), SpoolError> {
        let shared: Arc<Path> = dir.clone().into();
        let opened = aside(&shared, move || Queue::open(&dir, max_bytes, names, salvage));
        let (queue, foreign) = opened.await?;
        let backlog = queue.backlog();
        let losses = queue.losses().clone();
        let found = Found { backlog, foreign, torn_bytes: queue.torn(), losses };
        let spool = Self {
            queue: Arc::new(Mutex::new(queue)),
            backlog: Arc::new(watch::Sender::new(backlog)),
            losses: Arc::new(watch::Sender::new(found.losses.clone())),
            dir: shared,
            max_bytes,
        };
        Ok((spool, found))
    }

    /// Appends a batch, and gives its buffer back: empty when the batch is on disk, with all its records when not.
    pub async fn append(&self, batch: Vec<R>) -> (Vec<R>, Result<(), SpoolError>) {
        // Kept out of the closure, so that no failure of the thread can take the records with it.
        let batch = Arc::new(batch);
        let shared = Arc::clone(&batch);
        let done = self.with(move |queue| queue.append(&shared)).await;
        let mut batch = Arc::unwrap_or_clone(batch);
        if done.is_ok() {
            batch.clear();
        }
        (batch, done)
    }

    /// The batches that wait longest, up to `records_max` records, but one batch at least; `None` when none waits.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub async fn oldest(&self, records_max: usize) -> Result<Option<Oldest<R>>, SpoolError> {
        self.with(move |queue| queue.oldest(records_max)).await
    }

    /// Removes what [`Spool::oldest`] gave, which is stored now.
    ///
    /// # Errors
    ///
    /// When the work could not be done at all; a file that stays is told, and drained again after the next start.
    pub async fn remove(&self, position: Position) -> Result<(), SpoolError> {
        self.with(move |queue| {
            queue.remove(&position);
            Ok(())
        })
        .await
    }

    /// What waits now.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        *self.backlog.borrow()
    }

    /// What waits, for whoever reads it later: it does not keep the spool open.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Backlog> {
        self.backlog.subscribe()
    }

    /// What could not be read since it was opened, and what was left alone.
    #[must_use]
    pub fn losses(&self) -> Losses {
        self.losses.borrow().clone()
    }

    /// Waits until something waits, or nothing does. Cancel-safe.
    pub async fn until_empty_is(&self, empty: bool) {
        let mut backlog = self.backlog.subscribe();
        // Fails only when the sender has gone, which this holds.
        drop(backlog.wait_for(|backlog| (backlog.batches == 0) == empty).await);
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The most bytes that it takes.
    #[must_use]
    pub const fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Queue<R>) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let (queue, backlog) = (Arc::clone(&self.queue), Arc::clone(&self.backlog));
        let losses = Arc::clone(&self.losses);
        aside(&self.dir, move || {
            let mut queue = lock(&queue);
            let done = work(&mut queue);
            losses.send_if_modified(|told| {
                let is_news = told != queue.losses();
                if is_news {
                    told.clone_from(queue.losses());
                }
                is_news
            });
            backlog.send_replace(queue.backlog());
            done
        })
        .await
    }
}

/// Runs what waits for the disk away from the runtime's own threads.
async fn aside<T: Send + 'static>(
    dir: &Path,
    work: impl FnOnce() -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, SpoolError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(SpoolError::io("work with", dir)(std::io::Error::other(error))),
    }
}
