//! What differs between exchanges, and nothing else.
//!
//! A venue is one folder: where it is, how its symbols are spelled, what to send to subscribe, how to read a frame, which
//! limits it sets; and in `history` how its past is asked for. It is pure: no socket, no clock, no task. The feed drives
//! it, tests run it on recorded frames, and any bytes at all may be given to [`Exchange::decode`]: it answers with an
//! error, it never panics.
//!
//! To add one: its folder, its `mod` and `pub use` below, and its entry in `VENUES`. The tests name every other place
//! that must know it.

mod binance;
mod bitstamp;
mod bybit;
mod coinbase;
mod frame;
pub mod history;
mod kraken;
#[cfg(test)]
mod names_tests;
mod okx;
#[cfg(test)]
mod testing;

use std::time::Duration;

use rustc_hash::FxHashMap;

pub use binance::Binance;
pub use bitstamp::Bitstamp;
pub use bybit::Bybit;
pub use coinbase::Coinbase;
pub use kraken::Kraken;
pub use okx::Okx;

use self::history::History;
use domain::{DecimalError, Instrument, Lines, Symbol, Tick, Timestamp, TimestampError, escaped};

/// The list of venues, in order of name. Whatever else must know a venue is made from this list or fails a test.
static VENUES: &[&dyn Exchange] = &[&Binance, &Bitstamp, &Bybit, &Coinbase, &Kraken, &Okx];

/// Every venue, in order of name.
pub fn all() -> impl Iterator<Item = &'static dyn Exchange> {
    VENUES.iter().copied()
}

/// The name of every venue, in order.
#[must_use]
pub fn names() -> Vec<&'static str> {
    all().map(Exchange::name).collect()
}

/// The venue with this name in the settings.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static dyn Exchange> {
    all().find(|exchange| exchange.name() == name)
}

/// The symbols of a list that the venue spells as one before them, with that one and the spelling: both names mean one
/// pair, which can be recorded once.
#[must_use]
pub fn same_pairs<'a>(
    exchange: &dyn Exchange,
    symbols: &'a [Symbol],
) -> Vec<(&'a Symbol, &'a Symbol, String)> {
    let mut known: FxHashMap<String, &Symbol> = FxHashMap::default();
    let mut same = Vec::new();
    for symbol in symbols {
        let spelling = exchange.venue_symbol(symbol);
        match known.get(&spelling) {
            Some(before) => same.push((*before, symbol, spelling)),
            None => {
                known.insert(spelling, symbol);
            }
        }
    }
    same
}

/// One venue's protocol.
pub trait Exchange: Send + Sync + std::fmt::Debug {
    /// The name in settings, tables and logs: lower case, `binance`.
    fn name(&self) -> &'static str;

    /// The quote currency of most of its trading, in which its default symbols are: `USDT`.
    fn usual_quote(&self) -> &'static str;

    /// Whether it lists names that differ only in small letters and capitals: Kraken has `AAPLx/USD`. The others list
    /// capitals.
    fn has_small_letters(&self) -> bool {
        false
    }

    /// The queries of which its WebSocket base may have one.
    fn base_queries(&self) -> &'static [&'static str] {
        &[]
    }

    /// The endpoints of the real venue.
    fn endpoints(&self) -> Endpoints;

    /// What the venue demands of its clients.
    fn limits(&self) -> Limits;

    /// What can be concluded from the ids of trades.
    fn ids(&self) -> IdRule;

    /// The venue's spelling of a symbol in subscriptions and frames: `BTC-USDT`, `BTC/USD`.
    fn venue_symbol(&self, symbol: &Symbol) -> String;

    /// The whole URL to connect to, from a base such as [`Endpoints::ws_url`] (no trailing slash).
    fn connect_url(&self, base: &str) -> String;

    /// The headers with which the history is asked, so that it is written as the frames that a base brings.
    fn history_headers(&self, _base: &str) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// The texts to send, in order, after connecting: they subscribe to the trades of these symbols (in the
    /// venue's spelling), within its limits of symbols or bytes per message.
    fn subscribe(&self, venue_symbols: &[&str]) -> Vec<String>;

    /// The texts that end the subscriptions to these symbols. Whatever is answered to them is [`Message::Other`], or
    /// confirms what is subscribed still.
    fn unsubscribe(&self, venue_symbols: &[&str]) -> Vec<String>;

    /// What a client must send when, so that the venue keeps the connection.
    fn keepalive(&self) -> Option<Keepalive> {
        None
    }

    /// Its history, over REST.
    fn history(&self) -> &'static dyn History;

    /// Reads one frame. Its trades are appended to `ticks` oldest first, each with `received_at`; what else
    /// it said is the answer.
    ///
    /// # Errors
    ///
    /// When the frame is not understood. Ticks that were appended before the error was met stay: the caller
    /// counts the frame as malformed and keeps what could be read.
    fn decode(
        &self,
        frame: &str,
        symbols: &Subscribed,
        received_at: Timestamp,
        ticks: &mut Vec<Tick>,
    ) -> Result<Message, DecodeError>;
}

/// Where a venue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    /// WebSocket base, without trailing slash: `wss://host[:port]`, to which [`Exchange::connect_url`] adds its path.
    pub ws_url: &'static str,
    /// REST base, without trailing slash: `https://host`.
    pub rest_url: &'static str,
}

/// What a venue demands of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Symbols on one connection; more are sharded over several.
    pub symbols_per_connection: usize,
    /// The least time between two messages that we send on one connection.
    pub send_interval: Duration,
    /// The least time between two connection attempts to the venue.
    pub connect_interval: Duration,
    /// How long a connection may live before the venue cuts it; met with a new connection before the old ends.
    pub connection_age: Option<Duration>,
    /// No frame of any kind for this long: the connection is dead.
    pub silence: Duration,
    /// No trade of any symbol for this long, heartbeats or not: the subscription is taken for dead.
    pub idle: Duration,
}

/// What a client must send to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// How often.
    pub every: Duration,
    /// The text message.
    pub text: &'static str,
}

/// What can be concluded from a venue's trade ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdRule {
    /// Each trade of a symbol has the id after the one before: an older id is a duplicate, a jump is a gap.
    Consecutive,
    /// Ids are unique and prove nothing else.
    Unique,
}

/// The symbols of one connection, found by the venue's spelling.
#[derive(Debug, Clone, Default)]
pub struct Subscribed(FxHashMap<Box<str>, Instrument>);

impl Subscribed {
    /// The table for these instruments.
    pub fn new(exchange: &dyn Exchange, instruments: impl IntoIterator<Item = Instrument>) -> Self {
        let entry =
            |item: Instrument| (exchange.venue_symbol(item.symbol()).into_boxed_str(), item);
        Self(instruments.into_iter().map(entry).collect())
    }

    /// The instrument that the venue spells like this.
    ///
    /// # Errors
    ///
    /// When it was not subscribed: a tick of it is not ours to store.
    pub fn find(&self, venue_symbol: &str) -> Result<Instrument, DecodeError> {
        self.0
            .get(venue_symbol)
            .copied()
            .ok_or_else(|| DecodeError::UnknownSymbol(venue_symbol.chars().take(40).collect()))
    }

    /// Each instrument with the venue's spelling, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Instrument)> {
        self.0.iter().map(|(spelling, instrument)| (spelling.as_ref(), *instrument))
    }
}

/// What a frame said, its trades apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Trades, now in the caller's list (none, when the venue sent an empty list).
    Trades,
    /// These subscriptions are confirmed. Empty: all that the answered request asked for.
    Acknowledged(Vec<Instrument>),
    /// A subscription is refused: one symbol's, or the whole request's where the venue does not say which.
    Refused {
        /// The symbol, where the venue names it.
        instrument: Option<Instrument>,
        /// The venue's words, cut to 200 characters.
        reason: String,
    },
    /// The venue wants fewer messages: what it has not answered is to be asked for again later.
    TooFrequent {
        /// The venue's words, cut to 200 characters.
        reason: String,
    },
    /// The venue lives. Where it says so, the last trade id of a symbol: it proves a gap even in silence.
    Heartbeat(Option<(Instrument, u64)>),
    /// The venue will close this connection soon: open the next one now.
    Closing {
        /// The venue's words, cut to 200 characters.
        reason: String,
    },
    /// Something known that says nothing about trades: status, the answer to a ping.
    Other,
}

impl Message {
    /// What a venue answers to a subscription that it does not take, sorted by its words: the codes differ from venue
    /// to venue, and more are added than are documented.
    fn refused(instrument: Option<Instrument>, words: &str) -> Self {
        let reason = reason_text(words);
        let lower = words.to_ascii_lowercase();
        let says = |part: &&str| lower.contains(part);
        match instrument {
            _ if TOO_FREQUENT.iter().any(says) => Self::TooFrequent { reason },
            Some(instrument) if lower.contains("already subscribed") => {
                Self::Acknowledged(vec![instrument])
            }
            instrument => Self::Refused { instrument, reason },
        }
    }
}

/// The words in which venues ask for fewer messages. "Too many" alone is none of them: there may be too many symbols.
const TOO_FREQUENT: [&str; 10] = [
    "too frequent",
    "frequency",
    "rate limit",
    "ratelimit",
    "msg rate",
    "message rate",
    "throttl",
    "too many requests",
    "too many visits",
    "too many messages",
];

/// A frame that is not understood. It is counted, kept aside and skipped; the connection lives.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the JSON that the venue's documentation shows.
    #[error("unreadable frame")]
    Json(#[from] serde_json::Error),
    /// A price or quantity that is not an exact decimal.
    #[error(transparent)]
    Decimal(#[from] DecimalError),
    /// A time that is none.
    #[error(transparent)]
    Time(#[from] TimestampError),
    /// A trade of a symbol that was not subscribed.
    #[error("unknown symbol {0:?}")]
    UnknownSymbol(String),
    /// A value outside those that the venue documents, such as a new side.
    #[error("unknown {field} {value:?}")]
    UnknownValue {
        /// The field's name.
        field: &'static str,
        /// What it held, cut to 40 characters.
        value: String,
    },
    /// A kind of message that the venue does not document.
    #[error("unknown kind of message")]
    UnknownMessage,
}

impl DecodeError {
    /// A value that is not documented.
    #[must_use]
    pub fn unknown_value(field: &'static str, value: &str) -> Self {
        Self::UnknownValue { field, value: value.chars().take(40).collect() }
    }
}

/// The venue's words for logs: on one line, with nothing that a terminal obeys, cut to 200 characters.
#[must_use]
pub fn reason_text(text: &str) -> String {
    let start: String = text.chars().take(200).collect();
    escaped(&start, Lines::One).chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn venues_are_sorted_and_found_by_their_names() {
        let names = names();
        assert!(names.is_sorted());
        for name in names {
            assert_eq!(by_name(name).map(Exchange::name), Some(name));
        }
        assert!(by_name("nowhere").is_none());
    }

    #[test]
    fn two_names_of_one_pair_are_found() {
        let symbols = ["ETHUSD", "XBTUSD", "BTCUSD", "XDG-EUR", "AAPLx/USD", "DOGE-EUR"];
        let symbols = symbols.map(|text| text.parse().unwrap());
        let [_, xbt, btc, xdg, _, doge] = &symbols;
        let found = [(xbt, btc, "BTC/USD".to_owned()), (xdg, doge, "DOGE/EUR".to_owned())];
        assert_eq!(same_pairs(&Kraken, &symbols), found);
        assert_eq!(same_pairs(&Coinbase, &symbols), [], "XBT is no bitcoin there");
    }

    #[test]
    fn a_refusal_is_sorted_by_the_words_of_the_venue() {
        let symbol = testing::instrument(&Okx, "BTCUSDT");
        for words in [
            "60014 Requests too frequent",
            "Too many visits. Exceeded the API Rate Limit.",
            "Exceeded msg rate",
            "EAPI:Rate limit exceeded",
            "3 Too many requests; current limit is 5 messages per second.",
        ] {
            let slow = Message::TooFrequent { reason: words.to_owned() };
            assert_eq!(Message::refused(None, words), slow);
            assert_eq!(Message::refused(Some(symbol), words), slow);
        }
        let words = "error:already subscribed,topic:publicTrade.BTCUSDT";
        assert_eq!(Message::refused(Some(symbol), words), Message::Acknowledged(vec![symbol]));
        for words in ["too many symbols", "Currency pair not supported", "ErrSlowConsume", ""] {
            let refused = Message::Refused { instrument: Some(symbol), reason: words.to_owned() };
            assert_eq!(Message::refused(Some(symbol), words), refused);
        }
    }

    #[test]
    fn every_venue_is_where_its_parts_say() {
        let urls = all().map(|exchange| exchange.connect_url(exchange.endpoints().ws_url));
        assert_eq!(
            urls.collect::<Vec<_>>(),
            [
                "wss://stream.binance.com:9443/stream",
                "wss://ws.bitstamp.net/",
                "wss://stream.bybit.com/v5/public/spot",
                "wss://ws-feed.exchange.coinbase.com/",
                "wss://ws.kraken.com/v2",
                "wss://ws.okx.com:8443/ws/v5/business",
            ]
        );
    }

    #[test]
    fn a_connection_is_not_given_up_between_two_signs_of_life() {
        for exchange in all() {
            let limits = exchange.limits();
            let asked = exchange.keepalive().map_or(Duration::ZERO, |keepalive| keepalive.every);
            assert!(limits.silence < limits.idle, "{exchange:?}");
            // Kraken beats by itself; its ping is for a connection that has no subscription yet.
            assert!(asked < limits.silence || exchange.name() == "kraken", "{exchange:?}");
        }
    }
}
