//! What the benchmarks share.

pub(crate) mod server;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use sqlx::postgres::PgConnectOptions;
use trading_core::config::{Overrides, load};
use trading_core::domain::Instrument;
use trading_core::pipeline::{Ledger, Pipeline, PipelineParts, TickSender, channel};
use trading_core::store::postgres::PostgresStore;

/// The ten symbols of the defaults, by their base.
pub(crate) const BASES: [&str; 10] =
    ["BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "AVAX", "LINK", "DOT", "LTC"];

/// The same ten on Binance, against USDT.
pub(crate) fn instruments() -> [Instrument; 10] {
    BASES.map(|base| {
        Instrument::intern("binance", &format!("{base}-USDT").parse().unwrap()).unwrap()
    })
}

/// A pipeline as a user gets it by default, but for the most that one write carries.
pub(crate) fn pipeline(
    options: PgConnectOptions,
    max_coalesced: usize,
) -> (TickSender, Arc<Ledger>, Pipeline<PostgresStore>) {
    let mut settings = load(None, &BTreeMap::new(), &Overrides::default()).unwrap().settings;
    settings.batch.max_coalesced = NonZeroUsize::new(max_coalesced).unwrap();
    let ledger = Arc::new(Ledger::default());
    let (sender, receiver) = channel(settings.pipeline.channel_capacity.get(), Arc::clone(&ledger));
    let store = Arc::new(PostgresStore::new(options));
    let parts = PipelineParts { records: receiver, store, observers: Vec::new(), spooling: None };
    let pipeline = Pipeline::new(parts, &settings.pipeline, &settings.batch);
    (sender, ledger, pipeline)
}

/// Says whether an aim of the contract is reached.
pub(crate) fn verdict(name: &str, ratio: f64, aim: f64) {
    let word = if ratio >= aim { "reached" } else { "MISSED" };
    println!("{name:<40} ratio {ratio:.2}  aim {aim:.2}  {word}");
}
