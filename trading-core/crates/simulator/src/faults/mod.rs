//! What goes wrong on purpose: switches that stay on, and actions that happen once.
//!
//! Deterministic from the seed where they are random: what happens to a trade depends on the seed, the
//! connection's number at its exchange, the symbol and the id. Only the WebSocket lies; what the REST history tells is
//! always whole. All that is done to a client is in the journal.

mod switches;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::switches::SwitchesError as Refused;
use super::journal::{Entry, EntryKind, Journal, Keeper};
use super::market::{Listing, hash, stream};
use super::venue::{UnknownVenue, Venue};
use domain::{Timestamp, lock};

pub use self::switches::{RestFault, Switches, SwitchesError};

/// Actions that may wait for their trades at once.
const WAITING_MAX: usize = 1_000;

/// Whom an action concerns; the default is everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// One exchange only.
    pub exchange: Option<Venue>,
    /// One symbol only, by its canonical name.
    pub symbol: Option<String>,
    /// One connection only, counted from 1 at its exchange.
    pub connection: Option<u64>,
}

impl Target {
    fn concerns(&self, venue: Venue, connection: u64) -> bool {
        self.exchange.is_none_or(|exchange| exchange == venue)
            && self.connection.is_none_or(|only| only == connection)
    }
}

/// What happens once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Connections are cut, without a close frame.
    Cut,
    /// The next trades, this many, are not sent.
    Skip(u64),
    /// The next trades, this many, are sent twice.
    Repeat(u64),
    /// The next trades, this many, are sent as broken frames.
    Malformed(u64),
    /// The next trades, this many, are sent with a time that is years off.
    Misdate(u64),
    /// Connections are silent for this long. With a symbol as target only its present subscriptions are silent, while
    /// heartbeats and other symbols come.
    Stall(Duration),
    /// New connections are refused for this long.
    Refuse(Duration),
    /// The exchange refuses new connections and REST requests with a ban of this length, and names it.
    Ban(Duration),
    /// The exchange announces, where it has a message for it, that it will close the open connections, and cuts them
    /// after this time.
    Shutdown(Duration),
}

/// Why an order over the control route was not taken.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// A switch is not known.
    #[error(transparent)]
    Switches(#[from] Refused),
    /// The exchange is not simulated.
    #[error(transparent)]
    Exchange(#[from] UnknownVenue),
    /// The action is not known, or lacks its number or its duration.
    #[error(
        "fault action {0:?}: cut; skip, repeat, malformed or misdate with \"trades\"; stall, refuse, ban or shutdown with \"for\""
    )]
    Action(String),
    /// Too many actions wait for their trades.
    #[error("{WAITING_MAX} actions wait for their trades already")]
    Full,
}

/// The body of `POST /control/faults`: switches, an action, or both.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FaultOrder {
    switches: Option<String>,
    action: Option<String>,
    exchange: Option<String>,
    symbol: Option<String>,
    connection: Option<u64>,
    trades: Option<u64>,
    #[serde(rename = "for")]
    lasting: Option<String>,
}

/// The answer of `GET /control/faults`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FaultReport {
    /// The switches, as text.
    pub switches: String,
    /// Actions that wait for their trades.
    pub waiting: usize,
    /// Open connections per exchange, by number.
    pub connections: BTreeMap<&'static str, Vec<u64>>,
}

/// The handle through which faults are switched, by the program, by tests and by the control route.
#[derive(Debug, Clone)]
pub struct FaultsHandle {
    seed: u64,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    switches: Switches,
    waiting: Vec<Waiting>,
    timed: Vec<Lasting>,
    shutdowns: Vec<Shutdown>,
    connected: BTreeMap<Venue, u64>,
    open: BTreeMap<(Venue, u64), CancellationToken>,
    journal: Keeper,
}

#[derive(Debug, Clone)]
struct Waiting {
    target: Target,
    fate: Fate,
    trades: u64,
}

#[derive(Debug, Clone)]
struct Shutdown {
    target: Target,
    announced: Timestamp,
    at: Timestamp,
}

#[derive(Debug, Clone)]
struct Lasting {
    target: Target,
    what: Timed,
    since: Timestamp,
    until: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timed {
    Stall,
    Refuse,
    Ban,
}

/// What becomes of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Deliver,
    Skip,
    Repeat,
    Malform,
    Misdate,
}

impl Fate {
    pub(super) const fn kind(self) -> EntryKind {
        match self {
            Self::Deliver | Self::Skip => EntryKind::Skip,
            Self::Repeat => EntryKind::Repeat,
            Self::Malform => EntryKind::Malformed,
            Self::Misdate => EntryKind::Misdated,
        }
    }
}

/// The faults of one turn of one connection.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) cut: bool,
    pub(super) stalled: bool,
    /// A shutdown of this connection has been announced.
    pub(super) is_announced: bool,
    pub(super) trades_per_second: Option<u64>,
    stream: u64,
    switches: Switches,
    waiting: Vec<Waiting>,
    /// Symbols of which older subscriptions are silent.
    silent: Vec<(String, Timestamp)>,
}

impl Turn {
    /// Whether a subscription that was made then is silent now.
    pub(super) fn is_silent(&self, symbol: &str, subscribed_at: Timestamp) -> bool {
        self.silent.iter().any(|(only, since)| only == symbol && subscribed_at <= *since)
    }

    /// Whether nothing happens to any trade.
    pub(super) const fn is_harmless(&self) -> bool {
        self.waiting.is_empty()
            && self.switches.skip == 0
            && self.switches.repeat == 0
            && self.switches.malformed == 0
    }

    /// What becomes of the message that begins with this trade.
    pub(super) fn fate(&mut self, listing: &Listing, first: u64) -> Fate {
        let symbol = listing.symbol().as_str();
        let waiting = self.waiting.iter_mut().find(|waiting| {
            waiting.trades > 0 && waiting.target.symbol.as_deref().is_none_or(|only| only == symbol)
        });
        if let Some(waiting) = waiting {
            waiting.trades -= 1;
            return waiting.fate;
        }
        let drawn = hash(self.stream, listing.mark(first, 99)) % 1_000_000;
        let Switches { skip, repeat, malformed, .. } = self.switches;
        let mut below = 0;
        for (share, fate) in
            [(skip, Fate::Skip), (repeat, Fate::Repeat), (malformed, Fate::Malform)]
        {
            below += u64::from(share);
            if drawn < below {
                return fate;
            }
        }
        Fate::Deliver
    }
}

/// A connection that was let in; it is forgotten when this is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) connection: u64,
    /// Cancelled when a fault cuts the connection.
    pub(super) cut: CancellationToken,
    venue: Venue,
    faults: FaultsHandle,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.faults.state().open.remove(&(self.venue, self.connection));
    }
}

impl FaultsHandle {
    pub(super) fn new(seed: u64, switches: Switches) -> Self {
        let state = State { switches, ..State::default() };
        Self { seed, state: Arc::new(Mutex::new(state)) }
    }

    /// Replaces all switches.
    pub fn switch(&self, switches: Switches) {
        self.state().switches = switches;
    }

    /// Takes an action, at once or at the next trades that it concerns.
    ///
    /// # Errors
    ///
    /// When too many actions wait for their trades.
    pub fn act(&self, target: &Target, action: Action, now: Timestamp) -> Result<(), FaultError> {
        let mut state = self.state();
        let until = |lasting: Duration| {
            let micros = i64::try_from(lasting.as_micros()).unwrap_or(i64::MAX);
            Timestamp::from_micros(now.as_micros().saturating_add(micros)).unwrap_or(now)
        };
        let (fate, trades) = match action {
            Action::Cut => {
                for ((venue, connection), cut) in &state.open {
                    if target.concerns(*venue, *connection) {
                        cut.cancel();
                    }
                }
                return Ok(());
            }
            Action::Stall(lasting) | Action::Refuse(lasting) | Action::Ban(lasting) => {
                let timed = match action {
                    Action::Stall(_) => Timed::Stall,
                    Action::Ban(_) => Timed::Ban,
                    _ => Timed::Refuse,
                };
                state.timed.retain(|lasting| lasting.until > now);
                if state.timed.len() >= WAITING_MAX {
                    return Err(FaultError::Full);
                }
                let (target, until) = (target.clone(), until(lasting));
                state.timed.push(Lasting { target, what: timed, since: now, until });
                return Ok(());
            }
            Action::Shutdown(notice) => {
                state.shutdowns.retain(|shutdown| shutdown.at > now);
                if state.shutdowns.len() >= WAITING_MAX {
                    return Err(FaultError::Full);
                }
                let at = until(notice);
                state.shutdowns.push(Shutdown { target: target.clone(), announced: now, at });
                return Ok(());
            }
            Action::Skip(trades) => (Fate::Skip, trades),
            Action::Repeat(trades) => (Fate::Repeat, trades),
            Action::Malformed(trades) => (Fate::Malform, trades),
            Action::Misdate(trades) => (Fate::Misdate, trades),
        };
        if state.waiting.len() >= WAITING_MAX {
            return Err(FaultError::Full);
        }
        state.waiting.push(Waiting { target: target.clone(), fate, trades });
        Ok(())
    }

    /// Takes an order in the words of the control route.
    ///
    /// # Errors
    ///
    /// When it is not understood; then nothing of it is done.
    pub fn order(&self, order: &FaultOrder, now: Timestamp) -> Result<(), FaultError> {
        let switches = order.switches.as_deref().map(str::parse).transpose()?;
        let target = Target {
            exchange: order.exchange.as_deref().map(str::parse).transpose()?,
            symbol: order.symbol.clone(),
            connection: order.connection,
        };
        let action = order.action.as_deref().map(|name| parse(name, order)).transpose()?;
        if let Some(switches) = switches {
            self.switch(switches);
        }
        action.map_or(Ok(()), |action| self.act(&target, action, now))
    }

    /// What is switched on, which actions wait, and which connections are open.
    #[must_use]
    pub fn report(&self) -> FaultReport {
        let state = self.state();
        let mut connections: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (venue, connection) in state.open.keys() {
            connections.entry(venue.name()).or_default().push(*connection);
        }
        let waiting = state.waiting.len();
        FaultReport { switches: state.switches.to_string(), waiting, connections }
    }

    /// What was done to the clients.
    #[must_use]
    pub fn journal(&self) -> Journal {
        self.state().journal.read()
    }

    /// How long a ban of everybody by this exchange still lasts, in whole seconds, rounded up.
    pub(super) fn banned_for(&self, venue: Venue, now: Timestamp) -> Option<u64> {
        let state = self.state();
        let banned = state.timed.iter().filter(|lasting| {
            lasting.what == Timed::Ban
                && lasting.target.exchange.is_none_or(|exchange| exchange == venue)
                && now < lasting.until
        });
        let left = banned.map(|lasting| lasting.until.as_micros() - now.as_micros()).max()?;
        Some(left.cast_unsigned().div_ceil(1_000_000))
    }

    /// What is wrong with the REST sides.
    pub(super) fn rest(&self) -> Option<RestFault> {
        self.state().switches.rest
    }

    /// Lets a connection in, or refuses it.
    pub(super) fn admit(&self, venue: Venue, now: Timestamp) -> Option<Admitted> {
        let mut state = self.state();
        let count = state.connected.entry(venue).or_default();
        *count += 1;
        let connection = *count;
        let drawn = hash(self.stream(venue, connection), 2) % 1_000_000;
        let refused = drawn < u64::from(state.switches.refuse)
            || state.happens(Timed::Refuse, venue, connection, now);
        let kind = if refused { EntryKind::Refuse } else { EntryKind::Open };
        state.journal.record(Entry::new(now, venue, connection, kind, None));
        if refused {
            return None;
        }
        let cut = CancellationToken::new();
        state.open.insert((venue, connection), cut.clone());
        drop(state);
        Some(Admitted { connection, cut, venue, faults: self.clone() })
    }

    pub(super) fn turn(
        &self,
        venue: Venue,
        connection: u64,
        opened_at: Timestamp,
        now: Timestamp,
    ) -> Turn {
        let mut state = self.state();
        let switches = state.switches;
        let stream = self.stream(venue, connection);
        let age = (now.as_micros() - opened_at.as_micros()).max(0).cast_unsigned();
        let age = Duration::from_micros(age);
        let stalled = switches.stalls(age) || state.happens(Timed::Stall, venue, connection, now);
        let cut = switches.lifetime(stream).is_some_and(|lifetime| age >= lifetime)
            || state.happened(venue, connection, opened_at, |shutdown| shutdown.at <= now);
        let is_announced = state.happened(venue, connection, opened_at, |_| true);
        let silent = state.silent(venue, connection, now);
        let waiting = if cut || stalled || state.waiting.is_empty() {
            Vec::new()
        } else {
            state.waiting.extract_if(.., |it| it.target.concerns(venue, connection)).collect()
        };
        drop(state);
        Turn {
            cut,
            stalled,
            is_announced,
            trades_per_second: switches.slow,
            stream,
            switches,
            waiting,
            silent,
        }
    }

    /// Actions that found too few trades wait for the next ones.
    pub(super) fn give_back(&self, turn: Turn) {
        if turn.waiting.is_empty() {
            return;
        }
        self.state().waiting.extend(turn.waiting.into_iter().filter(|waiting| waiting.trades > 0));
    }

    pub(super) fn record(&self, entry: Entry) {
        self.state().journal.record(entry);
    }

    fn stream(&self, venue: Venue, connection: u64) -> u64 {
        hash(stream(self.seed, &["faults", venue.name()]), connection)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Whether a shutdown concerns a connection that was open when it was announced.
    fn happened(
        &self,
        venue: Venue,
        connection: u64,
        opened_at: Timestamp,
        which: impl Fn(&Shutdown) -> bool,
    ) -> bool {
        self.shutdowns.iter().any(|shutdown| {
            opened_at <= shutdown.announced
                && shutdown.target.concerns(venue, connection)
                && which(shutdown)
        })
    }

    fn happens(&self, what: Timed, venue: Venue, connection: u64, now: Timestamp) -> bool {
        // A stall of one symbol stalls no connection.
        let is_whole = |lasting: &Lasting| what != Timed::Stall || lasting.target.symbol.is_none();
        self.lasting(what, venue, connection, now).any(is_whole)
    }

    fn silent(&self, venue: Venue, connection: u64, now: Timestamp) -> Vec<(String, Timestamp)> {
        let stalls = self.lasting(Timed::Stall, venue, connection, now);
        stalls.filter_map(|stall| Some((stall.target.symbol.clone()?, stall.since))).collect()
    }

    fn lasting(
        &self,
        what: Timed,
        venue: Venue,
        connection: u64,
        now: Timestamp,
    ) -> impl Iterator<Item = &Lasting> {
        self.timed.iter().filter(move |lasting| {
            lasting.what == what
                && now < lasting.until
                && lasting.target.concerns(venue, connection)
        })
    }
}

fn parse(name: &str, order: &FaultOrder) -> Result<Action, FaultError> {
    let lasting = order.lasting.as_deref().and_then(|text| humantime::parse_duration(text).ok());
    let trades = order.trades.unwrap_or(1);
    match (name, lasting) {
        ("cut", _) => Ok(Action::Cut),
        ("skip", _) => Ok(Action::Skip(trades)),
        ("repeat", _) => Ok(Action::Repeat(trades)),
        ("malformed", _) => Ok(Action::Malformed(trades)),
        ("misdate", _) => Ok(Action::Misdate(trades)),
        ("stall", Some(lasting)) => Ok(Action::Stall(lasting)),
        ("refuse", Some(lasting)) => Ok(Action::Refuse(lasting)),
        ("ban", Some(lasting)) => Ok(Action::Ban(lasting)),
        ("shutdown", Some(notice)) => Ok(Action::Shutdown(notice)),
        _ => Err(FaultError::Action(name.chars().take(40).collect())),
    }
}
