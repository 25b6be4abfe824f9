use std::sync::atomic::{AtomicI64, Ordering};

use axum::body::to_bytes;
use axum::http::Request;
use futures_util::StreamExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::{Error as WsError, Message as WsMessage};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tower::ServiceExt as _;

use super::super::harness::{START, numbers};
use super::*;

struct Running {
    url: String,
    micros: Arc<AtomicI64>,
    market: Market,
    router: Router,
    cancel: CancellationToken,
    tasks: JoinSet<Result<(), SimulatorError>>,
}

/// A simulator whose time stands still until a test moves it.
async fn running(rate: u32) -> Running {
    let micros = Arc::new(AtomicI64::new(Timestamp::from_rfc3339(START).unwrap().as_micros()));
    let hand = Arc::clone(&micros);
    let clock = Clock::new(move || Timestamp::from_micros(hand.load(Ordering::SeqCst)).unwrap());
    let options = SimulatorOptions { rate: rate.into(), clock, ..SimulatorOptions::default() };
    let simulator = Simulator::bind(options).await.unwrap();
    let url = format!("ws://{}", simulator.address());
    let market = simulator.market().clone();
    let router = router(Arc::clone(&simulator.shared));
    let cancel = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(simulator.run(cancel.clone()));
    Running { url, micros, market, router, cancel, tasks }
}

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

impl Running {
    async fn connect(&self, path: &str) -> Client {
        connect_async(format!("{}/{path}", self.url)).await.unwrap().0
    }

    fn pass(&self, millis: i64) {
        self.micros.fetch_add(millis * 1_000, Ordering::SeqCst);
    }

    fn newest(&self, exchange: &str, symbol: &str) -> u64 {
        let now = Timestamp::from_micros(self.micros.load(Ordering::SeqCst)).unwrap();
        self.market.latest(exchange, &symbol.parse().unwrap(), now).unwrap()
    }

    async fn http(&self, method: &str, path: &str, body: &str) -> (StatusCode, serde_json::Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_owned()))
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 16 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(serde_json::Value::Null))
    }

    async fn get(&self, path: &str) -> serde_json::Value {
        let (status, json) = self.http("GET", path, "").await;
        assert_eq!(status, StatusCode::OK, "{path}");
        json
    }
}

async fn texts(client: &mut Client, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        if let WsMessage::Text(text) = client.next().await.unwrap().unwrap() {
            texts.push(text.to_string());
        }
    }
    texts
}

async fn say(client: &mut Client, text: &str) {
    client.send(WsMessage::text(text)).await.unwrap();
}

#[tokio::test]
async fn a_client_on_a_real_socket_gets_every_trade_in_order() {
    let running = running(1_000).await;
    let first = running.newest("binance", "BTCUSDT") + 1;
    let mut client = running.connect("binance/ws").await;
    say(&mut client, r#"{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}"#).await;
    assert_eq!(texts(&mut client, 1).await, [r#"{"result":null,"id":1}"#]);
    // Ten thousand at once: more than a turn sends.
    running.pass(10_000);
    let last = running.newest("binance", "BTCUSDT");
    let frames = texts(&mut client, usize::try_from(last + 1 - first).unwrap()).await;
    assert_eq!(numbers(&frames, "t"), (first..=last).collect::<Vec<_>>());
    running.cancel.cancel();
    let close = loop {
        if let WsMessage::Close(frame) = client.next().await.unwrap().unwrap() {
            break frame.unwrap();
        }
    };
    assert_eq!(u16::from(close.code), 1001);
    let Running { mut tasks, .. } = running;
    tasks.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn every_exchange_is_at_its_own_paths_also_with_more_of_them() {
    let running = running(10).await;
    for path in [
        "binance/ws",
        "binance/ws/",
        "binance/ws/7",
        "binance/ws/btcusdt@trade",
        "binance/stream",
        "binance/stream?streams=btcusdt@trade",
        "coinbase",
        "coinbase/",
        "kraken/v2",
        "kraken/v2/",
        "okx/ws/v5/public",
        "okx/ws/v5/public/",
        "okx/ws/v5/business",
        "bybit/v5/public/spot",
        "bybit/v5/public/spot/",
    ] {
        drop(running.connect(path).await);
    }
    for path in ["kraken/", "okx/ws/v5/private", "bybit/v5/public/linear", "mtgox/ws", "control/ws"]
    {
        let refused = connect_async(format!("{}/{path}", running.url)).await;
        assert!(
            matches!(&refused, Err(WsError::Http(response)) if response.status() == 404),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_cut_comes_without_a_close_and_a_refusal_is_a_503() {
    let running = running(10).await;
    let mut client = running.connect("kraken/v2").await;
    texts(&mut client, 1).await;
    let (status, _) =
        running.http("POST", "/control/faults", r#"{"action":"cut","exchange":"kraken"}"#).await;
    assert_eq!(status, StatusCode::OK);
    assert!(client.next().await.unwrap().is_err(), "reset without a closing handshake");
    running.http("POST", "/control/faults", r#"{"action":"refuse","for":"5s"}"#).await;
    let refused = connect_async(format!("{}/kraken/v2", running.url)).await;
    assert!(matches!(&refused, Err(WsError::Http(response)) if response.status() == 503));
    running.pass(5_000);
    drop(running.connect("kraken/v2").await);
    let journal = running.get("/control/journal").await;
    let kinds: Vec<&str> = journal["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds[..4], ["open", "cut", "refuse", "open"]);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_waited_for_and_misses_nothing() {
    let running = running(10_000).await;
    let first = running.newest("coinbase", "BTCUSD") + 1;
    let mut client = running.connect("coinbase/").await;
    say(&mut client, r#"{"type":"subscribe","product_ids":["BTC-USD"],"channels":["matches"]}"#)
        .await;
    texts(&mut client, 2).await;
    // Some 30 MB: no socket buffer holds them.
    running.pass(10_000);
    let last = running.newest("coinbase", "BTCUSD");
    let frames = texts(&mut client, usize::try_from(last + 1 - first).unwrap()).await;
    let ids = numbers(&frames, "trade_id");
    assert_eq!((ids[0], ids[ids.len() - 1], ids.len() as u64), (first, last, last + 1 - first));
    assert!(ids.is_sorted_by(|one, next| one + 1 == *next));
}

#[tokio::test]
async fn the_control_route_knows_the_truth_and_the_history_is_whole_in_spite_of_faults() {
    let running = running(100).await;
    running.http("POST", "/control/faults", r#"{"switches":"skip=1"}"#).await;
    let newest = running.newest("binance", "BTCUSDT");
    let truth =
        running.get(&format!("/control/trade?exchange=binance&symbol=BTC-USDT&id={newest}")).await;
    let history = running
        .get(&format!("/binance/api/v3/historicalTrades?symbol=BTCUSDT&fromId={newest}"))
        .await;
    assert_eq!(history[0]["id"], truth["id"]);
    assert_eq!(history[0]["price"], truth["price"]);
    assert_eq!(history[0]["qty"], truth["quantity"]);
    let range =
        format!("/control/trade?exchange=okx&symbol=BTCUSDT&from={newest}&to={}", newest + 20_000);
    assert_eq!(running.get(&range).await.as_array().unwrap().len(), 10_000, "a page is bounded");
    assert_eq!(running.get("/control/latest?exchange=binance&symbol=BTCUSDT").await["id"], newest);
    for (method, path, body, expected) in [
        ("GET", "/control/trade?exchange=mtgox&symbol=BTCUSDT&id=1", "", StatusCode::NOT_FOUND),
        ("GET", "/control/trade?exchange=okx&symbol=BTCUSDT", "", StatusCode::BAD_REQUEST),
        ("POST", "/control/faults", r#"{"action":"sing"}"#, StatusCode::BAD_REQUEST),
        ("POST", "/control/faults", r#"{"tune":1}"#, StatusCode::BAD_REQUEST),
        ("POST", "/binance/api/v3/time", "", StatusCode::METHOD_NOT_ALLOWED),
        ("GET", "/mtgox/trades", "", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(running.http(method, path, body).await.0, expected, "{path} {body}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_says_so() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = Simulator::bind(SimulatorOptions { port, ..SimulatorOptions::default() })
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")));
}

#[tokio::test]
async fn who_asks_too_often_is_refused_as_the_venue_refuses() {
    let running = running(10).await;
    for (path, let_through, status, told) in [
        ("/binance/api/v3/historicalTrades?symbol=BTCUSDT", 240, 429, "Too much request weight"),
        ("/coinbase/products/BTC-USD/trades?limit=1", 15, 429, "Public rate limit exceeded"),
        ("/kraken/0/public/Time", 15, 200, "EGeneral:Too many requests"),
        ("/okx/api/v5/public/time", 20, 429, "50011"),
        ("/bybit/v5/market/time", 600, 200, "10006"),
    ] {
        for _ in 0..let_through {
            let (good, body) = running.http("GET", path, "").await;
            assert!(good == StatusCode::OK && !body.to_string().contains(told), "{path}: {body}");
        }
        let (refused, body) = running.http("GET", path, "").await;
        assert!(refused.as_u16() == status && body.to_string().contains(told), "{path}: {body}");
    }
    running.pass(1_000);
    running.get("/kraken/0/public/Time").await;
}

#[tokio::test]
async fn the_rest_side_can_be_down_or_slow() {
    let running = running(10).await;
    let switch = async |faults: &str| {
        let order = format!(r#"{{"switches":"{faults}"}}"#);
        assert_eq!(running.http("POST", "/control/faults", &order).await.0, StatusCode::OK);
    };
    switch("rest=down").await;
    for exchange in ["binance/api/v3/time", "okx/api/v5/public/time"] {
        let (status, _) = running.http("GET", &format!("/{exchange}"), "").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    }
    // The WebSocket side is not concerned.
    drop(running.connect("binance/ws").await);
    switch("rest=100ms").await;
    let asked = tokio::time::Instant::now();
    running.get("/binance/api/v3/time").await;
    assert!(asked.elapsed() >= Duration::from_millis(100));
    switch("none").await;
    running.get("/binance/api/v3/time").await;
}

#[tokio::test]
async fn a_banned_client_is_told_for_how_long_at_both_doors() {
    let running = running(10).await;
    let body = r#"{"action":"ban","exchange":"binance","for":"90s"}"#;
    assert!(running.http("POST", "/control/faults", body).await.0.is_success());
    running.pass(30_000);
    let upgrade = connect_async(format!("{}/binance/ws", running.url)).await.unwrap_err();
    let WsError::Http(refused) = upgrade else { panic!("{upgrade}") };
    assert_eq!(refused.status(), 418);
    assert_eq!(refused.headers()["retry-after"], "60");
    assert_eq!(running.http("GET", "/binance/api/v3/time", "").await.0, 418);
    assert_eq!(running.http("GET", "/okx/api/v5/public/time", "").await.0, 200);
    running.pass(60_000);
    assert_eq!(running.http("GET", "/binance/api/v3/time", "").await.0, 200);
    running.connect("binance/ws").await;
}
