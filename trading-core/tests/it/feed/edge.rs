//! What comes from outside before a frame is a trade: texts that are none, refusals, bans.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use trading_core::config::NetworkSettings;
use trading_core::exchange::{Bybit, Exchange as _, Kraken, Limits};
use trading_core::feed::ConnectGate;
use trading_core::network::{Network, Pause};
use trading_core::rest::{RestClient, RestError};

use super::World;
use crate::support::postgres::migrated;
use crate::support::waiting::in_time;

/// A short frame as a server sends it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    [&[first, length], payload].concat()
}

#[tokio::test]
async fn a_text_that_is_no_utf8_is_kept_aside_whole_or_in_pieces_and_the_connection_lives() {
    let database = migrated().await;
    let mut world = World::new(&Kraken, 1_000, |limits| limits).await;
    let mut server = world.accept().await;
    server.acknowledge_kraken().await;
    server.send_kraken(1..=1).await;
    let socket = server.0.get_mut();
    socket.write_all(&frame(0x81, b"{\"one\xff\":1}")).await.unwrap();
    // A text in two pieces, of which the second is none; a ping between them.
    socket.write_all(&frame(0x01, b"{\"two")).await.unwrap();
    socket.write_all(&frame(0x89, b"still there?")).await.unwrap();
    socket.write_all(&frame(0x80, b"\xc3\x28\"}")).await.unwrap();
    // Pieces that are a text only together: a character is cut.
    socket.write_all(&frame(0x01, b"{\"channel\":\"heartbeat\",\"x\":\"\xe5")).await.unwrap();
    socket.write_all(&frame(0x80, b"\xb8\x81\"}")).await.unwrap();
    server.send_kraken(2..=3).await;
    assert_eq!(world.ids(3).await, [1, 2, 3]);
    let (_, came, journal) = world.stop().await;
    let reading = came.exchange;
    assert_eq!((reading.malformed, reading.reconnects), (2, 0));
    journal.run(database.pool.clone()).await;
    let kept: Vec<(String, String)> =
        sqlx::query_as("SELECT frame, reason FROM quarantined_frames ORDER BY frame")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    let frames: Vec<_> = kept.iter().map(|(frame, _)| frame.as_str()).collect();
    assert_eq!(frames, ["{\"one\u{fffd}\":1}", "{\"two\u{fffd}(\"}"]);
    assert!(kept.iter().all(|(_, reason)| reason.starts_with("no UTF-8 text")), "{kept:?}");
}

/// Answers one request, whatever it asks, and closes.
async fn answer(listener: &TcpListener, text: &str) {
    let accepted = in_time(listener.accept()).await;
    let mut stream: TcpStream = accepted.unwrap().0;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(text.as_bytes()).await.unwrap();
}

fn client(banned: &Arc<Pause>) -> RestClient {
    let network = Network::new(&NetworkSettings::default()).unwrap();
    RestClient::new(Bybit.history().rules(), &network, Arc::clone(banned)).unwrap()
}

/// Whether nobody knocks, as far as can be seen in a while.
async fn is_left_alone(listener: &TcpListener) -> bool {
    tokio::time::timeout(Duration::from_millis(1_500), listener.accept()).await.is_err()
}

#[tokio::test]
async fn a_ban_at_the_websocket_is_kept_by_every_connection_and_by_the_history() {
    for (refusal, least) in [
        ("418 I'm a teapot\r\nRetry-After: 3600\r\n\r\n{\"code\":-1003}", 3_600),
        ("418 I'm a teapot\r\n\r\n", 600),
        ("403 Forbidden\r\n\r\n<html>403, RequestId. Access Too Frequent</html>", 600),
        ("429 Too Many Requests\r\nRetry-After: 999999\r\n\r\n", 259_200),
        ("429 Too Many Requests\r\n\r\n", 60),
    ] {
        let banned = Arc::new(Pause::new("bybit", 1));
        let shared = Arc::clone(&banned);
        let world = World::with(&Bybit, 1_000, move |context| {
            context.gate = Arc::new(ConnectGate::new(Duration::ZERO, shared));
        })
        .await;
        answer(&world.listener, &format!("HTTP/1.1 {refusal}")).await;
        assert!(is_left_alone(&world.listener).await, "{refusal}");
        let left = banned.left();
        let (least, most) = (Duration::from_secs(least - 5), Duration::from_secs(least + 10));
        assert!(left > least && left <= most, "{refusal}: {left:?}");
        let url = format!("http://{}/", world.listener.local_addr().unwrap());
        let client = client(&banned);
        tokio::select! {
            answer = client.get(&url) => panic!("{refusal}: {answer:?}"),
            alone = is_left_alone(&world.listener) => assert!(alone, "{refusal}"),
        }
        world.stop().await;
    }
}

#[tokio::test]
async fn a_ban_of_the_history_is_kept_by_the_feeds() {
    let rest = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let banned = Arc::new(Pause::new("bybit", 1));
    let (client, url) = (client(&banned), format!("http://{}/", rest.local_addr().unwrap()));
    let page = "HTTP/1.1 403 Forbidden\r\nContent-Length: 19\r\n\r\naccess too frequent";
    let (answered, ()) = tokio::join!(client.get(&url), answer(&rest, page));
    assert!(matches!(answered, Err(RestError::Busy { .. })), "{answered:?}");
    let shared = Arc::clone(&banned);
    let world = World::with(&Bybit, 1_000, move |context| {
        context.gate = Arc::new(ConnectGate::new(Duration::ZERO, shared));
    })
    .await;
    assert!(is_left_alone(&world.listener).await);
    world.stop().await;
}

#[tokio::test]
async fn an_outage_at_the_websocket_is_waited_out_for_ten_minutes_at_most_and_not_by_the_history() {
    let banned = Arc::new(Pause::new("bybit", 1));
    let gate = Arc::new(ConnectGate::new(Duration::ZERO, Arc::clone(&banned)));
    let shared = Arc::clone(&gate);
    let world = World::with(&Bybit, 1_000, move |context| context.gate = shared).await;
    answer(&world.listener, "HTTP/1.1 503 Busy\r\nRetry-After: 259200\r\n\r\n").await;
    assert!(is_left_alone(&world.listener).await);
    let left = gate.left();
    assert!(left > Duration::from_secs(590) && left <= Duration::from_secs(610), "{left:?}");
    assert!(banned.left().is_zero());
    world.stop().await;
}

#[tokio::test]
async fn pings_alone_do_not_keep_a_connection() {
    let idle = Duration::from_secs(1);
    let world = World::new(&Kraken, 1_000, |limits| Limits { idle, ..limits }).await;
    let mut server = world.accept().await;
    server.acknowledge_kraken().await;
    let ping = frame(0x89, b"still there?");
    let pinging = async {
        while server.0.get_mut().write_all(&ping).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time(pinging).await;
    world.accept().await;
    world.stop().await;
}

#[tokio::test]
async fn a_path_that_has_moved_on_the_same_host_is_followed() {
    let mut world = World::new(&Kraken, 1_000, |limits| limits).await;
    let moved = "HTTP/1.1 308 Permanent Redirect\r\nLocation: /v3\r\n\r\n";
    answer(&world.listener, moved).await;
    let mut server = world.accept().await;
    server.acknowledge_kraken().await;
    server.send_kraken(1..=1).await;
    assert_eq!(world.ids(1).await, [1]);
    world.stop().await;
}
