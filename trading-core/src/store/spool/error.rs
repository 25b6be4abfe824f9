//! What can go wrong with the spool, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;

use crate::store::folder::{Shut, as_user, user_name};

/// The spool did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// One more batch would pass `spool.max_bytes`.
    #[error("the spool is full: {} of {} are taken", ByteSize(*bytes), ByteSize(*max_bytes))]
    Full {
        /// Bytes taken.
        bytes: u64,
        /// Bytes allowed.
        max_bytes: u64,
    },
    /// The disk failed, or has no room.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It belongs to another user.
    #[error(
        "{} belongs to the user {}: ask as that user, `{}`, or as root",
        dir.display(), user_name(*owner), as_user(*owner)
    )]
    NotOurs {
        /// The spool.
        dir: PathBuf,
        /// Whose it is, by number.
        owner: u32,
    },
    /// More processes, or databases, than it has slots for.
    #[error("all {} slots of the spool {} are taken: give this recorder another spool.dir", super::SLOTS_MAX, .0.display())]
    Crowded(PathBuf),
    /// The platform names no data directory for this user.
    #[error("this user has no home directory to keep the spool in; set spool.dir")]
    NoHome,
    /// One tick is larger than a record may be.
    #[error("a tick of {0} bytes is larger than a block of the spool may be")]
    TooLarge(usize),
}

impl SpoolError {
    /// Whether a file may not grow any further, though the disk has room.
    pub(super) fn is_file_limit(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::FileTooLarge)
    }

    /// What the system said, where it said something.
    pub(super) fn cause(&self) -> String {
        match self {
            Self::Io { source, .. } => source.to_string(),
            other => other.to_string(),
        }
    }

    /// What its operator can do about a disk that does not take more; empty where nobody knows.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        let Self::Io { source, .. } = self else { return "" };
        match source.kind() {
            io::ErrorKind::StorageFull => "; make room on that disk",
            io::ErrorKind::QuotaExceeded => "; raise this user's quota on that disk, or make room",
            io::ErrorKind::FileTooLarge => {
                "; raise the limit of a file's size (`ulimit -f`, LimitFSIZE=)"
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                "; that disk can only be read: mount it for writing"
            }
            io::ErrorKind::PermissionDenied => "; let this user write there",
            _ => "; look at that disk",
        }
    }

    /// Wraps what the system said of the spool's folder. Where another user keeps us out, that is said.
    pub(super) fn at(dir: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let dir = dir.to_owned();
        move |source| {
            let is_denied = source.kind() == io::ErrorKind::PermissionDenied;
            match is_denied.then(|| Shut::on_the_way_to(&dir)).flatten() {
                Some(Shut { owner, .. }) => Self::NotOurs { dir, owner },
                None => Self::Io { what: "use", path: dir, source },
            }
        }
    }

    /// Wraps what the system said.
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
