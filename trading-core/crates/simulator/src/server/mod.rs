//! The simulator's only I/O: one loopback port, and under it every exchange at `/<exchange>/…`.
//!
//! The wall clock and the sockets meet the pure sessions here. A connection takes a turn every few milliseconds,
//! and the next one at once while it is behind; it waits for its socket after each, so that a slow client costs
//! no memory and its trades wait in the market.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderValue, Method, Response, StatusCode, Uri, header};
use axum::serve::ListenerExt as _;
use futures_util::SinkExt as _;
use rust_decimal::Decimal;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use super::control;
use super::faults::{Admitted, FaultsHandle, RestFault, Switches};
use super::journal::{Entry, EntryKind};
use super::limits::{Limiter, RestLimits};
use super::market::{Bursts, Closure, MARKET_VERSION, Market, MarketError, MarketOptions};
use super::outbox::{Frame, Outbox};
use super::reply::{Query, Reply, Request};
use super::session::{Protocol, Session, Turned};
use super::shared::{Clock, Shared};
use super::venue::Venue;
use domain::{SIMULATOR, Symbol, Timestamp};

/// How often a connection sends the trades that are due.
const TURN_EVERY: Duration = Duration::from_millis(5);
/// The largest message that a client may send; no venue takes more.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Frames are handed to the socket in pieces of this size.
const WRITE_BUFFER_BYTES: usize = 64 << 10;
/// What waits for a client that takes nothing. The largest message, a turn of trades, is 190 KB; the next ones wait in
/// the market.
const WRITE_BUFFER_BYTES_MAX: usize = 256 << 10;
/// How long a client is given to take the close frame when the simulator stops.
const CLOSE_WITHIN: Duration = Duration::from_millis(250);
/// How long open connections may take to end when the simulator stops.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// How the simulated exchanges are.
#[derive(Debug, Clone)]
pub struct SimulatorOptions {
    /// Port on loopback; 0: one that the system chooses.
    pub port: u16,
    /// Which market: the same seed gives the same trades.
    pub seed: u64,
    /// Trades per second of each symbol, on average.
    pub rate: Decimal,
    /// Trades that arrive together; `None`: the rate is even.
    pub bursts: Option<Bursts>,
    /// Symbols that every exchange lists beside the well-known ones.
    pub symbols: Vec<Symbol>,
    /// The share of ids that are never issued, from 0 to 0.1: no trade has them.
    pub unissued: Decimal,
    /// When the market stood still, oldest first, in whole milliseconds.
    pub closures: Vec<Closure>,
    /// How many of a symbol's newest trades a REST side shows that cannot be asked for older ones, as Bybit's, however few
    /// are asked for; `None`: as many as the real one.
    pub history: Option<usize>,
    /// How often the REST sides may be asked.
    pub rest_limits: RestLimits,
    /// Faults that are on from the start.
    pub faults: Switches,
    /// Whether every answer says that it is of a simulated market, so that nobody takes it for a real one. A test, in which
    /// the simulator takes their place, leaves that out.
    pub announced: bool,
    /// Where its time comes from.
    pub clock: Clock,
}

impl Default for SimulatorOptions {
    fn default() -> Self {
        let market = MarketOptions::default();
        let MarketOptions { seed, rate, bursts, symbols, unissued, closures } = market;
        Self {
            port: 0,
            seed,
            rate,
            bursts,
            symbols,
            unissued,
            closures,
            history: None,
            rest_limits: RestLimits::default(),
            faults: Switches::default(),
            announced: false,
            clock: Clock::default(),
        }
    }
}

/// Why there is no simulator.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// The market cannot be.
    #[error("the simulated market is not possible")]
    Market(#[from] MarketError),
    /// The port is taken, or may not be used.
    #[error("cannot listen on 127.0.0.1:{port}: choose another port, or 0")]
    Bind {
        /// The port asked for.
        port: u16,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The listener broke.
    #[error("the simulated exchanges stopped serving")]
    Serve(#[source] std::io::Error),
}

/// The simulated exchanges, listening.
#[derive(Debug)]
pub struct Simulator {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Simulator {
    /// Listens; clients are answered once [`Simulator::run`] runs.
    ///
    /// # Errors
    ///
    /// When the market is not possible, or the port cannot be used.
    pub async fn bind(options: SimulatorOptions) -> Result<Self, SimulatorError> {
        let SimulatorOptions { port, seed, rate, bursts, symbols, unissued, closures, .. } =
            options;
        let market =
            Market::new(&MarketOptions { seed, rate, bursts, symbols, unissued, closures })?;
        let announcement =
            format!("{SIMULATOR} (seed {seed}, rate {rate}, market {MARKET_VERSION})");
        let announced = options.announced;
        let failed = |source| SimulatorError::Bind { port, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Shared {
            market,
            history: options.history,
            faults: FaultsHandle::new(seed, options.faults),
            clock: options.clock,
            server: announced.then(|| HeaderValue::try_from(announcement).ok()).flatten(),
            limits: Limiter::new(options.rest_limits),
            connections: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        Ok(Self { listener, address, shared: Arc::new(shared) })
    }

    /// Where clients connect to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The truth about all trades.
    #[must_use]
    pub fn market(&self) -> &Market {
        &self.shared.market
    }

    /// The switches of the faults, and the journal.
    #[must_use]
    pub fn faults(&self) -> FaultsHandle {
        self.shared.faults.clone()
    }

    /// Serves until it is cancelled; then closes every connection.
    ///
    /// # Errors
    ///
    /// When the listener breaks.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), SimulatorError> {
        let Self { listener, shared, .. } = self;
        // Also ends the connections when this future is dropped.
        let ending = shared.stop.clone().drop_guard();
        let listener = listener.tap_io(|socket| {
            if let Err(error) = socket.set_nodelay(true) {
                debug!(%error, "TCP_NODELAY is not set");
            }
        });
        let stop = shared.stop.clone();
        axum::serve(listener, router(Arc::clone(&shared)))
            .with_graceful_shutdown(async move {
                cancel.cancelled().await;
                stop.cancel();
            })
            .await
            .map_err(SimulatorError::Serve)?;
        drop(ending);
        shared.connections.close();
        if timeout(STOP_WITHIN, shared.connections.wait()).await.is_err() {
            debug!(open = shared.connections.len(), "connections were left to end by themselves");
        }
        Ok(())
    }
}

/// Binds, says where, and serves until it is cancelled.
///
/// # Errors
///
/// When it cannot listen, or stops serving by itself.
pub async fn run(
    options: SimulatorOptions,
    cancel: CancellationToken,
) -> Result<(), SimulatorError> {
    let simulator = Simulator::bind(options).await?;
    let address = simulator.address();
    for venue in Venue::ALL {
        let name = venue.name();
        info!("Simulated {name}: ws://{address}/{name} http://{address}/{name}");
    }
    simulator.run(cancel).await
}

fn router(shared: Arc<Shared>) -> Router {
    control::routes().fallback(exchange).with_state(shared)
}

async fn exchange(
    State(shared): State<Arc<Shared>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    method: Method,
    uri: Uri,
) -> Response<Body> {
    let server = shared.server.clone();
    let mut response = answer(shared, upgrade, method, uri).await;
    if let Some(server) = server {
        response.headers_mut().insert(header::SERVER, server);
    }
    response
}

async fn answer(
    shared: Arc<Shared>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    method: Method,
    uri: Uri,
) -> Response<Body> {
    let now = shared.clock.now();
    let path: Vec<String> = uri.path().split('/').map(decoded).collect();
    let mut segments = path.iter().map(String::as_str).filter(|segment| !segment.is_empty());
    let venue = segments.next().and_then(|name| name.parse::<Venue>().ok());
    let segments: Vec<&str> = segments.collect();
    let query = Query::parse(uri.query().unwrap_or(""));
    let Some(venue) = venue else {
        return respond(Reply::not_found());
    };
    if let Some(seconds) = shared.faults.banned_for(venue, now) {
        let reply =
            Reply::error(venue.facts().banned, r#"{"message":"banned: too many requests"}"#);
        return respond(reply.with_header("retry-after", seconds.to_string()));
    }
    let Ok(upgrade) = upgrade else {
        if method != Method::GET {
            return respond(Reply::error(405, r#"{"message":"method not allowed"}"#));
        }
        return respond(ask(&shared, venue, &segments, query, now).await);
    };
    let Some(admission) = shared.faults.admit(venue, now) else {
        return respond(unavailable());
    };
    let number = admission.connection;
    let Some(protocol) = venue.0.connect(&shared.market, &segments, &query, number) else {
        return respond(Reply::not_found());
    };
    let connections = shared.connections.clone();
    upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .on_upgrade(move |socket| {
            connections.track_future(connection(socket, shared, venue, admission, protocol))
        })
}

/// A part of a path without its percent signs.
fn decoded(segment: &str) -> String {
    let text = segment.replace('+', "%2B").replace('=', "%3D").replace('&', "%26");
    let mut read = url::form_urlencoded::parse(text.as_bytes());
    read.next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}

/// Answers a REST request, if the venue's limit and the faults let it.
async fn ask(
    shared: &Arc<Shared>,
    venue: Venue,
    path: &[&str],
    query: Query,
    now: Timestamp,
) -> Reply {
    match shared.faults.rest() {
        Some(RestFault::Down) => return unavailable(),
        Some(RestFault::Slow(lasting)) => sleep(lasting).await,
        None => {}
    }
    if let Err(retry_after) = shared.limits.charge(venue, path, now) {
        return venue.0.refusal(retry_after, now);
    }
    // A day of candles is a million trades: not on the threads that serve the sockets.
    let path: Vec<String> = path.iter().map(|segment| (*segment).to_owned()).collect();
    let (market, history) = (shared.market.clone(), shared.history);
    let answer = spawn_blocking(move || {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        venue.0.rest(&market, &Request { path: &path, query: &query, now, history })
    });
    answer.await.unwrap_or_else(|_| unavailable())
}

fn unavailable() -> Reply {
    Reply::error(503, r#"{"message":"service unavailable"}"#)
}

fn respond(reply: Reply) -> Response<Body> {
    let mut response = Response::new(Body::from(reply.body.into_owned()));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::OK);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// By the client, its network, or the venue's rules.
    Closed,
    /// By a fault.
    Cut,
    /// The simulator stops.
    Stopped,
}

async fn connection(
    mut socket: WebSocket,
    shared: Arc<Shared>,
    venue: Venue,
    admission: Admitted,
    protocol: Box<dyn Protocol>,
) {
    let end = tokio::select! {
        biased;
        () = shared.stop.cancelled() => End::Stopped,
        () = admission.cut.cancelled() => {
            let entry = Entry::new(shared.clock.now(), venue, admission.connection, EntryKind::Cut, None);
            shared.faults.record(entry);
            End::Cut
        }
        end = converse(&mut socket, &shared, venue, admission.connection, protocol) => end,
    };
    match end {
        End::Cut => {}
        End::Closed => {
            let now = shared.clock.now();
            let entry = Entry::new(now, venue, admission.connection, EntryKind::Close, None);
            shared.faults.record(entry);
        }
        End::Stopped => {
            let reason = Utf8Bytes::from_static("going away");
            let close = Message::Close(Some(CloseFrame { code: 1001, reason }));
            // A client that does not take it is gone or stuck; either way it will see the end of the stream.
            drop(timeout(CLOSE_WITHIN, socket.send(close)).await);
        }
    }
}

async fn converse(
    socket: &mut WebSocket,
    shared: &Shared,
    venue: Venue,
    connection: u64,
    protocol: Box<dyn Protocol>,
) -> End {
    let mut out = Outbox::default();
    let faults = shared.faults.clone();
    let now = shared.clock.now();
    let mut session = Session::open(venue, connection, protocol, faults, now, &mut out);
    let mut turns = interval(TURN_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turned = Turned::Current;
    loop {
        if !out.is_empty() {
            let closes = out.closes();
            if deliver(socket, &mut out).await.is_err() || closes {
                return End::Closed;
            }
        }
        tokio::select! {
            biased;
            // A stalled venue does not listen either; what the client says waits in its socket.
            message = socket.recv(), if turned != Turned::Stalled => match message {
                Some(Ok(Message::Text(text))) => {
                    session.text(text.as_str(), shared.clock.now(), &mut out);
                }
                Some(Ok(Message::Pong(_))) => session.pong(shared.clock.now()),
                Some(Ok(Message::Ping(_) | Message::Binary(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return End::Closed,
            },
            () = due(&mut turns, turned) => {
                turned = session.turn(shared.clock.now(), &mut out);
                if turned == Turned::Cut {
                    return End::Cut;
                }
            }
        }
    }
}

/// Returns when the next turn is due: at once for a connection that is behind. Cancelling it loses nothing.
async fn due(turns: &mut Interval, turned: Turned) {
    if turned == Turned::Behind {
        tokio::task::yield_now().await;
    } else {
        turns.tick().await;
    }
}

/// Sends all frames, and waits until the socket has taken them.
async fn deliver(socket: &mut WebSocket, out: &mut Outbox) -> Result<(), axum::Error> {
    let (text, frames) = out.take();
    for frame in frames {
        let message = match frame {
            Frame::Text(range) => {
                Message::Text(Utf8Bytes::try_from(text.slice(range)).map_err(axum::Error::new)?)
            }
            Frame::Ping(payload) => Message::Ping(payload.into()),
            Frame::Close(code, reason) => {
                let reason = Utf8Bytes::from_static(reason);
                Message::Close(Some(CloseFrame { code, reason }))
            }
        };
        socket.feed(message).await?;
    }
    socket.flush().await
}

#[cfg(test)]
mod tests;
