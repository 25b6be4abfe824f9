//! What all connections and routes of one simulator use.

use std::fmt;
use std::sync::Arc;

use axum::http::HeaderValue;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::faults::FaultsHandle;
use super::limits::Limiter;
use super::market::Market;
use domain::Timestamp;

/// Where the simulator's time comes from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock of the caller's, as a test needs it.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl Default for Clock {
    /// The wall clock.
    fn default() -> Self {
        Self::new(Timestamp::now)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// What every connection uses.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) market: Market,
    pub(super) history: Option<usize>,
    pub(super) faults: FaultsHandle,
    pub(super) clock: Clock,
    /// The `Server` header of every answer.
    pub(super) server: Option<HeaderValue>,
    pub(super) limits: Limiter,
    pub(super) connections: TaskTracker,
    pub(super) stop: CancellationToken,
}
