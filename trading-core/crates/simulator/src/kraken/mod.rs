//! Kraken spot as a client sees it: WebSocket v2 with its snapshot of fifty trades, and the REST history by time.
//!
//! Prices and quantities are JSON numbers whose trailing zeros count.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value;

use super::market::{Candle, Listing, Market, Trade};
use super::outbox::{Outbox, decimal, number, rfc3339};
use super::reply::{Query, Reply, Request};
use super::session::{Channel, Context, Protocol, Subscription};
use super::venue::{Digits, Facts, RestLimit, Twin, Venue};
use domain::{Side, Symbol, Timestamp};

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;
/// Candles in one answer at most: no older ones are to be had.
const CANDLES_MAX: i64 = 720;
/// The first and the last nanosecond of its microsecond that a trade may have.
const NANOS_FIRST: u64 = 300;
const NANOS_LAST: u64 = 700;
/// A client that sends nothing and follows no symbol is disconnected after this time.
const IDLE_US: i64 = 60 * SECOND_US;
const SNAPSHOT_TRADES: u64 = 50;
/// Trades in one message at most.
const MESSAGE_TRADES: u64 = 100;

/// Kraken spot, WebSocket v2.
struct Kraken;

impl Venue {
    /// Kraken spot, WebSocket v2.
    pub const KRAKEN: Self = Self(&Kraken);
}

static FACTS: Facts = Facts {
    name: "kraken",
    quotes: &["USD", "EUR", "USDT", "USDC", "BTC"],
    own_pairs: &[("AAPLx", "USD"), ("ETH2.S", "ETH")],
    has_small_letters: true,
    resolution_us: 1,
    significant_digits: 6,
    price_decimals_max: 10,
    lot_decimals: (3, 8),
    price_digits: Digits::Exact,
    quantity_digits: Digits::Padded(8),
    first_id: |bits| 1_000_000 + bits * 101,
    other_ids: 0,
    spelling: |symbol| format!("{}/{}", symbol.base(), symbol.quote()),
    // A counter to 15 that falls by one a second.
    limit: RestLimit { burst: 15, per_second: 1 },
    banned: 429,
};

impl Twin for Kraken {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn connect(
        &self,
        market: &Market,
        path: &[&str],
        _query: &Query,
        _number: u64,
    ) -> Option<Box<dyn Protocol>> {
        Some(Box::new(Connection::new(market.clone(), path)?))
    }

    fn rest(&self, market: &Market, request: &Request<'_>) -> Reply {
        let Request { path, query, now, .. } = *request;
        let ["0", "public", route, ..] = path else { return error("EGeneral:Unknown method") };
        match *route {
            "Time" => {
                let seconds = now.as_micros() / SECOND_US;
                ok(&format!(
                    r#"{{"unixtime":{seconds},"rfc1123":"{}"}}"#,
                    now.to_datetime().to_rfc2822()
                ))
            }
            "SystemStatus" => ok(&format!(r#"{{"status":"online","timestamp":"{now}"}}"#)),
            "Assets" => assets(market),
            "AssetPairs" => asset_pairs(market, query),
            "Trades" | "OHLC" => {
                match query.get("pair").and_then(|name| asked(market, name, query)) {
                    None => error("EQuery:Unknown asset pair"),
                    Some(listing) if *route == "OHLC" => candles(listing, query, now),
                    Some(listing) => trades(listing, query, now),
                }
            }
            _ => error("EGeneral:Unknown method"),
        }
    }

    fn refusal(&self, _retry_after: u64, _now: Timestamp) -> Reply {
        error("EGeneral:Too many requests")
    }

    #[cfg(test)]
    fn example(&self) -> super::harness::Example {
        super::harness::Example {
            path: "v2",
            subscribe: r#"{"method":"subscribe","params":{"channel":"trade","symbol":["BTC/USD"]}}"#,
            id: "trade_id",
        }
    }
}

/// One client's subscriptions.
#[derive(Debug)]
struct Connection {
    market: Market,
    heard_at: Option<Timestamp>,
    beat_at: Option<Timestamp>,
}

impl Connection {
    /// Version 2 only: version 1 carries no trade ids.
    fn new(market: Market, path: &[&str]) -> Option<Self> {
        (path.first() == Some(&"v2")).then_some(Self { market, heard_at: None, beat_at: None })
    }

    fn subscription(&self, method: &str, request: &Value, context: &mut Context<'_>) {
        let params = request.get("params");
        let channel = params.and_then(|params| params.get("channel")).and_then(Value::as_str);
        let is_snapshot = params
            .and_then(|params| params.get("snapshot"))
            .and_then(Value::as_bool)
            .unwrap_or(false);
        let symbols = params.and_then(|params| params.get("symbol")).and_then(Value::as_array);
        let tail = tail(request, context.now);
        let refuse = |out: &mut Outbox, error: &str, symbol: Option<&str>| {
            let error = Value::from(error);
            let symbol = symbol
                .map_or_else(String::new, |symbol| format!(r#","symbol":{}"#, Value::from(symbol)));
            out.send(&format!(
                r#"{{"error":{error},"method":"{method}","success":false{symbol}{tail}"#
            ));
        };
        let (Some("trade"), Some(symbols)) = (channel, symbols) else {
            refuse(context.out, "Unsupported channel or missing symbol", None);
            return;
        };
        for name in symbols.iter().filter_map(Value::as_str) {
            let Some(listing) = self.market.spelled(Venue::KRAKEN, name) else {
                let error = format!("Currency pair not supported {name}");
                refuse(context.out, &error, Some(name));
                continue;
            };
            if method == "unsubscribe" {
                if context.unsubscribe(listing, Channel::Trades) {
                    context.out.send(&format!(
                        r#"{{"method":"unsubscribe","result":{{"channel":"trade","symbol":"{name}"}},"success":true{tail}"#
                    ));
                } else {
                    refuse(context.out, "Subscription Not Found", Some(name));
                }
                continue;
            }
            if !context.subscribe(listing, Channel::Trades) {
                refuse(context.out, "Already subscribed", Some(name));
                continue;
            }
            context.out.send(&format!(
                r#"{{"method":"subscribe","result":{{"channel":"trade","snapshot":{is_snapshot},"symbol":"{name}"}},"success":true{tail}"#
            ));
            if is_snapshot && let Some(latest) = listing.latest(context.now) {
                let first = (latest + 1).saturating_sub(SNAPSHOT_TRADES).max(listing.first_id());
                write_trades("snapshot", listing, first, latest, context.out);
            }
        }
    }
}

/// What ends each answer: the request's number, if it had one, and the times.
fn tail(request: &Value, now: Timestamp) -> String {
    let number = request.get("req_id").filter(|id| id.is_u64());
    let number = number.map_or_else(String::new, |id| format!(r#","req_id":{id}"#));
    format!(r#"{number},"time_in":"{now}","time_out":"{now}"}}"#)
}

impl Protocol for Connection {
    fn opened(&mut self, context: &mut Context<'_>) {
        self.heard_at = Some(context.now);
        self.beat_at = Some(context.now);
        // Above what a signed number holds, as real ones are.
        let connection = (1 << 63) | context.now.as_micros().cast_unsigned();
        context.out.send(&format!(
            r#"{{"channel":"status","type":"update","data":[{{"version":"2.0.10","system":"online","api_version":"v2","connection_id":{connection},"upcoming_maintenance":[],"emergency":[]}}]}}"#
        ));
    }

    fn text(&mut self, text: &str, context: &mut Context<'_>) {
        self.heard_at = Some(context.now);
        let Ok(request) = serde_json::from_str::<Value>(text) else {
            let tail = tail(&Value::Null, context.now);
            context.out.send(&format!(r#"{{"error":"Malformed request","success":false{tail}"#));
            return;
        };
        let tail = tail(&request, context.now);
        match request.get("method").and_then(Value::as_str) {
            Some(method @ ("subscribe" | "unsubscribe")) => {
                self.subscription(method, &request, context);
            }
            Some("ping") => context.out.send(&format!(r#"{{"method":"pong"{tail}"#)),
            _ => context
                .out
                .send(&format!(r#"{{"error":"Unsupported method","success":false{tail}"#)),
        }
    }

    fn tick(&mut self, context: &mut Context<'_>) {
        let since =
            |at: Option<Timestamp>| at.map_or(0, |at| context.now.as_micros() - at.as_micros());
        if context.subscriptions.is_empty() {
            if since(self.heard_at) >= IDLE_US {
                context.out.close(1000, "Idle");
            }
        } else if since(self.beat_at) >= SECOND_US {
            self.beat_at = Some(context.now);
            context.out.send(r#"{"channel":"heartbeat"}"#);
        }
    }

    fn write(&mut self, of: &Subscription, first: u64, last: u64, _: Timestamp, out: &mut Outbox) {
        write_trades("update", &of.listing, first, last, out);
    }
}

fn write_trades(kind: &str, listing: &Listing, first: u64, last: u64, out: &mut Outbox) {
    let mut next = first;
    while next <= last {
        let last_of_message = last.min(next + MESSAGE_TRADES - 1);
        let mut trades = listing.trades(next..=last_of_message).peekable();
        next = last_of_message + 1;
        if trades.peek().is_none() {
            continue;
        }
        let text = out.text();
        text.push_str(r#"{"channel":"trade","type":""#);
        text.push_str(kind);
        text.push_str(r#"","data":["#);
        for (place, trade) in trades.enumerate() {
            if place > 0 {
                text.push(',');
            }
            text.push_str(r#"{"symbol":""#);
            text.push_str(listing.spelling());
            text.push_str(r#"","side":""#);
            text.push_str(trade.side.as_str());
            text.push_str(r#"","price":"#);
            decimal(text, trade.price);
            text.push_str(r#","qty":"#);
            decimal(text, trade.quantity);
            text.push_str(r#","ord_type":""#);
            text.push_str(order_type(listing, trade.id));
            text.push_str(r#"","trade_id":"#);
            number(text, trade.id);
            text.push_str(r#","timestamp":""#);
            rfc3339(text, trade.at);
            text.push_str(r#""}"#);
        }
        text.push_str("]}");
        out.end();
    }
}

/// The taker's order's type: of all its trades the same.
fn order_type(listing: &Listing, id: u64) -> &'static str {
    let head = listing.order(id).map_or(id, |order| order.first);
    if listing.mark(head, 5).is_multiple_of(3) { "market" } else { "limit" }
}

fn ok(result: &str) -> Reply {
    Reply::ok(format!(r#"{{"error":[],"result":{result}}}"#))
}

fn error(error: &str) -> Reply {
    Reply::ok(format!(r#"{{"error":["{error}"]}}"#))
}

/// Trades after `since`, in nanoseconds, oldest first; or the newest ones.
fn trades(listing: &Listing, query: &Query, now: Timestamp) -> Reply {
    let count = query.number("count").unwrap_or(1_000).clamp(1, 1_000);
    let count = usize::try_from(count).unwrap_or(0);
    let latest = listing.latest(now).unwrap_or(0);
    let page: Vec<Trade> = if let Some(since) = query.number("since") {
        listing.trades(after(listing, since)..=latest).take(count).collect()
    } else {
        let newest = listing.trades(listing.first_id()..=latest).rev().take(count);
        newest.collect::<Vec<_>>().into_iter().rev().collect()
    };
    let mut last = query.number("since").unwrap_or(0);
    let mut rows = String::new();
    for trade in page {
        last = nanos(listing, &trade);
        let Trade { id, price, quantity, side, at: _ } = trade;
        let time = double(last);
        let side = if side == Side::Buy { "b" } else { "s" };
        let order = order_type(listing, id).split_at(1).0;
        let separator = if rows.is_empty() { "" } else { "," };
        let written = write!(
            rows,
            r#"{separator}["{price}","{quantity}",{time},"{side}","{order}","",{id}]"#
        );
        debug_assert!(written.is_ok(), "a string takes all text");
    }
    ok(&format!(r#"{{"{}":[{rows}],"last":"{last}"}}"#, Names::of(listing.symbol()).key))
}

/// The trade's place among those of its microsecond makes its nanoseconds unique, so that paging loses none. They
/// stay clear of the ends of the microsecond, so that the double nearest to them lies in it as well.
fn nanos(listing: &Listing, trade: &Trade) -> u64 {
    let place = trade.id - listing.first_since(trade.at);
    trade.at.as_micros().cast_unsigned() * 1_000 + NANOS_FIRST + place.min(NANOS_LAST - NANOS_FIRST)
}

/// Seconds as Kraken writes them: the double nearest to the nanoseconds, in the fewest digits that are read as it.
fn double(nanos: u64) -> f64 {
    let seconds = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    seconds.parse().unwrap_or_default()
}

/// The first trade after a time in nanoseconds, or in seconds as some clients send it.
fn after(listing: &Listing, since: u64) -> u64 {
    if since < 100_000_000_000 {
        let at = i64::try_from(since).ok().and_then(|s| Timestamp::from_micros(s * SECOND_US).ok());
        return at.map_or(listing.first_id(), |at| listing.first_since(at));
    }
    let micros = i64::try_from(since / 1_000).unwrap_or(i64::MAX);
    let Ok(at) = Timestamp::from_micros(micros) else { return u64::MAX };
    let first = listing.first_since(at);
    let is_after = |trade: &Trade| trade.at > at || nanos(listing, trade) > since;
    listing.trades(first..=u64::MAX).find(is_after).map_or(u64::MAX, |trade| trade.id)
}

/// Oldest first, the last 720 at most and the running one among them, after `since` in seconds.
fn candles(listing: &Listing, query: &Query, now: Timestamp) -> Reply {
    if query.number("interval").is_some_and(|minutes| minutes != 1) {
        return error("EGeneral:Invalid arguments:interval");
    }
    let oldest = now.minute().plus_micros((1 - CANDLES_MAX) * MINUTE_US);
    let since = query.number("since").and_then(|seconds| i64::try_from(seconds).ok());
    let since = since.and_then(|seconds| Timestamp::from_millis(seconds.checked_mul(1_000)?).ok());
    let from = since.map_or(oldest, |since| since.minute().plus_micros(MINUTE_US).max(oldest));
    let rows: Vec<String> = listing
        .candles(from, now, now)
        .map(|candle| {
            let Candle { minute, open, high, low, close, volume, value, trades } = candle;
            let average = value.checked_div(volume).unwrap_or_default();
            let average = average.round_dp(listing.price_scale());
            let start = minute.as_millis() / 1_000;
            format!(
                r#"[{start},"{open}","{high}","{low}","{close}","{average}","{volume}",{trades}]"#
            )
        })
        .collect();
    let key = Names::of(listing.symbol()).key;
    let last = now.minute().plus_micros(-MINUTE_US).as_millis() / 1_000;
    ok(&format!(r#"{{"{key}":[{}],"last":{last}}}"#, rows.join(",")))
}

/// Kraken's names of a pair: currencies of old carry an X or a Z, and bitcoin is XBT.
struct Names {
    key: String,
    altname: String,
    wsname: String,
    base: String,
    quote: String,
}

impl Names {
    fn of(symbol: &Symbol) -> Self {
        let (base, quote) = (alternative(symbol.base()), alternative(symbol.quote()));
        let (base_id, quote_id) = (asset(base), asset(quote));
        let altname = format!("{base}{quote}");
        // Only pairs of two old currencies are keyed by their prefixed names.
        let is_old = base_id != base && quote_id != quote;
        Self {
            key: if is_old { format!("{base_id}{quote_id}") } else { altname.clone() },
            altname,
            wsname: format!("{base}/{quote}"),
            base: base_id,
            quote: quote_id,
        }
    }
}

fn alternative(currency: &str) -> &str {
    match currency {
        "BTC" => "XBT",
        "DOGE" => "XDG",
        other => other,
    }
}

fn asset(alternative: &str) -> String {
    match alternative {
        "XBT" | "ETH" | "LTC" | "XRP" | "XLM" | "ETC" | "XDG" => format!("X{alternative}"),
        "USD" | "EUR" | "GBP" | "JPY" | "CAD" | "AUD" => format!("Z{alternative}"),
        other => other.to_owned(),
    }
}

fn pair<'a>(market: &'a Market, name: &str) -> Option<&'a Arc<Listing>> {
    market.listings(Venue::KRAKEN).find(|listing| {
        let names = Names::of(listing.symbol());
        [names.key.as_str(), &names.altname, &names.wsname, listing.spelling()].contains(&name)
            || listing.symbol().as_str() == name
    })
}

/// Stocks have small letters in their names, and are known only where their class is asked for.
const TOKENIZED: &str = "tokenized_asset";

fn class(listing: &Listing) -> &'static str {
    let is_stock = listing.symbol().base().chars().any(char::is_lowercase);
    if is_stock { TOKENIZED } else { "currency" }
}

fn asked<'a>(market: &'a Market, name: &str, query: &Query) -> Option<&'a Arc<Listing>> {
    let wanted = query.get("asset_class").unwrap_or("currency");
    pair(market, name).filter(|listing| class(listing) == wanted)
}

fn asset_pairs(market: &Market, query: &Query) -> Reply {
    let wanted = query.get("aclass_base").unwrap_or("currency");
    let is_wanted = |listing: &&Arc<Listing>| class(listing) == wanted;
    let named: Option<Vec<_>> = query
        .get("pair")
        .map(|list| {
            list.split(',').map(|name| pair(market, name).filter(is_wanted)).collect::<Option<_>>()
        })
        .unwrap_or_else(|| Some(market.listings(Venue::KRAKEN).filter(is_wanted).collect()));
    let Some(listings) = named else { return error("EQuery:Unknown asset pair") };
    let pairs: Vec<String> = listings
        .into_iter()
        .map(|listing| {
            let Names { key, altname, wsname, base, quote } = Names::of(listing.symbol());
            let (decimals, lots) = (listing.price_scale(), listing.lot_scale());
            let (tick, class) = (listing.tick_size(), class(listing));
            format!(
                r#""{key}":{{"altname":"{altname}","wsname":"{wsname}","aclass_base":"{class}","base":"{base}","aclass_quote":"currency","quote":"{quote}","lot":"unit","cost_decimals":5,"pair_decimals":{decimals},"lot_decimals":{lots},"lot_multiplier":1,"leverage_buy":[],"leverage_sell":[],"fees":[[0,0.26]],"fees_maker":[[0,0.16]],"fee_volume_currency":"ZUSD","margin_call":80,"margin_stop":40,"ordermin":"0.0001","costmin":"0.5","tick_size":"{tick}","status":"online"}}"#
            )
        })
        .collect();
    ok(&format!("{{{}}}", pairs.join(",")))
}

fn assets(market: &Market) -> Reply {
    let mut names: Vec<&str> = market
        .listings(Venue::KRAKEN)
        .flat_map(|listing| [listing.symbol().base(), listing.symbol().quote()])
        .map(alternative)
        .collect();
    names.sort_unstable();
    names.dedup();
    let all: Vec<String> = names
        .into_iter()
        .map(|name| {
            format!(
                r#""{}":{{"aclass":"currency","altname":"{name}","decimals":10,"display_decimals":5,"status":"enabled"}}"#,
                asset(name)
            )
        })
        .collect();
    ok(&format!("{{{}}}", all.join(",")))
}

#[cfg(test)]
mod tests;
