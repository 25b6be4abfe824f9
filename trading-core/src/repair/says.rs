//! What the log says of repairs: a line of a gap, and one of all of them where many are done at once. Everything is said,
//! after ten seconds at the latest.

use std::fmt::Display;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use rustc_hash::FxHashSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::domain::{GapPart, GapStatus, IdSet, Instrument, OpenGap, lock};
use crate::telemetry::Lasting;

/// While gap follows gap, what came of them is said so often.
const INTERVAL: Duration = Duration::from_secs(10);

/// The lines of repair at one exchange.
#[derive(Debug, Default)]
pub(super) struct Says {
    settled: Mutex<Settled>,
}

/// What came of the gaps since it was said last.
#[derive(Debug, Default)]
struct Settled {
    repaired: Tally,
    not_a_loss: Tally,
    unrecoverable: Tally,
    postponed: Tally,
    /// Gaps that nobody had noticed.
    found: Tally,
    since: Option<Instant>,
    /// When it was said last that gaps are not repaired yet.
    postponed_said_at: Option<Instant>,
    /// Gaps that somebody works on.
    worked_on: usize,
}

/// Gaps that ended in the same way.
#[derive(Debug, Default)]
struct Tally {
    /// What is said of the first of them.
    first: String,
    gaps: usize,
    trades: usize,
    /// Whether one of them was known by its ids: then something had been missing.
    has_ids: bool,
    symbols: FxHashSet<Instrument>,
}

impl Tally {
    fn add(&mut self, gap: &OpenGap, trades: usize, line: String) {
        self.count(gap.instrument, gap.ids.is_some(), trades, line);
    }

    fn count(&mut self, instrument: Instrument, has_ids: bool, trades: usize, line: String) {
        if self.gaps == 0 {
            self.first = line;
        }
        self.gaps += 1;
        self.trades = self.trades.saturating_add(trades);
        self.has_ids |= has_ids;
        self.symbols.insert(instrument);
    }

    /// How many gaps these are, and whose.
    fn whose(&self) -> String {
        let (gaps, symbols) = (self.gaps, self.symbols.len());
        let one = self.symbols.iter().next();
        let exchange = one.map_or("", |one| one.exchange());
        match one.filter(|_| symbols == 1) {
            Some(instrument) => format!("{gaps} of {instrument}"),
            None if symbols == gaps => format!("{symbols} symbols of {exchange}"),
            None => format!("{gaps} of {symbols} symbols of {exchange}"),
        }
    }

    /// Whose gaps these are.
    fn symbols(&self) -> String {
        match (self.symbols.len(), self.symbols.iter().next()) {
            (1, Some(instrument)) => instrument.to_string(),
            (symbols, one) => {
                format!("{symbols} symbols of {}", one.map_or("", |one| one.exchange()))
            }
        }
    }

    /// Why nothing had to be fetched.
    const fn why_nothing(&self) -> &'static str {
        if self.has_ids {
            "stored meanwhile, by another recorder or connection or from the spool"
        } else {
            "nothing is missing"
        }
    }
}

impl Says {
    /// What came of a gap. It is said when [`Says::tell`] is called, and at last after some seconds.
    pub(super) fn settled(&self, gap: &OpenGap, parts: &[GapPart], ticks: usize, took: Duration) {
        let now = Instant::now();
        self.lock().note(now, |settled| settled.add(gap, parts, ticks, took));
    }

    /// Somebody begins to work on a gap.
    pub(super) fn begin(&self) {
        self.lock().worked_on += 1;
    }

    /// The work on a gap has ended, whatever came of it.
    pub(super) fn end(&self) {
        let mut settled = self.lock();
        settled.worked_on = settled.worked_on.saturating_sub(1);
    }

    /// No gap is due: says what came of those before, where nobody works on another one.
    pub(super) fn tell(&self) {
        let mut settled = self.lock();
        if settled.worked_on == 0 {
            settled.say(Instant::now());
        } else {
            settled.say_due(Instant::now());
        }
    }

    /// Says all, at the end.
    pub(super) fn tell_rest(&self) {
        let mut settled = self.lock();
        settled.postponed_said_at = None;
        settled.say(Instant::now());
    }

    /// Says what has waited long enough, whoever works. Called from time to time: a gap may take minutes, and what came
    /// of those before must not wait for it.
    pub(super) fn tell_due(&self) {
        self.lock().say_due(Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, Settled> {
        lock(&self.settled)
    }

    /// An attempt that came to nothing.
    pub(super) fn postponed(&self, gap: &OpenGap, note: &str, retry_in: Duration) {
        let line = format!("{gap}: {note}; again in {}", Lasting(retry_in));
        self.lock().note(Instant::now(), |settled| settled.postponed.add(gap, 0, line));
    }

    /// Gaps that nobody had noticed.
    pub(super) fn found(&self, instrument: Instrument, ids: &IdSet) {
        let Some((first, last)) = ids.bounds().map(|ids| (ids.first(), ids.last())) else { return };
        let trades = ids.len();
        let line = format!("{instrument} {trades} trades of ids {first} to {last}");
        let trades = usize::try_from(trades).unwrap_or(usize::MAX);
        let add = |settled: &mut Settled| settled.found.count(instrument, true, trades, line);
        self.lock().note(Instant::now(), add);
    }
}

impl Settled {
    /// Notes something, and says all where the first of it has waited long enough.
    fn note(&mut self, now: Instant, add: impl FnOnce(&mut Self)) {
        self.since.get_or_insert(now);
        add(self);
        self.say_due(now);
    }

    fn say_due(&mut self, now: Instant) {
        if self.since.is_some_and(|since| now.saturating_duration_since(since) >= INTERVAL) {
            self.say(now);
        }
    }

    fn add(&mut self, gap: &OpenGap, parts: &[GapPart], ticks: usize, took: Duration) {
        let instrument = gap.instrument;
        let of = |status: GapStatus| parts.iter().filter(move |part| part.status == status);
        if let Some(all) = hull(of(GapStatus::Repaired)) {
            let line = format!("{instrument} {all}, {ticks} trades in {}", Lasting(took));
            self.repaired.add(gap, ticks, line);
            if ticks == 0 && self.repaired.gaps == 1 {
                let why = self.repaired.why_nothing();
                self.repaired.first = format!("{instrument} {all}: {why}");
            }
        }
        if let Some(first) = of(GapStatus::NotALoss).next() {
            let others = Others(of(GapStatus::NotALoss).count() - 1);
            let line = format!("{instrument} {first}{others}");
            self.not_a_loss.add(gap, 0, line);
        }
        if let Some(first) = of(GapStatus::Unrecoverable).next() {
            let others = Others(of(GapStatus::Unrecoverable).count() - 1);
            let note = first.note.as_deref().unwrap_or_default();
            let line = format!("{instrument} {first}{others}: {note}");
            self.unrecoverable.add(gap, 0, line);
        }
    }

    /// One line of each kind, and begins anew. Gaps that are tried again and again are told more seldom than they are tried.
    fn say(&mut self, now: Instant) {
        let said_at = self.postponed_said_at;
        let is_early = said_at.is_some_and(|at| now.saturating_duration_since(at) < INTERVAL);
        let mut rest = Self {
            worked_on: self.worked_on,
            postponed_said_at: self.postponed_said_at,
            ..Self::default()
        };
        if self.postponed.gaps > 0 {
            if is_early {
                rest.postponed = std::mem::take(&mut self.postponed);
                rest.since = said_at;
            } else {
                rest.postponed_said_at = Some(now);
            }
        }
        let done = std::mem::replace(self, rest);
        let Self { repaired, not_a_loss, since, .. } = &done;
        let took = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        match repaired.gaps {
            0 => {}
            1 => info!("Gap repaired: {}", repaired.first),
            _ if repaired.trades == 0 => {
                info!("Gaps repaired: {}: {}", repaired.whose(), repaired.why_nothing());
            }
            _ => info!(
                "Gaps repaired: {}, {} trades in {}",
                repaired.whose(),
                repaired.trades,
                Lasting(took)
            ),
        }
        match not_a_loss.gaps {
            0 => {}
            1 => info!("Gap is no loss: {}, never issued", not_a_loss.first),
            _ => info!("Gaps are no loss: {}, never issued", not_a_loss.whose()),
        }
        done.warn();
    }

    /// What an operator may have to look at.
    fn warn(&self) {
        let Self { unrecoverable, postponed, found, .. } = self;
        let first = &unrecoverable.first;
        match unrecoverable.gaps {
            0 => {}
            1 => warn!("Gap unrecoverable: {first}"),
            _ => warn!("Gaps unrecoverable: {}, such as {first}", unrecoverable.whose()),
        }
        let first = &postponed.first;
        match postponed.gaps {
            0 => {}
            1 => warn!("Gap not repaired yet: {first}"),
            _ => warn!("Gaps not repaired yet: {}, such as {first}", postponed.whose()),
        }
        let (first, trades) = (&found.first, found.trades);
        match found.gaps {
            0 => {}
            1 => warn!("Missing in the database: {first}"),
            _ => warn!(
                "Missing in the database: {trades} trades of {}, such as {first}",
                found.symbols()
            ),
        }
    }
}

/// From the first to the last of these parts.
fn hull<'a>(parts: impl Iterator<Item = &'a GapPart>) -> Option<GapPart> {
    parts.cloned().reduce(|mut all, part| {
        all.ids = all.ids.zip(part.ids).map(|(one, two)| one.hull(two));
        all.times.to = part.times.to;
        all
    })
}

/// The number of other parts, where there are any.
struct Others(usize);

impl Display for Others {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => Ok(()),
            others => write!(f, " and {others} other parts"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;
    use crate::domain::{IdRange, TimeRange, Timestamp};

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The lines that are said meanwhile.
    fn said(say: impl FnOnce()) -> Vec<String> {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, say);
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000).unwrap()
    }

    fn gap(symbol: u64) -> OpenGap {
        let name = format!("COIN{symbol}USDT").parse().unwrap();
        let instrument = Instrument::intern("binance", &name).unwrap();
        let (ids, times) = (IdRange::new(5, 7), TimeRange::new(at(1), at(2)));
        OpenGap { id: 1, instrument, ids, times, attempts: 0, age: Duration::ZERO }
    }

    fn lost() -> GapPart {
        let note = Some("the exchange no longer has it".to_owned());
        let status = GapStatus::Unrecoverable;
        let (ids, times) = (IdRange::new(5, 7), TimeRange::new(at(1), at(2)));
        GapPart { ids, times, status, note, attempts: 0 }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_missing_and_what_is_not_repaired_yet_is_told_of_all_symbols_together() {
        let says = Says::default();
        let begin = said(|| {
            for symbol in 0..10 {
                let ids: IdSet = IdRange::between(5, 5 + symbol).into();
                says.found(gap(symbol).instrument, &ids);
                says.postponed(&gap(symbol), "it did not answer", Duration::from_secs(2));
            }
        });
        assert!(begin.is_empty(), "{begin:?}");
        let [postponed, found] = <[String; 2]>::try_from(said(|| says.tell())).unwrap();
        assert!(
            postponed.starts_with(
                "WARN Gaps not repaired yet: 10 symbols of binance, such as binance:COIN0USDT "
            ),
            "{postponed}"
        );
        assert!(postponed.ends_with(": it did not answer; again in 2s"), "{postponed}");
        let all =
            "55 trades of 10 symbols of binance, such as binance:COIN0USDT 1 trades of ids 5 to 5";
        assert_eq!(found, format!("WARN Missing in the database: {all}"));

        // Tried again at once, it is told when the interval is over.
        says.postponed(&gap(3), "it did not answer", Duration::from_secs(2));
        assert!(said(|| says.tell()).is_empty());
        tokio::time::sleep(INTERVAL).await;
        let later = said(|| says.tell_due());
        assert!(later[0].starts_with("WARN Gap not repaired yet: binance:COIN3USDT "), "{later:?}");
        says.postponed(&gap(4), "it did not answer", Duration::from_secs(2));
        assert_eq!(said(|| says.tell_rest()).len(), 1, "and at the end at once");
        assert!(said(|| says.tell_rest()).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_lost_is_told_in_ten_seconds_though_somebody_works_on() {
        let says = Says::default();
        says.begin();
        says.begin();
        let settle = || says.settled(&gap(1), &[lost()], 0, Duration::ZERO);
        assert!(said(settle).is_empty());
        says.end();
        assert!(said(|| says.tell()).is_empty());
        tokio::time::sleep(INTERVAL).await;
        let told = said(|| says.tell_due());
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("WARN Gap unrecoverable: binance:COIN1USDT "), "{told:?}");
        assert!(said(|| says.tell_due()).is_empty());
    }
}
