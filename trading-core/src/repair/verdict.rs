//! What came of a gap: pure, from what is stored, what was refused, and how far the exchange's history was read.
//!
//! Only what the history was read over, without a break, can be judged: an id between two that it showed, and which it
//! did not show, was never issued. That is believed at once of a few ids. Many of them may as well be an answer with a
//! hole, from a server that lags behind or has forgotten, and prove nothing until they were skipped in every reading for
//! an hour; and of a long run the exchange's word alone is never believed. Where the history begins too late or ends too
//! early it is asked again first: an exchange that answers for its past from a cache may know more a little later.

use std::time::Duration;

use super::ids::{IdSet, range};
use crate::domain::{TimeRange, Timestamp};
use crate::exchange::history::Reach;
use crate::store::postgres::{GapStatus, OpenGap, Part};

/// Attempts before an id that is older than all of the history is given up.
const OLDER_ATTEMPTS: u32 = 1;
/// Attempts, and time since the gap was found, before an id is given up that is newer than all of the history, or that
/// the history skips or dates in a way that is not believed.
const PATIENT_ATTEMPTS: u32 = 10;
/// See [`PATIENT_ATTEMPTS`].
const PATIENT_AGE: Duration = Duration::from_secs(3_600);
/// Attempts before a gap in time is taken for one in which nothing was traded, when the history shows no trade at all:
/// more than a minute after the first.
const NOTHING_ATTEMPTS: u32 = 4;
/// Ids in a row that are taken for never issued when one reading of the history skips them.
const SKIPPED_AT_ONCE: u64 = 20;
/// Of the ids that were read over, one in so many may be skipped for that; more are an answer with holes.
const SKIPPED_ONE_IN: u64 = 5;
/// Ids in a row that are taken for never issued at all: no exchange is known to skip more.
const SKIPPED_MAX: u64 = 1_000;
/// Parts that one gap is split into at once; what lies beyond stays open.
const PARTS_MAX: usize = 1_000;
/// Trades may be stamped in another order than they are counted in: so much more time is read again.
const DISORDER: i64 = 1_000_000;

const REFUSED: &str = "refused by the database: see rejected_ticks";
const FORGOTTEN: &str = "the exchange's history begins after it";
const NOT_ISSUED: &str = "the exchange's history skips it too";
const SKIPPED: &str = "the exchange's history skips it, and much else";
const SKIPPED_ALWAYS: &str =
    "the exchange's history skips more than is believed to have never been issued";
const MISDATED: &str = "the exchange's history dates it a day or more outside of the gap";
const NOT_TRADED: &str =
    "the exchange's history shows no trade of it at all, however often it is asked";
const CARRIED: &str = "another connection brought it";
/// The note of what was not given up because the clock was off.
pub(super) const HELD: &str = "held: this machine's clock is off, and nothing is given up by it";
const PERHAPS_CARRIED: &str = "it is not known yet whether another connection brought it";

/// What is known about the ids of a gap.
#[derive(Debug, Clone, Default)]
pub(super) struct Findings {
    /// The ids up to which the next two are known, the first of the gap included.
    pub(super) looked_at: u64,
    /// Neither stored nor refused.
    pub(super) absent: IdSet,
    /// Not stored, because the database refused them.
    pub(super) refused: IdSet,
    /// Shown by the history with a time that is not believed, and therefore not sent.
    pub(super) misdated: IdSet,
    /// What the history said; `None`: it was not asked.
    pub(super) reading: Option<Reading>,
}

/// How far the history was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// Without a break from here to there; `None`: it showed nothing.
    pub(super) reach: Option<Reach>,
    /// Whether it has no more of what was asked for; else the reading was stopped to note what was done.
    pub(super) is_complete: bool,
}

/// The parts of a gap of these ids, lowest first.
pub(super) fn of_ids(gap: &OpenGap, ids: (u64, u64), findings: &Findings) -> Vec<Part> {
    let mut judge = Judge { gap, left: range(ids.0, ids.1), parts: Vec::new() };
    judge.leave_unread(ids, findings);
    let reach = findings.reading.and_then(|reading| reading.reach);
    // A history that shows nothing at all may yet show everything.
    let (low, high) =
        reach.and_then(|reach| reach.ids).map_or((0, 0), |ids| (ids.first(), ids.last()));
    let older = findings.absent.without(&range(low, u64::MAX));
    let newer = findings.absent.without(&range(0, high));
    let notes = [
        format!("the exchange's history begins at id {low}"),
        reach.map_or_else(
            || "the exchange's history shows nothing of it".to_owned(),
            |_| format!("the exchange's history ends at id {high}"),
        ),
    ];
    let is_patient = gap.attempts >= PATIENT_ATTEMPTS && gap.age >= PATIENT_AGE;
    let are_spent = [gap.attempts >= OLDER_ATTEMPTS, is_patient];
    let beyond: Vec<_> = [older, newer].into_iter().zip(notes).zip(are_spent).collect();
    for ((ids, note), _) in beyond.iter().filter(|(_, is_spent)| !is_spent) {
        judge.leave_for_later(ids, note);
    }
    judge.close(&findings.refused, GapStatus::Unrecoverable, Some(REFUSED));
    for ((ids, note), _) in beyond.iter().filter(|(_, is_spent)| *is_spent) {
        judge.close(ids, GapStatus::Unrecoverable, Some(note));
    }
    judge.weigh(&findings.misdated, MISDATED, is_patient.then_some(MISDATED));
    let absent = findings.absent.without(&findings.absent.without(&judge.left));
    let (few, many, too_many) =
        weigh_skipped(&absent, range(ids.0.max(low), ids.1.min(high)).len());
    judge.close(&few, GapStatus::NotALoss, Some(NOT_ISSUED));
    if is_patient {
        judge.close(&many, GapStatus::NotALoss, Some(NOT_ISSUED));
    } else {
        judge.leave_for_later(&many, SKIPPED);
    }
    judge.weigh(&too_many, SKIPPED, is_patient.then_some(SKIPPED_ALWAYS));
    let stored = judge.left.clone();
    judge.close(&stored, GapStatus::Repaired, None);
    judge.into_parts(ids.1)
}

/// Sorts the ids that a reading of so many ids skipped: those that are taken for never issued at once, those that are
/// only when every reading skips them, and those that never are.
fn weigh_skipped(skipped: &IdSet, read: u64) -> (IdSet, IdSet, IdSet) {
    let length = |(first, last): &(u64, u64)| last - first + 1;
    let are_many = skipped.len() > (read / SKIPPED_ONE_IN).max(SKIPPED_AT_ONCE);
    let few = |run: &(u64, u64)| !are_many && length(run) <= SKIPPED_AT_ONCE;
    (
        skipped.runs().filter(few).collect(),
        skipped.runs().filter(|run| !few(run) && length(run) <= SKIPPED_MAX).collect(),
        skipped.runs().filter(|run| length(run) > SKIPPED_MAX).collect(),
    )
}

/// Hands out the ids of a gap, each once.
struct Judge<'a> {
    gap: &'a OpenGap,
    left: IdSet,
    parts: Vec<Part>,
}

impl Judge<'_> {
    /// Of these ids, those that are left become parts.
    fn take(&mut self, ids: &IdSet, part: &Part) {
        let rest = self.left.without(ids);
        let runs = self.left.without(&rest);
        self.parts.extend(runs.runs().map(|run| Part { ids: Some(run), ..part.clone() }));
        self.left = rest;
    }

    fn part(&self, status: GapStatus, note: Option<&str>) -> Part {
        let OpenGap { times, attempts, .. } = *self.gap;
        Part { ids: None, times, status, note: note.map(str::to_owned), attempts }
    }

    fn close(&mut self, ids: &IdSet, status: GapStatus, note: Option<&str>) {
        self.take(ids, &self.part(status, note));
    }

    /// Gives ids up, for this reason, or asks for them once more later.
    fn weigh(&mut self, ids: &IdSet, note: &str, given_up: Option<&str>) {
        match given_up {
            Some(reason) => self.close(ids, GapStatus::Unrecoverable, Some(reason)),
            None => self.leave_for_later(ids, note),
        }
    }

    /// To be asked for once more later: as one part from end to end.
    fn leave_for_later(&mut self, ids: &IdSet, note: &str) {
        if let Some(bounds) = ids.bounds() {
            let mut part = self.part(GapStatus::Open, Some(note));
            part.attempts += 1;
            self.take(&range(bounds.0, bounds.1), &part);
        }
    }

    /// To be read at once: what was not looked at, and what lies beyond the reach of a reading that was stopped.
    fn leave_unread(&mut self, (first, last): (u64, u64), findings: &Findings) {
        let mut part = Part { attempts: 0, ..self.part(GapStatus::Open, None) };
        let (from, to) = self.gap.times;
        let stopped = findings.reading.filter(|reading| !reading.is_complete);
        let reach = stopped.and_then(|reading| reading.reach);
        let mut looked_at = findings.looked_at;
        let mut rest_from = from;
        if let Some(Reach { ids: Some(read), times: TimeRange { from: oldest, to: newest } }) =
            reach
        {
            let (low, high) = (read.first(), read.last());
            part.times = (from, oldest.plus_micros(DISORDER).min(to));
            self.take(&range(first, low.saturating_sub(1)), &part);
            if high < looked_at {
                (looked_at, rest_from) = (high, newest.plus_micros(-DISORDER).max(from));
            }
        }
        part.times = (rest_from, to);
        self.take(&range(looked_at.saturating_add(1), last), &part);
    }

    /// In order; not more than one transaction bears, what is beyond stays open.
    fn into_parts(mut self, last: u64) -> Vec<Part> {
        self.parts.sort_unstable_by_key(|part| part.ids);
        if self.parts.len() <= PARTS_MAX {
            return self.parts;
        }
        // Cut after ids that are stored: the history shows them too, and the next reading begins with them.
        let head = self.parts.get(..PARTS_MAX).unwrap_or_default();
        let cut = head.iter().rposition(|part| part.status == GapStatus::Repaired);
        self.parts.truncate(cut.map_or(PARTS_MAX, |at| at + 1));
        if let Some((_, end)) = self.parts.last().and_then(|part| part.ids) {
            let ids = Some((end + 1, last));
            self.parts.push(Part { ids, attempts: 0, ..self.part(GapStatus::Open, None) });
        }
        self.parts
    }
}

/// The one part of a gap in time of which the history, which begins with the newest trade whatever its age, shows no
/// trade again and again: none was made. `None`: it has to be asked again first.
pub(super) fn of_nothing(gap: &OpenGap) -> Option<Vec<Part>> {
    (gap.attempts >= NOTHING_ATTEMPTS).then(|| {
        let OpenGap { times, attempts, .. } = *gap;
        let (status, note) = (GapStatus::NotALoss, Some(NOT_TRADED.to_owned()));
        vec![Part { ids: None, times, status, note, attempts }]
    })
}

/// The parts of a gap in time, oldest first. Given are the stretches of history that were read, oldest first, and
/// whether the exchange has no more.
///
/// Of the first instant of a stretch not everything may have been read: the history can be cut between two trades of the
/// same instant.
pub(super) fn of_time(
    gap: &OpenGap,
    read: &[(Timestamp, Timestamp)],
    is_complete: bool,
) -> Vec<Part> {
    let (from, to) = gap.times;
    let part = |times, is_read: bool| {
        let (status, note, attempts) = match (is_read, is_complete) {
            (true, _) => (GapStatus::Repaired, None, gap.attempts),
            (false, true) => (GapStatus::Unrecoverable, Some(FORGOTTEN), gap.attempts),
            (false, false) => (GapStatus::Open, None, 0),
        };
        Part { ids: None, times, status, note: note.map(str::to_owned), attempts }
    };
    let mut parts: Vec<Part> = Vec::new();
    let mut at = from;
    for (oldest, newest) in read.iter().copied().filter(|(oldest, _)| *oldest < to) {
        if newest <= at {
            continue;
        }
        let newest = newest.min(to);
        match parts.last_mut() {
            Some(before) if oldest < at => before.times.1 = newest,
            _ if oldest < at => parts.push(part((at, newest), true)),
            _ => parts.extend([part((at, oldest), false), part((oldest, newest), true)]),
        }
        at = newest;
    }
    if parts.is_empty() || at < to {
        let is_read = read.iter().any(|(oldest, newest)| *oldest < at && to <= *newest);
        parts.push(part((at, to), is_read));
    }
    parts
}

/// What the history no longer has of a gap in time was brought by another connection.
pub(super) fn carry(part: &mut Part) {
    part.status = GapStatus::Repaired;
    part.note = Some(CARRIED.to_owned());
}

/// What the history no longer has may have been brought by another connection: it is looked for again later.
pub(super) fn await_carrier(part: &mut Part) {
    part.status = GapStatus::Open;
    part.note = Some(PERHAPS_CARRIED.to_owned());
    part.attempts += 1;
}

/// Gives nothing up while this machine's clock is off: it is judged anew when that is right.
pub(super) fn hold(parts: &mut [Part]) {
    let is_final = |status| matches!(status, GapStatus::Unrecoverable | GapStatus::NotALoss);
    for part in parts.iter_mut().filter(|part| is_final(part.status)) {
        part.status = GapStatus::Open;
        part.note = Some(HELD.to_owned());
        part.attempts += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::{IdRange, Instrument};

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + millis).unwrap()
    }

    fn gap(attempts: u32, age: Duration) -> OpenGap {
        OpenGap {
            id: 1,
            instrument: Instrument::intern("kraken", &"BTCUSD".parse().unwrap()).unwrap(),
            ids: None,
            times: (at(0), at(1_000)),
            attempts,
            age,
        }
    }

    fn reach(low: u64, high: u64) -> Reach {
        Reach { ids: IdRange::new(low, high), times: TimeRange::new(at(0), at(1_000)) }
    }

    /// The gap 10 to 19, of which these are absent, after this reading of the history.
    fn judged(
        absent: &[(u64, u64)],
        attempts: u32,
        reach: Option<Reach>,
        is_complete: bool,
    ) -> Vec<(u64, u64, GapStatus, u32)> {
        let findings = Findings {
            looked_at: 19,
            absent: absent.iter().copied().collect(),
            reading: Some(super::Reading { reach, is_complete }),
            ..Findings::default()
        };
        let told = |part: Part| {
            let (first, last) = part.ids.unwrap();
            (first, last, part.status, part.attempts)
        };
        let gap = gap(attempts, PATIENT_AGE);
        of_ids(&gap, (10, 19), &findings).into_iter().map(told).collect()
    }

    use GapStatus::{NotALoss, Open, Repaired, Unrecoverable};

    #[test]
    fn what_is_stored_now_is_repaired_and_what_the_history_skips_is_no_loss() {
        assert_eq!(judged(&[], 0, Some(reach(9, 20)), true), [(10, 19, Repaired, 0)]);
        assert_eq!(
            judged(&[(12, 13), (19, 19)], 0, Some(reach(9, 20)), true),
            [
                (10, 11, Repaired, 0),
                (12, 13, NotALoss, 0),
                (14, 18, Repaired, 0),
                (19, 19, NotALoss, 0)
            ]
        );
    }

    #[test]
    fn what_the_history_no_longer_has_is_given_up_when_it_was_asked_twice() {
        let begins_late = Some(reach(15, 20));
        let parts = |attempts| judged(&[(10, 14)], attempts, begins_late, true);
        assert_eq!(parts(0), [(10, 14, Open, 1), (15, 19, Repaired, 0)]);
        assert_eq!(parts(1), [(10, 14, Unrecoverable, 1), (15, 19, Repaired, 1)]);
    }

    #[test]
    fn a_history_that_lags_is_asked_for_an_hour() {
        let lags = Some(reach(9, 15));
        let parts = |attempts| judged(&[(16, 19)], attempts, lags, true);
        assert_eq!(parts(0), [(10, 15, Repaired, 0), (16, 19, Open, 1)]);
        assert_eq!(parts(9), [(10, 15, Repaired, 9), (16, 19, Open, 10)]);
        assert_eq!(parts(10), [(10, 15, Repaired, 10), (16, 19, Unrecoverable, 10)]);
        assert_eq!(judged(&[(10, 19)], 0, None, true), [(10, 19, Open, 1)], "nothing is shown");
        assert_eq!(judged(&[(10, 19)], 10, None, true), [(10, 19, Unrecoverable, 10)]);
    }

    #[test]
    fn a_reading_that_was_stopped_leaves_the_rest_for_the_next_at_once() {
        let upwards = judged(&[(16, 19)], 3, Some(reach(9, 15)), false);
        assert_eq!(upwards, [(10, 15, Repaired, 3), (16, 19, Open, 0)]);
        let downwards = judged(&[(10, 13)], 3, Some(reach(15, 21)), false);
        assert_eq!(downwards, [(10, 14, Open, 0), (15, 19, Repaired, 3)]);
    }

    #[test]
    fn nothing_is_given_up_while_the_clock_is_off() {
        let findings = Findings {
            looked_at: 19,
            absent: range(12, 13),
            refused: range(15, 15),
            reading: Some(super::Reading { reach: Some(reach(9, 20)), is_complete: true }),
            ..Findings::default()
        };
        let mut parts = of_ids(&gap(3, PATIENT_AGE), (10, 19), &findings);
        let statuses = |parts: &[Part]| parts.iter().map(|part| part.status).collect::<Vec<_>>();
        assert_eq!(statuses(&parts), [Repaired, NotALoss, Repaired, Unrecoverable, Repaired]);
        hold(&mut parts);
        assert_eq!(statuses(&parts), [Repaired, Open, Repaired, Open, Repaired]);
        assert_eq!((parts[1].note.as_deref(), parts[1].attempts), (Some(HELD), 4));
        assert_eq!((parts[0].note.as_deref(), parts[0].attempts), (None, 3));
    }

    #[test]
    fn what_was_not_looked_at_and_what_was_refused_is_told_apart() {
        let findings = Findings { looked_at: 15, refused: range(11, 12), ..Findings::default() };
        let parts = of_ids(&gap(0, Duration::ZERO), (10, 19), &findings);
        let told: Vec<_> = parts
            .iter()
            .map(|part| (part.ids.unwrap(), part.status, part.note.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                ((10, 10), Repaired, None),
                ((11, 12), Unrecoverable, Some(REFUSED)),
                ((13, 15), Repaired, None),
                ((16, 19), Open, None)
            ]
        );
    }

    /// Of the gap 1 to 100,000, all but these ends are skipped by a reading that went over all of it.
    fn skipped(ends: u64, attempts: u32) -> Vec<(u64, u64, GapStatus, Option<String>)> {
        let findings = Findings {
            looked_at: 100_000,
            absent: range(1 + ends, 100_000 - ends),
            reading: Some(super::Reading { reach: Some(reach(0, 100_001)), is_complete: true }),
            ..Findings::default()
        };
        let gap = gap(attempts, PATIENT_AGE);
        let parts = of_ids(&gap, (1, 100_000), &findings).into_iter();
        parts
            .map(|part| (part.ids.unwrap().0, part.ids.unwrap().1, part.status, part.note))
            .collect()
    }

    #[test]
    fn a_history_that_skips_much_proves_nothing_by_itself() {
        let note = |text: &str| Some(text.to_owned());
        let once = skipped(100, 0);
        assert_eq!(once[1], (101, 99_900, Open, note(SKIPPED)));
        assert_eq!((once[0].2, once[2].2), (Repaired, Repaired));
        let for_an_hour = skipped(100, PATIENT_ATTEMPTS);
        assert_eq!(for_an_hour[1], (101, 99_900, Unrecoverable, note(SKIPPED_ALWAYS)));
        // A run that may have never been issued is believed after an hour, a short one at once.
        let at_most = skipped((100_000 - SKIPPED_MAX) / 2, PATIENT_ATTEMPTS);
        assert_eq!((at_most[1].2, at_most[1].3.clone()), (NotALoss, note(NOT_ISSUED)));
        assert_eq!(skipped((100_000 - SKIPPED_MAX) / 2, 0)[1].2, Open);
        assert_eq!(skipped((100_000 - SKIPPED_AT_ONCE) / 2, 0)[1].2, NotALoss);
    }

    #[test]
    fn a_history_with_holes_everywhere_proves_nothing_by_itself() {
        let every_second = Findings {
            looked_at: 99,
            absent: (0..50).map(|n| (2 * n, 2 * n)).collect(),
            reading: Some(super::Reading { reach: Some(reach(0, 100)), is_complete: true }),
            ..Findings::default()
        };
        let statuses = |attempts| -> Vec<GapStatus> {
            let parts = of_ids(&gap(attempts, PATIENT_AGE), (0, 99), &every_second);
            parts.into_iter().map(|part| part.status).collect()
        };
        assert_eq!(statuses(0), [Open, Repaired]);
        assert_eq!(statuses(PATIENT_ATTEMPTS)[..4], [NotALoss, Repaired, NotALoss, Repaired]);
    }

    #[test]
    fn a_trade_that_the_history_dates_elsewhere_is_not_believed_and_not_forgotten() {
        let findings = Findings {
            looked_at: 19,
            absent: range(12, 13),
            misdated: range(12, 12),
            reading: Some(super::Reading { reach: Some(reach(9, 20)), is_complete: true }),
            ..Findings::default()
        };
        let of = |attempts| -> Vec<(u64, GapStatus)> {
            let parts = of_ids(&gap(attempts, PATIENT_AGE), (12, 13), &findings);
            parts.into_iter().map(|part| (part.ids.unwrap().0, part.status)).collect()
        };
        assert_eq!(of(0), [(12, Open), (13, NotALoss)]);
        assert_eq!(of(PATIENT_ATTEMPTS), [(12, Unrecoverable), (13, NotALoss)]);
    }

    #[test]
    fn more_parts_than_a_transaction_bears_are_left_open_after_a_stored_id() {
        let findings = Findings {
            looked_at: 9_999,
            absent: (0..1_666).map(|n| (6 * n, 6 * n)).collect(),
            reading: Some(super::Reading { reach: Some(reach(0, 10_000)), is_complete: true }),
            ..Findings::default()
        };
        let parts = of_ids(&gap(0, Duration::ZERO), (0, 9_999), &findings);
        assert_eq!(parts.len(), PARTS_MAX + 1);
        let [.., before, rest] = parts.as_slice() else { panic!("no parts") };
        assert_eq!((before.status, rest.status), (Repaired, Open));
        assert_eq!(rest.ids, Some((before.ids.unwrap().1 + 1, 9_999)));
    }

    #[test]
    fn a_history_that_shows_no_trade_at_all_is_believed_when_it_says_so_again_and_again() {
        assert_eq!(of_nothing(&gap(NOTHING_ATTEMPTS - 1, PATIENT_AGE)), None);
        let parts = of_nothing(&gap(NOTHING_ATTEMPTS, Duration::ZERO)).unwrap();
        let [part] = parts.as_slice() else { panic!("one part") };
        assert_eq!((part.status, part.times), (NotALoss, gap(0, Duration::ZERO).times));
    }

    #[test]
    fn of_a_gap_in_time_the_part_that_was_read_is_repaired() {
        let parts = |read: &[(i64, i64)], is_complete| -> Vec<_> {
            let read: Vec<_> = read.iter().map(|(from, to)| (at(*from), at(*to))).collect();
            let millis = |time: Timestamp| time.as_millis() - at(0).as_millis();
            let told = |part: Part| (millis(part.times.0), millis(part.times.1), part.status);
            of_time(&gap(0, Duration::ZERO), &read, is_complete).into_iter().map(told).collect()
        };
        assert_eq!(parts(&[(-5, 1_000)], true), [(0, 1_000, Repaired)]);
        assert_eq!(parts(&[(-5, 2_000)], true), [(0, 1_000, Repaired)]);
        assert_eq!(parts(&[(300, 1_200)], true), [(0, 300, Unrecoverable), (300, 1_000, Repaired)]);
        assert_eq!(parts(&[(0, 1_000)], true)[0], (0, 0, Unrecoverable), "of the first instant");
        assert_eq!(parts(&[(2_000, 3_000)], true), [(0, 1_000, Unrecoverable)]);
        assert_eq!(parts(&[(-9, -5)], true), [(0, 1_000, Unrecoverable)]);
        assert_eq!(parts(&[(-5, 400), (300, 1_000)], true), [(0, 1_000, Repaired)]);
        assert_eq!(
            parts(&[(-5, 400), (600, 1_000)], true),
            [(0, 400, Repaired), (400, 600, Unrecoverable), (600, 1_000, Repaired)]
        );
        assert_eq!(parts(&[(-5, 400)], false), [(0, 400, Repaired), (400, 1_000, Open)]);
    }

    proptest! {
        /// Whatever was found, each id is in one part, and none is called stored or never issued without proof.
        #[test]
        fn prop_the_parts_cover_the_gap_and_say_no_more_than_is_known(
            absent in prop::collection::vec((100_u64..140, 0_u64..4), 0..8),
            refused in prop::collection::vec((100_u64..140, 0_u64..2), 0..4),
            ends in prop::option::of((90_u64..150, 0_u64..60)),
            is_complete: bool,
            attempts in 0_u32..12,
            looked_at in 100_u64..140,
        ) {
            let set = |runs: Vec<(u64, u64)>| -> IdSet {
                runs.into_iter().map(|(first, more)| (first, first + more)).collect()
            };
            let beyond = range(looked_at + 1, u64::MAX);
            let refused = set(refused).without(&beyond);
            let absent = set(absent).without(&beyond).without(&refused);
            let reach = ends.map(|(low, more)| reach(low, low + more));
            let reading = super::Reading { reach, is_complete: is_complete || reach.is_none() };
            let findings = Findings {
                looked_at,
                absent: absent.clone(),
                refused: refused.clone(),
                reading: Some(reading),
                ..Findings::default()
            };
            let parts = of_ids(&gap(attempts, PATIENT_AGE), (100, 139), &findings);
            let mut status = BTreeMap::new();
            for part in &parts {
                let (first, last) = part.ids.unwrap();
                for id in first..=last {
                    prop_assert!(status.insert(id, part.status).is_none(), "{} twice", id);
                }
            }
            prop_assert!(status.keys().copied().eq(100..=139), "all of it");
            let is_reached = |id| reach.and_then(|it| it.ids).is_some_and(|ids| ids.contains(id));
            // More than a few were skipped: that is believed only after an hour.
            let is_doubted = absent.runs().map(|(first, last)| last - first + 1).sum::<u64>() > SKIPPED_AT_ONCE;
            let is_patient = attempts >= PATIENT_ATTEMPTS;
            for (id, status) in status {
                let (is_absent, is_refused) = (absent.contains(id), refused.contains(id));
                match status {
                    Repaired => prop_assert!(!is_absent && !is_refused && id <= looked_at),
                    NotALoss => prop_assert!(is_absent && is_reached(id) && (!is_doubted || is_patient)),
                    Unrecoverable => prop_assert!(is_refused || is_absent && !is_reached(id) && is_complete | reach.is_none()),
                    Open => prop_assert!(
                        !is_reached(id) || id > looked_at || !is_absent || is_doubted && !is_patient
                    ),
                }
            }
        }
    }
}
