//! The opening of a WebSocket, and what a venue says when it refuses one.

use std::fmt;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use url::Url;

use super::Network;
use super::dial::{DialError, dial};
use super::head::Head;
use super::pause::{self, Hold, Side};
use super::wire::{Stream, Wire};
use super::words::words;
use crate::domain::{Timestamp, announced_market};
use crate::telemetry::Lasting;

/// A WebSocket to a venue. Its text messages come as binary ones.
pub type WebSocket = WebSocketStream<Wire>;

/// A venue may move a route, but not to another host.
const REDIRECTS_MAX: usize = 3;
/// One read takes what the kernel has, up to this: many frames in one call when the market is busy.
const READ_BUFFER_BYTES: usize = 128 << 10;
/// No exchange sends more in one message; a larger one ends the connection.
const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// What we write is short and flushed at once.
const WRITE_BUFFER_BYTES: usize = 16 << 10;
/// What waits for a peer that takes nothing: our answers to its pings are the newest only, and no message of ours is
/// long.
const WRITE_BUFFER_BYTES_MAX: usize = 256 << 10;

/// A venue's refusal to open a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The name it has there.
    phrase: String,
    /// The page's words, up to 200 characters.
    pub words: String,
    /// Where it sends us to.
    location: Option<String>,
    /// For how long it sends us away.
    pub hold: Option<Hold>,
    /// The venue, as the settings call it.
    venue: String,
}

impl Network {
    /// Opens a WebSocket, as `exchanges.<venue>` is to reach.
    ///
    /// # Errors
    ///
    /// With the reason, and what can be done about it. There is no time limit in it.
    pub async fn open(&self, venue: &str, url: &str) -> Result<WebSocket, DialError> {
        let mut url = Url::parse(url).map_err(|_| DialError::Url(words(url.as_bytes())))?;
        for _redirect in 0..=REDIRECTS_MAX {
            let refusal = match attempt(self, venue, &url).await? {
                Ok(socket) => return Ok(socket),
                Err(refusal) => refusal,
            };
            match refusal.location.as_deref().and_then(|to| on_the_host(&url, to)) {
                Some(next) if next != url && refusal.is_moved() => url = next,
                _ => return Err(DialError::Refused(Box::new(refusal))),
            }
        }
        let host = host(&url);
        Err(DialError::NotWebSocket { host, reason: "it sends us on and on".to_owned() })
    }
}

impl Network {
    /// The market of the simulated exchanges at this host and port; `None`: what answers there is none.
    ///
    /// # Errors
    ///
    /// When nothing answers there. There is no time limit in it.
    pub async fn simulated_market(&self, address: &str) -> Result<Option<String>, DialError> {
        let none = || DialError::Url(words(address.as_bytes()));
        let url = Url::parse(&format!("ws://{address}/")).map_err(|_| none())?;
        let name = url.host_str().ok_or_else(none)?;
        let mut stream = dial(self, false, name, url.port().unwrap_or(80)).await?;
        let failed = |error| DialError::Unreachable { host: host(&url), error };
        let request =
            format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", host(&url));
        stream.write_all(request.as_bytes()).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        let head = Head::read(&mut stream).await.map_err(|error| (host(&url), error))?;
        let market = head.header("server").and_then(announced_market);
        Ok(market.map(|market| words(market.as_bytes())))
    }
}

/// One request, and its answer: a socket or a refusal.
async fn attempt(
    network: &Network,
    venue: &str,
    url: &Url,
) -> Result<Result<WebSocket, Refusal>, DialError> {
    let is_secure = match url.scheme() {
        "wss" => true,
        "ws" => false,
        _ => return Err(DialError::Url(words(url.as_str().as_bytes()))),
    };
    let name = url.host_str().ok_or_else(|| DialError::Url(words(url.as_str().as_bytes())))?;
    let port = url.port().unwrap_or(if is_secure { 443 } else { 80 });
    let mut stream = dial(network, is_secure, name, port).await?;
    let key = generate_key();
    let failed = |error| DialError::Unreachable { host: host(url), error };
    stream.write_all(request(url, &key).as_bytes()).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let head = Head::read(&mut stream).await.map_err(|error| (host(url), error))?;
    if let Some(market) = network.refused_market(head.header("server")) {
        let market = words(market.as_bytes());
        return Err(DialError::Simulated { host: host(url), market });
    }
    if head.status != 101 {
        return Ok(Err(refusal(venue, head, &mut stream).await));
    }
    let accepted = head.header("sec-websocket-accept").map(str::trim);
    let is_accepted = accepted == Some(derive_accept_key(key.as_bytes()).as_str())
        && head.lists("upgrade", "websocket")
        && head.lists("connection", "upgrade")
        && head.header("sec-websocket-extensions").is_none_or(|it| it.trim().is_empty());
    if !is_accepted {
        let reason = "its 101 does not answer what was asked".to_owned();
        return Err(DialError::NotWebSocket { host: host(url), reason });
    }
    let mut rest = head.rest;
    let wire = Wire::new(stream, &mut rest);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    Ok(Ok(WebSocket::from_partially_read(wire, rest, Role::Client, Some(config)).await))
}

fn request(url: &Url, key: &str) -> String {
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!(
        "GET {}{query} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n",
        url.path(),
        host(url)
    )
}

/// The host, and the port where it is not the scheme's own.
fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
}

/// Where a redirect leads, when it stays on the host and as secure as it was.
fn on_the_host(from: &Url, to: &str) -> Option<Url> {
    let mut next = from.join(to).ok()?;
    let scheme = match next.scheme() {
        "https" => "wss",
        "http" => "ws",
        other => other,
    };
    let scheme = scheme.to_owned();
    // From http to ws: the url crate lets special schemes change into each other.
    next.set_scheme(&scheme).ok()?;
    let place = |url: &Url| {
        (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default())
    };
    (place(&next) == place(from)).then_some(next)
}

async fn refusal(venue: &str, head: Head, stream: &mut Box<dyn Stream>) -> Refusal {
    let page = head.page(stream).await;
    let words = words(&page);
    let text = String::from_utf8_lossy(&page);
    let (retry_after, date) = (head.header("retry-after"), head.header("date"));
    let hold = pause::after(Side::Socket, head.status, retry_after, date, &text, Timestamp::now());
    Refusal {
        status: head.status,
        phrase: self::words(head.phrase.as_bytes()),
        words,
        location: head.header("location").map(|to| self::words(to.as_bytes())),
        hold,
        venue: venue.to_owned(),
    }
}

impl Refusal {
    const fn is_moved(&self) -> bool {
        matches!(self.status, 301 | 302 | 303 | 307 | 308)
    }

    /// What the operator can do about it.
    fn advice(&self) -> String {
        let venue = &self.venue;
        let ws_url = format!("exchanges.{venue}.ws_url");
        match self.status {
            200..300 => format!(
                "a page answers in its place: a captive portal, a proxy, or a {ws_url} that is no WebSocket"
            ),
            _ if self.is_moved() => match &self.location {
                Some(to) => {
                    format!("it has moved to {to:?}; if that is the exchange's, set {ws_url} to it")
                }
                None => format!("it has moved, and does not say where to: look at {ws_url}"),
            },
            401 => format!("it wants a login: {ws_url} is no public endpoint"),
            403 if self.hold.is_some() => "it was asked too often".to_owned(),
            403 | 451 => format!(
                "it does not serve this address or its region: set {ws_url} to the exchange's site for your region, or \
                 network.proxy to a way that it serves"
            ),
            404 | 410 => format!("there is no such path: look at {ws_url}"),
            407 => "a proxy wants a login: give user and password in network.proxy".to_owned(),
            418 | 429 => {
                "too many requests came from this address: fewer recorders, or fewer connections"
                    .to_owned()
            }
            400 | 426 => format!(
                "it does not understand the request: look at {ws_url}, and at any proxy on the way"
            ),
            500..=599 => "it is out of order, or under maintenance: nothing to do".to_owned(),
            _ => format!("look at {ws_url}"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, phrase, words, .. } = self;
        write!(f, "the exchange answers {status}")?;
        if !phrase.is_empty() {
            write!(f, " {phrase}")?;
        }
        if !words.is_empty() {
            write!(f, ", {words:?}")?;
        }
        write!(f, "; {}", self.advice())?;
        match self.hold {
            Some(hold) if hold.wait > Duration::ZERO => {
                let wait = Lasting(hold.wait);
                write!(f, "; asked again in {wait}")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_redirect_is_followed_on_the_same_host_only() {
        let from = url("wss://a.example:9443/ws?x=1");
        let follow = |to: &str| on_the_host(&from, to).map(|next| next.to_string());
        assert_eq!(follow("/stream").as_deref(), Some("wss://a.example:9443/stream"));
        assert_eq!(follow("wss://a.example:9443/y").as_deref(), Some("wss://a.example:9443/y"));
        for elsewhere in [
            "wss://b.example:9443/",
            "wss://a.example/",
            "ws://a.example:9443/",
            "ftp://a.example:9443/",
        ] {
            assert_eq!(follow(elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn the_request_names_host_path_and_query() {
        let text = request(&url("ws://[::1]:9400/binance/stream?timeUnit=MICROSECOND"), "key");
        assert!(text.starts_with(
            "GET /binance/stream?timeUnit=MICROSECOND HTTP/1.1\r\nHost: [::1]:9400\r\n"
        ));
        assert!(
            request(&url("wss://a.example"), "key")
                .starts_with("GET / HTTP/1.1\r\nHost: a.example\r\n")
        );
    }

    #[test]
    fn each_refusal_says_what_the_page_said_and_what_can_be_done() {
        let refusal = |status, location: Option<&str>| Refusal {
            status,
            phrase: "Phrase".into(),
            words: "the page's words".into(),
            location: location.map(str::to_owned),
            hold: None,
            venue: "binance".into(),
        };
        for (status, advice) in [
            (200, "captive portal"),
            (301, "does not say where"),
            (401, "no public endpoint"),
            (403, "network.proxy"),
            (404, "no such path"),
            (418, "too many requests"),
            (429, "too many requests"),
            (451, "exchanges.binance.ws_url"),
            (503, "maintenance"),
        ] {
            let text = refusal(status, None).to_string();
            let begin = format!("the exchange answers {status} Phrase, \"the page's words\"; ");
            assert!(text.starts_with(&begin) && text.contains(advice), "{text}");
        }
        let moved = refusal(308, Some("wss://new.example/ws")).to_string();
        assert!(moved.contains("it has moved to \"wss://new.example/ws\""), "{moved}");
        assert!(moved.contains("set exchanges.binance.ws_url to it"), "{moved}");
    }
}
