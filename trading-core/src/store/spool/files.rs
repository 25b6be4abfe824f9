//! The spool's files and folders: for their owner's eyes only, never through a link, and there after a power cut.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::{Gid, Uid, fchown, geteuid};

use super::SpoolError;

/// How a segment's name ends.
const SEGMENT: &str = "segment";
/// How the name of one ends that was set aside.
pub(super) const DAMAGED: &str = "damaged";

/// Makes files and folders.
#[derive(Debug, Clone, Copy)]
pub(super) struct Files {
    /// Root works in another user's directory, who will want to use the spool later.
    owner: Option<(u32, u32)>,
}

impl Files {
    /// Makes the spool's folder where it is missing.
    pub(super) fn at(dir: &Path) -> Result<Self, SpoolError> {
        let exists = dir.is_dir();
        if !exists {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(SpoolError::io("make", dir))?;
        }
        let above = if exists { dir } else { above(dir) };
        let about = fs::metadata(above).map_err(SpoolError::io("read", above))?;
        let owner = (geteuid().is_root() && about.uid() != 0).then(|| (about.uid(), about.gid()));
        let files = Self { owner };
        if !exists {
            files.give(dir)?;
            sync_folder(above)?;
        }
        Ok(files)
    }

    /// Makes a folder, durably, where it is missing.
    pub(super) fn make_folder(self, folder: &Path) -> Result<(), SpoolError> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => {
                self.give(folder)?;
                sync_folder(folder.parent().unwrap_or(folder))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(SpoolError::io("make", folder)(error)),
        }
    }

    /// Opens a lock file, made where it is missing.
    pub(super) fn open_lock(self, path: &Path) -> Result<File, SpoolError> {
        self.open(path, OpenOptions::new().read(true).write(true).create(true))
            .map_err(SpoolError::io("open", path))
    }

    /// Makes a file that was not there.
    pub(super) fn create(self, path: &Path) -> io::Result<File> {
        self.open(path, OpenOptions::new().write(true).create_new(true))
    }

    fn open(self, path: &Path, options: &mut OpenOptions) -> io::Result<File> {
        let file = options.mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)?;
        if let Some((uid, gid)) = self.owner {
            fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        Ok(file)
    }

    fn give(self, path: &Path) -> Result<(), SpoolError> {
        self.owner.map_or(Ok(()), |(uid, gid)| {
            chown(path, Some(uid), Some(gid)).map_err(SpoolError::io("give to its user", path))
        })
    }
}

/// The folder that holds this one; that of `spool` is the working directory.
fn above(dir: &Path) -> &Path {
    match dir.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => dir,
    }
}

/// Makes durable what names a folder holds.
pub(super) fn sync_folder(folder: &Path) -> Result<(), SpoolError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(SpoolError::io("sync", folder))
}

/// The path of a segment.
pub(super) fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.{SEGMENT}"))
}

/// What a slot's folder holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Segments by number.
    pub(super) segments: Vec<(u64, PathBuf)>,
    /// Segments that were set aside.
    pub(super) damaged: Vec<PathBuf>,
    /// A number that no file has had.
    pub(super) next: u64,
}

/// Lists a slot's folder. Other files are left alone.
pub(super) fn list(folder: &Path) -> Result<Listing, SpoolError> {
    let mut listing = Listing { next: 1, ..Listing::default() };
    for path in entries(folder)? {
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        let Some(number) = number else { continue };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(SEGMENT) => listing.segments.push((number, path)),
            Some(DAMAGED) => listing.damaged.push(path),
            _ => continue,
        }
        listing.next = listing.next.max(number.saturating_add(1));
    }
    listing.segments.sort_unstable();
    listing.damaged.sort_unstable();
    Ok(listing)
}

/// The folders of the slots, by number.
pub(super) fn slot_folders(dir: &Path) -> Result<Vec<(u32, PathBuf)>, SpoolError> {
    let mut folders: Vec<(u32, PathBuf)> = entries(dir)?
        .into_iter()
        .filter(|path| path.is_dir())
        .filter_map(|path| Some((path.file_name()?.to_str()?.parse().ok()?, path)))
        .collect();
    folders.sort_unstable();
    Ok(folders)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, SpoolError> {
    fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(SpoolError::io("list", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_one_name_lies_in_the_working_directory() {
        let cases = [("spool", "."), ("var/spool", "var"), ("/spool", "/"), ("/", "/")];
        for (dir, expected) in cases {
            assert_eq!(above(Path::new(dir)), Path::new(expected), "{dir}");
        }
    }
}
