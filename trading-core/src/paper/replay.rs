//! Stored ticks through paper trading again, with fresh accounts: the same ticks in the same order give the same fills.
//!
//! Nothing of the live accounts is read or changed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rust_decimal::Decimal;
use tokio::time::{Instant, sleep_until};

use super::changes::Change;
use super::engine::Engine;
use super::error::PaperError;
use super::fills::Fill;
use super::summary::Summary;
use super::ticks::TickStream;
use crate::config::PaperSettings;
use crate::domain::{Symbol, SymbolRef, Timestamp};
use crate::telemetry::Progress;

/// Ticks between two reports of the progress.
const PROGRESS_TICKS: u64 = 1_000;

/// How fast ticks are replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speed {
    /// As fast as it goes.
    Max,
    /// So many times as fast as they arrived.
    Times(Decimal),
}

/// A text that is no speed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a speed is max, or a number of times from 0.001x to 1000000x, as 1x or 10x")]
pub struct SpeedError;

impl FromStr for Speed {
    type Err = SpeedError;

    fn from_str(text: &str) -> Result<Self, SpeedError> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let times = text.strip_suffix('x').and_then(|times| Decimal::from_str_exact(times).ok());
        let allowed = Decimal::new(1, 3)..=Decimal::from(1_000_000);
        times.filter(|times| allowed.contains(times)).map(Self::Times).ok_or(SpeedError)
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max => f.write_str("max"),
            Self::Times(times) => write!(f, "{times}x"),
        }
    }
}

impl Speed {
    /// How much of the market's time goes by in this time; `None` for as much as can.
    #[must_use]
    pub fn market_time(self, time: Duration) -> Option<Duration> {
        let Self::Times(times) = self else { return None };
        let micros = Decimal::from(time.as_micros()).checked_mul(times)?;
        u64::try_from(micros.trunc()).ok().map(Duration::from_micros)
    }

    /// The replay's delay between the first tick and one that arrived at `at`.
    #[must_use]
    pub fn wait(self, first: Timestamp, at: Timestamp) -> Option<Duration> {
        let Self::Times(times) = self else { return None };
        let apart = Decimal::from(at.as_micros().saturating_sub(first.as_micros()).max(0));
        let micros = apart.checked_div(times).and_then(|micros| u64::try_from(micros.trunc()).ok());
        Some(Duration::from_micros(micros.unwrap_or(u64::MAX)))
    }
}

/// What came of a replay.
#[derive(Debug, Clone, Default)]
pub struct Replayed {
    /// Ticks replayed.
    pub ticks: u64,
    /// When the first arrived, and the last.
    pub arrived: Option<(Timestamp, Timestamp)>,
    /// How the strategies did.
    pub summary: Summary,
    /// Whether all ticks were replayed: it was not stopped before the end.
    pub is_complete: bool,
}

/// The strategies on these exchanges and symbols; all of them where none is named.
#[must_use]
pub fn narrowed(
    mut settings: PaperSettings,
    exchanges: &[String],
    symbols: &[SymbolRef],
) -> PaperSettings {
    for strategy in &mut settings.strategies {
        let exchange = strategy.exchange.as_str();
        let is_wanted =
            |symbol: &Symbol| symbols.iter().any(|it| it.means(exchange, symbol.as_str()));
        strategy.symbols.retain(|symbol| symbols.is_empty() || is_wanted(symbol));
    }
    settings.strategies.retain(|strategy| {
        let is_wanted = exchanges.is_empty() || exchanges.contains(&strategy.exchange);
        is_wanted && !strategy.symbols.is_empty()
    });
    settings
}

/// Replays ticks until they end or `stop` does. Each fill is reported with its account as it happens; when the listener
/// wants no more, the replay stops.
///
/// # Errors
///
/// When the settings are not what [`super::check`] allows, or the ticks cannot be read.
pub async fn replay(
    mut engine: Engine,
    mut ticks: TickStream,
    speed: Speed,
    progress: &Progress,
    stop: impl Future<Output = ()> + Send,
    mut on_fill: impl FnMut(&str, &Fill) -> bool + Send,
) -> Result<Replayed, PaperError> {
    let started = Instant::now();
    let mut stop = std::pin::pin!(stop);
    let mut replayed = Replayed::default();
    let mut events = Vec::new();
    'ticks: loop {
        let next = tokio::select! {
            biased;
            () = &mut stop => break,
            next = ticks.next() => next?,
        };
        let Some((at, tick)) = next else {
            replayed.is_complete = true;
            break;
        };
        let first = replayed.arrived.map_or(at, |(first, _)| first);
        if let Some(wait) = speed.wait(first, at) {
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = sleep_until(started + wait) => {}
            }
        }
        replayed.arrived = Some((first, at));
        replayed.ticks = replayed.ticks.saturating_add(1);
        // Who waits for each tick wants to see each.
        let told_after = if speed == Speed::Max { PROGRESS_TICKS } else { 1 };
        if replayed.ticks.is_multiple_of(told_after) {
            progress.advance(told_after);
        }
        engine.on_tick(&tick, &mut events);
        for event in events.drain(..) {
            if let Change::Fill(fill) = &event.change
                && !on_fill(&event.account, fill)
            {
                break 'ticks;
            }
        }
    }
    progress.advance(replayed.ticks.saturating_sub(progress.done()));
    engine.displace(ticks.displaced());
    replayed.summary = engine.summary();
    Ok(replayed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paper::testing::{at, settings, tick, walk};
    use crate::telemetry::{Total, Unit};

    fn progress() -> Progress {
        Progress::start("Replay", Unit::Of("ticks"), Total::Unknown)
    }

    #[tokio::test(start_paused = true)]
    async fn a_replay_in_real_time_stops_when_it_is_told_and_says_how_far_it_came() {
        let seconds = |n: i64| tick(n.unsigned_abs(), n * 1_000_000, "100", "1");
        let ticks = TickStream::of((5..100).map(seconds).collect());
        let engine = Engine::new(&settings("sma_crossover")).unwrap();
        let stop = tokio::time::sleep(Duration::from_millis(10_600));
        let speed = Speed::Times(2.into());
        let replayed = replay(engine, ticks, speed, &progress(), stop, |_, _| true).await.unwrap();
        // Two a second, the first at once.
        assert_eq!((replayed.ticks, replayed.is_complete), (22, false));
        assert_eq!(replayed.arrived, Some((at(5_000_000), at(26_000_000))));
    }

    #[tokio::test]
    async fn a_replay_tells_each_fill_and_ends_with_its_listener() {
        let run = async |wanted: u64| {
            let engine = Engine::new(&settings("mean_reversion")).unwrap();
            let ticks = TickStream::of(walk(7, 2_400));
            let mut told = 0;
            let on_fill = |account: &str, fill: &Fill| {
                told += 1;
                assert_eq!((account, fill.id), ("test", told));
                told < wanted
            };
            let stop = std::future::pending();
            let replayed = replay(engine, ticks, Speed::Max, &progress(), stop, on_fill).await;
            (told, replayed.unwrap())
        };
        let (told, all) = run(u64::MAX).await;
        assert_eq!(
            (told, all.is_complete, all.ticks),
            (all.summary.strategies[0].fills, true, 2_400)
        );
        assert!(told > 3, "{told} fills");
        let (told, some) = run(3).await;
        assert_eq!((told, some.is_complete), (3, false));
    }

    #[test]
    fn a_speed_is_max_or_so_many_times() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        for text in ["1x", "10x", "0.5x"] {
            assert_eq!(text.parse::<Speed>().unwrap().to_string(), text);
        }
        for text in ["", "x", "0x", "-1x", "10", "1000001x", "fast"] {
            assert_eq!(text.parse::<Speed>(), Err(SpeedError), "{text}");
        }
    }

    #[test]
    fn a_tick_waits_for_its_time_divided_by_the_speed() {
        let wait =
            |speed: &str, micros| speed.parse::<Speed>().unwrap().wait(at(1_000), at(micros));
        assert_eq!(wait("max", 5_000), None);
        assert_eq!(wait("1x", 5_000), Some(Duration::from_micros(4_000)));
        assert_eq!(wait("10x", 5_000), Some(Duration::from_micros(400)));
        assert_eq!(wait("0.5x", 5_000), Some(Duration::from_micros(8_000)));
        assert_eq!(wait("1x", 500), Some(Duration::ZERO));
        let minute = Duration::from_secs(60);
        assert_eq!(Speed::Times(2.into()).market_time(minute), Some(2 * minute));
        assert_eq!(Speed::Max.market_time(minute), None);
    }

    #[test]
    fn strategies_without_a_wanted_symbol_do_not_take_part() {
        let asked = |text: &str| text.parse::<SymbolRef>().unwrap();
        let narrow = |exchanges: &[&str], symbols: &[SymbolRef]| {
            let exchanges: Vec<String> = exchanges.iter().map(ToString::to_string).collect();
            let strategies = narrowed(settings("sma_crossover"), &exchanges, symbols).strategies;
            strategies.into_iter().map(|strategy| strategy.symbols.len()).collect::<Vec<_>>()
        };
        assert_eq!(narrow(&[], &[]), [2]);
        assert_eq!(narrow(&["binance"], &[asked("BTCUSDT")]), [1]);
        assert_eq!(narrow(&[], &[asked("binance:BTC-USDT"), asked("okx:ETHUSDT")]), [1]);
        assert_eq!(narrow(&[], &[asked("okx:BTC-USDT")]), [0_usize; 0]);
        assert_eq!(narrow(&["okx"], &[]), [0_usize; 0]);
        assert_eq!(narrow(&[], &[asked("SOLUSDT")]), [0_usize; 0]);
    }
}
