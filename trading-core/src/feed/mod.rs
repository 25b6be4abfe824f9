//! One task per connection to an exchange: connect, subscribe, read until it ends, back off, again.
//!
//! A feed carries as many symbols as the exchange allows on one connection. Its ticks go to the channel in order, each
//! once: what an exchange repeats after a reconnect ends here. A planned cut (24 hours at Binance, a notice at OKX) is
//! met by opening the next connection before the last one closes. Only a stop ends a feed.

mod backoff;
mod connection;
mod gate;
mod sequence;
mod session;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use backoff::Backoff;
use connection::{Notice, Orders, Report};
pub use gate::ConnectGate;
pub use sequence::{Findings, Gap, Sequence};
use session::End;

use crate::domain::Instrument;
use crate::exchange::{Exchange, Limits};
use crate::pipeline::{Ledger, TickSender};
use crate::store::journal::Journal;

/// A planned cut is met this long before it comes.
const AGE_MARGIN: Duration = Duration::from_secs(300);
/// The least time between two hand-overs, and after one that failed: an exchange that announces its end to each new
/// connection must not be connected to in a loop.
const HAND_OVER_INTERVAL: Duration = Duration::from_secs(60);
/// Notices of one connection that may wait: it sends two at most, and a refused one is only a late replacement.
const NOTICES_MAX: usize = 8;

/// Everything a feed is given.
#[derive(Debug)]
pub struct FeedContext {
    /// Its name in logs and tables: `binance-1`.
    pub name: String,
    /// The venue's protocol.
    pub exchange: &'static dyn Exchange,
    /// The whole URL to connect to.
    pub url: String,
    /// What the venue demands, with the operator's own limits.
    pub limits: Limits,
    /// What it records.
    pub instruments: Vec<Instrument>,
    /// Where its ticks go.
    pub sender: TickSender,
    /// Where they are counted.
    pub ledger: Arc<Ledger>,
    /// Where its sessions and the frames set aside are noted.
    pub journal: Journal,
    /// The exchange's door, shared with its other feeds.
    pub gate: Arc<ConnectGate>,
    /// Decides the jitter of its waits.
    pub seed: u64,
}

/// Splits symbols into groups of which each fits on one connection.
pub fn shards(instruments: &[Instrument], limits: Limits) -> impl Iterator<Item = &[Instrument]> {
    instruments.chunks(limits.symbols_per_connection.max(1))
}

/// Keeps a feed alive until it is stopped. What it took from the socket is in the channel when it returns.
pub async fn run(context: FeedContext, stop: CancellationToken) {
    let sequence = Mutex::new(Sequence::new(context.exchange.ids()));
    let mut backoff = Backoff::new(context.seed);
    // An exchange that refuses a request and does not say for which symbol is asked for one at a time.
    let mut one_by_one = false;
    let mut connections: u64 = 0;
    while !stop.is_cancelled() {
        let feed = Feed { context: &context, sequence: &sequence, stop: &stop, one_by_one };
        let report = feed.run_relay(&mut connections).await;
        if stop.is_cancelled() || report.end == End::PipelineEnded {
            break;
        }
        one_by_one |= matches!(report.end, End::RequestRefused(_));
        let wait = backoff.after_connection(report.lived, report.ticks);
        warn!(
            feed = %context.name, lived = %humantime::format_duration(Duration::from_secs(report.lived.as_secs())),
            retry_in = %humantime::format_duration(Duration::from_millis(millis(wait))),
            "Feed disconnected: {}", report.end
        );
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    info!(feed = %context.name, "Feed stopped");
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

struct Feed<'a> {
    context: &'a FeedContext,
    sequence: &'a Mutex<Sequence>,
    stop: &'a CancellationToken,
    one_by_one: bool,
}

impl Feed<'_> {
    /// Runs one connection, and hands over to a next one before a planned cut, until one ends for another reason.
    async fn run_relay(&self, connections: &mut u64) -> Report {
        let mut runner = self.connect(connections);
        let mut is_subscribed = false;
        let mut handed_over_at: Option<Instant> = None;
        loop {
            let may_at = handed_over_at.map(|at| at + HAND_OVER_INTERVAL);
            let relieve_at = may_at.map_or(runner.relieve_at, |may| may.max(runner.relieve_at));
            tokio::select! {
                biased;
                report = &mut runner.ended => return report,
                Some(notice) = runner.notices.recv() => {
                    if notice == Notice::Subscribed && !is_subscribed {
                        is_subscribed = true;
                        self.tell_connected();
                    }
                    match (notice, may_at) {
                        (Notice::Subscribed, _) => continue,
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
            match self.hand_over(runner, connections).await {
                Ok(next) => runner = next,
                Err(report) => return report,
            }
        }
    }

    /// Opens the next connection beside the one that runs, and ends the old one when the new one is subscribed. Ids
    /// decide which of the two brings a tick.
    async fn hand_over<'s>(
        &'s self,
        mut old: Runner<'s>,
        connections: &mut u64,
    ) -> Result<Runner<'s>, Report> {
        info!(feed = %self.context.name, "Opening the next connection before the last one ends");
        let mut next = self.connect(connections);
        loop {
            tokio::select! {
                biased;
                // Either one ends too soon: the other goes on.
                report = &mut next.ended => {
                    if report.end != End::Stopped {
                        warn!(feed = %self.context.name, "Next connection failed: {}", report.end);
                    }
                    old.relieve_at = Instant::now() + HAND_OVER_INTERVAL;
                    return Ok(old);
                }
                _report = &mut old.ended => return Ok(next),
                Some(notice) = next.notices.recv() => if notice == Notice::Subscribed { break },
            }
        }
        old.relieved.cancel();
        tokio::select! {
            biased;
            _report = &mut old.ended => {
                self.tell_connected();
                Ok(next)
            }
            report = &mut next.ended => {
                // What the old one has taken from its socket it must still send on.
                old.ended.await;
                Err(report)
            }
        }
    }

    fn tell_connected(&self) {
        let FeedContext { name, instruments, .. } = self.context;
        info!(feed = %name, symbols = instruments.len(), "Feed connected");
    }

    /// A connection that runs whenever the runner is polled.
    fn connect(&self, connections: &mut u64) -> Runner<'_> {
        if *connections > 0 {
            self.context.ledger.record_reconnect();
        }
        *connections += 1;
        let (sender, notices) = mpsc::channel(NOTICES_MAX);
        let relieved = CancellationToken::new();
        let orders = Orders { stop: self.stop.clone(), relieved: relieved.clone() };
        let connection =
            connection::run(self.context, self.sequence, sender, self.one_by_one, orders);
        let age = self.context.limits.connection_age.map(|age| age.saturating_sub(AGE_MARGIN));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Binance;

    #[test]
    fn symbols_are_shared_out_over_connections_by_the_limit_of_the_exchange() {
        let symbol = |n: usize| format!("COIN{n}-USDT").parse().unwrap();
        let all: Vec<_> =
            (0..1_025).map(|n| Instrument::intern("binance", &symbol(n)).unwrap()).collect();
        let sizes: Vec<_> = shards(&all, Binance.limits()).map(<[Instrument]>::len).collect();
        assert_eq!(sizes, [1_024, 1]);
        assert_eq!(shards(&all, Binance.limits()).flatten().count(), 1_025);
    }
}
