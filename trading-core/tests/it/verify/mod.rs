//! `verify` proves what is stored: a table made of the market's own trades is complete, and whatever is done to it is
//! found and named.

mod agreement;
mod candles;
mod damage;
mod program;
mod verdicts;
mod witnesses;

use std::time::Duration;

use rust_decimal::Decimal;
use sqlx::{AssertSqlSafe, PgPool};
use trading_core::domain::{Instrument, Symbol, Tick, Timestamp};
use trading_core::simulator::{Market, MarketOptions};
use trading_core::store::Store as _;
use trading_core::store::postgres::PostgresStore;
use trading_core::verify::{Report, Scope, verify};

use crate::support::postgres::{TestDatabase, migrated};
use crate::support::ticks::traded;

const DAY_MICROS: i64 = 86_400_000_000;
/// Two whose ids are consecutive and one whose ids prove nothing.
const SYMBOLS: [(&str, &str); 3] =
    [("binance", "BTCUSDT"), ("kraken", "ETHUSD"), ("bybit", "BTCUSDT")];

/// Three whole days of three symbols, as they would have been recorded, and the session that carried them.
pub(super) struct Recorded {
    pub(super) database: TestDatabase,
    /// The first moment of the first day.
    pub(super) begin: Timestamp,
    pub(super) market: Market,
}

impl Recorded {
    /// With so many trades a second and symbol, in thousandths.
    pub(super) async fn new(thousandths: i64) -> Self {
        let database = migrated().await;
        let rate = Decimal::new(thousandths, 3);
        let market = Market::new(&MarketOptions { rate, ..MarketOptions::default() }).unwrap();
        let begin = Timestamp::from_micros((Timestamp::now().day() - 4) * DAY_MICROS).unwrap();
        let recorded = Self { database, begin, market };
        let store = PostgresStore::new(recorded.database.socket());
        for (exchange, symbol) in SYMBOLS {
            let ticks = recorded.ticks(exchange, &symbol.parse().unwrap());
            let written = store.write(&ticks).await.unwrap();
            assert_eq!(written.stored, u64::try_from(ticks.len()).unwrap());
            recorded.session(exchange, symbol).await;
        }
        recorded
    }

    fn ticks(&self, exchange: &str, symbol: &Symbol) -> Vec<Tick> {
        let instrument = Instrument::intern(exchange, symbol).unwrap();
        let latest = |at| self.market.latest(exchange, symbol, at).unwrap();
        let ids = latest(self.begin) + 1..=latest(self.end());
        let ticks = ids.map(|id| traded(&self.market, instrument, id).unwrap());
        let late = Duration::from_millis(35);
        ticks.map(|tick| Tick { received_at: tick.exchange_at + late, ..tick }).collect()
    }

    async fn session(&self, exchange: &str, symbol: &str) {
        sqlx::query(
            "INSERT INTO feed_sessions (recorder, exchange, feed, connected_at, ended_at, seen_at, reason, symbols) \
             VALUES ('test', $1, $1 || '-1', $2, $3, $3, 'stopped', ARRAY[$4])",
        )
        .bind(exchange)
        .bind(self.begin.to_datetime())
        .bind(Timestamp::from_micros(self.end().as_micros() + 1_000_000).unwrap().to_datetime())
        .bind(symbol)
        .execute(&self.database.pool)
        .await
        .unwrap();
    }

    /// The end of the third day.
    pub(super) fn end(&self) -> Timestamp {
        Timestamp::from_micros(self.begin.as_micros() + 3 * DAY_MICROS).unwrap()
    }

    /// The whole table.
    pub(super) fn scope(&self) -> Scope {
        Scope {
            exchanges: Vec::new(),
            symbols: Vec::new(),
            from: None,
            to: Timestamp::from_micros(self.end().as_micros() + DAY_MICROS).unwrap(),
            settle_seconds: None,
        }
    }

    pub(super) async fn verify(&self) -> Report {
        verify(&self.database.pool, &self.scope(), 2).await.unwrap()
    }

    pub(super) async fn run(&self, sql: impl Into<String>) {
        run(&self.database.pool, sql).await;
    }

    /// The id of the trade that stands so far into a symbol's trades, of 1,000 parts.
    pub(super) async fn id_at(&self, exchange: &str, symbol: &str, thousandth: i64) -> u64 {
        let (first, last): (i64, i64) = sqlx::query_as(
            "SELECT min(trade_id::bigint), max(trade_id::bigint) FROM tick_data WHERE exchange = $1 AND symbol = $2",
        )
        .bind(exchange)
        .bind(symbol)
        .fetch_one(&self.database.pool)
        .await
        .unwrap();
        u64::try_from(first + (last - first) * thousandth / 1_000).unwrap()
    }
}

/// Runs one statement, or several.
pub(super) async fn run(pool: &PgPool, sql: impl Into<String>) {
    let sql = sql.into();
    sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(pool).await.unwrap_or_else(|error| {
        panic!("{sql}: {error}");
    });
}
