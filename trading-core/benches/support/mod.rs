//! What the benchmarks share.

pub(crate) mod server;

use trading_core::domain::{Instrument, Side, Source, Tick, Timestamp, TradeId};

/// Ticks of ten Binance symbols, all of today.
pub(crate) fn ticks(number: u64) -> Vec<Tick> {
    let symbols = ["BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "AVAX", "LINK", "DOT", "LTC"];
    let instruments = symbols.map(|base| {
        Instrument::intern("binance", &format!("{base}-USDT").parse().unwrap()).unwrap()
    });
    let day = Timestamp::now().day() * 86_400_000_000;
    (0..number)
        .map(|n| {
            let index = usize::try_from(n % 10).unwrap();
            let at = Timestamp::from_micros(day + i64::try_from(n).unwrap() * 1_000).unwrap();
            Tick {
                instrument: instruments[index],
                trade_id: TradeId::Number(3_735_683_259 + n / 10),
                price: rust_decimal::Decimal::new(
                    6_183_763_000_000 + i64::try_from(n % 9_973).unwrap() * 1_000_000,
                    8,
                ),
                quantity: rust_decimal::Decimal::new(13_000 + i64::try_from(n % 997).unwrap(), 8),
                side: if n % 3 == 0 { Side::Sell } else { Side::Buy },
                source: Source::Live,
                exchange_at: at,
                received_at: at,
            }
        })
        .collect()
}

/// Says whether an aim of the contract is reached.
pub(crate) fn verdict(name: &str, ratio: f64, aim: f64) {
    let word = if ratio >= aim { "reached" } else { "MISSED" };
    println!("{name:<40} ratio {ratio:.2}  aim {aim:.2}  {word}");
}
