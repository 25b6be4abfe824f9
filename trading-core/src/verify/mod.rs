//! The proof: from what is stored, and nothing else, whether every trade is there once.
//!
//! ```text
//!  tick_data, one pass ──▶ tally: blocks of 64 ids, times, sessions ─┐
//!  tick_gaps, feed_sessions, rejected_ticks, quarantined_frames ─────┼─▶ judge ──▶ report
//!  where it does not add up: a closer look at those rows ────────────┘
//! ```
//!
//! Promised, all of it as of one moment:
//!
//! - Where an exchange counts its trades, each id between the first and the last stored one is stored, by one row, or it
//!   is told, with what `tick_gaps` says of it; and no row of `tick_gaps` says what is not so.
//! - Where it does not, each id is stored by one row, and each time without a connection is listed.
//! - Each live row was received while a session of its exchange carried its symbol; and what came over the sessions that
//!   have ended is stored, or was refused: rows that were deleted at the ends, where no id misses them, are counted there.
//! - Nothing that another table knows better is passed over: trades that the table refused, gaps that only reach into the
//!   time, days that were detached.
//!
//! Not promised: what came before the first connection, and that a stored price is the exchange's; for that there are the
//! exchange's own candles. It locks nothing that recording needs, and the newest seconds, in which trades may still be
//! on their way between two writers, can be left out.

mod away;
mod bounds;
mod candles;
mod closer;
mod coverage;
mod deliveries;
mod error;
mod findings;
mod gaps;
mod ids;
mod judge;
mod read;
mod report;
mod sessions;
mod snapshot;
mod tables;
mod tally;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, TryStreamExt as _};
use sqlx::PgPool;
use tokio::time::Instant;

pub use candles::{Comparison, compare};
pub use error::VerifyError;
pub use findings::{Finding, Kind};
pub use report::{Missing, Quarantined, Report, Sessions, SymbolReport, Verdict};

use crate::domain::{Lines, SymbolRef, Timestamp, count, escaped, nearest};
use crate::exchange::{self, Exchange, IdRule};
use crate::telemetry::{Grouped, Progress, Total, Unit};

use bounds::{SETTLED, SIGN_OF_LIFE_MAX};
use findings::Findings;
use gaps::GapRow;
use judge::{Evidence, Window, judge};
use read::{Day, Key};
use sessions::{Asked, Connected, Deliveries, Session};
use snapshot::Snapshot;
use tables::{Detached, Rejected};
use tally::Tally;

/// Bytes of a page of PostgreSQL, as nearly every server is built; for progress only.
const PAGE_BYTES: u64 = 8_192;
/// Stored symbols that are named in place of one that is not.
const NAMES_MAX: usize = 10;

/// What is to be proven.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Only these exchanges; empty: all.
    pub exchanges: Vec<String>,
    /// Only these symbols; empty: all.
    pub symbols: Vec<SymbolRef>,
    /// From here on; `None`: from the first row.
    pub from: Option<Timestamp>,
    /// Up to here, excluded.
    pub to: Timestamp,
    /// How many of the newest seconds `to` leaves out; `None`: none, or the end was given. Only told.
    pub settle_seconds: Option<u64>,
}

impl Scope {
    /// The exchanges that are asked for, by themselves or by their symbols; `None`: all.
    fn exchange_names(&self) -> Option<Vec<String>> {
        if !self.exchanges.is_empty() {
            return Some(self.exchanges.clone());
        }
        let of_symbols: Option<Vec<String>> =
            self.symbols.iter().map(|symbol| symbol.exchange.clone()).collect();
        of_symbols.filter(|names| !names.is_empty())
    }

    /// The symbols that are asked for, on whichever exchange; `None`: all. What the two lists name together and nobody
    /// asked for is read too, and left out by [`Self::means`].
    fn symbol_names(&self) -> Option<Vec<String>> {
        let names = || self.symbols.iter().flat_map(SymbolRef::names).collect();
        (!self.symbols.is_empty()).then(names)
    }

    fn means(&self, exchange: &str, symbol: &str) -> bool {
        self.symbols.is_empty() || self.symbols.iter().any(|it| it.means(exchange, symbol))
    }
}

/// Whether a recorder runs: a connection is open, and its recorder gave a sign of life within the last minute.
///
/// # Errors
///
/// As [`verify`].
pub async fn is_recording(pool: &PgPool) -> Result<bool, VerifyError> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM feed_sessions WHERE ended_at IS NULL AND seen_at > now() - $1)",
    )
    .bind(SIGN_OF_LIFE_MAX)
    .fetch_one(pool)
    .await
    .map_err(VerifyError::of_schema)
}

/// Proves, or says what speaks against it. Reads over up to `looks` connections of the pool at once, and one more.
///
/// # Errors
///
/// When the tables cannot be read, or are not those of this version.
pub async fn verify(pool: &PgPool, scope: &Scope, looks: usize) -> Result<Report, VerifyError> {
    let since = Instant::now();
    let snapshot = Snapshot::take(pool).await?;
    let all_days = read::days(&snapshot).await?;
    let kept_from = kept_from(&all_days);
    let window = Window { from: scope.from.unwrap_or(kept_from), to: scope.to };
    let mut small = Small::read(&snapshot, scope, &all_days, kept_from).await?;
    let days = read::wanted(&all_days, scope);
    let tallies = first_look(&snapshot, &days, scope, &mut small, looks).await?;
    let rows: u64 = tallies.values().map(|tally| tally.rows).sum();

    let mut report = Report {
        complete: false,
        verdict: Verdict::NotComplete,
        from: scope.from,
        known_from: known_from(&small, &tallies, window),
        known_to: known_to(&small, &tallies, window),
        to: scope.to,
        settle_seconds: scope.settle_seconds,
        rows,
        days: count(days.len()),
        open_sessions: small.open_sessions,
        sessions: small.deliveries.told(),
        symbols: Vec::new(),
        without_rows: without_rows(&small.connected, &tallies, scope, window),
        quarantined: Vec::new(),
        counts: BTreeMap::new(),
        findings: Vec::new(),
        findings_not_listed: 0,
        seconds: 0.0,
    };
    let mut findings = Findings::of_all();
    for detached in &small.detached {
        findings.push(of_detached(detached));
    }
    findings.append(unread_frames(&small.quarantined));
    let dropped_until = small
        .first_connected
        .filter(|first| *first < kept_from)
        .map_or(Timestamp::EPOCH, |_| kept_from);
    let short = small.deliveries.short();
    let short = deliveries::unexplained(&snapshot, short, dropped_until).await?;
    let nothing = nothing_stored(&snapshot, &tallies, scope).await?;
    let symbols = closer_looks(&snapshot, tallies, small, scope, looks).await?;
    if read::is_any_dropped(&snapshot, &days).await? {
        return Err(VerifyError::DayDropped);
    }
    snapshot.end().await?;
    for evidence in &symbols.evidence {
        let (symbol, found) = judge(evidence, window);
        report.symbols.push(symbol);
        findings.append(found);
    }
    for (finding, delivery) in short {
        let carried = |it: &&mut SymbolReport| {
            it.exchange == delivery.exchange && delivery.symbols.contains(&it.symbol)
        };
        report.symbols.iter_mut().filter(carried).for_each(|it| it.complete = false);
        findings.push(finding);
    }
    for (exchange, frames) in symbols.quarantined {
        report.quarantined.push(Quarantined { exchange, frames });
    }
    findings.append(nothing);
    report.tell(findings);
    report.seconds = since.elapsed().as_secs_f64();
    Ok(report)
}

/// Where the oldest day begins that is still there: what is older was dropped, as retention does, and is no loss.
fn kept_from(days: &[Day]) -> Timestamp {
    let own = days.iter().filter(|day| !day.is_default);
    own.map(Day::begin).min().unwrap_or(Timestamp::EPOCH)
}

/// The first time of the window that any table knows of.
fn known_from(small: &Small, tallies: &BTreeMap<Key, Tally>, window: Window) -> Option<Timestamp> {
    let sessions = small.first_connected.into_iter();
    let gaps = small.gaps.values().flatten().map(|gap| gap.at.0);
    let rows = tallies.values().filter_map(|tally| Some(tally.at?.0));
    let first = sessions.chain(gaps).chain(rows).min()?;
    Some(first.max(window.from)).filter(|first| *first < window.to)
}

/// The last time of the window that a stored trade or a connection speaks for.
fn known_to(small: &Small, tallies: &BTreeMap<Key, Tally>, window: Window) -> Option<Timestamp> {
    let rows = tallies.values().filter_map(|tally| Some(tally.at?.1));
    let proven = small.connected.values().filter_map(|it| Some(it.proven.spans().last()?.1));
    let last = rows.chain(proven).max()?;
    Some(last.min(window.to)).filter(|last| *last >= window.from)
}

/// Symbols that were connected in the window, and of which nothing is stored in it.
fn without_rows(
    connected: &BTreeMap<Key, Connected>,
    tallies: &BTreeMap<Key, Tally>,
    scope: &Scope,
    window: Window,
) -> Vec<String> {
    let is_empty = |(key, connected): &(&Key, &Connected)| {
        let mut spans = connected.claimed.spans().iter();
        spans.any(|span| span.1 >= window.from && span.0 < window.to)
            && scope.means(&key.0, &key.1)
            && tallies.get(*key).is_none_or(|tally| tally.rows == 0)
    };
    let empty = connected.iter().filter(is_empty);
    empty.map(|(key, _)| format!("{}:{}", key.0, key.1)).collect()
}

/// What was asked for by name and is not there.
async fn nothing_stored(
    snapshot: &Snapshot,
    tallies: &BTreeMap<Key, Tally>,
    scope: &Scope,
) -> Result<Findings, VerifyError> {
    let mut findings = Findings::of_all();
    let is_stored = |is_meant: &dyn Fn(&Key) -> bool| {
        tallies.iter().any(|(key, tally)| tally.rows > 0 && is_meant(key))
    };
    if !is_stored(&|_| true) {
        let mut look = snapshot.look().await?;
        let text = match (tables::is_any_newer(&mut look, scope).await?, scope.settle_seconds) {
            (true, Some(seconds)) => format!(
                "what is stored of it is younger than {seconds} s, and some of it may still be on its way: ask again in \
                 {seconds} s, or judge what is there with --to now"
            ),
            (true, None) => "what is stored of it is newer than what was asked for".to_owned(),
            (false, _) => "nothing is stored of what was asked for".to_owned(),
        };
        let stored = match scope.symbols.as_slice() {
            [] => Vec::new(),
            _ => tables::stored_names(&mut look).await?,
        };
        let there = scope.symbols.iter().filter_map(|symbol| {
            there_instead(symbol, &stored).map(|there| format!("{symbol}: {there}"))
        });
        let there: Vec<String> = there.take(NAMES_MAX).collect();
        let text = match there.as_slice() {
            [] => text,
            there => format!("{text} ({})", there.join("; ")),
        };
        findings.push(finding(Kind::NothingStored, "", 1, text));
        return Ok(findings);
    }
    for exchange in &scope.exchanges {
        if !is_stored(&|key| key.0 == *exchange) {
            let text = "nothing is stored of this exchange in the asked time".to_owned();
            findings.push(finding(Kind::NothingStored, exchange, 1, text));
        }
    }
    let missing = scope.symbols.iter().filter(|it| !is_stored(&|key| it.means(&key.0, &key.1)));
    let missing: Vec<&SymbolRef> = missing.collect();
    if !missing.is_empty() {
        let stored = tables::stored_names(&mut *snapshot.look().await?).await?;
        for symbol in missing {
            let mut text = format!("nothing is stored of {symbol} in the asked time");
            if let Some(there) = there_instead(symbol, &stored) {
                text.push_str(&format!(": {there}"));
            }
            findings.push(finding(Kind::NothingStored, "", 1, text));
        }
    }
    Ok(findings)
}

/// What is stored in place of a symbol that is not, the nearest names first.
fn there_instead(symbol: &SymbolRef, stored: &[String]) -> Option<String> {
    let names = || stored.iter().map(String::as_str);
    if names().any(|name| name.split_once(':').is_some_and(|(at, it)| symbol.means(at, it))) {
        return Some("there is some of another time".to_owned());
    }
    let shown = |names: Vec<&str>| escaped(&names.join(", "), Lines::One).into_owned();
    let near = nearest(&symbol.to_string(), names(), NAMES_MAX);
    if !near.is_empty() {
        return Some(format!("the nearest that is stored is {}", shown(near)));
    }
    let first = shown(names().take(NAMES_MAX).collect());
    match stored.len().saturating_sub(NAMES_MAX) {
        _ if stored.is_empty() => None,
        0 => Some(format!("stored are {first}")),
        more => Some(format!("stored are {first} and {more} more")),
    }
}

/// A table that no query of `tick_data` sees.
fn of_detached(Detached { name, is_read }: &Detached) -> Finding {
    let text = if *is_read {
        format!(
            "the table {name} holds ticks of this time and is no part of tick_data: attach it again (`ALTER TABLE tick_data \
             ATTACH PARTITION`), or, where its day is there, store them (`INSERT INTO tick_data SELECT * FROM {name} ON \
             CONFLICT DO NOTHING`) and drop or rename it"
        )
    } else {
        format!(
            "the table {name} is no part of tick_data, and this role may not look whether it holds ticks (`GRANT SELECT`)"
        )
    };
    finding(Kind::Detached, "", 1, text)
}

/// What the ticks are held against.
struct Small {
    connected: BTreeMap<Key, Connected>,
    deliveries: Deliveries,
    first_connected: Option<Timestamp>,
    gaps: BTreeMap<Key, Vec<GapRow>>,
    rejected: BTreeMap<Key, Rejected>,
    quarantined: Vec<(String, u64)>,
    detached: Vec<Detached>,
    open_sessions: u64,
}

impl Small {
    async fn read(
        snapshot: &Snapshot,
        scope: &Scope,
        days: &[Day],
        kept_from: Timestamp,
    ) -> Result<Self, VerifyError> {
        let mut look = snapshot.look().await?;
        let sessions = tables::sessions(&mut look, scope).await?;
        let now = tables::now(&mut look).await?;
        let symbols: BTreeSet<String> = scope.symbols.iter().flat_map(SymbolRef::names).collect();
        // While somebody records, the scope ends where nothing is on its way any more; an earlier end was asked for.
        let settled = match scope.settle_seconds {
            Some(_) => scope.to,
            None => scope.to.max(now - SETTLED),
        };
        let asked = Asked { from: scope.from, to: scope.to, settled, symbols: &symbols, days };
        Ok(Self {
            deliveries: Deliveries::new(&sessions, asked),
            connected: sessions::connected(&sessions, now),
            first_connected: sessions.iter().map(first_of).min(),
            gaps: tables::gaps(&mut look, scope).await?,
            rejected: tables::rejected(&mut look, scope, scope.from.unwrap_or(kept_from)).await?,
            quarantined: tables::quarantined(&mut look, scope).await?,
            detached: tables::detached(&mut look, scope).await?,
            open_sessions: tables::open_sessions(&mut look).await?,
        })
    }
}

const fn first_of(session: &Session) -> Timestamp {
    session.connected_at
}

/// What the ids of an exchange prove; of one that is not known, nothing.
fn rule(exchange: &str) -> IdRule {
    exchange::by_name(exchange).map_or(IdRule::Unique, Exchange::ids)
}

async fn first_look(
    snapshot: &Snapshot,
    days: &[read::Day],
    scope: &Scope,
    small: &mut Small,
    looks: usize,
) -> Result<BTreeMap<Key, Tally>, VerifyError> {
    let connected = &small.connected;
    let tally =
        |key: &Key| Tally::new(rule(&key.0), connected.get(key).cloned().unwrap_or_default());
    let counting = exchange::all().filter(|it| it.ids() == IdRule::Consecutive);
    let consecutive: Vec<&str> = counting.map(Exchange::name).collect();
    let parts = read::parts(days, scope);
    let bytes = |pages: u64| pages.saturating_mul(PAGE_BYTES);
    let total = parts.iter().map(|part| bytes(part.pages())).sum();
    let progress = Progress::start("Reading the ticks", Unit::Bytes, Total::Known(total));
    let consecutive = consecutive.as_slice();
    let mut reading = futures_util::stream::iter(parts)
        .map(|part| async move {
            let groups = read::part(snapshot, part, scope, consecutive).await?;
            Ok::<_, VerifyError>((bytes(part.pages()), groups))
        })
        .buffer_unordered(looks.max(1));
    let mut tallies: BTreeMap<Key, Tally> = BTreeMap::new();
    while let Some((bytes, groups)) = reading.try_next().await? {
        for group in groups {
            if let Some(received) = group.received {
                small.deliveries.count(&group.exchange, &group.symbol, received, group.live);
            }
            let key = (group.exchange.clone(), group.symbol.clone());
            tallies.entry(key).or_insert_with_key(tally).add(&group);
        }
        progress.advance(bytes);
    }
    progress.finish();
    // A symbol of which only gaps or refused trades are known has its say too.
    for key in small.gaps.keys().chain(small.rejected.keys()) {
        tallies.entry(key.clone()).or_insert_with_key(tally);
    }
    tallies.retain(|key, _| scope.means(&key.0, &key.1));
    Ok(tallies)
}

/// Everything that is to be judged.
struct Looked {
    evidence: Vec<Evidence>,
    quarantined: Vec<(String, u64)>,
}

async fn closer_looks(
    snapshot: &Snapshot,
    tallies: BTreeMap<Key, Tally>,
    mut small: Small,
    scope: &Scope,
    looks: usize,
) -> Result<Looked, VerifyError> {
    let total = count(tallies.len());
    let progress = Progress::start("Looking closer", Unit::Of("symbols"), Total::Known(total));
    let symbols = tallies.into_iter().map(|(key, tally)| {
        let gaps = small.gaps.remove(&key).unwrap_or_default();
        let rejected = small.rejected.remove(&key).unwrap_or_default();
        (key, tally, gaps, rejected)
    });
    let symbols: Vec<_> = symbols.collect();
    let mut looking = futures_util::stream::iter(symbols)
        .map(|(key, tally, gaps, rejected)| {
            look_closer(snapshot, scope, key, tally, gaps, rejected)
        })
        .buffer_unordered(looks.max(1));
    let mut evidence = Vec::new();
    while let Some(one) = looking.try_next().await? {
        evidence.push(one);
        progress.advance(1);
    }
    progress.finish();
    evidence
        .sort_by(|one, other| (&one.exchange, &one.symbol).cmp(&(&other.exchange, &other.symbol)));
    Ok(Looked { evidence, quarantined: small.quarantined })
}

async fn look_closer(
    snapshot: &Snapshot,
    scope: &Scope,
    key: Key,
    mut tally: Tally,
    gaps: Vec<GapRow>,
    rejected: Rejected,
) -> Result<Evidence, VerifyError> {
    let against_time = closer::against_time(snapshot, &key, &mut tally, scope).await?;
    let (doubled_rows, doubled) = closer::doubled(snapshot, &key, &tally, scope).await?;
    let odd_ids = closer::odd_ids(snapshot, &key, &tally, scope).await?;
    let out_of_domain = closer::out_of_domain(snapshot, &key, &tally, scope).await?;
    let out_of_session = closer::out_of_session(snapshot, &key, &tally, scope).await?;
    let away = away::away(snapshot, &key, &tally.holes, scope).await?;
    let (exchange, symbol) = key;
    Ok(Evidence {
        exchange,
        symbol,
        rule: tally.rule,
        rows: tally.rows,
        at: tally.at,
        ids: tally.ids,
        earlier: tally.earlier,
        doubled_rows,
        doubled,
        against_time,
        odd_ids,
        out_of_domain,
        out_of_session,
        connected: tally.connected,
        away,
        gaps,
        rejected,
    })
}

/// Where ids prove nothing, nobody knows what was in a frame that could not be read.
fn unread_frames(quarantined: &[(String, u64)]) -> Findings {
    let mut findings = Findings::of_one();
    for (exchange, frames) in quarantined.iter().filter(|(name, _)| rule(name) == IdRule::Unique) {
        let text = format!(
            "{} frames could not be read, and ids do not tell whether trades were in them: see quarantined_frames",
            Grouped(*frames)
        );
        findings.push(finding(Kind::UnreadFrames, exchange, *frames, text));
    }
    findings
}

fn finding(kind: Kind, exchange: &str, count: u64, text: String) -> Finding {
    Finding {
        exchange: exchange.to_owned(),
        symbol: None,
        kind,
        count,
        first_id: None,
        last_id: None,
        from: None,
        to: None,
        text,
    }
}
