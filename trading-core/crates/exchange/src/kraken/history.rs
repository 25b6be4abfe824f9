//! Kraken spot over REST: history by time, oldest first, a thousand trades at a time.
//!
//! A cursor is a time in nanoseconds. The venue's words call it exclusive, and it has been seen to be inclusive;
//! so each page begins a nanosecond before the last trade of the page before, which is right either way and
//! proves that nothing lies between the two.
//!
//! A trade's time is told as the double nearest to its nanoseconds, up to 119 ns off and in as few digits as tell
//! that double apart, while the WebSocket tells whole microseconds. What the double itself is, cut to the
//! microsecond, is the same for 94 of 100 trades if the WebSocket cuts as well; for the others no reading of the
//! text can be: see [`HistoryRules::times_apart`].
//!
//! Protocol: <https://docs.kraken.com/api/docs/rest-api/get-recent-trades>, September 2026.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::super::DecodeError;
use super::super::frame::{Text, amount};
use super::super::history::{
    Candle, Depth, History, HistoryError, HistoryRules, Listed, Pages, Reach, Reading, Span,
    encoded,
};
use super::{Kraken, current};
use domain::{Instrument, Side, Source, Symbol, Tick, Timestamp, TimestampError, TradeId};

/// Trades in one answer at most.
const PAGE: usize = 1_000;
/// How far beside the span's times is read: a trade's time here and in the WebSocket's frames may differ a little.
const BESIDE: Duration = Duration::from_millis(1);

impl History for Kraken {
    fn rules(&self) -> HistoryRules {
        HistoryRules {
            // Documented: one a second from one address.
            requests: NonZeroU32::MIN,
            per: Duration::from_secs(1),
            depth: Depth::Whole,
            times_apart: Some(Duration::from_millis(1)),
        }
    }

    fn pages(&self, base: &str, span: Span) -> Box<dyn Pages> {
        let symbol = span.instrument.symbol();
        let (pair, class) = (encoded(&pair(symbol)), class(symbol.base(), "asset_class"));
        Box::new(KrakenPages {
            trades: format!("{base}/0/public/Trades?pair={pair}&count={PAGE}{class}"),
            since: Some(nanos(span.times.from - BESIDE)),
            reading: Reading::new(span),
            page_before: Vec::new(),
        })
    }

    /// The venue has no other end than now; and never more than the last 720 minutes.
    fn candles_url(
        &self,
        base: &str,
        instrument: Instrument,
        from: Timestamp,
        _to: Timestamp,
    ) -> String {
        let symbol = instrument.symbol();
        let (pair, class) = (encoded(&pair(symbol)), class(symbol.base(), "asset_class"));
        let since = from.minute().as_millis() / 1_000 - 1;
        format!("{base}/0/public/OHLC?pair={pair}&interval=1{class}&since={since}")
    }

    fn decode_candles(&self, body: &str) -> Result<Vec<Candle>, HistoryError> {
        let candle = |row: &Row<'_>| {
            Ok(Candle {
                minute: Timestamp::from_millis(row.0.saturating_mul(1_000))?,
                volume: amount("volume", &row.6)?,
                trades: Some(row.7),
            })
        };
        read_rows::<Row<'_>>(body)?.rows.iter().map(candle).collect()
    }

    fn clock_url(&self, base: &str) -> String {
        format!("{base}/0/public/Time")
    }

    /// To the second: the venue tells no more.
    fn decode_clock(&self, body: &str) -> Result<Timestamp, HistoryError> {
        let clock: Clock = read(body)?;
        Ok(Timestamp::from_millis(clock.unixtime.saturating_mul(1_000))?)
    }

    fn symbol_url(&self, base: &str, venue_symbol: &str) -> String {
        let (pair, class) = (encoded(venue_symbol), class(venue_symbol, "aclass_base"));
        format!("{base}/0/public/AssetPairs?pair={pair}{class}")
    }

    fn decode_symbol(&self, body: &str) -> Result<bool, HistoryError> {
        let pairs: HashMap<Text<'_>, Traded<'_>> = read(body)?;
        Ok(pairs.values().any(|pair| &*pair.status == "online"))
    }

    /// Stocks are listed apart from currencies.
    fn listing_urls(&self, base: &str) -> Vec<String> {
        let pairs = format!("{base}/0/public/AssetPairs");
        vec![pairs.clone(), format!("{pairs}?aclass_base={TOKENIZED}")]
    }

    fn decode_listing(&self, body: &str) -> Result<Vec<Listed>, HistoryError> {
        let pairs: HashMap<Text<'_>, Traded<'_>> = read(body)?;
        let listed = |pair: Traded<'_>| {
            // Pairs of its dark pool have no name in WebSocket.
            let name = pair.wsname?;
            let (base, quote) = name.split_once('/')?;
            let spelling = format!("{}/{}", current(base), current(quote));
            Some(Listed { spelling, is_traded: Some(&*pair.status == "online") })
        };
        Ok(pairs.into_values().filter_map(listed).collect())
    }
}

/// What a pair of a stock must be asked for with (JKorf/Kraken.Net#146): without it the venue knows none of its name.
/// Stocks are told from currencies by their small letters, as in `AAPLx`, which no currency has.
const TOKENIZED: &str = "tokenized_asset";

fn class(base: &str, parameter: &str) -> String {
    if base.bytes().any(|byte| byte.is_ascii_lowercase()) {
        format!("&{parameter}={TOKENIZED}")
    } else {
        String::new()
    }
}

/// The pair as the older interfaces spell it.
fn pair(symbol: &Symbol) -> String {
    let old = |currency| match currency {
        "BTC" => "XBT",
        "DOGE" => "XDG",
        other => other,
    };
    format!("{}{}", old(symbol.base()), old(symbol.quote()))
}

const fn nanos(time: Timestamp) -> i64 {
    time.as_micros().saturating_mul(1_000)
}

#[derive(Debug)]
struct KrakenPages {
    /// The URL without its cursor.
    trades: String,
    /// The cursor in nanoseconds; `None`: at the end.
    since: Option<i64>,
    reading: Reading,
    /// The ids of the page before, whose last trades come again.
    page_before: Vec<TradeId>,
}

impl Pages for KrakenPages {
    fn next(&self) -> Option<String> {
        let since = self.since?;
        Some(format!("{}&since={since}", self.trades))
    }

    fn take(
        &mut self,
        body: &str,
        received_at: Timestamp,
        ticks: &mut Vec<Tick>,
    ) -> Result<(), HistoryError> {
        let Some(since) = self.since else { return Ok(()) };
        let instrument = self.reading.span.instrument;
        let Rows { rows, last } = read_rows::<Trade<'_>>(body)?;
        let mut page = rows
            .into_iter()
            .map(|trade| trade.into_tick(instrument, received_at))
            .collect::<Result<Vec<_>, HistoryError>>()?;
        let is_older = |tick: &&Tick| nanos(tick.exchange_at + BESIDE) < since;
        if let Some(older) = page.iter().find(is_older) {
            return Err(HistoryError::Elsewhere(older.trade_id.to_string()));
        }
        // Missing now and then.
        let newest = page.iter().map(|tick| nanos(tick.exchange_at)).max();
        let last = last.or(newest).unwrap_or(since);
        // A page that is not full holds the newest trade there is; and one that comes again would do so for ever.
        let has_more = page.len() >= PAGE && !page.iter().any(|tick| self.is_past(tick));
        let next = [last.saturating_sub(1), last].into_iter().find(|next| *next > since);
        self.since = next.filter(|_| has_more);

        let ids: Vec<TradeId> = page.iter().map(|tick| tick.trade_id.clone()).collect();
        page.retain(|tick| !self.page_before.contains(&tick.trade_id));
        self.page_before = ids;
        self.reading.keep(page, ticks);
        self.reading.reaches_from(self.reading.span.times.from);
        Ok(())
    }

    fn reach(&self) -> Option<Reach> {
        self.reading.reach()
    }
}

impl KrakenPages {
    /// Whether a trade is so far behind the span that no wanted one follows.
    fn is_past(&self, tick: &Tick) -> bool {
        self.reading.is_after(tick) || tick.exchange_at > self.reading.span.times.to + BESIDE
    }
}

/// Reads the result of an answer, or its refusal.
fn read<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, HistoryError> {
    let answer: Answer<'_> = serde_json::from_str(body)?;
    match answer.error.first() {
        None => Ok(serde_json::from_str(answer.result.map_or("null", RawValue::get))?),
        Some(words) if words.contains("Too many requests") || words.contains("Rate limit") => {
            Err(HistoryError::TooMany)
        }
        Some(words) => Err(HistoryError::refused(words)),
    }
}

/// The rows of the one pair that was asked for, whatever the venue calls it here.
struct Rows<T> {
    rows: Vec<T>,
    /// The cursor of what follows.
    last: Option<i64>,
}

fn read_rows<'a, T: Deserialize<'a>>(body: &'a str) -> Result<Rows<T>, HistoryError> {
    let mut result: HashMap<Text<'a>, &'a RawValue> = read(body)?;
    let last = result.extract_if(|key, _| &**key == "last").next().map(|(_, last)| last);
    let mut pairs = result.into_values();
    let (Some(rows), None) = (pairs.next(), pairs.next()) else {
        return Err(DecodeError::UnknownMessage.into());
    };
    // A text for trades, a number for candles.
    let last = last.map(|last| last.get().trim_matches('"'));
    let last = last.map(|last| last.parse().map_err(|_| DecodeError::unknown_value("last", last)));
    Ok(Rows { rows: serde_json::from_str(rows.get())?, last: last.transpose()? })
}

/// A time in seconds, told as a double: the microsecond in which the double lies.
fn seconds(text: &str) -> Result<Timestamp, TimestampError> {
    // All the digits that the double has; nothing is computed with it.
    let exact = text.parse::<f64>().map(|seconds| format!("{seconds:.9}")).unwrap_or_default();
    let micros = exact.get(..exact.len().saturating_sub(3)).unwrap_or_default().replace('.', "");
    let micros = micros.parse().ok().and_then(|micros| Timestamp::from_micros(micros).ok());
    micros.ok_or_else(|| TimestampError { text: text.chars().take(40).collect() })
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    error: Vec<Text<'a>>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

/// Price, volume, time in seconds, the taker's side, the kind of order, nothing, id.
#[derive(Deserialize)]
struct Trade<'a>(
    #[serde(borrow)] Text<'a>,
    #[serde(borrow)] Text<'a>,
    #[serde(borrow)] &'a RawValue,
    #[serde(borrow)] Text<'a>,
    IgnoredAny,
    IgnoredAny,
    u64,
);

impl Trade<'_> {
    fn into_tick(
        self,
        instrument: Instrument,
        received_at: Timestamp,
    ) -> Result<Tick, HistoryError> {
        let Self(price, quantity, time, side, _, _, id) = self;
        Ok(Tick {
            instrument,
            trade_id: TradeId::Number(id),
            price: amount("price", &price)?,
            quantity: amount("volume", &quantity)?,
            side: match &*side {
                "b" => Side::Buy,
                "s" => Side::Sell,
                other => return Err(DecodeError::unknown_value("side", other).into()),
            },
            source: Source::Backfill,
            exchange_at: seconds(time.get())?,
            received_at,
        })
    }
}

/// Start in seconds, open, high, low, close, average, volume, trades.
#[derive(Deserialize)]
struct Row<'a>(
    i64,
    IgnoredAny,
    IgnoredAny,
    IgnoredAny,
    IgnoredAny,
    IgnoredAny,
    #[serde(borrow)] Text<'a>,
    u64,
);

#[derive(Deserialize)]
struct Clock {
    unixtime: i64,
}

#[derive(Deserialize)]
struct Traded<'a> {
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(borrow)]
    wsname: Option<Text<'a>>,
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{self, REST, span, take};
    use super::*;
    use domain::IdRange;

    const TRADES: &str = r#"{"error":[],"result":{"XXBTZUSD":[["30243.40000","0.34507674",1688669597.8277369,"b","m","",61044952],["30243.30000","0.00376960",1688669598.2804112,"s","l","",61044953],["30243.30000","0.01235716",1688669602.698379,"s","m","",61044956]],"last":"1688671969993150842"}}"#;
    const OHLC: &str = r#"{"error":[],"result":{"XXBTZUSD":[[1688671200,"30306.1","30306.2","30305.7","30305.7","30306.1","3.39243896",23],[1688671260,"30304.5","30304.5","30300.0","30300.0","30300.0","4.42996871",18]],"last":1688672160}}"#;

    fn write(trades: &[(u64, i64)]) -> String {
        let trade = |(id, at): &(u64, i64)| {
            format!(r#"["1.5","2",{}.{:03},"b","l","",{id}]"#, at / 1_000, at % 1_000)
        };
        let rows: Vec<String> = trades.iter().map(trade).collect();
        let last = trades.last().map_or(0, |(_, at)| at * 1_000_000);
        format!(r#"{{"error":[],"result":{{"XBTUSDT":[{}],"last":"{last}"}}}}"#, rows.join(","))
    }

    fn over(ids: Option<(u64, u64)>) -> Box<dyn Pages> {
        let span = span(&Kraken, "BTCUSD", ids, 1_688_669_590_000_000, 1_688_669_600_000_000);
        Kraken.pages(REST, span)
    }

    #[test]
    fn a_trade_is_read_as_in_a_frame() {
        let mut pages = over(Some((61_044_952, 61_044_955)));
        assert_eq!(
            pages.next().unwrap(),
            format!("{REST}/0/public/Trades?pair=XBTUSD&count=1000&since=1688669589999000000")
        );
        let ticks = take(&mut *pages, TRADES).unwrap();
        assert_eq!(
            ticks[0],
            Tick {
                instrument: testing::instrument(&Kraken, "BTCUSD"),
                trade_id: TradeId::Number(61_044_952),
                price: testing::decimal("30243.40000"),
                quantity: testing::decimal("0.34507674"),
                side: Side::Buy,
                source: Source::Backfill,
                exchange_at: Timestamp::from_micros(1_688_669_597_827_736).unwrap(),
                received_at: testing::received_at(),
            }
        );
        assert_eq!((ticks.len(), ticks[1].side), (2, Side::Sell));
        assert_eq!(pages.reach().unwrap().ids, Some(IdRange::between(61_044_952, 61_044_956)));
        assert_eq!(pages.next(), None);
        let mut by_time = over(None);
        assert_eq!(take(&mut *by_time, TRADES).unwrap(), ticks);
    }

    #[test]
    fn a_time_is_the_microsecond_in_which_its_double_lies() {
        for (text, micros) in [
            // Told with the cursor 1762820035982277754.
            ("1762820035.9822779", 1_762_820_035_982_277),
            // Told with the cursor 1616666442390332264.
            ("1616666442.3903322", 1_616_666_442_390_332),
            // The double is .980000972…; its shortest text says more.
            ("1762820035.980001", 1_762_820_035_980_000),
            ("1616663618", 1_616_663_618_000_000),
            ("0.000001", 1),
        ] {
            assert_eq!(seconds(text).unwrap().as_micros(), micros, "{text}");
        }
        for text in ["", ".", "-1.5", "1e99", "1.2.3", "99999999999999999999.1", "NaN", "inf"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_page_begins_before_the_last_trade_of_the_one_before() {
        let from = 1_688_669_590_000;
        let trades: Vec<_> = (1..=1_000_u64).map(|n| (n, from + n.cast_signed() - 1)).collect();
        let mut pages = over(None);
        assert_eq!(take(&mut *pages, &write(&trades)).unwrap().len(), 1_000);
        assert!(pages.next().unwrap().ends_with("&since=1688669590998999999"));
        // The last trade comes again, whether the cursor is exclusive or not, and is kept once.
        let again = take(&mut *pages, &write(&[(1_000, from + 999), (1_001, from + 1_000)]));
        assert_eq!(testing::ids(&again.unwrap()), [1_001]);
        assert_eq!(pages.next(), None, "a page that is not full is the last");
        // A whole page of one time, from the cursor on: only by going past it is there an end.
        let crowd: Vec<_> = (1..=1_000_u64).map(|n| (n, from + 5)).collect();
        let mut pages = over(None);
        take(&mut *pages, &write(&crowd)).unwrap();
        take(&mut *pages, &write(&crowd)).unwrap();
        assert!(pages.next().unwrap().ends_with("&since=1688669590005000000"));
        take(&mut *pages, &write(&crowd)).unwrap();
        assert_eq!(pages.next(), None);
    }

    #[test]
    fn a_missing_cursor_is_the_time_of_the_newest_trade() {
        let from = 1_688_669_590_000;
        let trades: Vec<_> = (1..=1_000_u64).map(|n| (n, from + n.cast_signed() - 1)).collect();
        let mut pages = over(None);
        let body = write(&trades).replace(r#","last":"1688669590999000000""#, "");
        take(&mut *pages, &body).unwrap();
        assert!(pages.next().unwrap().ends_with("&since=1688669590998999999"));
    }

    #[test]
    fn an_answer_to_another_question_is_refused() {
        let answer = |body: &str| take(&mut *over(Some((5, 6))), body).unwrap_err();
        let older = write(&[(4, 1_688_669_589_000)]);
        assert!(matches!(answer(&older), HistoryError::Elsewhere(id) if id == "4"));
        let refused = |words: &str| answer(&format!(r#"{{"error":["{words}"]}}"#));
        assert!(matches!(refused("EQuery:Unknown asset pair"), HistoryError::Refused(_)));
        assert!(matches!(refused("EGeneral:Too many requests"), HistoryError::TooMany));
        let two = TRADES.replace(r#","last""#, r#","XETHZUSD":[],"last""#);
        assert!(matches!(answer(&two), HistoryError::Unreadable(_)));
        assert!(matches!(answer(&TRADES.replace(r#""b""#, r#""x""#)), HistoryError::Unreadable(_)));
    }

    #[test]
    fn candles_and_the_clock_are_read() {
        let candles = Kraken.decode_candles(OHLC).unwrap();
        let second = Candle {
            minute: Timestamp::from_millis(1_688_671_260_000).unwrap(),
            volume: testing::decimal("4.42996871"),
            trades: Some(18),
        };
        assert_eq!((candles.len(), candles[1]), (2, second));
        let body = r#"{"error":[],"result":{"unixtime":1688669448,"rfc1123":"Thu, 06 Jul 23 18:50:48 +0000"}}"#;
        assert_eq!(Kraken.decode_clock(body).unwrap().as_millis(), 1_688_669_448_000);
    }

    #[test]
    fn a_symbol_is_traded_or_not_or_unknown() {
        let body = |status: &str| {
            format!(
                r#"{{"error":[],"result":{{"XXBTZUSD":{{"wsname":"XBT/USD","status":"{status}"}}}}}}"#
            )
        };
        assert!(Kraken.decode_symbol(&body("online")).unwrap());
        assert!(!Kraken.decode_symbol(&body("cancel_only")).unwrap());
        let unknown = Kraken.decode_symbol(r#"{"error":["EQuery:Unknown asset pair"]}"#);
        assert!(matches!(unknown, Err(HistoryError::Refused(_))));
    }

    #[test]
    fn prop_a_number_is_exact_or_refused() {
        testing::prop_a_number_of_the_past_is_exact_or_refused(
            &Kraken,
            write,
            (OHLC, "3.39243896"),
        );
    }

    #[test]
    fn prop_no_answer_leads_in_a_circle() {
        testing::prop_no_answer_leads_in_a_circle(&Kraken, &[TRADES, OHLC], write);
    }
}
