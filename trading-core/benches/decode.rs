//! How fast frames become ticks, and at what cost in memory.
//!
//! For each exchange: frames and ticks a second, allocations per tick once the list of ticks has its size, and
//! the ratio to a baseline of the same run, `serde_json::Value` from the same frames. Frames of a recorded
//! Binance session are used where they are found (`TRADING_CORE_CAPTURES`, else `shared/captures` beside the
//! repository); the others are made here, in the venue's shape.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::alloc::System;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use trading_core::domain::{Instrument, Tick, Timestamp};
use trading_core::exchange::{Exchange, Subscribed, all};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Enough frames that they do not all stay in the nearest cache, as in life.
const FRAMES: u64 = 10_000;

/// Trades in one frame, where a venue sends several: what a busy second holds.
const BATCH: u64 = 4;

const SYMBOLS: [&str; 5] = ["BTC-USDT", "ETH-USDT", "SOL-USDT", "XRP-USDT", "DOGE-USDT"];

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    // `cargo bench` says so; without it (`cargo test --all-targets`) one short round proves that it works.
    let least = match std::env::args().any(|arg| arg == "--bench") {
        true => Duration::from_secs(2),
        false => Duration::ZERO,
    };
    println!(
        "exchange  frames    bytes/frame  frames/s    ticks/s     allocations/tick  against Value"
    );
    for exchange in all() {
        let (origin, frames) = frames(exchange)?;
        let figures = measure(exchange, &frames, least)?;
        let bytes = frames.iter().map(String::len).sum::<usize>() / frames.len();
        println!(
            "{:<9} {origin:<9} {bytes:<12} {:<11} {:<11} {:<17} {}",
            exchange.name(),
            figures.frames_per_second,
            figures.ticks_per_second,
            figures.allocations_per_tick,
            figures.ratio,
        );
    }
    Ok(())
}

struct Figures {
    frames_per_second: String,
    ticks_per_second: String,
    allocations_per_tick: String,
    ratio: String,
}

fn measure(exchange: &dyn Exchange, frames: &[String], least: Duration) -> Result<Figures, Failed> {
    let instruments: Result<Vec<Instrument>, Failed> = SYMBOLS
        .iter()
        .map(|symbol| Ok(Instrument::intern(exchange.name(), &symbol.parse()?)?))
        .collect();
    let symbols = Subscribed::new(exchange, instruments?);
    let received_at = Timestamp::from_millis(1_790_000_000_000)?;
    let mut ticks: Vec<Tick> = Vec::new();
    let mut decode = || -> Result<usize, Failed> {
        let mut read = 0;
        for frame in frames {
            ticks.clear();
            exchange.decode(frame, &symbols, received_at, &mut ticks)?;
            read += black_box(&ticks).len();
        }
        Ok(read)
    };
    // The first pass gives the list of ticks its size, and proves that all frames are read.
    let read = decode()?;
    let region = Region::new(COUNTED);
    decode()?;
    let counted = region.change();
    let allocations = counted.allocations + counted.reallocations;

    let baseline = || -> Result<(), Failed> {
        for frame in frames {
            black_box(serde_json::from_str::<serde_json::Value>(frame)?);
        }
        Ok(())
    };
    let (ours, theirs) = race(least, || decode().map(drop), baseline)?;
    Ok(Figures {
        frames_per_second: per_second(frames.len(), ours),
        ticks_per_second: per_second(read, ours),
        allocations_per_tick: ratio(allocations.try_into()?, read.try_into()?),
        ratio: ratio(theirs.as_micros(), ours.as_micros()),
    })
}

/// The best time of each, taken in turns so that a busy machine slows both alike.
fn race(
    least: Duration,
    mut one: impl FnMut() -> Result<(), Failed>,
    mut other: impl FnMut() -> Result<(), Failed>,
) -> Result<(Duration, Duration), Failed> {
    let mut best = (timed(&mut one)?, timed(&mut other)?);
    let mut spent = best.0 + best.1;
    while spent < least {
        let round = (timed(&mut one)?, timed(&mut other)?);
        spent += round.0 + round.1;
        best = (best.0.min(round.0), best.1.min(round.1));
    }
    Ok(best)
}

#[expect(clippy::disallowed_methods, reason = "a bench measures the real clock")]
fn timed(work: &mut impl FnMut() -> Result<(), Failed>) -> Result<Duration, Failed> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn per_second(count: usize, time: Duration) -> String {
    let count = u128::try_from(count).unwrap_or_default();
    (count * 1_000_000_000 / time.as_nanos().max(1)).to_string()
}

/// Two decimals, without a float.
fn ratio(part: u128, of: u128) -> String {
    let hundredths = part * 100 / of.max(1);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

fn frames(exchange: &dyn Exchange) -> Result<(&'static str, Vec<String>), Failed> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures");
    let captures = std::env::var_os("TRADING_CORE_CAPTURES").map_or(beside, PathBuf::from);
    let session = captures.join("binance/hftbacktest-spot-btcusdt_20240808-trade.jsonl");
    if exchange.name() == "binance" && session.is_file() {
        let text = std::fs::read_to_string(session)?;
        return Ok(("recorded", text.lines().map(str::to_owned).collect()));
    }
    let symbols: Result<Vec<_>, _> = SYMBOLS.iter().map(|symbol| symbol.parse()).collect();
    let symbols = symbols?.iter().map(|symbol| exchange.venue_symbol(symbol)).collect::<Vec<_>>();
    let made = (0..FRAMES).zip(symbols.iter().cycle());
    let made = made.map(|(n, symbol)| made_frame(exchange.name(), symbol, n * BATCH));
    Ok(("made", made.collect::<Result<_, _>>()?))
}

/// A frame of trades whose first has the number `n`.
fn made_frame(exchange: &str, symbol: &str, n: u64) -> Result<String, Failed> {
    let batch = |element: &dyn Fn(u64) -> String| {
        (n..n + BATCH).map(element).collect::<Vec<String>>().join(",")
    };
    let (id, millis, whole, cents) =
        (900_000_000 + n, 1_790_000_000_000 + n, 64_000 + n % 977, n % 100);
    Ok(match exchange {
        "binance" => format!(
            r#"{{"stream":"{}@trade","data":{{"e":"trade","E":{millis},"s":"{symbol}","t":{id},"p":"{whole}.{cents:02}000000","q":"0.{cents:02}130000","T":{millis},"m":true,"M":true}}}}"#,
            symbol.to_lowercase()
        ),
        "coinbase" => format!(
            r#"{{"type":"match","trade_id":{id},"maker_order_id":"0b1c2d3e-0000-4000-8000-000000000000","taker_order_id":"0b1c2d3e-0000-4000-8000-000000000001","side":"buy","size":"0.{cents:02}130000","price":"{whole}.{cents:02}","product_id":"{symbol}","sequence":{id},"time":"2026-09-21T13:33:20.{:06}Z"}}"#,
            n % 1_000_000
        ),
        "kraken" => {
            let element = |n: u64| {
                format!(
                    r#"{{"symbol":"{symbol}","side":"sell","price":{whole}.{cents:02},"qty":0.{cents:02}130000,"ord_type":"limit","trade_id":{},"timestamp":"2026-09-21T13:33:20.{:06}Z"}}"#,
                    900_000_000 + n,
                    n % 1_000_000
                )
            };
            format!(r#"{{"channel":"trade","type":"update","data":[{}]}}"#, batch(&element))
        }
        "okx" => format!(
            r#"{{"arg":{{"channel":"trades-all","instId":"{symbol}"}},"data":[{{"instId":"{symbol}","tradeId":"{id}","px":"{whole}.{cents:02}","sz":"0.{cents:02}130000","side":"sell","source":"0","ts":"{millis}"}}]}}"#
        ),
        "bitstamp" => format!(
            r#"{{"data":{{"id":{id},"timestamp":"{}","amount":0.{cents:02}13,"amount_str":"0.{cents:02}130000","price":{whole}.{cents:02},"price_str":"{whole}.{cents:02}","type":1,"microtimestamp":"{millis}000","buy_order_id":2045952085757952,"sell_order_id":2045952156454912}},"channel":"live_trades_{symbol}","event":"trade"}}"#,
            millis / 1_000
        ),
        "bybit" => {
            let element = |n: u64| {
                format!(
                    r#"{{"i":"{}","T":{millis},"p":"{whole}.{cents:02}","v":"0.{cents:02}1300","S":"Buy","seq":{n},"s":"{symbol}","BT":false,"RPI":false}}"#,
                    2_290_000_000_900_000_000 + n
                )
            };
            format!(
                r#"{{"topic":"publicTrade.{symbol}","ts":{millis},"type":"snapshot","data":[{}]}}"#,
                batch(&element)
            )
        }
        other => return Err(format!("add a frame of {other} here").into()),
    })
}
