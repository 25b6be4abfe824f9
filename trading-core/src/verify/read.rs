//! The first look: one pass over the table, in parts of a day.

use sqlx::postgres::types::Oid;
use sqlx::types::chrono::{DateTime, Utc};

use crate::domain::Timestamp;

use super::Scope;
use super::error::VerifyError;
use super::snapshot::Snapshot;
use super::tally::Group;

/// Pages (of 8 KiB) of a day that one query reads: small enough that its groups fit into the server's memory for
/// one sort (4 MiB by default) and that it is over within a second.
const PAGES_PER_LOOK: i64 = 8_192;

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
    /// Whether it takes what no other takes.
    pub(super) is_default: bool,
}

impl Day {
    /// Where it begins.
    pub(super) fn begin(&self) -> Timestamp {
        instant(self.from)
    }

    #[cfg(test)]
    pub(super) fn of_tests(from: Timestamp, to: Timestamp) -> Self {
        let (from, to) = (from.to_datetime(), to.to_datetime());
        Self { oid: Oid(0), from, to, pages: 0, is_default: false }
    }

    /// Where it ends, excluded.
    pub(super) fn end(&self) -> Timestamp {
        instant(self.to)
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

/// All attached days, oldest first. A partition without bounds, as DEFAULT is, holds all times.
pub(super) async fn days(snapshot: &Snapshot) -> Result<Vec<Day>, VerifyError> {
    type Row = (Oid, String, String, Option<DateTime<Utc>>, Option<DateTime<Utc>>, i64);
    let mut look = snapshot.look().await?;
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT inhrelid, relname::text, bound, \
             substring(bound FROM 'FROM \\(''([^'']+)''\\)')::timestamptz AS since, \
             substring(bound FROM 'TO \\(''([^'']+)''\\)')::timestamptz, \
             coalesce(pg_relation_size(inhrelid) / current_setting('block_size')::bigint, 0) \
         FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid \
         CROSS JOIN LATERAL pg_get_expr(relpartbound, inhrelid) AS bound \
         WHERE inhparent = 'tick_data'::regclass AND NOT inhdetachpending ORDER BY since NULLS FIRST",
    )
    .fetch_all(&mut *look)
    .await
    .map_err(VerifyError::of_schema)?;
    let mut days = Vec::new();
    for (oid, name, bound, from, to, pages) in rows {
        let is_default = bound == "DEFAULT";
        let open = |end: &str| is_default || bound.contains(end);
        let from = from.or_else(|| open("FROM (MINVALUE)").then(|| Timestamp::EPOCH.to_datetime()));
        let to = to.or_else(|| open("TO (MAXVALUE)").then(|| Timestamp::MAX.to_datetime()));
        let (Some(from), Some(to)) = (from, to) else { return Err(VerifyError::Partition(name)) };
        days.push(Day { oid, from, to, pages, is_default });
    }
    Ok(days)
}

/// Those of the days that hold the scope's time.
pub(super) fn wanted(days: &[Day], scope: &Scope) -> Vec<Day> {
    let is_wanted = |day: &&Day| {
        day.from < scope.to.to_datetime()
            && scope.from.is_none_or(|wanted| wanted.to_datetime() < day.to)
    };
    days.iter().filter(is_wanted).cloned().collect()
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
/// Live rows whose ids are no count are folded by the 64 seconds in which they were received.
///
/// OFFSET 0 keeps the planner from reading each id several times.
const PART: &str = "\
SELECT exchange, symbol, id >> 6 AS block, count(*), bit_or(1::bigint << (id & 63)::integer), \
    (extract(epoch FROM min(time)) * 1000000)::bigint, (extract(epoch FROM max(time)) * 1000000)::bigint, \
    (extract(epoch FROM min(received_at) FILTER (WHERE is_live)) * 1000000)::bigint, \
    (extract(epoch FROM max(received_at) FILTER (WHERE is_live)) * 1000000)::bigint, \
    count(*) FILTER (WHERE is_sane IS NOT TRUE), \
    coalesce(bool_or(id < 0 OR id::text <> trade_id), false), \
    extract(epoch FROM bucket)::bigint, \
    count(*) FILTER (WHERE is_live) \
FROM ( \
    SELECT exchange, symbol, trade_id, time, received_at, \
        source = 'live' AND isfinite(received_at) AS is_live, \
        price > 0 AND price < 'Infinity' AND quantity > 0 AND quantity < 'Infinity' AND side IN ('buy', 'sell') \
            AND source IN ('live', 'backfill', 'pushed', 'bridge') AND isfinite(received_at) AS is_sane, \
        CASE WHEN exchange = ANY ($2) AND NOT ($1 AND trade_id !~ '^(0|[1-9][0-9]{0,17})$') THEN trade_id::bigint END AS id, \
        CASE WHEN source = 'live' AND NOT exchange = ANY ($2) AND isfinite(received_at) \
            THEN date_bin('64 seconds', received_at, '2001-01-01') END AS bucket \
    FROM tick_data \
    WHERE tableoid = $3 AND time >= $4 AND time < $5 AND ctid >= $6::text::tid AND ctid < $7::text::tid \
        AND ($8::text[] IS NULL OR exchange = ANY ($8)) AND ($9::text[] IS NULL OR symbol = ANY ($9)) \
    OFFSET 0 \
) AS ticks \
GROUP BY exchange, symbol, block, bucket";

type PartRow = (
    String,
    String,
    Option<i64>,
    i64,
    Option<i64>,
    i64,
    i64,
    Option<i64>,
    Option<i64>,
    i64,
    bool,
    Option<i64>,
    i64,
);

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
            bucket: row.11,
            live: count(row.12),
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

/// A time of the table; one before 1970 or after 9999, which no trade has, becomes the nearest that can be told.
pub(super) fn instant(time: DateTime<Utc>) -> Timestamp {
    moment(time.timestamp_micros())
}

pub(super) fn moment(micros: i64) -> Timestamp {
    let fallback = if micros < 0 { Timestamp::EPOCH } else { Timestamp::MAX };
    Timestamp::from_micros(micros).unwrap_or(fallback)
}
