//! The exchanges' own word: their one-minute candles against the minutes that are stored.
//!
//! What a venue left out at the ends of its answer was not told, and is not compared; a minute that it left out between
//! two others had no trades.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use rust_decimal::Decimal;
use sqlx::PgPool;
use sqlx::types::chrono::{DateTime, Utc};

use crate::config::NetworkSettings;
use crate::domain::{Instrument, Symbol, Timestamp, count, parse_decimal};
use crate::exchange::history::Candle;
use crate::exchange::{self, Exchange};
use crate::network::{Network, Pause};
use crate::rest::{RestClient, RestError};
use crate::telemetry::{Grouped, Progress, Total, Unit};

use super::error::VerifyError;
use super::findings::{Finding, Findings, Kind};
use super::read::{instant, moment};
use super::report::Report;

const MINUTE_MICROS: i64 = 60_000_000;
/// Times that a venue which is busy or cannot be reached is asked for one answer.
const ATTEMPTS_MAX: u32 = 3;

/// Which minutes are compared: whole ones that lie between the first and the last stored trade of a symbol.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The REST base of each exchange, by its name.
    pub rest_urls: BTreeMap<String, String>,
    /// The way to them.
    pub network: NetworkSettings,
    /// From here on; `None`: the newest [`Self::minutes`].
    pub from: Option<Timestamp>,
    /// Up to here, excluded.
    pub to: Timestamp,
    /// How many minutes, where no beginning is given.
    pub minutes: u32,
}

/// A minute as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    trades: u64,
    /// `None`: a sum with more digits than a decimal holds.
    volume: Option<Decimal>,
}

/// Minutes by their beginning, in microseconds.
type Minutes<T> = BTreeMap<i64, T>;

/// Compares what a report has told of with the exchanges' candles, and adds what differs to it.
///
/// # Errors
///
/// When the tables cannot be read. An exchange that does not answer is a finding.
pub async fn compare(
    pool: &PgPool,
    report: &mut Report,
    comparison: &Comparison,
) -> Result<(), VerifyError> {
    let mut by_exchange: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for symbol in report.symbols.iter().filter(|symbol| symbol.rows > 0) {
        by_exchange.entry(symbol.exchange.clone()).or_default().push(symbol.symbol.clone());
    }
    let total = by_exchange.values().map(Vec::len).sum::<usize>();
    let total = count(total);
    let what = "Comparing with the exchanges";
    let progress = Progress::start(what, Unit::Of("symbols"), Total::Known(total));
    // Each venue has its own pace: they are asked beside each other, the symbols of one after each other.
    let venues = by_exchange.len().max(1);
    let mut asking = stream::iter(by_exchange)
        .map(|(exchange, symbols)| ask(pool, comparison, exchange, symbols, &progress))
        .buffer_unordered(venues);
    while let Some(compared) = asking.next().await {
        for (exchange, symbol, minutes, findings) in compared? {
            report.add_compared(&exchange, &symbol, minutes, findings);
        }
    }
    progress.finish();
    Ok(())
}

/// Exchange, symbol, the minutes that were compared and those that were to be, and what was found.
type Compared = Vec<(String, String, (u64, u64), Findings)>;

async fn ask(
    pool: &PgPool,
    comparison: &Comparison,
    name: String,
    symbols: Vec<String>,
    progress: &Progress,
) -> Result<Compared, VerifyError> {
    let mut compared = Vec::new();
    let venue = exchange::by_name(&name).zip(comparison.rest_urls.get(&name));
    let client = venue.map(|(exchange, base)| {
        let banned = Arc::new(Pause::new(exchange.name(), 0));
        let network = Network::new(&comparison.network)?;
        let client = RestClient::new(exchange.history().rules(), &network, banned)?;
        Ok::<_, RestError>((exchange, base, client))
    });
    for symbol in symbols {
        let mut findings = Findings::of_one();
        let looked = match &client {
            Some(Ok((exchange, base, client))) => {
                let venue = Venue { exchange: *exchange, base, client };
                venue.look(pool, &name, &symbol, comparison, &mut findings).await?
            }
            Some(Err(error)) => Err((0, error.to_string())),
            None => Err((0, "no exchange of this name can be asked".to_owned())),
        };
        let minutes = looked.unwrap_or_else(|(asked, why)| {
            findings.push(not_compared(&name, &symbol, &why));
            (0, asked)
        });
        compared.push((name.clone(), symbol, minutes, findings));
        progress.advance(1);
    }
    Ok(compared)
}

/// An exchange that can be asked.
struct Venue<'a> {
    exchange: &'a dyn Exchange,
    base: &'a str,
    client: &'a RestClient,
}

impl Venue<'_> {
    /// How many minutes were compared, of how many; or how many were to be, and why none was.
    async fn look(
        &self,
        pool: &PgPool,
        name: &str,
        symbol: &str,
        comparison: &Comparison,
        findings: &mut Findings,
    ) -> Result<Result<(u64, u64), (u64, String)>, VerifyError> {
        let Some(instrument) = instrument(pool, name, symbol).await? else {
            return Ok(Err((0, "its base and quote are not known".to_owned())));
        };
        let Some((span, stored)) = stored(pool, name, symbol, comparison).await? else {
            let why = "no whole minute of it is stored in this time".to_owned();
            return Ok(Err((0, why)));
        };
        let asked = u64::try_from((span.1 - span.0) / MINUTE_MICROS).unwrap_or_default();
        let candles = match candles(self.exchange, self.base, self.client, instrument, span).await {
            Ok(candles) => candles,
            Err(error) => return Ok(Err((asked, error.to_string()))),
        };
        let compared = differences(name, symbol, &stored, &candles, findings);
        Ok(match compared {
            0 => Err((asked, "the exchange tells no candles of this time".to_owned())),
            _ => Ok((compared, asked)),
        })
    }
}

/// The instrument as it was recorded.
async fn instrument(
    pool: &PgPool,
    exchange: &str,
    symbol: &str,
) -> Result<Option<Instrument>, VerifyError> {
    let noted: Option<(String, String)> =
        sqlx::query_as("SELECT base, quote FROM instruments WHERE exchange = $1 AND symbol = $2")
            .bind(exchange)
            .bind(symbol)
            .fetch_optional(pool)
            .await?;
    let symbol = match noted {
        Some((base, quote)) => Symbol::new(&base, &quote),
        None => symbol.parse(),
    };
    Ok(symbol.ok().and_then(|symbol| Instrument::intern(exchange, &symbol).ok()))
}

/// The first and the end of the minutes that are compared, and what is stored in them.
async fn stored(
    pool: &PgPool,
    exchange: &str,
    symbol: &str,
    comparison: &Comparison,
) -> Result<Option<((i64, i64), Minutes<Stored>)>, VerifyError> {
    let ends: (Option<DateTime<Utc>>, Option<DateTime<Utc>>) = sqlx::query_as(
        "SELECT (SELECT time FROM tick_data WHERE exchange = $1 AND symbol = $2 ORDER BY time LIMIT 1), \
             (SELECT time FROM tick_data WHERE exchange = $1 AND symbol = $2 AND time < $3 ORDER BY time DESC LIMIT 1)",
    )
    .bind(exchange)
    .bind(symbol)
    .bind(comparison.to.to_datetime())
    .fetch_one(pool)
    .await?;
    let (Some(first), Some(last)) = ends else { return Ok(None) };
    let Some((begin, end)) = whole_minutes(comparison, instant(first), instant(last)) else {
        return Ok(None);
    };
    let rows: Vec<(i64, i64, String)> = sqlx::query_as(
        "SELECT (extract(epoch FROM date_trunc('minute', time, 'UTC')) * 1000000)::bigint AS minute, count(*), \
             sum(quantity)::text \
         FROM tick_data WHERE exchange = $1 AND symbol = $2 AND time >= $3 AND time < $4 GROUP BY minute",
    )
    .bind(exchange)
    .bind(symbol)
    .bind(moment(begin).to_datetime())
    .bind(moment(end).to_datetime())
    .persistent(false)
    .fetch_all(pool)
    .await?;
    let minutes = rows.into_iter().map(|(minute, trades, volume)| {
        let trades = u64::try_from(trades).unwrap_or_default();
        (minute, Stored { trades, volume: parse_decimal(&volume).ok() })
    });
    Ok(Some(((begin, end), minutes.collect())))
}

/// The whole minutes between a symbol's first and last trade that are to be compared.
fn whole_minutes(comparison: &Comparison, first: Timestamp, last: Timestamp) -> Option<(i64, i64)> {
    let after =
        |at: Timestamp| -at.as_micros().saturating_neg().div_euclid(MINUTE_MICROS) * MINUTE_MICROS;
    let end = comparison.to.min(last).as_micros().div_euclid(MINUTE_MICROS) * MINUTE_MICROS;
    let begin = comparison
        .from
        .map_or(end - i64::from(comparison.minutes) * MINUTE_MICROS, after)
        .max(after(first));
    (begin < end).then_some((begin, end))
}

/// The venue's candles of some minutes, as many answers as that takes.
async fn candles(
    exchange: &dyn Exchange,
    base: &str,
    client: &RestClient,
    instrument: Instrument,
    (begin, end): (i64, i64),
) -> Result<Minutes<Candle>, RestError> {
    let history = exchange.history();
    let mut candles: Minutes<Candle> = BTreeMap::new();
    let mut next = begin;
    while next < end {
        let url = history.candles_url(base, instrument, moment(next), moment(end - 1));
        let body = patient(client, &url).await?;
        for candle in history.decode_candles(&body)? {
            if (begin..end).contains(&candle.minute.as_micros()) {
                candles.insert(candle.minute.as_micros(), candle);
            }
        }
        match candles.last_key_value() {
            Some((last, _)) if *last >= next => next = last + MINUTE_MICROS,
            // It has no more to tell.
            _ => break,
        }
    }
    Ok(candles)
}

async fn patient(client: &RestClient, url: &str) -> Result<String, RestError> {
    let mut attempt = 1;
    loop {
        match client.get(url).await {
            // The client waits by itself before it asks a busy venue again.
            Err(error) if error.is_passing() && attempt < ATTEMPTS_MAX => attempt += 1,
            answer => return answer,
        }
    }
}

/// Adds each minute that differs, and says how many were compared: none where the exchange told nothing.
fn differences(
    exchange: &str,
    symbol: &str,
    stored: &Minutes<Stored>,
    candles: &Minutes<Candle>,
    findings: &mut Findings,
) -> u64 {
    let (Some((first, _)), Some((last, _))) = (candles.first_key_value(), candles.last_key_value())
    else {
        return 0;
    };
    let mut minutes = 0;
    let mut minute = *first;
    while minute <= *last {
        minutes += 1;
        let nothing = Stored { trades: 0, volume: Some(Decimal::ZERO) };
        let ours = stored.get(&minute).unwrap_or(&nothing);
        let theirs = candles.get(&minute);
        let volume = theirs.map_or(Decimal::ZERO, |candle| candle.volume);
        let trades = theirs.map_or(Some(0), |candle| candle.trades);
        let is_like =
            ours.volume == Some(volume) && trades.is_none_or(|trades| trades == ours.trades);
        if !is_like {
            let counted = trades
                .map_or_else(String::new, |trades| format!("{} trades and ", Grouped(trades)));
            let sum = ours
                .volume
                .map_or_else(|| "too long a sum".to_owned(), |sum| sum.normalize().to_string());
            findings.push(Finding {
                from: Some(moment(minute)),
                to: Some(moment(minute + MINUTE_MICROS)),
                kind: Kind::UnlikeExchange,
                text: format!(
                    "the exchange's candle says {counted}{} traded; stored are {} trades and {sum}",
                    volume.normalize(),
                    Grouped(ours.trades)
                ),
                ..not_compared(exchange, symbol, "")
            });
        }
        minute += MINUTE_MICROS;
    }
    minutes
}

fn not_compared(exchange: &str, symbol: &str, why: &str) -> Finding {
    Finding {
        exchange: exchange.to_owned(),
        symbol: Some(symbol.to_owned()),
        kind: Kind::NotCompared,
        count: 1,
        first_id: None,
        last_id: None,
        from: None,
        to: None,
        text: format!("not looked at against the exchange: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(from: Option<i64>, to: i64) -> Comparison {
        Comparison {
            rest_urls: BTreeMap::new(),
            network: NetworkSettings::default(),
            from: from.map(at),
            to: at(to),
            minutes: 3,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000).unwrap()
    }

    fn candle(minute: i64, trades: Option<u64>, volume: i64) -> (i64, Candle) {
        let minute = moment(minute * MINUTE_MICROS);
        (minute.as_micros(), Candle { minute, volume: volume.into(), trades })
    }

    #[test]
    fn only_whole_minutes_between_stored_trades_are_compared() {
        let minutes = |from, to, first, last| {
            let span = whole_minutes(&comparison(from, to), at(first), at(last));
            span.map(|(begin, end)| (begin / MINUTE_MICROS, end / MINUTE_MICROS))
        };
        assert_eq!(minutes(Some(0), 1_000, 61, 500), Some((2, 8)));
        assert_eq!(
            minutes(Some(0), 1_000, 60, 480),
            Some((1, 8)),
            "a minute's first moment is in it"
        );
        assert_eq!(minutes(Some(130), 300, 0, 500), Some((3, 5)));
        assert_eq!(minutes(None, 1_000, 0, 500), Some((5, 8)), "the newest three");
        assert_eq!(minutes(None, 1_000, 61, 110), None);
    }

    #[test]
    fn each_minute_that_differs_is_named_and_what_was_not_told_is_not_compared() {
        let stored = |minute: i64, trades, volume: i64| {
            (minute * MINUTE_MICROS, Stored { trades, volume: Some(volume.into()) })
        };
        let stored = Minutes::from([
            stored(1, 9, 9),
            stored(2, 5, 10),
            stored(3, 5, 10),
            stored(4, 5, 10),
            stored(5, 1, 1),
            stored(7, 2, 4),
        ]);
        // Minute 1 is before what the venue tells; in 3 a trade is missing, in 4 a digit; 5 had no trade; 7 has no count.
        let candles = Minutes::from([
            candle(2, Some(5), 10),
            candle(3, Some(6), 12),
            candle(4, Some(5), 11),
            candle(6, Some(0), 0),
            candle(7, None, 4),
        ]);
        let mut findings = Findings::of_one();
        assert_eq!(differences("okx", "BTCUSDT", &stored, &candles, &mut findings), 6);
        let found: Vec<_> = findings
            .listed()
            .iter()
            .map(|it| it.from.unwrap().as_micros() / MINUTE_MICROS)
            .collect();
        assert_eq!(found, [3, 4, 5]);
        assert_eq!(
            findings.listed()[0].text,
            "the exchange's candle says 6 trades and 12 traded; stored are 5 trades and 10"
        );
        let mut findings = Findings::of_one();
        assert_eq!(differences("okx", "BTCUSDT", &stored, &Minutes::new(), &mut findings), 0);
    }
}
