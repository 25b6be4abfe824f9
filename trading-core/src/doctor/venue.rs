//! One exchange: whether it is reached both ways, what its clock says, and whether it trades what is to be recorded.

use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;
use tokio::time::{Instant, timeout, timeout_at};

use super::Check;
use super::stored::Load;
use crate::config::ExchangeSettings;
use crate::domain::{Instrument, RecorderClock, Symbol, TimeRange, Timestamp, Witness, count};
use crate::exchange::history::Span;
use crate::exchange::{self, Exchange};
use crate::network::{Network, Pause};
use crate::rest::{self, Listing, RestClient};
use crate::telemetry::{Lasting, Progress};

/// How long a WebSocket may take to open, and again to close.
const SOCKET_MAX: Duration = Duration::from_secs(10);
/// How far back the newest trades are asked for.
const RECENT: Duration = Duration::from_mins(10);
/// Pages of them, of one symbol.
const PAGES_MAX: usize = 3;
/// A clock that is further off makes its times hard to compare with ours.
const CLOCK_TOLD: Duration = Duration::from_secs(1);
/// One that is further off than that lets a venue or a certificate refuse us.
const CLOCK_FAILS: Duration = Duration::from_secs(30);
const SECOND_MICROS: i64 = 1_000_000;

/// What was found.
#[derive(Debug)]
pub(super) struct VenueFindings {
    pub(super) checks: Vec<Check>,
    /// What its symbols bring, where it was asked.
    pub(super) load: Option<Load>,
    /// Its time.
    pub(super) clock: Option<Witness>,
}

/// Asks one exchange, for `within` at most.
pub(super) async fn examine(
    settings: &ExchangeSettings,
    network: &Network,
    asks_load: bool,
    within: Duration,
    progress: &Progress,
) -> VenueFindings {
    let area = settings.name;
    let mut venue = VenueFindings { checks: Vec::new(), load: None, clock: None };
    let Some(exchange) = exchange::by_name(area) else {
        let found = "no exchange of this name is known";
        venue.checks.push(Check::fail(area, found, "take it out of the settings"));
        return venue;
    };
    let deadline = Instant::now() + within;
    let endpoints = exchange.endpoints();
    let rest_url = settings.rest_url.as_deref().unwrap_or(endpoints.rest_url);
    let ws_url = exchange.connect_url(settings.ws_url.as_deref().unwrap_or(endpoints.ws_url));
    let socket = socket(area, &ws_url, network);
    let rules = exchange.history().rules();
    let client = match RestClient::new(rules, network, Arc::new(Pause::new(area, 0))) {
        Ok(client) => client,
        Err(error) => {
            venue.checks.push(Check::fail(area, error.to_string(), "look at this machine's TLS"));
            return venue;
        }
    };
    let asking = Examination { exchange, base: rest_url, client, deadline, progress };
    let (socket, clock) = tokio::join!(socket, asking.clock());
    venue.checks.push(socket);
    let is_reached = clock.is_ok();
    match clock {
        Ok((check, clock)) => {
            venue.checks.push(check);
            venue.clock = Some(clock);
        }
        Err(not_reached) => venue.checks.push(not_reached),
    }
    if !is_reached {
        let found = "its symbols were not asked for, as its REST side is not reached";
        venue.checks.push(Check::warn(area, found, "look again when it is"));
        progress.advance(count(settings.symbols.len()));
        return venue;
    }
    let (checks, load) = asking.symbols(&settings.symbols, asks_load).await;
    venue.checks.extend(checks);
    venue.load = load;
    venue
}

const CLOCK_REMEDY: &str = "let this machine's clock be kept (timedatectl set-ntp true)";

const REACH: &str = "look at the network; where a proxy or a company's authority is needed, set network.proxy or network.ca_file \
     (HTTPS_PROXY and SSL_CERT_FILE do too)";

/// Opens a WebSocket as a feed does, and closes it.
async fn socket(area: &str, url: &str, network: &Network) -> Check {
    match timeout(SOCKET_MAX, network.open(area, url)).await {
        Ok(Ok(mut socket)) => {
            // That it opened is what was asked; a venue may take its time to close.
            drop(timeout(SOCKET_MAX, socket.close(None)).await);
            let way = url.parse().ok().and_then(|url| network.proxy_to(&url));
            let way = way.map(|proxy| format!(" through {proxy}")).unwrap_or_default();
            Check::ok(area, format!("WebSocket reached at {url}{way}"))
        }
        // The error of a refusal has its remedy.
        Ok(Err(error)) => Check::fail(area, format!("WebSocket {url} not reached: {error}"), REACH),
        Err(_elapsed) => {
            let found = format!("WebSocket {url} not open within {} s", SOCKET_MAX.as_secs());
            Check::fail(area, found, REACH)
        }
    }
}

struct Examination<'a> {
    exchange: &'static dyn Exchange,
    base: &'a str,
    client: RestClient,
    deadline: Instant,
    progress: &'a Progress,
}

impl Examination<'_> {
    fn area(&self) -> &'static str {
        self.exchange.name()
    }

    async fn get(&self, url: &str) -> Result<String, String> {
        match timeout_at(self.deadline, self.client.get(url)).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_elapsed) => Err("there was no time left to ask".to_owned()),
        }
    }

    /// How far our clock is from its; an error where its REST side is not reached.
    async fn clock(&self) -> Result<(Check, Witness), Check> {
        let (area, history) = (self.area(), self.exchange.history());
        let before = Timestamp::now();
        let body = match self.get(&history.clock_url(self.base)).await {
            Ok(body) => body,
            Err(error) => {
                let found = format!("REST at {}: {error}", self.base);
                return Err(Check::fail(area, found, REACH));
            }
        };
        match history.decode_clock(&body) {
            Ok(theirs) => {
                let after = Timestamp::now();
                let ours = before.as_micros().midpoint(after.as_micros());
                let ahead = theirs.as_micros() - ours;
                let witness = Witness { name: area.to_owned(), ahead, is_here: false };
                Ok((judge_clock(area, self.base, before, after, theirs), witness))
            }
            Err(error) => {
                let found = format!("REST at {} answers something else: {error}", self.base);
                Err(Check::fail(area, found, "look at its rest_url: is that the exchange?"))
            }
        }
    }

    /// Whether each symbol is traded, and how often.
    async fn symbols(&self, symbols: &[Symbol], asks_load: bool) -> (Vec<Check>, Option<Load>) {
        let (area, total) = (self.area(), symbols.len());
        let (mut checks, mut traded, mut load) = (Vec::new(), 0_usize, None);
        let mut not_asked: Option<(usize, String)> = None;
        let asking = rest::Asking {
            exchange: self.exchange,
            base: self.base,
            client: &self.client,
            deadline: self.deadline,
            one_by_one_max: usize::MAX,
        };
        let listings = asking.listings(symbols, || self.progress.advance(1)).await;
        for (symbol, listing) in symbols.iter().zip(listings) {
            match listing {
                Listing::Traded => {
                    traded += 1;
                    if asks_load && let Some(rate) = self.rate(symbol).await {
                        load = Load::sum(load.into_iter().chain([Load::expected(rate)]));
                    }
                }
                Listing::NotTraded => {
                    checks.push(missing(area, symbol, "is not traded there now", &[]));
                }
                Listing::Unknown { words, nearest } => {
                    let words = if words.is_empty() { words } else { format!(" ({words})") };
                    let found = format!("is not known there{words}");
                    checks.push(missing(area, symbol, &found, &nearest));
                }
                Listing::NotAsked(why) => {
                    let (count, _) = not_asked.get_or_insert((0, why));
                    *count += 1;
                }
            }
        }
        if traded > 0 {
            checks.insert(
                0,
                Check::ok(area, format!("{traded} of {total} symbols are traded there")),
            );
        }
        if let Some((count, why)) = not_asked {
            let found = format!("{count} of {total} symbols could not be looked up: {why}");
            checks.push(Check::warn(area, found, "look again later"));
        }
        (checks, load)
    }

    /// Trades a second, by the newest page of them that the venue gives.
    async fn rate(&self, symbol: &Symbol) -> Option<Decimal> {
        let now = Timestamp::now();
        let instrument = Instrument::intern(self.exchange.name(), symbol).ok()?;
        // To a time that is still to come: what is traded while we ask is no reason to search for an end.
        let times = TimeRange::at(now).widened(RECENT);
        let span = Span { instrument, ids: None, times };
        let mut pages = self.exchange.history().pages(self.base, span);
        let mut ticks = Vec::new();
        for _page in 0..PAGES_MAX {
            let asked = timeout_at(
                self.deadline,
                self.client.page(&mut *pages, &RecorderClock::default(), &mut ticks),
            )
            .await;
            let is_more = matches!(asked, Ok(Ok(true)));
            if !is_more || ticks.len() > 1 {
                break;
            }
        }
        let times = ticks.iter().map(|tick| tick.exchange_at.as_micros());
        let (first, last) = (times.clone().min()?, times.max()?);
        let trades = Decimal::from(ticks.len().saturating_sub(1));
        (trades * Decimal::from(SECOND_MICROS)).checked_div(Decimal::from(last - first))
    }
}

fn missing(area: &str, symbol: &Symbol, what: &str, nearest: &[String]) -> Check {
    let remedy = match nearest {
        [] => format!("take it out of exchanges.{area}.symbols, or correct it"),
        names => format!(
            "correct it in exchanges.{area}.symbols (did you mean {}?), or take it out",
            names.join(", ")
        ),
    };
    Check::fail(area, format!("{symbol} {what}"), remedy)
}

/// Our clock was read before and after the venue's.
fn judge_clock(
    area: &str,
    base: &str,
    before: Timestamp,
    after: Timestamp,
    theirs: Timestamp,
) -> Check {
    let micros = |limit: Duration| i64::try_from(limit.as_micros()).unwrap_or(i64::MAX);
    // A clock without a part of a second may be up to one second further.
    let blur = if theirs.as_micros() % SECOND_MICROS == 0 { SECOND_MICROS } else { 0 };
    let (earliest, latest) =
        (theirs.as_micros() - after.as_micros(), theirs.as_micros() + blur - before.as_micros());
    // Where between the two it lies is not known: only what is certain is reported.
    let off = if earliest > 0 { earliest } else { latest.min(0) };
    let apart = Duration::from_micros(off.unsigned_abs());
    if off.abs() <= micros(CLOCK_TOLD) {
        let took = Duration::from_micros((after.as_micros() - before.as_micros()).unsigned_abs());
        return Check::ok(
            area,
            format!("REST reached at {base} in {}; its clock is ours", Lasting(took)),
        );
    }
    let side = if off > 0 { "behind" } else { "ahead of" };
    let found = format!("this machine's clock is {} {side} the exchange's", Lasting(apart));
    if off.abs() > micros(CLOCK_FAILS) {
        Check::fail(area, found, CLOCK_REMEDY)
    } else {
        Check::warn(area, found, CLOCK_REMEDY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn clock(before: i64, after: i64, theirs: i64) -> (Level, String) {
        let at = |millis| Timestamp::from_millis(1_790_000_000_000 + millis).unwrap();
        let check = judge_clock("okx", "http://host", at(before), at(after), at(theirs));
        (check.level, check.found)
    }

    #[test]
    fn a_clock_is_judged_by_what_is_certain_of_it() {
        assert_eq!(clock(100, 200, 150).0, Level::Ok);
        assert_eq!(clock(100, 200, 1_199).0, Level::Ok);
        let (level, text) = clock(100, 200, 1_301);
        assert_eq!(level, Level::Warn);
        assert!(text.contains("1.1s behind"), "{text}");
        let (level, text) = clock(40_100, 40_200, 101);
        assert_eq!(level, Level::Fail);
        assert!(text.contains("40s ahead of"), "{text}");
        assert_eq!(clock(100, 5_000, 3_000).0, Level::Ok, "a slow answer says little");
        assert_eq!(clock(1_900, 1_950, 0).0, Level::Ok, "a venue that tells whole seconds");
        assert_eq!(clock(2_101, 2_150, 0).0, Level::Warn);
    }
}
