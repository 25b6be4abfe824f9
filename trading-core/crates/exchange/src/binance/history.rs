//! Binance spot over REST: history by id, oldest first, a thousand trades at a time.
//!
//! `historicalTrades` goes on from any id; where only a time is known, `aggTrades` tells the first id of it. No key is
//! needed since August 2023 (binance/binance-connector-python#246), but only `api.binance.com` has it, not the hosts
//! for market data alone.
//!
//! Protocol: <https://developers.binance.com/docs/binance-spot-api-docs/rest-api/market-data-endpoints>, July 2026.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::Exchange;
use super::super::frame::{Text, amount};
use super::super::history::{
    BESIDE, Candle, Depth, History, HistoryError, HistoryRules, Listed, Pages, Reach, Reading,
    Span, encoded, ids_of,
};
use super::{Binance, stamp};
use domain::{IdRange, Instrument, Side, Source, Tick, Timestamp, TradeId};

/// Trades in one answer, and candles, at most.
const PAGE: usize = 1_000;
/// The longest time that may lie between `startTime` and `endTime`, in milliseconds.
const WINDOW_MS: i64 = 3_600_000;
/// The venue's code for too many requests.
const TOO_MANY: i64 = -1_003;

impl History for Binance {
    fn rules(&self) -> HistoryRules {
        HistoryRules {
            // Documented: a weight of 6,000 a minute from one address, of which a page costs 25.
            requests: NonZeroU32::MIN.saturating_add(239),
            per: Duration::from_mins(1),
            depth: Depth::Whole,
            // Both in milliseconds, or both in microseconds.
            times_apart: None,
        }
    }

    fn pages(&self, base: &str, span: Span) -> Box<dyn Pages> {
        let next = match span.ids {
            Some(ids) => Next::Id(ids.first().saturating_sub(BESIDE)),
            None => Next::Time(span.times.from.as_millis()),
        };
        let symbol = encoded(&self.venue_symbol(span.instrument.symbol()));
        Box::new(BinancePages {
            api: format!("{base}/api/v3"),
            symbol,
            reading: Reading::new(span),
            next: Some(next),
        })
    }

    fn candles_url(
        &self,
        base: &str,
        instrument: Instrument,
        from: Timestamp,
        to: Timestamp,
    ) -> String {
        let symbol = encoded(&self.venue_symbol(instrument.symbol()));
        let (from, to) = (from.minute().as_millis(), to.as_millis());
        format!(
            "{base}/api/v3/klines?symbol={symbol}&interval=1m&startTime={from}&endTime={to}&limit={PAGE}"
        )
    }

    fn decode_candles(&self, body: &str) -> Result<Vec<Candle>, HistoryError> {
        let candle = |row: &Row<'_>| {
            Ok(Candle {
                minute: stamp(row.0)?,
                volume: amount("volume", &row.5)?,
                trades: Some(row.8),
            })
        };
        read::<Vec<Row<'_>>>(body)?.iter().map(candle).collect()
    }

    fn clock_url(&self, base: &str) -> String {
        format!("{base}/api/v3/time")
    }

    fn decode_clock(&self, body: &str) -> Result<Timestamp, HistoryError> {
        let clock: Clock = read(body)?;
        Ok(stamp(clock.server_time)?)
    }

    fn symbol_url(&self, base: &str, venue_symbol: &str) -> String {
        format!("{base}/api/v3/exchangeInfo?symbol={}", encoded(venue_symbol))
    }

    fn decode_symbol(&self, body: &str) -> Result<bool, HistoryError> {
        let info: Info<'_> = read(body)?;
        Ok(info.symbols.iter().any(|symbol| &*symbol.status == "TRADING"))
    }

    /// `exchangeInfo` of all symbols has many megabytes; the last prices have a hundredth of that.
    fn listing_urls(&self, base: &str) -> Vec<String> {
        vec![format!("{base}/api/v3/ticker/price")]
    }

    fn decode_listing(&self, body: &str) -> Result<Vec<Listed>, HistoryError> {
        let listed =
            |name: Priced<'_>| Listed { spelling: name.symbol.to_string(), is_traded: None };
        Ok(read::<Vec<Priced<'_>>>(body)?.into_iter().map(listed).collect())
    }
}

/// What to ask for next.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// The first trade from this millisecond on.
    Time(i64),
    /// Trades from this id on.
    Id(u64),
}

#[derive(Debug)]
struct BinancePages {
    /// Up to and with `/api/v3`.
    api: String,
    symbol: String,
    reading: Reading,
    next: Option<Next>,
}

impl Pages for BinancePages {
    fn next(&self) -> Option<String> {
        let Self { api, symbol, .. } = self;
        Some(match self.next? {
            Next::Time(from) => {
                let to = self.window_end(from);
                format!("{api}/aggTrades?symbol={symbol}&startTime={from}&endTime={to}&limit=1")
            }
            Next::Id(from) => {
                format!("{api}/historicalTrades?symbol={symbol}&limit={PAGE}&fromId={from}")
            }
        })
    }

    fn take(
        &mut self,
        body: &str,
        received_at: Timestamp,
        ticks: &mut Vec<Tick>,
    ) -> Result<(), HistoryError> {
        self.next = match self.next {
            None => None,
            Some(Next::Time(from)) => match read::<Vec<Aggregate>>(body)?.first() {
                Some(found) => Some(Next::Id(found.first.saturating_sub(BESIDE))),
                None => Some(self.window_end(from).saturating_add(1))
                    .filter(|from| *from <= self.reading.span.times.to.as_millis())
                    .map(Next::Time),
            },
            Some(Next::Id(from)) => {
                let instrument = self.reading.span.instrument;
                let page = read::<Vec<Trade<'_>>>(body)?
                    .into_iter()
                    .map(|trade| trade.into_tick(instrument, received_at))
                    .collect::<Result<Vec<_>, HistoryError>>()?;
                let newest = match ids_of(&page) {
                    Some(ids) if ids.first() < from => {
                        return Err(HistoryError::Elsewhere(ids.first().to_string()));
                    }
                    ids => ids.map(IdRange::last),
                };
                // A page that is not full holds the newest trade there is.
                let has_more =
                    page.len() >= PAGE && !page.iter().any(|tick| self.reading.is_after(tick));
                self.reading.keep(page, ticks);
                if self.reading.span.ids.is_none() {
                    self.reading.reaches_from(self.reading.span.times.from);
                }
                newest.filter(|_| has_more).and_then(|id| id.checked_add(1)).map(Next::Id)
            }
        };
        Ok(())
    }

    fn reach(&self) -> Option<Reach> {
        self.reading.reach()
    }
}

impl BinancePages {
    fn window_end(&self, from: i64) -> i64 {
        from.saturating_add(WINDOW_MS - 1).min(self.reading.span.times.to.as_millis())
    }
}

/// Reads an answer, or the refusal that stands in its place.
fn read<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, HistoryError> {
    serde_json::from_str(body).map_err(|error| match serde_json::from_str::<Refusal<'_>>(body) {
        Ok(Refusal { code: TOO_MANY, .. }) => HistoryError::TooMany,
        Ok(Refusal { msg, .. }) => HistoryError::refused(&msg),
        Err(_) => error.into(),
    })
}

#[derive(Deserialize)]
struct Refusal<'a> {
    code: i64,
    #[serde(borrow)]
    msg: Text<'a>,
}

#[derive(Deserialize)]
struct Trade<'a> {
    id: u64,
    #[serde(borrow)]
    price: Text<'a>,
    #[serde(borrow, rename = "qty")]
    quantity: Text<'a>,
    /// Milliseconds, or microseconds where they are asked for.
    time: i64,
    #[serde(rename = "isBuyerMaker")]
    buyer_is_maker: bool,
}

impl Trade<'_> {
    fn into_tick(
        self,
        instrument: Instrument,
        received_at: Timestamp,
    ) -> Result<Tick, HistoryError> {
        Ok(Tick {
            instrument,
            trade_id: TradeId::Number(self.id),
            price: amount("price", &self.price)?,
            quantity: amount("qty", &self.quantity)?,
            side: if self.buyer_is_maker { Side::Sell } else { Side::Buy },
            source: Source::Backfill,
            exchange_at: stamp(self.time)?,
            received_at,
        })
    }
}

/// Trades of one taker at one price.
#[derive(Deserialize)]
struct Aggregate {
    #[serde(rename = "f")]
    first: u64,
}

/// Opened, open, high, low, close, volume, closed, volume in quote, trades, and three more.
#[derive(Deserialize)]
struct Row<'a>(
    i64,
    IgnoredAny,
    IgnoredAny,
    IgnoredAny,
    IgnoredAny,
    #[serde(borrow)] Text<'a>,
    IgnoredAny,
    IgnoredAny,
    u64,
    IgnoredAny,
    IgnoredAny,
    IgnoredAny,
);

#[derive(Deserialize)]
struct Clock {
    #[serde(rename = "serverTime")]
    server_time: i64,
}

#[derive(Deserialize)]
struct Info<'a> {
    #[serde(borrow)]
    symbols: Vec<Traded<'a>>,
}

#[derive(Deserialize)]
struct Priced<'a> {
    #[serde(borrow)]
    symbol: Text<'a>,
}

#[derive(Deserialize)]
struct Traded<'a> {
    #[serde(borrow)]
    status: Text<'a>,
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{self, REST, span, take, take_one};
    use super::*;

    const PAGE_OF_ONE: &str = r#"[{"id":28457,"price":"4.00000100","qty":"12.00000000","quoteQty":"48.000012","time":1499865549590,"isBuyerMaker":true,"isBestMatch":true}]"#;
    const AGGREGATES: &str = r#"[{"a":26129,"p":"0.01633102","q":"4.70443515","f":27781,"l":27783,"T":1498793709153,"m":true,"M":true}]"#;
    const KLINES: &str = r#"[[1499040000000,"0.01634790","0.80000000","0.01575800","0.01577100","148976.11427815",1499644799999,"2434.19055334",308,"1756.87402397","28.46694368","0"]]"#;

    fn write(trades: &[(u64, i64)]) -> String {
        let trade = |(id, at): &(u64, i64)| {
            format!(
                r#"{{"id":{id},"price":"1.5","qty":"2","quoteQty":"3","time":{at},"isBuyerMaker":false,"isBestMatch":true}}"#
            )
        };
        let trades: Vec<String> = trades.iter().map(trade).collect();
        format!("[{}]", trades.join(","))
    }

    fn full_page(first: u64) -> String {
        let trades: Vec<_> = (first..first + 1_000).map(|id| (id, id.cast_signed())).collect();
        write(&trades)
    }

    #[test]
    fn a_trade_is_read_as_in_a_frame() {
        let mut pages =
            Binance.pages(REST, span(&Binance, "BTCUSDT", Some((28_457, 28_457)), 0, 1));
        assert_eq!(
            take_one(&mut *pages, PAGE_OF_ONE),
            Tick {
                instrument: testing::instrument(&Binance, "BTCUSDT"),
                trade_id: TradeId::Number(28_457),
                price: testing::decimal("4.00000100"),
                quantity: testing::decimal("12.00000000"),
                side: Side::Sell,
                source: Source::Backfill,
                exchange_at: Timestamp::from_millis(1_499_865_549_590).unwrap(),
                received_at: testing::received_at(),
            }
        );
        assert_eq!(pages.next(), None, "a page that is not full is the last");
    }

    #[test]
    fn a_page_in_microseconds_is_read_as_one() {
        let mut pages =
            Binance.pages(REST, span(&Binance, "BTCUSDT", Some((28_457, 28_457)), 0, 1));
        let page = PAGE_OF_ONE.replace("1499865549590", "1499865549590123");
        let tick = take_one(&mut *pages, &page);
        assert_eq!(tick.exchange_at.as_micros(), 1_499_865_549_590_123);
        let clock = Binance.decode_clock(r#"{"serverTime":1499827319559123}"#).unwrap();
        assert_eq!(clock.as_micros(), 1_499_827_319_559_123);
    }

    #[test]
    fn a_span_of_ids_is_read_with_its_neighbours() {
        let mut pages = Binance.pages(REST, span(&Binance, "BTCUSDT", Some((500, 1_480)), 0, 1));
        let url = |from| {
            Some(format!("{REST}/api/v3/historicalTrades?symbol=BTCUSDT&limit=1000&fromId={from}"))
        };
        assert_eq!(pages.next(), url(480));
        let kept = take(&mut *pages, &full_page(480)).unwrap();
        assert_eq!(testing::ids(&kept), (500..=1_479).collect::<Vec<u64>>());
        assert_eq!(pages.next(), url(1_480), "the last is still to come");
        let kept = take(&mut *pages, &full_page(1_480)).unwrap();
        assert_eq!(testing::ids(&kept), [1_480]);
        assert_eq!(
            (pages.next(), pages.reach().unwrap().ids),
            (None, Some(IdRange::between(480, 2_479)))
        );
    }

    #[test]
    fn a_span_of_time_begins_with_the_first_id_of_it() {
        let hour = 3_600_000_000;
        let mut pages = Binance.pages(REST, span(&Binance, "BTCUSDT", None, hour, 3 * hour - 1));
        let url = |from: i64, to: i64| {
            let url = "/api/v3/aggTrades?symbol=BTCUSDT";
            Some(format!("{REST}{url}&startTime={from}&endTime={to}&limit=1"))
        };
        assert_eq!(pages.next(), url(3_600_000, 7_199_999));
        assert_eq!(take(&mut *pages, "[]").unwrap(), []);
        assert_eq!(pages.next(), url(7_200_000, 10_799_999));
        take(&mut *pages, AGGREGATES).unwrap();
        assert!(pages.next().unwrap().ends_with("fromId=27761"));
        let mut nothing = Binance.pages(REST, span(&Binance, "BTCUSDT", None, hour, hour));
        take(&mut *nothing, "[]").unwrap();
        assert_eq!((nothing.next(), nothing.reach()), (None, None));
    }

    #[test]
    fn an_answer_to_another_question_is_refused() {
        let mut pages = Binance.pages(REST, span(&Binance, "BTCUSDT", Some((500, 600)), 0, 1));
        let answer = take(&mut *pages, &write(&[(479, 1), (480, 1)]));
        assert!(matches!(answer, Err(HistoryError::Elsewhere(id)) if id == "479"));
        let answer = take(&mut *pages, r#"{"code":-1121,"msg":"Invalid symbol."}"#);
        assert!(matches!(answer, Err(HistoryError::Refused(words)) if words == "Invalid symbol."));
        let answer = take(&mut *pages, r#"{"code":-1003,"msg":"Too many requests."}"#);
        assert!(matches!(answer, Err(HistoryError::TooMany)));
        assert!(matches!(take(&mut *pages, "<html>"), Err(HistoryError::Unreadable(_))));
    }

    #[test]
    fn candles_and_the_clock_are_read() {
        assert_eq!(
            Binance.decode_candles(KLINES).unwrap(),
            [Candle {
                minute: Timestamp::from_millis(1_499_040_000_000).unwrap(),
                volume: testing::decimal("148976.11427815"),
                trades: Some(308),
            }]
        );
        let clock = Binance.decode_clock(r#"{"serverTime":1499827319559}"#).unwrap();
        assert_eq!(clock.as_millis(), 1_499_827_319_559);
    }

    #[test]
    fn a_symbol_is_traded_or_not_or_unknown() {
        let body = |status: &str| {
            format!(
                r#"{{"timezone":"UTC","symbols":[{{"symbol":"BTCUSDT","status":"{status}"}}]}}"#
            )
        };
        assert!(Binance.decode_symbol(&body("TRADING")).unwrap());
        assert!(!Binance.decode_symbol(&body("BREAK")).unwrap());
        let unknown = Binance.decode_symbol(r#"{"code":-1121,"msg":"Invalid symbol."}"#);
        assert!(matches!(unknown, Err(HistoryError::Refused(_))));
    }

    #[test]
    fn prop_a_number_is_exact_or_refused() {
        testing::prop_a_number_of_the_past_is_exact_or_refused(
            &Binance,
            write,
            (KLINES, "148976.11427815"),
        );
    }

    #[test]
    fn prop_no_answer_leads_in_a_circle() {
        let real = [PAGE_OF_ONE, AGGREGATES, KLINES];
        testing::prop_no_answer_leads_in_a_circle(&Binance, &real, write);
    }
}
