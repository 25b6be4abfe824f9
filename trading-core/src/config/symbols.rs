//! Symbols in settings and flags: which exchange records each, in which letters, and when two of them are one.

use super::Problem;
use super::layer::Entry;
use super::schema::one_of_exchanges;
use super::value::{Origin, Value};
use crate::domain::{Symbol, SymbolRef};
use crate::exchange::{self, Exchange};

/// A symbol in the letters in which this exchange lists it: as it is written where names may have small letters, else in
/// capitals.
#[must_use]
pub fn symbol_at(exchange: &str, written: &Symbol) -> Symbol {
    let has_small_letters = exchange::by_name(exchange).is_some_and(Exchange::has_small_letters);
    if has_small_letters { written.clone() } else { written.in_capitals() }
}

/// The symbols of one exchange's list, and what is wrong with others: each text with what is allowed there. Without an
/// exchange, which is then said to be wrong elsewhere, they are read as those of any.
pub(super) fn read_list<'a>(
    exchange: Option<&str>,
    items: impl IntoIterator<Item = &'a str>,
) -> (Vec<Symbol>, Vec<(&'a str, String)>) {
    let (mut symbols, mut written): (Vec<Symbol>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut wrong = Vec::new();
    for text in items {
        let asked = match text.parse::<SymbolRef>() {
            Ok(asked) => asked,
            Err(error) => {
                wrong.push((text, error.to_string()));
                continue;
            }
        };
        if let (Some(own), Some(other)) = (exchange, asked.exchange.as_deref())
            && own != other
        {
            wrong.push((text, format!("this is a list of {own}, and {other} is another exchange")));
            continue;
        }
        let symbol = symbol_at(exchange.unwrap_or_default(), &asked.symbol);
        match symbols.iter().zip(&written).find(|(known, _)| **known == symbol) {
            Some((_, first)) => wrong.push((text, twice(first, &symbol))),
            None => {
                symbols.push(symbol);
                written.push(text);
            }
        }
    }
    (symbols, wrong)
}

fn twice(first: &str, symbol: &Symbol) -> String {
    format!("{symbol} is there already, written as {first:?}: each pair once")
}

/// What `--symbol` sets: the lists of the exchanges that are recorded, and which these are.
///
/// A plain symbol is recorded by every exchange of `enabled`, `exchange:SYMBOL` by that one alone. Where no plain one is
/// given, the exchanges that are named record and no others. `listed` is what `--exchange` names.
pub(super) fn of_flags(
    texts: &[String],
    listed: &[String],
    enabled: &[&'static str],
    problems: &mut Vec<Problem>,
) -> Vec<Entry> {
    let mut wrong = Vec::new();
    let mut asked: Vec<(&str, SymbolRef)> = Vec::new();
    for text in texts.iter().map(|text| text.trim()) {
        match text.parse::<SymbolRef>() {
            Ok(symbol) => match symbol.exchange.as_deref().and_then(|it| misplaced(it, listed)) {
                Some(why) => wrong.push(problem("--symbol", text, why)),
                None => asked.push((text, symbol)),
            },
            Err(error) => wrong.push(problem("--symbol", text, error.to_string())),
        }
    }
    let is_named = |name: &str| asked.iter().any(|(_, it)| it.exchange.as_deref() == Some(name));
    let is_plain = asked.iter().any(|(_, symbol)| symbol.exchange.is_none());
    if wrong.is_empty() && !is_plain && !asked.is_empty() {
        for name in listed.iter().filter(|name| !is_named(name)) {
            let allowed = format!(
                "--symbol names no symbol of it: add {name}:SYMBOL there, or leave {name} out"
            );
            wrong.push(problem("--exchange", name, allowed));
        }
    }
    let mut entries = Vec::new();
    for name in exchange::names() {
        let takes_plain = is_plain && enabled.contains(&name);
        let records = takes_plain || is_named(name);
        if !is_plain || records {
            entries.push(entry(name, "enabled", Value::Bare(records.to_string())));
        }
        let own = |(_, symbol): &&(&str, SymbolRef)| match symbol.exchange.as_deref() {
            Some(exchange) => exchange == name,
            None => takes_plain,
        };
        let own: Vec<&str> = asked.iter().filter(own).map(|(text, _)| *text).collect();
        // Said once, and not of each exchange.
        for (text, allowed) in read_list(Some(name), own.iter().copied()).1 {
            let twice = problem("--symbol", text, allowed);
            if !wrong.contains(&twice) {
                wrong.push(twice);
            }
        }
        if records {
            entries.push(entry(name, "symbols", Value::list(own)));
        }
    }
    let is_clean = wrong.is_empty() && !asked.is_empty();
    problems.append(&mut wrong);
    if is_clean { entries } else { Vec::new() }
}

/// Why a symbol of this exchange cannot be asked for, where `listed` is what `--exchange` names.
#[must_use]
pub fn misplaced(exchange: &str, listed: &[String]) -> Option<String> {
    if exchange::by_name(exchange).is_none() {
        return Some(format!("no exchange is called {exchange}: {}", one_of_exchanges(exchange)));
    }
    (!listed.is_empty() && !listed.iter().any(|name| name == exchange)).then(|| {
        let listed = listed.join(", ");
        format!(
            "{exchange} is not among --exchange {listed}: add it there, or leave --exchange out"
        )
    })
}

fn problem(flag: &str, text: &str, allowed: String) -> Problem {
    Problem {
        key: flag.to_owned(),
        value: Some(Value::Text(text.to_owned()).to_string()),
        allowed,
        origin: Origin::Flag(flag.to_owned()),
    }
}

fn entry(exchange: &str, leaf: &str, value: Value) -> Entry {
    let origin = Origin::Flag("--symbol".to_owned());
    Entry::outside_files(format!("exchanges.{exchange}.{leaf}"), value, &origin)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::super::{ConfigError, File, Overrides, Settings, load};
    use super::*;

    fn with_flags(
        exchanges: &[&str],
        symbols: &[&str],
        text: &str,
    ) -> Result<Settings, ConfigError> {
        let owned = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let mut flags = Overrides::default();
        flags.only_exchanges(&owned(exchanges));
        flags.only_symbols(&owned(symbols));
        let file = File { path: PathBuf::from("t.toml"), text: text.to_owned() };
        load(Some(&file), &BTreeMap::new(), &flags).map(|loaded| loaded.settings)
    }

    /// The exchanges that record, each with its symbols.
    fn recorded(settings: &Settings) -> Vec<String> {
        let enabled = settings.exchanges.iter().filter(|exchange| exchange.enabled);
        let each = enabled.map(|exchange| {
            let symbols: Vec<_> = exchange.symbols.iter().map(Symbol::as_str).collect();
            format!("{}: {}", exchange.name, symbols.join(" "))
        });
        each.collect()
    }

    fn said(error: &ConfigError) -> Vec<String> {
        error.problems().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn symbols_of_exchanges_are_recorded_there_and_nowhere_else() {
        let of = |exchanges: &[&str], symbols: &[&str]| {
            recorded(&with_flags(exchanges, symbols, "").unwrap())
        };
        let two = ["binance:BTCUSDT", "coinbase:ETH-USD"];
        assert_eq!(of(&[], &two), ["binance: BTCUSDT", "coinbase: ETHUSD"]);
        assert_eq!(of(&["coinbase", "binance"], &two), ["binance: BTCUSDT", "coinbase: ETHUSD"]);
        assert_eq!(
            of(&["binance", "okx"], &["SOL-USDT", "okx:BTC-USDT"]),
            ["binance: SOLUSDT", "okx: SOLUSDT BTCUSDT"]
        );
        assert_eq!(of(&["okx"], &["OKX: btc-usdt"]), ["okx: BTCUSDT"]);
    }

    #[test]
    fn an_exchange_that_is_named_by_a_symbol_is_recorded_though_the_settings_leave_it_out() {
        let wanted = ["binance", "coinbase"];
        let others = exchange::names().into_iter().filter(|name| !wanted.contains(name));
        let text = others.map(|name| format!("[exchanges.{name}]\nenabled = false\n"));
        let text = &text.collect::<String>();
        let settings = with_flags(&[], &["BTC-USDT", "okx:ETH-USDT"], text).unwrap();
        assert_eq!(recorded(&settings), ["binance: BTCUSDT", "coinbase: BTCUSDT", "okx: ETHUSDT"]);
    }

    #[test]
    fn a_symbol_of_an_exchange_that_is_not_listed_is_refused_and_both_are_named() {
        let error = with_flags(&["binance"], &["okx:BTC-USDT"], "").unwrap_err();
        let said = said(&error);
        assert_eq!(said.len(), 1, "{said:?}");
        for part in ["\"okx:BTC-USDT\"", "okx is not among --exchange binance"] {
            assert!(said[0].contains(part), "{said:?}");
        }
        let error = with_flags(&["binance", "okx"], &["okx:BTC-USDT"], "").unwrap_err();
        assert_eq!(error.problems()[0].key, "--exchange");
        let error = with_flags(&[], &["binanc:BTC-USDT"], "").unwrap_err();
        assert!(error.to_string().contains("did you mean binance?"), "{error}");
        let error = with_flags(&[], &["bitfinex:BTC-USDT"], "").unwrap_err();
        assert!(!error.to_string().contains("did you mean"), "{error}");
    }

    #[test]
    fn two_spellings_of_one_pair_are_refused_once_and_both_are_named() {
        for (symbols, first, other) in [
            (["BTC-USDT", "btcusdt"], "BTC-USDT", "btcusdt"),
            (["BTCUSDT", "okx:BTC/USDT"], "BTCUSDT", "okx:BTC/USDT"),
            (["okx:BTCUSDT", "okx:BTC-USDT"], "okx:BTCUSDT", "okx:BTC-USDT"),
        ] {
            let error = with_flags(&[], &symbols, "").unwrap_err();
            let said = said(&error);
            assert_eq!(said.len(), 1, "{said:?}");
            let names_both = said[0].starts_with(&format!("--symbol = {other:?}"))
                && said[0].contains(&format!("written as {first:?}"));
            assert!(names_both, "{said:?}");
        }
        let text =
            "[exchanges.binance]\nsymbols = [\"BTCUSDT\", \"ETHUSDT\", \"binance:btc/usdt\"]";
        let error = with_flags(&[], &[], text).unwrap_err();
        let said = said(&error);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].contains("\"binance:btc/usdt\"") && said[0].contains("\"BTCUSDT\""),
            "{said:?}"
        );
    }

    #[test]
    fn a_list_takes_symbols_of_its_own_exchange_and_refuses_those_of_another() {
        let text = "[exchanges.binance]\nsymbols = [\"binance:BTCUSDT\", \"币安人生USDT\"]";
        let settings = with_flags(&["binance"], &[], text).unwrap();
        assert_eq!(recorded(&settings), ["binance: BTCUSDT 币安人生USDT"]);
        let text = "[exchanges.binance]\nsymbols = [\"okx:BTCUSDT\"]";
        let said = said(&with_flags(&[], &[], text).unwrap_err());
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("a list of binance, and okx is another exchange"), "{said:?}");

        let strategy = |symbol: &str| {
            format!(
                "[paper.strategies.mine]\nkind = \"sma_crossover\"\nexchange = \"okx\"\nsymbols = [{symbol:?}]\n\
                 cash = \"1\"\nfee_rate = \"0\"\nslippage = \"0\"\nposition_limit = \"1\""
            )
        };
        let settings = with_flags(&[], &[], &strategy("okx:btc-usdt")).unwrap();
        assert_eq!(settings.paper.strategies[0].symbols[0].as_str(), "BTCUSDT");
        let error = with_flags(&[], &[], &strategy("kraken:BTC-USD")).unwrap_err();
        assert!(error.to_string().contains("a list of okx, and kraken is another"), "{error}");
    }

    #[test]
    fn case_is_kept_where_the_exchange_tells_it_apart_and_nowhere_else() {
        let settings = with_flags(&["kraken", "bybit"], &["AAPLx/USD", "Btc/Usd"], "").unwrap();
        assert_eq!(recorded(&settings), ["bybit: AAPLXUSD BTCUSD", "kraken: AAPLxUSD BTCUSD"]);
        let both = with_flags(&["kraken"], &["AAPLx/USD", "AAPLX/USD"], "").unwrap();
        assert_eq!(recorded(&both), ["kraken: AAPLxUSD AAPLXUSD"], "two names there");
        assert!(with_flags(&["okx"], &["AAPLx/USD", "AAPLX/USD"], "").is_err(), "one name there");
    }

    #[test]
    fn a_quote_that_is_not_known_is_asked_for() {
        let said = said(&with_flags(&[], &["BTCMXN", "B?C-USDT"], "").unwrap_err());
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("write it as BASE-QUOTE"), "{said:?}");
        assert!(said[1].contains("'?' cannot stand there"), "{said:?}");
        let settings = with_flags(&["binance"], &["BTC-MXN"], "").unwrap();
        assert_eq!(recorded(&settings), ["binance: BTCMXN"]);
    }
}
