//! The name of a pair: as venues list it, as people write it, and as they ask for it on one exchange.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use unicode_normalization::{UnicodeNormalization as _, is_nfkc};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};

/// Quote currencies tried, longest first, to split a joined symbol such as `BTCUSDT`.
///
/// Without TUSD and BUSD: `DOTUSD`, `USDTUSD` and `BNBUSD` are dollar pairs that are traded far more than any
/// pair of those two, which can still be written `BTC-TUSD`.
const QUOTES: [&str; 22] = [
    "FDUSD", "USDT", "USDC", "USDE", "DAI", "USD", "EUR", "GBP", "JPY", "AUD", "CAD", "CHF", "BRL",
    "TRY", "KRW", "SGD", "BTC", "XBT", "ETH", "BNB", "SOL", "XRP",
];

/// Characters of a base and of a quote at most. The longest that is listed anywhere has about ten.
const CHARACTERS_MAX: usize = 20;
/// Bytes of a base and of a quote at most, in UTF-8: three for each character, as Chinese has.
const BYTES_MAX: usize = 60;

/// A symbol: base and quote joined (`BTCUSDT`), in the letters of the venue that lists it.
///
/// Both are letters and digits of any alphabet, and dots between them: venues list `币安人生USDT`, `AAPLx/USD` and
/// `ETH2.S/ETH`. Case is kept here; which venues tell it apart is for the settings to know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol {
    joined: String,
    base_len: usize,
}

/// A text that names no base and quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SymbolError {
    /// Nothing, or nothing on one side of the separator.
    #[error("a symbol is a base and a quote, as BTCUSDT, BTC-USDT or BTC/USDT")]
    Empty,
    /// A character that no venue has in a name, or that would be something else in a URL, a query or a log.
    #[error(
        "{0:?} cannot stand there: base and quote are letters and digits of any alphabet, with single dots between them, \
         as BTCUSDT, BTC-USDT, BTC/USDT or ETH2.S/ETH"
    )]
    Character(char),
    /// The same name can be written in a simpler way, and two ways to write one name would be two names.
    #[error("it is not written in the normal form of Unicode (NFKC)")]
    Form,
    /// The base or the quote is too long.
    #[error(
        "base and quote have {CHARACTERS_MAX} characters each at most, and {BYTES_MAX} bytes of UTF-8"
    )]
    TooLong,
    /// No known quote currency ends the joined text.
    #[error(
        "it ends with no quote currency that is known (USDT, USDC, USD, EUR, BTC and the like): write it as BASE-QUOTE"
    )]
    UnknownQuote,
    /// What stands before the colon names no exchange.
    #[error("before the colon stands the name of an exchange, as in binance:BTCUSDT")]
    Exchange,
}

impl Symbol {
    /// Joins a base and a quote as they are.
    ///
    /// # Errors
    ///
    /// When one of them is empty, is longer than 20 characters or 60 bytes, is not in Unicode's normal form, or holds
    /// anything but letters, digits and single dots between them. Marks that combine with a letter before them and
    /// everything that is invisible are no letters.
    pub fn new(base: &str, quote: &str) -> Result<Self, SymbolError> {
        check(base)?;
        check(quote)?;
        Ok(Self { joined: format!("{base}{quote}"), base_len: base.len() })
    }

    /// The same in the capital letters of ASCII, as most venues have them. Other letters stay as they are.
    #[must_use]
    pub fn in_capitals(&self) -> Self {
        Self { joined: self.joined.to_ascii_uppercase(), base_len: self.base_len }
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

fn check(part: &str) -> Result<(), SymbolError> {
    if part.is_empty() {
        return Err(SymbolError::Empty);
    }
    if let Some(wrong) =
        part.chars().find(|character| *character != '.' && !is_of_a_name(*character))
    {
        return Err(SymbolError::Character(wrong));
    }
    if part.starts_with('.') || part.ends_with('.') || part.contains("..") {
        return Err(SymbolError::Character('.'));
    }
    if part.len() > BYTES_MAX || part.chars().count() > CHARACTERS_MAX {
        return Err(SymbolError::TooLong);
    }
    if !part.is_ascii() && !is_nfkc(part) {
        return Err(SymbolError::Form);
    }
    Ok(())
}

/// A letter or a digit that is seen and stands by itself.
fn is_of_a_name(character: char) -> bool {
    use GeneralCategory::{
        DecimalNumber, LowercaseLetter, ModifierLetter, OtherLetter, TitlecaseLetter,
        UppercaseLetter,
    };
    if character.is_ascii() {
        return character.is_ascii_alphanumeric();
    }
    // Unicode's letters without a shape: the fillers of Hangul.
    if matches!(character, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}') {
        return false;
    }
    matches!(
        character.general_category(),
        UppercaseLetter
            | LowercaseLetter
            | TitlecaseLetter
            | ModifierLetter
            | OtherLetter
            | DecimalNumber
    )
}

impl FromStr for Symbol {
    type Err = SymbolError;

    /// Accepts `BTCUSDT`, `BTC-USDT` and `BTC/USDT`, in any case: `btc-usdt` and `Btc/Usdt` are put in capitals. Only a
    /// base such as `AAPLx` or `BRK.Bx`, where a small letter stands behind two capitals or digits, is kept as it is
    /// written. What an input method wrote wide (`ＢＴＣ`) is read as what it means.
    fn from_str(text: &str) -> Result<Self, SymbolError> {
        let text: Cow<'_, str> = match text.trim() {
            text if text.is_ascii() => text.into(),
            text => text.nfkc().collect::<String>().into(),
        };
        if let Some((base, quote)) = text.split_once(['-', '/']) {
            return Self::new(&capitals(base), &quote.to_ascii_uppercase());
        }
        if text.is_empty() {
            return Err(SymbolError::Empty);
        }
        if let Some(wrong) =
            text.chars().find(|character| *character != '.' && !is_of_a_name(*character))
        {
            return Err(SymbolError::Character(wrong));
        }
        let split = |quote: &&'static str| {
            let (base, end) = text.split_at_checked(text.len().checked_sub(quote.len())?)?;
            (end.eq_ignore_ascii_case(quote) && !base.is_empty()).then_some((base, *quote))
        };
        let (base, quote) = QUOTES.iter().find_map(split).ok_or(SymbolError::UnknownQuote)?;
        Self::new(&capitals(base), quote)
    }
}

/// A base in capitals, unless its small letters are meant: nobody writes capitals first and then small ones by habit,
/// while `Btc` and `1inch` are only ways to write.
fn capitals(base: &str) -> Cow<'_, str> {
    let before = base.bytes().take_while(|byte| !byte.is_ascii_lowercase());
    let before: Vec<u8> = before.filter(u8::is_ascii_alphanumeric).collect();
    let is_meant = before.len() > 1 && before.iter().any(u8::is_ascii_uppercase);
    if is_meant { base.into() } else { base.to_ascii_uppercase().into() }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.joined)
    }
}

/// A symbol as it is asked for: on one exchange (`binance:BTCUSDT`), or wherever it is (`BTCUSDT`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SymbolRef {
    /// The exchange's name in lower case; `None`: any exchange.
    pub exchange: Option<String>,
    /// The symbol as it was written.
    pub symbol: Symbol,
}

impl SymbolRef {
    /// Whether this symbol of this exchange is meant: by the name as it was written, or in capitals.
    #[must_use]
    pub fn means(&self, exchange: &str, symbol: &str) -> bool {
        let is_there = self.exchange.as_deref().is_none_or(|name| name == exchange);
        is_there && self.names().any(|name| name == symbol)
    }

    /// The names under which it may be stored: as it was written, and in capitals where that is another name.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let (written, capitals) = (self.symbol.as_str(), self.symbol.in_capitals().joined);
        let other = (capitals != written).then_some(capitals);
        std::iter::once(written.to_owned()).chain(other)
    }
}

impl FromStr for SymbolRef {
    type Err = SymbolError;

    fn from_str(text: &str) -> Result<Self, SymbolError> {
        let Some((exchange, symbol)) = text.split_once([':', '\u{ff1a}']) else {
            return Ok(Self { exchange: None, symbol: text.parse()? });
        };
        let exchange = exchange.trim().to_ascii_lowercase();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if exchange.is_empty() || !exchange.bytes().all(is_plain) {
            return Err(SymbolError::Exchange);
        }
        Ok(Self { exchange: Some(exchange), symbol: symbol.parse()? })
    }
}

impl fmt::Display for SymbolRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(exchange) = &self.exchange {
            write!(f, "{exchange}:")?;
        }
        fmt::Display::fmt(&self.symbol, f)
    }
}

/// The names that are nearest to a wanted one, up to `most` of them, the nearest first. Separators and case do not
/// count, and of equally near names those in the common quotes come first. Names that have little in common with
/// the wanted one are left out.
#[must_use]
pub fn nearest<'a>(
    wanted: &str,
    names: impl IntoIterator<Item = &'a str>,
    most: usize,
) -> Vec<&'a str> {
    let plain = |name: &str| {
        let (_, name) = name.rsplit_once(':').unwrap_or(("", name));
        name.replace(['-', '/'], "").to_uppercase()
    };
    let wanted = plain(wanted);
    let limit = (wanted.chars().count() / 4).max(1);
    let rank =
        |name: &str| QUOTES.iter().position(|quote| name.ends_with(quote)).unwrap_or(QUOTES.len());
    let mut near: Vec<_> = names
        .into_iter()
        .filter_map(|name| {
            let plain = plain(name);
            let apart = strsim::damerau_levenshtein(&wanted, &plain);
            (apart <= limit).then(|| (apart, rank(&plain), name))
        })
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter().take(most).map(|(_, _, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(text: &str) -> Result<(String, String), SymbolError> {
        let symbol: Symbol = text.parse()?;
        Ok((symbol.base().to_owned(), symbol.quote().to_owned()))
    }

    #[test]
    fn the_three_ways_to_write_a_symbol_are_one() {
        for text in ["BTCUSDT", "BTC-USDT", "BTC/USDT", "btc-usdt", "btcusdt", " BTC-usdt "] {
            let symbol: Symbol = text.parse().unwrap();
            assert_eq!((symbol.base(), symbol.quote()), ("BTC", "USDT"), "{text}");
            assert_eq!(symbol.to_string(), "BTCUSDT");
        }
        assert_eq!("ETHUSD".parse::<Symbol>().unwrap().quote(), "USD");
        assert_eq!("ETHBTC".parse::<Symbol>().unwrap().base(), "ETH");
    }

    #[test]
    fn names_that_venues_really_list_are_symbols() {
        for (text, base, quote) in [
            ("币安人生USDT", "币安人生", "USDT"),
            ("币安人生-USDT", "币安人生", "USDT"),
            ("币安人生usdt", "币安人生", "USDT"),
            ("AAPLx/USD", "AAPLx", "USD"),
            ("AAPLxUSD", "AAPLx", "USD"),
            ("AAPLx/usd", "AAPLx", "USD"),
            ("aaplx/usd", "AAPLX", "USD"),
            ("BRK.Bx/USD", "BRK.Bx", "USD"),
            ("PUMPx/Usd", "PUMPx", "USD"),
            ("Btc/Usd", "BTC", "USD"),
            ("Btc/uSd", "BTC", "USD"),
            ("BtcUsd", "BTC", "USD"),
            ("bTC-USD", "BTC", "USD"),
            ("1000sats/usdt", "1000SATS", "USDT"),
            ("1inch-USD", "1INCH", "USD"),
            ("ETH2.S/ETH", "ETH2.S", "ETH"),
            ("ETH2.SETH", "ETH2.S", "ETH"),
            ("1000SATSUSDT", "1000SATS", "USDT"),
            ("1INCHUSDT", "1INCH", "USDT"),
            ("00-USD", "00", "USD"),
            ("2Z/USD", "2Z", "USD"),
            ("BTC-USD1", "BTC", "USD1"),
            ("ＢＴＣ／ＵＳＤＴ", "BTC", "USDT"),
            ("שקל-USDT", "שקל", "USDT"),
            ("モナー-JPY", "モナー", "JPY"),
        ] {
            assert_eq!(parts(text), Ok((base.to_owned(), quote.to_owned())), "{text}");
        }
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
    fn what_would_be_something_else_in_a_url_a_query_or_a_log_is_no_symbol() {
        let wrong = "?&#%@_;'\"\\`$*<>{}[]()=+,|^~! \t\n\r\0\x1b\x7f\u{85}\u{a0}\u{200b}\u{200d}\u{200e}\u{202e}\u{2066}\
                     \u{2028}\u{2060}\u{3000}\u{3164}\u{115f}\u{1160}\u{ffa0}\u{feff}\u{301}\u{64b}\u{e0041}👩½²…·";
        for character in wrong.chars() {
            for text in [
                format!("B{character}C-USDT"),
                format!("BTC-U{character}D"),
                format!("B{character}CUSDT"),
            ] {
                let error = text.parse::<Symbol>();
                // A dot or a digit may be what a character means; then it is read as that.
                let is_read = matches!(character, '²' | '…' | '½' | '\u{301}');
                assert!(error.is_err() || is_read, "{text:?}: {error:?}");
            }
            assert!(Symbol::new(&format!("B{character}C"), "USDT").is_err(), "{character:?}");
        }
        for text in ["BTC.-USDT", ".BTC-USDT", "B..C-USDT", "BTC-.USDT"] {
            assert_eq!(text.parse::<Symbol>(), Err(SymbolError::Character('.')), "{text}");
        }
        for text in ["", "-", "BTC-", "/USDT", " "] {
            assert_eq!(text.parse::<Symbol>(), Err(SymbolError::Empty), "{text}");
        }
        assert_eq!("BTC_USDT".parse::<Symbol>(), Err(SymbolError::Character('_')));
        assert_eq!("BTC-USDT-SWAP".parse::<Symbol>(), Err(SymbolError::Character('-')));
    }

    #[test]
    fn one_name_is_not_written_in_two_ways() {
        assert_eq!(parts("É-USD"), parts("E\u{301}-USD"));
        assert_eq!(parts("가-KRW"), parts("\u{1100}\u{1161}-KRW"));
        for base in ["\u{1100}\u{1161}", "Ａ", "ﬁ"] {
            assert_eq!(Symbol::new(base, "USD"), Err(SymbolError::Form), "{base}");
        }
    }

    #[test]
    fn a_text_that_is_no_symbol_says_why() {
        for text in ["USDT", "é", "NOSUCH", "币安人生", "BTCMXN"] {
            assert_eq!(text.parse::<Symbol>(), Err(SymbolError::UnknownQuote), "{text}");
        }
        let said = SymbolError::UnknownQuote.to_string();
        assert!(said.contains("BASE-QUOTE"), "{said}");
        let said = SymbolError::Character('\u{202e}').to_string();
        assert!(said.starts_with(r"'\u{202e}' cannot stand there"), "{said}");
    }

    #[test]
    fn base_and_quote_may_be_as_long_as_is_said_and_no_longer() {
        let (twenty, chinese) = ("A".repeat(20), "币".repeat(20));
        assert!(Symbol::new(&twenty, &twenty).is_ok());
        assert!(Symbol::new(&chinese, &chinese).is_ok());
        let long = [("A".repeat(21), "USDT"), ("币".repeat(21), "USDT"), ("𠀀".repeat(16), "USDT")];
        for (base, quote) in long {
            assert_eq!(Symbol::new(&base, quote), Err(SymbolError::TooLong), "{base}");
            assert_eq!(format!("{base}{quote}").parse::<Symbol>(), Err(SymbolError::TooLong));
        }
        assert!(Symbol::new(&"𠀀".repeat(15), "USDT").is_ok());
        let said = SymbolError::TooLong.to_string();
        assert!(said.contains("20 characters") && said.contains("60 bytes"), "{said}");
    }

    #[test]
    fn a_symbol_is_asked_for_on_one_exchange_or_on_any() {
        let asked = |text: &str| text.parse::<SymbolRef>();
        let one = asked("Binance:btc-usdt").unwrap();
        assert_eq!((one.exchange.as_deref(), one.symbol.as_str()), (Some("binance"), "BTCUSDT"));
        assert_eq!(one.to_string(), "binance:BTCUSDT");
        assert!(one.means("binance", "BTCUSDT") && !one.means("okx", "BTCUSDT"));
        let any = asked("AAPLx/USD").unwrap();
        assert!(any.means("kraken", "AAPLxUSD") && any.means("bybit", "AAPLXUSD"));
        assert!(!any.means("kraken", "aaplxusd"));
        for text in [":BTCUSDT", "a b:BTCUSDT", "币:BTCUSDT"] {
            assert_eq!(asked(text), Err(SymbolError::Exchange), "{text}");
        }
        assert_eq!(asked("okx:"), Err(SymbolError::Empty));
        assert_eq!(asked("a:b:BTCUSDT"), Err(SymbolError::Character(':')));
    }

    #[test]
    fn the_nearest_names_are_found_whatever_their_case_and_separators() {
        let names = ["BTC/USD", "ETH/USD", "AAPLx/USD", "BTC/USDC", "BTC/USDT", "SOL/EUR"];
        let found = |wanted| nearest(wanted, names, 2);
        assert_eq!(found("AAPLX/USD"), ["AAPLx/USD"]);
        assert_eq!(found("BTCUDST"), ["BTC/USDT"]);
        assert_eq!(found("BTC/USDD"), ["BTC/USDT", "BTC/USDC"]);
        assert_eq!(found("NOSUCH/USDT"), [""; 0]);
        assert_eq!(nearest("ETHUSDT", ["okx:ETHUSDT", "bybit:BTCUSDT"], 3), ["okx:ETHUSDT"]);
    }

    proptest! {
        #[test]
        fn prop_what_is_read_is_the_same_when_it_is_written_and_read_again(text in any::<String>()) {
            if let Ok(symbol) = text.parse::<Symbol>() {
                let again = Symbol::new(symbol.base(), symbol.quote());
                prop_assert_eq!(again.as_ref(), Ok(&symbol));
                let written = format!("{}-{}", symbol.base(), symbol.quote());
                prop_assert_eq!(written.parse::<Symbol>(), Ok(symbol));
            }
        }
    }
}
