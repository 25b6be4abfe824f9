//! The directory of the private cluster: what lies where, whose it is, and who uses it.
//!
//! ```text
//! <data_dir>/
//!   postgres/        the cluster itself
//!   run/             the Unix socket (or a short folder elsewhere, where this path is too long for a socket)
//!   postgres.log     what the server says
//!   pgpass           the password for TCP, in the form that psql reads
//!   port             the port, the same at every start
//!   socket-folder    where the socket's folder is, when it is elsewhere
//!   change.lock      held while somebody starts or stops the server
//!   users.lock       held, shared, by every process that uses the server: the kernel lets go of it when a
//!                    process dies, however it dies
//!   keep-running     there when `db start` started the server: it outlives the recorders
//! ```
//!
//! Everything that is asked of the outside (who am I, whose folder is it) is asked here.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::{Gid, Uid, User, geteuid};

use super::EmbeddedError;
use super::environment::clean;
use super::password::random_text;
use super::socket;

/// What runs the server for root where there is no user `postgres`.
const NOBODY: u32 = 65_534;
/// How often a lock that another process holds is tried again.
const LOCK_POLL: Duration = Duration::from_millis(20);
/// Names in the directory that are no stranger's: ours, the spool's beside us, and a mounted disk's.
const KNOWN: [&str; 12] = [
    "postgres",
    "run",
    "postgres.log",
    "postgres.log.1",
    "pgpass",
    "port",
    "socket-folder",
    "change.lock",
    "users.lock",
    "keep-running",
    "spool",
    "lost+found",
];
/// How the folder of an unfinished `initdb` begins.
const STAGING: &str = "initdb.";

/// Where the database lives when the settings do not say: the platform's data directory for trading-core.
///
/// For root it is `/var/lib/trading-core`: the server runs unprivileged and cannot enter root's home.
///
/// # Errors
///
/// When the user has no home directory.
pub fn default_data_dir() -> Result<PathBuf, EmbeddedError> {
    if geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/trading-core"));
    }
    directories::ProjectDirs::from("", "", "trading-core")
        .map(|folders| folders.data_dir().to_owned())
        .ok_or(EmbeddedError::NoHome)
}

/// Who runs the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Servant {
    uid: u32,
    gid: u32,
    /// We are root and step down to this user.
    step_down: bool,
}

impl Servant {
    fn of_this_process() -> Self {
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

    /// Gives a path to the server's user.
    fn give(self, path: &Path) -> Result<(), EmbeddedError> {
        if self.step_down {
            chown(path, Some(self.uid), Some(self.gid))
                .map_err(EmbeddedError::io("give to the server's user", path))?;
        }
        Ok(())
    }
}

fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => format!("number {uid}"),
    }
}

/// The directory, opened: it exists, is ours to use, and has a user for its server.
#[derive(Debug, Clone)]
pub(super) struct Home {
    folder: PathBuf,
    owner: (u32, u32),
    servant: Servant,
}

impl Home {
    /// Opens the directory, and makes it where it is missing.
    ///
    /// # Errors
    ///
    /// When it is used by something else, belongs to another user, or cannot be reached by the server's user.
    pub(super) fn open(data_dir: Option<&Path>) -> Result<Self, EmbeddedError> {
        let folder = match data_dir {
            Some(folder) => folder.to_owned(),
            None => default_data_dir()?,
        };
        make_folder(&folder)?;
        let folder =
            fs::canonicalize(&folder).map_err(EmbeddedError::io("find the directory", &folder))?;
        Self::at(folder)
    }

    /// Opens the directory only if it holds a cluster of ours.
    pub(super) fn open_existing(data_dir: Option<&Path>) -> Result<Option<Self>, EmbeddedError> {
        let folder = match data_dir {
            Some(folder) => folder.to_owned(),
            None => default_data_dir()?,
        };
        match fs::canonicalize(&folder) {
            Ok(folder) if folder.join("postgres/PG_VERSION").exists() => Self::at(folder).map(Some),
            // Told apart from "nothing there", so that it is not taken for a stopped database.
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(EmbeddedError::Io { what: "find the directory", path: folder, source })
            }
            _ => Ok(None),
        }
    }

    fn at(folder: PathBuf) -> Result<Self, EmbeddedError> {
        refuse_strangers(&folder)?;
        let about =
            fs::metadata(&folder).map_err(EmbeddedError::io("read the directory", &folder))?;
        let owner = (about.uid(), about.gid());
        let servant = servant_for(&folder, owner)?;
        if servant.step_down {
            let open = about.mode() & 0o7777 | 0o011;
            // Entered, not listed: the server's user passes through to what is its own.
            if owner.0 == 0 && about.mode() & 0o7777 != open {
                set_mode(&folder, open)?;
            }
            refuse_shut_folders(&folder, servant)?;
        }
        Ok(Self { folder, owner, servant })
    }

    /// The directory itself.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The cluster's own directory.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    /// What the server says.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("postgres.log")
    }

    /// The file that keeps the port.
    pub(super) fn port_file(&self) -> PathBuf {
        self.folder.join("port")
    }

    /// The file that keeps the password for TCP.
    pub(super) fn pgpass(&self) -> PathBuf {
        self.folder.join("pgpass")
    }

    fn keep_running(&self) -> PathBuf {
        self.folder.join("keep-running")
    }

    /// The major version that made the data; `None`: there is no data yet.
    pub(super) fn data_version(&self) -> Result<Option<String>, EmbeddedError> {
        Ok(read_text(&self.data().join("PG_VERSION"))?.map(|text| text.trim().to_owned()))
    }

    /// Whether the server outlives its users.
    pub(super) fn is_kept_running(&self) -> bool {
        self.keep_running().exists()
    }

    /// Writes down, or forgets, that the server outlives its users.
    pub(super) fn set_kept_running(&self, keep: bool) -> Result<(), EmbeddedError> {
        let mark = self.keep_running();
        if keep {
            return self.write(&mark, b"");
        }
        match fs::remove_file(&mark) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(EmbeddedError::io("remove", &mark)(error))
            }
            _ => Ok(()),
        }
    }

    /// The port of earlier runs.
    pub(super) fn saved_port(&self) -> Result<Option<u16>, EmbeddedError> {
        let text = read_text(&self.port_file())?;
        Ok(text.and_then(|text| text.trim().parse().ok()).filter(|port| *port != 0))
    }

    /// Keeps the port for later runs.
    pub(super) fn save_port(&self, port: u16) -> Result<(), EmbeddedError> {
        self.write(&self.port_file(), format!("{port}\n").as_bytes())
    }

    /// Writes a whole file that only its owner may read: complete or not there, also when the machine stops.
    pub(super) fn write(&self, path: &Path, content: &[u8]) -> Result<(), EmbeddedError> {
        let new = path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = self.open_file(&new, OpenOptions::new().write(true).truncate(true))?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&new, path)
        };
        write().map_err(EmbeddedError::io("write", path))
    }

    /// Opens one of our files, made where missing, readable by its owner only. A link is not followed: root may
    /// be working in another user's directory.
    fn open_file(&self, path: &Path, options: &mut OpenOptions) -> io::Result<File> {
        let file =
            options.create(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)?;
        if self.servant.step_down && self.owner.0 != 0 {
            let (uid, gid) = self.owner;
            nix::unistd::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        Ok(file)
    }

    /// The log, ready for more; a long one is moved aside first, so that two files bound what it takes.
    pub(super) fn open_log(&self, bytes_max: u64) -> Result<File, EmbeddedError> {
        let log = self.log();
        if fs::symlink_metadata(&log).is_ok_and(|about| about.len() > bytes_max) {
            let aside = self.folder.join("postgres.log.1");
            fs::rename(&log, &aside).map_err(EmbeddedError::io("move aside", &log))?;
        }
        self.open_file(&log, OpenOptions::new().append(true))
            .map_err(EmbeddedError::io("open", &log))
    }

    /// Waits for the right to start or stop the server.
    ///
    /// # Errors
    ///
    /// When another process has it for longer than `wait`.
    pub(super) async fn lock_changes(&self, wait: Duration) -> Result<File, EmbeddedError> {
        let path = self.folder.join("change.lock");
        let file = self
            .open_file(&path, OpenOptions::new().read(true).write(true))
            .map_err(EmbeddedError::io("open", &path))?;
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => {
                    return Err(EmbeddedError::io("lock", &path)(error));
                }
                Err(TryLockError::WouldBlock) if tokio::time::Instant::now() >= deadline => {
                    return Err(EmbeddedError::Busy { folder: self.folder.clone(), waited: wait });
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_POLL).await,
            }
        }
    }

    /// Joins those who use the server, until the file is closed, by us or by the kernel.
    pub(super) fn join_users(&self) -> Result<File, EmbeddedError> {
        let path = self.folder.join("users.lock");
        let file = self
            .open_file(&path, OpenOptions::new().read(true).write(true))
            .map_err(EmbeddedError::io("open", &path))?;
        // Never waits: the exclusive lock is only ever tried, by who holds the change lock as we do now.
        file.lock_shared().map_err(EmbeddedError::io("lock", &path))?;
        Ok(file)
    }

    /// Whether any process uses the server. Exact only under the change lock.
    pub(super) fn has_users(&self) -> Result<bool, EmbeddedError> {
        let path = self.folder.join("users.lock");
        let file = match OpenOptions::new().read(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(EmbeddedError::io("open", &path)(error)),
        };
        match file.try_lock() {
            Ok(()) => {
                file.unlock().map_err(EmbeddedError::io("unlock", &path))?;
                Ok(false)
            }
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(EmbeddedError::io("lock", &path)(error)),
        }
    }

    /// A program run as the server's user, where that user can be, deaf to the terminal's Ctrl-C: it is the
    /// recorder that stops the server, after its last tick is stored.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = clean(program);
        // Not the home of whoever started us.
        command.env("HOME", &self.folder);
        command.current_dir(&self.folder).stdin(Stdio::null()).process_group(0);
        if self.servant.step_down {
            command.uid(self.servant.uid).gid(self.servant.gid);
        }
        command
    }

    /// The folder of the Unix socket, made where it is missing.
    pub(super) fn make_socket_dir(&self) -> Result<PathBuf, EmbeddedError> {
        let beside = self.folder.join("run");
        if socket::fits(&beside) {
            return self.make_private(&beside).map(|()| beside);
        }
        let kept = self.folder.join("socket-folder");
        if let Some(folder) = read_text(&kept)?.map(|text| PathBuf::from(text.trim_end()))
            && folder.is_absolute()
        {
            match self.make_private(&folder) {
                Ok(()) => return Ok(folder),
                // Somebody took the name while the machine was off; another will do.
                Err(EmbeddedError::NotOurs { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let folder = socket::new_folder(&random_text(16)?);
        self.make_private(&folder)?;
        let text = folder.to_string_lossy();
        self.write(&kept, format!("{text}\n").as_bytes())?;
        Ok(folder)
    }

    /// A new folder for `initdb`, after those of earlier, interrupted ones are gone.
    pub(super) fn make_staging(&self) -> Result<PathBuf, EmbeddedError> {
        for name in entries(&self.folder)? {
            if name.starts_with(STAGING) {
                let old = self.folder.join(&name);
                // An initdb that outlived its parent may still write there; it is in nobody's way.
                if let Err(error) = fs::remove_dir_all(&old) {
                    tracing::warn!(path = %old.display(), %error, "an unfinished database was left in place");
                }
            }
        }
        let staging = self.folder.join(format!("{STAGING}{}", random_text(12)?));
        self.make_private(&staging)?;
        Ok(staging)
    }

    /// Makes the finished cluster the cluster: from here on it is there, also after a power cut.
    pub(super) fn publish(&self, staging: &Path) -> Result<(), EmbeddedError> {
        let data = self.data();
        // An empty folder may be in the way: it was seen to be empty, and only an empty one goes.
        if data.exists() {
            fs::remove_dir(&data).map_err(EmbeddedError::io("replace the empty", &data))?;
        }
        fs::rename(staging.join("data"), &data)
            .and_then(|()| File::open(&self.folder)?.sync_all())
            .map_err(EmbeddedError::io("move the new database to", &data))?;
        fs::remove_dir_all(staging).map_err(EmbeddedError::io("remove", staging))
    }

    /// A folder that the server's user alone may enter. One that is there already must be exactly that: in a
    /// public folder another user may have made it first.
    fn make_private(&self, folder: &Path) -> Result<(), EmbeddedError> {
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => self.servant.give(folder)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(EmbeddedError::io("make", folder)(error)),
        }
        let about = fs::symlink_metadata(folder).map_err(EmbeddedError::io("read", folder))?;
        // Made by root and not yet given away when it was interrupted.
        if about.is_dir() && about.uid() == 0 && self.servant.step_down {
            self.servant.give(folder)?;
        } else if about.uid() != self.servant.uid || !about.is_dir() {
            let owner = user_name(about.uid());
            return Err(EmbeddedError::NotOurs { folder: folder.to_owned(), owner });
        }
        set_mode(folder, 0o700)
    }
}

/// Whose the server will be: an unprivileged caller's; under root the data's owner, else the directory's, else
/// `postgres` or nobody.
fn servant_for(folder: &Path, owner: (u32, u32)) -> Result<Servant, EmbeddedError> {
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
    let foreign = |uid: u32, folder: &Path| EmbeddedError::NotOurs {
        folder: folder.to_owned(),
        owner: user_name(uid),
    };
    match data_owner {
        Some((uid, _)) if uid != process.uid => Err(foreign(uid, &data)),
        None if owner.0 != process.uid => Err(foreign(owner.0, folder)),
        _ => Ok(process),
    }
}

/// Refuses a directory with something in it that we did not put there.
fn refuse_strangers(folder: &Path) -> Result<(), EmbeddedError> {
    let refuse =
        |folder: &Path, why: String| Err(EmbeddedError::Foreign { folder: folder.to_owned(), why });
    if !folder.is_dir() {
        return refuse(folder, "it is not a directory".to_owned());
    }
    let names = entries(folder)?;
    if names.iter().any(|name| name == "PG_VERSION") {
        let why = "it is itself the data of a PostgreSQL server that trading-core did not make";
        return refuse(folder, why.to_owned());
    }
    let ours = |name: &String| KNOWN.contains(&name.as_str()) || name.starts_with(STAGING);
    if !names.is_empty() && !names.iter().any(ours) {
        let first = names.first().cloned().unwrap_or_default();
        return refuse(folder, format!("it holds other files already ({first})"));
    }
    let data = folder.join("postgres");
    if !data.exists() || data.join("PG_VERSION").is_file() {
        return Ok(());
    }
    match data.is_dir().then(|| entries(&data)).transpose()? {
        Some(names) if names.is_empty() => Ok(()),
        _ => refuse(&data, "it is not empty and is no PostgreSQL data (no PG_VERSION)".to_owned()),
    }
}

/// Names the first folder on the way that the server's user may not enter.
fn refuse_shut_folders(folder: &Path, servant: Servant) -> Result<(), EmbeddedError> {
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

/// Makes the directory and what is missing above it; under root each can be passed through by the server.
fn make_folder(folder: &Path) -> Result<(), EmbeddedError> {
    if folder.exists() {
        return Ok(());
    }
    let mode = if geteuid().is_root() { 0o711 } else { 0o700 };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)
        .map_err(EmbeddedError::io("make", folder))
}

fn set_mode(folder: &Path, mode: u32) -> Result<(), EmbeddedError> {
    fs::set_permissions(folder, fs::Permissions::from_mode(mode))
        .map_err(EmbeddedError::io("set the mode of", folder))
}

fn entries(folder: &Path) -> Result<Vec<String>, EmbeddedError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(EmbeddedError::io("list", folder))? {
        let entry = entry.map_err(EmbeddedError::io("list", folder))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// A small file as text; `None` where it is missing.
pub(super) fn read_text(path: &Path) -> Result<Option<String>, EmbeddedError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(EmbeddedError::io("read", path)(error)),
    }
}

/// Bytes of all files below a folder, as far as they can be read; a file that goes meanwhile counts nothing.
pub(super) fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.metadata().ok().map(|about| (entry.path(), about)))
        .map(|(path, about)| if about.is_dir() { bytes_below(&path) } else { about.len() })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_another_user_took_is_not_used_and_is_in_nobodys_way() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("l".repeat(120));
        fs::create_dir(&folder).unwrap();
        let home = Home { folder, owner: (0, 0), servant: Servant::of_this_process() };
        let first = home.make_socket_dir().unwrap();
        assert_eq!(home.make_socket_dir().unwrap(), first, "the same at every start");
        fs::remove_dir(&first).unwrap();
        assert_eq!(home.make_socket_dir().unwrap(), first, "made again");
        fs::remove_dir(&first).unwrap();
        // A link is nobody's folder, wherever it leads; so is another user's, which only root can make.
        std::os::unix::fs::symlink(base.path(), &first).unwrap();
        let second = home.make_socket_dir().unwrap();
        assert_ne!(second, first);
        assert!(fs::symlink_metadata(&first).unwrap().is_symlink(), "and is left alone");
        fs::remove_dir(&second).unwrap();
        fs::remove_file(&first).unwrap();
        if geteuid().is_root() {
            fs::create_dir(&second).unwrap();
            chown(&second, Some(NOBODY), Some(NOBODY)).unwrap();
            let third = home.make_socket_dir().unwrap();
            assert_ne!(third, second);
            fs::remove_dir(&second).unwrap();
            fs::remove_dir(&third).unwrap();
        }
    }

    #[test]
    fn directories_of_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        refuse_strangers(path).unwrap();
        fs::create_dir(path.join("spool")).unwrap();
        refuse_strangers(path).unwrap();
        fs::create_dir(path.join("postgres")).unwrap();
        refuse_strangers(path).unwrap();
        fs::write(path.join("postgres/notes.txt"), "mine").unwrap();
        let error = refuse_strangers(path).unwrap_err().to_string();
        assert!(error.contains("no PG_VERSION"), "{error}");

        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        let error = refuse_strangers(folder.path()).unwrap_err().to_string();
        assert!(error.contains("other files already (notes.txt)"), "{error}");

        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("PG_VERSION"), "15").unwrap();
        let error = refuse_strangers(folder.path()).unwrap_err().to_string();
        assert!(error.contains("did not make"), "{error}");
    }
}
