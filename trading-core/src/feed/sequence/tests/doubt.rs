//! One wrong id, stamp or heartbeat moves nothing for long, and costs no trade.

use super::*;

#[test]
fn one_bogus_id_moves_nothing_and_leaves_no_gap() {
    for bogus in [u64::MAX, 1 << 63, 1_000_000_000_000_000, 1_011 + 1_001, 100_000] {
        let mut world = World::counting();
        world.pass(1_000..=1_010, 1);
        let mut ticks = vec![tick(bogus, 1)];
        let noticed = world.admit(&mut ticks);
        assert_eq!(ids(&ticks), [bogus], "the trade itself is kept");
        assert_eq!(noticed.ahead, [(bitcoin(), 1_010, bogus)]);
        assert_eq!(world.pass([bogus], 1), [0; 0], "once");
        assert_eq!(world.pass(1_011..=1_030, 2), (1_011..=1_030).collect::<Vec<_>>());
        assert_eq!(world.wait(UNFOLLOWED_MAX * 2, 99), []);
        assert_eq!(world.sequence.rest(), []);
        assert_eq!(world.pass([1_020, 1_031], 2), [1_031]);
    }
}

#[test]
fn a_bogus_id_that_nothing_follows_for_long_is_a_gap_until_the_old_count_goes_on() {
    let mut world = World::counting();
    world.pass([10], 1);
    world.pass([5_000_000], 2);
    let told = gap(Some((11, 4_999_999)), 1, 2, GapCause::Jumped, 2);
    assert_eq!(world.wait(UNFOLLOWED_MAX, 40), [told]);
    assert_eq!(world.wait(UNFOLLOWED_MAX, 80), [], "once");
    let mut ticks: Vec<_> = (11..=13).map(|id| tick(id, 90)).collect();
    let noticed = world.admit(&mut ticks);
    assert_eq!(noticed.retracted, [(bitcoin(), IdRange::between(11, 4_999_999))]);
    assert_eq!(world.sequence.rest(), []);
}

#[test]
fn a_count_that_goes_on_far_above_is_followed_after_a_few_trades_and_the_gap_is_told() {
    let mut world = World::counting();
    world.subscribe();
    world.pass([10], 1);
    world.sequence.record_ended(true);
    world.subscribe();
    let count = u64::try_from(JUMP_CONFIRMED).unwrap();
    let ahead = 50_000..50_000 + count;
    assert_eq!(world.pass(ahead.clone(), 60), ahead.collect::<Vec<_>>());
    let missing = gap(Some((11, 49_999)), 1, 60, GapCause::NoConnection, 60);
    assert_eq!(world.wait(GRACE, 61), [missing]);
    assert_eq!(world.pass([50_000], 60), [0; 0]);
    assert_eq!(world.pass([50_000 + count], 61), [50_000 + count]);
    // What comes late of it is taken still.
    assert_eq!(world.pass([49_999, 11], 60), [49_999, 11]);
    assert_eq!(world.wait(UNFOLLOWED_MAX, 99), []);
}

#[test]
fn a_run_of_bogus_ids_is_left_again_when_the_trades_go_on_below_it() {
    let mut world = World::counting();
    world.pass([10], 1);
    world.pass(u64::MAX - 5..=u64::MAX, 2);
    let told = world.wait(GRACE, 3);
    assert_eq!(told, [gap(Some((11, u64::MAX - 6)), 1, 2, GapCause::Jumped, 2)]);
    let mut ticks: Vec<_> = (11..=40).map(|id| tick(id, 4)).collect();
    let noticed = world.admit(&mut ticks);
    assert_eq!(ticks.len(), 30, "none of them is lost");
    assert_eq!(noticed.retracted, [(bitcoin(), IdRange::between(19, u64::MAX - 6))]);
    assert_eq!(world.pass([41, 43, 40], 5), [41, 43]);
    assert_eq!(world.wait(GRACE, 9), [gap(Some((42, 42)), 5, 5, GapCause::Jumped, 5)]);
}

#[test]
fn a_bogus_id_that_comes_first_of_all_is_left_too() {
    let mut world = World::counting();
    world.pass([u64::MAX], 1);
    let ten = (100..=110).map(|id| tick(id, 2)).collect::<Vec<_>>();
    let mut ticks = ten.clone();
    assert_eq!(world.admit(&mut ticks).resets, [bitcoin()]);
    assert_eq!(ticks, ten);
    assert_eq!(world.pass([110], 2), [0; 0]);
    assert_eq!(world.pass([112], 3), [112]);
}

#[test]
fn a_time_that_cannot_be_true_moves_nothing_and_the_trade_is_sent_on() {
    const DAY: i64 = 86_400;
    for rule in [IdRule::Consecutive, IdRule::Unique] {
        for wrong in [-2 * DAY, 2 * DAY] {
            let mut world = World::new(rule, &[]);
            world.pass([10], 10 * DAY);
            let far = Tick { received_at: at(10 * DAY), ..tick(11, 10 * DAY + wrong) };
            let mut ticks = vec![far];
            world.admit(&mut ticks);
            assert_eq!(ids(&ticks), [11], "{rule:?}");
            if rule == IdRule::Consecutive {
                // The true one is none of its repeats.
                assert_eq!(world.pass([11, 12, 10], 10 * DAY + 1), [11, 12]);
            }
            world.sequence.record_ended(true);
            world.subscribe();
            let gaps = world.admit(&mut vec![tick(13, 10 * DAY + 5)]).gaps;
            assert!(
                gaps.iter()
                    .all(|gap| gap.times.from >= at(10 * DAY) && gap.times.to <= at(10 * DAY + 5))
            );
        }
    }
}

#[test]
fn a_stamp_of_the_future_or_the_far_past_moves_no_gap() {
    for wrong in [90, 240, 36 * 3_600 - 86_400, -20 * 3_600] {
        for is_last in [false, true] {
            let mut world = World::new(IdRule::Unique, &[]);
            world.subscribe();
            let now = 1_000_000;
            for second in 0..30_i64 {
                world.admit(&mut vec![tick(second.unsigned_abs(), now + second)]);
            }
            let bogus = Tick { received_at: at(now + 30), ..tick(77, now + 30 + wrong) };
            world.admit(&mut vec![bogus]);
            if !is_last {
                world.admit(&mut vec![tick(78, now + 31)]);
            }
            world.sequence.record_ended(true);
            world.subscribe();
            // The first trade of the next connection may be stamped wrong as well.
            let next = Tick { received_at: at(now + 40), ..tick(79, now + 40 + wrong) };
            for next in [next, tick(80, now + 40)] {
                let mut again = World { sequence: world.sequence, now: world.now };
                let gaps = again.admit(&mut vec![next]).gaps;
                world.sequence = again.sequence;
                for gap in gaps {
                    let begins = at(now + 28)..=at(now + if is_last { 30 } else { 31 });
                    let ends = at(now + 39)..=at(now + 41);
                    assert!(
                        begins.contains(&gap.times.from) && ends.contains(&gap.times.to),
                        "{gap:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn ids_that_are_listed_as_missing_are_taken_after_a_start_and_not_told_again() {
    let last = LastStored {
        missing: vec![IdRange::between(90, 94), IdRange::between(200, 300)],
        ..stored(100, 1)
    };
    let mut world = World::new(IdRule::Consecutive, &[last]);
    assert_eq!(world.pass([92, 95, 92], 1), [92]);
    assert_eq!(world.wait(GRACE, 9), []);
    assert_eq!(world.sequence.rest(), []);
}

#[test]
fn a_symbol_that_brings_nothing_but_repeats_is_told() {
    let mut world = World::counting();
    world.pass([100], 1);
    for second in 0..10 {
        assert_eq!(world.admit(&mut vec![tick(100, 1)]).only_repeats, [], "{second}");
        world.now += Duration::from_secs(1);
    }
    assert_eq!(world.admit(&mut vec![tick(100, 1)]).only_repeats, [bitcoin()]);
    assert_eq!(world.admit(&mut vec![tick(100, 1)]).only_repeats, []);
}

#[test]
fn what_a_heartbeat_names_counts_when_the_next_ones_agree() {
    let mut world = World::counting();
    world.pass([129], 1);
    let named =
        |world: &mut World, id| world.sequence.record_named(bitcoin(), id, world.now, at(2));
    let beats = [129, 1_000_000_000_000_000, 129, 129, 0, 129, 700, 129, 129];
    for id in beats {
        assert_eq!(named(&mut world, id), Noticed::default());
        assert_eq!(world.wait(GRACE * 2, 3), []);
    }
    assert_eq!(world.pass([130, 131], 3), [130, 131]);
    // One that says so again and again is believed, and may take it back.
    let told: Vec<_> = (0..6)
        .flat_map(|_| {
            assert_eq!(named(&mut world, 1_000_000), Noticed::default());
            world.wait(GRACE, 4)
        })
        .collect();
    assert_eq!(told, [gap(Some((132, 1_000_000)), 3, 2, GapCause::NamedLater, 2)].map(swapped));
    assert_eq!(named(&mut world, 133), Noticed::default());
    assert_eq!(named(&mut world, 133).retracted, [(bitcoin(), IdRange::between(134, 1_000_000))]);
    assert_eq!(world.pass([132, 133, 134], 5), [132, 133, 134]);
    assert_eq!(world.sequence.rest(), []);
}

/// With the earlier time first.
fn swapped(gap: GapRecord) -> GapRecord {
    GapRecord { times: TimeRange::between(gap.times.from, gap.times.to), ..gap }
}

proptest! {
    /// Whatever is mixed in, each true trade is sent on at least once, the count ends where the exchange's does, and
    /// what is told and not taken back holds all that was lost, and no id that there never was.
    #[test]
    fn prop_no_bogus_id_or_stamp_costs_a_trade_or_leaves_a_gap(
        events in prop::collection::vec((0_u8..20, any::<u64>(), -100_000_i64..200_000), 0..200),
        start in 2_000_u64..1_000_000,
    ) {
        let mut world = World::counting();
        let (mut next, mut second) = (start, 1_000_000);
        let (mut told, mut taken_back) = (Vec::new(), Vec::new());
        let (mut lost, mut sent, mut passed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let trades = (0..40).map(|_| (0, 0, 0));
        let events: Vec<_> = trades.clone().chain(events).chain(trades).collect();
        for (kind, bogus, shift) in events {
            second += 1;
            world.now += Duration::from_secs(1);
            let mut ticks = match kind {
                // A bogus id, now or again.
                1 => vec![Tick { received_at: at(second), ..tick(bogus, second + shift % 3) }],
                // A wrong time.
                2 => { sent.insert(next); vec![Tick { received_at: at(second), ..tick(next, second + shift) }] }
                // A repeat.
                3 => vec![tick(next - 1, second - 1)],
                // Some are lost.
                4 => { lost.extend(next..next + bogus % 5); next += bogus % 5; sent.insert(next); vec![tick(next, second)] }
                _ => { sent.insert(next); vec![tick(next, second)] }
            };
            next += u64::from(!matches!(kind, 1 | 3));
            let noticed = world.admit(&mut ticks);
            passed.extend(ids(&ticks));
            told.extend(noticed.gaps);
            taken_back.extend(noticed.retracted.into_iter().map(|(_, ids)| ids));
            told.extend(world.sequence.due(world.now, at(second)));
        }
        told.extend(world.sequence.rest());
        prop_assert!(passed.is_superset(&sent), "lost {:?}", sent.difference(&passed));
        let mut ticks = vec![tick(next - 1, second), tick(next, second + 1)];
        world.admit(&mut ticks);
        prop_assert_eq!(ids(&ticks), [next]);
        let missing: Vec<IdRange> = told.iter().filter_map(|gap| gap.ids).collect();
        let is_told = |id: u64| missing.iter().any(|ids| ids.contains(id));
        let is_back = |id: u64| taken_back.iter().any(|ids: &IdRange| ids.contains(id));
        prop_assert!(lost.iter().all(|id| is_told(*id)), "{:?} of {:?}", missing, lost);
        for ids in &missing {
            prop_assert!(ids.last() < next || is_back(ids.last()), "{} stays, and {} is next", ids, next);
        }
    }
}

#[test]
fn a_heartbeat_that_names_what_was_seen_far_above_opens_no_gap_the_wrong_way_round() {
    let mut world = World::counting();
    world.pass([1_000], 1);
    // Not followed yet: more than a thousand ids further.
    world.pass([5_000], 2);
    for second in 3..=9 {
        let noticed = world.sequence.record_named(bitcoin(), 5_000, world.now, at(second));
        assert_eq!(noticed.retracted, []);
    }
    let told = world.wait(UNFOLLOWED_MAX * 2, 99);
    let ranges: Vec<_> = told.iter().filter_map(|gap| gap.ids).collect();
    assert_eq!(ranges, [IdRange::between(1_001, 4_999)]);
    assert_eq!(world.pass([5_000], 2), [0; 0]);
    assert_eq!(world.pass([5_001], 99), [5_001]);
}
