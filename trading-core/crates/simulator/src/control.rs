//! The control routes: the truth about each trade, the journal, and the switches of the faults.
//!
//! Outside of every exchange's paths, for tests and people; no client of an exchange needs them.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::faults::FaultOrder;
use super::market::{Listing, Trade};
use super::shared::Shared;
use super::venue::Venue;

/// Trades in one answer at most.
const TRADES_MAX: u64 = 10_000;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/control/faults", get(report).post(order))
        .route("/control/journal", get(journal))
        .route("/control/trade", get(trade))
        .route("/control/latest", get(latest))
}

#[derive(Debug, Deserialize)]
struct Which {
    exchange: String,
    symbol: String,
    id: Option<u64>,
    from: Option<u64>,
    to: Option<u64>,
}

/// A trade as JSON: numbers that matter are text, so that no reader rounds them.
#[derive(Debug, Serialize)]
struct Truth {
    id: u64,
    price: String,
    quantity: String,
    side: &'static str,
    exchange_at: String,
    timestamp_us: i64,
}

impl From<Trade> for Truth {
    fn from(trade: Trade) -> Self {
        Self {
            id: trade.id,
            price: trade.price.to_string(),
            quantity: trade.quantity.to_string(),
            side: trade.side.as_str(),
            exchange_at: trade.at.to_string(),
            timestamp_us: trade.at.as_micros(),
        }
    }
}

fn refused(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}

fn listing<'a>(shared: &'a Shared, which: &Which) -> Option<&'a Arc<Listing>> {
    let venue: Venue = which.exchange.parse().ok()?;
    let joined = which.symbol.replace(['-', '/'], "");
    let capitals = || shared.market.listing(venue, &joined.to_ascii_uppercase());
    shared.market.listing(venue, &joined).or_else(capitals)
}

async fn trade(State(shared): State<Arc<Shared>>, Query(which): Query<Which>) -> Response {
    let Some(listing) = listing(&shared, &which) else {
        return refused(StatusCode::NOT_FOUND, "this symbol is not listed there");
    };
    if let Some(id) = which.id {
        return listing.trade(id).map_or_else(
            || refused(StatusCode::NOT_FOUND, "ids begin later"),
            |trade| Json(Truth::from(trade)).into_response(),
        );
    }
    let (Some(from), Some(to)) = (which.from, which.to) else {
        return refused(StatusCode::BAD_REQUEST, "needs id, or from and to");
    };
    let last = to.min(from.saturating_add(TRADES_MAX - 1));
    let trades: Vec<Truth> =
        (from..=last).filter_map(|id| listing.trade(id)).map(Truth::from).collect();
    Json(trades).into_response()
}

async fn latest(State(shared): State<Arc<Shared>>, Query(which): Query<Which>) -> Response {
    let Some(listing) = listing(&shared, &which) else {
        return refused(StatusCode::NOT_FOUND, "this symbol is not listed there");
    };
    let now = shared.clock.now();
    Json(json!({ "id": listing.latest(now), "now": now.to_string() })).into_response()
}

async fn report(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.faults.report()).into_response()
}

async fn journal(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.faults.journal()).into_response()
}

async fn order(
    State(shared): State<Arc<Shared>>,
    body: Result<Json<FaultOrder>, JsonRejection>,
) -> Response {
    let order = match body {
        Ok(Json(order)) => order,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    match shared.faults.order(&order, shared.clock.now()) {
        Ok(()) => Json(shared.faults.report()).into_response(),
        Err(error) => refused(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}
