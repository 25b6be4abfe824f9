//! What can go wrong with the private cluster; each message says what to do about it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;

use crate::store::folder::{Shut, as_user, user_name};

/// What is installed where, for a machine without a server.
const INSTALL: &str = "\
  Debian, Ubuntu:  apt-get install postgresql
  Fedora, RHEL:    dnf install postgresql-server
  Arch:            pacman -S postgresql
  Alpine:          apk add postgresql postgresql-client
  macOS:           brew install postgresql
or give the folder of its programs in PG_BIN, or the URL of another server in database.url";

/// What gives a user number a name.
const NAMELESS: &str = "\
  Debian, Ubuntu:          apt-get install libnss-wrapper
  Fedora, RHEL:            dnf install nss_wrapper
  systemd's DynamicUser=:  apt-get install libnss-systemd
  Docker, Kubernetes:      an image with that package, or a user of its /etc/passwd (--user, runAsUser)
or give the URL of another server in database.url";

/// Why the private cluster could not be started, stopped or asked.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// No folder holds a server that can be used.
    #[error(
        "no PostgreSQL server of version {least} or newer was found on this machine (looked in {}); \
         install one:\n{INSTALL}",
        list(looked)
    )]
    NoServer {
        /// The oldest version that will do.
        least: u32,
        /// The folders that were looked into.
        looked: Vec<String>,
    },
    /// The folder given in `PG_BIN` holds no server that can be used.
    #[error(
        "PG_BIN is {}, but {why}; it must be the folder that holds postgres, initdb and psql of \
         version {least} or newer",
        folder.display()
    )]
    BadOverride {
        /// The folder given.
        folder: PathBuf,
        /// What is wrong with it.
        why: String,
        /// The oldest version that will do.
        least: u32,
    },
    /// The data was made by another major version than any server here.
    #[error(
        "{} was made by PostgreSQL {data}, and this machine has {}; \
         install PostgreSQL {data} beside it (Debian, Ubuntu: apt-get install postgresql-{data}), \
         or move the data over with pg_upgrade, or set database.data_dir to another directory",
        folder.display(), list(found)
    )]
    WrongMajor {
        /// The cluster's directory.
        folder: PathBuf,
        /// The version that made it.
        data: String,
        /// What is installed.
        found: Vec<String>,
    },
    /// The platform names no data directory for this user.
    #[error("this user has no home directory to keep the database in; set database.data_dir")]
    NoHome,
    /// The directory is used by something else.
    #[error(
        "{} cannot hold the embedded database: {why}; set database.data_dir to an empty or new directory",
        folder.display()
    )]
    Foreign {
        /// The directory.
        folder: PathBuf,
        /// What is in it.
        why: String,
    },
    /// The directory belongs to another user.
    #[error(
        "{} belongs to the user {}: ask as that user, `{}`, or as root; or set database.data_dir to another directory",
        folder.display(), user_name(*owner), as_user(*owner)
    )]
    NotOurs {
        /// The directory.
        folder: PathBuf,
        /// Whose it is, by number.
        owner: u32,
    },
    /// The unprivileged user that runs the server cannot get to the data.
    #[error(
        "the server runs as the user {user}, who may not enter {} (mode {mode:04o}); allow it with \
         `chmod o+x {}`, or set database.data_dir to another directory",
        folder.display(), folder.display()
    )]
    Unreachable {
        /// Who runs the server.
        user: String,
        /// The folder on the way that is shut.
        folder: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Another process has been starting or stopping the cluster for too long.
    #[error(
        "another trading-core has been starting or stopping the database in {} for {} s; see what \
         it waits for, or end it, and try again",
        folder.display(), waited.as_secs()
    )]
    Busy {
        /// The directory.
        folder: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// The server's user has no name, and `initdb` wants one.
    #[error(
        "the database is to belong to user number {uid}, which has no name on this machine, and PostgreSQL's initdb asks \
         for one. Any of these helps:\n{NAMELESS}"
    )]
    Nameless {
        /// Its number.
        uid: u32,
    },
    /// `initdb` refused.
    #[error("initdb could not make the database in {}:\n{said}", folder.display())]
    Initdb {
        /// The directory.
        folder: PathBuf,
        /// The end of what it printed.
        said: String,
    },
    /// The server ended instead of starting.
    #[error("the server did not start; the end of its log {}:\n{tail}", log.display())]
    Start {
        /// The server's log.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// The server runs and does not answer.
    #[error(
        "the server (pid {pid}) did not answer on {} within {} s; the end of its log {}:\n{tail}",
        socket.display(), waited.as_secs(), log.display()
    )]
    Silent {
        /// The postmaster.
        pid: i32,
        /// Where it should answer.
        socket: PathBuf,
        /// How long was waited.
        waited: Duration,
        /// The server's log.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// The server got its signal and still runs.
    #[error(
        "the server (pid {pid}) still runs {} s after it was asked to stop; `kill -QUIT {pid}` \
         ends it at once (it then recovers at its next start); its log: {}",
        waited.as_secs(), log.display()
    )]
    StillRunning {
        /// The postmaster.
        pid: i32,
        /// How long was waited.
        waited: Duration,
        /// The server's log.
        log: PathBuf,
    },
    /// A running process uses what was to be removed.
    #[error(
        "the database in {} is in use by a running trading-core{}: stop that one first", folder.display(), named(pids)
    )]
    InUse {
        /// The directory.
        folder: PathBuf,
        /// The processes, where they are known.
        pids: Vec<i32>,
    },
    /// The directory was removed while something in it was waited for.
    #[error("the database in {} was removed meanwhile by `trading-core db remove`", folder.display())]
    Removed {
        /// The directory.
        folder: PathBuf,
    },
    /// The data is a symbolic link.
    #[error(
        "{} is a symbolic link to {}, and a server that runs behind it would not be found again. To keep the data, move it \
         to where the link is; the whole directory may be a link, as database.data_dir may name one. To throw it away, stop \
         the server if one runs there (`pg_ctl stop -D`), then delete {} and the link by hand",
        data.display(), target.display(), target.display()
    )]
    Linked {
        /// The link.
        data: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// The data that was to be removed is a mount.
    #[error(
        "{} is a mounted file system, which is not this program's to remove; nothing was removed. Stop the server with \
         `trading-core db stop`, delete by hand what is in that folder, unmount it, and ask again",
        data.display()
    )]
    Mounted {
        /// Where it is mounted.
        data: PathBuf,
    },
    /// Its spool cannot be read or removed.
    #[error(transparent)]
    Spool(Box<crate::store::spool::SpoolError>),
    /// What was asked needs a running server.
    #[error(
        "the embedded database in {} is not running; start it with `trading-core db start`",
        folder.display()
    )]
    NotRunning {
        /// The directory.
        folder: PathBuf,
    },
    /// A file or a program of the machine failed us.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The server runs and refused a statement of ours.
    #[error("the embedded database refused to {what}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: sqlx::Error,
    },
}

impl EmbeddedError {
    /// For `map_err`: what was tried with the directory `folder`. Where another user keeps us out, that is said.
    pub(super) fn at<'p>(
        what: &'static str,
        folder: &'p Path,
    ) -> impl FnOnce(io::Error) -> Self + 'p {
        move |source| {
            let is_denied = source.kind() == io::ErrorKind::PermissionDenied;
            let within = || Shut::on_the_way_to(&folder.join("postgres"));
            let shut = is_denied.then(|| Shut::on_the_way_to(folder).or_else(within)).flatten();
            match shut {
                Some(shut) => {
                    Self::NotOurs { owner: owner(folder, &shut), folder: folder.to_owned() }
                }
                None => Self::Io { what, path: folder.to_owned(), source },
            }
        }
    }

    /// For `map_err`: what was tried, on which path.
    pub(super) fn io<'p>(
        what: &'static str,
        path: &'p Path,
    ) -> impl FnOnce(io::Error) -> Self + 'p {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

/// The data may be of a user who only runs the server for root: root is asked then.
fn owner(folder: &Path, shut: &Shut) -> u32 {
    let owner = fs::metadata(folder).ok().map(|about| about.uid());
    owner.filter(|uid| *uid != geteuid().as_raw()).unwrap_or(shut.owner)
}

/// A command that stops them.
fn named(pids: &[i32]) -> String {
    let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
    if pids.is_empty() { String::new() } else { format!(" (kill {})", pids.join(" ")) }
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_server_is_told_what_to_install_on_each_platform() {
        let text = EmbeddedError::NoServer { least: 14, looked: vec!["PATH".into()] }.to_string();
        for part in ["apt-get install postgresql", "dnf ", "pacman ", "apk add", "brew ", "PG_BIN"]
        {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }

    #[test]
    fn data_of_another_version_is_told_how_to_be_read_again() {
        let text = EmbeddedError::WrongMajor {
            folder: "/data/postgres".into(),
            data: "13".into(),
            found: vec!["15 in /usr/lib/postgresql/15/bin".into()],
        }
        .to_string();
        assert!(text.contains("install PostgreSQL 13 beside it"), "{text}");
        assert!(text.contains("15 in /usr/lib/postgresql/15/bin"), "{text}");
    }
}
