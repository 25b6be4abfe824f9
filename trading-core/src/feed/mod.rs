//! One task per feed: its connections to an exchange connect, subscribe, read until they end, back off, again.
//!
//! A feed carries as many symbols as the exchange allows on one connection, over one connection or several beside each
//! other. Its ticks go to the channel in order, each once, whichever connection brought it first: what an exchange
//! repeats after a reconnect ends here too. What no connection brought is a gap, noted in the journal. A planned cut
//! (24 hours at Binance, a notice at OKX) is met by opening the next connection before the last one closes. Only a
//! stop ends a feed.

mod board;
mod connection;
mod counters;
mod gap_lines;
mod gate;
mod liveness;
mod reconnect_delay;
mod relay;
mod sequence;
mod session;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use board::FeedEntry;
pub use board::{ConnectionState, ConnectionStatus, FeedBoard, FeedStatus, SymbolStatus};
pub use counters::ExchangeCounts;
pub use gap_lines::GapLines;
pub use gate::ConnectGate;
pub use liveness::LivenessRules;
use relay::Relay;
pub use sequence::{Noticed, Sequence};

use crate::domain::{ExchangeStamps, GapRecord, Instrument, LastStored, RecorderClock};
use crate::exchange::{Exchange, Limits};
use crate::network::Network;
use crate::pipeline::TickSender;
use crate::store::journal::Journal;
use crate::telemetry::{SharedLimiter, Unsaid};

/// How often gaps are checked for the end of their grace.
const GAP_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Everything a feed is given.
#[derive(Debug)]
pub struct FeedContext {
    /// Its name in logs and tables: `binance-1`. Several connections are `binance-1/1`, `binance-1/2`.
    pub name: String,
    /// The venue's protocol.
    pub exchange: &'static dyn Exchange,
    /// The whole URL to connect to.
    pub url: String,
    /// What the venue demands, with the operator's own limits.
    pub limits: Limits,
    /// When a symbol is silent.
    pub liveness: LivenessRules,
    /// What it records.
    pub instruments: Vec<Instrument>,
    /// What is stored last of them: where it goes on.
    pub stored: Vec<LastStored>,
    /// Connections that carry the same symbols beside each other.
    pub connections: NonZeroUsize,
    /// Stamps what it receives.
    pub clock: RecorderClock,
    /// Where what its trades say of the time is noted, with the other feeds of the exchange.
    pub stamps: ExchangeStamps,
    /// Where its ticks go.
    pub sender: TickSender,
    /// Where it says what it is doing, and counts what came.
    pub board: FeedBoard,
    /// Where its connections, gaps and the quarantined frames are noted.
    pub journal: Journal,
    /// The way to it.
    pub network: Network,
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
    let feed = Feed {
        entry: context.board.add(
            context.exchange.name(),
            &context.name,
            context.connections.get(),
            &context.instruments,
            context.clock.now(),
        ),
        sequence: Mutex::new(Sequence::new(
            context.exchange.ids(),
            &context.stored,
            context.clock.clone(),
        )),
        // Where one connection finds that the pipeline has ended, the others are stopped.
        stop: stop.child_token(),
        gap_lines: GapLines::default(),
        retracted_said: SharedLimiter::default(),
        ahead_said: SharedLimiter::default(),
        repeats_said: SharedLimiter::default(),
        resets_said: SharedLimiter::default(),
        context,
    };
    let relays = feed.entry.connections.iter().zip(1_u64..);
    let relays = relays.map(|(entry, number)| Box::pin(Relay::new(&feed, entry, number).run()));
    tokio::select! {
        _ended = join_all(relays) => {}
        () = feed.watch() => {}
    }
    let rest = feed.sequence.lock().await.rest();
    feed.report(rest);
    feed.gap_lines.log_rest();
    info!(feed = %feed.context.name, "Feed stopped");
}

/// What the connections of a feed share.
#[derive(Debug)]
struct Feed {
    context: FeedContext,
    entry: Arc<FeedEntry>,
    sequence: Mutex<Sequence>,
    stop: CancellationToken,
    gap_lines: GapLines,
    retracted_said: SharedLimiter,
    ahead_said: SharedLimiter,
    repeats_said: SharedLimiter,
    resets_said: SharedLimiter,
}

impl Feed {
    /// Reports gaps when their grace is over, for ever.
    async fn watch(&self) {
        let mut check = tokio::time::interval(GAP_CHECK_INTERVAL);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            check.tick().await;
            let due = self.sequence.lock().await.due(Instant::now(), self.context.clock.now());
            self.report(due);
            self.gap_lines.log_due();
        }
    }

    /// Lists the gaps that were noticed, retracts those that were none, and logs the rest.
    fn report_noticed(&self, noticed: Noticed) {
        let Noticed { gaps, retracted, resets, ahead, only_repeats, .. } = noticed;
        self.report(gaps);
        let say = |limiter: &SharedLimiter, line: &dyn Fn(Unsaid)| {
            if let Some(unsaid) = limiter.admit(Instant::now()) {
                line(unsaid);
            }
        };
        for (instrument, ids) in retracted {
            self.context.journal.retract(instrument, ids);
            let (first, last) = (ids.first(), ids.last());
            say(&self.retracted_said, &|more| {
                info!(
                    "Gap retracted: {instrument} ids {first} to {last} were never traded: the trades go on below them{more}"
                );
            });
        }
        for instrument in resets {
            say(&self.resets_said, &|more| {
                warn!("Ids of {instrument} have gone back: the exchange counts anew{more}");
            });
        }
        for (instrument, last, id) in ahead {
            say(&self.ahead_said, &|more| {
                warn!(
                    "Id {id} of {instrument} is far from {last}, the last one: the trade is stored, and what lies between \
                     is a gap if the next ids follow it{more}"
                );
            });
        }
        for instrument in only_repeats {
            say(&self.repeats_said, &|more| {
                warn!(
                    "{instrument} brings nothing but trades that were seen before: if it trades, look at it on the \
                     exchange, and start the recorder anew{more}"
                );
            });
        }
    }

    /// Lists gaps at once. They are logged together with those that follow soon.
    fn report(&self, gaps: Vec<GapRecord>) {
        for gap in gaps {
            self.gap_lines.add(&gap);
            self.context.journal.gap(gap);
        }
    }
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
