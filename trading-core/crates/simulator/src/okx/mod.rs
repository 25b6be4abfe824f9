//! OKX v5 as a client sees it: `trades` (aggregated) on the public socket, `trades-all` on the business one, the
//! bare-text ping, and the REST history by id.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value;

use super::market::{Candle, Listing, Market, Trade, hash};
use super::outbox::{Outbox, decimal, millis, number};
use super::reply::{Query, Reply, Request};
use super::session::{Channel, Context, Protocol, Subscription};
use super::venue::{Digits, Facts, RestLimit, Twin, Venue};
use domain::Timestamp;

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;
const IDLE_US: i64 = 30 * SECOND_US;
const HOUR_US: i64 = 3_600 * SECOND_US;
/// Requests of one connection in an hour, pings aside.
const REQUESTS_PER_HOUR: usize = 480;

/// OKX spot, v5.
struct Okx;

impl Venue {
    /// OKX spot, v5.
    pub const OKX: Self = Self(&Okx);
}

static FACTS: Facts = Facts {
    name: "okx",
    quotes: &["USDT", "USDC", "USD", "BTC"],
    own_pairs: &[],
    has_small_letters: false,
    resolution_us: 1_000,
    significant_digits: 6,
    price_decimals_max: 10,
    lot_decimals: (3, 8),
    price_digits: Digits::Trimmed,
    quantity_digits: Digits::Trimmed,
    first_id: |bits| 50_000_000 + bits * 5_003,
    other_ids: 0,
    spelling: |symbol| format!("{}-{}", symbol.base(), symbol.quote()),
    // 20 in 2 s.
    limit: RestLimit { burst: 20, per_second: 10 },
    banned: 429,
};

impl Twin for Okx {
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
        let Request { path, query, now, .. } = *request;
        let ["api", "v5", room, route, ..] = path else { return Reply::not_found() };
        match (*room, *route) {
            ("public", "time") => ok(&format!(r#"{{"ts":"{}"}}"#, now.as_millis())),
            ("public", "instruments") => instruments(market, query),
            ("market", "trades" | "history-trades" | "candles" | "history-candles") => {
                let name = query.get("instId").unwrap_or("");
                let Some(listing) = market.spelled(Venue::OKX, name) else {
                    return Reply::ok(
                        r#"{"code":"51001","msg":"Instrument ID doesn't exist","data":[]}"#,
                    );
                };
                let limit = |most| query.number("limit").unwrap_or(100).clamp(1, most);
                match *route {
                    "trades" => trades(listing, &Query::default(), limit(500), now),
                    "history-trades" => trades(listing, query, limit(100), now),
                    "candles" => candles(listing, query, limit(300), now),
                    _ => candles(listing, query, limit(100), now),
                }
            }
            _ => Reply::not_found(),
        }
    }

    fn refusal(&self, _retry_after: u64, _now: Timestamp) -> Reply {
        Reply::error(429, r#"{"msg":"Too Many Requests","code":"50011"}"#)
    }

    #[cfg(test)]
    fn example(&self) -> super::harness::Example {
        super::harness::Example {
            path: "ws/v5/business",
            subscribe: r#"{"op":"subscribe","args":[{"channel":"trades-all","instId":"BTC-USDT"}]}"#,
            id: "tradeId",
        }
    }
}

/// One client's channels.
#[derive(Debug)]
struct Connection {
    market: Market,
    channel: Channel,
    connection: String,
    /// When something was last pushed, or heard.
    alive_at: Option<Timestamp>,
    hour: Option<Timestamp>,
    requests: usize,
}

impl Connection {
    /// `/ws/v5/public` or `/ws/v5/business`.
    fn new(market: Market, path: &[&str], number: u64) -> Option<Self> {
        let channel = match path {
            ["ws", "v5", "public", ..] => Channel::Orders,
            ["ws", "v5", "business", ..] => Channel::Trades,
            _ => return None,
        };
        let connection = format!("{:08x}", hash(market.seed(), number) >> 32);
        Some(Self { market, channel, connection, alive_at: None, hour: None, requests: 0 })
    }

    fn error(&self, code: u32, message: &str, out: &mut Outbox) {
        let (message, connection) = (Value::from(message), &self.connection);
        out.send(&format!(
            r#"{{"event":"error","code":"{code}","msg":{message},"connId":"{connection}"}}"#
        ));
    }

    fn request(&mut self, text: &str, context: &mut Context<'_>) {
        let request: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        let op = request.get("op").and_then(Value::as_str);
        let args = request.get("args").and_then(Value::as_array);
        let (Some(op @ ("subscribe" | "unsubscribe")), Some(args)) = (op, args) else {
            self.error(60012, &format!("Invalid request: {text}"), context.out);
            return;
        };
        let id = request.get("id").map_or_else(String::new, |id| format!(r#""id":{id},"#));
        for arg in args {
            let part = |name| arg.get(name).and_then(Value::as_str).unwrap_or("");
            let (channel, name) = (part("channel"), part("instId"));
            let listing = self
                .market
                .spelled(Venue::OKX, name)
                .filter(|_| channel == channel_name(self.channel))
                .map(Arc::clone);
            let Some(listing) = listing else {
                let message = format!(
                    "Wrong URL or channel:{channel},instId:{name} doesn't exist. Please use the correct URL, channel and parameters referring to API document."
                );
                self.error(60018, &message, context.out);
                continue;
            };
            let connection = &self.connection;
            context.out.send(&format!(
                r#"{{{id}"event":"{op}","arg":{{"channel":"{channel}","instId":"{name}"}},"connId":"{connection}"}}"#
            ));
            if op == "unsubscribe" {
                context.unsubscribe(&listing, self.channel);
            } else if context.subscribe(&listing, self.channel) {
                self.push_last(&listing, context);
            }
        }
    }

    /// On subscribing, the last push is sent again, unmarked.
    fn push_last(&mut self, listing: &Arc<Listing>, context: &mut Context<'_>) {
        let Some(latest) = listing.latest(context.now) else { return };
        let first = match self.channel {
            Channel::Orders => listing.order(latest).map_or(latest, |order| order.first),
            Channel::Trades => latest,
        };
        let of = Subscription {
            listing: Arc::clone(listing),
            channel: self.channel,
            next: first,
            since: context.now,
            is_silent: false,
        };
        self.write(&of, first, latest, context.now, context.out);
    }
}

const fn channel_name(channel: Channel) -> &'static str {
    match channel {
        Channel::Orders => "trades",
        Channel::Trades => "trades-all",
    }
}

impl Protocol for Connection {
    fn opened(&mut self, context: &mut Context<'_>) {
        self.alive_at = Some(context.now);
        self.hour = Some(context.now);
    }

    fn text(&mut self, text: &str, context: &mut Context<'_>) {
        self.alive_at = Some(context.now);
        if text == "ping" {
            context.out.send("pong");
            return;
        }
        let hour = self.hour.map_or(0, |hour| context.now.as_micros() - hour.as_micros());
        if hour >= HOUR_US {
            self.hour = Some(context.now);
            self.requests = 0;
        }
        self.requests += 1;
        if self.requests > REQUESTS_PER_HOUR {
            self.error(60014, "Requests too frequent", context.out);
            return;
        }
        self.request(text, context);
    }

    fn shutdown(&mut self, context: &mut Context<'_>) {
        let connection = &self.connection;
        context.out.send(&format!(
            r#"{{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade. Please reconnect.","connId":"{connection}"}}"#
        ));
    }

    fn tick(&mut self, context: &mut Context<'_>) {
        let silent = self.alive_at.map_or(0, |at| context.now.as_micros() - at.as_micros());
        if silent >= IDLE_US {
            context.out.close(4004, "No data received in 30s.");
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
        let mut id = first;
        while id <= last {
            let end = match of.channel {
                Channel::Orders => {
                    let last = of.listing.order(id).map_or(id, |order| order.last);
                    of.listing.last_issued(id, last)
                }
                Channel::Trades => id,
            };
            // Never issued.
            let Some(trade) = of.listing.trade(end) else {
                id += 1;
                continue;
            };
            let text = out.text();
            text.push_str(r#"{"arg":{"channel":""#);
            text.push_str(channel_name(of.channel));
            text.push_str(r#"","instId":""#);
            text.push_str(of.listing.spelling());
            text.push_str(r#""},"data":[{"instId":""#);
            text.push_str(of.listing.spelling());
            text.push_str(r#"","tradeId":""#);
            number(text, end);
            text.push_str(r#"","px":""#);
            decimal(text, trade.price);
            text.push_str(r#"","sz":""#);
            decimal(text, of.listing.traded(id, end));
            text.push_str(r#"","side":""#);
            text.push_str(trade.side.as_str());
            text.push_str(r#"","ts":""#);
            millis(text, trade.at);
            if of.channel == Channel::Orders {
                text.push_str(r#"","count":""#);
                let count = of.listing.trades(id..=end).count();
                number(text, u64::try_from(count).unwrap_or(0));
            }
            text.push_str(r#"","source":"0""#);
            if of.channel == Channel::Orders {
                text.push_str(r#","seqId":"#);
                number(text, (end - of.listing.first_id()) * 3);
            }
            text.push_str("}]}");
            out.end();
            id = end + 1;
        }
    }
}

fn ok(data: &str) -> Reply {
    Reply::ok(format!(r#"{{"code":"0","msg":"","data":[{data}]}}"#))
}

/// Newest first: older than `after`, newer than `before`, which are ids (type 1) or times (type 2).
fn trades(listing: &Listing, query: &Query, limit: u64, now: Timestamp) -> Reply {
    let is_by_time = query.get("type") == Some("2");
    let first_since = |value: u64| time(value).map_or(u64::MAX, |at| listing.first_since(at));
    let older_than =
        query.number("after").map(|after| if is_by_time { first_since(after) } else { after });
    let newer_than = query.number("before").map(|before| {
        if is_by_time { first_since(before.saturating_add(1)).saturating_sub(1) } else { before }
    });
    let latest = listing.latest(now).unwrap_or(0);
    let newest = older_than.map_or(latest, |id| latest.min(id.saturating_sub(1)));
    let oldest = newer_than.map_or(0, |id| id.saturating_add(1)).max(listing.first_id());
    let limit = usize::try_from(limit).unwrap_or(0);
    let mut data = String::new();
    for Trade { id, price, quantity, side, at } in listing.trades(oldest..=newest).rev().take(limit)
    {
        let separator = if data.is_empty() { "" } else { "," };
        let written = write!(
            data,
            r#"{separator}{{"instId":"{}","side":"{}","sz":"{quantity}","px":"{price}","source":"0","tradeId":"{id}","ts":"{}"}}"#,
            listing.spelling(),
            side.as_str(),
            at.as_millis(),
        );
        debug_assert!(written.is_ok(), "a string takes all text");
    }
    ok(&data)
}

fn time(millis: u64) -> Option<Timestamp> {
    Timestamp::from_millis(i64::try_from(millis).ok()?).ok()
}

/// Newest first: those that begin before `after` and behind `before`, in milliseconds.
fn candles(listing: &Listing, query: &Query, limit: u64, now: Timestamp) -> Reply {
    if query.get("bar").is_some_and(|bar| bar != "1m") {
        return Reply::ok(r#"{"code":"51000","msg":"Parameter bar error","data":[]}"#);
    }
    let after = query.number("after").and_then(time);
    let to = after.map_or(now, |after| after.plus_micros(-1).min(now));
    let minutes = i64::try_from(limit).unwrap_or(0) - 1;
    let oldest = to.minute().plus_micros(-minutes * MINUTE_US);
    let before = query.number("before").and_then(time);
    let from = before.map_or(oldest, |at| at.minute().plus_micros(MINUTE_US).max(oldest));
    let rows: Vec<String> = listing
        .candles(from, to, now)
        .rev()
        .map(|candle| {
            let Candle { minute, open, high, low, close, volume, value, .. } = candle;
            let is_over = u8::from(minute < now.minute());
            let start = minute.as_millis();
            format!(
                r#"["{start}","{open}","{high}","{low}","{close}","{volume}","{value}","{value}","{is_over}"]"#
            )
        })
        .collect();
    ok(&rows.join(","))
}

fn instruments(market: &Market, query: &Query) -> Reply {
    let Some(kind) = query.get("instType") else {
        return Reply::error(
            400,
            r#"{"code":"50014","msg":"Parameter instType can not be empty","data":[]}"#,
        );
    };
    if kind != "SPOT" {
        return ok("");
    }
    let only = query.get("instId");
    if only.is_some_and(|name| market.spelled(Venue::OKX, name).is_none()) {
        return Reply::ok(r#"{"code":"51001","msg":"Instrument ID doesn't exist","data":[]}"#);
    }
    let all: Vec<String> = market
        .listings(Venue::OKX)
        .filter(|listing| only.is_none_or(|name| listing.spelling() == name))
        .map(|listing| {
            let (base, quote) = (listing.symbol().base(), listing.symbol().quote());
            let (tick, lot) = (listing.tick_size(), listing.lot_size());
            format!(
                r#"{{"alias":"","baseCcy":"{base}","category":"1","ctMult":"","ctType":"","ctVal":"","ctValCcy":"","expTime":"","instFamily":"","instId":"{base}-{quote}","instType":"SPOT","lever":"","listTime":"1577836800000","lotSz":"{lot}","minSz":"{lot}","optType":"","quoteCcy":"{quote}","settleCcy":"","state":"live","stk":"","tickSz":"{tick}","uly":""}}"#
            )
        })
        .collect();
    ok(&all.join(","))
}

#[cfg(test)]
mod tests;
