use super::super::harness::{Client, numbers};
use super::*;

fn subscribe(topics: &[String]) -> String {
    format!(r#"{{"req_id":"t1","op":"subscribe","args":{}}}"#, Value::from(topics))
}

#[test]
fn a_subscription_is_acknowledged_and_trades_come_in_batches() {
    let mut client = Client::open(Venue::BYBIT, "v5/public/spot", "");
    let newest = client.newest("BTCUSDT");
    let answer = client.say(&subscribe(&["publicTrade.BTCUSDT".to_owned()]));
    assert_eq!(answer.len(), 1, "no snapshot");
    assert!(answer[0].starts_with(r#"{"success":true,"ret_msg":"subscribe","conn_id":""#));
    assert!(answer[0].ends_with(r#"","req_id":"t1","op":"subscribe"}"#));
    let frames = client.wait(1_000);
    assert_eq!(frames.len(), 1);
    let now = client.now.as_millis();
    let start = format!(
        r#"{{"topic":"publicTrade.BTCUSDT","ts":{now},"type":"snapshot","data":[{{"i":"{}","#,
        newest.id + 1
    );
    assert!(frames[0].starts_with(&start), "{}", frames[0]);
    let Trade { id, price, quantity, side, at } = client.newest("BTCUSDT");
    assert_eq!(numbers(&frames, "i"), (newest.id + 1..=id).collect::<Vec<_>>());
    let listing = client.listing("BTCUSDT");
    let side = if side == Side::Buy { "Buy" } else { "Sell" };
    let last = format!(
        r#",{{"i":"{id}","T":{},"p":"{price}","v":"{quantity}","S":"{side}","seq":{},"s":"BTCUSDT","BT":false,"RPI":false}}]}}"#,
        at.as_millis(),
        sequence(&listing, id),
    );
    assert!(frames[0].ends_with(&last), "{} is not the end of {}", last, frames[0]);
    assert_eq!(id.to_string().len(), 19, "a prefix and a count");
}

#[test]
fn a_batch_has_at_most_1024_trades() {
    let mut client = Client::open(Venue::BYBIT, "v5/public/spot", "");
    client.say(&subscribe(&["publicTrade.BTCUSDT".to_owned()]));
    // A turn takes no more than one batch.
    let mut frames = client.wait(15_000);
    frames.extend(client.wait(1));
    let sizes: Vec<usize> =
        frames.iter().map(|frame| numbers(std::slice::from_ref(frame), "i").len()).collect();
    assert_eq!(sizes[0], 1_024);
    assert!(sizes.len() == 2 && sizes[1] < 1_024, "{sizes:?}");
}

#[test]
fn one_bad_topic_fails_the_request_and_eleven_are_too_many() {
    let mut client = Client::open(Venue::BYBIT, "v5/public/spot", "");
    let good = "publicTrade.BTCUSDT".to_owned();
    let answer = client.say(&subscribe(&[good.clone(), "publicTrade.FOO".to_owned()]));
    assert!(answer[0].starts_with(
        r#"{"success":false,"ret_msg":"error:handler not found, topic:publicTrade.FOO","conn_id":""#
    ));
    assert!(client.wait(1_000).is_empty());
    let answer = client.say(&subscribe(&vec![good; 11]));
    assert!(answer[0].starts_with(r#"{"success":false,"ret_msg":"args size >10""#));
}

#[test]
fn a_ping_is_answered_as_a_ping_and_ten_silent_minutes_end_the_connection() {
    let mut client = Client::open(Venue::BYBIT, "v5/public/spot", "");
    let pong = client.say(r#"{"op":"ping","req_id":"9"}"#);
    assert!(pong[0].starts_with(r#"{"success":true,"ret_msg":"pong","conn_id":""#));
    assert!(pong[0].ends_with(r#"","req_id":"9","op":"ping"}"#));
    assert!(client.wait(599_999).is_empty());
    assert!(client.wait(1)[0].starts_with("<close"));
}

#[test]
fn the_history_is_sixty_trades_and_no_more() {
    let client = Client::open(Venue::BYBIT, "v5/public/spot", "");
    let newest = client.newest("BTCUSDT");
    let page = client.json("v5/market/recent-trade?category=spot&symbol=BTCUSDT&limit=1000");
    let list = page["result"]["list"].as_array().unwrap();
    assert_eq!(list.len(), 60);
    assert_eq!(list[0]["execId"], newest.id.to_string());
    assert_eq!(list[0]["price"], newest.price.to_string());
    assert_eq!(list[59]["execId"], (newest.id - 59).to_string());
    let unknown = client.json("v5/market/recent-trade?category=spot&symbol=NOPE");
    assert_eq!(unknown["retCode"], 10_001);
    let spot = client.json("v5/market/instruments-info?category=spot&symbol=BTCUSDT");
    assert_eq!(spot["result"]["list"][0]["status"], "Trading");
    assert_eq!(client.json("v5/market/instruments-info?category=linear")["retCode"], 0);
    assert_eq!(client.json("v5/market/time")["result"]["timeSecond"], "1788335050");
}

#[test]
fn the_history_is_as_long_as_it_is_told_to_be_whatever_is_asked_for() {
    let client = Client::open(Venue::BYBIT, "v5/public/spot", "");
    let query = Query::parse("category=spot&symbol=BTCUSDT&limit=60");
    let path = ["v5", "market", "recent-trade"];
    let request = Request { path: &path, query: &query, now: client.now, history: Some(500) };
    let page = Bybit.rest(&client.market, &request);
    let page: Value = serde_json::from_str(&page.body).unwrap();
    let list = page["result"]["list"].as_array().unwrap();
    assert_eq!(list.len(), 500);
    assert_eq!(list[499]["execId"], (client.newest("BTCUSDT").id - 499).to_string());
}

#[test]
fn candles_are_newest_first_between_two_times() {
    let client = Client::open(Venue::BYBIT, "v5/public/spot", "");
    let minute = client.now.minute().as_millis();
    let url = "v5/market/kline?category=spot&symbol=BTCUSDT&interval=1";
    let page =
        client.json(&format!("{url}&start={}&end={}", minute - 60_000, client.now.as_millis()));
    let rows = page["result"]["list"].as_array().unwrap();
    let candle = client.listing("BTCUSDT").candle(client.now, client.now).unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (&rows[0][0], &rows[0][5]),
        (&minute.to_string().into(), &candle.volume.to_string().into())
    );
    assert_eq!(
        client.json(&format!("{url}&limit=3"))["result"]["list"].as_array().unwrap().len(),
        3
    );
    assert_eq!(
        client.json("v5/market/kline?category=spot&symbol=BTCUSDT&interval=7")["retCode"],
        10_001
    );
}
