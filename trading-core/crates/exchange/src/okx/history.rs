//! OKX spot over REST: history by id, newest first, a hundred trades at a time.
//!
//! Where only a time is known, the first page is asked for by it, and the rest by id. Three months are to be had.
//! A refusal comes with the status 200.
//!
//! Protocol: <https://www.okx.com/docs-v5/en/#order-book-trading-market-data-get-trades-history>, September 2026.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::super::frame::{Text, amount};
use super::super::history::{
    BESIDE, Candle, Depth, History, HistoryError, HistoryRules, Listed, Pages, Reach, Reading,
    Span, encoded, ids_of,
};
use super::super::{DecodeError, Exchange, Subscribed};
use super::{Okx, Trade, number};
use domain::{IdRange, Instrument, Source, Tick, Timestamp};

/// Trades in one answer at most, and candles.
const PAGE: i64 = 100;
/// The venue's code for too many requests.
const TOO_MANY: &str = "50011";

impl History for Okx {
    fn rules(&self) -> HistoryRules {
        HistoryRules {
            // Documented: 20 requests in 2 s from one address; ours: somewhat less.
            requests: NonZeroU32::MIN.saturating_add(7),
            per: Duration::from_secs(1),
            depth: Depth::Whole,
            // Both in milliseconds.
            times_apart: None,
        }
    }

    fn pages(&self, base: &str, span: Span) -> Box<dyn Pages> {
        let next = match span.ids {
            Some(ids) => Next::Id(ids.last().saturating_add(BESIDE + 1)),
            None => Next::Time(span.times.to.as_millis().saturating_add(1)),
        };
        let name = encoded(&self.venue_symbol(span.instrument.symbol()));
        Box::new(OkxPages {
            trades: format!("{base}/api/v5/market/history-trades?instId={name}&limit={PAGE}"),
            symbols: Subscribed::new(self, [span.instrument]),
            reading: Reading::new(span),
            next: Some(next),
        })
    }

    /// The newest candles come first, so that the end is what bounds an answer. Both ends are excluded.
    fn candles_url(
        &self,
        base: &str,
        instrument: Instrument,
        from: Timestamp,
        to: Timestamp,
    ) -> String {
        let name = encoded(&self.venue_symbol(instrument.symbol()));
        let from = from.minute().as_millis();
        let to = to.as_millis().min(from + (PAGE - 1) * 60_000);
        format!(
            "{base}/api/v5/market/history-candles?instId={name}&bar=1m&before={}&after={}&limit={PAGE}",
            from - 1,
            to + 1
        )
    }

    fn decode_candles(&self, body: &str) -> Result<Vec<Candle>, HistoryError> {
        let candle = |row: &Row<'_>| {
            Ok(Candle {
                minute: Timestamp::from_millis(number("ts", &row.0)?)?,
                volume: amount("vol", &row.5)?,
                trades: None,
            })
        };
        read::<Row<'_>>(body)?.iter().rev().map(candle).collect()
    }

    fn clock_url(&self, base: &str) -> String {
        format!("{base}/api/v5/public/time")
    }

    fn decode_clock(&self, body: &str) -> Result<Timestamp, HistoryError> {
        let data = read::<Clock<'_>>(body)?;
        let clock = data.first().ok_or(DecodeError::UnknownMessage)?;
        Ok(Timestamp::from_millis(number("ts", &clock.ts)?)?)
    }

    fn symbol_url(&self, base: &str, venue_symbol: &str) -> String {
        let name = encoded(venue_symbol);
        format!("{base}/api/v5/public/instruments?instType=SPOT&instId={name}")
    }

    fn decode_symbol(&self, body: &str) -> Result<bool, HistoryError> {
        let instruments: Vec<Traded<'_>> = read(body)?;
        Ok(instruments.iter().any(|symbol| &*symbol.state == "live"))
    }

    fn listing_urls(&self, base: &str) -> Vec<String> {
        vec![format!("{base}/api/v5/public/instruments?instType=SPOT")]
    }

    fn decode_listing(&self, body: &str) -> Result<Vec<Listed>, HistoryError> {
        let listed = |it: Traded<'_>| {
            let is_traded = Some(&*it.state == "live");
            Some(Listed { spelling: it.name?.to_string(), is_traded })
        };
        Ok(read::<Traded<'_>>(body)?.into_iter().filter_map(listed).collect())
    }
}

/// What the next page is older than.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// A time in milliseconds: no id is known yet.
    Time(i64),
    /// A trade's id.
    Id(u64),
}

#[derive(Debug)]
struct OkxPages {
    /// The URL without its cursor.
    trades: String,
    symbols: Subscribed,
    reading: Reading,
    next: Option<Next>,
}

impl Pages for OkxPages {
    fn next(&self) -> Option<String> {
        let trades = &self.trades;
        Some(match self.next? {
            Next::Time(time) => format!("{trades}&type=2&after={time}"),
            Next::Id(id) => format!("{trades}&type=1&after={id}"),
        })
    }

    fn take(
        &mut self,
        body: &str,
        received_at: Timestamp,
        ticks: &mut Vec<Tick>,
    ) -> Result<(), HistoryError> {
        let Some(next) = self.next else { return Ok(()) };
        let page = read::<Trade<'_>>(body)?
            .into_iter()
            .map(|trade| trade.into_tick(&self.symbols, received_at))
            .map(|tick| tick.map(|tick| Tick { source: Source::Backfill, ..tick }))
            .collect::<Result<Vec<_>, _>>()?;
        let is_newer = |tick: &&Tick| match next {
            Next::Time(time) => tick.exchange_at.as_millis() >= time,
            Next::Id(id) => tick.trade_id.number().is_none_or(|own| own >= id),
        };
        if let Some(newer) = page.iter().find(is_newer) {
            return Err(HistoryError::Elsewhere(newer.trade_id.to_string()));
        }
        let oldest = ids_of(&page).map(IdRange::first);
        let passed = page.iter().any(|tick| self.reading.is_before(tick));
        self.reading.keep(page, ticks);
        self.next = oldest.filter(|_| !passed).map(Next::Id);
        Ok(())
    }

    fn reach(&self) -> Option<Reach> {
        self.reading.reach()
    }
}

/// Reads the data of an answer, or its refusal.
fn read<'a, T: Deserialize<'a>>(body: &'a str) -> Result<Vec<T>, HistoryError> {
    let answer: Answer<'_> = serde_json::from_str(body)?;
    match &*answer.code {
        "0" => Ok(serde_json::from_str(answer.data.map_or("null", RawValue::get))?),
        TOO_MANY => Err(HistoryError::TooMany),
        code => {
            let words = answer.msg.as_deref().unwrap_or_default();
            Err(HistoryError::refused(&format!("{code} {words}")))
        }
    }
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    code: Text<'a>,
    #[serde(borrow)]
    msg: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Start, open, high, low, close, volume, volume in quote twice, and whether the minute is over.
#[derive(Deserialize)]
struct Row<'a>(
    #[serde(borrow)] Text<'a>,
    IgnoredAny,
    IgnoredAny,
    IgnoredAny,
    IgnoredAny,
    #[serde(borrow)] Text<'a>,
    IgnoredAny,
    IgnoredAny,
    IgnoredAny,
);

#[derive(Deserialize)]
struct Clock<'a> {
    #[serde(borrow)]
    ts: Text<'a>,
}

#[derive(Deserialize)]
struct Traded<'a> {
    #[serde(borrow, rename = "instId")]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    state: Text<'a>,
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{self, REST, span, take};
    use super::*;
    use domain::{Side, TradeId};

    const TRADES: &str = r#"{"code":"0","msg":"","data":[{"instId":"BTC-USDT","side":"sell","sz":"0.00013669","px":"102537.9","source":"0","tradeId":"734864333","ts":"1747087163557"},{"instId":"BTC-USDT","side":"buy","sz":"0.0000125","px":"102537.9","tradeId":"734864332","ts":"1747087161666"}]}"#;
    const CANDLES: &str = r#"{"code":"0","msg":"","data":[["1597026420000","3.721","3.743","3.677","3.708","8422410","22698348.04828491","12698348.04828491","1"],["1597026360000","3.731","3.799","3.494","3.72","24912403","67632347.24399722","37632347.24399722","1"]]}"#;

    fn write(trades: &[(u64, i64)]) -> String {
        let trade = |(id, at): &(u64, i64)| {
            format!(
                r#"{{"instId":"BTC-USDT","side":"buy","sz":"2","px":"1.5","tradeId":"{id}","ts":"{at}"}}"#
            )
        };
        let trades: Vec<String> = trades.iter().map(trade).collect();
        format!(r#"{{"code":"0","msg":"","data":[{}]}}"#, trades.join(","))
    }

    fn url(rest: &str) -> Option<String> {
        let url = "/api/v5/market/history-trades?instId=BTC-USDT&limit=100";
        Some(format!("{REST}{url}&{rest}"))
    }

    #[test]
    fn a_trade_is_read_as_in_a_frame() {
        let ids = Some((734_864_332, 734_864_333));
        let mut pages = Okx.pages(REST, span(&Okx, "BTCUSDT", ids, 0, 1));
        let ticks = take(&mut *pages, TRADES).unwrap();
        assert_eq!(
            ticks[0],
            Tick {
                instrument: testing::instrument(&Okx, "BTCUSDT"),
                trade_id: TradeId::Number(734_864_333),
                price: testing::decimal("102537.9"),
                quantity: testing::decimal("0.00013669"),
                side: Side::Sell,
                source: Source::Backfill,
                exchange_at: Timestamp::from_millis(1_747_087_163_557).unwrap(),
                received_at: testing::received_at(),
            }
        );
        assert_eq!((ticks.len(), ticks[1].side), (2, Side::Buy));
    }

    #[test]
    fn a_span_of_ids_is_read_from_its_end_until_it_is_passed() {
        let mut pages = Okx.pages(REST, span(&Okx, "BTCUSDT", Some((70, 90)), 0, 1));
        assert_eq!(pages.next(), url("type=1&after=111"));
        let kept = take(&mut *pages, &write(&[(110, 9), (90, 8), (70, 7)])).unwrap();
        assert_eq!(testing::ids(&kept), [90, 70]);
        assert_eq!(pages.next(), url("type=1&after=70"), "the neighbour is still to come");
        assert_eq!(take(&mut *pages, &write(&[(68, 6)])).unwrap(), []);
        assert_eq!(
            (pages.next(), pages.reach().unwrap().ids),
            (None, Some(IdRange::between(68, 110)))
        );
    }

    #[test]
    fn a_span_of_time_begins_by_time_and_goes_on_by_id() {
        let mut pages = Okx.pages(REST, span(&Okx, "BTCUSDT", None, 5_000, 9_999));
        assert_eq!(pages.next(), url("type=2&after=10"));
        assert_eq!(take(&mut *pages, &write(&[(90, 9), (89, 5)])).unwrap().len(), 2);
        assert_eq!(pages.next(), url("type=1&after=89"));
        assert_eq!(take(&mut *pages, &write(&[(88, 4)])).unwrap(), []);
        assert_eq!(pages.next(), None);
    }

    #[test]
    fn an_answer_to_another_question_is_refused() {
        let answer = |body: &str| {
            let mut pages = Okx.pages(REST, span(&Okx, "BTCUSDT", Some((70, 90)), 0, 1));
            take(&mut *pages, body).unwrap_err()
        };
        assert!(matches!(answer(&write(&[(111, 9)])), HistoryError::Elsewhere(id) if id == "111"));
        assert!(matches!(
            answer(&write(&[(80, 9)]).replace("BTC-USDT", "ETH-USDT")),
            HistoryError::Unreadable(DecodeError::UnknownSymbol(_))
        ));
        let refused = r#"{"code":"51001","msg":"Instrument ID doesn't exist","data":[]}"#;
        assert!(
            matches!(answer(refused), HistoryError::Refused(words) if words == "51001 Instrument ID doesn't exist")
        );
        let busy = r#"{"code":"50011","msg":"Too Many Requests"}"#;
        assert!(matches!(answer(busy), HistoryError::TooMany));
    }

    #[test]
    fn candles_and_the_clock_are_read() {
        let candles = Okx.decode_candles(CANDLES).unwrap();
        let volumes: Vec<String> = candles.iter().map(|one| one.volume.to_string()).collect();
        assert_eq!(volumes, ["24912403", "8422410"], "oldest first");
        assert_eq!(candles[0].minute.as_millis(), 1_597_026_360_000);
        let clock = r#"{"code":"0","msg":"","data":[{"ts":"1597026383085"}]}"#;
        assert_eq!(Okx.decode_clock(clock).unwrap().as_millis(), 1_597_026_383_085);
    }

    #[test]
    fn a_symbol_is_traded_or_not_or_unknown() {
        let body = |state: &str| {
            format!(r#"{{"code":"0","msg":"","data":[{{"instId":"BTC-USDT","state":"{state}"}}]}}"#)
        };
        assert!(Okx.decode_symbol(&body("live")).unwrap());
        assert!(!Okx.decode_symbol(&body("suspend")).unwrap());
        assert!(!Okx.decode_symbol(r#"{"code":"0","msg":"","data":[]}"#).unwrap());
        let unknown =
            Okx.decode_symbol(r#"{"code":"51001","msg":"Instrument ID doesn't exist.","data":[]}"#);
        assert!(matches!(unknown, Err(HistoryError::Refused(_))));
    }

    #[test]
    fn prop_a_number_is_exact_or_refused() {
        testing::prop_a_number_of_the_past_is_exact_or_refused(&Okx, write, (CANDLES, "8422410"));
    }

    #[test]
    fn prop_no_answer_leads_in_a_circle() {
        testing::prop_no_answer_leads_in_a_circle(&Okx, &[TRADES, CANDLES], write);
    }
}
