//! The state of one connection: what is subscribed, what must be sent when, when it must be taken for dead.
//!
//! Pure: it is told what came and what time it is.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use rustc_hash::FxHashSet;
use tokio::time::Instant;

use crate::domain::Instrument;
use crate::exchange::{Exchange, Keepalive, Limits, Message};

/// How long an exchange may take to confirm what was asked.
const ACKNOWLEDGE_MAX: Duration = Duration::from_secs(15);

/// A text to send, and the symbols that are subscribed when it and those before it are confirmed.
#[derive(Debug)]
pub(super) struct Request {
    text: String,
    instruments: Vec<Instrument>,
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
            requests.push_back(Request { text, instruments: Vec::new() });
        }
        if let Some(last) = requests.back_mut() {
            last.instruments = instruments.to_vec();
        }
    }
    requests
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
    /// One symbol is refused.
    SymbolRefused(Instrument, String),
    /// The exchange will close soon.
    Closing(String),
    /// The connection is of no use any more.
    Ended(End),
}

/// One connection's state.
#[derive(Debug)]
pub(super) struct Session {
    limits: Limits,
    keepalive: Option<Keepalive>,
    to_send: VecDeque<Request>,
    outstanding: VecDeque<Vec<Instrument>>,
    pending: FxHashSet<Instrument>,
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
        let pending =
            requests.iter().flat_map(|request| request.instruments.iter().copied()).collect();
        Self {
            limits,
            keepalive,
            to_send: requests,
            outstanding: VecDeque::new(),
            pending,
            confirmed: 0,
            is_subscribed: false,
            asked_at: now,
            sent_at: None,
            pinged_at: now,
            last_frame: now,
            last_trade: now,
        }
    }

    /// The next text that may be sent now, within the exchange's rate.
    pub(super) fn next_to_send(&mut self, now: Instant) -> Option<String> {
        if self.sent_at.is_some_and(|sent| now < sent + self.limits.send_interval) {
            return None;
        }
        let text = if let Some(request) = self.to_send.pop_front() {
            self.outstanding.push_back(request.instruments);
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
        if self.pending.is_empty() {
            return Vec::new();
        }
        self.confirm(instruments)
    }

    fn confirm(&mut self, instruments: impl Iterator<Item = Instrument>) -> Vec<Event> {
        for instrument in instruments {
            self.confirmed += usize::from(self.pending.remove(&instrument));
        }
        self.settled()
    }

    /// Whether every symbol now has its answer, told once.
    fn settled(&mut self) -> Vec<Event> {
        if self.is_subscribed || !self.pending.is_empty() {
            return Vec::new();
        }
        if self.confirmed == 0 {
            return vec![Event::Ended(End::AllRefused)];
        }
        self.is_subscribed = true;
        vec![Event::Subscribed]
    }

    /// What a message that brought no trades says.
    pub(super) fn on_message(&mut self, message: Message) -> Vec<Event> {
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
            Message::Refused { instrument: Some(instrument), reason } => {
                self.refuse(instrument, reason)
            }
            // Without a name the refusal is the oldest open request's: one symbol's, or nobody knows whose.
            Message::Refused { instrument: None, reason } => {
                match self.outstanding.pop_front().as_deref() {
                    Some([instrument]) => self.refuse(*instrument, reason),
                    _ => vec![Event::Ended(End::RequestRefused(reason))],
                }
            }
        }
    }

    fn refuse(&mut self, instrument: Instrument, reason: String) -> Vec<Event> {
        self.pending.remove(&instrument);
        let mut events = vec![Event::SymbolRefused(instrument, reason)];
        events.append(&mut self.settled());
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
mod tests {
    use super::*;
    use crate::exchange::{Binance, Bybit, Exchange, Kraken};

    fn instruments(exchange: &dyn Exchange, number: usize) -> Vec<Instrument> {
        let symbol = |n: usize| format!("COIN{n}-USDT").parse().unwrap();
        (0..number).map(|n| Instrument::intern(exchange.name(), &symbol(n)).unwrap()).collect()
    }

    fn session(exchange: &dyn Exchange, number: usize, one_by_one: bool, now: Instant) -> Session {
        let instruments = instruments(exchange, number);
        let requests = requests(exchange, &instruments, one_by_one);
        Session::new(exchange.limits(), exchange.keepalive(), requests, now)
    }

    /// Sends what may be sent, as often as the exchange allows, until nothing is left but keepalives.
    fn send_requests(session: &mut Session, mut now: Instant) -> (usize, Instant) {
        let mut sent = 0;
        while !session.to_send.is_empty() {
            sent += usize::from(session.next_to_send(now).is_some());
            now += Duration::from_millis(100);
        }
        (sent, now)
    }

    #[test]
    fn requests_are_spaced_as_the_exchange_demands() {
        let start = Instant::now();
        let mut session = session(&Binance, 3, true, start);
        assert!(session.next_to_send(start).is_some());
        assert!(session.next_to_send(start).is_none());
        assert!(session.next_to_send(start + Binance.limits().send_interval).is_some());
    }

    #[test]
    fn a_session_is_subscribed_when_every_request_is_acknowledged() {
        let now = Instant::now();
        // Ninety streams a request: two requests, of which Binance confirms each as a whole.
        let mut session = session(&Binance, 100, false, now);
        assert_eq!(send_requests(&mut session, now).0, 2);
        assert_eq!(session.on_message(Message::Acknowledged(Vec::new())), []);
        assert_eq!(session.on_message(Message::Acknowledged(Vec::new())), [Event::Subscribed]);
    }

    #[test]
    fn who_delivers_is_subscribed_without_an_acknowledgement() {
        let now = Instant::now();
        let mut session = session(&Kraken, 2, false, now);
        let all = instruments(&Kraken, 2);
        assert_eq!(session.record_trades([all[0]].into_iter(), now), []);
        assert_eq!(session.record_trades([all[1]].into_iter(), now), [Event::Subscribed]);
        assert_eq!(session.record_trades([all[1]].into_iter(), now), [], "told once");
    }

    #[test]
    fn a_refused_symbol_is_named_and_the_others_are_recorded() {
        let now = Instant::now();
        let mut session = session(&Kraken, 2, false, now);
        let all = instruments(&Kraken, 2);
        assert_eq!(session.on_message(Message::Acknowledged(vec![all[0]])), []);
        let refusal = Message::Refused { instrument: Some(all[1]), reason: "no such pair".into() };
        let refused = Event::SymbolRefused(all[1], "no such pair".into());
        assert_eq!(session.on_message(refusal), [refused, Event::Subscribed]);
    }

    #[test]
    fn a_refusal_without_a_name_ends_the_session_unless_one_symbol_was_asked_for() {
        let now = Instant::now();
        let refusal = || Message::Refused { instrument: None, reason: "bad".into() };
        let mut many = session(&Bybit, 3, false, now);
        send_requests(&mut many, now);
        assert_eq!(many.on_message(refusal()), [Event::Ended(End::RequestRefused("bad".into()))]);

        let mut single = session(&Bybit, 3, true, now);
        assert_eq!(send_requests(&mut single, now).0, 3);
        let all = instruments(&Bybit, 3);
        assert_eq!(single.on_message(Message::Acknowledged(Vec::new())), []);
        assert_eq!(single.on_message(refusal()), [Event::SymbolRefused(all[1], "bad".into())]);
        assert_eq!(single.on_message(Message::Acknowledged(Vec::new())), [Event::Subscribed]);
    }

    #[test]
    fn a_session_whose_every_symbol_is_refused_ends() {
        let now = Instant::now();
        let mut session = session(&Bybit, 1, true, now);
        send_requests(&mut session, now);
        let events =
            session.on_message(Message::Refused { instrument: None, reason: "bad".into() });
        assert_eq!(events.last(), Some(&Event::Ended(End::AllRefused)));
    }

    #[test]
    fn heartbeats_do_not_hide_that_no_trade_comes() {
        let start = Instant::now();
        let mut session = session(&Kraken, 1, false, start);
        let (_, mut now) = send_requests(&mut session, start);
        session.on_message(Message::Acknowledged(instruments(&Kraken, 1)));
        let limits = Kraken.limits();
        while now < start + limits.idle {
            session.on_message(Message::Heartbeat(None));
            session.record_frame(now);
            assert_eq!(session.overdue(now), None);
            now += Duration::from_secs(1);
        }
        session.record_frame(now);
        assert_eq!(session.overdue(now), Some(End::Idle(limits.idle)));
    }

    #[test]
    fn silence_and_missing_acknowledgements_end_a_session() {
        let start = Instant::now();
        let mut session = session(&Binance, 1, false, start);
        let limits = Binance.limits();
        let (_, _) = send_requests(&mut session, start);
        session.record_frame(start + Duration::from_secs(10));
        let late = start + ACKNOWLEDGE_MAX + Duration::from_secs(1);
        assert_eq!(session.overdue(late), Some(End::NotAcknowledged(1)));
        session.on_message(Message::Acknowledged(Vec::new()));
        assert_eq!(session.overdue(late), None);
        let silent = start + Duration::from_secs(10) + limits.silence;
        assert_eq!(session.overdue(silent), Some(End::Silent(limits.silence)));
    }

    #[test]
    fn time_spent_waiting_for_our_own_channel_is_not_the_exchange_s_silence() {
        let start = Instant::now();
        let mut session = session(&Binance, 1, false, start);
        let (_, _) = send_requests(&mut session, start);
        let blocked = Binance.limits().idle * 2;
        session.excuse(blocked);
        assert_eq!(session.overdue(start + blocked), None);
        assert!(session.overdue(start + blocked + Binance.limits().silence).is_some());
    }

    #[test]
    fn a_keepalive_is_sent_when_the_exchange_wants_it() {
        let start = Instant::now();
        let mut session = session(&Bybit, 1, false, start);
        let (_, now) = send_requests(&mut session, start);
        let keepalive = Bybit.keepalive().unwrap();
        assert_eq!(session.next_to_send(now), None);
        let due = start + keepalive.every;
        assert_eq!(session.next_to_send(due).as_deref(), Some(keepalive.text));
        assert_eq!(session.next_to_send(due + keepalive.every / 2), None);
        assert!(session.next_to_send(due + keepalive.every).is_some());
    }
}
