//! The paper tables: accounts out at the start, changes in while it runs. And the ticks that an account has taken.
//!
//! One call of [`AccountStore::write`] is one transaction: fills, orders, positions and cash agree at every moment. Writing
//! the same changes again changes nothing, so a write whose answer was lost may be repeated. Each account counts
//! its writes and names its writer; a second process on the same account is noticed before it changes anything.

use std::collections::BTreeMap;
use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row};

use super::account::{Position, Valuation};
use super::changes::{AccountState, Changes};
use super::desk::StoredAccount;
use super::error::PaperError;
use super::fills::{Fill, Order, OrderStatus};
use super::ticks::{TickQuery, TickStream};
use crate::domain::{Instrument, Side, Symbol, Timestamp, TradeId};

/// Where accounts are kept.
pub trait AccountStore: Send + Sync {
    /// The stored ones of these accounts.
    ///
    /// # Errors
    ///
    /// [`PaperError::remedy`] says whether to ask again.
    fn load(
        &mut self,
        accounts: &[String],
    ) -> impl Future<Output = Result<Vec<StoredAccount>, PaperError>> + Send;

    /// Stores changes, all or none. They are durable when it returns; the same changes may be written again.
    ///
    /// # Errors
    ///
    /// [`PaperError::remedy`] says whether to write them again.
    fn write(&mut self, changes: &Changes) -> impl Future<Output = Result<(), PaperError>> + Send;

    /// The stored ticks of a query.
    fn ticks(&self, query: TickQuery) -> TickStream;
}

/// The tables `paper_*`, and `tick_data`.
#[derive(Debug)]
pub struct PgStore {
    pool: PgPool,
    writer: String,
    revisions: BTreeMap<String, i64>,
}

impl PgStore {
    /// A store for one run. `started_at` and the process id name the run to other ones.
    #[must_use]
    pub fn new(pool: PgPool, started_at: Timestamp) -> Self {
        let writer = format!("{}-{}", std::process::id(), started_at.as_micros());
        Self { pool, writer, revisions: BTreeMap::new() }
    }
}

impl AccountStore for PgStore {
    async fn load(&mut self, accounts: &[String]) -> Result<Vec<StoredAccount>, PaperError> {
        let loaded = read(&self.pool, accounts).await?;
        self.revisions.clear();
        let mut stored = Vec::with_capacity(loaded.len());
        for (account, revision) in loaded {
            self.revisions.insert(account.name.clone(), revision);
            stored.push(account);
        }
        Ok(stored)
    }

    async fn write(&mut self, changes: &Changes) -> Result<(), PaperError> {
        let next = self.store(changes).await?;
        self.revisions.extend(next);
        Ok(())
    }

    fn ticks(&self, query: TickQuery) -> TickStream {
        TickStream::start(self.pool.clone(), query)
    }
}

const fn written(source: sqlx::Error) -> PaperError {
    PaperError::Database { action: "written", source }
}

const fn unread(source: sqlx::Error) -> PaperError {
    PaperError::Database { action: "read", source }
}

fn corrupt(account: &str, what: &impl std::fmt::Display) -> PaperError {
    PaperError::Corrupt { account: account.to_owned(), what: what.to_string() }
}

impl PgStore {
    async fn store(&self, changes: &Changes) -> Result<BTreeMap<String, i64>, PaperError> {
        let mut transaction = self.pool.begin().await.map_err(written)?;
        let connection = &mut *transaction;
        let mut revisions = BTreeMap::new();
        for (name, state) in &changes.accounts {
            let known = self.revisions.get(&**name).copied().unwrap_or_default();
            self.write_account(connection, name, state, known).await?;
            revisions.insert(name.to_string(), known.saturating_add(1));
        }
        write_orders(connection, &changes.orders).await?;
        write_fills(connection, &changes.fills).await?;
        write_positions(connection, &changes.positions).await?;
        write_equity(connection, &changes.equity).await.map_err(written)?;
        transaction.commit().await.map_err(written)?;
        Ok(revisions)
    }

    async fn write_account(
        &self,
        connection: &mut PgConnection,
        name: &str,
        state: &AccountState,
        known: i64,
    ) -> Result<(), PaperError> {
        // The row is either as this run left it, or already what is written now: a commit whose answer was lost.
        let rows = sqlx::query(
            "INSERT INTO paper_accounts AS a (account, kind, exchange, quote, initial_cash, cash, fees, \
                 last_order, last_fill, seen_at, stopped, revision, writer, began_at, taken_until) \
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 + 1, $13, $14, $15 \
             WHERE $12 = 0 OR EXISTS (SELECT FROM paper_accounts WHERE account = $1) \
             ON CONFLICT (account) DO UPDATE SET kind = $2, cash = $6, fees = $7, last_order = $8, \
                 last_fill = $9, seen_at = $10, stopped = $11, revision = $12 + 1, writer = $13, \
                 began_at = $14, taken_until = $15, stored_at = now() \
             WHERE a.revision = $12 OR (a.revision = $12 + 1 AND a.writer = $13)",
        )
        .bind(name)
        .bind(state.kind)
        .bind(&state.exchange)
        .bind(&state.quote)
        .bind(state.initial_cash)
        .bind(state.cash)
        .bind(state.fees)
        .bind(number(name, state.last_order)?)
        .bind(number(name, state.last_fill)?)
        .bind(state.seen_at.map(Timestamp::to_datetime))
        .bind(&state.stopped)
        .bind(known)
        .bind(&self.writer)
        .bind(state.began_at.map(Timestamp::to_datetime))
        .bind(state.taken_until.map(Timestamp::to_datetime))
        .execute(connection)
        .await
        .map_err(written)?
        .rows_affected();
        if rows == 1 { Ok(()) } else { Err(PaperError::Taken { account: name.to_owned() }) }
    }
}

fn number(account: &str, count: u64) -> Result<i64, PaperError> {
    i64::try_from(count).map_err(|error| corrupt(account, &error))
}

/// Columns of rows that all have an instrument: gathered once, bound as arrays.
#[derive(Default)]
struct Places<'a> {
    accounts: Vec<&'a str>,
    exchanges: Vec<&'static str>,
    symbols: Vec<&'static str>,
    bases: Vec<&'static str>,
}

impl<'a> Places<'a> {
    fn of(rows: impl Iterator<Item = (&'a Arc<str>, Instrument)>) -> Self {
        let mut places = Self::default();
        for (account, instrument) in rows {
            places.accounts.push(account);
            places.exchanges.push(instrument.exchange());
            places.symbols.push(instrument.symbol().as_str());
            places.bases.push(instrument.symbol().base());
        }
        places
    }
}

async fn write_orders(
    connection: &mut PgConnection,
    orders: &BTreeMap<(Arc<str>, u64), Order>,
) -> Result<(), PaperError> {
    let places = Places::of(orders.iter().map(|((name, _), order)| (name, order.instrument)));
    let ids: Vec<i64> =
        orders.keys().map(|(name, id)| number(name, *id)).collect::<Result<_, _>>()?;
    let column = |of: fn(&Order) -> &'static str| -> Vec<_> { orders.values().map(of).collect() };
    let amounts = |of: fn(&Order) -> Decimal| -> Vec<_> { orders.values().map(of).collect() };
    let times = |of: fn(&Order) -> Timestamp| -> Vec<_> {
        orders.values().map(|order| of(order).to_datetime()).collect()
    };
    let reasons: Vec<Option<&str>> =
        orders.values().map(|order| order.reason.map(|reason| reason.as_str())).collect();
    let trade_ids: Vec<String> = orders.values().map(|order| order.trade_id.to_string()).collect();
    sqlx::query(
        "INSERT INTO paper_orders (account, order_id, exchange, symbol, base, side, quantity, filled, status, \
             reason, trade_id, placed_at, updated_at) \
         SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], \
             $7::numeric[], $8::numeric[], $9::text[], $10::text[], $11::text[], $12::timestamptz[], \
             $13::timestamptz[]) \
         ON CONFLICT (account, order_id) DO UPDATE SET filled = excluded.filled, status = excluded.status, \
             reason = excluded.reason, updated_at = excluded.updated_at",
    )
    .bind(places.accounts)
    .bind(ids)
    .bind(places.exchanges)
    .bind(places.symbols)
    .bind(places.bases)
    .bind(column(|order| order.side.as_str()))
    .bind(amounts(|order| order.quantity))
    .bind(amounts(|order| order.filled))
    .bind(column(|order| order.status.as_str()))
    .bind(reasons)
    .bind(trade_ids)
    .bind(times(|order| order.placed_at))
    .bind(times(|order| order.updated_at))
    .execute(connection)
    .await
    .map_err(written)?;
    Ok(())
}

async fn write_fills(
    connection: &mut PgConnection,
    fills: &BTreeMap<(Arc<str>, u64), Fill>,
) -> Result<(), PaperError> {
    let places = Places::of(fills.iter().map(|((name, _), fill)| (name, fill.instrument)));
    let ids: Vec<i64> =
        fills.keys().map(|(name, id)| number(name, *id)).collect::<Result<_, _>>()?;
    let order_ids: Vec<i64> = fills
        .iter()
        .map(|((name, _), fill)| number(name, fill.order_id))
        .collect::<Result<_, _>>()?;
    let sides: Vec<&str> = fills.values().map(|fill| fill.side.as_str()).collect();
    let amounts = |of: fn(&Fill) -> Decimal| -> Vec<_> { fills.values().map(of).collect() };
    let trade_ids: Vec<String> = fills.values().map(|fill| fill.trade_id.to_string()).collect();
    let times: Vec<_> = fills.values().map(|fill| fill.exchange_at.to_datetime()).collect();
    sqlx::query(
        "INSERT INTO paper_fills (account, fill_id, order_id, exchange, symbol, side, price, quantity, value, \
             fee, trade_id, exchange_at) \
         SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], \
             $7::numeric[], $8::numeric[], $9::numeric[], $10::numeric[], $11::text[], $12::timestamptz[]) \
         ON CONFLICT (account, fill_id) DO NOTHING",
    )
    .bind(places.accounts)
    .bind(ids)
    .bind(order_ids)
    .bind(places.exchanges)
    .bind(places.symbols)
    .bind(sides)
    .bind(amounts(|fill| fill.price))
    .bind(amounts(|fill| fill.quantity))
    .bind(amounts(|fill| fill.value))
    .bind(amounts(|fill| fill.fee))
    .bind(trade_ids)
    .bind(times)
    .execute(connection)
    .await
    .map_err(written)?;
    Ok(())
}

async fn write_positions(
    connection: &mut PgConnection,
    positions: &BTreeMap<(Arc<str>, Instrument), Position>,
) -> Result<(), PaperError> {
    let places = Places::of(positions.keys().map(|(name, instrument)| (name, *instrument)));
    let amounts = |of: fn(&Position) -> Decimal| -> Vec<_> { positions.values().map(of).collect() };
    let averages: Vec<Option<Decimal>> = positions.values().map(Position::average_price).collect();
    let times: Vec<_> = positions.values().map(|held| held.last_at.to_datetime()).collect();
    let ids: Vec<Option<String>> =
        positions.values().map(|held| held.last_id.as_ref().map(ToString::to_string)).collect();
    sqlx::query(
        "INSERT INTO paper_positions (account, exchange, symbol, base, quantity, cost, average_price, realized, \
             last_price, last_at, last_trade_id) \
         SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::numeric[], $6::numeric[], \
             $7::numeric[], $8::numeric[], $9::numeric[], $10::timestamptz[], $11::text[]) \
         ON CONFLICT (account, exchange, symbol) DO UPDATE SET quantity = excluded.quantity, \
             cost = excluded.cost, average_price = excluded.average_price, realized = excluded.realized, \
             last_price = excluded.last_price, last_at = excluded.last_at, \
             last_trade_id = excluded.last_trade_id",
    )
    .bind(places.accounts)
    .bind(places.exchanges)
    .bind(places.symbols)
    .bind(places.bases)
    .bind(amounts(|held| held.quantity))
    .bind(amounts(|held| held.cost))
    .bind(averages)
    .bind(amounts(|held| held.realized))
    .bind(amounts(|held| held.last_price))
    .bind(times)
    .bind(ids)
    .execute(connection)
    .await
    .map_err(written)?;
    Ok(())
}

async fn write_equity(
    connection: &mut PgConnection,
    equity: &BTreeMap<(Arc<str>, Timestamp), Valuation>,
) -> Result<(), sqlx::Error> {
    let names: Vec<&str> = equity.keys().map(|(name, _)| &**name).collect();
    let times: Vec<_> = equity.keys().map(|(_, at)| at.to_datetime()).collect();
    let amounts = |of: fn(&Valuation) -> Decimal| -> Vec<_> { equity.values().map(of).collect() };
    // A restart within the interval of a stored point does not move that point.
    sqlx::query(
        "INSERT INTO paper_equity (account, at, cash, position_value, equity, realized, unrealized, fees, pnl) \
         SELECT * FROM UNNEST($1::text[], $2::timestamptz[], $3::numeric[], $4::numeric[], $5::numeric[], \
             $6::numeric[], $7::numeric[], $8::numeric[], $9::numeric[]) \
         ON CONFLICT (account, at) DO NOTHING",
    )
    .bind(names)
    .bind(times)
    .bind(amounts(|worth| worth.cash))
    .bind(amounts(|worth| worth.position_value))
    .bind(amounts(|worth| worth.equity))
    .bind(amounts(|worth| worth.realized))
    .bind(amounts(|worth| worth.unrealized))
    .bind(amounts(|worth| worth.fees))
    .bind(amounts(|worth| worth.pnl))
    .execute(connection)
    .await?;
    Ok(())
}

async fn read(pool: &PgPool, names: &[String]) -> Result<Vec<(StoredAccount, i64)>, PaperError> {
    // One snapshot, so that cash, positions and orders agree.
    let mut transaction =
        pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(unread)?;
    let accounts = sqlx::query(
        "SELECT account, exchange, quote, initial_cash, cash, fees, last_order, last_fill, seen_at, revision, \
             began_at, taken_until, stopped \
         FROM paper_accounts WHERE account = ANY($1)",
    )
    .bind(names)
    .fetch_all(&mut *transaction)
    .await
    .map_err(unread)?;
    let positions = sqlx::query(
        "SELECT account, exchange, symbol, base, quantity, cost, realized, last_price, last_at, last_trade_id \
         FROM paper_positions WHERE account = ANY($1)",
    )
    .bind(names)
    .fetch_all(&mut *transaction)
    .await
    .map_err(unread)?;
    let orders = sqlx::query(
        "SELECT account, order_id, exchange, symbol, base, side, quantity, filled, status, trade_id, placed_at, \
             updated_at \
         FROM paper_orders WHERE account = ANY($1) AND status IN ('new', 'partially_filled')",
    )
    .bind(names)
    .fetch_all(&mut *transaction)
    .await
    .map_err(unread)?;
    transaction.rollback().await.map_err(unread)?;

    let mut loaded = BTreeMap::new();
    for row in &accounts {
        let (account, revision) = account(row)?;
        loaded.insert(account.name.clone(), (account, revision));
    }
    for row in &positions {
        let (name, instrument, position) = position(row)?;
        if let Some((account, _)) = loaded.get_mut(&name) {
            account.positions.insert(instrument, position);
        }
    }
    for row in &orders {
        let (name, order) = order(row)?;
        if let Some((account, _)) = loaded.get_mut(&name) {
            account.open_orders.push(order);
        }
    }
    Ok(loaded.into_values().collect())
}

fn time(row: &PgRow, column: &str) -> Result<Timestamp, PaperError> {
    timestamp(row.try_get(column).map_err(unread)?, column)
}

fn time_if_any(row: &PgRow, column: &str) -> Result<Option<Timestamp>, PaperError> {
    let at: Option<DateTime<Utc>> = row.try_get(column).map_err(unread)?;
    at.map(|at| timestamp(at, column)).transpose()
}

fn timestamp(at: DateTime<Utc>, column: &str) -> Result<Timestamp, PaperError> {
    Timestamp::from_micros(at.timestamp_micros()).map_err(|error| corrupt(column, &error))
}

fn count(row: &PgRow, column: &str) -> Result<u64, PaperError> {
    let number: i64 = row.try_get(column).map_err(unread)?;
    u64::try_from(number).map_err(|error| corrupt(column, &error))
}

fn instrument(row: &PgRow, account: &str) -> Result<Instrument, PaperError> {
    let text = |column| row.try_get::<String, _>(column).map_err(unread);
    let (symbol, base) = (text("symbol")?, text("base")?);
    let quote = symbol.strip_prefix(base.as_str()).unwrap_or_default();
    let symbol = Symbol::new(&base, quote)
        .or_else(|_| Symbol::from_str(&symbol))
        .map_err(|error| corrupt(account, &error))?;
    Ok(Instrument::intern(&text("exchange")?, &symbol)?)
}

fn account(row: &PgRow) -> Result<(StoredAccount, i64), PaperError> {
    let text = |column| row.try_get::<String, _>(column).map_err(unread);
    let amount = |column| row.try_get::<Decimal, _>(column).map_err(unread);
    let account = StoredAccount {
        name: text("account")?,
        quote: text("quote")?,
        exchange: text("exchange")?,
        initial_cash: amount("initial_cash")?,
        cash: amount("cash")?,
        fees: amount("fees")?,
        last_order: count(row, "last_order")?,
        last_fill: count(row, "last_fill")?,
        seen_at: time_if_any(row, "seen_at")?,
        began_at: time_if_any(row, "began_at")?,
        taken_until: time_if_any(row, "taken_until")?,
        stopped: row.try_get("stopped").map_err(unread)?,
        positions: BTreeMap::new(),
        open_orders: Vec::new(),
    };
    Ok((account, row.try_get("revision").map_err(unread)?))
}

fn position(row: &PgRow) -> Result<(String, Instrument, Position), PaperError> {
    let amount = |column| row.try_get::<Decimal, _>(column).map_err(unread);
    let name: String = row.try_get("account").map_err(unread)?;
    let instrument = instrument(row, &name)?;
    let position = Position {
        quantity: amount("quantity")?,
        cost: amount("cost")?,
        realized: amount("realized")?,
        last_price: amount("last_price")?,
        last_at: time(row, "last_at")?,
        last_id: row
            .try_get::<Option<String>, _>("last_trade_id")
            .map_err(unread)?
            .map(|id| TradeId::from_text(&id)),
    };
    Ok((name, instrument, position))
}

fn order(row: &PgRow) -> Result<(String, Order), PaperError> {
    let text = |column| row.try_get::<String, _>(column).map_err(unread);
    let name = text("account")?;
    let side = match text("side")?.as_str() {
        "buy" => Side::Buy,
        "sell" => Side::Sell,
        other => return Err(corrupt(&name, &other)),
    };
    let status = text("status")?;
    let order = Order {
        id: count(row, "order_id")?,
        instrument: instrument(row, &name)?,
        side,
        quantity: row.try_get("quantity").map_err(unread)?,
        filled: row.try_get("filled").map_err(unread)?,
        status: OrderStatus::from_name(&status).ok_or_else(|| corrupt(&name, &status))?,
        reason: None,
        trade_id: TradeId::from_text(&text("trade_id")?),
        placed_at: time(row, "placed_at")?,
        updated_at: time(row, "updated_at")?,
    };
    Ok((name, order))
}
