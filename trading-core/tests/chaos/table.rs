//! What the database holds, read as plainly as can be: the ticks against the market function, and the gaps against the ticks.
//!
//! Trusts nothing of the program but its tables: no code of it reads or judges them here.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use rust_decimal::Decimal;
use sqlx::PgPool;
use sqlx::types::chrono::{DateTime, Utc};
use trading_core::domain::{Symbol, Timestamp};
use trading_core::exchange::history::Depth;
use trading_core::exchange::{IdRule, by_name};
use trading_core::simulator::{Listing, Market};

use crate::report::Problems;
use crate::support::truth::is_time_of;

/// Exchange and symbol.
pub(crate) type Key = (String, String);
type TickRow = (String, String, String, DateTime<Utc>, String, Decimal, Decimal, String);
type GapRow = (
    String,
    String,
    Option<String>,
    Option<String>,
    DateTime<Utc>,
    DateTime<Utc>,
    String,
    String,
    Option<String>,
);

/// The stored ids of each symbol, in order, each as often as it is stored.
pub(crate) type Stored = BTreeMap<Key, Vec<u64>>;

/// A row of `tick_gaps`.
#[derive(Debug)]
pub(crate) struct Gap {
    key: Key,
    ids: Option<(u64, u64)>,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    pub(crate) status: String,
    told: String,
}

/// Reads every tick; each must be a trade of the market with its exact values.
pub(crate) async fn stored(
    pool: &PgPool,
    market: &Market,
    problems: &mut Problems,
) -> sqlx::Result<Stored> {
    let mut stored = Stored::new();
    let mut rows = sqlx::query_as::<_, TickRow>(
        "SELECT exchange, symbol, trade_id, time, side, price, quantity, source FROM tick_data",
    )
    .fetch(pool);
    while let Some((exchange, symbol, id, time, side, price, quantity, source)) =
        rows.try_next().await?
    {
        let shown = format!("{exchange}:{symbol} {id}");
        let canonical: Symbol = symbol.parse().unwrap();
        let Ok(id) = id.parse() else {
            problems.add(format!("{shown} is no id of the market"));
            continue;
        };
        let truth = market.trade(&exchange, &canonical, id);
        let is_true = truth.as_ref().is_some_and(|truth| {
            is_time_of(&exchange, &source, time, truth.at)
                && (side.as_str(), price, quantity)
                    == (truth.side.as_str(), truth.price, truth.quantity)
        });
        if !is_true {
            problems.add(format!(
                "{shown} is stored as {time} {side} {price} {quantity}, and was {truth:?}"
            ));
        }
        stored.entry((exchange, symbol)).or_default().push(id);
    }
    for ids in stored.values_mut() {
        ids.sort_unstable();
    }
    Ok(stored)
}

/// Reads every gap.
pub(crate) async fn gaps(pool: &PgPool) -> sqlx::Result<Vec<Gap>> {
    let rows: Vec<GapRow> = sqlx::query_as(
        "SELECT exchange, symbol, first_id, last_id, from_time, to_time, status, cause, note FROM tick_gaps ORDER BY id",
    )
    .fetch_all(pool)
    .await?;
    let gap = |row: GapRow| {
        let (exchange, symbol, first, last, from, to, status, cause, note) = row;
        let ids =
            first.zip(last).map(|(first, last)| (first.parse().unwrap(), last.parse().unwrap()));
        let range = ids.map_or_else(
            || format!("{from} to {to}"),
            |(first, last): (u64, u64)| format!("ids {first} to {last}"),
        );
        let note = note.unwrap_or_default();
        let told = format!("{exchange}:{symbol} {range} ({status}; {cause}; {note})");
        Gap { key: (exchange, symbol), ids, from, to, status, told }
    };
    Ok(rows.into_iter().map(gap).collect())
}

/// Each trade once, none missing but what a true gap names, and no gap that is not true.
pub(crate) fn check(market: &Market, stored: &Stored, gaps: &[Gap], problems: &mut Problems) {
    for gap in gaps {
        check_gap(market, stored, gap, problems);
    }
    for (key, ids) in stored {
        let shown = format!("{}:{}", key.0, key.1);
        for pair in ids.windows(2).filter(|pair| pair[0] == pair[1]) {
            problems.add(format!("{shown} {} is stored twice", pair[0]));
        }
        let listing = listing(market, key);
        let own: Vec<&Gap> = gaps
            .iter()
            .filter(|gap| gap.key == *key && matches!(&*gap.status, "unrecoverable" | "not_a_loss"))
            .collect();
        for (first, last) in holes(ids) {
            // Ids that prove nothing may be of other pairs.
            let is_counted = by_name(&key.0).is_some_and(|it| it.ids() == IdRule::Consecutive);
            let is_others = |id: &u64| !is_counted && !listing.is_issued(*id);
            let is_named =
                |id: &u64| is_others(id) || own.iter().any(|gap| gap.covers(listing, *id));
            let unnamed: Vec<u64> = (first..=last).filter(|id| !is_named(id)).collect();
            if let (Some(from), Some(to)) = (unnamed.first(), unnamed.last()) {
                let when = |id: u64| listing.at(id).map(|at| at.to_string()).unwrap_or_default();
                problems.add(format!(
                    "{shown} {from} to {to} ({} trades of {} to {}) are missing and no settled gap names them",
                    unnamed.len(),
                    when(*from),
                    when(*to)
                ));
            }
        }
    }
}

/// Whether the exchange can be asked for any past trade.
pub(crate) fn reaches_back(exchange: &str) -> bool {
    by_name(exchange).is_some_and(|it| it.history().rules().depth == Depth::Whole)
}

fn check_gap(market: &Market, stored: &Stored, gap: &Gap, problems: &mut Problems) {
    let told = &gap.told;
    match gap.status.as_str() {
        "open" => problems.add(format!("a gap is still open: {told}")),
        // In time, another gap may name what is missing: then it is found there.
        "repaired" if gap.ids.is_some() && !gap.is_whole(market, stored) => {
            problems.add(format!("not all is stored of a repaired gap: {told}"));
        }
        "repaired" => {}
        "unrecoverable" if reaches_back(&gap.key.0) => {
            problems.add(format!("the exchange serves it, and it was given up: {told}"));
        }
        "unrecoverable" => {}
        // Every id of this market was traded.
        _ => problems.add(format!("this was traded, and is told to be no loss: {told}")),
    }
}

/// Stretches of time that the exchange no longer tells of, and of which all is stored all the same: by another recorder, or
/// by a repair that was killed before it could note what it had done. Ids that prove nothing cannot tell.
pub(crate) fn needless(market: &Market, stored: &Stored, gaps: &[Gap]) -> usize {
    let lost = gaps.iter().filter(|gap| gap.status == "unrecoverable");
    lost.filter(|gap| gap.is_whole(market, stored)).count()
}

impl Gap {
    /// Whether all of it is stored.
    fn is_whole(&self, market: &Market, stored: &Stored) -> bool {
        let listing = listing(market, &self.key);
        let ids = stored.get(&self.key).map_or(&[][..], Vec::as_slice);
        // Neighbours of a gap in time are stored, and more trades may share their time.
        let (first, last) = self.ids.unwrap_or_else(|| {
            let first = listing.first_since(timestamp(self.from));
            (first, listing.latest(timestamp(self.to)).unwrap_or(first))
        });
        let inside = ids.partition_point(|id| *id <= last) - ids.partition_point(|id| *id < first);
        u64::try_from(inside).unwrap() >= (last + 1).saturating_sub(first)
    }

    fn covers(&self, listing: &Listing, id: u64) -> bool {
        self.ids.map_or_else(
            || {
                let at = listing.at(id).map(Timestamp::to_datetime);
                at.is_some_and(|at| (self.from..=self.to).contains(&at))
            },
            |(first, last)| (first..=last).contains(&id),
        )
    }
}

/// Runs of ids that are not there, between the first and the last.
fn holes(ids: &[u64]) -> impl Iterator<Item = (u64, u64)> {
    ids.windows(2).filter(|pair| pair[1] > pair[0] + 1).map(|pair| (pair[0] + 1, pair[1] - 1))
}

fn listing<'a>(market: &'a Market, (exchange, symbol): &Key) -> &'a Listing {
    market.listing(exchange.parse().unwrap(), symbol).unwrap()
}

fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp::from_micros(time.timestamp_micros()).unwrap()
}

/// Whether recording has come to rest: every gap settled, each symbol's ids without a hole up to some seconds ago, and new ones
/// coming in. Says what it waits for.
pub(crate) async fn unrest(pool: &PgPool, symbols: usize) -> sqlx::Result<Vec<String>> {
    let open: Vec<(String, i64)> = sqlx::query_as(
        "SELECT cause, count(*) FROM tick_gaps WHERE status = 'open' GROUP BY 1 ORDER BY 1",
    )
    .fetch_all(pool)
    .await?;
    let mut waits: Vec<String> =
        open.into_iter().map(|(what, count)| format!("{count} open gaps ({what})")).collect();
    // A batch, its write and one hand-over fit into these seconds.
    let rows: Vec<(String, String, i64, Option<i64>, bool)> = sqlx::query_as(
        "SELECT exchange, symbol, count(*) FILTER (WHERE time < now() - interval '10 s'), \
            max(trade_id::bigint) FILTER (WHERE time < now() - interval '10 s') \
            - min(trade_id::bigint) FILTER (WHERE time < now() - interval '10 s') + 1, \
            max(time) > now() - interval '15 s' \
         FROM tick_data GROUP BY 1, 2 ORDER BY 1, 2",
    )
    .fetch_all(pool)
    .await?;
    if rows.len() < symbols {
        waits.push(format!("{} of {symbols} symbols are recorded", rows.len()));
    }
    let mut missing: BTreeMap<String, i64> = BTreeMap::new();
    let mut silent: BTreeMap<String, u64> = BTreeMap::new();
    for (exchange, _, count, span, is_fresh) in rows {
        // What an exchange no longer has stays away.
        if reaches_back(&exchange) {
            *missing.entry(exchange.clone()).or_default() += span.unwrap_or(0) - count;
        }
        *silent.entry(exchange).or_default() += u64::from(!is_fresh);
    }
    waits.extend(
        missing
            .into_iter()
            .filter(|(_, ids)| *ids > 0)
            .map(|(exchange, ids)| format!("{ids} ids missing of {exchange}")),
    );
    waits.extend(
        silent.into_iter().filter(|(_, count)| *count > 0).map(|(exchange, count)| {
            format!("{count} symbols of {exchange} without a recent trade")
        }),
    );
    Ok(waits)
}

/// Damages the table in every way that [`check`] is to find, and says which it did not. The table is thrown away after that.
pub(crate) async fn prove(pool: &PgPool, market: &Market) -> sqlx::Result<Vec<String>> {
    // The third trade of a symbol is taken away, the fourth is doubled, the fifth altered, and a gap told that is none.
    let damages = [
        (
            "are missing and no settled gap names them",
            "DELETE FROM tick_data WHERE (exchange, symbol, trade_id) IN \
            (SELECT exchange, symbol, trade_id FROM tick_data WHERE exchange = 'kraken' AND symbol = 'BTCUSD' \
             ORDER BY trade_id::bigint OFFSET 2 LIMIT 1)",
        ),
        (
            "is stored twice",
            "INSERT INTO tick_data SELECT time + interval '1 us', received_at, exchange, symbol, trade_id, side, price, \
            quantity, source FROM tick_data WHERE exchange = 'okx' AND symbol = 'BTCUSDT' \
            ORDER BY trade_id::bigint OFFSET 3 LIMIT 1",
        ),
        (
            "is stored as",
            "UPDATE tick_data SET quantity = quantity + 1 WHERE (exchange, symbol, trade_id) IN \
            (SELECT exchange, symbol, trade_id FROM tick_data WHERE exchange = 'bybit' AND symbol = 'BTCUSDT' \
             ORDER BY trade_id::bigint OFFSET 4 LIMIT 1)",
        ),
        (
            "the exchange serves it, and it was given up",
            "INSERT INTO tick_gaps (exchange, symbol, first_id, last_id, from_time, to_time, cause, status, closed_at) \
            SELECT exchange, symbol, trade_id, trade_id, time, time, 'chaos', 'unrecoverable', now() FROM tick_data \
            WHERE exchange = 'coinbase' AND symbol = 'BTCUSD' ORDER BY trade_id::bigint LIMIT 1",
        ),
        (
            "not all is stored of a repaired gap",
            "INSERT INTO tick_gaps (exchange, symbol, first_id, last_id, from_time, to_time, cause, status, closed_at) \
            SELECT exchange, symbol, (trade_id::bigint - 5)::text, trade_id, time, time, 'chaos', 'repaired', now() FROM tick_data \
            WHERE exchange = 'binance' AND symbol = 'BTCUSDT' ORDER BY trade_id::bigint LIMIT 1",
        ),
    ];
    for (_, damage) in damages {
        sqlx::raw_sql(damage).execute(pool).await?;
    }
    let mut problems = Problems::default();
    let stored = stored(pool, market, &mut problems).await?;
    check(market, &stored, &gaps(pool).await?, &mut problems);
    let is_found = |sign: &str| problems.told().iter().any(|problem| problem.contains(sign));
    Ok(damages
        .iter()
        .filter(|(sign, _)| !is_found(sign))
        .map(|(sign, _)| (*sign).to_owned())
        .collect())
}
