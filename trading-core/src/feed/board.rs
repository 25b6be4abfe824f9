//! What the feeds are doing, where it can be asked: health, metrics and pages read it, and no feed waits for them.
//!
//! Each feed writes its own entry: an atomic store for a frame, a look-up and two stores for a tick (twice for a new one),
//! and a lock only when a connection changes its state.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::counters::{ExchangeCounters, ExchangeCounts};
use crate::domain::{Instrument, Stamp, Timestamp, lock};

/// In place of a time: nothing has happened yet.
const NEVER: i64 = i64::MIN;

/// All feeds of this process, and what came from each exchange. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct FeedBoard(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    feeds: Vec<Arc<FeedEntry>>,
    exchanges: BTreeMap<&'static str, Arc<ExchangeCounters>>,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// It waits for its turn at the exchange's door, or opens the socket.
    Connecting,
    /// The socket is open, and not every symbol has its answer.
    Subscribing,
    /// Every symbol has its answer, and at least one is acknowledged.
    Streaming,
    /// It has ended, and the next one is not due yet.
    WaitingToReconnect,
    /// The feed was stopped.
    Stopped,
}

/// One feed at one moment.
#[derive(Debug, Clone)]
pub struct FeedStatus {
    /// The exchange's name.
    pub exchange: &'static str,
    /// The feed's name in logs and tables: `binance-1`.
    pub name: String,
    /// Its connections beside each other, at least one.
    pub connections: Vec<ConnectionStatus>,
}

/// One of a feed's connections at one moment; those that follow each other are one.
#[derive(Debug, Clone)]
pub struct ConnectionStatus {
    /// Its name in logs and tables: the feed's where it is the only one, else `binance-1/2`.
    pub name: String,
    /// What it is doing.
    pub state: ConnectionState,
    /// Since when.
    pub since: Timestamp,
    /// How long ago the last frame of any kind was read; `None`: no frame has come yet.
    pub frame_age: Option<Duration>,
    /// Connections made after the first.
    pub reconnects: u64,
    /// Why the last connection ended, as the log and `feed_sessions` have it; `None`: none has ended yet.
    pub last_end: Option<String>,
    /// What it is to carry, by name.
    pub symbols: Vec<SymbolStatus>,
}

/// One symbol of a connection at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SymbolStatus {
    /// Which.
    pub instrument: Instrument,
    /// When its last trade was received that was younger than all before, or that no connection had brought before.
    pub last_tick_at: Option<Timestamp>,
    /// Whether the exchange has acknowledged its subscription on the connection that lives, or the last one.
    pub is_acknowledged: bool,
    /// Whether it has no trade for longer than its own rate explains, or none at all since it was acknowledged.
    pub is_silent: bool,
}

impl FeedBoard {
    /// Adds a feed with this many connections; returns what it writes to from then on.
    pub(super) fn add(
        &self,
        exchange: &'static str,
        name: &str,
        connections: usize,
        instruments: &[Instrument],
        now: Timestamp,
    ) -> Arc<FeedEntry> {
        let mut entries = lock(&self.0);
        let counters = Arc::clone(entries.exchanges.entry(exchange).or_default());
        let connection = |number: usize| {
            let name = if connections == 1 { name.to_owned() } else { format!("{name}/{number}") };
            ConnectionEntry::new(name, instruments, now)
        };
        let entry = Arc::new(FeedEntry {
            exchange,
            name: name.to_owned(),
            counters,
            connections: (1..=connections).map(connection).collect(),
        });
        entries.feeds.push(Arc::clone(&entry));
        entry
    }

    /// Every feed at this reading of the steady clock, in the order in which they were started.
    #[must_use]
    pub fn feeds(&self, now: i64) -> Vec<FeedStatus> {
        let feeds = lock(&self.0).feeds.clone();
        feeds.iter().map(|feed| feed.read(now)).collect()
    }

    /// What came from each exchange, by name.
    #[must_use]
    pub fn exchanges(&self) -> BTreeMap<&'static str, ExchangeCounts> {
        let entries = lock(&self.0);
        entries.exchanges.iter().map(|(name, counters)| (*name, counters.read())).collect()
    }
}

/// What one feed writes.
#[derive(Debug)]
pub(super) struct FeedEntry {
    exchange: &'static str,
    name: String,
    /// Shared with the other feeds of the exchange.
    pub(super) counters: Arc<ExchangeCounters>,
    pub(super) connections: Vec<ConnectionEntry>,
}

impl FeedEntry {
    fn read(&self, now: i64) -> FeedStatus {
        FeedStatus {
            exchange: self.exchange,
            name: self.name.clone(),
            connections: self.connections.iter().map(|connection| connection.read(now)).collect(),
        }
    }
}

/// What one connection after the other writes.
#[derive(Debug)]
pub(super) struct ConnectionEntry {
    /// In logs and tables.
    pub(super) name: String,
    phase: Mutex<Phase>,
    reconnects: AtomicU64,
    /// On the steady clock.
    last_frame: AtomicI64,
    symbols: FxHashMap<Instrument, SymbolEntry>,
}

#[derive(Debug)]
struct Phase {
    state: ConnectionState,
    since: Timestamp,
    last_end: Option<String>,
}

#[derive(Debug)]
struct SymbolEntry {
    last_tick_at: AtomicI64,
    is_acknowledged: AtomicBool,
    is_silent: AtomicBool,
}

impl ConnectionEntry {
    fn new(name: String, instruments: &[Instrument], now: Timestamp) -> Self {
        let symbol = || SymbolEntry {
            last_tick_at: AtomicI64::new(NEVER),
            is_acknowledged: AtomicBool::new(false),
            is_silent: AtomicBool::new(false),
        };
        let phase = Phase { state: ConnectionState::Connecting, since: now, last_end: None };
        Self {
            name,
            phase: Mutex::new(phase),
            reconnects: AtomicU64::new(0),
            last_frame: AtomicI64::new(NEVER),
            symbols: instruments.iter().map(|instrument| (*instrument, symbol())).collect(),
        }
    }

    /// The state changes, unless it is this one already.
    pub(super) fn set_state(&self, state: ConnectionState, now: Timestamp) {
        let mut phase = lock(&self.phase);
        if phase.state != state {
            (phase.state, phase.since) = (state, now);
        }
    }

    /// The socket is open. One that is opened to replace another changes nothing: the other is streaming.
    pub(super) fn record_open(&self, now: Timestamp) {
        let mut phase = lock(&self.phase);
        if phase.state == ConnectionState::Connecting {
            (phase.state, phase.since) = (ConnectionState::Subscribing, now);
        }
    }

    /// Another connection is made after the first.
    pub(super) fn record_reconnect(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection has ended.
    pub(super) fn record_end(&self, why: String) {
        lock(&self.phase).last_end = Some(why);
    }

    /// No symbol is acknowledged any more: the connection has ended, and no other has taken its place.
    pub(super) fn record_unsubscribed(&self) {
        for symbol in self.symbols.values() {
            symbol.is_acknowledged.store(false, Ordering::Relaxed);
        }
    }

    /// A frame was read.
    pub(super) fn record_frame(&self, stamp: Stamp) {
        self.last_frame.store(stamp.steady, Ordering::Relaxed);
    }

    /// The exchange has acknowledged a symbol, or refused it.
    pub(super) fn record_answer(&self, instrument: Instrument, is_acknowledged: bool) {
        if let Some(symbol) = self.symbols.get(&instrument) {
            symbol.is_acknowledged.store(is_acknowledged, Ordering::Relaxed);
        }
    }

    /// A trade came that shows that its symbol is alive.
    pub(super) fn record_tick(&self, instrument: Instrument, received_at: Timestamp) {
        if let Some(symbol) = self.symbols.get(&instrument) {
            symbol.last_tick_at.store(received_at.as_micros(), Ordering::Relaxed);
            symbol.is_silent.store(false, Ordering::Relaxed);
        }
    }

    /// A symbol is silent, until its next trade.
    pub(super) fn record_silent(&self, instrument: Instrument) {
        if let Some(symbol) = self.symbols.get(&instrument) {
            symbol.is_silent.store(true, Ordering::Relaxed);
        }
    }

    fn read(&self, now: i64) -> ConnectionStatus {
        let get = |time: &AtomicI64| Some(time.load(Ordering::Relaxed)).filter(|it| *it != NEVER);
        let age = |last: i64| u64::try_from(now.saturating_sub(last)).unwrap_or_default();
        let symbol = |(instrument, symbol): (&Instrument, &SymbolEntry)| SymbolStatus {
            instrument: *instrument,
            last_tick_at: get(&symbol.last_tick_at)
                .and_then(|micros| Timestamp::from_micros(micros).ok()),
            is_acknowledged: symbol.is_acknowledged.load(Ordering::Relaxed),
            is_silent: symbol.is_silent.load(Ordering::Relaxed),
        };
        let mut symbols: Vec<SymbolStatus> = self.symbols.iter().map(symbol).collect();
        symbols.sort_unstable_by_key(|symbol| symbol.instrument);
        let phase = lock(&self.phase);
        ConnectionStatus {
            name: self.name.clone(),
            state: phase.state,
            since: phase.since,
            frame_age: get(&self.last_frame).map(|last| Duration::from_micros(age(last))),
            reconnects: self.reconnects.load(Ordering::Relaxed),
            last_end: phase.last_end.clone(),
            symbols,
        }
    }
}
