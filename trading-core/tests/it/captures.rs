//! The decoders on frames that others recorded from the real exchanges, against what independent parsers made
//! of the same frames.
//!
//! The recordings are other people's data and not part of this repository. They are looked for in
//! `TRADING_CORE_CAPTURES`, then beside the repository in `shared/captures`; without them these tests say that
//! they are skipped, except in CI, where they fail.

use std::fs;
use std::path::{Path, PathBuf};

use rust_decimal::Decimal;
use serde_json::Value;
use trading_core::domain::{
    IdRange, Instrument, Side, Symbol, Tick, TimeRange, Timestamp, parse_decimal,
};
use trading_core::exchange::history::{HistoryError, Pages, Span};
use trading_core::exchange::{
    Binance, Bitstamp, Bybit, Coinbase, DecodeError, Exchange, Kraken, Message, Okx, Subscribed,
    all,
};

/// The folder of one venue's captures.
fn captures(venue: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures");
    let root = std::env::var_os("TRADING_CORE_CAPTURES").map_or(beside, PathBuf::from);
    let folder = root.join(venue);
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "no captures in {}", folder.display());
    eprintln!("SKIPPED: no captures in {}; set TRADING_CORE_CAPTURES", folder.display());
    None
}

fn lines(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{error}: {file:?}"));
    text.lines().map(str::to_owned).collect()
}

/// What an independent parser made of a file: for each line that it was given, its own structure.
fn expected(folder: &Path, name: &str) -> Vec<(usize, Value)> {
    let file = folder.join(format!("{name}-expected.json"));
    let all: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let lines = all["expected"].as_array().unwrap().iter();
    lines.map(|line| (index(&line["line"]), line.clone())).collect()
}

/// Lines are counted from one.
fn index(line: &Value) -> usize {
    usize::try_from(line.as_u64().unwrap()).unwrap() - 1
}

/// Every instrument that a frame spells as the venue does.
fn subscribed(exchange: &dyn Exchange, frame: &str) -> Subscribed {
    let mut names = Vec::new();
    if let Ok(value) = serde_json::from_str(frame) {
        collect_texts(&value, &mut names);
    }
    // Bitstamp has no other name of a pair than its channel's.
    let words = names.iter().flat_map(|name| [name.as_str(), name.rsplit('_').next().unwrap()]);
    let spelled = words.filter_map(|name| {
        let symbol: Symbol = name.parse().ok()?;
        (exchange.venue_symbol(&symbol) == name)
            .then(|| Instrument::intern(exchange.name(), &symbol).unwrap())
    });
    Subscribed::new(exchange, spelled)
}

fn collect_texts(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(all) => all.iter().for_each(|one| collect_texts(one, texts)),
        Value::Object(all) => all.values().for_each(|one| collect_texts(one, texts)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether a number stands in a frame digit for digit, or as an old frame of Bitstamp's has it: `1E-8`.
fn is_written(number: Decimal, frame: &str) -> bool {
    let is_it = |text: &str| text.contains('E') && parse_decimal(text).is_ok_and(|it| it == number);
    frame.contains(&number.to_string()) || frame.split('"').any(is_it)
}

/// Reads one frame, and holds every tick against the text that it came from.
fn decode(exchange: &dyn Exchange, frame: &str) -> (Result<Message, DecodeError>, Vec<Tick>) {
    let received_at = Timestamp::from_millis(0).unwrap();
    let mut ticks = Vec::new();
    let answer = exchange.decode(frame, &subscribed(exchange, frame), received_at, &mut ticks);
    for tick in &ticks {
        let spelled = exchange.venue_symbol(tick.instrument.symbol());
        assert!(frame.contains(&spelled), "{tick:?} is not in {frame}");
        for number in [tick.price, tick.quantity] {
            assert!(is_written(number, frame), "{tick:?} is not in {frame}");
        }
        assert!(frame.contains(&tick.trade_id.to_string()), "{tick:?} is not in {frame}");
    }
    (answer, ticks)
}

/// Whether a tick is the trade that another parser saw. Its numbers went through a double; ours did not.
fn is_trade(exchange: &dyn Exchange, tick: &Tick, trade: &Value) -> bool {
    let number = |name: &str| parse_decimal(&trade[name].to_string()).unwrap();
    let spelled = exchange.venue_symbol(tick.instrument.symbol());
    trade["symbol"].as_str().is_some_and(|symbol| symbol.eq_ignore_ascii_case(&spelled))
        && trade["id"] == tick.trade_id.to_string().as_str()
        && trade["side"] == tick.side.as_str()
        && number("price") == tick.price
        && number("amount") == tick.quantity
        && Timestamp::from_rfc3339(trade["timestamp"].as_str().unwrap()).unwrap()
            == tick.exchange_at
}

/// Compares each line that we read trades from with the trades of another parser; answers how many trades.
fn compare_trades(exchange: &dyn Exchange, folder: &Path, name: &str) -> usize {
    let frames = lines(&folder.join(format!("{name}.jsonl")));
    let mut compared = 0;
    for (line, theirs) in expected(folder, name) {
        let (answer, ticks) = decode(exchange, &frames[line]);
        let theirs: Vec<&Value> = theirs["mapped"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["type"] == "trade")
            .collect();
        // That parser leaves out snapshots.
        if theirs.is_empty() || ticks.is_empty() {
            continue;
        }
        assert_eq!(answer.unwrap(), Message::Trades);
        assert_eq!(ticks.len(), theirs.len(), "{}", frames[line]);
        for (tick, trade) in ticks.iter().zip(theirs) {
            assert!(is_trade(exchange, tick, trade), "{tick:?} is not {trade}");
        }
        compared += ticks.len();
    }
    compared
}

/// Compares one trade a line with the values that another parser's tests assert; answers how many trades.
/// `today` turns a frame of an older protocol version into one of today where only a name changed.
fn compare_values(
    exchange: &dyn Exchange,
    folder: &Path,
    name: &str,
    today: fn(&str) -> String,
) -> usize {
    let frames = lines(&folder.join(format!("{name}.jsonl")));
    let mut compared = 0;
    for (line, theirs) in expected(folder, name) {
        let (_answer, ticks) = decode(exchange, &today(&frames[line]));
        let [tick] = &ticks[..] else { continue };
        let asserted = &theirs["asserted"];
        assert_eq!(asserted["timestamp_ms"], tick.exchange_at.as_millis(), "{}", frames[line]);
        for (name, ours) in [("price", tick.price), ("quantity_base", tick.quantity)] {
            if let Some(text) = asserted[name].as_str() {
                assert_eq!(parse_decimal(text).unwrap(), ours, "{}", frames[line]);
            }
        }
        compared += 1;
    }
    compared
}

/// Reads every capture of a venue, old versions of its protocol and other products included: none may make a
/// decoder panic or tell a trade that is not in the frame. Answers frames and ticks.
fn read_all(exchange: &dyn Exchange, folder: &Path) -> (usize, usize) {
    let mut read = (0, 0);
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "jsonl") {
            for frame in lines(&file) {
                let (_answer, ticks) = decode(exchange, &frame);
                read = (read.0 + 1, read.1 + ticks.len());
            }
        }
    }
    read
}

#[test]
fn binance_reads_a_recorded_session_without_a_hole() {
    let Some(folder) = captures("binance") else { return };
    let frames = lines(&folder.join("hftbacktest-spot-btcusdt_20240808-trade.jsonl"));
    assert_eq!(frames.len(), 9_757);
    let mut last = None;
    for frame in &frames {
        let (answer, ticks) = decode(&Binance, frame);
        assert_eq!(answer.unwrap(), Message::Trades);
        let [tick] = &ticks[..] else { panic!("{} ticks in {frame}", ticks.len()) };
        let told: Value = serde_json::from_str(frame).unwrap();
        let told = &told["data"];
        assert_eq!(told["p"], tick.price.to_string().as_str());
        assert_eq!(told["q"], tick.quantity.to_string().as_str());
        assert_eq!(told["T"], tick.exchange_at.as_millis());
        assert_eq!(told["m"], tick.side == Side::Sell);
        let id = tick.trade_id.number().unwrap();
        assert!(last.is_none_or(|last| last + 1 == id), "{id} does not follow {last:?}");
        last = Some(id);
    }
}

#[test]
fn binance_agrees_with_other_parsers() {
    let Some(folder) = captures("binance") else { return };
    assert_eq!(compare_trades(&Binance, &folder, "tardis-binance"), 2);
    let (frames, ticks) = read_all(&Binance, &folder);
    assert!(frames > 9_757 && ticks > 9_757, "{frames} frames, {ticks} ticks");
}

#[test]
fn bitstamp_agrees_with_other_parsers() {
    let Some(folder) = captures("bitstamp") else { return };
    assert_eq!(compare_trades(&Bitstamp, &folder, "tardis-bitstamp"), 2);
    let as_it_is = str::to_owned;
    let name = "crypto-msg-parser-bitstamp";
    assert_eq!(compare_values(&Bitstamp, &folder, name, as_it_is), 1);
    // The fourth is of another client's; trades of 2017 have no `price_str`.
    assert_eq!(read_all(&Bitstamp, &folder).1, 4);
}

#[test]
fn bybit_agrees_with_other_parsers() {
    let Some(folder) = captures("bybit") else { return };
    assert_eq!(compare_trades(&Bybit, &folder, "tardis-bybit-spot"), 5);
    // Derivatives speak the same: ids are UUIDs there.
    assert_eq!(compare_trades(&Bybit, &folder, "tardis-bybit"), 4);
    assert!(read_all(&Bybit, &folder).1 > 7);
}

#[test]
fn coinbase_agrees_with_other_parsers() {
    let Some(folder) = captures("coinbase") else { return };
    assert_eq!(compare_trades(&Coinbase, &folder, "tardis-coinbase"), 1);
    let as_it_is = str::to_owned;
    let name = "crypto-msg-parser-coinbase_pro";
    assert_eq!(compare_values(&Coinbase, &folder, name, as_it_is), 1);
    assert!(read_all(&Coinbase, &folder).1 > 1);
}

#[test]
fn kraken_agrees_with_other_parsers() {
    let Some(folder) = captures("kraken-v2") else { return };
    assert_eq!(compare_trades(&Kraken, &folder, "tardis-kraken-v2"), 1);
    assert!(read_all(&Kraken, &folder).1 > 2);
}

#[test]
fn okx_agrees_with_other_parsers() {
    let Some(folder) = captures("okx") else { return };
    assert_eq!(compare_trades(&Okx, &folder, "tardis-okex"), 1);
    // Recorded before `trades` joined fills, when it was what `trades-all` is today.
    let today = |frame: &str| frame.replace(r#""channel":"trades""#, r#""channel":"trades-all""#);
    assert_eq!(compare_values(&Okx, &folder, "crypto-msg-parser-okx", today), 1);
    assert!(read_all(&Okx, &folder).1 > 0);
}

/// Pages over all of a symbol's past, as if the answer in the capture were to come next.
fn all_of(exchange: &dyn Exchange, symbol: &str, ids: Option<IdRange>) -> Box<dyn Pages> {
    let instrument = Instrument::intern(exchange.name(), &symbol.parse().unwrap()).unwrap();
    let at = |text| Timestamp::from_rfc3339(text).unwrap();
    let times = TimeRange::new(at("2020-01-01T00:00:00Z"), at("2030-01-01T00:00:00Z"));
    exchange.history().pages("http://venue", Span { instrument, ids, times })
}

/// The trades of one answer; their digits are in it.
fn read_page(pages: &mut dyn Pages, body: &str) -> Result<Vec<Tick>, HistoryError> {
    let mut ticks = Vec::new();
    pages.take(body, Timestamp::from_millis(0).unwrap(), &mut ticks)?;
    for tick in &ticks {
        let told = [tick.price.to_string(), tick.quantity.to_string(), tick.trade_id.to_string()];
        assert!(told.iter().all(|text| body.contains(text)), "{tick:?} is not in the answer");
    }
    Ok(ticks)
}

#[test]
fn kraken_reads_a_recorded_page_of_a_thousand_trades() {
    let Some(folder) = captures("kraken-v2") else { return };
    let body = &lines(&folder.join("nautilus-rest.jsonl"))[1];
    let mut pages = all_of(&Kraken, "BTCUSDT", None);
    let ticks = read_page(&mut *pages, body).unwrap();
    let told: Value = serde_json::from_str(body).unwrap();
    let rows = told["result"]["XBTUSDT"].as_array().unwrap();
    assert_eq!((ticks.len(), rows.len()), (1_000, 1_000));
    for ((tick, row), id) in ticks.iter().zip(rows).zip(10_218_208..) {
        assert_eq!(tick.trade_id.number(), Some(id));
        assert_eq!(
            (&row[0], &row[1]),
            (&tick.price.to_string().into(), &tick.quantity.to_string().into())
        );
        assert_eq!(row[3] == "b", tick.side == Side::Buy);
        // To the millisecond, whatever the digits below it.
        let digits = row[2].to_string().replace('.', "");
        assert!(
            tick.exchange_at.as_micros().to_string().starts_with(digits.get(..13).unwrap()),
            "{row}"
        );
    }
    assert!(ticks.is_sorted_by_key(|tick| tick.exchange_at));
    // The cursor holds all nanoseconds of the last trade: its microsecond is what we read from the double.
    let last: i64 = told["result"]["last"].as_str().unwrap().parse().unwrap();
    assert_eq!(ticks[999].exchange_at.as_micros(), last / 1_000);
    assert!(pages.next().unwrap().ends_with(&format!("&since={}", last - 1)));
}

#[test]
fn okx_reads_a_recorded_page() {
    let Some(folder) = captures("okx") else { return };
    let body = &lines(&folder.join("nautilus-rest.jsonl"))[0];
    let mut pages = all_of(&Okx, "BTCUSDT", None);
    let ticks = read_page(&mut *pages, body).unwrap();
    let told: Vec<_> = ticks.iter().map(|tick| (tick.trade_id.number(), tick.side)).collect();
    assert_eq!(told, [(Some(734_864_333), Side::Sell), (Some(734_864_332), Side::Buy)]);
    assert_eq!(ticks[0].exchange_at.as_millis(), 1_747_087_163_557);
}

#[test]
fn bitstamp_reads_a_recorded_list_of_pairs() {
    let Some(folder) = captures("bitstamp") else { return };
    let body = &lines(&folder.join("cryptofeed-BITSTAMP-rest.jsonl"))[0];
    let listed = Bitstamp.history().decode_listing(body).unwrap();
    let told: Value = serde_json::from_str(body).unwrap();
    assert_eq!(listed.len(), told.as_array().unwrap().len());
    for (pair, told) in listed.iter().zip(told.as_array().unwrap()) {
        assert_eq!(pair.spelling, told["url_symbol"].as_str().unwrap());
        assert_eq!(pair.is_traded, Some(told["trading"] == "Enabled"));
        let symbol: Symbol = told["name"].as_str().unwrap().parse().unwrap();
        assert_eq!(Bitstamp.venue_symbol(&symbol), pair.spelling);
    }
}

#[test]
fn bybit_reads_a_recorded_page() {
    let Some(folder) = captures("bybit") else { return };
    // Of a derivative, whose answers look the same: its ids are UUIDs.
    let body = &lines(&folder.join("nautilus-rest.jsonl"))[0];
    let mut pages = all_of(&Bybit, "BTCUSDT", None);
    let ticks = read_page(&mut *pages, body).unwrap();
    assert_eq!(ticks[0].trade_id.to_string(), "a905d5c3-1ed0-4f37-83e4-9c73a2fe2f01");
    assert_eq!((ticks.len(), ticks[0].exchange_at.as_millis()), (1, 1_709_891_679_000));
    assert_eq!(pages.reach().unwrap().ids, None);
}

#[test]
fn every_recorded_answer_of_anything_is_taken_or_refused() {
    let mut read = 0;
    for exchange in all() {
        let folder = match exchange.name() {
            "binance" => "binance-us",
            "kraken" => "kraken-v2",
            same => same,
        };
        let Some(folder) = captures(folder) else { return };
        for entry in fs::read_dir(folder).unwrap() {
            let file = entry.unwrap().path();
            let name = file.file_name().unwrap().to_string_lossy();
            if !name.contains("rest")
                || file.extension().is_none_or(|extension| extension != "jsonl")
            {
                continue;
            }
            for body in lines(&file) {
                for ids in [None, IdRange::new(1, u64::MAX - 1)] {
                    let mut pages = all_of(exchange, "BTCUSDT", ids);
                    let before = pages.next();
                    if read_page(&mut *pages, &body).is_err() {
                        assert_eq!(pages.next(), before);
                    }
                }
                drop(exchange.history().decode_candles(&body));
                drop(exchange.history().decode_clock(&body));
                read += 1;
            }
        }
    }
    assert!(read > 10, "{read} answers");
}
