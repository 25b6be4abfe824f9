//! Folders that are opened once and then used by their handle, so that nobody can put another one in their place.
//!
//! Promised of every name below a folder: a symbolic link is never followed, nothing but a regular file of our own user
//! is opened, and nothing is waited for. No file is ever given to another user. Root works in another user's directory
//! as that user ([`Hand`]), so that it can do there no more than that user could.

mod hand;
mod holders;
mod shut;
#[cfg(test)]
mod tests;
mod way;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Uid, UnlinkatFlags, fchown, geteuid, unlinkat};

pub(crate) use hand::{Hand, user_name};
pub(crate) use holders::holders;
pub(crate) use shut::{Shut, as_user};

/// How a folder is opened for use.
const FOLDER: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC)
    .union(OFlag::O_NONBLOCK);
/// How a file is opened, beside the kind of access.
const FILE: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK);

/// An open folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    handle: Arc<OwnedFd>,
    path: PathBuf,
    hand: Hand,
}

impl Folder {
    /// Opens a folder.
    ///
    /// # Errors
    ///
    /// When it is not there, or the way to it leads through a symbolic link of another user.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::at(path, None)
    }

    /// Opens a folder, and makes with this mode what of it is missing.
    ///
    /// # Errors
    ///
    /// As [`Folder::open`], and when it cannot be made.
    pub(crate) fn open_or_make(path: &Path, mode: u32) -> io::Result<Self> {
        Self::at(path, Some(Mode::from_bits_truncate(mode)))
    }

    fn at(path: &Path, make: Option<Mode>) -> io::Result<Self> {
        let (handle, hand) = way::walk(path, make)?;
        let handle = hand.run(|| Ok(openat(&handle, ".", FOLDER, Mode::empty())?))?;
        Ok(Self { handle: Arc::new(handle), path: path.to_owned(), hand })
    }

    /// Its path, as it was asked for.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// With whose rights everything in it is touched.
    pub(crate) const fn hand(&self) -> Hand {
        self.hand
    }

    /// Its owner, its group and its mode.
    pub(crate) fn owner(&self) -> io::Result<(u32, u32, u32)> {
        let about = fstat(&*self.handle)?;
        Ok((about.st_uid, about.st_gid, about.st_mode & 0o7777))
    }

    /// Sets its mode.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        let mode = Mode::from_bits_truncate(mode);
        self.hand.run(|| Ok(fchmod(&*self.handle, mode)?))
    }

    /// A folder in this one that `user` alone may enter, made where it is missing; says whose it is, which is another's
    /// where somebody else had made it. With `give` this folder is our own, and what we make in it becomes the user's;
    /// otherwise that user makes it.
    pub(crate) fn make_private(&self, name: &str, user: Hand, give: bool) -> io::Result<u32> {
        let maker = if give { self.hand } else { user };
        match maker.run(|| Ok(mkdirat(&*self.handle, name, Mode::S_IRWXU)?)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.must_be(name, SFlag::S_IFDIR, "a folder")?;
        let handle = maker.run(|| Ok(openat(&*self.handle, name, FOLDER, Mode::empty())?))?;
        // Perhaps made by us and not yet given away when we were interrupted.
        if give && user.is_another() && fstat(&handle)?.st_uid == geteuid().as_raw() {
            fchown(&handle, Some(user.user()), Some(user.group()))?;
        }
        let owner = fstat(&handle)?.st_uid;
        if owner == user.user().as_raw() {
            maker.run(|| Ok(fchmod(&handle, Mode::S_IRWXU)?))?;
        }
        Ok(owner)
    }

    /// Whether this is the very same open folder.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.handle, &other.handle)
    }

    /// Whether the folder still lies at its path.
    pub(crate) fn is_in_place(&self) -> bool {
        let same = || -> io::Result<bool> {
            let (handle, _) = way::walk(&self.path, None)?;
            Ok(is_one(&fstat(&handle)?, &fstat(&*self.handle)?))
        };
        same().unwrap_or(false)
    }

    /// Whether this name is still that of this open file.
    pub(crate) fn holds(&self, name: &str, file: &File) -> bool {
        let (named, open) = (self.about(name), fstat(file));
        matches!((named, open), (Ok(named), Ok(open)) if is_one(&named, &open))
    }

    /// Whether there is something of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.about(name).is_ok()
    }

    fn about(&self, name: &str) -> io::Result<FileStat> {
        self.hand.run(|| Ok(fstatat(&*self.handle, name, AtFlags::AT_SYMLINK_NOFOLLOW)?))
    }

    /// A folder in this one.
    pub(crate) fn subfolder(&self, name: &str) -> io::Result<Self> {
        self.must_be(name, SFlag::S_IFDIR, "a folder")?;
        let handle = self.hand.run(|| Ok(openat(&*self.handle, name, FOLDER, Mode::empty())?))?;
        self.must_be_ours(&fstat(&handle)?)?;
        Ok(Self { handle: Arc::new(handle), path: self.path.join(name), hand: self.hand })
    }

    /// A folder in this one, made durably and with this mode where it is missing.
    pub(crate) fn make_subfolder(&self, name: &str, mode: u32) -> io::Result<Self> {
        let mode = Mode::from_bits_truncate(mode);
        match self.hand.run(|| Ok(mkdirat(&*self.handle, name, mode)?)) {
            Ok(()) => self.sync()?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        self.subfolder(name)
    }

    /// The folder as a file, with a lock of its own.
    pub(crate) fn as_file(&self) -> io::Result<File> {
        let handle = self.hand.run(|| Ok(openat(&*self.handle, ".", FOLDER, Mode::empty())?))?;
        Ok(handle.into())
    }

    /// Opens a regular file of ours for reading.
    pub(crate) fn read(&self, name: &str) -> io::Result<File> {
        self.must_be(name, SFlag::S_IFREG, "a file")?;
        self.open_file(name, OFlag::O_RDONLY)
    }

    /// Opens a regular file of ours for writing too.
    pub(crate) fn write(&self, name: &str) -> io::Result<File> {
        self.must_be(name, SFlag::S_IFREG, "a file")?;
        self.open_file(name, OFlag::O_RDWR)
    }

    /// Opens a regular file of ours to write at its end, made where it is missing.
    pub(crate) fn append(&self, name: &str) -> io::Result<File> {
        drop(self.open_or_create(name)?);
        self.open_file(name, OFlag::O_WRONLY | OFlag::O_APPEND)
    }

    /// Makes a file that was not there.
    pub(crate) fn create(&self, name: &str) -> io::Result<File> {
        self.open_file(name, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL)
    }

    /// Opens a regular file of ours for reading and writing, made where it is missing.
    pub(crate) fn open_or_create(&self, name: &str) -> io::Result<File> {
        match self.write(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => return done,
        }
        match self.create(name) {
            // Somebody was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.write(name),
            done => done,
        }
    }

    fn open_file(&self, name: &str, access: OFlag) -> io::Result<File> {
        let mode = Mode::from_bits_truncate(0o600);
        let handle = self.hand.run(|| Ok(openat(&*self.handle, name, FILE | access, mode)?))?;
        let about = fstat(&handle)?;
        if kind(&about) != SFlag::S_IFREG {
            return Err(io::Error::other(format!("it is {}, not a file", kind_name(&about))));
        }
        self.must_be_ours(&about)?;
        Ok(handle.into())
    }

    /// Looked at before it is opened: opening a device may do something.
    fn must_be(&self, name: &str, wanted: SFlag, wanted_name: &str) -> io::Result<()> {
        let about = self.about(name)?;
        if kind(&about) == wanted {
            return Ok(());
        }
        Err(io::Error::other(format!("it is {}, not {wanted_name}", kind_name(&about))))
    }

    fn must_be_ours(&self, about: &FileStat) -> io::Result<()> {
        let owner = Uid::from_raw(about.st_uid);
        if owner == self.hand.user() || owner.is_root() {
            return Ok(());
        }
        Err(io::Error::other(format!("it belongs to the user {}", user_name(owner.as_raw()))))
    }

    /// Removes a file.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        self.hand.run(|| Ok(unlinkat(&*self.handle, name, UnlinkatFlags::NoRemoveDir)?))
    }

    /// Removes a folder in which nothing is.
    pub(crate) fn remove_subfolder(&self, name: &str) -> io::Result<()> {
        self.hand.run(|| Ok(unlinkat(&*self.handle, name, UnlinkatFlags::RemoveDir)?))
    }

    /// Gives a file another name in this folder.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.hand.run(|| Ok(renameat(&*self.handle, from, &*self.handle, to)?))
    }

    /// Makes durable which names it holds.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.as_file()?.sync_all()
    }

    /// Calls `each` with every name in it that is UTF-8.
    pub(crate) fn names(&self, mut each: impl FnMut(&str)) -> io::Result<()> {
        let listing = Dir::from_fd(self.as_file()?.into())?;
        for entry in listing {
            match entry?.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => each(name),
            }
        }
        Ok(())
    }
}

fn is_one(one: &FileStat, other: &FileStat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

fn kind(about: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT
}

fn kind_name(about: &FileStat) -> &'static str {
    match kind(about) {
        SFlag::S_IFREG => "a file",
        SFlag::S_IFDIR => "a folder",
        SFlag::S_IFLNK => "a symbolic link",
        SFlag::S_IFIFO => "a named pipe",
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFBLK | SFlag::S_IFCHR => "a device",
        _ => "something else",
    }
}

/// Whether a failure says that there is no such file.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ESTALE as i32)
}
