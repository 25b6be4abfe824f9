//! How much is to be expected: from what was stored in the newest hour, or else from the exchanges' newest trades.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use sqlx::postgres::PgConnection;
use sqlx::types::chrono::{DateTime, Utc};

/// Bytes of a row with its index, as measured over 20 million rows; where enough is stored, that is measured.
const ROW_BYTES: i64 = 190;
/// From this many rows on their mean is used instead.
const ROWS_TELLING: i64 = 100_000;
const DAY_SECONDS: i64 = 86_400;
/// Over less time nothing is a rate.
const SECONDS_LEAST: i64 = 60;

/// Ticks that come, and what each takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    /// Ticks a second.
    pub(super) rows_per_second: Decimal,
    /// Bytes in table and index.
    pub(super) row_bytes: Decimal,
    /// Whether it was stored, else asked of the exchanges.
    pub(super) is_stored: bool,
}

impl Load {
    /// What an exchange's trades would take.
    pub(super) fn expected(rows_per_second: Decimal) -> Self {
        Self { rows_per_second, row_bytes: ROW_BYTES.into(), is_stored: false }
    }

    /// All together; `None` where there is nothing to add.
    pub(super) fn sum(loads: impl Iterator<Item = Self>) -> Option<Self> {
        loads.reduce(|sum, load| Self {
            rows_per_second: sum.rows_per_second + load.rows_per_second,
            ..sum
        })
    }

    /// What a day takes.
    pub(super) fn bytes_per_day(self) -> u64 {
        let a_day = self.rows_per_second.saturating_mul(DAY_SECONDS.into());
        a_day.saturating_mul(self.row_bytes).to_u64().unwrap_or(u64::MAX)
    }
}

/// By the newest hour of recording; `None` where next to nothing is stored.
pub(super) async fn load(connection: &mut PgConnection) -> Result<Option<Load>, sqlx::Error> {
    // What is older shows nothing of today; and without a bound each day that was ever recorded is locked.
    let week: DateTime<Utc> =
        sqlx::query_scalar("SELECT now() - interval '7 days'").fetch_one(&mut *connection).await?;
    // One range of the primary key for each symbol: fast however much is stored.
    let (rows, seconds): (i64, Option<Decimal>) = sqlx::query_as(
        "WITH ends AS ( \
             SELECT exchange, symbol, (SELECT time FROM tick_data \
                 WHERE tick_data.exchange = instruments.exchange AND tick_data.symbol = instruments.symbol \
                     AND time >= $1 ORDER BY time DESC LIMIT 1) AS newest FROM instruments \
         ), hour AS ( \
             SELECT max(newest) - interval '1 hour' AS since FROM ends \
         ), counted AS ( \
             SELECT count(*) AS rows, min(time) AS oldest, max(time) AS newest \
             FROM hour CROSS JOIN instruments JOIN tick_data USING (exchange, symbol) \
             WHERE time >= since AND time >= $1 \
         ) \
         SELECT rows, round(extract(epoch FROM newest - oldest), 3) FROM counted",
    )
    .persistent(false)
    .bind(week)
    .fetch_one(&mut *connection)
    .await?;
    let sizes: (Option<i64>, Option<i64>) = sqlx::query_as(
        "SELECT sum(pg_total_relation_size(pg_class.oid))::bigint, sum(nullif(reltuples, -1))::bigint \
         FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'tick_data'::regclass",
    )
    .fetch_one(connection)
    .await?;
    let row_bytes = match sizes {
        (Some(bytes), Some(rows)) if rows >= ROWS_TELLING => {
            Decimal::from(bytes) / Decimal::from(rows)
        }
        _ => ROW_BYTES.into(),
    };
    let seconds = seconds.filter(|seconds| *seconds >= SECONDS_LEAST.into());
    let rate = seconds.map(|seconds| Decimal::from(rows) / seconds);
    Ok(rate.map(|rows_per_second| Load { rows_per_second, row_bytes, is_stored: true }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_add_up_to_what_a_day_takes() {
        let sum = Load::sum([10, 90].into_iter().map(|rate| Load::expected(rate.into()))).unwrap();
        assert_eq!(sum.bytes_per_day(), 100 * 86_400 * 190);
        assert_eq!(Load::sum(std::iter::empty()), None);
    }
}
