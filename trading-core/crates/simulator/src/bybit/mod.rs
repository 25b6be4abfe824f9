//! Bybit v5 spot as a client sees it: `publicTrade` in batches, JSON pings from the client, and a REST history
//! that goes back sixty trades and no further, unless the options ask for more.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value;

use super::market::{Candle, Listing, Market, Trade, hash};
use super::outbox::{Outbox, decimal, millis, number};
use super::reply::{Query, Reply, Request};
use super::session::{Channel, Context, Protocol, Subscription};
use super::venue::{Digits, Facts, RestLimit, Twin, Venue};
use domain::{Side, Timestamp};

const MINUTE_US: i64 = 60 * 1_000_000;
const IDLE_US: i64 = 10 * MINUTE_US;
/// Topics in one request at most, on the spot market.
const ARGS_MAX: usize = 10;
/// What the real venue shows of a symbol's newest trades.
const TRADES_MAX: u64 = 60;
/// Trades in one message at most.
const MESSAGE_TRADES: u64 = 1_024;

/// Bybit spot, v5.
struct Bybit;

impl Venue {
    /// Bybit spot, v5.
    pub const BYBIT: Self = Self(&Bybit);
}

static FACTS: Facts = Facts {
    name: "bybit",
    quotes: &["USDT", "USDC", "EUR", "BTC"],
    own_pairs: &[],
    has_small_letters: false,
    resolution_us: 1_000,
    significant_digits: 6,
    price_decimals_max: 10,
    lot_decimals: (1, 6),
    price_digits: Digits::Trimmed,
    quantity_digits: Digits::Trimmed,
    // A prefix per symbol, then a count: 2290000000050703789 in real frames.
    first_id: |bits| {
        2_200_000_000_000_000_000 + (bits % 1_000) * 1_000_000_000_000_000 + 50_000_000
    },
    other_ids: 0,
    spelling: |symbol| symbol.as_str().to_owned(),
    // 600 in 5 s.
    limit: RestLimit { burst: 600, per_second: 120 },
    banned: 429,
};

impl Twin for Bybit {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn connect(
        &self,
        market: &Market,
        path: &[&str],
        _query: &Query,
        number: u64,
    ) -> Option<Box<dyn Protocol>> {
        Some(Box::new(Connection::new(market.clone(), path, number)?))
    }

    fn rest(&self, market: &Market, request: &Request<'_>) -> Reply {
        let Request { path, query, now, history } = *request;
        let ["v5", "market", route, ..] = path else { return Reply::not_found() };
        let is_spot = query.get("category") == Some("spot");
        match *route {
            "time" => {
                let micros = now.as_micros();
                let result = format!(
                    r#"{{"timeSecond":"{}","timeNano":"{micros}000"}}"#,
                    micros / 1_000_000
                );
                ok(&result, now)
            }
            "instruments-info" => instruments(market, query, now),
            "recent-trade" | "kline" => {
                let name = query.get("symbol").unwrap_or("");
                match market.spelled(Venue::BYBIT, name).filter(|_| is_spot) {
                    Some(listing) if *route == "kline" => candles(listing, query, now),
                    Some(listing) => trades(listing, query, now, history),
                    None => error("Not supported symbols", now),
                }
            }
            _ => Reply::not_found(),
        }
    }

    fn refusal(&self, _retry_after: u64, now: Timestamp) -> Reply {
        Reply::ok(format!(
            r#"{{"retCode":10006,"retMsg":"Too many visits!","result":{{}},"retExtInfo":{{}},"time":{}}}"#,
            now.as_millis()
        ))
    }

    #[cfg(test)]
    fn example(&self) -> super::harness::Example {
        super::harness::Example {
            path: "v5/public/spot",
            subscribe: r#"{"op":"subscribe","args":["publicTrade.BTCUSDT"]}"#,
            id: "i",
        }
    }
}

/// One client's topics.
#[derive(Debug)]
struct Connection {
    market: Market,
    connection: String,
    alive_at: Option<Timestamp>,
}

impl Connection {
    /// `/v5/public/spot`.
    fn new(market: Market, path: &[&str], number: u64) -> Option<Self> {
        let ["v5", "public", "spot", ..] = path else { return None };
        let (high, low) = (hash(market.seed(), number), hash(market.seed() ^ 1, number));
        let connection = format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            high >> 32,
            high & 0xFFFF,
            (high >> 16) & 0xFFF,
            low & 0xFFF,
            low >> 16
        );
        Some(Self { market, connection, alive_at: None })
    }

    fn answer(&self, is_good: bool, message: &str, request: &Value, out: &mut Outbox) {
        let (message, connection) = (Value::from(message), &self.connection);
        let id = request.get("req_id").and_then(Value::as_str).unwrap_or("");
        let op = request.get("op").and_then(Value::as_str).unwrap_or("");
        let (id, op) = (Value::from(id), Value::from(op));
        out.send(&format!(
            r#"{{"success":{is_good},"ret_msg":{message},"conn_id":"{connection}","req_id":{id},"op":{op}}}"#
        ));
    }

    /// The symbols of all topics; one topic that is none fails the request.
    fn topics(&self, request: &Value) -> Result<Vec<Arc<Listing>>, String> {
        let args = request.get("args").and_then(Value::as_array).ok_or("error:args is empty")?;
        if args.len() > ARGS_MAX {
            return Err(format!("args size >{ARGS_MAX}"));
        }
        args.iter()
            .map(|topic| {
                let topic = topic.as_str().unwrap_or("");
                topic
                    .strip_prefix("publicTrade.")
                    .and_then(|symbol| self.market.spelled(Venue::BYBIT, symbol))
                    .map(Arc::clone)
                    .ok_or_else(|| format!("error:handler not found, topic:{topic}"))
            })
            .collect()
    }
}

impl Protocol for Connection {
    fn opened(&mut self, context: &mut Context<'_>) {
        self.alive_at = Some(context.now);
    }

    fn text(&mut self, text: &str, context: &mut Context<'_>) {
        self.alive_at = Some(context.now);
        let request: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        match request.get("op").and_then(Value::as_str) {
            Some("ping") => self.answer(true, "pong", &request, context.out),
            Some(op @ ("subscribe" | "unsubscribe")) => match self.topics(&request) {
                Ok(listings) => {
                    // The acknowledgement comes first, the trades after it.
                    self.answer(true, op, &request, context.out);
                    for listing in listings {
                        if op == "subscribe" {
                            context.subscribe(&listing, Channel::Trades);
                        } else {
                            context.unsubscribe(&listing, Channel::Trades);
                        }
                    }
                }
                Err(message) => self.answer(false, &message, &request, context.out),
            },
            _ => self.answer(false, "error:unknown op", &request, context.out),
        }
    }

    fn tick(&mut self, context: &mut Context<'_>) {
        let silent = self.alive_at.map_or(0, |at| context.now.as_micros() - at.as_micros());
        if silent >= IDLE_US {
            context.out.close(1000, "No traffic in 10 minutes");
        }
    }

    fn write(
        &mut self,
        of: &Subscription,
        first: u64,
        last: u64,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        self.alive_at = Some(now);
        let mut next = first;
        while next <= last {
            let last_of_message = last.min(next + MESSAGE_TRADES - 1);
            let mut trades = of.listing.trades(next..=last_of_message).peekable();
            next = last_of_message + 1;
            if trades.peek().is_none() {
                continue;
            }
            let text = out.text();
            text.push_str(r#"{"topic":"publicTrade."#);
            text.push_str(of.listing.spelling());
            text.push_str(r#"","ts":"#);
            millis(text, now);
            text.push_str(r#","type":"snapshot","data":["#);
            for (place, trade) in trades.enumerate() {
                if place > 0 {
                    text.push(',');
                }
                write_trade(text, &of.listing, &trade);
            }
            text.push_str("]}");
            out.end();
        }
    }
}

fn write_trade(text: &mut String, listing: &Listing, trade: &Trade) {
    text.push_str(r#"{"i":""#);
    number(text, trade.id);
    text.push_str(r#"","T":"#);
    millis(text, trade.at);
    text.push_str(r#","p":""#);
    decimal(text, trade.price);
    text.push_str(r#"","v":""#);
    decimal(text, trade.quantity);
    text.push_str(r#"","S":""#);
    text.push_str(side(trade.side));
    text.push_str(r#"","seq":"#);
    number(text, sequence(listing, trade.id));
    text.push_str(r#","s":""#);
    text.push_str(listing.spelling());
    text.push_str(r#"","BT":false,"RPI":false}"#);
}

const fn side(side: Side) -> &'static str {
    match side {
        Side::Buy => "Buy",
        Side::Sell => "Sell",
    }
}

/// Shared by the trades of one match; it rises, with holes.
fn sequence(listing: &Listing, id: u64) -> u64 {
    listing.order(id).map_or(0, |order| order.number * 17)
}

fn ok(result: &str, now: Timestamp) -> Reply {
    let time = now.as_millis();
    Reply::ok(format!(
        r#"{{"retCode":0,"retMsg":"OK","result":{result},"retExtInfo":{{}},"time":{time}}}"#
    ))
}

fn error(message: &str, now: Timestamp) -> Reply {
    let time = now.as_millis();
    Reply::ok(format!(
        r#"{{"retCode":10001,"retMsg":"{message}","result":{{}},"retExtInfo":{{}},"time":{time}}}"#
    ))
}

fn trades(listing: &Listing, query: &Query, now: Timestamp, history: Option<usize>) -> Reply {
    let limit = history.unwrap_or_else(|| {
        let limit = query.number("limit").unwrap_or(TRADES_MAX).clamp(1, TRADES_MAX);
        usize::try_from(limit).unwrap_or(0)
    });
    let latest = listing.latest(now).unwrap_or(0);
    let mut list = String::new();
    for trade in listing.trades(listing.first_id()..=latest).rev().take(limit) {
        let Trade { id, price, quantity, side: taker, at } = trade;
        let separator = if list.is_empty() { "" } else { "," };
        let written = write!(
            list,
            r#"{separator}{{"execId":"{id}","symbol":"{}","price":"{price}","size":"{quantity}","side":"{}","time":"{}","isBlockTrade":false,"isRPITrade":false,"seq":"{}"}}"#,
            listing.spelling(),
            side(taker),
            at.as_millis(),
            sequence(listing, id),
        );
        debug_assert!(written.is_ok(), "a string takes all text");
    }
    ok(&format!(r#"{{"category":"spot","list":[{list}]}}"#), now)
}

/// Newest first: those that begin within `start` and `end`, in milliseconds.
fn candles(listing: &Listing, query: &Query, now: Timestamp) -> Reply {
    if query.get("interval") != Some("1") {
        return error("Invalid period!", now);
    }
    let minutes = query.number("limit").unwrap_or(200).clamp(1, 1_000);
    let minutes = i64::try_from(minutes).unwrap_or(0) - 1;
    let time = |name| Timestamp::from_millis(i64::try_from(query.number(name)?).ok()?).ok();
    let to = time("end").map_or(now, |end| end.min(now));
    let oldest = to.minute().plus_micros(-minutes * MINUTE_US);
    // A minute that began before the time is left out.
    let start = time("start").map(|start| start.plus_micros(MINUTE_US - 1).minute());
    let from = start.map_or(oldest, |start| start.max(oldest));
    let rows: Vec<String> = listing
        .candles(from, to, now)
        .rev()
        .map(|candle| {
            let Candle { minute, open, high, low, close, volume, value, .. } = candle;
            let start = minute.as_millis();
            format!(r#"["{start}","{open}","{high}","{low}","{close}","{volume}","{value}"]"#)
        })
        .collect();
    let symbol = listing.spelling();
    let list = rows.join(",");
    ok(&format!(r#"{{"category":"spot","symbol":"{symbol}","list":[{list}]}}"#), now)
}

fn instruments(market: &Market, query: &Query, now: Timestamp) -> Reply {
    let category = match query.get("category") {
        Some("spot") => "spot",
        // Other markets exist at Bybit, and are empty here.
        Some(other @ ("linear" | "inverse" | "option")) => {
            let result = format!(r#"{{"category":"{other}","list":[],"nextPageCursor":""}}"#);
            return ok(&result, now);
        }
        _ => return error("Illegal category", now),
    };
    let only = query.get("symbol");
    let all: Vec<String> = market
        .listings(Venue::BYBIT)
        .filter(|listing| only.is_none_or(|name| listing.spelling() == name))
        .map(|listing| {
            let (base, quote) = (listing.symbol().base(), listing.symbol().quote());
            let (tick, lot) = (listing.tick_size(), listing.lot_size());
            format!(
                r#"{{"symbol":"{base}{quote}","baseCoin":"{base}","quoteCoin":"{quote}","innovation":"0","status":"Trading","marginTrading":"none","lotSizeFilter":{{"basePrecision":"{lot}","quotePrecision":"0.0000000001","minOrderQty":"{lot}","maxOrderQty":"1000000000","minOrderAmt":"1","maxOrderAmt":"4000000"}},"priceFilter":{{"tickSize":"{tick}"}}}}"#
            )
        })
        .collect();
    ok(&format!(r#"{{"category":"{category}","list":[{}]}}"#, all.join(",")), now)
}

#[cfg(test)]
mod tests;
