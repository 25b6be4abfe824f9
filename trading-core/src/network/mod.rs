//! The way to a venue: through a proxy or straight, whom to trust there, the opening of a WebSocket, and how long the
//! venue is left alone when it asks for that.
//!
//! [`Network`] is built once from the settings and shared. Promised: no more than 16 KiB of a header and 4 KiB of a
//! refusal's page are kept, nothing is redirected to another host, a password reaches the proxy and no log, and what
//! waits to be written to a WebSocket stays below 256 KiB. Not promised: retries, and a time limit for the whole: who
//! asks has both.

mod dial;
mod head;
mod pause;
#[cfg(test)]
mod tests;
mod upgrade;
mod wire;
mod words;

use std::fmt;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use url::Url;

pub use dial::DialError;
pub use pause::{Hold, Pause, Side, after};
pub use upgrade::{Refusal, WebSocket};
pub use wire::Wire;
pub use words::words;

use crate::config::{NetworkSettings, Proxies, Proxy};
use crate::domain::announced_market;

/// How venues are reached from this machine. Cheap to clone.
#[derive(Clone)]
pub struct Network {
    proxies: Arc<Proxies>,
    tls: Arc<ClientConfig>,
    has_own_authorities: bool,
    refuses_simulators: bool,
}

impl Network {
    /// As the settings say.
    ///
    /// # Errors
    ///
    /// When TLS cannot be used on this machine.
    pub fn new(settings: &NetworkSettings) -> Result<Self, rustls::Error> {
        // The same cryptography and the same authorities on every machine, and the operator's own beside them.
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        roots.add_parsable_certificates(settings.authorities.iter().cloned());
        let tls = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            proxies: Arc::new(settings.proxies.clone()),
            tls: Arc::new(tls),
            has_own_authorities: !settings.authorities.is_empty(),
            refuses_simulators: false,
        })
    }

    /// The same, and takes nothing from simulated exchanges: what is real is never mixed with it.
    #[must_use]
    pub fn without_simulators(self) -> Self {
        Self { refuses_simulators: true, ..self }
    }

    /// The market of the simulated exchanges that this `Server` header names, where they are refused.
    #[must_use]
    pub fn refused_market<'a>(&self, server: Option<&'a str>) -> Option<&'a str> {
        server.filter(|_| self.refuses_simulators).and_then(announced_market)
    }

    /// The settings of TLS, for a client that has a TLS of its own.
    #[must_use]
    pub fn tls(&self) -> ClientConfig {
        ClientConfig::clone(&self.tls)
    }

    /// The proxy that leads to this URL; `None`: none is needed.
    #[must_use]
    pub fn proxy_to(&self, url: &Url) -> Option<&Proxy> {
        self.proxies.to_url(url)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("proxies", &self.proxies).finish_non_exhaustive()
    }
}
