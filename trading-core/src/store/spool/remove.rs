//! `db remove`: what waits for a database that is thrown away goes with it; what waits for another one stays.

use std::path::Path;

use super::files::{self, FILES_MAX};
use super::segment::{Beginning, Reader};
use super::{SpoolError, slot};
use crate::domain::Tick;
use crate::store::folder::{Folder, is_missing};

/// How the name of a file ends that notes which database lies at an address.
const KNOWN: &str = ".database";

/// What lies in a spool, as `db remove` sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaving {
    /// Ticks that wait for the database that is to go.
    pub ticks: u64,
    /// Ticks that wait for others, or nobody knows for whom.
    pub left: u64,
    /// Processes that use it; 0 where that is not known.
    pub users: Vec<i32>,
}

/// Counts what would go with the databases that lie, or lay, at this socket. A folder that is not there holds nothing.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn leaving(dir: &Path, socket_dir: &Path) -> Result<Leaving, SpoolError> {
    let mut leaving = Leaving::default();
    let folder = match Folder::open(dir) {
        Ok(folder) => folder,
        Err(error) if is_missing(&error) => return Ok(leaving),
        Err(error) => return Err(SpoolError::at(dir)(error)),
    };
    let names = Names::at(&folder, socket_dir)?;
    for (_, slot) in files::slots(&folder)?.folders {
        if let Some(mut holders) = slot::users(&slot) {
            holders.extend(holders.is_empty().then_some(0));
            leaving.users.append(&mut holders);
        }
        for (_, is_ours, ticks) in names.judged(&slot)? {
            *if is_ours { &mut leaving.ticks } else { &mut leaving.left } += ticks;
        }
    }
    Ok(leaving)
}

/// Removes what waits for the databases at this socket, and what the spool consists of where nothing else is in it.
///
/// # Errors
///
/// When a file cannot be removed, or a process uses the spool again.
pub fn remove(dir: &Path, socket_dir: &Path) -> Result<(), SpoolError> {
    let folder = match Folder::open(dir) {
        Ok(folder) => folder,
        Err(error) if is_missing(&error) => return Ok(()),
        Err(error) => return Err(SpoolError::at(dir)(error)),
    };
    let names = Names::at(&folder, socket_dir)?;
    let mut is_empty = true;
    for (number, slot) in files::slots(&folder)?.folders {
        let path = slot.path().to_owned();
        let failed = |error| SpoolError::io("remove", &path)(error);
        let held = slot::hold(&slot).map_err(failed)?;
        // One look lists no more than so many files.
        loop {
            let mut ours = names.judged(&slot)?;
            ours.retain(|(_, is_ours, _)| *is_ours);
            if ours.is_empty() {
                break;
            }
            for (name, ..) in ours {
                slot.remove(&name).map_err(failed)?;
            }
        }
        is_empty &= slot::remove_empty(&folder, number, &slot).map_err(failed)?;
        drop(held);
    }
    for name in &names.files {
        folder.remove(name).map_err(SpoolError::io("remove", &dir.join(name)))?;
    }
    if is_empty {
        slot::remove_claims(&folder).map_err(SpoolError::io("remove", dir))?;
    }
    Ok(())
}

/// What names the databases at one socket.
struct Names {
    /// As the spool knows them.
    names: Vec<String>,
    /// The files that say so.
    files: Vec<String>,
    /// How the name begins of one that was never seen there.
    unseen: String,
}

impl Names {
    fn at(folder: &Folder, socket_dir: &Path) -> Result<Self, SpoolError> {
        let socket = format!("@{}:", socket_dir.display());
        let mut noted = Vec::new();
        let each = |name: &str| noted.extend(name.ends_with(KNOWN).then(|| name.to_owned()));
        folder.names(each).map_err(SpoolError::io("list", folder.path()))?;
        let mut own = Self { names: Vec::new(), files: Vec::new(), unseen: String::new() };
        for file in noted {
            let Some((address, name)) = super::known::noted(folder, &file) else { continue };
            if address.contains(&socket) {
                own.names.push(name);
                own.files.push(file);
            }
        }
        own.unseen = socket;
        Ok(own)
    }

    fn hold(&self, name: &str) -> bool {
        let is_unseen = name.starts_with("the first at ") && name.contains(&self.unseen);
        is_unseen || self.names.iter().any(|own| own == name)
    }

    /// The files of a slot: each with whether it goes, and the ticks in it.
    fn judged(&self, slot: &Folder) -> Result<Vec<(String, bool, u64)>, SpoolError> {
        let listing = files::list(slot, FILES_MAX)?;
        let files = listing.segments.into_iter().map(|(_, name)| name).chain(listing.damaged);
        let judge = |name: String| {
            let failed = SpoolError::io("read", &slot.path().join(&name));
            let judged = match Reader::<Tick>::open(slot, &name) {
                Ok(reader) => reader.beginning().and_then(|beginning| match beginning {
                    Beginning::Head { head, first, .. } => {
                        Ok((self.hold(&head.database), reader.contents(first)?.records))
                    }
                    Beginning::Torn => Ok((true, 0)),
                    Beginning::Unknown(_) => Ok((false, 0)),
                    Beginning::Lost => Ok((false, reader.contents(0)?.records)),
                }),
                Err(error) => Err(error),
            };
            judged.map(|(is_ours, ticks)| (name, is_ours, ticks)).map_err(failed)
        };
        files.map(judge).collect()
    }
}
