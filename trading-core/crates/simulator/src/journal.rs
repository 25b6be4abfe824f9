//! What the simulator did to its clients, so that a test can explain each trade that did not arrive.
//!
//! Bounded: the newest entries are kept, the older ones are counted as forgotten, and the counts per exchange and
//! kind go on.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::venue::Venue;
use domain::Timestamp;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A client connected.
    Open,
    /// A connection ended by the client's or the venue's rules.
    Close,
    /// A fault cut a connection.
    Cut,
    /// A fault refused a connection.
    Refuse,
    /// A connection, or a symbol of it, fell silent.
    Stall,
    /// A silent connection, or symbol, went on.
    Resume,
    /// Trades were not sent; they are in the history.
    Skip,
    /// Trades were sent twice.
    Repeat,
    /// Trades were sent as a frame that cannot be read; they are in the history.
    Malformed,
    /// Trades were sent with a time that is years off; the history has the true one.
    Misdated,
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When, by the simulator's clock.
    pub at: String,
    /// Where.
    pub exchange: &'static str,
    /// Which connection, counted from 1 at each exchange.
    pub connection: u64,
    /// What.
    pub kind: EntryKind,
    /// Which symbol, for what happens to one symbol only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    /// The first trade's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// The last trade's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
}

impl Entry {
    pub(super) fn new(
        at: Timestamp,
        venue: Venue,
        connection: u64,
        kind: EntryKind,
        trades: Option<(&str, u64, u64)>,
    ) -> Self {
        Self {
            at: at.to_string(),
            exchange: venue.name(),
            connection,
            kind,
            symbol: trades.map(|(symbol, ..)| symbol.to_owned()),
            first: trades.map(|(_, first, _)| first),
            last: trades.map(|(.., last)| last),
        }
    }

    fn trades(&self) -> u64 {
        self.first.zip(self.last).map_or(0, |(first, last)| last + 1 - first)
    }

    fn continues(&self, before: &Self) -> bool {
        (self.exchange, self.connection, self.kind, &self.symbol)
            == (before.exchange, before.connection, before.kind, &before.symbol)
            && self.first.is_some()
            && self.first == before.last.map(|last| last + 1)
    }
}

/// How often something happened at an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The exchange.
    pub exchange: &'static str,
    /// What.
    pub kind: EntryKind,
    /// How often; runs of trades count once.
    pub times: u64,
    /// How many trades it concerned.
    pub trades: u64,
}

/// The newest entries, and counts of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Journal {
    /// Entries that are no longer kept.
    pub forgotten: u64,
    /// Counts since the start.
    pub counts: Vec<Count>,
    /// The newest entries, oldest first.
    pub entries: VecDeque<Entry>,
}

/// The journal while it is kept.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    entries: VecDeque<Entry>,
    forgotten: u64,
    counts: BTreeMap<(&'static str, EntryKind), (u64, u64)>,
}

impl Keeper {
    /// Entries that are kept.
    pub(super) const CAPACITY: usize = 20_000;

    pub(super) fn record(&mut self, entry: Entry) {
        let (times, trades) = self.counts.entry((entry.exchange, entry.kind)).or_default();
        *trades += entry.trades();
        if let Some(before) = self.entries.back_mut()
            && entry.continues(before)
        {
            before.last = entry.last;
            return;
        }
        *times += 1;
        if self.entries.len() >= Self::CAPACITY {
            self.entries.pop_front();
            self.forgotten += 1;
        }
        self.entries.push_back(entry);
    }

    pub(super) fn read(&self) -> Journal {
        Journal {
            forgotten: self.forgotten,
            counts: self
                .counts
                .iter()
                .map(|((exchange, kind), (times, trades))| Count {
                    exchange,
                    kind: *kind,
                    times: *times,
                    trades: *trades,
                })
                .collect(),
            entries: self.entries.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(first: u64, last: u64) -> Entry {
        let at = Timestamp::from_micros(1).unwrap();
        Entry::new(at, Venue::OKX, 1, EntryKind::Skip, Some(("BTCUSDT", first, last)))
    }

    #[test]
    fn a_run_is_one_entry_and_the_oldest_are_counted_when_they_go() {
        let mut keeper = Keeper::default();
        keeper.record(skipped(5, 6));
        keeper.record(skipped(7, 7));
        assert_eq!(keeper.read().entries, [skipped(5, 7)]);
        for n in 0..Keeper::CAPACITY as u64 {
            keeper.record(skipped(100 + 2 * n, 100 + 2 * n));
        }
        let journal = keeper.read();
        assert_eq!((journal.entries.len(), journal.forgotten), (Keeper::CAPACITY, 1));
        let trades = Keeper::CAPACITY as u64 + 3;
        let times = Keeper::CAPACITY as u64 + 1;
        assert_eq!(
            journal.counts,
            [Count { exchange: "okx", kind: EntryKind::Skip, times, trades }]
        );
    }
}
