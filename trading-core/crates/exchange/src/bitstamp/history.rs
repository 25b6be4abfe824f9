//! Bitstamp spot over REST: the trades of the last hour or of the last day, newest first, in one answer.
//!
//! There is no cursor. The hour is asked for first; where it does not reach back to the beginning of the span, the day.
//! A trade's time has whole seconds, its fraction is cut off: see [`HistoryRules::times_apart`].
//!
//! Protocol: <https://www.bitstamp.net/api/#tag/Transactions-public/operation/GetTransactions>, September 2026.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};

use super::super::DecodeError;
use super::super::Exchange;
use super::super::frame::{Text, amount};
use super::super::history::{
    Candle, Depth, History, HistoryError, HistoryRules, Listed, Pages, Reach, Reading, Span,
    encoded,
};
use super::Bitstamp;
use domain::{DAY, IdRange, Instrument, Side, Source, Tick, TimeRange, Timestamp, TradeId};

/// What an answer with the trades of an hour holds.
const HOUR: Duration = Duration::from_hours(1);
/// What an answer with the trades of a day is taken to hold: five minutes less, as one of the two clocks may be off.
const DAY_AT_LEAST: Duration = Duration::from_mins(24 * 60 - 5);
/// Candles in one answer at most.
const CANDLES: i64 = 1_000;
/// The pair whose ticker tells the time.
const BUSIEST: &str = "btcusd";

impl History for Bitstamp {
    fn rules(&self) -> HistoryRules {
        HistoryRules {
            // Documented: 10,000 requests in 10 minutes, 400 in a second. Ours: far fewer, as an answer is large.
            requests: NonZeroU32::MIN.saturating_add(3),
            per: Duration::from_secs(1),
            depth: Depth::Last(DAY),
            times_apart: Some(Duration::from_secs(1)),
        }
    }

    fn pages(&self, base: &str, span: Span) -> Box<dyn Pages> {
        let pair = encoded(&self.venue_symbol(span.instrument.symbol()));
        // A trade of the second in which the span begins may lie in it, and bears the time of that second's beginning.
        let times = TimeRange::new(span.times.from.second(), span.times.to);
        Box::new(BitstampPages {
            trades: format!("{base}/api/v2/transactions/{pair}/"),
            next: Some(Window::Hour),
            reading: Reading::new(Span { times, ..span }),
            hour: None,
        })
    }

    /// The end is what bounds an answer: it holds the last `limit` candles up to there.
    fn candles_url(
        &self,
        base: &str,
        instrument: Instrument,
        from: Timestamp,
        to: Timestamp,
    ) -> String {
        let pair = encoded(&self.venue_symbol(instrument.symbol()));
        let minute = |time: Timestamp| time.minute().as_millis() / 1_000;
        let start = minute(from);
        let end = minute(to).clamp(start, start + (CANDLES - 1) * 60);
        let limit = (end - start) / 60 + 1;
        format!("{base}/api/v2/ohlc/{pair}/?step=60&limit={limit}&start={start}&end={end}")
    }

    fn decode_candles(&self, body: &str) -> Result<Vec<Candle>, HistoryError> {
        let candle = |row: &Row<'_>| {
            Ok(Candle {
                minute: seconds("timestamp", &row.timestamp)?,
                volume: amount("volume", &row.volume)?,
                trades: None,
            })
        };
        let answer: Candles<'_> = serde_json::from_str(body)?;
        answer.data.ohlc.iter().map(candle).collect()
    }

    /// The venue has no clock; what is youngest in its answers is the time of a ticker.
    fn clock_url(&self, base: &str) -> String {
        self.symbol_url(base, BUSIEST)
    }

    /// To the second, and as old as the ticker is: good enough to see that a clock is off by seconds.
    fn decode_clock(&self, body: &str) -> Result<Timestamp, HistoryError> {
        let ticker: Ticker<'_> = serde_json::from_str(body)?;
        Ok(seconds("timestamp", &ticker.timestamp)?)
    }

    fn symbol_url(&self, base: &str, venue_symbol: &str) -> String {
        format!("{base}/api/v2/ticker/{}/", encoded(venue_symbol))
    }

    /// A ticker has no status, and an unknown pair has no ticker: one that has a ticker is traded, if not in this hour.
    fn decode_symbol(&self, body: &str) -> Result<bool, HistoryError> {
        Ok(serde_json::from_str::<Ticker<'_>>(body).map(|_ticker| true)?)
    }

    fn listing_urls(&self, base: &str) -> Vec<String> {
        vec![format!("{base}/api/v2/trading-pairs-info/")]
    }

    fn decode_listing(&self, body: &str) -> Result<Vec<Listed>, HistoryError> {
        let listed = |pair: Pair<'_>| Listed {
            spelling: pair.url_symbol.to_string(),
            is_traded: Some(&*pair.trading == "Enabled"),
        };
        Ok(serde_json::from_str::<Vec<Pair<'_>>>(body)?.into_iter().map(listed).collect())
    }
}

/// How much of the past an answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Window {
    Hour,
    Day,
}

#[derive(Debug)]
struct BitstampPages {
    /// The URL without its window.
    trades: String,
    /// What to ask for next; `None`: nothing more is to be had.
    next: Option<Window>,
    reading: Reading,
    /// The ids of the hour, which are in the day too; they grow with time.
    hour: Option<IdRange>,
}

/// What is kept of an answer while it is read.
#[derive(Debug)]
struct Page {
    reading: Reading,
    /// The ids of the answer before this one.
    hour: Option<IdRange>,
    wanted: Vec<Tick>,
    oldest_at: Option<Timestamp>,
    newest: Option<u64>,
    ids: Option<IdRange>,
    /// Whether it has a trade before the span.
    is_reached: bool,
    /// Whether it has a trade of the answer before it.
    overlaps: bool,
}

impl Page {
    fn new(reading: Reading, hour: Option<IdRange>) -> Self {
        Self {
            reading,
            hour,
            wanted: Vec::new(),
            oldest_at: None,
            newest: None,
            ids: None,
            is_reached: false,
            overlaps: false,
        }
    }

    fn take(&mut self, id: u64, tick: Tick) {
        self.oldest_at = self.oldest_at.into_iter().chain([tick.exchange_at]).min();
        self.newest.get_or_insert(id);
        let own = IdRange::one(id);
        self.ids = Some(self.ids.map_or(own, |ids| ids.hull(own)));
        self.is_reached |= self.reading.is_before(&tick);
        if self.hour.is_some_and(|hour| hour.contains(id)) {
            self.overlaps = true;
        } else if self.reading.wants(&tick) {
            self.wanted.push(tick);
        }
    }
}

impl Pages for BitstampPages {
    fn next(&self) -> Option<String> {
        let window = match self.next? {
            Window::Hour => "hour",
            Window::Day => "day",
        };
        Some(format!("{}?time={window}", self.trades))
    }

    fn take(
        &mut self,
        body: &str,
        received_at: Timestamp,
        ticks: &mut Vec<Tick>,
    ) -> Result<(), HistoryError> {
        let Some(window) = self.next else { return Ok(()) };
        let instrument = self.reading.span.instrument;
        let mut page = Page::new(self.reading.clone(), self.hour);
        each(body, |trade: Trade<'_>| {
            let id = number("tid", &trade.tid)?;
            page.take(id, trade.into_tick(id, instrument, received_at)?);
            Ok(())
        })?;
        if self.hour.is_some() && !page.overlaps {
            // An old answer: what was traded between it and the hour is in neither.
            let newest = page.newest.map_or_else(String::new, |id| id.to_string());
            return Err(HistoryError::Elsewhere(newest));
        }
        let Page { reading, wanted, oldest_at, ids, is_reached, .. } = page;
        self.reading = reading;
        self.hour = ids;
        ticks.extend(wanted);
        self.next = match window {
            Window::Hour if !is_reached => Some(Window::Day),
            Window::Hour => None,
            Window::Day => {
                // An answer that shows nothing older than an hour may be that of the hour.
                if oldest_at.is_some_and(|oldest| oldest < received_at - HOUR) {
                    self.reading.reaches_from(received_at - DAY_AT_LEAST);
                }
                None
            }
        };
        Ok(())
    }

    fn reach(&self) -> Option<Reach> {
        self.reading.reach()
    }
}

/// A number that the venue writes as a text, as all of those in its history.
fn number<N: FromStr>(field: &'static str, text: &str) -> Result<N, DecodeError> {
    text.parse().map_err(|_| DecodeError::unknown_value(field, text))
}

fn seconds(field: &'static str, text: &str) -> Result<Timestamp, DecodeError> {
    Ok(Timestamp::from_millis(number::<i64>(field, text)?.saturating_mul(1_000))?)
}

/// Reads the trades of an answer one by one: it may hold a hundred thousand, of which few are wanted.
fn each<'a>(
    body: &'a str,
    read: impl FnMut(Trade<'a>) -> Result<(), HistoryError>,
) -> Result<(), HistoryError> {
    let mut reader = serde_json::Deserializer::from_str(body);
    let trades = Each { read, error: None }.deserialize(&mut reader)?;
    reader.end()?;
    trades
}

struct Each<F> {
    read: F,
    error: Option<HistoryError>,
}

impl<'de, F: FnMut(Trade<'de>) -> Result<(), HistoryError>> DeserializeSeed<'de> for Each<F> {
    type Value = Result<(), HistoryError>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(Trade<'de>) -> Result<(), HistoryError>> Visitor<'de> for Each<F> {
    type Value = Result<(), HistoryError>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of trades")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut trades: A) -> Result<Self::Value, A::Error> {
        while let Some(trade) = trades.next_element()? {
            if self.error.is_none() {
                self.error = (self.read)(trade).err();
            }
        }
        Ok(self.error.map_or(Ok(()), Err))
    }
}

#[derive(Deserialize)]
struct Trade<'a> {
    /// Seconds, cut.
    #[serde(borrow)]
    date: Text<'a>,
    #[serde(borrow)]
    tid: Text<'a>,
    #[serde(borrow)]
    price: Text<'a>,
    #[serde(borrow)]
    amount: Text<'a>,
    /// The taker's side.
    #[serde(borrow, rename = "type")]
    side: Text<'a>,
}

impl Trade<'_> {
    fn into_tick(
        self,
        id: u64,
        instrument: Instrument,
        received_at: Timestamp,
    ) -> Result<Tick, HistoryError> {
        Ok(Tick {
            instrument,
            trade_id: TradeId::Number(id),
            price: amount("price", &self.price)?,
            quantity: amount("amount", &self.amount)?,
            side: match &*self.side {
                "0" => Side::Buy,
                "1" => Side::Sell,
                other => return Err(DecodeError::unknown_value("type", other).into()),
            },
            source: Source::Backfill,
            exchange_at: seconds("date", &self.date)?,
            received_at,
        })
    }
}

#[derive(Deserialize)]
struct Candles<'a> {
    #[serde(borrow)]
    data: Rows<'a>,
}

#[derive(Deserialize)]
struct Rows<'a> {
    #[serde(borrow)]
    ohlc: Vec<Row<'a>>,
}

#[derive(Deserialize)]
struct Row<'a> {
    /// When the minute begins, in seconds.
    #[serde(borrow)]
    timestamp: Text<'a>,
    #[serde(borrow)]
    volume: Text<'a>,
}

#[derive(Deserialize)]
struct Ticker<'a> {
    #[serde(borrow)]
    timestamp: Text<'a>,
}

#[derive(Deserialize)]
struct Pair<'a> {
    #[serde(borrow)]
    url_symbol: Text<'a>,
    #[serde(borrow)]
    trading: Text<'a>,
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{self, REST, ids, span, take};
    use super::*;

    const TRADES: &str = r#"[{"date":"1790000009","tid":"216000506","amount":"0.00006514","type":"1","price":"77558.10"},{"date":"1790000004","tid":"216000477","amount":"1.00000000","type":"0","price":"77558"},{"date":"1790000003","tid":"216000470","amount":"2","type":"0","price":"77557"}]"#;
    const OHLC: &str = r#"{"data":{"pair":"BTC/USD","ohlc":[{"high":"9064.77","timestamp":"1593961440","volume":"18.49436608","low":"9040.87","close":"9064.77","open":"9040.87"},{"high":"9071.59","timestamp":"1593961500","volume":"3.5","low":"9058.76","close":"9061.07","open":"9064.66"}]}}"#;
    const TICKER: &str = r#"{"timestamp":"1686068944","high":"26252","last":"26216","bid":"26208","vwap":"25681","volume":"3563.13819902","low":"25350","ask":"26211","open":"25730","side":"0","open_24":"25895","percent_change_24":"1.24"}"#;

    fn write(trades: &[(u64, i64)]) -> String {
        let trade = |(id, at): &(u64, i64)| {
            let seconds = at / 1_000;
            format!(r#"{{"date":"{seconds}","tid":"{id}","amount":"2","type":"0","price":"1.5"}}"#)
        };
        let trades: Vec<String> = trades.iter().map(trade).collect();
        format!("[{}]", trades.join(","))
    }

    /// From the last tenth of the second of the middle trade on.
    fn pages() -> Box<dyn Pages> {
        Bitstamp.pages(
            REST,
            span(&Bitstamp, "BTCUSD", None, 1_790_000_004_900_000, 1_790_000_060_000_000),
        )
    }

    #[test]
    fn the_hour_is_enough_where_it_begins_before_the_span() {
        let mut pages = pages();
        let url = format!("{REST}/api/v2/transactions/btcusd/?time=hour");
        assert_eq!(pages.next(), Some(url));
        let ticks = take(&mut *pages, TRADES).unwrap();
        assert_eq!(
            ticks[0],
            Tick {
                instrument: testing::instrument(&Bitstamp, "BTCUSD"),
                trade_id: TradeId::Number(216_000_506),
                price: testing::decimal("77558.10"),
                quantity: testing::decimal("0.00006514"),
                side: Side::Sell,
                source: Source::Backfill,
                exchange_at: Timestamp::from_millis(1_790_000_009_000).unwrap(),
                received_at: testing::received_at(),
            }
        );
        assert_eq!(ids(&ticks), [216_000_506, 216_000_477], "the second's others may be wanted");
        assert_eq!(ticks[1].side, Side::Buy);
        assert_eq!(pages.next(), None);
        assert_eq!(pages.reach().unwrap().times.from.as_millis(), 1_790_000_003_000);
    }

    #[test]
    fn the_day_is_asked_for_where_the_hour_begins_too_late() {
        let mut pages = pages();
        let ticks = take(&mut *pages, &write(&[(30, 1_790_000_009_000)])).unwrap();
        assert_eq!(ids(&ticks), [30]);
        assert_eq!(pages.next(), Some(format!("{REST}/api/v2/transactions/btcusd/?time=day")));
        let stale = take(&mut *pages, &write(&[(20, 1_790_000_007_000)]));
        assert!(matches!(stale, Err(HistoryError::Elsewhere(id)) if id == "20"));
        let day = [(40, 1_790_000_010_000), (30, 1_790_000_009_000), (20, 1_790_000_007_000)];
        assert_eq!(ids(&take(&mut *pages, &write(&day)).unwrap()), [40, 20], "each once");
        assert_eq!(pages.next(), None);
    }

    /// How far back a span is read that began `hours` ago, where both answers hold only the trades of `body`.
    fn read_from(hours: u64, body: &str) -> Option<Timestamp> {
        let now = testing::received_at();
        let from = now - Duration::from_hours(hours);
        let span = span(&Bitstamp, "BTCUSD", None, from.as_micros(), now.as_micros());
        let mut pages = Bitstamp.pages(REST, span);
        for _ in ["hour", "day"] {
            take(&mut *pages, body).unwrap();
        }
        pages.reach().map(|reach| reach.times.from)
    }

    #[test]
    fn a_day_reaches_as_far_as_it_is_long_once_it_is_seen_to_be_more_than_an_hour() {
        let now = testing::received_at();
        let at = |minutes| write(&[(30, (now - Duration::from_mins(minutes)).as_millis())]);
        for hours in [20, 30] {
            assert_eq!(read_from(hours, &at(61)), Some(now - DAY_AT_LEAST));
            let newer = (now - Duration::from_mins(59)).second();
            assert_eq!(read_from(hours, &at(59)), Some(newer), "it may be the hour's answer");
            assert_eq!(read_from(hours, "[]"), None, "nothing was traded, or the answer is wrong");
        }
    }

    #[test]
    fn candles_and_the_clock_are_read() {
        let candles = Bitstamp.decode_candles(OHLC).unwrap();
        let volumes: Vec<String> = candles.iter().map(|one| one.volume.to_string()).collect();
        assert_eq!(volumes, ["18.49436608", "3.5"], "oldest first");
        assert_eq!(candles[0].minute.as_millis(), 1_593_961_440_000);
        assert_eq!(Bitstamp.decode_clock(TICKER).unwrap().as_millis(), 1_686_068_944_000);
    }

    #[test]
    fn candles_are_asked_for_from_the_first_wanted_minute_to_the_last() {
        let url = |from: i64, to: i64| {
            let span = span(&Bitstamp, "BTCUSD", None, from * 1_000_000, to * 1_000_000);
            Bitstamp.candles_url("", span.instrument, span.times.from, span.times.to)
        };
        let asked = "/api/v2/ohlc/btcusd/?step=60&limit=3&start=1593961440&end=1593961560";
        assert_eq!(url(1_593_961_441, 1_593_961_619), asked);
        assert!(url(1_593_961_440, 1_700_000_000).contains("limit=1000&"));
    }

    #[test]
    fn a_symbol_that_has_a_ticker_is_traded_however_quiet_it_is() {
        assert!(Bitstamp.decode_symbol(TICKER).unwrap());
        assert!(Bitstamp.decode_symbol(r#"{"status":"error","reason":"Not found."}"#).is_err());
    }

    #[test]
    fn prop_a_number_is_exact_or_refused() {
        let candles = (OHLC, "18.49436608");
        testing::prop_a_number_of_the_past_is_exact_or_refused(&Bitstamp, write, candles);
    }

    #[test]
    fn prop_no_answer_leads_in_a_circle() {
        testing::prop_no_answer_leads_in_a_circle(&Bitstamp, &[TRADES, OHLC], write);
    }
}
