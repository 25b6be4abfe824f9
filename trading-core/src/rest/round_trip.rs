//! What the venues' histories tell, over HTTP, against the truth: each venue's pages on its simulated exchange.

use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::tests::{direct, unlimited};
use super::*;
use crate::domain::{
    IdRange, Instrument, RecorderClock, Source, Tick, TimeRange, Timestamp, TradeId,
};
use crate::exchange::history::{Depth, HistoryError, Reach, Span};
use crate::exchange::{self, Exchange};
use crate::simulator::{
    Clock, FaultsHandle, Listing, Market, RestLimit, RestLimits, Simulator, SimulatorOptions,
    Trade, Venue,
};

/// When it is, on every simulated exchange.
const NOW: &str = "2026-09-02T07:44:10.104422Z";
/// The venues whose whole past can be asked for.
fn paged() -> impl Iterator<Item = Venue> {
    let paged = exchange::all().filter(|exchange| exchange.history().rules().depth == Depth::Whole);
    paged.map(|exchange| exchange.name().parse().unwrap())
}

struct Exchanges {
    simulator: String,
    market: Market,
    faults: FaultsHandle,
    _serving: JoinSet<()>,
}

impl Exchanges {
    async fn serve(rate: u32, unissued: u32, rest_limits: RestLimits) -> Self {
        let now = Timestamp::from_rfc3339(NOW).unwrap();
        let options = SimulatorOptions {
            rate: rate.into(),
            unissued: Decimal::new(unissued.into(), 2),
            rest_limits,
            clock: Clock::new(move || now),
            ..SimulatorOptions::default()
        };
        let simulator = Simulator::bind(options).await.unwrap();
        let address = simulator.address();
        let (market, faults) = (simulator.market().clone(), simulator.faults());
        let mut serving = JoinSet::new();
        serving.spawn(async move { simulator.run(CancellationToken::new()).await.unwrap() });
        Self { simulator: format!("http://{address}"), market, faults, _serving: serving }
    }

    async fn without_limits(unissued: u32) -> Self {
        Self::serve(50, unissued, RestLimits::none()).await
    }

    fn at(&self, venue: Venue) -> At {
        let exchange = exchange::by_name(venue.name()).unwrap();
        let symbol = &format!("BTC{}", exchange.usual_quote());
        At {
            exchange,
            base: format!("{}/{}", self.simulator, venue.name()),
            listing: Arc::clone(self.market.listing(venue, symbol).unwrap()),
            instrument: Instrument::intern(venue.name(), &symbol.parse().unwrap()).unwrap(),
            client: RestClient::new(unlimited(), &direct(), Arc::default()).unwrap(),
        }
    }
}

/// One symbol at one venue.
struct At {
    exchange: &'static dyn Exchange,
    base: String,
    listing: Arc<Listing>,
    instrument: Instrument,
    client: RestClient,
}

impl At {
    fn newest(&self) -> u64 {
        self.listing.latest(Timestamp::from_rfc3339(NOW).unwrap()).unwrap()
    }

    /// The times of the trades on either side, or of the span's own ends where there is nothing.
    fn ids(&self, first: u64, last: u64) -> Span {
        let before = (self.listing.first_id()..first).rev().find_map(|id| self.listing.trade(id));
        let oldest = self.listing.at(self.listing.first_id()).unwrap();
        let from = before.map_or(oldest, |trade| trade.at);
        let to = (last + 1..).find_map(|id| self.listing.trade(id)).unwrap().at;
        Span {
            instrument: self.instrument,
            ids: IdRange::new(first, last),
            times: TimeRange::new(from, to),
        }
    }

    fn times(&self, from: Timestamp, to: Timestamp) -> Span {
        Span { instrument: self.instrument, ids: None, times: TimeRange::new(from, to) }
    }

    /// What the history tells of a span, oldest first, and how many requests it took.
    async fn read(&self, span: Span) -> (Vec<Tick>, Option<Reach>, usize) {
        let mut pages = self.exchange.history().pages(&self.base, span);
        let (mut ticks, mut requests) = (Vec::new(), 0);
        while self.client.page(&mut *pages, &RecorderClock::default(), &mut ticks).await.unwrap() {
            requests += 1;
            assert!(requests < 200, "{}: no end of {span:?}", self.base);
        }
        ticks.sort_by(|one, other| one.trade_id.cmp(&other.trade_id));
        (ticks, pages.reach(), requests)
    }

    fn assert_are(&self, ticks: &[Tick], truth: impl Iterator<Item = Trade>) {
        let truth: Vec<Tick> = truth
            .map(|trade| Tick {
                instrument: self.instrument,
                trade_id: TradeId::Number(trade.id),
                price: trade.price,
                quantity: trade.quantity,
                side: trade.side,
                source: Source::Backfill,
                exchange_at: trade.at,
                received_at: Timestamp::from_micros(0).unwrap(),
            })
            .collect();
        assert_eq!(ticks.len(), truth.len(), "{}", self.base);
        for (tick, truth) in ticks.iter().zip(truth) {
            let tick = Tick { received_at: truth.received_at, ..tick.clone() };
            assert_eq!(tick, truth);
            assert_eq!(tick.price.to_string(), truth.price.to_string(), "digit for digit");
            assert_eq!(tick.quantity.to_string(), truth.quantity.to_string());
        }
    }

    fn issued(&self, first: u64, last: u64) -> impl Iterator<Item = Trade> {
        (first..=last).filter_map(|id| self.listing.trade(id))
    }

    async fn assert_reads(&self, first: u64, last: u64) -> Reach {
        let (ticks, reach, _) = self.read(self.ids(first, last)).await;
        self.assert_are(&ticks, self.issued(first, last));
        reach.unwrap()
    }
}

#[tokio::test]
async fn a_span_of_ids_is_read_over_several_pages() {
    let exchanges = Exchanges::without_limits(0).await;
    for venue in paged() {
        let at = exchanges.at(venue);
        let (first, last) = (at.newest() - 90_000, at.newest() - 90_000 + 2_345);
        let reach = at.assert_reads(first, last).await;
        let (low, high) = reach.ids.map(|ids| (ids.first(), ids.last())).unwrap();
        assert!(low < first && high > last, "{venue:?}: {low}..{high} proves both ends");
        assert!(reach.times.from <= at.listing.at(first - 1).unwrap());
        let reach = at.assert_reads(first, first).await.ids.unwrap();
        assert!(reach.first() < first && reach.last() > first, "{venue:?}: one alone");
    }
}

#[tokio::test]
async fn ids_that_were_never_issued_are_seen_not_to_be_there() {
    let exchanges = Exchanges::without_limits(10).await;
    for venue in paged() {
        let at = exchanges.at(venue);
        let first = at.newest() - 50_000;
        at.assert_reads(first, first + 2_345).await;
        // A span of nothing else, with its ends beside it.
        let hole = (first..).find(|id| !at.listing.is_issued(*id)).unwrap();
        let last = (hole..).find(|id| at.listing.is_issued(*id)).unwrap() - 1;
        let read = at.assert_reads(hole, last).await.ids.unwrap();
        assert!(
            read.first() < hole && read.last() > last,
            "{venue:?}: {read} proves {hole}..{last}"
        );
    }
}

#[tokio::test]
async fn a_span_may_begin_before_there_was_anything() {
    let exchanges = Exchanges::without_limits(0).await;
    for venue in paged() {
        let at = exchanges.at(venue);
        let begin = at.listing.first_id();
        let reach = at.assert_reads(begin - 50, begin + 5).await;
        assert_eq!(
            reach.ids.unwrap().first(),
            begin,
            "{venue:?}: nothing is known of what was before"
        );
        let (ticks, _, _) = at.read(at.ids(begin - 50, begin - 40)).await;
        assert_eq!(ticks, [], "{venue:?}");
    }
}

#[tokio::test]
async fn a_span_may_end_after_the_newest_trade() {
    let exchanges = Exchanges::without_limits(0).await;
    for venue in paged() {
        let at = exchanges.at(venue);
        let newest = at.newest();
        let (ticks, reach, _) = at.read(at.ids(newest - 10, newest + 10)).await;
        at.assert_are(&ticks, at.issued(newest - 10, newest));
        assert_eq!(
            reach.unwrap().ids.unwrap().last(),
            newest,
            "{venue:?}: what comes is not known"
        );
        let (ticks, _, _) = at.read(at.ids(newest + 100, newest + 200)).await;
        assert_eq!(ticks, [], "{venue:?}: the future is empty");
    }
}

#[tokio::test]
async fn a_span_of_time_is_read_whole() {
    let exchanges = Exchanges::without_limits(3).await;
    for venue in paged() {
        let at = exchanges.at(venue);
        let now = Timestamp::from_rfc3339(NOW).unwrap();
        for (ago, lasting) in [(7_200, 47), (40, 100), (86_400 * 40, 3)] {
            let from = now.plus_micros(-ago * 1_000_000 + 77);
            let to = from.plus_micros(lasting * 1_000_000);
            let (ticks, reach, requests) = at.read(at.times(from, to)).await;
            let last = at.listing.latest(to.min(now)).unwrap();
            at.assert_are(&ticks, at.issued(at.listing.first_since(from), last));
            let read = reach.unwrap().times;
            assert!(read.from <= from, "{venue:?}");
            assert!(read.to >= ticks.last().unwrap().exchange_at);
            assert!(requests <= 60, "{venue:?} took {requests} requests");
        }
        // Before there was anything.
        let begin = at.listing.at(at.listing.first_id()).unwrap();
        let (ticks, _, _) =
            at.read(at.times(begin.plus_micros(-7_200_000_000), begin.plus_micros(-1))).await;
        assert_eq!(ticks, [], "{venue:?}");
        let until = begin.plus_micros(1_000_000);
        let (ticks, _, _) = at.read(at.times(begin.plus_micros(-1_000), until)).await;
        let last = at.listing.latest(until).unwrap();
        at.assert_are(&ticks, at.issued(at.listing.first_id(), last));
    }
}

#[tokio::test]
async fn bybit_tells_its_last_sixty_trades() {
    let exchanges = Exchanges::without_limits(3).await;
    let at = exchanges.at(Venue::BYBIT);
    let now = Timestamp::from_rfc3339(NOW).unwrap();
    let (ticks, reach, requests) = at.read(at.times(now.plus_micros(-60_000_000), now)).await;
    let newest: Vec<u64> =
        (0..=at.newest()).rev().filter(|id| at.listing.is_issued(*id)).take(60).collect();
    at.assert_are(&ticks, at.issued(newest[59], newest[0]));
    assert_eq!((reach.unwrap().ids, requests), (IdRange::new(newest[59], newest[0]), 1));
}

#[tokio::test]
async fn bitstamp_tells_its_last_hour_or_its_last_day_in_whole_seconds() {
    let exchanges = Exchanges::serve(1, 0, RestLimits::none()).await;
    let at = exchanges.at(Venue::BITSTAMP);
    let now = Timestamp::from_rfc3339(NOW).unwrap();
    for (ago, answers) in [(600, 1), (7_200, 2)] {
        let from = now - Duration::from_secs(ago) + Duration::from_micros(77);
        let to = from + Duration::from_secs(60);
        let (ticks, reach, requests) = at.read(at.times(from, to)).await;
        // Whatever may lie in the span by the second of its time.
        let (first, end) = (from.second(), to.second() + Duration::from_micros(999_999));
        let truth = at.issued(at.listing.first_since(first), at.listing.latest(end).unwrap());
        at.assert_are(&ticks, truth.map(|trade| Trade { at: trade.at.second(), ..trade }));
        assert!(reach.unwrap().times.from <= from, "{requests} answers reach back to the span");
        assert_eq!(requests, answers);
    }
    let (from, to) = (now - Duration::from_hours(40), now - Duration::from_hours(30));
    let (ticks, reach, _) = at.read(at.times(from, to)).await;
    assert!(ticks.is_empty() && reach.unwrap().times.from > to, "what is older is not known");
}

#[tokio::test]
async fn candles_clocks_and_symbols_are_as_the_market_has_them() {
    // Few trades a minute: there are two thousand minutes to add up.
    let exchanges = Exchanges::serve(3, 3, RestLimits::none()).await;
    let now = Timestamp::from_rfc3339(NOW).unwrap();
    for venue in Venue::ALL.iter().copied() {
        let at = exchanges.at(venue);
        let history = at.exchange.history();
        // More than any of them gives at once but one, up to the last whole minute.
        let to = now.minute().plus_micros(-1);
        let mut from = now.minute().plus_micros(-400 * 60_000_000);
        let mut minutes = 0;
        while from < to {
            let url = history.candles_url(&at.base, at.instrument, from, to);
            let candles = history.decode_candles(&at.client.get(&url).await.unwrap()).unwrap();
            assert!(candles.is_sorted_by_key(|candle| candle.minute), "{venue:?}");
            assert_eq!(candles[0].minute, from, "{venue:?}: the first ones");
            for candle in candles.iter().filter(|candle| candle.minute <= to) {
                let truth = at.listing.candle(candle.minute, now).unwrap();
                assert_eq!(candle.volume, truth.volume, "{venue:?}");
                assert!(candle.trades.is_none_or(|trades| trades == truth.trades), "{venue:?}");
                minutes += 1;
                from = candle.minute.plus_micros(60_000_000);
            }
        }
        assert_eq!(minutes, 400, "{venue:?}");

        let clock = at.client.get(&history.clock_url(&at.base)).await.unwrap();
        let ahead = now.as_micros() - history.decode_clock(&clock).unwrap().as_micros();
        assert!((0..1_000_000).contains(&ahead), "{venue:?}: {ahead}");

        let known = at.exchange.venue_symbol(at.instrument.symbol());
        let body = at.client.get(&history.symbol_url(&at.base, &known)).await.unwrap();
        assert!(body.contains("BTC") || body.contains("XBT"), "{venue:?}: {body}");
        let unknown = at.exchange.venue_symbol(&"NOPE-USD".parse().unwrap());
        let unknown = at.client.get(&history.symbol_url(&at.base, &unknown)).await;
        let is_refused = unknown.as_ref().map_or(true, |body| {
            ["Unknown", "51001", r#""list":[]"#].iter().any(|words| body.contains(words))
        });
        assert!(is_refused, "{venue:?}: {unknown:?}");
    }
}

#[tokio::test]
async fn who_asked_too_often_pauses_whatever_the_status() {
    let limit = RestLimit { burst: 1, per_second: 1 };
    let limits = RestLimits(Venue::ALL.iter().map(|venue| (*venue, limit)).collect());
    let exchanges = Exchanges::serve(50, 0, limits).await;
    for venue in Venue::ALL.iter().copied() {
        let at = exchanges.at(venue);
        let mut pages = at.exchange.history().pages(&at.base, at.ids(at.newest(), at.newest()));
        let asked = pages.next();
        let mut ticks = Vec::new();
        // What a Binance page weighs is more than the bucket holds; the others let one through.
        if venue != Venue::BINANCE {
            at.client.get(&at.exchange.history().clock_url(&at.base)).await.unwrap();
        }
        let refused =
            at.client.page(&mut *pages, &RecorderClock::default(), &mut ticks).await.unwrap_err();
        assert!(matches!(refused, RestError::Busy { .. }), "{venue:?}: {refused:?}");
        assert_eq!((ticks.len(), pages.next()), (0, asked), "it can be asked again");
    }
}

#[test]
fn our_own_pace_stays_below_each_venues_limit() {
    let limits = RestLimits::default();
    for exchange in exchange::all() {
        let rules = exchange.history().rules();
        let RestLimit { per_second, .. } = limits.0[&exchange.name().parse().unwrap()];
        // A page of Binance's weighs 25.
        let cost = if exchange.name() == "binance" { 25 } else { 1 };
        let (ours, theirs) =
            (u64::from(rules.requests.get()) * cost, per_second * rules.per.as_secs());
        assert!(ours <= theirs, "{}: {ours} of {theirs}", exchange.name());
    }
}

#[tokio::test]
async fn a_history_that_is_away_is_a_passing_failure() {
    let exchanges = Exchanges::without_limits(0).await;
    let at = exchanges.at(Venue::OKX);
    exchanges.faults.switch("rest=down".parse().unwrap());
    let mut pages = at.exchange.history().pages(&at.base, at.ids(at.newest(), at.newest()));
    let error =
        at.client.page(&mut *pages, &RecorderClock::default(), &mut Vec::new()).await.unwrap_err();
    assert!(error.is_passing(), "{error:?}");
}

#[tokio::test]
async fn a_symbol_that_is_not_listed_is_refused_for_good() {
    let exchanges = Exchanges::without_limits(0).await;
    let at = exchanges.at(Venue::OKX);
    let unlisted = Instrument::intern("okx", &"NOPE-USDT".parse().unwrap()).unwrap();
    let span = Span { instrument: unlisted, ..at.ids(at.newest(), at.newest()) };
    let mut pages = at.exchange.history().pages(&at.base, span);
    let refused =
        at.client.page(&mut *pages, &RecorderClock::default(), &mut Vec::new()).await.unwrap_err();
    assert!(matches!(refused, RestError::History(HistoryError::Refused(_))), "{refused:?}");
    assert!(!refused.is_passing());
}
