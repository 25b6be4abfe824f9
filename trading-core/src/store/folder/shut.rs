//! Whose folder it is that we may not enter: a database of another user is told from one that is not there.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, Uid, access, geteuid};

/// A folder that this process may not enter or list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shut {
    /// The first such folder on the way.
    pub(crate) folder: PathBuf,
    /// Who can let us in.
    pub(crate) owner: u32,
}

impl Shut {
    /// What keeps this process from listing `folder`; `None`: nothing does, or it is not there.
    pub(crate) fn on_the_way_to(folder: &Path) -> Option<Self> {
        let folder = std::path::absolute(folder).ok()?;
        let mut way: Vec<&Path> = folder.ancestors().collect();
        way.reverse();
        let is_shut = |path: &&Path| {
            let is_end = **path == *folder;
            let wanted =
                if is_end { AccessFlags::X_OK | AccessFlags::R_OK } else { AccessFlags::X_OK };
            access(*path, wanted) == Err(Errno::EACCES)
        };
        let shut = way.into_iter().find(is_shut)?;
        let owner = fs::metadata(shut).ok()?.uid();
        Some(Self { folder: shut.to_owned(), owner })
    }
}

/// How a command is run as this user, as a shell takes it.
pub(crate) fn as_user(uid: u32) -> String {
    let uid = Uid::from_raw(uid);
    if uid == geteuid() {
        return "trading-core …".to_owned();
    }
    // -E keeps the settings of the environment.
    match nix::unistd::User::from_uid(uid) {
        _ if uid.is_root() => "sudo -E trading-core …".to_owned(),
        Ok(Some(user)) => format!("sudo -E -u {} trading-core …", user.name),
        _ => format!("sudo -E -u '#{uid}' trading-core …"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_or_is_not_there_is_not_shut() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Shut::on_the_way_to(folder.path()), None);
        assert_eq!(Shut::on_the_way_to(&folder.path().join("no/such")), None);
    }

    #[test]
    fn a_command_names_its_user_by_name_or_number() {
        assert_eq!(as_user(geteuid().as_raw()), "trading-core …");
        assert_eq!(as_user(47_116), "sudo -E -u '#47116' trading-core …");
    }
}
