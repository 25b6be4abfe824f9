//! The only I/O of the room: one HTTP client with one pace, and the pause that a venue may impose on it.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Response, header};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::error::RestError;
use super::pause;
use crate::domain::{Tick, Timestamp};
use crate::exchange::history::{HistoryError, HistoryRules, Pages};
use crate::exchange::reason_text;

/// What one request may take, from its first byte to the last of the answer.
const TIMEOUT: Duration = Duration::from_secs(20);
/// What of it the way to the venue may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A venue may move a route, but not to another host.
const REDIRECTS_MAX: usize = 3;
const USER_AGENT: &str = concat!("trading-core/", env!("CARGO_PKG_VERSION"));

/// A client of one venue's REST side. Shared by reference: its pace is that of all who use it.
pub struct RestClient {
    http: Client,
    pace: DefaultDirectRateLimiter,
    paused_until: Mutex<Instant>,
}

impl RestClient {
    /// A client that keeps these rules.
    ///
    /// # Errors
    ///
    /// When HTTP or TLS cannot be used on this machine.
    pub fn new(rules: HistoryRules) -> Result<Self, RestError> {
        let http = Client::builder()
            .user_agent(USER_AGENT)
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(Policy::custom(stay_on_the_host))
            .no_proxy()
            .tls_backend_preconfigured(tls()?)
            .build()
            .map_err(RestError::Setup)?;
        // Evenly spread, so that no window of the venue's, wherever it begins, holds more than it allows.
        let quota = Quota::with_period(rules.per / rules.requests.get())
            .map_or(Quota::per_second(rules.requests), |quota| quota.allow_burst(NonZeroU32::MIN));
        Ok(Self {
            http,
            pace: RateLimiter::direct(quota),
            paused_until: Mutex::new(Instant::now()),
        })
    }

    /// Waits for its turn, asks, and answers the whole body.
    ///
    /// # Errors
    ///
    /// When there is no answer, or one that refuses. After [`RestError::Busy`], every request waits out the pause.
    pub async fn get(&self, url: &str) -> Result<String, RestError> {
        self.turn().await;
        debug!(url, "GET");
        let response = self.http.get(url).send().await.map_err(RestError::Unreachable)?;
        let status = response.status();
        let retry_after = response.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = match read(response).await {
            // What a refusal says matters less than that it is one.
            Err(_) if !status.is_success() => String::new(),
            body => body?,
        };
        if status.is_success() {
            return Ok(body);
        }
        let (status, reason) = (status.as_u16(), reason_text(body.trim()));
        match pause::after(status, retry_after.as_deref(), &body, Timestamp::now()) {
            Some(pause) => Err(self.pause(pause, format!("status {status} {reason}").trim_end())),
            None => Err(RestError::Status { status, reason }),
        }
    }

    /// Asks for the next page of these and reads it; its wanted trades are appended. Answers whether there was one
    /// to ask for.
    ///
    /// # Errors
    ///
    /// As [`Self::get`], and when the page cannot be used. The pages are then where they were, and can be asked again.
    pub async fn page(
        &self,
        pages: &mut dyn Pages,
        ticks: &mut Vec<Tick>,
    ) -> Result<bool, RestError> {
        let Some(url) = pages.next() else { return Ok(false) };
        let body = self.get(&url).await?;
        match pages.take(&body, Timestamp::now(), ticks) {
            Ok(()) => Ok(true),
            // Some venues say so with the status 200.
            Err(error @ HistoryError::TooMany) => Err(self.pause(pause::PAUSE, &error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns when a request may be made.
    async fn turn(&self) {
        loop {
            self.pace.until_ready().await;
            let until = *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    fn pause(&self, retry_after: Duration, reason: &str) -> RestError {
        let mut until = self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = (*until).max(Instant::now() + retry_after);
        RestError::Busy { retry_after, reason: reason.to_owned() }
    }
}

impl fmt::Debug for RestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestClient")
            .field("paused_until", &self.paused_until)
            .finish_non_exhaustive()
    }
}

/// The same cryptography and the same authorities as the WebSocket connections have, on every machine.
fn tls() -> Result<ClientConfig, RestError> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    Ok(ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(RestError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn stay_on_the_host(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let asked = attempt.previous().first();
    let is_same = asked.is_some_and(|asked| {
        (asked.scheme(), asked.host(), asked.port_or_known_default())
            == (attempt.url().scheme(), attempt.url().host(), attempt.url().port_or_known_default())
    });
    if is_same && attempt.previous().len() <= REDIRECTS_MAX {
        attempt.follow()
    } else {
        attempt.stop()
    }
}

async fn read(mut response: Response) -> Result<String, RestError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(RestError::Unreachable)? {
        if body.len() + chunk.len() > RestError::BODY_BYTES_MAX {
            return Err(RestError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    String::from_utf8(body).map_err(|_| RestError::NotText)
}
