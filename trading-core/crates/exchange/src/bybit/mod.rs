//! Bybit spot: the `publicTrade` topics of WebSocket v5.
//!
//! Up to 1024 trades per frame, oldest first. Each frame is labelled a snapshot, yet nothing is replayed on
//! subscribing. Ids are unique and prove no gap: a break of the connection is a gap in time.
//!
//! Protocol: <https://bybit-exchange.github.io/docs/v5/websocket/public/trade>, July 2026.

mod history;

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::frame::{Text, amount, named_in, read_batch};
use super::history::History;
use super::{DecodeError, Endpoints, Exchange, IdRule, Keepalive, Limits, Message, Subscribed};
use domain::{Side, Source, Symbol, Tick, Timestamp, TradeId};

/// How the topics begin that we subscribe.
const TRADES: &str = "publicTrade.";

/// How the documented topics begin that are not ours.
const OTHER_TOPICS: [&str; 11] = [
    "adlAlert.",
    "allLiquidation.",
    "insurance.",
    "kline.",
    "kline_lt.",
    "liquidation.",
    "lt.",
    "orderbook.",
    "priceLimit.",
    "tickers.",
    "tickers_lt.",
];

/// Bybit spot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bybit;

impl Exchange for Bybit {
    fn name(&self) -> &'static str {
        "bybit"
    }

    fn usual_quote(&self) -> &'static str {
        "USDT"
    }

    fn endpoints(&self) -> Endpoints {
        Endpoints { ws_url: "wss://stream.bybit.com", rest_url: "https://api.bybit.com" }
    }

    fn limits(&self) -> Limits {
        Limits {
            // Documented: 21,000 characters of topics, which 400 stay under. Ours: all are subscribed within
            // 20 s.
            symbols_per_connection: 200,
            // Not documented; ours.
            send_interval: Duration::from_millis(100),
            // Documented: 500 connections in 5 minutes from one address.
            connect_interval: Duration::from_millis(600),
            connection_age: None,
            // The answers to our pings come every 20 s: two are missing.
            silence: Duration::from_secs(45),
            // The busiest of any few symbols trades many times a minute.
            idle: Duration::from_mins(2),
        }
    }

    fn ids(&self) -> IdRule {
        IdRule::Unique
    }

    fn venue_symbol(&self, symbol: &Symbol) -> String {
        symbol.as_str().to_owned()
    }

    fn connect_url(&self, base: &str) -> String {
        format!("{base}/v5/public/spot")
    }

    /// One request for each symbol, named by it. Up to ten fit in one, but a request with one topic that is
    /// wrong or already there is refused as a whole (ccxt/ccxt#30284), and its answer names none.
    fn subscribe(&self, venue_symbols: &[&str]) -> Vec<String> {
        requests("subscribe", venue_symbols)
    }

    fn unsubscribe(&self, venue_symbols: &[&str]) -> Vec<String> {
        requests("unsubscribe", venue_symbols)
    }

    /// Documented: every 20 s.
    fn keepalive(&self) -> Option<Keepalive> {
        Some(Keepalive { every: Duration::from_secs(20), text: r#"{"op":"ping"}"# })
    }

    fn history(&self) -> &'static dyn History {
        &Bybit
    }

    fn decode(
        &self,
        frame: &str,
        symbols: &Subscribed,
        received_at: Timestamp,
        ticks: &mut Vec<Tick>,
    ) -> Result<Message, DecodeError> {
        let is_trades = |topic: &Text<'_>| topic.starts_with(TRADES);
        let read = |trade: Trade<'_>| trade.into_tick(symbols, received_at);
        if read_batch(frame, "topic", is_trades, read, ticks)? {
            Ok(Message::Trades)
        } else {
            read_control(frame, symbols)
        }
    }
}

fn requests(op: &str, venue_symbols: &[&str]) -> Vec<String> {
    venue_symbols
        .iter()
        .map(|symbol| {
            let topics = [format!("{TRADES}{symbol}")];
            json!({ "req_id": symbol, "op": op, "args": topics }).to_string()
        })
        .collect()
}

#[derive(Deserialize)]
struct Trade<'a> {
    #[serde(borrow, rename = "i")]
    id: Text<'a>,
    /// Milliseconds.
    #[serde(rename = "T")]
    traded_at: i64,
    #[serde(borrow, rename = "p")]
    price: Text<'a>,
    /// Units of base, on spot.
    #[serde(borrow, rename = "v")]
    size: Text<'a>,
    /// The taker's.
    #[serde(borrow, rename = "S")]
    side: Text<'a>,
    #[serde(borrow, rename = "s")]
    symbol: Text<'a>,
}

impl Trade<'_> {
    fn into_tick(self, symbols: &Subscribed, received_at: Timestamp) -> Result<Tick, DecodeError> {
        Ok(Tick {
            instrument: symbols.find(&self.symbol)?,
            trade_id: TradeId::from_text(&self.id),
            price: amount("p", &self.price)?,
            quantity: amount("v", &self.size)?,
            side: taker("S", &self.side)?,
            source: Source::Live,
            exchange_at: Timestamp::from_millis(self.traded_at)?,
            received_at,
        })
    }
}

/// The taker's side, as both interfaces spell it.
fn taker(field: &'static str, text: &str) -> Result<Side, DecodeError> {
    match text {
        "Buy" => Ok(Side::Buy),
        "Sell" => Ok(Side::Sell),
        other => Err(DecodeError::unknown_value(field, other)),
    }
}

#[derive(Deserialize)]
struct Control<'a> {
    #[serde(borrow)]
    topic: Option<Text<'a>>,
    #[serde(borrow)]
    op: Option<Text<'a>>,
    success: Option<bool>,
    #[serde(borrow)]
    ret_msg: Option<Text<'a>>,
    #[serde(borrow)]
    req_id: Option<Text<'a>>,
}

fn read_control(frame: &str, symbols: &Subscribed) -> Result<Message, DecodeError> {
    let control: Control<'_> = serde_json::from_str(frame)?;
    let asked_for = control.req_id.and_then(|symbol| symbols.find(&symbol).ok());
    match (control.topic.as_deref(), control.op.as_deref(), control.success) {
        (Some(topic), ..) if OTHER_TOPICS.iter().any(|begin| topic.starts_with(begin)) => {
            Ok(Message::Other)
        }
        // The answer to a ping says `ping`, except on options, where it says `pong` without `success`.
        (None, Some("ping" | "pong" | "unsubscribe"), _) => Ok(Message::Other),
        (None, Some("subscribe"), Some(true)) => {
            Ok(Message::Acknowledged(asked_for.into_iter().collect()))
        }
        // A request that was not even read comes back without its `op`.
        (None, Some("subscribe" | "") | None, Some(false)) => {
            let words = control.ret_msg.as_deref().filter(|words| !words.is_empty());
            let words = words.unwrap_or("no reason given");
            Ok(Message::refused(asked_for.or_else(|| named_in(words, symbols)), words))
        }
        _ => Err(DecodeError::UnknownMessage),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Trade as Told};
    use super::*;

    const PUSH: &str = r#"{"topic":"publicTrade.BTCUSDT","ts":1790000000120,"type":"snapshot","data":[{"i":"2290000001300000001","T":1790000000118,"p":"64000.10","v":"0.001200","S":"Sell","seq":5,"s":"BTCUSDT","BT":false,"RPI":false},{"i":"2290000001300000002","T":1790000000119,"p":"64000.20","v":"1","S":"Buy","seq":5,"s":"BTCUSDT","BT":false,"RPI":false}]}"#;
    const ACK: &str = r#"{"success":true,"ret_msg":"subscribe","conn_id":"c-1","req_id":"BTCUSDT","op":"subscribe"}"#;
    const REFUSED: &str = r#"{"success":false,"ret_msg":"error:handler not found,topic:publicTrade.ETHUSDT","conn_id":"c-1","req_id":"","op":"subscribe"}"#;
    const PONG: &str = r#"{"success":true,"ret_msg":"pong","conn_id":"c-1","op":"ping"}"#;

    fn write(trades: &[Told]) -> Vec<String> {
        let element = |trade: &Told| {
            let side = if trade.side == Side::Buy { "Buy" } else { "Sell" };
            let at = trade.at.as_millis();
            let Told { symbol, id, price, quantity, .. } = trade;
            format!(
                r#"{{"i":"{id}","T":{at},"p":"{price}","v":"{quantity}","S":"{side}","seq":1,"s":"{symbol}","BT":false,"RPI":false}}"#
            )
        };
        let elements: Vec<String> = trades.iter().map(element).collect();
        vec![format!(
            r#"{{"topic":"publicTrade.BTCUSDT","ts":1,"type":"snapshot","data":[{}]}}"#,
            elements.join(",")
        )]
    }

    #[test]
    fn every_trade_of_a_frame_is_read_in_its_order() {
        let (answer, ticks) = testing::decode(&Bybit, PUSH);
        assert_eq!(answer.unwrap(), Message::Trades);
        assert_eq!(
            ticks[0],
            Tick {
                instrument: testing::instrument(&Bybit, "BTCUSDT"),
                trade_id: TradeId::Number(2_290_000_001_300_000_001),
                price: testing::decimal("64000.10"),
                quantity: testing::decimal("0.001200"),
                side: Side::Sell,
                source: Source::Live,
                exchange_at: Timestamp::from_millis(1_790_000_000_118).unwrap(),
                received_at: testing::received_at(),
            }
        );
        assert_eq!(ticks[0].quantity.to_string(), "0.001200");
        assert_eq!((ticks.len(), ticks[1].side), (2, Side::Buy));
    }

    #[test]
    fn an_id_that_is_no_number_is_kept_as_it_came() {
        let frame = PUSH.replace("2290000001300000002", "20f43950-d8dd-5b31-9112-a178eb6023af");
        let (answer, ticks) = testing::decode(&Bybit, &frame);
        assert_eq!(answer.unwrap(), Message::Trades);
        assert_eq!(ticks[1].trade_id.to_string(), "20f43950-d8dd-5b31-9112-a178eb6023af");
    }

    #[test]
    fn one_wrong_trade_costs_only_itself() {
        for (right, wrong) in
            [(r#""Sell""#, r#""Cross""#), ("64000.10", "x"), (r#""v":"0.001200""#, r#""v":null"#)]
        {
            let (answer, ticks) = testing::decode(&Bybit, &PUSH.replace(right, wrong));
            assert!(answer.is_err(), "{wrong}");
            assert_eq!(ticks.len(), 1, "{wrong}");
            assert_eq!(ticks[0].price, testing::decimal("64000.20"));
        }
    }

    #[test]
    fn an_answer_confirms_or_refuses_the_symbol_that_names_the_request() {
        let message = |frame: &str| testing::decode_message(&Bybit, frame);
        let bitcoin = testing::instrument(&Bybit, "BTCUSDT");
        assert_eq!(message(ACK), Message::Acknowledged(vec![bitcoin]));
        let unnamed = ACK.replace(r#""req_id":"BTCUSDT""#, r#""req_id":"""#);
        assert_eq!(message(&unnamed), Message::Acknowledged(vec![]));
        let reason = "error:handler not found,topic:publicTrade.ETHUSDT".to_owned();
        let ether = Some(testing::instrument(&Bybit, "ETHUSDT"));
        assert_eq!(message(REFUSED), Message::Refused { instrument: ether, reason });
        assert_eq!(
            message(r#"{"success":false,"conn_id":"","op":""}"#),
            Message::Refused { instrument: None, reason: "no reason given".to_owned() }
        );
    }

    #[test]
    fn other_documented_messages_are_no_trades() {
        for frame in [
            PONG,
            r#"{"args":["1790000000119"],"op":"pong"}"#,
            r#"{"topic":"orderbook.1.BTCUSDT","type":"delta","ts":1,"data":{"s":"BTCUSDT"}}"#,
            r#"{"topic":"tickers.BTCUSDT","type":"snapshot","ts":1,"data":{"symbol":"BTCUSDT"}}"#,
        ] {
            assert_eq!(testing::decode_message(&Bybit, frame), Message::Other, "{frame}");
        }
    }

    #[test]
    fn what_is_not_understood_says_why() {
        let error = |frame: &str| testing::decode_error(&Bybit, frame);
        assert!(matches!(
            error(r#"{"topic":"news.BTCUSDT","data":[]}"#),
            DecodeError::UnknownMessage
        ));
        assert!(matches!(error(r#"{"op":"auth","success":true}"#), DecodeError::UnknownMessage));
        assert!(matches!(
            error(r#"{"topic":"publicTrade.BTCUSDT","data":{}}"#),
            DecodeError::Json(_)
        ));
        assert!(matches!(error("true"), DecodeError::Json(_)));
        assert!(matches!(
            error(&PUSH.replace("BTCUSDT", "FOOUSDT")),
            DecodeError::UnknownSymbol(_)
        ));
    }

    #[test]
    fn each_symbol_is_a_request_of_its_own() {
        assert_eq!(
            Bybit.subscribe(&["BTCUSDT", "ETHUSDT"]),
            [
                r#"{"args":["publicTrade.BTCUSDT"],"op":"subscribe","req_id":"BTCUSDT"}"#,
                r#"{"args":["publicTrade.ETHUSDT"],"op":"subscribe","req_id":"ETHUSDT"}"#,
            ]
        );
    }

    #[test]
    fn the_answer_to_unsubscribing_confirms_nothing() {
        assert_eq!(
            Bybit.unsubscribe(&["BTCUSDT"]),
            [r#"{"args":["publicTrade.BTCUSDT"],"op":"unsubscribe","req_id":"BTCUSDT"}"#]
        );
        for answer in [ACK, REFUSED] {
            let answer = answer.replace(r#""op":"subscribe""#, r#""op":"unsubscribe""#);
            assert_eq!(testing::decode_message(&Bybit, &answer), Message::Other);
        }
    }

    #[test]
    fn prop_a_trade_is_read_as_it_was_told() {
        testing::prop_a_trade_is_read_as_it_was_told(&Bybit, false, write);
    }

    #[test]
    fn prop_a_number_is_exact_or_refused() {
        testing::prop_a_number_is_exact_or_refused(&Bybit, write);
    }

    #[test]
    fn prop_any_text_is_answered() {
        testing::prop_any_text_is_answered(&Bybit, &[PUSH, ACK, REFUSED, PONG]);
    }
}
