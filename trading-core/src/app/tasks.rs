//! Every task of the recorder has a name, an owner and a phase. The order of stopping is the order of the phases: see
//! [`Phase`] and [`Tasks::stop`].

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// What a task is for. At the stop the phases are ended one after the other, in this order. Before all of them the
/// recorder (`recorder.rs`) has the simulated market closed; after all of them `live.rs` ends the simulated exchanges, the
/// pool and the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Phase {
    /// What brings ticks, and what works beside it: feeds, repair, audit, upkeep, the watch of the clock. Ends by its
    /// token.
    Sources,
    /// What ticks run through: batcher, writers, spool. Ends when every source has dropped its end of the channel, and
    /// what they accepted is stored.
    Pipeline,
    /// What is written about it and from it: the journal, paper trading. Ends with its input.
    Sinks,
}

impl Phase {
    /// In the order of stopping.
    const ORDER: [Self; 3] = [Self::Sources, Self::Pipeline, Self::Sinks];
}

/// Tasks by name and phase. Dropping it ends them where they are.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    set: JoinSet<()>,
    running: HashMap<Id, (Phase, String)>,
    stops: HashMap<Phase, CancellationToken>,
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
        phase: Phase,
        name: impl Into<String>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let handle = self.set.spawn(task);
        self.running.insert(handle.id(), (phase, name.into()));
    }

    /// Is cancelled when this phase is to end.
    pub(super) fn stop_of(&mut self, phase: Phase) -> CancellationToken {
        self.stops.entry(phase).or_default().clone()
    }

    /// Waits until a task ends; `None` when there is none. Cancel-safe.
    pub(super) async fn join_next(&mut self) -> Option<Ended> {
        let ended = self.set.join_next_with_id().await?;
        let (id, panic) = match ended {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(error)),
        };
        let name = self.running.remove(&id).map(|(_phase, name)| name).unwrap_or_default();
        Some(Ended { name, panic })
    }

    /// Ends phase after phase; `false` when what is late was ended where it was, at the end of `within` or at once when
    /// somebody is `impatient` (which names the signal). `hurry` is cancelled at two thirds of `within`: what is not
    /// stored then goes to the spool.
    pub(super) async fn stop(
        &mut self,
        within: Duration,
        hurry: &CancellationToken,
        impatient: impl Future<Output = &'static str>,
    ) -> bool {
        let now = Instant::now();
        let (hurry_at, deadline) = (now + within * 2 / 3, now + within);
        let mut impatient = pin!(impatient);
        for phase in Phase::ORDER {
            self.stop_of(phase).cancel();
            while self.running.values().any(|(of, _name)| *of == phase) {
                tokio::select! {
                    biased;
                    ended = self.join_next() => {
                        if let Some(Ended { name, panic: Some(panic) }) = ended {
                            error!(%panic, "{name} panicked during the stop");
                        }
                        continue;
                    }
                    () = sleep_until(hurry_at), if !hurry.is_cancelled() => {
                        info!("Two thirds of the time to stop have passed: what is not stored goes to the spool");
                        hurry.cancel();
                        continue;
                    }
                    () = sleep_until(deadline) => {
                        warn!("Not stopped within {} s: {}", within.as_secs(), self.names().join(", "));
                    }
                    signal = &mut impatient => {
                        warn!("{signal} again: stopped at once, without {}", self.names().join(", "));
                    }
                }
                self.abort().await;
                return false;
            }
        }
        true
    }

    /// Ends them where they are, and waits until they have let go of what they held.
    async fn abort(&mut self) {
        self.set.shutdown().await;
        self.running.clear();
    }

    /// The names of those that still run, sorted.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.running.values().map(|(_phase, name)| &**name).collect();
        names.sort_unstable();
        names
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::{Arc, Mutex};

    use tokio::time::sleep;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(30);

    /// What happened, and how many seconds after the start.
    #[derive(Clone)]
    struct Events(Arc<Mutex<Vec<(u64, &'static str)>>>, Instant);

    impl Events {
        fn new() -> Self {
            Self(Arc::default(), Instant::now())
        }

        fn note(&self, what: &'static str) {
            self.0.lock().unwrap().push((self.1.elapsed().as_secs(), what));
        }

        fn seen(&self) -> Vec<(u64, &'static str)> {
            self.0.lock().unwrap().clone()
        }
    }

    #[tokio::test]
    async fn a_task_is_known_by_its_name_until_it_ends() {
        let mut tasks = Tasks::default();
        tasks.spawn(Phase::Sources, "waits", pending());
        tasks.spawn(Phase::Sources, "ends", async {});
        let ended = tasks.join_next().await.unwrap();
        assert_eq!((ended.name.as_str(), ended.panic.is_none()), ("ends", true));
        assert_eq!(tasks.names(), ["waits"]);
        tasks.spawn(Phase::Sources, "panics", async { panic!("on purpose") });
        let ended = tasks.join_next().await.unwrap();
        assert_eq!((ended.name.as_str(), ended.panic.is_some()), ("panics", true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_phase_is_stopped_when_the_one_before_has_ended_and_not_earlier() {
        let (events, mut tasks) = (Events::new(), Tasks::default());
        // Each needs a second for its end; started in another order than they are stopped in.
        for (phase, name) in
            [(Phase::Sinks, "sink"), (Phase::Sources, "source"), (Phase::Pipeline, "pipeline")]
        {
            let (events, stop) = (events.clone(), tasks.stop_of(phase));
            tasks.spawn(phase, name, async move {
                stop.cancelled().await;
                sleep(Duration::from_secs(1)).await;
                events.note(name);
            });
        }
        // A panic is no reason to leave the others where they are.
        let stop = tasks.stop_of(Phase::Sources);
        tasks.spawn(Phase::Sources, "panics", async move {
            stop.cancelled().await;
            panic!("on purpose");
        });
        let hurry = CancellationToken::new();
        assert!(tasks.stop(WITHIN, &hurry, pending()).await);
        assert_eq!(events.seen(), [(1, "source"), (2, "pipeline"), (3, "sink")]);
        assert!(!hurry.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn two_thirds_of_the_time_are_for_the_store_and_the_rest_is_for_the_spool() {
        let (events, mut tasks, hurry) =
            (Events::new(), Tasks::default(), CancellationToken::new());
        let (noted, hurried) = (events.clone(), hurry.clone());
        tasks.spawn(Phase::Pipeline, "pipeline", async move {
            hurried.cancelled().await;
            noted.note("hurried");
            pending::<()>().await;
        });
        let (noted, stop) = (events.clone(), tasks.stop_of(Phase::Sinks));
        tasks.spawn(Phase::Sinks, "sink", async move {
            stop.cancelled().await;
            noted.note("sink");
        });
        assert!(!tasks.stop(WITHIN, &hurry, pending()).await);
        events.note("stopped");
        // The pipeline never ended, so the sink was never asked to.
        assert_eq!(events.seen(), [(20, "hurried"), (30, "stopped")]);
        assert!(tasks.join_next().await.is_none(), "what is late is ended where it is");
    }

    #[tokio::test(start_paused = true)]
    async fn impatience_ends_everything_at_once() {
        let (events, mut tasks, hurry) =
            (Events::new(), Tasks::default(), CancellationToken::new());
        tasks.spawn(Phase::Sources, "late", pending());
        let impatient = async {
            sleep(Duration::from_secs(3)).await;
            "SIGINT"
        };
        assert!(!tasks.stop(WITHIN, &hurry, impatient).await);
        events.note("stopped");
        assert_eq!(events.seen(), [(3, "stopped")]);
        assert!(!hurry.is_cancelled() && tasks.names().is_empty());
    }
}
