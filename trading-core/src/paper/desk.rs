//! One strategy at work: its instruments, its orders, its account.

use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::Decimal;

use super::account::{Account, AccountError, Position};
use super::changes::{AccountState, Change, Event};
use super::error::PaperError;
use super::fills::{Fill, Match, Order, OrderStatus, Reason, Terms};
use super::money::{self, Overflow};
use super::strategy::{Signal, Size, Strategy, View};
use super::summary::StrategySummary;
use crate::domain::{Instrument, Side, Tick, Timestamp};

/// An account as it was stored: what a restart continues from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAccount {
    /// The strategy's name.
    pub name: String,
    /// The currency of its cash.
    pub quote: String,
    /// The exchange that it trades on.
    pub exchange: String,
    /// Cash at the start, in quote currency.
    pub initial_cash: Decimal,
    /// Cash, in quote currency.
    pub cash: Decimal,
    /// Fees paid, in quote currency.
    pub fees: Decimal,
    /// The last order's id.
    pub last_order: u64,
    /// The last fill's id.
    pub last_fill: u64,
    /// Exchange time of the newest tick seen; `None` before the first.
    pub seen_at: Option<Timestamp>,
    /// When its strategies began to take ticks; `None` where an earlier version did not store it.
    pub began_at: Option<Timestamp>,
    /// When the newest tick that it takes account of arrived; `None` likewise.
    pub taken_until: Option<Timestamp>,
    /// Why it was stopped, if it was.
    pub stopped: Option<String>,
    /// Positions, by instrument.
    pub positions: BTreeMap<Instrument, Position>,
    /// Orders that are still open.
    pub open_orders: Vec<Order>,
}

/// What a stored account has seen of one instrument.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    pub(super) instrument: Instrument,
    /// When the strategies began to take ticks.
    pub(super) began_at: Timestamp,
    /// When the newest tick that the account takes account of arrived.
    pub(super) taken_until: Timestamp,
    /// The position, with the last tick seen.
    pub(super) position: Position,
}

/// A strategy on one instrument, and its order there.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) strategy: Box<dyn Strategy>,
    order: Option<Order>,
}

impl Book {
    pub(super) const fn new(strategy: Box<dyn Strategy>) -> Self {
        Self { strategy, order: None }
    }
}

/// One strategy with its account.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) name: Arc<str>,
    pub(super) kind: &'static str,
    pub(super) exchange: String,
    pub(super) quote: String,
    pub(super) terms: Terms,
    pub(super) equity_interval_micros: i64,
    books: BTreeMap<Instrument, Book>,
    account: Account,
    last_order: u64,
    last_fill: u64,
    seen_at: Option<Timestamp>,
    began_at: Option<Timestamp>,
    taken_until: Option<Timestamp>,
    late: u64,
    stopped: Option<String>,
}

impl Desk {
    /// A desk that has never traded.
    pub(super) fn new(
        (name, kind): (&str, &'static str),
        (exchange, quote): (&str, &str),
        terms: Terms,
        cash: Decimal,
        equity_interval_micros: i64,
        books: BTreeMap<Instrument, Book>,
    ) -> Self {
        Self {
            name: name.into(),
            kind,
            exchange: exchange.to_owned(),
            quote: quote.to_owned(),
            terms,
            equity_interval_micros: equity_interval_micros.max(1),
            books,
            account: Account::new(cash),
            last_order: 0,
            last_fill: 0,
            seen_at: None,
            began_at: None,
            taken_until: None,
            late: 0,
            stopped: None,
        }
    }

    /// Continues a stored account: what it had stays, also where the settings now give another cash.
    pub(super) fn restore(&mut self, stored: StoredAccount) -> Result<(), PaperError> {
        let differs = |what, stored: &str, configured: &str| PaperError::OtherAccount {
            account: self.name.to_string(),
            what,
            stored: stored.to_owned(),
            configured: configured.to_owned(),
        };
        if stored.quote != self.quote {
            return Err(differs("quote currency", &stored.quote, &self.quote));
        }
        if stored.exchange != self.exchange {
            return Err(differs("exchange", &stored.exchange, &self.exchange));
        }
        self.account =
            Account::restored(stored.initial_cash, stored.cash, stored.fees, stored.positions);
        self.last_order = stored.last_order;
        self.last_fill = stored.last_fill;
        self.seen_at = stored.seen_at;
        // An account that was stopped begins anew: the ticks that stopped it would do so again.
        if stored.stopped.is_none()
            && let (Some(began_at), Some(taken_until)) = (stored.began_at, stored.taken_until)
        {
            self.began_at = Some(began_at);
            self.taken_until = Some(taken_until);
        }
        for order in stored.open_orders {
            // An order of a symbol that is no longer configured stays as it is, until the symbol comes back.
            if let Some(book) = self.books.get_mut(&order.instrument) {
                book.order = Some(order);
            }
        }
        Ok(())
    }

    /// What it trades.
    pub(super) fn instruments(&self) -> impl Iterator<Item = Instrument> {
        self.books.keys().copied()
    }

    /// Takes the next tick of one of its instruments.
    pub(super) fn on_tick(&mut self, tick: &Tick, events: &mut Vec<Event>) {
        if self.stopped.is_some() {
            return;
        }
        let seen = self.account.positions().get(&tick.instrument);
        let is_sound = tick.price > Decimal::ZERO && tick.quantity > Decimal::ZERO;
        if seen.is_some_and(|position| position.has_seen(tick)) || !is_sound {
            self.leave_out();
            return;
        }
        let before = events.len();
        if let Err(error) = self.trade(tick, events) {
            self.stop(&error, tick, events);
        }
        if events.len() > before {
            self.publish(events);
        }
    }

    /// Counts a tick that is not traded on.
    pub(super) const fn leave_out(&mut self) {
        self.late = self.late.saturating_add(1);
    }

    /// An account that remembers nothing takes the ticks that arrive from now on, which is worth storing.
    pub(super) fn begin(&mut self, now: Timestamp, events: &mut Vec<Event>) {
        if self.taken_until.is_none() {
            self.began_at = Some(now);
            self.taken_until = Some(now);
            self.publish(events);
        }
    }

    /// What the stored account remembers of each of its instruments.
    pub(super) fn memories(&self) -> Vec<Memory> {
        let (Some(began_at), Some(taken_until)) = (self.began_at, self.taken_until) else {
            return Vec::new();
        };
        let positions = self.account.positions();
        let memory = |instrument| {
            let position = positions.get(&instrument)?.clone();
            Some(Memory { instrument, began_at, taken_until, position })
        };
        self.instruments().filter_map(memory).collect()
    }

    /// Gives an instrument a strategy that has seen what the account has seen.
    pub(super) fn remember(&mut self, instrument: Instrument, strategy: Box<dyn Strategy>) {
        if let Some(book) = self.books.get_mut(&instrument) {
            book.strategy = strategy;
        }
    }

    /// Exchange time of the last tick taken of an instrument.
    pub(super) fn last_at(&self, instrument: Instrument) -> Option<Timestamp> {
        self.account.positions().get(&instrument).map(|position| position.last_at)
    }

    /// When the newest tick that the account takes account of arrived.
    pub(super) const fn taken_until(&self) -> Option<Timestamp> {
        self.taken_until
    }

    /// Takes a stored tick that the run before may have taken after it had last stored the account.
    pub(super) fn catch_up(&mut self, tick: &Tick, events: &mut Vec<Event>) {
        let late = self.late;
        if self.taken_until.is_some_and(|until| tick.received_at >= until) {
            self.on_tick(tick, events);
        }
        self.late = late;
    }

    /// The last point of the equity curve, at the newest tick.
    pub(super) fn finish(&mut self, events: &mut Vec<Event>) {
        if let (Some(at), Ok(valuation)) = (self.seen_at, self.account.valuation()) {
            self.tell(Change::Equity(at, valuation), events);
            self.publish(events);
        }
    }

    /// How it does.
    pub(super) fn summary(&self) -> StrategySummary {
        StrategySummary {
            name: Arc::clone(&self.name),
            quote: self.quote.clone(),
            orders: self.last_order,
            fills: self.last_fill,
            valuation: self.account.valuation().ok(),
            late: self.late,
            stopped: self.stopped.clone(),
        }
    }

    fn trade(&mut self, tick: &Tick, events: &mut Vec<Event>) -> Result<(), AccountError> {
        self.value_at_interval(tick.exchange_at, events)?;
        self.take_note(tick);
        self.account.mark(tick);
        // The open order comes first: what this tick causes can only be filled by a later one.
        self.fill(tick, events)?;
        if let Some(signal) = self.ask(tick)? {
            self.place(signal, tick, events)?;
        }
        Ok(())
    }

    /// At the first tick after each full interval, what the account was worth before it.
    fn value_at_interval(
        &mut self,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Result<(), Overflow> {
        let slot_of = |at: Timestamp| at.as_micros().div_euclid(self.equity_interval_micros);
        let slot = slot_of(now);
        if self.seen_at.is_some_and(|last| slot <= slot_of(last)) {
            return Ok(());
        }
        let start = slot.saturating_mul(self.equity_interval_micros);
        let at = Timestamp::from_micros(start).unwrap_or(now);
        let valuation = self.account.valuation()?;
        self.tell(Change::Equity(at, valuation), events);
        Ok(())
    }

    fn fill(&mut self, tick: &Tick, events: &mut Vec<Event>) -> Result<(), AccountError> {
        let Some(book) = self.books.get_mut(&tick.instrument) else { return Ok(()) };
        let Some(order) = &mut book.order else { return Ok(()) };
        let fill = match self.terms.match_order(order, tick, &self.account)? {
            Match::Nothing => return Ok(()),
            Match::Cancel(reason) => {
                order.status = OrderStatus::Cancelled;
                order.reason = Some(reason);
                None
            }
            Match::Fill { price, quantity, value, fee } => {
                let filled = money::sum(order.filled, quantity)?;
                self.account.book(tick.instrument, order.side, quantity, value, fee)?;
                order.filled = filled;
                order.status = if filled == order.quantity {
                    OrderStatus::Filled
                } else {
                    OrderStatus::PartiallyFilled
                };
                self.last_fill = self.last_fill.saturating_add(1);
                Some(Fill {
                    id: self.last_fill,
                    order_id: order.id,
                    instrument: tick.instrument,
                    side: order.side,
                    price,
                    quantity,
                    value,
                    fee,
                    trade_id: tick.trade_id.clone(),
                    exchange_at: tick.exchange_at,
                })
            }
        };
        order.updated_at = tick.exchange_at;
        let told = order.clone();
        if !told.status.is_open() {
            book.order = None;
        }
        self.tell(Change::Order(told), events);
        if let Some(fill) = fill {
            self.tell(Change::Fill(fill), events);
        }
        Ok(())
    }

    fn ask(&mut self, tick: &Tick) -> Result<Option<Signal>, Overflow> {
        let Some(book) = self.books.get_mut(&tick.instrument) else { return Ok(None) };
        let position = self.account.positions().get(&tick.instrument);
        let view = View {
            quantity: position.map_or(Decimal::ZERO, |position| position.quantity),
            cost: position.map_or(Decimal::ZERO, |position| position.cost),
            cash: self.account.cash(),
            open_order: book.order.as_ref().map(|order| order.side),
        };
        book.strategy.on_tick(tick, &view)
    }

    fn place(
        &mut self,
        signal: Signal,
        tick: &Tick,
        events: &mut Vec<Event>,
    ) -> Result<(), Overflow> {
        let (side, size) = match signal {
            Signal::Buy(size) => (Side::Buy, size),
            Signal::Sell(size) => (Side::Sell, size),
        };
        let Some(book) = self.books.get_mut(&tick.instrument) else { return Ok(()) };
        if book.order.as_ref().is_some_and(|order| order.side == side) {
            return Ok(());
        }
        let (allowed, bound) = match side {
            Side::Buy => {
                let price = self.terms.fill_price(side, tick.price)?;
                self.terms.room(&self.account, tick.instrument, price)?
            }
            Side::Sell => (self.account.quantity(tick.instrument), Reason::NoPosition),
        };
        let replaced = book.order.take();
        let nothing_to_do = side == Side::Sell && size == Size::All && allowed.is_zero();
        let placed = (!nothing_to_do).then(|| {
            let quantity = match size {
                Size::All => allowed,
                Size::Quantity(quantity) => money::whole_lots(quantity),
            };
            let reason = if quantity > allowed || (size == Size::All && allowed.is_zero()) {
                Some(bound)
            } else {
                (quantity <= Decimal::ZERO).then_some(Reason::Quantity)
            };
            self.last_order = self.last_order.saturating_add(1);
            new_order(self.last_order, side, quantity, reason, tick)
        });
        book.order = placed.clone().filter(|order| order.status.is_open());
        if let Some(order) = replaced {
            let cancelled = cancel(order, Reason::OppositeSignal, tick.exchange_at);
            self.tell(Change::Order(cancelled), events);
        }
        if let Some(order) = placed {
            self.tell(Change::Order(order), events);
        }
        Ok(())
    }

    /// Ends trading for this run: a number of the account would no longer be exact.
    fn stop(&mut self, error: &AccountError, tick: &Tick, events: &mut Vec<Event>) {
        self.stopped = Some(format!("{}: {error}", tick.instrument));
        let orders: Vec<Order> =
            self.books.values_mut().filter_map(|book| book.order.take()).collect();
        for order in orders {
            let cancelled = cancel(order, Reason::AccountStopped, tick.exchange_at);
            self.tell(Change::Order(cancelled), events);
        }
        self.take_note(tick);
    }

    fn take_note(&mut self, tick: &Tick) {
        self.seen_at = self.seen_at.max(Some(tick.exchange_at));
        self.taken_until = self.taken_until.max(Some(tick.received_at));
    }

    /// The account and its positions, which are stored with whatever changed them.
    fn publish(&self, events: &mut Vec<Event>) {
        for (instrument, position) in self.account.positions() {
            self.tell(Change::Position(*instrument, position.clone()), events);
        }
        self.tell(
            Change::Account(AccountState {
                kind: self.kind,
                exchange: self.exchange.clone(),
                quote: self.quote.clone(),
                initial_cash: self.account.initial_cash(),
                cash: self.account.cash(),
                fees: self.account.fees(),
                last_order: self.last_order,
                last_fill: self.last_fill,
                seen_at: self.seen_at,
                began_at: self.began_at,
                taken_until: self.taken_until,
                stopped: self.stopped.clone(),
            }),
            events,
        );
    }

    fn tell(&self, change: Change, events: &mut Vec<Event>) {
        events.push(Event { account: Arc::clone(&self.name), change });
    }
}

fn new_order(id: u64, side: Side, quantity: Decimal, reason: Option<Reason>, tick: &Tick) -> Order {
    Order {
        id,
        instrument: tick.instrument,
        side,
        quantity,
        filled: Decimal::ZERO,
        status: if reason.is_some() { OrderStatus::Rejected } else { OrderStatus::New },
        reason,
        trade_id: tick.trade_id.clone(),
        placed_at: tick.exchange_at,
        updated_at: tick.exchange_at,
    }
}

fn cancel(order: Order, reason: Reason, at: Timestamp) -> Order {
    // A tick of another symbol, whose clock may be behind, can end an order.
    let updated_at = order.updated_at.max(at);
    Order { status: OrderStatus::Cancelled, reason: Some(reason), updated_at, ..order }
}
