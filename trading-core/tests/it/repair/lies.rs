//! A history that says what is not so proves nothing, and doubles nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::Query;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use trading_core::domain::testing::instrument;
use trading_core::domain::{Side, Source, Tick};
use trading_core::simulator::Market;

use super::*;
use crate::support::ticks::traded;
use crate::support::waiting::spawn;

/// How Binance's history answers for the trades from an id on.
type Lie = fn(&Market, u64) -> Vec<Tick>;

/// A trade of the market, as a history shows it.
fn tick(market: &Market, id: u64) -> Option<Tick> {
    let live = traded(market, instrument("binance", "BTCUSDT"), id)?;
    Some(Tick { source: Source::Backfill, ..live })
}

fn honest(market: &Market, from: u64) -> Vec<Tick> {
    (from..from + 1_000).filter_map(|id| tick(market, id)).collect()
}

/// Serves Binance's history for a place: with the lie while it is told to, else as it is.
async fn serve(place: &mut Place, lie: Lie) -> (Arc<AtomicBool>, AbortOnDropHandle<()>) {
    let lies = Arc::new(AtomicBool::new(true));
    let (market, lying) = (place.market.clone(), Arc::clone(&lies));
    let answer = move |Query(query): Query<Vec<(String, String)>>| {
        let from = query.iter().find(|(name, _)| name == "fromId").unwrap().1.parse().unwrap();
        let ticks = if lying.load(Ordering::SeqCst) { lie } else { honest }(&market, from);
        let trades: Vec<String> = ticks
            .iter()
            .map(|tick| {
                let (id, price, quantity) = (&tick.trade_id, tick.price, tick.quantity);
                let (time, sells) = (tick.exchange_at.as_millis(), tick.side == Side::Sell);
                format!(
                    r#"{{"id":{id},"price":"{price}","qty":"{quantity}","quoteQty":"1","time":{time},"isBuyerMaker":{sells},"isBestMatch":true}}"#
                )
            })
            .collect();
        std::future::ready(format!("[{}]", trades.join(",")))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    place.venue.rest_url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/api/v3/historicalTrades", get(answer));
    let serving = async move { axum::serve(listener, router).await.unwrap() };
    (lies, spawn(serving))
}

#[tokio::test]
async fn what_a_history_skips_at_large_is_asked_for_again_and_stored_when_it_is_shown() {
    let mut place = Place::new("binance", options()).await;
    let last = place.latest() - 10;
    let first = last - 6_000;
    place.store([first, last]).await;
    place.gap(first + 1, last - 1).await;
    // Each page skips 2,000 trades in its middle.
    let lie: Lie = |market, from| {
        let shown = honest(market, from).into_iter().take(500);
        shown.chain(honest(market, from + 2_500)).take(1_000).collect()
    };
    let (lies, serving) = serve(&mut place, lie).await;
    let repairing = place.repair("one");
    place.until("SELECT bool_or(note LIKE '%skips%' AND status = 'open' AND attempts > 0) FROM tick_gaps").await;
    let settled: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM tick_gaps WHERE status IN ('not_a_loss', 'unrecoverable')",
    )
    .fetch_one(place.pool())
    .await
    .unwrap();
    assert_eq!(settled, 0, "{:?}", place.gaps().await);
    lies.store(false, Ordering::SeqCst);
    assert!(place.closed().await.iter().all(|status| status == "repaired"));
    repairing.stop().await;
    assert_eq!(place.missing(first, last).await, [0_u64; 0]);
    serving.abort();
    place.close().await;
}

#[tokio::test]
async fn a_trade_that_a_history_dates_anew_is_stored_once() {
    let mut place = Place::new("binance", options()).await;
    let last = place.latest() - 10;
    let first = last - 100;
    place.store([first, last]).await;
    // Stored already, with a time of ten minutes later.
    let moved = Tick {
        exchange_at: place.time(first + 5).plus_micros(600_000_000),
        ..place.tick(first + 5).unwrap()
    };
    place.store_ticks(&[moved]).await;
    place.gap(first + 1, last - 1).await;
    // Each trade a second time, a millisecond later; and one of them, the first time, in another year.
    let lie: Lie = |market, from| {
        let mut ticks = honest(market, from);
        ticks.truncate(200);
        let again: Vec<Tick> = ticks
            .iter()
            .map(|tick| Tick { exchange_at: tick.exchange_at.plus_micros(1_000), ..tick.clone() })
            .collect();
        let dated = Tick {
            exchange_at: ticks[50].exchange_at.plus_micros(-365 * 86_400_000_000),
            ..ticks[50].clone()
        };
        [dated]
            .into_iter()
            .chain(ticks.into_iter().zip(again).flat_map(|(one, other)| [one, other]))
            .collect()
    };
    let (_lies, serving) = serve(&mut place, lie).await;
    let repairing = place.repair("one");
    assert!(place.closed().await.iter().all(|status| status == "repaired"));
    repairing.stop().await;
    let (rows, ids): (i64, i64) =
        sqlx::query_as("SELECT count(*), count(DISTINCT trade_id) FROM tick_data")
            .fetch_one(place.pool())
            .await
            .unwrap();
    assert_eq!((rows, ids), (101, 101));
    let old: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM tick_data WHERE time < now() - interval '30 days'",
    )
    .fetch_one(place.pool())
    .await
    .unwrap();
    assert_eq!(old, 0, "no trade of the year before");
    serving.abort();
    place.close().await;
}
