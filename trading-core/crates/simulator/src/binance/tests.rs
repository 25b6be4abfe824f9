use super::super::harness::{Client, numbers};
use super::*;

const SUBSCRIBE: &str = r#"{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}"#;

#[test]
fn a_subscription_is_acknowledged_and_carries_every_trade_from_then_on() {
    let mut client = Client::open(Venue::BINANCE, "ws", "");
    let before = client.newest("BTCUSDT");
    assert_eq!(client.say(SUBSCRIBE), [r#"{"result":null,"id":1}"#], "and no snapshot");
    let frames = client.wait(1_000);
    let after = client.newest("BTCUSDT");
    let expected: Vec<u64> = (before.id + 1..=after.id).collect();
    assert_eq!(numbers(&frames, "t"), expected);
    assert!(expected.len() > 90, "{}", expected.len());
    let Trade { id, price, quantity, side, at } = after;
    assert_eq!(
        frames.last().unwrap(),
        &format!(
            r#"{{"e":"trade","E":{},"s":"BTCUSDT","t":{id},"p":"{price}","q":"{quantity}","T":{},"m":{},"M":true}}"#,
            client.now.as_millis(),
            at.as_millis(),
            side == Side::Sell,
        )
    );
    assert_eq!(price.scale(), 8, "eight digits, zeros included");
    assert_eq!(
        client.say(r#"{"method":"UNSUBSCRIBE","params":["btcusdt@trade"],"id":null}"#),
        [r#"{"result":null,"id":null}"#]
    );
    assert!(client.wait(1_000).is_empty());
}

#[test]
fn combined_streams_are_wrapped_and_named_in_the_url() {
    let mut client = Client::open(
        Venue::BINANCE,
        "stream",
        "streams=btcusdt@trade/ethusdt@aggTrade&timeUnit=MICROSECOND",
    );
    let frames = client.wait(500);
    let trade = frames.iter().find(|frame| frame.contains(r#""e":"trade""#)).unwrap();
    let start = format!(
        r#"{{"stream":"btcusdt@trade","data":{{"e":"trade","E":{},"#,
        client.now.as_micros()
    );
    assert!(trade.starts_with(&start) && trade.ends_with(r#""M":true}}"#), "{trade}");
    let (first, last) = (numbers(&frames, "f"), numbers(&frames, "l"));
    assert!(first.len() > 10);
    assert!(first[1..].iter().zip(&last).all(|(first, last)| *first == last + 1));
    let aggregates = numbers(&frames, "a");
    assert!(aggregates.windows(2).all(|pair| pair[1] == pair[0] + 1));
    assert_eq!(
        client.say(r#"{"method":"LIST_SUBSCRIPTIONS","id":"x"}"#),
        [r#"{"result":["btcusdt@trade","ethusdt@aggTrade"],"id":"x"}"#]
    );
}

#[test]
fn what_does_not_exist_is_acknowledged_and_silent_and_what_is_no_request_is_an_error() {
    let mut client = Client::open(Venue::BINANCE, "ws/1", "");
    let answer =
        client.say(r#"{"method":"SUBSCRIBE","params":["nonsense@trade","BTCUSDT@trade"],"id":7}"#);
    assert_eq!(answer, [r#"{"result":null,"id":7}"#]);
    assert!(client.wait(1_000).is_empty());
    assert!(client.say("{").concat().starts_with(r#"{"code":3,"msg":"Invalid JSON:"#));
    let answer = client.say(r#"{"method":"SING","id":2}"#).concat();
    assert!(answer.starts_with(r#"{"code":2,"msg":"Invalid request:"#), "{answer}");
}

#[test]
fn more_than_five_messages_in_a_second_end_the_connection() {
    let mut client = Client::open(Venue::BINANCE, "ws", "");
    for _ in 0..5 {
        assert_eq!(client.say(SUBSCRIBE).len(), 1);
    }
    assert_eq!(client.say(SUBSCRIBE), ["<close 1008 Too many requests>"]);
}

#[test]
fn a_ping_comes_every_twenty_seconds_and_must_be_answered_within_a_minute() {
    let mut client = Client::open(Venue::BINANCE, "ws", "");
    assert!(client.wait(19_999).is_empty());
    assert_eq!(client.wait(1), [format!("<ping {}>", client.now.as_millis())]);
    client.pong();
    client.wait(20_000);
    assert_eq!(client.wait(59_999).len(), 1, "the next ping");
    assert_eq!(client.wait(1), ["<close 1008 Pong timeout>"]);
}

#[test]
fn a_connection_lives_a_day_and_is_told_before_it_ends() {
    let mut client = Client::open(Venue::BINANCE, "stream", "");
    let notice = client.wait(24 * 3_600_000 - 60_000);
    assert!(
        notice[0].starts_with(r#"{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":"#)
    );
    client.pong();
    assert_eq!(client.wait(60_000)[0], "<close 1001 24 hours are over>");
}

#[test]
fn the_history_is_paged_by_id_and_equals_the_market() {
    let client = Client::open(Venue::BINANCE, "ws", "");
    let newest = client.newest("BTCUSDT");
    let from = newest.id - 2_499;
    let mut next = from;
    let mut prices = Vec::new();
    while next <= newest.id {
        let page = client
            .json(&format!("api/v3/historicalTrades?symbol=BTCUSDT&limit=1000&fromId={next}"));
        let page = page.as_array().unwrap();
        assert_eq!(page[0]["id"], next);
        prices.extend(page.iter().map(|trade| trade["price"].as_str().unwrap().to_owned()));
        next += page.len() as u64;
    }
    let listing = client.listing("BTCUSDT");
    let truth: Vec<String> =
        (from..=newest.id).map(|id| listing.trade(id).unwrap().price.to_string()).collect();
    assert_eq!(prices, truth);
    let beyond = format!("api/v3/historicalTrades?symbol=BTCUSDT&fromId={}", newest.id + 1);
    assert_eq!(client.rest(&beyond).body, "[]");
    assert_eq!(client.json("api/v3/trades?symbol=BTCUSDT").as_array().unwrap().len(), 500);
}

#[test]
fn aggregates_are_found_by_number_and_by_time() {
    let client = Client::open(Venue::BINANCE, "ws", "");
    let newest = client.json("api/v3/aggTrades?symbol=ETHUSDT&limit=3");
    let (number, time) = (newest[0]["a"].as_u64().unwrap(), newest[0]["T"].as_u64().unwrap());
    let by_number = format!("api/v3/aggTrades?symbol=ETHUSDT&limit=3&fromId={number}");
    assert_eq!(client.json(&by_number), newest);
    let by_time =
        client.json(&format!("api/v3/aggTrades?symbol=ETHUSDT&startTime={time}&endTime={time}"));
    assert!(by_time.as_array().unwrap().iter().all(|trade| trade["T"] == time));
    assert_eq!(by_time[0]["a"].as_u64().unwrap(), number);
}

#[test]
fn unknown_symbols_are_refused_and_known_ones_are_listed() {
    let client = Client::open(Venue::BINANCE, "ws", "");
    for path in ["api/v3/trades?symbol=NOPE", "api/v3/exchangeInfo?symbol=NOPE"] {
        let reply = client.rest(path);
        assert_eq!(
            (reply.status, &*reply.body),
            (400, r#"{"code":-1121,"msg":"Invalid symbol."}"#)
        );
    }
    assert_eq!(client.rest("api/v3/trades").status, 400);
    let one = client.json("api/v3/exchangeInfo?symbol=BTCUSDT");
    assert_eq!(one["symbols"][0]["filters"][0]["tickSize"], "0.01000000");
    assert!(client.json("api/v3/exchangeInfo")["symbols"].as_array().unwrap().len() > 50);
    assert_eq!(client.json("api/v3/time")["serverTime"], client.now.as_millis());
}

#[test]
fn candles_are_the_first_ones_from_a_time_or_the_newest() {
    let client = Client::open(Venue::BINANCE, "ws", "");
    let minute = client.now.minute();
    let start = minute.plus_micros(-119_000_000).as_millis();
    let url = "api/v3/klines?symbol=BTCUSDT&interval=1m";
    let page = client.json(&format!("{url}&startTime={start}&endTime={}", client.now.as_millis()));
    let rows = page.as_array().unwrap();
    let opened: Vec<_> = rows.iter().map(|row| row[0].as_i64().unwrap()).collect();
    assert_eq!(
        opened,
        [minute.as_millis() - 60_000, minute.as_millis()],
        "it began after the start"
    );
    let candle = client.listing("BTCUSDT").candle(client.now, client.now).unwrap();
    assert_eq!(
        (&rows[1][2], &rows[1][5]),
        (&candle.high.to_string().into(), &candle.volume.to_string().into())
    );
    assert_eq!(rows[1][8], candle.trades);
    let first = client.json(&format!("{url}&startTime={start}&limit=1"));
    assert_eq!(first[0][0], opened[0]);
    let newest = client.json(&format!("{url}&limit=3"));
    assert_eq!((newest.as_array().unwrap().len(), &newest[2][0]), (3, &rows[1][0]));
    assert_eq!(client.rest("api/v3/klines?symbol=BTCUSDT&interval=2m").status, 400);
}
