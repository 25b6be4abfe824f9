use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn market(rate: Decimal, bursts: Option<Bursts>) -> Market {
    Market::new(&MarketOptions {
        seed: 42,
        rate,
        bursts,
        symbols: vec!["FOO-USDT".parse().unwrap()],
        ..MarketOptions::default()
    })
    .unwrap()
}

/// A symbol of some venue, and the id of one of its trades.
fn any_listing() -> impl Strategy<Value = (Arc<Listing>, u64)> {
    let rates = prop_oneof![Just(1_u32), Just(10), Just(3_333), Just(500_000), Just(10_000_000)];
    let bursts = prop_oneof![
        Just(None),
        (2_u64..5_000, 1_u64..5_000, 0_u64..5).prop_map(|(every, trades, ms)| Some(Bursts {
            every,
            trades: 1 + trades % (every - 1),
            within: Duration::from_millis(ms),
        })),
    ];
    (rates, bursts, 0..600_usize, 0..2_000_000_000_u64).prop_map(|(rate, bursts, which, n)| {
        let market = market(rate.into(), bursts);
        let all: Vec<_> = market.listings.values().cloned().collect();
        let listing = Arc::clone(&all[which % all.len()]);
        let id = listing.first_id() + n;
        let id = listing.last_issued(listing.order(id).unwrap().first, id);
        (listing, id)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn prop_time_never_goes_back_and_is_inverted((listing, id) in any_listing()) {
        let at = listing.at(id).unwrap();
        prop_assert!(at <= listing.at(id + 1).unwrap());
        let (latest, due) = (listing.latest(at).unwrap(), listing.due(at).unwrap());
        prop_assert!(id <= latest && latest <= due);
        prop_assert_eq!(listing.at(latest).unwrap(), at);
        prop_assert!(listing.at(due + 1).unwrap() > at);
        prop_assert_eq!(listing.at(listing.first_since(at)).unwrap(), at);
        prop_assert!(listing.first_since(at) <= id);
    }

    #[test]
    fn prop_price_and_quantity_are_positive_and_on_their_steps((listing, id) in any_listing()) {
        let trade = listing.trade(id).unwrap();
        prop_assert!(trade.price > Decimal::ZERO && trade.quantity > Decimal::ZERO);
        prop_assert!((trade.price % listing.tick_size()).is_zero());
        prop_assert!((trade.quantity % listing.lot_size()).is_zero());
        prop_assert_eq!(trade.at, listing.at(id).unwrap());
    }

    #[test]
    fn prop_orders_follow_each_other_and_share_price_side_and_time((listing, id) in any_listing()) {
        let order = listing.order(id).unwrap();
        prop_assert!((order.first..=order.last).contains(&id));
        prop_assert_eq!(listing.order_numbered(order.number).unwrap(), order);
        let next = listing.order(order.last + 1).unwrap();
        prop_assert_eq!((next.first, next.number), (order.last + 1, order.number + 1));
        let last = listing.last_issued(order.first, order.last);
        let (first, last) = (listing.trade(order.first).unwrap(), listing.trade(last).unwrap());
        prop_assert_eq!((first.price, first.side, first.at), (last.price, last.side, last.at));
    }
}

#[test]
fn a_trade_is_a_function_of_the_options_and_its_place() {
    let symbol: Symbol = "BTCUSDT".parse().unwrap();
    let (slow, fast) = (market(Decimal::ONE, None), market(Decimal::ONE_HUNDRED, None));
    let id = slow.listing(Venue::BINANCE, "BTCUSDT").unwrap().first_id() + 123_456_789;
    let (one, other) =
        (slow.trade("binance", &symbol, id).unwrap(), fast.trade("binance", &symbol, id).unwrap());
    // The rate decides the time, and so the price, which is that of the time.
    assert_eq!((one.quantity, one.side), (other.quantity, other.side));
    assert_eq!(market(Decimal::ONE, None).trade("binance", &symbol, id), Some(one));
    let seeded = Market::new(&MarketOptions { seed: 43, ..MarketOptions::default() }).unwrap();
    assert_ne!(
        seeded.trade("binance", &symbol, id).map(|trade| trade.quantity),
        Some(one.quantity)
    );
}

#[test]
fn the_truth_is_the_same_on_every_machine_and_in_every_release_of_a_market_version() {
    // Where this changes, raise it.
    assert_eq!(MARKET_VERSION, 2);
    let market = market(Decimal::TEN, None);
    let lines: Vec<String> = [
        ("binance", "BTCUSDT"),
        ("bitstamp", "ETHEUR"),
        ("bybit", "ETHUSDC"),
        ("coinbase", "SOLUSD"),
        ("kraken", "BTCUSD"),
        ("okx", "FOOUSDT"),
    ]
    .into_iter()
    .map(|(exchange, symbol)| {
        let listing = market.listing(exchange.parse().unwrap(), symbol).unwrap();
        let trade = listing.trade(listing.first_id() + 1_000_000).unwrap();
        format!(
            "{} {} {} {} {}",
            trade.id,
            trade.price,
            trade.quantity,
            trade.side.as_str(),
            trade.at
        )
    })
    .collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    517961669 118382.86000000 0.01587000 buy 2020-01-02T03:46:40.163000Z
    525582267 3655.11 0.14398480 sell 2020-01-02T03:46:40.108000Z
    3004000000051000000 4049.63 0.29339 sell 2020-01-02T03:46:40.082000Z
    69657206 175.00 7.359613 sell 2020-01-02T03:46:40.078161Z
    6996268 118394.8 0.00003121 sell 2020-01-02T03:46:40.076661Z
    114728214 1.20539 1631 sell 2020-01-02T03:46:40.150000Z
    ");
}

#[test]
fn the_rate_is_kept_over_a_day_and_bursts_come_together() {
    let bursts = Bursts { every: 1_000, trades: 200, within: Duration::from_millis(2) };
    let market = market(Decimal::ONE_HUNDRED, Some(bursts));
    let listing = market.listing(Venue::KRAKEN, "ETHUSD").unwrap();
    let noon = Timestamp::from_rfc3339("2026-01-01T12:00:00Z").unwrap();
    let later = Timestamp::from_rfc3339("2026-01-02T12:00:00Z").unwrap();
    let traded = listing.latest(later).unwrap() - listing.latest(noon).unwrap();
    assert!(traded.abs_diff(8_640_000) <= 1_000, "{traded}");
    let burst = listing.first_id() + 5_800;
    let lasted =
        listing.at(burst + 199).unwrap().as_micros() - listing.at(burst + 16).unwrap().as_micros();
    assert!((1_500..=2_000).contains(&lasted), "{lasted}");
}

#[test]
fn prices_look_like_the_venues_own() {
    let market = market(Decimal::TEN, None);
    let shape = |venue: Venue, symbol: &str| {
        let listing = market.listing(venue, symbol).unwrap();
        let trade = listing.trade(listing.first_id() + 77).unwrap();
        (trade.price.scale(), trade.quantity.scale())
    };
    assert_eq!(shape(Venue::BINANCE, "BTCUSDT"), (8, 8));
    assert_eq!(shape(Venue::BINANCE, "SHIBUSDT"), (8, 8));
    assert_eq!(shape(Venue::COINBASE, "BTCUSD").0, 2);
    assert_eq!(shape(Venue::KRAKEN, "BTCUSD"), (1, 8));
    assert_eq!(shape(Venue::BITSTAMP, "BTCUSD"), (2, 8));
    assert!(shape(Venue::OKX, "BTCUSDT").0 <= 1);
    let bitcoin = market.listing(Venue::COINBASE, "BTCUSD").unwrap();
    let price = bitcoin.trade(bitcoin.first_id() + 5).unwrap().price;
    assert!((Decimal::from(60_000)..Decimal::from(130_000)).contains(&price), "{price}");
}

#[test]
fn what_cannot_be_is_refused() {
    let with = |rate, bursts| {
        Market::new(&MarketOptions { rate, bursts, ..MarketOptions::default() }).map(|_| ())
    };
    assert_eq!(with(Decimal::ZERO, None), Err(MarketError::Rate(Decimal::ZERO)));
    let closed =
        |closures| Market::new(&MarketOptions { closures, ..MarketOptions::default() }).map(|_| ());
    let at = |text: &str| Timestamp::from_rfc3339(text).unwrap();
    let (from, to) = (at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"));
    assert_eq!(closed(vec![Closure { from: to, to: from }]), Err(MarketError::Closures));
    assert_eq!(closed(vec![Closure { from, to }; 2]), Err(MarketError::Closures));
    let to = to.plus_micros(1);
    assert_eq!(closed(vec![Closure { from, to }]), Err(MarketError::Closures));
    let bursts = Bursts { every: 10, trades: 10, within: Duration::ZERO };
    assert_eq!(
        with(Decimal::ONE, Some(bursts)),
        Err(MarketError::Bursts { trades: 10, every: 10 })
    );
    assert!(market(Decimal::ONE, None).trade("nowhere", &"BTCUSDT".parse().unwrap(), 1).is_none());
}

#[test]
fn some_ids_are_never_issued_and_the_others_are_what_they_were() {
    let share = Decimal::new(5, 2);
    let holes = MarketOptions { seed: 42, unissued: share, ..MarketOptions::default() };
    let (holes, whole) = (Market::new(&holes).unwrap(), market(Decimal::TEN, None));
    for venue in Venue::ALL.iter().copied() {
        let symbol = &format!("BTC{}", venue.facts().quotes[0]);
        let (listing, same) =
            (holes.listing(venue, symbol).unwrap(), whole.listing(venue, symbol).unwrap());
        let ids = listing.first_id()..listing.first_id() + 100_000;
        let missing = ids.clone().filter(|id| !listing.is_issued(*id)).count();
        // Of 100,000: a twentieth, or what the venue gives to other pairs.
        let expected = 5_000.max(venue.facts().other_ids as usize / 10);
        assert!(missing.abs_diff(expected) < 500, "{venue:?}: {missing}");
        for id in ids.take(2_000) {
            let trade = same.trade(id).filter(|_| listing.is_issued(id));
            assert_eq!(listing.trade(id), trade);
            assert!(listing.is_issued(listing.order(id).unwrap().first));
            let latest = listing.latest(listing.at(id).unwrap()).unwrap();
            assert!(listing.is_issued(latest));
        }
        assert!(!listing.is_issued(listing.first_id() - 1), "before the first there is nothing");
    }
    let symbol = "BTCUSDT".parse().unwrap();
    let first = holes.listing(Venue::OKX, "BTCUSDT").unwrap().first_id();
    assert!(holes.is_issued("okx", &symbol, first) && !holes.is_issued("nowhere", &symbol, first));
    for share in [Decimal::new(101, 3), Decimal::NEGATIVE_ONE] {
        let refused = Market::new(&MarketOptions { unissued: share, ..MarketOptions::default() });
        assert_eq!(refused.map(|_| ()), Err(MarketError::Unissued(share)));
    }
}

#[test]
fn a_candle_is_what_its_trades_come_to() {
    let market =
        Market::new(&MarketOptions { unissued: Decimal::new(1, 1), ..MarketOptions::default() });
    let market = market.unwrap();
    let listing = market.listing(Venue::COINBASE, "ETHUSD").unwrap();
    let now = Timestamp::from_rfc3339("2026-09-02T07:44:10.104422Z").unwrap();
    for time in [now, now.plus_micros(-60_000_000)] {
        let ids = listing.first_id()..=listing.latest(now).unwrap();
        let trades: Vec<Trade> = ids
            .rev()
            .filter_map(|id| listing.trade(id))
            .skip_while(|trade| trade.at.minute() > time.minute())
            .take_while(|trade| trade.at.minute() == time.minute())
            .collect();
        let prices = || trades.iter().map(|trade| trade.price);
        let candle = Candle {
            minute: time.minute(),
            open: trades.last().unwrap().price,
            high: prices().max().unwrap(),
            low: prices().min().unwrap(),
            close: trades[0].price,
            volume: trades.iter().map(|trade| trade.quantity).sum(),
            value: trades.iter().map(|trade| trade.price * trade.quantity).sum(),
            trades: trades.len() as u64,
        };
        assert_eq!(listing.candle(time, now), Some(candle));
    }
}

#[test]
fn a_candle_without_trades_has_the_last_price_before_it() {
    let market = market(Decimal::new(1, 3), None);
    let listing = market.listing(Venue::BINANCE, "BTCUSDT").unwrap();
    let (id, now) =
        (listing.first_id() + 500, Timestamp::from_rfc3339("2026-01-01T00:00:00Z").unwrap());
    let trade = listing.trade(id).unwrap();
    let candle = listing.candle(trade.at.plus_micros(60_000_000), now).unwrap();
    assert_eq!((candle.trades, candle.volume), (0, Decimal::ZERO));
    assert_eq!([candle.open, candle.high, candle.low, candle.close], [trade.price; 4]);
    let before = Timestamp::from_rfc3339("2019-12-31T23:59:00Z").unwrap();
    assert_eq!(listing.candle(before, now), None);
}

/// One pair of names for each well-known base and venue, all against a dollar of some kind.
fn dollar_pairs(base: &str) -> [(Venue, String); 8] {
    [
        (Venue::BINANCE, format!("{base}USDT")),
        (Venue::BINANCE, format!("{base}USDC")),
        (Venue::COINBASE, format!("{base}USD")),
        (Venue::COINBASE, format!("{base}USDT")),
        (Venue::KRAKEN, format!("{base}USD")),
        (Venue::OKX, format!("{base}USDT")),
        (Venue::BYBIT, format!("{base}USDT")),
        (Venue::BYBIT, format!("{base}USDC")),
    ]
}

/// The last trade of a symbol at a time.
fn last_trade(market: &Market, venue: Venue, symbol: &str, at: Timestamp) -> (Trade, Decimal) {
    let listing = market.listing(venue, symbol).unwrap();
    (listing.trade(listing.latest(at).unwrap()).unwrap(), listing.tick_size())
}

/// Basis points of one price.
fn basis_points(price: Decimal, number: i64) -> Decimal {
    price * Decimal::new(number, 4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn prop_venues_agree_on_a_price_within_what_arbitrage_allows(
        seed: u64, base in 0..24_usize, seconds in 0..600_000_000_i64,
    ) {
        let market = Market::new(&MarketOptions { seed, ..MarketOptions::default() }).unwrap();
        let base = well_known_bases().nth(base).unwrap();
        let at = Timestamp::from_rfc3339("2020-06-01T00:00:00Z").unwrap();
        let at = at.plus_micros(seconds * 1_000_000);
        let trades = dollar_pairs(base).map(|(venue, symbol)| last_trade(&market, venue, &symbol, at));
        for (one, one_step) in &trades {
            for (other, other_step) in &trades {
                prop_assert!((one.at.as_micros() - other.at.as_micros()).abs() <= 1_000_000);
                let allowed = basis_points(one.price, 18) + (*one_step).max(*other_step) * Decimal::TWO;
                let apart = (one.price - other.price).abs();
                prop_assert!(apart <= allowed, "{base} {} {}", one.price, other.price);
            }
        }
    }

    #[test]
    fn prop_a_price_moves_on_and_never_jumps(seed: u64, seconds in 0..600_000_000_i64) {
        let market = Market::new(&MarketOptions { seed, ..MarketOptions::default() }).unwrap();
        let at = Timestamp::from_rfc3339("2020-06-01T00:00:00Z").unwrap();
        let at = at.plus_micros(seconds * 1_000_000);
        for (venue, symbol) in [(Venue::BINANCE, "SOLUSDT"), (Venue::KRAKEN, "BTCUSD")] {
            let (before, step) = last_trade(&market, venue, symbol, at);
            let (after, _) = last_trade(&market, venue, symbol, at.plus_micros(1_000_000));
            let allowed = basis_points(before.price, 10) + step * Decimal::TWO;
            prop_assert!((after.price - before.price).abs() <= allowed, "{before:?} {after:?}");
        }
    }

    #[test]
    fn prop_a_cross_is_worth_what_its_two_sides_are(seed: u64, seconds in 0..600_000_000_i64) {
        let market = Market::new(&MarketOptions { seed, ..MarketOptions::default() }).unwrap();
        let at = Timestamp::from_rfc3339("2020-06-01T00:00:00Z").unwrap();
        let at = at.plus_micros(seconds * 1_000_000);
        for venue in [Venue::BINANCE, Venue::OKX, Venue::BYBIT] {
            let price = |symbol: &str| last_trade(&market, venue, symbol, at);
            for (base, cross) in [("ETH", "ETHBTC"), ("SOL", "SOLBTC"), ("SHIB", "SHIBBTC")] {
                let (direct, step) = price(cross);
                let (dollars, dollar_step) = price(&format!("{base}USDT"));
                let bitcoin = price("BTCUSDT").0.price;
                let implied = dollars.price / bitcoin;
                let allowed = basis_points(implied, 25) + step * Decimal::TWO
                    + dollar_step * Decimal::TWO / bitcoin;
                prop_assert!((direct.price - implied).abs() <= allowed, "{venue:?} {cross} {} {implied}", direct.price);
            }
        }
    }

    #[test]
    fn prop_a_closure_moves_what_comes_after_it_and_changes_nothing_else(
        rate in prop_oneof![Just(1_u32), Just(10), Just(3_333)],
        closed_ms in 1..100_000_000_i64,
        again_ms in 1..100_000_000_i64,
        open_ms in 0..10_000_i64,
        near in 0..40_u64,
    ) {
        let whole = market(rate.into(), None);
        let first = Timestamp::from_rfc3339("2026-03-01T12:00:00Z").unwrap();
        let reopened = first.plus_micros(closed_ms * 1_000);
        let second = reopened.plus_micros(open_ms * 1_000);
        let closures = vec![
            Closure { from: first, to: reopened },
            Closure { from: second, to: second.plus_micros(again_ms * 1_000) },
        ];
        let options = MarketOptions {
            seed: 42,
            rate: rate.into(),
            symbols: vec!["FOO-USDT".parse().unwrap()],
            closures,
            ..MarketOptions::default()
        };
        let closed = Market::new(&options).unwrap();
        for (venue, symbol) in [(Venue::BINANCE, "BTCUSDT"), (Venue::KRAKEN, "ETHUSD")] {
            let (whole, closed) =
                (whole.listing(venue, symbol).unwrap(), closed.listing(venue, symbol).unwrap());
            let last = whole.due(first).unwrap();
            prop_assert_eq!(closed.due(first), Some(last));
            prop_assert_eq!(closed.due(reopened), Some(last));
            for id in (last - 20 + near)..(last + 20 + near) {
                let (was, is) = (whole.trade(id).unwrap(), closed.trade(id).unwrap());
                let moved = is.at.as_micros() - was.at.as_micros();
                let by = if was.at <= first { 0 } else if was.at.as_micros() - first.as_micros() <= open_ms * 1_000 {
                    closed_ms * 1_000
                } else {
                    (closed_ms + again_ms) * 1_000
                };
                prop_assert_eq!(moved, by);
                prop_assert_eq!(Trade { at: was.at, ..is }, was);
                prop_assert_eq!(closed.at(closed.due(is.at).unwrap()), Some(is.at));
                prop_assert!(closed.due(is.at).unwrap() >= id);
                prop_assert!(closed.at(closed.first_since(is.at)).unwrap() == is.at);
            }
        }
    }
}

#[test]
fn a_first_hour_has_candles_to_look_at() {
    let market = market(Decimal::TEN, None);
    let listing = market.listing(Venue::COINBASE, "BTCUSD").unwrap();
    let noon = Timestamp::from_rfc3339("2026-11-28T12:00:00Z").unwrap();
    let now = noon.plus_micros(3_600_000_000);
    let candles: Vec<Candle> = listing.candles(noon, now.plus_micros(-1), now).collect();
    assert_eq!(candles.len(), 60);
    let high = candles.iter().map(|candle| candle.high).max().unwrap();
    let low = candles.iter().map(|candle| candle.low).min().unwrap();
    let ranges = candles.iter().map(|candle| candle.high - candle.low).sum::<Decimal>();
    // Some tenths of a percent in the hour, some basis points in a minute.
    let moved = high / low - Decimal::ONE;
    assert!((Decimal::new(2, 3)..Decimal::new(3, 2)).contains(&moved), "{moved}");
    let minute = ranges / Decimal::from(60) / low;
    assert!((Decimal::new(3, 4)..Decimal::new(3, 3)).contains(&minute), "{minute}");
}
