//! Coinbase Exchange over REST: history by id, newest first, a thousand trades at a time.
//!
//! A cursor is a trade's id, and `after` it means older than it. Where only a time is known, the trade to begin
//! with is found by halving the ids. `side` is the maker's, as in the feed.
//!
//! Protocol: <https://docs.cdp.coinbase.com/exchange/reference/exchangerestapi_getproducttrades>, September 2026.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::super::Exchange;
use super::super::frame::{Text, amount, side};
use super::super::history::{
    BESIDE, Candle, Depth, History, HistoryError, HistoryRules, Listed, Pages, Reach, Reading,
    Span, encoded, ids_of,
};
use super::Coinbase;
use domain::{Instrument, Source, Tick, Timestamp, TradeId};

/// Trades in one answer at most.
const PAGE: u64 = 1_000;
/// Minutes of candles in one answer at most.
const CANDLES: u64 = 300;

impl History for Coinbase {
    fn rules(&self) -> HistoryRules {
        HistoryRules {
            // Said to be 10 a second from one address; ours: somewhat less.
            requests: NonZeroU32::MIN.saturating_add(7),
            per: Duration::from_secs(1),
            depth: Depth::Whole,
            // Both in microseconds.
            times_apart: None,
        }
    }

    fn pages(&self, base: &str, span: Span) -> Box<dyn Pages> {
        let next = match span.ids {
            Some(ids) => Next::Page { after: ids.last().saturating_add(BESIDE + 1) },
            None => Next::Newest,
        };
        let product = encoded(&self.venue_symbol(span.instrument.symbol()));
        Box::new(CoinbasePages {
            trades: format!("{base}/products/{product}/trades"),
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
        let product = encoded(&self.venue_symbol(instrument.symbol()));
        let from = from.minute();
        let to = to.min(from + Duration::from_mins(CANDLES - 1));
        format!("{base}/products/{product}/candles?granularity=60&start={from}&end={to}")
    }

    fn decode_candles(&self, body: &str) -> Result<Vec<Candle>, HistoryError> {
        let candle = |row: &Row<'_>| {
            Ok(Candle {
                minute: Timestamp::from_millis(row.0.saturating_mul(1_000))?,
                volume: amount("volume", row.5.get())?,
                trades: None,
            })
        };
        read::<Vec<Row<'_>>>(body)?.iter().rev().map(candle).collect()
    }

    fn clock_url(&self, base: &str) -> String {
        format!("{base}/time")
    }

    fn decode_clock(&self, body: &str) -> Result<Timestamp, HistoryError> {
        let clock: Clock<'_> = read(body)?;
        Ok(Timestamp::from_rfc3339(&clock.iso)?)
    }

    fn symbol_url(&self, base: &str, venue_symbol: &str) -> String {
        format!("{base}/products/{}", encoded(venue_symbol))
    }

    fn decode_symbol(&self, body: &str) -> Result<bool, HistoryError> {
        let product: Product<'_> = read(body)?;
        Ok(product.is_traded())
    }

    fn listing_urls(&self, base: &str) -> Vec<String> {
        vec![format!("{base}/products")]
    }

    fn decode_listing(&self, body: &str) -> Result<Vec<Listed>, HistoryError> {
        let listed = |it: Product<'_>| {
            let is_traded = Some(it.is_traded());
            Some(Listed { spelling: it.id?.to_string(), is_traded })
        };
        Ok(read::<Vec<Product<'_>>>(body)?.into_iter().filter_map(listed).collect())
    }
}

/// What to ask for next.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// The newest trade: no id is known yet.
    Newest,
    /// The trade in the middle. What is up to `low` is not after the span, what is from `high` on is.
    Halve { low: u64, high: u64 },
    /// Trades older than this one.
    Page { after: u64 },
}

impl Next {
    /// Halves on, or begins to page once one page covers what is left.
    const fn between(low: u64, high: u64) -> Self {
        if high.saturating_sub(low) <= PAGE / 2 {
            Self::Page { after: high.saturating_add(1) }
        } else {
            Self::Halve { low, high }
        }
    }
}

const fn middle(low: u64, high: u64) -> u64 {
    low + high.saturating_sub(low) / 2
}

#[derive(Debug)]
struct CoinbasePages {
    /// Up to and with `/trades`.
    trades: String,
    reading: Reading,
    next: Option<Next>,
}

impl Pages for CoinbasePages {
    fn next(&self) -> Option<String> {
        let trades = &self.trades;
        Some(match self.next? {
            Next::Newest => format!("{trades}?limit=1"),
            Next::Halve { low, high } => {
                format!("{trades}?limit=1&after={}", middle(low, high).saturating_add(1))
            }
            Next::Page { after } => format!("{trades}?limit={PAGE}&after={after}"),
        })
    }

    fn take(
        &mut self,
        body: &str,
        received_at: Timestamp,
        ticks: &mut Vec<Tick>,
    ) -> Result<(), HistoryError> {
        let Some(next) = self.next else { return Ok(()) };
        let instrument = self.reading.span.instrument;
        let page = read::<Vec<Trade<'_>>>(body)?
            .into_iter()
            .map(|trade| trade.into_tick(instrument, received_at))
            .collect::<Result<Vec<_>, HistoryError>>()?;
        let ids = ids_of(&page);
        let is_after = page.iter().any(|tick| self.reading.is_after(tick));
        let is_older_than = |after: u64| match ids {
            Some(ids) if ids.last() >= after => {
                Err(HistoryError::Elsewhere(ids.last().to_string()))
            }
            _ => Ok(()),
        };
        self.next = match next {
            Next::Newest => ids.map(|ids| {
                if is_after {
                    Next::between(0, ids.last())
                } else {
                    Next::Page { after: ids.last().saturating_add(1) }
                }
            }),
            Next::Halve { low, high } => {
                let middle = middle(low, high);
                is_older_than(middle.saturating_add(1))?;
                Some(match ids {
                    Some(ids) if is_after => Next::between(low.min(ids.last()), ids.last()),
                    // There is none between the one that was found, if any, and the middle.
                    _ => Next::between(middle, high),
                })
            }
            Next::Page { after } => {
                is_older_than(after)?;
                let passed = page.iter().any(|tick| self.reading.is_before(tick));
                self.reading.keep(page, ticks);
                ids.filter(|_| !passed).map(|ids| Next::Page { after: ids.first() })
            }
        };
        Ok(())
    }

    fn reach(&self) -> Option<Reach> {
        self.reading.reach()
    }
}

/// Reads an answer, or the refusal that stands in its place.
fn read<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, HistoryError> {
    serde_json::from_str(body).map_err(|error| match serde_json::from_str::<Refusal<'_>>(body) {
        Ok(refusal) => HistoryError::refused(&refusal.message),
        Err(_) => error.into(),
    })
}

#[derive(Deserialize)]
struct Refusal<'a> {
    #[serde(borrow)]
    message: Text<'a>,
}

#[derive(Deserialize)]
struct Trade<'a> {
    trade_id: u64,
    #[serde(borrow)]
    side: Text<'a>,
    #[serde(borrow)]
    size: Text<'a>,
    #[serde(borrow)]
    price: Text<'a>,
    #[serde(borrow)]
    time: Text<'a>,
}

impl Trade<'_> {
    fn into_tick(
        self,
        instrument: Instrument,
        received_at: Timestamp,
    ) -> Result<Tick, HistoryError> {
        Ok(Tick {
            instrument,
            trade_id: TradeId::Number(self.trade_id),
            price: amount("price", &self.price)?,
            quantity: amount("size", &self.size)?,
            side: side(&self.side)?.opposite(),
            source: Source::Backfill,
            exchange_at: Timestamp::from_rfc3339(&self.time)?,
            received_at,
        })
    }
}

/// Start in seconds, low, high, open, close, volume: numbers, whose text is what counts.
#[derive(Deserialize)]
struct Row<'a>(i64, IgnoredAny, IgnoredAny, IgnoredAny, IgnoredAny, #[serde(borrow)] &'a RawValue);

#[derive(Deserialize)]
struct Clock<'a> {
    #[serde(borrow)]
    iso: Text<'a>,
}

#[derive(Deserialize)]
struct Product<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(default)]
    trading_disabled: bool,
}

impl Product<'_> {
    fn is_traded(&self) -> bool {
        &*self.status == "online" && !self.trading_disabled
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{self, REST, span, take};
    use super::*;
    use domain::{IdRange, Side};

    const TRADES: &str = r#"[{"trade_id":75,"side":"buy","size":"0.01000000","price":"100.10","time":"2026-09-02T07:44:10.104422Z"},{"trade_id":74,"side":"sell","size":"193.00000000","price":"100.00","time":"2026-09-02T07:44:09.974521Z"}]"#;
    const CANDLES: &str =
        r#"[[1415398800,0.32,4.2,0.35,4.2,12.30],[1415398740,0.32,4.2,0.35,4.2,1e-8]]"#;

    fn write(trades: &[(u64, i64)]) -> String {
        let trade = |(id, at): &(u64, i64)| {
            let time = Timestamp::from_millis(*at).unwrap();
            format!(r#"{{"trade_id":{id},"side":"sell","size":"2","price":"1.5","time":"{time}"}}"#)
        };
        let trades: Vec<String> = trades.iter().map(trade).collect();
        format!("[{}]", trades.join(","))
    }

    fn url(rest: &str) -> Option<String> {
        Some(format!("{REST}/products/BTC-USD/trades?limit={rest}"))
    }

    #[test]
    fn a_trade_is_read_as_in_a_frame() {
        let mut pages = Coinbase.pages(REST, span(&Coinbase, "BTCUSD", Some((74, 75)), 0, 1));
        let ticks = take(&mut *pages, TRADES).unwrap();
        assert_eq!(
            ticks[1],
            Tick {
                instrument: testing::instrument(&Coinbase, "BTCUSD"),
                trade_id: TradeId::Number(74),
                price: testing::decimal("100.00"),
                quantity: testing::decimal("193.00000000"),
                // The maker sold, so the taker bought.
                side: Side::Buy,
                source: Source::Backfill,
                exchange_at: Timestamp::from_rfc3339("2026-09-02T07:44:09.974521Z").unwrap(),
                received_at: testing::received_at(),
            }
        );
        assert_eq!((ticks.len(), ticks[0].side), (2, Side::Sell));
    }

    #[test]
    fn a_span_of_ids_is_read_from_its_end_until_it_is_passed() {
        let mut pages = Coinbase.pages(REST, span(&Coinbase, "BTCUSD", Some((70, 90)), 0, 1));
        assert_eq!(pages.next(), url("1000&after=111"));
        let kept = take(&mut *pages, &write(&[(110, 9), (90, 8), (70, 7)])).unwrap();
        assert_eq!(testing::ids(&kept), [90, 70]);
        assert_eq!(pages.next(), url("1000&after=70"), "the neighbour is still to come");
        assert_eq!(take(&mut *pages, &write(&[(68, 6)])).unwrap(), []);
        assert_eq!(
            (pages.next(), pages.reach().unwrap().ids),
            (None, Some(IdRange::between(68, 110)))
        );
        let mut at_the_start = Coinbase.pages(REST, span(&Coinbase, "BTCUSD", Some((1, 2)), 0, 1));
        take(&mut *at_the_start, "[]").unwrap();
        assert_eq!((at_the_start.next(), at_the_start.reach()), (None, None));
    }

    #[test]
    fn a_span_of_time_is_found_by_halving() {
        // Trade n at n seconds; wanted is what lies in the 3,000 s up to the 5,000th.
        let mut pages =
            Coinbase.pages(REST, span(&Coinbase, "BTCUSD", None, 2_000_000_000, 5_000_000_000));
        assert_eq!(pages.next(), url("1"));
        let mut kept = Vec::new();
        let mut asked = 0;
        while let Some(next) = pages.next() {
            asked += 1;
            let newest = next
                .split_once("after=")
                .map_or(100_000, |(_, after)| after.parse::<u64>().unwrap() - 1);
            let limit = if next.contains("limit=1000") { 1_000 } else { 1 };
            let trades: Vec<_> =
                (1..=newest).rev().take(limit).map(|id| (id, 1_000 * id.cast_signed())).collect();
            kept.extend(take(&mut *pages, &write(&trades)).unwrap());
        }
        assert_eq!(testing::ids(&kept), (2_000..=5_000).rev().collect::<Vec<_>>());
        assert!(
            pages.reach().unwrap().ids.is_some_and(|ids| ids.first() < 2_000 && ids.last() > 5_000)
        );
        assert!(asked <= 1 + 8 + 4, "{asked} requests");
    }

    #[test]
    fn an_answer_to_another_question_is_refused() {
        let mut pages = Coinbase.pages(REST, span(&Coinbase, "BTCUSD", Some((70, 90)), 0, 1));
        let answer = take(&mut *pages, &write(&[(111, 9), (90, 8)]));
        assert!(matches!(answer, Err(HistoryError::Elsewhere(id)) if id == "111"));
        let answer = take(&mut *pages, r#"{"message":"NotFound"}"#);
        assert!(matches!(answer, Err(HistoryError::Refused(words)) if words == "NotFound"));
        assert!(matches!(take(&mut *pages, "{}"), Err(HistoryError::Unreadable(_))));
    }

    #[test]
    fn candles_and_the_clock_are_read() {
        let candles = Coinbase.decode_candles(CANDLES).unwrap();
        let volumes: Vec<String> = candles.iter().map(|one| one.volume.to_string()).collect();
        assert_eq!(volumes, ["0.00000001", "12.30"], "oldest first");
        assert_eq!(candles[1].minute.as_millis(), 1_415_398_800_000);
        let clock = r#"{"iso":"2026-09-02T07:44:10.104422Z","epoch":1788335050.104}"#;
        assert_eq!(Coinbase.decode_clock(clock).unwrap().as_micros(), 1_788_335_050_104_422);
    }

    #[test]
    fn a_symbol_is_traded_or_not_or_unknown() {
        let body = |status: &str, disabled| {
            format!(r#"{{"id":"BTC-USD","status":"{status}","trading_disabled":{disabled}}}"#)
        };
        assert!(Coinbase.decode_symbol(&body("online", false)).unwrap());
        assert!(!Coinbase.decode_symbol(&body("online", true)).unwrap());
        assert!(!Coinbase.decode_symbol(&body("delisted", false)).unwrap());
        let unknown = Coinbase.decode_symbol(r#"{"message":"NotFound"}"#);
        assert!(matches!(unknown, Err(HistoryError::Refused(_))));
    }

    #[test]
    fn prop_a_number_is_exact_or_refused() {
        testing::prop_a_number_of_the_past_is_exact_or_refused(
            &Coinbase,
            write,
            (CANDLES, "12.30"),
        );
    }

    #[test]
    fn prop_no_answer_leads_in_a_circle() {
        testing::prop_no_answer_leads_in_a_circle(&Coinbase, &[TRADES, CANDLES], write);
    }
}
