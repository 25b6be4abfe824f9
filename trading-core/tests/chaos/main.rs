//! Kills, cuts, fills and takes away whatever can be while real recorders record simulated exchanges into a real PostgreSQL,
//! then holds the database against the truth: every trade once, exact, or named as lost.
//!
//! ```text
//! cargo test --test chaos -- --minutes 30 --seed 7            (scripts/chaos)
//! cargo test --test chaos -- --seed 7 --round 12              that round alone, on a database of its own
//! ```
//!
//! A run is a row of rounds ([`plan`]), each a pure function of the seed and its number. At the end of each database it is
//! damaged on purpose: the checks must find it. What is found wrong is printed with the ends of the logs; then the folder
//! with all logs is kept.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "in a test a panic is the report, and what happens is told as it does"
)]

mod asked;
mod checks;
mod logs;
mod plan;
mod proxy;
mod recorder;
mod report;
mod round;
mod spool;
#[path = "../it/support/mod.rs"]
#[expect(dead_code, reason = "the other tests need the rest of it")]
mod support;
mod table;
mod world;

use std::path::Path;
use std::process::ExitCode;

use tokio::time::Instant;

use self::asked::Asked;
use self::plan::{Era, Plan};
use self::recorder::Keeper;
use self::report::Row;
use self::world::World;

fn main() -> ExitCode {
    let asked = match Asked::read(std::env::args()) {
        Ok(Some(asked)) => asked,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(64);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let passed = runtime.block_on(run(asked));
    println!(
        "\ntest result: {}. {} passed; {} failed; seed {}",
        if passed { "ok" } else { "FAILED" },
        u8::from(passed),
        u8::from(!passed),
        asked.seed
    );
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs rounds until one fails or the time is over.
async fn run(asked: Asked) -> bool {
    let seed = asked.seed;
    println!("chaos seed {seed}");
    let folder = tempfile::Builder::new().prefix(&format!("chaos-{seed}-")).tempdir().unwrap();
    let keeper = Keeper::start();
    let begun = Instant::now();
    let mut rows: Vec<Row> = Vec::new();
    let mut world: Option<World> = None;
    let mut number = asked.only.unwrap_or(1);
    let mut passed = true;
    loop {
        let current = match world.take() {
            Some(current) if current.era == Era::of(seed, number) => current,
            before => {
                if let Some(before) = before {
                    passed &= finish(before).await;
                }
                World::start(Era::of(seed, number)).await
            }
        };
        let row = play(world.insert(current), seed, number, &keeper, folder.path()).await;
        if !row.passed {
            passed = false;
            // What it left would be found again by the next.
            world = None;
        }
        rows.push(row);
        // Only both together hold every kind of fault.
        let is_over = number >= plan::FIXED && begun.elapsed() >= asked.length;
        let is_last = asked.only.is_some() || is_over;
        if is_last || (!passed && !asked.goes_on) {
            break;
        }
        number += 1;
    }
    if let Some(world) = world {
        passed &= finish(world).await;
    }
    println!("\n{}", report::table(&rows));
    if !passed {
        println!("\nlogs are in {}", folder.keep().display());
    }
    for row in rows.iter().filter(|row| !row.passed) {
        println!("again: scripts/chaos --seed {seed} --round {}", row.round);
    }
    passed
}

async fn play(world: &mut World, seed: u64, number: u64, keeper: &Keeper, folder: &Path) -> Row {
    let plan = Plan::new(seed, number);
    let Era { rate, symbols, .. } = world.era;
    println!(
        "\nround {number} of seed {seed}: {plan}; {} symbols, {rate} trades/s each",
        symbols * trading_core::exchange::names().len()
    );
    let row = round::run(world, &plan, keeper, folder, seed).await;
    println!("{}", row.line());
    row
}

/// Ends an era: its table is damaged on purpose, and the checks must find it.
async fn finish(mut world: World) -> bool {
    world.bring_back().await.unwrap();
    let pool = world.pool().await.unwrap();
    let overlooked = table::prove(&pool, &world.market).await.unwrap();
    for sign in &overlooked {
        println!("  PROBLEM the checks overlooked damage: {sign}");
    }
    world.end().await;
    overlooked.is_empty()
}
