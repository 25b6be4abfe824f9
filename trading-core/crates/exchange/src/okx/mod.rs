//! OKX spot: the `trades-all` channel of WebSocket v5.
//!
//! `trades-all` tells each trade by itself with an id that counts the trades of an instrument; the better known
//! `trades` joins fills, so its ids jump. On subscribing, the last trade of each instrument may be told again.
//! Keepalives are the bare texts `ping` and `pong`.
//!
//! Protocol: <https://www.okx.com/docs-v5/en/#order-book-trading-market-data-ws-all-trades-channel>,
//! September 2026.

mod history;

use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::frame::{Text, amount, lists, named_in, oldest_first, read_batch, side};
use super::history::History;
use super::{
    DecodeError, Endpoints, Exchange, IdRule, Keepalive, Limits, Message, Subscribed, reason_text,
};
use domain::{Source, Symbol, Tick, Timestamp, TradeId};

/// The channel that we subscribe.
const TRADES: &str = "trades-all";

/// Bytes of the arguments of one request; the limit of the whole is 64 KB.
const REQUEST_BYTES: usize = 60_000;
/// Bytes that an argument takes beside the name of its instrument.
const ARGUMENT_BYTES: usize = 50;

/// How the names of the documented public channels begin that are not ours.
const OTHER_CHANNELS: [&str; 18] = [
    "adl-warning",
    "bbo-tbt",
    "block-t",
    "books",
    "call-auction-details",
    "candle",
    "estimated-price",
    "funding-rate",
    "index-",
    "instruments",
    "liquidation-orders",
    "mark-price",
    "open-interest",
    "opt-summary",
    "option-trades",
    "price-limit",
    "sprd-",
    "tickers",
];

/// The notice that a connection will be closed for an upgrade, about a minute ahead.
const UPGRADE: &str = "64008";

/// OKX spot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Okx;

impl Exchange for Okx {
    fn name(&self) -> &'static str {
        "okx"
    }

    fn usual_quote(&self) -> &'static str {
        "USDT"
    }

    fn endpoints(&self) -> Endpoints {
        Endpoints { ws_url: "wss://ws.okx.com:8443", rest_url: "https://www.okx.com" }
    }

    fn limits(&self) -> Limits {
        Limits {
            // Documented: 64 KB of subscriptions. They go in one message, or in few where names are long.
            symbols_per_connection: 400,
            // Documented: 480 requests an hour, as a bucket; we send one or two, and pings are not counted.
            send_interval: Duration::from_millis(250),
            // Documented: 3 attempts a second from one address.
            connect_interval: Duration::from_millis(400),
            connection_age: None,
            // The answers to our pings come every 20 s, and the venue itself cuts after 30 s.
            silence: Duration::from_secs(35),
            // The busiest of any few instruments trades many times a minute.
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
        format!("{base}/ws/v5/business")
    }

    fn subscribe(&self, venue_symbols: &[&str]) -> Vec<String> {
        self.requests("subscribe", venue_symbols)
    }

    fn unsubscribe(&self, venue_symbols: &[&str]) -> Vec<String> {
        self.requests("unsubscribe", venue_symbols)
    }

    /// Documented: cut when nothing was sent for 30 s.
    fn keepalive(&self) -> Option<Keepalive> {
        Some(Keepalive { every: Duration::from_secs(20), text: "ping" })
    }

    fn history(&self) -> &'static dyn History {
        &Okx
    }

    fn decode(
        &self,
        frame: &str,
        symbols: &Subscribed,
        received_at: Timestamp,
        ticks: &mut Vec<Tick>,
    ) -> Result<Message, DecodeError> {
        if frame == "pong" {
            return Ok(Message::Other);
        }
        let start = ticks.len();
        let is_trades = |arg: &Arg<'_>| &*arg.channel == TRADES;
        let read = |trade: Trade<'_>| trade.into_tick(symbols, received_at);
        let batch = read_batch(frame, "arg", is_trades, read, ticks);
        oldest_first(ticks, start);
        if batch? { Ok(Message::Trades) } else { read_control(frame, symbols) }
    }
}

impl Okx {
    fn requests(self, op: &str, venue_symbols: &[&str]) -> Vec<String> {
        let request = |instruments: &[&str]| {
            let args: Vec<_> = instruments
                .iter()
                .map(|instrument| json!({ "channel": TRADES, "instId": instrument }))
                .collect();
            json!({ "op": op, "args": args }).to_string()
        };
        let most = self.limits().symbols_per_connection;
        lists(venue_symbols, most, REQUEST_BYTES, ARGUMENT_BYTES).into_iter().map(request).collect()
    }
}

#[derive(Deserialize)]
struct Arg<'a> {
    #[serde(borrow)]
    channel: Text<'a>,
    #[serde(borrow, rename = "instId")]
    instrument: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Trade<'a> {
    #[serde(borrow, rename = "instId")]
    instrument: Text<'a>,
    #[serde(borrow, rename = "tradeId")]
    id: Text<'a>,
    #[serde(borrow, rename = "px")]
    price: Text<'a>,
    /// Units of base, on spot.
    #[serde(borrow, rename = "sz")]
    size: Text<'a>,
    /// The taker's.
    #[serde(borrow)]
    side: Text<'a>,
    /// Milliseconds, as a text.
    #[serde(borrow)]
    ts: Text<'a>,
}

impl Trade<'_> {
    fn into_tick(self, symbols: &Subscribed, received_at: Timestamp) -> Result<Tick, DecodeError> {
        Ok(Tick {
            instrument: symbols.find(&self.instrument)?,
            trade_id: TradeId::Number(number("tradeId", &self.id)?),
            price: amount("px", &self.price)?,
            quantity: amount("sz", &self.size)?,
            side: side(&self.side)?,
            source: Source::Live,
            exchange_at: Timestamp::from_millis(number("ts", &self.ts)?)?,
            received_at,
        })
    }
}

/// A number that the venue writes as a text, as all of its numbers.
fn number<N: FromStr>(field: &'static str, text: &str) -> Result<N, DecodeError> {
    text.parse().map_err(|_| DecodeError::unknown_value(field, text))
}

#[derive(Deserialize)]
struct Control<'a> {
    #[serde(borrow)]
    event: Option<Text<'a>>,
    #[serde(borrow)]
    arg: Option<Arg<'a>>,
    #[serde(borrow)]
    code: Option<Text<'a>>,
    #[serde(borrow)]
    msg: Option<Text<'a>>,
}

fn read_control(frame: &str, symbols: &Subscribed) -> Result<Message, DecodeError> {
    let control: Control<'_> = serde_json::from_str(frame)?;
    let words = || {
        let code = control.code.as_deref().unwrap_or_default();
        reason_text(format!("{code} {}", control.msg.as_deref().unwrap_or_default()).trim())
    };
    match (control.event.as_deref(), &control.arg) {
        (Some("subscribe"), Some(arg)) => acknowledged(arg, symbols),
        (Some("error" | "channel-conn-count-error"), arg) => {
            let named = arg.as_ref().and_then(|arg| arg.instrument.as_deref());
            let named = named.and_then(|instrument| symbols.find(instrument).ok());
            let reason = words();
            Ok(Message::refused(named.or_else(|| named_in(&reason, symbols)), &reason))
        }
        (Some("notice"), _) if control.code.as_deref() == Some(UPGRADE) => {
            Ok(Message::Closing { reason: words() })
        }
        (Some("channel-conn-count" | "login" | "notice" | "unsubscribe"), _) => Ok(Message::Other),
        (None, Some(arg)) if is_other_channel(&arg.channel) => Ok(Message::Other),
        _ => Err(DecodeError::UnknownMessage),
    }
}

fn acknowledged(arg: &Arg<'_>, symbols: &Subscribed) -> Result<Message, DecodeError> {
    match &arg.instrument {
        Some(instrument) if &*arg.channel == TRADES => {
            Ok(Message::Acknowledged(vec![symbols.find(instrument)?]))
        }
        _ => Ok(Message::Other),
    }
}

/// `trades` is one of them: it holds sums of trades, not trades.
fn is_other_channel(channel: &str) -> bool {
    matches!(channel, "trades" | "status")
        || OTHER_CHANNELS.iter().any(|begin| channel.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Trade as Told};
    use super::*;
    use domain::Side;

    const PUSH: &str = r#"{"arg":{"channel":"trades-all","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"700100","px":"64000.10","sz":"0.00120000","side":"sell","source":"0","ts":"1790000000119"}]}"#;
    const ACK: &str = r#"{"event":"subscribe","arg":{"channel":"trades-all","instId":"BTC-USDT"},"connId":"a1b2c3d4"}"#;
    const ERROR: &str = r#"{"event":"error","code":"60018","msg":"Wrong URL or channel:trades-all,instId:ETH-USDT doesn't exist.","connId":"a1b2c3d4"}"#;
    const NOTICE: &str = r#"{"event":"notice","code":"64008","msg":"The connection will soon be closed.","connId":"a1b2c3d4"}"#;

    fn write(trades: &[Told]) -> Vec<String> {
        let element = |trade: &Told| {
            let (side, at) = (trade.taker(), trade.at.as_millis());
            let Told { symbol, id, price, quantity, .. } = trade;
            format!(
                r#"{{"instId":"{symbol}","tradeId":"{id}","px":"{price}","sz":"{quantity}","side":"{side}","source":"0","ts":"{at}"}}"#
            )
        };
        let elements: Vec<String> = trades.iter().map(element).collect();
        vec![format!(
            r#"{{"arg":{{"channel":"trades-all","instId":"BTC-USDT"}},"data":[{}]}}"#,
            elements.join(",")
        )]
    }

    #[test]
    fn a_trade_is_read() {
        let tick = testing::decode_trade(&Okx, PUSH);
        assert_eq!(
            tick,
            Tick {
                instrument: testing::instrument(&Okx, "BTCUSDT"),
                trade_id: TradeId::Number(700_100),
                price: testing::decimal("64000.10"),
                quantity: testing::decimal("0.00120000"),
                side: Side::Sell,
                source: Source::Live,
                exchange_at: Timestamp::from_millis(1_790_000_000_119).unwrap(),
                received_at: testing::received_at(),
            }
        );
        assert_eq!(tick.quantity.to_string(), "0.00120000");
        let bought = PUSH.replace("sell", "buy");
        assert_eq!(testing::decode_trade(&Okx, &bought).side, Side::Buy);
    }

    #[test]
    fn several_trades_of_a_push_are_told_oldest_first() {
        let element = |id| {
            format!(
                r#"{{"instId":"BTC-USDT","tradeId":"{id}","px":"1","sz":"1","side":"buy","ts":"1790000000119"}}"#
            )
        };
        let frame = format!(
            r#"{{"arg":{{"channel":"trades-all","instId":"BTC-USDT"}},"data":[{},{}]}}"#,
            element(10),
            element(9)
        );
        let (answer, ticks) = testing::decode(&Okx, &frame);
        assert_eq!(answer.unwrap(), Message::Trades);
        let ids: Vec<_> = ticks.iter().map(|tick| tick.trade_id.number().unwrap()).collect();
        assert_eq!(ids, [9, 10]);
    }

    #[test]
    fn a_joined_trade_is_not_a_trade() {
        let joined = PUSH.replace("trades-all", "trades");
        assert_eq!(testing::decode_message(&Okx, &joined), Message::Other);
    }

    #[test]
    fn each_argument_is_confirmed_or_refused_by_itself() {
        let message = |frame: &str| testing::decode_message(&Okx, frame);
        let bitcoin = testing::instrument(&Okx, "BTCUSDT");
        assert_eq!(message(ACK), Message::Acknowledged(vec![bitcoin]));
        assert_eq!(message(&ACK.replace("trades-all", "tickers")), Message::Other);
        assert_eq!(
            message(ERROR),
            Message::Refused {
                instrument: Some(testing::instrument(&Okx, "ETHUSDT")),
                reason: "60018 Wrong URL or channel:trades-all,instId:ETH-USDT doesn't exist."
                    .to_owned(),
            }
        );
        let whole = r#"{"event":"error","code":"60012","msg":"Invalid request: BTC-USDT, ETH-USDT","connId":"a"}"#;
        assert!(matches!(message(whole), Message::Refused { instrument: None, .. }));
    }

    #[test]
    fn an_upgrade_is_announced() {
        let closing =
            Message::Closing { reason: "64008 The connection will soon be closed.".to_owned() };
        assert_eq!(testing::decode_message(&Okx, NOTICE), closing);
        let other = NOTICE.replace("64008", "64000");
        assert_eq!(testing::decode_message(&Okx, &other), Message::Other);
    }

    #[test]
    fn other_documented_messages_are_no_trades() {
        for frame in [
            "pong",
            r#"{"event":"channel-conn-count","channel":"trades-all","connCount":"2","connId":"a"}"#,
            r#"{"event":"unsubscribe","arg":{"channel":"trades-all","instId":"BTC-USDT"},"connId":"a"}"#,
            r#"{"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT"}]}"#,
            r#"{"arg":{"channel":"candle1m","instId":"BTC-USDT"},"data":[["1","2"]]}"#,
        ] {
            assert_eq!(testing::decode_message(&Okx, frame), Message::Other, "{frame}");
        }
    }

    #[test]
    fn what_is_not_understood_says_why() {
        let error = |frame: &str| testing::decode_error(&Okx, frame);
        assert!(matches!(error(r#"{"event":"new"}"#), DecodeError::UnknownMessage));
        assert!(matches!(
            error(&PUSH.replace("trades-all", "trade-new")),
            DecodeError::UnknownMessage
        ));
        assert!(matches!(error("ping"), DecodeError::Json(_)));
        assert!(matches!(
            error(&PUSH.replace("700100", "7x")),
            DecodeError::UnknownValue { field: "tradeId", .. }
        ));
        assert!(matches!(
            error(&PUSH.replace("1790000000119", "")),
            DecodeError::UnknownValue { field: "ts", .. }
        ));
        assert!(matches!(
            error(&PUSH.replace("BTC-USDT", "FOO-USDT")),
            DecodeError::UnknownSymbol(_)
        ));
        assert!(matches!(error(&PUSH.replace("\"px\"", "\"price\"")), DecodeError::Json(_)));
    }

    #[test]
    fn all_instruments_go_in_one_request_below_its_limit() {
        assert_eq!(
            Okx.subscribe(&["BTC-USDT", "ETH-USDT"]),
            [
                r#"{"args":[{"channel":"trades-all","instId":"BTC-USDT"},{"channel":"trades-all","instId":"ETH-USDT"}],"op":"subscribe"}"#
            ]
        );
        let longest = "ABCDEFGHIJKLMNOPQRST-ABCDEFGHIJKLMNOPQRST";
        let symbols = vec![longest; Okx.limits().symbols_per_connection];
        let messages = Okx.subscribe(&symbols);
        assert_eq!(messages.len(), 1);
        assert!(messages[0].len() < 64 * 1024);
    }

    #[test]
    fn the_answer_to_unsubscribing_confirms_nothing() {
        assert_eq!(
            Okx.unsubscribe(&["BTC-USDT"]),
            [r#"{"args":[{"channel":"trades-all","instId":"BTC-USDT"}],"op":"unsubscribe"}"#]
        );
        let answer = ACK.replace(r#""event":"subscribe""#, r#""event":"unsubscribe""#);
        assert_eq!(testing::decode_message(&Okx, &answer), Message::Other);
    }

    #[test]
    fn prop_a_trade_is_read_as_it_was_told() {
        testing::prop_a_trade_is_read_as_it_was_told(&Okx, false, write);
    }

    #[test]
    fn prop_a_number_is_exact_or_refused() {
        testing::prop_a_number_is_exact_or_refused(&Okx, write);
    }

    #[test]
    fn prop_any_text_is_answered() {
        testing::prop_any_text_is_answered(&Okx, &[PUSH, ACK, ERROR, NOTICE]);
    }
}
