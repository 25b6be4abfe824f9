use proptest::prelude::*;
use rust_decimal::Decimal;

use super::*;
use crate::domain::{Side, TradeId};
use crate::paper::account::Position;
use crate::paper::changes::{AccountState, Change, Changes};
use crate::paper::fills::{Fill, Order, OrderStatus, Reason};
use crate::paper::testing::{Scripted, at, btc, decimal, desk, instrument, settings, tick, walk};
use crate::paper::{Signal, Size, Valuation};

const ALL_IN: Signal = Signal::Buy(Size::All);
const ALL_OUT: Signal = Signal::Sell(Size::All);

fn run(engine: &mut Engine, ticks: &[Tick]) -> Vec<Event> {
    let mut events = Vec::new();
    for tick in ticks {
        engine.on_tick(tick, &mut events);
    }
    events
}

fn fills(events: &[Event]) -> Vec<&Fill> {
    events
        .iter()
        .filter_map(|event| match &event.change {
            Change::Fill(fill) => Some(fill),
            _ => None,
        })
        .collect()
}

fn orders(events: &[Event]) -> Vec<&Order> {
    events
        .iter()
        .filter_map(|event| match &event.change {
            Change::Order(order) => Some(order),
            _ => None,
        })
        .collect()
}

fn scripted(signals: &[Option<Signal>]) -> Engine {
    Engine::of(vec![desk("test", &[btc()], || Box::new(Scripted::new(signals.to_vec())))])
}

#[test]
fn an_order_takes_several_ticks_and_never_its_own() {
    let mut engine = scripted(&[Some(Signal::Buy(Size::Quantity(decimal("2.5"))))]);
    let ticks = [1, 2, 3, 4, 5].map(|id| tick(id, i64::try_from(id).unwrap(), "100", "1"));
    let events = run(&mut engine, &ticks);
    let told: Vec<_> = fills(&events)
        .iter()
        .map(|fill| (fill.trade_id.clone(), fill.quantity, fill.price))
        .collect();
    let price = decimal("100.05");
    assert_eq!(
        told,
        [
            (TradeId::Number(2), decimal("1"), price),
            (TradeId::Number(3), decimal("1"), price),
            (TradeId::Number(4), decimal("0.5"), price),
        ]
    );
    let life: Vec<_> = orders(&events).iter().map(|order| order.status).collect();
    assert_eq!(
        life,
        [
            OrderStatus::New,
            OrderStatus::PartiallyFilled,
            OrderStatus::PartiallyFilled,
            OrderStatus::Filled
        ]
    );
}

#[test]
fn a_sell_gets_less_than_the_tick_by_the_slippage() {
    let mut engine = scripted(&[Some(Signal::Buy(Size::Quantity(1.into()))), None, Some(ALL_OUT)]);
    let ticks = [1, 2, 3, 4].map(|id| tick(id, 0, "100", "1"));
    let events = run(&mut engine, &ticks);
    assert_eq!(fills(&events)[1].price, decimal("99.95"));
    assert_eq!(fills(&events)[1].fee, decimal("0.09995"));
}

#[test]
fn the_position_limit_cancels_what_is_left() {
    // 2000 of value at a price that doubles after the order: half of it fits.
    let mut engine = scripted(&[Some(ALL_IN)]);
    let mut ticks = vec![tick(1, 1, "100", "1000")];
    ticks.extend([2, 3].map(|id| tick(id, 2, "200", "1000")));
    let events = run(&mut engine, &ticks);
    let filled = fills(&events);
    assert_eq!(filled.len(), 1);
    assert!(filled[0].value <= decimal("2000") && filled[0].value > decimal("1999.99"));
    let last = orders(&events).pop().unwrap();
    assert_eq!((last.status, last.reason), (OrderStatus::Cancelled, Some(Reason::PositionLimit)));
}

#[test]
fn what_cannot_stand_is_rejected_with_its_reason() {
    let cases = [
        (Signal::Sell(Size::Quantity(1.into())), Reason::NoPosition),
        (Signal::Buy(Size::Quantity(21.into())), Reason::PositionLimit),
        (Signal::Buy(Size::Quantity(Decimal::ZERO)), Reason::Quantity),
        (Signal::Buy(Size::Quantity(decimal("-1"))), Reason::Quantity),
    ];
    for (signal, reason) in cases {
        let mut engine = scripted(&[Some(signal)]);
        let events = run(&mut engine, &[tick(1, 0, "100", "1"), tick(2, 1, "100", "1")]);
        let told = orders(&events);
        assert_eq!(told.len(), 1, "{signal:?}");
        assert_eq!((told[0].status, told[0].reason), (OrderStatus::Rejected, Some(reason)));
        assert!(fills(&events).is_empty());
    }
}

#[test]
fn the_opposite_signal_cancels_the_order_that_stands() {
    let mut engine = scripted(&[Some(ALL_IN), Some(ALL_OUT)]);
    let ticks = [1, 2, 3].map(|id| tick(id, 0, "100", "1"));
    let events = run(&mut engine, &ticks);
    let life: Vec<_> =
        orders(&events).iter().map(|order| (order.id, order.side, order.status)).collect();
    assert_eq!(
        life,
        [
            (1, Side::Buy, OrderStatus::New),
            (1, Side::Buy, OrderStatus::PartiallyFilled),
            (1, Side::Buy, OrderStatus::Cancelled),
            (2, Side::Sell, OrderStatus::New),
            (2, Side::Sell, OrderStatus::Filled),
        ]
    );
}

#[test]
fn an_overflow_stops_its_account_and_no_other() {
    let eth = instrument("ETHUSDT");
    let mut engine = Engine::of(vec![
        desk("one", &[btc()], || Box::new(Scripted::new(vec![Some(ALL_IN), None, None]))),
        desk("other", &[eth], || Box::new(Scripted::new(vec![Some(ALL_IN)]))),
    ]);
    let huge = "999999999999999999";
    let ticks = [
        tick(1, 0, "100", "1"),
        tick(2, 1, huge, "1"),
        tick(3, 2, "100", "1"),
        Tick { instrument: eth, ..tick(4, 3, "100", "1") },
        Tick { instrument: eth, ..tick(5, 4, "100", "1") },
    ];
    let events = run(&mut engine, &ticks);
    let summary = engine.summary();
    assert!(summary.strategies[0].stopped.as_ref().unwrap().contains("10^15"));
    assert_eq!(summary.strategies[0].fills, 0);
    assert_eq!(summary.strategies[1].fills, 1);
    let cancelled = orders(&events)[1];
    assert_eq!(cancelled.reason, Some(Reason::AccountStopped));
}

#[test]
fn a_tick_older_than_one_seen_is_left_out() {
    let mut engine = scripted(&[Some(ALL_IN)]);
    run(&mut engine, &[tick(5, 1_000, "100", "1"), tick(4, 999, "1", "1")]);
    let summary = engine.summary();
    assert_eq!((summary.strategies[0].fills, summary.strategies[0].late), (0, 1));
}

#[test]
fn equity_comes_once_per_interval_as_it_was_before_it() {
    let mut engine = scripted(&[Some(Signal::Buy(Size::Quantity(1.into())))]);
    let ticks = [
        tick(1, 12_000_000, "100", "1"),
        tick(2, 13_000_000, "100", "1"),
        tick(3, 45_000_000, "120", "1"),
        tick(4, 46_000_000, "120", "1"),
    ];
    let mut events = run(&mut engine, &ticks);
    engine.finish(&mut events);
    let points: Vec<_> = events
        .iter()
        .filter_map(|event| match event.change {
            Change::Equity(at, Valuation { equity, .. }) => Some((at, equity)),
            _ => None,
        })
        .collect();
    assert_eq!(
        points,
        [
            (at(10_000_000), decimal("10000")),
            (at(40_000_000), decimal("9999.84995")),
            (at(46_000_000), decimal("10019.84995")),
        ]
    );
}

fn stored(changes: &Changes, name: &str) -> StoredAccount {
    let state = &changes.accounts[name];
    let AccountState { quote, exchange, initial_cash, cash, fees, .. } = state.clone();
    StoredAccount {
        name: name.to_owned(),
        quote,
        exchange,
        initial_cash,
        cash,
        fees,
        last_order: state.last_order,
        last_fill: state.last_fill,
        seen_at: state.seen_at,
        began_at: state.began_at,
        taken_until: state.taken_until,
        stopped: state.stopped.clone(),
        positions: changes
            .positions
            .iter()
            .map(|((_, instrument), position)| (*instrument, position.clone()))
            .collect(),
        open_orders: changes
            .orders
            .values()
            .filter(|order| order.status.is_open())
            .cloned()
            .collect(),
    }
}

#[test]
fn a_restart_goes_on_with_account_and_order() {
    let first = desk("test", &[btc()], || Box::new(Scripted::new(vec![Some(ALL_IN)])));
    let mut engine = Engine::of(vec![first]);
    let mut changes = Changes::default();
    for event in run(&mut engine, &[1, 2].map(|id| tick(id, 5, "100", "1"))) {
        changes.record(event);
    }
    let mut second = desk("test", &[btc()], || Box::new(Scripted::new(Vec::new())));
    second.restore(stored(&changes, "test")).unwrap();
    let mut restarted = Engine::of(vec![second]);
    assert_eq!(restarted.summary(), engine.summary());
    let late = tick(9, 4, "1", "1");
    let events = run(&mut restarted, &[late, tick(3, 6, "100", "1")]);
    let filled = fills(&events);
    assert_eq!((filled[0].id, filled[0].order_id), (2, 1));
    assert_eq!(filled[0].trade_id, TradeId::Number(3));
}

#[test]
fn an_account_of_another_currency_is_not_continued() {
    let settings = settings("sma_crossover");
    let mut desk = desk("test", &[btc()], || Box::new(Scripted::new(Vec::new())));
    desk.quote = "EUR".to_owned();
    let mut events = Vec::new();
    let mut engine = Engine::of(vec![desk]);
    engine.on_tick(&tick(1, 0, "1", "1"), &mut events);
    let mut changes = Changes::default();
    events.into_iter().for_each(|event| changes.record(event));
    let refused = Engine::restore(&settings, vec![stored(&changes, "test")]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "account test is stored with quote currency EUR, the settings say USDT: \
         give the strategy another name"
    );
}

/// How often the strategies of the defaults trade in two minutes of a random walk.
#[test]
fn both_strategies_trade_within_two_minutes_of_a_random_walk() {
    for kind in ["sma_crossover", "mean_reversion"] {
        for seed in 1..=20 {
            let mut engine = Engine::new(&settings(kind)).unwrap();
            run(&mut engine, &walk(seed, 2 * 120 * 10));
            let summary = engine.summary().strategies.remove(0);
            assert!((2..=60).contains(&summary.orders), "{kind} {seed}: {}", summary.orders);
            assert!(summary.fills >= 2, "{kind} {seed}: {}", summary.fills);
        }
    }
}

fn signal() -> impl Strategy<Value = Option<Signal>> {
    let size = prop_oneof![
        Just(Size::All),
        (-5_i64..3_000_000_000).prop_map(|lots| Size::Quantity(Decimal::new(lots, 8)))
    ];
    proptest::option::of(
        (any::<bool>(), size)
            .prop_map(|(buy, size)| if buy { Signal::Buy(size) } else { Signal::Sell(size) }),
    )
}

fn market() -> impl Strategy<Value = Vec<Tick>> {
    let trade =
        (any::<bool>(), 0_i64..3_000_000, 1_i64..50_000_000_000, 0_u32..9, 1_i64..9_999_999_999);
    proptest::collection::vec(trade, 1..80).prop_map(|trades| {
        let mut now = 0;
        let ticks =
            trades.into_iter().zip(1..).map(|((first, pause, price, digits, quantity), id)| {
                now += pause;
                let instrument = if first { btc() } else { instrument("ETHUSDT") };
                Tick {
                    instrument,
                    price: Decimal::new(price, digits),
                    quantity: Decimal::new(quantity, 9),
                    ..tick(id, now, "1", "1")
                }
            });
        ticks.collect()
    })
}

fn random_engine(signals: &[Option<Signal>]) -> Engine {
    let instruments = [btc(), instrument("ETHUSDT")];
    Engine::of(vec![desk("test", &instruments, || Box::new(Scripted::new(signals.to_vec())))])
}

fn signed(fill: &Fill, amount: Decimal) -> Decimal {
    match fill.side {
        Side::Buy => amount,
        Side::Sell => -amount,
    }
}

proptest! {
    #[test]
    fn prop_money_balances_to_the_last_digit(
        ticks in market(),
        signals in proptest::collection::vec(signal(), 0..80),
    ) {
        let mut engine = random_engine(&signals);
        let mut changes = Changes::default();
        for tick in &ticks {
            let mut events = Vec::new();
            engine.on_tick(tick, &mut events);
            events.into_iter().for_each(|event| changes.record(event));
        }
        let fills: Vec<&Fill> = changes.fills.values().collect();
        let summary = engine.summary().strategies.remove(0);
        prop_assert_eq!(summary.stopped, None);
        let worth = summary.valuation.unwrap();
        let spent: Decimal = fills.iter().map(|fill| signed(fill, fill.value)).sum();
        let fees: Decimal = fills.iter().map(|fill| fill.fee).sum();
        prop_assert_eq!(worth.fees, fees);
        prop_assert_eq!(worth.cash, decimal("10000") - spent - fees);
        prop_assert_eq!(worth.pnl, worth.realized + worth.unrealized - worth.fees);
        prop_assert!(worth.cash >= Decimal::ZERO);
        for ((_, instrument), Position { quantity, .. }) in &changes.positions {
            let held = fills.iter().filter(|fill| fill.instrument == *instrument);
            let held: Decimal = held.map(|fill| signed(fill, fill.quantity)).sum();
            prop_assert_eq!(*quantity, held);
            prop_assert!(held >= Decimal::ZERO);
        }
        for order in changes.orders.values() {
            let parts = fills.iter().filter(|fill| fill.order_id == order.id);
            prop_assert_eq!(order.filled, parts.map(|fill| fill.quantity).sum::<Decimal>());
            prop_assert!(order.filled.is_zero() || order.filled <= order.quantity);
        }
    }

    #[test]
    fn prop_a_fill_comes_after_its_order_from_one_tick_and_within_it(
        ticks in market(),
        signals in proptest::collection::vec(signal(), 0..80),
    ) {
        let mut engine = random_engine(&signals);
        let mut placed = BTreeMap::new();
        for (number, tick) in ticks.iter().enumerate() {
            let events = run(&mut engine, std::slice::from_ref(tick));
            for fill in fills(&events) {
                prop_assert!(placed[&fill.order_id] < number);
                prop_assert!(fill.quantity <= tick.quantity);
                prop_assert_eq!(fill.instrument, tick.instrument);
                prop_assert_eq!(&fill.trade_id, &tick.trade_id);
                if fill.side == Side::Buy {
                    prop_assert!(fill.price >= tick.price);
                } else {
                    prop_assert!(fill.price <= tick.price);
                }
            }
            for order in orders(&events) {
                placed.entry(order.id).or_insert(number);
            }
        }
    }

    #[test]
    fn prop_the_same_ticks_give_the_same_events_and_chunks_do_not_matter(
        seed in any::<u64>(),
        chunks in proptest::collection::vec(1_usize..200, 1..20),
    ) {
        let mut settings = settings("sma_crossover");
        let mut other = settings.strategies[0].clone();
        other.name = "other".to_owned();
        other.kind = "mean_reversion".to_owned();
        settings.strategies.push(other);
        let ticks = walk(seed, 600);
        let mut whole = Changes::default();
        let mut engine = Engine::new(&settings).unwrap();
        run(&mut engine, &ticks).into_iter().for_each(|event| whole.record(event));

        let mut cut = Changes::default();
        let mut again = Engine::new(&settings).unwrap();
        let mut rest = ticks.as_slice();
        for length in chunks.into_iter().cycle() {
            let (chunk, later) = rest.split_at(length.min(rest.len()));
            let mut changes = Changes::default();
            run(&mut again, chunk).into_iter().for_each(|event| changes.record(event));
            cut.append(changes);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(whole, cut);
        prop_assert_eq!(engine.summary(), again.summary());
    }
}
