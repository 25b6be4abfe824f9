use super::super::harness::{Client, START, numbers};
use super::*;

fn subscribe(symbols: &str, snapshot: bool) -> String {
    format!(
        r#"{{"method":"subscribe","params":{{"channel":"trade","symbol":{symbols},"snapshot":{snapshot}}},"req_id":1}}"#
    )
}

#[test]
fn a_subscription_is_acknowledged_per_symbol_and_replays_fifty_trades() {
    let mut client = Client::open(Venue::KRAKEN, "v2", "");
    let status = client.sent();
    assert!(
        status[0].starts_with(r#"{"channel":"status","type":"update","data":[{"version":"2.0.10""#)
    );
    assert!(numbers(&status, "connection_id")[0] > i64::MAX as u64, "as real ones are");
    let newest = client.newest("BTCUSD");
    let answer = client.say(&subscribe(r#"["BTC/USD","FOO/BAR","ETH/USD"]"#, true));
    assert_eq!(
        answer[0],
        format!(
            r#"{{"method":"subscribe","result":{{"channel":"trade","snapshot":true,"symbol":"BTC/USD"}},"success":true,"req_id":1,"time_in":"{START}","time_out":"{START}"}}"#
        )
    );
    assert!(
        answer[1]
            .starts_with(r#"{"channel":"trade","type":"snapshot","data":[{"symbol":"BTC/USD""#)
    );
    let ids = numbers(&answer[1..2], "trade_id");
    assert_eq!(ids, (newest.id - 49..=newest.id).collect::<Vec<_>>());
    assert_eq!(
        answer[2],
        format!(
            r#"{{"error":"Currency pair not supported FOO/BAR","method":"subscribe","success":false,"symbol":"FOO/BAR","req_id":1,"time_in":"{START}","time_out":"{START}"}}"#
        )
    );
    let updates = client.wait(500);
    let bitcoin: Vec<_> =
        updates.iter().filter(|frame| frame.contains("BTC/USD")).cloned().collect();
    assert_eq!(numbers(&bitcoin, "trade_id")[0], newest.id + 1, "the snapshot's end goes on");
}

#[test]
fn several_trades_share_a_message_and_numbers_keep_their_zeros() {
    let mut client = Client::open(Venue::KRAKEN, "v2", "");
    client.say(&subscribe(r#"["BTC/USD"]"#, false));
    let frames = client.wait(900);
    let Trade { id, price, quantity, side, at } = client.newest("BTCUSD");
    assert_eq!(frames.len(), 1);
    assert!(numbers(&frames, "trade_id").len() > 80);
    let listing = client.listing("BTCUSD");
    let kind = order_type(&listing, id);
    let last = format!(
        r#",{{"symbol":"BTC/USD","side":"{}","price":{price},"qty":{quantity},"ord_type":"{kind}","trade_id":{id},"timestamp":"{at}"}}]}}"#,
        side.as_str()
    );
    assert!(frames[0].ends_with(&last), "{} is not the end of {}", last, frames[0]);
    assert_eq!(quantity.scale(), 8, "0.00010900 has eight digits");
}

#[test]
fn a_heartbeat_comes_each_second_and_a_ping_is_answered() {
    let mut client = Client::open(Venue::KRAKEN, "v2", "");
    client.say(&subscribe(r#"["BTC/USD"]"#, false));
    assert_eq!(client.wait(1_000).last().unwrap(), r#"{"channel":"heartbeat"}"#);
    assert_ne!(client.wait(999).last().unwrap(), r#"{"channel":"heartbeat"}"#);
    let now = client.now;
    assert_eq!(
        client.say(r#"{"method":"ping","req_id":101}"#),
        [format!(r#"{{"method":"pong","req_id":101,"time_in":"{now}","time_out":"{now}"}}"#)]
    );
    assert!(client.say("{")[0].starts_with(r#"{"error":"Malformed request""#));
}

#[test]
fn who_follows_nothing_and_says_nothing_is_cut_after_a_minute() {
    let mut client = Client::open(Venue::KRAKEN, "v2", "");
    client.sent();
    assert!(client.wait(59_999).is_empty());
    assert_eq!(client.wait(1), ["<close 1000 Idle>"]);
}

#[test]
fn a_second_subscription_is_an_error_and_unsubscribing_ends_it() {
    let mut client = Client::open(Venue::KRAKEN, "v2", "");
    let request = subscribe(r#"["BTC/USD"]"#, false);
    client.say(&request);
    assert!(client.say(&request)[0].starts_with(r#"{"error":"Already subscribed""#));
    let ended = client.say(&request.replace(r#""subscribe""#, r#""unsubscribe""#));
    assert!(ended[0].contains(r#""success":true"#));
    assert!(client.wait(5_000).is_empty());
}

#[test]
fn the_history_is_paged_by_nanoseconds_and_loses_nothing() {
    let client = Client::open(Venue::KRAKEN, "v2", "");
    let newest = client.newest("BTCUSD").id;
    let listing = client.listing("BTCUSD");
    let first = listing.first_since(listing.at(newest - 500).unwrap());
    let mut since =
        (listing.at(first).unwrap().as_micros().cast_unsigned() * 1_000 - 1).to_string();
    let mut ids = Vec::new();
    loop {
        // Seven does not divide any order's length, so pages end inside of them.
        let page = client.json(&format!("0/public/Trades?pair=XBTUSD&count=7&since={since}"));
        let rows = page["result"]["XXBTZUSD"].as_array().unwrap();
        ids.extend(rows.iter().map(|row| row[6].as_u64().unwrap()));
        if rows.is_empty() {
            assert_eq!(page["result"]["last"], since.as_str(), "the cursor stays");
            break;
        }
        page["result"]["last"].as_str().unwrap().clone_into(&mut since);
    }
    assert_eq!(ids, (first..=newest).collect::<Vec<_>>());
}

#[test]
fn a_row_is_price_volume_time_side_type_and_id() {
    let client = Client::open(Venue::KRAKEN, "v2", "");
    let Trade { id, price, quantity, at, side } = client.newest("ETHUSD");
    let body = client.rest("0/public/Trades?pair=ETH/USD&count=1").body;
    let (seconds, part) = (at.as_micros() / SECOND_US, at.as_micros() % SECOND_US);
    let row = format!(
        r#"{{"error":[],"result":{{"XETHZUSD":[["{price}","{quantity}",{seconds}.{part:06}"#
    );
    // Below the microsecond there may be more, as much as a double holds.
    let rest = body.strip_prefix(&row).unwrap_or_else(|| panic!("{body}"));
    let side = if side == Side::Buy { r#","b""# } else { r#","s""# };
    assert!(rest.find(side).is_some_and(|digits| digits <= 1), "{body}");
    assert!(body.contains(&format!(r#","",{id}]],"last":""#)), "{body}");
    let unknown = client.rest("0/public/Trades?pair=NOPE");
    assert_eq!(unknown.body, r#"{"error":["EQuery:Unknown asset pair"]}"#);
}

#[test]
fn pairs_are_named_as_kraken_names_them() {
    let client = Client::open(Venue::KRAKEN, "v2", "");
    let pairs = client.json("0/public/AssetPairs?pair=DOGEUSD,SOLUSD");
    assert_eq!(pairs["result"]["XXDGZUSD"]["altname"], "XDGUSD");
    assert_eq!(pairs["result"]["SOLUSD"]["wsname"], "SOL/USD");
    assert_eq!(pairs["result"]["SOLUSD"]["status"], "online");
    assert_eq!(client.json("0/public/Time")["result"]["unixtime"], 1_788_335_050);
}

#[test]
fn the_cursor_is_finer_than_a_time_that_went_through_a_double() {
    assert_eq!(double(1_762_820_035_982_277_754).to_string(), "1762820035.9822779");
    assert_eq!(double(1_616_666_442_390_332_264).to_string(), "1616666442.3903322");
}

#[test]
fn candles_are_the_last_720_and_the_running_one_is_among_them() {
    let client = Client::open(Venue::KRAKEN, "v2", "");
    let minute = client.now.minute().as_millis() / 1_000;
    let since = minute - 120;
    let page = client.json(&format!("0/public/OHLC?pair=XBTUSD&interval=1&since={since}"));
    let rows = page["result"]["XXBTZUSD"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row[0].clone()).collect::<Vec<_>>(), [minute - 60, minute]);
    let candle = client.listing("BTCUSD").candle(client.now, client.now).unwrap();
    assert_eq!(rows[1][6], candle.volume.to_string());
    assert_eq!(rows[1][7], candle.trades);
    assert_eq!(page["result"]["last"], minute - 60);
    let all = client.json("0/public/OHLC?pair=DOGEUSD&since=0");
    assert_eq!(all["result"]["XXDGZUSD"].as_array().unwrap().len(), 720);
}
