//! A feed keeps its connection alive and brings every trade once and in order, whatever the exchange does.
//!
//! The exchange of these tests is a real WebSocket server that does as the test tells it, frame by frame.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use sqlx::PgPool;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{WebSocketStream, accept_async};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use trading_core::config::NetworkSettings;
use trading_core::domain::{
    ExchangeStamps, Instrument, RecorderClock, Tick, Timestamp, steady_micros,
};
use trading_core::exchange::{Exchange, Limits};
use trading_core::feed::{
    ConnectGate, ConnectionStatus, ExchangeCounts, FeedBoard, FeedContext, FeedStatus,
    LivenessRules, run,
};
use trading_core::network::Network;
use trading_core::pipeline::{Ledger, LedgerReading, TickReceiver, channel};
use trading_core::store::journal::{JournalWriter, journal};

use crate::support::waiting::{in_time, spawn, until};

mod board;
mod connection;
mod continuity;
mod edge;
mod errors;
mod silence;

/// A feed of `BTC-USD` and `ETH-USD`, and the server it connects to.
struct World {
    listener: TcpListener,
    ticks: TickReceiver,
    exchange: &'static str,
    ledger: Arc<Ledger>,
    board: FeedBoard,
    journal: JournalWriter,
    stop: CancellationToken,
    feed: AbortOnDropHandle<()>,
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
        let board = FeedBoard::default();
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
            clock: clock_of_the_captures(),
            stamps: ExchangeStamps::default(),
            sender,
            board: board.clone(),
            journal,
            network: Network::new(&NetworkSettings::default()).unwrap(),
            gate: Arc::new(ConnectGate::new(Duration::ZERO, Arc::default())),
            seed: 1,
        };
        change(&mut context);
        let stop = CancellationToken::new();
        let feed = spawn(run(context, stop.clone()));
        let exchange = exchange.name();
        Self { listener, ticks, exchange, ledger, board, journal: writer, stop, feed }
    }

    /// The feed's next connection.
    async fn accept(&self) -> Server {
        let (socket, _) = in_time(self.listener.accept()).await.unwrap();
        Server(accept_async(socket).await.unwrap())
    }

    /// The ids of the next ticks.
    async fn ids(&mut self, number: usize) -> Vec<u64> {
        let ticks = self.next(number).await;
        ticks.iter().map(|tick| tick.trade_id.number().unwrap()).collect()
    }

    /// The next ticks.
    async fn next(&mut self, number: usize) -> Vec<Tick> {
        let mut ticks: Vec<Tick> = Vec::new();
        while ticks.len() < number {
            let left = number - ticks.len();
            let received = self.ticks.recv_many(&mut ticks, left);
            assert_ne!(in_time(received).await, 0, "feed ended");
        }
        ticks
    }

    /// The feed now.
    fn status(&self) -> FeedStatus {
        self.board.feeds(steady_micros()).remove(0)
    }

    /// Its only connection, once the board shows it like this.
    async fn until(&self, is_so: impl Fn(&ConnectionStatus) -> bool + Sync) -> ConnectionStatus {
        let ask = async || {
            let mut feeds = self.board.feeds(steady_micros());
            let shown = feeds.pop().ok_or("the feed has not started")?.connections.remove(0);
            if is_so(&shown) { Ok(shown) } else { Err(format!("{shown:?}")) }
        };
        until(ask).await
    }

    /// Stops the feed, and says what is still in the channel and what came.
    async fn stop(mut self) -> (Vec<u64>, Came, JournalWriter) {
        self.stop.cancel();
        in_time(&mut self.feed).await.unwrap();
        let mut rest = Vec::new();
        while self.ticks.recv_many(&mut rest, 1_000).await > 0 {}
        let ids = rest.iter().map(|tick| tick.trade_id.number().unwrap()).collect();
        let (ledger, exchange) = (self.ledger.read(), self.board.exchanges()[self.exchange]);
        // Each counts for itself.
        assert!(ledger.balances(), "{ledger}");
        assert_eq!(
            (ledger.received, ledger.feed_duplicates),
            (exchange.received, exchange.duplicates)
        );
        (ids, Came { ledger, exchange, feed: self.status() }, self.journal)
    }
}

/// What was counted until a feed was stopped, and how it was left.
struct Came {
    ledger: LedgerReading,
    exchange: ExchangeCounts,
    feed: FeedStatus,
}

/// A clock that reads the time of the trades which these servers send, and a little more: they are not from another year.
fn clock_of_the_captures() -> RecorderClock {
    let clock = RecorderClock::default();
    let captured = Timestamp::from_rfc3339("2026-09-26T18:09:21Z").unwrap();
    clock.set(captured.as_micros() - steady_micros(), 0);
    clock
}

struct Server(WebSocketStream<TcpStream>);

impl Server {
    async fn send(&mut self, text: impl Into<String>) {
        self.0.send(Frame::text(text.into())).await.unwrap();
    }

    /// The next text of the feed that is not a ping; `None` when it has closed.
    async fn next(&mut self) -> Option<String> {
        loop {
            match in_time(self.0.next()).await {
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
        self.send_kraken_of("BTC/USD", "2026-09-26T18:09:13.157776Z", ids).await;
    }

    async fn send_kraken_of(
        &mut self,
        symbol: &str,
        at: impl std::fmt::Display,
        ids: std::ops::RangeInclusive<u64>,
    ) {
        let trades: Vec<String> = ids
            .map(|id| {
                format!(
                    r#"{{"symbol":"{symbol}","side":"sell","price":84095.70,"qty":0.00275720,"ord_type":"limit","trade_id":{id},"timestamp":"{at}"}}"#
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
            r#"{{"arg":{{"channel":"trades-all","instId":"BTC-USD"}},"data":[{{"instId":"BTC-USD","tradeId":"{id}","px":"78808.8","sz":"0.00504905","side":"sell","ts":"1790446153157","source":"0"}}]}}"#
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

/// Each gap that is open, as `SYMBOL first to last: cause`, in order.
async fn gaps(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT symbol || ' ' || coalesce(first_id || ' to ' || last_id, 'some time') || ': ' || cause \
         FROM open_gaps ORDER BY 1",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}
