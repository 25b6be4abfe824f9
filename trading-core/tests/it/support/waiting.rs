//! Waiting for what must come, and the tasks that bring it.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

/// Longer than anything takes on any machine, however much else runs there: a test goes on as soon as it has what it
/// waits for, and this ends one that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks until the answer is `Ok`. Where none is in [`PATIENCE`], the test fails with the last reason why not.
pub(crate) async fn until<T>(mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(reason) => assert!(Instant::now() < deadline, "{reason}"),
        }
        sleep(PAUSE).await;
    }
}

/// What a future gives, which must come within [`PATIENCE`].
pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it hangs")
}

/// Runs a task beside the test, until it ends or the test drops its handle.
pub(crate) fn spawn<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> AbortOnDropHandle<T> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the handle is its owner: it aborts the task when it is dropped"
    )]
    let running = tokio::spawn(task);
    AbortOnDropHandle::new(running)
}
