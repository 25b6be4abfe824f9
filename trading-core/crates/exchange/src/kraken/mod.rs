//! Kraken spot: the `trade` channel of WebSocket v2.
//!
//! Several trades per frame, for one symbol or more. On subscribing, a snapshot repeats the last 50 trades of each
//! symbol, which covers short reconnects at no cost: what is older than a day is left out here, and what was seen
//! before ends in the feed's sequence, like any repeat. Ids count the trades of a symbol without a hole. Prices and
//! quantities are JSON numbers whose trailing zeros matter, so their text is read, never a float.
//!
//! Protocol: <https://docs.kraken.com/api/docs/websocket-v2/trade>, September 2026.

mod history;

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::frame::{Text, amount, is_history, lists, named_in, oldest_first, read_batch, side};
use super::history::History;
use super::{DecodeError, Endpoints, Exchange, IdRule, Keepalive, Limits, Message, Subscribed};
use domain::{Source, Symbol, Tick, Timestamp, TradeId};

/// Symbols in one subscribe request, and their bytes. Not documented; ours, so that a message stays under 4 KiB.
const SYMBOLS_PER_MESSAGE: usize = 100;
const SYMBOL_BYTES_PER_MESSAGE: usize = 3_900;
/// Bytes that a symbol takes beside its name: two quotation marks and a comma.
const SYMBOL_BYTES_MORE: usize = 3;

/// Kraken spot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kraken;

impl Exchange for Kraken {
    fn name(&self) -> &'static str {
        "kraken"
    }

    fn usual_quote(&self) -> &'static str {
        "USD"
    }

    fn has_small_letters(&self) -> bool {
        true
    }

    fn endpoints(&self) -> Endpoints {
        Endpoints { ws_url: "wss://ws.kraken.com", rest_url: "https://api.kraken.com" }
    }

    fn limits(&self) -> Limits {
        Limits {
            // Not documented; ours.
            symbols_per_connection: 200,
            // The limit is said to be dynamic and has no number; ours.
            send_interval: Duration::from_millis(250),
            // About 150 attempts in 10 minutes from one address (its proxy's limit).
            connect_interval: Duration::from_secs(4),
            connection_age: None,
            // A heartbeat each second once subscribed: fifteen are missing.
            silence: Duration::from_secs(15),
            // The busiest of any few symbols trades every minute.
            idle: Duration::from_mins(2),
        }
    }

    fn ids(&self) -> IdRule {
        IdRule::Consecutive
    }

    /// v2 spells bitcoin and dogecoin as the world does, not as its older interfaces do.
    fn venue_symbol(&self, symbol: &Symbol) -> String {
        format!("{}/{}", current(symbol.base()), current(symbol.quote()))
    }

    fn connect_url(&self, base: &str) -> String {
        format!("{base}/v2")
    }

    fn subscribe(&self, venue_symbols: &[&str]) -> Vec<String> {
        messages(venue_symbols)
            .into_iter()
            .zip(1_u32..)
            .map(|(symbols, id)| {
                // The default for `snapshot` differs between the documentation and what was seen.
                let params = json!({ "channel": "trade", "symbol": symbols, "snapshot": true });
                json!({ "method": "subscribe", "params": params, "req_id": id }).to_string()
            })
            .collect()
    }

    fn unsubscribe(&self, venue_symbols: &[&str]) -> Vec<String> {
        let message = |symbols: &[&str]| {
            let params = json!({ "channel": "trade", "symbol": symbols });
            json!({ "method": "unsubscribe", "params": params }).to_string()
        };
        messages(venue_symbols).into_iter().map(message).collect()
    }

    /// A connection without a confirmed subscription has no heartbeat and is closed after about a minute.
    fn keepalive(&self) -> Option<Keepalive> {
        Some(Keepalive { every: Duration::from_secs(30), text: r#"{"method":"ping"}"# })
    }

    fn history(&self) -> &'static dyn History {
        &Kraken
    }

    fn decode(
        &self,
        frame: &str,
        symbols: &Subscribed,
        received_at: Timestamp,
        ticks: &mut Vec<Tick>,
    ) -> Result<Message, DecodeError> {
        let start = ticks.len();
        let is_trades = |channel: &Text<'_>| &**channel == "trade";
        let read = |trade: Trade<'_>| trade.into_tick(symbols, received_at);
        let batch = read_batch(frame, "channel", is_trades, read, ticks);
        oldest_first(ticks, start);
        let told = ticks.get(start..).unwrap_or_default();
        if told.iter().any(is_history) && frame.contains(SNAPSHOT) {
            let recent = told.iter().filter(|tick| !is_history(tick)).cloned().collect::<Vec<_>>();
            ticks.truncate(start);
            ticks.extend(recent);
        }
        if batch? { Ok(Message::Trades) } else { read_control(frame, symbols) }
    }
}

fn messages<'a, 's>(symbols: &'a [&'s str]) -> Vec<&'a [&'s str]> {
    lists(symbols, SYMBOLS_PER_MESSAGE, SYMBOL_BYTES_PER_MESSAGE, SYMBOL_BYTES_MORE)
}

/// A currency as v2 spells it.
fn current(currency: &str) -> &str {
    match currency {
        "XBT" => "BTC",
        "XDG" => "DOGE",
        other => other,
    }
}

/// What is in the frame that tells the last trades again, and in no other.
const SNAPSHOT: &str = "\"snapshot\"";

#[derive(Deserialize)]
struct Trade<'a> {
    #[serde(borrow)]
    symbol: Text<'a>,
    /// The taker's.
    #[serde(borrow)]
    side: Text<'a>,
    #[serde(borrow)]
    price: &'a RawValue,
    #[serde(borrow)]
    qty: &'a RawValue,
    trade_id: u64,
    #[serde(borrow)]
    timestamp: Text<'a>,
}

impl Trade<'_> {
    fn into_tick(self, symbols: &Subscribed, received_at: Timestamp) -> Result<Tick, DecodeError> {
        Ok(Tick {
            instrument: symbols.find(&self.symbol)?,
            trade_id: TradeId::Number(self.trade_id),
            price: amount("price", self.price.get())?,
            quantity: amount("qty", self.qty.get())?,
            side: side(&self.side)?,
            source: Source::Live,
            exchange_at: Timestamp::from_rfc3339(&self.timestamp)?,
            received_at,
        })
    }
}

/// Everything but trades. Numbers are not named here: a connection id is larger than an `i64`.
#[derive(Deserialize)]
struct Control<'a> {
    #[serde(borrow)]
    channel: Option<Text<'a>>,
    #[serde(borrow)]
    method: Option<Text<'a>>,
    success: Option<bool>,
    #[serde(borrow)]
    result: Option<Subscription<'a>>,
    #[serde(borrow, alias = "Error")]
    error: Option<Text<'a>>,
    #[serde(borrow)]
    symbol: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Subscription<'a> {
    #[serde(borrow)]
    channel: Option<Text<'a>>,
    #[serde(borrow)]
    symbol: Option<Text<'a>>,
}

fn read_control(frame: &str, symbols: &Subscribed) -> Result<Message, DecodeError> {
    let control: Control<'_> = serde_json::from_str(frame)?;
    match (control.channel.as_deref(), control.method.as_deref()) {
        (Some("heartbeat"), _) => Ok(Message::Heartbeat(None)),
        (
            Some(
                "balances" | "book" | "executions" | "instrument" | "level3" | "ohlc" | "status"
                | "ticker",
            ),
            _,
        )
        | (None, Some("pong")) => Ok(Message::Other),
        (None, Some("subscribe") | None)
            if control.success == Some(false) || control.error.is_some() =>
        {
            let words = control.error.as_deref().unwrap_or("no reason given");
            let named = control.symbol.and_then(|symbol| symbols.find(&symbol).ok());
            Ok(Message::refused(named.or_else(|| named_in(words, symbols)), words))
        }
        (None, Some("subscribe")) => acknowledged(control.result, symbols),
        (None, Some("ping" | "unsubscribe")) => Ok(Message::Other),
        _ => Err(DecodeError::UnknownMessage),
    }
}

fn acknowledged(
    result: Option<Subscription<'_>>,
    symbols: &Subscribed,
) -> Result<Message, DecodeError> {
    match result.map(|result| (result.channel, result.symbol)) {
        Some((Some(channel), Some(symbol))) if &*channel == "trade" => {
            Ok(Message::Acknowledged(vec![symbols.find(&symbol)?]))
        }
        Some((Some(_other), _)) => Ok(Message::Other),
        _ => Err(DecodeError::UnknownMessage),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Trade as Told};
    use super::*;
    use domain::Side;

    const UPDATE: &str = r#"{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"sell","price":64000.10,"qty":0.00010900,"ord_type":"market","trade_id":500,"timestamp":"2026-09-21T13:33:20.000119Z"},{"symbol":"ETH/USD","side":"buy","price":3000,"qty":2.5,"ord_type":"limit","trade_id":41,"timestamp":"2026-09-21T13:33:20.000119Z"}]}"#;
    const ACK: &str = r#"{"method":"subscribe","req_id":1,"result":{"channel":"trade","snapshot":true,"symbol":"BTC/USD"},"success":true,"time_in":"2026-09-21T13:33:20.000119Z","time_out":"2026-09-21T13:33:20.000150Z"}"#;
    const ERROR: &str = r#"{"error":"Currency pair not supported ETH/USD","method":"subscribe","success":false,"symbol":"ETH/USD","time_in":"2026-09-21T13:33:20.000119Z","time_out":"2026-09-21T13:33:20.000150Z"}"#;
    const STATUS: &str = r#"{"channel":"status","type":"update","data":[{"version":"2.0.10","system":"online","api_version":"v2","connection_id":18446744073709551615}]}"#;

    fn write(trades: &[Told]) -> Vec<String> {
        let element = |trade: &Told| {
            let side = trade.taker();
            let Told { symbol, id, price, quantity, at, .. } = trade;
            format!(
                r#"{{"symbol":"{symbol}","side":"{side}","price":{price},"qty":{quantity},"ord_type":"limit","trade_id":{id},"timestamp":"{at}"}}"#
            )
        };
        let elements: Vec<String> = trades.iter().map(element).collect();
        vec![format!(r#"{{"channel":"trade","type":"update","data":[{}]}}"#, elements.join(","))]
    }

    #[test]
    fn every_trade_of_a_frame_is_read() {
        let (answer, ticks) = testing::decode(&Kraken, UPDATE);
        assert_eq!(answer.unwrap(), Message::Trades);
        assert_eq!(ticks.len(), 2);
        let bitcoin = ticks.iter().find(|tick| tick.trade_id == TradeId::Number(500)).unwrap();
        assert_eq!(
            *bitcoin,
            Tick {
                instrument: testing::instrument(&Kraken, "BTCUSD"),
                trade_id: TradeId::Number(500),
                price: testing::decimal("64000.10"),
                quantity: testing::decimal("0.00010900"),
                side: Side::Sell,
                source: Source::Live,
                exchange_at: Timestamp::from_rfc3339("2026-09-21T13:33:20.000119Z").unwrap(),
                received_at: testing::received_at(),
            }
        );
    }

    #[test]
    fn the_zeros_of_a_number_are_kept() {
        let (_answer, ticks) = testing::decode(&Kraken, UPDATE);
        let printed: Vec<_> =
            ticks.iter().map(|tick| (tick.price.to_string(), tick.quantity.to_string())).collect();
        assert!(printed.contains(&("64000.10".to_owned(), "0.00010900".to_owned())));
    }

    #[test]
    fn a_snapshot_is_told_oldest_first() {
        let trades: Vec<String> = (1..=50)
            .rev()
            .map(|id| format!(r#"{{"symbol":"BTC/USD","side":"buy","price":1.0,"qty":1.0,"ord_type":"limit","trade_id":{id},"timestamp":"2026-09-21T13:33:20.000119Z"}}"#))
            .collect();
        let frame =
            format!(r#"{{"channel":"trade","type":"snapshot","data":[{}]}}"#, trades.join(","));
        let (answer, ticks) = testing::decode(&Kraken, &frame);
        assert_eq!(answer.unwrap(), Message::Trades);
        assert!(ticks.iter().map(|tick| tick.trade_id.number().unwrap()).eq(1..=50));
    }

    #[test]
    fn of_a_snapshot_what_is_older_than_a_day_is_left_out() {
        let trade = |id: u64, at: &str| {
            format!(
                r#"{{"symbol":"BTC/USD","side":"buy","price":1.0,"qty":1.0,"ord_type":"limit","trade_id":{id},"timestamp":"{at}"}}"#
            )
        };
        let trades = [trade(1, "2026-06-01T00:00:00Z"), trade(2, "2026-09-21T13:33:10Z")].join(",");
        let frame =
            |kind: &str| format!(r#"{{"channel":"trade","type":"{kind}","data":[{trades}]}}"#);
        let ids = |kind: &str| {
            let (answer, ticks) = testing::decode(&Kraken, &frame(kind));
            assert_eq!(answer.unwrap(), Message::Trades);
            testing::ids(&ticks)
        };
        assert_eq!(ids("snapshot"), [2]);
        assert_eq!(ids("update"), [1, 2], "told for the first time, it is set aside and seen");
    }

    #[test]
    fn the_order_of_fields_does_not_matter() {
        let turned = r#"{"data":[{"timestamp":"2026-09-21T13:33:20Z","trade_id":1,"qty":1.0,"price":2.0,"side":"buy","symbol":"BTC/USD"}],"type":"update","channel":"trade"}"#;
        assert_eq!(testing::decode_trade(&Kraken, turned).price.to_string(), "2.0");
    }

    #[test]
    fn one_wrong_trade_costs_only_itself() {
        for (wrong, right) in [("sell", "hold"), ("0.00010900", "-1"), ("\"qty\":0", "\"size\":0")]
        {
            let (answer, ticks) = testing::decode(&Kraken, &UPDATE.replace(wrong, right));
            assert!(answer.is_err(), "{right}");
            assert_eq!(ticks.len(), 1, "{right}");
            assert_eq!(ticks[0].trade_id, TradeId::Number(41));
        }
    }

    #[test]
    fn each_symbol_is_confirmed_or_refused_by_itself() {
        let message = |frame: &str| testing::decode_message(&Kraken, frame);
        let bitcoin = testing::instrument(&Kraken, "BTCUSD");
        assert_eq!(message(ACK), Message::Acknowledged(vec![bitcoin]));
        assert_eq!(message(&ACK.replace("trade", "ticker")), Message::Other);
        assert_eq!(
            message(ERROR),
            Message::Refused {
                instrument: Some(testing::instrument(&Kraken, "ETHUSD")),
                reason: "Currency pair not supported ETH/USD".to_owned(),
            }
        );
        assert_eq!(
            message(r#"{"Error":"Exceeded msg rate"}"#),
            Message::TooFrequent { reason: "Exceeded msg rate".to_owned() }
        );
    }

    #[test]
    fn signs_of_life_are_no_trades() {
        let message = |frame: &str| testing::decode_message(&Kraken, frame);
        assert_eq!(message(r#"{"channel":"heartbeat"}"#), Message::Heartbeat(None));
        assert_eq!(message(STATUS), Message::Other);
        let pong = r#"{"method":"pong","time_in":"2026-09-21T13:33:20Z","time_out":"2026-09-21T13:33:20Z"}"#;
        assert_eq!(message(pong), Message::Other);
    }

    #[test]
    fn what_is_not_understood_says_why() {
        let error = |frame: &str| testing::decode_error(&Kraken, frame);
        assert!(matches!(error(r#"{"channel":"news","data":[]}"#), DecodeError::UnknownMessage));
        assert!(matches!(error("{}"), DecodeError::UnknownMessage));
        assert!(matches!(error("0"), DecodeError::Json(_)));
        let unknown = UPDATE.replace("BTC/USD", "FOO/USD").replace("ETH/USD", "BAR/USD");
        assert!(matches!(error(&unknown), DecodeError::UnknownSymbol(name) if name == "FOO/USD"));
    }

    #[test]
    fn symbols_are_spelled_as_version_two_does() {
        let spelled = |text: &str| Kraken.venue_symbol(&text.parse().unwrap());
        assert_eq!(spelled("XBT-USD"), "BTC/USD");
        assert_eq!(spelled("DOGE-USD"), "DOGE/USD");
        assert_eq!(spelled("ETH/XBT"), "ETH/BTC");
    }

    #[test]
    fn a_snapshot_is_always_asked_for() {
        assert_eq!(
            Kraken.subscribe(&["BTC/USD", "ETH/USD"]),
            [
                r#"{"method":"subscribe","params":{"channel":"trade","snapshot":true,"symbol":["BTC/USD","ETH/USD"]},"req_id":1}"#
            ]
        );
        assert_eq!(Kraken.subscribe(&["BTC/USD"; 101]).len(), 2);
    }

    #[test]
    fn the_answer_to_unsubscribing_confirms_nothing() {
        assert_eq!(
            Kraken.unsubscribe(&["BTC/USD"]),
            [r#"{"method":"unsubscribe","params":{"channel":"trade","symbol":["BTC/USD"]}}"#]
        );
        for answer in [
            ACK.replace(r#""method":"subscribe""#, r#""method":"unsubscribe""#),
            ERROR.replace(r#""method":"subscribe""#, r#""method":"unsubscribe""#),
        ] {
            assert_eq!(testing::decode_message(&Kraken, &answer), Message::Other);
        }
    }

    #[test]
    fn prop_a_trade_is_read_as_it_was_told() {
        testing::prop_a_trade_is_read_as_it_was_told(&Kraken, true, write);
    }

    #[test]
    fn prop_a_number_is_exact_or_refused() {
        testing::prop_a_number_is_exact_or_refused(&Kraken, write);
    }

    #[test]
    fn prop_any_text_is_answered() {
        testing::prop_any_text_is_answered(&Kraken, &[UPDATE, ACK, ERROR, STATUS]);
    }
}
