//! The client against a server that answers what venues do not: over real HTTP, on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Response, Uri};
use chrono::Utc;
use futures_util::stream;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::error::LAYERS;
use super::*;
use crate::config::NetworkSettings;
use crate::exchange::history::{Depth, HistoryRules};
use crate::network::Network;

/// As often as a test likes.
pub(super) fn unlimited() -> HistoryRules {
    HistoryRules {
        requests: NonZeroU32::new(100_000).unwrap(),
        per: Duration::from_secs(1),
        depth: Depth::Whole,
        times_apart: None,
    }
}

struct Odd {
    address: SocketAddr,
    /// How often `/once` was asked.
    asked: Arc<AtomicUsize>,
    _server: JoinSet<()>,
}

impl Odd {
    async fn serve() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let router = Router::new().fallback(answer).with_state((address, Arc::clone(&asked)));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, asked, _server: server }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

async fn answer(
    State((address, asked)): State<(SocketAddr, Arc<AtomicUsize>)>,
    uri: Uri,
) -> Response<Body> {
    let with = |status: u16, header: &str, value: String, body: &'static str| {
        let response = Response::builder().status(status).header(header, value);
        response.body(Body::from(body)).unwrap()
    };
    let plain = |status, body| with(status, "x-nothing", String::new(), body);
    match uri.path() {
        "/good" => plain(200, "good"),
        // Busy at first, then not.
        "/once" if asked.fetch_add(1, Ordering::SeqCst) == 0 => {
            with(429, "retry-after", "1".to_owned(), "slow\u{7} down")
        }
        "/once" => plain(200, "again"),
        "/until" => {
            let date = Utc::now() + Duration::from_secs(300);
            let date = date.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
            with(503, "retry-after", date, "")
        }
        "/banned" => with(418, "retry-after", "999999".to_owned(), ""),
        "/missing" => plain(404, "  no such product\n"),
        "/forbidden" => plain(403, "not from your country"),
        "/long" => {
            let reason = "x".repeat(1_000_000);
            Response::builder().status(400).body(Body::from(reason)).unwrap()
        }
        "/endless" => {
            let chunk = Bytes::from(vec![b'x'; 1 << 20]);
            let chunks = stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
            Response::new(Body::from_stream(chunks))
        }
        "/binary" => Response::new(Body::from(vec![0xFF, 0xFE])),
        "/moved" => with(301, "location", "/good".to_owned(), ""),
        "/round" => with(302, "location", "/round".to_owned(), ""),
        "/elsewhere" => {
            let elsewhere = format!("http://localhost:{}/good", address.port());
            with(302, "location", elsewhere, "")
        }
        _ => plain(500, "odd"),
    }
}

pub(super) fn direct() -> Network {
    Network::new(&NetworkSettings::default()).unwrap()
}

fn client() -> RestClient {
    RestClient::new(unlimited(), &direct(), Arc::default()).unwrap()
}

#[tokio::test]
async fn an_answer_is_its_text() {
    let odd = Odd::serve().await;
    assert_eq!(client().get(&odd.url("/good")).await.unwrap(), "good");
    assert_eq!(client().get(&odd.url("/moved")).await.unwrap(), "good", "on the same host");
}

#[tokio::test]
async fn all_requests_wait_when_the_venue_wants_fewer() {
    let odd = Odd::serve().await;
    let client = client();
    let asked_at = Instant::now();
    let refused = client.get(&odd.url("/once")).await.unwrap_err();
    let words = "status 429 slow down; asked again in 1s";
    assert!(refused.is_passing() && refused.to_string() == words, "{refused}");
    let (one, (once, other)) = (odd.url("/good"), (odd.url("/once"), odd.url("/good")));
    let (good, again, also) = tokio::join!(client.get(&one), client.get(&once), client.get(&other));
    assert_eq!(
        (good.unwrap(), again.unwrap(), also.unwrap()),
        ("good".into(), "again".into(), "good".into())
    );
    assert!(asked_at.elapsed() >= Duration::from_secs(1), "they waited");
    assert_eq!(odd.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_pause_may_be_a_date_and_is_bounded() {
    let odd = Odd::serve().await;
    let pause = async |path: &str| match client().get(&odd.url(path)).await {
        Err(RestError::Busy { retry_after, .. }) => retry_after.as_secs(),
        answer => panic!("{answer:?}"),
    };
    let until = pause("/until").await;
    assert!((200..=300).contains(&until), "{until}");
    assert_eq!(pause("/banned").await, 259_200);
    assert_eq!(pause("/odd").await, 5);
}

#[tokio::test]
async fn what_the_venue_refuses_is_told_in_its_words() {
    let odd = Odd::serve().await;
    let refused = async |path: &str| match client().get(&odd.url(path)).await {
        Err(RestError::Status { status, reason }) => (status, reason),
        answer => panic!("{answer:?}"),
    };
    assert_eq!(refused("/missing").await, (404, "no such product".to_owned()));
    assert_eq!(refused("/forbidden").await, (403, "not from your country".to_owned()));
    assert_eq!(refused("/long").await, (400, "x".repeat(200)));
    assert_eq!(refused("/elsewhere").await.0, 302, "another host is not followed");
    assert_eq!(refused("/round").await.0, 302, "nor a circle");
}

#[tokio::test]
async fn an_answer_without_an_end_is_given_up() {
    let odd = Odd::serve().await;
    let endless = client().get(&odd.url("/endless")).await;
    assert!(matches!(endless, Err(RestError::TooLarge)), "{endless:?}");
    let binary = client().get(&odd.url("/binary")).await;
    assert!(matches!(binary, Err(RestError::NotText)), "{binary:?}");
}

#[tokio::test]
async fn a_venue_that_is_not_there_may_come_back() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let nobody = client().get(&format!("http://{address}/")).await.unwrap_err();
    assert!(nobody.is_passing(), "{nobody:?}");
    assert!(nobody.to_string().starts_with("not reached: Connection refused"), "{nobody}");
    // No name ends so (RFC 6761). The layers of the client say nothing that an operator can use.
    let unknown = client().get("http://nobody.invalid/").await.unwrap_err().to_string();
    assert!(unknown.len() > "not reached: ".len(), "{unknown}");
    assert!(!LAYERS.iter().any(|layer| unknown.contains(layer)), "{unknown}");
}

#[tokio::test]
async fn requests_are_spread_evenly_over_time() {
    let odd = Odd::serve().await;
    let rules = HistoryRules { requests: NonZeroU32::new(20).unwrap(), ..unlimited() };
    let client = Arc::new(RestClient::new(rules, &direct(), Arc::default()).unwrap());
    let started = Instant::now();
    let mut asking = JoinSet::new();
    for _ in 0..6 {
        let (client, url) = (Arc::clone(&client), odd.url("/good"));
        asking.spawn(async move { client.get(&url).await.unwrap() });
    }
    while asking.join_next().await.is_some() {}
    // The first at once, and one each 50 ms from then on.
    assert!(started.elapsed() >= Duration::from_millis(249), "{:?}", started.elapsed());
}
