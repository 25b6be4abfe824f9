//! Coinbase Exchange: the `matches` and `heartbeat` channels of its public feed.
//!
//! One trade per frame. On subscribing, the last trade of each product is told again as `last_match`. Ids count
//! the trades of a product without a hole, and the heartbeat of each second tells the last of them, so that a
//! gap shows even in silence. `side` is the maker's: a tick has the opposite one.
//!
//! Protocol: <https://docs.cdp.coinbase.com/exchange/websocket-feed/channels>, September 2026.

mod history;

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::frame::{Text, amount, is_history, named_in, side};
use super::history::History;
use super::{DecodeError, Endpoints, Exchange, IdRule, Limits, Message, Subscribed};
use domain::{Source, Symbol, Tick, Timestamp, TradeId};

/// Coinbase Exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coinbase;

impl Exchange for Coinbase {
    fn name(&self) -> &'static str {
        "coinbase"
    }

    fn usual_quote(&self) -> &'static str {
        "USD"
    }

    fn endpoints(&self) -> Endpoints {
        Endpoints {
            ws_url: "wss://ws-feed.exchange.coinbase.com",
            rest_url: "https://api.exchange.coinbase.com",
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            // Not documented. Ours: all of them are subscribed within 15 s.
            symbols_per_connection: 100,
            // Documented: 8 requests a second from one address, in bursts to 20.
            send_interval: Duration::from_millis(150),
            // The same limit.
            connect_interval: Duration::from_millis(150),
            connection_age: None,
            // Each product has a heartbeat a second: ten of the slowest are missing.
            silence: Duration::from_secs(10),
            // The busiest of any few products trades many times a minute.
            idle: Duration::from_mins(2),
        }
    }

    fn ids(&self) -> IdRule {
        IdRule::Consecutive
    }

    fn venue_symbol(&self, symbol: &Symbol) -> String {
        format!("{}-{}", symbol.base(), symbol.quote())
    }

    fn connect_url(&self, base: &str) -> String {
        format!("{base}/")
    }

    /// One message for each product: a request with one wrong product is refused as a whole
    /// (coinbase/coinbase-pro-node#174). The first must leave within 5 s of connecting.
    fn subscribe(&self, venue_symbols: &[&str]) -> Vec<String> {
        venue_symbols
            .iter()
            .map(|product| {
                json!({
                    "type": "subscribe",
                    "product_ids": [product],
                    "channels": ["matches", "heartbeat"],
                })
                .to_string()
            })
            .collect()
    }

    fn history(&self) -> &'static dyn History {
        &Coinbase
    }

    /// The answer lists all that is subscribed still.
    fn unsubscribe(&self, venue_symbols: &[&str]) -> Vec<String> {
        let channels = ["matches", "heartbeat"];
        let message = json!({
            "type": "unsubscribe",
            "product_ids": venue_symbols,
            "channels": channels,
        });
        vec![message.to_string()]
    }

    fn decode(
        &self,
        frame: &str,
        symbols: &Subscribed,
        received_at: Timestamp,
        ticks: &mut Vec<Tick>,
    ) -> Result<Message, DecodeError> {
        match serde_json::from_str::<Match<'_>>(frame) {
            Ok(trade) if is_match(&trade.kind) => {
                let is_told_again = &*trade.kind == LAST_MATCH;
                let tick = trade.into_tick(symbols, received_at)?;
                if !(is_told_again && is_history(&tick)) {
                    ticks.push(tick);
                }
                Ok(Message::Trades)
            }
            Ok(_) => read_control(frame, symbols),
            Err(error) => match read_control(frame, symbols) {
                // A match comes here only when it could not be read as one: say why.
                Err(DecodeError::UnknownMessage) => {
                    let kind = serde_json::from_str::<Kind<'_>>(frame);
                    let trade = kind.is_ok_and(|kind| is_match(&kind.kind));
                    Err(if trade { error.into() } else { DecodeError::UnknownMessage })
                }
                control => control,
            },
        }
    }
}

/// The last trade of a product, told again on subscribing.
const LAST_MATCH: &str = "last_match";

fn is_match(kind: &str) -> bool {
    matches!(kind, "match" | LAST_MATCH)
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
}

#[derive(Deserialize)]
struct Match<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    trade_id: u64,
    #[serde(borrow)]
    side: Text<'a>,
    #[serde(borrow)]
    size: Text<'a>,
    #[serde(borrow)]
    price: Text<'a>,
    #[serde(borrow)]
    product_id: Text<'a>,
    #[serde(borrow)]
    time: Text<'a>,
}

impl Match<'_> {
    fn into_tick(self, symbols: &Subscribed, received_at: Timestamp) -> Result<Tick, DecodeError> {
        Ok(Tick {
            instrument: symbols.find(&self.product_id)?,
            trade_id: TradeId::Number(self.trade_id),
            price: amount("price", &self.price)?,
            quantity: amount("size", &self.size)?,
            side: side(&self.side)?.opposite(),
            source: Source::Live,
            exchange_at: Timestamp::from_rfc3339(&self.time)?,
            received_at,
        })
    }
}

#[derive(Deserialize)]
struct Control<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    product_id: Option<Text<'a>>,
    last_trade_id: Option<u64>,
    #[serde(borrow, default)]
    channels: Vec<Channel<'a>>,
    #[serde(borrow)]
    message: Option<Text<'a>>,
    #[serde(borrow)]
    reason: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Channel<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow, default)]
    product_ids: Vec<Text<'a>>,
}

fn read_control(frame: &str, symbols: &Subscribed) -> Result<Message, DecodeError> {
    let control: Control<'_> = serde_json::from_str(frame)?;
    match control.kind.as_deref() {
        Some("heartbeat") => match (control.product_id, control.last_trade_id) {
            (Some(product), Some(last)) => {
                Ok(Message::Heartbeat(Some((symbols.find(&product)?, last))))
            }
            _ => Ok(Message::Heartbeat(None)),
        },
        Some("subscriptions") => Ok(acknowledged(&control.channels, symbols)),
        Some("error") => {
            let words = [control.message, control.reason];
            let words: Vec<&str> = words.iter().flatten().map(|text| &**text).collect();
            let words = words.join(": ");
            Ok(Message::refused(named_in(&words, symbols), &words))
        }
        Some(
            "activate" | "auction" | "change" | "done" | "l2update" | "open" | "received"
            | "rfq_match" | "snapshot" | "status" | "ticker",
        ) => Ok(Message::Other),
        _ => Err(DecodeError::UnknownMessage),
    }
}

/// Each answer lists all that the connection is subscribed to so far.
fn acknowledged(channels: &[Channel<'_>], symbols: &Subscribed) -> Message {
    let products = channels.iter().filter(|channel| &*channel.name == "matches");
    let products = products.flat_map(|channel| &channel.product_ids);
    let confirmed: Vec<_> = products.filter_map(|product| symbols.find(product).ok()).collect();
    // An empty list would say that all is confirmed.
    if confirmed.is_empty() { Message::Other } else { Message::Acknowledged(confirmed) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Trade as Told};
    use super::*;
    use domain::Side;

    const MATCH: &str = r#"{"type":"match","trade_id":900100,"maker_order_id":"m-1","taker_order_id":"t-1","side":"sell","size":"0.01230000","price":"64000.10","product_id":"BTC-USD","sequence":77,"time":"2026-09-21T13:33:20.000119Z"}"#;
    const HEARTBEAT: &str = r#"{"type":"heartbeat","sequence":90,"last_trade_id":900101,"product_id":"BTC-USD","time":"2026-09-21T13:33:21.000000Z"}"#;
    const ACK: &str = r#"{"type":"subscriptions","channels":[{"name":"heartbeat","product_ids":["BTC-USD"],"account_ids":null},{"name":"matches","product_ids":["BTC-USD","ETH-USD"],"account_ids":null}]}"#;
    const ERROR: &str = r#"{"type":"error","message":"Failed to subscribe","reason":"ETH-USD is not a valid product"}"#;

    fn write(trades: &[Told]) -> Vec<String> {
        let frame = |trade: &Told| {
            let maker = trade.side.opposite().as_str();
            let Told { symbol, id, price, quantity, at, .. } = trade;
            format!(
                r#"{{"type":"match","trade_id":{id},"side":"{maker}","size":"{quantity}","price":"{price}","product_id":"{symbol}","sequence":1,"time":"{at}"}}"#
            )
        };
        trades.iter().map(frame).collect()
    }

    #[test]
    fn a_match_is_read_with_the_taker_against_the_maker() {
        let tick = testing::decode_trade(&Coinbase, MATCH);
        assert_eq!(
            tick,
            Tick {
                instrument: testing::instrument(&Coinbase, "BTCUSD"),
                trade_id: TradeId::Number(900_100),
                price: testing::decimal("64000.10"),
                quantity: testing::decimal("0.01230000"),
                // The maker sold, so the taker bought.
                side: Side::Buy,
                source: Source::Live,
                exchange_at: Timestamp::from_rfc3339("2026-09-21T13:33:20.000119Z").unwrap(),
                received_at: testing::received_at(),
            }
        );
        assert_eq!(tick.quantity.to_string(), "0.01230000");
        let bought = MATCH.replace(r#""sell""#, r#""buy""#);
        assert_eq!(testing::decode_trade(&Coinbase, &bought).side, Side::Sell);
    }

    #[test]
    fn the_last_match_before_the_subscription_is_a_trade() {
        let last = MATCH.replace(r#""match""#, r#""last_match""#);
        assert_eq!(
            testing::decode_trade(&Coinbase, &last),
            testing::decode_trade(&Coinbase, MATCH)
        );
    }

    #[test]
    fn a_last_match_of_days_ago_is_left_out() {
        let old =
            MATCH.replace(r#""match""#, r#""last_match""#).replace("2026-09-21", "2026-09-11");
        let (answer, ticks) = testing::decode(&Coinbase, &old);
        assert_eq!((answer.unwrap(), ticks), (Message::Trades, Vec::new()));
        assert_eq!(testing::decode(&Coinbase, &old.replace("last_match", "match")).1.len(), 1);
    }

    #[test]
    fn a_heartbeat_tells_the_last_trade() {
        let product = testing::instrument(&Coinbase, "BTCUSD");
        let told = Message::Heartbeat(Some((product, 900_101)));
        assert_eq!(testing::decode_message(&Coinbase, HEARTBEAT), told);
    }

    #[test]
    fn an_answer_confirms_the_products_of_the_matches_channel() {
        let confirmed = ["BTCUSD", "ETHUSD"].map(|symbol| testing::instrument(&Coinbase, symbol));
        let message = testing::decode_message(&Coinbase, ACK);
        assert_eq!(message, Message::Acknowledged(confirmed.to_vec()));
        // To confirm nothing is not to confirm all.
        let none = r#"{"type":"subscriptions","channels":[]}"#;
        assert_eq!(testing::decode_message(&Coinbase, none), Message::Other);
    }

    #[test]
    fn an_error_refuses_the_product_that_it_names() {
        let refused = |instrument, reason: &str| Message::Refused {
            instrument,
            reason: format!("Failed to subscribe: {reason}"),
        };
        assert_eq!(
            testing::decode_message(&Coinbase, ERROR),
            refused(
                Some(testing::instrument(&Coinbase, "ETHUSD")),
                "ETH-USD is not a valid product"
            )
        );
        let unnamed = ERROR.replace("ETH-USD is not a valid product", "No channels provided");
        let message = testing::decode_message(&Coinbase, &unnamed);
        assert_eq!(message, refused(None, "No channels provided"));
    }

    #[test]
    fn other_documented_channels_are_no_trades() {
        for kind in ["ticker", "status", "l2update", "snapshot", "open", "done", "received"] {
            let frame = format!(r#"{{"type":"{kind}","product_id":"BTC-USD","price":"1"}}"#);
            assert_eq!(testing::decode_message(&Coinbase, &frame), Message::Other, "{kind}");
        }
    }

    #[test]
    fn what_is_not_understood_says_why() {
        let error = |frame: &str| testing::decode_error(&Coinbase, frame);
        assert!(matches!(error(&MATCH.replace("match", "batch")), DecodeError::UnknownMessage));
        assert!(matches!(error("{}"), DecodeError::UnknownMessage));
        assert!(matches!(error("[1]"), DecodeError::Json(_)));
        assert!(matches!(
            error(&MATCH.replace("2026-09-21T13:33:20", "0001-01-01T00:00:00")),
            DecodeError::Time(_)
        ));
        assert!(matches!(error(&MATCH.replace("0.0123", "0.-10000")), DecodeError::Decimal(_)));
        assert!(matches!(
            error(&MATCH.replace("BTC-USD", "DOGE-USD")),
            DecodeError::UnknownSymbol(_)
        ));
        assert!(matches!(
            error(&HEARTBEAT.replace("BTC-USD", "DOGE-USD")),
            DecodeError::UnknownSymbol(_)
        ));
        assert!(matches!(
            error(&MATCH.replace("sell", "cross")),
            DecodeError::UnknownValue { field: "side", .. }
        ));
        assert!(matches!(error(&MATCH.replace("\"size\"", "\"volume\"")), DecodeError::Json(_)));
    }

    #[test]
    fn each_product_is_a_request_of_its_own() {
        assert_eq!(
            Coinbase.subscribe(&["BTC-USD", "ETH-USD"]),
            [
                r#"{"channels":["matches","heartbeat"],"product_ids":["BTC-USD"],"type":"subscribe"}"#,
                r#"{"channels":["matches","heartbeat"],"product_ids":["ETH-USD"],"type":"subscribe"}"#,
            ]
        );
    }

    #[test]
    fn the_answer_to_unsubscribing_lists_what_is_subscribed_still() {
        assert_eq!(
            Coinbase.unsubscribe(&["BTC-USD"]),
            [
                r#"{"channels":["matches","heartbeat"],"product_ids":["BTC-USD"],"type":"unsubscribe"}"#
            ]
        );
        let nothing = r#"{"type":"subscriptions","channels":[]}"#;
        assert_eq!(testing::decode_message(&Coinbase, nothing), Message::Other);
    }

    #[test]
    fn prop_a_trade_is_read_as_it_was_told() {
        testing::prop_a_trade_is_read_as_it_was_told(&Coinbase, true, write);
    }

    #[test]
    fn prop_a_number_is_exact_or_refused() {
        testing::prop_a_number_is_exact_or_refused(&Coinbase, write);
    }

    #[test]
    fn prop_any_text_is_answered() {
        testing::prop_any_text_is_answered(&Coinbase, &[MATCH, HEARTBEAT, ACK, ERROR]);
    }
}
