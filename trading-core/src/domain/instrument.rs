//! What is traded where: a symbol, and the same symbol on one exchange.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Quote currencies tried, longest first, to split a joined symbol such as `BTCUSDT`.
///
/// Without TUSD and BUSD: `DOTUSD`, `USDTUSD` and `BNBUSD` are dollar pairs that are traded far more than any
/// pair of those two, which can still be written `BTC-TUSD`.
const QUOTES: [&str; 22] = [
    "FDUSD", "USDT", "USDC", "USDE", "DAI", "USD", "EUR", "GBP", "JPY", "AUD", "CAD", "CHF", "BRL",
    "TRY", "KRW", "SGD", "BTC", "XBT", "ETH", "BNB", "SOL", "XRP",
];

/// A canonical symbol: base and quote joined, upper case (`BTCUSDT`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol {
    joined: String,
    base_len: usize,
}

/// A text that names no base and quote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SymbolError {
    /// Characters other than letters and digits, or a length out of range.
    #[error("a symbol is letters and digits, 2 to 30 of them, as BTCUSDT, BTC-USDT or BTC/USDT")]
    Malformed,
    /// No known quote currency ends the joined text.
    #[error("the quote currency is not known: write it as BASE-QUOTE")]
    UnknownQuote,
}

impl Symbol {
    /// Joins a base and a quote, in upper case.
    ///
    /// # Errors
    ///
    /// When either is empty, too long, or holds anything but ASCII letters and digits.
    pub fn new(base: &str, quote: &str) -> Result<Self, SymbolError> {
        let well_formed = |part: &str| {
            (1..=15).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        if !well_formed(base) || !well_formed(quote) {
            return Err(SymbolError::Malformed);
        }
        Ok(Self { joined: format!("{base}{quote}").to_ascii_uppercase(), base_len: base.len() })
    }

    /// The joined form, `BTCUSDT`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.joined
    }

    /// The base currency, `BTC`.
    #[must_use]
    pub fn base(&self) -> &str {
        self.joined.split_at(self.base_len).0
    }

    /// The quote currency, `USDT`.
    #[must_use]
    pub fn quote(&self) -> &str {
        self.joined.split_at(self.base_len).1
    }
}

impl FromStr for Symbol {
    type Err = SymbolError;

    /// Accepts `BTCUSDT`, `BTC-USDT` and `BTC/USDT`, in any case.
    fn from_str(text: &str) -> Result<Self, SymbolError> {
        if let Some((base, quote)) = text.split_once(['-', '/']) {
            return Self::new(base, quote);
        }
        if !text.is_ascii() {
            return Err(SymbolError::Malformed);
        }
        let upper = text.to_ascii_uppercase();
        QUOTES
            .iter()
            .find_map(|quote| {
                upper.strip_suffix(quote).filter(|base| !base.is_empty()).map(|base| (base, *quote))
            })
            .map_or(Err(SymbolError::UnknownQuote), |(base, quote)| Self::new(base, quote))
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.joined)
    }
}

/// One symbol on one exchange. Copying it is copying a pointer, so that a tick carries its instrument for
/// eight bytes and no count.
///
/// Instruments are interned and live as long as the process: a recorder has a fixed list of them. The table
/// is bounded ([`Instrument::LIMIT`]), so that no input can make it grow without end.
#[derive(Clone, Copy)]
pub struct Instrument(&'static Entry);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Entry {
    exchange: String,
    symbol: Symbol,
}

/// The table of instruments is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {} instruments", Instrument::LIMIT)]
pub struct InstrumentError;

static INTERNED: LazyLock<Mutex<HashSet<&'static Entry>>> = LazyLock::new(Mutex::default);

impl Instrument {
    /// The most instruments that one process will know.
    pub const LIMIT: usize = 100_000;

    /// The instrument of this exchange and symbol, the same one each time.
    ///
    /// # Errors
    ///
    /// When [`Instrument::LIMIT`] others are known already.
    pub fn intern(exchange: &str, symbol: &Symbol) -> Result<Self, InstrumentError> {
        let entry = Entry { exchange: exchange.to_owned(), symbol: symbol.clone() };
        let mut interned = INTERNED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = interned.get(&entry) {
            return Ok(Self(known));
        }
        if interned.len() >= Self::LIMIT {
            return Err(InstrumentError);
        }
        let entry: &'static Entry = Box::leak(Box::new(entry));
        interned.insert(entry);
        Ok(Self(entry))
    }

    /// The exchange's name as in the settings, `binance`.
    #[must_use]
    pub fn exchange(self) -> &'static str {
        &self.0.exchange
    }

    /// The canonical symbol.
    #[must_use]
    pub fn symbol(self) -> &'static Symbol {
        &self.0.symbol
    }
}

impl PartialEq for Instrument {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Instrument {}

impl std::hash::Hash for Instrument {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        std::ptr::from_ref(self.0).hash(state);
    }
}

impl PartialOrd for Instrument {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Instrument {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.exchange(), self.symbol()).cmp(&(other.exchange(), other.symbol()))
    }
}

impl fmt::Display for Instrument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.exchange(), self.symbol())
    }
}

impl fmt::Debug for Instrument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_ways_to_write_a_symbol_are_one() {
        for text in ["BTCUSDT", "BTC-USDT", "BTC/USDT", "btc-usdt"] {
            let symbol: Symbol = text.parse().unwrap();
            assert_eq!((symbol.base(), symbol.quote()), ("BTC", "USDT"), "{text}");
            assert_eq!(symbol.to_string(), "BTCUSDT");
        }
        assert_eq!("ETHUSD".parse::<Symbol>().unwrap().quote(), "USD");
        assert_eq!("ETHBTC".parse::<Symbol>().unwrap().base(), "ETH");
    }

    #[test]
    fn a_base_that_ends_like_the_quote_begins_keeps_its_last_letter() {
        for (text, base) in [("DOTUSD", "DOT"), ("USDTUSD", "USDT"), ("BNBUSD", "BNB")] {
            let symbol: Symbol = text.parse().unwrap();
            assert_eq!((symbol.base(), symbol.quote()), (base, "USD"));
        }
        assert_eq!("BTC-TUSD".parse::<Symbol>().unwrap().quote(), "TUSD");
    }

    #[test]
    fn a_text_that_is_no_symbol_says_why() {
        assert_eq!("BTC_USDT;".parse::<Symbol>(), Err(SymbolError::UnknownQuote));
        assert_eq!("BTC-US DT".parse::<Symbol>(), Err(SymbolError::Malformed));
        assert_eq!("USDT".parse::<Symbol>(), Err(SymbolError::UnknownQuote));
        assert_eq!("é".parse::<Symbol>(), Err(SymbolError::Malformed));
    }

    #[test]
    fn an_instrument_is_the_same_each_time() {
        let symbol = "BTCUSDT".parse().unwrap();
        let one = Instrument::intern("binance", &symbol).unwrap();
        assert_eq!(one, Instrument::intern("binance", &symbol).unwrap());
        assert_ne!(one, Instrument::intern("okx", &symbol).unwrap());
        assert_eq!(one.to_string(), "binance:BTCUSDT");
    }
}
