//! The gaps that were found, as work: who takes which, what of it is still missing, and what came of it.
//!
//! A gap is worked on under a lease, by the database's clock, which all recorders share: whoever is killed meanwhile
//! leaves it to the next. What came of it is written in one transaction, and only by who still holds the lease.

mod lease;
mod list;
mod missing;

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{FromRow, PgPool, Row};

pub use lease::{LEASE, retry_delay};
pub use list::{
    ask_again, count_gaps, database_time, exchanges_with_work, list_gaps, release_held,
    waiting_gaps,
};
pub use missing::{Carried, remove_doubles, repaired_lately};

use crate::domain::GapStatus;

/// A trade id as a number, null where it is none: no id that somebody altered may fail a query.
macro_rules! number {
    () => {
        "CASE WHEN trade_id ~ '^(0|[1-9][0-9]{0,17})$' THEN trade_id::bigint END"
    };
}
pub(in crate::store::postgres) use number;

/// Which gaps are asked for.
#[derive(Debug, Clone)]
pub struct GapScope {
    /// Of this exchange.
    pub exchange: &'static str,
    /// Of these symbols; `None`: of all.
    pub symbols: Option<Vec<String>>,
    /// That begin no longer ago than this; `None`: of any age.
    pub max_age: Option<Duration>,
    /// Found at least this long ago: what was only late has come by then.
    pub settled: Duration,
    /// The newest first, where the exchange soon forgets; else the oldest.
    pub newest_first: bool,
}

/// A gap as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedGap {
    /// The exchange's name.
    pub exchange: String,
    /// The canonical symbol.
    pub symbol: String,
    /// The first missing id; `None`: only the time is known.
    pub first_id: Option<String>,
    /// The last missing id.
    pub last_id: Option<String>,
    /// Exchange time of the trade before it.
    pub from_time: DateTime<Utc>,
    /// Exchange time of the trade after it.
    pub to_time: DateTime<Utc>,
    /// What is known of it.
    pub status: GapStatus,
    /// What came of the last attempt.
    pub note: Option<String>,
}

impl FromRow<'_, PgRow> for ListedGap {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            exchange: row.try_get("exchange")?,
            symbol: row.try_get("symbol")?,
            first_id: row.try_get("first_id")?,
            last_id: row.try_get("last_id")?,
            from_time: row.try_get("from_time")?,
            to_time: row.try_get("to_time")?,
            status: status(row.try_get("status")?)?,
            note: row.try_get("note")?,
        })
    }
}

/// A status as it is stored; the table's own constraint knows no other.
fn status(name: &str) -> Result<GapStatus, sqlx::Error> {
    GapStatus::from_name(name)
        .ok_or_else(|| sqlx::Error::Decode(format!("no status of a gap: {name:?}").into()))
}

/// The table of gaps, for a worker who claims and settles them.
#[derive(Debug, Clone)]
pub struct Gaps {
    pool: PgPool,
    worker: String,
}

impl Gaps {
    /// For a worker whose name no other has.
    #[must_use]
    pub const fn new(pool: PgPool, worker: String) -> Self {
        Self { pool, worker }
    }
}
