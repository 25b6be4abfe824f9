//! What an asset is worth at a time, and what that makes of a pair's price at a venue.
//!
//! Each asset has one worth in dollars for all venues and all pairs, a function of the seed and the time. So venues agree
//! on a price within what arbitrage leaves (each wanders a few basis points around it), ETH/BTC is ETH/USD over BTC/USD,
//! and USD, USDT and USDC differ by a few basis points.

use super::noise::{self, ONE, Walk};
use domain::Symbol;

/// Well-known bases: their price in ten-billionths of a dollar.
const COINS: [(&str, u64); 24] = [
    ("BTC", 952_345_000_000_000),
    ("ETH", 34_251_200_000_000),
    ("SOL", 1_892_300_000_000),
    ("BNB", 6_543_000_000_000),
    ("XRP", 23_456_000_000),
    ("DOGE", 3_214_000_000),
    ("ADA", 8_942_000_000),
    ("AVAX", 372_100_000_000),
    ("LINK", 221_500_000_000),
    ("DOT", 68_920_000_000),
    ("LTC", 1_043_000_000_000),
    ("BCH", 4_621_000_000_000),
    ("TRX", 2_514_000_000),
    ("UNI", 132_700_000_000),
    ("ATOM", 65_310_000_000),
    ("XLM", 3_921_000_000),
    ("ETC", 261_400_000_000),
    ("NEAR", 52_130_000_000),
    ("AAVE", 3_127_000_000_000),
    ("SUI", 41_250_000_000),
    ("APT", 91_400_000_000),
    ("SHIB", 224_500),
    ("PEPE", 183_200),
    ("TON", 54_700_000_000),
];

/// Currencies of states: their price in ten-billionths of a dollar.
const CURRENCIES: [(&str, u64); 10] = [
    ("EUR", 10_830_000_000),
    ("GBP", 12_710_000_000),
    ("JPY", 64_500_000),
    ("AUD", 6_530_000_000),
    ("CAD", 7_010_000_000),
    ("CHF", 11_320_000_000),
    ("BRL", 1_650_000_000),
    ("TRY", 284_000_000),
    ("KRW", 6_880_000),
    ("SGD", 7_420_000_000),
];

/// One dollar, in ten-billionths.
pub(super) const DOLLAR: u64 = 10_000_000_000;

/// Digits after the point of a price's level.
pub(super) const LEVEL_DIGITS: u32 = 20;

/// The bases that every venue lists.
pub(super) fn well_known_bases() -> impl Iterator<Item = &'static str> {
    COINS.iter().map(|(base, _)| *base)
}

/// What moves an asset's worth in dollars, and around which level.
#[derive(Debug, Clone, Copy)]
struct Asset {
    /// In ten-billionths of a dollar.
    level: u64,
    /// `None`: the dollar itself.
    walk: Option<Walk>,
}

impl Asset {
    fn new(seed: u64, name: &str) -> Self {
        let name = if name == "XBT" { "BTC" } else { name };
        let stream = noise::stream(seed, &["asset", name]);
        if name == "USD" {
            return Self { level: DOLLAR, walk: None };
        }
        if name.starts_with("USD") || name.ends_with("USD") || name == "DAI" {
            // Stablecoins: within two basis points of the dollar, over some minutes.
            return Self { level: DOLLAR, walk: Some(Walk::new(stream, 24, 3, 3)) };
        }
        let named = |list: &[(&str, u64)]| list.iter().find(|it| it.0 == name).map(|it| it.1);
        if let Some(level) = named(&CURRENCIES) {
            return Self { level, walk: Some(Walk::new(stream, 20, 12, 1)) };
        }
        // A tenth of a basis point is five percent of volatility in a year; two months take it from one end to the other.
        let tenths = match name {
            "BTC" => 10,
            "ETH" => 13,
            _ => 16,
        };
        let level = named(&COINS).unwrap_or_else(|| unknown_level(stream));
        Self { level, walk: Some(Walk::new(stream, 20, 12, tenths)) }
    }
}

/// From 0.0001 to 1000 dollars, each power of ten as likely as another.
fn unknown_level(stream: u64) -> u64 {
    let power = u32::try_from(stream % 7).unwrap_or(0);
    (1 + (stream >> 8) % 9) * 1_000_000 * 10_u64.pow(power) + (stream >> 32) % 1_000_000
}

/// The price of a pair at a venue, as a function of the time.
#[derive(Debug, Clone)]
pub(super) struct Fair {
    base: Asset,
    quote: Asset,
    /// How far the venue is from what all venues agree on.
    deviation: Walk,
    /// The level in steps of the price, times 2^`shift`; below 2^31.
    mantissa: i64,
    shift: u32,
}

impl Fair {
    /// A pair at a venue whose own values are in `stream`. `scale` chooses the digits after the point of a price's step
    /// by the price's level, in units of 10^-[`LEVEL_DIGITS`].
    pub(super) fn new(
        seed: u64,
        symbol: &Symbol,
        stream: u64,
        scale: impl FnOnce(u128) -> u32,
    ) -> (Self, u32) {
        let (base, quote) = (Asset::new(seed, symbol.base()), Asset::new(seed, symbol.quote()));
        let level = u128::from(base.level) * 10_u128.pow(LEVEL_DIGITS) / u128::from(quote.level);
        let scale = scale(level);
        let step = 10_u128.pow(LEVEL_DIGITS.saturating_sub(scale));
        let shift = 30_u32.saturating_sub((level / step).checked_ilog2().unwrap_or(0));
        let mantissa = i64::try_from((level << shift) / step).unwrap_or(i64::MAX);
        // Within two and a half basis points, over half a minute.
        let deviation = Walk::new(stream, 23, 2, 8);
        (Self { base, quote, deviation, mantissa: mantissa.min((1 << 31) - 1), shift }, scale)
    }

    /// What one unit of the base costs on the whole, in ten-billionths of a dollar.
    pub(super) const fn base_level(&self) -> u64 {
        self.base.level
    }

    /// The price at a time in microseconds, in whole steps, at least one.
    pub(super) fn steps(&self, time_us: u64) -> i64 {
        let worth = |asset: &Asset| ONE + asset.walk.map_or(0, |walk| walk.at(time_us));
        let base = worth(&self.base);
        let here = base + ((base * self.deviation.at(time_us)) >> 30);
        // Both factors are below 2^31, and no walk reaches as far as minus one.
        ((self.mantissa * here / worth(&self.quote)) >> self.shift).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_asset_can_lose_or_gain_two_thirds_of_its_level() {
        for name in ["USD", "USDT", "EUR", "BTC", "ETH", "SOL", "UNHEARDOF"] {
            let limit = Asset::new(3, name).walk.map_or(0, |walk| walk.limit());
            assert!(limit < ONE / 3 * 2, "{name} {limit}");
        }
    }

    #[test]
    fn what_is_not_known_has_a_level_of_its_own_in_every_pair() {
        let level = Asset::new(3, "UNHEARDOF").level;
        assert_eq!(Asset::new(3, "UNHEARDOF").level, level);
        assert_ne!(Asset::new(4, "UNHEARDOF").level, level);
        assert!((DOLLAR / 10_000..1_000 * DOLLAR).contains(&level), "{level}");
        let fair = |symbol: &str| Fair::new(3, &symbol.parse().unwrap(), 1, |_| 4).0;
        assert_eq!(fair("UNHEARDOF-USDT").base.level, level);
        assert_eq!(fair("BTC-UNHEARDOF").quote.level, level);
    }
}
