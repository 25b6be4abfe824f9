//! One WebSocket connection, from connect to end: the feed's only I/O.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::sync::{MutexGuard, mpsc};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::board::ConnectionEntry;
use super::liveness::{Alarm, Liveness};
use super::sequence::Sequence;
use super::session::{End, Event, Session, requests, requests_anew};
use super::{Feed, FeedContext};
use crate::domain::{Instrument, SessionEnd, SessionStart, Stamp, Tick, Timestamp, count, lock};
use crate::exchange::{Message, Subscribed, reason_text};
use crate::network::{DialError, WebSocket};
use crate::store::journal::{OpenSession, QuarantinedFrame};
use crate::telemetry::RepeatLimiter;

/// From the first packet to the WebSocket handshake's end.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// A message of ours that the socket has not taken within this will not be taken.
const SEND_MAX: Duration = Duration::from_secs(10);
/// A connection that is replaced reads on for this long: what was traded before the next one was subscribed may still be
/// on its way.
const REPLACED_GRACE: Duration = Duration::from_secs(1);
/// How often deadlines are checked; also the finest spacing of what we send.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// How long an exchange has to take our closing frame.
const CLOSE_MAX: Duration = Duration::from_millis(100);
/// Frames that are read without checking the clock or the stop signal in between.
const BURST_MAX: usize = 64;

/// What a connection reports to its feed while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// Everything it asked for is answered: it can replace an older one. With how many symbols are confirmed.
    Subscribed(usize),
    /// It will be closed soon: open the next one.
    Closing,
}

/// What may end a connection from our side.
#[derive(Debug)]
pub(super) struct Orders {
    /// The feed is stopped.
    pub(super) stop: CancellationToken,
    /// A newer connection does the work.
    pub(super) replaced: CancellationToken,
    /// Where it leaves what it learned, when it asks to be replaced.
    pub(super) learned: Learned,
}

/// What a connection that asks to be replaced has learned of the symbols.
#[derive(Debug, Clone, Default)]
pub(super) struct Learned(Arc<std::sync::Mutex<Option<Liveness>>>);

impl Learned {
    fn offer(&self, liveness: &Liveness) {
        *lock(&self.0) = Some(liveness.clone());
    }

    pub(super) fn take(&self) -> Option<Liveness> {
        lock(&self.0).take()
    }
}

impl Orders {
    async fn given(&self) -> End {
        tokio::select! {
            () = self.stop.cancelled() => End::Stopped,
            () = async {
                self.replaced.cancelled().await;
                tokio::time::sleep(REPLACED_GRACE).await;
            } => End::Replaced,
        }
    }
}

/// How a connection ended.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) end: End,
    pub(super) lived: Duration,
    pub(super) ticks: u64,
    /// Whether every symbol was confirmed.
    pub(super) is_whole: bool,
    /// What it learned of the symbols, for the next one.
    pub(super) liveness: Liveness,
}

/// What came over one connection.
#[derive(Debug, Default)]
struct Counts {
    frames: u64,
    ticks: u64,
    duplicates: u64,
    malformed: u64,
}

/// One connection in its life.
pub(super) struct Connection<'a> {
    feed: &'a Feed,
    /// Where it says what it is doing.
    entry: &'a ConnectionEntry,
    /// Its name in logs and tables.
    name: &'a str,
    notices: mpsc::Sender<Notice>,
    session: Session,
    is_subscribed: bool,
    liveness: Liveness,
    learned: Learned,
    symbols: Subscribed,
    /// Ticks of the frame at hand; used again for each.
    ticks: Vec<Tick>,
    /// When the last frame was read.
    stamp: Stamp,
    /// Its row in the journal.
    noted: Option<OpenSession>,
    counts: Counts,
    /// Ticks of rows that were ended because the clock was set.
    ticks_before: u64,
    malformed_limiter: RepeatLimiter,
    reported_limiter: RepeatLimiter,
}

/// Connects, subscribes and reads until the connection ends or is ordered to.
pub(super) async fn run(
    feed: &Feed,
    entry: &ConnectionEntry,
    notices: mpsc::Sender<Notice>,
    one_by_one: bool,
    orders: Orders,
    mut liveness: Liveness,
) -> Report {
    let context = &feed.context;
    let socket = tokio::select! {
        biased;
        end = orders.given() => Err(end),
        socket = connect(context) => socket,
    };
    let socket = match socket {
        Ok(socket) => socket,
        Err(end) => {
            return Report { end, lived: Duration::ZERO, ticks: 0, is_whole: false, liveness };
        }
    };
    let stamp = Stamp::now(&context.clock);
    entry.record_open(stamp.at);
    let since = Instant::now();
    let exchange = context.exchange;
    let requests = requests(exchange, &context.instruments, one_by_one);
    liveness.begin();
    let mut connection = Connection {
        feed,
        entry,
        name: &entry.name,
        notices,
        session: Session::new(context.limits, exchange.keepalive(), requests, since),
        is_subscribed: false,
        liveness,
        learned: orders.learned.clone(),
        symbols: Subscribed::new(exchange, context.instruments.iter().copied()),
        ticks: Vec::new(),
        stamp,
        noted: None,
        counts: Counts::default(),
        ticks_before: 0,
        malformed_limiter: RepeatLimiter::default(),
        reported_limiter: RepeatLimiter::default(),
    };
    connection.note_start();
    let end = connection.read(socket, &orders).await;
    feed.sequence.lock().await.record_ended(connection.is_subscribed);
    connection.note_end(&end);
    let Connection { liveness, counts, ticks_before, session, .. } = connection;
    let (ticks, is_whole) = (ticks_before + counts.ticks, session.is_whole());
    Report { end, lived: since.elapsed(), ticks, is_whole, liveness }
}

async fn connect(context: &FeedContext) -> Result<WebSocket, End> {
    context.gate.pass().await;
    let connecting = context.network.open(context.exchange.name(), &context.url);
    match tokio::time::timeout(CONNECT_MAX, connecting).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) => {
            if let DialError::Refused(refusal) = &error
                && let Some(hold) = refusal.hold
            {
                let why = format!("{} at its WebSocket, {:?}", refusal.status, refusal.words);
                context.gate.hold(hold, &why);
            }
            Err(End::NotConnected(error.to_string()))
        }
        Err(_elapsed) => {
            Err(End::NotConnected(format!("no answer for {} s", CONNECT_MAX.as_secs())))
        }
    }
}

impl<'a> Connection<'a> {
    const fn context(&self) -> &'a FeedContext {
        &self.feed.context
    }

    async fn read(&mut self, mut socket: WebSocket, orders: &Orders) -> End {
        let mut check = tokio::time::interval(CHECK_INTERVAL);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ordered = std::pin::pin!(orders.given());
        let ended = loop {
            // Reading a frame and the check are cancel-safe: what is not taken now is there in the next turn.
            let turn = tokio::select! {
                biased;
                end = &mut ordered => Err(end),
                _ = check.tick() => self.check(&mut socket).await,
                frame = socket.next() => self.take_burst(frame, &mut socket).await,
            };
            if let Err(end) = turn {
                break end;
            }
        };
        // The farewell is a courtesy; an exchange that does not read it must not hold the feed up.
        if let Ok(Err(error)) = tokio::time::timeout(CLOSE_MAX, socket.close(None)).await {
            debug!(feed = %self.name, %error, "No farewell");
        }
        ended
    }

    /// Sends what is due, and takes the connection for dead when it must.
    async fn check(&mut self, socket: &mut WebSocket) -> Result<(), End> {
        let now = Instant::now();
        // A peer that pings without an end and takes no answer lives, and is of no use.
        let blocked = socket.get_ref().blocked_since();
        if blocked.is_some_and(|since| now >= since + SEND_MAX) {
            return Err(End::Failed(takes_nothing()));
        }
        if let Some(end) = self.session.overdue(now) {
            return Err(end);
        }
        if self.session.is_settled() {
            self.ask_again(now).await?;
        }
        let postponed = self.session.postponed_due(now);
        if !postponed.is_empty() {
            self.session.ask(requests(self.context().exchange, &postponed, false), now);
        }
        while let Some(text) = self.session.next_to_send(now) {
            match tokio::time::timeout(SEND_MAX, socket.send(Frame::text(text))).await {
                Ok(sent) => sent.map_err(|error| End::Failed(failure(&error)))?,
                Err(_elapsed) => return Err(End::Failed(takes_nothing())),
            }
        }
        Ok(())
    }

    /// Subscribes anew what should bring trades and does not, one symbol at a time.
    async fn ask_again(&mut self, now: Instant) -> Result<(), End> {
        let (name, exchange) = (self.name, self.context().exchange);
        if let Some(instrument) = self.session.refused_due(now) {
            debug!("{name}: asking for {instrument} again");
            self.session.ask(requests(exchange, &[instrument], true), now);
            return Ok(());
        }
        let quiet = self.session.quiet(now);
        let instrument = match self.liveness.check(now, quiet) {
            None => return Ok(()),
            Some(Alarm::Incurable(instrument, silence)) => {
                self.entry.record_silent(instrument);
                let silence = silence.as_secs();
                warn!(
                    "{name}: no trade of {instrument} for {silence} s, though subscribed anew: opening another \
                     connection before this one ends. If the exchange no longer lists it, take it out of the symbols"
                );
                // The next connection goes on with what is known of the symbols.
                self.learned.offer(&self.liveness);
                self.notify(Notice::Closing);
                return Ok(());
            }
            Some(Alarm::Silent(instrument, silence, mean)) => {
                let (silence, mean) = (silence.as_secs(), mean.as_secs_f64());
                warn!(
                    "{name}: no trade of {instrument} for {silence} s, which had one every {mean:.1} s: subscribing \
                     it anew"
                );
                instrument
            }
            Some(Alarm::NeverTraded(instrument)) => {
                warn!(
                    "{name}: {instrument} is acknowledged, but nothing has come: does the exchange trade it?"
                );
                instrument
            }
        };
        self.entry.record_silent(instrument);
        self.sequence().await.record_interrupted(instrument);
        self.session.ask(requests_anew(exchange, instrument), now);
        Ok(())
    }

    /// What all connections of the feed have seen. Waiting for another one of them is not the exchange's silence.
    async fn sequence(&mut self) -> MutexGuard<'a, Sequence> {
        let since = Instant::now();
        let sequence = self.feed.sequence.lock().await;
        self.excuse(since.elapsed());
        sequence
    }

    fn excuse(&mut self, blocked: Duration) {
        self.session.excuse(blocked);
        self.liveness.excuse(blocked);
    }

    /// Takes a frame and those that came with it, which wait in the buffer already.
    async fn take_burst(
        &mut self,
        first: Option<Result<Frame, tungstenite::Error>>,
        socket: &mut WebSocket,
    ) -> Result<(), End> {
        self.take(first).await?;
        for _ in 1..BURST_MAX {
            match socket.next().now_or_never() {
                Some(frame) => self.take(frame).await?,
                None => break,
            }
        }
        Ok(())
    }

    async fn take(&mut self, frame: Option<Result<Frame, tungstenite::Error>>) -> Result<(), End> {
        if let Some(Ok(_)) = frame {
            // No two frames have the same time: sorted by it they are in the order in which they were read.
            let (stamp, is_set) = Stamp::now(&self.context().clock).after(self.stamp);
            if is_set {
                // A row of the journal is of one reading of the calendar, as the ticks are that it speaks of.
                self.end_row("the recorder's clock was set", self.stamp.at);
            }
            self.stamp = stamp;
            self.entry.record_frame(stamp);
            if is_set {
                self.note_start();
            }
        }
        match frame {
            Some(Ok(Frame::Text(text))) => self.take_text(&text).await?,
            // All texts come as this: see `network::Wire`.
            Some(Ok(Frame::Binary(bytes))) => match std::str::from_utf8(&bytes) {
                Ok(text) => self.take_text(text).await?,
                Err(error) => {
                    self.counts.frames += 1;
                    self.feed.entry.counters.record_frame();
                    self.quarantine(&bytes, &format!("no UTF-8 text: {error}"));
                }
            },
            Some(Ok(Frame::Close(reason))) => {
                let reason =
                    reason.map(|close| format!(": {} {}", close.code, reason_text(&close.reason)));
                return Err(End::Closed(reason.unwrap_or_default()));
            }
            // Pings are answered by the library with the next read.
            Some(Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_))) => {}
            Some(Err(error)) => return Err(End::Failed(failure(&error))),
            None => return Err(End::Closed(String::new())),
        }
        self.session.record_frame(Instant::now());
        Ok(())
    }

    async fn take_text(&mut self, text: &str) -> Result<(), End> {
        self.counts.frames += 1;
        self.feed.entry.counters.record_frame();
        let (context, received_at) = (self.context(), self.stamp.at);
        let decoded = context.exchange.decode(text, &self.symbols, received_at, &mut self.ticks);
        let now = Instant::now();
        let mut events = Vec::new();
        match decoded {
            Ok(message) => {
                if let Message::Heartbeat(Some((instrument, id))) = message {
                    let mut sequence = self.sequence().await;
                    let found = sequence.record_named(instrument, id, now, received_at);
                    self.feed.report_noticed(found);
                }
                events = self.session.on_message(message, now);
            }
            Err(error) => self.quarantine(text.as_bytes(), &error.to_string()),
        }
        if !self.ticks.is_empty() {
            if let Some(tick) =
                self.ticks.last().filter(|_| !self.session.may_answer_with_old_trades(now))
            {
                context.stamps.note(tick.exchange_at, self.stamp.steady);
            }
            for tick in self.ticks.iter().filter(|tick| !context.clock.is_far(tick)) {
                if self.liveness.record_trade(tick, now) {
                    self.entry.record_tick(tick.instrument, tick.received_at);
                }
            }
            let instruments = self.ticks.iter().map(|tick| tick.instrument);
            events.append(&mut self.session.record_trades(instruments, now));
            self.send_on(now).await?;
        }
        for event in events {
            self.on_event(event).await?;
        }
        Ok(())
    }

    /// Sends the new ones of the ticks at hand on.
    async fn send_on(&mut self, now: Instant) -> Result<(), End> {
        let received = self.ticks.len();
        let context = self.context();
        // Held while sending, so that two connections of this feed keep the order of each symbol.
        let mut sequence = self.feed.sequence.lock().await;
        let noticed = sequence.admit(&mut self.ticks, now);
        let (counters, duplicates) = (&self.feed.entry.counters, noticed.duplicates);
        counters.record_ticks(received, duplicates);
        self.counts.ticks += count(received);
        self.counts.duplicates += count(duplicates);
        self.feed.report_noticed(noticed);
        for tick in self.ticks.iter().filter(|tick| !context.clock.is_far(tick)) {
            self.liveness.record_new(tick.instrument, now);
            self.entry.record_tick(tick.instrument, tick.received_at);
        }
        let sent = context.sender.send_new(&mut self.ticks, received, duplicates).await;
        drop(sequence);
        self.excuse(now.elapsed());
        counters.record_blocked(sent.map_err(|_closed| End::PipelineEnded)?);
        Ok(())
    }

    async fn on_event(&mut self, event: Event) -> Result<(), End> {
        let name = self.name;
        match event {
            Event::Subscribed => {
                self.is_subscribed = true;
                let now = Instant::now();
                let asked = self.context().instruments.iter().copied();
                let confirmed: Vec<Instrument> =
                    asked.filter(|item| !self.session.is_refused(*item)).collect();
                for instrument in &confirmed {
                    self.liveness.record_confirmed(*instrument, now);
                    self.entry.record_answer(*instrument, true);
                }
                self.sequence().await.record_subscribed(confirmed.into_iter(), now);
                self.notify(Notice::Subscribed(self.session.confirmed()));
            }
            Event::SymbolConfirmed(instrument) => {
                let now = Instant::now();
                self.liveness.record_confirmed(instrument, now);
                self.entry.record_answer(instrument, true);
                self.sequence().await.record_confirmed(instrument, now);
                if self.liveness.is_doubted(instrument) {
                    // An exchange acknowledges a name that it does not list, as often as it is asked.
                    debug!("{name}: {instrument} is subscribed");
                } else {
                    info!("{name}: {instrument} is subscribed");
                }
            }
            Event::SymbolRefused(instrument, reason) => {
                self.entry.record_answer(instrument, false);
                error!("{name}: {instrument} is refused: {reason}. The other symbols are recorded");
            }
            Event::Slowed(reason, pause) => {
                let pause = pause.as_secs();
                warn!(
                    "{name}: the exchange wants fewer messages ({reason}): what it has not answered is asked for again \
                     in {pause} s"
                );
            }
            Event::Reported(reason) => {
                if let Some(unsaid) = self.reported_limiter.admit(Instant::now()) {
                    warn!(
                        "{name}: the exchange reports an error that answers no request, and the connection goes on: \
                         {reason}{unsaid}"
                    );
                }
            }
            Event::Closing(reason) => {
                warn!("{name}: the exchange will close this connection: {reason}");
                self.notify(Notice::Closing);
            }
            Event::Ended(end) => return Err(end),
        }
        Ok(())
    }

    fn notify(&self, notice: Notice) {
        // The queue holds more notices than a connection ever sends; without a reader the feed is stopping.
        if let Err(error) = self.notices.try_send(notice) {
            debug!(feed = %self.name, %error, "Notice not delivered");
        }
    }

    fn quarantine(&mut self, frame: &[u8], reason: &str) {
        self.counts.malformed += 1;
        let context = self.context();
        self.feed.entry.counters.record_malformed();
        if let Some(unsaid) = self.malformed_limiter.admit(Instant::now()) {
            warn!(
                "{}: frame not understood, kept in quarantined_frames: {}{unsaid}",
                self.name,
                reason_text(reason)
            );
        }
        context.journal.quarantine(QuarantinedFrame::of(
            context.exchange.name(),
            frame,
            reason,
            self.stamp.at,
        ));
    }

    /// Notes that the connection is open, from the last stamp on.
    fn note_start(&mut self) {
        let context = self.context();
        self.noted = Some(context.journal.session(SessionStart {
            exchange: context.exchange.name(),
            feed: self.name.to_owned(),
            connected_at: self.stamp.at,
            symbols: context.instruments.iter().map(|item| item.symbol().to_string()).collect(),
        }));
    }

    fn note_end(&mut self, end: &End) {
        let ended_at = match end {
            // It brought nothing since the last frame, however long it took to notice.
            End::Silent(_) | End::Failed(_) => self.stamp.at,
            _ => match Stamp::now(&self.context().clock).after(self.stamp) {
                (now, false) => now.at,
                // The clock was set since the last frame, so its time does not fit this row.
                (_, true) => self.stamp.at,
            },
        };
        self.end_row(&end.to_string(), ended_at);
    }

    /// Notes the end of the row, with what came since it began.
    fn end_row(&mut self, reason: &str, ended_at: Timestamp) {
        let Some(noted) = self.noted.take() else { return };
        let counts = std::mem::take(&mut self.counts);
        self.ticks_before += counts.ticks;
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let end = SessionEnd {
            ended_at,
            reason: reason.to_owned(),
            frames: count(counts.frames),
            ticks: count(counts.ticks),
            duplicates: count(counts.duplicates),
            malformed: count(counts.malformed),
        };
        self.context().journal.session_ended(noted, end);
    }
}

fn takes_nothing() -> String {
    format!("the exchange has taken nothing of what is sent to it for {} s", SEND_MAX.as_secs())
}

/// What ended a connection, in as many words as fit a line.
fn failure(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::WriteBufferFull(_) => {
            "too much waits to be sent: the exchange takes nothing".to_owned()
        }
        error => reason_text(&error.to_string()),
    }
}
