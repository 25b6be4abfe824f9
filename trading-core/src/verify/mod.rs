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
//! - Each live row was received while a session of its exchange carried its symbol.
//!
//! Not promised: what came before the first stored trade or after the last, and that a stored price is the exchange's;
//! for that there are the exchange's own candles. It locks nothing that recording needs, and the newest seconds, in which
//! trades may still be on their way between two writers, can be left out.

mod candles;
mod closer;
mod coverage;
mod error;
mod gaps;
mod ids;
mod judge;
mod read;
mod report;
mod snapshot;
mod tally;

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, TryStreamExt as _};
use sqlx::PgPool;
use tokio::time::Instant;

pub use candles::{Comparison, compare};
pub use error::VerifyError;
pub use report::{Finding, Kind, Missing, Quarantined, Report, SymbolReport};

use crate::domain::{Symbol, Timestamp};
use crate::exchange::{self, Exchange, IdRule};
use crate::telemetry::Progress;

use gaps::GapRow;
use judge::{Evidence, Window, judge};
use read::Key;
use report::{Findings, grouped};
use snapshot::Snapshot;
use tally::Tally;

/// Bytes of a page of PostgreSQL, as nearly every server is built; for progress only.
const PAGE_BYTES: u64 = 8_192;
const MIB: u64 = 1_024 * 1_024;

/// What is to be proven.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Only these exchanges; empty: all.
    pub exchanges: Vec<String>,
    /// Only these symbols; empty: all.
    pub symbols: Vec<Symbol>,
    /// From here on; `None`: from the first row.
    pub from: Option<Timestamp>,
    /// Up to here, excluded.
    pub to: Timestamp,
    /// How many of the newest seconds `to` leaves out; `None`: none, or the end was given. Only told.
    pub settle_seconds: Option<u64>,
}

impl Scope {
    fn exchange_names(&self) -> Option<&[String]> {
        (!self.exchanges.is_empty()).then_some(self.exchanges.as_slice())
    }

    fn symbol_names(&self) -> Option<Vec<&str>> {
        let names = || self.symbols.iter().map(Symbol::as_str).collect();
        (!self.symbols.is_empty()).then(names)
    }
}

/// Whether a recorder runs: a connection stands, and its recorder gave a sign of life within the last minute.
///
/// # Errors
///
/// As [`verify`].
pub async fn is_recording(pool: &PgPool) -> Result<bool, VerifyError> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM feed_sessions WHERE ended_at IS NULL AND seen_at > now() - interval '1 minute')",
    )
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
    let small = Small::read(&snapshot, scope).await?;
    let days = read::days(&snapshot, scope).await?;
    let tallies = first_look(&snapshot, &days, scope, &small, looks).await?;
    let rows = tallies.values().map(|tally| tally.rows).sum();
    let begin = days.first().map_or(Timestamp::EPOCH, read::Day::begin);
    let window = Window { from: scope.from.unwrap_or(begin), to: scope.to };

    let mut report = Report {
        complete: false,
        from: scope.from,
        to: scope.to,
        settle_seconds: scope.settle_seconds,
        rows,
        days: u64::try_from(days.len()).unwrap_or(u64::MAX),
        open_sessions: small.open_sessions,
        symbols: Vec::new(),
        quarantined: Vec::new(),
        counts: BTreeMap::new(),
        findings: Vec::new(),
        findings_not_listed: 0,
        seconds: 0.0,
    };
    let mut findings = Findings::of_all();
    findings.append(unread_frames(&small.quarantined));
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
    for (exchange, frames) in symbols.quarantined {
        report.quarantined.push(Quarantined { exchange, frames });
    }
    if rows == 0 {
        findings.push(finding(
            Kind::NothingStored,
            "",
            1,
            "nothing is stored of what was asked for".to_owned(),
        ));
    }
    report.tell(findings);
    report.seconds = since.elapsed().as_secs_f64();
    Ok(report)
}

/// What the ticks are held against.
struct Small {
    sessions: BTreeMap<Key, coverage::Coverage>,
    gaps: BTreeMap<Key, Vec<GapRow>>,
    rejected: BTreeMap<Key, (u64, Vec<u64>)>,
    quarantined: Vec<(String, u64)>,
    open_sessions: u64,
}

impl Small {
    async fn read(snapshot: &Snapshot, scope: &Scope) -> Result<Self, VerifyError> {
        let mut look = snapshot.look().await?;
        Ok(Self {
            sessions: read::sessions(&mut look, scope).await?,
            gaps: read::gaps(&mut look, scope).await?,
            rejected: read::rejected(&mut look, scope).await?,
            quarantined: read::quarantined(&mut look, scope).await?,
            open_sessions: read::open_sessions(&mut look).await?,
        })
    }
}

/// What the ids of an exchange prove; of one that is not known, nothing.
fn rule(exchange: &str) -> IdRule {
    exchange::by_name(exchange).map_or(IdRule::Unique, Exchange::ids)
}

async fn first_look(
    snapshot: &Snapshot,
    days: &[read::Day],
    scope: &Scope,
    small: &Small,
    looks: usize,
) -> Result<BTreeMap<Key, Tally>, VerifyError> {
    let counting = exchange::all().into_iter().filter(|it| it.ids() == IdRule::Consecutive);
    let consecutive: Vec<&str> = counting.map(Exchange::name).collect();
    let parts = read::parts(days, scope);
    let mib = |pages: u64| pages * PAGE_BYTES / MIB;
    let total = parts.iter().map(|part| mib(part.pages())).sum();
    let progress = Progress::start("Reading the ticks", "MiB", Some(total));
    let consecutive = consecutive.as_slice();
    let mut reading = futures_util::stream::iter(parts)
        .map(|part| async move {
            let groups = read::part(snapshot, part, scope, consecutive).await?;
            Ok::<_, VerifyError>((mib(part.pages()), groups))
        })
        .buffer_unordered(looks.max(1));
    let mut tallies: BTreeMap<Key, Tally> = BTreeMap::new();
    while let Some((mib, groups)) = reading.try_next().await? {
        for group in groups {
            let key = (group.exchange.clone(), group.symbol.clone());
            let tally = tallies.entry(key).or_insert_with_key(|key| {
                Tally::new(rule(&key.0), small.sessions.get(key).cloned().unwrap_or_default())
            });
            tally.add(&group);
        }
        progress.advance(mib);
    }
    progress.finish();
    // A symbol of which only gaps are known has its say too.
    for key in small.gaps.keys() {
        tallies.entry(key.clone()).or_insert_with(|| {
            Tally::new(rule(&key.0), small.sessions.get(key).cloned().unwrap_or_default())
        });
    }
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
    let total = u64::try_from(tallies.len()).unwrap_or(u64::MAX);
    let progress = Progress::start("Looking closer", "symbols", Some(total));
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
    (rejected, rejected_ids): (u64, Vec<u64>),
) -> Result<Evidence, VerifyError> {
    let against_time = closer::against_time(snapshot, &key, &mut tally, scope).await?;
    let (doubled_rows, doubled) = closer::doubled(snapshot, &key, &tally, scope).await?;
    let odd_ids = closer::odd_ids(snapshot, &key, &tally, scope).await?;
    let out_of_domain = closer::out_of_domain(snapshot, &key, &tally, scope).await?;
    let out_of_session = closer::out_of_session(snapshot, &key, &tally, scope).await?;
    let (exchange, symbol) = key;
    Ok(Evidence {
        exchange,
        symbol,
        rule: tally.rule,
        rows: tally.rows,
        at: tally.at,
        ids: tally.ids,
        doubled_rows,
        doubled,
        against_time,
        odd_ids,
        out_of_domain,
        out_of_session,
        coverage: tally.coverage,
        gaps,
        rejected,
        rejected_ids,
    })
}

/// Where ids prove nothing, nobody knows what was in a frame that could not be read.
fn unread_frames(quarantined: &[(String, u64)]) -> Findings {
    let mut findings = Findings::of_one();
    for (exchange, frames) in quarantined.iter().filter(|(name, _)| rule(name) == IdRule::Unique) {
        let text = format!(
            "{} frames could not be read, and ids do not tell whether trades were in them: see quarantined_frames",
            grouped(*frames)
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
