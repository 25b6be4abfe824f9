//! A feed keeps its connection alive and brings every trade once and in order, whatever the exchange does.
//!
//! The exchange of these tests is a real WebSocket server that does as the test tells it, frame by frame.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{WebSocketStream, accept_async};
use tokio_util::sync::CancellationToken;
use trading_core::domain::{Instrument, Tick};
use trading_core::exchange::{Exchange, Kraken, Limits, Okx};
use trading_core::feed::{ConnectGate, FeedContext, LivenessRules, run};
use trading_core::pipeline::{Ledger, TickReceiver, channel};
use trading_core::store::journal::{JournalWriter, journal};
use trading_core::store::postgres::migrate;

use crate::support::postgres::database;

/// Longer than anything these tests wait for; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// A feed of `BTC-USD` and `ETH-USD`, and the server it connects to.
struct World {
    listener: TcpListener,
    ticks: TickReceiver,
    ledger: Arc<Ledger>,
    journal: JournalWriter,
    stop: CancellationToken,
    feed: JoinHandle<()>,
}

impl World {
    async fn new(
        exchange: &'static dyn Exchange,
        capacity: usize,
        limits: impl FnOnce(Limits) -> Limits,
    ) -> Self {
        Self::with(exchange, capacity, |context| context.limits = limits(context.limits)).await
    }

    async fn with(
        exchange: &'static dyn Exchange,
        capacity: usize,
        change: impl FnOnce(&mut FeedContext),
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ledger = Arc::new(Ledger::default());
        let (sender, ticks) = channel(capacity, Arc::clone(&ledger));
        let (journal, writer) = journal("test".to_owned());
        let instrument =
            |symbol: &str| Instrument::intern(exchange.name(), &symbol.parse().unwrap()).unwrap();
        let mut context = FeedContext {
            name: "test-1".into(),
            exchange,
            url: exchange.connect_url(&format!("ws://{}", listener.local_addr().unwrap())),
            limits: Limits { connect_interval: Duration::ZERO, ..exchange.limits() },
            liveness: LivenessRules::default(),
            instruments: vec![instrument("BTC-USD"), instrument("ETH-USD")],
            stored: Vec::new(),
            connections: NonZeroUsize::MIN,
            sender,
            ledger: Arc::clone(&ledger),
            journal,
            gate: Arc::new(ConnectGate::new(Duration::ZERO)),
            seed: 1,
        };
        change(&mut context);
        let stop = CancellationToken::new();
        let feed = tokio::runtime::Handle::current().spawn(run(context, stop.clone()));
        Self { listener, ticks, ledger, journal: writer, stop, feed }
    }

    /// The feed's next connection.
    async fn accept(&self) -> Server {
        let (socket, _) =
            tokio::time::timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        Server(accept_async(socket).await.unwrap())
    }

    /// The ids of the next ticks.
    async fn ids(&mut self, number: usize) -> Vec<u64> {
        let mut ticks: Vec<Tick> = Vec::new();
        while ticks.len() < number {
            let left = number - ticks.len();
            let received = self.ticks.recv_many(&mut ticks, left);
            assert_ne!(tokio::time::timeout(PATIENCE, received).await.unwrap(), 0, "feed ended");
        }
        ticks.iter().map(|tick| tick.trade_id.number().unwrap()).collect()
    }

    /// Stops the feed, and says what is still in the channel.
    async fn stop(mut self) -> (Vec<u64>, Arc<Ledger>, JournalWriter) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.feed).await.unwrap().unwrap();
        let mut rest = Vec::new();
        while self.ticks.recv_many(&mut rest, 1_000).await > 0 {}
        let ids = rest.iter().map(|tick| tick.trade_id.number().unwrap()).collect();
        (ids, self.ledger, self.journal)
    }
}

struct Server(WebSocketStream<TcpStream>);

impl Server {
    async fn send(&mut self, text: impl Into<String>) {
        self.0.send(Frame::text(text.into())).await.unwrap();
    }

    /// The next text of the feed that is not a ping; `None` when it has closed.
    async fn next(&mut self) -> Option<String> {
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next()).await.unwrap() {
                Some(Ok(Frame::Text(text))) if !text.contains("ping") => {
                    return Some(text.to_string());
                }
                Some(Ok(Frame::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    async fn acknowledge_kraken(&mut self) {
        assert!(self.next().await.unwrap().contains(r#""channel":"trade""#));
        for symbol in ["BTC/USD", "ETH/USD"] {
            self.send(format!(
                r#"{{"method":"subscribe","result":{{"channel":"trade","snapshot":true,"symbol":"{symbol}"}},"success":true,"time_in":"2026-09-26T18:09:13.157776Z","time_out":"2026-09-26T18:09:13.157776Z"}}"#
            ))
            .await;
        }
    }

    async fn send_kraken(&mut self, ids: std::ops::RangeInclusive<u64>) {
        let trades: Vec<String> = ids
            .map(|id| {
                format!(
                    r#"{{"symbol":"BTC/USD","side":"sell","price":84095.70,"qty":0.00275720,"ord_type":"limit","trade_id":{id},"timestamp":"2026-09-26T18:09:13.157776Z"}}"#
                )
            })
            .collect();
        self.send(format!(
            r#"{{"channel":"trade","type":"update","data":[{}]}}"#,
            trades.join(",")
        ))
        .await;
    }

    async fn send_okx(&mut self, id: u64) {
        self.send(format!(
            r#"{{"arg":{{"channel":"trades-all","instId":"BTC-USD"}},"data":[{{"instId":"BTC-USD","tradeId":"{id}","px":"78808.8","sz":"0.00504905","side":"sell","ts":"1788118931677","source":"0"}}]}}"#
        ))
        .await;
    }

    async fn acknowledge_okx(&mut self) {
        assert!(self.next().await.unwrap().contains("trades-all"));
        for symbol in ["BTC-USD", "ETH-USD"] {
            self.send(format!(
                r#"{{"event":"subscribe","arg":{{"channel":"trades-all","instId":"{symbol}"}},"connId":"c7f0ba8e"}}"#
            ))
            .await;
        }
    }
}

#[tokio::test]
async fn what_an_exchange_repeats_after_a_reconnect_is_taken_once() {
    let mut world = World::new(&Kraken, 1_000, |limits| limits).await;
    let mut first = world.accept().await;
    first.acknowledge_kraken().await;
    first.send_kraken(1..=10).await;
    assert_eq!(world.ids(10).await, (1..=10).collect::<Vec<_>>());
    drop(first);
    let mut second = world.accept().await;
    second.acknowledge_kraken().await;
    second.send_kraken(5..=15).await;
    assert_eq!(world.ids(5).await, (11..=15).collect::<Vec<_>>());
    let (rest, ledger, _) = world.stop().await;
    assert!(rest.is_empty(), "{rest:?}");
    let reading = ledger.read();
    assert_eq!((reading.received, reading.duplicates, reading.reconnects), (21, 6, 1));
}

#[tokio::test]
async fn a_planned_cut_is_met_by_a_second_connection_and_each_trade_comes_once_in_order() {
    let mut world = World::new(&Okx, 1_000, |limits| limits).await;
    let mut old = world.accept().await;
    old.acknowledge_okx().await;
    old.send_okx(1).await;
    assert_eq!(world.ids(1).await, [1]);
    old.send(r#"{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade. Please reconnect.","connId":"a4d3ae55"}"#).await;
    let mut next = world.accept().await;
    // Both live: the old one still brings trades while the next is not subscribed.
    old.send_okx(2).await;
    assert_eq!(world.ids(1).await, [2]);
    next.acknowledge_okx().await;
    next.send_okx(2).await;
    next.send_okx(3).await;
    assert_eq!(world.ids(1).await, [3]);
    assert_eq!(
        old.next().await,
        None,
        "the old connection is closed once the next one is subscribed"
    );
    next.send_okx(4).await;
    assert_eq!(world.ids(1).await, [4]);
    let (rest, ledger, _) = world.stop().await;
    assert_eq!((rest, ledger.read().duplicates), (vec![], 1));
}

#[tokio::test]
async fn a_connection_is_relieved_before_it_reaches_its_age() {
    // Relieved five minutes before the limit.
    let age = Some(Duration::from_secs(301));
    let mut world =
        World::new(&Kraken, 1_000, |limits| Limits { connection_age: age, ..limits }).await;
    let mut old = world.accept().await;
    old.acknowledge_kraken().await;
    old.send_kraken(1..=1).await;
    let mut next = world.accept().await;
    next.acknowledge_kraken().await;
    assert_eq!(old.next().await, None);
    next.send_kraken(1..=2).await;
    assert_eq!(world.ids(2).await, [1, 2]);
    world.stop().await;
}

#[tokio::test]
async fn heartbeats_alone_do_not_keep_a_connection() {
    let idle = Duration::from_secs(1);
    let world = World::new(&Kraken, 1_000, |limits| Limits { idle, ..limits }).await;
    let mut first = world.accept().await;
    first.acknowledge_kraken().await;
    let beat = async {
        while first.0.send(Frame::text(r#"{"channel":"heartbeat"}"#)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, beat).await.expect("the feed never left");
    world.accept().await;
    world.stop().await;
}

#[tokio::test]
async fn a_frame_that_is_not_understood_is_kept_aside_a_gap_is_listed_and_the_connection_lives() {
    let database = database().await;
    migrate(&database.pool).await.unwrap();
    let mut world = World::new(&Kraken, 1_000, |limits| limits).await;
    let mut server = world.accept().await;
    server.acknowledge_kraken().await;
    server.send("{broken").await;
    server.send("{broken").await;
    server.send(r#"{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"sideways","price":1,"qty":1,"trade_id":1,"timestamp":"2026-09-26T18:09:13.157776Z"}]}"#).await;
    server.send_kraken(2..=3).await;
    server.send_kraken(7..=7).await;
    assert_eq!(world.ids(3).await, [2, 3, 7]);
    let (_, ledger, journal) = world.stop().await;
    assert_eq!(ledger.read().malformed, 3);
    journal.run(database.pool.clone()).await;
    let kept: Vec<(String, i64)> =
        sqlx::query_as("SELECT frame, count FROM quarantined_frames ORDER BY count DESC")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    assert_eq!(kept.len(), 2);
    assert_eq!(kept[0], ("{broken".to_owned(), 2));
    assert!(kept[1].0.contains("sideways"));
    let sessions: Vec<(String, i64, i64)> =
        sqlx::query_as("SELECT reason, ticks, malformed FROM feed_sessions")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    assert_eq!(sessions, [("stopped".to_owned(), 3, 3)]);
    let gaps: Vec<(String, String, String)> =
        sqlx::query_as("SELECT symbol, first_id, last_id FROM open_gaps")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    assert_eq!(gaps, [("BTCUSD".to_owned(), "4".to_owned(), "6".to_owned())]);
}

#[tokio::test]
async fn a_refused_symbol_does_not_keep_the_others_from_being_recorded() {
    let mut world = World::new(&Kraken, 1_000, |limits| limits).await;
    let mut server = world.accept().await;
    server.next().await.unwrap();
    server.send(r#"{"error":"Currency pair not supported ETH/USD","method":"subscribe","success":false,"symbol":"ETH/USD","time_in":"2026-09-26T18:09:13.157776Z","time_out":"2026-09-26T18:09:13.157776Z"}"#).await;
    server.send_kraken(1..=3).await;
    assert_eq!(world.ids(3).await, [1, 2, 3]);
    let (_, ledger, _) = world.stop().await;
    assert_eq!(ledger.read().reconnects, 0);
}

#[tokio::test]
async fn a_full_channel_holds_the_socket_and_nothing_is_lost() {
    const TRADES: u64 = 200_000;
    let mut world = World::new(&Kraken, 10, |limits| limits).await;
    let mut server = world.accept().await;
    server.acknowledge_kraken().await;
    let mut sending = tokio::runtime::Handle::current().spawn(async move {
        for first in (1..=TRADES).step_by(50) {
            server.send_kraken(first..=first + 49).await;
        }
        server
    });
    // Nobody reads the channel: the feed stops reading, so the socket fills and the exchange cannot send on.
    let held = tokio::time::timeout(Duration::from_millis(500), &mut sending).await;
    assert!(held.is_err(), "an exchange that is not read from must be held");
    assert_eq!(world.ticks.utilization().used, 10);
    let all = usize::try_from(TRADES).unwrap();
    assert_eq!(world.ids(all).await, (1..=TRADES).collect::<Vec<_>>());
    sending.await.unwrap();
    let (rest, ledger, _) = world.stop().await;
    assert_eq!((rest, ledger.read().dropped), (vec![], 0));
}
