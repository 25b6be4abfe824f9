//! A client of one pure session, with time in its hand. For tests only.

use std::sync::Arc;

use rust_decimal::Decimal;

use super::faults::{FaultsHandle, Switches};
use super::market::{Listing, Market, MarketOptions, Trade};
use super::outbox::Outbox;
use super::reply::{Query, Reply, Request};
use super::session::{Session, Turned};
use super::venue::Venue;
use domain::Timestamp;

/// Where each test's time begins.
pub(super) const START: &str = "2026-09-02T07:44:10.104422Z";

pub(super) fn market(rate: u32) -> Market {
    let options = MarketOptions { seed: 11, rate: Decimal::from(rate), ..MarketOptions::default() };
    Market::new(&options).unwrap()
}

/// How a client follows bitcoin.
pub(super) struct Example {
    /// Where it connects to, behind the exchange's name.
    pub(super) path: &'static str,
    /// What it says.
    pub(super) subscribe: &'static str,
    /// The field of the trades that it is sent in which their ids are.
    pub(super) id: &'static str,
}

pub(super) struct Client {
    pub(super) market: Market,
    pub(super) faults: FaultsHandle,
    pub(super) now: Timestamp,
    pub(super) turned: Turned,
    venue: Venue,
    session: Session,
    out: Outbox,
}

impl Client {
    /// Connects to a path behind the exchange's name, as `ws/v5/public`, at 100 trades per second and symbol.
    pub(super) fn open(venue: Venue, path: &str, query: &str) -> Self {
        Self::with_faults(venue, path, query, "")
    }

    pub(super) fn with_faults(venue: Venue, path: &str, query: &str, faults: &str) -> Self {
        Self::on(market(100), venue, path, query, faults)
    }

    pub(super) fn on(market: Market, venue: Venue, path: &str, query: &str, faults: &str) -> Self {
        let faults = FaultsHandle::new(11, faults.parse::<Switches>().unwrap());
        let now = Timestamp::from_rfc3339(START).unwrap();
        let connection = std::mem::ManuallyDrop::new(faults.admit(venue, now).unwrap()).connection;
        let path: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let protocol = venue.0.connect(&market, &path, &Query::parse(query), connection).unwrap();
        let mut out = Outbox::default();
        let session = Session::open(venue, connection, protocol, faults.clone(), now, &mut out);
        Self { market, faults, now, turned: Turned::Current, venue, session, out }
    }

    pub(super) fn listing(&self, symbol: &str) -> Arc<Listing> {
        Arc::clone(self.market.listing(self.venue, symbol).unwrap())
    }

    /// The newest trade of a symbol.
    pub(super) fn newest(&self, symbol: &str) -> Trade {
        let listing = self.listing(symbol);
        listing.trade(listing.latest(self.now).unwrap()).unwrap()
    }

    /// What was sent since it was last asked.
    pub(super) fn sent(&mut self) -> Vec<String> {
        self.out.drain_lines()
    }

    /// Says something, and hears the answer to it.
    pub(super) fn say(&mut self, text: &str) -> Vec<String> {
        self.session.text(text, self.now, &mut self.out);
        self.sent()
    }

    /// Waits, with a turn at the end, and hears what came.
    pub(super) fn wait(&mut self, millis: i64) -> Vec<String> {
        self.now = Timestamp::from_micros(self.now.as_micros() + millis * 1_000).unwrap();
        self.turned = self.session.turn(self.now, &mut self.out);
        self.sent()
    }

    pub(super) fn pong(&mut self) {
        self.session.pong(self.now);
    }

    pub(super) fn rest(&self, path: &str) -> Reply {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let path: Vec<&str> = path.split('/').collect();
        let query = &Query::parse(query);
        let request = Request { path: &path, query, now: self.now, history: None };
        self.venue.0.rest(&self.market, &request)
    }

    /// A REST answer's body as JSON.
    pub(super) fn json(&self, path: &str) -> serde_json::Value {
        serde_json::from_str(&self.rest(path).body).unwrap()
    }
}

/// All values of a field, wherever it is in some frames.
pub(super) fn numbers(frames: &[String], field: &str) -> Vec<u64> {
    frames.iter().flat_map(|frame| values(frame, field)).collect()
}

fn values(frame: &str, field: &str) -> Vec<u64> {
    let key = format!("\"{field}\":");
    let after = frame.split(&key).skip(1);
    after
        .map(|rest| {
            let digits = rest.trim_start_matches('"').chars().take_while(char::is_ascii_digit);
            digits.collect::<String>().parse().unwrap()
        })
        .collect()
}
