//! What came of a gap: pure, from what is stored, what was refused, and how far the exchange's history was read.
//!
//! Only what the history was read over, without a break, can be judged: an id between two that it showed, and which it
//! did not show, was never issued. That is believed at once of a few ids. Many of them may as well be an answer with a
//! hole, from a server that lags behind or has forgotten, and prove nothing until they were skipped in every reading for
//! an hour; and of a long run the exchange's word alone is never believed. Where the history begins too late or ends too
//! early it is asked again first: an exchange that answers for its past from a cache may know more a little later.

use std::time::Duration;

use crate::domain::bounds::DISORDER_MAX;
use crate::domain::{GapPart, GapStatus, IdRange, IdSet, OpenGap, TimeRange};
use crate::exchange::history::Reach;

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
/// Of the ids that were read over, one in this many may be skipped for that; more are an answer with holes.
const SKIPPED_ONE_IN: u64 = 5;
/// Ids in a row that are taken for never issued at all: no exchange is known to skip more.
const SKIPPED_MAX: u64 = 1_000;
/// Parts that one gap is split into at once; what lies beyond stays open.
const PARTS_MAX: usize = 1_000;

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
pub(super) struct KnownIds {
    /// `absent` and `refused` are known up to this id.
    pub(super) until: u64,
    /// Neither stored nor refused.
    pub(super) absent: IdSet,
    /// Not stored, because the database refused them.
    pub(super) refused: IdSet,
    /// Shown by the history with a time that is not believed, and therefore not sent.
    pub(super) misdated: IdSet,
    /// What the history said; `None`: it was not asked.
    pub(super) reading: Option<HistoryRead>,
}

/// How far the history was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct HistoryRead {
    /// Without a break from here to there; `None`: it showed nothing.
    pub(super) reach: Option<Reach>,
    /// Whether it has no more of what was asked for; else the reading was stopped to note what was done.
    pub(super) is_complete: bool,
}

/// The parts of a gap of these ids, lowest first.
pub(super) fn of_ids(gap: &OpenGap, ids: IdRange, known: &KnownIds) -> Vec<GapPart> {
    let mut split = Split { gap, left: ids.into(), parts: Vec::new() };
    split.leave_unread(ids, known);
    let reach = known.reading.and_then(|reading| reading.reach);
    // A history that shows nothing at all may yet show everything.
    let (low, high) =
        reach.and_then(|reach| reach.ids).map_or((0, 0), |ids| (ids.first(), ids.last()));
    let older = known.absent.without(&IdSet::span(low, u64::MAX));
    let newer = known.absent.without(&IdSet::span(0, high));
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
        split.leave_for_later(ids, note);
    }
    split.close(&known.refused, GapStatus::Unrecoverable, Some(REFUSED));
    for ((ids, note), _) in beyond.iter().filter(|(_, is_spent)| *is_spent) {
        split.close(ids, GapStatus::Unrecoverable, Some(note));
    }
    split.weigh(&known.misdated, MISDATED, is_patient.then_some(MISDATED));
    let absent = known.absent.without(&known.absent.without(&split.left));
    let (few, many, too_many) =
        weigh_skipped(&absent, IdSet::span(ids.first().max(low), ids.last().min(high)).len());
    split.close(&few, GapStatus::NotALoss, Some(NOT_ISSUED));
    if is_patient {
        split.close(&many, GapStatus::NotALoss, Some(NOT_ISSUED));
    } else {
        split.leave_for_later(&many, SKIPPED);
    }
    split.weigh(&too_many, SKIPPED, is_patient.then_some(SKIPPED_ALWAYS));
    let stored = split.left.clone();
    split.close(&stored, GapStatus::Repaired, None);
    split.into_parts(ids.last())
}

/// Sorts the ids that a reading of `read` ids skipped: those that are taken for never issued at once, those that are
/// only when every reading skips them, and those that never are.
fn weigh_skipped(skipped: &IdSet, read: u64) -> (IdSet, IdSet, IdSet) {
    let are_many = skipped.len() > (read / SKIPPED_ONE_IN).max(SKIPPED_AT_ONCE);
    let few = |run: &IdRange| !are_many && run.len() <= SKIPPED_AT_ONCE;
    (
        skipped.runs().filter(few).collect(),
        skipped.runs().filter(|run| !few(run) && run.len() <= SKIPPED_MAX).collect(),
        skipped.runs().filter(|run| run.len() > SKIPPED_MAX).collect(),
    )
}

/// Hands out the ids of a gap, each once.
struct Split<'a> {
    gap: &'a OpenGap,
    left: IdSet,
    parts: Vec<GapPart>,
}

impl Split<'_> {
    /// Of these ids, those that are left become parts.
    fn take(&mut self, ids: &IdSet, part: &GapPart) {
        let rest = self.left.without(ids);
        let runs = self.left.without(&rest);
        self.parts.extend(runs.runs().map(|run| GapPart { ids: Some(run), ..part.clone() }));
        self.left = rest;
    }

    fn part(&self, status: GapStatus, note: Option<&str>) -> GapPart {
        let OpenGap { times, attempts, .. } = *self.gap;
        GapPart { ids: None, times, status, note: note.map(str::to_owned), attempts }
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
            self.take(&bounds.into(), &part);
        }
    }

    /// To be read at once: what was not looked at, and what lies beyond the reach of a reading that was stopped.
    fn leave_unread(&mut self, ids: IdRange, known: &KnownIds) {
        let mut part = GapPart { attempts: 0, ..self.part(GapStatus::Open, None) };
        let TimeRange { from, to } = self.gap.times;
        let stopped = known.reading.filter(|reading| !reading.is_complete);
        let reach = stopped.and_then(|reading| reading.reach);
        let mut until = known.until;
        let mut rest_from = from;
        if let Some(Reach { ids: Some(read), times: TimeRange { from: oldest, to: newest } }) =
            reach
        {
            let (low, high) = (read.first(), read.last());
            part.times = TimeRange::new(from, (oldest + DISORDER_MAX).min(to));
            self.take(&IdSet::span(ids.first(), low.saturating_sub(1)), &part);
            if high < until {
                (until, rest_from) = (high, (newest - DISORDER_MAX).max(from));
            }
        }
        part.times = TimeRange::new(rest_from, to);
        self.take(&IdSet::span(until.saturating_add(1), ids.last()), &part);
    }

    /// In order; not more than one transaction bears, what is beyond stays open.
    fn into_parts(mut self, last: u64) -> Vec<GapPart> {
        self.parts.sort_unstable_by_key(|part| part.ids);
        if self.parts.len() <= PARTS_MAX {
            return self.parts;
        }
        // Cut after ids that are stored: the history shows them too, and the next reading begins with them.
        let head = self.parts.get(..PARTS_MAX).unwrap_or_default();
        let cut = head.iter().rposition(|part| part.status == GapStatus::Repaired);
        self.parts.truncate(cut.map_or(PARTS_MAX, |at| at + 1));
        if let Some(end) = self.parts.last().and_then(|part| part.ids).map(IdRange::last) {
            let ids = IdRange::new(end.saturating_add(1), last);
            self.parts.push(GapPart { ids, attempts: 0, ..self.part(GapStatus::Open, None) });
        }
        self.parts
    }
}

/// The one part of a gap in time of which a history that covers it shows no trade again and again: none was made. `None`: it has to be asked again first.
pub(super) fn of_nothing(gap: &OpenGap) -> Option<Vec<GapPart>> {
    (gap.attempts >= NOTHING_ATTEMPTS).then(|| {
        let OpenGap { times, attempts, .. } = *gap;
        let (status, note) = (GapStatus::NotALoss, Some(NOT_TRADED.to_owned()));
        vec![GapPart { ids: None, times, status, note, attempts }]
    })
}

/// The parts of a gap in time, oldest first. `read`: the stretches of history that were read, oldest first;
/// `is_complete`: the exchange has no more.
///
/// Of the first instant of a stretch not everything may have been read: the history can be cut between two trades of the
/// same instant.
pub(super) fn of_time(gap: &OpenGap, read: &[TimeRange], is_complete: bool) -> Vec<GapPart> {
    let TimeRange { from, to } = gap.times;
    let part = |times, is_read: bool| {
        let (status, note, attempts) = match (is_read, is_complete) {
            (true, _) => (GapStatus::Repaired, None, gap.attempts),
            (false, true) => (GapStatus::Unrecoverable, Some(FORGOTTEN), gap.attempts),
            (false, false) => (GapStatus::Open, None, 0),
        };
        GapPart { ids: None, times, status, note: note.map(str::to_owned), attempts }
    };
    let mut parts: Vec<GapPart> = Vec::new();
    let mut at = from;
    for TimeRange { from: oldest, to: newest } in read.iter().copied().filter(|it| it.from < to) {
        if newest <= at {
            continue;
        }
        let newest = newest.min(to);
        match parts.last_mut() {
            Some(before) if oldest < at => before.times.to = newest,
            _ if oldest < at => parts.push(part(TimeRange::new(at, newest), true)),
            _ => parts.extend([
                part(TimeRange::new(at, oldest), false),
                part(TimeRange::new(oldest, newest), true),
            ]),
        }
        at = newest;
    }
    if parts.is_empty() || at < to {
        let is_read = read.iter().any(|it| it.from < at && to <= it.to);
        parts.push(part(TimeRange::new(at, to), is_read));
    }
    parts
}

/// What the history no longer has of a gap in time was brought by another connection.
pub(super) fn carry(part: &mut GapPart) {
    part.status = GapStatus::Repaired;
    part.note = Some(CARRIED.to_owned());
}

/// What the history no longer has may have been brought by another connection: it is looked for again later.
pub(super) fn await_carrier(part: &mut GapPart) {
    part.status = GapStatus::Open;
    part.note = Some(PERHAPS_CARRIED.to_owned());
    part.attempts += 1;
}

/// Gives nothing up while this machine's clock is off: it is judged anew when that is right.
pub(super) fn hold(parts: &mut [GapPart]) {
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
    use crate::domain::{Instrument, Timestamp};

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + millis).unwrap()
    }

    fn gap(attempts: u32, age: Duration) -> OpenGap {
        OpenGap {
            id: 1,
            instrument: Instrument::intern("kraken", &"BTCUSD".parse().unwrap()).unwrap(),
            ids: None,
            times: TimeRange::new(at(0), at(1_000)),
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
        let known = KnownIds {
            until: 19,
            absent: absent.iter().map(|(first, last)| IdRange::between(*first, *last)).collect(),
            reading: Some(HistoryRead { reach, is_complete }),
            ..KnownIds::default()
        };
        let told = |part: GapPart| {
            let ids = part.ids.unwrap();
            (ids.first(), ids.last(), part.status, part.attempts)
        };
        let gap = gap(attempts, PATIENT_AGE);
        of_ids(&gap, IdRange::between(10, 19), &known).into_iter().map(told).collect()
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
        let known = KnownIds {
            until: 19,
            absent: IdSet::span(12, 13),
            refused: IdSet::span(15, 15),
            reading: Some(HistoryRead { reach: Some(reach(9, 20)), is_complete: true }),
            ..KnownIds::default()
        };
        let mut parts = of_ids(&gap(3, PATIENT_AGE), IdRange::between(10, 19), &known);
        let statuses = |parts: &[GapPart]| parts.iter().map(|part| part.status).collect::<Vec<_>>();
        assert_eq!(statuses(&parts), [Repaired, NotALoss, Repaired, Unrecoverable, Repaired]);
        hold(&mut parts);
        assert_eq!(statuses(&parts), [Repaired, Open, Repaired, Open, Repaired]);
        assert_eq!((parts[1].note.as_deref(), parts[1].attempts), (Some(HELD), 4));
        assert_eq!((parts[0].note.as_deref(), parts[0].attempts), (None, 3));
    }

    #[test]
    fn what_was_not_looked_at_and_what_was_refused_is_told_apart() {
        let known = KnownIds { until: 15, refused: IdSet::span(11, 12), ..KnownIds::default() };
        let parts = of_ids(&gap(0, Duration::ZERO), IdRange::between(10, 19), &known);
        let told: Vec<_> = parts
            .iter()
            .map(|part| (part.ids.unwrap(), part.status, part.note.as_deref()))
            .map(|(ids, status, note)| ((ids.first(), ids.last()), status, note))
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
        let known = KnownIds {
            until: 100_000,
            absent: IdSet::span(1 + ends, 100_000 - ends),
            reading: Some(HistoryRead { reach: Some(reach(0, 100_001)), is_complete: true }),
            ..KnownIds::default()
        };
        let gap = gap(attempts, PATIENT_AGE);
        let parts = of_ids(&gap, IdRange::between(1, 100_000), &known).into_iter();
        parts
            .map(|part| (part.ids.unwrap(), part.status, part.note))
            .map(|(ids, status, note)| (ids.first(), ids.last(), status, note))
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
        let every_second = KnownIds {
            until: 99,
            absent: (0..50_u64).map(|n| 2 * n).collect(),
            reading: Some(HistoryRead { reach: Some(reach(0, 100)), is_complete: true }),
            ..KnownIds::default()
        };
        let statuses = |attempts| -> Vec<GapStatus> {
            let parts = of_ids(&gap(attempts, PATIENT_AGE), IdRange::between(0, 99), &every_second);
            parts.into_iter().map(|part| part.status).collect()
        };
        assert_eq!(statuses(0), [Open, Repaired]);
        assert_eq!(statuses(PATIENT_ATTEMPTS)[..4], [NotALoss, Repaired, NotALoss, Repaired]);
    }

    #[test]
    fn a_trade_that_the_history_dates_elsewhere_is_not_believed_and_not_forgotten() {
        let known = KnownIds {
            until: 19,
            absent: IdSet::span(12, 13),
            misdated: IdSet::span(12, 12),
            reading: Some(HistoryRead { reach: Some(reach(9, 20)), is_complete: true }),
            ..KnownIds::default()
        };
        let of = |attempts| -> Vec<(u64, GapStatus)> {
            let parts = of_ids(&gap(attempts, PATIENT_AGE), IdRange::between(12, 13), &known);
            parts.into_iter().map(|part| (part.ids.unwrap().first(), part.status)).collect()
        };
        assert_eq!(of(0), [(12, Open), (13, NotALoss)]);
        assert_eq!(of(PATIENT_ATTEMPTS), [(12, Unrecoverable), (13, NotALoss)]);
    }

    #[test]
    fn more_parts_than_a_transaction_bears_are_left_open_after_a_stored_id() {
        let known = KnownIds {
            until: 9_999,
            absent: (0..1_666_u64).map(|n| 6 * n).collect(),
            reading: Some(HistoryRead { reach: Some(reach(0, 10_000)), is_complete: true }),
            ..KnownIds::default()
        };
        let parts = of_ids(&gap(0, Duration::ZERO), IdRange::between(0, 9_999), &known);
        assert_eq!(parts.len(), PARTS_MAX + 1);
        let [.., before, rest] = parts.as_slice() else { panic!("no parts") };
        assert_eq!((before.status, rest.status), (Repaired, Open));
        assert_eq!(rest.ids, IdRange::new(before.ids.unwrap().last() + 1, 9_999));
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
            let read: Vec<_> =
                read.iter().map(|(from, to)| TimeRange::new(at(*from), at(*to))).collect();
            let millis = |time: Timestamp| time.as_millis() - at(0).as_millis();
            let told =
                |part: GapPart| (millis(part.times.from), millis(part.times.to), part.status);
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
            until in 100_u64..140,
        ) {
            let set = |runs: Vec<(u64, u64)>| -> IdSet {
                runs.into_iter().map(|(first, more)| IdRange::between(first, first + more)).collect()
            };
            let beyond = IdSet::span(until + 1, u64::MAX);
            let refused = set(refused).without(&beyond);
            let absent = set(absent).without(&beyond).without(&refused);
            let reach = ends.map(|(low, more)| reach(low, low + more));
            let reading = HistoryRead { reach, is_complete: is_complete || reach.is_none() };
            let known = KnownIds {
                until,
                absent: absent.clone(),
                refused: refused.clone(),
                reading: Some(reading),
                ..KnownIds::default()
            };
            let parts = of_ids(&gap(attempts, PATIENT_AGE), IdRange::between(100, 139), &known);
            let mut status = BTreeMap::new();
            for part in &parts {
                let ids = part.ids.unwrap();
                for id in ids.first()..=ids.last() {
                    prop_assert!(status.insert(id, part.status).is_none(), "{} twice", id);
                }
            }
            prop_assert!(status.keys().copied().eq(100..=139), "all of it");
            let is_reached = |id| reach.and_then(|it| it.ids).is_some_and(|ids| ids.contains(id));
            // More than a few were skipped: that is believed only after an hour.
            let is_doubted = absent.len() > SKIPPED_AT_ONCE;
            let is_patient = attempts >= PATIENT_ATTEMPTS;
            for (id, status) in status {
                let (is_absent, is_refused) = (absent.contains(id), refused.contains(id));
                match status {
                    Repaired => prop_assert!(!is_absent && !is_refused && id <= until),
                    NotALoss => prop_assert!(is_absent && is_reached(id) && (!is_doubted || is_patient)),
                    Unrecoverable => prop_assert!(is_refused || is_absent && !is_reached(id) && is_complete | reach.is_none()),
                    Open => prop_assert!(
                        !is_reached(id) || id > until || !is_absent || is_doubted && !is_patient
                    ),
                }
            }
        }
    }
}
