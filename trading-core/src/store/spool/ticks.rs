//! The form of ticks in the spool: exact, to the last digit of a price.
//!
//! Pure. A payload names each instrument once, by exchange, base and quote, so that the very same instrument comes
//! back; a tick takes some 60 bytes.

use std::collections::HashMap;

use rust_decimal::Decimal;
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

use super::{SpoolError, Spooled};
use crate::domain::{Instrument, Side, Source, Symbol, Tick, Timestamp, TradeId};

#[derive(Serialize, Deserialize)]
struct Payload<'a> {
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

impl Spooled for Tick {
    /// Two decimals of sixteen bytes, and six numbers.
    const BYTES_MIN: usize = 38;

    fn encode(ticks: &[Self]) -> Result<Vec<u8>, SpoolError> {
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
        postcard::to_allocvec(&Payload { instruments, ticks: entries })
            .map_err(|_no_memory| SpoolError::TooLarge(ticks.len()))
    }

    fn decode(payload: &[u8]) -> Option<Vec<Self>> {
        let (read, rest) = postcard::take_from_bytes::<Payload<'_>>(payload).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let instruments: Vec<Instrument> = read
            .instruments
            .iter()
            .map(|(exchange, base, quote)| {
                Instrument::intern(exchange, &Symbol::new(base, quote).ok()?).ok()
            })
            .collect::<Option<_>>()?;
        read.ticks
            .into_iter()
            .map(|entry| {
                Some(Self {
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
            let back = Tick::decode(&Tick::encode(&ticks).unwrap()).unwrap();
            prop_assert_eq!(&back, &ticks);
            for (one, other) in back.iter().zip(&ticks) {
                prop_assert_eq!(one.price.to_string(), other.price.to_string(), "its zeros too");
                prop_assert_eq!(one.instrument.symbol().base(), other.instrument.symbol().base());
            }
        }

        #[test]
        fn prop_no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            // What it makes of them is of no interest: a block is read only where its checksum holds.
            drop(Tick::decode(&bytes));
        }
    }

    #[test]
    fn a_payload_of_another_kind_which_begins_with_zero_holds_no_tick() {
        let payload = Tick::encode(&[tick(1)]).unwrap();
        assert_ne!(payload.first(), Some(&0));
        let of_another_kind = [b"\0quotes".as_slice(), &payload].concat();
        assert_eq!(Tick::decode(&of_another_kind), None);
    }

    #[test]
    fn what_the_program_does_not_know_is_not_read() {
        let payload = Tick::encode(&[tick(1)]).unwrap();
        assert!(Tick::decode(&payload).is_some());
        let mut longer = payload.clone();
        longer.push(0);
        assert_eq!(Tick::decode(&longer), None, "more than a payload");
        assert_eq!(Tick::decode(&payload[..payload.len() - 1]), None, "less than a payload");
        let at = payload.windows(3).position(|bytes| bytes == b"BTC").unwrap();
        let mut foreign = payload;
        foreign[at] = b'-';
        assert_eq!(Tick::decode(&foreign), None, "no symbol");
    }
}
