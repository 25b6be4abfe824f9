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
/// use domain::parse_decimal;
/// assert_eq!(parse_decimal("0.00010900").unwrap().to_string(), "0.00010900");
/// assert_eq!(parse_decimal("1.8E-4").unwrap().to_string(), "0.00018");
/// assert!(parse_decimal("1.00000000000000000000000000015e0").is_err());
/// assert!(parse_decimal("0.-10000").is_err());
/// assert!(parse_decimal("1_000").is_err());
/// ```
pub fn parse_decimal(text: &str) -> Result<Decimal, DecimalError> {
    let exact = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => parse_scientific(mantissa, exponent),
        None => Decimal::from_str_exact(text).ok(),
    };
    exact
        // The library reads `1_000` as a thousand; no exchange writes it.
        .filter(|_| !text.contains('_'))
        .ok_or_else(|| DecimalError { text: text.chars().take(40).collect() })
}

/// `mantissa · 10^exponent`, exactly or not at all. The library's own reader of this notation rounds its mantissa.
fn parse_scientific(mantissa: &str, exponent: &str) -> Option<Decimal> {
    let mantissa = Decimal::from_str_exact(mantissa).ok()?;
    let exponent: i64 = exponent.parse().ok()?;
    let scale = i64::from(mantissa.scale()).saturating_sub(exponent);
    let (mut digits, mut scale) = (mantissa.mantissa(), scale);
    if digits == 0 {
        scale = scale.clamp(0, i64::from(Decimal::MAX_SCALE));
    }
    // Zeros at the end make room for those after the point.
    while scale > i64::from(Decimal::MAX_SCALE) && digits % 10 == 0 {
        (digits, scale) = (digits / 10, scale - 1);
    }
    if scale < 0 {
        let zeros = 10_i128.checked_pow(u32::try_from(scale.unsigned_abs()).ok()?)?;
        (digits, scale) = (digits.checked_mul(zeros)?, 0);
    }
    Decimal::try_from_i128_with_scale(digits, u32::try_from(scale).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::written_value;

    fn read(text: &str) -> Option<String> {
        parse_decimal(text).ok().map(|number| number.to_string())
    }

    #[test]
    fn an_exponent_moves_the_point_and_changes_no_digit() {
        let exact = |text: &str| read(text).unwrap();
        assert_eq!(exact("1e-8"), "0.00000001");
        assert_eq!(exact("4.5E-07"), "0.00000045");
        assert_eq!(exact("1.23e+3"), "1230");
        assert_eq!(exact("1e28"), "10000000000000000000000000000");
        assert_eq!(exact("100e-30"), "0.0000000000000000000000000001");
        assert_eq!(exact("0e-99"), "0.0000000000000000000000000000");
        assert_eq!(exact("-2.50e1"), "-25.0");
    }

    #[test]
    fn what_would_have_to_be_rounded_is_refused() {
        for text in [
            "1.00000000000000000000000000015",
            "1.00000000000000000000000000015e0",
            "79228162514264337593543950335.4e0",
            "12345678901234567890123456789.5e-3",
            "9.99999999999999999999999999999e0",
            "79228162514264337593543950336e0",
            "1e29",
            "1e-29",
            "1E400",
            "1e99999999999999999999",
            "1e-9223372036854775808",
            "0.1e-9223372036854775807",
            "1e9223372036854775807",
            "1e",
            "e5",
            "1e5e5",
            "1e5.0",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn prop_a_number_is_kept_digit_for_digit_or_refused(
            text in "-?[0-9]{0,32}(\\.[0-9]{0,32})?([eE][+-]?[0-9]{1,18})?"
        ) {
            if let Some(kept) = read(&text) {
                prop_assert_eq!(written_value(&kept), written_value(&text));
            }
        }
    }
}
