//! The whole way of a tick, from a socket to committed rows, with the sender in a process of its own.
//!
//! - socket to channel: read, decode, sequence, send, in ticks a second of one feed;
//! - whole pipeline: frames made before, over a socket, to rows in `tick_data`, as a ratio to `psql` COPY BINARY of the
//!   same rows into the same table, in turns in one run;
//! - peak memory of the recorder in the flood, and at 1,000 ticks a second with its processor time.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark prints what it measured and stops at the first surprise"
)]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use sqlx::Executor as _;
use sqlx::postgres::{PgConnectOptions, PgPool};
use support::server::Server;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trading_core::config::NetworkSettings;
use trading_core::domain::{ExchangeStamps, RecorderClock, Tick, Timestamp};
use trading_core::exchange::{Binance, Exchange as _};
use trading_core::feed::{self, ConnectGate, FeedBoard, FeedContext, LivenessRules};
use trading_core::network::Network;
use trading_core::pipeline::{Ledger, TickSender, channel};
use trading_core::store::journal::journal;
use trading_core::store::postgres::migrate::migrate;

const FLOOD: u64 = 400_000;
const ROUNDS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, number, rate] = arguments.as_slice()
        && word == "send"
    {
        send(number.parse().unwrap(), rate.parse().unwrap());
        return;
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(measure());
}

async fn measure() {
    let mut rates: Vec<f64> = Vec::new();
    for _ in 0..ROUNDS {
        rates.push(socket_to_channel().await);
    }
    rates.sort_by(f64::total_cmp);
    println!("socket to channel, one feed: median {:.0} ticks/s  aim 1000000", rates[ROUNDS / 2]);

    let server = Server::start().await;
    let pool = PgPool::connect_with(server.socket()).await.unwrap();
    migrate(&pool).await.unwrap();
    pool.execute("SELECT ensure_tick_partition(current_date)").await.unwrap();
    let file = server.scratch("flood.bin");
    reset(&pool).await;
    record(server.socket(), FLOOD, 0).await;
    server.psql(&format!("\\copy (SELECT * FROM tick_data) TO '{file}' (FORMAT binary)")).await;
    let mut ratios = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        reset(&pool).await;
        let start = Instant::now();
        server.psql(&format!("\\copy tick_data FROM '{file}' (FORMAT binary)")).await;
        let baseline = FLOOD as f64 / start.elapsed().as_secs_f64();
        println!("  psql COPY BINARY      {baseline:>8.0} rows/s");
        let ways = [("socket", server.socket()), ("tcp", server.tcp())];
        for ((name, options), ratios) in ways.into_iter().zip(&mut ratios) {
            reset(&pool).await;
            let rate = FLOOD as f64 / record(options, FLOOD, 0).await.as_secs_f64();
            println!(
                "  whole pipeline {name:<6} {rate:>8.0} ticks/s  ratio {:.2}",
                rate / baseline
            );
            ratios.push(rate / baseline);
        }
    }
    for (name, mut ratios) in ["socket", "tcp"].into_iter().zip(ratios) {
        ratios.sort_by(f64::total_cmp);
        support::verdict(
            &format!("whole pipeline, to the database by {name}"),
            ratios[ROUNDS / 2],
            0.75,
        );
    }
    println!("peak memory after the flood: {:.1} MiB  aim 40", peak_mib());

    reset(&pool).await;
    let (cpu, start) = (cpu_time(), Instant::now());
    record(server.socket(), 20_000, 1_000).await;
    let percent = (cpu_time() - cpu).as_secs_f64() / start.elapsed().as_secs_f64() * 100.0;
    println!("processor at 1,000 ticks/s, 10 symbols: {percent:.1} % of a core  aim 5");
    pool.close().await;
    server.stop().await;
}

async fn reset(pool: &PgPool) {
    pool.execute("TRUNCATE tick_data").await.unwrap();
    pool.execute("CHECKPOINT").await.unwrap();
}

async fn socket_to_channel() -> f64 {
    let ledger = Arc::new(Ledger::default());
    let (sender, mut ticks) = channel(10_000, Arc::clone(&ledger));
    let source = Source::start(1_000_000, 0);
    let stop = CancellationToken::new();
    let feed = feed::run(context(source.port, sender), stop.clone());
    let mut taken: Vec<Tick> = Vec::with_capacity(10_000);
    let counting = async {
        ticks.recv_many(&mut taken, 1).await;
        let (start, mut number) = (Instant::now(), 1_u64);
        while number < 1_000_000 {
            taken.clear();
            number += u64::try_from(ticks.recv_many(&mut taken, 10_000).await).unwrap();
        }
        stop.cancel();
        1_000_000.0 / start.elapsed().as_secs_f64()
    };
    let ((), rate) = futures_util::join!(feed, counting);
    rate
}

/// Records so many ticks, sent at so many a second (0: as fast as they are taken), and says how long it took from the
/// first frame to the last commit.
async fn record(options: PgConnectOptions, number: u64, rate: u64) -> Duration {
    let (sender, ledger, pipeline) = support::pipeline(options, 10_000);
    let source = Source::start(number, rate);
    let stop = CancellationToken::new();
    let feed = feed::run(context(source.port, sender), stop.clone());
    let mut started = None;
    let watch = async {
        let mut pulse = tokio::time::interval(Duration::from_millis(5));
        while ledger.read().received < number {
            pulse.tick().await;
            if started.is_none() && ledger.read().received > 0 {
                started = Some(Instant::now());
            }
        }
        stop.cancel();
    };
    futures_util::join!(feed, pipeline.run(), watch);
    let reading = ledger.read();
    assert_eq!((reading.stored, reading.balances()), (number, true), "{reading}");
    started.unwrap().elapsed()
}

fn context(port: u16, sender: TickSender) -> FeedContext {
    let (journal, _nobody_reads_it) = journal("bench".to_owned());
    FeedContext {
        name: "binance-1".into(),
        exchange: &Binance,
        url: Binance.connect_url(&format!("ws://127.0.0.1:{port}")),
        limits: Binance.limits(),
        liveness: LivenessRules::default(),
        instruments: support::instruments().to_vec(),
        stored: Vec::new(),
        connections: NonZeroUsize::MIN,
        clock: RecorderClock::default(),
        stamps: ExchangeStamps::default(),
        sender,
        board: FeedBoard::default(),
        journal,
        network: Network::new(&NetworkSettings::default()).unwrap(),
        gate: Arc::new(ConnectGate::new(Duration::ZERO, Arc::default())),
        seed: 1,
    }
}

fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    Duration::from_micros(
        u64::try_from(micros(usage.user_time()) + micros(usage.system_time())).unwrap(),
    )
}

/// The sender's process, which ends with this value.
struct Source {
    child: Child,
    port: u16,
}

impl Source {
    fn start(number: u64, rate: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["send", &number.to_string(), &rate.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().unwrap() }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The sender: one connection, frames made before it is accepted.
fn send(number: u64, rate: u64) {
    let frames = frames(number);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let (stream, _) = listener.accept().unwrap();
    let mut socket = tokio_tungstenite::tungstenite::accept(stream).unwrap();
    socket.read().unwrap();
    let raw: &mut TcpStream = socket.get_mut();
    if rate == 0 {
        raw.write_all(&frames.concat()).unwrap();
    } else {
        // Ten bursts a second.
        for burst in frames.chunks(usize::try_from(rate / 10).unwrap()) {
            raw.write_all(&burst.concat()).unwrap();
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
    // Stays connected until the recorder has what it wants and ends this process.
    loop {
        std::thread::park();
    }
}

/// Binance trades of ten symbols as WebSocket frames.
fn frames(number: u64) -> Vec<Vec<u8>> {
    let now = Timestamp::now().as_millis();
    (0..number)
        .map(|n| {
            let base = support::BASES[usize::try_from(n % 10).unwrap()];
            let (id, cents) = (3_735_683_259 + n / 10, 6_183_763 + n % 9_973);
            let text = format!(
                r#"{{"stream":"{}usdt@trade","data":{{"e":"trade","E":{now},"s":"{base}USDT","t":{id},"p":"{}.{:02}000000","q":"0.000{:05}","T":{now},"m":{},"M":true}}}}"#,
                base.to_lowercase(), cents / 100, cents % 100, 13_000 + n % 997, n % 3 == 0
            );
            let length = u16::try_from(text.len()).unwrap();
            let mut frame = vec![0x81, 126];
            frame.extend_from_slice(&length.to_be_bytes());
            frame.extend_from_slice(text.as_bytes());
            frame
        })
        .collect()
}
