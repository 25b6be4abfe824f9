//! One of a feed's connections, and those that follow it: connect, run, hand over before a planned cut, back off.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Feed;
use super::backoff::Backoff;
use super::connection::{self, Learned, Notice, Orders, Report};
use super::liveness::Liveness;
use super::session::End;
use crate::domain::count;
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
    /// In logs and tables.
    name: String,
    backoff: Backoff,
    /// An exchange that refuses a request and does not say for which symbol is asked for one at a time.
    one_by_one: bool,
    connections: u64,
    /// What the last connection learned; while one lives, it has it.
    liveness: Option<Liveness>,
    /// What a connection that lives has learned, for the one that is to replace it.
    learned: Learned,
}

impl<'a> Relay<'a> {
    /// The feed's place of this number, counted from 1.
    pub(super) fn new(feed: &'a Feed, number: usize) -> Self {
        let context = &feed.context;
        let name = match context.connections.get() {
            1 => context.name.clone(),
            _ => format!("{}/{number}", context.name),
        };
        let number = count(number);
        Self {
            feed,
            name,
            backoff: Backoff::new(context.seed ^ number.rotate_right(8)),
            one_by_one: false,
            connections: 0,
            liveness: None,
            learned: Learned::default(),
        }
    }

    /// Keeps a connection alive until the feed is stopped.
    pub(super) async fn run(mut self) {
        let stop = &self.feed.stop;
        while !stop.is_cancelled() {
            let Report { end, lived, ticks, is_whole, liveness } = self.run_relay().await;
            self.liveness = Some(liveness);
            if end == End::PipelineEnded {
                stop.cancel();
            }
            if stop.is_cancelled() {
                break;
            }
            // Where one by one nothing was refused, the refusal was a passing one.
            self.one_by_one = matches!(end, End::RequestRefused(_)) || self.one_by_one && !is_whole;
            // Where the exchange says when it may be asked again, that counts.
            let wait =
                self.backoff.after_connection(lived, ticks).max(self.feed.context.gate.left());
            warn!(
                feed = %self.name, lived = %Lasting(lived), retry_in = %Lasting(wait),
                "Feed disconnected: {end}"
            );
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Runs one connection, and hands over to a next one before a planned cut, until one ends for another reason.
    async fn run_relay(&mut self) -> Report {
        let mut runner = self.connect();
        let mut is_subscribed = false;
        let mut handed_over_at: Option<Instant> = None;
        loop {
            let may_at = handed_over_at.map(|at| at + HAND_OVER_INTERVAL);
            let relieve_at = may_at.map_or(runner.relieve_at, |may| may.max(runner.relieve_at));
            tokio::select! {
                biased;
                report = &mut runner.ended => return report,
                Some(notice) = runner.notices.recv() => {
                    if let Notice::Subscribed(symbols) = notice
                        && !is_subscribed
                    {
                        is_subscribed = true;
                        self.tell_connected(symbols);
                    }
                    match (notice, may_at) {
                        (Notice::Subscribed(_), _) => continue,
                        (Notice::Closing, Some(may)) if Instant::now() < may => {
                            runner.relieve_at = may;
                            continue;
                        }
                        (Notice::Closing, _) => {}
                    }
                }
                () = sleep_until(relieve_at) => {}
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
        info!(feed = %self.name, "Opening the next connection before the last one ends");
        let mut next = self.connect();
        let symbols = loop {
            tokio::select! {
                biased;
                // Either one ends too soon: the other goes on.
                report = &mut next.ended => {
                    self.one_by_one |= matches!(report.end, End::RequestRefused(_));
                    if report.end != End::Stopped {
                        warn!(feed = %self.name, "Next connection failed: {}", report.end);
                    }
                    old.relieve_at = Instant::now() + HAND_OVER_INTERVAL;
                    return Ok(old);
                }
                _report = &mut old.ended => return Ok(next),
                Some(notice) = next.notices.recv() => if let Notice::Subscribed(symbols) = notice {
                    break symbols;
                },
            }
        };
        old.relieved.cancel();
        tokio::select! {
            biased;
            _report = &mut old.ended => {
                self.tell_connected(symbols);
                Ok(next)
            }
            report = &mut next.ended => {
                // What the old one has taken from its socket it must still send on.
                old.ended.await;
                Err(report)
            }
        }
    }

    fn tell_connected(&self, symbols: usize) {
        let asked = self.feed.context.instruments.len();
        let refused = asked.checked_sub(symbols).filter(|refused| *refused > 0);
        info!(feed = %self.name, symbols, refused, "Feed connected");
    }

    /// A connection that runs whenever the runner is polled.
    fn connect(&mut self) -> Runner<'a> {
        let (feed, context) = (self.feed, &self.feed.context);
        if self.connections > 0 {
            context.ledger.record_reconnect();
        }
        self.connections += 1;
        let (sender, notices) = mpsc::channel(NOTICES_MAX);
        let relieved = CancellationToken::new();
        let (stop, learned) = (feed.stop.clone(), self.learned.clone());
        let known = self.liveness.take().or_else(|| learned.take());
        let orders = Orders { stop, relieved: relieved.clone(), learned };
        let liveness = known.unwrap_or_else(|| Liveness::new(context.liveness));
        let (name, one_by_one) = (self.name.clone(), self.one_by_one);
        let connection =
            async move { connection::run(feed, &name, sender, one_by_one, orders, liveness).await };
        let age = context.limits.connection_age.map(|age| age.saturating_sub(AGE_MARGIN));
        // A century stands for never.
        let age = age.unwrap_or(Duration::from_secs(100 * 365 * 86_400));
        Runner { ended: Box::pin(connection), notices, relieved, relieve_at: Instant::now() + age }
    }
}

struct Runner<'a> {
    ended: std::pin::Pin<Box<dyn Future<Output = Report> + Send + 'a>>,
    notices: mpsc::Receiver<Notice>,
    relieved: CancellationToken,
    relieve_at: Instant,
}
