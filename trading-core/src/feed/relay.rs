//! One of a feed's connections, and those that follow it: connect, run, hand over before a planned cut, back off.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Feed;
use super::board::{ConnectionEntry, ConnectionState};
use super::connection::{self, Learned, Notice, Orders, Report};
use super::liveness::Liveness;
use super::reconnect_delay::ReconnectDelay;
use super::session::End;
use crate::telemetry::Lasting;

/// A planned cut is met this long before it comes.
const AGE_MARGIN: Duration = Duration::from_secs(300);
/// The least time between two hand-overs, and after one that failed: an exchange that announces its end to each new
/// connection must not be connected to in a loop.
const HAND_OVER_INTERVAL: Duration = Duration::from_secs(60);
/// Notices of one connection that may wait: it sends two at most, and a refused one is only a late replacement.
const NOTICES_MAX: usize = 8;

/// One place among a feed's connections, which is held by one after the other.
#[derive(Debug)]
pub(super) struct Relay<'a> {
    feed: &'a Feed,
    /// Where it says what it is doing.
    entry: &'a ConnectionEntry,
    delay: ReconnectDelay,
    /// An exchange that refuses a request and does not say for which symbol is asked for one at a time.
    one_by_one: bool,
    has_connected: bool,
    /// What the last connection learned; while one lives, it has it.
    liveness: Option<Liveness>,
    /// What a connection that lives has learned, for the one that is to replace it.
    learned: Learned,
}

impl<'a> Relay<'a> {
    /// The feed's place of this number, counted from 1.
    pub(super) fn new(feed: &'a Feed, entry: &'a ConnectionEntry, number: u64) -> Self {
        Self {
            feed,
            entry,
            delay: ReconnectDelay::new(feed.context.seed ^ number.rotate_right(8)),
            one_by_one: false,
            has_connected: false,
            liveness: None,
            learned: Learned::default(),
        }
    }

    /// Keeps a connection alive until the feed is stopped.
    pub(super) async fn run(mut self) {
        let stop = &self.feed.stop;
        while !stop.is_cancelled() {
            self.set_state(ConnectionState::Connecting);
            let Report { end, lived, ticks, is_whole, liveness } = self.run_relay().await;
            self.liveness = Some(liveness);
            self.entry.record_end(end.to_string());
            self.entry.record_unsubscribed();
            if end == End::PipelineEnded {
                stop.cancel();
            }
            if stop.is_cancelled() {
                break;
            }
            // Where one by one nothing was refused, the refusal was a passing one.
            self.one_by_one = matches!(end, End::RequestRefused(_)) || self.one_by_one && !is_whole;
            // Where the exchange says when it may be asked again, that counts.
            let wait = self.delay.after_connection(lived, ticks).max(self.feed.context.gate.left());
            self.set_state(ConnectionState::WaitingToReconnect);
            warn!(
                feed = %self.entry.name, lived = %Lasting(lived), retry_in = %Lasting(wait),
                "Feed disconnected: {end}"
            );
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.set_state(ConnectionState::Stopped);
    }

    fn set_state(&self, state: ConnectionState) {
        self.entry.set_state(state, self.feed.context.clock.now());
    }

    /// Runs one connection, and hands over to a next one before a planned cut, until one ends for another reason.
    async fn run_relay(&mut self) -> Report {
        let mut runner = self.connect();
        let mut is_subscribed = false;
        let mut handed_over_at: Option<Instant> = None;
        loop {
            let may_at = handed_over_at.map(|at| at + HAND_OVER_INTERVAL);
            let replace_at = may_at.map_or(runner.replace_at, |may| may.max(runner.replace_at));
            tokio::select! {
                biased;
                report = &mut runner.ended => return report,
                Some(notice) = runner.notices.recv() => {
                    if let Notice::Subscribed(symbols) = notice {
                        self.set_state(ConnectionState::Streaming);
                        if !std::mem::replace(&mut is_subscribed, true) {
                            self.log_connected(symbols);
                        }
                    }
                    match (notice, may_at) {
                        (Notice::Subscribed(_), _) => continue,
                        (Notice::Closing, Some(may)) if Instant::now() < may => {
                            runner.replace_at = may;
                            continue;
                        }
                        (Notice::Closing, _) => {}
                    }
                }
                () = sleep_until(replace_at) => {}
            }
            handed_over_at = Some(Instant::now());
            match self.hand_over(runner).await {
                Ok(next) => runner = next,
                Err(report) => return report,
            }
        }
    }

    /// Opens the next connection beside the one that runs, and ends the old one when the new one is subscribed. Ids
    /// decide which of the two brings a tick.
    async fn hand_over(&mut self, mut old: Runner<'a>) -> Result<Runner<'a>, Report> {
        info!(feed = %self.entry.name, "Opening the next connection before the last one ends");
        let mut next = self.connect();
        let symbols = loop {
            tokio::select! {
                biased;
                // Either one ends too soon: the other goes on.
                report = &mut next.ended => {
                    self.one_by_one |= matches!(report.end, End::RequestRefused(_));
                    if report.end != End::Stopped {
                        warn!(feed = %self.entry.name, "Next connection failed: {}", report.end);
                    }
                    old.replace_at = Instant::now() + HAND_OVER_INTERVAL;
                    return Ok(old);
                }
                report = &mut old.ended => {
                    self.entry.record_end(report.end.to_string());
                    self.entry.record_unsubscribed();
                    self.set_state(ConnectionState::Connecting);
                    return Ok(next);
                }
                Some(notice) = next.notices.recv() => if let Notice::Subscribed(symbols) = notice {
                    break symbols;
                },
            }
        };
        old.replaced.cancel();
        tokio::select! {
            biased;
            report = &mut old.ended => {
                self.entry.record_end(report.end.to_string());
                self.log_connected(symbols);
                Ok(next)
            }
            report = &mut next.ended => {
                // What the old one has taken from its socket it must still send on.
                old.ended.await;
                Err(report)
            }
        }
    }

    fn log_connected(&self, symbols: usize) {
        let asked = self.feed.context.instruments.len();
        let refused = asked.checked_sub(symbols).filter(|refused| *refused > 0);
        info!(feed = %self.entry.name, symbols, refused, "Feed connected");
    }

    /// A connection that runs whenever the runner is polled.
    fn connect(&mut self) -> Runner<'a> {
        let (feed, context) = (self.feed, &self.feed.context);
        if std::mem::replace(&mut self.has_connected, true) {
            self.entry.record_reconnect();
            feed.entry.counters.record_reconnect();
        }
        let (sender, notices) = mpsc::channel(NOTICES_MAX);
        let replaced = CancellationToken::new();
        let (stop, learned) = (feed.stop.clone(), self.learned.clone());
        let known = self.liveness.take().or_else(|| learned.take());
        let orders = Orders { stop, replaced: replaced.clone(), learned };
        let liveness = known.unwrap_or_else(|| Liveness::new(context.liveness));
        let connection =
            connection::run(feed, self.entry, sender, self.one_by_one, orders, liveness);
        let age = context.limits.connection_age.map(|age| age.saturating_sub(AGE_MARGIN));
        // A century means never.
        let age = age.unwrap_or(Duration::from_secs(100 * 365 * 86_400));
        Runner { ended: Box::pin(connection), notices, replaced, replace_at: Instant::now() + age }
    }
}

struct Runner<'a> {
    ended: std::pin::Pin<Box<dyn Future<Output = Report> + Send + 'a>>,
    notices: mpsc::Receiver<Notice>,
    replaced: CancellationToken,
    replace_at: Instant,
}
