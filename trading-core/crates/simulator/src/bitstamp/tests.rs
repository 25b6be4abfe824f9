use super::super::faults::{Action, Target};
use super::super::harness::{Client, START, numbers};
use super::*;

const SUBSCRIBE: &str = r#"{"event":"bts:subscribe","data":{"channel":"live_trades_btcusd"}}"#;

fn open() -> Client {
    Client::open(Venue::BITSTAMP, "", "")
}

fn ask(event: &str, channel: &str) -> String {
    format!(r#"{{"event":"{event}","data":{{"channel":"{channel}"}}}}"#)
}

#[test]
fn a_subscription_is_confirmed_and_each_trade_is_a_message() {
    let mut client = open();
    let newest = client.newest("BTCUSD");
    let confirmed =
        r#"{"event":"bts:subscription_succeeded","channel":"live_trades_btcusd","data":{}}"#;
    assert_eq!(client.say(SUBSCRIBE), [confirmed], "no snapshot");
    let frames = client.wait(1_000);
    let listing = client.listing("BTCUSD");
    let last = client.newest("BTCUSD");
    let issued: Vec<u64> = (newest.id + 1..=last.id).filter(|id| listing.is_issued(*id)).collect();
    assert_eq!(numbers(&frames, "id"), issued);
    assert!(issued.len() < usize::try_from(last.id - newest.id).unwrap(), "some are other pairs'");
    let Trade { id, price, quantity, side: taker, at } = last;
    let (buyer, seller) = orders(&listing, &last);
    let frame = format!(
        r#"{{"data":{{"id":{id},"timestamp":"{}","amount":{},"amount_str":"{quantity}","price":{},"price_str":"{price}","type":{},"microtimestamp":"{}","buy_order_id":{buyer},"sell_order_id":{seller}}},"channel":"live_trades_btcusd","event":"trade"}}"#,
        at.as_millis() / 1_000,
        quantity.normalize(),
        price.normalize(),
        side(taker),
        at.as_micros(),
    );
    assert_eq!(frames.last(), Some(&frame));
    assert_eq!(buyer > seller, taker == Side::Buy, "the taker's order is the later one");
    assert_eq!(quantity.scale(), 8);
    assert_eq!(client.say(SUBSCRIBE), [confirmed], "and again, without a trade twice");
    let more = numbers(&client.wait(1_000), "id");
    assert!(more.is_sorted() && more[0] > id);
}

#[test]
fn a_pair_that_does_not_exist_is_confirmed_and_silent() {
    let mut client = open();
    let answer = client.say(&ask("bts:subscribe", "live_trades_nopeusd"));
    assert!(answer[0].starts_with(r#"{"event":"bts:subscription_succeeded","#));
    assert!(client.wait(1_000).is_empty());
}

#[test]
fn what_is_no_channel_is_refused_and_the_connection_lives() {
    let mut client = open();
    for (text, words) in [
        ("no JSON", "Incorrect JSON format."),
        (r#"{"event":"bts:ping"}"#, "Bad subscription string."),
        (r#"{"event":"bts:subscribe","data":{}}"#, "Bad subscription string."),
        (&ask("bts:subscribe", "live_trades_BTC/USD"), "Invalid channel provided."),
    ] {
        let refused = format!(
            r#"{{"event":"bts:error","channel":"","data":{{"code":null,"message":"{words}"}}}}"#
        );
        assert_eq!(client.say(text), [refused], "{text}");
    }
    assert_eq!(client.say(SUBSCRIBE).len(), 1);
}

#[test]
fn a_message_of_more_than_512_bytes_or_a_channel_too_many_ends_the_connection() {
    let long = "x".repeat(512);
    assert_eq!(open().say(&long).len(), 1);
    assert_eq!(open().say(&format!("{long}x")), ["<close 1009 read limited at 513 bytes>"]);
    let mut client = open();
    for pair in 0..1_024 {
        assert_eq!(client.say(&ask("bts:subscribe", &format!("live_trades_p{pair}usd"))).len(), 1);
    }
    assert_eq!(client.say(SUBSCRIBE), ["<close 1000 >"]);
}

#[test]
fn an_unsubscribed_channel_is_silent() {
    let mut client = open();
    client.say(SUBSCRIBE);
    assert!(!client.wait(1_000).is_empty());
    let answer =
        r#"{"event":"bts:unsubscription_succeeded","channel":"live_trades_btcusd","data":{}}"#;
    assert_eq!(client.say(&ask("bts:unsubscribe", "live_trades_btcusd")), [answer]);
    assert!(client.wait(1_000).is_empty());
}

#[test]
fn heartbeats_are_answered_and_the_client_is_pinged() {
    let mut client = open();
    let beat = r#"{"event":"bts:heartbeat","channel":"","data":{"status":"success"}}"#;
    assert_eq!(client.say(r#"{"event":"bts:heartbeat"}"#), [beat]);
    assert!(client.wait(53_999).is_empty());
    assert_eq!(client.wait(1), ["<ping >"]);
    let days = 90 * 86_400_000;
    assert_eq!(client.wait(days - 54_001), ["<ping >"]);
    assert_eq!(client.wait(1), ["<close 1000 >"]);
}

#[test]
fn an_announced_cut_asks_for_a_reconnection() {
    let mut client = open();
    let notice = Action::Shutdown(Duration::from_secs(5));
    client.faults.act(&Target::default(), notice, client.now).unwrap();
    let asked = r#"{"event":"bts:request_reconnect","channel":"","data":""}"#;
    assert_eq!(client.wait(10), [asked]);
    assert!(client.wait(4_000).is_empty(), "once");
}

#[test]
fn the_history_is_a_minute_an_hour_or_a_day_newest_first() {
    let client = open();
    let url = "api/v2/transactions/btcusd";
    let listing = client.listing("BTCUSD");
    let page = |window: &str| {
        let page = client.json(&format!("{url}?time={window}"));
        page.as_array().unwrap().clone()
    };
    let minute = page("minute");
    let newest = client.newest("BTCUSD");
    let first = listing.first_since(client.now - MINUTE);
    assert_eq!(minute.len(), listing.trades(first..=newest.id).count());
    assert_eq!(minute[0]["tid"], newest.id.to_string());
    assert_eq!(minute[0]["price"], newest.price.to_string());
    assert_eq!(minute[0]["amount"], newest.quantity.to_string());
    assert_eq!(minute[0]["date"], (newest.at.as_millis() / 1_000).to_string());
    assert!(page("day").len() == TRADES_MAX);
    assert_eq!(client.rest(&format!("{url}?time=week")).status, 400);
    assert_eq!(client.rest("api/v2/transactions/nopeusd?time=hour").status, 404);
}

#[test]
fn candles_end_where_they_are_asked_to() {
    let client = open();
    let url = "api/v2/ohlc/btcusd?step=60";
    let minute = client.now.minute().as_millis() / 1_000;
    let page = client.json(&format!("{url}&limit=2&start={}&end={minute}", minute - 6_000));
    let rows = page["data"]["ohlc"].as_array().unwrap();
    let candle = client.listing("BTCUSD").candle(client.now, client.now).unwrap();
    assert_eq!(page["data"]["pair"], "BTC/USD");
    assert_eq!(rows.len(), 2, "the end is what counts");
    assert_eq!(rows[1]["timestamp"], minute.to_string());
    assert_eq!(rows[0]["timestamp"], (minute - 60).to_string());
    assert_eq!(rows[1]["volume"], candle.volume.to_string());
    assert_eq!(client.rest("api/v2/ohlc/btcusd?step=7&limit=1").status, 400);
    assert_eq!(client.rest(url).status, 400);
}

#[test]
fn pairs_and_tickers_are_listed() {
    let client = open();
    let pairs = client.json("api/v2/trading-pairs-info");
    let bitcoin = pairs.as_array().unwrap().iter().find(|it| it["name"] == "BTC/USD").unwrap();
    assert_eq!(
        (&bitcoin["url_symbol"], &bitcoin["trading"]),
        (&"btcusd".into(), &"Enabled".into())
    );
    let markets = client.json("api/v2/markets");
    assert_eq!(markets.as_array().unwrap().len(), pairs.as_array().unwrap().len());
    let ticker = client.json("api/v2/ticker/btcusd");
    let start = Timestamp::from_rfc3339(START).unwrap().as_millis() / 1_000;
    assert_eq!(ticker["timestamp"], start.to_string());
    assert_eq!(ticker["last"], client.newest("BTCUSD").price.to_string());
    assert_eq!(client.rest("api/v2/ticker/nopeusd").status, 404);
}
