//! What is done to the tables beside recording: days are made ahead, old ones dropped, and ticks stored that were refused
//! only because a clock was wrong.
//!
//! None of it is needed for a write, so none of its failures is one: each is logged, and tried again.

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::domain::{RecorderClock, Timestamp};
use crate::store::postgres::maintenance::MaintenanceError;
use crate::store::postgres::restore::{Restored, restore_refused_for_time};
use crate::store::postgres::retention::{Dropped, drop_old_partitions};
use crate::store::postgres::{make_days_ahead, remedy};
use crate::store::{Remedy, cause_of, said};
use crate::telemetry::Lasting;

/// How often days are made ahead, and old ones looked for.
const INTERVAL: Duration = Duration::from_secs(3_600);
/// How soon what failed is tried again: well before midnight, however late it began to fail.
const RETRY_INTERVAL: Duration = Duration::from_secs(300);
/// How often refused ticks are looked through: soon after a clock is put right.
const RESTORE_INTERVAL: Duration = Duration::from_secs(60);

/// Runs until it is stopped.
pub(super) async fn run(
    pool: PgPool,
    retention: Option<Duration>,
    clock: RecorderClock,
    stop: CancellationToken,
) {
    let work = async {
        let (mut ahead_at, mut keep_at) = (Instant::now(), Instant::now());
        loop {
            if Instant::now() >= ahead_at {
                ahead_at = after(make_ahead(&pool).await);
            }
            if Instant::now() >= keep_at {
                keep_at = after(keep(&pool, retention).await);
            }
            restore(&pool, &clock).await;
            sleep(RESTORE_INTERVAL).await;
        }
    };
    stop.run_until_cancelled(work).await;
}

/// When a piece of work is due again, by whether it is done.
fn after(is_done: bool) -> Instant {
    Instant::now() + if is_done { INTERVAL } else { RETRY_INTERVAL }
}

async fn make_ahead(pool: &PgPool) -> bool {
    match make_days_ahead(pool).await {
        Ok(None) => true,
        Ok(Some(why)) => {
            warn!("No partition made ahead for {why}. Recording goes on, and it is tried again");
            false
        }
        Err(error) => failed("No partitions made ahead", &error),
    }
}

/// Drops the days that are older than the retention.
async fn keep(pool: &PgPool, retention: Option<Duration>) -> bool {
    let Some(retention) = retention else { return true };
    let dropped = match drop_old_partitions(pool, retention, Timestamp::now()).await {
        Ok(dropped) => dropped,
        Err(MaintenanceError::Database(error)) => return failed("Old days not dropped", &error),
        Err(error) => {
            warn!(cause = cause_of(&error), "Old days not dropped: {error}");
            return false;
        }
    };
    log_dropped(&dropped, retention);
    dropped.refused.is_empty()
}

fn log_dropped(dropped: &Dropped, retention: Duration) {
    let retention = Lasting(retention);
    if let Some((ours, database)) = dropped.clocks_differ {
        error!(
            "Our clock says {ours} and the database's {database}: set the wrong one right. Until then days are judged by \
             the earlier one, and none of the last {retention} before it is dropped"
        );
    }
    let (days, lately) = (dropped.days.len(), dropped.written_lately.len());
    if days > 0 {
        info!(days, "Old days dropped, as database.retention is {retention}: {}", dropped.names());
    }
    if lately > 0 {
        info!(
            days = lately,
            "Old days kept for now, because ticks were received for them within a day: {}",
            dropped.names_written_lately()
        );
    }
    let refused = dropped.refused.len();
    if refused > 0 {
        warn!(days = refused, "Old days not dropped, and tried again: {}", dropped.refusals());
    }
}

async fn restore(pool: &PgPool, clock: &RecorderClock) {
    match restore_refused_for_time(pool, clock.offset()).await {
        Ok(restored) if restored == Restored::default() => {}
        Ok(restored) => info!(
            "Ticks that were refused only for their time are in tick_data now: {} stored, {} were there already; {} gaps \
             are open again because of them",
            restored.stored, restored.already_there, restored.reopened
        ),
        Err(error) => {
            failed("Ticks that were refused for their time are not looked through", &error);
        }
    }
}

/// Logs it; a database that is away is reported by the writers already. Returns `false`, as the work is not done.
fn failed(what: &str, error: &sqlx::Error) -> bool {
    if remedy(error) == Remedy::Retry && error.as_database_error().is_none() {
        debug!(error = %said(error), "{what}");
    } else {
        warn!("{what}, and tried again: {}", said(error));
    }
    false
}
