//! Gaps in time, where ids prove nothing: what Bybit still shows comes back, and what Bitstamp has of a day; the rest is
//! given up unless another connection carried it.

use std::time::Duration;

use sqlx::Executor as _;
use trading_core::domain::{Timestamp, steady_micros};
use trading_core::simulator::Venue;

use crate::support::place::{Place, options};
use crate::support::truth::stored;

#[tokio::test]
async fn bybit_gives_back_what_it_still_shows_and_the_rest_is_given_up() {
    let place = Place::new("bybit", options()).await;
    // Its history holds sixty trades: the gap of a moment is all there, one of a minute is not.
    let last = place.latest();
    place.store([last - 20, last - 500]).await;
    place.list(None, (place.time(last - 20), place.time(last - 2))).await;
    let repairing = place.repair("one");
    assert_eq!(place.closed().await, ["repaired"]);
    assert_eq!(place.missing(last - 20, last - 2).await, [0_u64; 0]);

    place.list(None, (place.time(last - 500), place.time(last))).await;
    assert_eq!(place.closed().await, ["unrecoverable", "repaired", "repaired"]);
    repairing.stop().await;
    let split: Vec<(Timestamp, Timestamp)> = times(&place).await;
    let [lost, back, _] = split.as_slice() else { panic!("{split:?}") };
    assert_eq!((lost.0, lost.1, back.1), (place.time(last - 500), back.0, place.time(last)));
    let begin = (last - 500..last).find(|id| place.time(*id) > back.0).unwrap();
    assert!(begin > last - 70, "no more than sixty trades are shown");
    assert_eq!(place.missing(begin, last).await, [0_u64; 0]);
    stored(place.pool(), &place.market).await;
    place.close().await;
}

#[tokio::test]
async fn what_bitstamp_still_has_comes_back_in_whole_seconds_and_once() {
    let place = Place::new("bitstamp", options()).await;
    let listing = place.market.listing(Venue::BITSTAMP, "BTCUSD").unwrap();
    let since = |seconds| listing.first_since(Timestamp::now() - Duration::from_secs(seconds));
    let (begin, first, last, end) = (since(90), since(80), since(70), since(62));
    place.store((begin..=first).chain(last..end)).await;
    place.list(None, (place.time(first), place.time(last))).await;
    let mut repairing = place.repair("one");
    assert_eq!(place.closed().await, ["repaired"]);
    assert_eq!(place.missing(begin, end - 1).await, [0_u64; 0]);
    let once = "SELECT count(*) > 0 AND count(*) = count(DISTINCT trade_id) FROM tick_data";
    place.until(once).await;
    let cut = "SELECT count(*) > 0 AND bool_and(time = date_trunc('second', time)) FROM tick_data \
               WHERE source = 'backfill'";
    place.until(cut).await;
    stored(place.pool(), &place.market).await;

    // They come over a socket after all, with their own times: of a trade that is there twice, that row stays.
    place.store(first..=last).await;
    place.until("SELECT count(*) > count(DISTINCT trade_id) FROM tick_data").await;
    place.audit(&mut repairing);
    place.until(once).await;
    stored(place.pool(), &place.market).await;
    repairing.stop().await;
    place.close().await;
}

#[tokio::test]
async fn what_another_connection_carried_meanwhile_is_no_loss_of_bybit_s() {
    let place = Place::new("bybit", options()).await;
    let last = place.latest();
    let (from, to) = (place.time(last - 500), place.time(last));
    // Another recorder's connection, which has not been heard of since the database was away.
    let stood = "INSERT INTO feed_sessions (recorder, exchange, feed, symbols, connected_at, seen_at) \
                 VALUES ('other', 'bybit', 'bybit-1', '{BTCUSDT}', $1, $2)";
    sqlx::query(stood)
        .bind(from.plus_micros(-60_000_000).to_datetime())
        .bind(from.to_datetime())
        .execute(place.pool())
        .await
        .unwrap();
    place.list(None, (from, to)).await;
    let repairing = place.repair("one");
    place
        .until("SELECT bool_or(note LIKE 'it is not known yet whether another%') FROM tick_gaps")
        .await;
    sqlx::query("UPDATE feed_sessions SET seen_at = $1")
        .bind(to.plus_micros(60_000_000).to_datetime())
        .execute(place.pool())
        .await
        .unwrap();
    place.store(last - 499..last).await;
    place.pool().execute("UPDATE tick_gaps SET retry_at = now()").await.unwrap();
    let closed = place.closed().await;
    assert!(closed.iter().all(|status| status == "repaired"), "{closed:?}");
    repairing.stop().await;
    place.close().await;
}

#[tokio::test]
async fn a_connection_that_stood_and_brought_nothing_has_carried_nothing() {
    let place = Place::new("bybit", options()).await;
    let last = place.latest();
    let (from, to) = (place.time(last - 500), place.time(last));
    // The very connection whose subscription was lost, or one that hung: it stands, before and after.
    let stood = "INSERT INTO feed_sessions (recorder, exchange, feed, symbols, connected_at, seen_at) \
                 VALUES ('own', 'bybit', 'bybit-1', '{BTCUSDT}', $1, $2)";
    sqlx::query(stood)
        .bind(from.plus_micros(-60_000_000).to_datetime())
        .bind(to.plus_micros(120_000_000).to_datetime())
        .execute(place.pool())
        .await
        .unwrap();
    place.store([last - 500, last]).await;
    place.list(None, (from, to)).await;
    let repairing = place.repair("one");
    // What it brought may wait in a spool: for a while that is not known.
    place
        .until("SELECT bool_or(note LIKE 'it is not known yet%' AND attempts > 0) FROM tick_gaps")
        .await;
    let later = "UPDATE tick_gaps SET opened_at = opened_at - interval '1 hour', retry_at = now() \
                 WHERE status = 'open'";
    place.pool().execute(later).await.unwrap();
    let closed = place.closed().await;
    assert_eq!(closed.first().map(String::as_str), Some("unrecoverable"), "{closed:?}");
    assert!(closed.iter().skip(1).all(|status| status == "repaired"), "{closed:?}");
    repairing.stop().await;
    place.close().await;
}

async fn times(place: &Place) -> Vec<(Timestamp, Timestamp)> {
    type Row = (chrono::DateTime<chrono::Utc>, chrono::DateTime<chrono::Utc>);
    let rows: Vec<Row> =
        sqlx::query_as("SELECT from_time, to_time FROM tick_gaps ORDER BY from_time, to_time DESC")
            .fetch_all(place.pool())
            .await
            .unwrap();
    let micros = |time: chrono::DateTime<chrono::Utc>| {
        Timestamp::from_micros(time.timestamp_micros()).unwrap()
    };
    rows.into_iter().map(|(from, to)| (micros(from), micros(to))).collect()
}

#[tokio::test]
async fn nothing_is_given_up_while_the_clock_is_off_and_it_is_judged_at_once_when_that_is_right() {
    let place = Place::new("bybit", options()).await;
    let last = place.latest();
    place.list(None, (place.time(last - 500), place.time(last - 2))).await;
    let day = 86_400_000_000;
    let ahead = Timestamp::now().as_micros() - steady_micros();
    place.clock.set(ahead - day, day);
    let repairing = place.repair("one");
    place
        .until(
            "SELECT bool_or(note LIKE 'held: %') AND bool_or(status = 'repaired') FROM tick_gaps",
        )
        .await;
    assert!(place.gaps().await.iter().all(|(_, _, status, _)| status != "unrecoverable"));
    // As after many attempts: without more, it would be tried again in an hour.
    place
        .pool()
        .execute("UPDATE tick_gaps SET retry_at = now() + interval '1 hour' WHERE status = 'open'")
        .await
        .unwrap();
    place.clock.set(ahead, 0);
    assert_eq!(place.closed().await, ["unrecoverable", "repaired"]);
    repairing.stop().await;
    place.close().await;
}
