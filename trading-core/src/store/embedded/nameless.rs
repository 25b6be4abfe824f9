//! `initdb` asks what the user is called that runs it, and ends where that user has only a number: in a container with a
//! number of its caller's choice (`docker run --user`, `runAsUser`, OpenShift), or under systemd's `DynamicUser=` without
//! `libnss-systemd`. The server itself does not ask. So `initdb` alone is given a name.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User};

use super::home::Home;
use super::{EmbeddedError, USER};
use crate::store::folder::Folder;

/// The library of cwrap.org that answers for the user database.
const WRAPPER: &str = "libnss_wrapper.so";
/// Where libraries are; on Debian and Ubuntu one folder further down.
const LIBRARIES: [&str; 5] = ["/usr/lib64", "/usr/lib", "/lib64", "/lib", "/usr/local/lib"];
/// Users that every system has, and that are not root.
const NAMED: [&str; 4] = ["nobody", "postgres", "daemon", "bin"];

/// How `initdb` comes to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// The user has one.
    Own,
    /// This library says that it has.
    Wrapper(PathBuf),
    /// In a user namespace it is this user. The files are its own all the same.
    Namespace(Uid),
}

impl Name {
    /// For the user that the server runs as.
    ///
    /// # Errors
    ///
    /// When it has none, and nothing here can give it one. Nothing was made then.
    pub(super) fn find(home: &Home) -> Result<Self, EmbeddedError> {
        let uid = home.server_uid();
        // An error means that the user database does not answer: initdb says so itself.
        if !matches!(User::from_uid(Uid::from_raw(uid)), Ok(None)) {
            return Ok(Self::Own);
        }
        if let Some(library) = wrapper() {
            return Ok(Self::Wrapper(library));
        }
        let named = |name: &&str| User::from_name(name).ok().flatten().map(|user| user.uid);
        let inside = NAMED.iter().find_map(named).filter(|inside| !inside.is_root());
        match inside {
            Some(inside) if may_unshare(home, inside) => Ok(Self::Namespace(inside)),
            _ => Err(EmbeddedError::Nameless { uid }),
        }
    }

    /// The command that runs `initdb`; what it needs is written into `staging`.
    pub(super) fn command(
        &self,
        home: &Home,
        initdb: &Path,
        staging: &Path,
    ) -> io::Result<Command> {
        match self {
            Self::Own => Ok(home.command(initdb)),
            Self::Wrapper(library) => {
                let place = Folder::open(staging)?;
                let (uid, root) = (home.server_uid(), staging.display());
                let write = |name: &str, line: String| -> io::Result<PathBuf> {
                    place.create(name)?.write_all(line.as_bytes())?;
                    Ok(staging.join(name))
                };
                let passwd = write("passwd", format!("{USER}:x:{uid}:{uid}::{root}:/bin/sh\n"))?;
                let group = write("group", format!("{USER}:x:{uid}:\n"))?;
                let mut command = home.command(initdb);
                command.env("LD_PRELOAD", library);
                command.env("NSS_WRAPPER_PASSWD", passwd).env("NSS_WRAPPER_GROUP", group);
                Ok(command)
            }
            Self::Namespace(inside) => {
                let mut command = unshare(home, *inside);
                command.arg(initdb);
                Ok(command)
            }
        }
    }
}

fn unshare(home: &Home, inside: Uid) -> Command {
    let mut command = home.command(Path::new("unshare"));
    command.args(["--user", &format!("--map-user={inside}"), "--"]);
    command
}

/// Containers, and systemd's `RestrictNamespaces=`, often do not allow it.
fn may_unshare(home: &Home, inside: Uid) -> bool {
    let mut command = unshare(home, inside);
    command.arg("true").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn wrapper() -> Option<PathBuf> {
    let below = |folder: &str| -> Vec<PathBuf> {
        let inside = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let multiarch = |path: &PathBuf| path.to_string_lossy().contains("-linux-");
        let inside = inside.map(|entry| entry.path()).filter(multiarch);
        std::iter::once(PathBuf::from(folder)).chain(inside).collect()
    };
    let folders = LIBRARIES.into_iter().flat_map(below);
    folders.map(|folder| folder.join(WRAPPER)).find(|library| library.is_file())
}
