//! What a feed says of itself on the board, from its first connection to its stop.

use trading_core::exchange::Kraken;
use trading_core::feed::{ConnectionState, ConnectionStatus, SymbolStatus};

use super::World;

/// Waits for a state, in which the connection stays until the test goes on.
async fn until(world: &World, state: ConnectionState) -> ConnectionStatus {
    world.until(|shown| shown.state == state).await
}

fn symbol<'a>(connection: &'a ConnectionStatus, name: &str) -> &'a SymbolStatus {
    connection.symbols.iter().find(|it| it.instrument.symbol().as_str() == name).unwrap()
}

#[tokio::test]
async fn a_connection_is_shown_from_connecting_over_each_reconnect_to_the_stop() {
    let mut world = World::new(&Kraken, 1_000, |limits| limits).await;
    let connecting = until(&world, ConnectionState::Connecting).await;
    assert_eq!((connecting.frame_age, connecting.reconnects), (None, 0));
    assert_eq!((connecting.name.as_str(), connecting.last_end), ("test-1", None));

    let mut first = world.accept().await;
    let subscribing = until(&world, ConnectionState::Subscribing).await;
    assert!(subscribing.since >= connecting.since);
    assert!(subscribing.symbols.iter().all(|symbol| !symbol.is_acknowledged));

    first.acknowledge_kraken().await;
    let streaming = until(&world, ConnectionState::Streaming).await;
    assert!(streaming.frame_age.is_some());
    assert!(streaming.symbols.iter().all(|it| it.is_acknowledged && !it.is_silent));
    assert!(streaming.symbols.iter().all(|symbol| symbol.last_tick_at.is_none()));
    first.send_kraken(1..=1).await;
    let received_at = world.next(1).await[0].received_at;
    let now = world.status().connections.remove(0);
    assert_eq!(symbol(&now, "BTCUSD").last_tick_at, Some(received_at));
    assert_eq!(symbol(&now, "ETHUSD").last_tick_at, None);

    drop(first);
    let waiting = until(&world, ConnectionState::WaitingToReconnect).await;
    let why = waiting.last_end.as_deref().unwrap();
    assert!(why.starts_with("connection failed") || why.starts_with("closed"), "{why}");
    assert!(waiting.symbols.iter().all(|symbol| !symbol.is_acknowledged));
    assert_eq!(symbol(&waiting, "BTCUSD").last_tick_at, Some(received_at), "known all the same");

    let mut second = world.accept().await;
    second.acknowledge_kraken().await;
    let again = until(&world, ConnectionState::Streaming).await;
    assert_eq!((again.reconnects, again.last_end.as_deref()), (1, Some(why)));
    assert_eq!(world.board.exchanges()["kraken"].reconnects, 1);

    let (_, came, _) = world.stop().await;
    let stopped = &came.feed.connections[0];
    assert_eq!(stopped.state, ConnectionState::Stopped);
    assert_eq!(stopped.last_end.as_deref(), Some("stopped"));
}

#[tokio::test]
async fn a_refused_symbol_is_shown_as_not_acknowledged_beside_one_that_is() {
    let world = World::new(&Kraken, 1_000, |limits| limits).await;
    let mut server = world.accept().await;
    server.next().await.unwrap();
    server.send(r#"{"error":"Currency pair not supported ETH/USD","method":"subscribe","success":false,"symbol":"ETH/USD","time_in":"2026-09-26T18:09:13.157776Z","time_out":"2026-09-26T18:09:13.157776Z"}"#).await;
    server.send_kraken(1..=1).await;
    let streaming = until(&world, ConnectionState::Streaming).await;
    assert!(symbol(&streaming, "BTCUSD").is_acknowledged);
    assert!(!symbol(&streaming, "ETHUSD").is_acknowledged);
    world.stop().await;
}
