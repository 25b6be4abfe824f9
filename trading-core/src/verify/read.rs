//! The first look: one pass over the table in parts of a day, and everything small that it is held against.

use std::collections::BTreeMap;

use sqlx::postgres::PgConnection;
use sqlx::postgres::types::Oid;
use sqlx::types::chrono::{DateTime, Utc};

use crate::domain::{Timestamp, TradeId};

use super::Scope;
use super::coverage::Coverage;
use super::error::VerifyError;
use super::gaps::{GapRow, GapStatus};
use super::snapshot::Snapshot;
use super::tally::Group;

/// Pages (of 8 KiB) of a day that one query reads: small enough that its groups fit into the server's memory for
/// one sort (4 MiB by default) and that it is over within a second.
const PAGES_PER_LOOK: i64 = 8_192;
/// Ids of rejected trades that are held against holes.
const REJECTED_IDS_MAX: i64 = 1_000_000;

/// Exchange and symbol.
pub(super) type Key = (String, String);

/// A partition of `tick_data`.
#[derive(Debug, Clone)]
pub(super) struct Day {
    /// The table.
    pub(super) oid: Oid,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    /// Its size.
    pub(super) pages: i64,
}

impl Day {
    /// Where it begins.
    pub(super) fn begin(&self) -> Timestamp {
        instant(self.from)
    }
}

/// A part of a day that is read by one query.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    day: &'a Day,
    first_page: i64,
    end_page: i64,
}

impl Part<'_> {
    /// How many pages it has.
    pub(super) fn pages(&self) -> u64 {
        u64::try_from(self.end_page - self.first_page).unwrap_or_default()
    }
}

/// The days that hold the scope's time, oldest first.
pub(super) async fn days(snapshot: &Snapshot, scope: &Scope) -> Result<Vec<Day>, VerifyError> {
    type Row = (Oid, String, Option<DateTime<Utc>>, Option<DateTime<Utc>>, i64);
    let mut look = snapshot.look().await?;
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT inhrelid, relname::text, \
             substring(bound FROM 'FROM \\(''([^'']+)''\\)')::timestamptz, \
             substring(bound FROM 'TO \\(''([^'']+)''\\)')::timestamptz AS until, \
             coalesce(pg_relation_size(inhrelid) / current_setting('block_size')::bigint, 0) \
         FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid \
         CROSS JOIN LATERAL pg_get_expr(relpartbound, inhrelid) AS bound \
         WHERE inhparent = 'tick_data'::regclass ORDER BY until",
    )
    .fetch_all(&mut *look)
    .await
    .map_err(VerifyError::of_schema)?;
    let mut days = Vec::new();
    for (oid, name, from, to, pages) in rows {
        let (Some(from), Some(to)) = (from, to) else { return Err(VerifyError::Partition(name)) };
        let is_wanted = from < scope.to.to_datetime()
            && scope.from.is_none_or(|wanted| wanted.to_datetime() < to);
        if is_wanted {
            days.push(Day { oid, from, to, pages });
        }
    }
    Ok(days)
}

/// Whether one of the days has been dropped since.
pub(super) async fn is_any_dropped(snapshot: &Snapshot, days: &[Day]) -> Result<bool, VerifyError> {
    let oids: Vec<Oid> = days.iter().map(|day| day.oid).collect();
    let mut look = snapshot.look().await?;
    // The size is that of now; null where there is no such table any more.
    let dropped = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM unnest($1::oid[]) AS day WHERE pg_relation_size(day) IS NULL)",
    )
    .bind(oids)
    .fetch_one(&mut *look)
    .await?;
    Ok(dropped)
}

/// The days in parts. A scope of a few symbols is read by the index, a whole day at once.
pub(super) fn parts<'a>(days: &'a [Day], scope: &Scope) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    for day in days {
        let step = if scope.symbols.is_empty() { PAGES_PER_LOOK } else { day.pages.max(1) };
        let mut first_page = 0;
        while first_page < day.pages {
            let end_page = first_page.saturating_add(step).min(day.pages);
            parts.push(Part { day, first_page, end_page });
            first_page = end_page;
        }
    }
    parts
}

/// Each row once: its id goes into a bit of its block, so that the blocks say which ids are there and how many rows
/// hold them. `$1`: ids are looked at as text before they are read as numbers, which takes twice as long.
///
/// OFFSET 0 keeps the planner from reading each id several times.
const PART: &str = "\
SELECT exchange, symbol, id >> 6, count(*), bit_or(1::bigint << (id & 63)::integer), \
    (extract(epoch FROM min(time)) * 1000000)::bigint, (extract(epoch FROM max(time)) * 1000000)::bigint, \
    (extract(epoch FROM min(received_at) FILTER (WHERE is_live)) * 1000000)::bigint, \
    (extract(epoch FROM max(received_at) FILTER (WHERE is_live)) * 1000000)::bigint, \
    count(*) FILTER (WHERE is_sane IS NOT TRUE), \
    coalesce(bool_or(id < 0 OR id::text <> trade_id), false) \
FROM ( \
    SELECT exchange, symbol, trade_id, time, received_at, \
        source = 'live' AND isfinite(received_at) AS is_live, \
        price > 0 AND price < 'Infinity' AND quantity > 0 AND quantity < 'Infinity' AND side IN ('buy', 'sell') \
            AND source IN ('live', 'backfill', 'pushed', 'bridge') AND isfinite(received_at) AS is_sane, \
        CASE WHEN exchange = ANY ($2) AND NOT ($1 AND trade_id !~ '^(0|[1-9][0-9]{0,17})$') THEN trade_id::bigint END AS id \
    FROM tick_data \
    WHERE tableoid = $3 AND time >= $4 AND time < $5 AND ctid >= $6::text::tid AND ctid < $7::text::tid \
        AND ($8::text[] IS NULL OR exchange = ANY ($8)) AND ($9::text[] IS NULL OR symbol = ANY ($9)) \
    OFFSET 0 \
) AS ticks \
GROUP BY exchange, symbol, id >> 6";

type PartRow =
    (String, String, Option<i64>, i64, Option<i64>, i64, i64, Option<i64>, Option<i64>, i64, bool);

/// Reads one part. `consecutive`: the exchanges whose ids are numbers that follow each other.
pub(super) async fn part(
    snapshot: &Snapshot,
    part: Part<'_>,
    scope: &Scope,
    consecutive: &[&str],
) -> Result<Vec<Group>, VerifyError> {
    let rows = match part_rows(snapshot, part, scope, consecutive, false).await {
        Ok(rows) if rows.iter().all(|row| !row.10) => rows,
        // Some id is no number, or not as a number is written.
        Ok(_) => part_rows(snapshot, part, scope, consecutive, true).await?,
        Err(VerifyError::Database(error)) if is_no_number(&error) => {
            part_rows(snapshot, part, scope, consecutive, true).await?
        }
        Err(error) => return Err(error),
    };
    let count = |number: i64| u64::try_from(number).unwrap_or_default();
    let group = |row: PartRow| {
        let ids =
            row.2.and_then(|block| Some((u64::try_from(block).ok()?, row.4?.cast_unsigned())));
        Group {
            exchange: row.0,
            symbol: row.1,
            ids,
            rows: count(row.3),
            at: (moment(row.5), moment(row.6)),
            received: row.7.zip(row.8).map(|(from, to)| (moment(from), moment(to))),
            out_of_domain: count(row.9),
        }
    };
    Ok(rows.into_iter().map(group).collect())
}

async fn part_rows(
    snapshot: &Snapshot,
    part: Part<'_>,
    scope: &Scope,
    consecutive: &[&str],
    guarded: bool,
) -> Result<Vec<PartRow>, VerifyError> {
    let mut look = snapshot.look().await?;
    let from = scope.from.map_or(part.day.from, |from| part.day.from.max(from.to_datetime()));
    let rows = sqlx::query_as(PART)
        .bind(guarded)
        .bind(consecutive)
        .bind(part.day.oid)
        .bind(from)
        .bind(part.day.to.min(scope.to.to_datetime()))
        .bind(format!("({},0)", part.first_page))
        .bind(format!("({},0)", part.end_page))
        .bind(scope.exchange_names())
        .bind(scope.symbol_names())
        // Planned for these values: only then is one day looked at, and by its pages.
        .persistent(false)
        .fetch_all(&mut *look)
        .await?;
    Ok(rows)
}

/// Invalid text for a number, or a number that is too large.
fn is_no_number(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|refusal| refusal.code());
    matches!(code.as_deref(), Some("22P02" | "22003"))
}

/// When each symbol was connected, by `feed_sessions`.
pub(super) async fn sessions(
    look: &mut PgConnection,
    scope: &Scope,
) -> Result<BTreeMap<Key, Coverage>, VerifyError> {
    type Row = (String, String, DateTime<Utc>, Option<DateTime<Utc>>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT exchange, symbol, connected_at, ended_at FROM feed_sessions, unnest(symbols) AS symbol \
         WHERE ($1::text[] IS NULL OR exchange = ANY ($1)) AND ($2::text[] IS NULL OR symbol = ANY ($2))",
    )
    .bind(scope.exchange_names())
    .bind(scope.symbol_names())
    .fetch_all(look)
    .await
    .map_err(VerifyError::of_schema)?;
    let mut sessions: BTreeMap<Key, Vec<(Timestamp, Option<Timestamp>)>> = BTreeMap::new();
    for (exchange, symbol, from, to) in rows {
        let times = (instant(from), to.map(instant));
        sessions.entry((exchange, symbol)).or_default().push(times);
    }
    Ok(sessions.into_iter().map(|(key, times)| (key, Coverage::new(times))).collect())
}

/// What `tick_gaps` says of each symbol.
pub(super) async fn gaps(
    look: &mut PgConnection,
    scope: &Scope,
) -> Result<BTreeMap<Key, Vec<GapRow>>, VerifyError> {
    type Row =
        (i64, String, String, Option<String>, Option<String>, DateTime<Utc>, DateTime<Utc>, String);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, exchange, symbol, first_id, last_id, from_time, to_time, status FROM tick_gaps \
         WHERE ($1::text[] IS NULL OR exchange = ANY ($1)) AND ($2::text[] IS NULL OR symbol = ANY ($2)) \
         ORDER BY id",
    )
    .bind(scope.exchange_names())
    .bind(scope.symbol_names())
    .fetch_all(look)
    .await
    .map_err(VerifyError::of_schema)?;
    let mut gaps: BTreeMap<Key, Vec<GapRow>> = BTreeMap::new();
    for (id, exchange, symbol, first, last, from, to, status) in rows {
        // The table's own constraint knows no other status; a row that is not understood excuses nothing.
        let Some(status) = GapStatus::from_text(&status) else { continue };
        let number = |id: Option<String>| TradeId::from_text(&id?).number();
        let row = GapRow {
            id,
            status,
            ids: number(first).zip(number(last)),
            at: (instant(from), instant(to)),
        };
        gaps.entry((exchange, symbol)).or_default().push(row);
    }
    Ok(gaps)
}

/// Rejected trades of each symbol in the scope's time: how many, and their ids as far as they are numbers, ascending.
pub(super) async fn rejected(
    look: &mut PgConnection,
    scope: &Scope,
) -> Result<BTreeMap<Key, (u64, Vec<u64>)>, VerifyError> {
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT exchange, symbol, trade_id FROM rejected_ticks \
         WHERE ($1::text[] IS NULL OR exchange = ANY ($1)) AND ($2::text[] IS NULL OR symbol = ANY ($2)) \
             AND ($3::timestamptz IS NULL OR time >= $3) AND time < $4 LIMIT $5",
    )
    .bind(scope.exchange_names())
    .bind(scope.symbol_names())
    .bind(scope.from.map(Timestamp::to_datetime))
    .bind(scope.to.to_datetime())
    .bind(REJECTED_IDS_MAX)
    .fetch_all(look)
    .await?;
    let mut rejected: BTreeMap<Key, (u64, Vec<u64>)> = BTreeMap::new();
    for (exchange, symbol, id) in rows {
        let (count, ids) = rejected.entry((exchange, symbol)).or_default();
        *count += 1;
        ids.extend(TradeId::from_text(&id).number());
    }
    for (_, ids) in rejected.values_mut() {
        ids.sort_unstable();
        ids.dedup();
    }
    Ok(rejected)
}

/// Unreadable frames of each exchange in the scope's time.
pub(super) async fn quarantined(
    look: &mut PgConnection,
    scope: &Scope,
) -> Result<Vec<(String, u64)>, VerifyError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT exchange, sum(count)::bigint FROM quarantined_frames \
         WHERE ($1::text[] IS NULL OR exchange = ANY ($1)) \
             AND ($2::timestamptz IS NULL OR last_seen >= $2) AND first_seen < $3 \
         GROUP BY exchange ORDER BY exchange",
    )
    .bind(scope.exchange_names())
    .bind(scope.from.map(Timestamp::to_datetime))
    .bind(scope.to.to_datetime())
    .fetch_all(look)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(name, count)| (name, u64::try_from(count).unwrap_or_default()))
        .collect())
}

/// Connections that stand.
pub(super) async fn open_sessions(look: &mut PgConnection) -> Result<u64, VerifyError> {
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM feed_sessions WHERE ended_at IS NULL")
            .fetch_one(look)
            .await
            .map_err(VerifyError::of_schema)?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// A time of the table; one before 1970 or after 9999, which no trade has, becomes the nearest that can be told.
pub(super) fn instant(time: DateTime<Utc>) -> Timestamp {
    moment(time.timestamp_micros())
}

pub(super) fn moment(micros: i64) -> Timestamp {
    let fallback = if micros < 0 { Timestamp::EPOCH } else { Timestamp::MAX };
    Timestamp::from_micros(micros).unwrap_or(fallback)
}
