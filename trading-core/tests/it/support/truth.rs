//! The table held against the market function.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;
use sqlx::PgPool;
use sqlx::types::chrono::{DateTime, Utc};
use trading_core::domain::Symbol;
use trading_core::simulator::Market;

/// What is stored of one symbol.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// The ids, each once.
    pub(crate) ids: BTreeSet<u64>,
}

impl Stored {
    /// Ids between the first and the last that are not there.
    pub(crate) fn missing(&self) -> Vec<u64> {
        match (self.ids.first(), self.ids.last()) {
            (Some(first), Some(last)) => {
                (*first..=*last).filter(|id| !self.ids.contains(id)).collect()
            }
            _ => Vec::new(),
        }
    }
}

type Row = (String, String, String, DateTime<Utc>, String, Decimal, Decimal);

/// Reads the whole table; every row is a trade of the market with its exact values, and no trade is there twice.
pub(crate) async fn stored(pool: &PgPool, market: &Market) -> BTreeMap<(String, String), Stored> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT exchange, symbol, trade_id, time, side, price, quantity FROM tick_data",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut stored: BTreeMap<(String, String), Stored> = BTreeMap::new();
    for (exchange, symbol, trade_id, time, side, price, quantity) in rows {
        let id: u64 = trade_id.parse().unwrap();
        let canonical: Symbol = symbol.parse().unwrap();
        let truth = market.trade(&exchange, &canonical, id).unwrap();
        assert_eq!(
            (time, side.as_str(), price, quantity),
            (truth.at.to_datetime(), truth.side.as_str(), truth.price, truth.quantity),
            "{exchange}:{symbol} {id}"
        );
        let is_new = stored.entry((exchange.clone(), symbol.clone())).or_default().ids.insert(id);
        assert!(is_new, "{exchange}:{symbol} {id} is stored twice");
    }
    stored
}
