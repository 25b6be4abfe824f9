//! Names as the venues list them, all the way: subscribed, read in frames, asked for over REST, looked up.

use super::history::{History as _, Listed};
use super::testing::{REST, span};
use super::*;

const AT: i64 = 1_790_000_000_119;

fn symbol(text: &str) -> Symbol {
    text.parse().unwrap()
}

/// Reads a frame on a connection that is subscribed to these symbols.
fn read(exchange: &dyn Exchange, symbols: &[&str], frame: &str) -> (Message, Vec<Tick>) {
    let instrument = |text: &&str| Instrument::intern(exchange.name(), &symbol(text)).unwrap();
    let subscribed = Subscribed::new(exchange, symbols.iter().map(instrument));
    let mut ticks = Vec::new();
    let received_at = Timestamp::from_millis(AT + 35).unwrap();
    let message = exchange.decode(frame, &subscribed, received_at, &mut ticks).unwrap();
    (message, ticks)
}

#[test]
fn binance_is_asked_for_chinese_names_in_small_letters_and_told_of_them_in_capitals() {
    let spelling = Binance.venue_symbol(&symbol("币安人生USDT"));
    assert_eq!(spelling, "币安人生USDT");
    let asked = Binance.subscribe(&[&spelling, "1000SATSUSDT"]).concat();
    assert_eq!(
        asked,
        r#"{"id":1,"method":"SUBSCRIBE","params":["币安人生usdt@trade","1000satsusdt@trade"]}"#
    );
    for name in ["币安人生USDT", r"\u5e01\u5b89\u4eba\u751fUSDT"] {
        let frame = format!(
            r#"{{"stream":"币安人生usdt@trade","data":{{"e":"trade","E":{AT},"s":"{name}","t":7,"p":"0.5","q":"2","T":{AT},"m":true,"M":true}}}}"#
        );
        let (message, ticks) = read(&Binance, &["币安人生-USDT", "BTCUSDT"], &frame);
        assert_eq!((message, ticks.len()), (Message::Trades, 1), "{name}");
        assert_eq!(ticks[0].instrument.to_string(), "binance:币安人生USDT");
    }
}

#[test]
fn binance_is_asked_over_rest_with_percent_signs() {
    const ENCODED: &str = "%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT";
    let span = span(&Binance, "币安人生USDT", Some((100, 200)), 0, 1);
    let url = Binance.pages(REST, span).next().unwrap();
    assert!(url.contains(&format!("historicalTrades?symbol={ENCODED}&")), "{url}");
    let url = Binance.candles_url(REST, span.instrument, span.times.from, span.times.to);
    assert!(url.contains(&format!("klines?symbol={ENCODED}&interval")), "{url}");
    let url = Binance.symbol_url(REST, "币安人生USDT");
    assert_eq!(url, format!("{REST}/api/v3/exchangeInfo?symbol={ENCODED}"));
}

#[test]
fn kraken_is_asked_for_small_letters_and_dots_as_they_are() {
    for (text, spelling, joined, class) in [
        ("AAPLx/USD", "AAPLx/USD", "AAPLxUSD", "&asset_class=tokenized_asset"),
        ("BRK.Bx/USD", "BRK.Bx/USD", "BRK.BxUSD", "&asset_class=tokenized_asset"),
        ("ETH2.S/ETH", "ETH2.S/ETH", "ETH2.SETH", ""),
        ("XBT/USD", "BTC/USD", "XBTUSD", ""),
    ] {
        assert_eq!(Kraken.venue_symbol(&symbol(text)), spelling);
        let asked = Kraken.subscribe(&[spelling]).concat();
        assert!(asked.contains(&format!(r#""symbol":["{spelling}"]"#)), "{asked}");
        let frame = format!(
            r#"{{"channel":"trade","type":"update","data":[{{"symbol":"{spelling}","side":"buy","price":1.5,"qty":2.0,"ord_type":"limit","trade_id":7,"timestamp":"2026-09-21T13:33:20.000119Z"}}]}}"#
        );
        let (_, ticks) = read(&Kraken, &[text, "SOL/USD"], &frame);
        assert_eq!(*ticks[0].instrument.symbol(), symbol(text));
        let span = span(&Kraken, text, None, 0, 1);
        let url = Kraken.pages(REST, span).next().unwrap();
        assert!(url.contains(&format!("Trades?pair={joined}&count=1000{class}&since=")), "{url}");
        let url = Kraken.candles_url(REST, span.instrument, span.times.from, span.times.to);
        assert!(url.contains(&format!("OHLC?pair={joined}&interval=1{class}&since=")), "{url}");
    }
    let url = Kraken.symbol_url(REST, "AAPLx/USD");
    let asked = "AssetPairs?pair=AAPLx%2FUSD&aclass_base=tokenized_asset";
    assert_eq!(url, format!("{REST}/0/public/{asked}"));
    let url = Kraken.symbol_url(REST, "ETH2.S/ETH");
    assert_eq!(url, format!("{REST}/0/public/AssetPairs?pair=ETH2.S%2FETH"));
}

#[test]
fn a_refusal_names_a_symbol_with_a_dot_and_ends_its_sentence_with_one() {
    let frame = r#"{"error":"Currency pair not supported ETH2.S/ETH.","method":"subscribe","success":false,"time_in":"2026-09-21T13:33:20.000119Z","time_out":"2026-09-21T13:33:20.000150Z"}"#;
    let (message, _) = read(&Kraken, &["ETH2.S/ETH", "BTC/USD"], frame);
    let staked = Instrument::intern("kraken", &symbol("ETH2.S/ETH")).unwrap();
    assert!(matches!(message, Message::Refused { instrument: Some(it), .. } if it == staked));
}

#[test]
fn every_venue_is_asked_for_any_letters_and_nothing_of_a_name_is_a_part_of_a_url() {
    for exchange in all() {
        let span = span(exchange, "币.Ж-USDT", Some((100, 200)), 0, 1);
        let spelling = exchange.venue_symbol(span.instrument.symbol());
        let history = exchange.history();
        let mut urls = vec![
            history.candles_url(REST, span.instrument, span.times.from, span.times.to),
            history.symbol_url(REST, &spelling),
        ];
        urls.extend(history.pages(REST, span).next());
        for url in urls {
            assert!(url.is_ascii() && url.contains("%E5%B8%81.%D0%96"), "{url}");
            let read = url::Url::parse(&url).unwrap();
            assert_eq!(read.as_str(), url, "it is sent as it is written");
        }
        let (asked, spelled) = (exchange.subscribe(&[&spelling]).concat(), spelling.to_lowercase());
        assert!(asked.contains(&spelling) || asked.contains(&spelled), "{asked}");
    }
}

#[test]
fn the_longest_names_are_subscribed_within_the_limits_of_a_message() {
    let long = "币".repeat(20);
    let pair = format!("{long}-{long}");
    for (exchange, bytes) in [
        (&Binance as &dyn Exchange, 4_088),
        (&Bitstamp, 512),
        (&Bybit, 1_024),
        (&Coinbase, 1_024),
        (&Kraken, 4_096),
        (&Okx, 65_536),
    ] {
        let symbols = vec![exchange.venue_symbol(&symbol(&pair)); 400];
        let symbols: Vec<&str> = symbols.iter().map(String::as_str).collect();
        let mut asked = 0;
        for message in exchange.subscribe(&symbols) {
            assert!(message.len() <= bytes, "{exchange:?}: {} bytes", message.len());
            // Bybit names its request after the symbol too.
            asked +=
                message.matches(&long).count() / if exchange.name() == "bybit" { 4 } else { 2 };
        }
        assert_eq!(asked, 400, "{exchange:?}: each once");
        let off = exchange.unsubscribe(symbols.get(..30).unwrap_or_default());
        assert!(!off.is_empty());
    }
}

#[test]
fn what_a_venue_lists_is_read_in_its_own_spelling() {
    let listed = |exchange: &dyn Exchange, body: &str| {
        let mut names = exchange.history().decode_listing(body).unwrap();
        names.sort_by(|one, other| one.spelling.cmp(&other.spelling));
        names
    };
    let name = |spelling: &str, is_traded| Listed { spelling: spelling.to_owned(), is_traded };
    assert_eq!(
        listed(
            &Binance,
            r#"[{"symbol":"币安人生USDT","price":"0.1"},{"symbol":"BTCUSDT","price":"1"}]"#
        ),
        [name("BTCUSDT", None), name("币安人生USDT", None)]
    );
    assert_eq!(
        listed(
            &Bitstamp,
            r#"[{"trading":"Enabled","base_decimals":8,"url_symbol":"btcusd","name":"BTC/USD"},{"trading":"Disabled","url_symbol":"oldusd","name":"OLD/USD"}]"#
        ),
        [name("btcusd", Some(true)), name("oldusd", Some(false))]
    );
    assert_eq!(
        listed(
            &Bybit,
            r#"{"retCode":0,"retMsg":"OK","result":{"category":"spot","list":[{"symbol":"BTCUSDT","status":"Trading"},{"symbol":"OLDUSDT","status":"Closed"}]},"retExtInfo":{},"time":1}"#
        ),
        [name("BTCUSDT", Some(true)), name("OLDUSDT", Some(false))]
    );
    assert_eq!(
        listed(
            &Coinbase,
            r#"[{"id":"00-USD","status":"online","trading_disabled":false},{"id":"OLD-USD","status":"delisted"}]"#
        ),
        [name("00-USD", Some(true)), name("OLD-USD", Some(false))]
    );
    assert_eq!(
        listed(
            &Okx,
            r#"{"code":"0","msg":"","data":[{"instId":"BTC-USDT","state":"live"},{"instId":"NEW-USDT","state":"preopen"}]}"#
        ),
        [name("BTC-USDT", Some(true)), name("NEW-USDT", Some(false))]
    );
    assert_eq!(
        listed(
            &Kraken,
            r#"{"error":[],"result":{"AAPLxUSD":{"altname":"AAPLxUSD","wsname":"AAPLx/USD","status":"online"},"XXBTZUSD":{"altname":"XBTUSD","wsname":"XBT/USD","status":"online"},"XXDGXXBT":{"wsname":"XDG/XBT","status":"cancel_only"},"XBTUSD.d":{"status":"online"}}}"#
        ),
        [name("AAPLx/USD", Some(true)), name("BTC/USD", Some(true)), name("DOGE/BTC", Some(false))]
    );
    for exchange in all() {
        assert!(exchange.history().decode_listing("<html>").is_err(), "{exchange:?}");
        for url in exchange.history().listing_urls(REST) {
            assert!(url.starts_with(REST), "{url}");
        }
    }
}
