//! After a restart: strategies that remember, and the ticks that the run before had not accounted for.
//!
//! An account is stored with the arrival of the newest tick that it takes account of, and with the last tick of each
//! instrument. The stored ticks up to there are shown to fresh strategies, which then know what the old ones knew;
//! those after it, which the run before received and may have traded without living to store it, are traded now, as
//! it did or would have done. Only then come the live ones.
//!
//! What was fetched from the exchanges' history is never traded on here: nobody could have. Ticks that still wait in a
//! spool on disk are not seen: whoever starts paper trading lets the spool be stored first.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::account::Position;
use super::changes::Event;
use super::desk::{Desk, Memory};
use super::engine::Engine;
use super::error::PaperError;
use super::store::AccountStore;
use super::strategy::{Kind, Strategy, View};
use super::ticks::{LAG, TickQuery, earlier, later};
use crate::config::{PaperSettings, StrategySettings};
use crate::domain::Timestamp;

/// How long after the stored state ticks are traded again. An account is stored every few seconds while ticks come;
/// what was recorded for hours without paper trading is not made up for.
const CATCH_UP_MAX: Duration = Duration::from_secs(600);
/// How often the lookback of a strategy that is not settled is doubled.
const DOUBLINGS_MAX: u32 = 10;
const MICROSECOND: Duration = Duration::from_micros(1);

/// Brings a restored engine to where the run before was. `started_at`: ticks that arrive from then on come over the tap.
pub(super) async fn resume(
    settings: &PaperSettings,
    engine: &mut Engine,
    store: &impl AccountStore,
    started_at: Timestamp,
    events: &mut Vec<Event>,
) -> Result<(), PaperError> {
    for (desk, strategy) in engine.desks_mut().iter_mut().zip(&settings.strategies) {
        for memory in desk.memories() {
            if let Some(warm) = warm_up(strategy, &memory, store).await? {
                desk.remember(memory.instrument, warm);
            }
        }
    }
    catch_up(engine, store, started_at, events).await
}

async fn catch_up(
    engine: &mut Engine,
    store: &impl AccountStore,
    started_at: Timestamp,
    events: &mut Vec<Event>,
) -> Result<(), PaperError> {
    let (mut accounts, mut count) = (0_u64, 0_u64);
    for desk in engine.desks_mut() {
        let Some(query) = not_taken(desk, started_at) else { continue };
        let mut ticks = store.ticks(query);
        while let Some((_, tick)) = ticks.next().await? {
            desk.catch_up(&tick, events);
            count = count.saturating_add(1);
        }
        accounts += 1;
    }
    if accounts > 0 {
        info!(accounts, ticks = count, "Paper trading goes on where the run before stopped");
    }
    Ok(())
}

/// The ticks that an account may not have taken yet; `None` where it remembers nothing.
fn not_taken(desk: &Desk, started_at: Timestamp) -> Option<TickQuery> {
    let from = desk.taken_until()?;
    let until = later(from, CATCH_UP_MAX).min(started_at);
    let mut query = TickQuery::new([], from..until, true);
    // Of each instrument only what is younger than the last tick taken.
    query.instruments = desk
        .instruments()
        .map(|item| (item, desk.last_at(item).unwrap_or_else(|| earlier(from, LAG))))
        .collect();
    Some(query)
}

/// A strategy that has seen the ticks of the past, as far back as makes a difference; `None` where that is too far.
async fn warm_up(
    settings: &StrategySettings,
    memory: &Memory,
    store: &impl AccountStore,
) -> Result<Option<Box<dyn Strategy>>, PaperError> {
    let Some(kind) = Kind::named(&settings.kind) else { return Ok(None) };
    let last_at = memory.position.last_at;
    let mut lookback = kind.make(settings).lookback();
    for _ in 0..=DOUBLINGS_MAX {
        let mut from = earlier(last_at, lookback);
        // A strategy began with the account's first tick and knows nothing from before.
        let from_the_start = from <= memory.began_at;
        if from_the_start {
            from = earlier(from.min(memory.began_at), LAG);
        }
        let Some(strategy) = shown(kind.make(settings), memory, from, store).await? else {
            return Ok(None);
        };
        if strategy.is_settled() || from_the_start {
            debug!(strategy = settings.name, %memory.instrument, ?lookback, "Strategy warmed up");
            return Ok(Some(strategy));
        }
        lookback = lookback.saturating_mul(2);
    }
    warn!(
        strategy = settings.name,
        "Nothing of {} decides what the strategy knew: it warms up anew", memory.instrument
    );
    Ok(None)
}

/// Shows a strategy what the account has taken of an instrument since a time; `None` if its numbers grew too large.
async fn shown(
    mut strategy: Box<dyn Strategy>,
    memory: &Memory,
    from: Timestamp,
    store: &impl AccountStore,
) -> Result<Option<Box<dyn Strategy>>, PaperError> {
    let Memory { instrument, began_at, taken_until, position } = memory;
    let mut query = TickQuery::new([], *began_at..later(*taken_until, MICROSECOND), true);
    query.instruments = vec![(*instrument, from)];
    query.traded_before = later(position.last_at, MICROSECOND);
    let mut ticks = store.ticks(query);
    let mut seen: Option<Position> = None;
    while let Some((_, tick)) = ticks.next().await? {
        let is_old = seen.as_ref().is_some_and(|seen| seen.has_seen(&tick));
        if is_old || !position.has_seen(&tick) {
            continue;
        }
        if strategy.on_tick(&tick, &View::NOTHING).is_err() {
            return Ok(None);
        }
        seen = Some(Position::flat(&tick));
    }
    Ok(Some(strategy))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;
    use crate::paper::TickStream;
    use crate::paper::changes::Changes;
    use crate::paper::desk::StoredAccount;
    use crate::paper::testing::{at, decimal, settings};

    /// Holds accounts and no ticks; notes what is asked.
    #[derive(Debug, Default)]
    struct Asked(Mutex<Vec<TickQuery>>);

    impl AccountStore for Asked {
        async fn load(&mut self, _: &[String]) -> Result<Vec<StoredAccount>, PaperError> {
            Ok(Vec::new())
        }

        async fn write(&mut self, _: &Changes) -> Result<(), PaperError> {
            Ok(())
        }

        fn ticks(&self, query: TickQuery) -> TickStream {
            self.0.lock().unwrap().push(query);
            TickStream::of(Vec::new())
        }
    }

    fn stored(name: &str, taken_until: Timestamp) -> StoredAccount {
        StoredAccount {
            name: name.to_owned(),
            quote: "USDT".to_owned(),
            exchange: "binance".to_owned(),
            initial_cash: decimal("1000"),
            cash: decimal("1000"),
            fees: decimal("0"),
            last_order: 0,
            last_fill: 0,
            seen_at: None,
            began_at: Some(at(0)),
            taken_until: Some(taken_until),
            stopped: None,
            positions: BTreeMap::new(),
            open_orders: Vec::new(),
        }
    }

    #[tokio::test]
    async fn an_account_that_was_away_for_a_month_does_not_make_up_for_it_beside_one_that_was_not()
    {
        let mut settings = settings("sma_crossover");
        let mut other = settings.strategies[0].clone();
        other.name = "other".to_owned();
        settings.strategies.push(other);
        let month = 30 * 86_400 * 1_000_000;
        let (old, new) = (at(1_000_000), at(month));
        let accounts = vec![stored("test", old), stored("other", new)];
        let mut engine = Engine::restore(&settings, accounts).unwrap();
        let (store, mut events) = (Asked::default(), Vec::new());
        let started_at = later(new, Duration::from_secs(5));
        resume(&settings, &mut engine, &store, started_at, &mut events).await.unwrap();
        let asked: Vec<_> =
            store.0.into_inner().unwrap().into_iter().map(|query| query.arrived).collect();
        assert_eq!(asked, [old..later(old, CATCH_UP_MAX), new..started_at]);
    }
}
