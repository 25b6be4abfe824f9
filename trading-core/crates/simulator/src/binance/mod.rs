//! Binance spot as a client sees it: raw and combined trade streams, pings, limits, and the REST history by id.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde_json::Value;

use super::market::{Candle, Listing, Market, Trade};
use super::outbox::{Outbox, decimal, millis, number};
use super::reply::{Query, Reply, Request};
use super::session::{Channel, Context, Protocol, Subscription};
use super::venue::{Digits, Facts, RestLimit, Twin, Venue};
use domain::{Side, Timestamp};

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;
/// Messages a client may send in a second, of every kind.
const MESSAGES_PER_SECOND: usize = 5;
const STREAMS_MAX: usize = 1_024;
const PING_EVERY_US: i64 = 20 * SECOND_US;
const PONG_WITHIN_US: i64 = 60 * SECOND_US;
/// A connection is valid for a day; the notice comes a minute before.
const LIFETIME_US: i64 = 24 * 3_600 * SECOND_US;
const NOTICE_US: i64 = LIFETIME_US - 60 * SECOND_US;

/// Binance spot.
struct Binance;

impl Venue {
    /// Binance spot.
    pub const BINANCE: Self = Self(&Binance);
}

static FACTS: Facts = Facts {
    name: "binance",
    quotes: &["USDT", "USDC", "FDUSD", "EUR", "BTC"],
    own_pairs: &[("币安人生", "USDT")],
    has_small_letters: false,
    resolution_us: 1_000,
    significant_digits: 7,
    price_decimals_max: 8,
    lot_decimals: (0, 5),
    price_digits: Digits::Padded(8),
    quantity_digits: Digits::Padded(8),
    first_id: |bits| 100_000_000 + bits * 10_007,
    other_ids: 0,
    spelling: |symbol| symbol.as_str().to_owned(),
    // A weight of 6,000 a minute.
    limit: RestLimit { burst: 6_000, per_second: 100 },
    banned: 418,
};

impl Twin for Binance {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn connect(
        &self,
        market: &Market,
        path: &[&str],
        query: &Query,
        _number: u64,
    ) -> Option<Box<dyn Protocol>> {
        Some(Box::new(Connection::new(market.clone(), path, query)?))
    }

    fn rest(&self, market: &Market, request: &Request<'_>) -> Reply {
        let Request { path, query, now, .. } = *request;
        let ["api", "v3", route, ..] = path else { return Reply::not_found() };
        match *route {
            "ping" => Reply::ok("{}"),
            "time" => Reply::ok(format!(r#"{{"serverTime":{}}}"#, now.as_millis())),
            "exchangeInfo" => exchange_info(market, query, now),
            "ticker" if path.last() == Some(&"price") => prices_of_all(market, now),
            "trades" | "historicalTrades" | "aggTrades" | "klines" => {
                let Some(symbol) = query.get("symbol") else {
                    return Reply::error(
                        400,
                        r#"{"code":-1102,"msg":"Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."}"#,
                    );
                };
                let Some(listing) = market.listing(Venue::BINANCE, symbol) else {
                    return Reply::error(400, r#"{"code":-1121,"msg":"Invalid symbol."}"#);
                };
                let limit = query.number("limit").unwrap_or(500).clamp(1, 1_000);
                let from = query.number("fromId").filter(|_| *route != "trades");
                match *route {
                    "aggTrades" => orders(listing, from, limit, query, now),
                    "klines" => candles(listing, limit, query, now),
                    _ => trades(listing, from, limit, now),
                }
            }
            _ => Reply::not_found(),
        }
    }

    /// As documented.
    fn weight(&self, path: &[&str]) -> u64 {
        match path {
            ["api", "v3", "trades" | "historicalTrades", ..] => 25,
            ["api", "v3", "exchangeInfo", ..] => 20,
            ["api", "v3", "aggTrades", ..] => 4,
            ["api", "v3", "klines", ..] => 2,
            _ => 1,
        }
    }

    fn refusal(&self, retry_after: u64, _now: Timestamp) -> Reply {
        Reply::error(
            429,
            r#"{"code":-1003,"msg":"Too much request weight used; current limit is 6000 request weight per 1 MINUTE. Please use WebSocket Streams for live updates to avoid polling the API."}"#,
        )
        .with_header("retry-after", retry_after.to_string())
    }

    #[cfg(test)]
    fn example(&self) -> super::harness::Example {
        super::harness::Example {
            path: "stream",
            subscribe: r#"{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}"#,
            id: "t",
        }
    }
}

/// One client's streams.
#[derive(Debug)]
struct Connection {
    market: Market,
    /// Streams named in the URL.
    asked: Vec<String>,
    combined: bool,
    microseconds: bool,
    /// When the last few messages came.
    messages: VecDeque<Timestamp>,
    opened_at: Option<Timestamp>,
    pinged_at: Option<Timestamp>,
    unanswered_since: Option<Timestamp>,
    warned: bool,
}

impl Connection {
    /// The streams of `/ws`, `/ws/<stream>` or `/stream?streams=`.
    fn new(market: Market, path: &[&str], query: &Query) -> Option<Self> {
        let asked = match path {
            ["ws", streams @ ..] => streams.iter().map(|name| (*name).to_owned()).collect(),
            ["stream", ..] => query
                .get("streams")
                .into_iter()
                .flat_map(|streams| streams.split('/'))
                .map(str::to_owned)
                .collect(),
            _ => return None,
        };
        Some(Self {
            market,
            asked,
            combined: path.first() == Some(&"stream"),
            microseconds: query
                .get("timeUnit")
                .is_some_and(|unit| unit.eq_ignore_ascii_case("microsecond")),
            messages: VecDeque::new(),
            opened_at: None,
            pinged_at: None,
            unanswered_since: None,
            warned: false,
        })
    }

    fn stream(&self, name: &str) -> Option<(Arc<Listing>, Channel)> {
        let (symbol, channel) = name.split_once('@')?;
        let channel = match channel {
            "trade" => Channel::Trades,
            "aggTrade" => Channel::Orders,
            _ => return None,
        };
        // Names are in lower case; another case is no error, and never delivers.
        let is_lower = !symbol.chars().any(char::is_uppercase);
        let listing = self.market.listing(Venue::BINANCE, &symbol.to_uppercase())?;
        is_lower.then(|| (Arc::clone(listing), channel))
    }

    fn request(&mut self, request: &Value, context: &mut Context<'_>) {
        let id = request.get("id").cloned().unwrap_or(Value::Null);
        let names: Option<Vec<&str>> = request
            .get("params")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect());
        let answer = match (request.get("method").and_then(Value::as_str), names) {
            (Some("SUBSCRIBE"), Some(names)) => {
                if context.subscriptions.len() + names.len() > STREAMS_MAX {
                    context.out.close(1008, "Too many streams");
                    return;
                }
                for (listing, channel) in names.iter().filter_map(|name| self.stream(name)) {
                    context.subscribe(&listing, channel);
                }
                "null".to_owned()
            }
            (Some("UNSUBSCRIBE"), Some(names)) => {
                for (listing, channel) in names.iter().filter_map(|name| self.stream(name)) {
                    context.unsubscribe(&listing, channel);
                }
                "null".to_owned()
            }
            (Some("LIST_SUBSCRIPTIONS"), _) => {
                let names: Vec<String> = context.subscriptions.iter().map(name_of).collect();
                Value::from(names).to_string()
            }
            (Some("SET_PROPERTY"), _) => {
                let combined = request.pointer("/params/1").and_then(Value::as_bool);
                self.combined = combined.unwrap_or(self.combined);
                "null".to_owned()
            }
            (Some("GET_PROPERTY"), _) => self.combined.to_string(),
            _ => {
                let text = format!(
                    r#"{{"code":2,"msg":"Invalid request: unknown variant, expected one of `SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY`","id":{id}}}"#
                );
                context.out.send(&text);
                return;
            }
        };
        context.out.send(&format!(r#"{{"result":{answer},"id":{id}}}"#));
    }

    fn time(&self, text: &mut String, at: Timestamp) {
        if self.microseconds {
            number(text, at.as_micros().cast_unsigned());
        } else {
            millis(text, at);
        }
    }

    fn begin(&self, text: &mut String, of: &Subscription) {
        if self.combined {
            text.push_str(r#"{"stream":""#);
            text.push_str(&name_of(of));
            text.push_str(r#"","data":"#);
        }
    }

    fn finish(&self, trade: &Trade, out: &mut Outbox) {
        let text = out.text();
        text.push_str(r#","T":"#);
        self.time(text, trade.at);
        text.push_str(if trade.side == Side::Sell { r#","m":true"# } else { r#","m":false"# });
        text.push_str(r#","M":true}"#);
        if self.combined {
            text.push('}');
        }
        out.end();
    }
}

fn name_of(subscription: &Subscription) -> String {
    let channel = match subscription.channel {
        Channel::Trades => "trade",
        Channel::Orders => "aggTrade",
    };
    format!("{}@{channel}", subscription.listing.spelling().to_lowercase())
}

impl Protocol for Connection {
    fn opened(&mut self, context: &mut Context<'_>) {
        self.opened_at = Some(context.now);
        self.pinged_at = Some(context.now);
        let streams: Vec<_> = self.asked.iter().filter_map(|name| self.stream(name)).collect();
        for (listing, channel) in streams {
            context.subscribe(&listing, channel);
        }
    }

    fn text(&mut self, text: &str, context: &mut Context<'_>) {
        let a_second_ago = context.now.as_micros() - SECOND_US;
        self.messages.retain(|at| at.as_micros() > a_second_ago);
        self.messages.push_back(context.now);
        if self.messages.len() > MESSAGES_PER_SECOND {
            context.out.close(1008, "Too many requests");
            return;
        }
        match serde_json::from_str::<Value>(text) {
            Ok(request) => self.request(&request, context),
            Err(error) => {
                let message = Value::from(format!("Invalid JSON: {error}"));
                context.out.send(&format!(r#"{{"code":3,"msg":{message}}}"#));
            }
        }
    }

    fn pong(&mut self, _now: Timestamp) {
        self.unanswered_since = None;
    }

    fn shutdown(&mut self, context: &mut Context<'_>) {
        self.warned = true;
        let mut event = r#"{"e":"serverShutdown","E":"#.to_owned();
        self.time(&mut event, context.now);
        event.push('}');
        if self.combined {
            event = format!(r#"{{"stream":"!serverShutdown","data":{event}}}"#);
        }
        context.out.send(&event);
    }

    fn tick(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        let since = |at: Option<Timestamp>| at.map_or(0, |at| now.as_micros() - at.as_micros());
        if since(self.unanswered_since) >= PONG_WITHIN_US {
            context.out.close(1008, "Pong timeout");
        } else if since(self.opened_at) >= LIFETIME_US {
            context.out.close(1001, "24 hours are over");
        } else if since(self.opened_at) >= NOTICE_US && !self.warned {
            self.shutdown(context);
        }
        if since(self.pinged_at) >= PING_EVERY_US {
            self.pinged_at = Some(now);
            self.unanswered_since = self.unanswered_since.or(Some(now));
            context.out.ping(now.as_millis().to_string());
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
        let mut id = first;
        while id <= last {
            // An order's first trade is always there; another may never have been issued.
            let Some(trade) = of.listing.trade(id) else {
                id += 1;
                continue;
            };
            self.begin(out.text(), of);
            let kind = match of.channel {
                Channel::Trades => r#"{"e":"trade","E":"#,
                Channel::Orders => r#"{"e":"aggTrade","E":"#,
            };
            let text = out.text();
            text.push_str(kind);
            self.time(text, now);
            text.push_str(r#","s":""#);
            text.push_str(of.listing.spelling());
            match of.channel {
                Channel::Trades => {
                    text.push_str(r#"","t":"#);
                    number(text, id);
                    prices(text, trade.price, trade.quantity);
                    id += 1;
                }
                Channel::Orders => {
                    let Some(order) = of.listing.order(id) else { return };
                    text.push_str(r#"","a":"#);
                    number(text, order.number);
                    prices(text, trade.price, of.listing.traded(order.first, order.last));
                    text.push_str(r#","f":"#);
                    number(text, order.first);
                    text.push_str(r#","l":"#);
                    number(text, of.listing.last_issued(order.first, order.last));
                    id = order.last + 1;
                }
            }
            self.finish(&trade, out);
        }
    }
}

fn prices(text: &mut String, price: Decimal, quantity: Decimal) {
    text.push_str(r#","p":""#);
    decimal(text, price);
    text.push_str(r#"","q":""#);
    decimal(text, quantity);
    text.push('"');
}

/// The last price of every symbol.
fn prices_of_all(market: &Market, now: Timestamp) -> Reply {
    let price = |listing: &Arc<Listing>| {
        let trade = listing.latest(now).and_then(|id| listing.trade(id))?;
        Some(format!(r#"{{"symbol":"{}","price":"{}"}}"#, listing.spelling(), trade.price))
    };
    let all: Vec<String> = market.listings(Venue::BINANCE).filter_map(price).collect();
    Reply::ok(format!("[{}]", all.join(",")))
}

fn trades(listing: &Listing, from: Option<u64>, limit: u64, now: Timestamp) -> Reply {
    let limit = usize::try_from(limit).unwrap_or(0);
    let latest = listing.latest(now).unwrap_or(0);
    let page: Vec<Trade> = if let Some(from) = from {
        listing.trades(from.max(listing.first_id())..=latest).take(limit).collect()
    } else {
        let newest = listing.trades(listing.first_id()..=latest).rev().take(limit);
        newest.collect::<Vec<_>>().into_iter().rev().collect()
    };
    let mut body = "[".to_owned();
    for Trade { id, price, quantity, side, at } in page {
        let value = (price * quantity).round_dp(8);
        let separator = if body.len() > 1 { "," } else { "" };
        let written = write!(
            body,
            r#"{separator}{{"id":{id},"price":"{price}","qty":"{quantity}","quoteQty":"{value:.8}","time":{},"isBuyerMaker":{},"isBestMatch":true}}"#,
            at.as_millis(),
            side == Side::Sell,
        );
        debug_assert!(written.is_ok(), "a string takes all text");
    }
    body.push(']');
    Reply::ok(body)
}

fn time(query: &Query, name: &str) -> Option<Timestamp> {
    let millis = i64::try_from(query.number(name)?).ok()?;
    Timestamp::from_millis(millis).ok()
}

fn orders(
    listing: &Listing,
    from: Option<u64>,
    limit: u64,
    query: &Query,
    now: Timestamp,
) -> Reply {
    let until = time(query, "endTime").map_or(now, |end| end.min(now));
    let mut body = "[".to_owned();
    if let Some(last) = listing.latest(until).and_then(|id| listing.order(id)) {
        let since = time(query, "startTime")
            .and_then(|start| listing.order(listing.first_since(start)))
            .map(|order| order.number);
        let first = from.or(since).unwrap_or((last.number + 1).saturating_sub(limit));
        for number in first..=last.number.min(first.saturating_add(limit - 1)) {
            let Some(order) = listing.order_numbered(number) else { break };
            let Some(trade) = listing.trade(order.first) else { break };
            let separator = if body.len() > 1 { "," } else { "" };
            let written = write!(
                body,
                r#"{separator}{{"a":{number},"p":"{}","q":"{}","f":{},"l":{},"T":{},"m":{},"M":true}}"#,
                trade.price,
                listing.traded(order.first, order.last),
                order.first,
                listing.last_issued(order.first, order.last),
                trade.at.as_millis(),
                trade.side == Side::Sell,
            );
            debug_assert!(written.is_ok(), "a string takes all text");
        }
    }
    body.push(']');
    Reply::ok(body)
}

/// One-minute candles that begin within the times, the first ones; or the newest ones.
fn candles(listing: &Listing, limit: u64, query: &Query, now: Timestamp) -> Reply {
    if query.get("interval") != Some("1m") {
        return Reply::error(400, r#"{"code":-1120,"msg":"Invalid interval."}"#);
    }
    let limit = i64::try_from(limit).unwrap_or(0);
    let end = time(query, "endTime").map_or(now, |end| end.min(now));
    // A minute that began before the time is left out.
    let start = time(query, "startTime").map(|start| start.plus_micros(MINUTE_US - 1).minute());
    let from = start.unwrap_or_else(|| end.minute().plus_micros(-(limit - 1) * MINUTE_US));
    let to = end.min(from.plus_micros((limit - 1) * MINUTE_US));
    let rows: Vec<String> = listing
        .candles(from, to, now)
        .map(|candle| {
            let Candle { minute, open, high, low, close, volume, value, trades } = candle;
            let (opened, value) = (minute.as_millis(), eight(value.round_dp(8)));
            let (closed, volume) = (opened + 59_999, eight(volume));
            format!(
                r#"[{opened},"{open}","{high}","{low}","{close}","{volume}",{closed},"{value}",{trades},"0","0","0"]"#
            )
        })
        .collect();
    Reply::ok(format!("[{}]", rows.join(",")))
}

fn exchange_info(market: &Market, query: &Query, now: Timestamp) -> Reply {
    let one = query.get("symbol").map(|symbol| vec![symbol.to_owned()]);
    let named = query.get("symbols").and_then(|list| serde_json::from_str(list).ok()).or(one);
    let named: Option<Vec<String>> = named;
    let known = |symbol: &String| market.listing(Venue::BINANCE, symbol).is_some();
    if named.as_ref().is_some_and(|named| !named.iter().all(known)) {
        return Reply::error(400, r#"{"code":-1121,"msg":"Invalid symbol."}"#);
    }
    let symbols: Vec<String> = market
        .listings(Venue::BINANCE)
        .filter(|it| {
            named.as_ref().is_none_or(|named| named.iter().any(|name| name == it.spelling()))
        })
        .map(|listing| {
            let (base, quote) = (listing.symbol().base(), listing.symbol().quote());
            let (tick, lot) = (eight(listing.tick_size()), eight(listing.lot_size()));
            format!(
                r#"{{"symbol":"{base}{quote}","status":"TRADING","baseAsset":"{base}","baseAssetPrecision":8,"quoteAsset":"{quote}","quotePrecision":8,"quoteAssetPrecision":8,"orderTypes":["LIMIT","MARKET"],"isSpotTradingAllowed":true,"isMarginTradingAllowed":false,"filters":[{{"filterType":"PRICE_FILTER","minPrice":"{tick}","maxPrice":"100000000.00000000","tickSize":"{tick}"}},{{"filterType":"LOT_SIZE","minQty":"{lot}","maxQty":"9000000000.00000000","stepSize":"{lot}"}}],"permissions":["SPOT"]}}"#
            )
        })
        .collect();
    Reply::ok(format!(
        r#"{{"timezone":"UTC","serverTime":{},"rateLimits":[{{"rateLimitType":"REQUEST_WEIGHT","interval":"MINUTE","intervalNum":1,"limit":6000}},{{"rateLimitType":"RAW_REQUESTS","interval":"MINUTE","intervalNum":5,"limit":61000}}],"exchangeFilters":[],"symbols":[{}]}}"#,
        now.as_millis(),
        symbols.join(",")
    ))
}

fn eight(mut step: Decimal) -> Decimal {
    step.rescale(8);
    step
}

#[cfg(test)]
mod tests;
