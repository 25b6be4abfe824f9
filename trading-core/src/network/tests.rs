use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

use super::wire::Stream;
use super::*;
use crate::config::{Overrides, load};
use crate::exchange::history::{Depth, HistoryRules};
use crate::rest::{RestClient, RestError};

/// Servers of a test, which end with it.
#[derive(Default)]
struct Servers(JoinSet<()>);

impl Servers {
    /// Serves each connection in turn; answers the port.
    async fn serve<F>(&mut self, each: impl Fn(TcpStream) -> F + Send + 'static) -> u16
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        self.0.spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                served.spawn(each(stream));
            }
        });
        port
    }
}

/// An exchange without TLS: a WebSocket that says hello, or for REST a page.
async fn exchange(mut stream: impl Stream + 'static) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    if head.starts_with(b"GET /rest") || head.starts_with(b"GET http://exchange.test") {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nrest").await.unwrap();
        stream.flush().await.unwrap();
        return;
    }
    let mut socket = accept_async(Again { head, stream }).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("well"));
}

/// A stream of which the beginning was read before.
struct Again<S> {
    head: Vec<u8>,
    stream: S,
}

impl<S: Stream> tokio::io::AsyncRead for Again<S> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        into: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        if self.head.is_empty() {
            return std::pin::Pin::new(&mut self.stream).poll_read(context, into);
        }
        into.put_slice(&std::mem::take(&mut self.head));
        std::task::Poll::Ready(Ok(()))
    }
}

impl<S: Stream> tokio::io::AsyncWrite for Again<S> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// An HTTP proxy that wants `me:it's me` and leads everything to this port.
async fn http_proxy(mut client: TcpStream, to: u16) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let text = String::from_utf8(head.clone()).unwrap();
    // Base64 of that.
    if !text.to_ascii_lowercase().contains("proxy-authorization: basic bwu6axqncybtzq==") {
        let page = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n<b>Who\x1b[2J are you?</b>";
        client.write_all(page).await.unwrap();
        return;
    }
    let mut exchange = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await.unwrap();
    if text.starts_with("CONNECT exchange.test:") {
        assert!(
            text.contains("\r\nHost: exchange.test:") || text.contains("\r\nhost: exchange.test:"),
            "{text}"
        );
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
    } else {
        assert!(text.starts_with("GET http://exchange.test:"), "{text}");
        exchange.write_all(&head).await.unwrap();
    }
    // Either side may leave without a word.
    drop(copy_bidirectional(&mut client, &mut exchange).await);
}

/// A SOCKS proxy that wants `me` and `it's me`, looks names up itself and leads everything to this port.
async fn socks_proxy(mut client: TcpStream, to: u16) {
    let mut hello = [0; 2];
    client.read_exact(&mut hello).await.unwrap();
    let mut methods = vec![0; hello[1].into()];
    client.read_exact(&mut methods).await.unwrap();
    if !methods.contains(&2) {
        client.write_all(&[5, 0xff]).await.unwrap();
        return;
    }
    client.write_all(&[5, 2]).await.unwrap();
    let mut login = [0; 12];
    client.read_exact(&mut login).await.unwrap();
    if &login != b"\x01\x02me\x07it's me" {
        client.write_all(&[1, 1]).await.unwrap();
        return;
    }
    client.write_all(&[1, 0]).await.unwrap();
    let mut asked = [0; 4 + 1 + 13 + 2];
    client.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked[..18], b"\x05\x01\x00\x03\x0dexchange.test");
    let mut exchange = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await.unwrap();
    client.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 1]).await.unwrap();
    // Either side may leave without a word.
    drop(copy_bidirectional(&mut client, &mut exchange).await);
}

fn network(environment: &[(&str, String)]) -> Network {
    let environment: BTreeMap<_, _> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Network::new(&load(None, &environment, &Overrides::default()).unwrap().settings.network)
        .unwrap()
}

/// What a client of the REST side reads there.
async fn rest(network: &Network, url: &str) -> Result<String, RestError> {
    let rules = HistoryRules {
        requests: 1_000.try_into().unwrap(),
        per: std::time::Duration::from_secs(1),
        depth: Depth::Whole,
        times_apart: None,
    };
    RestClient::new(rules, network, Arc::default()).unwrap().get(url).await
}

async fn greet(network: &Network, url: &str) {
    let mut socket = network.open("binance", url).await.unwrap();
    // As binary: see `Wire`.
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary("hello"));
    socket.send(Message::text("well")).await.unwrap();
}

#[tokio::test]
async fn an_http_proxy_leads_both_sides_to_the_exchange_with_its_user_and_password() {
    let mut servers = Servers::default();
    let exchange = servers.serve(exchange).await;
    let proxy = servers.serve(move |client| http_proxy(client, exchange)).await;
    for name in ["HTTP_PROXY", "all_proxy", "TRADING_CORE__NETWORK__PROXY"] {
        let network = network(&[(name, format!("http://me:it's%20me@localhost:{proxy}"))]);
        greet(&network, "ws://exchange.test:9443/stream").await;
        assert_eq!(
            rest(&network, "http://exchange.test:8080/rest").await.unwrap(),
            "rest",
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_socks_proxy_leads_both_sides_to_the_exchange_and_looks_its_name_up() {
    let mut servers = Servers::default();
    let exchange = servers.serve(exchange).await;
    let proxy = servers.serve(move |client| socks_proxy(client, exchange)).await;
    let network = network(&[("ALL_PROXY", format!("socks5h://me:it's%20me@localhost:{proxy}"))]);
    greet(&network, "ws://exchange.test:9443/stream").await;
    assert_eq!(rest(&network, "http://exchange.test:81/rest").await.unwrap(), "rest");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_with_its_words_and_never_with_the_password() {
    let mut servers = Servers::default();
    let http = servers.serve(|client| http_proxy(client, 1)).await;
    let socks = servers.serve(|client| socks_proxy(client, 1)).await;
    for (proxy, reason) in [
        (
            format!("http://me:hunter2@localhost:{http}"),
            "407 Proxy Authentication Required, \"Who[2J are you?\". Correct the user",
        ),
        (format!("http://localhost:{http}"), "Give it as http://user:password@host"),
        (format!("socks5h://me:hunter2@localhost:{socks}"), "it refuses the user and password"),
        (
            format!("socks5h://localhost:{socks}"),
            "it asks for a user: give it as socks5h://user:password@host",
        ),
        ("http://localhost:9".to_owned(), "localhost:9 is not reached"),
    ] {
        let network = network(&[("ALL_PROXY", proxy)]);
        let error = network.open("binance", "ws://exchange.test/").await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains("hunter") && text.contains("ALL_PROXY"), "{text}");
        assert!(text.contains(reason), "{text}");
    }
}

/// An authority and, signed by it, what a server of `localhost` needs; and a file with the authority's certificate.
fn authority() -> (TlsAcceptor, tempfile::NamedTempFile) {
    let mut own = CertificateParams::new(Vec::new()).unwrap();
    own.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(own, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("# ours\n{}", issuer.pem())).unwrap();
    (TlsAcceptor::from(Arc::new(config)), file)
}

#[tokio::test]
async fn a_private_authority_is_trusted_on_both_sides_where_it_is_given_and_asked_for_where_not() {
    let (acceptor, file) = authority();
    let mut servers = Servers::default();
    let port = servers
        .serve(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                // Who does not trust us leaves here.
                if let Ok(stream) = acceptor.accept(stream).await {
                    exchange(stream).await;
                }
            }
        })
        .await;
    let (socket, page) =
        (format!("wss://localhost:{port}/"), format!("https://localhost:{port}/rest"));
    let error = network(&[]).open("okx", &socket).await.unwrap_err().to_string();
    assert!(error.contains("network.ca_file or SSL_CERT_FILE"), "{error}");
    assert!(rest(&network(&[]), &page).await.is_err());
    for name in ["SSL_CERT_FILE", "TRADING_CORE__NETWORK__CA_FILE"] {
        let network = network(&[(name, file.path().display().to_string())]);
        greet(&network, &socket).await;
        assert_eq!(rest(&network, &page).await.unwrap(), "rest", "{name}");
    }
}

#[test]
fn a_file_without_a_certificate_is_a_problem_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    let broken = folder.path().join("broken.pem");
    std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    let missing = folder.path().join("missing.pem");
    for path in
        [empty.as_path(), &broken, &missing, folder.path(), std::path::Path::new("/dev/zero")]
    {
        for name in ["SSL_CERT_FILE", "TRADING_CORE__NETWORK__CA_FILE"] {
            let path = path.display().to_string();
            let given = BTreeMap::from([(name.to_owned(), path.clone())]);
            let error = load(None, &given, &Overrides::default()).unwrap_err().to_string();
            assert!(error.contains(&path) && error.contains(name), "{error}");
        }
    }
}

#[test]
fn a_proxy_that_cannot_be_one_is_a_problem_without_its_password() {
    for name in ["HTTPS_PROXY", "TRADING_CORE__NETWORK__PROXY"] {
        for proxy in [
            "ftp://me:hunter2@proxy:1",
            "socks4://me:hunter2@proxy",
            "http://me:hunter2@proxy/path",
        ] {
            let given = BTreeMap::from([(name.to_owned(), proxy.to_owned())]);
            let error = load(None, &given, &Overrides::default()).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("socks5h://"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let given = BTreeMap::from([(name.to_owned(), "http://me:hunter2@proxy:3128".to_owned())]);
        let loaded = load(None, &given, &Overrides::default()).unwrap();
        let shown =
            format!("{} {:?} {}", loaded.effective, loaded.settings, loaded.effective.to_json());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
