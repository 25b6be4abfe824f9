//! Ids in any order: which are repeats, which are missing, and which are believed.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::count::{CONFIRM_BEHIND, UNFOLLOWED_MAX};
use super::holes::{GRACE, HOLES_MAX, LISTED_MAX};
use super::recent::RECENT_MAX;
use super::*;
use crate::domain::bounds::JUMP_CONFIRMED;
use crate::domain::testing::{self, instrument};
use crate::domain::{TimeRange, TradeId};

fn bitcoin() -> Instrument {
    instrument("kraken", "BTCUSD")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(second * 1_000).unwrap()
}

fn tick(id: u64, second: i64) -> Tick {
    Tick { instrument: bitcoin(), ..testing::tick(id).at(at(second)) }
}

fn ids(ticks: &[Tick]) -> Vec<u64> {
    ticks.iter().filter_map(|tick| tick.trade_id.number()).collect()
}

fn gap(ids: Option<(u64, u64)>, from: i64, to: i64, cause: GapCause, seen_at: i64) -> GapRecord {
    let instrument = bitcoin();
    GapRecord {
        instrument,
        ids: ids.map(|(first, last)| IdRange::between(first, last)),
        times: TimeRange::new(at(from), at(to)),
        cause,
        seen_at: at(seen_at),
    }
}

fn stored(id: u64, second: i64) -> LastStored {
    let trade_id = TradeId::Number(id);
    let (exchange_at, until) = (at(second), at(second));
    let (instrument, missing) = (bitcoin(), Vec::new());
    LastStored { instrument, trade_id, exchange_at, until, missing, is_carried: false }
}

/// A sequence at a time of its own.
struct World {
    sequence: Sequence,
    now: Instant,
}

impl World {
    fn new(rule: IdRule, stored: &[LastStored]) -> Self {
        Self {
            sequence: Sequence::new(rule, stored, RecorderClock::default()),
            now: Instant::now(),
        }
    }

    /// A count of which nothing is stored.
    fn counting() -> Self {
        Self::new(IdRule::Consecutive, &[])
    }

    fn admit(&mut self, ticks: &mut Vec<Tick>) -> Noticed {
        self.sequence.admit(ticks, self.now)
    }

    /// Ids that pass, of trades of one second.
    fn pass(&mut self, ids_: impl IntoIterator<Item = u64>, second: i64) -> Vec<u64> {
        let mut ticks = ids_.into_iter().map(|id| tick(id, second)).collect();
        assert_eq!(self.admit(&mut ticks).gaps, []);
        ids(&ticks)
    }

    fn subscribe(&mut self) {
        self.sequence.record_subscribed([bitcoin()].into_iter(), self.now);
    }

    /// What is told when so much time has passed, at this second of ours.
    fn wait(&mut self, time: Duration, second: i64) -> Vec<GapRecord> {
        self.now += time;
        self.sequence.due(self.now, at(second))
    }
}

#[test]
fn a_snapshot_after_a_reconnect_brings_only_what_is_new() {
    let mut world = World::counting();
    world.pass(100..=110, 1);
    let mut snapshot: Vec<_> = (95..=115).map(|id| tick(id, 1)).collect();
    let noticed = world.admit(&mut snapshot);
    assert_eq!(ids(&snapshot), [111, 112, 113, 114, 115]);
    assert_eq!(noticed, Noticed { duplicates: 16, ..Noticed::default() });
}

#[test]
fn a_jump_is_a_gap_when_its_grace_is_over_and_is_told_once() {
    let mut world = World::counting();
    world.pass([1, 2], 1);
    world.pass([6], 3);
    assert_eq!(world.wait(GRACE - Duration::from_millis(1), 9), []);
    let told = gap(Some((3, 5)), 1, 3, GapCause::Jumped, 3);
    assert_eq!(world.wait(Duration::from_millis(1), 9), [told]);
    assert_eq!(world.wait(GRACE, 9), []);
    assert_eq!(world.sequence.rest(), []);
}

#[test]
fn what_comes_late_is_taken_once_and_only_what_is_left_of_a_hole_is_a_gap() {
    let mut world = World::counting();
    // Two connections: the newer one is ahead.
    world.pass([100], 1);
    world.pass([108], 9);
    let mut late: Vec<_> = [102, 101, 102, 105, 99].map(|id| tick(id, 5)).to_vec();
    assert_eq!(world.admit(&mut late).duplicates, 2);
    assert_eq!(ids(&late), [102, 101, 105]);
    let first = gap(Some((103, 104)), 5, 5, GapCause::Jumped, 9);
    let second = gap(Some((106, 107)), 5, 9, GapCause::Jumped, 9);
    assert_eq!(world.wait(GRACE, 9), [first, second]);
    // Told is not forgotten: what comes very late is taken still.
    assert_eq!(world.pass([103, 104, 104, 109], 5), [103, 104, 109]);
    assert_eq!(world.wait(GRACE, 9), []);
}

#[test]
fn a_hole_that_is_filled_in_time_is_no_gap() {
    let mut world = World::counting();
    world.pass([1, 4], 1);
    assert_eq!(world.pass([2, 3], 1), [2, 3]);
    assert_eq!((world.wait(GRACE, 9), world.sequence.rest()), (vec![], vec![]));
}

#[test]
fn at_the_end_every_hole_is_told_whatever_its_grace() {
    let mut world = World::counting();
    world.pass([1, 4], 1);
    assert_eq!(world.sequence.rest(), [gap(Some((2, 3)), 1, 1, GapCause::Jumped, 1)]);
}

#[test]
fn as_many_holes_are_remembered_as_may_be_and_what_is_forgotten_is_told_as_one_gap() {
    let mut world = World::counting();
    let holes = u64::try_from(HOLES_MAX).unwrap();
    let mut ticks = (0..=holes + 2).map(|n| tick(n * 2, 1)).collect();
    assert_eq!(world.admit(&mut ticks).gaps, []);
    // Forgotten are 1 and 3; 5 is remembered.
    assert_eq!(world.pass([1, 3, 5], 1), [5]);
    let forgotten = gap(Some((1, 3)), 1, 1, GapCause::JumpedOften, 1);
    let others = gap(Some((7, holes * 2 + 3)), 1, 1, GapCause::JumpedOften, 1);
    assert_eq!(world.wait(GRACE, 9), [forgotten, others], "many are told as one");
    assert_eq!(world.wait(GRACE, 9), []);
}

#[test]
fn a_flood_of_holes_is_told_in_a_few_gaps_that_cover_all_of_it() {
    let mut world = World::counting();
    let (mut told, mut id) = (Vec::new(), 0);
    for second in 0..600 {
        for _ in 0..10 {
            let mut ticks = (0..100).map(|n| tick(id + n * 2, second)).collect();
            told.extend(world.admit(&mut ticks).gaps);
            assert_eq!(ticks.len(), 100);
            id += 200;
            told.extend(world.wait(Duration::from_millis(100), second));
        }
    }
    told.extend(world.sequence.rest());
    assert!(told.len() < 40, "{} gaps", told.len());
    let mut covered: Vec<IdRange> = told.iter().filter_map(|gap| gap.ids).collect();
    covered.sort_unstable();
    let mut next = 1;
    for ids in covered {
        assert!(ids.first() <= next, "{next} to {ids} are not listed");
        next = next.max(ids.last() + 2);
    }
    assert!(next > id - 2, "up to {next} of {id}");
}

#[test]
fn a_hole_that_falls_apart_takes_no_more_room_than_there_is() {
    let mut world = World::counting();
    let holes = u64::try_from(HOLES_MAX).unwrap();
    world.pass([0, holes * 4], 1);
    let mut every_other = (1..=holes + 3).map(|n| tick(n * 2, 1)).collect();
    assert_eq!(world.admit(&mut every_other).gaps, []);
    assert_eq!(every_other.len(), HOLES_MAX + 3);
    let told = world.sequence.rest();
    let told: BTreeSet<u64> =
        told.iter().filter_map(|gap| gap.ids).flat_map(|ids| ids.first()..=ids.last()).collect();
    let came: BTreeSet<u64> = ids(&every_other).into_iter().collect();
    assert!((1..holes * 4).all(|id| came.contains(&id) || told.contains(&id)), "all of it is told");
}

#[test]
fn the_largest_id_there_can_be_breaks_nothing() {
    let mut world = World::counting();
    let last = [u64::MAX - 1, u64::MAX, u64::MAX, 0];
    assert_eq!(world.pass(last, 1), [u64::MAX - 1, u64::MAX]);
    let named = world.sequence.record_named(bitcoin(), u64::MAX, world.now, at(1));
    assert_eq!(named, Noticed::default());
}

#[test]
fn an_exchange_that_counts_anew_loses_no_trade_and_what_was_missing_is_told() {
    // Within a second of the old count, near it or far from it, after a start or not.
    for (old, stored_at) in [(1_000_000, Some(1)), (1_010, Some(1)), (1_010, None)] {
        let known = stored_at.map(|second| stored(old, second));
        let mut world = World::new(IdRule::Consecutive, known.as_slice());
        world.pass([old], 1);
        world.pass([old + 2], 1);
        let count = u64::try_from(CONFIRM_BEHIND).unwrap();
        assert_eq!(world.pass(1..count, 2), (1..count).collect::<Vec<_>>(), "sent on in doubt");
        let mut ticks = vec![tick(count, 2), tick(count + 1, 2)];
        let noticed = world.admit(&mut ticks);
        assert_eq!(ids(&ticks), [count, count + 1]);
        assert_eq!(noticed.resets, [bitcoin()]);
        let cause = if stored_at.is_some() { GapCause::NotRunning } else { GapCause::Jumped };
        assert_eq!(noticed.gaps.len(), 1);
        assert_eq!(noticed.gaps[0].ids, Some(IdRange::one(old + 1)));
        assert!(noticed.gaps[0].cause == cause || stored_at.is_some());
        assert_eq!(world.sequence.rest(), []);
        // The new count is one like any other.
        assert_eq!(world.pass([count], 2), [0; 0]);
        assert_eq!(world.pass([count + 3, count + 4], 3), [count + 3, count + 4]);
        assert_eq!(world.wait(GRACE, 9).len(), 1);
    }
}

#[test]
fn trades_of_a_new_count_that_were_taken_for_repeats_are_told() {
    let mut world = World::counting();
    world.pass(1_000..=1_010, 5);
    // Of the same moment as the last trade: nothing shows yet that they are none of the old ones.
    assert_eq!(world.pass(1..=3, 5), [0; 0]);
    let mut ticks: Vec<_> = (4..=20).map(|id| tick(id, 6)).collect();
    let noticed = world.admit(&mut ticks);
    assert_eq!(ticks.len(), 17);
    assert_eq!(noticed.gaps, [gap(Some((1, 3)), 5, 6, GapCause::Jumped, 6)]);
    assert_eq!(noticed.resets, [bitcoin()]);
}

#[test]
fn what_is_sent_again_by_whichever_connection_is_a_repeat_however_much_of_it() {
    let mut world = World::counting();
    for second in 1..200_u64 {
        let when = i64::try_from(second).unwrap();
        world.pass([second], when);
        // Another connection is behind by up to thirty trades.
        for behind in (1..=second.saturating_sub(1)).rev().take(30) {
            let then = i64::try_from(behind).unwrap();
            let mut late = vec![Tick { received_at: at(when), ..tick(behind, then) }];
            let noticed = world.admit(&mut late);
            assert_eq!((noticed.duplicates, noticed.resets.len()), (1, 0));
        }
    }
    assert_eq!(world.sequence.rest(), []);
}

#[test]
fn a_late_trade_that_is_younger_than_the_highest_id_is_no_new_count_when_it_is_repeated() {
    let mut world = World::new(IdRule::Consecutive, &[stored(10, 1)]);
    // The exchange named 12 long after 10; 12 comes late, and once more.
    assert_eq!(world.sequence.record_named(bitcoin(), 12, world.now, at(200)), Noticed::default());
    assert_eq!(world.sequence.record_named(bitcoin(), 12, world.now, at(201)), Noticed::default());
    let mut late = vec![tick(12, 199), tick(12, 199)];
    let noticed = world.admit(&mut late);
    assert_eq!((noticed.duplicates, noticed.resets.len()), (1, 0));
}

#[test]
fn recording_goes_on_where_the_store_ends() {
    let mut world = World::new(IdRule::Consecutive, &[stored(100, 1)]);
    // Kraken's snapshot overlaps what is stored; of OKX's first push the id jumps.
    assert_eq!(world.pass(95..=100, 1), [0; 0]);
    assert_eq!(world.pass([101], 2), [101]);
    let mut world = World::new(IdRule::Consecutive, &[stored(100, 1)]);
    assert_eq!(world.pass([100], 1), [0; 0]);
    assert_eq!(world.pass([105], 7), [105]);
    let missing = gap(Some((101, 104)), 1, 7, GapCause::NotRunning, 7);
    assert_eq!(world.wait(GRACE, 9), [missing]);
    world.pass([107], 8);
    assert_eq!(world.wait(GRACE, 9), [gap(Some((106, 106)), 7, 8, GapCause::Jumped, 8)]);
}

#[test]
fn what_another_recorder_may_still_hold_was_not_missed_by_a_recorder_that_did_not_run() {
    for rule in [IdRule::Consecutive, IdRule::Unique] {
        let last = LastStored { is_carried: true, ..stored(100, 1) };
        let mut world = World::new(rule, &[last]);
        let told = world.admit(&mut vec![tick(105, 7)]).gaps;
        let told = [told, world.wait(GRACE, 9)].concat();
        let causes: Vec<_> = told.iter().map(|gap| gap.cause).collect();
        assert_eq!(causes, [GapCause::NotStoredYet], "{rule:?}");
    }
}

#[test]
fn a_jump_over_the_time_without_a_connection_says_so() {
    let mut world = World::counting();
    world.subscribe();
    world.pass([1], 1);
    world.sequence.record_ended(true);
    world.subscribe();
    world.pass([3], 4);
    assert_eq!(world.wait(GRACE, 9), [gap(Some((2, 2)), 1, 4, GapCause::NoConnection, 4)]);
    // Of two connections one stands still: nobody was away.
    world.subscribe();
    world.sequence.record_ended(true);
    world.pass([5], 5);
    assert_eq!(world.wait(GRACE, 9), [gap(Some((4, 4)), 4, 5, GapCause::Jumped, 5)]);
}

#[test]
fn a_trade_that_the_exchange_named_twice_and_never_sent_is_missing() {
    let mut world = World::counting();
    let name = |world: &mut World, id, second| {
        let found = world.sequence.record_named(bitcoin(), id, world.now, at(second));
        assert_eq!(found, Noticed::default());
    };
    name(&mut world, 7, 1);
    assert_eq!(world.wait(GRACE, 2), [], "of a symbol that was never seen nothing is known");
    world.pass([10], 3);
    name(&mut world, 11, 4);
    assert_eq!(world.wait(GRACE * 2, 5), [], "it may come after the message that names it");
    world.pass([11], 5);
    name(&mut world, 13, 6);
    name(&mut world, 13, 7);
    assert_eq!(world.wait(GRACE / 2, 7), []);
    world.pass([12], 8);
    assert_eq!(world.wait(GRACE, 9), [gap(Some((13, 13)), 7, 7, GapCause::NamedLater, 7)]);
    assert_eq!(world.pass([14], 9), [14], "and the count goes on behind it");
    assert_eq!(world.wait(GRACE, 9), []);
}

#[test]
fn unordered_ids_are_known_again_as_far_as_they_are_remembered() {
    let limit = u64::try_from(RECENT_MAX).unwrap();
    let mut world = World::new(IdRule::Unique, &[]);
    let mut first: Vec<_> = (0..=limit).rev().map(|id| tick(id, 1)).collect();
    assert_eq!(world.admit(&mut first).duplicates, 0);
    let mut again = vec![tick(limit - 1, 1), tick(0, 1), tick(limit, 1)];
    // The very first was forgotten when the memory was full; the database knows it still.
    assert_eq!(world.admit(&mut again).duplicates, 2);
    assert_eq!(ids(&again), [limit]);
    let mut world = World::new(IdRule::Unique, &[stored(7_000_000, 1)]);
    assert_eq!(world.admit(&mut vec![tick(7_000_000, 1)]).duplicates, 1);
}

#[test]
fn where_ids_prove_nothing_the_time_without_a_connection_is_a_gap() {
    let mut world = World::new(IdRule::Unique, &[stored(1, 10)]);
    world.subscribe();
    // The first trade of the connection ends the gap, by the exchange's own clock.
    let told = world.admit(&mut vec![tick(2, 15), tick(3, 16)]).gaps;
    assert_eq!(told, [gap(None, 10, 15, GapCause::NotRunning, 15)]);
    world.sequence.record_ended(true);
    assert_eq!(world.wait(FIRST_TRADE_MAX, 30), [], "nobody is there yet");
    // Of a quiet symbol our clock ends it.
    world.subscribe();
    assert_eq!(world.wait(FIRST_TRADE_MAX - Duration::from_millis(1), 40), []);
    let told = world.wait(Duration::from_millis(1), 40);
    assert_eq!(told, [gap(None, 16, 40, GapCause::NoConnection, 40)]);
    assert_eq!(world.admit(&mut vec![tick(4, 50)]).gaps, []);
    assert_eq!(world.wait(FIRST_TRADE_MAX, 60), []);
}

#[test]
fn of_a_symbol_that_was_never_stored_no_time_is_missing() {
    let mut world = World::new(IdRule::Unique, &[]);
    world.sequence.record_ended(false);
    world.subscribe();
    assert_eq!(world.wait(FIRST_TRADE_MAX, 9), []);
    assert_eq!(world.admit(&mut vec![tick(1, 9)]).gaps, []);
}

#[test]
fn a_second_connection_that_is_heard_keeps_time_from_being_lost_and_a_silent_one_does_not() {
    let mut world = World::new(IdRule::Unique, &[]);
    world.subscribe();
    world.admit(&mut vec![tick(1, 1)]);
    world.subscribe();
    world.sequence.record_ended(true);
    assert_eq!(world.admit(&mut vec![tick(2, 2)]).gaps, []);
    // The one that stands brings nothing while the other comes back.
    world.now += HEARD_MAX;
    world.subscribe();
    let told = world.admit(&mut vec![tick(3, 9)]).gaps;
    assert_eq!(told, [gap(None, 2, 9, GapCause::NoConnection, 9)]);
}

#[test]
fn a_symbol_that_is_subscribed_anew_on_the_only_connection_was_away() {
    let mut world = World::new(IdRule::Unique, &[]);
    world.subscribe();
    world.admit(&mut vec![tick(1, 1)]);
    world.sequence.record_interrupted(bitcoin());
    assert_eq!(world.wait(FIRST_TRADE_MAX, 8), [], "not confirmed yet");
    world.sequence.record_confirmed(bitcoin(), world.now);
    let told = world.wait(FIRST_TRADE_MAX, 9);
    assert_eq!(told, [gap(None, 1, 9, GapCause::NoConnection, 9)]);
}

mod doubt;

proptest! {
    #[test]
    fn prop_what_passes_is_each_id_once_and_the_rest_is_told(
        frames in prop::collection::vec(prop::collection::vec(0_u64..60, 0..20), 0..20),
    ) {
        let mut world = World::counting();
        let (mut passed, mut came, mut duplicates) = (Vec::new(), 0, 0);
        let all: Vec<u64> = frames.iter().flatten().copied().collect();
        for frame in frames {
            let mut ticks: Vec<_> = frame.iter().map(|id| tick(*id, 1)).collect();
            came += ticks.len();
            duplicates += world.admit(&mut ticks).duplicates;
            passed.extend(ids(&ticks));
        }
        prop_assert_eq!(passed.len() + duplicates, came);
        let first = passed.first().copied().unwrap_or_default();
        let unique: BTreeSet<_> = passed.iter().copied().collect();
        prop_assert_eq!(unique.len(), passed.len(), "each once");
        let expected: BTreeSet<_> = all.into_iter().filter(|id| *id >= first).collect();
        prop_assert_eq!(&unique, &expected, "everything from the first on");
        let told: BTreeSet<u64> =
            world.sequence.rest().iter().filter_map(|gap| gap.ids).flat_map(|ids| ids.first()..=ids.last()).collect();
        let last = unique.last().copied().unwrap_or_default();
        let missing: BTreeSet<u64> = (first..=last).filter(|id| !unique.contains(id)).collect();
        // Many are told as one.
        let is_exact = told == missing || missing.len() > LISTED_MAX && told.is_superset(&missing);
        prop_assert!(unique.is_empty() || is_exact, "{:?} is told, {:?} is missing", told, missing);
    }
}
