//! Runs that follow each other, overlap, are killed or stand still, with clocks that are set.

use proptest::prelude::*;

use super::*;
use crate::domain::Symbol;
use crate::simulator::{Market, MarketOptions};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_rfc3339("2026-11-28T01:00:00Z").unwrap().plus_micros(seconds * 1_000_000)
}

/// Closed until a start at this second.
fn closed(from: i64, to: i64) -> Closure {
    Closure { from: at(from), to: at(to).plus_micros(OPENS_AFTER_MICROS) }
}

fn market(closures: &[Closure]) -> Market {
    let closures = closures.to_vec();
    Market::new(&MarketOptions { closures, ..MarketOptions::default() }).unwrap()
}

fn opened(folder: &Path, recorder: &str, seconds: i64) -> (MarketHours, Vec<Closure>) {
    MarketHours::open(folder, recorder, at(seconds)).unwrap()
}

#[test]
fn a_market_is_closed_from_the_end_of_a_run_to_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let (first, closures) = opened(folder.path(), "first", 0);
    assert_eq!(closures, []);
    first.renew(at(2)).unwrap();
    first.close(at(3)).unwrap();
    drop(first);
    let (second, closures) = opened(folder.path(), "second", 100);
    assert_eq!(closures, [closed(3, 100)]);
    // Killed: what was open is traded, up to the end of what it had announced.
    second.renew(at(110)).unwrap();
    drop(second);
    let (_third, closures) = opened(folder.path(), "third", 200);
    assert_eq!(closures, [closed(3, 100), closed(115, 200)]);
}

#[test]
fn runs_that_stop_before_the_market_opens_leave_one_closure_that_lasts_longer() {
    let folder = tempfile::tempdir().unwrap();
    for (start, expected) in [
        (0, vec![]),
        (100, vec![closed(1, 100)]),
        (102, vec![closed(1, 102)]),
        (200, vec![closed(1, 200)]),
        (300, vec![closed(1, 300)]),
    ] {
        let (run, closures) = opened(folder.path(), &format!("run-{start}"), start);
        assert_eq!(closures, expected, "{start}");
        market(&closures);
        run.close(at(start + 1)).unwrap();
    }
}

#[test]
fn hours_that_an_older_version_left_are_healed() {
    let folder = tempfile::tempdir().unwrap();
    let line = |Closure { from, to }: Closure| format!("closed {from} {to}\n");
    let text = [line(closed(1, 100)), line(closed(101, 200)), line(closed(300, 400))].concat();
    std::fs::write(folder.path().join(FILE), text).unwrap();
    let (_clock, closures) = MarketHours::read(folder.path()).unwrap().unwrap();
    assert_eq!(closures, [closed(1, 200), closed(300, 400)]);
    market(&closures);
}

#[test]
fn a_market_stays_open_while_any_recorder_keeps_it_so() {
    let folder = tempfile::tempdir().unwrap();
    let (first, _) = opened(folder.path(), "first", 0);
    let (second, closures) = opened(folder.path(), "second", 1);
    assert_eq!(closures, []);
    second.close(at(2)).unwrap();
    drop(second);
    first.renew(at(4)).unwrap();
    drop(first);
    // A start right after a kill finds it open still.
    let (third, closures) = opened(folder.path(), "third", 8);
    assert_eq!(closures, []);
    drop(third);
    assert_eq!(opened(folder.path(), "fourth", 30).1, [closed(13, 30)]);
}

#[test]
fn a_recorder_that_stands_still_keeps_the_market_open_and_goes_on_with_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (stalled, _) = opened(folder.path(), "stalled", 0);
    // All that it had announced is over.
    let (second, closures) = opened(folder.path(), "second", 60);
    assert_eq!(closures, []);
    stalled.renew(at(61)).unwrap();
    let (_clock, closures) = MarketHours::read(folder.path()).unwrap().unwrap();
    assert_eq!(closures, []);
    drop((stalled, second));
    assert_eq!(opened(folder.path(), "third", 100).1, [closed(66, 100)]);
}

#[test]
fn the_clock_never_passes_what_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let past = Timestamp::now().plus_micros(-60_000_000);
    let (hours, _) = MarketHours::open(folder.path(), "first", past).unwrap();
    let clock = hours.clock();
    let until = past.plus_micros(AHEAD_MICROS);
    assert_eq!(clock.now(), until);
    let kept = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
    assert_eq!(kept, format!("open first {until}\n"));
    hours.renew(Timestamp::now()).unwrap();
    assert!(clock.now() > until);
}

#[test]
fn times_are_in_whole_milliseconds_and_never_before_the_last_trade() {
    let mut hours = Hours::default();
    hours.keep("first", at(0).plus_micros(1), at(0));
    hours.close_until(at(5).plus_micros(999));
    let from = at(0).plus_micros(1_000);
    let to = at(5).plus_micros(1_000 + OPENS_AFTER_MICROS);
    assert_eq!(hours.closures, [Closure { from, to }]);
    assert_eq!(Hours::parse(&hours.write()), Some(hours));
}

#[test]
fn what_is_damaged_is_refused_with_what_to_do() {
    for text in ["closed yesterday\n", "closed 2026-11-28T01:00:00Z 2026-11-28T01:00:00Z\n"] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), text).unwrap();
        let error = MarketHours::open(folder.path(), "first", at(0)).unwrap_err();
        assert!(error.to_string().contains("db remove --simulated"), "{error}");
    }
}

#[test]
fn a_clock_that_was_ahead_is_said_and_no_trade_that_may_be_stored_gets_another_time() {
    let folder = tempfile::tempdir().unwrap();
    let (ahead, _) = opened(folder.path(), "ahead", 3_600);
    ahead.close(at(3_700)).unwrap();
    drop(ahead);
    let kept = || Hours::read(File::open(folder.path().join(FILE)).unwrap()).unwrap();
    assert_eq!(kept().ahead_of(at(0)), Some(at(3_700)));
    for start in [0, 100] {
        let (run, closures) = opened(folder.path(), &format!("run-{start}"), start);
        assert_eq!(closures, [], "trades up to 3700 may be stored");
        run.close(at(start + 10)).unwrap();
    }
    // Once the clock gets there closures go on.
    let (_run, closures) = opened(folder.path(), "later", 4_000);
    assert_eq!(closures, [closed(3_700, 4_000)]);
    assert_eq!(kept().ahead_of(at(4_000)), None);
}

#[test]
fn a_clock_that_is_set_back_beneath_a_recorder_does_not_hide_what_it_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let (run, _) = opened(folder.path(), "first", 1_000);
    run.renew(at(1_010)).unwrap();
    run.renew(at(10)).unwrap();
    run.close(at(12)).unwrap();
    drop(run);
    assert_eq!(opened(folder.path(), "second", 2_000).1, [closed(1_010, 2_000)]);
}

#[test]
fn a_start_with_a_clock_that_was_never_set_closes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let unset = Timestamp::from_micros(60_000_000).unwrap();
    drop(MarketHours::open(folder.path(), "unset", unset).unwrap());
    let (_run, closures) = opened(folder.path(), "second", 0);
    assert_eq!(closures, []);
}

#[test]
fn a_start_beyond_the_files_bound_is_refused_with_the_reason_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let mut hours = Hours::default();
    hours.keep("last", at(0), at(0));
    let runs = |hours: &mut Hours, runs: std::ops::Range<i64>| {
        hours.closures.extend(runs.map(|run| closed(run * 10 - 1_000_000, run * 10 - 999_999)));
    };
    runs(&mut hours, 0..1);
    let line = hours.write().lines().next().unwrap().len() + 1;
    let fits = i64::try_from(usize::try_from(BYTES_MAX - BYTES_FREE).unwrap() / line).unwrap();
    // One line for the closure that the start adds, one for the recorder.
    runs(&mut hours, 1..fits - 2);
    std::fs::write(&path, hours.write()).unwrap();
    let (run, closures) = opened(folder.path(), "first", 100);
    assert_eq!(i64::try_from(closures.len()).unwrap(), fits - 1);
    run.close(at(101)).unwrap();
    drop(run);

    runs(&mut hours, fits..fits + 2);
    hours.closures.sort_unstable_by_key(|closure| closure.from);
    std::fs::write(&path, hours.write()).unwrap();
    let error = MarketHours::open(folder.path(), "second", at(200)).unwrap_err();
    assert!(error.to_string().contains("db remove --simulated"), "{error}");
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.starts_with("it is full: 4 MiB"), "{why}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), hours.write());

    // Longer than it is ever written: not cut, and not called damaged.
    runs(&mut hours, fits + 2..fits + 2_000);
    std::fs::write(&path, hours.write()).unwrap();
    let error = MarketHours::read(folder.path()).unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.starts_with("it is full"), "{why}");
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Start,
    Renew,
    Stop,
    Kill,
}

fn events() -> impl Strategy<Value = Vec<(Event, i64)>> {
    let event = prop_oneof![
        2 => Just(Event::Start), 2 => Just(Event::Renew), 1 => Just(Event::Stop), 1 => Just(Event::Kill),
    ];
    // Most often the clock goes on a little; at times it is set.
    let step = prop_oneof![6 => 0_i64..9_000, 1 => 0_i64..900_000, 1 => -400_000_i64..0];
    proptest::collection::vec((event, step), 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever starts, stops and clocks do: the market is possible, and what was traded keeps its time.
    #[test]
    fn no_order_of_runs_and_clocks_breaks_the_market_or_moves_what_was_traded(events in events()) {
        let folder = tempfile::tempdir().unwrap();
        let symbol: Symbol = "BTC-USDT".parse().unwrap();
        let (mut now, mut running) = (at(0), Vec::new());
        // The newest trade that anybody was shown.
        let mut newest: Option<(u64, Timestamp)> = None;
        for (run, (event, step)) in events.into_iter().enumerate() {
            now = now.plus_micros(step * 1_000);
            let (_, closures) = MarketHours::read(folder.path()).unwrap().unwrap_or_default();
            let before = market(&closures);
            let traded = running.iter().map(|it: &MarketHours| shown(&it.open_until, &it.traded_until, now)).max();
            let traded = traded.and_then(|traded| before.latest("okx", &symbol, traded));
            if let Some(id) = traded.filter(|id| newest.is_none_or(|(newest, _)| *id > newest)) {
                newest = Some((id, before.trade("okx", &symbol, id).unwrap().at));
            }
            match event {
                Event::Start => {
                    running.push(MarketHours::open(folder.path(), &format!("{run}"), now).unwrap().0);
                }
                Event::Renew => running.iter().for_each(|it| it.renew(now).unwrap()),
                Event::Stop => running.pop().iter().for_each(|it| it.close(now).unwrap()),
                Event::Kill => drop(running.pop()),
            }
            if let Some((_, closures)) = MarketHours::read(folder.path()).unwrap()
                && let Some((id, time)) = newest
            {
                let trade = market(&closures).trade("okx", &symbol, id).unwrap();
                prop_assert_eq!(trade.at, time);
            }
        }
        let (_, closures) = MarketHours::read(folder.path()).unwrap().unwrap_or_default();
        market(&closures);
    }
}
