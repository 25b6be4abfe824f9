//! How simulated exchanges are told from real ones: they name themselves in the `Server` header of every answer.

use rust_decimal::Decimal;

/// The name of the simulated exchanges, with the market in brackets behind it.
pub const SIMULATOR: &str = "trading-core-simulator";

/// The market of the simulated exchanges that a `Server` header names; `None`: it names no simulated exchanges.
#[must_use]
pub fn announced_market(server: &str) -> Option<&str> {
    let rest = server.trim().strip_prefix(SIMULATOR)?.trim();
    Some(rest.strip_prefix('(').and_then(|it| it.strip_suffix(')')).unwrap_or(rest))
}

/// What decides which trades a simulated market has: with any other seed, rate or version the same ids are other trades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimulatedMarket {
    /// Its seed.
    pub seed: u64,
    /// Trades per second of each symbol, on average.
    pub rate: Decimal,
    /// Which version of the market.
    pub version: u32,
}

impl SimulatedMarket {
    /// Reads it as a recorder notes it and an exchange announces it: `seed 42, rate 10, market 2`, and perhaps more.
    /// Version 1 was not named.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let named = |name: &str| text.split(", ").find_map(|it| it.strip_prefix(name));
        let version = match named("market ") {
            Some(version) => version.parse().ok()?,
            None => 1,
        };
        let (seed, rate) = (named("seed ")?.parse().ok()?, named("rate ")?.parse().ok()?);
        Some(Self { seed, rate, version })
    }

    /// Whether two notes are of one market.
    #[must_use]
    pub fn is_same(one: &str, other: &str) -> bool {
        one == other || Self::parse(one).is_some_and(|it| Self::parse(other) == Some(it))
    }
}

impl std::fmt::Display for SimulatedMarket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, rate, version } = self;
        write!(f, "seed {seed}, rate {rate}, market {version}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_market_is_the_same_by_its_numbers_and_not_by_its_text() {
        let rate = Decimal::new(25, 1);
        let second = SimulatedMarket { seed: 7, rate, version: 2 };
        assert_eq!(SimulatedMarket::parse("seed 7, rate 2.5, market 2"), Some(second));
        assert_eq!(SimulatedMarket::parse(&second.to_string()), Some(second));
        let first = SimulatedMarket { version: 1, ..second };
        assert_eq!(SimulatedMarket::parse("seed 7, rate 2.5"), Some(first));
        for text in ["", "seed 7", "seed x, rate 1", "seed 7, rate 2.5, market two"] {
            assert_eq!(SimulatedMarket::parse(text), None, "{text}");
        }
        let same = SimulatedMarket::is_same;
        assert!(same("seed 7, rate 10, market 2", "seed 7, rate 10.0, market 2"));
        assert!(same("who knows", "who knows"));
        for other in
            ["seed 8, rate 10, market 2", "seed 7, rate 5, market 2", "seed 7, rate 10", ""]
        {
            assert!(!same("seed 7, rate 10, market 2", other), "{other}");
        }
        assert!(!same("who knows", "nobody"));
    }

    #[test]
    fn only_the_simulated_exchanges_name_a_market() {
        let market = announced_market("trading-core-simulator (seed 42, rate 10)");
        assert_eq!(market, Some("seed 42, rate 10"));
        assert_eq!(announced_market("trading-core-simulator"), Some(""));
        assert_eq!(announced_market("cloudflare"), None);
        assert_eq!(announced_market(""), None);
    }
}
