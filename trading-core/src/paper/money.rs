//! Arithmetic that never rounds in silence and never panics.
//!
//! Money is kept to [`MONEY_DIGITS`] decimal places and quantities to [`QUANTITY_DIGITS`], both below
//! [`LIMIT`] in size: every sum then fits a [`Decimal`] with all its digits. Where a result must be rounded (a
//! price with slippage, a value, a fee), the function says which way.

use rust_decimal::{Decimal, RoundingStrategy};

/// Decimal places of prices, values, fees and cash: four more than any venue quotes.
pub(super) const MONEY_DIGITS: u32 = 12;

/// Decimal places of quantities: one satoshi.
pub(super) const QUANTITY_DIGITS: u32 = 8;

/// What any amount must stay below: a thousand million million.
const LIMIT: Decimal = Decimal::from_parts(0xA4C6_8000, 0x0003_8D7E, 0, false, 0);

/// One last place of money.
const MONEY_STEP: Decimal = Decimal::from_parts(1, 0, 0, false, MONEY_DIGITS);

/// A number grew past what is kept exactly: 10^15.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an amount passed 10^15, more than is kept exactly")]
pub struct Overflow;

/// The result of an operation, if it was possible and is within the limit.
pub(super) fn within(result: Option<Decimal>) -> Result<Decimal, Overflow> {
    result.filter(|amount| amount.abs() < LIMIT).ok_or(Overflow)
}

/// `a + b`, exact for amounts within the limit.
pub(super) fn sum(a: Decimal, b: Decimal) -> Result<Decimal, Overflow> {
    within(a.checked_add(b))
}

/// `a - b`, exact for amounts within the limit.
pub(super) fn difference(a: Decimal, b: Decimal) -> Result<Decimal, Overflow> {
    within(a.checked_sub(b))
}

/// `price * quantity`, to the nearest last place of money, halves to even.
pub(super) fn value(price: Decimal, quantity: Decimal) -> Result<Decimal, Overflow> {
    within(price.checked_mul(quantity)).map(|value| value.round_dp(MONEY_DIGITS))
}

/// `value * fee_rate`, rounded up: never in the account's favour.
pub(super) fn fee(value: Decimal, fee_rate: Decimal) -> Result<Decimal, Overflow> {
    within(value.checked_mul(fee_rate))
        .map(|fee| fee.round_dp_with_strategy(MONEY_DIGITS, RoundingStrategy::AwayFromZero))
}

/// The part `share / whole` of an amount, to the nearest last place of money.
pub(super) fn proportion(
    amount: Decimal,
    share: Decimal,
    whole: Decimal,
) -> Result<Decimal, Overflow> {
    let part = share.checked_div(whole).ok_or(Overflow)?;
    within(amount.checked_mul(part)).map(|amount| amount.round_dp(MONEY_DIGITS))
}

/// The quantity that `amount` buys at `price`, rounded down; zero for no amount or no price.
pub(super) fn quantity_for(amount: Decimal, price: Decimal) -> Result<Decimal, Overflow> {
    // Two last places stay behind, so that the roundings of value and fee never ask for more than the amount.
    let spendable = amount.checked_sub(MONEY_STEP + MONEY_STEP).ok_or(Overflow)?;
    if spendable <= Decimal::ZERO || price <= Decimal::ZERO {
        return Ok(Decimal::ZERO);
    }
    within(spendable.checked_div(price)).map(whole_lots)
}

/// A quantity cut to whole steps of [`QUANTITY_DIGITS`] places.
pub(super) fn whole_lots(quantity: Decimal) -> Decimal {
    quantity.trunc_with_scale(QUANTITY_DIGITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::from_str_exact(text).unwrap()
    }

    #[test]
    fn the_limit_is_ten_to_the_fifteenth() {
        assert_eq!(LIMIT, decimal("1000000000000000"));
        assert_eq!(MONEY_STEP, decimal("0.000000000001"));
    }

    #[test]
    fn a_sum_of_the_largest_amounts_keeps_its_last_digit() {
        let large = decimal("499999999999999.999999999999");
        let sum = sum(large, large).unwrap();
        assert_eq!(sum.to_string(), "999999999999999.999999999998");
        assert_eq!(super::sum(sum, large), Err(Overflow));
    }

    #[test]
    fn what_is_rounded_is_rounded_against_the_account() {
        assert_eq!(fee(decimal("0.000000000001"), decimal("0.001")), Ok(decimal("0.000000000001")));
        let quantity = quantity_for(decimal("1"), decimal("3")).unwrap();
        assert_eq!(quantity, decimal("0.33333333"));
        assert_eq!(quantity_for(decimal("1"), Decimal::ZERO), Ok(Decimal::ZERO));
    }
}
