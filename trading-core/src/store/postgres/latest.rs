//! What is stored last of each symbol: where recording goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use rustc_hash::FxHashMap;
use sqlx::PgPool;
use sqlx::types::chrono::{DateTime, Utc};

use crate::domain::bounds::{JUMP_CONFIRMED, JUMP_MAX, SESSION_DEAD};
use crate::domain::{
    APART_MICROS, ENDED_WITHOUT_A_WORD, GapCause, IdRange, Instrument, LastStored, Timestamp,
    TradeId,
};

/// An exchange is being recorded where a trade is stored that was made this short a time ago. Trades come to the table within a
/// second or so.
const RECORDED_NOW: Duration = Duration::from_secs(3);
/// An exchange's clock may be ahead of the database's by this much: what is stamped later is of the future.
const CLOCKS_APART: Duration = Duration::from_micros(APART_MICROS);
/// What a recorder of an earlier version, which noted nothing, may have held with its usual settings.
const UNNOTED: Duration = Duration::from_secs(30);

/// Rows of a symbol by which it is judged where it ends, and open gaps that are remembered.
const ROWS: i64 = 64;
/// Partitions that one statement looks at: it locks each of them and its index.
const PARTITIONS_AT_ONCE: usize = 30;
/// Partitions that are looked through, from the newest back: symbols whose newest trade is older begin anew.
const PARTITIONS_MAX: i64 = 3_000;
/// Symbols that are asked for at once: their rows are in memory together.
const SYMBOLS_AT_ONCE: usize = 100;
/// At least this many ids near each other are no mistake.
const SURE: usize = JUMP_CONFIRMED - 1;

/// A stored trade, and when it was made: no later than it was received.
#[derive(Debug, Clone)]
struct Row {
    trade_id: String,
    number: Option<u64>,
    at: Timestamp,
}

/// Where the stored trades of each of these end; of those with none, nothing. One short walk of the primary key for each,
/// from the newest day back, leaving out what is stamped later than the database's clock says.
///
/// One wrong stamp or id is not where a symbol ends: a trade was made no later than it was received, and an id counts
/// only among others near it.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn last_stored(
    pool: &PgPool,
    instruments: &[Instrument],
) -> Result<Vec<LastStored>, sqlx::Error> {
    let mut found = Vec::new();
    for chunk in instruments.chunks(SYMBOLS_AT_ONCE) {
        let mut rows = newest(pool, chunk, true).await?;
        let others: Vec<_> = chunk.iter().copied().filter(|it| !rows.contains_key(it)).collect();
        // All that there is of these is stamped later than that clock: it is wrong, or they are.
        rows.extend(newest(pool, &others, false).await?);
        let mut missing = missing(pool, chunk).await?;
        found.extend(rows.into_iter().filter_map(|(instrument, rows)| {
            let missing = missing.remove(&instrument).unwrap_or_default();
            end_of(instrument, &rows, missing)
        }));
    }
    let carriers = carriers(pool).await?;
    let mut newest: FxHashMap<&str, Timestamp> = FxHashMap::default();
    for last in &found {
        let newest = newest.entry(last.instrument.exchange()).or_insert(last.until);
        *newest = last.until.max(*newest);
    }
    for last in &mut found {
        let newest = newest.get(last.instrument.exchange()).copied();
        last.is_carried = carriers.may_hold(last.instrument, last.until, newest);
    }
    Ok(found)
}

/// What recorders carry that have given a sign of life within a minute: those that record, and one that was just killed.
#[derive(Debug)]
pub struct Carriers {
    /// The database's time.
    now: Timestamp,
    /// The last sign of life, by exchange and symbol.
    seen: FxHashMap<(String, String), Timestamp>,
}

impl Carriers {
    /// Whether one of them may hold trades that were made after this time and are not stored: it was alive after it, or
    /// the exchange is being recorded. `newest`: when the youngest stored trade of the exchange was made.
    #[must_use]
    pub fn may_hold(
        &self,
        instrument: Instrument,
        after: Timestamp,
        newest: Option<Timestamp>,
    ) -> bool {
        let name = (instrument.exchange().to_owned(), instrument.symbol().as_str().to_owned());
        let is_recorded = newest.is_some_and(|newest| newest >= self.now - RECORDED_NOW);
        // Between two signs of life, which are ten seconds apart, nothing else shows that a recorder lives.
        self.seen.get(&name).is_some_and(|seen| *seen > after || is_recorded)
    }
}

/// The recorders that have given a sign of life within a minute, by what they carry.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn carriers(pool: &PgPool) -> Result<Carriers, sqlx::Error> {
    let rows: Vec<(String, String, DateTime<Utc>, DateTime<Utc>)> = sqlx::query_as(
        "SELECT exchange, symbol, max(seen_at), now() FROM feed_sessions, unnest(symbols) AS symbol \
         WHERE ended_at IS NULL AND seen_at > now() - $1 GROUP BY exchange, symbol",
    )
    .bind(SESSION_DEAD)
    .fetch_all(pool)
    .await?;
    let time = |at: DateTime<Utc>| Timestamp::from_micros(at.timestamp_micros()).ok();
    let now = rows.first().and_then(|row| time(row.3)).unwrap_or(Timestamp::MAX);
    let seen = rows.into_iter().filter_map(|row| Some(((row.0, row.1), time(row.2)?))).collect();
    Ok(Carriers { now, seen })
}

/// The newest rows of each symbol; those in the database's future too, or not. From the newest days back, a few at a time:
/// a statement over thousands of days would need more locks than a server has.
async fn newest(
    pool: &PgPool,
    instruments: &[Instrument],
    only_past: bool,
) -> Result<FxHashMap<Instrument, Vec<Row>>, sqlx::Error> {
    let mut begins: Vec<DateTime<Utc>> = sqlx::query_scalar(
        "SELECT from_time FROM tick_partitions() WHERE isfinite(from_time) ORDER BY from_time DESC LIMIT $1",
    )
    .bind(PARTITIONS_MAX)
    .fetch_all(pool)
    .await?;
    if i64::try_from(begins.len()).is_ok_and(|number| number < PARTITIONS_MAX) {
        // What no such partition holds is in one without a beginning, or in the DEFAULT one.
        begins.push(DateTime::<Utc>::UNIX_EPOCH);
    }
    let rows_max = usize::try_from(ROWS).unwrap_or(usize::MAX);
    let mut found: FxHashMap<Instrument, Vec<Row>> = FxHashMap::default();
    let mut until = Timestamp::MAX.to_datetime();
    for chunk in begins.chunks(PARTITIONS_AT_ONCE) {
        let is_short = |it: &Instrument| found.get(it).is_none_or(|rows| rows.len() < rows_max);
        let wanted: Vec<Instrument> = instruments.iter().copied().filter(is_short).collect();
        let Some(from) = chunk.last().copied().filter(|_| !wanted.is_empty()) else { break };
        for (instrument, rows) in newest_between(pool, &wanted, only_past, (from, until)).await? {
            found.entry(instrument).or_default().extend(rows);
        }
        until = from;
    }
    for rows in found.values_mut() {
        rows.truncate(rows_max);
    }
    Ok(found)
}

/// The newest rows of each symbol in a range of time, from the first time to before the second.
async fn newest_between(
    pool: &PgPool,
    instruments: &[Instrument],
    only_past: bool,
    (from, until): (DateTime<Utc>, DateTime<Utc>),
) -> Result<FxHashMap<Instrument, Vec<Row>>, sqlx::Error> {
    let (by_name, exchanges, symbols) = names(instruments);
    let rows: Vec<(String, String, String, DateTime<Utc>)> = sqlx::query_as(
        "SELECT wanted.exchange, wanted.symbol, latest.trade_id, latest.at \
         FROM unnest($1::text[], $2::text[]) AS wanted (exchange, symbol) \
         CROSS JOIN LATERAL ( \
             SELECT trade_id, least(time, received_at) AS at FROM tick_data \
             WHERE tick_data.exchange = wanted.exchange AND tick_data.symbol = wanted.symbol \
                 AND (NOT $3 OR time <= now() + $7) AND time >= $5 AND time < $6 \
             ORDER BY time DESC, length(trade_id) DESC, trade_id DESC LIMIT $4 \
         ) AS latest",
    )
    // Planned for these times, and so for these days only.
    .persistent(false)
    .bind(exchanges)
    .bind(symbols)
    .bind(only_past)
    .bind(ROWS)
    .bind(from)
    .bind(until)
    .bind(CLOCKS_APART)
    .fetch_all(pool)
    .await?;
    let mut found: FxHashMap<Instrument, Vec<Row>> = FxHashMap::default();
    for (exchange, symbol, trade_id, at) in rows {
        let instrument = by_name.get(&(exchange.as_str(), symbol.as_str()));
        let at = Timestamp::from_micros(at.timestamp_micros());
        if let Some((instrument, at)) = instrument.zip(at.ok()) {
            let number = TradeId::from_text(&trade_id).number();
            found.entry(*instrument).or_default().push(Row { trade_id, number, at });
        }
    }
    Ok(found)
}

/// The newest ranges of ids of each symbol that are listed as missing.
async fn missing(
    pool: &PgPool,
    instruments: &[Instrument],
) -> Result<FxHashMap<Instrument, Vec<IdRange>>, sqlx::Error> {
    let (by_name, exchanges, symbols) = names(instruments);
    let rows: Vec<(String, String, String, String)> = sqlx::query_as(
        "SELECT wanted.exchange, wanted.symbol, gap.first_id, gap.last_id \
         FROM unnest($1::text[], $2::text[]) AS wanted (exchange, symbol) \
         CROSS JOIN LATERAL ( \
             SELECT first_id, last_id FROM tick_gaps \
             WHERE tick_gaps.exchange = wanted.exchange AND tick_gaps.symbol = wanted.symbol \
                 AND status = 'open' AND first_id ~ '^(0|[1-9][0-9]{0,18})$' AND last_id ~ '^(0|[1-9][0-9]{0,18})$' \
             ORDER BY length(last_id) DESC, last_id DESC LIMIT $3 \
         ) AS gap",
    )
    .bind(exchanges)
    .bind(symbols)
    .bind(ROWS)
    .fetch_all(pool)
    .await?;
    let mut found: FxHashMap<Instrument, Vec<IdRange>> = FxHashMap::default();
    for (exchange, symbol, first, last) in rows {
        let instrument = by_name.get(&(exchange.as_str(), symbol.as_str()));
        if let (Some(instrument), Ok(first), Ok(last)) = (instrument, first.parse(), last.parse()) {
            found.entry(*instrument).or_default().push(IdRange::between(first, last));
        }
    }
    Ok(found)
}

type Names<'a> = (FxHashMap<(&'a str, &'a str), Instrument>, Vec<&'a str>, Vec<&'a str>);

fn names(instruments: &[Instrument]) -> Names<'_> {
    let name = |item: &Instrument| (item.exchange(), item.symbol().as_str());
    (
        instruments.iter().map(|item| ((item.exchange(), item.symbol().as_str()), *item)).collect(),
        instruments.iter().map(|item| name(item).0).collect(),
        instruments.iter().map(|item| item.symbol().as_str()).collect(),
    )
}

/// Where a symbol ends, by its newest rows.
fn end_of(instrument: Instrument, rows: &[Row], mut missing: Vec<IdRange>) -> Option<LastStored> {
    let youngest = rows.iter().max_by_key(|row| row.at)?;
    let mut numbered: Vec<(u64, Timestamp)> =
        rows.iter().filter_map(|row| Some((row.number?, row.at))).collect();
    numbered.sort_unstable();
    let clusters = numbered.chunk_by(|(lower, _), (higher, _)| higher - lower <= JUMP_MAX);
    // Enough ids near each other are where the count was; of fewer, the most, and then the lowest: what is wrong with
    // that is found by the next trades.
    let weigh = |cluster: &&[(u64, Timestamp)]| {
        let newest = cluster.iter().map(|(_, at)| *at).max();
        let is_sure = cluster.len() >= SURE;
        let lowest = std::cmp::Reverse(cluster.first().map(|(id, _)| *id));
        (is_sure, newest.filter(|_| is_sure), cluster.len(), lowest)
    };
    let count = clusters.max_by_key(weigh);
    let last = count.and_then(|cluster| cluster.last()).map(|(id, _)| *id);
    let at = count.and_then(|cluster| cluster.iter().map(|(_, at)| *at).max());
    missing.sort_unstable();
    missing.dedup_by(|next, before| {
        let overlap = next.intersect(*before).is_some();
        if overlap {
            *before = before.hull(*next);
        }
        overlap
    });
    Some(LastStored {
        instrument,
        trade_id: last.map_or_else(|| TradeId::from_text(&youngest.trade_id), TradeId::Number),
        exchange_at: at.unwrap_or(youngest.at),
        until: youngest.at,
        missing,
        is_carried: false,
    })
}

/// From when on what came of each symbol of an exchange may have been in the memory only of a recorder that did not end in
/// order: it was killed, or it stands. A time that was listed as a gap since then is not told again. `lag`: so much older
/// than its receipt a trade may be.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn in_doubt_since(
    pool: &PgPool,
    exchange: &str,
    lag: Duration,
) -> Result<BTreeMap<String, Timestamp>, sqlx::Error> {
    let rows: Vec<(String, DateTime<Utc>)> = sqlx::query_as(
        "SELECT symbol, min(since) FROM (\
             SELECT unnest(symbols) AS symbol, seen_at, \
                 coalesce(stored_until, seen_at - $4) - $3 AS since FROM feed_sessions \
             WHERE exchange = $1 AND (ended_at IS NULL OR stored_until < ended_at \
                 OR stored_until IS NULL AND starts_with(reason, $2))) AS session \
         WHERE NOT EXISTS (SELECT FROM tick_gaps AS gap \
             WHERE gap.exchange = $1 AND gap.symbol = session.symbol AND gap.first_id IS NULL \
                 AND gap.opened_at >= session.seen_at AND session.since BETWEEN gap.from_time AND gap.to_time) \
         GROUP BY symbol",
    )
    .bind(exchange)
    .bind(ENDED_WITHOUT_A_WORD)
    .bind(lag)
    .bind(UNNOTED)
    .fetch_all(pool)
    .await?;
    let since = |(symbol, time): (String, DateTime<Utc>)| {
        Some((symbol, Timestamp::from_micros(time.timestamp_micros()).ok()?))
    };
    Ok(rows.into_iter().filter_map(since).collect())
}

/// Lists a gap of which only the time is known, from then to now, once.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn list_time_until_now(
    pool: &PgPool,
    instrument: Instrument,
    from: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO tick_gaps (exchange, symbol, from_time, to_time, cause) \
         SELECT $1, $2, least($3, now()), now(), \
             CASE WHEN EXISTS (SELECT FROM feed_sessions WHERE exchange = $1 AND $2 = ANY (symbols) \
                 AND ended_at IS NULL AND seen_at > greatest(now() - $5, $3)) THEN $6 ELSE $4 END \
         ON CONFLICT DO NOTHING",
    )
    .bind(instrument.exchange())
    .bind(instrument.symbol().as_str())
    .bind(from.to_datetime())
    .bind(GapCause::NotRunning.as_str())
    .bind(SESSION_DEAD)
    .bind(GapCause::NotStoredYet.as_str())
    .execute(pool)
    .await
    .map(|_done| ())
}

/// For how long, of the recorders that have given a sign of life, the one that is furthest behind has not stored what
/// came; `None`: none records.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn not_stored_for(pool: &PgPool) -> Result<Option<Duration>, sqlx::Error> {
    let seconds: Option<f64> = sqlx::query_scalar(
        "SELECT extract(epoch FROM now() - min(coalesce(stored_until, seen_at)))::float8 FROM feed_sessions \
         WHERE ended_at IS NULL AND seen_at > now() - $1",
    )
    .bind(SESSION_DEAD)
    .fetch_one(pool)
    .await?;
    Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
}
