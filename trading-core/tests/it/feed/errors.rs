//! What an exchange complains of, and what follows.

use trading_core::exchange::{Bybit, Coinbase, Kraken, Okx};

use super::*;

#[tokio::test]
async fn an_error_that_answers_no_request_does_not_end_a_healthy_connection() {
    let mut world = World::new(&Okx, 100, |limits| limits).await;
    let mut server = world.accept().await;
    server.acknowledge_okx().await;
    server.send_okx(700_100).await;
    for error in [
        r#"{"event":"error","code":"60014","msg":"Requests too frequent","connId":"x"}"#,
        r#"{"event":"error","code":"60099","msg":"Something else","connId":"x"}"#,
        r#"{"event":"error","code":"60018","msg":"Something about BTC-USD","connId":"x"}"#,
        r#"{"event":"channel-conn-count-error","channel":"trades-all","connCount":"30","connId":"x"}"#,
    ] {
        server.send(error).await;
    }
    server.send_okx(700_101).await;
    assert_eq!(world.ids(2).await, [700_100, 700_101]);
    let (_, came, _) = world.stop().await;
    let reading = came.exchange;
    assert_eq!((reading.reconnects, reading.malformed), (0, 0));
}

#[tokio::test]
async fn the_errors_of_other_venues_do_not_end_a_connection_either() {
    let mut world = World::new(&Bybit, 100, |limits| limits).await;
    let mut server = world.accept().await;
    for symbol in ["BTCUSD", "ETHUSD"] {
        assert!(server.next().await.unwrap().contains(symbol));
        server
            .send(format!(r#"{{"success":true,"ret_msg":"","conn_id":"x","op":"subscribe","req_id":"{symbol}"}}"#))
            .await;
    }
    server
        .send(r#"{"success":false,"ret_msg":"Too many visits. Exceeded the API Rate Limit.","conn_id":"x","op":"","req_id":""}"#)
        .await;
    server
        .send(r#"{"topic":"publicTrade.BTCUSD","ts":1,"type":"snapshot","data":[{"i":"7","T":1790000000000,"p":"1","v":"1","S":"Buy","s":"BTCUSD"}]}"#)
        .await;
    assert_eq!(world.ids(1).await, [7]);
    assert_eq!(world.stop().await.1.exchange.reconnects, 0);

    let mut world = World::new(&Coinbase, 100, |limits| limits).await;
    let mut server = world.accept().await;
    for product in ["BTC-USD", "ETH-USD"] {
        assert!(server.next().await.unwrap().contains(product));
        server
            .send(format!(r#"{{"type":"subscriptions","channels":[{{"name":"matches","product_ids":["{product}"]}}]}}"#))
            .await;
    }
    server.send(r#"{"type":"error","message":"ErrSlowConsume"}"#).await;
    server
        .send(r#"{"type":"match","trade_id":7,"side":"sell","size":"1","price":"1","product_id":"BTC-USD","time":"2026-09-21T13:33:20.000119Z"}"#)
        .await;
    assert_eq!(world.ids(1).await, [7]);
    assert_eq!(world.stop().await.1.exchange.reconnects, 0);
}

#[tokio::test]
async fn too_frequent_leads_to_one_request_more_on_the_same_connection() {
    let mut world = World::new(&Kraken, 100, |limits| limits).await;
    let mut server = world.accept().await;
    let asked = server.next().await.unwrap();
    assert!(asked.contains("BTC/USD") && asked.contains("ETH/USD"));
    server.send(r#"{"Error":"Exceeded msg rate"}"#).await;
    // Once more, after the pause, and not one by one.
    let again = server.next().await.unwrap();
    assert!(again.contains("BTC/USD") && again.contains("ETH/USD"), "{again}");
    server.send_kraken(1..=2).await;
    assert_eq!(world.ids(2).await, [1, 2]);
    assert_eq!(world.stop().await.1.exchange.reconnects, 0);
}
