//! Day partitions, made before a tick needs them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use sqlx::PgConnection;
use sqlx::types::chrono::NaiveDate;

use crate::domain::{Tick, Timestamp};

/// 2009-01-03, the day of the first Bitcoin block: no trade of a cryptocurrency is older.
const FIRST_DAY: i64 = 14_247;
/// Days made ahead, so that midnight finds its partition; a later time than these is a wrong one.
const DAYS_AHEAD: i64 = 2;

/// The days known to have a partition.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    known: Mutex<BTreeSet<i64>>,
}

impl Partitions {
    /// Makes what partitions the batch needs (and those of the next days), and parts it from the ticks whose time
    /// cannot be true: no bad clock makes partitions without end.
    pub(super) async fn prepare<'a>(
        &self,
        connection: &mut PgConnection,
        batch: &'a [Tick],
        now: Timestamp,
    ) -> Result<(Cow<'a, [Tick]>, Vec<Tick>), sqlx::Error> {
        let last_day = now.day() + DAYS_AHEAD;
        let in_range = |tick: &Tick| (FIRST_DAY..=last_day).contains(&tick.exchange_at.day());
        let (batch, out_of_range) = if batch.iter().all(in_range) {
            (Cow::Borrowed(batch), Vec::new())
        } else {
            let (good, bad) = batch.iter().cloned().partition(in_range);
            (Cow::Owned(good), bad)
        };
        for day in self.missing(&batch, now) {
            sqlx::query("SELECT ensure_tick_partition($1)")
                .bind(NaiveDate::from_epoch_days(i32::try_from(day).unwrap_or_default()))
                .execute(&mut *connection)
                .await?;
            self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(day);
        }
        Ok((batch, out_of_range))
    }

    /// Asks the database again before the next write.
    pub(super) fn forget(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The days of the batch, of today and of the next ones that are not known to have a partition.
    fn missing(&self, batch: &[Tick], now: Timestamp) -> BTreeSet<i64> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        batch
            .iter()
            .map(|tick| tick.exchange_at.day())
            .chain(now.day()..=now.day() + DAYS_AHEAD)
            .filter(|day| !known.contains(day))
            .collect()
    }
}
