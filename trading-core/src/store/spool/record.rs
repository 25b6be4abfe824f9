//! Ticks as the bytes of a record, and back: exact, to the last digit of a price.
//!
//! Pure. A record names each instrument once, by exchange, base and quote, so that the very same instrument comes
//! back; a tick takes some 60 bytes.

use std::collections::HashMap;

use rust_decimal::Decimal;
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

use super::SpoolError;
use crate::domain::{Instrument, Side, Source, Symbol, Tick, Timestamp, TradeId};

/// Ticks that one record holds at most: what is read back at once stays small.
pub(super) const RECORD_TICKS_MAX: usize = 1_000;
/// Bytes of a tick at least: two decimals of sixteen, and six numbers.
pub(super) const TICK_BYTES_MIN: usize = 38;
/// Bytes of a record at most, on writing and on reading.
pub(super) const RECORD_BYTES_MAX: usize = 4 << 20;

/// One record, ready to be framed.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) payload: Vec<u8>,
    pub(super) ticks: u32,
}

#[derive(Serialize, Deserialize)]
struct Record<'a> {
    /// Exchange, base, quote.
    #[serde(borrow)]
    instruments: Vec<(&'a str, &'a str, &'a str)>,
    #[serde(borrow)]
    ticks: Vec<Entry<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Entry<'a> {
    instrument: u32,
    #[serde(borrow)]
    id: Id<'a>,
    price: [u8; 16],
    quantity: [u8; 16],
    is_buy: bool,
    source: u8,
    exchange_at: i64,
    received_at: i64,
}

#[derive(Serialize, Deserialize)]
enum Id<'a> {
    Number(u64),
    Text(&'a str),
}

/// The ticks as one record, or as several where they are many or large.
pub(super) fn encode(ticks: &[Tick]) -> Result<Vec<Encoded>, SpoolError> {
    let mut records = Vec::new();
    let mut parts: Vec<&[Tick]> = ticks.chunks(RECORD_TICKS_MAX).rev().collect();
    while let Some(part) = parts.pop() {
        let payload = encode_part(part)?;
        match part {
            _ if payload.len() <= RECORD_BYTES_MAX => {
                let ticks = u32::try_from(part.len()).unwrap_or(u32::MAX);
                records.push(Encoded { payload, ticks });
            }
            [_] => return Err(SpoolError::TooLarge(payload.len())),
            _ => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
        }
    }
    Ok(records)
}

fn encode_part(ticks: &[Tick]) -> Result<Vec<u8>, SpoolError> {
    let mut numbers: HashMap<Instrument, u32, FxBuildHasher> = HashMap::default();
    let mut instruments = Vec::new();
    let entries = ticks
        .iter()
        .map(|tick| {
            let instrument = *numbers.entry(tick.instrument).or_insert_with(|| {
                let symbol = tick.instrument.symbol();
                instruments.push((tick.instrument.exchange(), symbol.base(), symbol.quote()));
                u32::try_from(instruments.len() - 1).unwrap_or(u32::MAX)
            });
            Entry {
                instrument,
                id: match &tick.trade_id {
                    TradeId::Number(number) => Id::Number(*number),
                    TradeId::Text(text) => Id::Text(text),
                },
                price: tick.price.serialize(),
                quantity: tick.quantity.serialize(),
                is_buy: tick.side == Side::Buy,
                source: number_of(tick.source),
                exchange_at: tick.exchange_at.as_micros(),
                received_at: tick.received_at.as_micros(),
            }
        })
        .collect();
    // Into memory it fails only without memory; the disk's own errors come later.
    postcard::to_allocvec(&Record { instruments, ticks: entries })
        .map_err(|_no_memory| SpoolError::TooLarge(ticks.len()))
}

/// Reads a record; `None` when it is none, or names an instrument that cannot be known.
pub(super) fn decode(payload: &[u8]) -> Option<Vec<Tick>> {
    let (record, rest) = postcard::take_from_bytes::<Record<'_>>(payload).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let instruments: Vec<Instrument> = record
        .instruments
        .iter()
        .map(|(exchange, base, quote)| {
            Instrument::intern(exchange, &Symbol::new(base, quote).ok()?).ok()
        })
        .collect::<Option<_>>()?;
    record
        .ticks
        .into_iter()
        .map(|entry| {
            Some(Tick {
                instrument: *instruments.get(usize::try_from(entry.instrument).ok()?)?,
                trade_id: match entry.id {
                    Id::Number(number) => TradeId::Number(number),
                    Id::Text(text) => TradeId::Text(text.into()),
                },
                price: Decimal::deserialize(entry.price),
                quantity: Decimal::deserialize(entry.quantity),
                side: if entry.is_buy { Side::Buy } else { Side::Sell },
                source: source_of(entry.source)?,
                exchange_at: Timestamp::from_micros(entry.exchange_at).ok()?,
                received_at: Timestamp::from_micros(entry.received_at).ok()?,
            })
        })
        .collect()
}

/// The number never changes: what is on disk outlives the program that wrote it.
const fn number_of(source: Source) -> u8 {
    match source {
        Source::Live => 0,
        Source::Backfill => 1,
        Source::Pushed => 2,
        Source::Bridge => 3,
    }
}

fn source_of(number: u8) -> Option<Source> {
    [Source::Live, Source::Backfill, Source::Pushed, Source::Bridge]
        .into_iter()
        .find(|source| number_of(*source) == number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{any_tick, tick};
    use super::*;

    proptest! {
        #[test]
        fn prop_every_tick_comes_back_to_the_last_digit(ticks in prop::collection::vec(any_tick(), 1..40)) {
            let records = encode(&ticks).unwrap();
            let back: Vec<Tick> =
                records.iter().flat_map(|record| decode(&record.payload).unwrap()).collect();
            prop_assert_eq!(&back, &ticks);
            for (one, other) in back.iter().zip(&ticks) {
                prop_assert_eq!(one.price.to_string(), other.price.to_string(), "its zeros too");
                prop_assert_eq!(one.instrument.symbol().base(), other.instrument.symbol().base());
            }
        }

        #[test]
        fn prop_no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            // What it makes of them is of no interest: a record is read only where its checksum holds.
            decode(&bytes);
        }
    }

    #[test]
    fn many_ticks_are_several_records_in_order() {
        let ticks: Vec<Tick> = (0..2_500).map(tick).collect();
        let records = encode(&ticks).unwrap();
        let counts: Vec<u32> = records.iter().map(|record| record.ticks).collect();
        assert_eq!(counts, [1_000, 1_000, 500]);
        let back: Vec<Tick> =
            records.iter().flat_map(|record| decode(&record.payload).unwrap()).collect();
        assert_eq!(back, ticks);
        let per_tick = records[0].payload.len() / 1_000;
        assert!(per_tick <= 70, "{per_tick} bytes: config/trading-core.toml says 70");
    }

    #[test]
    fn a_record_is_bounded_in_bytes() {
        let long = |len: usize| Tick { trade_id: TradeId::Text("x".repeat(len).into()), ..tick(1) };
        let halves = [long(3 << 20), long(3 << 20), tick(2)];
        let records = encode(&halves).unwrap();
        assert_eq!(records.len(), 2);
        assert!(matches!(encode(&[long(5 << 20)]), Err(SpoolError::TooLarge(_))));
    }

    #[test]
    fn what_the_program_does_not_know_is_not_read() {
        let payload = encode(&[tick(1)]).unwrap().remove(0).payload;
        assert!(decode(&payload).is_some());
        let mut longer = payload.clone();
        longer.push(0);
        assert_eq!(decode(&longer), None, "more than a record");
        assert_eq!(decode(&payload[..payload.len() - 1]), None, "less than a record");
        let at = payload.windows(3).position(|bytes| bytes == b"BTC").unwrap();
        let mut foreign = payload;
        foreign[at] = b'-';
        assert_eq!(decode(&foreign), None, "no symbol");
    }
}
