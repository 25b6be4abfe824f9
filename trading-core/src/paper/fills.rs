//! Orders, and how they fill: at the ticks after the one that caused them, and never for more than was traded.
//!
//! Orders are market orders. The next ticks of the same instrument fill one, each for at most its own quantity,
//! so that a large order takes several. The price is the tick's, moved against the order by the slippage; the
//! fee is paid in quote currency on top. A buy is bounded by the cash and by the position limit at the price of
//! each fill; what these no longer allow is cancelled. A sell is bounded by the position: there are no short sales.
//!
//! ```text
//! new ──▶ partially filled ──▶ filled
//!  │            └──▶ cancelled (cash, position limit, opposite signal, account stopped)
//!  └──▶ rejected (never stood: nothing to sell, no cash, no room)
//! ```

use rust_decimal::{Decimal, RoundingStrategy};

use super::account::Account;
use super::money::{self, Overflow};
use crate::domain::{Instrument, Side, Tick, Timestamp, TradeId};

/// The state of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderStatus {
    /// Accepted, nothing filled.
    New,
    /// Partly filled, and still open.
    PartiallyFilled,
    /// All filled.
    Filled,
    /// Ended before it was full.
    Cancelled,
    /// Refused: it never stood.
    Rejected,
}

impl OrderStatus {
    const ALL: [Self; 5] =
        [Self::New, Self::PartiallyFilled, Self::Filled, Self::Cancelled, Self::Rejected];

    /// The name as stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::PartiallyFilled => "partially_filled",
            Self::Filled => "filled",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
        }
    }

    /// The status with this stored name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether more may be filled.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::New | Self::PartiallyFilled)
    }
}

/// Why an order was cancelled or rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The cash does not pay for more.
    Cash,
    /// The position limit allows no more.
    PositionLimit,
    /// There is less to sell than that.
    NoPosition,
    /// The quantity is not positive.
    Quantity,
    /// The strategy wants the other side now.
    OppositeSignal,
    /// The account was stopped: an amount passed what is kept exactly.
    AccountStopped,
}

impl Reason {
    /// The name as stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cash => "cash",
            Self::PositionLimit => "position_limit",
            Self::NoPosition => "no_position",
            Self::Quantity => "quantity",
            Self::OppositeSignal => "opposite_signal",
            Self::AccountStopped => "account_stopped",
        }
    }
}

/// A market order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Counts from 1 within its account.
    pub id: u64,
    /// What is traded.
    pub instrument: Instrument,
    /// Buy or sell.
    pub side: Side,
    /// Units of base asked for.
    pub quantity: Decimal,
    /// Units of base filled so far.
    pub filled: Decimal,
    /// Its state.
    pub status: OrderStatus,
    /// Why it was cancelled or rejected.
    pub reason: Option<Reason>,
    /// The tick that caused it; it never fills this order.
    pub trade_id: TradeId,
    /// Exchange time of that tick.
    pub placed_at: Timestamp,
    /// Exchange time of the tick that last changed the order.
    pub updated_at: Timestamp,
}

/// One tick's part of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    /// Counts from 1 within its account.
    pub id: u64,
    /// Its order.
    pub order_id: u64,
    /// What was traded.
    pub instrument: Instrument,
    /// Buy or sell.
    pub side: Side,
    /// Quote per base, with the slippage.
    pub price: Decimal,
    /// Units of base.
    pub quantity: Decimal,
    /// Price times quantity, in quote currency, to twelve places.
    pub value: Decimal,
    /// Paid in quote currency, on top of the value.
    pub fee: Decimal,
    /// The tick that filled it.
    pub trade_id: TradeId,
    /// Exchange time of that tick.
    pub exchange_at: Timestamp,
}

/// On what terms an account trades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Fee per traded value: `0.001` is 0.1 %.
    pub fee_rate: Decimal,
    /// Price moved against the order, as a part of the price.
    pub slippage: Decimal,
    /// The most value held of one instrument, in quote currency.
    pub position_limit: Decimal,
}

/// What a tick does to an open order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// It fills this much.
    Fill { price: Decimal, quantity: Decimal, value: Decimal, fee: Decimal },
    /// It is too small to fill any.
    Nothing,
    /// The order can get no more.
    Cancel(Reason),
}

impl Terms {
    /// The price at which a tick fills an order, rounded against the order.
    pub(super) fn fill_price(self, side: Side, price: Decimal) -> Result<Decimal, Overflow> {
        let (factor, rounding) = match side {
            Side::Buy => {
                (Decimal::ONE.checked_add(self.slippage), RoundingStrategy::ToPositiveInfinity)
            }
            Side::Sell => {
                (Decimal::ONE.checked_sub(self.slippage), RoundingStrategy::ToNegativeInfinity)
            }
        };
        let moved = money::within(price.checked_mul(factor.ok_or(Overflow)?))?;
        Ok(moved.round_dp_with_strategy(money::MONEY_DIGITS, rounding))
    }

    /// Units of base that a buy may still get at this price, and what bounds them.
    pub(super) fn room(
        self,
        account: &Account,
        instrument: Instrument,
        price: Decimal,
    ) -> Result<(Decimal, Reason), Overflow> {
        let fee = price.checked_mul(self.fee_rate).ok_or(Overflow)?;
        let with_fee = money::sum(price, fee)?;
        let by_cash = money::quantity_for(account.cash(), with_fee)?;
        let held = money::value(price, account.quantity(instrument))?;
        let by_limit = money::quantity_for(money::difference(self.position_limit, held)?, price)?;
        Ok(if by_limit < by_cash {
            (by_limit, Reason::PositionLimit)
        } else {
            (by_cash, Reason::Cash)
        })
    }

    /// What a tick does to an open order of its instrument.
    pub(super) fn match_order(
        self,
        order: &Order,
        tick: &Tick,
        account: &Account,
    ) -> Result<Match, Overflow> {
        let price = self.fill_price(order.side, tick.price)?;
        let (allowed, reason) = match order.side {
            Side::Buy => self.room(account, order.instrument, price)?,
            Side::Sell => (account.quantity(order.instrument), Reason::NoPosition),
        };
        if allowed <= Decimal::ZERO {
            return Ok(Match::Cancel(reason));
        }
        let remaining = money::difference(order.quantity, order.filled)?;
        let quantity = remaining.min(allowed).min(money::whole_lots(tick.quantity));
        if quantity <= Decimal::ZERO {
            return Ok(Match::Nothing);
        }
        let value = money::value(price, quantity)?;
        Ok(Match::Fill { price, quantity, value, fee: money::fee(value, self.fee_rate)? })
    }
}
