//! Cash and positions of one strategy, to the last digit.
//!
//! Long only: what is sold was bought before. At every moment, exactly,
//!
//! ```text
//! cash   = initial cash - value of buys + value of sells - fees
//! equity = cash + positions at their last price = initial cash + realized + unrealized - fees
//! ```
//!
//! An operation that cannot be done leaves the account as it was and says why.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use rust_decimal::{Decimal, RoundingStrategy};

use super::money::{self, Overflow};
use crate::domain::{Instrument, Side, Tick, Timestamp, TradeId};

/// What an account holds of one instrument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Units of base, never negative.
    pub quantity: Decimal,
    /// What the quantity held was bought for, in quote currency, without fees.
    pub cost: Decimal,
    /// Profit of what was sold over what it was bought for, in quote currency, before fees.
    pub realized: Decimal,
    /// The last price seen, quote per base.
    pub last_price: Decimal,
    /// Exchange time of that price.
    pub last_at: Timestamp,
    /// The trade of that price; `None` where an earlier version did not store it.
    pub last_id: Option<TradeId>,
}

impl Position {
    /// Nothing held, seen first at this tick.
    #[must_use]
    pub fn flat(tick: &Tick) -> Self {
        Self {
            quantity: Decimal::ZERO,
            cost: Decimal::ZERO,
            realized: Decimal::ZERO,
            last_price: tick.price,
            last_at: tick.exchange_at,
            last_id: Some(tick.trade_id.clone()),
        }
    }

    /// Whether a tick of its instrument is the last one seen or older. Within one instant ids that count decide;
    /// others only show the same tick again.
    #[must_use]
    pub fn has_seen(&self, tick: &Tick) -> bool {
        match (&self.last_id, tick.exchange_at.cmp(&self.last_at)) {
            (_, Ordering::Less) => true,
            (None, _) | (_, Ordering::Greater) => false,
            (Some(last), Ordering::Equal) => match (last.number(), tick.trade_id.number()) {
                (Some(last), Some(id)) => id <= last,
                _ => *last == tick.trade_id,
            },
        }
    }

    /// Quote per base that the quantity held was bought for, to twelve places; `None` when nothing is held.
    #[must_use]
    pub fn average_price(&self) -> Option<Decimal> {
        self.cost.checked_div(self.quantity).map(|price| price.round_dp(money::MONEY_DIGITS))
    }

    /// The quantity at the last price, in quote currency.
    ///
    /// # Errors
    ///
    /// When the value is too large to be exact.
    pub fn value(&self) -> Result<Decimal, Overflow> {
        money::value(self.last_price, self.quantity)
    }
}

/// Why an account refused a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// A number would no longer be exact.
    #[error(transparent)]
    Overflow(#[from] Overflow),
    /// A buy for more than the cash.
    #[error("a buy for more than the cash")]
    Cash,
    /// A sell of more than is held.
    #[error("a sell of more than is held")]
    Position,
}

/// What an account is worth at one moment, in quote currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Valuation {
    /// Cash.
    pub cash: Decimal,
    /// Positions at their last price.
    pub position_value: Decimal,
    /// Cash and positions.
    pub equity: Decimal,
    /// Realized profit, before fees.
    pub realized: Decimal,
    /// Profit of what is held, at the last price.
    pub unrealized: Decimal,
    /// Fees paid.
    pub fees: Decimal,
    /// Equity less the initial cash: profit after fees.
    pub pnl: Decimal,
}

impl Valuation {
    /// An amount of this account as it is shown: to cents, or to eight places where the account is worth less than a
    /// hundred, as one in bitcoin. Rounded half away from zero; a precision of `format!` would cut the rest off.
    #[must_use]
    pub fn shown(&self, amount: Decimal) -> Decimal {
        let digits = if self.equity.abs() >= Decimal::ONE_HUNDRED { 2 } else { 8 };
        let mut shown =
            amount.round_dp_with_strategy(digits, RoundingStrategy::MidpointAwayFromZero);
        shown.rescale(digits);
        shown
    }
}

/// The account of one strategy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    initial_cash: Decimal,
    cash: Decimal,
    fees: Decimal,
    positions: BTreeMap<Instrument, Position>,
}

impl Account {
    /// An account that has never traded, with this cash in quote currency.
    #[must_use]
    pub const fn new(cash: Decimal) -> Self {
        Self { initial_cash: cash, cash, fees: Decimal::ZERO, positions: BTreeMap::new() }
    }

    /// An account as it was stored, in quote currency.
    #[must_use]
    pub const fn restored(
        initial_cash: Decimal,
        cash: Decimal,
        fees: Decimal,
        positions: BTreeMap<Instrument, Position>,
    ) -> Self {
        Self { initial_cash, cash, fees, positions }
    }

    /// Cash at the start, in quote currency.
    #[must_use]
    pub const fn initial_cash(&self) -> Decimal {
        self.initial_cash
    }

    /// Cash now, in quote currency, never negative.
    #[must_use]
    pub const fn cash(&self) -> Decimal {
        self.cash
    }

    /// Fees paid since the start, in quote currency.
    #[must_use]
    pub const fn fees(&self) -> Decimal {
        self.fees
    }

    /// What is held, and what was held before, by instrument.
    #[must_use]
    pub const fn positions(&self) -> &BTreeMap<Instrument, Position> {
        &self.positions
    }

    /// Units of base held, zero where nothing ever was.
    #[must_use]
    pub fn quantity(&self, instrument: Instrument) -> Decimal {
        self.positions.get(&instrument).map_or(Decimal::ZERO, |position| position.quantity)
    }

    /// Takes note of a tick: at its price positions are valued.
    pub fn mark(&mut self, tick: &Tick) {
        let position =
            self.positions.entry(tick.instrument).or_insert_with(|| Position::flat(tick));
        position.last_price = tick.price;
        position.last_at = tick.exchange_at;
        position.last_id = Some(tick.trade_id.clone());
    }

    /// Books one fill: `quantity` of base for `value` of quote, and the fee.
    ///
    /// # Errors
    ///
    /// When cash or position do not cover it, or a number would no longer be exact; nothing is booked then.
    pub fn book(
        &mut self,
        instrument: Instrument,
        side: Side,
        quantity: Decimal,
        value: Decimal,
        fee: Decimal,
    ) -> Result<(), AccountError> {
        let held = self.positions.get(&instrument).ok_or(AccountError::Position)?;
        let mut position = held.clone();
        let fees = money::sum(self.fees, fee)?;
        let cash = match side {
            Side::Buy => {
                position.quantity = money::sum(held.quantity, quantity)?;
                position.cost = money::sum(held.cost, value)?;
                money::difference(money::difference(self.cash, value)?, fee)?
            }
            Side::Sell => {
                position.quantity = money::difference(held.quantity, quantity)?;
                if position.quantity < Decimal::ZERO {
                    return Err(AccountError::Position);
                }
                let bought_for = if position.quantity.is_zero() {
                    held.cost
                } else {
                    money::proportion(held.cost, quantity, held.quantity)?
                };
                position.cost = money::difference(held.cost, bought_for)?;
                let profit = money::difference(value, bought_for)?;
                position.realized = money::sum(held.realized, profit)?;
                money::difference(money::sum(self.cash, value)?, fee)?
            }
        };
        if cash < Decimal::ZERO {
            return Err(AccountError::Cash);
        }
        self.cash = cash;
        self.fees = fees;
        self.positions.insert(instrument, position);
        Ok(())
    }

    /// What the account is worth at the last prices.
    ///
    /// # Errors
    ///
    /// When a number is too large to be exact.
    pub fn valuation(&self) -> Result<Valuation, Overflow> {
        let mut position_value = Decimal::ZERO;
        let mut cost = Decimal::ZERO;
        let mut realized = Decimal::ZERO;
        for position in self.positions.values() {
            position_value = money::sum(position_value, position.value()?)?;
            cost = money::sum(cost, position.cost)?;
            realized = money::sum(realized, position.realized)?;
        }
        let equity = money::sum(self.cash, position_value)?;
        Ok(Valuation {
            cash: self.cash,
            position_value,
            equity,
            realized,
            unrealized: money::difference(position_value, cost)?,
            fees: self.fees,
            pnl: money::difference(equity, self.initial_cash)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paper::testing::{btc, decimal, tick};

    fn account() -> Account {
        let mut account = Account::new(decimal("1000"));
        account.mark(&tick(1, 0, "100", "1"));
        account
    }

    #[test]
    fn a_round_trip_books_profit_and_fees_apart() {
        let mut account = account();
        account.book(btc(), Side::Buy, decimal("2"), decimal("200"), decimal("0.2")).unwrap();
        account.mark(&tick(2, 1, "110", "1"));
        let held = account.valuation().unwrap();
        assert_eq!((held.unrealized, held.pnl), (decimal("20"), decimal("19.8")));

        account.book(btc(), Side::Sell, decimal("1"), decimal("110"), decimal("0.11")).unwrap();
        let position = &account.positions()[&btc()];
        assert_eq!(position.average_price(), Some(decimal("100")));
        assert_eq!(position.realized, decimal("10"));
        assert_eq!(account.cash(), decimal("909.69"));
        assert_eq!(account.fees(), decimal("0.31"));
    }

    #[test]
    fn what_is_not_covered_changes_nothing() {
        let mut account = account();
        let before = account.clone();
        let too_dear =
            account.book(btc(), Side::Buy, decimal("10"), decimal("1000"), decimal("0.1"));
        assert_eq!(too_dear, Err(AccountError::Cash));
        let short = account.book(btc(), Side::Sell, decimal("1"), decimal("100"), Decimal::ZERO);
        assert_eq!(short, Err(AccountError::Position));
        let huge = decimal("999999999999999");
        assert_eq!(
            account.book(btc(), Side::Buy, huge, huge, huge),
            Err(AccountError::Overflow(Overflow))
        );
        assert_eq!(account, before);
    }

    #[test]
    fn a_tick_is_seen_when_it_is_the_last_one_or_older() {
        let position = Position::flat(&tick(7, 100, "1", "1"));
        let seen = |id, micros| position.has_seen(&tick(id, micros, "1", "1"));
        assert!(seen(7, 100) && seen(6, 100) && seen(9, 99));
        assert!(!seen(8, 100) && !seen(1, 101));
        let text = |id: &str| Tick { trade_id: TradeId::from_text(id), ..tick(0, 100, "1", "1") };
        let position = Position::flat(&text("b-1"));
        assert!(position.has_seen(&text("b-1")) && !position.has_seen(&text("a-2")));
    }
}
