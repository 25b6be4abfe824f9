//! Bybit spot over REST: the last sixty trades, and no way further back.
//!
//! Protocol: <https://bybit-exchange.github.io/docs/v5/market/recent-trade>, July 2026.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::super::DecodeError;
use super::super::Exchange;
use super::super::frame::{Text, amount};
use super::super::history::{
    Candle, History, HistoryError, HistoryRules, Pages, Reach, Reading, Span,
};
use super::{Bybit, taker};
use crate::domain::{Instrument, Source, Tick, Timestamp, TradeId};

/// Trades in the answer at most, on the spot market.
const PAGE: usize = 60;
/// Candles in one answer at most.
const CANDLES: i64 = 1_000;
/// The venue's codes for too many requests: of one client, and of one address.
const TOO_MANY: [i64; 2] = [10_006, 10_018];

impl History for Bybit {
    fn rules(&self) -> HistoryRules {
        HistoryRules {
            // Documented: 600 requests in 5 s from one address. Ours: a sixth of it, as recording shares the address.
            requests: NonZeroU32::MIN.saturating_add(19),
            per: Duration::from_secs(1),
            reaches_back: false,
            // Both in milliseconds.
            exact_times: true,
        }
    }

    fn pages(&self, base: &str, span: Span) -> Box<dyn Pages> {
        let symbol = self.venue_symbol(span.instrument.symbol());
        let url =
            format!("{base}/v5/market/recent-trade?category=spot&symbol={symbol}&limit={PAGE}");
        Box::new(BybitPages { url, symbol, reading: Reading::new(span), is_read: false })
    }

    /// The newest candles come first, so that the end is what bounds an answer.
    fn candles_url(
        &self,
        base: &str,
        instrument: Instrument,
        from: Timestamp,
        to: Timestamp,
    ) -> String {
        let symbol = self.venue_symbol(instrument.symbol());
        let from = from.minute().as_millis();
        let to = to.as_millis().min(from + (CANDLES - 1) * 60_000);
        format!(
            "{base}/v5/market/kline?category=spot&symbol={symbol}&interval=1&start={from}&end={to}&limit={CANDLES}"
        )
    }

    fn decode_candles(&self, body: &str) -> Result<Vec<Candle>, HistoryError> {
        let candle = |row: &Row<'_>| {
            Ok(Candle {
                minute: millis("start", &row.0)?,
                volume: amount("volume", &row.5)?,
                trades: None,
            })
        };
        read::<List<Row<'_>>>(body)?.list.iter().rev().map(candle).collect()
    }

    fn clock_url(&self, base: &str) -> String {
        format!("{base}/v5/market/time")
    }

    fn decode_clock(&self, body: &str) -> Result<Timestamp, HistoryError> {
        let clock: Clock<'_> = read(body)?;
        let nanos: i64 = number("timeNano", &clock.time_nano)?;
        Ok(Timestamp::from_micros(nanos / 1_000)?)
    }

    fn symbol_url(&self, base: &str, venue_symbol: &str) -> String {
        format!("{base}/v5/market/instruments-info?category=spot&symbol={venue_symbol}")
    }
}

#[derive(Debug)]
struct BybitPages {
    url: String,
    symbol: String,
    reading: Reading,
    is_read: bool,
}

impl Pages for BybitPages {
    fn next(&self) -> Option<String> {
        (!self.is_read).then(|| self.url.clone())
    }

    fn take(
        &mut self,
        body: &str,
        received_at: Timestamp,
        ticks: &mut Vec<Tick>,
    ) -> Result<(), HistoryError> {
        if self.is_read {
            return Ok(());
        }
        let instrument = self.reading.span.instrument;
        let page = read::<List<Trade<'_>>>(body)?
            .list
            .into_iter()
            .map(|trade| trade.into_tick(instrument, &self.symbol, received_at))
            .collect::<Result<_, HistoryError>>()?;
        self.reading.keep(page, ticks);
        self.is_read = true;
        Ok(())
    }

    fn reach(&self) -> Option<Reach> {
        self.reading.reach()
    }
}

/// Reads the result of an answer, or its refusal.
fn read<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, HistoryError> {
    let answer: Answer<'_> = serde_json::from_str(body)?;
    match answer.code {
        0 => Ok(serde_json::from_str(answer.result.map_or("null", RawValue::get))?),
        code if TOO_MANY.contains(&code) => Err(HistoryError::TooMany),
        _ => Err(HistoryError::refused(&answer.message)),
    }
}

fn number(field: &'static str, text: &str) -> Result<i64, DecodeError> {
    text.parse().map_err(|_| DecodeError::unknown_value(field, text))
}

fn millis(field: &'static str, text: &str) -> Result<Timestamp, DecodeError> {
    Ok(Timestamp::from_millis(number(field, text)?)?)
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(rename = "retCode")]
    code: i64,
    #[serde(borrow, rename = "retMsg")]
    message: Text<'a>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct List<T> {
    list: Vec<T>,
}

#[derive(Deserialize)]
struct Trade<'a> {
    #[serde(borrow, rename = "execId")]
    id: Text<'a>,
    #[serde(borrow)]
    symbol: Text<'a>,
    #[serde(borrow)]
    price: Text<'a>,
    #[serde(borrow)]
    size: Text<'a>,
    /// The taker's.
    #[serde(borrow)]
    side: Text<'a>,
    /// Milliseconds, as a text.
    #[serde(borrow)]
    time: Text<'a>,
}

impl Trade<'_> {
    fn into_tick(
        self,
        instrument: Instrument,
        symbol: &str,
        received_at: Timestamp,
    ) -> Result<Tick, HistoryError> {
        if *self.symbol != *symbol {
            return Err(HistoryError::Elsewhere(format!("{} of {}", &*self.id, &*self.symbol)));
        }
        Ok(Tick {
            instrument,
            trade_id: TradeId::from_text(&self.id),
            price: amount("price", &self.price)?,
            quantity: amount("size", &self.size)?,
            side: taker("side", &self.side)?,
            source: Source::Backfill,
            exchange_at: millis("time", &self.time)?,
            received_at,
        })
    }
}

/// Start, open, high, low, close, volume, volume in quote.
#[derive(Deserialize)]
struct Row<'a>(
    #[serde(borrow)] Text<'a>,
    IgnoredAny,
    IgnoredAny,
    IgnoredAny,
    IgnoredAny,
    #[serde(borrow)] Text<'a>,
    IgnoredAny,
);

#[derive(Deserialize)]
struct Clock<'a> {
    #[serde(borrow, rename = "timeNano")]
    time_nano: Text<'a>,
}
