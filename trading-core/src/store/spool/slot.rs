//! Who writes where: each process has a slot of its own, and takes over those that dead ones left.
//!
//! A slot is a folder with a lock that the kernel releases when its process dies, however it dies. Whoever opens the
//! spool claims every slot that nobody holds and that waits for the same database.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::files::{self, Files, Listing};
use super::segment::{Beginning, Reader};
use super::{SLOTS_MAX, SpoolError};

/// Held for a moment by who claims slots, or looks which are held: so that a look is never taken for a recorder.
const CLAIMS: &str = "claims.lock";
/// Held by the process that a slot belongs to.
const LOCK: &str = "slot.lock";

/// A slot that is ours until this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) folder: PathBuf,
    lock: File,
    /// The number of the next segment.
    pub(super) next: u64,
}

impl Drop for Slot {
    /// Released by name: a child that another thread is starting may hold a copy of the file for a moment.
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            warn!(%error, slot = %self.folder.display(), "A slot of the spool was not released");
        }
    }
}

/// What was claimed.
#[derive(Debug)]
pub(super) struct Claimed {
    /// Ours; there is at least one.
    pub(super) slots: Vec<(Slot, Listing)>,
    /// Slots that nobody holds, of other databases.
    pub(super) foreign: Vec<Foreign>,
}

/// Whose batches are claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolNames {
    /// What names the database: new batches are written for it.
    pub database: String,
    /// Other names whose batches are stored in it too: it was called so before, or its user said so.
    pub also: Vec<String>,
}

impl SpoolNames {
    fn hold(&self, name: &str) -> bool {
        self.database == name || self.also.iter().any(|other| other == name)
    }
}

impl From<String> for SpoolNames {
    fn from(database: String) -> Self {
        Self { database, also: Vec::new() }
    }
}

impl From<&str> for SpoolNames {
    fn from(database: &str) -> Self {
        database.to_owned().into()
    }
}

/// A slot that waits for another database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Its folder.
    pub folder: PathBuf,
    /// What names that database.
    pub database: String,
}

/// Claims every slot that nobody holds and that waits for this database; a new one where there is none.
pub(super) fn claim(files: Files, dir: &Path, names: &SpoolNames) -> Result<Claimed, SpoolError> {
    let _claims = lock_claims(files, dir)?;
    let mut claimed = Claimed { slots: Vec::new(), foreign: Vec::new() };
    let mut spare = None;
    let folders = files::slot_folders(dir)?;
    for (_, folder) in &folders {
        let Some(slot) = try_hold(files, folder)? else { continue };
        let listing = files::list(folder)?;
        match other_database(&listing, names)? {
            Some(database) => {
                claimed.foreign.push(Foreign { folder: folder.clone(), database });
            }
            None if listing.segments.is_empty() => {
                spare = spare.or(Some((slot, listing)));
            }
            None => claimed.slots.push((slot, listing)),
        }
    }
    if claimed.slots.is_empty() {
        let (slot, listing) = match spare {
            Some(spare) => spare,
            None => new_slot(files, dir, &folders)?,
        };
        claimed.slots.push((slot, listing));
    }
    for (slot, listing) in &mut claimed.slots {
        slot.next = listing.next;
    }
    Ok(claimed)
}

fn new_slot(
    files: Files,
    dir: &Path,
    taken: &[(u32, PathBuf)],
) -> Result<(Slot, Listing), SpoolError> {
    let free = (1..=SLOTS_MAX).find(|number| !taken.iter().any(|(other, _)| other == number));
    let number = free.ok_or_else(|| SpoolError::Crowded(dir.to_owned()))?;
    let folder = dir.join(number.to_string());
    files.make_folder(&folder)?;
    let slot = try_hold(files, &folder)?.ok_or_else(|| SpoolError::Crowded(dir.to_owned()))?;
    Ok((slot, files::list(&folder)?))
}

/// Takes a slot unless another process holds it.
fn try_hold(files: Files, folder: &Path) -> Result<Option<Slot>, SpoolError> {
    let path = folder.join(LOCK);
    let lock = files.open_lock(&path)?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(Slot { folder: folder.to_owned(), lock, next: 1 })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(SpoolError::io("lock", &path)(error)),
    }
}

/// The first database named in a slot that is not this one.
fn other_database(listing: &Listing, names: &SpoolNames) -> Result<Option<String>, SpoolError> {
    for (_, path) in &listing.segments {
        let beginning = Reader::open(path).and_then(|reader| reader.beginning());
        if let Beginning::Head(head, _) = beginning.map_err(SpoolError::io("read", path))?
            && !names.hold(&head.database)
        {
            return Ok(Some(head.database));
        }
    }
    Ok(None)
}

/// Waits for the right to claim slots: nobody has it for longer than a moment.
fn lock_claims(files: Files, dir: &Path) -> Result<File, SpoolError> {
    let path = dir.join(CLAIMS);
    let file = files.open_lock(&path)?;
    file.lock().map_err(SpoolError::io("lock", &path))?;
    Ok(file)
}

/// Which slots a living process holds. Makes nothing.
pub(super) fn held(dir: &Path, folders: &[(u32, PathBuf)]) -> Result<Vec<bool>, SpoolError> {
    let claims = dir.join(CLAIMS);
    let _claims = match File::open(&claims) {
        Ok(file) => {
            file.lock().map_err(SpoolError::io("lock", &claims))?;
            Some(file)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(SpoolError::io("open", &claims)(error)),
    };
    folders.iter().map(|(_, folder)| is_held(&folder.join(LOCK))).collect()
}

fn is_held(path: &Path) -> Result<bool, SpoolError> {
    let lock = match File::open(path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(SpoolError::io("open", path)(error)),
    };
    match lock.try_lock() {
        Ok(()) => lock.unlock().map(|()| false).map_err(SpoolError::io("unlock", path)),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(SpoolError::io("lock", path)(error)),
    }
}
