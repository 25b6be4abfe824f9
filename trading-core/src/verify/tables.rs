//! What the ticks are held against: sessions, gaps, refused ticks, unreadable frames, and tables that are no part of
//! `tick_data` any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use sqlx::types::chrono::{DateTime, Utc};

use crate::domain::{ENDED_WITHOUT_A_WORD, GapStatus, Timestamp, TradeId};

use super::Scope;
use super::error::VerifyError;
use super::gaps::GapRow;
use super::read::{Key, instant};
use super::sessions::Session;

/// Ids of refused trades that are held against holes.
const REJECTED_IDS_MAX: i64 = 1_000_000;

/// Refused trades of one symbol in the asked time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rejected {
    /// Rows of `rejected_ticks`.
    pub(super) rows: u64,
    /// Rows whose id is no number and whose trade is not stored otherwise.
    pub(super) unnumbered: u64,
    /// The other ids, ascending: those whose trade is not stored at the same time.
    pub(super) ids: Vec<u64>,
    /// Trades of which only the number is kept, in `rejected_overflow`.
    pub(super) only_counted: u64,
}

/// The server's clock.
pub(super) async fn now(look: &mut PgConnection) -> Result<Timestamp, VerifyError> {
    Ok(instant(sqlx::query_scalar("SELECT now()").fetch_one(look).await?))
}

/// Every connection of the scope's exchanges, oldest first.
pub(super) async fn sessions(
    look: &mut PgConnection,
    scope: &Scope,
) -> Result<Vec<Session>, VerifyError> {
    type Row = (
        String,
        String,
        Vec<String>,
        DateTime<Utc>,
        Option<DateTime<Utc>>,
        DateTime<Utc>,
        i64,
        bool,
    );
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT recorder, exchange, symbols, connected_at, ended_at, seen_at, greatest(ticks - duplicates, 0), \
             ended_at IS NOT NULL AND NOT starts_with(reason, $2) \
         FROM feed_sessions WHERE ($1::text[] IS NULL OR exchange = ANY ($1)) ORDER BY connected_at, id",
    )
    .bind(scope.exchange_names())
    .bind(ENDED_WITHOUT_A_WORD)
    .fetch_all(look)
    .await
    .map_err(VerifyError::of_schema)?;
    // Thousands of connections carry the same few lists.
    let mut lists: BTreeSet<Arc<BTreeSet<String>>> = BTreeSet::new();
    let mut sessions = Vec::with_capacity(rows.len());
    for (recorder, exchange, symbols, from, to, seen, ticks, is_counted) in rows {
        let list = Arc::new(symbols.into_iter().collect());
        let symbols = lists.get(&list).cloned().unwrap_or(list);
        lists.insert(Arc::clone(&symbols));
        sessions.push(Session {
            recorder,
            exchange,
            symbols,
            connected_at: instant(from),
            ended_at: to.map(instant),
            seen_at: instant(seen),
            passed_on: u64::try_from(ticks).unwrap_or_default(),
            is_counted,
        });
    }
    Ok(sessions)
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
        let Some(status) = GapStatus::from_name(&status) else { continue };
        let number = |id: Option<String>| TradeId::from_text(&id?).number();
        let ids = number(first).zip(number(last)).filter(|(first, last)| first <= last);
        let (from, to) = (instant(from), instant(to));
        let row = GapRow { id, status, ids, at: (from.min(to), from.max(to)) };
        gaps.entry((exchange, symbol)).or_default().push(row);
    }
    Ok(gaps)
}

/// Refused trades of each symbol whose time lies in the scope's; and those whose time cannot be right, which came or were
/// refused in it. `begin`: what is wholly older went with the days that retention dropped.
pub(super) async fn rejected(
    look: &mut PgConnection,
    scope: &Scope,
    begin: Timestamp,
) -> Result<BTreeMap<Key, Rejected>, VerifyError> {
    // A live trade's time is near its receipt; a fetched one is old, but not of before the first exchange.
    let rows: Vec<(String, String, String, bool)> = sqlx::query_as(
        "SELECT exchange, symbol, trade_id, EXISTS (SELECT FROM tick_data AS it \
                 WHERE it.exchange = refused.exchange AND it.symbol = refused.symbol AND it.trade_id = refused.trade_id \
                     AND it.time BETWEEN refused.time - interval '1 second' AND refused.time + interval '1 second') \
         FROM rejected_ticks AS refused \
         WHERE ($1::text[] IS NULL OR exchange = ANY ($1)) AND ($2::text[] IS NULL OR symbol = ANY ($2)) \
             AND (CASE WHEN $3 IS NULL THEN greatest(time, received_at, rejected_at) >= $6 ELSE true END) \
             AND (time >= coalesce($3, '-infinity') AND time < $4 \
                 OR (CASE WHEN source = 'live' \
                         THEN time NOT BETWEEN received_at - interval '1 minute' AND received_at + interval '1 minute' \
                         ELSE time NOT BETWEEN '2009-01-03' AND rejected_at + interval '1 day' END) \
                     AND (received_at >= coalesce($3, '-infinity') AND received_at < $4 \
                         OR rejected_at >= coalesce($3, '-infinity') AND rejected_at < $4)) \
         LIMIT $5",
    )
    .bind(scope.exchange_names())
    .bind(scope.symbol_names())
    .bind(scope.from.map(Timestamp::to_datetime))
    .bind(scope.to.to_datetime())
    .bind(REJECTED_IDS_MAX)
    .bind(begin.to_datetime())
    .fetch_all(&mut *look)
    .await?;
    let mut rejected: BTreeMap<Key, Rejected> = BTreeMap::new();
    for (exchange, symbol, id, is_stored) in rows {
        let one = rejected.entry((exchange, symbol)).or_default();
        one.rows += 1;
        match TradeId::from_text(&id).number() {
            _ if is_stored => {}
            Some(id) => one.ids.push(id),
            None => one.unnumbered += 1,
        }
    }
    for one in rejected.values_mut() {
        one.ids.sort_unstable();
        one.ids.dedup();
    }
    for (key, count) in only_counted(look, scope, begin).await? {
        rejected.entry(key).or_default().only_counted += count;
    }
    Ok(rejected)
}

/// What is beyond the bound of `rejected_ticks`, where that table is there.
async fn only_counted(
    look: &mut PgConnection,
    scope: &Scope,
    begin: Timestamp,
) -> Result<Vec<(Key, u64)>, VerifyError> {
    let is_there: bool = sqlx::query_scalar("SELECT to_regclass('rejected_overflow') IS NOT NULL")
        .fetch_one(&mut *look)
        .await?;
    if !is_there {
        return Ok(Vec::new());
    }
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT exchange, symbol, sum(count)::bigint FROM rejected_overflow \
         WHERE ($1::text[] IS NULL OR exchange = ANY ($1)) AND ($2::text[] IS NULL OR symbol = ANY ($2)) \
             AND count > 0 \
             AND (last_time >= $3 AND first_time < $4 OR last_seen >= $3 AND first_seen < $4) \
         GROUP BY exchange, symbol",
    )
    .bind(scope.exchange_names())
    .bind(scope.symbol_names())
    .bind(begin.to_datetime())
    .bind(scope.to.to_datetime())
    .fetch_all(look)
    .await?;
    let count = |count: i64| u64::try_from(count).unwrap_or_default();
    Ok(rows.into_iter().map(|(name, symbol, sum)| ((name, symbol), count(sum))).collect())
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

/// A table with the name and the columns of a part of `tick_data` that is none, and holds something in the scope, or
/// cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Detached {
    /// Its name, as SQL takes it.
    pub(super) name: String,
    /// Whether it could be looked into.
    pub(super) is_read: bool,
}

/// Tables that were taken out of `tick_data` with rows of the scope in them.
pub(super) async fn detached(
    look: &mut PgConnection,
    scope: &Scope,
) -> Result<Vec<Detached>, VerifyError> {
    let tables: Vec<(String, bool)> = sqlx::query_as(
        "SELECT format('%I.%I', nspname, relname), has_table_privilege(pg_class.oid, 'SELECT') \
         FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace \
         WHERE relkind = 'r' AND relname ~ '^tick_data_' \
             AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'tick_data'::regclass) \
             AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = pg_class.oid AND NOT inhdetachpending) \
             AND (SELECT count(*) FROM pg_attribute WHERE attrelid = pg_class.oid AND NOT attisdropped \
                 AND attname IN ('time', 'exchange', 'symbol', 'trade_id', 'received_at')) = 5 \
         ORDER BY relname",
    )
    .fetch_all(&mut *look)
    .await
    .map_err(VerifyError::of_schema)?;
    let mut detached = Vec::new();
    for (name, is_read) in tables {
        // The server has quoted the name.
        let query = format!(
            "SELECT EXISTS (SELECT FROM {name} WHERE ($1::text[] IS NULL OR exchange = ANY ($1)) \
                 AND ($2::text[] IS NULL OR symbol = ANY ($2)) AND ($3::timestamptz IS NULL OR time >= $3) AND time < $4)"
        );
        let holds = !is_read
            || sqlx::query_scalar(AssertSqlSafe(query))
                .bind(scope.exchange_names())
                .bind(scope.symbol_names())
                .bind(scope.from.map(Timestamp::to_datetime))
                .bind(scope.to.to_datetime())
                .persistent(false)
                .fetch_one(&mut *look)
                .await?;
        if holds {
            detached.push(Detached { name, is_read });
        }
    }
    Ok(detached)
}

/// Symbols of which anything is stored, as `exchange:symbol`, up to a thousand of them.
pub(super) async fn stored_names(look: &mut PgConnection) -> Result<Vec<String>, VerifyError> {
    let names = sqlx::query_scalar(
        // From one name to the next by the index: no row is read in between.
        "WITH RECURSIVE names AS ( \
             (SELECT exchange, symbol FROM tick_data ORDER BY exchange, symbol LIMIT 1) \
             UNION ALL \
             SELECT next.exchange, next.symbol FROM names CROSS JOIN LATERAL ( \
                 SELECT exchange, symbol FROM tick_data \
                 WHERE (exchange, symbol) > (names.exchange, names.symbol) ORDER BY exchange, symbol LIMIT 1 \
             ) AS next \
         ) SELECT exchange || ':' || symbol FROM names LIMIT 1000",
    )
    .fetch_all(look)
    .await
    .map_err(VerifyError::of_schema)?;
    Ok(names)
}

/// Whether anything that is asked for is stored of the scope's end or later.
pub(super) async fn is_any_newer(
    look: &mut PgConnection,
    scope: &Scope,
) -> Result<bool, VerifyError> {
    let is_newer = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM tick_data WHERE time >= $3 \
             AND ($1::text[] IS NULL OR exchange = ANY ($1)) AND ($2::text[] IS NULL OR symbol = ANY ($2)))",
    )
    .bind(scope.exchange_names())
    .bind(scope.symbol_names())
    .bind(scope.to.to_datetime())
    .persistent(false)
    .fetch_one(look)
    .await?;
    Ok(is_newer)
}
