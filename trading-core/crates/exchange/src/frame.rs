//! Reading frames without copying them: what several venues' protocols have in common.
//!
//! Texts are borrowed from the frame, and the trades of a batch are handed on one by one as they are read, so
//! that a frame of trades is read in one pass and costs no allocation.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::time::Duration;

use rust_decimal::Decimal;
use rustc_hash::FxHashMap;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{DecodeError, Subscribed};
use domain::{DAY, Instrument, Side, Tick, parse_decimal};

/// A JSON string, borrowed from the frame unless it holds an escape.
#[derive(Debug, PartialEq, Eq, Hash, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Tells a field that is there, `null` included, from one that is not; for `deserialize_with`.
pub(super) fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A price or a quantity. Zero is let through, as a venue may print it; less than nothing is no amount.
pub(super) fn amount(field: &'static str, text: &str) -> Result<Decimal, DecodeError> {
    let amount = parse_decimal(text)?;
    if amount < Decimal::ZERO {
        return Err(DecodeError::unknown_value(field, text));
    }
    Ok(amount)
}

/// `buy` or `sell`, whoever's side it is.
pub(super) fn side(text: &str) -> Result<Side, DecodeError> {
    match text {
        "buy" => Ok(Side::Buy),
        "sell" => Ok(Side::Sell),
        other => Err(DecodeError::unknown_value("side", other)),
    }
}

/// The one subscribed symbol that a venue's words name. `None` when they name none, or several.
pub(super) fn named_in(words: &str, symbols: &Subscribed) -> Option<Instrument> {
    let apart =
        |character: char| !character.is_alphanumeric() && !matches!(character, '-' | '/' | '.');
    let known = |name: &str| symbols.find(name).ok();
    // A dot may stand in a name, before one, or at the end of a sentence.
    let word =
        |word: &str| known(word.trim_matches('.')).or_else(|| word.split('.').find_map(known));
    let mut named = words.split(apart).filter_map(word);
    let first = named.next()?;
    named.all(|other| other == first).then_some(first)
}

/// Names in lists of `count` and of `bytes` at most, where each takes so many bytes more than its own. A name
/// that is longer than that alone has a list of its own.
pub(super) fn lists<T: AsRef<str>>(
    mut names: &[T],
    count: usize,
    bytes: usize,
    more: usize,
) -> Vec<&[T]> {
    let mut lists = Vec::new();
    while !names.is_empty() {
        let mut left = bytes;
        let fits = names.iter().take(count).take_while(|name| {
            let rest = left.checked_sub(name.as_ref().len() + more);
            left = rest.unwrap_or_default();
            rest.is_some()
        });
        let (list, rest) = names.split_at(fits.count().clamp(1, names.len()));
        lists.push(list);
        names = rest;
    }
    lists
}

/// Puts the ticks from `start` on in the order of their ids, where a venue counts its trades but does not
/// promise their order within one frame.
pub(super) fn oldest_first(ticks: &mut [Tick], start: usize) {
    if let Some(batch) = ticks.get_mut(start..)
        && !batch.is_sorted_by(|one, next| one.trade_id <= next.trade_id)
    {
        batch.sort_by(|one, other| one.trade_id.cmp(&other.trade_id));
    }
}

/// What an exchange sends again on subscribing may be months old where a symbol is seldom traded. Trades older than this
/// are its history and not what is recorded live: if they are wanted, repair asks for them.
const SENT_AGAIN_MAX: Duration = DAY;

/// Whether a trade that is sent again on subscribing is too old to be recorded.
pub(super) fn is_history(tick: &Tick) -> bool {
    tick.exchange_at < tick.received_at - SENT_AGAIN_MAX
}

/// Reads `{"<header>": H, …, "data": [E, …]}`: where `is_trades` knows the header, each element goes through
/// `read` into `ticks`. Answers whether the frame was a batch of trades; if not, nothing was read.
///
/// # Errors
///
/// When the frame is not JSON, or an element could not be read: the first reason. The others are in `ticks`.
pub(super) fn read_batch<'f, H: Deserialize<'f>, E: Deserialize<'f>>(
    frame: &'f str,
    header: &'static str,
    is_trades: impl Fn(&H) -> bool,
    mut read: impl FnMut(E) -> Result<Tick, DecodeError>,
    ticks: &mut Vec<Tick>,
) -> Result<bool, DecodeError> {
    let start = ticks.len();
    let mut refused = None;
    let take = |element: E| match read(element) {
        Ok(tick) => ticks.push(tick),
        Err(error) => {
            refused.get_or_insert(error);
        }
    };
    let mut json = serde_json::Deserializer::from_str(frame);
    let visitor = Batch { header, is_trades: &is_trades, take, shape: PhantomData };
    let one_pass = json.deserialize_map(visitor).and_then(|found| json.end().map(|()| found));
    match (one_pass, refused) {
        (Ok(found), None) => Ok(found),
        (Ok(_), Some(error)) => Err(error),
        // An element of another shape ends the pass: the elements are then read each on its own.
        (Err(_), _) => read_apart(frame, header, is_trades, read, ticks, start),
    }
}

/// [`read_batch`] for a frame with an unexpected shape: slower, and stopped by nothing but broken JSON.
fn read_apart<'f, H: Deserialize<'f>, E: Deserialize<'f>>(
    frame: &'f str,
    header: &'static str,
    is_trades: impl Fn(&H) -> bool,
    mut read: impl FnMut(E) -> Result<Tick, DecodeError>,
    ticks: &mut Vec<Tick>,
    start: usize,
) -> Result<bool, DecodeError> {
    let fields: FxHashMap<Text<'f>, &'f RawValue> = serde_json::from_str(frame)?;
    let field = |name: &str| fields.get(&Text(Cow::Owned(name.to_owned()))).map(|raw| raw.get());
    // The first pass may have kept some already; from here on the frame is known to be whole.
    ticks.truncate(start);
    let Some(data) = field("data") else { return Ok(false) };
    let known = field(header).and_then(|raw| serde_json::from_str(raw).ok());
    if !known.is_some_and(|header| is_trades(&header)) {
        return Ok(false);
    }
    let mut refused = None;
    for raw in serde_json::from_str::<Vec<&RawValue>>(data)? {
        let tick = serde_json::from_str(raw.get()).map_err(DecodeError::from).and_then(&mut read);
        match tick {
            Ok(tick) => ticks.push(tick),
            Err(error) => {
                refused.get_or_insert(error);
            }
        }
    }
    refused.map_or(Ok(true), Err)
}

/// The frame as a whole: a header, then the elements.
struct Batch<H, E, P, T> {
    header: &'static str,
    is_trades: P,
    take: T,
    shape: PhantomData<fn() -> (H, E)>,
}

impl<'de, H, E, P, T> Visitor<'de> for Batch<H, E, P, T>
where
    H: Deserialize<'de>,
    E: Deserialize<'de>,
    P: Fn(&H) -> bool,
    T: FnMut(E),
{
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with {} before data", self.header)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<bool, A::Error> {
        let mut is_trades = None;
        let mut found = false;
        while let Some(key) = map.next_key::<&str>()? {
            match is_trades {
                None if key == self.header => {
                    is_trades = Some((self.is_trades)(&map.next_value()?));
                }
                Some(true) if key == "data" && !found => {
                    found = true;
                    map.next_value_seed(Elements(&mut self.take, PhantomData))?;
                }
                // The header decides what the data is: in any other order it cannot be read in one pass.
                None if key == "data" => return Err(A::Error::custom("data before its header")),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// The array of a batch: each element is handed on as soon as it is read.
struct Elements<'t, E, T>(&'t mut T, PhantomData<fn() -> E>);

impl<'de, E: Deserialize<'de>, T: FnMut(E)> DeserializeSeed<'de> for Elements<'_, E, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, E: Deserialize<'de>, T: FnMut(E)> Visitor<'de> for Elements<'_, E, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of trades")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(element) = seq.next_element()? {
            (self.0)(element);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_alphabet_is_read_without_a_copy() {
        for json in ["\"BTCUSDT\"", "\"币安人生USDT\"", "\"AAPLx/USD\""] {
            let text: Text<'_> = serde_json::from_str(json).unwrap();
            assert!(matches!(text, Text(Cow::Borrowed(_))), "{json}");
        }
    }

    #[test]
    fn lists_hold_as_many_names_as_their_number_and_their_bytes_allow() {
        let sizes = |names: &[&str], count, bytes| {
            lists(names, count, bytes, 3).iter().map(|list| list.len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&["ab"; 7], 3, 1_000), [3, 3, 1]);
        assert_eq!(sizes(&["ab"; 7], 100, 10), [2, 2, 2, 1]);
        assert_eq!(sizes(&["ab"; 7], 100, 9), [1; 7]);
        assert_eq!(sizes(&["far too long", "ab"], 100, 5), [1, 1], "it is sent all the same");
        assert_eq!(sizes(&[], 3, 10), [0_usize; 0]);
    }
}
