//! Writing: ticks committed per second through the channel, the batcher and the writers, against `psql` COPY BINARY of
//! the same rows into the same table with its index. Both in one run, in turns; the median of the ratios counts.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark prints what it measured and stops at the first surprise"
)]

mod support;

use std::time::Duration;

use sqlx::Executor as _;
use sqlx::postgres::{PgConnectOptions, PgPool};
use support::server::Server;
use tokio::time::Instant;
use trading_core::domain::{Side, Source, Tick, Timestamp, TradeId};
use trading_core::store::postgres::migrate::migrate;

const TICKS: u64 = 200_000;
const ROUNDS: usize = 3;

struct Case {
    name: &'static str,
    options: PgConnectOptions,
    max_coalesced: usize,
    aim: f64,
}

#[tokio::main]
async fn main() {
    let server = Server::start().await;
    let pool = PgPool::connect_with(server.socket()).await.unwrap();
    migrate(&pool).await.unwrap();
    let ticks = ticks(TICKS);
    let case = |name, options, max_coalesced, aim| Case { name, options, max_coalesced, aim };
    let cases = [
        case("socket, behind (10,000)", server.socket(), 10_000, 0.8),
        case("socket, batches of 500", server.socket(), 500, 0.6),
        case("tcp, behind (10,000)", server.tcp(), 10_000, 0.8),
        case("tcp, batches of 500", server.tcp(), 500, 0.6),
    ];

    // The same rows as a file, for psql.
    reset(&pool).await;
    write(&ticks, &cases[0]).await;
    let file = server.scratch("ticks.bin");
    server.psql(&format!("\\copy (SELECT * FROM tick_data) TO '{file}' (FORMAT binary)")).await;

    println!("write: {TICKS} ticks, {ROUNDS} rounds, median ratios against psql COPY BINARY");
    let mut ratios = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        reset(&pool).await;
        let start = Instant::now();
        server.psql(&format!("\\copy tick_data FROM '{file}' (FORMAT binary)")).await;
        let baseline = TICKS as f64 / start.elapsed().as_secs_f64();
        println!("  psql COPY BINARY          {baseline:>9.0} rows/s");
        for (case, ratios) in cases.iter().zip(&mut ratios) {
            reset(&pool).await;
            let rate = TICKS as f64 / write(&ticks, case).await.as_secs_f64();
            println!("  {:<25} {rate:>9.0} ticks/s  ratio {:.2}", case.name, rate / baseline);
            ratios.push(rate / baseline);
        }
    }
    for (case, mut ratios) in cases.iter().zip(ratios) {
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ROUNDS / 2];
        support::verdict(case.name, median, case.aim);
    }
    pool.close().await;
    server.stop().await;
}

async fn reset(pool: &PgPool) {
    pool.execute("TRUNCATE tick_data").await.unwrap();
    pool.execute("CHECKPOINT").await.unwrap();
}

async fn write(ticks: &[Tick], case: &Case) -> Duration {
    let (sender, ledger, pipeline) = support::pipeline(case.options.clone(), case.max_coalesced);
    let mut ticks: Vec<Vec<Tick>> = ticks.chunks(50).map(<[Tick]>::to_vec).collect();
    let start = Instant::now();
    let feed = async move {
        for chunk in &mut ticks {
            sender.send_all(chunk).await.unwrap();
        }
        drop(sender);
        ledger
    };
    let (ledger, ()) = futures_util::join!(feed, pipeline.run());
    let elapsed = start.elapsed();
    assert_eq!(ledger.read().stored, TICKS);
    elapsed
}

/// Ticks of ten Binance symbols, all of today.
fn ticks(number: u64) -> Vec<Tick> {
    let instruments = support::instruments();
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
