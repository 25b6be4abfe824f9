//! The directory of the private cluster: what lies where, whose it is, and who uses it.
//!
//! ```text
//! <data_dir>/
//!   postgres/        the cluster itself
//!   run/             the Unix socket (or a short folder elsewhere, where this path is too long for a socket)
//!   postgres.log     what the server says
//!   pgpass           the password for TCP, in the form that psql reads
//!   port             the port, the same at every start as long as it is free
//!   socket-folder    where the socket's folder is, when it is elsewhere
//!   change.lock      held while somebody starts or stops the server
//!   users.lock       held, shared, by every process that uses the server: the kernel lets go of it when a
//!                    process dies, however it dies
//!   keep-running     there when `db start` started the server: it outlives the recorders
//!   simulated/       the same once more, for the simulated market (`live --simulate`)
//! ```
//!
//! Everything that is asked of the outside (who am I, whose folder is it) is asked here.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::geteuid;

use super::environment::clean;
use super::owner::{Servant, refuse_shut_folders, servant_for};
use super::socket;
use super::strangers::{STAGING, entries, refuse_strangers};
use super::{EmbeddedError, Options, random_text};
use crate::store::folder::{Folder, is_missing};

/// Bytes of a file that is read as a whole; `postgresql.conf` has 30 KiB.
const TEXT_BYTES_MAX: u64 = 1 << 20;

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

/// The directory, opened: it exists, is ours to use, and has a user for its server.
#[derive(Debug, Clone)]
pub(super) struct Home {
    folder: PathBuf,
    /// The directory by its handle: everything of ours in it is touched with the rights of its owner.
    place: Folder,
    servant: Servant,
}

impl Home {
    /// Opens the directory, and makes it where it is missing.
    ///
    /// # Errors
    ///
    /// When it is used by something else, belongs to another user, or cannot be reached by the server's user.
    pub(super) fn open(options: &Options) -> Result<Self, EmbeddedError> {
        let folder = options.folder()?;
        // Under root each directory can be passed through by the server.
        let mode = if geteuid().is_root() { 0o711 } else { 0o700 };
        if options.simulated {
            let base = options.base()?;
            let place =
                Folder::open_or_make(&base, mode).map_err(EmbeddedError::at("make", &base))?;
            refuse_strangers(&base)?;
            let_pass(&place, &base)?;
        }
        Folder::open_or_make(&folder, mode).map_err(EmbeddedError::at("make", &folder))?;
        let folder =
            fs::canonicalize(&folder).map_err(EmbeddedError::io("find the directory", &folder))?;
        Self::at(folder)
    }

    /// Opens the directory only if it holds a cluster of ours.
    pub(super) fn open_existing(options: &Options) -> Result<Option<Self>, EmbeddedError> {
        let folder = options.folder()?;
        let real = fs::canonicalize(&folder);
        let made = real
            .and_then(|real| Ok(real.join("postgres/PG_VERSION").try_exists()?.then_some(real)));
        match made {
            Ok(Some(folder)) => Self::at(folder).map(Some),
            Ok(None) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // Told apart from "nothing there": it may be another user's.
            Err(error) => Err(EmbeddedError::at("find the directory", &folder)(error)),
        }
    }

    fn at(folder: PathBuf) -> Result<Self, EmbeddedError> {
        let place = Folder::open(&folder).map_err(EmbeddedError::at("open", &folder))?;
        refuse_strangers(&folder)?;
        // A server is known by the directory that it works in, which is where the link leads.
        let data = folder.join("postgres");
        if let Ok(target) = fs::read_link(&data) {
            return Err(EmbeddedError::Linked { data, target });
        }
        let (uid, gid, _mode) =
            place.owner().map_err(EmbeddedError::io("read the directory", &folder))?;
        let servant = servant_for(&folder, (uid, gid))?;
        if servant.step_down {
            let_pass(&place, &folder)?;
            refuse_shut_folders(&folder, servant)?;
        }
        Ok(Self { folder, place, servant })
    }

    /// The directory by its handle.
    pub(super) const fn place(&self) -> &Folder {
        &self.place
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
        Ok(self.read_data("PG_VERSION")?.map(|text| text.trim().to_owned()))
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
        match self.place.remove("keep-running") {
            Err(error) if !is_missing(&error) => Err(EmbeddedError::io("remove", &mark)(error)),
            _ => Ok(()),
        }
    }

    /// The port of earlier runs.
    pub(super) fn saved_port(&self) -> Result<Option<u16>, EmbeddedError> {
        let text = self.read_own("port")?;
        Ok(text.and_then(|text| text.trim().parse().ok()).filter(|port| *port != 0))
    }

    /// Keeps the port for later runs.
    pub(super) fn save_port(&self, port: u16) -> Result<(), EmbeddedError> {
        self.write(&self.port_file(), format!("{port}\n").as_bytes())
    }

    /// Writes a whole file that only its owner may read: complete or not there, also when the machine stops.
    pub(super) fn write(&self, path: &Path, content: &[u8]) -> Result<(), EmbeddedError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let new = format!("{name}.new");
        let write = || -> io::Result<()> {
            // Left by a run that was cut off.
            match self.place.remove(&new) {
                Err(error) if !is_missing(&error) => return Err(error),
                _ => {}
            }
            let mut file = self.place.create(&new)?;
            file.write_all(content)?;
            file.sync_all()?;
            self.place.rename(&new, &name)
        };
        write().map_err(EmbeddedError::io("write", path))
    }

    /// A small file of ours as text; `None` where it is missing.
    pub(super) fn read_own(&self, name: &str) -> Result<Option<String>, EmbeddedError> {
        text_of(self.place.read(name)).map_err(EmbeddedError::io("read", &self.folder.join(name)))
    }

    /// A small file of the server's as text; `None` where it is missing.
    pub(super) fn read_data(&self, name: &str) -> Result<Option<String>, EmbeddedError> {
        let data = self.data();
        text_of(Folder::open(&data).and_then(|data| data.read(name)))
            .map_err(EmbeddedError::io("read", &data.join(name)))
    }

    /// The log, ready for more; a long one is moved aside first, so that two files bound what it takes.
    pub(super) fn open_log(&self, bytes_max: u64) -> Result<File, EmbeddedError> {
        let log = self.log();
        let name = "postgres.log";
        let is_long = |file: File| Ok(file.metadata()?.len() > bytes_max);
        if self.place.read(name).and_then(is_long).unwrap_or_default() {
            let moved = self.place.rename(name, "postgres.log.1");
            moved.map_err(EmbeddedError::io("move aside", &log))?;
        }
        self.place.append(name).map_err(EmbeddedError::io("open", &log))
    }

    /// The user that the server runs as.
    pub(super) const fn server_uid(&self) -> u32 {
        self.servant.uid
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
        if let Some(folder) =
            self.read_own("socket-folder")?.map(|text| PathBuf::from(text.trim_end()))
            && folder.is_absolute()
        {
            match self.make_private(&folder) {
                Ok(()) => return Ok(folder),
                // Somebody took the name while the machine was off; another will do.
                Err(EmbeddedError::NotOurs { .. } | EmbeddedError::Io { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let folder = socket::new_folder(&random_text(16)?);
        self.make_private(&folder)?;
        let text = folder.to_string_lossy();
        self.write(&kept, format!("{text}\n").as_bytes())?;
        Ok(folder)
    }

    /// Where the folder of the Unix socket is or would be.
    pub(super) fn socket_dir(&self) -> Result<PathBuf, EmbeddedError> {
        let beside = self.folder.join("run");
        if socket::fits(&beside) {
            return Ok(beside);
        }
        Ok(self.read_own("socket-folder")?.map_or(beside, |text| PathBuf::from(text.trim_end())))
    }

    /// Removes the folder of the Unix socket, and what the server makes in it.
    pub(super) fn remove_socket_dir(&self, folder: &Path) -> Result<(), EmbeddedError> {
        let hand = self.servant.hand();
        let above = folder.parent().unwrap_or(folder);
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let is_inside = above == self.folder;
        let remove = || -> io::Result<()> {
            let place = Folder::open(folder)?;
            if place.owner()?.0 != self.servant.uid {
                return Ok(());
            }
            let mut sockets = Vec::new();
            place.names(|name| {
                sockets.extend(name.starts_with(".s.PGSQL.").then(|| folder.join(name)));
            })?;
            sockets.iter().try_for_each(|socket| hand.run(|| fs::remove_file(socket)))?;
            // What is in it that the server did not make stays, and the folder with it.
            match is_inside {
                true => self.place.remove_subfolder(&name),
                false => hand.run(|| fs::remove_dir(folder)),
            }
        };
        match remove() {
            Err(error) if !is_missing(&error) => Err(EmbeddedError::io("remove", folder)(error)),
            _ => Ok(()),
        }
    }

    /// A new folder for `initdb`, after those of earlier, interrupted ones are gone.
    pub(super) fn make_staging(&self) -> Result<PathBuf, EmbeddedError> {
        for name in entries(&self.folder)? {
            if name.starts_with(STAGING) {
                let old = self.folder.join(&name);
                // An initdb that outlived its parent may still write there; it is in nobody's way.
                if let Err(error) = self.place.hand().run(|| fs::remove_dir_all(&old)) {
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
        let hand = self.place.hand();
        // An empty folder may be in the way: it was seen to be empty, and only an empty one goes.
        if data.exists() {
            hand.run(|| fs::remove_dir(&data))
                .map_err(EmbeddedError::io("replace the empty", &data))?;
        }
        hand.run(|| fs::rename(staging.join("data"), &data))
            .and_then(|()| self.place.sync())
            .map_err(EmbeddedError::io("move the new database to", &data))?;
        hand.run(|| fs::remove_dir_all(staging)).map_err(EmbeddedError::io("remove", staging))
    }

    /// A folder that the server's user alone may enter. One that is there already must be exactly that: in a
    /// public folder another user may have made it first.
    fn make_private(&self, folder: &Path) -> Result<(), EmbeddedError> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let above = folder.parent().unwrap_or(folder);
        let is_inside = above == self.folder;
        // Only what we make in a directory of our own is given away. Elsewhere the server's user makes it.
        let give = is_inside && !self.place.hand().is_another();
        let made = match is_inside {
            true => self.place.make_private(&name, self.servant.hand(), give),
            false => Folder::open(above)
                .and_then(|above| above.make_private(&name, self.servant.hand(), false)),
        };
        let owner = made.map_err(EmbeddedError::io("make", folder))?;
        if owner != self.servant.uid {
            return Err(EmbeddedError::NotOurs { folder: folder.to_owned(), owner });
        }
        Ok(())
    }
}

/// A directory of root's is entered, not listed: the server's user passes through to what is its own.
fn let_pass(place: &Folder, folder: &Path) -> Result<(), EmbeddedError> {
    let (uid, _gid, mode) =
        place.owner().map_err(EmbeddedError::io("read the directory", folder))?;
    let open = mode | 0o011;
    if geteuid().is_root() && uid == 0 && mode != open {
        place.set_mode(open).map_err(EmbeddedError::io("set the mode of", folder))?;
    }
    Ok(())
}

/// `None` where it is missing.
fn text_of(file: io::Result<File>) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    match file.and_then(|file| file.take(TEXT_BYTES_MAX).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
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
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
    use std::time::Duration;

    use super::*;

    /// Another user, who need not have a name.
    const OTHER: u32 = 47_116;

    fn open(folder: &Path) -> Result<Home, EmbeddedError> {
        Home::open(&Options { data_dir: Some(folder.to_owned()), ..Options::default() })
    }

    struct Ground {
        theirs: PathBuf,
        private: PathBuf,
        _folder: tempfile::TempDir,
    }

    /// A directory of another user, and one of root's; `None`: this is not root.
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn ground() -> Option<Ground> {
        if !geteuid().is_root() {
            eprintln!("SKIPPED: only root can work in another user's directory");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (theirs, private) = (folder.path().join("theirs"), folder.path().join("private"));
        fs::create_dir(&theirs).unwrap();
        chown(&theirs, Some(OTHER), Some(OTHER)).unwrap();
        fs::create_dir(&private).unwrap();
        fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(private.join("secret"), "root's").unwrap();
        fs::set_permissions(private.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        Some(Ground { theirs, private, _folder: folder })
    }

    impl Ground {
        fn is_untouched(&self) {
            assert_eq!(fs::read_dir(&self.private).unwrap().count(), 1);
            assert_eq!(fs::metadata(&self.private).unwrap().uid(), 0);
            let secret = fs::metadata(self.private.join("secret")).unwrap();
            assert_eq!((secret.uid(), secret.mode() & 0o777), (0, 0o600));
            assert_eq!(fs::read(self.private.join("secret")).unwrap(), b"root's");
        }

        fn link(&self, name: &str, to: &Path) {
            symlink(to, self.theirs.join(name)).unwrap();
            lchown(self.theirs.join(name), Some(OTHER), Some(OTHER)).unwrap();
        }
    }

    #[test]
    fn what_root_makes_in_another_users_directory_is_that_users() {
        let Some(ground) = ground() else { return };
        let home = open(&ground.theirs).unwrap();
        home.save_port(5_433).unwrap();
        home.write(&home.pgpass(), b"secret").unwrap();
        drop(home.join_users().unwrap());
        drop(home.open_log(1_000).unwrap());
        assert_eq!(home.make_socket_dir().unwrap(), ground.theirs.join("run"));
        for name in ["port", "pgpass", "users.lock", "postgres.log", "run"] {
            let about = fs::metadata(ground.theirs.join(name)).unwrap();
            assert_eq!((about.uid(), about.mode() & 0o077), (OTHER, 0), "{name}");
        }
        assert_eq!(home.saved_port().unwrap(), Some(5_433));
    }

    #[tokio::test]
    async fn links_in_another_users_directory_give_that_user_nothing_of_roots() {
        let Some(ground) = ground() else { return };
        let secret = ground.private.join("secret");
        for name in ["change.lock", "pgpass.new", "port.new", "postgres.log", "keep-running"] {
            ground.link(name, &secret);
        }
        fs::hard_link(&secret, ground.theirs.join("users.lock")).unwrap();
        ground.link("run", &ground.private);
        let home = open(&ground.theirs).unwrap();
        home.write(&home.pgpass(), b"secret").unwrap();
        home.save_port(5_433).unwrap();
        assert!(home.lock_changes(Duration::ZERO).await.is_err());
        assert!(home.join_users().is_err());
        assert!(home.open_log(1).is_err());
        assert!(home.make_socket_dir().is_err());
        ground.is_untouched();
        home.set_kept_running(true).unwrap();
        ground.is_untouched();
        // A directory that they name for the socket is not given to them either.
        fs::remove_file(ground.theirs.join("run")).unwrap();
        assert!(home.make_private(&ground.private).is_err());
        ground.is_untouched();
        assert!(open(&ground.theirs.join("run")).is_ok(), "a new one is made");
        ground.link("link", &ground.private);
        assert!(open(&ground.theirs.join("link")).is_err());
        ground.is_untouched();
    }

    #[test]
    fn the_directory_may_be_a_link_and_the_data_in_it_may_not() {
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (disk, data_dir) = (base.path().join("disk"), base.path().join("data"));
        fs::create_dir_all(disk.join("postgres")).unwrap();
        symlink(&disk, &data_dir).unwrap();
        assert_eq!(open(&data_dir).unwrap().folder(), fs::canonicalize(&disk).unwrap());
        let data_dir = base.path().join("other");
        fs::create_dir(&data_dir).unwrap();
        fs::write(disk.join("postgres/PG_VERSION"), "15").unwrap();
        symlink(disk.join("postgres"), data_dir.join("postgres")).unwrap();
        let error = open(&data_dir).unwrap_err();
        assert!(matches!(error, EmbeddedError::Linked { .. }), "{error:?}");
        assert!(error.to_string().contains(&disk.display().to_string()), "{error}");
    }

    #[test]
    fn a_name_that_another_user_took_is_not_used_and_is_in_nobodys_way() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("l".repeat(120));
        fs::create_dir(&folder).unwrap();
        let place = Folder::open(&folder).unwrap();
        let home = Home { folder, place, servant: Servant::of_this_process() };
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
            chown(&second, Some(OTHER), Some(OTHER)).unwrap();
            let third = home.make_socket_dir().unwrap();
            assert_ne!(third, second);
            fs::remove_dir(&second).unwrap();
            fs::remove_dir(&third).unwrap();
        }
    }

    #[test]
    fn a_named_pipe_in_the_place_of_a_file_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["port", "users.lock", "postgres.log"] {
            nix::unistd::mkfifo(&folder.path().join(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        let home = open(folder.path()).unwrap();
        assert!(home.saved_port().is_err());
        assert!(home.has_users().is_err());
        assert!(home.open_log(1_000).is_err());
    }
}
