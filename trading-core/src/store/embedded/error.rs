//! What can go wrong with the private cluster; each message says what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is installed where, for a machine without a server.
const INSTALL: &str = "\
  Debian, Ubuntu:  apt-get install postgresql
  Fedora, RHEL:    dnf install postgresql-server
  Arch:            pacman -S postgresql
  Alpine:          apk add postgresql postgresql-client
  macOS:           brew install postgresql
or give the folder of its programs in PG_BIN, or the URL of another server in database.url";

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
        "{} belongs to the user {owner}; run trading-core as that user or as root, or set \
         database.data_dir to another directory",
        folder.display()
    )]
    NotOurs {
        /// The directory.
        folder: PathBuf,
        /// Whose it is.
        owner: String,
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
    /// Another program listens on the cluster's port.
    #[error(
        "port {port} of 127.0.0.1 is in use by another program; stop that program, or write another \
         port into {}, or delete that file so that a free one is chosen",
        file.display()
    )]
    PortInUse {
        /// The port.
        port: u16,
        /// The file that keeps it.
        file: PathBuf,
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
    /// For `map_err`: what was tried, on which path.
    pub(super) fn io<'p>(
        what: &'static str,
        path: &'p Path,
    ) -> impl FnOnce(io::Error) -> Self + 'p {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
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
