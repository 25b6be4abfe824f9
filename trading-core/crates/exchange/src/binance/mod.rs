//! Binance spot: the `@trade` streams of the combined endpoint.
//!
//! One trade per frame, wrapped as `{"stream": …, "data": …}`; nothing is replayed on subscribing. The raw form
//! of `/ws` is read as well, for a proxy that unwraps. Ids count the trades of a symbol without a hole, so a
//! jump is a gap. A symbol that does not exist is acknowledged like any other and then stays silent.
//!
//! Protocol: <https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams>, July 2026.

mod history;

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::frame::{Text, amount, lists, present};
use super::history::History;
use super::{DecodeError, Endpoints, Exchange, IdRule, Limits, Message, Subscribed};
use domain::{Side, Source, Symbol, Tick, Timestamp, TimestampError, TradeId};

/// Streams in one SUBSCRIBE at most.
const STREAMS_PER_MESSAGE: usize = 90;
/// Bytes of the streams of one SUBSCRIBE. Past 4,088 bytes of a message the server falls silent instead of answering
/// (binance/binance-connector-rust#27).
const STREAM_BYTES_PER_MESSAGE: usize = 4_000;
/// Bytes that a stream takes beside its name: two quotation marks and a comma.
const STREAM_BYTES_MORE: usize = 3;

/// Documented: the unit of all times in the frames; without it milliseconds.
const MICROSECONDS: &str = "timeUnit=MICROSECOND";
/// A time from here on is in microseconds: in milliseconds it would lie past the year 9999, in microseconds this is 2001,
/// before there was an exchange.
const MICROS_FROM: i64 = 1_000_000_000_000_000;

/// The id of every UNSUBSCRIBE.
const UNSUBSCRIBE: &str = "unsubscribe";

/// The documented kinds of event other than trades, by `e` or by the end of the stream's name.
const OTHER_KINDS: [&str; 16] = [
    "24hrMiniTicker",
    "24hrTicker",
    "1hTicker",
    "4hTicker",
    "1dTicker",
    "aggTrade",
    "avgPrice",
    "blockTrade",
    "bookTicker",
    "depth",
    "depthUpdate",
    "kline",
    "miniTicker",
    "referencePrice",
    "ticker",
    "rollingTicker",
];

/// Binance spot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binance;

impl Exchange for Binance {
    fn name(&self) -> &'static str {
        "binance"
    }

    fn usual_quote(&self) -> &'static str {
        "USDT"
    }

    /// Another unit of time.
    fn base_queries(&self) -> &'static [&'static str] {
        &[MICROSECONDS, "timeUnit=MILLISECOND"]
    }

    fn endpoints(&self) -> Endpoints {
        Endpoints { ws_url: "wss://stream.binance.com:9443", rest_url: "https://api.binance.com" }
    }

    fn limits(&self) -> Limits {
        Limits {
            // Documented: 1024 streams on a connection.
            symbols_per_connection: 1024,
            // Documented: 5 messages a second, our answers to its pings among them; we send 4.
            send_interval: Duration::from_millis(250),
            // Documented: 300 attempts in 5 minutes from one address.
            connect_interval: Duration::from_secs(1),
            // Documented: cut after 24 hours.
            connection_age: Some(Duration::from_hours(24)),
            // The server pings every 20 s: three are missing.
            silence: Duration::from_mins(1),
            // The busiest of any few symbols trades many times a minute.
            idle: Duration::from_mins(2),
        }
    }

    fn ids(&self) -> IdRule {
        IdRule::Consecutive
    }

    fn venue_symbol(&self, symbol: &Symbol) -> String {
        symbol.as_str().to_owned()
    }

    fn connect_url(&self, base: &str) -> String {
        match base.split_once('?') {
            Some((base, query)) => format!("{}/stream?{query}", base.trim_end_matches('/')),
            None => format!("{base}/stream"),
        }
    }

    fn history_headers(&self, base: &str) -> &'static [(&'static str, &'static str)] {
        let in_micros = base.split_once('?').is_some_and(|(_, query)| query == MICROSECONDS);
        if in_micros { &[("x-mbx-time-unit", "MICROSECOND")] } else { &[] }
    }

    fn subscribe(&self, venue_symbols: &[&str]) -> Vec<String> {
        let message = |(streams, id)| json!({ "method": "SUBSCRIBE", "params": streams, "id": id });
        let streams = streams(venue_symbols);
        messages(&streams).into_iter().zip(1_u32..).map(|it| message(it).to_string()).collect()
    }

    fn history(&self) -> &'static dyn History {
        &Binance
    }

    /// Documented: an id may be a text. The answers differ in nothing else.
    fn unsubscribe(&self, venue_symbols: &[&str]) -> Vec<String> {
        let message =
            |streams| json!({ "method": "UNSUBSCRIBE", "params": streams, "id": UNSUBSCRIBE });
        let streams = streams(venue_symbols);
        messages(&streams).into_iter().map(|streams| message(streams).to_string()).collect()
    }

    fn decode(
        &self,
        frame: &str,
        symbols: &Subscribed,
        received_at: Timestamp,
        ticks: &mut Vec<Tick>,
    ) -> Result<Message, DecodeError> {
        let trade = serde_json::from_str::<Wrapped<'_>>(frame)
            .map(|wrapped| wrapped.data)
            .or_else(|_not_wrapped| serde_json::from_str::<Trade<'_>>(frame));
        match trade {
            Ok(trade) if &*trade.event == "trade" => {
                ticks.push(trade.into_tick(symbols, received_at)?);
                Ok(Message::Trades)
            }
            _ => read_control(frame),
        }
    }
}

/// Documented: stream names are in lower case, in any alphabet that has one. Chinese has none.
fn streams(symbols: &[&str]) -> Vec<String> {
    let small = |symbol: &str| symbol.chars().flat_map(char::to_lowercase).collect::<String>();
    symbols.iter().map(|symbol| format!("{}@trade", small(symbol))).collect()
}

fn messages(streams: &[String]) -> Vec<&[String]> {
    lists(streams, STREAMS_PER_MESSAGE, STREAM_BYTES_PER_MESSAGE, STREAM_BYTES_MORE)
}

#[derive(Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow)]
    data: Trade<'a>,
}

#[derive(Deserialize)]
struct Trade<'a> {
    #[serde(borrow, rename = "e")]
    event: Text<'a>,
    #[serde(borrow, rename = "s")]
    symbol: Text<'a>,
    #[serde(rename = "t")]
    id: u64,
    #[serde(borrow, rename = "p")]
    price: Text<'a>,
    #[serde(borrow, rename = "q")]
    quantity: Text<'a>,
    /// Milliseconds, or microseconds where they are asked for. (`E` is the time of the push, which may lie before or after it.)
    #[serde(rename = "T")]
    traded_at: i64,
    #[serde(rename = "m")]
    buyer_is_maker: bool,
}

impl Trade<'_> {
    fn into_tick(self, symbols: &Subscribed, received_at: Timestamp) -> Result<Tick, DecodeError> {
        Ok(Tick {
            instrument: symbols.find(&self.symbol)?,
            trade_id: TradeId::Number(self.id),
            price: amount("p", &self.price)?,
            quantity: amount("q", &self.quantity)?,
            side: if self.buyer_is_maker { Side::Sell } else { Side::Buy },
            source: Source::Live,
            exchange_at: stamp(self.traded_at)?,
            received_at,
        })
    }
}

/// A time in either unit.
fn stamp(time: i64) -> Result<Timestamp, TimestampError> {
    if time >= MICROS_FROM { Timestamp::from_micros(time) } else { Timestamp::from_millis(time) }
}

/// Everything that is no trade: answers to requests, and events by their kind.
#[derive(Deserialize)]
struct Control<'a> {
    #[serde(borrow)]
    stream: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow, rename = "e")]
    event: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<Failure<'a>>,
    #[serde(borrow)]
    msg: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Failure<'a> {
    #[serde(borrow)]
    msg: Text<'a>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "e")]
    event: Text<'a>,
}

fn read_control(frame: &str) -> Result<Message, DecodeError> {
    let control: Control<'_> = serde_json::from_str(frame)?;
    let answered = control.id.and_then(|id| serde_json::from_str::<Text<'_>>(id.get()).ok());
    if answered.as_deref() == Some(UNSUBSCRIBE) {
        return Ok(Message::Other);
    }
    // Documented as {"code", "msg", "id"}; {"error": {"code", "msg"}, "id"} is seen as well.
    if let Some(words) = control.error.map(|failure| failure.msg).or(control.msg) {
        return Ok(Message::refused(None, &words));
    }
    if let Some(result) = control.result {
        // Only SUBSCRIBE, of what is left, is answered so; a list would answer LIST_SUBSCRIPTIONS.
        return Ok(match result.get() {
            "null" => Message::Acknowledged(Vec::new()),
            _ => Message::Other,
        });
    }
    let wrapped = control.data.and_then(|data| serde_json::from_str::<Event<'_>>(data.get()).ok());
    let event = wrapped.map(|data| data.event).or(control.event);
    // Book tickers and partial books carry no `e`, lists no object at all: their stream's name tells.
    let kind = match (&event, &control.stream) {
        (Some(event), _) => &**event,
        (None, Some(stream)) => kind_of_stream(stream),
        (None, None) => return Err(DecodeError::UnknownMessage),
    };
    match kind {
        "serverShutdown" => Ok(Message::Closing { reason: "serverShutdown".to_owned() }),
        // A trade comes here only when it could not be read as one: say why.
        "trade" => match control.data {
            Some(data) => serde_json::from_str::<Trade<'_>>(data.get()),
            None => serde_json::from_str::<Trade<'_>>(frame),
        }
        .map_or_else(|error| Err(error.into()), |_trade| Err(DecodeError::UnknownMessage)),
        other if OTHER_KINDS.contains(&other) => Ok(Message::Other),
        _ => Err(DecodeError::UnknownMessage),
    }
}

/// `btcusdt@depth20@100ms` -> `depth`, `!ticker@arr` -> `ticker`, `!serverShutdown` -> `serverShutdown`.
fn kind_of_stream(stream: &str) -> &str {
    let kind = match stream.strip_prefix('!') {
        Some(all) => all.split(['@', '_']).next(),
        None => stream.split('@').nth(1).map(|kind| kind.split('_').next().unwrap_or(kind)),
    };
    kind.unwrap_or_default().trim_end_matches(|character: char| character.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Trade as Told};
    use super::*;

    const WRAPPED: &str = r#"{"stream":"btcusdt@trade","data":{"e":"trade","E":1790000000120,"s":"BTCUSDT","t":5100200300,"p":"64000.10000000","q":"0.00150000","T":1790000000119,"m":true,"M":true}}"#;
    const RAW: &str = r#"{"e":"trade","E":1790000000120,"s":"ETHUSDT","t":7,"p":"3000.5","q":"1","T":1790000000119,"m":false,"M":true}"#;
    const SHUTDOWN: &str =
        r#"{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1790000000120}}"#;
    const ERROR: &str = r#"{"code":2,"msg":"Invalid request: unknown method","id":1}"#;

    fn write(trades: &[Told]) -> Vec<String> {
        let frame = |trade: &Told| {
            let stream = trade.symbol.to_lowercase();
            let at = trade.at.as_millis();
            let Told { symbol, id, price, quantity, .. } = trade;
            let sold = trade.side == Side::Sell;
            format!(
                r#"{{"stream":"{stream}@trade","data":{{"e":"trade","E":{at},"s":"{symbol}","t":{id},"p":"{price}","q":"{quantity}","T":{at},"m":{sold},"M":true}}}}"#
            )
        };
        trades.iter().map(frame).collect()
    }

    #[test]
    fn times_are_read_in_either_unit_and_told_apart_by_their_size() {
        let of = |time: &str| testing::decode_trade(&Binance, &RAW.replace("1790000000119", time));
        assert_eq!(of("1790000000119000").exchange_at, of("1790000000119").exchange_at);
        assert_eq!(of("1790000000119123").exchange_at.as_micros(), 1_790_000_000_119_123);
        assert_eq!(of("1499865549590").exchange_at.as_micros(), 1_499_865_549_590_000);
        assert!(stamp(999_999_999_999_999).is_err() && stamp(i64::MAX).is_err());
    }

    #[test]
    fn microseconds_are_asked_for_on_both_sides() {
        let base = "wss://stream.binance.com:9443/?timeUnit=MICROSECOND";
        let url = "wss://stream.binance.com:9443/stream?timeUnit=MICROSECOND";
        assert_eq!(Binance.connect_url(base), url);
        assert_eq!(Binance.history_headers(base), [("x-mbx-time-unit", "MICROSECOND")]);
        assert_eq!(Binance.history_headers("wss://h?timeUnit=MILLISECOND"), []);
    }

    #[test]
    fn a_trade_is_read_wrapped_and_raw() {
        let tick = testing::decode_trade(&Binance, WRAPPED);
        assert_eq!(
            tick,
            Tick {
                instrument: testing::instrument(&Binance, "BTCUSDT"),
                trade_id: TradeId::Number(5_100_200_300),
                price: testing::decimal("64000.10000000"),
                quantity: testing::decimal("0.00150000"),
                side: Side::Sell,
                source: Source::Live,
                exchange_at: Timestamp::from_millis(1_790_000_000_119).unwrap(),
                received_at: testing::received_at(),
            }
        );
        assert_eq!(tick.quantity.to_string(), "0.00150000");
        assert_eq!(testing::decode_trade(&Binance, RAW).trade_id, TradeId::Number(7));
    }

    #[test]
    fn the_taker_sold_when_the_buyer_was_the_maker() {
        assert_eq!(testing::decode_trade(&Binance, WRAPPED).side, Side::Sell);
        assert_eq!(testing::decode_trade(&Binance, RAW).side, Side::Buy);
    }

    #[test]
    fn answers_to_requests_are_told_apart() {
        let message = |frame| testing::decode_message(&Binance, frame);
        assert_eq!(message(r#"{"result":null,"id":1}"#), Message::Acknowledged(vec![]));
        assert_eq!(message(r#"{"result":["btcusdt@trade"],"id":3}"#), Message::Other);
        let refused = Message::Refused {
            instrument: None,
            reason: "Invalid request: unknown method".to_owned(),
        };
        assert_eq!(message(ERROR), refused);
        let nested = r#"{"error":{"code":2,"msg":"Invalid request: unknown method"},"id":1}"#;
        assert_eq!(message(nested), refused);
    }

    #[test]
    fn a_shutdown_is_announced_wrapped_and_raw() {
        let closing = Message::Closing { reason: "serverShutdown".to_owned() };
        assert_eq!(testing::decode_message(&Binance, SHUTDOWN), closing);
        let raw = r#"{"e":"serverShutdown","E":1790000000120}"#;
        assert_eq!(testing::decode_message(&Binance, raw), closing);
    }

    #[test]
    fn other_documented_streams_are_no_trades() {
        for frame in [
            r#"{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1,"s":"BTCUSDT","a":1,"p":"1","q":"1","f":1,"l":1,"T":1,"m":true,"M":true}}"#,
            r#"{"stream":"btcusdt@bookTicker","data":{"u":1,"s":"BTCUSDT","b":"1","B":"1","a":"2","A":"1"}}"#,
            r#"{"stream":"btcusdt@depth20@100ms","data":{"lastUpdateId":1,"bids":[],"asks":[]}}"#,
            r#"{"stream":"btcusdt@kline_1m","data":{"e":"kline","s":"BTCUSDT","k":{}}}"#,
            r#"{"stream":"!ticker_1h@arr","data":[]}"#,
        ] {
            assert_eq!(testing::decode_message(&Binance, frame), Message::Other, "{frame}");
        }
    }

    #[test]
    fn what_is_not_understood_says_why() {
        let error = |frame: &str| testing::decode_error(&Binance, frame);
        assert!(matches!(error(r#"{"e":"newKind"}"#), DecodeError::UnknownMessage));
        assert!(matches!(error("{}"), DecodeError::UnknownMessage));
        assert!(matches!(error("not json"), DecodeError::Json(_)));
        assert!(matches!(
            error(&WRAPPED.replace("BTCUSDT", "XYZUSDT")),
            DecodeError::UnknownSymbol(_)
        ));
        assert!(matches!(error(&WRAPPED.replace("0.0015", "0.-15")), DecodeError::Decimal(_)));
        assert!(matches!(
            error(&WRAPPED.replace("0.0015", "-0.0015")),
            DecodeError::UnknownValue { .. }
        ));
        // Nanoseconds, were they ever sent, are neither of the units.
        assert!(matches!(error(&WRAPPED.replace("119,", "119000000,")), DecodeError::Time(_)));
        // A trade with a new shape is a broken trade, not an unknown message.
        for frame in [WRAPPED, RAW] {
            assert!(matches!(error(&frame.replace("\"m\":", "\"mm\":")), DecodeError::Json(_)));
        }
    }

    #[test]
    fn a_subscription_is_split_below_the_length_that_silences_the_server() {
        let symbols: Vec<String> = (0..1024).map(|n| format!("{n:0>30}")).collect();
        let symbols: Vec<&str> = symbols.iter().map(String::as_str).collect();
        let messages = Binance.subscribe(&symbols);
        assert!(messages.iter().all(|message| message.len() <= 4_088));
        assert_eq!(messages.iter().map(|text| text.matches("@trade").count()).sum::<usize>(), 1024);
        assert_eq!(
            Binance.subscribe(&["BTCUSDT", "ETHUSDT"]),
            [r#"{"id":1,"method":"SUBSCRIBE","params":["btcusdt@trade","ethusdt@trade"]}"#]
        );
    }

    #[test]
    fn the_answer_to_unsubscribing_confirms_nothing() {
        assert_eq!(
            Binance.unsubscribe(&["BTCUSDT", "ETHUSDT"]),
            [
                r#"{"id":"unsubscribe","method":"UNSUBSCRIBE","params":["btcusdt@trade","ethusdt@trade"]}"#
            ]
        );
        for answer in [
            r#"{"result":null,"id":"unsubscribe"}"#,
            r#"{"code":2,"msg":"Invalid request","id":"unsubscribe"}"#,
        ] {
            assert_eq!(testing::decode_message(&Binance, answer), Message::Other);
        }
    }

    #[test]
    fn prop_a_trade_is_read_as_it_was_told() {
        testing::prop_a_trade_is_read_as_it_was_told(&Binance, false, write);
    }

    #[test]
    fn prop_a_number_is_exact_or_refused() {
        testing::prop_a_number_is_exact_or_refused(&Binance, write);
    }

    #[test]
    fn prop_any_text_is_answered() {
        testing::prop_any_text_is_answered(&Binance, &[WRAPPED, RAW, SHUTDOWN, ERROR]);
    }
}
