//! Who writes where: each process has a slot of its own, and takes over those that dead ones left.
//!
//! A slot is a folder with a lock that the kernel releases when its process dies, however it dies. Whoever opens the
//! spool claims every file that waits for the same database in a slot that nobody holds. A file says itself for which
//! database it waits; where it no longer can, the other files of its slot do.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::block::Spooled;
use super::files::{self, FILES_MAX, Listing, Skipped, Slots, skip};
use super::segment::{Beginning, Reader};
use super::{SLOTS_MAX, SpoolError};
use crate::store::folder::{Folder, holders, is_missing};

/// Held for a moment by who claims slots, or looks which are held: so that a look is never taken for a recorder.
const CLAIMS: &str = "claims.lock";
/// Held by the process that a slot belongs to.
const LOCK: &str = "slot.lock";
/// For the eyes and hands of its user only.
const PRIVATE: u32 = 0o700;

/// A slot that is ours until this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) folder: Folder,
    lock: File,
    /// The number of the next segment.
    pub(super) next: u64,
}

impl Slot {
    /// Whether the slot is still the place that its path names, and nobody else can take it for a dead one's.
    pub(super) fn is_in_place(&self) -> bool {
        let is_named = self.folder.holds(LOCK, &self.lock);
        self.folder.is_in_place() && (is_named || self.folder.holds(".", &self.lock))
    }
}

impl Drop for Slot {
    /// Released by name: a child that another thread is starting may hold a copy of the file for a moment.
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            let slot = self.folder.path().display();
            warn!(%error, %slot, "A slot of the spool was not released");
        }
    }
}

/// What was claimed.
#[derive(Debug, Default)]
pub(super) struct Claimed {
    /// Ours; there is at least one, and new batches are written to the first.
    pub(super) slots: Vec<(Slot, Vec<Waiting>)>,
    /// Of other databases, in slots that nobody holds.
    pub(super) foreign: Vec<Foreign>,
    /// What could not be used.
    pub(super) skipped: Vec<Skipped>,
}

/// A file of a claimed slot that waits for our database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) name: String,
    /// No later file of its slot is known: a crash may have cut it short.
    pub(super) is_newest: bool,
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

/// Part of a slot that waits for another database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// The slot's folder.
    pub folder: PathBuf,
    /// What names that database.
    pub database: String,
}

/// Claims what waits for this database in slots that nobody holds, and a place for new batches. With `salvage` also what
/// was set aside, and what no longer says for which database it waits.
pub(super) fn claim<R: Spooled>(
    dir: &Folder,
    names: &SpoolNames,
    salvage: bool,
) -> Result<Claimed, SpoolError> {
    let _claims = lock_claims(dir)?;
    let Slots { folders, skipped } = files::slots(dir)?;
    let mut claimed = Claimed { skipped, ..Claimed::default() };
    let (mut spare, mut place) = (None, None);
    for (_, folder) in folders {
        let path = folder.path().to_owned();
        match claim_one::<R>(folder, names, salvage, &mut claimed) {
            Ok(Some((slot, files, is_ours_alone))) => match (files.is_empty(), is_ours_alone) {
                (true, true) => spare = spare.or(Some(slot)),
                (true, false) => {}
                (false, _) => {
                    if is_ours_alone && place.is_none() {
                        place = Some(claimed.slots.len());
                    }
                    claimed.slots.push((slot, files));
                }
            },
            Ok(None) => {}
            Err(error) => skip(&mut claimed.skipped, path, error),
        }
    }
    match (place, spare) {
        (Some(place), _) => claimed.slots.swap(0, place),
        (None, Some(spare)) => claimed.slots.insert(0, (spare, Vec::new())),
        (None, None) => claimed.slots.insert(0, (new_slot(dir)?, Vec::new())),
    }
    Ok(claimed)
}

/// A new place for batches, where the one that we had is gone.
pub(super) fn claim_new(dir: &Folder) -> Result<Slot, SpoolError> {
    let _claims = lock_claims(dir)?;
    new_slot(dir)
}

/// The slot, its files that wait for this database, and whether there is nothing else in it; `None`: another process
/// holds it.
fn claim_one<R: Spooled>(
    folder: Folder,
    names: &SpoolNames,
    salvage: bool,
    claimed: &mut Claimed,
) -> io::Result<Option<(Slot, Vec<Waiting>, bool)>> {
    let Some(mut slot) = try_hold(folder)? else { return Ok(None) };
    let listing = files::list(&slot.folder, FILES_MAX).map_err(io::Error::other)?;
    slot.next = listing.next;
    let mut judged = judge::<R>(&slot.folder, listing, names, salvage);
    let is_ours_alone = judged.foreign.is_empty() && judged.skipped.is_empty();
    claimed.foreign.append(&mut judged.foreign);
    for one in judged.skipped {
        skip(&mut claimed.skipped, one.path, one.why);
    }
    Ok(Some((slot, judged.ours, is_ours_alone)))
}

/// What is in a slot, file by file.
#[derive(Debug, Default)]
struct Judged {
    ours: Vec<Waiting>,
    foreign: Vec<Foreign>,
    skipped: Vec<Skipped>,
}

fn judge<R: Spooled>(
    folder: &Folder,
    listing: Listing,
    names: &SpoolNames,
    salvage: bool,
) -> Judged {
    let Listing { segments, damaged, skipped, .. } = listing;
    let mut judged = Judged { skipped, ..Judged::default() };
    let (mut nameless, mut named) = (Vec::new(), Vec::new());
    let newest = segments.last().map(|(_, name)| name.clone());
    let aside = damaged.into_iter().map(|name| (name, true));
    let segments = segments.into_iter().map(|(_, name)| (name, false));
    for (name, is_aside) in aside.chain(segments) {
        let is_newest = newest.as_ref() == Some(&name);
        let is_wanted = salvage || !is_aside;
        let path = folder.path().join(&name);
        let beginning = Reader::<R>::open(folder, &name).and_then(|reader| reader.beginning());
        let ours = Waiting { name, is_newest };
        match beginning {
            Ok(Beginning::Head { head, .. }) => {
                if is_wanted && names.hold(&head.database) {
                    judged.ours.push(ours);
                } else if is_wanted {
                    let folder = folder.path().to_owned();
                    let foreign = Foreign { folder, database: head.database.clone() };
                    if !judged.foreign.contains(&foreign) {
                        judged.foreign.push(foreign);
                    }
                }
                if named.len() < FILES_MAX && !named.contains(&head.database) {
                    named.push(head.database);
                }
            }
            Ok(Beginning::Torn) if is_wanted => judged.ours.push(ours),
            Ok(Beginning::Lost) if is_wanted => nameless.push(ours),
            _ if !is_wanted => {}
            Ok(Beginning::Unknown(why)) => skip(&mut judged.skipped, path, why),
            Err(error) if is_missing(&error) => {}
            Err(error) => skip(&mut judged.skipped, path, error),
            Ok(_) => {}
        }
    }
    let all_ours = !named.is_empty() && named.iter().all(|name| names.hold(name));
    for file in nameless {
        if all_ours || salvage {
            judged.ours.push(file);
        } else {
            let path = folder.path().join(file.name);
            skip(&mut judged.skipped, path, NAMELESS);
        }
    }
    judged
}

/// Why a file waits.
const NAMELESS: &str = "its head cannot be read, and no other file beside it says for which database it waits; \
     `trading-core spool drain --damaged` stores what can be read of it in the database of the settings";

fn new_slot(dir: &Folder) -> Result<Slot, SpoolError> {
    let mut last = None;
    for number in 1..=SLOTS_MAX {
        let name = number.to_string();
        // What is there was looked at, and is held or not for us.
        if dir.has(&name) {
            continue;
        }
        let made = dir.make_subfolder(&name, PRIVATE);
        match made.and_then(|folder| Ok((try_hold(folder.clone())?, folder))) {
            Ok((Some(mut slot), folder)) => {
                slot.next = files::list(&folder, FILES_MAX)?.next;
                return Ok(slot);
            }
            Ok((None, _)) => {}
            Err(error) => {
                last = Some(SpoolError::io("make", &dir.path().join(name))(error));
                break;
            }
        }
    }
    Err(last.unwrap_or_else(|| SpoolError::Crowded(dir.path().to_owned())))
}

/// Takes a slot unless another process holds it.
fn try_hold(folder: Folder) -> io::Result<Option<Slot>> {
    let lock = open_lock(&folder, LOCK)?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(Slot { folder, lock, next: 1 })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A lock file, made where it is missing. Where something else has its name, the folder itself is what is locked.
fn open_lock(folder: &Folder, name: &str) -> io::Result<File> {
    folder.open_or_create(name).or_else(|_unusable| folder.as_file())
}

/// The same for who only looks, and makes nothing; `None`: it is not there.
fn find_lock(folder: &Folder, name: &str) -> io::Result<Option<File>> {
    match folder.read(name) {
        Ok(file) => Ok(Some(file)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(_unusable) => folder.as_file().map(Some),
    }
}

/// Waits for the right to claim slots: nobody has it for longer than a moment.
fn lock_claims(dir: &Folder) -> Result<File, SpoolError> {
    let lock = || {
        let file = open_lock(dir, CLAIMS)?;
        file.lock()?;
        Ok(file)
    };
    lock().map_err(SpoolError::io("lock", &dir.path().join(CLAIMS)))
}

/// Which slots a living process holds. Makes nothing.
pub(super) fn held(dir: &Folder, folders: &[(u32, Folder)]) -> Result<Vec<bool>, SpoolError> {
    let claims = dir.path().join(CLAIMS);
    let _claims = find_lock(dir, CLAIMS)
        .and_then(|file| {
            file.iter().try_for_each(File::lock)?;
            Ok(file)
        })
        .map_err(SpoolError::io("lock", &claims))?;
    Ok(folders.iter().map(|(_, folder)| is_held(folder).unwrap_or_default()).collect())
}

fn is_held(folder: &Folder) -> io::Result<bool> {
    let Some(lock) = find_lock(folder, LOCK)? else { return Ok(false) };
    match lock.try_lock() {
        Ok(()) => lock.unlock().map(|()| false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The processes that hold a slot; `None`: nobody does.
pub(super) fn users(folder: &Folder) -> Option<Vec<i32>> {
    if !is_held(folder).unwrap_or_default() {
        return None;
    }
    let lock = find_lock(folder, LOCK).ok().flatten();
    Some(lock.map(|lock| holders(&lock)).unwrap_or_default())
}

/// Takes a slot that is to be removed.
pub(super) fn hold(folder: &Folder) -> io::Result<Slot> {
    let in_use = || io::Error::other("a running trading-core uses it");
    try_hold(folder.clone())?.ok_or_else(in_use)
}

/// Removes a slot that we hold, where nothing but its lock is in it, and says whether that was so.
pub(super) fn remove_empty(dir: &Folder, number: u32, slot: &Folder) -> io::Result<bool> {
    let mut is_empty = true;
    slot.names(|name| is_empty &= name == LOCK)?;
    if !is_empty {
        return Ok(false);
    }
    slot.remove(LOCK)?;
    dir.remove_subfolder(&number.to_string())?;
    Ok(true)
}

/// Removes what is left of a spool without slots.
pub(super) fn remove_claims(dir: &Folder) -> io::Result<()> {
    let mut ours = Vec::new();
    dir.names(|name| {
        if name == CLAIMS || name.ends_with(".database.staging") {
            ours.push(name.to_owned());
        }
    })?;
    ours.iter().try_for_each(|name| dir.remove(name))
}

/// Opens the spool's folder, made where it is missing.
pub(super) fn open_dir(dir: &Path) -> Result<Folder, SpoolError> {
    Folder::open_or_make(dir, PRIVATE).map_err(SpoolError::at(dir))
}
