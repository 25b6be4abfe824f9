//! The only I/O of the room: one HTTP client with one pace, and the pause that a venue may impose on it.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Proxy, Response, header};
use tracing::debug;

use super::error::RestError;
use crate::domain::{RecorderClock, Tick, Timestamp};
use crate::exchange::history::{HistoryError, HistoryRules, Pages};
use crate::network::{Hold, Network, Pause, Side, after, words};

/// What is read of an answer that refuses, in bytes.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
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
    network: Network,
    headers: header::HeaderMap,
    pace: DefaultDirectRateLimiter,
    /// What the venue asks of every connection and request, shared with its feeds.
    banned: Arc<Pause>,
    /// What its REST side asks for alone.
    paused: Pause,
}

impl RestClient {
    /// A client that keeps these rules, and does not ask while the venue sends this address away.
    ///
    /// # Errors
    ///
    /// When HTTP cannot be used on this machine.
    pub fn new(
        rules: HistoryRules,
        network: &Network,
        banned: Arc<Pause>,
    ) -> Result<Self, RestError> {
        let way = network.clone();
        let http = Client::builder()
            .user_agent(USER_AGENT)
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(Policy::custom(stay_on_the_host))
            // Which variables say what is decided once, for WebSocket and REST.
            .no_proxy()
            .proxy(Proxy::custom(move |url| way.proxy_to(url).map(crate::config::Proxy::url)))
            .tls_backend_preconfigured(network.tls())
            .build()
            .map_err(RestError::Setup)?;
        // Evenly spread, so that no window of the venue's, wherever it begins, holds more than it allows.
        let quota = Quota::with_period(rules.per / rules.requests.get())
            .map_or(Quota::per_second(rules.requests), |quota| quota.allow_burst(NonZeroU32::MIN));
        let pace = RateLimiter::direct(quota);
        let headers = header::HeaderMap::new();
        let network = network.clone();
        Ok(Self { http, network, headers, pace, banned, paused: Pause::default() })
    }

    /// The same, and sends these headers with each request.
    #[must_use]
    pub fn with_headers(mut self, headers: &'static [(&'static str, &'static str)]) -> Self {
        for (name, value) in headers {
            self.headers.insert(*name, header::HeaderValue::from_static(value));
        }
        self
    }

    /// Waits for its turn, asks, and answers the whole body.
    ///
    /// # Errors
    ///
    /// When there is no answer, or one that refuses. After [`RestError::Busy`], every request waits out the pause.
    pub async fn get(&self, url: &str) -> Result<String, RestError> {
        self.turn().await;
        debug!(url, "GET");
        let request = self.http.get(url).headers(self.headers.clone());
        let response = request.send().await.map_err(RestError::Unreachable)?;
        let status = response.status();
        let text = |name| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        if let Some(market) = self.network.refused_market(text(header::SERVER).as_deref()) {
            return Err(RestError::Simulated(words(market.as_bytes())));
        }
        let (retry_after, date) = (text(header::RETRY_AFTER), text(header::DATE));
        if status.is_success() {
            return read(response).await;
        }
        let body = read_refusal(response).await;
        let (status, reason) = (status.as_u16(), words(body.as_bytes()));
        let (retry_after, date) = (retry_after.as_deref(), date.as_deref());
        match after(Side::Rest, status, retry_after, date, &body, Timestamp::now()) {
            Some(hold) => Err(self.pause(hold, format!("status {status} {reason}").trim_end())),
            None => Err(RestError::Status { status, reason }),
        }
    }

    /// Asks for the next page of these and reads it; its wanted trades are appended, received by this clock. Answers whether there was one
    /// to ask for.
    ///
    /// # Errors
    ///
    /// As [`Self::get`], and when the page cannot be used. The pages are then where they were, and can be asked again.
    pub async fn page(
        &self,
        pages: &mut dyn Pages,
        clock: &RecorderClock,
        ticks: &mut Vec<Tick>,
    ) -> Result<bool, RestError> {
        let Some(url) = pages.next() else { return Ok(false) };
        let body = self.get(&url).await?;
        match pages.take(&body, clock.now(), ticks) {
            Ok(()) => Ok(true),
            // Some venues say so with the status 200.
            Err(error @ HistoryError::TooMany) => {
                Err(self.pause(Hold::TOO_MANY, &error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns when a request may be made.
    async fn turn(&self) {
        loop {
            self.pace.until_ready().await;
            if self.banned.left().is_zero() && self.paused.left().is_zero() {
                return;
            }
            self.banned.over().await;
            self.paused.over().await;
        }
    }

    fn pause(&self, hold: Hold, reason: &str) -> RestError {
        let pause = if hold.is_ban { &self.banned } else { &self.paused };
        pause.hold(hold, reason);
        RestError::Busy { retry_after: hold.wait, reason: reason.to_owned() }
    }
}

impl fmt::Debug for RestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestClient")
            .field("banned", &self.banned)
            .field("paused", &self.paused)
            .finish_non_exhaustive()
    }
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

/// The beginning of what a refusal says, as far as it comes: that matters less than that it is one.
async fn read_refusal(mut response: Response) -> String {
    let mut body = Vec::new();
    while body.len() < REFUSAL_BYTES_MAX
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(REFUSAL_BYTES_MAX);
    String::from_utf8_lossy(&body).into_owned()
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
