//! A replay of what a live paper session recorded gives that session's fills, each of them, also where the session was
//! killed in the middle and began again.

use std::collections::BTreeMap;
use std::path::Path;

use nix::sys::signal::Signal;
use rust_decimal::Decimal;
use serde_json::Value;
use sqlx::PgPool;
use trading_core::store::embedded::Cluster;

use crate::support::postgres::{Scratch, connect};
use crate::support::process::{Program, Settings, command, setting};
use crate::support::waiting::until;

/// Strategies that trade often, on three venues (Kraken's frames hold several symbols), with cash that binds, so that it
/// matters in which order the symbols' ticks come.
const STRATEGIES: &str = r#"
[exchanges.bybit]
enabled = false
[exchanges.coinbase]
enabled = false
[exchanges.binance]
symbols = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"]
connections = 2
[exchanges.kraken]
symbols = ["BTCUSD", "ETHUSD", "SOLUSD"]
[exchanges.okx]
symbols = ["BTCUSDT", "ETHUSDT"]

[paper.strategies.trend]
kind = "sma_crossover"
exchange = "binance"
symbols = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"]
cash = "30000"
fee_rate = "0.0001"
slippage = "0.00005"
position_limit = "20000"
bar = "100ms"
fast = 2
slow = 7

[paper.strategies.return]
kind = "mean_reversion"
exchange = "kraken"
symbols = ["BTCUSD", "ETHUSD", "SOLUSD"]
cash = "30000"
fee_rate = "0.0001"
slippage = "0.00005"
position_limit = "20000"
bar = "100ms"
window = 8
entry = "1"
exit = "0"

[paper.strategies.patient]
kind = "sma_crossover"
exchange = "okx"
symbols = ["BTCUSDT", "ETHUSDT"]
cash = "30000"
fee_rate = "0.0001"
slippage = "0.00005"
position_limit = "20000"
bar = "200ms"
fast = 2
slow = 9
"#;

/// A recorder's home: settings, database, log.
struct Home {
    scratch: Scratch,
    folder: tempfile::TempDir,
    settings: Settings,
}

impl Home {
    fn new() -> Self {
        let (scratch, folder) = (Scratch::simulated(), tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join("settings.toml"), STRATEGIES).unwrap();
        let settings = vec![
            setting("DATABASE__DATA_DIR", scratch.path().display()),
            setting("SIMULATE__RATE", "150"),
            // Much is in memory when the program is killed.
            setting("BATCH__MAX_SIZE", "5000"),
            setting("BATCH__MAX_TIME", "2s"),
            setting("PIPELINE__HEALTH_INTERVAL", "1s"),
        ];
        Self { scratch, folder, settings }
    }

    fn config(&self) -> String {
        self.folder.path().join("settings.toml").display().to_string()
    }

    /// Starts a live session, with its log in a folder of this name.
    fn live(&self, log: &str) -> Program {
        let folder = self.folder.path().join(log);
        std::fs::create_dir(&folder).unwrap();
        let config = self.config();
        let arguments = ["live", "--simulate", "--paper-trading", "--config", &config];
        Program::start(&folder, &arguments, &self.settings)
    }

    /// What a replay prints.
    fn printed(&self, arguments: &[&str]) -> String {
        let answer = command()
            .args([
                "replay",
                "--simulated",
                "--paper-trading",
                "--fills",
                "--config",
                &self.config(),
            ])
            .args(arguments)
            .envs(self.settings.iter().cloned())
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&answer.stderr).into_owned();
        assert!(answer.status.success(), "{log}");
        String::from_utf8(answer.stdout).unwrap()
    }

    /// What a replay answers in JSON.
    fn replay(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.printed(&[arguments, &["--json"]].concat())).unwrap()
    }

    async fn cluster(&self) -> (Cluster, PgPool) {
        let cluster = Cluster::start(&self.scratch.options()).await.unwrap();
        let pool = connect(&cluster.url(), 2).await;
        (cluster, pool)
    }
}

/// Waits until `by` more fills are stored.
async fn filled(program: &mut Program, by: i64) {
    let pool = connect(&program.cluster_url().await, 1).await;
    let mut wanted = None;
    until(async || {
        let fills: i64 =
            sqlx::query_scalar("SELECT count(*) FROM paper_fills").fetch_one(&pool).await.unwrap();
        if fills >= *wanted.get_or_insert(fills + by) {
            return Ok(());
        }
        Err(format!("no {by} more fills:\n{}", program.log()))
    })
    .await;
    pool.close().await;
}

/// Account, id, order, symbol, side; price, quantity, value, fee; trade, time.
type Fill = ([String; 7], [Decimal; 4]);

fn replayed_fills(answer: &Value) -> BTreeMap<(String, i64), Fill> {
    let fills = answer["fills"].as_array().unwrap();
    let text = |fill: &Value, key: &str| fill[key].as_str().unwrap().to_owned();
    let fills = fills.iter().map(|fill| {
        let number = |key: &str| text(fill, key).parse().unwrap();
        let words = ["exchange", "symbol", "side", "trade_id", "time"].map(|key| text(fill, key));
        let [exchange, symbol, side, trade_id, time] = words;
        let order = fill["order_id"].to_string();
        let key = (text(fill, "account"), fill["fill_id"].as_i64().unwrap());
        let words = [key.0.clone(), exchange, symbol, side, trade_id, time, order];
        (key, (words, ["price", "quantity", "value", "fee"].map(number)))
    });
    fills.collect()
}

async fn stored_fills(pool: &PgPool) -> BTreeMap<(String, i64), Fill> {
    let rows: Vec<(String, i64, [String; 6], [Decimal; 4])> = sqlx::query_as(
        "SELECT account, fill_id, ARRAY[exchange, symbol, side, trade_id, \
             to_char(exchange_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), order_id::text], \
             ARRAY[price, quantity, value, fee] FROM paper_fills",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let fills = rows.into_iter().map(|(account, id, words, numbers)| {
        let [exchange, symbol, side, trade_id, time, order] = words;
        let words = [account.clone(), exchange, symbol, side, trade_id, time, order];
        ((account, id), (words, numbers))
    });
    fills.collect()
}

fn assert_same(stored: &BTreeMap<(String, i64), Fill>, replayed: &BTreeMap<(String, i64), Fill>) {
    for (key, fill) in stored {
        assert_eq!(Some(fill), replayed.get(key), "{key:?}");
    }
    assert_eq!(stored.len(), replayed.len());
}

/// What holds for the tables by themselves, whoever traded.
async fn assert_sound(pool: &PgPool) {
    let count =
        async |sql: &'static str| -> i64 { sqlx::query_scalar(sql).fetch_one(pool).await.unwrap() };
    let unbalanced = "SELECT count(*) FROM paper_accounts a WHERE cash <> initial_cash - fees - coalesce( \
            (SELECT sum(CASE side WHEN 'buy' THEN value ELSE -value END) FROM paper_fills f \
             WHERE f.account = a.account), 0) \
         OR fees <> coalesce((SELECT sum(fee) FROM paper_fills f WHERE f.account = a.account), 0)";
    assert_eq!(count(unbalanced).await, 0, "cash is what the fills made it");
    let gaps = "SELECT count(*) FROM paper_accounts a \
         CROSS JOIN LATERAL (SELECT count(*) AS rows, coalesce(max(fill_id), 0) AS last FROM paper_fills f \
             WHERE f.account = a.account) AS f \
         CROSS JOIN LATERAL (SELECT count(*) AS rows, coalesce(max(order_id), 0) AS last FROM paper_orders o \
             WHERE o.account = a.account) AS o \
         WHERE last_fill <> f.rows OR last_fill <> f.last OR last_order <> o.rows OR last_order <> o.last";
    assert_eq!(count(gaps).await, 0, "ids are unique and without a gap");
    let twice = "SELECT count(*) - count(DISTINCT (account, order_id, trade_id)) FROM paper_fills";
    assert_eq!(count(twice).await, 0, "no trade fills an order twice");
    let from_nothing = "SELECT count(*) FROM paper_fills f WHERE NOT EXISTS (SELECT FROM tick_data t \
         WHERE (t.exchange, t.symbol, t.trade_id, t.time) = (f.exchange, f.symbol, f.trade_id, f.exchange_at) \
           AND abs(f.price / t.price - 1) <= 0.00006 AND t.quantity >= f.quantity)";
    assert_eq!(
        count(from_nothing).await,
        0,
        "each fill is of a stored tick, at its price less the slippage"
    );
}

fn last_summary(log: &str) -> &str {
    log.lines().rfind(|line| line.contains("Paper Trading: ")).unwrap()
}

fn assert_nothing_missed(log: &str) {
    let summary = last_summary(log);
    assert!(summary.ends_with("missed 0 ticks"), "{summary}");
}

#[tokio::test]
async fn a_replay_gives_the_fills_of_the_live_session() {
    let home = Home::new();
    let mut program = home.live("one");
    filled(&mut program, 2_000).await;
    let status = program.stop().await;
    assert!(status.success(), "{status}\n{}", program.log());
    assert_nothing_missed(&program.log());

    let (as_received, whole) = (home.replay(&["--as-received"]), home.replay(&[]));
    let few = home.replay(&["--exchange", "okx", "--symbol", "BTC-USDT", "--from", "1h"]);
    let text = home.printed(&[]);
    let none = home.replay(&["--to", "2020-01-01"]);
    let (cluster, pool) = home.cluster().await;
    let stored = stored_fills(&pool).await;
    assert!(stored.len() >= 2_000);
    let (csv, table) = text.split_once("\n\n").unwrap();
    assert_eq!(csv.lines().count(), 1 + stored.len());
    assert_eq!(table.lines().count(), 1 + 3 + 1, "{table}");
    assert_eq!(
        (none["ticks"].as_i64(), none["fills"].as_array().map(Vec::len)),
        (Some(0), Some(0))
    );
    for name in ["trend", "return", "patient"] {
        let of = stored.keys().filter(|(account, _)| account == name).count();
        assert!(of > 20, "{name}: {of} fills");
    }
    assert_same(&stored, &replayed_fills(&as_received));
    // Nothing was missing, so that nothing was fetched: it is the same either way.
    assert_same(&stored, &replayed_fills(&whole));
    assert_sound(&pool).await;

    let ticks: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM tick_data WHERE exchange IN ('binance', 'kraken', 'okx')",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert!(ticks > 10_000, "{ticks} ticks");
    assert_eq!(whole["ticks"].as_i64(), Some(ticks));
    assert_eq!((whole["complete"].as_bool(), whole["displaced"].as_i64()), (Some(true), Some(0)));
    let summary: Vec<(String, i64, Decimal)> =
        sqlx::query_as("SELECT account, fills, pnl FROM paper_summary ORDER BY account")
            .fetch_all(&pool)
            .await
            .unwrap();
    let mut told: Vec<(String, i64, Decimal)> = whole["strategies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            let text = |key: &str| it[key].as_str().unwrap().to_owned();
            (text("name"), it["fills"].as_i64().unwrap(), text("pnl").parse().unwrap())
        })
        .collect();
    told.sort();
    assert_eq!(told, summary);
    assert_eq!(few["strategies"].as_array().unwrap().len(), 1);
    assert!(few["ticks"].as_i64().unwrap() < ticks / 4, "{}", few["ticks"]);
    pool.close().await;
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_session_that_was_killed_and_began_again_trades_as_its_replay_does() {
    let home = Home::new();
    for log in ["one", "two"] {
        let mut program = home.live(log);
        filled(&mut program, 300).await;
        program.signal(Signal::SIGKILL);
        program.gone().await;
    }
    let mut program = home.live("three");
    filled(&mut program, 300).await;
    let status = program.stop().await;
    assert!(status.success(), "{status}\n{}", program.log());
    for log in ["one", "two", "three"] {
        let path = home.folder.path().join(log).join("trading-core.log");
        assert_nothing_missed(&std::fs::read_to_string(Path::new(&path)).unwrap());
    }

    let answer = home.replay(&["--as-received"]);
    let (cluster, pool) = home.cluster().await;
    let stored = stored_fills(&pool).await;
    assert!(stored.len() >= 900);
    assert_same(&stored, &replayed_fills(&answer));
    assert_sound(&pool).await;
    pool.close().await;
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_replay_that_cannot_be_says_why() {
    let home = Home::new();
    let cases = [
        (&["--from", "2026-02-01", "--to", "2026-01-01"][..], "is not before"),
        (&["--symbol", "DOGEUSDT"], "trend (binance BTCUSDT ETHUSDT SOLUSDT XRPUSDT)"),
    ];
    for (arguments, said) in cases {
        let answer = command()
            .args(["replay", "--paper-trading", "--config", &home.config()])
            .args(arguments)
            .envs(home.settings.iter().cloned())
            .output()
            .unwrap();
        assert_eq!(answer.status.code(), Some(64));
        let complaint = String::from_utf8_lossy(&answer.stderr);
        assert!(complaint.contains(said), "{complaint}");
    }
}
