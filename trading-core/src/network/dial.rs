//! From here to a host: TCP, through a proxy where one leads there, and TLS.

use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Network;
use super::head::{Head, HeadError};
use super::upgrade::Refusal;
use super::wire::Stream;
use super::words::words;
use crate::config::{Proxy, ProxyKind};

/// Why there is no connection. What others wrote in it is cut and printable.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The URL cannot be connected to.
    #[error("{0} is no URL of a WebSocket")]
    Url(String),
    /// There is no way to a host.
    #[error("{host} is not reached: {error}")]
    Unreachable {
        /// Its name and port.
        host: String,
        /// What the system says.
        error: io::Error,
    },
    /// TLS failed.
    #[error("{host} is not trusted: {reason}")]
    Tls {
        /// Whose certificate or TLS it is.
        host: String,
        /// What is wrong, and what can be done.
        reason: String,
    },
    /// The proxy does not lead on.
    #[error("the proxy {proxy} (of {named_by}) does not lead to {host}: {reason}")]
    Proxy {
        /// Without user and password.
        proxy: String,
        /// The setting or variable that names it.
        named_by: String,
        /// Where it was to lead to.
        host: String,
        /// What it said, and what can be done.
        reason: String,
    },
    /// The other side does not speak as a WebSocket server does.
    #[error("{host} is no WebSocket server: {reason}")]
    NotWebSocket {
        /// Who answered.
        host: String,
        /// How.
        reason: String,
    },
    /// Simulated exchanges, where real ones are to be recorded.
    #[error(
        "{host} is a simulated market ({market}), and real trades are never mixed with it: \
         `trading-core live --simulate={host}` records it into a database of its own"
    )]
    Simulated {
        /// Who answered.
        host: String,
        /// Which market.
        market: String,
    },
    /// The venue refuses the connection.
    #[error("{0}")]
    Refused(Box<Refusal>),
}

/// Opens a stream to this port, over TLS where the venue has it.
pub(super) async fn dial(
    network: &Network,
    is_secure: bool,
    host: &str,
    port: u16,
) -> Result<Box<dyn Stream>, DialError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = match network.proxies.to(is_secure, bare, port) {
        None => Box::new(connect(bare, port).await?),
        Some(proxy) => through(network, proxy, bare, port).await?,
    };
    if is_secure { secured(network, stream, bare).await } else { Ok(stream) }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let connected = async {
        let stream = TcpStream::connect((host, port)).await?;
        // Our messages are short and few: none is to wait for another.
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    connected.await.map_err(|error| DialError::Unreachable { host: authority(host, port), error })
}

/// With brackets around an address that needs them.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn secured(
    network: &Network,
    stream: Box<dyn Stream>,
    host: &str,
) -> Result<Box<dyn Stream>, DialError> {
    let failed = |reason: String| DialError::Tls { host: host.to_owned(), reason };
    let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(error.to_string()))?;
    match TlsConnector::from(Arc::clone(&network.tls)).connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(failed(tls_reason(network, &error))),
    }
}

fn tls_reason(network: &Network, error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let advice = match cause {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            if network.has_own_authorities {
                ". Neither the public authorities nor those of network.ca_file and SSL_CERT_FILE signed its certificate"
            } else {
                ". No public authority signed its certificate: where a company's proxy reads along, give its authority as \
                 network.ca_file or SSL_CERT_FILE"
            }
        }
        Some(rustls::Error::InvalidCertificate(
            rustls::CertificateError::Expired
            | rustls::CertificateError::ExpiredContext { .. }
            | rustls::CertificateError::NotValidYet
            | rustls::CertificateError::NotValidYetContext { .. },
        )) => ". Look at this machine's clock",
        _ => "",
    };
    let behind = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    let said = error.to_string();
    // Some errors repeat the one behind them.
    let behind =
        if said.contains(behind.trim_start_matches(": ")) { String::new() } else { behind };
    format!("{}{advice}", words(format!("{said}{behind}").as_bytes()))
}

/// A stream to the host that begins at the proxy.
async fn through(
    network: &Network,
    proxy: &Proxy,
    host: &str,
    port: u16,
) -> Result<Box<dyn Stream>, DialError> {
    let refused = |reason: String| DialError::Proxy {
        proxy: proxy.to_string(),
        named_by: proxy.named_by.clone(),
        host: authority(host, port),
        reason,
    };
    let tcp = connect(&proxy.host, proxy.port).await.map_err(|error| refused(error.to_string()))?;
    match proxy.kind {
        ProxyKind::Socks5 | ProxyKind::Socks5h => {
            let mut tcp = tcp;
            socks(&mut tcp, proxy, host, port).await.map_err(refused)?;
            Ok(Box::new(tcp))
        }
        ProxyKind::Http => {
            let mut stream: Box<dyn Stream> = Box::new(tcp);
            tunnel(&mut stream, proxy, host, port).await.map_err(refused)?;
            Ok(stream)
        }
        ProxyKind::Https => {
            let stream = secured(network, Box::new(tcp), &proxy.host).await;
            let mut stream = stream.map_err(|error| refused(error.to_string()))?;
            tunnel(&mut stream, proxy, host, port).await.map_err(refused)?;
            Ok(stream)
        }
    }
}

/// Asks an HTTP proxy for a way through (`CONNECT`, RFC 9110).
async fn tunnel(
    stream: &mut Box<dyn Stream>,
    proxy: &Proxy,
    host: &str,
    port: u16,
) -> Result<(), String> {
    let to = authority(host, port);
    let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
    if let Some((user, password)) = &proxy.credentials {
        let credentials = STANDARD.encode(format!("{user}:{password}"));
        request = format!("{request}Proxy-Authorization: Basic {credentials}\r\n");
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    stream.flush().await.map_err(|error| error.to_string())?;
    let head = Head::read(stream).await.map_err(|error| error.to_string())?;
    if (200..300).contains(&head.status) {
        // The host speaks only when it is spoken to.
        return if head.rest.is_empty() {
            Ok(())
        } else {
            Err("it sent more than its answer".to_owned())
        };
    }
    let page = words(&head.page(stream).await);
    let phrase = words(head.phrase.as_bytes());
    let advice = match head.status {
        407 if proxy.credentials.is_some() => ". Correct the user and password of its URL",
        407 => ". Give it as http://user:password@host:port",
        _ => "",
    };
    let page = if page.is_empty() { page } else { format!(", {page:?}") };
    Err(format!("{} {phrase}{page}{advice}", head.status))
}

/// Asks a SOCKS proxy for a way through (RFC 1928 and 1929).
async fn socks(tcp: &mut TcpStream, proxy: &Proxy, host: &str, port: u16) -> Result<(), String> {
    const VERSION: u8 = 5;
    const PASSWORD: u8 = 2;
    let target = target(proxy.kind, host, port).await?;
    let method = if proxy.credentials.is_some() { PASSWORD } else { 0 };
    let asked = async {
        tcp.write_all(&[VERSION, 1, method]).await?;
        let mut answer = [0; 2];
        tcp.read_exact(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let is_agreed = asked.await.map_err(|error| closed(&error))?;
    if is_agreed != [VERSION, method] {
        return Err(match (is_agreed, &proxy.credentials) {
            ([VERSION, _], None) => {
                "it asks for a user: give it as socks5h://user:password@host:port".to_owned()
            }
            ([VERSION, _], Some(_)) => "it does not take a user and password".to_owned(),
            _ => "it speaks no SOCKS 5".to_owned(),
        });
    }
    let asked = async {
        if let Some((user, password)) = &proxy.credentials {
            let mut login = vec![1];
            for text in [user, password] {
                login.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
                login.extend_from_slice(text.as_bytes());
            }
            tcp.write_all(&login).await?;
            let mut answer = [0; 2];
            tcp.read_exact(&mut answer).await?;
            if answer != [1, 0] {
                return Ok(Some("it refuses the user and password of its URL".to_owned()));
            }
        }
        let mut request = vec![VERSION, 1, 0];
        request.extend_from_slice(&target);
        request.extend_from_slice(&port.to_be_bytes());
        tcp.write_all(&request).await?;
        let mut answer = [0; 4];
        tcp.read_exact(&mut answer).await?;
        // Where it went out from: read, so that nothing of it is taken for the host's.
        let length = match answer[3] {
            1 => 4,
            4 => 16,
            _ => usize::from(tcp.read_u8().await?),
        };
        let mut bound = vec![0; length + 2];
        tcp.read_exact(&mut bound).await?;
        io::Result::Ok((answer[1] != 0).then(|| socks_reason(answer[1]).to_owned()))
    };
    match asked.await.map_err(|error| closed(&error))? {
        None => Ok(()),
        Some(reason) => Err(reason),
    }
}

fn closed(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
        _ => error.to_string(),
    }
}

/// A host as SOCKS writes it: its kind and the address, or the name where the proxy is to look it up.
async fn target(kind: ProxyKind, host: &str, port: u16) -> Result<Vec<u8>, String> {
    let address = match host.parse::<IpAddr>() {
        Ok(address) => Some(address),
        Err(_) if kind == ProxyKind::Socks5 => {
            let found = tokio::net::lookup_host((host, port)).await;
            let found = found.map_err(|error| {
                format!(
                    "the name is not known here ({error}); with socks5h:// the proxy looks it up"
                )
            })?;
            // Proxies that reach no IPv6 are common, those that reach no IPv4 are not.
            let mut addresses: Vec<IpAddr> = found.map(|found| found.ip()).collect();
            addresses.sort_unstable_by_key(IpAddr::is_ipv6);
            addresses.first().copied()
        }
        Err(_) => None,
    };
    Ok(match address {
        Some(IpAddr::V4(address)) => [&[1][..], &address.octets()].concat(),
        Some(IpAddr::V6(address)) => [&[4][..], &address.octets()].concat(),
        None => {
            let length = u8::try_from(host.len()).map_err(|_| "its name is too long for SOCKS")?;
            [&[3, length][..], host.as_bytes()].concat()
        }
    })
}

const fn socks_reason(code: u8) -> &'static str {
    match code {
        1 => "it failed",
        2 => "its rules do not allow it",
        3 => "it does not reach that network",
        4 => "it does not reach that host",
        5 => "that port is closed",
        6 => "it took too long",
        7 | 8 => "it cannot do that",
        _ => "it refused",
    }
}

impl From<(String, HeadError)> for DialError {
    fn from((host, error): (String, HeadError)) -> Self {
        match error {
            HeadError::Io(error) => Self::Unreachable { host, error },
            error => Self::NotWebSocket { host, reason: error.to_string() },
        }
    }
}
