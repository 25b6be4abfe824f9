//! Many strategies side by side over the same ticks, each with an account of its own.
//!
//! Pure: the same ticks in the same order give the same events, however they are cut into chunks. An account
//! whose numbers would no longer be exact is stopped with a reason; the others trade on. A tick older than one
//! already seen of its instrument (a gap that was repaired) is left out and counted: nobody could have traded on it.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::changes::Event;
use super::desk::{Book, Desk, StoredAccount};
use super::error::PaperError;
use super::fills::Terms;
use super::strategy::{Kind, check};
use super::summary::Summary;
use crate::config::{PaperSettings, StrategySettings};
use crate::domain::{Instrument, Tick, Timestamp};

/// The strategies and their accounts.
#[derive(Debug)]
pub struct Engine {
    desks: Vec<Desk>,
    routes: FxHashMap<Instrument, Vec<usize>>,
    missed: u64,
    displaced: u64,
}

impl Engine {
    /// The strategies of the settings, each with its cash and nothing else.
    ///
    /// # Errors
    ///
    /// When the settings are not what [`check`] allows.
    pub fn new(settings: &PaperSettings) -> Result<Self, PaperError> {
        let problems = check(settings);
        if !problems.is_empty() {
            return Err(PaperError::Settings(problems));
        }
        let interval = i64::try_from(settings.equity_interval.as_micros()).unwrap_or(i64::MAX);
        settings
            .strategies
            .iter()
            .map(|strategy| desk(strategy, interval))
            .collect::<Result<_, _>>()
            .map(Self::of)
    }

    /// The strategies of the settings, with their accounts as they were stored. Their strategies
    /// know nothing yet; accounts without a strategy are left alone.
    ///
    /// # Errors
    ///
    /// When the settings are not what [`check`] allows, or give a stored account another exchange or currency.
    pub fn restore(
        settings: &PaperSettings,
        stored: Vec<StoredAccount>,
    ) -> Result<Self, PaperError> {
        let mut engine = Self::new(settings)?;
        for account in stored {
            if let Some(desk) = engine.desks.iter_mut().find(|desk| *desk.name == *account.name) {
                desk.restore(account)?;
            }
        }
        Ok(engine)
    }

    pub(super) fn of(desks: Vec<Desk>) -> Self {
        let mut routes = FxHashMap::<Instrument, Vec<usize>>::default();
        for (number, desk) in desks.iter().enumerate() {
            for instrument in desk.instruments() {
                routes.entry(instrument).or_default().push(number);
            }
        }
        Self { desks, routes, missed: 0, displaced: 0 }
    }

    /// Takes the next tick; what it caused is appended to `events`.
    pub fn on_tick(&mut self, tick: &Tick, events: &mut Vec<Event>) {
        self.each(tick.instrument, |desk| desk.on_tick(tick, events));
    }

    /// What the strategies trade, in order.
    #[must_use]
    pub fn instruments(&self) -> Vec<Instrument> {
        let mut instruments: Vec<Instrument> = self.routes.keys().copied().collect();
        instruments.sort_unstable();
        instruments
    }

    /// Whether some strategy trades this instrument.
    #[must_use]
    pub fn trades(&self, instrument: Instrument) -> bool {
        self.routes.contains_key(&instrument)
    }

    /// Counts a tick that nobody could have traded on, as it was fetched afterwards.
    pub fn leave_out(&mut self, tick: &Tick) {
        self.each(tick.instrument, Desk::leave_out);
    }

    /// Accounts that remember nothing begin to take ticks; each says so.
    pub(super) fn begin(&mut self, now: Timestamp, events: &mut Vec<Event>) {
        self.desks.iter_mut().for_each(|desk| desk.begin(now, events));
    }

    pub(super) fn desks_mut(&mut self) -> &mut [Desk] {
        &mut self.desks
    }

    fn each(&mut self, instrument: Instrument, mut act: impl FnMut(&mut Desk)) {
        for number in self.routes.get(&instrument).into_iter().flatten() {
            if let Some(desk) = self.desks.get_mut(*number) {
                act(desk);
            }
        }
    }

    /// Takes note that ticks were missed before the next one.
    pub fn miss(&mut self, ticks: u64) {
        self.missed = self.missed.saturating_add(ticks);
    }

    /// Notes how many ticks since the start came too late for their place in the order of arrival.
    pub const fn displace(&mut self, ticks: u64) {
        self.displaced = ticks;
    }

    /// Takes note of the end: the last point of each equity curve.
    pub fn finish(&mut self, events: &mut Vec<Event>) {
        for desk in &mut self.desks {
            desk.finish(events);
        }
    }

    /// How the strategies do.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            strategies: self.desks.iter().map(Desk::summary).collect(),
            missed: self.missed,
            displaced: self.displaced,
        }
    }
}

fn desk(settings: &StrategySettings, equity_interval_micros: i64) -> Result<Desk, PaperError> {
    let (Some(kind), Some(symbol)) = (Kind::named(&settings.kind), settings.symbols.first()) else {
        return Err(PaperError::Settings(Vec::new()));
    };
    let mut books = BTreeMap::new();
    for symbol in &settings.symbols {
        let instrument = Instrument::intern(&settings.exchange, symbol)?;
        books.insert(instrument, Book::new(kind.make(settings)));
    }
    let terms = Terms {
        fee_rate: settings.fee_rate,
        slippage: settings.slippage,
        position_limit: settings.position_limit,
    };
    Ok(Desk::new(
        (&settings.name, kind.name),
        (&settings.exchange, symbol.quote()),
        terms,
        settings.cash,
        equity_interval_micros,
        books,
    ))
}
