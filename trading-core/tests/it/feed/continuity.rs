//! What no connection brought is a gap: once, with its cause, and only when nothing brings it in time.

use std::num::NonZeroUsize;
use std::time::Duration;

use sqlx::PgPool;
use trading_core::domain::{Instrument, LastStored, Timestamp, TradeId};
use trading_core::exchange::{Bybit, Coinbase, Exchange, IdRule, Kraken, all};

use super::{Server, World, gaps};
use crate::support::postgres::migrated;
use crate::support::waiting::in_time;

const AT: &str = "2026-09-26T18:09:13.157776Z";

/// The last stored trade of bitcoin.
fn stored(exchange: &dyn Exchange, id: u64, at: &str) -> Vec<LastStored> {
    let at = Timestamp::from_rfc3339(at).unwrap();
    vec![LastStored {
        instrument: Instrument::intern(exchange.name(), &"BTC-USD".parse().unwrap()).unwrap(),
        trade_id: TradeId::Number(id),
        exchange_at: at,
        until: at,
        missing: Vec::new(),
        is_carried: false,
    }]
}

/// Stops the feed, writes what it noted, and reads the gaps.
pub(super) async fn noted(world: World, pool: &PgPool) -> Vec<String> {
    let (_, _, journal) = world.stop().await;
    in_time(journal.run(pool.clone())).await;
    gaps(pool).await
}

/// The frames of each exchange whose ids count: its confirmation, and the trade that it tells on subscribing.
fn first_frames(exchange: &dyn Exchange, id: u64) -> Vec<String> {
    match exchange.name() {
        "coinbase" => vec![
            r#"{"type":"subscriptions","channels":[{"name":"matches","product_ids":["BTC-USD","ETH-USD"],"account_ids":null}]}"#.to_owned(),
            format!(r#"{{"type":"last_match","trade_id":{id},"maker_order_id":"m","taker_order_id":"t","side":"buy","size":"1","price":"77572.87","product_id":"BTC-USD","sequence":1,"time":"{AT}"}}"#),
        ],
        "kraken" => vec![
            r#"{"method":"subscribe","result":{"channel":"trade","snapshot":true,"symbol":"BTC/USD"},"success":true,"time_in":"2026-09-26T18:09:13.157776Z","time_out":"2026-09-26T18:09:13.157776Z"}"#.to_owned(),
            format!(r#"{{"channel":"trade","type":"snapshot","data":[{{"symbol":"BTC/USD","side":"sell","price":84095.70,"qty":0.5,"ord_type":"limit","trade_id":{id},"timestamp":"{AT}"}}]}}"#),
        ],
        "okx" => vec![
            r#"{"event":"subscribe","arg":{"channel":"trades-all","instId":"BTC-USD"},"connId":"c7f0ba8e"}"#.to_owned(),
            format!(r#"{{"arg":{{"channel":"trades-all","instId":"BTC-USD"}},"data":[{{"instId":"BTC-USD","tradeId":"{id}","px":"78808.8","sz":"0.5","side":"sell","ts":"1790446153157","source":"0"}}]}}"#),
        ],
        other => panic!("add what {other} sends on subscribing, or that it sends no trade"),
    }
}

#[tokio::test]
async fn the_trade_that_an_exchange_tells_on_subscribing_shows_what_was_missed_before() {
    // Binance sends none until the next one happens.
    let counting = all().filter(|it| it.ids() == IdRule::Consecutive && it.name() != "binance");
    for exchange in counting {
        let database = migrated().await;
        let mut world =
            World::with(exchange, 1_000, |context| context.stored = stored(exchange, 100, AT))
                .await;
        let mut server = world.accept().await;
        // It was stored, and is not sent on again.
        for frame in first_frames(exchange, 100) {
            server.send(frame).await;
        }
        server.send(first_frames(exchange, 105).remove(1)).await;
        assert_eq!(world.ids(1).await, [105], "{exchange:?}");
        let gaps = noted(world, &database.pool).await;
        assert_eq!(gaps, ["BTCUSD 101 to 104: the recorder was not running"], "{exchange:?}");
    }
}

#[tokio::test]
async fn a_heartbeat_proves_a_gap_in_silence() {
    let database = migrated().await;
    let mut world = World::new(&Coinbase, 1_000, |limits| limits).await;
    let mut server = world.accept().await;
    for frame in first_frames(&Coinbase, 100) {
        server.send(frame).await;
    }
    assert_eq!(world.ids(1).await, [100]);
    let beat = |id| {
        format!(
            r#"{{"type":"heartbeat","sequence":1,"last_trade_id":{id},"product_id":"BTC-USD","time":"{AT}"}}"#
        )
    };
    server.send(beat(101)).await;
    // The match may come behind the heartbeat that names it.
    server.send(first_frames(&Coinbase, 101).remove(1)).await;
    server.send(beat(103)).await;
    server.send(beat(103)).await;
    assert_eq!(world.ids(1).await, [101]);
    let gaps = noted(world, &database.pool).await;
    assert_eq!(gaps, ["BTCUSD 102 to 103: a heartbeat named a later id"]);
}

fn bybit(id: u64, at: &str) -> String {
    let millis = Timestamp::from_rfc3339(at).unwrap().as_millis();
    format!(
        r#"{{"topic":"publicTrade.BTCUSD","ts":1,"type":"snapshot","data":[{{"i":"{id}","T":{millis},"p":"64000.10","v":"0.5","S":"Sell","seq":5,"s":"BTCUSD","BT":false,"RPI":false}}]}}"#
    )
}

async fn acknowledge_bybit(server: &mut Server) {
    for symbol in ["BTCUSD", "ETHUSD"] {
        assert!(server.next().await.unwrap().contains(symbol));
        server.send(format!(r#"{{"success":true,"ret_msg":"subscribe","conn_id":"c-1","req_id":"{symbol}","op":"subscribe"}}"#)).await;
    }
}

#[tokio::test]
async fn where_ids_prove_nothing_each_time_without_a_connection_is_a_gap() {
    let database = migrated().await;
    let mut world = World::with(&Bybit, 1_000, |context| {
        context.stored = stored(&Bybit, 100, "2026-09-26T18:08:13.157776Z");
    })
    .await;
    let mut server = world.accept().await;
    acknowledge_bybit(&mut server).await;
    server.send(bybit(7, AT)).await;
    assert_eq!(world.ids(1).await, [7]);
    drop(server);
    let mut server = world.accept().await;
    acknowledge_bybit(&mut server).await;
    server.send(bybit(8, "2026-09-26T18:09:20Z")).await;
    assert_eq!(world.ids(1).await, [8]);
    let gaps = noted(world, &database.pool).await;
    let (start, cut) = ("the recorder was not running", "no connection");
    let some_time = |cause| format!("BTCUSD some time: {cause}");
    assert_eq!(
        gaps,
        [some_time(cut), some_time(start)],
        "and none of ETHUSD, which was never stored"
    );
    let ends: Vec<(String, String)> =
        sqlx::query_as("SELECT (from_time AT TIME ZONE 'UTC')::text, (to_time AT TIME ZONE 'UTC')::text FROM tick_gaps ORDER BY id")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    let text = |time: &str| format!("2026-09-26 {time}");
    assert_eq!(
        ends,
        [(text("18:08:13.157776"), text("18:09:13.157")), (text("18:09:13.157"), text("18:09:20"))]
    );
}

/// Two connections beside each other, each confirmed.
async fn two_connections(exchange: &'static dyn Exchange) -> (World, Server, Server) {
    let world = World::with(exchange, 1_000, |context| {
        context.connections = NonZeroUsize::new(2).unwrap();
    })
    .await;
    let (mut one, mut two) = (world.accept().await, world.accept().await);
    one.acknowledge_kraken().await;
    two.acknowledge_kraken().await;
    (world, one, two)
}

#[tokio::test]
async fn of_two_connections_each_trade_comes_once_and_what_one_lost_the_other_brings() {
    let database = migrated().await;
    let (mut world, mut one, mut two) = two_connections(&Kraken).await;
    one.send_kraken(1..=5).await;
    assert_eq!(world.ids(5).await, [1, 2, 3, 4, 5]);
    two.send_kraken(1..=3).await;
    // The first is ahead, and has lost two.
    one.send_kraken(8..=8).await;
    two.send_kraken(4..=8).await;
    let mut late = world.ids(3).await;
    late.sort_unstable();
    assert_eq!(late, [6, 7, 8]);
    // One is cut: the other goes on, and it comes back.
    drop(one);
    two.send_kraken(9..=12).await;
    assert_eq!(world.ids(4).await, [9, 10, 11, 12]);
    let mut one = world.accept().await;
    one.acknowledge_kraken().await;
    two.send_kraken(13..=13).await;
    one.send_kraken(11..=14).await;
    two.send_kraken(14..=14).await;
    assert_eq!(world.ids(2).await, [13, 14]);
    // Every one of them has come before the feed is stopped.
    let board = world.board.clone();
    let counts = || board.exchanges()["kraken"];
    let all = async {
        while counts().received < 5 + 3 + 1 + 5 + 4 + 1 + 4 + 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time(all).await;
    assert_eq!(noted(world, &database.pool).await, [""; 0]);
    let reading = counts();
    assert_eq!((reading.received, reading.duplicates, reading.reconnects), (24, 10, 1));
    let names: Vec<String> =
        sqlx::query_scalar("SELECT feed FROM feed_sessions ORDER BY feed, connected_at")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    let sorted = ["test-1/1", "test-1/2"];
    assert!(names.len() == 3 && sorted.iter().all(|name| names.iter().any(|it| it == name)));
}

#[tokio::test]
async fn what_neither_of_two_connections_brings_in_time_is_a_gap() {
    let database = migrated().await;
    let (mut world, mut one, mut two) = two_connections(&Kraken).await;
    one.send_kraken(1..=2).await;
    one.send_kraken(9..=9).await;
    assert_eq!(world.ids(3).await, [1, 2, 9]);
    two.send_kraken(1..=4).await;
    two.send_kraken(7..=9).await;
    assert_eq!(world.ids(4).await, [3, 4, 7, 8]);
    assert_eq!(noted(world, &database.pool).await, ["BTCUSD 5 to 6: the ids jumped"]);
}

#[tokio::test]
async fn a_stalled_connection_beside_one_that_lives_loses_nothing() {
    let database = migrated().await;
    let silence = Duration::from_secs(1);
    let mut world = World::with(&Kraken, 1_000, |context| {
        context.connections = NonZeroUsize::new(2).unwrap();
        context.limits.silence = silence;
    })
    .await;
    let (mut one, mut two) = (world.accept().await, world.accept().await);
    one.acknowledge_kraken().await;
    two.acknowledge_kraken().await;
    let mut id = 0;
    // The second says nothing more, until it is given up and opened anew.
    let next = loop {
        id += 1;
        one.send_kraken(id..=id).await;
        assert_eq!(world.ids(1).await, [id]);
        if let Ok(next) = tokio::time::timeout(Duration::from_millis(20), world.accept()).await {
            break next;
        }
    };
    assert!(two.next().await.is_none(), "it was given up");
    drop(next);
    one.send_kraken(id + 1..=id + 1).await;
    assert_eq!(world.ids(1).await, [id + 1]);
    assert_eq!(noted(world, &database.pool).await, [""; 0]);
}
