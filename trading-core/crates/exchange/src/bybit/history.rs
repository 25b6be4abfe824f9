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
    Candle, Depth, History, HistoryError, HistoryRules, Listed, Pages, Reach, Reading, Span,
    encoded,
};
use super::{Bybit, taker};
use domain::{Instrument, Source, Tick, Timestamp, TradeId};

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
            depth: Depth::Newest,
            // Both in milliseconds.
            times_apart: None,
        }
    }

    fn pages(&self, base: &str, span: Span) -> Box<dyn Pages> {
        let symbol = self.venue_symbol(span.instrument.symbol());
        let url = format!(
            "{base}/v5/market/recent-trade?category=spot&symbol={}&limit={PAGE}",
            encoded(&symbol)
        );
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
        let symbol = encoded(&self.venue_symbol(instrument.symbol()));
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
        format!("{base}/v5/market/instruments-info?category=spot&symbol={}", encoded(venue_symbol))
    }

    fn decode_symbol(&self, body: &str) -> Result<bool, HistoryError> {
        let instruments: List<Traded<'_>> = read(body)?;
        Ok(instruments.list.iter().any(|symbol| &*symbol.status == "Trading"))
    }

    /// Documented: of spot all are told at once.
    fn listing_urls(&self, base: &str) -> Vec<String> {
        vec![format!("{base}/v5/market/instruments-info?category=spot")]
    }

    fn decode_listing(&self, body: &str) -> Result<Vec<Listed>, HistoryError> {
        let listed = |it: Traded<'_>| {
            let is_traded = Some(&*it.status == "Trading");
            Some(Listed { spelling: it.symbol?.to_string(), is_traded })
        };
        Ok(read::<List<Traded<'_>>>(body)?.list.into_iter().filter_map(listed).collect())
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

#[derive(Deserialize)]
struct Traded<'a> {
    #[serde(borrow)]
    symbol: Option<Text<'a>>,
    #[serde(borrow)]
    status: Text<'a>,
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{self, REST, span, take};
    use super::*;
    use domain::{IdRange, Side};

    const TRADES: &str = r#"{"retCode":0,"retMsg":"OK","result":{"category":"spot","list":[{"execId":"2290000001300000002","symbol":"BTCUSDT","price":"77606.8","size":"0.000712","side":"Buy","time":"1788335009482","isBlockTrade":false,"isRPITrade":false,"seq":"113508069853"},{"execId":"2290000001300000001","symbol":"BTCUSDT","price":"77606.70","size":"1","side":"Sell","time":"1788335009400","isBlockTrade":false}]},"retExtInfo":{},"time":1788335009500}"#;
    const KLINE: &str = r#"{"retCode":0,"retMsg":"OK","result":{"category":"spot","symbol":"BTCUSDT","list":[["1670608800000","17071","17073","17027","17055.5","268611","15.74462667"],["1670608740000","17071.5","17071.5","17061","17071","4177","0.24469757"]]},"retExtInfo":{},"time":1672025956592}"#;

    fn write(trades: &[(u64, i64)]) -> String {
        let trade = |(id, at): &(u64, i64)| {
            format!(
                r#"{{"execId":"{id}","symbol":"BTCUSDT","price":"1.5","size":"2","side":"Buy","time":"{at}"}}"#
            )
        };
        let trades: Vec<String> = trades.iter().map(trade).collect();
        format!(r#"{{"retCode":0,"retMsg":"OK","result":{{"list":[{}]}}}}"#, trades.join(","))
    }

    fn pages() -> Box<dyn Pages> {
        Bybit.pages(
            REST,
            span(&Bybit, "BTCUSDT", None, 1_788_335_009_400_001, 1_788_335_010_000_000),
        )
    }

    #[test]
    fn the_newest_trades_are_read_and_no_others() {
        let mut pages = pages();
        let url = "/v5/market/recent-trade?category=spot&symbol=BTCUSDT&limit=60";
        assert_eq!(pages.next(), Some(format!("{REST}{url}")));
        assert_eq!(
            testing::take_one(&mut *pages, TRADES),
            Tick {
                instrument: testing::instrument(&Bybit, "BTCUSDT"),
                trade_id: TradeId::Number(2_290_000_001_300_000_002),
                price: testing::decimal("77606.8"),
                quantity: testing::decimal("0.000712"),
                side: Side::Buy,
                source: Source::Backfill,
                exchange_at: Timestamp::from_millis(1_788_335_009_482).unwrap(),
                received_at: testing::received_at(),
            }
        );
        assert_eq!(pages.next(), None);
        let reach = pages.reach().unwrap();
        assert_eq!(reach.ids, IdRange::new(2_290_000_001_300_000_001, 2_290_000_001_300_000_002));
        assert_eq!(reach.times.from.as_millis(), 1_788_335_009_400);
    }

    #[test]
    fn ids_that_are_no_numbers_reach_in_time_only() {
        let mut pages = pages();
        let uuid = "20f43950-d8dd-5b31-9112-a178eb6023af";
        take(&mut *pages, &TRADES.replace("2290000001300000002", uuid)).unwrap();
        assert_eq!(pages.reach().unwrap().ids, None);
    }

    #[test]
    fn an_answer_to_another_question_is_refused() {
        let answer = |body: &str| take(&mut *pages(), body).unwrap_err();
        let other = TRADES.replace("BTCUSDT", "ETHUSDT");
        assert!(matches!(answer(&other), HistoryError::Elsewhere(_)));
        let refused = r#"{"retCode":10001,"retMsg":"Not supported symbols","result":{}}"#;
        assert!(matches!(answer(refused), HistoryError::Refused(_)));
        let busy = r#"{"retCode":10006,"retMsg":"Too many visits!","result":{}}"#;
        assert!(matches!(answer(busy), HistoryError::TooMany));
    }

    #[test]
    fn candles_and_the_clock_are_read() {
        let candles = Bybit.decode_candles(KLINE).unwrap();
        let volumes: Vec<String> = candles.iter().map(|one| one.volume.to_string()).collect();
        assert_eq!(volumes, ["4177", "268611"], "oldest first");
        assert_eq!(candles[0].minute.as_millis(), 1_670_608_740_000);
        let clock = r#"{"retCode":0,"retMsg":"OK","result":{"timeSecond":"1688639403","timeNano":"1688639403423213947"},"time":1688639403423}"#;
        assert_eq!(Bybit.decode_clock(clock).unwrap().as_micros(), 1_688_639_403_423_213);
    }

    #[test]
    fn a_symbol_is_traded_or_not_or_unknown() {
        let body = |list: &str| {
            format!(
                r#"{{"retCode":0,"retMsg":"OK","result":{{"category":"spot","list":[{list}]}},"time":1}}"#
            )
        };
        let symbol = |status: &str| body(&format!(r#"{{"symbol":"BTCUSDT","status":"{status}"}}"#));
        assert!(Bybit.decode_symbol(&symbol("Trading")).unwrap());
        assert!(!Bybit.decode_symbol(&symbol("Closed")).unwrap());
        assert!(!Bybit.decode_symbol(&body("")).unwrap());
    }

    #[test]
    fn prop_a_number_is_exact_or_refused() {
        testing::prop_a_number_of_the_past_is_exact_or_refused(&Bybit, write, (KLINE, "268611"));
    }

    #[test]
    fn prop_no_answer_leads_in_a_circle() {
        testing::prop_no_answer_leads_in_a_circle(&Bybit, &[TRADES, KLINE], write);
    }
}
