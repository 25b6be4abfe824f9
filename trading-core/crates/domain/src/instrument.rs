//! One symbol on one exchange, known for as long as the process lives.

use std::collections::HashSet;
use std::fmt;
use std::sync::{LazyLock, Mutex};

use super::lock;
use super::symbol::Symbol;

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
        let mut interned = lock(&INTERNED);
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
    fn an_instrument_is_the_same_each_time() {
        let symbol = "BTCUSDT".parse().unwrap();
        let one = Instrument::intern("binance", &symbol).unwrap();
        assert_eq!(one, Instrument::intern("binance", &symbol).unwrap());
        assert_ne!(one, Instrument::intern("okx", &symbol).unwrap());
        assert_eq!(one.to_string(), "binance:BTCUSDT");
    }
}
