//! Who uses the server, and who starts or stops it: locks that the kernel lets go of when their process dies.

use std::fs::{File, TryLockError};
use std::time::Duration;

use super::EmbeddedError;
use super::home::Home;
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
    /// When another process has it for longer than `wait`.
    pub(super) async fn lock_changes(&self, wait: Duration) -> Result<File, EmbeddedError> {
        let path = self.folder().join(CHANGES);
        let file =
            self.place().open_or_create(CHANGES).map_err(EmbeddedError::io("open", &path))?;
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            match file.try_lock() {
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
