//! The ids of one symbol, in blocks of 64: each block says which of its ids are stored and by how many rows.
//!
//! That is exact in whatever order the rows were read: a block is whole when all its ids are there and as many rows as
//! ids; more rows than ids are doubled rows. Whole blocks that follow each other are kept as one run, so that a
//! complete table takes next to no memory.

use std::collections::BTreeMap;
use std::ops::Range;

use super::bounds::DISORDER_MAX;
use crate::domain::Timestamp;

/// Ids in a block: one bit each.
const BLOCK_LEN: u64 = 64;
/// Blocks kept per symbol that are not whole. A symbol with more is missing trades everywhere.
const LOOSE_MAX: usize = 500_000;

/// Rows that make a count of their own; fewer are rows with altered ids.
const COUNT_MIN: u64 = 2;

/// First and last exchange time of some rows.
pub(super) type Span = (Timestamp, Timestamp);
/// First and last of some ids, both included.
pub(super) type IdRange = (u64, u64);

/// Rows whose ids fall into one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    /// Which of its ids are there, lowest first.
    pub(super) bits: u64,
    /// How many rows hold them.
    pub(super) rows: u64,
    /// When they were traded.
    pub(super) at: Span,
}

/// Whole blocks that follow each other, in ids and in time.
#[derive(Debug, Clone, Copy)]
struct Run {
    last: u64,
    at: Span,
}

/// Ids that follow each other and are all there, with the time of their block or run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Present {
    /// The ids.
    pub(super) ids: IdRange,
    /// When their block or run was traded.
    pub(super) at: Span,
}

/// Ids whose time does not fit between those of their neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Suspect {
    /// The ids of the block or run.
    pub(super) ids: IdRange,
    /// When its rows were traded.
    pub(super) at: Span,
    /// Where a row of it belongs.
    pub(super) belongs: Span,
}

/// All ids of one symbol.
#[derive(Debug)]
pub(super) struct Ids {
    runs: BTreeMap<u64, Run>,
    loose: BTreeMap<u64, Block>,
    loose_max: usize,
    is_scattered: bool,
}

impl Default for Ids {
    fn default() -> Self {
        Self::with_limit(LOOSE_MAX)
    }
}

impl Ids {
    fn with_limit(loose_max: usize) -> Self {
        Self { runs: BTreeMap::new(), loose: BTreeMap::new(), loose_max, is_scattered: false }
    }

    /// Whether there were too many broken blocks to keep: what is known of the ids is not all then.
    pub(super) const fn is_scattered(&self) -> bool {
        self.is_scattered
    }

    /// Adds rows of the block with this number (id / 64).
    pub(super) fn add(&mut self, number: u64, rows: Block) {
        if !self.loose.contains_key(&number) && self.loose.len() >= self.loose_max {
            self.is_scattered = true;
            return;
        }
        let block = self.loose.entry(number).or_insert(Block { bits: 0, rows: 0, at: rows.at });
        block.bits |= rows.bits;
        block.rows += rows.rows;
        block.at = hull(block.at, rows.at);
        let Block { bits, rows, at } = *block;
        // A block that a run holds already is doubled, and stays loose beside it.
        if bits == u64::MAX && rows == BLOCK_LEN && self.run_of(number).is_none() {
            self.loose.remove(&number);
            self.join(number, at);
        }
    }

    fn run_of(&self, number: u64) -> Option<Run> {
        let (_, run) = self.runs.range(..=number).next_back()?;
        (number <= run.last).then_some(*run)
    }

    /// Adds a whole block, to the runs beside it where it fits them in time.
    fn join(&mut self, number: u64, at: Span) {
        let (mut first, mut run) = (number, Run { last: number, at });
        if let Some((before, earlier)) = self.runs.range(..number).next_back()
            && earlier.last.checked_add(1) == Some(number)
            && is_after(earlier.at, at)
        {
            first = *before;
            run.at = hull(earlier.at, at);
        }
        if let Some(next) = number.checked_add(1)
            && let Some(later) = self.runs.get(&next)
            && is_after(run.at, later.at)
        {
            run = Run { last: later.last, at: hull(run.at, later.at) };
            self.runs.remove(&next);
        }
        self.runs.insert(first, run);
    }

    /// Rows that hold an id which another row holds too, counted without the first of each.
    pub(super) fn doubled_rows(&self) -> u64 {
        let extra = |(number, block): (&u64, &Block)| match self.run_of(*number) {
            Some(_) => block.rows,
            None => block.rows - u64::from(block.bits.count_ones()),
        };
        self.loose.iter().map(extra).sum()
    }

    /// Where doubled rows are: the ids that may be doubled, a block at a time, and when their rows were traded.
    pub(super) fn doubled(&self) -> impl Iterator<Item = (Vec<u64>, Span)> {
        self.loose.iter().filter_map(|(number, block)| {
            let run = self.run_of(*number);
            let at = run.map_or(block.at, |run| hull(run.at, block.at));
            let is_doubled = run.is_some() || block.rows > u64::from(block.bits.count_ones());
            let ids = || (0..BLOCK_LEN).filter(|bit| block.bits >> bit & 1 == 1);
            is_doubled.then(|| (ids().map(|bit| number * BLOCK_LEN + bit).collect(), at))
        })
    }

    /// The ids that are there, ascending, in pieces.
    pub(super) fn present(&self) -> impl Iterator<Item = Present> {
        let mut runs = self.runs.iter().peekable();
        let mut loose =
            self.loose.iter().filter(|(number, _)| self.run_of(**number).is_none()).peekable();
        let mut pending: (u64, u64, Span) = (0, 0, (EPOCH, EPOCH));
        std::iter::from_fn(move || {
            loop {
                let (base, bits, at) = &mut pending;
                if *bits != 0 {
                    let range = take_ones(bits);
                    return Some(Present {
                        ids: (*base + range.start, *base + range.end - 1),
                        at: *at,
                    });
                }
                let is_run_next = match (runs.peek(), loose.peek()) {
                    (Some((run, _)), Some((block, _))) => run < block,
                    (run, _) => run.is_some(),
                };
                if is_run_next {
                    let (first, run) = runs.next()?;
                    let ids = (first * BLOCK_LEN, run.last * BLOCK_LEN + (BLOCK_LEN - 1));
                    return Some(Present { ids, at: run.at });
                }
                let (number, block) = loose.next()?;
                pending = (number * BLOCK_LEN, block.bits, block.at);
            }
        })
    }

    /// The first and the last id.
    pub(super) fn ends(&self) -> Option<IdRange> {
        let run = self.runs.first_key_value().map(|(first, _)| first * BLOCK_LEN);
        let block = self.loose.iter().find(|(_, block)| block.bits != 0);
        let block = block
            .map(|(number, block)| number * BLOCK_LEN + u64::from(block.bits.trailing_zeros()));
        let first = [run, block].into_iter().flatten().min()?;
        let run = self.runs.last_key_value().map(|(_, run)| run.last * BLOCK_LEN + (BLOCK_LEN - 1));
        let block = self.loose.iter().rev().find(|(_, block)| block.bits != 0);
        let block = block.map(|(number, block)| {
            number * BLOCK_LEN + (BLOCK_LEN - 1) - u64::from(block.bits.leading_zeros())
        });
        Some((first, [run, block].into_iter().flatten().max()?))
    }

    /// How many different ids of a range are there.
    pub(super) fn present_in(&self, (first, last): IdRange) -> u64 {
        let blocks = first / BLOCK_LEN..=last / BLOCK_LEN;
        let overlap = |from: u64, to: u64| {
            let (from, to) = (from.max(first), to.min(last));
            if from <= to { to - from + 1 } else { 0 }
        };
        let before = self.runs.range(..blocks.start()).next_back();
        let in_runs = before.into_iter().chain(self.runs.range(blocks.clone()));
        let in_runs = in_runs
            .map(|(from, run)| overlap(from * BLOCK_LEN, run.last * BLOCK_LEN + (BLOCK_LEN - 1)));
        let in_loose =
            self.loose.range(blocks).filter(|(number, _)| self.run_of(**number).is_none());
        let in_loose = in_loose.map(|(number, block)| {
            let mut bits = block.bits;
            let mut found = 0;
            while bits != 0 {
                let range = take_ones(&mut bits);
                let base = number * BLOCK_LEN;
                found += overlap(base + range.start, base + range.end - 1);
            }
            found
        });
        in_runs.sum::<u64>() + in_loose.sum::<u64>()
    }

    /// When its rows were traded.
    pub(super) fn time(&self) -> Option<Span> {
        self.pieces().into_iter().map(|(_, _, at)| at).reduce(hull)
    }

    /// Takes out what was counted before the exchange began anew, latest count first: higher ids, all of them traded
    /// before all lower ones. A single row is no count.
    pub(super) fn take_earlier(&mut self) -> Vec<Self> {
        let mut earlier = Vec::new();
        while let Some(first) = self.begun_anew() {
            earlier.push(Self {
                runs: self.runs.split_off(&first),
                loose: self.loose.split_off(&first),
                loose_max: self.loose_max,
                is_scattered: self.is_scattered,
            });
        }
        earlier.reverse();
        earlier
    }

    /// The first block of the highest ids that belong to an earlier count.
    fn begun_anew(&self) -> Option<u64> {
        let pieces = self.pieces();
        // Of the pieces up to each one: rows, and the earliest time.
        let mut lower = Vec::with_capacity(pieces.len());
        let mut sum = (0, Timestamp::MAX);
        for (_, rows, at) in &pieces {
            sum = (sum.0 + rows, sum.1.min(at.0));
            lower.push(sum);
        }
        let (mut rows, mut latest) = (0, EPOCH);
        for ((ids, count, at), below) in pieces.iter().skip(1).zip(&lower).rev() {
            rows += count;
            latest = latest.max(at.1);
            if latest <= below.1 && rows >= COUNT_MIN && below.0 >= COUNT_MIN {
                return Some(ids.0 / BLOCK_LEN);
            }
        }
        None
    }

    /// What lies against time: of two pieces that contradict each other, the one with fewer rows, or else with its rows
    /// further apart. Empty for a table in order.
    pub(super) fn suspects(&self) -> Vec<Suspect> {
        let pieces = self.pieces();
        let mut newest = EPOCH;
        let in_order = pieces.iter().all(|(_, _, at)| {
            let fits = is_after((newest, newest), *at);
            newest = newest.max(at.1);
            fits
        });
        if in_order {
            return Vec::new();
        }
        let mut by_weight: Vec<usize> = (0..pieces.len()).collect();
        let micros = |at: Span| at.1.micros_since(at.0);
        by_weight.sort_by_key(|at| {
            pieces.get(*at).map(|(_, rows, at)| (std::cmp::Reverse(*rows), micros(*at)))
        });
        let mut kept: BTreeMap<usize, Span> = BTreeMap::new();
        let mut blamed = Vec::new();
        for index in by_weight {
            let Some((_, _, at)) = pieces.get(index) else { continue };
            let before =
                kept.range(..index).next_back().is_none_or(|(_, span)| is_after(*span, *at));
            let after = kept.range(index..).next().is_none_or(|(_, span)| is_after(*at, *span));
            if before && after {
                kept.insert(index, *at);
            } else {
                blamed.push(index);
            }
        }
        blamed.sort_unstable();
        let suspect = |index: usize| {
            let (ids, _, at) = pieces.get(index)?;
            let earliest = kept.range(..index).next_back().map_or(EPOCH, |(_, span)| span.1);
            let latest = kept.range(index..).next().map_or(at.1.max(earliest), |(_, span)| span.0);
            Some(Suspect {
                ids: *ids,
                at: *at,
                belongs: (earliest - DISORDER_MAX, latest + DISORDER_MAX),
            })
        };
        blamed.into_iter().filter_map(suspect).collect()
    }

    /// Runs, and loose blocks outside them, ascending.
    fn pieces(&self) -> Vec<(IdRange, u64, Span)> {
        let runs = self.runs.iter().map(|(first, run)| {
            let ids = (first * BLOCK_LEN, run.last * BLOCK_LEN + (BLOCK_LEN - 1));
            (ids, ids.1 - ids.0 + 1, run.at)
        });
        let loose = self
            .loose
            .iter()
            .filter(|(number, block)| block.bits != 0 && self.run_of(**number).is_none());
        let loose = loose.map(|(number, block)| {
            let first = number * BLOCK_LEN;
            ((first, first + (BLOCK_LEN - 1)), block.rows, block.at)
        });
        let mut pieces: Vec<_> = runs.chain(loose).collect();
        pieces.sort_unstable_by_key(|(ids, _, _)| *ids);
        pieces
    }

    /// Takes all rows of an id out, which are no trade of this place in the count: it counts as not there.
    pub(super) fn set_aside(&mut self, id: u64, rows: u64) {
        let (number, bit) = (id / BLOCK_LEN, 1_u64 << (id % BLOCK_LEN));
        if !self.loose.contains_key(&number)
            && let Some((first, run)) = self.runs.range(..=number).next_back()
            && number <= run.last
        {
            let (first, run) = (*first, *run);
            self.runs.remove(&first);
            if first < number {
                self.runs.insert(first, Run { last: number - 1, at: run.at });
            }
            if number < run.last {
                self.runs.insert(number + 1, run);
            }
            self.loose.insert(number, Block { bits: u64::MAX, rows: BLOCK_LEN, at: run.at });
        }
        if let Some(block) = self.loose.get_mut(&number)
            && block.bits & bit != 0
        {
            block.bits &= !bit;
            block.rows = block.rows.saturating_sub(rows);
        }
    }
}

const EPOCH: Timestamp = Timestamp::EPOCH;

/// The smallest span that holds both.
pub(super) fn hull(one: Span, other: Span) -> Span {
    (one.0.min(other.0), one.1.max(other.1))
}

/// Whether what has the higher ids is later, the disorder that is borne apart.
fn is_after(lower: Span, higher: Span) -> bool {
    lower.1 <= higher.0 + DISORDER_MAX
}

/// Takes the lowest ones that follow each other out of `bits`, which are not zero.
fn take_ones(bits: &mut u64) -> Range<u64> {
    let start = bits.trailing_zeros();
    let len = (*bits >> start).trailing_ones();
    let ones = if len == u64::BITS { u64::MAX } else { ((1 << len) - 1) << start };
    *bits &= !ones;
    u64::from(start)..u64::from(start + len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_millis(i64::try_from(second).unwrap() * 1_000).unwrap()
    }

    /// Rows of ids and seconds, read in chunks of so many.
    fn read(rows: &[(u64, u64)], chunk: usize) -> Ids {
        let mut ids = Ids::default();
        for rows in rows.chunks(chunk) {
            let mut blocks: BTreeMap<u64, Block> = BTreeMap::new();
            for (id, second) in rows {
                let span = (at(*second), at(*second));
                let block = blocks.entry(id / 64).or_insert(Block { bits: 0, rows: 0, at: span });
                block.bits |= 1 << (id % 64);
                block.rows += 1;
                block.at = hull(block.at, span);
            }
            for (number, block) in blocks {
                ids.add(number, block);
            }
        }
        ids
    }

    fn ranges(ids: &Ids) -> Vec<IdRange> {
        let mut joined: Vec<IdRange> = Vec::new();
        for present in ids.present() {
            match joined.last_mut() {
                Some(last) if last.1 + 1 == present.ids.0 => last.1 = present.ids.1,
                _ => joined.push(present.ids),
            }
        }
        joined
    }

    fn each_second(ids: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
        ids.into_iter().map(|id| (id, id)).collect()
    }

    #[test]
    fn a_whole_table_is_one_run_in_whatever_order_it_is_read() {
        let mut rows = each_second(100..10_000);
        for chunk in [7, 64, 1_000, 100_000] {
            rows.reverse();
            let ids = read(&rows, chunk);
            assert_eq!(ranges(&ids), [(100, 9_999)], "{chunk}");
            assert_eq!((ids.doubled_rows(), ids.suspects()), (0, Vec::new()), "{chunk}");
            assert_eq!(
                (ids.runs.len(), ids.loose.len()),
                (1, 2),
                "the blocks at both ends are not whole"
            );
            assert_eq!(ids.ends(), Some((100, 9_999)));
        }
    }

    #[test]
    fn an_altered_id_is_a_hole_and_a_row_that_does_not_belong() {
        let mut rows = each_second(1..1_000);
        rows[499].0 = 90_000;
        let mut ids = read(&rows, 300);
        let [suspect] = ids.suspects()[..] else { panic!("{:?}", ids.suspects()) };
        assert!((suspect.ids.0..=suspect.ids.1).contains(&90_000), "{suspect:?}");
        assert!(suspect.belongs.0 > suspect.at.1, "{suspect:?}");
        ids.set_aside(90_000, 1);
        assert_eq!(ranges(&ids), [(1, 499), (501, 999)]);
        assert_eq!(ids.ends(), Some((1, 999)));
    }

    #[test]
    fn an_altered_id_that_takes_the_place_of_a_missing_one_is_found_by_its_time() {
        let mut rows = each_second((1..1_000).filter(|id| *id != 700));
        rows[99].0 = 700;
        let mut ids = read(&rows, 10_000);
        let suspects = ids.suspects();
        let suspect = suspects.iter().find(|it| (it.ids.0..=it.ids.1).contains(&700)).unwrap();
        assert!(suspect.at.0 < suspect.belongs.0, "{suspect:?}");
        ids.set_aside(700, 1);
        assert_eq!(ranges(&ids), [(1, 99), (101, 699), (701, 999)]);
    }

    #[test]
    fn a_row_may_be_set_aside_from_the_middle_of_a_run() {
        let mut ids = read(&each_second(0..640), 64);
        ids.set_aside(200, 1);
        ids.set_aside(200, 1);
        assert_eq!(ranges(&ids), [(0, 199), (201, 639)]);
        assert_eq!(ids.doubled_rows(), 0);
    }

    #[test]
    fn ids_that_begin_anew_are_two_counts_and_none_of_their_rows_is_blamed() {
        let old = (1_000..1_011).map(|id| (id, id));
        let new = (60..142).map(|id| (id, 2_000 + id));
        let newest = (10..20).map(|id| (id, 5_000 + id));
        let rows: Vec<(u64, u64)> = old.chain(new).chain(newest).collect();
        let mut ids = read(&rows, 7);
        // The third count shares a block with the second: they are not told apart, and not in order.
        assert_eq!(ids.take_earlier().len(), 1);
        let mut ids = read(&rows[..93], 7);
        let earlier = ids.take_earlier();
        assert_eq!(earlier.iter().map(ranges).collect::<Vec<_>>(), [[(1_000, 1_010)]]);
        assert_eq!((ranges(&ids), ids.suspects()), (vec![(60, 141)], Vec::new()));
        // One row is a row with an altered id.
        let mut one = read(&[(9_000, 1), (1, 2), (2, 3), (3, 4)], 9);
        assert!(one.take_earlier().is_empty());
    }

    #[test]
    fn the_highest_ids_do_not_overflow() {
        let last = u64::try_from(i64::MAX).unwrap();
        let ids = read(&[(0, 1), (last - 1, 2), (last, 3)], 2);
        assert_eq!(ranges(&ids), [(0, 0), (last - 1, last)]);
        assert_eq!(ids.present_in((0, u64::MAX)), 3);
    }

    #[test]
    fn a_table_with_holes_everywhere_does_not_take_memory_without_end() {
        let mut ids = Ids::with_limit(10);
        for number in 0..11 {
            assert!(!ids.is_scattered());
            ids.add(number, Block { bits: 1, rows: 1, at: (EPOCH, EPOCH) });
        }
        assert!(ids.is_scattered());
        assert_eq!(ids.loose.len(), 10);
    }

    proptest! {
        #[test]
        fn prop_it_knows_what_a_set_and_a_count_know(
            mut rows in proptest::collection::vec(0_u64..700, 0..900),
            chunk in 1_usize..400,
            range in (0_u64..800, 0_u64..300),
        ) {
            rows.extend(200..500);
            let ids = read(&each_second(rows.iter().copied()), chunk);
            let set: std::collections::BTreeSet<u64> = rows.iter().copied().collect();
            prop_assert_eq!(ids.doubled_rows(), u64::try_from(rows.len() - set.len()).unwrap());
            let present: Vec<u64> = ids.present().flat_map(|it| it.ids.0..=it.ids.1).collect();
            prop_assert_eq!(&present, &set.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(ids.ends(), Some((*set.first().unwrap(), *set.last().unwrap())));
            let range = (range.0, range.0 + range.1);
            let inside = set.range(range.0..=range.1).count();
            prop_assert_eq!(ids.present_in(range), u64::try_from(inside).unwrap());
            let twice = |id: &u64| rows.iter().filter(|it| *it == id).count() > 1;
            let named: std::collections::BTreeSet<u64> = ids.doubled().flat_map(|(ids, _)| ids).collect();
            prop_assert!(set.iter().filter(|id| twice(id)).all(|id| named.contains(id)));
            prop_assert!(ids.suspects().is_empty(), "each id has its own second");
        }
    }
}
