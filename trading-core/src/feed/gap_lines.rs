//! What the log says of gaps: a line of one, and one line of all that show at about the same time and for one reason.

use std::sync::Mutex;
use std::time::Duration;

use rustc_hash::FxHashSet;
use tokio::time::Instant;
use tracing::warn;

use crate::domain::{GapCause, GapRecord, IdRange, Instrument, TimeRange, lock};

/// How long the first gap waits for others: after a start or a cut they show one after the other, symbol by symbol.
const GATHER: Duration = Duration::from_secs(2);
/// While gap follows gap, they are logged at most once in this.
const INTERVAL: Duration = Duration::from_secs(10);

/// Gaps that are listed and wait to be logged. Each is logged once, so that the sum of the lines is what was listed.
///
/// Pure: the time is an argument. What it keeps is bounded by the number of causes and symbols.
#[derive(Debug, Default)]
struct GapTally {
    groups: Vec<Group>,
    due_at: Option<Instant>,
    logged_at: Option<Instant>,
}

/// Gaps of one cause, all known by their ids or all by their times only.
#[derive(Debug)]
struct Group {
    first: GapRecord,
    gaps: usize,
    trades: u64,
    symbols: FxHashSet<Instrument>,
    times: TimeRange,
}

impl GapTally {
    /// Takes a gap in, to be logged later.
    fn add(&mut self, gap: &GapRecord, now: Instant) {
        let again_at = self.logged_at.map(|logged_at| logged_at + INTERVAL);
        let due_at = (now + GATHER).max(again_at.unwrap_or(now));
        self.due_at.get_or_insert(due_at);
        let is_alike = |group: &&mut Group| {
            (group.first.cause, group.first.ids.is_some()) == (gap.cause, gap.ids.is_some())
        };
        if let Some(group) = self.groups.iter_mut().find(is_alike) {
            group.add(gap);
        } else {
            let symbols = FxHashSet::default();
            let mut group = Group { first: *gap, gaps: 0, trades: 0, symbols, times: gap.times };
            group.add(gap);
            self.groups.push(group);
        }
    }

    /// The lines of those that have waited long enough; none where it is too early.
    fn due(&mut self, now: Instant) -> Vec<String> {
        match self.due_at {
            Some(due_at) if due_at <= now => self.rest(now),
            _ => Vec::new(),
        }
    }

    /// The lines of all that wait.
    fn rest(&mut self, now: Instant) -> Vec<String> {
        self.due_at = None;
        let lines: Vec<String> = self.groups.drain(..).map(|group| group.line()).collect();
        if !lines.is_empty() {
            self.logged_at = Some(now);
        }
        lines
    }
}

impl Group {
    fn add(&mut self, gap: &GapRecord) {
        self.gaps += 1;
        self.trades = self.trades.saturating_add(gap.ids.map_or(0, IdRange::len));
        self.symbols.insert(gap.instrument);
        self.times = self.times.hull(gap.times);
    }

    fn line(&self) -> String {
        let Self { first, gaps, trades, symbols, times: TimeRange { from, to } } = self;
        let GapRecord { instrument, ids, cause, .. } = *first;
        // Of many small gaps that are listed as one, some of the ids came.
        let some = if cause == GapCause::JumpedOften { "some of " } else { "" };
        let cause = cause.as_str();
        let exchange = instrument.exchange();
        match (ids, *gaps, symbols.len()) {
            (Some(ids), 1, _) => {
                let (first, last) = (ids.first(), ids.last());
                format!(
                    "Gap: {instrument} is missing {some}{trades} trades, ids {first} to {last}: {cause}"
                )
            }
            (Some(_), gaps, 1) => {
                format!(
                    "Gap: {instrument} is missing {some}{trades} trades in {gaps} gaps: {cause}"
                )
            }
            (Some(_), _, symbols) => {
                format!(
                    "Gap: {exchange} is missing {some}{trades} trades of {symbols} symbols: {cause}"
                )
            }
            (None, 1, _) => {
                format!("Gap: {instrument} may be missing trades from {from} to {to}: {cause}")
            }
            (None, gaps, 1) => {
                format!(
                    "Gap: {instrument} may be missing trades in {gaps} gaps from {from} to {to}: {cause}"
                )
            }
            (None, _, symbols) => {
                format!(
                    "Gap: {exchange} may be missing trades of {symbols} symbols from {from} to {to}: {cause}"
                )
            }
        }
    }
}

/// A tally that several tasks share, and that logs.
#[derive(Debug, Default)]
pub struct GapLines(Mutex<GapTally>);

impl GapLines {
    /// Takes a gap in.
    pub fn add(&self, gap: &GapRecord) {
        self.with(|tally| tally.add(gap, Instant::now()));
    }

    /// Logs what is due.
    pub fn log_due(&self) {
        let lines = self.with(|tally| tally.due(Instant::now()));
        lines.iter().for_each(|line| warn!("{line}"));
    }

    /// Logs all that waits.
    pub fn log_rest(&self) {
        let lines = self.with(|tally| tally.rest(Instant::now()));
        lines.iter().for_each(|line| warn!("{line}"));
    }

    fn with<T>(&self, act: impl FnOnce(&mut GapTally) -> T) -> T {
        act(&mut lock(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000).unwrap()
    }

    fn gap(symbol: usize, ids: Option<(u64, u64)>, cause: GapCause) -> GapRecord {
        let symbol = format!("COIN{symbol}USDT").parse().unwrap();
        let instrument = Instrument::intern("binance", &symbol).unwrap();
        let ids = ids.map(|(first, last)| IdRange::between(first, last));
        let times = TimeRange::new(at(1), at(2));
        GapRecord { instrument, ids, times, cause, seen_at: at(3) }
    }

    /// The trades that lines say are missing.
    fn told(lines: &[String]) -> u64 {
        let number = |line: &String| -> u64 {
            let (_, rest) = line.split_once(" is missing ").unwrap();
            rest.split_once(' ').unwrap().0.parse().unwrap()
        };
        lines.iter().map(number).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn the_lines_add_up_to_what_is_listed_however_the_gaps_come() {
        let mut tally = GapTally::default();
        let mut lines = Vec::new();
        let mut listed = 0;
        let begin = Instant::now();
        let pulse = async |tally: &mut GapTally, lines: &mut Vec<String>| {
            tokio::time::sleep(Duration::from_millis(100)).await;
            lines.extend(tally.due(Instant::now()));
        };
        // Ten symbols after a start, each some hundred milliseconds after the one before; and a late one.
        for symbol in 0..10 {
            let trades = 50 + u64::try_from(symbol).unwrap();
            tally.add(&gap(symbol, Some((1, trades)), GapCause::NotRunning), Instant::now());
            listed += trades;
            pulse(&mut tally, &mut lines).await;
        }
        while lines.is_empty() {
            pulse(&mut tally, &mut lines).await;
        }
        assert_eq!(begin.elapsed(), GATHER);
        let all = "Gap: binance is missing 545 trades of 10 symbols: the recorder was not running";
        assert_eq!(lines, [all]);
        tally.add(&gap(3, Some((200, 209)), GapCause::NotRunning), Instant::now());
        tally.add(&gap(3, Some((300, 300)), GapCause::NotRunning), Instant::now());
        tally.add(&gap(4, Some((400, 404)), GapCause::Jumped), Instant::now());
        listed += 16;
        // Nothing follows, and they are told all the same.
        while lines.len() == 1 {
            pulse(&mut tally, &mut lines).await;
        }
        assert_eq!(begin.elapsed(), GATHER + INTERVAL);
        assert_eq!(
            lines[1..],
            [
                "Gap: binance:COIN3USDT is missing 11 trades in 2 gaps: the recorder was not running",
                "Gap: binance:COIN4USDT is missing 5 trades, ids 400 to 404: the ids jumped",
            ]
        );
        assert_eq!(told(&lines), listed);
        tally.add(&gap(5, Some((1, 7)), GapCause::NoConnection), Instant::now());
        assert!(tally.due(Instant::now()).is_empty());
        let end = tally.rest(Instant::now());
        assert_eq!((end.len(), told(&end)), (1, 7), "{end:?}");
    }

    #[test]
    fn gaps_of_which_only_the_time_is_known_are_told_apart_from_those_of_ids() {
        let (mut tally, now) = (GapTally::default(), Instant::now());
        tally.add(&gap(1, None, GapCause::NoConnection), now);
        tally.add(&gap(2, Some((5, 6)), GapCause::NoConnection), now);
        let later = GapRecord {
            times: TimeRange::new(at(1), at(9)),
            ..gap(3, None, GapCause::NoConnection)
        };
        tally.add(&later, now);
        let (from, to) = (at(1), at(9));
        assert_eq!(
            tally.rest(now),
            [
                format!(
                    "Gap: binance may be missing trades of 2 symbols from {from} to {to}: no connection"
                ),
                "Gap: binance:COIN2USDT is missing 2 trades, ids 5 to 6: no connection".to_owned(),
            ]
        );
    }
}
