//! Every task has a name and an owner.

use std::collections::HashMap;

use tokio::task::{Id, JoinError, JoinSet};

/// Tasks by name. Dropping it ends them where they are.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    set: JoinSet<()>,
    names: HashMap<Id, String>,
}

/// A task that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its name.
    pub(super) name: String,
    /// Why it panicked, if it did.
    pub(super) panic: Option<JoinError>,
}

impl Tasks {
    /// Starts a task.
    pub(super) fn spawn(
        &mut self,
        name: impl Into<String>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), name.into());
    }

    /// Waits until a task ends; `None` when there is none. Cancel-safe.
    pub(super) async fn join_next(&mut self) -> Option<Ended> {
        let ended = self.set.join_next_with_id().await?;
        let (id, panic) = match ended {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(error)),
        };
        Some(Ended { name: self.names.remove(&id).unwrap_or_default(), panic })
    }

    /// Ends them where they are, and waits until they have let go of what they held.
    pub(super) async fn abort(&mut self) {
        self.set.shutdown().await;
        self.names.clear();
    }

    /// The names of those that still run, sorted.
    #[must_use]
    pub(super) fn running(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.names.values().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_is_known_by_its_name_until_it_ends() {
        let mut tasks = Tasks::default();
        tasks.spawn("waits", std::future::pending());
        tasks.spawn("ends", async {});
        let ended = tasks.join_next().await.unwrap();
        assert_eq!((ended.name.as_str(), ended.panic.is_none()), ("ends", true));
        assert_eq!(tasks.running(), ["waits"]);
        tasks.spawn("panics", async { panic!("on purpose") });
        let ended = tasks.join_next().await.unwrap();
        assert_eq!((ended.name.as_str(), ended.panic.is_some()), ("panics", true));
    }
}
