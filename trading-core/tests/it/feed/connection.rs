//! How a connection lives and ends, and what it hands on.

use std::time::Duration;

use futures_util::SinkExt as _;
use sqlx::types::chrono::{DateTime, Utc};
use tokio_tungstenite::tungstenite::Message as Frame;
use trading_core::domain::{RecorderClock, Timestamp, steady_micros};
use trading_core::exchange::{Bitstamp, Kraken, Limits, Okx};
use trading_core::feed::ConnectionState;

use super::continuity::noted;
use super::{Server, World, gaps};
use crate::support::postgres::migrated;
use crate::support::waiting::{in_time, spawn};

#[tokio::test]
async fn what_an_exchange_repeats_after_a_reconnect_is_taken_once() {
    let mut world = World::new(&Kraken, 1_000, |limits| limits).await;
    let mut first = world.accept().await;
    first.acknowledge_kraken().await;
    first.send_kraken(1..=10).await;
    assert_eq!(world.ids(10).await, (1..=10).collect::<Vec<_>>());
    drop(first);
    let mut second = world.accept().await;
    second.acknowledge_kraken().await;
    second.send_kraken(5..=15).await;
    assert_eq!(world.ids(5).await, (11..=15).collect::<Vec<_>>());
    let (rest, came, _) = world.stop().await;
    assert!(rest.is_empty(), "{rest:?}");
    let reading = came.exchange;
    assert_eq!((reading.received, reading.duplicates, reading.reconnects), (21, 6, 1));
}

#[tokio::test]
async fn a_planned_cut_is_met_by_a_second_connection_and_each_trade_comes_once_in_order() {
    let mut world = World::new(&Okx, 1_000, |limits| limits).await;
    let mut old = world.accept().await;
    old.acknowledge_okx().await;
    old.send_okx(1).await;
    assert_eq!(world.ids(1).await, [1]);
    old.send(r#"{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade. Please reconnect.","connId":"a4d3ae55"}"#).await;
    let mut next = world.accept().await;
    // Both live: the old one still brings trades while the next is not subscribed.
    old.send_okx(2).await;
    assert_eq!(world.ids(1).await, [2]);
    next.acknowledge_okx().await;
    next.send_okx(2).await;
    next.send_okx(3).await;
    assert_eq!(world.ids(1).await, [3]);
    assert_eq!(
        old.next().await,
        None,
        "the old connection is closed once the next one is subscribed"
    );
    next.send_okx(4).await;
    assert_eq!(world.ids(1).await, [4]);
    let replaced = Some("replaced by a newer connection");
    let shown = world.until(|shown| shown.last_end.as_deref() == replaced).await;
    assert_eq!((shown.state, shown.reconnects), (ConnectionState::Streaming, 1), "without a break");
    let (rest, came, _) = world.stop().await;
    assert_eq!((rest, came.exchange.duplicates), (vec![], 1));
}

async fn acknowledge_bitstamp(server: &mut Server) {
    for pair in ["btcusd", "ethusd"] {
        let channel = format!("live_trades_{pair}");
        assert!(server.next().await.unwrap().contains(&channel));
        server
            .send(format!(
                r#"{{"event":"bts:subscription_succeeded","channel":"{channel}","data":{{}}}}"#
            ))
            .await;
    }
}

async fn send_bitstamp(server: &mut Server, id: u64) {
    let micros = Timestamp::now().as_micros();
    server.send(format!(r#"{{"data":{{"id":{id},"timestamp":"1","amount":0.5,"amount_str":"0.50000000","price":78808.8,"price_str":"78808.80","type":1,"microtimestamp":"{micros}","buy_order_id":1,"sell_order_id":2}},"channel":"live_trades_btcusd","event":"trade"}}"#)).await;
}

#[tokio::test]
async fn a_reconnection_that_bitstamp_asks_for_loses_and_doubles_nothing() {
    let database = migrated().await;
    let mut world = World::new(&Bitstamp, 1_000, |limits| limits).await;
    let mut old = world.accept().await;
    acknowledge_bitstamp(&mut old).await;
    send_bitstamp(&mut old, 10).await;
    assert_eq!(world.ids(1).await, [10]);
    old.send(r#"{"event":"bts:request_reconnect","channel":"","data":""}"#).await;
    let mut next = world.accept().await;
    // The ids between are of other pairs.
    send_bitstamp(&mut old, 14).await;
    assert_eq!(world.ids(1).await, [14]);
    acknowledge_bitstamp(&mut next).await;
    send_bitstamp(&mut next, 14).await;
    send_bitstamp(&mut next, 29).await;
    assert_eq!(world.ids(1).await, [29]);
    assert_eq!(old.next().await, None, "it is closed once the next one is subscribed");
    let ledger = std::sync::Arc::clone(&world.ledger);
    assert_eq!(noted(world, &database.pool).await, [""; 0], "no gap");
    assert_eq!(ledger.read().duplicates, 1);
}

#[tokio::test]
async fn a_connection_is_relieved_before_it_reaches_its_age() {
    // Relieved five minutes before the limit.
    let age = Some(Duration::from_secs(301));
    let mut world =
        World::new(&Kraken, 1_000, |limits| Limits { connection_age: age, ..limits }).await;
    let mut old = world.accept().await;
    old.acknowledge_kraken().await;
    old.send_kraken(1..=1).await;
    let mut next = world.accept().await;
    next.acknowledge_kraken().await;
    assert_eq!(old.next().await, None);
    next.send_kraken(1..=2).await;
    assert_eq!(world.ids(2).await, [1, 2]);
    world.stop().await;
}

#[tokio::test]
async fn heartbeats_alone_do_not_keep_a_connection() {
    let idle = Duration::from_secs(1);
    let world = World::new(&Kraken, 1_000, |limits| Limits { idle, ..limits }).await;
    let mut first = world.accept().await;
    first.acknowledge_kraken().await;
    let beat = async {
        while first.0.send(Frame::text(r#"{"channel":"heartbeat"}"#)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    in_time(beat).await;
    world.accept().await;
    world.stop().await;
}

#[tokio::test]
async fn a_frame_that_is_not_understood_is_kept_aside_a_gap_is_listed_and_the_connection_lives() {
    let database = migrated().await;
    let mut world = World::new(&Kraken, 1_000, |limits| limits).await;
    let mut server = world.accept().await;
    server.acknowledge_kraken().await;
    server.send("{broken").await;
    server.send("{broken").await;
    server.send(r#"{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"sideways","price":1,"qty":1,"trade_id":1,"timestamp":"2026-09-26T18:09:13.157776Z"}]}"#).await;
    server.send_kraken(2..=3).await;
    server.send_kraken(7..=7).await;
    assert_eq!(world.ids(3).await, [2, 3, 7]);
    let (_, came, journal) = world.stop().await;
    assert_eq!(came.exchange.malformed, 3);
    journal.run(database.pool.clone()).await;
    let kept: Vec<(String, i64)> =
        sqlx::query_as("SELECT frame, count FROM quarantined_frames ORDER BY count DESC")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    assert_eq!(kept.len(), 2);
    assert_eq!(kept[0], ("{broken".to_owned(), 2));
    assert!(kept[1].0.contains("sideways"));
    let sessions: Vec<(String, i64, i64)> =
        sqlx::query_as("SELECT reason, ticks, malformed FROM feed_sessions")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    assert_eq!(sessions, [("stopped".to_owned(), 3, 3)]);
    assert_eq!(gaps(&database.pool).await, ["BTCUSD 4 to 6: the ids jumped"]);
}

#[tokio::test]
async fn a_refused_symbol_does_not_keep_the_others_from_being_recorded() {
    let mut world = World::new(&Kraken, 1_000, |limits| limits).await;
    let mut server = world.accept().await;
    server.next().await.unwrap();
    server.send(r#"{"error":"Currency pair not supported ETH/USD","method":"subscribe","success":false,"symbol":"ETH/USD","time_in":"2026-09-26T18:09:13.157776Z","time_out":"2026-09-26T18:09:13.157776Z"}"#).await;
    server.send_kraken(1..=3).await;
    assert_eq!(world.ids(3).await, [1, 2, 3]);
    let (_, came, _) = world.stop().await;
    assert_eq!(came.exchange.reconnects, 0);
}

#[tokio::test]
async fn a_full_channel_holds_the_socket_and_nothing_is_lost() {
    const TRADES: u64 = 200_000;
    let mut world = World::new(&Kraken, 10, |limits| limits).await;
    let mut server = world.accept().await;
    server.acknowledge_kraken().await;
    let mut sending = spawn(async move {
        for first in (1..=TRADES).step_by(50) {
            server.send_kraken(first..=first + 49).await;
        }
        server
    });
    // Nobody reads the channel: the feed stops reading, so the socket fills and the exchange cannot send on.
    let held = tokio::time::timeout(Duration::from_millis(500), &mut sending).await;
    assert!(held.is_err(), "an exchange that is not read from must be held");
    assert_eq!(world.ticks.utilization().used, 10);
    let all = usize::try_from(TRADES).unwrap();
    assert_eq!(world.ids(all).await, (1..=TRADES).collect::<Vec<_>>());
    sending.await.unwrap();
    let (rest, came, _) = world.stop().await;
    assert_eq!((rest, came.ledger.dropped), (vec![], 0));
}

#[tokio::test]
async fn a_feed_that_is_ended_while_it_waits_for_the_channel_leaves_no_tick_uncounted() {
    let mut world = World::new(&Kraken, 10, |limits| limits).await;
    let mut server = world.accept().await;
    server.acknowledge_kraken().await;
    server.send_kraken(1..=100).await;
    let is_held = async {
        while world.ledger.read().in_flight < 100 {
            tokio::task::yield_now().await;
        }
    };
    in_time(is_held).await;
    // As a stop with a second signal does.
    world.feed.abort();
    assert!((&mut world.feed).await.unwrap_err().is_cancelled());
    let mut sent = Vec::new();
    world.ticks.recv_many(&mut sent, 1_000).await;
    assert!(sent.len() < 100, "it was to wait");
    // Neither stored nor dropped: whoever reads the ledger then, sees that they are not stored.
    let reading = world.ledger.read();
    assert_eq!((reading.received, reading.in_flight, reading.balances()), (100, 100, true));
}

#[tokio::test]
async fn no_two_frames_of_a_connection_have_the_same_time() {
    const TRADES: u64 = 20_000;
    let mut world = World::new(&Kraken, 100_000, |limits| limits).await;
    let mut server = world.accept().await;
    server.acknowledge_kraken().await;
    for id in 1..=TRADES {
        server.send_kraken(id..=id).await;
    }
    let ticks = world.next(usize::try_from(TRADES).unwrap()).await;
    assert!(ticks.is_sorted_by(|one, next| one.received_at < next.received_at));
    world.stop().await;
}

#[tokio::test]
async fn where_the_clock_is_set_the_times_follow_it_and_no_row_is_of_two_readings() {
    let clock = RecorderClock::default();
    let mut world = World::with(&Kraken, 100, |context| context.clock = clock.clone()).await;
    let mut server = world.accept().await;
    server.acknowledge_kraken().await;
    let hour = 3_600_000_000;
    let machine = Timestamp::now().as_micros() - steady_micros();
    let mut times = Vec::new();
    for (id, ahead) in [(1, 0), (2, hour), (3, -24 * hour), (4, 0)] {
        clock.set(machine + ahead, 0);
        server.send_kraken(id..=id).await;
        let received_at = world.next(1).await[0].received_at;
        let off = received_at.as_micros() - ahead - Timestamp::now().as_micros();
        assert!(off.abs() < 10_000_000, "{id}: {off}");
        times.push(received_at);
    }
    let (_, _, journal) = world.stop().await;
    let database = migrated().await;
    journal.run(database.pool.clone()).await;
    type Row = (DateTime<Utc>, DateTime<Utc>, i64, String);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT connected_at, ended_at, ticks, reason FROM feed_sessions ORDER BY id",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    assert_eq!(rows.iter().map(|row| row.2).collect::<Vec<_>>(), [1, 1, 1, 1], "{rows:?}");
    let set = "the recorder's clock was set";
    assert_eq!(rows.iter().filter(|row| row.3 == set).count(), 3, "{rows:?}");
    for ((from, to, ..), at) in rows.iter().zip(times) {
        // Ends of the future are not believed, by the database's clock.
        let to = if at > Timestamp::now() { at.to_datetime() } else { *to };
        assert!(*from <= at.to_datetime() && at.to_datetime() <= to, "{from} {at} {to}");
    }
}
