//! The table held against the market function.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rust_decimal::Decimal;
use sqlx::PgPool;
use sqlx::types::chrono::{DateTime, Utc};
use trading_core::domain::{Symbol, Timestamp};
use trading_core::exchange::{IdRule, by_name};
use trading_core::simulator::{Listing, Market};

/// What is stored of one symbol.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// The ids, each once.
    pub(crate) ids: BTreeSet<u64>,
    /// The symbol, where the ids between its own are of other pairs.
    shared: Option<Arc<Listing>>,
}

impl Stored {
    /// Ids between the first and the last that are not there, but for those of other pairs.
    pub(crate) fn missing(&self) -> Vec<u64> {
        self.ids.last().map_or_else(Vec::new, |last| self.missing_through(*last))
    }

    /// As [`Self::missing`], from the first to this one.
    pub(crate) fn missing_through(&self, last: u64) -> Vec<u64> {
        let is_own = |id: &u64| self.shared.as_ref().is_none_or(|listing| listing.is_issued(*id));
        let first = *self.ids.first().unwrap();
        (first..=last).filter(|id| !self.ids.contains(id) && is_own(id)).collect()
    }
}

/// Whether a stored time is that of a trade: the same, or as near to it as the exchange's history writes it.
pub(crate) fn is_time_of(exchange: &str, source: &str, time: DateTime<Utc>, at: Timestamp) -> bool {
    let apart = match source {
        "backfill" => by_name(exchange).unwrap().history().rules().times_apart,
        _ => None,
    };
    let time = Timestamp::from_micros(time.timestamp_micros()).unwrap();
    time.is_near(at, apart.unwrap_or_default())
}

type Row = (String, String, String, DateTime<Utc>, String, Decimal, Decimal, String);

/// Reads the whole table; every row is a trade of the market with its exact values, and no trade is there twice.
pub(crate) async fn stored(pool: &PgPool, market: &Market) -> BTreeMap<(String, String), Stored> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT exchange, symbol, trade_id, time, side, price, quantity, source FROM tick_data",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut stored: BTreeMap<(String, String), Stored> = BTreeMap::new();
    for (exchange, symbol, trade_id, time, side, price, quantity, source) in rows {
        let id: u64 = trade_id.parse().unwrap();
        let canonical: Symbol = symbol.parse().unwrap();
        let truth = market.trade(&exchange, &canonical, id).unwrap();
        assert!(
            is_time_of(&exchange, &source, time, truth.at),
            "{exchange}:{symbol} {id} of {source}: {time}, and was {}",
            truth.at
        );
        assert_eq!(
            (side.as_str(), price, quantity),
            (truth.side.as_str(), truth.price, truth.quantity),
            "{exchange}:{symbol} {id}"
        );
        let of_symbol = stored.entry((exchange.clone(), symbol.clone())).or_insert_with(|| {
            let listing = market.listing(exchange.parse().unwrap(), &symbol).cloned();
            let is_shared = by_name(&exchange).unwrap().ids() == IdRule::Unique;
            Stored { ids: BTreeSet::new(), shared: listing.filter(|_| is_shared) }
        });
        let is_new = of_symbol.ids.insert(id);
        assert!(is_new, "{exchange}:{symbol} {id} is stored twice");
    }
    stored
}
