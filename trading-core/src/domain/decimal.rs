//! Prices and quantities: the exchange's own text to an exact decimal, digit for digit.

use rust_decimal::Decimal;

/// A price or quantity that is not a decimal number, or has more digits than can be kept exactly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an exact decimal: {text:?}")]
pub struct DecimalError {
    /// The refused text, cut to 40 characters.
    pub text: String,
}

/// Reads a decimal exactly: trailing zeros are kept (`0.00010900` stays eight digits), nothing is rounded.
///
/// Scientific notation is accepted, for the venues that send `1.8E-4`.
///
/// # Errors
///
/// When the text is no number, or needs more than the 28 digits a [`Decimal`] holds.
///
/// ```
/// use trading_core::domain::parse_decimal;
/// assert_eq!(parse_decimal("0.00010900").unwrap().to_string(), "0.00010900");
/// assert_eq!(parse_decimal("1.8E-4").unwrap().to_string(), "0.00018");
/// assert!(parse_decimal("0.-10000").is_err());
/// assert!(parse_decimal("1_000").is_err());
/// ```
pub fn parse_decimal(text: &str) -> Result<Decimal, DecimalError> {
    let exact = if text.contains(['e', 'E']) {
        Decimal::from_scientific(text)
    } else {
        Decimal::from_str_exact(text)
    };
    exact
        .ok()
        // The library reads `1_000` as a thousand; no exchange writes it.
        .filter(|_| !text.contains('_'))
        .ok_or_else(|| DecimalError { text: text.chars().take(40).collect() })
}
