//! When trade n happens: a monotone function of n, and its inverse.
//!
//! Counted from a fixed origin, so that a simulator that was restarted goes on where the exchange would be by
//! now. Trades are spread evenly with a jitter inside their own slot, and may be bunched: of every run of
//! trades the last few arrive together. Between two openings the market may have been closed: then its trades
//! go on where they stopped, and no id is left out.

use std::sync::Arc;
use std::time::Duration;

use super::noise;
use domain::Timestamp;

/// When every symbol's trade number 0 was due, 2020-01-01T00:00:00Z, in microseconds since 1970.
pub const MARKET_BEGAN: i64 = 1_577_836_800_000_000;
const ORIGIN_US: u64 = MARKET_BEGAN.unsigned_abs();

const JITTER: u64 = 9;

/// Bunches of trades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bursts {
    /// Trades from one burst's end to the next one's end.
    pub every: u64,
    /// How many of them arrive together.
    pub trades: u64,
    /// How long the burst lasts.
    pub within: Duration,
}

/// A time in which the whole market stood still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closure {
    /// The last moment at which there were trades.
    pub from: Timestamp,
    /// The moment after which they go on.
    pub to: Timestamp,
}

/// When a trade happens by the market's own clock, which stands still while the market is closed: in microseconds from
/// the origin, in the venue's resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    pub(super) const fn micros(self) -> u64 {
        self.0
    }
}

/// Where the market went on after it was closed.
#[derive(Debug, Clone, Copy)]
struct Opening {
    /// The last moment before.
    after: Moment,
    /// How long the market has been closed by then in all.
    closed_us: u64,
}

/// When the trades of one symbol happen.
#[derive(Debug, Clone)]
pub(super) struct Timetable {
    period_ns: u64,
    bursts: Option<Bursts>,
    openings: Arc<[Opening]>,
    resolution_us: u64,
    stream: u64,
    phase_ns: u64,
}

impl Timetable {
    /// A trade every `period_ns` on average; not zero. `None` where a closure does not follow the one before it, or
    /// is not in whole milliseconds.
    pub(super) fn new(
        period_ns: u64,
        bursts: Option<Bursts>,
        closures: &[Closure],
    ) -> Option<Self> {
        let mut closed_us = 0;
        let mut reopened_us = 0;
        let openings = closures.iter().map(|closure| {
            let (from, to) = (since_origin(closure.from)?, since_origin(closure.to)?);
            // Every venue's resolution divides a millisecond, so that no trade is rounded over the edge.
            if from < reopened_us || to <= from || from % 1_000 != 0 || to % 1_000 != 0 {
                return None;
            }
            reopened_us = to;
            let after = Moment(from - closed_us);
            closed_us += to - from;
            Some(Opening { after, closed_us })
        });
        Some(Self {
            openings: openings.collect::<Option<_>>()?,
            period_ns: period_ns.max(1),
            bursts: bursts.filter(|bursts| (1..bursts.every).contains(&bursts.trades)),
            resolution_us: 1,
            stream: 0,
            phase_ns: 0,
        })
    }

    /// The same table for one symbol: its own phase and jitter, and its venue's resolution.
    pub(super) fn for_stream(&self, stream: u64, resolution_us: u64) -> Self {
        let phase_ns = noise::hash(stream, JITTER) % self.period_ns;
        Self { stream: stream.wrapping_add(JITTER), resolution_us, phase_ns, ..self.clone() }
    }

    /// When trade `n` happens, rounded down to the venue's resolution; `None` beyond the year 2500 or so.
    pub(super) fn at(&self, n: u64) -> Option<Timestamp> {
        self.shown(self.moment(n)?)
    }

    /// When trade `n` happens by the market's own clock.
    pub(super) fn moment(&self, n: u64) -> Option<Moment> {
        let us = self.since_origin_ns(n)? / 1_000;
        Some(Moment(us - us % self.resolution_us))
    }

    /// What everybody's clock shows at a moment of the market's.
    pub(super) fn shown(&self, moment: Moment) -> Option<Timestamp> {
        let us = ORIGIN_US.checked_add(moment.0)?.checked_add(self.closed_before(moment))?;
        Timestamp::from_micros(i64::try_from(us).ok()?).ok()
    }

    /// How long the market had been closed before a moment of its own, in microseconds.
    fn closed_before(&self, moment: Moment) -> u64 {
        // Most often nothing was closed, or the moment is after the last opening.
        match self.openings.last() {
            None => 0,
            Some(last) if last.after < moment => last.closed_us,
            Some(_) => {
                let openings = self.openings.partition_point(|opening| opening.after < moment);
                self.closed_after(openings)
            }
        }
    }

    /// How long the market had been closed in all by this opening, counted from 1.
    fn closed_after(&self, openings: usize) -> u64 {
        let last = openings.checked_sub(1).and_then(|place| self.openings.get(place));
        last.map_or(0, |opening| opening.closed_us)
    }

    /// The market's own time at a time of everybody's clock, in microseconds; while it is closed, when it closed.
    fn own_time(&self, shown_us: u64) -> u64 {
        let is_past = |it: &Opening| it.after.0 + it.closed_us < shown_us;
        let openings = self.openings.partition_point(is_past);
        let open = shown_us.saturating_sub(self.closed_after(openings));
        self.openings.get(openings).map_or(open, |next| open.min(next.after.0))
    }

    /// The newest trade that is not later than `now`, where each trade has the time of its `head`.
    pub(super) fn latest(&self, now: Timestamp, head: impl Fn(u64) -> u64) -> Option<u64> {
        let due = |n: u64| self.at(head(n)).is_some_and(|at| at <= now);
        let elapsed_us = self.own_time(since_origin(now)?);
        let cycle = self.bursts.map_or(1, |bursts| bursts.every);
        let cycle_ns = u128::from(cycle) * u128::from(self.period_ns);
        let cycles = u64::try_from(u128::from(elapsed_us) * 1_000 / cycle_ns).ok()?;
        // Beside the cycle itself: a phase, the venue's resolution, and an order of up to sixteen trades.
        let blurred = 20 + 2 * self.resolution_us * 1_000 / self.period_ns;
        let mut low = (cycles * cycle).saturating_sub(cycle + blurred);
        let mut high = (cycles + 1) * cycle + cycle + blurred;
        if !due(low) {
            return None;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if due(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        Some(low)
    }

    fn since_origin_ns(&self, n: u64) -> Option<u64> {
        let Some(bursts) = self.bursts else {
            return n
                .checked_mul(self.period_ns)?
                .checked_add(self.phase_ns + self.jitter(n, self.period_ns));
        };
        let (cycle, place) = (n / bursts.every, n % bursts.every);
        let cycle_ns = bursts.every.checked_mul(self.period_ns)?;
        let calm = bursts.every - bursts.trades;
        let within = u64::try_from(bursts.within.as_nanos())
            .unwrap_or(u64::MAX)
            .min(bursts.trades * self.period_ns);
        let calm_ns = cycle_ns - within;
        let inside = if place < calm {
            let slot = calm_ns / calm;
            place * slot + self.jitter(n, slot)
        } else {
            let between = u128::from(within) * u128::from(place - calm) / u128::from(bursts.trades);
            calm_ns + u64::try_from(between).ok()?
        };
        cycle.checked_mul(cycle_ns)?.checked_add(self.phase_ns + inside)
    }

    /// Within the trade's own slot, so that no trade overtakes another.
    fn jitter(&self, n: u64, slot_ns: u64) -> u64 {
        noise::hash(self.stream, n) % slot_ns.max(1)
    }
}

fn since_origin(time: Timestamp) -> Option<u64> {
    u64::try_from(time.as_micros()).ok()?.checked_sub(ORIGIN_US)
}
