//! The way from `/` to a folder, a step at a time: each directory is opened, looked at, and never left to its name again.
//!
//! Whoever owns a directory can put something else in the place of what lies in it. So from the first directory of
//! another user on, root goes as that user, and from the first directory that others can write to nobody follows links.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{fsync, getegid, geteuid};

use super::hand::{Hand, user_name};

/// Links that are followed, and folders that are made again after somebody removed them, on one way.
const TURNS_MAX: u32 = 64;
/// A directory on the way is passed through, which takes no right to list it.
#[cfg(any(target_os = "linux", target_os = "android"))]
const PASS: OFlag = OFlag::O_PATH;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const PASS: OFlag = OFlag::O_RDONLY;

/// Who could have changed the way so far.
#[derive(Debug, Default)]
struct Trust {
    hand: Hand,
    /// Others can make links here.
    is_open: bool,
}

impl Trust {
    /// Goes into a directory.
    fn enter(&mut self, about: &FileStat) -> io::Result<()> {
        if !is_trusted(about.st_uid) {
            self.is_open = true;
            if geteuid().is_root() {
                self.step_down(about)?;
            }
        }
        let for_all = about.st_mode & Mode::S_IWOTH.bits() != 0;
        let group = about.st_gid != 0 && about.st_gid != getegid().as_raw();
        let for_group = group && about.st_mode & Mode::S_IWGRP.bits() != 0;
        // In a sticky directory such as /tmp only the owner of an entry can replace it.
        let sticky = about.st_mode & Mode::S_ISVTX.bits() != 0;
        self.is_open |= (for_all || for_group) && !sticky;
        Ok(())
    }

    fn step_down(&mut self, about: &FileStat) -> io::Result<()> {
        if self.hand.is_another() && self.hand.user().as_raw() != about.st_uid {
            let (one, other) = (user_name(self.hand.user().as_raw()), user_name(about.st_uid));
            return Err(io::Error::other(format!(
                "the way to it leads through directories of the users {one} and {other}; choose one that root or one \
                 user alone controls"
            )));
        }
        self.hand = Hand::of(about.st_uid, about.st_gid);
        Ok(())
    }

    /// Whether a link may be followed.
    fn follow(&self, name: &OsString, about: &FileStat) -> io::Result<()> {
        if !self.is_open && is_trusted(about.st_uid) {
            return Ok(());
        }
        let (name, owner) = (name.display(), user_name(about.st_uid));
        Err(io::Error::other(format!(
            "{name} on the way to it is a symbolic link that another user controls ({owner}), and is not followed"
        )))
    }
}

fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

/// Opens the directory, and says with whose rights to work in it. With a mode, what is missing is made.
pub(super) fn walk(path: &Path, make: Option<Mode>) -> io::Result<(OwnedFd, Hand)> {
    let mut left = names(&std::path::absolute(path)?);
    let mut here = top()?;
    let mut trust = Trust::default();
    trust.enter(&fstat(&here)?)?;
    let mut turns = 0;
    while let Some(name) = left.pop() {
        match step(&here, &name, trust.hand)? {
            Ok(next) => {
                trust.enter(&fstat(&next)?)?;
                here = next;
                continue;
            }
            Err(Errno::ENOENT) if make.is_some() => {
                let mode = make.unwrap_or(Mode::S_IRWXU);
                trust.hand.run(|| make_in(&here, &name, mode))?;
                left.push(name);
            }
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                let about = fstatat(&here, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
                if SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT != SFlag::S_IFLNK {
                    return Err(Errno::ENOTDIR.into());
                }
                trust.follow(&name, &about)?;
                let target = readlinkat(&here, name.as_os_str())?;
                let target = Path::new(&target);
                if target.has_root() {
                    here = top()?;
                }
                left.extend(names(target));
            }
            Err(error) => return Err(error.into()),
        }
        turns += 1;
        if turns > TURNS_MAX {
            return Err(Errno::ELOOP.into());
        }
    }
    Ok((here, trust.hand))
}

fn top() -> io::Result<OwnedFd> {
    Ok(open("/", PASS | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

fn step(here: &OwnedFd, name: &OsString, hand: Hand) -> io::Result<Result<OwnedFd, Errno>> {
    let flags = PASS | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    hand.run(|| Ok(openat(here, name.as_os_str(), flags, Mode::empty())))
}

fn make_in(here: &OwnedFd, name: &OsString, mode: Mode) -> io::Result<()> {
    match mkdirat(here, name.as_os_str(), mode) {
        Ok(()) => {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            match openat(here, ".", flags, Mode::empty()) {
                Ok(folder) => Ok(fsync(&folder)?),
                // It can be written to and not be listed: then its names are as durable as it makes them.
                Err(Errno::EACCES) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The steps, the first one last.
fn names(path: &Path) -> Vec<OsString> {
    let mut names: Vec<OsString> = path
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect();
    names.reverse();
    names
}
