//! Bitstamp spot: the `live_trades` channels of WebSocket v2.
//!
//! One trade per frame, and nothing is replayed on subscribing. Ids count the trades of all pairs together: those of one
//! pair have holes and prove no gap, so a break of the connection is a gap in time. A pair that does not exist is
//! confirmed like any other and stays silent: only the list of pairs shows that it is none.
//!
//! Protocol: <https://www.bitstamp.net/websocket/v2/>, September 2026.

mod history;

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::frame::{Text, amount, named_in};
use super::history::History;
use super::{DecodeError, Endpoints, Exchange, IdRule, Keepalive, Limits, Message, Subscribed};
use domain::{Side, Source, Symbol, Tick, Timestamp, TradeId};

/// How the channels begin that we subscribe.
const TRADES: &str = "live_trades_";
/// The event of a frame that holds a trade.
const TRADE: &str = "trade";

/// How the documented public channels begin that are not ours.
const OTHER_CHANNELS: [&str; 5] =
    ["detail_order_book_", "diff_order_book_", "funding_rate_", "live_orders_", "order_book_"];

/// Bitstamp spot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bitstamp;

impl Exchange for Bitstamp {
    fn name(&self) -> &'static str {
        "bitstamp"
    }

    fn usual_quote(&self) -> &'static str {
        "USD"
    }

    fn endpoints(&self) -> Endpoints {
        Endpoints { ws_url: "wss://ws.bitstamp.net", rest_url: "https://www.bitstamp.net" }
    }

    fn limits(&self) -> Limits {
        Limits {
            // Documented: 1,024 channels, beyond which the connection is closed without a word. Ours: all are
            // subscribed within 10 s.
            symbols_per_connection: 100,
            // Not documented; ours.
            send_interval: Duration::from_millis(100),
            // Not documented; ours. 100 connections from one address are said to be allowed.
            connect_interval: Duration::from_secs(1),
            // Documented: 90 days.
            connection_age: Some(Duration::from_hours(90 * 24)),
            // The answers to our heartbeats come every 20 s: two are missing.
            silence: Duration::from_secs(45),
            // Even bitcoin is traded only some ten times a minute here, and less at night.
            idle: Duration::from_mins(5),
        }
    }

    fn ids(&self) -> IdRule {
        IdRule::Unique
    }

    fn venue_symbol(&self, symbol: &Symbol) -> String {
        symbol.as_str().to_ascii_lowercase()
    }

    fn connect_url(&self, base: &str) -> String {
        format!("{base}/")
    }

    /// One channel is all that a message can carry. Documented: at most 512 bytes.
    fn subscribe(&self, venue_symbols: &[&str]) -> Vec<String> {
        requests("bts:subscribe", venue_symbols)
    }

    fn unsubscribe(&self, venue_symbols: &[&str]) -> Vec<String> {
        requests("bts:unsubscribe", venue_symbols)
    }

    /// Nothing demands it; the answers are the signs of life of a connection whose pairs are quiet.
    fn keepalive(&self) -> Option<Keepalive> {
        Some(Keepalive { every: Duration::from_secs(20), text: r#"{"event":"bts:heartbeat"}"# })
    }

    fn history(&self) -> &'static dyn History {
        &Bitstamp
    }

    fn decode(
        &self,
        frame: &str,
        symbols: &Subscribed,
        received_at: Timestamp,
        ticks: &mut Vec<Tick>,
    ) -> Result<Message, DecodeError> {
        let error = match serde_json::from_str::<Push<'_>>(frame) {
            Ok(push) if &*push.event == TRADE => {
                ticks.push(push.into_tick(symbols, received_at)?);
                return Ok(Message::Trades);
            }
            Ok(_) => return Err(DecodeError::UnknownMessage),
            Err(error) => error,
        };
        let control: Control<'_> = serde_json::from_str(frame)?;
        match (&*control.event, control.channel.as_deref()) {
            // A trade comes here only when it could not be read as one: say why.
            (TRADE, Some(channel)) if channel.starts_with(TRADES) => Err(error.into()),
            (event, channel) => read_control(frame, event, channel.unwrap_or_default(), symbols),
        }
    }
}

fn requests(event: &str, venue_symbols: &[&str]) -> Vec<String> {
    venue_symbols
        .iter()
        .map(|pair| {
            json!({ "event": event, "data": { "channel": format!("{TRADES}{pair}") } }).to_string()
        })
        .collect()
}

/// A frame with a trade. Its fields come in any order: those of data frames begin with `data`.
#[derive(Deserialize)]
struct Push<'a> {
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow)]
    channel: Text<'a>,
    #[serde(borrow)]
    data: Trade<'a>,
}

/// `price` and `amount` are there too, as numbers that have lost their zeros.
#[derive(Deserialize)]
struct Trade<'a> {
    id: u64,
    #[serde(borrow, rename = "price_str")]
    price: Text<'a>,
    #[serde(borrow, rename = "amount_str")]
    amount: Text<'a>,
    /// The taker's side.
    #[serde(rename = "type")]
    side: u8,
    /// Microseconds, as a text.
    #[serde(borrow, rename = "microtimestamp")]
    micros: Text<'a>,
}

impl Push<'_> {
    fn into_tick(self, symbols: &Subscribed, received_at: Timestamp) -> Result<Tick, DecodeError> {
        let Self { channel, data, .. } = self;
        let pair = channel.strip_prefix(TRADES);
        let pair = pair.ok_or_else(|| DecodeError::unknown_value("channel", &channel))?;
        let micros = || DecodeError::unknown_value("microtimestamp", &data.micros);
        Ok(Tick {
            instrument: symbols.find(pair)?,
            trade_id: TradeId::Number(data.id),
            price: amount("price_str", &data.price)?,
            quantity: amount("amount_str", &data.amount)?,
            side: match data.side {
                0 => Side::Buy,
                1 => Side::Sell,
                other => return Err(DecodeError::unknown_value("type", &other.to_string())),
            },
            source: Source::Live,
            exchange_at: Timestamp::from_micros(data.micros.parse().map_err(|_| micros())?)?,
            received_at,
        })
    }
}

#[derive(Deserialize)]
struct Control<'a> {
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow)]
    channel: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Refusal<'a> {
    #[serde(borrow)]
    data: Reason<'a>,
}

#[derive(Deserialize)]
struct Reason<'a> {
    #[serde(borrow)]
    message: Text<'a>,
}

fn read_control(
    frame: &str,
    event: &str,
    channel: &str,
    symbols: &Subscribed,
) -> Result<Message, DecodeError> {
    let pair = channel.strip_prefix(TRADES);
    match (event, pair) {
        ("bts:heartbeat", _) => Ok(Message::Heartbeat(None)),
        ("bts:subscription_succeeded", Some(pair)) => {
            Ok(Message::Acknowledged(vec![symbols.find(pair)?]))
        }
        ("bts:unsubscription_succeeded", Some(_)) => Ok(Message::Other),
        // Documented: a few seconds are left to connect anew.
        ("bts:request_reconnect", _) => Ok(Message::Closing { reason: event.to_owned() }),
        ("bts:error", pair) => {
            let Refusal { data: Reason { message } } = serde_json::from_str(frame)?;
            let named = pair.and_then(|pair| symbols.find(pair).ok());
            Ok(Message::refused(named.or_else(|| named_in(&message, symbols)), &message))
        }
        (_, None) if OTHER_CHANNELS.iter().any(|begin| channel.starts_with(begin)) => {
            Ok(Message::Other)
        }
        _ => Err(DecodeError::UnknownMessage),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Trade as Told};
    use super::*;

    const PUSH: &str = r#"{"data":{"id":628186942,"timestamp":"1790000000","amount":6.514e-05,"amount_str":"0.00006514","price":77558.1,"price_str":"77558.10","type":1,"microtimestamp":"1790000000854012","buy_order_id":2045952085757952,"sell_order_id":2045952156454912},"channel":"live_trades_btcusd","event":"trade"}"#;
    const ACK: &str =
        r#"{"event":"bts:subscription_succeeded","channel":"live_trades_btcusd","data":{}}"#;
    const ERROR: &str = r#"{"event":"bts:error","channel":"","data":{"code":null,"message":"Bad subscription string."}}"#;
    const HEARTBEAT: &str = r#"{"event":"bts:heartbeat","channel":"","data":{"status":"success"}}"#;
    const RECONNECT: &str = r#"{"event":"bts:request_reconnect","channel":"","data":""}"#;

    fn write(trades: &[Told]) -> Vec<String> {
        let frame = |trade: &Told| {
            let side = u8::from(trade.side == Side::Sell);
            let (micros, seconds) = (trade.at.as_micros(), trade.at.as_micros() / 1_000_000);
            let Told { symbol, id, price, quantity, .. } = trade;
            format!(
                r#"{{"data":{{"id":{id},"timestamp":"{seconds}","amount":0.5,"amount_str":"{quantity}","price":1.5,"price_str":"{price}","type":{side},"microtimestamp":"{micros}","buy_order_id":2,"sell_order_id":1}},"channel":"live_trades_{symbol}","event":"trade"}}"#
            )
        };
        trades.iter().map(frame).collect()
    }

    #[test]
    fn a_trade_is_read() {
        let tick = testing::decode_trade(&Bitstamp, PUSH);
        assert_eq!(
            tick,
            Tick {
                instrument: testing::instrument(&Bitstamp, "BTCUSD"),
                trade_id: TradeId::Number(628_186_942),
                price: testing::decimal("77558.10"),
                quantity: testing::decimal("0.00006514"),
                side: Side::Sell,
                source: Source::Live,
                exchange_at: Timestamp::from_micros(1_790_000_000_854_012).unwrap(),
                received_at: testing::received_at(),
            }
        );
        assert_eq!(tick.price.to_string(), "77558.10");
        let bought = PUSH.replace(r#""type":1"#, r#""type":0"#);
        assert_eq!(testing::decode_trade(&Bitstamp, &bought).side, Side::Buy);
    }

    #[test]
    fn the_order_of_fields_does_not_matter() {
        let turned = r#"{"event":"trade","channel":"live_trades_ethusd","data":{"type":0,"microtimestamp":"1790000000000001","price_str":"2.0","amount_str":"1E-8","id":1}}"#;
        let tick = testing::decode_trade(&Bitstamp, turned);
        assert_eq!(
            (tick.price.to_string(), tick.quantity.to_string()),
            ("2.0".into(), "0.00000001".into())
        );
    }

    #[test]
    fn a_subscription_is_confirmed_by_its_channel_and_refused_without_one() {
        let message = |frame: &str| testing::decode_message(&Bitstamp, frame);
        let bitcoin = testing::instrument(&Bitstamp, "BTCUSD");
        assert_eq!(message(ACK), Message::Acknowledged(vec![bitcoin]));
        let reason = || "Bad subscription string.".to_owned();
        assert_eq!(message(ERROR), Message::Refused { instrument: None, reason: reason() });
        let named = ERROR.replace(r#""channel":"""#, r#""channel":"live_trades_btcusd""#);
        let refused = Message::Refused { instrument: Some(bitcoin), reason: reason() };
        assert_eq!(message(&named), refused);
    }

    #[test]
    fn a_reconnection_that_is_asked_for_ends_the_connection_in_order() {
        let closing = Message::Closing { reason: "bts:request_reconnect".to_owned() };
        assert_eq!(testing::decode_message(&Bitstamp, RECONNECT), closing);
        let documented = RECONNECT.replace(r#""data":"""#, r#""data":null"#);
        assert_eq!(testing::decode_message(&Bitstamp, &documented), closing);
    }

    #[test]
    fn other_documented_messages_are_no_trades() {
        let message = |frame: &str| testing::decode_message(&Bitstamp, frame);
        assert_eq!(message(HEARTBEAT), Message::Heartbeat(None));
        for frame in [
            r#"{"data":{"timestamp":"1790000000","microtimestamp":"1790000000989838","bids":[],"asks":[]},"channel":"diff_order_book_btcusd","event":"data"}"#,
            r#"{"data":{"id":1,"order_type":0,"price_str":"1"},"channel":"live_orders_btcusd","event":"order_created"}"#,
            r#"{"event":"bts:subscription_succeeded","channel":"order_book_btcusd","data":{}}"#,
        ] {
            assert_eq!(message(frame), Message::Other, "{frame}");
        }
    }

    #[test]
    fn what_is_not_understood_says_why() {
        let error = |right: &str, wrong: &str| {
            testing::decode_error(&Bitstamp, &PUSH.replace(right, wrong))
        };
        assert!(matches!(error("\"trade\"", "\"news\""), DecodeError::UnknownMessage));
        assert!(matches!(error("price_str", "price_text"), DecodeError::Json(_)));
        assert!(matches!(error("btcusd", "foousd"), DecodeError::UnknownSymbol(_)));
        assert!(matches!(
            error("\"type\":1", "\"type\":2"),
            DecodeError::UnknownValue { field: "type", .. }
        ));
        assert!(matches!(
            error("1790000000854012", "now"),
            DecodeError::UnknownValue { field: "microtimestamp", .. }
        ));
        assert!(matches!(
            error("live_trades_", "live_"),
            DecodeError::UnknownValue { field: "channel", .. }
        ));
        let unknown = |frame: &str| testing::decode_error(&Bitstamp, frame);
        assert!(matches!(unknown(r#"{"event":"bts:new"}"#), DecodeError::UnknownMessage));
        assert!(matches!(unknown("{}"), DecodeError::Json(_)));
    }

    #[test]
    fn each_pair_is_a_message_of_its_own() {
        assert_eq!(
            Bitstamp.subscribe(&["btcusd", "ethusd"]),
            [
                r#"{"data":{"channel":"live_trades_btcusd"},"event":"bts:subscribe"}"#,
                r#"{"data":{"channel":"live_trades_ethusd"},"event":"bts:subscribe"}"#,
            ]
        );
        assert_eq!(Bitstamp.venue_symbol(&"BTC-USD".parse().unwrap()), "btcusd");
    }

    #[test]
    fn the_answer_to_unsubscribing_confirms_nothing() {
        assert_eq!(
            Bitstamp.unsubscribe(&["btcusd"]),
            [r#"{"data":{"channel":"live_trades_btcusd"},"event":"bts:unsubscribe"}"#]
        );
        let answer = ACK.replace("bts:subscription", "bts:unsubscription");
        assert_eq!(testing::decode_message(&Bitstamp, &answer), Message::Other);
    }

    #[test]
    fn prop_a_trade_is_read_as_it_was_told() {
        testing::prop_a_trade_is_read_as_it_was_told(&Bitstamp, true, write);
    }

    #[test]
    fn prop_a_number_is_exact_or_refused() {
        testing::prop_a_number_is_exact_or_refused(&Bitstamp, write);
    }

    #[test]
    fn prop_any_text_is_answered() {
        let frames = [PUSH, ACK, ERROR, HEARTBEAT, RECONNECT];
        testing::prop_any_text_is_answered(&Bitstamp, &frames);
    }
}
