//! Who runs the server: never root.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{User, geteuid};

use super::EmbeddedError;
use crate::store::folder::{Hand, user_name};

/// What runs the server for root where there is no user `postgres`.
const NOBODY: u32 = 65_534;

/// Who runs the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Servant {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// We are root and step down to this user.
    pub(super) step_down: bool,
}

impl Servant {
    /// The user of this process.
    pub(super) fn of_this_process() -> Self {
        Self { uid: geteuid().as_raw(), gid: nix::unistd::getegid().as_raw(), step_down: false }
    }

    /// The user `postgres`, else nobody.
    fn unprivileged() -> Self {
        match User::from_name("postgres") {
            Ok(Some(user)) if !user.uid.is_root() => {
                Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), step_down: true }
            }
            _ => Self { uid: NOBODY, gid: NOBODY, step_down: true },
        }
    }

    fn name(self) -> String {
        user_name(self.uid)
    }

    /// With these rights what is the server's is touched.
    pub(super) fn hand(self) -> Hand {
        if self.step_down { Hand::of(self.uid, self.gid) } else { Hand::default() }
    }
}

/// Whose the server will be: an unprivileged caller's; under root the data's owner, else the directory's, else
/// `postgres` or nobody.
pub(super) fn servant_for(folder: &Path, owner: (u32, u32)) -> Result<Servant, EmbeddedError> {
    let data = folder.join("postgres");
    let data_owner = fs::symlink_metadata(&data).ok().map(|about| (about.uid(), about.gid()));
    let process = Servant::of_this_process();
    if process.uid == 0 {
        let known = [data_owner, Some(owner)].into_iter().flatten().find(|(uid, _)| *uid != 0);
        return Ok(known.map_or_else(Servant::unprivileged, |(uid, gid)| Servant {
            uid,
            gid,
            step_down: true,
        }));
    }
    let foreign =
        |owner: u32, folder: &Path| EmbeddedError::NotOurs { folder: folder.to_owned(), owner };
    match data_owner {
        // Root's directory with data of the user who runs the server for root: root is to be asked.
        Some((uid, _)) if uid != process.uid && owner.0 != process.uid => {
            Err(foreign(owner.0, folder))
        }
        Some((uid, _)) if uid != process.uid => Err(foreign(uid, &data)),
        None if owner.0 != process.uid => Err(foreign(owner.0, folder)),
        _ => Ok(process),
    }
}

/// Names the first folder on the way that the server's user may not enter.
pub(super) fn refuse_shut_folders(folder: &Path, servant: Servant) -> Result<(), EmbeddedError> {
    for folder in folder.ancestors() {
        let about = fs::metadata(folder).map_err(EmbeddedError::io("read", folder))?;
        let enter = match (about.uid() == servant.uid, about.gid() == servant.gid) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        if about.mode() & enter == 0 {
            let mode = about.mode() & 0o7777;
            let folder = folder.to_owned();
            return Err(EmbeddedError::Unreachable { user: servant.name(), folder, mode });
        }
    }
    Ok(())
}
