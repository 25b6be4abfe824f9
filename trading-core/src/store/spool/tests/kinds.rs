//! A file names its format and the kind of its records: what is older is read, what is not known is left alone.

use std::fmt;

use super::*;
use crate::domain::Record;

/// The first bytes of a file of format 1 for [`DATABASE`], whose first tick is tick 0, with the frame of the head: written
/// out by hand, as every byte here, so that a change of the format does not change what is read.
pub(super) const HEAD_1: &str = "544353504f4f4c312500000000000000192517a171e1824c\
     1c31313131313131312d32323232207265616c2065786368616e6765738080f28183898506";

/// The same of format 2, which names the kind.
pub(super) const HEAD_2: &str = "544353504f4f4c322b0000000000000053826b9626521ab6\
     1c31313131313131312d32323232207265616c2065786368616e6765738080f28183898506057469636b73";

/// Two blocks, with ticks 0 and 1, and with tick 2: the same in both formats.
const BLOCKS: &str = "7d00000002000000c99ce738a57c6445\
     010762696e616e63650342544304555344540200000000000200fa509100000000000000000000000800942a000000000000000000000100\
     8080f281838985068080f2818389850600000100000200fa509100000000000000000000000800942a000000000000000000000000\
     8080f281838985068280f28183898506\
     48000000010000009b0d07538064aa5e\
     010762696e616e63650342544304555344540100000200000200fa509100000000000000000000000800942a000000000000000000000100\
     8080f281838985068480f28183898506";

pub(super) fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A kind that only the tests know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quote {
    pub(crate) bid: i64,
    at: Timestamp,
}

impl Record for Quote {
    const KIND: &'static str = "quotes";

    fn instrument(&self) -> Instrument {
        tick(0).instrument
    }

    fn exchange_at(&self) -> Timestamp {
        self.at
    }

    fn received_at(&self) -> Timestamp {
        self.at
    }

    fn summary(&self) -> impl fmt::Display {
        self.bid
    }
}

impl Spooled for Quote {
    const BYTES_MIN: usize = 16;

    fn encode(quotes: &[Self]) -> Result<Vec<u8>, SpoolError> {
        let each = quotes.iter().flat_map(|quote| [quote.bid, quote.at.as_micros()]);
        Ok(b"\0quotes".iter().copied().chain(each.flat_map(i64::to_le_bytes)).collect())
    }

    fn decode(payload: &[u8]) -> Option<Vec<Self>> {
        let quotes = payload.strip_prefix(b"\0quotes")?.chunks_exact(16);
        let number = |bytes: &[u8]| Some(i64::from_le_bytes(bytes.try_into().ok()?));
        quotes
            .map(|quote| {
                let at = Timestamp::from_micros(number(&quote[8..])?).ok()?;
                Some(Self { bid: number(&quote[..8])?, at })
            })
            .collect()
    }
}

pub(crate) fn quotes(bids: std::ops::Range<i64>) -> Vec<Quote> {
    bids.map(|bid| Quote { bid, at: tick(5).received_at }).collect()
}

fn open_quotes(dir: &Path, salvage: bool) -> Queue<Quote> {
    Queue::open(dir, LIMIT, DATABASE, salvage).unwrap().0
}

/// A file with two batches of quotes, which nobody holds.
fn spooled_quotes(dir: &Path) -> PathBuf {
    let mut queue = open_quotes(dir, false);
    queue.append(&quotes(0..20)).unwrap();
    queue.append(&quotes(20..30)).unwrap();
    files_of(dir, "segment").remove(0)
}

#[test]
fn a_file_of_the_first_format_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    drop(open(dir, LIMIT));
    let path = dir.join("1/0000000001.segment");
    fs::write(&path, [bytes(HEAD_1), bytes(BLOCKS)].concat()).unwrap();
    let seen = status(dir, LIMIT).unwrap();
    assert_eq!((seen.batches, seen.ticks, seen.skipped.len()), (2, 3, 0));
    assert_eq!(seen.slots[0].database.as_deref(), Some(DATABASE));
    let inspected: Vec<Tick> =
        inspect(dir, 100, false).unwrap().into_iter().map(|(_, tick)| tick).collect();
    assert_eq!(inspected, ticks(0..3));
    let (mut queue, _) = open(dir, LIMIT);
    assert!(queue.torn() == 0 && queue.losses().is_none(), "{:?}", queue.losses());
    queue.append(&ticks(3..5)).unwrap();
    assert_eq!(drain(&mut queue, 10_000), (ticks(0..5), 0));
    assert!(!path.exists());
}

#[test]
fn a_file_is_written_byte_for_byte_as_the_format_says() {
    let folder = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(folder.path(), LIMIT);
    queue.append(&ticks(0..2)).unwrap();
    queue.append(&ticks(2..3)).unwrap();
    let written = fs::read(&files_of(folder.path(), "segment")[0]).unwrap();
    assert_eq!(written, [bytes(HEAD_2), bytes(BLOCKS)].concat());
}

#[test]
fn a_kind_that_is_not_known_is_left_alone_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let path = spooled_quotes(dir);
    let before = fs::read(&path).unwrap();
    for salvage in [false, true] {
        let (mut queue, foreign) = Queue::<Tick>::open(dir, LIMIT, DATABASE, salvage).unwrap();
        let told = queue.losses().to_string();
        assert!(told.contains("it holds quotes, which this trading-core does not know"), "{told}");
        assert!(told.contains(&path.display().to_string()), "{told}");
        assert_eq!((queue.backlog(), foreign), (Backlog::default(), vec![]));
        // What is new is not written beside it.
        queue.append(&ticks(0..10)).unwrap();
        assert!(files_of(dir, "segment")[1].starts_with(dir.join("2")));
        assert_eq!(drain(&mut queue, 10_000).0, ticks(0..10));
    }
    let seen = status(dir, LIMIT).unwrap();
    assert_eq!((seen.ticks, seen.skipped.len()), (0, 1), "{seen}");
    assert!(inspect(dir, 100, false).unwrap().is_empty());
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(drain(&mut open_quotes(dir, false), 10_000), (quotes(0..30), 0));
}

#[test]
fn two_kinds_beside_each_other_are_drained_each_by_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let (mut of_ticks, mut of_quotes) = (open(dir, LIMIT).0, open_quotes(dir, false));
    of_ticks.append(&ticks(0..10)).unwrap();
    of_quotes.append(&quotes(0..10)).unwrap();
    drop((of_ticks, of_quotes));
    let (mut of_ticks, mut of_quotes) = (open(dir, LIMIT).0, open_quotes(dir, false));
    assert_eq!(drain(&mut of_quotes, 10_000), (quotes(0..10), 0));
    assert_eq!(drain(&mut of_ticks, 10_000), (ticks(0..10), 0));
}

#[test]
fn where_the_head_is_lost_records_of_another_kind_are_taken_for_none_of_ours_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let path = spooled_quotes(dir);
    let mut headless = fs::read(&path).unwrap();
    headless[..40].fill(0xee);
    fs::write(&path, &headless).unwrap();
    let (queue, _) = open(dir, LIMIT);
    assert!(queue.losses().to_string().contains("its head cannot be read"), "{}", queue.losses());
    drop(queue);
    assert_eq!(drain(&mut open_all(dir), 10_000).0, []);
    let aside = files_of(dir, "damaged");
    assert_eq!((aside.len(), fs::read(&aside[0]).unwrap()), (1, headless));
    assert_eq!(drain(&mut open_quotes(dir, true), 10_000).0, quotes(0..30));
}
