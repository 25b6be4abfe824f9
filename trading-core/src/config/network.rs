//! `[network]`: which proxy leads to a venue, and which further authorities are trusted.
//!
//! The setting wins; without it the variables are read as other programs read them: `HTTPS_PROXY` for `https://` and
//! `wss://`, `HTTP_PROXY` for the plain ones, `ALL_PROXY` for both, each also in lower case, which wins. This machine
//! itself and what `NO_PROXY` names are always reached without a proxy.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use url::{Host, Url};

/// What a file of certificates may take; the list of a whole system is a quarter of it.
const CA_BYTES_MAX: u64 = 4 << 20;
/// What SOCKS and most proxies take of a name or a password.
const CREDENTIAL_BYTES_MAX: usize = 255;
/// What is allowed as a proxy.
pub(super) const PROXY_ALLOWED: &str = "http://, https://, socks5:// or socks5h:// with a host and without a path, a user and password \
     percent-encoded before the host where it asks for them, or \"\" for HTTPS_PROXY, ALL_PROXY and NO_PROXY";

/// `[network]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkSettings {
    /// How venues are reached.
    pub proxies: Proxies,
    /// Authorities that are trusted beside the public ones.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    /// `CONNECT`, over plain TCP.
    Http,
    /// `CONNECT`, over TLS.
    Https,
    /// SOCKS version 5, with addresses that are looked up here.
    Socks5,
    /// SOCKS version 5, with names that the proxy looks up.
    Socks5h,
}

impl ProxyKind {
    const fn scheme(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks5 => "socks5",
            Self::Socks5h => "socks5h",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
            Self::Socks5 | Self::Socks5h => 1080,
        }
    }
}

/// One proxy. Its `Debug` and `Display` never show user or password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// How it is spoken to.
    pub kind: ProxyKind,
    /// Its name or address, an IPv6 address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User and password, decoded.
    pub credentials: Option<(String, String)>,
    /// The setting or the variable that names it.
    pub named_by: String,
    /// All of it, with its secrets, for a client that understands proxies itself.
    url: Url,
}

impl Proxy {
    /// Reads what a setting or a variable says. Without a scheme it is an `http://` proxy, as everywhere.
    pub(super) fn parse(text: &str, named_by: &str) -> Option<Self> {
        let text = text.trim();
        let written = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&written).ok()?;
        let kind = match url.scheme() {
            "http" => ProxyKind::Http,
            "https" => ProxyKind::Https,
            "socks5" => ProxyKind::Socks5,
            "socks5h" => ProxyKind::Socks5h,
            _ => return None,
        };
        let is_bare =
            matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        let host = bare_host(url.host_str()?);
        if !is_bare || host.is_empty() || url.port() == Some(0) {
            return None;
        }
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some((decoded(user)?, decoded(password.unwrap_or_default())?)),
        };
        let port = url.port().unwrap_or(kind.port());
        Some(Self { kind, host, port, credentials, named_by: named_by.to_owned(), url })
    }

    /// All of it, with its secrets: not for any log.
    #[must_use]
    pub fn url(&self) -> Url {
        let mut url = self.url.clone();
        // Else a client would take port 80 or none for what has a port of its own.
        if url.port().is_none() && url.set_port(Some(self.port)).is_err() {
            return self.url.clone();
        }
        url
    }
}

/// Without user and password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, host, port, .. } = self;
        let scheme = kind.scheme();
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn bare_host(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

/// Percent-decoded; `None` where that is no text, too long, or could end a line of a request.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let value = digit(rest.next())? * 16 + digit(rest.next())?;
        bytes.push(u8::try_from(value).ok()?);
    }
    let text = String::from_utf8(bytes).ok()?;
    (text.len() <= CREDENTIAL_BYTES_MAX && !text.chars().any(char::is_control)).then_some(text)
}

/// Which proxy leads where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proxies {
    /// To `http://` and `ws://`.
    plain: Option<Proxy>,
    /// To `https://` and `wss://`.
    secure: Option<Proxy>,
    bypass: Vec<Bypass>,
}

/// The first of these variables that is not empty.
fn given<'a>(environment: &BTreeMap<String, String>, names: &[&'a str]) -> Option<&'a str> {
    let is_given = |name: &&str| environment.get(*name).is_some_and(|it| !it.trim().is_empty());
    names.iter().copied().find(is_given)
}

/// One entry of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Bypass {
    All,
    /// A name and what ends with a dot and it; with a port only that port.
    Name(String, Option<u16>),
    Address(IpAddr, Option<u16>),
    /// The network of an address: its first bits.
    Network(IpAddr, u8),
}

impl Proxies {
    /// The setting's proxy for everything, or else what the variables say. The second value names each variable that
    /// cannot be used.
    pub(super) fn new(
        setting: Option<&Proxy>,
        environment: &BTreeMap<String, String>,
    ) -> (Self, Vec<String>) {
        let mut wrong = Vec::new();
        let mut read = |names: &[&str]| {
            let name = given(environment, names)?;
            let proxy = environment.get(name).and_then(|text| Proxy::parse(text, name));
            if proxy.is_none() && !wrong.iter().any(|known| known == name) {
                wrong.push(name.to_owned());
            }
            proxy
        };
        let (plain, secure) = match setting {
            Some(proxy) => (Some(proxy.clone()), Some(proxy.clone())),
            None => {
                // Under CGI a visitor sets HTTP_PROXY, by the header `Proxy`.
                let plain: &[&str] = if environment.contains_key("REQUEST_METHOD") {
                    &["http_proxy", "all_proxy", "ALL_PROXY"]
                } else {
                    &["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]
                };
                let secure = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
                (read(plain), read(&secure))
            }
        };
        let list =
            given(environment, &["no_proxy", "NO_PROXY"]).and_then(|name| environment.get(name));
        let entries = list.map(String::as_str).unwrap_or_default().split([',', ' ', '\t']);
        let bypass = entries.filter_map(Bypass::parse).collect();
        (Self { plain, secure, bypass }, wrong)
    }

    /// The proxy that leads to this host and port; `None`: none is needed.
    #[must_use]
    pub fn to(&self, is_secure: bool, host: &str, port: u16) -> Option<&Proxy> {
        let proxy = if is_secure { self.secure.as_ref()? } else { self.plain.as_ref()? };
        let host = bare_host(host).trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok();
        let is_here = address.is_some_and(|it| it.to_canonical().is_loopback())
            || host == "localhost"
            || host.ends_with(".localhost");
        let is_direct = is_here || self.bypass.iter().any(|it| it.holds(&host, address, port));
        (!is_direct).then_some(proxy)
    }

    /// The proxy that leads to this URL; `None`: none is needed.
    #[must_use]
    pub fn to_url(&self, url: &Url) -> Option<&Proxy> {
        let is_secure = matches!(url.scheme(), "https" | "wss");
        let port = url.port_or_known_default().unwrap_or(if is_secure { 443 } else { 80 });
        self.to(is_secure, url.host_str()?, port)
    }
}

impl Bypass {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        match text.as_str() {
            "" => return None,
            "*" => return Some(Self::All),
            _ => {}
        }
        if let Some((address, bits)) = text.split_once('/') {
            return Some(Self::Network(bare_host(address).parse().ok()?, bits.parse().ok()?));
        }
        if let Ok(address) = bare_host(&text).parse() {
            return Some(Self::Address(address, None));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (text.as_str(), None),
        };
        if let Ok(address) = bare_host(host).parse() {
            return Some(Self::Address(address, port));
        }
        let name = host.trim_start_matches('*').trim_matches('.');
        match Host::parse(name) {
            Ok(Host::Domain(name)) => Some(Self::Name(name, port)),
            _ => None,
        }
    }

    fn holds(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        let on = |wanted: &Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        match self {
            Self::All => true,
            Self::Name(name, wanted) => {
                let below = host.strip_suffix(name.as_str());
                on(wanted) && below.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Self::Address(one, wanted) => {
                on(wanted) && address.is_some_and(|it| it.to_canonical() == one.to_canonical())
            }
            Self::Network(base, bits) => address.is_some_and(|it| in_network(it, *base, *bits)),
        }
    }
}

fn in_network(address: IpAddr, base: IpAddr, bits: u8) -> bool {
    match (address.to_canonical(), base) {
        (IpAddr::V4(address), IpAddr::V4(base)) => {
            let differs = address.to_bits() ^ base.to_bits();
            bits <= 32 && differs.checked_shr(32 - u32::from(bits)).unwrap_or(0) == 0
        }
        (IpAddr::V6(address), IpAddr::V6(base)) => {
            let differs = address.to_bits() ^ base.to_bits();
            bits <= 128 && differs.checked_shr(128 - u32::from(bits)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// The certificates of a PEM file; the error says what is wrong with it.
pub(super) fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unread = |error: std::io::Error| format!("a file that can be read: {error}");
    // Looked at before it is opened: to open a pipe would be to wait for its writer.
    if !std::fs::metadata(path).map_err(unread)?.is_file() {
        return Err("a file of certificates in PEM, and no folder or device".to_owned());
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unread)?;
    file.take(CA_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unread)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > CA_BYTES_MAX {
        return Err(format!("a file of at most {CA_BYTES_MAX} bytes"));
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let none = "a file with at least one certificate (-----BEGIN CERTIFICATE-----)";
    match found {
        Ok(found) => {
            let mut roots = rustls::RootCertStore::empty();
            let (usable, _) = roots.add_parsable_certificates(found.iter().cloned());
            if usable == 0 { Err(none.to_owned()) } else { Ok(found) }
        }
        Err(error) => Err(format!("{none}; it is broken: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(given: &[(&str, &str)]) -> BTreeMap<String, String> {
        given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn proxies(given: &[(&str, &str)]) -> Proxies {
        let (proxies, wrong) = Proxies::new(None, &environment(given));
        assert_eq!(wrong, [""; 0]);
        proxies
    }

    fn to(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.to_url(&Url::parse(url).unwrap()).map(ToString::to_string)
    }

    #[test]
    fn each_variable_leads_to_its_own_kind_of_url() {
        let all = proxies(&[("ALL_PROXY", "socks5h://all:1"), ("HTTPS_PROXY", "secure:2")]);
        assert_eq!(to(&all, "wss://a.example").unwrap(), "http://secure:2");
        assert_eq!(to(&all, "https://a.example").unwrap(), "http://secure:2");
        assert_eq!(to(&all, "ws://a.example").unwrap(), "socks5h://all:1");
        let plain = proxies(&[("HTTP_PROXY", "http://plain")]);
        assert_eq!(to(&plain, "http://a.example").unwrap(), "http://plain:80");
        assert_eq!(to(&plain, "wss://a.example"), None);
        let cgi = proxies(&[("HTTP_PROXY", "http://visitor"), ("REQUEST_METHOD", "GET")]);
        assert_eq!(to(&cgi, "http://a.example"), None);
        let lower = proxies(&[("https_proxy", "http://low:1"), ("HTTPS_PROXY", "http://up:1")]);
        assert_eq!(to(&lower, "wss://a.example").unwrap(), "http://low:1");
        assert_eq!(to(&proxies(&[("HTTPS_PROXY", " ")]), "wss://a.example"), None);
    }

    #[test]
    fn the_setting_wins_over_the_variables_and_no_proxy_over_both() {
        let given = environment(&[("HTTPS_PROXY", "nonsense://"), ("NO_PROXY", "inside.example")]);
        let setting = Proxy::parse("socks5://me:secret@host:1081", "network.proxy").unwrap();
        let (proxies, wrong) = Proxies::new(Some(&setting), &given);
        assert_eq!(wrong, [""; 0], "what is not used is not judged");
        assert_eq!(to(&proxies, "ws://a.example").unwrap(), "socks5://host:1081");
        assert_eq!(to(&proxies, "wss://api.inside.example"), None);
        let (_, wrong) = Proxies::new(None, &given);
        assert_eq!(wrong, ["HTTPS_PROXY"]);
    }

    #[test]
    fn this_machine_and_what_no_proxy_names_are_reached_straight() {
        let no = "example.com, .dotted.org *.star.net,10.0.0.0/8,192.168.1.5,port.io:8443,[fd00::]/8,[::2]:9";
        let proxies = proxies(&[("ALL_PROXY", "http://proxy:3128"), ("no_proxy", no)]);
        for direct in [
            "ws://127.0.0.1:9400/x",
            "ws://localhost:1",
            "ws://sim.localhost",
            "ws://[::1]:9400",
            "ws://[::ffff:127.0.0.1]:9400",
            "wss://example.com",
            "wss://EXAMPLE.com.",
            "wss://stream.example.com:9443",
            "wss://dotted.org",
            "wss://a.star.net",
            "https://10.200.3.4",
            "https://192.168.1.5",
            "wss://port.io:8443",
            "wss://[fd12::7]",
            "ws://[::2]:9",
        ] {
            assert_eq!(to(&proxies, direct), None, "{direct}");
        }
        for led in [
            "wss://notexample.com",
            "wss://example.com.evil.org",
            "https://11.0.0.1",
            "https://192.168.1.50",
            "wss://port.io",
            "wss://[fe80::1]",
            "ws://[::2]:10",
        ] {
            assert!(to(&proxies, led).is_some(), "{led}");
        }
        let all =
            Proxies::new(None, &environment(&[("ALL_PROXY", "http://p"), ("NO_PROXY", "*")])).0;
        assert_eq!(to(&all, "wss://a.example"), None);
    }

    #[test]
    fn a_proxy_is_read_with_its_secrets_and_shown_without() {
        let proxy = Proxy::parse("http://user%40corp:p%3Ass@[2001:db8::1]", "HTTPS_PROXY").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("2001:db8::1", 80));
        assert_eq!(proxy.credentials, Some(("user@corp".to_owned(), "p:ss".to_owned())));
        assert_eq!(format!("{proxy} {proxy:?}"), "http://[2001:db8::1]:80 http://[2001:db8::1]:80");
        for wrong in [
            "",
            "ftp://host",
            "socks4://host",
            "http://host/path",
            "http://host:0",
            "http://host:99999",
            "http://user%0d%0ax:y@host",
            "http://%zz:y@host",
            "http://",
        ] {
            assert_eq!(Proxy::parse(wrong, "x"), None, "{wrong}");
        }
    }
}
