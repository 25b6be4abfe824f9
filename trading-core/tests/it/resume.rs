//! Paper trading that dies at any write, again and again, ends where it would have ended without: the same fills,
//! orders, positions and equity, in a real PostgreSQL.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use trading_core::config::{PaperSettings, StrategySettings};
use trading_core::domain::testing::tick;
use trading_core::domain::{Instrument, Source, Tick, Timestamp, TradeId};
use trading_core::paper::{
    self, AccountStore, Changes, Engine, Fill, PaperError, PgStore, StoredAccount, Summary,
    SummaryHandle, TickQuery, TickStream,
};
use trading_core::pipeline::tap;
use trading_core::store::Store as _;
use trading_core::store::postgres::PostgresStore;

use crate::support::postgres::{TestDatabase, migrated};

/// Strategies that trade often, on accounts whose cash binds, so that the order of the symbols matters; and one that
/// looks back over several restarts.
fn settings() -> PaperSettings {
    let strategy = |name: &str, kind: &str, parameters: &[(&str, &str)]| StrategySettings {
        name: name.to_owned(),
        kind: kind.to_owned(),
        exchange: "binance".to_owned(),
        symbols: ["BTCUSDT", "ETHUSDT"].map(|symbol| symbol.parse().unwrap()).to_vec(),
        cash: 25_000.into(),
        fee_rate: Decimal::new(1, 4),
        slippage: Decimal::new(5, 5),
        position_limit: 20_000.into(),
        parameters: parameters
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    };
    PaperSettings {
        channel_capacity: NonZeroUsize::new(100_000).unwrap(),
        equity_interval: Duration::from_secs(10),
        strategies: vec![
            strategy("fast", "sma_crossover", &[("bar", "200ms"), ("fast", "2"), ("slow", "5")]),
            strategy(
                "mean",
                "mean_reversion",
                &[("bar", "200ms"), ("window", "6"), ("entry", "1")],
            ),
            strategy("slow", "sma_crossover", &[("bar", "1s"), ("fast", "7"), ("slow", "40")]),
        ],
    }
}

/// A random walk of two symbols, twenty ticks a second, of which every third frame holds both symbols. The price of the
/// second stands still for a long time in the middle: averages that are equal all the while.
fn ticks(count: usize) -> Vec<Tick> {
    let mut state = 0x1234_5678_9ABC_DEF1_u64;
    let mut random = move |below: i64| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        i64::try_from(state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % below
    };
    let mut cents = [9_500_000_i64, 350_000];
    let instruments = ["BTCUSDT", "ETHUSDT"]
        .map(|symbol| Instrument::intern("binance", &symbol.parse().unwrap()).unwrap());
    let stands_still = count / 3..count / 2;
    let walk = (0..count).map(|number| {
        let which = usize::from(random(2) == 1);
        let step = cents[which] / 2_000;
        if which == 0 || !stands_still.contains(&number) {
            cents[which] += random(2 * step + 1) - step;
        }
        let n = i64::try_from(number).unwrap();
        let at = 1_700_000_000_000_000 + n * 50_000;
        let frame = if n % 3 == 2 { n - 1 } else { n };
        Tick {
            instrument: instruments[which],
            price: Decimal::new(cents[which], 2),
            quantity: Decimal::new(random(1_000_000) + 1, 7),
            exchange_at: Timestamp::from_micros(at).unwrap(),
            received_at: Timestamp::from_micros(1_700_000_000_000_000 + frame * 50_000 + 70_000)
                .unwrap(),
            ..tick(n.unsigned_abs())
        }
    });
    let mut ticks: Vec<Tick> = walk.collect();
    ticks.sort_by_key(|tick| (tick.received_at, tick.instrument, tick.exchange_at));
    ticks
}

/// When a run dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    /// At its nth write, before anything of it reached the database.
    Before(usize),
    /// At its nth write, after the commit, before it heard of it.
    After(usize),
    /// Not at all.
    Never,
}

/// A store whose process dies as it was told.
#[derive(Debug)]
struct Dying {
    inner: PgStore,
    death: Death,
    writes: usize,
    died: mpsc::Sender<()>,
    wrote: mpsc::Sender<()>,
}

impl AccountStore for Dying {
    async fn load(&mut self, accounts: &[String]) -> Result<Vec<StoredAccount>, PaperError> {
        self.inner.load(accounts).await
    }

    async fn write(&mut self, changes: &Changes) -> Result<(), PaperError> {
        self.writes += 1;
        if self.death == Death::Before(self.writes) {
            self.died.send(()).await.unwrap();
            std::future::pending::<()>().await;
        }
        self.inner.write(changes).await?;
        if self.death == Death::After(self.writes) {
            self.died.send(()).await.unwrap();
            std::future::pending::<()>().await;
        }
        self.wrote.send(()).await.unwrap();
        Ok(())
    }

    fn ticks(&self, query: TickQuery) -> TickStream {
        self.inner.ticks(query)
    }
}

/// When a run starts that has the ticks from this one on before it: after those before it arrived, also where a frame
/// was cut in the middle.
fn start(ticks: &[Tick], from: usize) -> Timestamp {
    match from.checked_sub(1) {
        Some(last) => Timestamp::from_micros(ticks[last].received_at.as_micros() + 1).unwrap(),
        None => ticks[0].received_at,
    }
}

/// One run: these ticks come over the tap in so many parts, of which the recorder stores the first `stored` ticks. The
/// next part comes when the one before is written.
async fn run(
    db: &TestDatabase,
    started_at: Timestamp,
    ticks: &[Tick],
    stored: usize,
    death: Death,
) -> Option<Summary> {
    PostgresStore::new(db.socket()).write(&ticks[..stored]).await.unwrap();
    let (mut sender, receiver) = tap(100_000);
    let (died, mut dead) = mpsc::channel(1);
    let (wrote, mut written) = mpsc::channel(100);
    let inner = PgStore::new(db.pool.clone(), started_at);
    let store = Dying { inner, death, writes: 0, died, wrote };
    let summary = SummaryHandle::default();
    let mut tasks = JoinSet::new();
    tasks.spawn(paper::run(settings(), receiver, store, started_at, summary.clone()));
    let mut offered = 0;
    for part in ticks.chunks(ticks.len().div_ceil(3)) {
        for chunk in part.chunks(97) {
            sender.offer(&chunk.into());
        }
        offered += part.len();
        sender.publish_stored(u64::try_from(offered.min(stored)).unwrap());
        // What is not stored is not written of: then nothing more happens.
        if offered > stored {
            break;
        }
        tokio::select! {
            Some(()) = dead.recv() => {
                tasks.shutdown().await;
                return None;
            }
            Some(()) = written.recv() => {}
        }
    }
    if death == Death::Never {
        drop(sender);
        tasks.join_next().await.unwrap().unwrap().unwrap();
        return Some(summary.get());
    }
    tasks.shutdown().await;
    None
}

type FillRow = (String, i64, i64, DateTime<Utc>, Vec<String>, Vec<Decimal>);
type OrderRow = (String, i64, String, String, Decimal, Decimal, String, Option<String>, String);
type EquityRow = (String, DateTime<Utc>, Decimal, Decimal, Decimal, Decimal);

async fn stored_fills(pool: &PgPool) -> Vec<FillRow> {
    sqlx::query_as(
        "SELECT account, fill_id, order_id, exchange_at, ARRAY[symbol, side, trade_id], ARRAY[price, quantity, value, fee] \
         FROM paper_fills ORDER BY account, fill_id",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

fn fills(changes: &Changes) -> Vec<FillRow> {
    let id = |number: u64| i64::try_from(number).unwrap();
    let row = |((account, number), fill): (&(Arc<str>, u64), &Fill)| {
        let symbol = fill.instrument.symbol().to_string();
        (
            account.to_string(),
            id(*number),
            id(fill.order_id),
            fill.exchange_at.to_datetime(),
            vec![symbol, fill.side.as_str().to_owned(), fill.trade_id.to_string()],
            vec![fill.price, fill.quantity, fill.value, fill.fee],
        )
    };
    changes.fills.iter().map(row).collect()
}

fn orders(changes: &Changes) -> Vec<OrderRow> {
    changes
        .orders
        .iter()
        .map(|((account, id), order)| {
            (
                account.to_string(),
                i64::try_from(*id).unwrap(),
                order.instrument.symbol().to_string(),
                order.side.as_str().to_owned(),
                order.quantity,
                order.filled,
                order.status.as_str().to_owned(),
                order.reason.map(|reason| reason.as_str().to_owned()),
                order.trade_id.to_string(),
            )
        })
        .collect()
}

/// What a run without a death would have done.
fn uninterrupted(ticks: &[Tick]) -> (Changes, Summary) {
    let (mut engine, mut events) = (Engine::new(&settings()).unwrap(), Vec::new());
    ticks.iter().for_each(|tick| engine.on_tick(tick, &mut events));
    engine.finish(&mut events);
    let mut changes = Changes::default();
    events.into_iter().for_each(|event| changes.record(event));
    (changes, engine.summary())
}

/// Says where two lists part.
fn assert_same<T: PartialEq + std::fmt::Debug>(stored: &[T], expected: &[T]) {
    for (number, (stored, expected)) in stored.iter().zip(expected).enumerate() {
        assert_eq!(stored, expected, "row {number}");
    }
    assert_eq!(stored.len(), expected.len());
}

async fn assert_as_uninterrupted(pool: &PgPool, expected: &Changes) {
    assert_same(&stored_fills(pool).await, &fills(expected));
    let stored: Vec<OrderRow> = sqlx::query_as(
        "SELECT account, order_id, symbol, side, quantity, filled, status, reason, trade_id \
         FROM paper_orders ORDER BY account, order_id",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert_same(&stored, &orders(expected));
    let stored: Vec<EquityRow> = sqlx::query_as(
        "SELECT account, at, cash, equity, fees, pnl FROM paper_equity ORDER BY account, at",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let equity: Vec<EquityRow> = expected
        .equity
        .iter()
        .map(|((account, at), worth)| {
            (account.to_string(), at.to_datetime(), worth.cash, worth.equity, worth.fees, worth.pnl)
        })
        .collect();
    assert_same(&stored, &equity);
    let stored: Vec<(String, String, Decimal, Decimal, Decimal, Decimal, String)> = sqlx::query_as(
        "SELECT account, symbol, quantity, cost, realized, last_price, last_trade_id \
         FROM paper_positions ORDER BY account, symbol",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let positions: Vec<_> = expected
        .positions
        .iter()
        .map(|((account, instrument), held)| {
            let last_id = held.last_id.as_ref().unwrap().to_string();
            let symbol = instrument.symbol().to_string();
            (
                account.to_string(),
                symbol,
                held.quantity,
                held.cost,
                held.realized,
                held.last_price,
                last_id,
            )
        })
        .collect();
    assert_same(&stored, &positions);
}

#[tokio::test]
async fn a_crash_at_any_write_neither_doubles_nor_loses_a_fill() {
    let db = migrated().await;
    let all = ticks(4_000);
    let (expected, summary) = uninterrupted(&all);
    assert!(expected.fills.len() > 300, "{summary}");

    // Each run begins with the first tick that the one before did not store: where it was in memory it comes again.
    let deaths = [
        (500, 500, Death::Before(2)),
        (300, 300, Death::After(1)),
        (400, 310, Death::Before(2)),
        (350, 350, Death::After(2)),
        (10, 3, Death::After(1)),
        (400, 270, Death::After(1)),
        (600, 600, Death::After(3)),
        (300, 299, Death::Before(3)),
    ];
    let mut from = 0;
    for (offered, stored, death) in deaths {
        let ended = run(&db, start(&all, from), &all[from..from + offered], stored, death).await;
        assert_eq!(ended, None, "{death:?}");
        from += stored;
    }
    let rest = &all[from..];
    let last = run(&db, start(&all, from), rest, rest.len(), Death::Never).await.unwrap();
    assert_as_uninterrupted(&db.pool, &expected).await;
    let late: u64 = last.strategies.iter().map(|strategy| strategy.late).sum();
    assert_eq!((last.missed, last.displaced, late), (0, 0, 0));
}

#[tokio::test]
async fn a_clean_restart_changes_nothing_but_one_point_of_equity() {
    let db = migrated().await;
    let all = ticks(2_000);
    let (expected, _) = uninterrupted(&all);
    for (number, part) in all.chunks(700).enumerate() {
        let started_at = start(&all, number * 700);
        run(&db, started_at, part, part.len(), Death::Never).await.unwrap();
    }
    assert_same(&stored_fills(&db.pool).await, &fills(&expected));
}

#[tokio::test]
async fn ticks_fetched_later_and_ticks_traded_before_are_not_traded_on() {
    let db = migrated().await;
    let all = ticks(2_000);
    let (expected, _) = uninterrupted(&all);
    run(&db, start(&all, 0), &all[..1_000], 1_000, Death::After(2)).await;
    // A repair has filled a hole before the crash; the venue's snapshot brings what was traded before.
    let fetched: Vec<Tick> = all[200..300]
        .iter()
        .map(|tick| Tick {
            trade_id: TradeId::Number(tick.trade_id.number().unwrap() + 1_000_000),
            source: Source::Backfill,
            price: tick.price / Decimal::TWO,
            ..tick.clone()
        })
        .collect();
    PostgresStore::new(db.socket()).write(&fetched).await.unwrap();
    let mut again: Vec<Tick> = all[950..].to_vec();
    for tick in &mut again[..50] {
        tick.received_at = all[1_000].received_at;
    }
    let summary = run(&db, start(&all, 1_000), &again, again.len(), Death::Never).await.unwrap();
    assert_same(&stored_fills(&db.pool).await, &fills(&expected));
    assert_eq!(summary.strategies[0].late, 50);
    assert_eq!(BTreeMap::from([("missed", summary.missed)]), BTreeMap::from([("missed", 0)]));
}
