//! Paper trading in a real PostgreSQL: what is stored agrees with itself, once, through restarts and crashes.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use rust_decimal::Decimal;
use sqlx::PgPool;
use tokio::task::JoinSet;
use trading_core::config::{Overrides, PaperSettings, StrategySettings, load};
use trading_core::domain::testing::{instrument, tick};
use trading_core::domain::{Instrument, Tick, Timestamp};
use trading_core::paper::{
    self, AccountStore as _, Changes, Engine, PaperError, PgStore, Summary, SummaryHandle,
};
use trading_core::pipeline::{TapSender, tap};
use trading_core::simulator::{Market, MarketOptions};
use trading_core::store::embedded::{Cluster, Durability, Options};
use trading_core::store::postgres::migrate::migrate;

use crate::support::postgres::{Scratch, connect, crash, migrated};
use crate::support::ticks::traded;
use crate::support::waiting::until;

fn settings() -> PaperSettings {
    let strategy = |kind: &str| StrategySettings {
        name: kind.to_owned(),
        kind: kind.to_owned(),
        exchange: "binance".to_owned(),
        symbols: ["BTCUSDT", "ETHUSDT"].map(|symbol| symbol.parse().unwrap()).to_vec(),
        cash: 100_000.into(),
        fee_rate: Decimal::new(1, 3),
        slippage: Decimal::new(5, 4),
        position_limit: 20_000.into(),
        parameters: BTreeMap::new(),
    };
    PaperSettings {
        channel_capacity: NonZeroUsize::new(100_000).unwrap(),
        equity_interval: Duration::from_secs(10),
        strategies: vec![strategy("mean_reversion"), strategy("sma_crossover")],
    }
}

/// A random walk of two symbols at ten ticks a second each: ticks `from..to` of it.
fn ticks(from: usize, to: usize) -> Vec<Tick> {
    let mut state = 0x1234_5678_9ABC_DEF1_u64;
    let mut random = move |below: i64| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        i64::try_from(state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % below
    };
    let mut cents = [9_500_000_i64, 350_000];
    let symbols = ["BTCUSDT", "ETHUSDT"].map(|symbol| instrument("binance", symbol));
    let walk = (0..to).map(|number| {
        let which = number % 2;
        let step = cents[which] / 5_000;
        cents[which] += random(2 * step + 1) - step;
        let micros = 1_700_000_000_000_000 + i64::try_from(number).unwrap() * 50_000;
        let at = Timestamp::from_micros(micros).unwrap();
        Tick {
            instrument: symbols[which],
            price: Decimal::new(cents[which], 2),
            quantity: Decimal::new(random(1_000_000) + 1, 7),
            ..tick(u64::try_from(number).unwrap()).at(at)
        }
    });
    walk.skip(from).collect()
}

fn offer(sender: &mut TapSender, ticks: &[Tick]) {
    for chunk in ticks.chunks(97) {
        sender.offer(&chunk.into());
    }
}

/// One run over these ticks, from what is stored to what is stored.
async fn run(pool: &PgPool, ticks: &[Tick]) -> Summary {
    let (mut sender, receiver) = tap(100_000);
    offer(&mut sender, ticks);
    sender.publish_stored(u64::MAX);
    drop(sender);
    let started_at = Timestamp::now();
    let (store, summary) = (PgStore::new(pool.clone(), started_at), SummaryHandle::default());
    paper::run(settings(), receiver, store, started_at, summary.clone()).await.unwrap();
    summary.get()
}

fn changes(ticks: &[Tick]) -> Changes {
    let (mut engine, mut events) = (Engine::new(&settings()).unwrap(), Vec::new());
    ticks.iter().for_each(|tick| engine.on_tick(tick, &mut events));
    let mut changes = Changes::default();
    events.into_iter().for_each(|event| changes.record(event));
    changes
}

async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

/// What must hold between the tables at every moment: the rows at fault, of which there are none.
async fn assert_balanced(pool: &PgPool) {
    let unbalanced = "SELECT count(*) FROM paper_accounts a WHERE cash <> initial_cash - fees - coalesce( \
            (SELECT sum(CASE side WHEN 'buy' THEN value ELSE -value END) FROM paper_fills f \
             WHERE f.account = a.account), 0) \
         OR fees <> coalesce((SELECT sum(fee) FROM paper_fills f WHERE f.account = a.account), 0) \
         OR last_fill <> (SELECT count(*) FROM paper_fills f WHERE f.account = a.account) \
         OR last_order <> (SELECT count(*) FROM paper_orders o WHERE o.account = a.account)";
    assert_eq!(count(pool, unbalanced).await, 0, "cash is what the fills made it");
    let wrong_positions = "SELECT count(*) FROM paper_positions p WHERE quantity <> coalesce( \
            (SELECT sum(CASE side WHEN 'buy' THEN quantity ELSE -quantity END) FROM paper_fills f \
             WHERE (f.account, f.exchange, f.symbol) = (p.account, p.exchange, p.symbol)), 0)";
    assert_eq!(count(pool, wrong_positions).await, 0, "positions are what the fills made them");
    let wrong_orders = "SELECT count(*) FROM paper_orders o WHERE filled <> coalesce( \
            (SELECT sum(quantity) FROM paper_fills f \
             WHERE (f.account, f.order_id) = (o.account, o.order_id)), 0)";
    assert_eq!(count(pool, wrong_orders).await, 0, "orders are filled by their fills");
    let early = "SELECT count(*) FROM paper_fills f JOIN paper_orders o USING (account, order_id) \
         WHERE f.trade_id = o.trade_id OR f.exchange_at < o.placed_at";
    assert_eq!(count(pool, early).await, 0, "no tick fills an order that it caused");
}

/// Two minutes of the simulated market, as a first run sees it.
fn simulated(settings: &PaperSettings, seed: u64, start: Timestamp) -> Vec<Tick> {
    let market = Market::new(&MarketOptions { seed, ..MarketOptions::default() }).unwrap();
    let end = Timestamp::from_micros(start.as_micros() + 120_000_000).unwrap();
    let mut ticks = Vec::new();
    for symbol in &settings.strategies[0].symbols {
        let ids = [start, end].map(|at| market.latest("binance", symbol, at).unwrap());
        let instrument = Instrument::intern("binance", symbol).unwrap();
        ticks.extend((ids[0]..ids[1]).map(|id| traded(&market, instrument, id).unwrap()));
    }
    ticks.sort_by_key(|tick| tick.exchange_at);
    ticks
}

#[test]
fn the_default_strategies_trade_a_handful_of_times_in_two_minutes() {
    let loaded = load(None, &BTreeMap::new(), &Overrides::default()).unwrap();
    let settings = loaded.settings.paper;
    assert_eq!(paper::check(&settings), []);
    for (seed, minute) in [1, 42, 43, 44].into_iter().zip(30_000_000_i64..) {
        let start = Timestamp::from_micros(minute * 60_000_000).unwrap();
        let mut engine = Engine::new(&settings).unwrap();
        let mut events = Vec::new();
        for tick in simulated(&settings, seed, start) {
            engine.on_tick(&tick, &mut events);
        }
        let summary = engine.summary();
        for strategy in &summary.strategies {
            assert!((2..=40).contains(&strategy.orders), "seed {seed}: {summary}");
            assert!(strategy.fills >= 2, "seed {seed}: {summary}");
        }
    }
}

#[tokio::test]
async fn stored_state_goes_on_after_a_restart() {
    let pool = migrated().await.pool;
    let first = run(&pool, &ticks(0, 2_400)).await;
    assert_balanced(&pool).await;
    for strategy in &first.strategies {
        assert!(strategy.fills > 0, "{first}");
    }

    // A restart without ticks is the same state; one with ticks goes on counting.
    let idle = run(&pool, &[]).await;
    assert_eq!(idle.strategies, first.strategies);
    let second = run(&pool, &ticks(2_400, 4_800)).await;
    assert_balanced(&pool).await;
    for (before, after) in first.strategies.iter().zip(&second.strategies) {
        assert!(after.fills > before.fills, "{first}, then {second}");
    }

    // Ticks that were seen before the restart are not traded on again.
    let again = run(&pool, &ticks(0, 2_400)).await;
    assert_eq!(again.strategies[0].late, 2_400);
    assert_eq!(again.strategies[0].fills, second.strategies[0].fills);

    let shown = "SELECT count(*) FROM paper_summary s JOIN paper_accounts a USING (account) \
         WHERE s.equity = a.initial_cash + s.pnl AND s.fills = a.last_fill AND s.cash = a.cash \
             AND s.at = a.seen_at";
    assert_eq!(count(&pool, shown).await, 2, "the view shows the latest of both");
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_repeated_without_harm() {
    let pool = migrated().await.pool;
    let (some, more) = (changes(&ticks(0, 1_200)), changes(&ticks(0, 2_400)));
    let started_at = Timestamp::now();
    PgStore::new(pool.clone(), started_at).write(&some).await.unwrap();
    // The same run that does not know of its write, with more to write than before.
    let mut unaware = PgStore::new(pool.clone(), started_at);
    unaware.write(&more).await.unwrap();
    unaware.write(&more).await.unwrap();
    assert_balanced(&pool).await;
    let fills = i64::try_from(more.fills.len()).unwrap();
    assert_eq!(count(&pool, "SELECT count(*) FROM paper_fills").await, fills);
    let equity = i64::try_from(more.equity.len()).unwrap();
    assert_eq!(count(&pool, "SELECT count(*) FROM paper_equity").await, equity);
}

#[tokio::test]
async fn a_second_process_is_noticed_before_it_changes_anything() {
    let pool = migrated().await.pool;
    let names = ["mean_reversion", "sma_crossover"].map(str::to_owned);
    let at = |micros| Timestamp::from_micros(micros).unwrap();
    let mut one = PgStore::new(pool.clone(), at(1));
    let mut two = PgStore::new(pool.clone(), at(2));
    for store in [&mut one, &mut two] {
        assert!(store.load(&names).await.unwrap().is_empty());
    }
    let (some, more) = (changes(&ticks(0, 1_200)), changes(&ticks(0, 2_400)));
    one.write(&some).await.unwrap();
    assert!(matches!(two.write(&more).await, Err(PaperError::Taken { .. })));
    let fills = i64::try_from(some.fills.len()).unwrap();
    assert_eq!(count(&pool, "SELECT count(*) FROM paper_fills").await, fills);

    // Who reads what is there may go on; the first is then the second.
    assert_eq!(two.load(&names).await.unwrap().len(), 2);
    two.write(&more).await.unwrap();
    assert!(matches!(one.write(&more).await, Err(PaperError::Taken { .. })));
    assert_balanced(&pool).await;
}

#[tokio::test]
async fn what_is_traded_while_the_server_crashes_is_stored_after_it() {
    let scratch = Scratch::new("");
    // Durable, as a recorder's own: what was stored must outlive the crash.
    let options = Options { durability: Durability::Full, ..scratch.options() };
    let cluster = Cluster::start(&options).await.unwrap();
    let pool = connect(&cluster.url(), 2).await;
    migrate(&pool).await.unwrap();

    let (mut sender, receiver) = tap(100_000);
    let started_at = Timestamp::now();
    let (store, summary) = (PgStore::new(pool.clone(), started_at), SummaryHandle::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(paper::run(settings(), receiver, store, started_at, summary.clone()));
    offer(&mut sender, &ticks(0, 1_200));
    sender.publish_stored(u64::MAX);
    until(async || match count(&pool, "SELECT count(*) FROM paper_fills").await {
        0 => Err("nothing is stored".to_owned()),
        _ => Ok(()),
    })
    .await;
    crash(&cluster, &options).await;
    offer(&mut sender, &ticks(1_200, 2_400));
    drop(sender);
    tasks.join_next().await.unwrap().unwrap().unwrap();

    assert_balanced(&pool).await;
    let told: u64 = summary.get().strategies.iter().map(|strategy| strategy.fills).sum();
    let stored = count(&pool, "SELECT count(*) FROM paper_fills").await;
    assert_eq!(stored, i64::try_from(told).unwrap());
    assert!(stored > 0);
    assert_eq!(summary.get().missed, 0);
    pool.close().await;
    cluster.stop().await.unwrap();
}
