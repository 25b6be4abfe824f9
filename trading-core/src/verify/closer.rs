//! The closer looks: only at the symbols, ids and times where the first one did not add up.

use sqlx::types::chrono::{DateTime, Utc};

use crate::domain::{Timestamp, count};
use crate::exchange::IdRule;

use super::Scope;
use super::error::VerifyError;
use super::ids::{Ids, Span, Suspect, hull};
use super::judge::{Doubled, Named};
use super::read::{Key, instant};
use super::snapshot::Snapshot;
use super::tally::Tally;

/// Rows of one kind that are named, of one symbol.
const NAMED_MAX: usize = 20;
/// Places where ids and time disagree that are looked at row by row, of one symbol.
const SUSPECTS_MAX: usize = 200;
/// Rows that are taken out at one such place.
const SET_ASIDE_MAX: i64 = 100_000;
/// Ids that may be doubled and are looked for, of one symbol.
const DOUBLED_IDS_MAX: usize = 64 * 100;

/// Id, rows too many, first and last time; and the rows too many of all ids.
type DoubledRow = (String, i64, DateTime<Utc>, DateTime<Utc>, i64);

/// Trades of a symbol that are stored more than once: how many rows too many, and some of them.
///
/// Where ids are consecutive the first look has counted them, and only their times are asked for; else all ids of the
/// symbol are sorted by the server.
pub(super) async fn doubled(
    snapshot: &Snapshot,
    (exchange, symbol): &Key,
    tally: &Tally,
    scope: &Scope,
) -> Result<(u64, Vec<Doubled>), VerifyError> {
    let Some(mut at) = tally.at else { return Ok((0, Vec::new())) };
    let mut ids: Option<Vec<String>> = None;
    if tally.rule == IdRule::Consecutive {
        let mut found: Vec<u64> = Vec::new();
        let mut span: Option<Span> = None;
        for (more, at) in tally.counts().flat_map(Ids::doubled) {
            found.extend(more);
            span = Some(span.map_or(at, |span| hull(span, at)));
            if found.len() >= DOUBLED_IDS_MAX {
                break;
            }
        }
        let Some(span) = span else { return Ok((0, Vec::new())) };
        at = span;
        ids = Some(found.iter().map(u64::to_string).collect());
    }
    let mut look = snapshot.look().await?;
    let rows: Vec<DoubledRow> = sqlx::query_as(
        "SELECT trade_id, count(*) - 1, min(time), max(time), (sum(count(*) - 1) OVER ())::bigint FROM tick_data \
         WHERE exchange = $1 AND symbol = $2 AND time >= $3 AND time <= $4 AND time < $5 \
             AND ($6::text[] IS NULL OR trade_id = ANY ($6)) \
         GROUP BY trade_id HAVING count(*) > 1 ORDER BY min(time), trade_id LIMIT $7",
    )
    .bind(exchange)
    .bind(symbol)
    .bind(at.0.to_datetime())
    .bind(at.1.to_datetime())
    .bind(scope.to.to_datetime())
    .bind(ids)
    .bind(i64::try_from(NAMED_MAX).unwrap_or(i64::MAX))
    .persistent(false)
    .fetch_all(&mut *look)
    .await?;
    let count = |number: i64| u64::try_from(number).unwrap_or_default();
    let extra = match tally.rule {
        IdRule::Consecutive => tally.counts().map(Ids::doubled_rows).sum(),
        IdRule::Unique => rows.first().map_or(0, |row| count(row.4)),
    };
    let doubled = rows.into_iter().map(|(id, extra, from, to, _)| Doubled {
        id,
        at: (instant(from), instant(to)),
        extra: count(extra),
    });
    Ok((extra, doubled.collect()))
}

/// Rows whose id does not belong to their time. They are taken out of the symbol's ids.
pub(super) async fn against_time(
    snapshot: &Snapshot,
    (exchange, symbol): &Key,
    tally: &mut Tally,
    scope: &Scope,
) -> Result<Named, VerifyError> {
    if !tally.ids.suspects().is_empty() {
        tally.earlier = tally.ids.take_earlier();
    }
    let suspects = tally.ids.suspects();
    let mut named = Named::default();
    if suspects.len() > SUSPECTS_MAX {
        // The ids are no count at all here: each place is one finding, and none is taken out.
        named.count = count(suspects.len());
        return Ok(named);
    }
    for Suspect { ids, at, belongs } in suspects {
        let mut look = snapshot.look().await?;
        let id = |id: u64| i64::try_from(id).unwrap_or(i64::MAX);
        // A trade that is stored where it belongs as well is a doubled one, and told as such.
        let rows: Vec<(i64, i64, DateTime<Utc>)> = sqlx::query_as(
            "SELECT id, count(*), min(time) FROM ( \
                 SELECT CASE WHEN trade_id ~ '^(0|[1-9][0-9]{0,17})$' THEN trade_id::bigint END AS id, time \
                 FROM tick_data WHERE exchange = $1 AND symbol = $2 AND time >= $3 AND time <= $4 AND time < $5 \
             ) AS ticks \
             WHERE id BETWEEN $6 AND $7 GROUP BY id \
             HAVING NOT bool_or(time BETWEEN $8 AND $9) ORDER BY min(time) LIMIT $10",
        )
        .bind(exchange)
        .bind(symbol)
        .bind(at.0.to_datetime())
        .bind(at.1.to_datetime())
        .bind(scope.to.to_datetime())
        .bind(id(ids.0))
        .bind(id(ids.1))
        .bind(belongs.0.to_datetime())
        .bind(belongs.1.to_datetime())
        .bind(SET_ASIDE_MAX)
        .persistent(false)
        .fetch_all(&mut *look)
        .await?;
        for (id, rows, time) in rows {
            let rows = u64::try_from(rows).unwrap_or_default();
            named.count += rows;
            if named.rows.len() < NAMED_MAX {
                named.rows.push((id.to_string(), instant(time)));
            }
            tally.ids.set_aside(u64::try_from(id).unwrap_or_default(), rows);
        }
    }
    Ok(named)
}

/// Live rows that were received outside every session, and when.
pub(super) async fn out_of_session(
    snapshot: &Snapshot,
    (exchange, symbol): &Key,
    tally: &Tally,
    scope: &Scope,
) -> Result<Option<(u64, Span)>, VerifyError> {
    let doubtful = tally.doubtful();
    if doubtful.is_empty() {
        return Ok(None);
    }
    let times = |spans: &[Span], which: fn(&Span) -> Timestamp| -> Vec<DateTime<Utc>> {
        spans.iter().map(|span| which(span).to_datetime()).collect()
    };
    let sessions = tally.connected.claimed.spans();
    let mut look = snapshot.look().await?;
    let (count, from, to): (i64, Option<DateTime<Utc>>, Option<DateTime<Utc>>) = sqlx::query_as(
        "SELECT count(*), min(received_at), max(received_at) \
         FROM unnest($3::timestamptz[], $4::timestamptz[]) AS doubtful (since, until) \
         JOIN tick_data ON time >= since AND time <= until \
         WHERE exchange = $1 AND symbol = $2 AND time < $7 AND source = 'live' AND isfinite(received_at) AND NOT EXISTS ( \
             SELECT FROM unnest($5::timestamptz[], $6::timestamptz[]) AS session (since, until) \
             WHERE received_at >= session.since AND received_at <= session.until)",
    )
    .bind(exchange)
    .bind(symbol)
    .bind(times(&doubtful, |span| span.0))
    .bind(times(&doubtful, |span| span.1))
    .bind(times(sessions, |span| span.0))
    .bind(times(sessions, |span| span.1))
    .bind(scope.to.to_datetime())
    .persistent(false)
    .fetch_one(&mut *look)
    .await?;
    let count = u64::try_from(count).unwrap_or_default();
    Ok(from.zip(to).filter(|_| count > 0).map(|(from, to)| (count, (instant(from), instant(to)))))
}

/// The first few of the rows whose id is no number.
pub(super) async fn odd_ids(
    snapshot: &Snapshot,
    key: &Key,
    tally: &Tally,
    scope: &Scope,
) -> Result<Named, VerifyError> {
    named(
        snapshot,
        key,
        tally,
        scope,
        tally.odd_ids,
        "SELECT trade_id, time FROM tick_data \
         WHERE exchange = $1 AND symbol = $2 AND time >= $3 AND time <= $4 AND time < $5 \
             AND trade_id !~ '^(0|[1-9][0-9]{0,17})$' \
         ORDER BY time LIMIT $6",
    )
    .await
}

/// The first few of the rows with values that cannot be.
pub(super) async fn out_of_domain(
    snapshot: &Snapshot,
    key: &Key,
    tally: &Tally,
    scope: &Scope,
) -> Result<Named, VerifyError> {
    named(snapshot, key, tally, scope, tally.out_of_domain,
        "SELECT trade_id, time FROM tick_data \
         WHERE exchange = $1 AND symbol = $2 AND time >= $3 AND time <= $4 AND time < $5 \
             AND (price > 0 AND price < 'Infinity' AND quantity > 0 AND quantity < 'Infinity' \
                 AND side IN ('buy', 'sell') AND source IN ('live', 'backfill', 'pushed', 'bridge') \
                 AND isfinite(received_at)) IS NOT TRUE \
         ORDER BY time LIMIT $6").await
}

async fn named(
    snapshot: &Snapshot,
    (exchange, symbol): &Key,
    tally: &Tally,
    scope: &Scope,
    count: u64,
    query: &'static str,
) -> Result<Named, VerifyError> {
    let Some((from, to)) = tally.at.filter(|_| count > 0) else { return Ok(Named::default()) };
    let mut look = snapshot.look().await?;
    let rows: Vec<(String, DateTime<Utc>)> = sqlx::query_as(query)
        .bind(exchange)
        .bind(symbol)
        .bind(from.to_datetime())
        .bind(to.to_datetime())
        .bind(scope.to.to_datetime())
        .bind(i64::try_from(NAMED_MAX).unwrap_or(i64::MAX))
        .persistent(false)
        .fetch_all(&mut *look)
        .await?;
    let rows = rows.into_iter().map(|(id, time)| (id, instant(time))).collect();
    Ok(Named { count, rows })
}
