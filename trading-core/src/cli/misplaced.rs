//! Symbols that are asked for on an exchange where they cannot be.

use crate::config::misplaced;
use crate::domain::SymbolRef;

/// A symbol is asked for on an exchange that is not asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--symbol {symbol}: {why}")]
pub struct Misplaced {
    symbol: SymbolRef,
    why: String,
}

/// Refuses symbols of exchanges that are not known, or not in the list of those that are asked for, where there is one.
///
/// # Errors
///
/// With the first such symbol.
pub fn check_symbols(exchanges: &[String], symbols: &[SymbolRef]) -> Result<(), Misplaced> {
    let misplaced = symbols.iter().find_map(|symbol| {
        let why = misplaced(symbol.exchange.as_deref()?, exchanges)?;
        Some(Misplaced { symbol: symbol.clone(), why })
    });
    misplaced.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_of_an_exchange_that_is_unknown_or_not_asked_for_is_refused_with_a_guess_only_where_one_is_close()
     {
        let said = |exchanges: &[&str], symbol: &str| {
            let exchanges: Vec<String> = exchanges.iter().map(|it| (*it).to_owned()).collect();
            check_symbols(&exchanges, &[symbol.parse().unwrap()]).map_err(|error| error.to_string())
        };
        assert_eq!(said(&[], "okx:BTC-USDT"), Ok(()));
        assert_eq!(said(&["okx"], "BTC-USDT"), Ok(()));
        let error = said(&["okx", "bybit"], "kraken:BTC-USD").unwrap_err();
        assert!(error.contains("kraken is not among --exchange okx, bybit"), "{error}");
        let error = said(&[], "binanc:BTC-USDT").unwrap_err();
        assert!(error.contains("did you mean binance?"), "{error}");
        let error = said(&[], "bitfinex:BTC-USDT").unwrap_err();
        assert!(error.contains("one of binance, ") && !error.contains("did you mean"), "{error}");
    }
}
