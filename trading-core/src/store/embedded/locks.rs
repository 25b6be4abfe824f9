//! Who uses the server, and who starts or stops it: locks that the kernel lets go of when their process dies.

use std::fs::{File, TryLockError};
use std::time::Duration;

use super::home::Home;
use super::{EmbeddedError, Options, blocking};
use crate::store::folder::{holders, is_missing};

/// Held while somebody starts or stops the server.
const CHANGES: &str = "change.lock";
/// Held, shared, by every process that uses the server.
const USERS: &str = "users.lock";
/// How often a lock that another process holds is tried again.
const LOCK_POLL: Duration = Duration::from_millis(20);

impl Home {
    /// Waits for the right to start or stop the server.
    ///
    /// # Errors
    ///
    /// When another process has it for longer than `wait`, or the directory was removed meanwhile
    /// ([`EmbeddedError::Removed`]): who makes it opens it anew then.
    pub(super) async fn lock_changes(&self, wait: Duration) -> Result<File, EmbeddedError> {
        let path = self.folder().join(CHANGES);
        let removed = || EmbeddedError::Removed { folder: self.folder().to_owned() };
        let file = match self.place().open_or_create(CHANGES) {
            Err(error) if is_missing(&error) && !self.place().is_in_place() => {
                return Err(removed());
            }
            file => file.map_err(EmbeddedError::io("open", &path))?,
        };
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            match file.try_lock() {
                // `db remove` removes the file while it holds it: whoever waited gets the lock of no file at all, and
                // others that of a new one.
                Ok(()) if !self.place().holds(CHANGES, &file) => return Err(removed()),
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => {
                    return Err(EmbeddedError::io("lock", &path)(error));
                }
                Err(TryLockError::WouldBlock) if tokio::time::Instant::now() >= deadline => {
                    return Err(EmbeddedError::Busy {
                        folder: self.folder().to_owned(),
                        waited: wait,
                    });
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_POLL).await,
            }
        }
    }

    /// Opens the directory, and makes it where it is missing or was removed meanwhile, and waits for the right to start
    /// its server.
    ///
    /// # Errors
    ///
    /// As [`Home::open`], and when another process has that right for longer than `wait`.
    pub(super) async fn open_locked(
        options: &Options,
        wait: Duration,
    ) -> Result<(Self, File), EmbeddedError> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let options = options.clone();
            let home = blocking(move || Self::open(&options)).await?;
            match home.lock_changes(wait).await {
                Err(EmbeddedError::Removed { .. }) if tokio::time::Instant::now() < deadline => {}
                lock => return Ok((home, lock?)),
            }
        }
    }

    /// Joins those who use the server, until the file is closed, by us or by the kernel.
    pub(super) fn join_users(&self) -> Result<File, EmbeddedError> {
        let path = self.folder().join(USERS);
        let file = self.place().open_or_create(USERS).map_err(EmbeddedError::io("open", &path))?;
        // Never waits: the exclusive lock is only ever tried, by who holds the change lock as we do now.
        file.lock_shared().map_err(EmbeddedError::io("lock", &path))?;
        Ok(file)
    }

    /// Whether any process uses the server. Exact only under the change lock.
    pub(super) fn has_users(&self) -> Result<bool, EmbeddedError> {
        Ok(self.users()?.is_some())
    }

    /// The processes that use the server, 0 where one is not known; `None`: nobody does. Exact only under the change lock.
    pub(super) fn users(&self) -> Result<Option<Vec<i32>>, EmbeddedError> {
        let path = self.folder().join(USERS);
        let file = match self.place().read(USERS) {
            Ok(file) => file,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(EmbeddedError::io("open", &path)(error)),
        };
        match file.try_lock() {
            Ok(()) => {
                file.unlock().map_err(EmbeddedError::io("unlock", &path))?;
                Ok(None)
            }
            Err(TryLockError::WouldBlock) => {
                let mut pids = holders(&file);
                pids.extend(pids.is_empty().then_some(0));
                Ok(Some(pids))
            }
            Err(TryLockError::Error(error)) => Err(EmbeddedError::io("lock", &path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const WAIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn who_waits_while_the_directory_is_removed_gets_the_lock_of_a_new_one() {
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data_dir = Some(base.path().join("data"));
        let options = Options { data_dir, simulated: true, ..Options::default() };
        let home = Home::open(&options).unwrap();
        let removing = home.lock_changes(Duration::ZERO).await.unwrap();
        let mut start = std::pin::pin!(Home::open_locked(&options, WAIT));
        let waits = tokio::time::timeout(LOCK_POLL * 5, &mut start).await;
        assert!(waits.is_err(), "{waits:?}");
        let mut stop = std::pin::pin!(home.lock_changes(WAIT));
        assert!(tokio::time::timeout(LOCK_POLL, &mut stop).await.is_err());

        fs::remove_dir_all(home.folder()).unwrap();
        drop(removing);
        let stopped = stop.await;
        assert!(matches!(stopped, Err(EmbeddedError::Removed { .. })), "{stopped:?}");
        let (new, lock) = start.await.unwrap();
        assert!(new.place().holds(CHANGES, &lock));
        assert!(new.folder().join(CHANGES).is_file());
        let late = home.lock_changes(Duration::ZERO).await;
        assert!(matches!(late, Err(EmbeddedError::Removed { .. })), "{late:?}");
    }
}
