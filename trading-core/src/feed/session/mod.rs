//! The state of one connection: what is subscribed, what must be sent when, when it must be taken for dead.
//!
//! Pure: what came and the time are arguments.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::time::Instant;

use crate::domain::Instrument;
use crate::domain::bounds::ACKNOWLEDGE_MAX;
use crate::exchange::{Exchange, Keepalive, Limits, Message};

/// When a symbol that was refused is asked for again: the refusal may have been a passing one. Doubled each time, up to
/// [`REFUSED_INTERVAL_MAX`]: the symbol may be listed by then.
const REFUSED_INTERVAL: Duration = Duration::from_secs(15);
/// See [`REFUSED_INTERVAL`].
const REFUSED_INTERVAL_MAX: Duration = Duration::from_mins(10);
/// How long nothing is asked for after the exchange wanted fewer messages. Doubled each time, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(5);
/// See [`PAUSE`].
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// How long after a subscription an exchange may answer with trades of before, the newest ones that it has.
const SNAPSHOT: Duration = Duration::from_secs(2);
/// How much more seldom than it allows an exchange is sent messages that wanted fewer: doubled each time, up to this.
const SLOWNESS_MAX: u32 = 8;

/// A text to send.
#[derive(Debug)]
pub(super) struct Request {
    text: String,
    /// The symbols that are subscribed when it and those before it are confirmed. `None`: it unsubscribes, and no
    /// answer to it is news.
    instruments: Option<Vec<Instrument>>,
}

/// The requests that subscribe these symbols: as few as the exchange allows, or one for each symbol, which shows whose
/// fault it is when the exchange refuses.
pub(super) fn requests(
    exchange: &dyn Exchange,
    instruments: &[Instrument],
    one_by_one: bool,
) -> VecDeque<Request> {
    let group = if one_by_one { 1 } else { instruments.len().max(1) };
    let mut requests = VecDeque::new();
    for instruments in instruments.chunks(group) {
        let spellings: Vec<String> =
            instruments.iter().map(|item| exchange.venue_symbol(item.symbol())).collect();
        let spellings: Vec<&str> = spellings.iter().map(String::as_str).collect();
        for text in exchange.subscribe(&spellings) {
            requests.push_back(Request { text, instruments: Some(Vec::new()) });
        }
        if let Some(last) = requests.back_mut() {
            last.instruments = Some(instruments.to_vec());
        }
    }
    requests
}

/// The requests that subscribe one symbol anew.
pub(super) fn requests_anew(exchange: &dyn Exchange, instrument: Instrument) -> VecDeque<Request> {
    let spelling = exchange.venue_symbol(instrument.symbol());
    let off = exchange.unsubscribe(&[&spelling]).into_iter();
    let off = off.map(|text| Request { text, instruments: None });
    off.chain(requests(exchange, &[instrument], true)).collect()
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Stopped,
    Replaced,
    NotConnected(String),
    Closed(String),
    Failed(String),
    Silent(Duration),
    Idle(Duration),
    NotAcknowledged(usize),
    RequestRefused(String),
    AllRefused,
    PipelineEnded,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Replaced => f.write_str("replaced by a newer connection"),
            Self::NotConnected(error) => write!(f, "not connected: {error}"),
            Self::Closed(reason) => write!(f, "closed by the exchange{reason}"),
            Self::Failed(error) => write!(f, "connection failed: {error}"),
            Self::Silent(limit) => write!(f, "no frame for {} s", limit.as_secs()),
            Self::Idle(limit) => write!(f, "no trade for {} s", limit.as_secs()),
            Self::NotAcknowledged(symbols) => {
                write!(
                    f,
                    "{symbols} symbols not acknowledged within {} s",
                    ACKNOWLEDGE_MAX.as_secs()
                )
            }
            Self::RequestRefused(reason) => write!(f, "subscription refused: {reason}"),
            Self::AllRefused => f.write_str("every symbol refused"),
            Self::PipelineEnded => f.write_str("the pipeline has ended"),
        }
    }
}

/// What a message changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// All that was asked for is confirmed or refused, and something is confirmed.
    Subscribed,
    /// One symbol is confirmed after the others: it was asked for again.
    SymbolConfirmed(Instrument),
    /// One symbol is refused.
    SymbolRefused(Instrument, String),
    /// The exchange wants fewer messages: nothing is asked for during this pause.
    Slowed(String, Duration),
    /// The exchange reports an error that answers no request.
    Reported(String),
    /// The exchange will close soon.
    Closing(String),
    /// The connection is of no use any more.
    Ended(End),
}

/// A symbol that the exchange refused.
#[derive(Debug, Clone, Copy)]
struct Refused {
    at: Instant,
    /// It is asked for again after this time.
    interval: Duration,
}

/// One connection's state.
#[derive(Debug)]
pub(super) struct Session {
    limits: Limits,
    keepalive: Option<Keepalive>,
    to_send: VecDeque<Request>,
    outstanding: VecDeque<Vec<Instrument>>,
    pending: FxHashSet<Instrument>,
    refused: FxHashMap<Instrument, Refused>,
    /// Nothing is asked for until then.
    paused_until: Option<Instant>,
    /// How long the next pause will be.
    pause: Duration,
    /// How much longer than its limit we leave an exchange between two messages.
    slowness: u32,
    confirmed: usize,
    is_subscribed: bool,
    asked_at: Instant,
    sent_at: Option<Instant>,
    pinged_at: Instant,
    last_frame: Instant,
    last_trade: Instant,
}

impl Session {
    pub(super) fn new(
        limits: Limits,
        keepalive: Option<Keepalive>,
        requests: VecDeque<Request>,
        now: Instant,
    ) -> Self {
        let mut session = Self {
            limits,
            keepalive,
            to_send: VecDeque::new(),
            outstanding: VecDeque::new(),
            pending: FxHashSet::default(),
            refused: FxHashMap::default(),
            paused_until: None,
            pause: PAUSE,
            slowness: 1,
            confirmed: 0,
            is_subscribed: false,
            asked_at: now,
            sent_at: None,
            pinged_at: now,
            last_frame: now,
            last_trade: now,
        };
        session.ask(requests, now);
        session
    }

    /// Has these requests sent, and answered.
    pub(super) fn ask(&mut self, requests: VecDeque<Request>, now: Instant) {
        let instruments = requests.iter().filter_map(|request| request.instruments.as_deref());
        self.pending.extend(instruments.flatten());
        self.asked_at = now;
        self.to_send.extend(requests);
    }

    /// Whether all that was asked for has its answer: something new may be asked.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.to_send.is_empty() && self.paused_until.is_none()
    }

    /// Whether a symbol is refused, so that nothing can be expected of it.
    pub(super) fn is_refused(&self, instrument: Instrument) -> bool {
        self.refused.contains_key(&instrument)
    }

    /// A refused symbol that is to be asked for again now.
    pub(super) fn refused_due(&mut self, now: Instant) -> Option<Instrument> {
        let is_due =
            |(_, refused): &(&Instrument, &mut Refused)| now >= refused.at + refused.interval;
        let (instrument, refused) = self.refused.iter_mut().find(is_due)?;
        refused.at = now;
        Some(*instrument)
    }

    /// What is to be asked for again when a pause is over: all that has no answer yet.
    pub(super) fn postponed_due(&mut self, now: Instant) -> Vec<Instrument> {
        if self.paused_until.is_none_or(|until| now < until) {
            return Vec::new();
        }
        self.paused_until = None;
        self.pending.iter().copied().collect()
    }

    /// How many symbols are confirmed.
    pub(super) fn confirmed(&self) -> usize {
        self.confirmed
    }

    /// Whether all that was asked for is confirmed.
    pub(super) fn is_whole(&self) -> bool {
        self.is_subscribed && self.pending.is_empty() && self.refused.is_empty()
    }

    /// How long ago the last frame came.
    pub(super) fn quiet(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_frame)
    }

    /// The next text that may be sent now, within the exchange's rate.
    pub(super) fn next_to_send(&mut self, now: Instant) -> Option<String> {
        let interval = self.limits.send_interval * self.slowness;
        if self.sent_at.is_some_and(|sent| now < sent + interval) {
            return None;
        }
        let text = if let Some(request) = self.to_send.pop_front() {
            self.outstanding.extend(request.instruments);
            self.asked_at = now;
            request.text
        } else {
            let keepalive =
                self.keepalive.filter(|keepalive| now >= self.pinged_at + keepalive.every)?;
            self.pinged_at = now;
            keepalive.text.to_owned()
        };
        self.sent_at = Some(now);
        Some(text)
    }

    /// A frame of any kind came, and was dealt with at `now`.
    pub(super) fn record_frame(&mut self, now: Instant) {
        self.last_frame = now;
    }

    /// Whether trades that come now may be old ones, as the answer to a subscription: their stamps say nothing of a clock.
    pub(super) fn may_answer_with_old_trades(&self, now: Instant) -> bool {
        now < self.asked_at + SNAPSHOT
    }

    /// Time went by in which we did not read: it is not the exchange's silence.
    pub(super) fn excuse(&mut self, blocked: Duration) {
        self.last_frame += blocked;
        self.last_trade += blocked;
        self.asked_at += blocked;
    }

    /// Trades came, of these symbols: whoever delivers is subscribed, confirmed or not.
    pub(super) fn record_trades(
        &mut self,
        instruments: impl Iterator<Item = Instrument>,
        now: Instant,
    ) -> Vec<Event> {
        self.last_trade = now;
        if self.pending.is_empty() && self.refused.is_empty() {
            return Vec::new();
        }
        self.confirm(instruments)
    }

    fn confirm(&mut self, instruments: impl Iterator<Item = Instrument>) -> Vec<Event> {
        let mut events = Vec::new();
        for instrument in instruments {
            // A refusal without a name may have been another symbol's.
            let was_refused = self.refused.remove(&instrument).is_some();
            if self.pending.remove(&instrument) || was_refused {
                self.confirmed += 1;
                events.extend(self.is_subscribed.then_some(Event::SymbolConfirmed(instrument)));
            }
        }
        events.extend(self.settled());
        events
    }

    /// The event that every symbol now has its answer; returned once.
    fn settled(&mut self) -> Option<Event> {
        if !self.pending.is_empty() {
            return None;
        }
        // An exchange that answers by name leaves the requests behind that named nobody.
        if self.to_send.is_empty() {
            self.outstanding.clear();
        }
        if self.is_subscribed {
            return None;
        }
        if self.confirmed == 0 {
            return Some(Event::Ended(End::AllRefused));
        }
        self.is_subscribed = true;
        Some(Event::Subscribed)
    }

    /// What a message that brought no trades says.
    pub(super) fn on_message(&mut self, message: Message, now: Instant) -> Vec<Event> {
        match message {
            Message::Trades | Message::Heartbeat(_) | Message::Other => Vec::new(),
            Message::Closing { reason } => vec![Event::Closing(reason)],
            Message::Acknowledged(instruments) if instruments.is_empty() => {
                let oldest = self.outstanding.pop_front().unwrap_or_default();
                self.confirm(oldest.into_iter())
            }
            Message::Acknowledged(instruments) => {
                let events = self.confirm(instruments.into_iter());
                let pending = &self.pending;
                self.outstanding.retain(|asked| {
                    asked.is_empty() || asked.iter().any(|one| pending.contains(one))
                });
                events
            }
            Message::TooFrequent { reason } => self.slow_down(reason, now),
            Message::Refused { instrument: Some(instrument), reason } => {
                if self.pending.contains(&instrument) {
                    self.refuse(instrument, reason, now)
                } else {
                    vec![Event::Reported(reason)]
                }
            }
            Message::Refused { instrument: None, reason } => self.refuse_oldest(reason, now),
        }
    }

    /// Without a name a refusal is the oldest open request's: one symbol's, or nobody knows whose. Where no request is
    /// open it answers none.
    fn refuse_oldest(&mut self, reason: String, now: Instant) -> Vec<Event> {
        if self.pending.is_empty() {
            return vec![Event::Reported(reason)];
        }
        // A symbol that delivers is confirmed, whatever became of the answer to its request.
        let pending = &self.pending;
        let is_open = |asked: &Vec<Instrument>| {
            asked.is_empty() || asked.iter().any(|one| pending.contains(one))
        };
        self.outstanding.retain(is_open);
        match self.outstanding.pop_front().as_deref() {
            None => vec![Event::Reported(reason)],
            Some([instrument]) => self.refuse(*instrument, reason, now),
            Some(_) => vec![Event::Ended(End::RequestRefused(reason))],
        }
    }

    /// Nobody knows which message was one too many: whatever has no answer is asked for again after a pause, in as few
    /// messages as the exchange allows.
    fn slow_down(&mut self, reason: String, now: Instant) -> Vec<Event> {
        let pause = self.pause;
        self.to_send.clear();
        self.outstanding.clear();
        self.asked_at = now + pause;
        self.paused_until = Some(now + pause);
        self.pause = (pause * 2).min(PAUSE_MAX);
        self.slowness = (self.slowness * 2).min(SLOWNESS_MAX);
        vec![Event::Slowed(reason, pause)]
    }

    fn refuse(&mut self, instrument: Instrument, reason: String, now: Instant) -> Vec<Event> {
        self.pending.remove(&instrument);
        let before = self.refused.get(&instrument).map(|refused| refused.interval * 2);
        let interval = before.unwrap_or(REFUSED_INTERVAL).min(REFUSED_INTERVAL_MAX);
        self.refused.insert(instrument, Refused { at: now, interval });
        let mut events = vec![Event::SymbolRefused(instrument, reason)];
        events.extend(self.settled());
        events
    }

    /// Why the connection must be taken for dead, if it must.
    pub(super) fn overdue(&self, now: Instant) -> Option<End> {
        let Limits { silence, idle, .. } = self.limits;
        if now >= self.last_frame + silence {
            Some(End::Silent(silence))
        } else if !self.pending.is_empty()
            && self.to_send.is_empty()
            && now >= self.asked_at + ACKNOWLEDGE_MAX
        {
            Some(End::NotAcknowledged(self.pending.len()))
        } else if now >= self.last_trade + idle {
            Some(End::Idle(idle))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
