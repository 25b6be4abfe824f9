//! How simulated exchanges are told from real ones: they name themselves in the `Server` header of every answer.

/// The name of the simulated exchanges, with the market in brackets behind it.
pub const SIMULATOR: &str = "trading-core-simulator";

/// The market of the simulated exchanges that a `Server` header names; `None`: it names no simulated exchanges.
#[must_use]
pub fn announced_market(server: &str) -> Option<&str> {
    let rest = server.trim().strip_prefix(SIMULATOR)?.trim();
    Some(rest.strip_prefix('(').and_then(|it| it.strip_suffix(')')).unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_simulated_exchanges_name_a_market() {
        let market = announced_market("trading-core-simulator (seed 42, rate 10)");
        assert_eq!(market, Some("seed 42, rate 10"));
        assert_eq!(announced_market("trading-core-simulator"), Some(""));
        assert_eq!(announced_market("cloudflare"), None);
        assert_eq!(announced_market(""), None);
    }
}
