use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::harness::{Client, Example, numbers};
use super::super::session::Turned;
use super::*;
use domain::Instrument;
use exchange::Subscribed;

const SUBSCRIBE: &str = r#"{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}"#;

fn binance(faults: &str) -> Client {
    let mut client = Client::with_faults(Venue::BINANCE, "ws", "", faults);
    client.say(SUBSCRIBE);
    client
}

fn journaled(client: &Client, kind: EntryKind) -> BTreeSet<u64> {
    let entries = client.faults.journal().entries;
    entries
        .into_iter()
        .filter(|entry| entry.kind == kind)
        .flat_map(|entry| entry.first.unwrap()..=entry.last.unwrap())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn prop_each_trade_is_sent_once_or_the_journal_says_why_not(
        skip in 0_u32..300, repeat in 0_u32..300, malformed in 0_u32..300, steps in proptest::collection::vec(1_i64..700, 1..20),
    ) {
        let faults = format!("skip=0.{skip:03},repeat=0.{repeat:03},malformed=0.{malformed:03}");
        let mut client = binance(&faults);
        let first = client.newest("BTCUSDT").id + 1;
        let frames: Vec<String> = steps.into_iter().flat_map(|step| client.wait(step)).collect();
        let (whole, broken): (Vec<_>, Vec<_>) =
            frames.into_iter().partition(|frame| serde_json::from_str::<serde_json::Value>(frame).is_ok());
        let ids = numbers(&whole, "t");
        let (skipped, garbled) = (journaled(&client, EntryKind::Skip), journaled(&client, EntryKind::Malformed));
        prop_assert_eq!(broken.len(), garbled.len());
        let repeated = journaled(&client, EntryKind::Repeat);
        let mut expected: Vec<u64> = (first..=client.newest("BTCUSDT").id)
            .filter(|id| !skipped.contains(id) && !garbled.contains(id))
            .flat_map(|id| std::iter::repeat_n(id, 1 + usize::from(repeated.contains(&id))))
            .collect();
        prop_assert!(ids.is_sorted());
        expected.sort_unstable();
        prop_assert_eq!(ids, expected);
    }
}

#[test]
fn what_happens_depends_on_the_seed_and_not_on_the_steps() {
    let faults = "skip=0.2";
    let (mut one, mut other) = (binance(faults), binance(faults));
    one.wait(10_000);
    for _ in 0..100 {
        other.wait(100);
    }
    assert_eq!(journaled(&one, EntryKind::Skip), journaled(&other, EntryKind::Skip));
    assert!(journaled(&one, EntryKind::Skip).len() > 100);
}

#[test]
fn aggregated_orders_are_skipped_whole() {
    let mut client = Client::with_faults(Venue::OKX, "ws/v5/public", "", "skip=0.3");
    let mut before = client.newest("BTCUSDT").id;
    client.say(r#"{"op":"subscribe","args":[{"channel":"trades","instId":"BTC-USDT"}]}"#);
    let frames = client.wait(5_000);
    let skipped = journaled(&client, EntryKind::Skip);
    for (id, count) in numbers(&frames, "tradeId").into_iter().zip(numbers(&frames, "count")) {
        assert!((before + 1..=id - count).all(|missing| skipped.contains(&missing)));
        before = id;
    }
    assert!(skipped.len() > 50);
}

#[test]
fn an_action_takes_the_next_trades_that_it_concerns_and_no_others() {
    let mut client = binance("");
    let first = client.newest("BTCUSDT").id + 1;
    let only = Target { symbol: Some("BTCUSDT".to_owned()), ..Target::default() };
    client.faults.act(&only, Action::Skip(3), client.now).unwrap();
    let elsewhere = Target { exchange: Some(Venue::OKX), ..Target::default() };
    client.faults.act(&elsewhere, Action::Skip(1_000), client.now).unwrap();
    let mut ids = Vec::new();
    while ids.len() < 20 {
        ids.extend(numbers(&client.wait(5), "t"));
    }
    assert_eq!(ids[0], first + 3);
    assert_eq!(journaled(&client, EntryKind::Skip), (first..first + 3).collect());
    assert_eq!(client.faults.report().waiting, 1, "OKX's still waits");
}

#[test]
fn a_misdated_trade_is_years_ahead_and_all_else_of_it_is_true() {
    for venue in Venue::ALL.iter().copied() {
        let Example { path, subscribe, .. } = venue.0.example();
        let exchange = exchange::by_name(venue.name()).unwrap();
        let instrument = ["BTCUSDT", "BTCUSD"]
            .map(|symbol| Instrument::intern(venue.name(), &symbol.parse().unwrap()).unwrap());
        let symbols = Subscribed::new(exchange, instrument);
        let run = |trades: u64| {
            let mut client = Client::with_faults(venue, path, "", "");
            client.say(subscribe);
            client.faults.act(&Target::default(), Action::Misdate(trades), client.now).unwrap();
            let mut ticks = Vec::new();
            for frame in client.wait(2_000) {
                exchange.decode(&frame, &symbols, Timestamp::EPOCH, &mut ticks).unwrap();
            }
            let years_ahead = client.now.plus_micros(10 * 365 * 86_400_000_000);
            let ahead = ticks.iter().filter(|tick| tick.exchange_at > years_ahead).count();
            ticks.iter_mut().for_each(|tick| tick.exchange_at = Timestamp::EPOCH);
            (ticks, ahead, journaled(&client, EntryKind::Misdated).len())
        };
        let (honest, misdated) = (run(0), run(3));
        assert_eq!((honest.1, honest.2), (0, 0), "{venue:?}");
        assert_eq!((misdated.1, misdated.2), (3, 3), "{venue:?}");
        assert!(honest.0.len() > 10, "{venue:?}");
        assert_eq!(honest.0, misdated.0, "{venue:?}");
    }
}

#[test]
fn a_stalled_connection_is_silent_and_then_sends_what_it_owes() {
    let mut client = binance("");
    let first = client.newest("BTCUSDT").id + 1;
    client
        .faults
        .act(&Target::default(), Action::Stall(Duration::from_secs(3)), client.now)
        .unwrap();
    assert!(client.wait(2_999).is_empty());
    assert_eq!(client.turned, Turned::Stalled);
    let frames = client.wait(1);
    assert_eq!(numbers(&frames, "t"), (first..=client.newest("BTCUSDT").id).collect::<Vec<_>>());
    let kinds: Vec<EntryKind> =
        client.faults.journal().entries.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [EntryKind::Open, EntryKind::Stall, EntryKind::Resume]);
}

#[test]
fn a_stalled_symbol_is_silent_beside_the_others_until_it_is_subscribed_anew() {
    let mut client = binance("");
    client.say(&SUBSCRIBE.replace("btcusdt", "ethusdt"));
    let bitcoin = Target { symbol: Some("BTCUSDT".to_owned()), ..Target::default() };
    let stall = Action::Stall(Duration::from_secs(3_600));
    client.faults.act(&bitcoin, stall, client.now).unwrap();
    let of = |frames: &[String], name: &str| {
        frames.iter().filter(|frame| frame.contains(&format!("\"{name}\""))).count()
    };
    let frames = client.wait(5_000);
    assert_eq!((of(&frames, "BTCUSDT"), of(&frames, "ETHUSDT") > 100), (0, true));
    client.wait(1);
    client.say(&SUBSCRIBE.replace("SUBSCRIBE", "UNSUBSCRIBE"));
    client.say(SUBSCRIBE);
    assert!(of(&client.wait(5_000), "BTCUSDT") > 100);
    let stalls: Vec<_> = client
        .faults
        .journal()
        .entries
        .into_iter()
        .filter(|it| it.kind == EntryKind::Stall)
        .collect();
    assert_eq!(stalls.len(), 1);
    assert_eq!(stalls[0].symbol.as_deref(), Some("BTCUSDT"));
}

#[test]
fn a_slow_connection_keeps_its_rate_and_loses_nothing() {
    let mut client = binance("slow=10");
    let first = client.newest("BTCUSDT").id + 1;
    let mut ids = Vec::new();
    for _ in 0..1_000 {
        ids.extend(numbers(&client.wait(10), "t"));
    }
    assert_eq!(ids, (first..first + 100).collect::<Vec<_>>(), "ten a second of a hundred");
}

#[test]
fn connections_are_dropped_near_their_time_and_the_ends_differ() {
    let mut lived = BTreeSet::new();
    for seed in 0..20 {
        let handle = FaultsHandle::new(seed, "drop=30s".parse().unwrap());
        let start = Timestamp::from_millis(1_000_000).unwrap();
        let end = (0..60).find(|second| {
            let now = Timestamp::from_millis(1_000_000 + second * 1_000).unwrap();
            handle.turn(Venue::KRAKEN, 1, start, now).cut
        });
        lived.insert(end.unwrap());
    }
    assert!(
        lived.iter().all(|seconds| (15..=45).contains(seconds)) && lived.len() > 8,
        "{lived:?}"
    );
}

#[test]
fn refusing_and_cutting_reach_their_target_only() {
    let handle = FaultsHandle::new(1, Switches::default());
    let now = Timestamp::from_millis(5).unwrap();
    let kraken = Target { exchange: Some(Venue::KRAKEN), ..Target::default() };
    let open = handle.admit(Venue::KRAKEN, now).unwrap();
    let other = handle.admit(Venue::OKX, now).unwrap();
    handle.act(&kraken, Action::Cut, now).unwrap();
    assert!(open.cut.is_cancelled() && !other.cut.is_cancelled());
    handle.act(&kraken, Action::Refuse(Duration::from_millis(10)), now).unwrap();
    assert!(handle.admit(Venue::KRAKEN, now).is_none());
    assert!(handle.admit(Venue::OKX, now).is_some());
    assert!(handle.admit(Venue::KRAKEN, Timestamp::from_millis(15).unwrap()).is_some());
    drop((open, other));
    assert!(handle.report().connections.is_empty(), "who is gone is forgotten");
}

#[test]
fn a_shutdown_is_announced_once_and_cuts_who_was_open_then() {
    let mut client = binance("");
    let notice = Action::Shutdown(Duration::from_secs(60));
    client.faults.act(&Target::default(), notice, client.now).unwrap();
    let frames: Vec<String> = [10, 10, 59_979].map(|step| client.wait(step)).concat();
    let told = frames.iter().filter(|frame| frame.starts_with(r#"{"e":"serverShutdown","E":"#));
    assert_eq!(told.count(), 1);
    let later = client.faults.turn(Venue::BINANCE, 2, client.now, client.now);
    assert!(!later.is_announced, "a connection made after it is not concerned");
    client.wait(1);
    assert_eq!(client.turned, Turned::Cut);

    let mut okx = Client::open(Venue::OKX, "ws/v5/public", "");
    okx.faults.act(&Target::default(), notice, okx.now).unwrap();
    let told = okx.wait(5);
    assert!(
        told[0].starts_with(r#"{"event":"notice","code":"64008","msg":"The connection will soon"#)
    );
}

#[test]
fn an_order_is_taken_whole_or_not_at_all() {
    let handle = FaultsHandle::new(1, Switches::default());
    let now = Timestamp::from_millis(5).unwrap();
    let order = |text: &str| handle.order(&serde_json::from_str(text).unwrap(), now);
    order(r#"{"switches":"skip=0.5","action":"skip","trades":2,"exchange":"okx"}"#).unwrap();
    assert_eq!(
        handle.report(),
        FaultReport { switches: "skip=0.5".into(), waiting: 1, connections: BTreeMap::new() }
    );
    for wrong in [
        r#"{"switches":"none","action":"stall"}"#,
        r#"{"switches":"none","action":"cut","exchange":"mtgox"}"#,
        r#"{"switches":"explode"}"#,
    ] {
        assert!(order(wrong).is_err());
        assert_eq!(handle.report().switches, "skip=0.5", "{wrong}");
    }
    for _ in 1..WAITING_MAX {
        order(r#"{"action":"skip"}"#).unwrap();
    }
    assert!(matches!(order(r#"{"action":"skip"}"#), Err(FaultError::Full)));
}
