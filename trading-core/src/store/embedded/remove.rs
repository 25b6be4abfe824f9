//! `db remove`: throws a cluster away, with its spool. Only what this program made goes, no link is followed, and what a
//! running recorder uses stays.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use chrono::{DateTime, Utc};
use sqlx::Connection as _;
use tokio::time::timeout;

use super::home::{Home, bytes_below};
use super::server::{self, Postmaster};
use super::strangers::{STAGING, entries};
use super::{DATABASE, EmbeddedError, LOCK_WAIT, Options, SIMULATED, blocking, names, random_text};
use crate::store::folder::{Folder, is_missing};
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
    /// Its spool, where that lies elsewhere and goes too.
    pub spool: Option<PathBuf>,
    /// A spool elsewhere that stays, since other recorders may use it, and the trades there that wait for this database.
    pub stays: Option<(PathBuf, u64)>,
    /// What links of the database lead to, and stays: a folder of its log, or a tablespace.
    pub linked: Vec<PathBuf>,
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
        if let Some(spool) = &self.spool {
            write!(f, "\nand its spool in {}", spool.display())?;
        }
        if self.spooled > 0 {
            let ticks = self.spooled;
            write!(f, "\nand {ticks} trades in its spool, which are stored nowhere else")?;
        }
        if self.left > 0 {
            write!(f, "\nnot: {} trades in its spool that wait for another database", self.left)?;
        }
        if let Some((spool, ticks)) = &self.stays {
            let spool = spool.display();
            write!(f, "\nnot: the spool in {spool}, which other recorders may use")?;
            if *ticks > 0 {
                write!(f, "; {ticks} trades in it wait for this database")?;
            }
        }
        for target in &self.linked {
            write!(f, "\nnot: {}, to which a link in it leads", target.display())?;
        }
        Ok(())
    }
}

/// Where the spools of a cluster lie.
#[derive(Debug)]
struct Spools {
    /// In its directory: goes.
    inside: PathBuf,
    /// Where `spool.dir` says, if that is elsewhere. The simulated market's goes; that of the real exchanges stays, since
    /// recorders of other databases may use it.
    elsewhere: Option<PathBuf>,
    simulated: bool,
}

impl Spools {
    /// `set`: where the settings say that it is.
    fn new(home: &Home, simulated: bool, set: &Path) -> Self {
        let inside = home.folder().join(SPOOL);
        let real = |folder: &Path| fs::canonicalize(folder).ok();
        let is_inside = set == inside || real(set).is_some_and(|set| real(&inside) == Some(set));
        Self { inside, elsewhere: (!is_inside).then(|| set.to_owned()), simulated }
    }

    /// One elsewhere that goes.
    fn going(&self) -> Option<&Path> {
        self.elsewhere.as_deref().filter(|_| self.simulated)
    }

    /// One elsewhere that stays, and the trades in it that wait for the database at this socket.
    fn staying(&self, socket_dir: &Path) -> Result<Option<(PathBuf, u64)>, EmbeddedError> {
        let staying = self.elsewhere.as_ref().filter(|dir| !self.simulated && dir.exists());
        let Some(dir) = staying else { return Ok(None) };
        Ok(Some((dir.clone(), leaving(dir, socket_dir)?.ticks)))
    }

    /// What lies in those that go.
    fn leaving(&self, socket_dir: &Path) -> Result<Leaving, EmbeddedError> {
        let mut all = leaving(&self.inside, socket_dir)?;
        if let Some(dir) = self.going() {
            let Leaving { ticks, left, users } = leaving(dir, socket_dir)?;
            all.ticks += ticks;
            all.left += left;
            all.users.extend(users);
        }
        Ok(all)
    }

    fn remove(&self, socket_dir: &Path) -> Result<(), EmbeddedError> {
        for dir in [Some(self.inside.as_path()), self.going()].into_iter().flatten() {
            spool::remove(dir, socket_dir)
                .map_err(|error| EmbeddedError::Spool(Box::new(error)))?;
            // A folder that is not empty stays; so does a mounted one.
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            let above = Folder::open(dir.parent().unwrap_or(dir));
            if let Err(error) = above.and_then(|above| above.remove_subfolder(&name)) {
                tracing::debug!(%error, "the spool's folder was left");
            }
        }
        Ok(())
    }
}

fn leaving(dir: &Path, socket_dir: &Path) -> Result<Leaving, EmbeddedError> {
    spool::leaving(dir, socket_dir).map_err(|error| EmbeddedError::Spool(Box::new(error)))
}

/// What `db remove` would throw away; `spool` is where the settings say that its spool is. Changes nothing.
///
/// # Errors
///
/// When a process uses it, the directory is refused, its data lies elsewhere, or nothing is there.
pub async fn survey(options: &Options, spool: &Path) -> Result<Option<Removal>, EmbeddedError> {
    let Some(home) = super::command::existing(options).await? else { return Ok(None) };
    let content = content(&home).await?;
    let simulated = options.simulated;
    let spools = Spools::new(&home, simulated, spool);
    blocking(move || {
        refuse_users(&home, &spools)?;
        refuse_mounted(&home)?;
        let socket_dir = home.socket_dir()?;
        let Leaving { ticks, left, .. } = spools.leaving(&socket_dir)?;
        let stays = spools.staying(&socket_dir)?;
        let spool = spools.going().filter(|dir| dir.exists()).map(Path::to_owned);
        let folder = home.folder().to_owned();
        let besides = if simulated { 0 } else { bytes_below(&folder.join(SIMULATED)) };
        let elsewhere = spool.as_deref().map_or(0, bytes_below);
        let bytes = bytes_below(&folder).saturating_sub(besides).saturating_add(elsewhere);
        let linked = linked(&home);
        let spooled = ticks;
        Ok(Some(Removal { folder, simulated, bytes, content, spooled, left, spool, stays, linked }))
    })
    .await
}

/// `db remove`: stops the server, if it runs, and removes the cluster and its spool, which lies where the settings say.
/// Gives back what of the directory is left, and why.
///
/// # Errors
///
/// When a process uses it, the server does not stop, its data lies elsewhere, or something cannot be removed.
pub async fn remove(options: &Options, spool: &Path) -> Result<Vec<String>, EmbeddedError> {
    let Some(home) = super::command::existing(options).await? else { return Ok(Vec::new()) };
    let lock = match home.lock_changes(LOCK_WAIT).await {
        Err(EmbeddedError::Removed { .. }) => return Ok(Vec::new()),
        lock => lock?,
    };
    let spools = Spools::new(&home, options.simulated, spool);
    refuse_users(&home, &spools)?;
    refuse_mounted(&home)?;
    home.set_kept_running(false)?;
    server::shut_down(&home, &mut None).await?;
    // A link to the directory is the operator's, and leads to one that can be used again.
    let is_linked = options.folder()?.is_symlink();
    blocking(move || {
        let left = clear(&home, &spools, is_linked);
        drop(lock);
        left
    })
    .await
}

/// Under the change lock.
fn clear(home: &Home, spools: &Spools, keep_folder: bool) -> Result<Vec<String>, EmbeddedError> {
    let (folder, place) = (home.folder(), home.place());
    let socket_dir = home.socket_dir()?;
    spools.remove(&socket_dir)?;
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
    let left = entries(folder)?;
    if left.is_empty()
        && !keep_folder
        && let Err(error) = place.hand().run(|| fs::remove_dir(folder))
    {
        tracing::debug!(%error, "the empty directory was left");
    }
    Ok(left)
}

/// Only the operator can unmount it; what is below would be removed, and the folder not.
fn refuse_mounted(home: &Home) -> Result<(), EmbeddedError> {
    let (data, folder) = (home.data(), home.folder());
    let device = |path: &Path| fs::symlink_metadata(path).ok().map(|about| about.dev());
    let is_mounted = device(&data) != device(folder)
        || fs::read_to_string("/proc/self/mountinfo").is_ok_and(|table| is_mount(&table, &data));
    if is_mounted { Err(EmbeddedError::Mounted { data }) } else { Ok(()) }
}

/// Whether the system's table of mounts (`/proc/self/mountinfo`) names this path. A folder that is mounted a second time
/// has the device of its first place, which the device alone does not tell.
fn is_mount(table: &str, path: &Path) -> bool {
    let mut written = path.to_string_lossy().replace('\\', "\\134");
    for (plain, octal) in [(' ', "\\040"), ('\t', "\\011"), ('\n', "\\012")] {
        written = written.replace(plain, octal);
    }
    table.lines().any(|line| line.split(' ').nth(4) == Some(&written))
}

/// Where links in the data lead.
fn linked(home: &Home) -> Vec<PathBuf> {
    let data = home.data();
    let mut targets = Vec::new();
    for folder in [data.join("pg_tblspc"), data] {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        targets.extend(entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()));
    }
    targets.sort_unstable();
    targets
}

fn remove_tree(home: &Home, path: &Path) -> Result<(), EmbeddedError> {
    // Removes links, and what they lead to never.
    match home.place().hand().run(|| fs::remove_dir_all(path)) {
        Err(error) if !is_missing(&error) => Err(EmbeddedError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn refuse_users(home: &Home, spools: &Spools) -> Result<(), EmbeddedError> {
    let mut pids = home.users()?.unwrap_or_default();
    pids.extend(spools.leaving(&home.socket_dir()?)?.users);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_known_by_its_line_in_the_systems_table_with_blanks_in_its_name_too() {
        let table = "36 35 98:0 /data /my\\040data/postgres rw,noatime master:1 - ext4 /dev/sda1 rw\n\
                     37 35 98:0 / /other rw - ext4 /dev/sda1 rw\n";
        assert!(is_mount(table, Path::new("/my data/postgres")));
        assert!(is_mount(table, Path::new("/other")));
        assert!(!is_mount(table, Path::new("/my data")));
        assert!(!is_mount(table, Path::new("/data")), "what is mounted, not where");
    }
}
