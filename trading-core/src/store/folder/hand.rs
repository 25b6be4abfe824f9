//! In whose name files are touched.

use std::io;

use nix::unistd::{Gid, Uid, User, getegid, geteuid};

/// The user whose rights count: our own, or for root in another user's directory that user's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Hand {
    step_down: Option<(Uid, Gid)>,
}

impl Hand {
    /// Of another user. The group is the user's own, since a directory's may be root's.
    pub(crate) fn of(uid: u32, gid: u32) -> Self {
        let uid = Uid::from_raw(uid);
        let gid = match User::from_uid(uid) {
            Ok(Some(user)) => user.gid,
            _ if gid != 0 => Gid::from_raw(gid),
            _ => Gid::from_raw(uid.as_raw()),
        };
        Self { step_down: Some((uid, gid)) }
    }

    /// Whose rights these are.
    pub(crate) fn user(self) -> Uid {
        self.step_down.map_or_else(geteuid, |(uid, _)| uid)
    }

    /// Whose group new files get.
    pub(crate) fn group(self) -> Gid {
        self.step_down.map_or_else(getegid, |(_, gid)| gid)
    }

    /// Whether they are another user's.
    pub(crate) const fn is_another(self) -> bool {
        self.step_down.is_some()
    }

    /// Touches files with these rights: the calling thread alone has them, until `work` returns.
    ///
    /// # Errors
    ///
    /// Those of `work`, and when this process may not step down.
    pub(crate) fn run<T>(self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some((uid, gid)) = self.step_down else { return work() };
        let _stepped = Stepped::down(uid, gid)?;
        work()
    }
}

/// While this lives, the thread touches files as another user.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[derive(Debug)]
struct Stepped {
    uid: Uid,
    gid: Gid,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Stepped {
    fn down(uid: Uid, gid: Gid) -> io::Result<Self> {
        use nix::unistd::{setfsgid, setfsuid};
        // The group first: it takes a right that the user does not have. What is changed back is what was.
        let gid_before = setfsgid(gid);
        let uid_before = setfsuid(uid);
        let stepped = Self { uid: uid_before, gid: gid_before };
        // No such user: changes nothing, and says what is.
        let nobody = u32::MAX;
        if setfsuid(Uid::from_raw(nobody)) == uid && setfsgid(Gid::from_raw(nobody)) == gid {
            return Ok(stepped);
        }
        Err(refused(uid))
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Drop for Stepped {
    fn drop(&mut self) {
        nix::unistd::setfsuid(self.uid);
        nix::unistd::setfsgid(self.gid);
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[derive(Debug)]
struct Stepped;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Stepped {
    fn down(uid: Uid, _gid: Gid) -> io::Result<Self> {
        Err(refused(uid))
    }
}

fn refused(uid: Uid) -> io::Error {
    let user = user_name(uid.as_raw());
    io::Error::other(format!(
        "it lies in a directory of the user {user}, and this process cannot work there with that user's rights; run it \
         as {user}"
    ))
}

/// What a user is called.
pub(crate) fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => format!("number {uid}"),
    }
}
