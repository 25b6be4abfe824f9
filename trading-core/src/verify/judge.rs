//! From what is stored of one symbol to what is to be said of it. Pure: everything was read before.

use std::time::Duration;

use crate::domain::{GapStatus, Timestamp, count};
use crate::exchange::IdRule;
use crate::telemetry::Grouped;

use super::away::Away;
use super::bounds::{CLOCKS_APART_MAX, SEEN_LATE_MAX};
use super::findings::{Finding, Findings, Kind};
use super::gaps::{GapRow, Listed, unlisted};
use super::ids::{IdRange, Ids, Present, Span, hull};
use super::report::{Missing, SymbolReport};
use super::sessions::Connected;
use super::tables::Rejected;

/// Trades may be stamped against their order by this much where a time without a connection is compared with `tick_gaps`.
const STAMPS_APART_MAX: Duration = Duration::from_millis(500);

/// What is looked at: from here, up to there without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// The beginning.
    pub(super) from: Timestamp,
    /// The end, excluded.
    pub(super) to: Timestamp,
}

/// A trade that is stored more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Doubled {
    /// Its id.
    pub(super) id: String,
    /// When its first and its last row were traded.
    pub(super) at: Span,
    /// How many rows there are beside the first.
    pub(super) extra: u64,
}

/// Rows with something wrong, of which some are named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Named {
    /// All of them.
    pub(super) count: u64,
    /// The first few: id and time.
    pub(super) rows: Vec<(String, Timestamp)>,
}

/// Everything that was read of one symbol.
#[derive(Debug)]
pub(super) struct Evidence {
    /// The exchange's name.
    pub(super) exchange: String,
    /// The symbol, as stored.
    pub(super) symbol: String,
    /// What its ids prove.
    pub(super) rule: IdRule,
    /// How many rows.
    pub(super) rows: u64,
    /// First and last exchange time.
    pub(super) at: Option<Span>,
    /// Its ids, where they are consecutive; rows of `against_time` are out of it.
    pub(super) ids: Ids,
    /// Its ids of before the exchange counted anew, latest count first.
    pub(super) earlier: Vec<Ids>,
    /// Rows beside the first of each trade.
    pub(super) doubled_rows: u64,
    /// Some of them.
    pub(super) doubled: Vec<Doubled>,
    /// Rows whose id does not belong to their time.
    pub(super) against_time: Named,
    /// Rows whose id is no number where it should be.
    pub(super) odd_ids: Named,
    /// Rows with impossible values.
    pub(super) out_of_domain: Named,
    /// Live rows outside every session, and when they were received.
    pub(super) out_of_session: Option<(u64, Span)>,
    /// When its exchange was connected for it.
    pub(super) connected: Connected,
    /// Times without a connection, where ids prove nothing.
    pub(super) away: Vec<Away>,
    /// What `tick_gaps` says.
    pub(super) gaps: Vec<GapRow>,
    /// What the table refused.
    pub(super) rejected: Rejected,
}

impl Evidence {
    /// All its counts, the one that goes on first.
    fn counts(&self) -> impl Iterator<Item = &Ids> {
        std::iter::once(&self.ids).chain(&self.earlier)
    }

    /// The lowest and the highest id.
    fn ends(&self) -> Option<IdRange> {
        self.counts()
            .filter_map(Ids::ends)
            .reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))
    }

    /// How many different ids of a range are stored.
    fn present_in(&self, ids: IdRange) -> u64 {
        self.counts().map(|count| count.present_in(ids)).sum()
    }

    fn is_scattered(&self) -> bool {
        self.counts().any(Ids::is_scattered)
    }
}

/// Says what there is to say of one symbol.
pub(super) fn judge(evidence: &Evidence, window: Window) -> (SymbolReport, Findings) {
    let mut judge = Judge {
        evidence,
        window,
        missing: Missing::default(),
        holes: 0,
        findings: Findings::of_one(),
    };
    match evidence.rule {
        IdRule::Unique => judge.disconnects(),
        IdRule::Consecutive if evidence.is_scattered() => judge.scattered(),
        IdRule::Consecutive => {
            evidence.counts().for_each(|ids| judge.holes(ids));
            judge.counted_anew();
            judge.listed_outside();
            judge.rows_with_ids();
        }
    }
    judge.rows_with_times();
    judge.single_rows();
    judge.refused();
    let ends = evidence.ends();
    let report = SymbolReport {
        exchange: evidence.exchange.clone(),
        symbol: evidence.symbol.clone(),
        ids: match evidence.rule {
            IdRule::Consecutive => "consecutive",
            IdRule::Unique => "unique",
        },
        rows: evidence.rows,
        first_id: ends.map(|(first, _)| first),
        last_id: ends.map(|(_, last)| last),
        from: evidence.at.map(|(from, _)| from),
        to: evidence.at.map(|(_, to)| to),
        holes: judge.holes,
        missing: judge.missing,
        duplicates: evidence.doubled_rows,
        rejected: evidence.rejected.rows.saturating_add(evidence.rejected.only_counted),
        minutes_compared: 0,
        minutes_asked: 0,
        complete: judge.findings.is_empty(),
    };
    (report, judge.findings)
}

struct Judge<'a> {
    evidence: &'a Evidence,
    window: Window,
    missing: Missing,
    holes: u64,
    findings: Findings,
}

impl Judge<'_> {
    fn tell(
        &mut self,
        kind: Kind,
        count: u64,
        ids: Option<(String, String)>,
        at: Option<Span>,
        text: String,
    ) {
        let (first_id, last_id) = ids.unzip();
        self.findings.push(Finding {
            exchange: self.evidence.exchange.clone(),
            symbol: Some(self.evidence.symbol.clone()),
            kind,
            count,
            first_id,
            last_id,
            from: at.map(|(from, _)| from),
            to: at.map(|(_, to)| to),
            text,
        });
    }

    /// Every id between the first and the last that is not stored, held against what is listed.
    fn holes(&mut self, ids: &Ids) {
        let listed = Listed::new(&self.evidence.gaps);
        let mut before: Option<Present> = None;
        for present in ids.present() {
            if let Some(before) = before
                && before.ids.1 + 1 < present.ids.0
            {
                self.holes += 1;
                // Within one block the time is known no better than that of the block.
                let is_between = before.at.1 <= present.at.0;
                let at = if is_between {
                    (before.at.1, present.at.0)
                } else {
                    hull(before.at, present.at)
                };
                for (ids, status) in listed.parts((before.ids.1 + 1, present.ids.0 - 1)) {
                    self.hole(ids, status, at);
                }
            }
            before = Some(present);
        }
    }

    /// With the ids not all known, no hole can be told from what was not kept.
    fn scattered(&mut self) {
        let text = "trades are missing in so many places that they were not looked at one by one"
            .to_owned();
        self.tell(Kind::Scattered, 1, None, self.evidence.at, text);
    }

    /// Where the exchange began to count anew, nothing says what it traded in between.
    fn counted_anew(&mut self) {
        let mut later = &self.evidence.ids;
        for earlier in &self.evidence.earlier {
            if let Some(((_, last), (first, _))) = earlier.ends().zip(later.ends()) {
                let at =
                    earlier.time().zip(later.time()).map(|(before, after)| (before.1, after.0));
                let text = format!(
                    "the exchange counts anew: after id {last} comes id {first}, and what it traded between them is not \
                     known"
                );
                self.tell(
                    Kind::CountedAnew,
                    1,
                    Some((last.to_string(), first.to_string())),
                    at,
                    text,
                );
            }
            later = earlier;
        }
    }

    /// Whether a part of what a row of `tick_gaps` speaks of lies in the window.
    fn is_touched(&self, row: &GapRow) -> bool {
        self.window.from <= row.at.1 && row.at.0 < self.window.to
    }

    /// Whether the window holds all of what a row of `tick_gaps` speaks of.
    fn is_whole(&self, row: &GapRow) -> bool {
        self.window.from <= row.at.0 && row.at.1 < self.window.to
    }

    /// Ids before the first stored one and after the last are missing where they are listed: nobody else knows of them.
    fn listed_outside(&mut self) {
        let rows = self.evidence.gaps.iter().filter(|row| self.is_whole(row)).copied();
        let rows: Vec<GapRow> = rows.collect();
        let ids = || rows.iter().filter_map(|row| row.ids);
        let first = ids().map(|(first, _)| first).min();
        let last = ids().map(|(_, last)| last).max();
        let Some((first, last)) = first.zip(last) else { return };
        let listed = Listed::new(&rows);
        let outside = match self.evidence.ends() {
            None => vec![(first, last)],
            Some((begin, end)) => {
                let before = (first < begin).then(|| (first, last.min(begin - 1)));
                let after = (last > end).then(|| (first.max(end + 1), last));
                before.into_iter().chain(after).collect()
            }
        };
        let parts = outside.into_iter().flat_map(|ids| listed.parts(ids));
        for (ids, status) in parts.filter(|(_, status)| status.is_some()) {
            self.missing.add(status, len(ids));
        }
    }

    fn hole(&mut self, ids: IdRange, status: Option<GapStatus>, at: Span) {
        // What `tick_gaps` says of it is told row by row.
        if status.is_some() {
            self.missing.add(status, len(ids));
            return;
        }
        let rejected = &self.evidence.rejected.ids;
        let start = rejected.partition_point(|id| *id < ids.0);
        let mut from = ids.0;
        let inside =
            rejected.get(start..).unwrap_or_default().iter().take_while(|id| **id <= ids.1);
        for id in inside {
            self.missing.rejected += 1;
            self.unlisted((from, id.saturating_sub(1)), from < *id, at);
            from = id.saturating_add(1);
        }
        self.unlisted((from, ids.1), from <= ids.1, at);
    }

    fn unlisted(&mut self, ids: IdRange, is_any: bool, at: Span) {
        if !is_any {
            return;
        }
        let count = len(ids);
        self.missing.add(None, count);
        let text = format!("{} not stored, and not listed in tick_gaps", trades(count));
        self.tell(Kind::UnlistedHole, count, Some(texts(ids)), Some(at), text);
    }

    /// Whether each row of `tick_gaps` says the truth about its ids.
    fn rows_with_ids(&mut self) {
        let ends = self.evidence.ends();
        for row in &self.evidence.gaps {
            let Some(ids) = row.ids else { continue };
            let (is_whole, is_touched) = (self.is_whole(row), self.is_touched(row));
            let inside = ends.and_then(|ends| overlap(ids, ends));
            // Of a row that reaches out of the window, what lies between stored trades can be judged.
            let is_known = is_whole || (is_touched && inside == Some(ids));
            let judged = if is_whole { Some(ids) } else { inside };
            let missing = |ids: IdRange| len(ids).saturating_sub(self.evidence.present_in(ids));
            let count = judged.map_or(0, missing);
            if count == 0 && row.status == GapStatus::Open && is_known {
                let text =
                    format!("gap {} is listed as open, and everything in it is stored", row.id);
                self.tell(Kind::StoredOpenGap, 1, Some(texts(ids)), Some(row.at), text);
            }
            let is_in_doubt = count == 0 && is_touched && !is_known;
            if count == 0 && !is_in_doubt {
                continue;
            }
            let (kind, says) = match row.status {
                GapStatus::NotALoss => continue,
                GapStatus::Repaired if is_in_doubt => continue,
                GapStatus::Open => (Kind::OpenGap, "is open"),
                GapStatus::Unrecoverable => (Kind::UnrecoverableGap, "is unrecoverable"),
                GapStatus::Repaired => (Kind::UntrueRepair, "is listed as repaired"),
            };
            let text = if is_in_doubt {
                let (id, count) = (row.id, Grouped(len(ids)));
                format!(
                    "gap {id} {says}, and reaches into this time: its {count} trades may be missing here"
                )
            } else {
                format!("gap {} {says}: {} not stored", row.id, trades(count))
            };
            self.tell(kind, 1, Some(texts(ids)), Some(row.at), text);
        }
    }

    /// Rows of `tick_gaps` that know the time only, and those whose ids prove nothing: what they say is taken for true.
    fn rows_with_times(&mut self) {
        let judged_by_ids =
            self.evidence.rule == IdRule::Consecutive && !self.evidence.is_scattered();
        for row in &self.evidence.gaps {
            if (row.ids.is_some() && judged_by_ids) || !self.is_touched(row) {
                continue;
            }
            let (kind, says) = match row.status {
                GapStatus::Open => (Kind::OpenGap, "is open"),
                GapStatus::Unrecoverable => (Kind::UnrecoverableGap, "is unrecoverable"),
                GapStatus::Repaired | GapStatus::NotALoss => continue,
            };
            self.holes += 1;
            let text = format!("gap {} {says}: some trades may not be stored", row.id);
            self.tell(kind, 1, None, Some(row.at), text);
        }
    }

    /// Where ids prove nothing, each time without a connection must be listed.
    fn disconnects(&mut self) {
        let evidence = self.evidence;
        let is_long = |span: &Span| span.1.since(span.0) > STAMPS_APART_MAX;
        let mut told: Option<Span> = None;
        for away in &evidence.away {
            // Listed is what lies between the trades beside it; or, where the clocks agree, the time itself.
            let mut open = unlisted(&evidence.gaps, away.between, Duration::ZERO);
            open.retain(is_long);
            let own = unlisted(&evidence.gaps, away.at, Duration::ZERO);
            if !own.iter().any(is_long) || told == Some(away.between) {
                continue;
            }
            told = Some(away.between);
            for span in open {
                self.unlisted_disconnect(span);
            }
        }
        // Without any, everything was fetched, and nothing says that it is all.
        if evidence.connected.claimed.spans().is_empty()
            && let Some(at) = evidence.at
        {
            for span in unlisted(&evidence.gaps, at, CLOCKS_APART_MAX) {
                self.unlisted_disconnect(span);
            }
        }
        // After the last one nothing may be stored but what is listed.
        let end = evidence.connected.proven.spans().last().map(|span| span.1);
        let end = end.map(|end| end + SEEN_LATE_MAX);
        if let Some((end, (_, last))) = end.zip(evidence.at)
            && end < last
        {
            for span in unlisted(&evidence.gaps, (end, last), CLOCKS_APART_MAX) {
                self.unlisted_disconnect(span);
            }
        }
    }

    fn unlisted_disconnect(&mut self, at: Span) {
        if at.1 < self.window.from || at.0 >= self.window.to {
            return;
        }
        let text = "nothing was connected, and tick_gaps does not list it".to_owned();
        self.tell(Kind::UnlistedDisconnect, 1, None, Some(at), text);
    }

    /// Trades that the table refused and that are not stored otherwise, wherever they lie.
    fn refused(&mut self) {
        let evidence = self.evidence;
        let Rejected { unnumbered, only_counted, ids, .. } = &evidence.rejected;
        let is_counted = evidence.rule == IdRule::Consecutive;
        let is_stored = |id: u64| is_counted && evidence.present_in((id, id)) > 0;
        let loose: Vec<u64> = ids.iter().copied().filter(|id| !is_stored(*id)).collect();
        if is_counted {
            let listed = Listed::new(&evidence.gaps);
            let is_outside = |id: &u64| evidence.ends().is_none_or(|it| *id < it.0 || *id > it.1);
            let is_listed = |id: u64| listed.parts((id, id)).iter().any(|(_, it)| it.is_some());
            let outside = loose.iter().filter(|id| is_outside(id) && !is_listed(**id)).count();
            self.missing.rejected += count(outside);
        }
        let kept = count(loose.len()).saturating_add(*unnumbered);
        if kept > 0 {
            let text = format!("{} refused by the table: see rejected_ticks", trades(kept));
            self.tell(Kind::Rejected, kept, None, None, text);
        }
        if *only_counted > 0 {
            let text = format!(
                "{} refused by the table, and only counted: see rejected_overflow",
                trades(*only_counted)
            );
            self.tell(Kind::Rejected, *only_counted, None, None, text);
        }
    }

    fn single_rows(&mut self) {
        let evidence = self.evidence;
        for Doubled { id, at, extra } in &evidence.doubled {
            let ids = Some((id.clone(), id.clone()));
            let text = format!("stored {} times", Grouped(extra + 1));
            self.tell(Kind::Duplicate, *extra, ids, Some(*at), text);
        }
        let told: u64 = evidence.doubled.iter().map(|it| it.extra).sum();
        self.rest(Kind::Duplicate, evidence.doubled_rows.saturating_sub(told));
        for (kind, named, text) in [
            (Kind::AgainstTime, &evidence.against_time, "the id does not belong to this time"),
            (Kind::OddId, &evidence.odd_ids, "the id is no number, and this exchange counts"),
            (
                Kind::OutOfDomain,
                &evidence.out_of_domain,
                "a price, quantity, side, source or time that cannot be",
            ),
        ] {
            for (id, at) in &named.rows {
                self.tell(
                    kind,
                    1,
                    Some((id.clone(), id.clone())),
                    Some((*at, *at)),
                    text.to_owned(),
                );
            }
            let told = count(named.rows.len());
            self.rest(kind, named.count.saturating_sub(told));
        }
        if let Some((count, at)) = evidence.out_of_session {
            let text = format!("{} received while no session stood", live_rows(count));
            self.tell(Kind::OutOfSession, count, None, Some(at), text);
        }
    }

    /// Counts what is not told one by one.
    fn rest(&mut self, kind: Kind, count: u64) {
        if count > 0 {
            let text = format!("{} more of the same kind", Grouped(count));
            self.tell(kind, count, None, None, text);
        }
    }
}

fn overlap(one: IdRange, other: IdRange) -> Option<IdRange> {
    let (first, last) = (one.0.max(other.0), one.1.min(other.1));
    (first <= last).then_some((first, last))
}

/// How many ids; all of them would be one more than can be counted.
const fn len((first, last): IdRange) -> u64 {
    (last - first).saturating_add(1)
}

fn texts((first, last): IdRange) -> (String, String) {
    (first.to_string(), last.to_string())
}

fn trades(count: u64) -> String {
    format!("{} {}", Grouped(count), if count == 1 { "trade is" } else { "trades are" })
}

fn live_rows(count: u64) -> String {
    format!("{} live {}", Grouped(count), if count == 1 { "row was" } else { "rows were" })
}
