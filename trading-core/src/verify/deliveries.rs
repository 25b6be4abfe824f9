//! The closer look at connections of which fewer rows are stored than came: what else may have become of the trades.

use sqlx::postgres::PgConnection;
use sqlx::types::chrono::{DateTime, Utc};

use crate::domain::{DAY, Timestamp, count};
use crate::telemetry::Grouped;

use super::error::VerifyError;
use super::findings::{Finding, Kind};
use super::sessions::Delivery;
use super::snapshot::Snapshot;

/// Findings after which no more are looked for.
const FOUND_MAX: usize = 50;
/// Trades of the past that a venue tells at the beginning of each connection, of each symbol, at the most. They may have
/// been stored before, by another way.
const fn told_at_start(exchange: &str) -> u64 {
    match exchange.as_bytes() {
        b"kraken" => 50,
        b"coinbase" => 1,
        _ => 0,
    }
}

/// Those that nothing explains, each as a finding with the symbols that it is about. `dropped_until`:
/// the first day that is still there where older ones were dropped; what a venue told of the time before it is gone.
pub(super) async fn unexplained(
    snapshot: &Snapshot,
    short: Vec<Delivery>,
    dropped_until: Timestamp,
) -> Result<Vec<(Finding, Delivery)>, VerifyError> {
    let mut found = Vec::new();
    for delivery in short {
        if found.len() >= FOUND_MAX {
            break;
        }
        let mut look = snapshot.look().await?;
        let missing = match missing(&mut look, &delivery, dropped_until, true).await? {
            0 => 0,
            _ => missing(&mut look, &delivery, dropped_until, false).await?,
        };
        if missing > 0 {
            found.push((finding(&delivery, missing), delivery));
        }
    }
    Ok(found)
}

/// How many of a delivery's trades are neither stored nor refused. `near`: rows are only looked for near its time.
async fn missing(
    look: &mut PgConnection,
    delivery: &Delivery,
    dropped_until: Timestamp,
    near: bool,
) -> Result<u64, VerifyError> {
    let symbols: Vec<&str> = delivery.symbols.iter().map(String::as_str).collect();
    let (from, to): (DateTime<Utc>, DateTime<Utc>) =
        (delivery.at.0.to_datetime(), delivery.at.1.to_datetime());
    // Received then; and traded then, stored by another way: fetched, or brought by another recorder.
    let (received, otherwise, earlier): (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE is_received), \
             count(*) FILTER (WHERE NOT is_received AND time BETWEEN $3 - interval '5 seconds' AND $4), \
             count(*) FILTER (WHERE NOT is_received AND time < $3 - interval '5 seconds') \
         FROM (SELECT time, source = 'live' AND received_at BETWEEN $3 AND $4 AS is_received FROM tick_data \
             WHERE exchange = $1 AND symbol = ANY ($2) \
                 AND (NOT $5 OR time BETWEEN $3 - interval '1 day' AND $4 + interval '1 day')) AS ticks",
    )
    .bind(&delivery.exchange)
    .bind(&symbols)
    .bind(from)
    .bind(to)
    .bind(near)
    .persistent(false)
    .fetch_one(&mut *look)
    .await?;
    let refused = refused(look, delivery, &symbols).await?;
    let number = |count: i64| u64::try_from(count).unwrap_or_default();
    let at_start = told_at_start(&delivery.exchange)
        .saturating_mul(delivery.sessions)
        .saturating_mul(count(symbols.len()));
    // Every row that may be one of them is taken for one.
    let explained = number(received)
        + number(otherwise)
        + if dropped_until + DAY > delivery.at.0 {
            at_start
        } else {
            number(earlier).min(at_start)
        }
        + number(refused);
    Ok(delivery.passed_on.saturating_sub(explained))
}

/// How many of them the table may have refused.
async fn refused(
    look: &mut PgConnection,
    delivery: &Delivery,
    symbols: &[&str],
) -> Result<i64, VerifyError> {
    let refused: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM rejected_ticks \
         WHERE exchange = $1 AND symbol = ANY ($2) AND received_at BETWEEN $3 AND $4 AND source = 'live'",
    )
    .bind(&delivery.exchange)
    .bind(symbols)
    .bind(delivery.at.0.to_datetime())
    .bind(delivery.at.1.to_datetime())
    .fetch_one(&mut *look)
    .await?;
    let is_there: bool = sqlx::query_scalar("SELECT to_regclass('rejected_overflow') IS NOT NULL")
        .fetch_one(&mut *look)
        .await?;
    let counted: i64 = if is_there {
        sqlx::query_scalar(
            "SELECT coalesce(sum(count), 0)::bigint FROM rejected_overflow \
             WHERE exchange = $1 AND symbol = ANY ($2) AND last_seen >= $3 AND first_seen <= $4 + interval '1 hour'",
        )
        .bind(&delivery.exchange)
        .bind(symbols)
        .bind(delivery.at.0.to_datetime())
        .bind(delivery.at.1.to_datetime())
        .fetch_one(look)
        .await?
    } else {
        0
    };
    Ok(refused.saturating_add(counted))
}

fn finding(delivery: &Delivery, missing: u64) -> Finding {
    let mut symbols = delivery.symbols.iter();
    let only = symbols.next().filter(|_| delivery.symbols.len() == 1);
    Finding {
        exchange: delivery.exchange.clone(),
        symbol: only.cloned(),
        kind: Kind::ReceivedNotStored,
        count: missing,
        first_id: None,
        last_id: None,
        from: Some(delivery.at.0),
        to: Some(delivery.at.1),
        text: format!(
            "at least {} of {} trades that came in by feed_sessions are neither stored nor in rejected_ticks: rows were \
             deleted, or wait in a spool (`trading-core spool inspect`){}",
            Grouped(missing),
            Grouped(delivery.passed_on),
            if delivery.reaches_out {
                "; some may be of a time that was not asked for"
            } else {
                ""
            }
        ),
    }
}
