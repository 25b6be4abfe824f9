//! What `feed_sessions` says: when each symbol was connected, and how many trades came that must be stored. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::Timestamp;

use super::coverage::Coverage;
use super::ids::Span;
use super::read::{Day, Key};
use super::report::Sessions;

/// A day that is not there may have been taken out between two others; further from the last one before it, that one is
/// a stray and the day went with others that were dropped.
const DROPPED_BETWEEN_MAX: Duration = Duration::from_secs(2 * 86_400);

/// Rows are read in groups, which may hold those of two connections. Where that leaves a doubt, connections with up to so
/// many trades ...
const IN_DOUBT_TRADES_MAX: u64 = 100_000;
/// ... are counted exactly, the newest of them.
const IN_DOUBT_MAX: usize = 64;

/// One connection.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// Which run of which recorder.
    pub(super) recorder: String,
    /// The exchange's name.
    pub(super) exchange: String,
    /// What it carried.
    pub(super) symbols: Arc<BTreeSet<String>>,
    /// When it stood, by the recorder's clock.
    pub(super) connected_at: Timestamp,
    /// When it ended, by the recorder's clock; `None`: it stands, or its recorder is dead.
    pub(super) ended_at: Option<Timestamp>,
    /// The last sign of life, by the server's clock.
    pub(super) seen_at: Timestamp,
    /// Trades that came over it and had not come before: each was sent to the store.
    pub(super) passed_on: u64,
    /// Whether that is known: when it has ended, and its recorder has said so itself.
    pub(super) is_counted: bool,
}

/// When a symbol was connected.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Connected {
    /// By the recorder's word: what was received then may well have been.
    pub(super) claimed: Coverage,
    /// As far as the server saw a sign of life: nothing proves more.
    pub(super) proven: Coverage,
}

/// The sessions of each symbol. `now`: the server's clock, beyond which no session is believed.
pub(super) fn connected(sessions: &[Session], now: Timestamp) -> BTreeMap<Key, Connected> {
    let mut by_key: BTreeMap<Key, Vec<&Session>> = BTreeMap::new();
    for session in sessions {
        for symbol in session.symbols.iter() {
            by_key.entry((session.exchange.clone(), symbol.clone())).or_default().push(session);
        }
    }
    let of_one = |sessions: Vec<&Session>| Connected {
        claimed: Coverage::new(sessions.iter().map(|it| (it.connected_at, it.ended_at))),
        proven: Coverage::new(sessions.iter().map(|it| {
            let seen = it.seen_at.max(it.connected_at).min(now);
            (it.connected_at, Some(it.ended_at.map_or(seen, |end| end.min(seen))))
        })),
    };
    by_key.into_iter().map(|(key, sessions)| (key, of_one(sessions))).collect()
}

/// Connections of one recorder to one exchange that overlap in time: together they sent each trade to the store once.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    /// The exchange's name.
    pub(super) exchange: String,
    /// What they carried.
    pub(super) symbols: BTreeSet<String>,
    /// From the first beginning to the last end.
    pub(super) at: Span,
    /// Whether it holds more than the time that was asked for.
    pub(super) reaches_out: bool,
    /// How many connections.
    pub(super) sessions: u64,
    /// How many trades they sent to the store.
    pub(super) passed_on: u64,
    /// Stored live rows of these symbols that were received then, or a few more.
    pub(super) stored: u64,
    /// Those of them that were read together with none of another time.
    pub(super) certain: u64,
}

/// What came over connections, held against the rows as they are read.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    /// By exchange: oldest first, each with the latest end so far.
    by_exchange: BTreeMap<String, Vec<(Delivery, Timestamp)>>,
    /// Connections that are held against the rows.
    pub(super) judged: u64,
    /// Connections of which nobody said how many trades came: they stand, or their recorder ended without a word.
    pub(super) not_counted: u64,
    /// Connections that brought trades and are not: they ended a moment ago, their days are gone, or they carried more than
    /// was asked for.
    pub(super) not_judged: u64,
}

/// Which connections are held against the rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// From here on, ...
    pub(super) from: Option<Timestamp>,
    /// ... up to here.
    pub(super) to: Timestamp,
    /// Of what ended before this nothing is on its way any more.
    pub(super) settled: Timestamp,
    /// Only these symbols; empty: all.
    pub(super) symbols: &'a BTreeSet<String>,
    /// The days that are there, oldest first.
    pub(super) days: &'a [Day],
}

impl Asked<'_> {
    /// Whether a connection has to do with what was asked.
    fn means(&self, session: &Session) -> bool {
        let ended_at = session.ended_at.unwrap_or(Timestamp::MAX);
        session.connected_at < self.to
            && self.from.is_none_or(|from| ended_at >= from)
            && (self.symbols.is_empty() || !session.symbols.is_disjoint(self.symbols))
    }

    /// Whether a connection can be held against the rows; `None`: it brought nothing.
    fn judges(&self, session: &Session) -> Option<bool> {
        let ended_at = session.ended_at.filter(|_| session.passed_on > 0)?;
        let is_all_asked = self.symbols.is_empty() || session.symbols.is_subset(self.symbols);
        let is_settled = ended_at < self.settled;
        Some(is_settled && is_all_asked && is_kept(self.days, session.connected_at))
    }
}

/// Whether the day of a time is there, or was taken out between others.
fn is_kept(days: &[Day], at: Timestamp) -> bool {
    let before = days.iter().filter(|day| !day.is_default && day.begin() <= at);
    before.map(Day::end).max().is_some_and(|end| at < end + DROPPED_BETWEEN_MAX)
}

impl Deliveries {
    /// From sessions, oldest first.
    pub(super) fn new(sessions: &[Session], asked: Asked<'_>) -> Self {
        let mut deliveries = Self::default();
        let mut open: BTreeMap<(&str, &str), Delivery> = BTreeMap::new();
        for session in sessions.iter().filter(|session| asked.means(session)) {
            deliveries.not_counted += u64::from(!session.is_counted);
            match asked.judges(session) {
                None => continue,
                Some(false) => {
                    deliveries.not_judged += 1;
                    continue;
                }
                Some(true) => deliveries.judged += 1,
            }
            let end = session.ended_at.unwrap_or(session.connected_at).max(session.connected_at);
            let reaches_out =
                asked.from.is_some_and(|from| session.connected_at < from) || end > asked.to;
            let fresh = || Delivery {
                exchange: session.exchange.clone(),
                symbols: BTreeSet::new(),
                at: (session.connected_at, end),
                reaches_out: false,
                sessions: 0,
                passed_on: 0,
                stored: 0,
                certain: 0,
            };
            let key = (session.recorder.as_str(), session.exchange.as_str());
            let delivery = open.entry(key).or_insert_with(fresh);
            if delivery.at.1 < session.connected_at {
                let before = std::mem::replace(delivery, fresh());
                deliveries.keep(before);
            }
            let delivery = open.entry(key).or_insert_with(fresh);
            delivery.at.1 = delivery.at.1.max(end);
            delivery.reaches_out |= reaches_out;
            delivery.sessions += 1;
            delivery.passed_on = delivery.passed_on.saturating_add(session.passed_on);
            delivery.symbols.extend(session.symbols.iter().cloned());
        }
        open.into_values().for_each(|delivery| deliveries.keep(delivery));
        for all in deliveries.by_exchange.values_mut() {
            all.sort_by_key(|(delivery, _)| delivery.at);
            let mut latest = Timestamp::EPOCH;
            for (delivery, reach) in all {
                latest = latest.max(delivery.at.1);
                *reach = latest;
            }
        }
        deliveries
    }

    fn keep(&mut self, delivery: Delivery) {
        let all = self.by_exchange.entry(delivery.exchange.clone()).or_default();
        all.push((delivery, Timestamp::EPOCH));
    }

    /// Counts live rows of one symbol for every delivery in which they may have come.
    pub(super) fn count(&mut self, exchange: &str, symbol: &str, received: Span, live: u64) {
        let Some(all) = self.by_exchange.get_mut(exchange) else { return };
        let begun = all.partition_point(|(delivery, _)| delivery.at.0 <= received.1);
        let begun = all.get_mut(..begun).unwrap_or_default();
        for (delivery, _) in begun.iter_mut().rev().take_while(|(_, reach)| *reach >= received.0) {
            if delivery.at.1 >= received.0 && delivery.symbols.contains(symbol) {
                delivery.stored = delivery.stored.saturating_add(live);
                if delivery.at.0 <= received.0 && received.1 <= delivery.at.1 {
                    delivery.certain = delivery.certain.saturating_add(live);
                }
            }
        }
    }

    /// How many connections were held against the rows, and how many were not.
    pub(super) const fn told(&self) -> Sessions {
        let Self { judged, not_judged, not_counted, .. } = *self;
        Sessions { judged, not_judged, not_counted }
    }

    /// Those of which fewer rows are stored than came; and of the short ones of which that is not certain, the newest.
    pub(super) fn short(&self) -> Vec<Delivery> {
        let all = self.by_exchange.values().flatten().map(|(delivery, _)| delivery);
        let (mut short, mut in_doubt) = (Vec::new(), Vec::new());
        for delivery in all.filter(|it| it.certain < it.passed_on) {
            if delivery.stored < delivery.passed_on {
                short.push(delivery.clone());
            } else if delivery.passed_on <= IN_DOUBT_TRADES_MAX {
                in_doubt.push(delivery.clone());
            }
        }
        in_doubt.sort_by_key(|delivery| std::cmp::Reverse(delivery.at));
        in_doubt.truncate(IN_DOUBT_MAX);
        short.append(&mut in_doubt);
        short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000).unwrap()
    }

    fn session(recorder: &str, from: i64, to: Option<i64>, passed_on: u64) -> Session {
        Session {
            recorder: recorder.to_owned(),
            exchange: "bybit".to_owned(),
            symbols: Arc::new(BTreeSet::from(["BTCUSDT".to_owned()])),
            connected_at: at(from),
            ended_at: to.map(at),
            seen_at: at(to.unwrap_or(from)),
            passed_on,
            is_counted: to.is_some(),
        }
    }

    fn asked<'a>(symbols: &'a BTreeSet<String>, days: &'a [Day]) -> Asked<'a> {
        let to = at(20 * 86_400);
        Asked { from: None, to, settled: to, symbols, days }
    }

    #[test]
    fn no_session_is_believed_beyond_the_servers_last_sign_of_it() {
        let mut ahead = session("one", 10, Some(3_610), 5);
        ahead.seen_at = at(20);
        let mut standing = session("two", 4_000, None, 0);
        standing.seen_at = at(9_000);
        let connected = connected(&[ahead, standing], at(5_000));
        let one = &connected[&("bybit".to_owned(), "BTCUSDT".to_owned())];
        assert_eq!(one.proven.spans(), [(at(10), at(20)), (at(4_000), at(5_000))]);
        assert_eq!(one.claimed.spans(), [(at(10), at(3_610)), (at(4_000), Timestamp::MAX)]);
    }

    #[test]
    fn two_connections_of_one_recorder_are_one_delivery_and_those_of_two_are_two() {
        let sessions = [
            session("one", 10, Some(50), 60),
            session("two", 20, Some(60), 100),
            session("one", 40, Some(90), 40),
            session("one", 95, Some(99), 7),
        ];
        let (all, days) = (BTreeSet::new(), [Day::of_tests(at(0), at(86_400))]);
        let mut deliveries = Deliveries::new(&sessions, asked(&all, &days));
        assert_eq!((deliveries.judged, deliveries.not_judged), (4, 0));
        // A hundred trades, each of which both recorders received.
        deliveries.count("bybit", "BTCUSDT", (at(20), at(60)), 99);
        deliveries.count("bybit", "BTCUSDT", (at(96), at(97)), 7);
        let short = deliveries.short();
        let passed_on: Vec<(u64, u64)> = short.iter().map(|it| (it.passed_on, it.stored)).collect();
        assert_eq!(passed_on, [(100, 99), (100, 99)]);
        deliveries.count("bybit", "BTCUSDT", (at(60), at(60)), 1);
        assert!(deliveries.short().is_empty());
        deliveries.count("bybit", "ETHUSDT", (at(60), at(60)), 1);
    }

    #[test]
    fn connections_of_days_that_were_dropped_or_of_other_symbols_are_not_judged() {
        let day = 86_400;
        let days = [
            Day::of_tests(at(0), at(day)),
            Day::of_tests(at(9 * day), at(10 * day)),
            Day::of_tests(at(11 * day), at(12 * day)),
        ];
        let sessions = [
            session("one", 5 * day, Some(5 * day + 9), 1),
            session("one", 10 * day + 5, Some(10 * day + 9), 2),
            session("one", 11 * day, None, 4),
        ];
        let all = BTreeSet::new();
        let deliveries = Deliveries::new(&sessions, asked(&all, &days));
        let counted = (deliveries.judged, deliveries.not_judged, deliveries.not_counted);
        assert_eq!(counted, (1, 1, 1));
        assert_eq!(deliveries.short().first().map(|it| it.passed_on), Some(2));
        let early = Asked { settled: at(10 * day + 9), ..asked(&all, &days) };
        let deliveries = Deliveries::new(&sessions, early);
        assert_eq!((deliveries.judged, deliveries.not_judged), (0, 2), "it ended a moment ago");
        let other = BTreeSet::from(["ETHUSDT".to_owned()]);
        let deliveries = Deliveries::new(&sessions, asked(&other, &days));
        assert_eq!((deliveries.judged, deliveries.not_judged), (0, 0));
    }
}
