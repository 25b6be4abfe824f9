use super::super::harness::{Client, numbers};
use super::*;
use domain::Side;

const SUBSCRIBE: &str =
    r#"{"type":"subscribe","product_ids":["BTC-USD"],"channels":["matches","heartbeat"]}"#;

#[test]
fn a_subscription_begins_with_the_last_match_and_goes_on_at_the_next_id() {
    let mut client = Client::open(Venue::COINBASE, "", "");
    let before = client.newest("BTCUSD");
    let answer = client.say(SUBSCRIBE);
    assert_eq!(
        answer[0],
        r#"{"type":"subscriptions","channels":[{"name":"matches","product_ids":["BTC-USD"],"account_ids":null},{"name":"heartbeat","product_ids":["BTC-USD"],"account_ids":null}]}"#
    );
    assert!(answer[1].starts_with(&format!(r#"{{"type":"last_match","trade_id":{},"#, before.id)));
    assert_eq!(answer.len(), 2);
    let frames = client.wait(200);
    let Trade { id, price, quantity, side, at } = client.newest("BTCUSD");
    let matches: Vec<_> =
        frames.iter().filter(|frame| frame.contains(r#""type":"match""#)).cloned().collect();
    assert_eq!(numbers(&matches, "trade_id"), (before.id + 1..=id).collect::<Vec<_>>());
    let last = matches.last().unwrap();
    let maker = if side == Side::Buy { "sell" } else { "buy" };
    assert!(last.contains(&format!(
        r#","side":"{maker}","size":"{quantity}","price":"{price}","product_id":"BTC-USD","sequence":"#
    )), "{last}");
    assert!(last.ends_with(&format!(r#","time":"{at}"}}"#)), "{last}");
}

#[test]
fn a_heartbeat_each_second_names_the_last_trade() {
    let mut client = Client::open(Venue::COINBASE, "", "");
    client.say(SUBSCRIBE);
    for _ in 0..3 {
        let frames = client.wait(1_000);
        let beat = frames.last().unwrap();
        assert!(beat.starts_with(r#"{"type":"heartbeat","last_trade_id":"#), "after its trades");
        let latest = client.newest("BTCUSD").id;
        assert_eq!(numbers(std::slice::from_ref(beat), "last_trade_id"), [latest]);
    }
}

#[test]
fn who_does_not_subscribe_within_five_seconds_is_disconnected() {
    let mut client = Client::open(Venue::COINBASE, "", "");
    assert!(client.wait(4_999).is_empty());
    assert!(client.wait(1)[0].starts_with("<close"));
    let mut client = Client::open(Venue::COINBASE, "", "");
    client.say(SUBSCRIBE);
    assert!(!client.wait(60_000).iter().any(|frame| frame.starts_with("<close")));
}

#[test]
fn what_cannot_be_subscribed_is_an_error_with_its_reason() {
    let mut client = Client::open(Venue::COINBASE, "", "");
    for (channel, product, reason) in [
        ("matches", "FOO-USD", "FOO-USD is not a valid product"),
        ("matches", "BTCUSD", "BTCUSD is not a valid product"),
        ("dance", "BTC-USD", "dance is not a valid channel"),
    ] {
        let request = format!(
            r#"{{"type":"subscribe","product_ids":["{product}"],"channels":["{channel}"]}}"#
        );
        assert_eq!(
            client.say(&request),
            [format!(r#"{{"type":"error","message":"Failed to subscribe","reason":"{reason}"}}"#)]
        );
    }
    let full = client
        .say(r#"{"type":"subscribe","channels":[{"name":"full","product_ids":["BTC-USD"]}]}"#);
    assert!(full[0].contains("now require authentication"));
    assert!(client.say("nonsense")[0].contains(r#""type":"error""#));
}

#[test]
fn unsubscribing_ends_the_channel() {
    let mut client = Client::open(Venue::COINBASE, "", "");
    client.say(SUBSCRIBE);
    let answer = client.say(&SUBSCRIBE.replace("subscribe", "unsubscribe"));
    assert_eq!(answer, [r#"{"type":"subscriptions","channels":[]}"#]);
    assert!(client.wait(3_000).is_empty());
}

#[test]
fn the_history_is_newest_first_between_its_cursors() {
    let client = Client::open(Venue::COINBASE, "", "");
    let newest = client.newest("BTCUSD").id;
    let reply = client.rest(&format!("products/BTC-USD/trades?limit=100&after={}", newest - 9));
    let page: Value = serde_json::from_str(&reply.body).unwrap();
    let ids: Vec<u64> =
        page.as_array().unwrap().iter().map(|t| t["trade_id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (newest - 109..=newest - 10).rev().collect::<Vec<_>>());
    assert_eq!(
        reply.headers,
        [("cb-before", (newest - 10).to_string()), ("cb-after", (newest - 109).to_string())]
    );
    let between = format!("products/BTC-USD/trades?before={}&after={}", newest - 5, newest - 2);
    assert_eq!(client.json(&between).as_array().unwrap().len(), 2, "both ends are outside");
    let truth = client.newest("BTCUSD");
    let first = &client.json("products/BTC-USD/trades?limit=1")[0];
    assert_eq!(first["side"], truth.side.opposite().as_str(), "the maker's side");
    assert_eq!(first["time"], truth.at.to_string());
    let unknown = client.rest("products/FOO-USD/trades");
    assert_eq!((unknown.status, &*unknown.body), (404, r#"{"message":"NotFound"}"#));
}

#[test]
fn products_have_their_steps() {
    let client = Client::open(Venue::COINBASE, "", "");
    assert_eq!(client.json("products/BTC-USD")["quote_increment"], "0.01");
    assert!(client.json("products").as_array().unwrap().len() > 50);
    assert!(client.json("currencies").as_array().unwrap().iter().any(|it| it["id"] == "BTC"));
    assert_eq!(
        client.rest("time").body,
        r#"{"iso":"2026-09-02T07:44:10.104422Z","epoch":1788335050.104422}"#
    );
}

#[test]
fn candles_are_newest_first_and_at_most_300_minutes() {
    let client = Client::open(Venue::COINBASE, "", "");
    let minute = client.now.minute();
    let from = minute.plus_micros(-60_000_000);
    let url = "products/BTC-USD/candles?granularity=60";
    let page = client.json(&format!("{url}&start={from}&end={}", client.now));
    let candle = client.listing("BTCUSD").candle(client.now, client.now).unwrap();
    assert_eq!(page.as_array().unwrap().len(), 2);
    let row = format!(
        "[{},{},{},{},{},{}]",
        minute.as_millis() / 1_000,
        candle.low,
        candle.high,
        candle.open,
        candle.close,
        candle.volume
    );
    let body = client.rest(&format!("{url}&start={from}&end={}", client.now)).body;
    assert!(body.starts_with(&format!("[{row},")), "{body}");
    let too_long = minute.plus_micros(-301 * 60_000_000).as_millis() / 1_000;
    assert_eq!(client.rest(&format!("{url}&start={too_long}")).status, 400);
    assert_eq!(client.json(url).as_array().unwrap().len(), 300);
}
