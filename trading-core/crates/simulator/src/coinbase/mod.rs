//! Coinbase Exchange as a client sees it: `matches` and `heartbeat` channels, and the REST history by trade id.
//!
//! Sides are the maker's, on the WebSocket and in the history.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value;

use super::market::{Candle, Listing, Market, Trade};
use super::outbox::{Outbox, decimal, number, padded, rfc3339};
use super::reply::{Query, Reply, Request};
use super::session::{Channel, Context, Protocol, Subscription};
use super::venue::{Digits, Facts, RestLimit, Twin, Venue};
use domain::Timestamp;

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;
/// Minutes that one answer spans at most.
const CANDLES_MAX: i64 = 300;
/// A client that has not subscribed by then is disconnected.
const SUBSCRIBE_WITHIN_US: i64 = 5 * SECOND_US;
/// Channels that can be subscribed without a key. Only `matches` and `heartbeat` carry anything here.
const CHANNELS: [&str; 6] =
    ["matches", "heartbeat", "ticker", "ticker_batch", "level2_batch", "status"];
const AUTHENTICATED: [&str; 3] = ["level2", "level3", "full"];

/// Coinbase Exchange.
struct Coinbase;

impl Venue {
    /// Coinbase Exchange.
    pub const COINBASE: Self = Self(&Coinbase);
}

static FACTS: Facts = Facts {
    name: "coinbase",
    quotes: &["USD", "USDC", "USDT", "EUR", "BTC"],
    own_pairs: &[],
    has_small_letters: false,
    resolution_us: 1,
    significant_digits: 7,
    price_decimals_max: 10,
    lot_decimals: (3, 8),
    price_digits: Digits::Exact,
    quantity_digits: Digits::Trimmed,
    first_id: |bits| 10_000_000 + bits * 1_009,
    other_ids: 0,
    spelling: |symbol| format!("{}-{}", symbol.base(), symbol.quote()),
    // 10 a second, in bursts to 15.
    limit: RestLimit { burst: 15, per_second: 10 },
    banned: 429,
};

impl Twin for Coinbase {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn connect(
        &self,
        market: &Market,
        _path: &[&str],
        _query: &Query,
        _number: u64,
    ) -> Option<Box<dyn Protocol>> {
        Some(Box::new(Connection::new(market.clone())))
    }

    fn rest(&self, market: &Market, request: &Request<'_>) -> Reply {
        let Request { path, query, now, .. } = *request;
        match path {
            ["time", ..] => {
                let micros = now.as_micros();
                let (seconds, part) = (micros / SECOND_US, micros % SECOND_US);
                Reply::ok(format!(r#"{{"iso":"{now}","epoch":{seconds}.{part:06}}}"#))
            }
            ["currencies"] => currencies(market),
            ["products"] => {
                let products: Vec<String> =
                    market.listings(Venue::COINBASE).map(|listing| product(listing)).collect();
                Reply::ok(format!("[{}]", products.join(",")))
            }
            ["products", id, rest @ ..] => match (market.spelled(Venue::COINBASE, id), rest) {
                (None, _) => Reply::error(404, r#"{"message":"NotFound"}"#),
                (Some(listing), []) => Reply::ok(product(listing)),
                (Some(listing), ["trades", ..]) => trades(listing, query, now),
                (Some(listing), ["candles", ..]) => candles(listing, query, now),
                _ => Reply::error(404, r#"{"message":"Route not found"}"#),
            },
            _ => Reply::error(404, r#"{"message":"Route not found"}"#),
        }
    }

    fn refusal(&self, _retry_after: u64, _now: Timestamp) -> Reply {
        Reply::error(429, r#"{"message":"Public rate limit exceeded"}"#)
    }

    #[cfg(test)]
    fn example(&self) -> super::harness::Example {
        super::harness::Example {
            path: "",
            subscribe: r#"{"type":"subscribe","product_ids":["BTC-USD"],"channels":["matches"]}"#,
            id: "trade_id",
        }
    }
}

/// One client's channels.
#[derive(Debug)]
struct Connection {
    market: Market,
    /// Channel and product.
    channels: BTreeSet<(&'static str, String)>,
    opened_at: Option<Timestamp>,
    beat_at: Option<Timestamp>,
    has_subscribed: bool,
}

impl Connection {
    const fn new(market: Market) -> Self {
        Self {
            market,
            channels: BTreeSet::new(),
            opened_at: None,
            beat_at: None,
            has_subscribed: false,
        }
    }

    /// Channels and products of a request, or the reason why it is refused.
    fn read(&self, request: &Value) -> Result<Vec<(&'static str, String)>, String> {
        let texts = |value: Option<&Value>| -> Vec<String> {
            let values = value.and_then(Value::as_array).into_iter().flatten();
            values.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let common = texts(request.get("product_ids"));
        let mut pairs = Vec::new();
        for channel in request.get("channels").and_then(Value::as_array).into_iter().flatten() {
            let name = channel.as_str().or_else(|| channel.get("name")?.as_str()).unwrap_or("");
            if AUTHENTICATED.contains(&name) {
                return Err("level2, level3, and full channels now require authentication. https://docs.cloud.coinbase.com/exchange/docs/websocket-auth".to_owned());
            }
            let Some(name) = CHANNELS.into_iter().find(|known| *known == name) else {
                return Err(format!("{name} is not a valid channel"));
            };
            let own = texts(channel.get("product_ids"));
            for product in own.into_iter().chain(common.iter().cloned()) {
                if self.market.spelled(Venue::COINBASE, &product).is_none() {
                    return Err(format!("{product} is not a valid product"));
                }
                pairs.push((name, product));
            }
        }
        if pairs.is_empty() {
            return Err("No channels or product_ids provided".to_owned());
        }
        Ok(pairs)
    }

    fn subscribe(&mut self, pairs: Vec<(&'static str, String)>, context: &mut Context<'_>) {
        self.has_subscribed = true;
        let mut matches = Vec::new();
        for (channel, product) in pairs {
            let listing = self.market.spelled(Venue::COINBASE, &product).map(Arc::clone);
            if self.channels.insert((channel, product))
                && channel == "matches"
                && let Some(listing) = listing
            {
                matches.push(listing);
            }
        }
        self.subscriptions(context.out);
        for listing in matches {
            context.subscribe(&listing, Channel::Trades);
            if let Some(trade) = listing.latest(context.now).and_then(|id| listing.trade(id)) {
                write_match("last_match", &listing, &trade, context.out);
            }
        }
    }

    fn unsubscribe(&mut self, pairs: Vec<(&'static str, String)>, context: &mut Context<'_>) {
        for pair in pairs {
            let listing = self.market.spelled(Venue::COINBASE, &pair.1);
            if pair.0 == "matches"
                && let Some(listing) = listing
            {
                context.unsubscribe(listing, Channel::Trades);
            }
            self.channels.remove(&pair);
        }
        self.subscriptions(context.out);
    }

    /// The answer to each change: all that is subscribed by now.
    fn subscriptions(&self, out: &mut Outbox) {
        let channels: Vec<String> = CHANNELS
            .into_iter()
            .filter_map(|name| {
                let of_channel = self.channels.iter().filter(|(channel, _)| *channel == name);
                let products: Vec<&str> = of_channel.map(|(_, product)| product.as_str()).collect();
                (!products.is_empty()).then(|| {
                    format!(
                        r#"{{"name":"{name}","product_ids":{},"account_ids":null}}"#,
                        Value::from(products)
                    )
                })
            })
            .collect();
        out.send(&format!(r#"{{"type":"subscriptions","channels":[{}]}}"#, channels.join(",")));
    }
}

impl Protocol for Connection {
    fn opened(&mut self, context: &mut Context<'_>) {
        self.opened_at = Some(context.now);
    }

    fn text(&mut self, text: &str, context: &mut Context<'_>) {
        let request: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        let kind = request.get("type").and_then(Value::as_str);
        match (kind, self.read(&request)) {
            (Some("subscribe"), Ok(pairs)) => self.subscribe(pairs, context),
            (Some("unsubscribe"), Ok(pairs)) => self.unsubscribe(pairs, context),
            (Some("subscribe" | "unsubscribe"), Err(reason)) => {
                let reason = Value::from(reason);
                context.out.send(&format!(
                    r#"{{"type":"error","message":"Failed to subscribe","reason":{reason}}}"#
                ));
            }
            (Some(_), _) => context.out.send(
                r#"{"type":"error","message":"Type has to be either subscribe or unsubscribe"}"#,
            ),
            (None, _) => {
                context.out.send(r#"{"type":"error","message":"Malformed JSON"}"#);
            }
        }
    }

    fn tick(&mut self, context: &mut Context<'_>) {
        let since = |at: Option<Timestamp>| {
            at.map_or(i64::MAX, |at| context.now.as_micros() - at.as_micros())
        };
        if !self.has_subscribed && since(self.opened_at) >= SUBSCRIBE_WITHIN_US {
            context.out.close(1008, "No subscribe within 5 seconds");
            return;
        }
        if since(self.beat_at) < SECOND_US {
            return;
        }
        self.beat_at = Some(context.now);
        for (_, product) in self.channels.iter().filter(|(channel, _)| *channel == "heartbeat") {
            let Some(listing) = self.market.spelled(Venue::COINBASE, product) else { continue };
            let Some(latest) = listing.latest(context.now) else { continue };
            let text = context.out.text();
            text.push_str(r#"{"type":"heartbeat","last_trade_id":"#);
            number(text, latest);
            text.push_str(r#","product_id":""#);
            text.push_str(product);
            text.push_str(r#"","sequence":"#);
            number(text, sequence(listing, latest));
            text.push_str(r#","time":""#);
            rfc3339(text, context.now);
            text.push_str(r#""}"#);
            context.out.end();
        }
    }

    fn write(&mut self, of: &Subscription, first: u64, last: u64, _: Timestamp, out: &mut Outbox) {
        for trade in of.listing.trades(first..=last) {
            write_match("match", &of.listing, &trade, out);
        }
    }
}

/// Of the full channel: it rises, with holes where other messages were.
fn sequence(listing: &Listing, id: u64) -> u64 {
    (id - listing.first_id()) * 31 + listing.mark(id, 5) % 31
}

fn write_match(kind: &str, listing: &Listing, trade: &Trade, out: &mut Outbox) {
    let text = out.text();
    text.push_str(r#"{"type":""#);
    text.push_str(kind);
    text.push_str(r#"","trade_id":"#);
    number(text, trade.id);
    text.push_str(r#","maker_order_id":""#);
    uuid(text, listing.mark(trade.id, 6), listing.mark(trade.id, 7));
    text.push_str(r#"","taker_order_id":""#);
    let head = listing.order(trade.id).map_or(trade.id, |order| order.first);
    uuid(text, listing.mark(head, 8), listing.mark(head, 9));
    text.push_str(r#"","side":""#);
    text.push_str(trade.side.opposite().as_str());
    text.push_str(r#"","size":""#);
    decimal(text, trade.quantity);
    text.push_str(r#"","price":""#);
    decimal(text, trade.price);
    text.push_str(r#"","product_id":""#);
    text.push_str(listing.spelling());
    text.push_str(r#"","sequence":"#);
    number(text, sequence(listing, trade.id));
    text.push_str(r#","time":""#);
    rfc3339(text, trade.at);
    text.push_str(r#""}"#);
    out.end();
}

/// Digits only, which a UUID may be.
fn uuid(text: &mut String, high: u64, low: u64) {
    for (place, (part, width)) in [
        (high % 100_000_000, 8),
        (high >> 32 & 0xFFF, 4),
        (4_000 + (high >> 48 & 0xFF), 4),
        (8_000 + (low >> 48 & 0xFF), 4),
        (low % 1_000_000_000_000, 12),
    ]
    .into_iter()
    .enumerate()
    {
        if place > 0 {
            text.push('-');
        }
        padded(text, part, width);
    }
}

/// Newest first: older than `after`, newer than `before`.
fn trades(listing: &Listing, query: &Query, now: Timestamp) -> Reply {
    let limit = query.number("limit").unwrap_or(1_000).clamp(1, 1_000);
    let latest = listing.latest(now).unwrap_or(0);
    let newest = query.number("after").map_or(latest, |after| latest.min(after.saturating_sub(1)));
    let oldest = query
        .number("before")
        .map_or(listing.first_id(), |before| before.saturating_add(1).max(listing.first_id()));
    let limit = usize::try_from(limit).unwrap_or(0);
    let page: Vec<Trade> = listing.trades(oldest..=newest).rev().take(limit).collect();
    let mut body = "[".to_owned();
    for Trade { id, price, quantity, side, at } in &page {
        let separator = if body.len() > 1 { "," } else { "" };
        let written = write!(
            body,
            r#"{separator}{{"trade_id":{id},"side":"{}","size":"{quantity}","price":"{price}","time":"{at}"}}"#,
            side.opposite().as_str(),
        );
        debug_assert!(written.is_ok(), "a string takes all text");
    }
    body.push(']');
    let reply = Reply::ok(body);
    let (Some(first), Some(last)) = (page.first(), page.last()) else { return reply };
    reply
        .with_header("cb-before", first.id.to_string())
        .with_header("cb-after", last.id.to_string())
}

/// Newest first, minutes without a trade left out: `[start, low, high, open, close, volume]`.
fn candles(listing: &Listing, query: &Query, now: Timestamp) -> Reply {
    if query.number("granularity").is_some_and(|seconds| seconds != 60) {
        return Reply::error(400, r#"{"message":"Unsupported granularity"}"#);
    }
    let time = |name: &str| -> Option<Timestamp> {
        let text = query.get(name)?;
        let seconds = || Timestamp::from_millis(text.parse::<i64>().ok()?.checked_mul(1_000)?).ok();
        Timestamp::from_rfc3339(text).ok().or_else(seconds)
    };
    let to = time("end").map_or(now, |end| end.min(now));
    let from = time("start").unwrap_or_else(|| to.plus_micros((1 - CANDLES_MAX) * MINUTE_US));
    if (to.as_micros() - from.as_micros()) / MINUTE_US > CANDLES_MAX {
        return Reply::error(
            400,
            r#"{"message":"granularity too small for the requested time range. Count of aggregations requested exceeds 300"}"#,
        );
    }
    let rows: Vec<String> = listing
        .candles(from, to, now)
        .rev()
        .filter(|candle| candle.trades > 0)
        .map(|candle| {
            let Candle { minute, open, high, low, close, volume, .. } = candle;
            let start = minute.as_millis() / 1_000;
            format!("[{start},{low},{high},{open},{close},{volume}]")
        })
        .collect();
    Reply::ok(format!("[{}]", rows.join(",")))
}

fn product(listing: &Listing) -> String {
    let (base, quote) = (listing.symbol().base(), listing.symbol().quote());
    let (tick, lot) = (listing.tick_size(), listing.lot_size());
    format!(
        r#"{{"id":"{base}-{quote}","base_currency":"{base}","quote_currency":"{quote}","quote_increment":"{tick}","base_increment":"{lot}","display_name":"{base}/{quote}","min_market_funds":"1","margin_enabled":false,"post_only":false,"limit_only":false,"cancel_only":false,"status":"online","status_message":"","trading_disabled":false,"auction_mode":false}}"#
    )
}

fn currencies(market: &Market) -> Reply {
    let names: BTreeSet<&str> = market
        .listings(Venue::COINBASE)
        .flat_map(|listing| [listing.symbol().base(), listing.symbol().quote()])
        .collect();
    let all: Vec<String> = names
        .into_iter()
        .map(|name| {
            format!(
                r#"{{"id":"{name}","name":"{name}","min_size":"0.00000001","status":"online","message":"","max_precision":"0.00000001","convertible_to":[],"details":{{"type":"crypto"}}}}"#
            )
        })
        .collect();
    Reply::ok(format!("[{}]", all.join(",")))
}

#[cfg(test)]
mod tests;
