//! Which symbol has fallen silent while its connection lives, judged by its own recent rate.
//!
//! Pure: trades and the time are arguments. A symbol that is silent for far longer than its rate explains is
//! subscribed anew; for one that stays silent then, and is not merely quiet, another connection is opened. Each alarm that changed
//! nothing doubles the symbol's patience, so a market that went quiet is left alone. What exchanges send again after
//! subscribing is no sign of life: only a trade is that is younger than all before, or that no connection brought yet.

use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use crate::domain::{Instrument, Tick, Timestamp};

/// Silences this many times the mean are not explained by the rate: trades come in clusters.
const UNEXPLAINED: u32 = 50;
/// Moments of trade that must be known before a rate is believed.
const KNOWN_MIN: u32 = 16;
/// The weight of the newest interval in the mean is one of this many.
const SMOOTHING: u32 = 32;
/// A trade within this after subscribing anew: that was the cure, and the alarm was right.
const CURED_MAX: Duration = Duration::from_secs(10);
/// A stamp counts for at most this much more than its receipt.
const STAMP_AHEAD_MAX: Duration = Duration::from_secs(2);
/// After this many moments of trade without an alarm the symbol is judged as at first.
const FORGIVEN: u32 = 256;

/// When silence is called one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LivenessRules {
    /// Trades of one symbol that are closer than this are one moment: a burst says nothing of the time between.
    pub apart: Duration,
    /// A shorter silence is none.
    pub silence_min: Duration,
    /// No alarm doubles patience beyond this; where it is reached, no other connection is opened any more.
    pub patience_max: Duration,
    /// Warn once when a confirmed symbol has not traded for this long.
    pub first_trade_max: Duration,
}

impl Default for LivenessRules {
    fn default() -> Self {
        Self {
            apart: Duration::from_secs(1),
            silence_min: Duration::from_secs(30),
            patience_max: Duration::from_hours(1),
            first_trade_max: Duration::from_mins(1),
        }
    }
}

/// What to do about a silent symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alarm {
    /// Subscribe it anew: for how long it has been silent, and its mean time between trades.
    Silent(Instrument, Duration, Duration),
    /// Subscribe it anew, once: it was acknowledged and never traded.
    NeverTraded(Instrument),
    /// Open another connection: subscribing anew did not help.
    Incurable(Instrument, Duration),
}

/// The symbols of one connection; what is known of their rates is handed on to the next.
#[derive(Debug, Clone)]
pub(super) struct Liveness {
    rules: LivenessRules,
    symbols: FxHashMap<Instrument, Rate>,
    /// Time in which we did not read, and nobody was silent.
    blocked: Duration,
    /// Whether any symbol traded on this connection.
    is_heard: bool,
}

/// One symbol's rate, and how it is judged.
#[derive(Debug, Default, Clone)]
struct Rate {
    /// The exchange's time of the youngest trade.
    newest: Option<Timestamp>,
    /// Since when it is awaited on this connection; `None`: it is not subscribed.
    awaited: Option<Instant>,
    /// The last moment of trade on this connection.
    traded: Option<Instant>,
    /// Between two moments of trade.
    mean: Duration,
    moments: u32,
    /// Alarms that changed nothing.
    doublings: u32,
    /// Moments since the last of them.
    calm: u32,
    /// When it was subscribed anew, and how long it has from then on.
    asked: Option<(Instant, Duration)>,
    /// Whether any trade of it has come.
    has_traded: bool,
    /// It has been logged that it never traded.
    is_reported: bool,
}

impl Liveness {
    pub(super) fn new(rules: LivenessRules) -> Self {
        Self { rules, symbols: FxHashMap::default(), blocked: Duration::ZERO, is_heard: false }
    }

    /// A new connection begins: no symbol is awaited yet.
    pub(super) fn begin(&mut self) {
        self.is_heard = false;
        self.blocked = Duration::ZERO;
        for rate in self.symbols.values_mut() {
            (rate.awaited, rate.traded, rate.asked) = (None, None, None);
        }
    }

    /// Time went by in which we did not read.
    pub(super) fn excuse(&mut self, blocked: Duration) {
        self.blocked += blocked;
    }

    /// The time on a clock that stops while we do not read.
    fn clock(&self, now: Instant) -> Instant {
        now.checked_sub(self.blocked).unwrap_or(now)
    }

    /// The exchange has confirmed a symbol.
    pub(super) fn record_confirmed(&mut self, instrument: Instrument, now: Instant) {
        let now = self.clock(now);
        self.symbols.entry(instrument).or_default().awaited.get_or_insert(now);
    }

    /// Whether it was logged of a symbol that it never traded, and it has not since.
    pub(super) fn is_doubted(&self, instrument: Instrument) -> bool {
        self.symbols.get(&instrument).is_some_and(|rate| rate.is_reported && !rate.has_traded)
    }

    /// A trade came, perhaps once more: it is a sign of life when it is younger than all before. Whether it is.
    pub(super) fn record_trade(&mut self, tick: &Tick, now: Instant) -> bool {
        // A stamp of the future must not make those after it look old.
        let at = tick.exchange_at.min(tick.received_at + STAMP_AHEAD_MAX);
        let rate = self.symbols.entry(tick.instrument).or_default();
        let is_younger = rate.newest < Some(at);
        if is_younger {
            rate.newest = Some(at);
            self.record_new(tick.instrument, now);
        }
        is_younger
    }

    /// A trade came that no connection had brought before: a sign of life, whatever its stamp.
    pub(super) fn record_new(&mut self, instrument: Instrument, now: Instant) {
        let now = self.clock(now);
        self.is_heard = true;
        self.symbols.entry(instrument).or_default().record(now, self.rules.apart);
    }

    /// What to do now, one thing at a time. `quiet`: how long ago the last frame of any kind came.
    pub(super) fn check(&mut self, now: Instant, quiet: Duration) -> Option<Alarm> {
        // A connection that brings nothing at all is judged as a whole.
        if quiet > self.rules.silence_min / 3 {
            return None;
        }
        let (now, rules, is_heard) = (self.clock(now), self.rules, self.is_heard);
        self.symbols
            .iter_mut()
            .find_map(|(instrument, rate)| rate.check(*instrument, now, rules, is_heard))
    }
}

impl Rate {
    fn record(&mut self, now: Instant, apart: Duration) {
        self.has_traded = true;
        if let Some((asked, _)) = self.asked.take()
            && now < asked + CURED_MAX
        {
            self.doublings = self.doublings.saturating_sub(1);
            // The silence was not the market's.
            self.traded = None;
        }
        let interval = self.traded.map(|traded| now.saturating_duration_since(traded));
        if interval.is_some_and(|interval| interval < apart) {
            return;
        }
        self.traded = Some(now);
        // The first trade of a connection ends no interval that was wholly listened to.
        if let Some(interval) = interval {
            self.moments = self.moments.saturating_add(1);
            let weight = self.moments.min(SMOOTHING);
            self.mean = self.mean.saturating_sub(self.mean / weight) + interval / weight;
            self.calm += u32::from(self.doublings > 0);
            if self.calm >= FORGIVEN {
                (self.doublings, self.calm) = (0, 0);
            }
        }
    }

    fn check(
        &mut self,
        instrument: Instrument,
        now: Instant,
        rules: LivenessRules,
        is_heard: bool,
    ) -> Option<Alarm> {
        let since = self.traded.max(self.awaited).filter(|_| self.awaited.is_some())?;
        let silence = now.saturating_duration_since(since);
        if let Some((asked, patience)) = self.asked {
            if now < asked + patience {
                return None;
            }
            self.asked = None;
            // Asked again in time, but no more is risked for it.
            self.awaited = Some(now);
            self.traded = None;
            let is_quiet = patience >= rules.patience_max;
            return (!is_quiet).then_some(Alarm::Incurable(instrument, silence));
        }
        if !self.has_traded {
            let is_late = is_heard && !self.is_reported && silence >= rules.first_trade_max;
            self.is_reported |= is_late;
            return is_late.then_some(Alarm::NeverTraded(instrument));
        }
        let patience = self.patience(rules);
        if self.moments < KNOWN_MIN || silence < patience {
            return None;
        }
        self.asked = Some((now, patience));
        self.doublings += 1;
        self.calm = 0;
        Some(Alarm::Silent(instrument, silence, self.mean))
    }

    /// The silence that is not explained.
    fn patience(&self, rules: LivenessRules) -> Duration {
        let unexplained = rules.silence_min.max(self.mean.saturating_mul(UNEXPLAINED));
        let doubled = unexplained.saturating_mul(2_u32.saturating_pow(self.doublings));
        unexplained.max(doubled.min(rules.patience_max))
    }
}

#[cfg(test)]
mod tests;
