//! A symbol that falls silent while its connection lives is subscribed anew, then another connection is opened.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rust_decimal::Decimal;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::accept_async;
use trading_core::domain::{Instrument, RecorderClock, Timestamp};
use trading_core::exchange::{Binance, Exchange as _, Kraken};
use trading_core::feed::LivenessRules;
use trading_core::simulator::{Action, SimulatorOptions, Target};

use super::{Server, World};
use crate::support::exchanges::Exchanges;
use crate::support::waiting::PATIENCE;

/// As the default, in a hurry.
const RULES: LivenessRules = LivenessRules {
    apart: Duration::from_millis(10),
    silence_min: Duration::from_secs(1),
    patience_max: Duration::from_secs(60),
    first_trade_max: Duration::from_millis(500),
};

/// What is logged on this thread.
#[derive(Debug, Default, Clone)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn capture(&self) -> tracing::subscriber::DefaultGuard {
        let (log, info) = (self.clone(), tracing::Level::INFO);
        let lines = tracing_subscriber::fmt().with_max_level(info).with_ansi(false);
        tracing::subscriber::set_default(lines.with_writer(move || log.clone()).finish())
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Sends trades of these symbols until the feed says something that is no ping; `None`: it has closed.
async fn trade_until_asked(server: &mut Server, symbols: &[&str], id: &mut u64) -> Option<String> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        *id += 1;
        for symbol in symbols {
            server.send_kraken_of(symbol, Timestamp::now(), *id..=*id).await;
        }
        if let Ok(asked) = timeout(Duration::from_millis(15), server.next()).await {
            return asked;
        }
    }
    panic!("nothing was asked");
}

async fn learn(server: &mut Server, world: &mut World, id: &mut u64) {
    for _ in 0..20 {
        *id += 1;
        for symbol in ["BTC/USD", "ETH/USD"] {
            server.send_kraken_of(symbol, Timestamp::now(), *id..=*id).await;
        }
        assert_eq!(world.ids(2).await, [*id, *id]);
        sleep(RULES.apart).await;
    }
}

const OFF: &str = r#"{"method":"unsubscribe","params":{"channel":"trade","symbol":["ETH/USD"]}}"#;
const ON: &str = r#"{"method":"subscribe","params":{"channel":"trade","snapshot":true,"symbol":["ETH/USD"]},"req_id":1}"#;

async fn confirm(server: &mut Server) {
    for (method, snapshot) in [("unsubscribe", ""), ("subscribe", r#""snapshot":true,"#)] {
        server
            .send(format!(
                r#"{{"method":"{method}","result":{{"channel":"trade",{snapshot}"symbol":"ETH/USD"}},"success":true,"time_in":"2026-09-26T18:09:13.157776Z","time_out":"2026-09-26T18:09:13.157776Z"}}"#
            ))
            .await;
    }
}

#[tokio::test]
async fn for_a_silent_symbol_another_connection_is_opened_before_the_old_one_ends() {
    let mut world = World::with(&Kraken, 100_000, |context| {
        (context.liveness, context.clock) = (RULES, RecorderClock::default());
    })
    .await;
    let mut old = world.accept().await;
    old.acknowledge_kraken().await;
    let mut id = 0;
    learn(&mut old, &mut world, &mut id).await;
    let (first, bitcoin) = (id + 1, ["BTC/USD"]);
    assert_eq!(trade_until_asked(&mut old, &bitcoin, &mut id).await.as_deref(), Some(OFF));
    assert_eq!(trade_until_asked(&mut old, &bitcoin, &mut id).await.as_deref(), Some(ON));
    confirm(&mut old).await;
    // The old one brings what is traded until the next one stands.
    let mut next = loop {
        id += 1;
        old.send_kraken_of("BTC/USD", Timestamp::now(), id..=id).await;
        let accepted = timeout(Duration::from_millis(15), world.listener.accept()).await;
        if let Ok(accepted) = accepted {
            break Server(accept_async(accepted.unwrap().0).await.unwrap());
        }
    };
    id += 1;
    old.send_kraken_of("BTC/USD", Timestamp::now(), id..=id).await;
    next.acknowledge_kraken().await;
    id += 1;
    next.send_kraken_of("BTC/USD", Timestamp::now(), id..=id).await;
    let number = usize::try_from(id + 1 - first).unwrap();
    assert_eq!(world.ids(number).await, (first..=id).collect::<Vec<_>>(), "none is lost");
    assert!(old.next().await.is_none(), "it has left");
    // What is known of the silent symbol is known to the next connection: it is more patient.
    let asked = trade_until_asked(&mut next, &bitcoin, &mut id);
    assert!(timeout(RULES.silence_min / 4, asked).await.is_err());
    let (_, came, _) = world.stop().await;
    assert_eq!(came.exchange.reconnects, 1);
}

#[tokio::test]
async fn a_symbol_that_was_acknowledged_and_never_trades_is_asked_for_once_more_and_not_called_subscribed()
 {
    let log = Log::default();
    let _guard = log.capture();
    let world = World::with(&Kraken, 100_000, |context| {
        (context.liveness, context.clock) = (RULES, RecorderClock::default());
    })
    .await;
    let mut server = world.accept().await;
    server.acknowledge_kraken().await;
    let (mut id, bitcoin) = (0, ["BTC/USD"]);
    assert_eq!(trade_until_asked(&mut server, &bitcoin, &mut id).await.as_deref(), Some(OFF));
    assert_eq!(trade_until_asked(&mut server, &bitcoin, &mut id).await.as_deref(), Some(ON));
    confirm(&mut server).await;
    // Long enough for four more alarms.
    let again = trade_until_asked(&mut server, &bitcoin, &mut id);
    let again = timeout(RULES.first_trade_max * 4, again).await;
    assert!(again.is_err(), "{again:?}");
    let (.., came, _) = world.stop().await;
    assert_eq!(came.exchange.reconnects, 0);
    let shown = &came.feed.connections[0].symbols;
    let shown = |name| shown.iter().find(|it| it.instrument.symbol().as_str() == name).unwrap();
    assert_eq!((shown("BTCUSD").is_silent, shown("ETHUSD").is_silent), (false, true));
    let log = log.text();
    assert!(log.contains("kraken:ETHUSD is acknowledged, but nothing has come"), "{log}");
    assert!(!log.contains("kraken:ETHUSD is subscribed"), "{log}");
}

#[tokio::test]
async fn a_symbol_that_a_simulated_exchange_forgets_comes_back_without_a_reconnect() {
    let options = SimulatorOptions { rate: Decimal::from(50), ..SimulatorOptions::default() };
    let exchanges = Exchanges::with(options).await;
    let symbol = |name: &str| Instrument::intern("binance", &name.parse().unwrap()).unwrap();
    let (bitcoin, ether) = (symbol("BTCUSDT"), symbol("ETHUSDT"));
    let mut world = World::with(&Binance, 100_000, |context| {
        context.url = Binance.connect_url(&exchanges.url("ws", "binance"));
        context.instruments = vec![bitcoin, ether];
        context.clock = RecorderClock::default();
        // The rate is fifty a second, in orders of several trades.
        context.liveness = LivenessRules { apart: Duration::from_millis(40), ..RULES };
    })
    .await;
    world.next(400).await;
    let only = Target { symbol: Some("BTCUSDT".to_owned()), ..Target::default() };
    let for_long = Action::Stall(PATIENCE * 10);
    exchanges.faults.act(&only, for_long, Timestamp::now()).unwrap();
    let stalled_at = Timestamp::now();
    let deadline = Instant::now() + PATIENCE;
    let comes_back = loop {
        assert!(Instant::now() < deadline, "it does not come back");
        let ticks = world.next(1).await;
        let of_bitcoin = ticks.iter().find(|tick| tick.instrument == bitcoin);
        // What was on its way when it was stalled is no cure.
        let margin = 500_000;
        let later = |tick: &&trading_core::domain::Tick| {
            tick.received_at.as_micros() > stalled_at.as_micros() + margin
        };
        if let Some(tick) = of_bitcoin.filter(later) {
            break tick.clone();
        }
    };
    assert_eq!(comes_back.instrument, bitcoin);
    let (.., came, _) = world.stop().await;
    assert_eq!(came.exchange.reconnects, 0);
    exchanges.close().await;
}
