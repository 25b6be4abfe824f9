//! Bitstamp spot as a client sees it: `live_trades` channels of one trade a message, and a REST history of the last
//! minute, hour or day in one answer, in whole seconds.
//!
//! Trade ids belong to all pairs together, so that those of one pair have holes. Of another pair's trade with the same
//! id nothing is known here. Any pair in small letters can be subscribed: one that does not exist is silent.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::Value;

use super::market::{Candle, Listing, Market, Trade};
use super::outbox::{Outbox, decimal, number};
use super::reply::{Query, Reply, Request};
use super::session::{Channel, Context, Protocol, Subscription};
use super::venue::{Digits, Facts, RestLimit, Twin, Venue};
use domain::{Side, Timestamp};

const MINUTE: Duration = Duration::from_secs(60);
/// How old a connection may be.
const AGE_MAX: Duration = Duration::from_hours(90 * 24);
/// How often a client is pinged.
const PING_INTERVAL: Duration = Duration::from_secs(54);
/// Bytes of a client's message at most.
const MESSAGE_BYTES_MAX: usize = 512;
/// Channels of a connection at most; with one more it is closed without a word.
const CHANNELS_MAX: usize = 1_024;
/// Trades in one answer at most, newest first. The real venue is not known to have a limit: this one is about the day of
/// its busiest pair, and keeps the answer of a market that is faster than any within what a client reads.
const TRADES_MAX: usize = 20_000;
/// How the channels begin that carry trades.
const TRADES: &str = "live_trades_";
const NOT_FOUND: &str = r#"{"status":"error","reason":"Not found."}"#;

/// Bitstamp spot.
struct Bitstamp;

impl Venue {
    /// Bitstamp spot.
    pub const BITSTAMP: Self = Self(&Bitstamp);
}

static FACTS: Facts = Facts {
    name: "bitstamp",
    quotes: &["USD", "EUR", "GBP", "USDT", "BTC"],
    own_pairs: &[],
    has_small_letters: false,
    resolution_us: 1_000,
    significant_digits: 7,
    price_decimals_max: 8,
    lot_decimals: (3, 8),
    price_digits: Digits::Exact,
    quantity_digits: Digits::Padded(8),
    first_id: |bits| 500_000_000 + bits * 1_009,
    other_ids: 300_000,
    spelling: |symbol| symbol.as_str().to_lowercase(),
    // 400 in a second, 10,000 in 10 minutes.
    limit: RestLimit { burst: 400, per_second: 16 },
    banned: 429,
};

impl Twin for Bitstamp {
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
        Some(Box::new(Connection {
            market: market.clone(),
            channels: BTreeSet::new(),
            opened_at: Timestamp::EPOCH,
            pinged_at: Timestamp::EPOCH,
        }))
    }

    fn rest(&self, market: &Market, request: &Request<'_>) -> Reply {
        let Request { path, query, now, .. } = *request;
        let pair = |name: &str| market.spelled(Venue::BITSTAMP, name);
        match path {
            ["api", "v2", "trading-pairs-info"] => list(market, trading_pair),
            ["api", "v2", "markets"] => list(market, traded_market),
            ["api", "v2", route, name] => match (*route, pair(name)) {
                ("transactions", Some(listing)) => transactions(listing, query, now),
                ("ohlc", Some(listing)) => candles(listing, query, now),
                ("ticker", Some(listing)) => ticker(listing, now),
                _ => Reply::error(404, NOT_FOUND),
            },
            _ => Reply::error(404, NOT_FOUND),
        }
    }

    /// Its words are not documented.
    fn refusal(&self, _retry_after: u64, _now: Timestamp) -> Reply {
        Reply::error(429, r#"{"status":"error","reason":"Too many requests."}"#)
    }

    #[cfg(test)]
    fn example(&self) -> super::harness::Example {
        super::harness::Example {
            path: "",
            subscribe: r#"{"event":"bts:subscribe","data":{"channel":"live_trades_btcusd"}}"#,
            id: "id",
        }
    }
}

/// One client's channels.
#[derive(Debug)]
struct Connection {
    market: Market,
    channels: BTreeSet<String>,
    opened_at: Timestamp,
    pinged_at: Timestamp,
}

impl Connection {
    /// Every well-formed channel is confirmed, again too, whether it exists or not.
    fn subscribe(&mut self, channel: &str, context: &mut Context<'_>) {
        self.channels.insert(channel.to_owned());
        if self.channels.len() > CHANNELS_MAX {
            context.out.close(1000, "");
            return;
        }
        confirm("bts:subscription_succeeded", channel, context.out);
        if let Some(listing) = pair_of(&self.market, channel) {
            context.subscribe(listing, Channel::Trades);
        }
    }

    fn unsubscribe(&mut self, channel: &str, context: &mut Context<'_>) {
        self.channels.remove(channel);
        confirm("bts:unsubscription_succeeded", channel, context.out);
        if let Some(listing) = pair_of(&self.market, channel) {
            context.unsubscribe(listing, Channel::Trades);
        }
    }
}

fn pair_of<'m>(market: &'m Market, channel: &str) -> Option<&'m std::sync::Arc<Listing>> {
    market.spelled(Venue::BITSTAMP, channel.strip_prefix(TRADES)?)
}

fn confirm(event: &str, channel: &str, out: &mut Outbox) {
    let channel = Value::from(channel);
    out.send(&format!(r#"{{"event":"{event}","channel":{channel},"data":{{}}}}"#));
}

fn error(message: &str, out: &mut Outbox) {
    out.send(&format!(
        r#"{{"event":"bts:error","channel":"","data":{{"code":null,"message":"{message}"}}}}"#
    ));
}

impl Protocol for Connection {
    fn opened(&mut self, context: &mut Context<'_>) {
        self.opened_at = context.now;
        self.pinged_at = context.now;
    }

    fn text(&mut self, text: &str, context: &mut Context<'_>) {
        if text.len() > MESSAGE_BYTES_MAX {
            context.out.close(1009, "read limited at 513 bytes");
            return;
        }
        let Ok(request) = serde_json::from_str::<Value>(text) else {
            error("Incorrect JSON format.", context.out);
            return;
        };
        let event = request.get("event").and_then(Value::as_str);
        let channel = request.get("data").and_then(|data| data.get("channel")?.as_str());
        let is_well_formed = |channel: &str| {
            let is_of_a_name = |byte: u8| !byte.is_ascii_uppercase() && !b"/ ".contains(&byte);
            channel.bytes().all(is_of_a_name)
        };
        match (event, channel) {
            (Some("bts:heartbeat"), _) => context
                .out
                .send(r#"{"event":"bts:heartbeat","channel":"","data":{"status":"success"}}"#),
            (Some("bts:subscribe" | "bts:unsubscribe"), Some(channel))
                if !is_well_formed(channel) =>
            {
                error("Invalid channel provided.", context.out);
            }
            (Some("bts:subscribe"), Some(channel)) => self.subscribe(channel, context),
            (Some("bts:unsubscribe"), Some(channel)) => self.unsubscribe(channel, context),
            _ => error("Bad subscription string.", context.out),
        }
    }

    fn tick(&mut self, context: &mut Context<'_>) {
        if context.now.since(self.opened_at) >= AGE_MAX {
            context.out.close(1000, "");
        } else if context.now.since(self.pinged_at) >= PING_INTERVAL {
            self.pinged_at = context.now;
            context.out.ping(String::new());
        }
    }

    fn shutdown(&mut self, context: &mut Context<'_>) {
        context.out.send(r#"{"event":"bts:request_reconnect","channel":"","data":""}"#);
    }

    fn write(&mut self, of: &Subscription, first: u64, last: u64, _: Timestamp, out: &mut Outbox) {
        for trade in of.listing.trades(first..=last) {
            write_trade(out.text(), &of.listing, &trade);
            out.end();
        }
    }
}

fn write_trade(text: &mut String, listing: &Listing, trade: &Trade) {
    let micros = trade.at.as_micros().cast_unsigned();
    let (buyer, seller) = orders(listing, trade);
    text.push_str(r#"{"data":{"id":"#);
    number(text, trade.id);
    text.push_str(r#","timestamp":""#);
    number(text, micros / 1_000_000);
    text.push_str(r#"","amount":"#);
    decimal(text, trade.quantity.normalize());
    text.push_str(r#","amount_str":""#);
    decimal(text, trade.quantity);
    text.push_str(r#"","price":"#);
    decimal(text, trade.price.normalize());
    text.push_str(r#","price_str":""#);
    decimal(text, trade.price);
    text.push_str(r#"","type":"#);
    text.push(side(trade.side));
    text.push_str(r#","microtimestamp":""#);
    number(text, micros);
    text.push_str(r#"","buy_order_id":"#);
    number(text, buyer);
    text.push_str(r#","sell_order_id":"#);
    number(text, seller);
    text.push_str(r#"},"channel":"live_trades_"#);
    text.push_str(listing.spelling());
    text.push_str(r#"","event":"trade"}"#);
}

/// The taker's.
const fn side(side: Side) -> char {
    match side {
        Side::Buy => '0',
        Side::Sell => '1',
    }
}

/// The buyer's order and the seller's: the taker's is the later one.
fn orders(listing: &Listing, trade: &Trade) -> (u64, u64) {
    let taker = listing.order(trade.id).map_or(trade.id, |order| order.number);
    let taker = 2_000_000_000_000_000 + taker * 1_000;
    let maker = taker - 1 - listing.mark(trade.id, 6) % 1_000_000_000;
    if trade.side == Side::Buy { (taker, maker) } else { (maker, taker) }
}

/// Newest first, all that were made within the last minute, hour or day.
fn transactions(listing: &Listing, query: &Query, now: Timestamp) -> Reply {
    let window = match query.get("time").unwrap_or("hour") {
        "minute" => MINUTE,
        "hour" => MINUTE * 60,
        "day" => MINUTE * 60 * 24,
        _ => {
            let body = r#"{"status":"error","reason":"Invalid time interval."}"#;
            return Reply::error(400, body);
        }
    };
    let first = listing.first_since(now - window);
    let latest = listing.latest(now).unwrap_or(0);
    let mut body = "[".to_owned();
    for trade in listing.trades(first..=latest).rev().take(TRADES_MAX) {
        let Trade { id, price, quantity, at, .. } = trade;
        let separator = if body.len() > 1 { "," } else { "" };
        let written = write!(
            body,
            r#"{separator}{{"amount":"{quantity}","date":"{}","price":"{price}","tid":"{id}","type":"{}"}}"#,
            at.as_millis() / 1_000,
            side(trade.side),
        );
        debug_assert!(written.is_ok(), "a string takes all text");
    }
    body.push(']');
    Reply::ok(body)
}

/// Oldest first: `limit` minutes up to `end`, from `start` where there is no end.
fn candles(listing: &Listing, query: &Query, now: Timestamp) -> Reply {
    let limit = query.number("limit").filter(|limit| (1..=1_000).contains(limit));
    let (Some("60"), Some(limit)) = (query.get("step"), limit) else {
        let body = r#"{"status":"error","reason":"Only steps of 60, of 1 to 1000 of them."}"#;
        return Reply::error(400, body);
    };
    let lasting = MINUTE * u32::try_from(limit - 1).unwrap_or_default();
    let time = |name: &str| {
        let millis = i64::try_from(query.number(name)?).ok()?.checked_mul(1_000)?;
        Timestamp::from_millis(millis).ok()
    };
    let to = match (time("start"), time("end")) {
        (_, Some(end)) => end,
        (Some(start), None) => start + lasting,
        (None, None) => now,
    };
    let to = to.min(now);
    let rows: Vec<String> = listing
        .candles(to.minute() - lasting, to, now)
        .map(|candle| {
            let Candle { minute, open, high, low, close, volume, .. } = candle;
            let timestamp = minute.as_millis() / 1_000;
            format!(
                r#"{{"close":"{close}","high":"{high}","low":"{low}","open":"{open}","timestamp":"{timestamp}","volume":"{volume}"}}"#
            )
        })
        .collect();
    let (base, quote) = (listing.symbol().base(), listing.symbol().quote());
    Reply::ok(format!(r#"{{"data":{{"ohlc":[{}],"pair":"{base}/{quote}"}}}}"#, rows.join(",")))
}

/// Of this minute and the one before it: the day of a fast market would be too much to add up for each answer.
fn ticker(listing: &Listing, now: Timestamp) -> Reply {
    let candles: Vec<Candle> = listing.candles(now - MINUTE, now, now).collect();
    let (Some(first), Some(last)) = (candles.first(), candles.last()) else {
        return Reply::error(404, NOT_FOUND);
    };
    let (high, low) = (first.high.max(last.high), first.low.min(last.low));
    let volume: Decimal = candles.iter().map(|candle| candle.volume).sum();
    let (timestamp, open, close) = (now.as_millis() / 1_000, first.open, last.close);
    let (base, quote) = (listing.symbol().base(), listing.symbol().quote());
    Reply::ok(format!(
        r#"{{"timestamp":"{timestamp}","open":"{open}","high":"{high}","low":"{low}","last":"{close}","volume":"{volume}","vwap":"{close}","bid":"{close}","ask":"{close}","side":"0","open_24":"{open}","percent_change_24":"0.00","pair":"{base}/{quote}"}}"#
    ))
}

fn list(market: &Market, entry: fn(&Listing) -> String) -> Reply {
    let entries: Vec<String> =
        market.listings(Venue::BITSTAMP).map(|listing| entry(listing)).collect();
    Reply::ok(format!("[{}]", entries.join(",")))
}

fn trading_pair(listing: &Listing) -> String {
    let (base, quote) = (listing.symbol().base(), listing.symbol().quote());
    let (lots, steps, pair) = (listing.lot_scale(), listing.price_scale(), listing.spelling());
    format!(
        r#"{{"trading":"Enabled","base_decimals":{lots},"url_symbol":"{pair}","name":"{base}/{quote}","instant_and_market_orders":"Enabled","minimum_order":"10.0 {quote}","counter_decimals":{steps},"description":"{base} / {quote}"}}"#
    )
}

fn traded_market(listing: &Listing) -> String {
    let (base, quote) = (listing.symbol().base(), listing.symbol().quote());
    let (lots, steps, pair) = (listing.lot_scale(), listing.price_scale(), listing.spelling());
    format!(
        r#"{{"name":"{base}/{quote}","market_symbol":"{pair}","base_currency":"{base}","base_decimals":{lots},"counter_currency":"{quote}","counter_decimals":{steps},"minimum_order_value":"10","trading":"Enabled","instant_order_counter_decimals":2,"instant_and_market_orders":"Enabled","description":"{base} / {quote}","market_type":"SPOT"}}"#
    )
}

#[cfg(test)]
mod tests;
