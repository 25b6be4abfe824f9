//! `db remove`: throws a cluster away, with its spool. Only what this program made goes, no link is followed, and what a
//! running recorder uses stays.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use chrono::{DateTime, Utc};
use sqlx::Connection as _;
use tokio::time::timeout;

use super::home::{Home, bytes_below};
use super::server::{self, Postmaster};
use super::strangers::{STAGING, entries};
use super::{
    DATABASE, EmbeddedError, LOCK_WAIT, Options, SIMULATED, blocking, names, random_text,
};
use crate::store::folder::is_missing;
use crate::store::spool::{self, Leaving};

/// How long a running server may take to count what it holds.
const COUNT_MAX: Duration = Duration::from_secs(3);
/// The folder of the spool, where `spool.dir` names no other.
const SPOOL: &str = "spool";

/// What a database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Content {
    /// Trades.
    pub trades: i64,
    /// When the first was.
    pub first: Option<DateTime<Utc>>,
    /// When the last was.
    pub last: Option<DateTime<Utc>>,
}

/// What would be thrown away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The directory.
    pub folder: PathBuf,
    /// Of the simulated market, or of the real exchanges.
    pub simulated: bool,
    /// Bytes that it takes, with its spool.
    pub bytes: u64,
    /// What a running server says of it.
    pub content: Option<Content>,
    /// Trades that wait in its spool and are stored nowhere else.
    pub spooled: u64,
    /// Trades in the same spool that wait for other databases, and stay.
    pub left: u64,
}

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = if self.simulated { "of a simulated market" } else { "of real exchanges" };
        let (folder, size) = (self.folder.display(), ByteSize(self.bytes));
        write!(f, "the embedded database {whose}: {folder}, {size}")?;
        if let Some(Content { trades, first, last }) = self.content {
            write!(f, ", {trades} trades")?;
            if let (Some(first), Some(last)) = (first, last) {
                write!(f, " from {} to {}", first.date_naive(), last.date_naive())?;
            }
        }
        if self.spooled > 0 {
            let ticks = self.spooled;
            write!(f, "\nand {ticks} trades in its spool, which are stored nowhere else")?;
        }
        if self.left > 0 {
            write!(f, "\nnot: {} trades in its spool that wait for another database", self.left)?;
        }
        Ok(())
    }
}

/// What `db remove` would throw away. Changes nothing.
///
/// # Errors
///
/// When a process uses it, the directory is refused, or nothing is there.
pub async fn survey(options: &Options) -> Result<Option<Removal>, EmbeddedError> {
    let Some(home) = super::command::existing(options).await? else { return Ok(None) };
    let content = content(&home).await?;
    let simulated = options.simulated;
    blocking(move || {
        refuse_users(&home)?;
        let Leaving { ticks, left, .. } = leaving(&home)?;
        let folder = home.folder().to_owned();
        let besides = if simulated { 0 } else { bytes_below(&folder.join(SIMULATED)) };
        let bytes = bytes_below(&folder).saturating_sub(besides);
        Ok(Some(Removal { folder, simulated, bytes, content, spooled: ticks, left }))
    })
    .await
}

/// `db remove`: stops the server, if it runs, and removes the cluster and its spool. Gives back what of the directory is
/// left, and why.
///
/// # Errors
///
/// When a process uses it, the server does not stop, or something cannot be removed.
pub async fn remove(options: &Options) -> Result<Vec<String>, EmbeddedError> {
    let Some(home) = super::command::existing(options).await? else { return Ok(Vec::new()) };
    let lock = home.lock_changes(LOCK_WAIT).await?;
    refuse_users(&home)?;
    home.set_kept_running(false)?;
    server::shut_down(&home, &mut None).await?;
    blocking(move || {
        let left = clear(&home);
        drop(lock);
        left
    })
    .await
}

/// Under the change lock.
fn clear(home: &Home) -> Result<Vec<String>, EmbeddedError> {
    let (folder, place) = (home.folder(), home.place());
    let socket_dir = home.socket_dir()?;
    let spool = folder.join(SPOOL);
    spool::remove(&spool, &socket_dir).map_err(|error| EmbeddedError::Spool(Box::new(error)))?;
    // First under a name that the next start clears away: cut off midway, nothing is left that looks like data.
    let data = home.data();
    let aside = folder.join(format!("{STAGING}{}", random_text(12)?));
    let moved = place.hand().run(|| fs::rename(&data, &aside)).is_ok();
    remove_tree(home, if moved { &aside } else { &data })?;
    for name in entries(folder)?.iter().filter(|name| name.starts_with(STAGING)) {
        remove_tree(home, &folder.join(name))?;
    }
    home.remove_socket_dir(&socket_dir)?;
    for name in names::files() {
        match place.remove(name) {
            Err(error) if !is_missing(&error) => {
                return Err(EmbeddedError::io("remove", &folder.join(name))(error));
            }
            _ => {}
        }
    }
    // A folder that is not empty stays; so does a mounted one.
    if let Err(error) = place.remove_subfolder(SPOOL) {
        tracing::debug!(%error, "the spool's folder was left");
    }
    let left = entries(folder)?;
    if left.is_empty()
        && let Err(error) = place.hand().run(|| fs::remove_dir(folder))
    {
        tracing::debug!(%error, "the empty directory was left");
    }
    Ok(left)
}

fn remove_tree(home: &Home, path: &Path) -> Result<(), EmbeddedError> {
    // Removes links, and what they lead to never.
    match home.place().hand().run(|| fs::remove_dir_all(path)) {
        Err(error) if !is_missing(&error) => Err(EmbeddedError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn leaving(home: &Home) -> Result<Leaving, EmbeddedError> {
    spool::leaving(&home.folder().join(SPOOL), &home.socket_dir()?)
        .map_err(|error| EmbeddedError::Spool(Box::new(error)))
}

fn refuse_users(home: &Home) -> Result<(), EmbeddedError> {
    let mut pids = home.users()?.unwrap_or_default();
    pids.extend(leaving(home)?.users);
    pids.sort_unstable();
    pids.dedup();
    if pids.is_empty() {
        return Ok(());
    }
    pids.retain(|pid| *pid != 0);
    Err(EmbeddedError::InUse { folder: home.folder().to_owned(), pids })
}

/// What a running server holds; `None` where none runs, or it takes too long to say.
async fn content(home: &Home) -> Result<Option<Content>, EmbeddedError> {
    let Some(Postmaster { endpoint: Some(endpoint), .. }) = Postmaster::find(home)? else {
        return Ok(None);
    };
    let counted = timeout(COUNT_MAX, async {
        let mut connection = sqlx::PgConnection::connect_with(&endpoint.options(DATABASE)).await?;
        let count =
            "SELECT count(*) AS trades, min(time) AS first, max(time) AS last FROM tick_data";
        let counted = sqlx::query_as(count).fetch_one(&mut connection).await;
        drop(connection.close().await);
        counted
    });
    Ok(counted.await.ok().and_then(Result::<_, sqlx::Error>::ok))
}
