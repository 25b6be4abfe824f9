//! The decoders on frames that others recorded from the real exchanges, against what independent parsers made
//! of the same frames.
//!
//! The recordings are other people's data and not part of this repository. They are looked for in
//! `TRADING_CORE_CAPTURES`, then beside the repository in `shared/captures`; without them these tests say that
//! they are skipped, except in CI, where they fail.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use trading_core::domain::{Instrument, Side, Symbol, Tick, Timestamp, parse_decimal};
use trading_core::exchange::{
    Binance, Bybit, Coinbase, DecodeError, Exchange, Kraken, Message, Okx, Subscribed,
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
    let spelled = names.iter().filter_map(|name| {
        let symbol: Symbol = name.parse().ok()?;
        (exchange.venue_symbol(&symbol) == *name)
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

/// Reads one frame, and holds every tick against the text that it came from.
fn decode(exchange: &dyn Exchange, frame: &str) -> (Result<Message, DecodeError>, Vec<Tick>) {
    let received_at = Timestamp::from_millis(0).unwrap();
    let mut ticks = Vec::new();
    let answer = exchange.decode(frame, &subscribed(exchange, frame), received_at, &mut ticks);
    for tick in &ticks {
        let spelled = exchange.venue_symbol(tick.instrument.symbol());
        let told = [&tick.price.to_string(), &tick.quantity.to_string(), &spelled];
        assert!(told.iter().all(|text| frame.contains(*text)), "{tick:?} is not in {frame}");
        assert!(frame.contains(&tick.trade_id.to_string()), "{tick:?} is not in {frame}");
    }
    (answer, ticks)
}

/// Whether a tick is the trade that another parser saw. Its numbers went through a double; ours did not.
fn is_trade(exchange: &dyn Exchange, tick: &Tick, trade: &Value) -> bool {
    let number = |name: &str| parse_decimal(&trade[name].to_string()).unwrap();
    trade["symbol"] == exchange.venue_symbol(tick.instrument.symbol()).as_str()
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
