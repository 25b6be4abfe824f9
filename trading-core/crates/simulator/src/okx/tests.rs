use super::super::harness::{Client, numbers};
use super::*;

fn subscribe(channel: &str, name: &str) -> String {
    format!(
        r#"{{"id":"1512","op":"subscribe","args":[{{"channel":"{channel}","instId":"{name}"}}]}}"#
    )
}

#[test]
fn trades_are_aggregated_and_their_counts_prove_that_none_is_missing() {
    let mut client = Client::open(Venue::OKX, "ws/v5/public", "");
    let newest = client.newest("BTCUSDT");
    let answer = client.say(&subscribe("trades", "BTC-USDT"));
    assert!(answer[0].starts_with(
        r#"{"id":"1512","event":"subscribe","arg":{"channel":"trades","instId":"BTC-USDT"},"connId":""#
    ));
    assert_eq!(numbers(&answer[1..], "tradeId"), [newest.id], "the last trade is pushed again");
    let frames = client.wait(1_000);
    let (ids, counts) = (numbers(&frames, "tradeId"), numbers(&frames, "count"));
    let mut before = newest.id;
    for (id, count) in ids.iter().zip(&counts) {
        assert_eq!(id - count, before);
        before = *id;
    }
    assert!(counts.iter().any(|count| *count > 1), "some are sums");
    assert_eq!(before, client.newest("BTCUSDT").id);
    let listing = client.listing("BTCUSDT");
    let last = listing.order(before).unwrap();
    let Trade { price, side, at, .. } = client.newest("BTCUSDT");
    let sum = listing.traded(last.first, last.last);
    assert!(frames.last().unwrap().starts_with(&format!(
        r#"{{"arg":{{"channel":"trades","instId":"BTC-USDT"}},"data":[{{"instId":"BTC-USDT","tradeId":"{before}","px":"{price}","sz":"{sum}","side":"{}","ts":"{}","count":"{}","source":"0","seqId":"#,
        side.as_str(),
        at.as_millis(),
        last.last + 1 - last.first,
    )));
}

#[test]
fn all_trades_come_one_by_one_on_the_business_socket() {
    let mut client = Client::open(Venue::OKX, "ws/v5/business", "");
    let newest = client.newest("BTCUSDT").id;
    let answer = client.say(&subscribe("trades-all", "BTC-USDT"));
    assert_eq!(numbers(&answer[1..], "tradeId"), [newest]);
    let ids = numbers(&client.wait(1_000), "tradeId");
    assert_eq!(ids, (newest + 1..=client.newest("BTCUSDT").id).collect::<Vec<_>>());
}

#[test]
fn a_wrong_channel_or_instrument_is_an_error_of_its_own() {
    let mut client = Client::open(Venue::OKX, "ws/v5/public", "");
    for (channel, name) in
        [("trades", "FOO-USDT"), ("trades-all", "BTC-USDT"), ("trades", "BTCUSDT")]
    {
        let answer = client.say(&subscribe(channel, name));
        assert_eq!(answer.len(), 1);
        let start = format!(
            r#"{{"event":"error","code":"60018","msg":"Wrong URL or channel:{channel},instId:{name} doesn't exist."#
        );
        assert!(answer[0].starts_with(&start), "{}", answer[0]);
    }
    assert!(
        client.say("{}")[0]
            .starts_with(r#"{"event":"error","code":"60012","msg":"Invalid request: {}""#)
    );
}

#[test]
fn a_bare_ping_keeps_a_silent_connection_for_thirty_seconds() {
    let mut client = Client::open(Venue::OKX, "ws/v5/public", "");
    client.wait(29_000);
    assert_eq!(client.say("ping"), ["pong"]);
    assert!(client.wait(29_999).is_empty());
    assert_eq!(client.wait(1), ["<close 4004 No data received in 30s.>"]);
}

#[test]
fn pushes_keep_the_connection_too_and_requests_are_limited() {
    let mut client = Client::open(Venue::OKX, "ws/v5/public", "");
    let request = subscribe("trades", "BTC-USDT");
    client.say(&request);
    assert!(!client.wait(31_000).iter().any(|frame| frame.starts_with("<close")));
    for _ in 1..REQUESTS_PER_HOUR {
        client.say(&request);
    }
    assert!(client.say(&request)[0].contains(r#""code":"60014""#));
    assert_eq!(client.say("ping"), ["pong"], "pings are not counted");
}

#[test]
fn the_history_pages_backwards_by_id_and_by_time() {
    let client = Client::open(Venue::OKX, "ws/v5/public", "");
    let newest = client.newest("BTCUSDT");
    let ids = |query: &str| -> Vec<u64> {
        let page = client.json(&format!("api/v5/market/history-trades?instId=BTC-USDT&{query}"));
        let data = page["data"].as_array().unwrap().iter();
        data.map(|trade| trade["tradeId"].as_str().unwrap().parse().unwrap()).collect()
    };
    let page = ids(&format!("type=1&limit=100&after={}", newest.id - 10));
    assert_eq!(page, (newest.id - 110..newest.id - 10).rev().collect::<Vec<_>>());
    assert_eq!(ids(&format!("before={}", newest.id - 2)), [newest.id, newest.id - 1]);
    let listing = client.listing("BTCUSDT");
    let by_time = ids(&format!("type=2&after={}", newest.at.as_millis()));
    assert_eq!(by_time[0], listing.first_since(newest.at) - 1);
    assert_eq!(
        client.rest("api/v5/market/history-trades?instId=FOO-USDT").body,
        r#"{"code":"51001","msg":"Instrument ID doesn't exist","data":[]}"#
    );
    assert_eq!(
        client.json("api/v5/market/trades?instId=BTC-USDT&limit=500")["data"]
            .as_array()
            .unwrap()
            .len(),
        500
    );
}

#[test]
fn instruments_of_other_kinds_are_none() {
    let client = Client::open(Venue::OKX, "ws/v5/public", "");
    let spot = client.json("api/v5/public/instruments?instType=SPOT&instId=BTC-USDT");
    assert_eq!(spot["data"][0]["tickSz"], "0.1");
    let swaps = client.json("api/v5/public/instruments?instType=SWAP");
    assert!(swaps["data"].as_array().unwrap().is_empty());
    assert_eq!(
        client.json("api/v5/public/time")["data"][0]["ts"],
        client.now.as_millis().to_string()
    );
}

#[test]
fn candles_are_newest_first_between_two_times() {
    let client = Client::open(Venue::OKX, "ws/v5/public", "");
    let minute = client.now.minute();
    let url = "api/v5/market/history-candles?instId=BTC-USDT&bar=1m";
    let start = minute.as_millis() - 60_000;
    let between = format!("{url}&before={}&after={}", start - 1, client.now.as_millis());
    let page = client.json(&between);
    let rows = page["data"].as_array().unwrap();
    let candle = client.listing("BTCUSDT").candle(client.now, client.now).unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (&rows[0][0], &rows[1][0]),
        (&minute.as_millis().to_string().into(), &start.to_string().into())
    );
    assert_eq!(rows[0][5], candle.volume.to_string());
    assert_eq!(
        (&rows[0][8], &rows[1][8]),
        (&"0".into(), &"1".into()),
        "the running minute is told apart"
    );
    assert_eq!(client.json(url)["data"].as_array().unwrap().len(), 100);
}
