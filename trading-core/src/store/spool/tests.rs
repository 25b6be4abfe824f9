//! The spool's promises, on a real disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rust_decimal::Decimal;

use super::*;
use crate::domain::{Instrument, Side, Source, Timestamp, TradeId};

const DATABASE: &str = "11111111-2222 real exchanges";
const LIMIT: u64 = 64 << 20;

pub(super) fn tick(id: u64) -> Tick {
    Tick {
        instrument: Instrument::intern("binance", &"BTCUSDT".parse().unwrap()).unwrap(),
        trade_id: TradeId::Number(id),
        price: "95234.50".parse().unwrap(),
        quantity: "0.00010900".parse().unwrap(),
        side: if id.is_multiple_of(2) { Side::Buy } else { Side::Sell },
        source: Source::Live,
        exchange_at: Timestamp::from_micros(1_700_000_000_000_000).unwrap(),
        received_at: Timestamp::from_micros(1_700_000_000_000_000 + i64::try_from(id).unwrap())
            .unwrap(),
    }
}

fn ticks(ids: std::ops::Range<u64>) -> Vec<Tick> {
    ids.map(tick).collect()
}

/// Any tick that there can be; its instruments are few, as those of a process are.
pub(super) fn any_tick() -> impl Strategy<Value = Tick> {
    let instrument = (0..3_usize, 0..4_usize).prop_map(|(exchange, symbol)| {
        let exchange = ["binance", "okx", "coinbase"][exchange];
        // The same letters, parted in two ways, are two symbols.
        let symbol = ["BTC-USDT", "ETHUSD", "BNB-USD", "BN-BUSD"][symbol];
        Instrument::intern(exchange, &symbol.parse().unwrap()).unwrap()
    });
    let id = prop_oneof![
        any::<u64>().prop_map(TradeId::Number),
        ".{0,40}".prop_map(|text| TradeId::Text(text.into())),
    ];
    let decimal =
        (any::<i64>(), 0..28_u32).prop_map(|(mantissa, scale)| Decimal::new(mantissa, scale));
    let source = (0..4_usize)
        .prop_map(|at| [Source::Live, Source::Backfill, Source::Pushed, Source::Bridge][at]);
    let time =
        (0..253_402_300_799_999_999_i64).prop_map(|micros| Timestamp::from_micros(micros).unwrap());
    let rest = (any::<bool>(), source, time.clone(), time);
    (instrument, id, decimal.clone(), decimal, rest).prop_map(
        |(instrument, trade_id, price, quantity, (is_buy, source, exchange_at, received_at))| {
            Tick {
                instrument,
                trade_id,
                price,
                quantity,
                side: if is_buy { Side::Buy } else { Side::Sell },
                source,
                exchange_at,
                received_at,
            }
        },
    )
}

fn open(dir: &Path, max_bytes: u64) -> (Queue, Remarks) {
    Queue::open(dir, max_bytes, DATABASE).unwrap()
}

/// Everything that can be read, in order, and how many ticks could not be.
fn drain(queue: &mut Queue, ticks_max: usize) -> (Vec<Tick>, u64) {
    let (mut ticks, mut unreadable) = (Vec::new(), 0);
    while let Some(oldest) = queue.oldest(ticks_max).unwrap() {
        ticks.extend(oldest.ticks);
        unreadable += oldest.unreadable;
        queue.remove(&oldest.position);
    }
    assert_eq!(queue.backlog(), Backlog::default());
    (ticks, unreadable)
}

/// The files of a kind, in all slots.
fn files_of(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = files::slot_folders(dir)
        .unwrap()
        .into_iter()
        .flat_map(|(_, folder)| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|it| it == extension))
        .collect();
    found.sort_unstable();
    found
}

#[test]
fn what_is_appended_comes_back_in_order_and_takes_no_room_when_it_is_drained() {
    let folder = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(folder.path(), LIMIT);
    for batch in 0..30 {
        queue.append(&ticks(batch * 100..(batch + 1) * 100)).unwrap();
    }
    let backlog = queue.backlog();
    assert_eq!((backlog.batches, backlog.ticks), (30, 3_000));
    let on_disk: u64 = files_of(folder.path(), "segment")
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    assert_eq!(backlog.bytes, on_disk);
    let oldest = queue.oldest(250).unwrap().unwrap();
    assert_eq!(oldest.ticks.len(), 200, "whole batches, up to the limit");
    let oldest = queue.oldest(1).unwrap().unwrap();
    assert_eq!(oldest.ticks.len(), 100, "one batch at least");
    assert_eq!(drain(&mut queue, 250), (ticks(0..3_000), 0));
    assert!(files_of(folder.path(), "segment").is_empty());
    queue.append(&ticks(0..5)).unwrap();
    assert_eq!(drain(&mut queue, 250), (ticks(0..5), 0), "and it goes on");
}

#[test]
fn an_end_without_farewell_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(folder.path(), LIMIT);
    queue.append(&ticks(0..2_500)).unwrap();
    queue.append(&ticks(2_500..2_600)).unwrap();
    let oldest = queue.oldest(1).unwrap().unwrap();
    queue.remove(&oldest.position);
    drop(queue);
    let (mut queue, remarks) = open(folder.path(), LIMIT);
    assert_eq!((remarks.torn, remarks.damaged), (0, 0));
    assert_eq!(
        (queue.backlog().batches, queue.backlog().ticks),
        (4, 2_600),
        "drained twice, perhaps"
    );
    queue.append(&ticks(2_600..2_700)).unwrap();
    assert_eq!(drain(&mut queue, 10_000).0, ticks(0..2_700), "oldest first, over the files");
}

#[test]
fn it_never_takes_more_than_its_limit_and_goes_on_when_there_is_room_again() {
    let folder = tempfile::tempdir().unwrap();
    let limit = 1 << 20;
    let (mut queue, _) = open(folder.path(), limit);
    let mut appended = 0;
    let error = loop {
        match queue.append(&ticks(appended..appended + 500)) {
            Ok(()) => appended += 500,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, SpoolError::Full { max_bytes, .. } if max_bytes == limit), "{error}");
    assert!(error.to_string().contains("of 1.0 MiB are taken"), "{error}");
    let bytes: u64 = files_of(folder.path(), "segment")
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    assert!((limit - 50_000..=limit).contains(&bytes), "{bytes}");
    assert_eq!(queue.backlog().ticks, appended, "the refused batch left nothing behind");
    // A drained part gives its room back, long before everything is drained.
    let mut stored = Vec::new();
    while queue.append(&ticks(appended..appended + 500)).is_err() {
        let oldest = queue.oldest(500).unwrap().unwrap();
        stored.extend(oldest.ticks);
        queue.remove(&oldest.position);
    }
    assert!(stored.len() < usize::try_from(appended).unwrap() / 4, "{}", stored.len());
    stored.extend(drain(&mut queue, 10_000).0);
    assert_eq!(stored, ticks(0..appended + 500));
}

#[test]
fn a_disk_that_refuses_leaves_no_half_batch_and_no_lost_one() {
    let folder = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(folder.path(), LIMIT);
    queue.append(&ticks(0..10)).unwrap();
    // A folder where the next file should be; and a file that only takes reading.
    let (_, slot) = files::slot_folders(folder.path()).unwrap().remove(0);
    let blocked = files::segment_path(&slot, 2);
    fs::create_dir(&blocked).unwrap();
    let read_only = fs::File::open(files::segment_path(&slot, 1)).unwrap();
    queue.replace_open_file(read_only);
    let before = queue.backlog();
    let error = queue.append(&ticks(10..20)).unwrap_err();
    assert!(error.to_string().starts_with("cannot write to"), "{error}");
    let error = queue.append(&ticks(10..20)).unwrap_err();
    assert!(error.to_string().starts_with("cannot make"), "{error}");
    assert_eq!(queue.backlog(), before);
    fs::remove_dir(blocked).unwrap();
    queue.append(&ticks(10..20)).unwrap();
    drop(queue);
    let (mut queue, remarks) = open(folder.path(), LIMIT);
    assert_eq!((remarks.torn, remarks.damaged), (0, 0));
    assert_eq!(drain(&mut queue, 10_000).0, ticks(0..20));
}

#[test]
fn each_process_has_a_slot_and_takes_over_those_of_dead_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (mut one, _) = open(folder.path(), LIMIT);
    let (mut two, _) = open(folder.path(), LIMIT);
    one.append(&ticks(0..10)).unwrap();
    two.append(&ticks(10..20)).unwrap();
    let (mut three, _) = open(folder.path(), LIMIT);
    assert_eq!(drain(&mut three, 10_000).0, [], "what a living process holds is its own");
    drop((one, two));
    let (four, _) = open(folder.path(), LIMIT);
    assert_eq!(four.backlog().ticks, 20);
    drop(four);
    three.append(&ticks(20..30)).unwrap();
    drop(three);
    assert_eq!(files::slot_folders(folder.path()).unwrap().len(), 3, "slots are used again");
    let (mut all, _) = open(folder.path(), LIMIT);
    assert_eq!(drain(&mut all, 10_000).0, ticks(0..30));
}

#[test]
fn all_slots_taken_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let held: Vec<Queue> = (0..SLOTS_MAX).map(|_| open(folder.path(), LIMIT).0).collect();
    let error = Queue::open(folder.path(), LIMIT, DATABASE).unwrap_err();
    assert!(error.to_string().starts_with("all 64 slots of the spool"), "{error}");
    drop(held);
    open(folder.path(), LIMIT);
}

#[test]
fn what_belongs_to_another_database_is_left_alone_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let (mut other, _) = Queue::open(folder.path(), LIMIT, "another database").unwrap();
    other.append(&ticks(0..10)).unwrap();
    drop(other);
    let (mut queue, remarks) = open(folder.path(), LIMIT);
    let foreign = Foreign { folder: folder.path().join("1"), database: "another database".into() };
    assert_eq!(remarks.foreign, [foreign]);
    queue.append(&ticks(10..20)).unwrap();
    assert_eq!(drain(&mut queue, 10_000).0, ticks(10..20));
    drop(queue);
    let (mut other, remarks) = Queue::open(folder.path(), LIMIT, "another database").unwrap();
    assert_eq!(remarks.foreign, []);
    assert_eq!(drain(&mut other, 10_000).0, ticks(0..10));
}

#[test]
fn what_was_written_under_another_name_of_the_database_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["as it was called", "somebody else's"] {
        let (mut before, _) = Queue::open(folder.path(), LIMIT, name).unwrap();
        before.append(&ticks(0..10)).unwrap();
    }
    let names = SpoolNames { database: DATABASE.into(), also: vec!["as it was called".into()] };
    let (mut queue, remarks) = Queue::open(folder.path(), LIMIT, names).unwrap();
    let foreign = Foreign { folder: folder.path().join("2"), database: "somebody else's".into() };
    assert_eq!(remarks.foreign, [foreign]);
    queue.append(&ticks(10..20)).unwrap();
    drop(queue);
    // What is new is written under the name of now.
    let (_, remarks) = Queue::open(folder.path(), LIMIT, "as it was called").unwrap();
    let held: Vec<_> = remarks.foreign.iter().map(|it| it.database.as_str()).collect();
    assert_eq!(held, [DATABASE, "somebody else's"]);
}

#[test]
fn the_name_of_a_database_is_remembered_for_a_start_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("spool");
    assert_eq!(recall(&dir, "postgres://one/db"), None);
    for name in ["first", "second"] {
        remember(&dir, "postgres://one/db", name).unwrap();
        assert_eq!(recall(&dir, "postgres://one/db").as_deref(), Some(name));
    }
    remember(&dir, "postgres://two/db", "third").unwrap();
    assert_eq!(recall(&dir, "postgres://one/db").as_deref(), Some("second"));
    assert_eq!(recall(&dir, "postgres://three/db"), None);
    // Cut off, or another program's: it is as if nothing were known.
    for entry in std::fs::read_dir(&dir).unwrap() {
        std::fs::write(entry.unwrap().path(), "postgres://one/db").unwrap();
    }
    assert_eq!(recall(&dir, "postgres://one/db"), None);
    open(&dir, LIMIT);
}

#[test]
fn only_its_user_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("spool");
    let (mut queue, _) = open(&dir, LIMIT);
    queue.append(&ticks(0..1)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join("1"))), (0o700, 0o700));
    for name in ["claims.lock", "1/slot.lock", "1/0000000001.segment"] {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
}

/// A spool of one file with four batches, and the file's bytes.
fn four_batches(dir: &Path) -> (PathBuf, Vec<u8>, Vec<u64>) {
    let (mut queue, _) = open(dir, LIMIT);
    let mut ends = Vec::new();
    for batch in 0..4 {
        queue.append(&ticks(batch * 3..(batch + 1) * 3)).unwrap();
        ends.push(queue.backlog().bytes);
    }
    let path = files_of(dir, "segment").remove(0);
    let bytes = fs::read(&path).unwrap();
    (path, bytes, ends)
}

#[test]
fn cut_at_any_byte_it_gives_back_exactly_the_whole_batches_before() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes, ends) = four_batches(folder.path());
    for length in 0..=bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        let whole = ends.iter().filter(|end| **end <= length as u64).count() as u64;
        let (mut queue, remarks) = open(folder.path(), LIMIT);
        assert_eq!(remarks.damaged, 0, "cut at {length}");
        assert_eq!(drain(&mut queue, 10_000), (ticks(0..whole * 3), 0), "cut at {length}");
        assert!(files_of(folder.path(), "damaged").is_empty(), "cut at {length}");
        drop(queue);
        // A disk may have made the file longer before it wrote what belongs there.
        let mut zeros = bytes[..length].to_vec();
        zeros.resize(bytes.len() + 100, 0);
        fs::write(&path, &zeros).unwrap();
        let (mut queue, _) = open(folder.path(), LIMIT);
        let (back, _) = drain(&mut queue, 10_000);
        let whole = usize::try_from(whole * 3).unwrap();
        assert_eq!(back.get(..whole), Some(ticks(0..12).split_at(whole).0), "zeros from {length}");
        files_of(folder.path(), "damaged").iter().for_each(|path| fs::remove_file(path).unwrap());
    }
}

#[test]
fn a_flipped_byte_is_found_wherever_it_is_and_costs_no_other_batch() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes, ends) = four_batches(folder.path());
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut flipped = bytes.clone();
            flipped[at] ^= flip;
            fs::write(&path, &flipped).unwrap();
            let (mut queue, remarks) = open(folder.path(), LIMIT);
            let (back, unreadable) = drain(&mut queue, 10_000);
            let hit = ends.iter().filter(|end| **end <= at as u64).count();
            let good = ticks(0..12);
            assert!(back.iter().all(|tick| good.contains(tick)), "byte {at}: an altered tick");
            assert!(back.len() < 12, "byte {at} is not noticed");
            assert!(unreadable > 0 || remarks.damaged > 0, "byte {at} is not told");
            let set_aside = files_of(folder.path(), "damaged");
            assert_eq!(set_aside.len(), 1, "byte {at}: kept, for somebody to look at");
            assert_eq!(fs::read(&set_aside[0]).unwrap(), flipped);
            fs::remove_file(&set_aside[0]).unwrap();
            // Where the frame holds, the batches after the bad one are found; those before always are.
            if at as u64 >= ends[0] {
                assert_eq!(back[..hit * 3], good[..hit * 3], "byte {at}");
            }
        }
    }
}

#[test]
fn a_batch_damaged_while_the_recorder_runs_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(folder.path(), LIMIT);
    (0..3).for_each(|batch| queue.append(&ticks(batch * 3..(batch + 1) * 3)).unwrap());
    let path = files_of(folder.path(), "segment").remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let length = bytes.len();
    bytes[length - 1] ^= 0xff;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(drain(&mut queue, 10_000), (ticks(0..6), 3));
    // A frame that does not hold hides what comes after it.
    queue.append(&ticks(0..3)).unwrap();
    let first = queue.backlog().bytes;
    queue.append(&ticks(3..6)).unwrap();
    queue.append(&ticks(6..9)).unwrap();
    let path = files_of(folder.path(), "segment").remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[usize::try_from(first).unwrap()] ^= 0xff;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(drain(&mut queue, 10_000), (ticks(0..3), 6));
    assert_eq!(files_of(folder.path(), "damaged").len(), 2);
}

#[test]
fn a_file_that_somebody_removes_does_not_hold_up_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let (mut queue, _) = open(dir, LIMIT);
    queue.append(&ticks(0..10)).unwrap();
    fs::remove_file(files_of(dir, "segment").remove(0)).unwrap();
    let oldest = queue.oldest(1_000).unwrap().unwrap();
    assert_eq!((oldest.ticks.len(), oldest.unreadable), (0, 10));
    queue.append(&ticks(10..15)).unwrap();
    queue.remove(&oldest.position);
    assert_eq!(drain(&mut queue, 1_000), (ticks(10..15), 0), "not written to the removed file");
}

#[test]
fn who_only_looks_sees_what_waits_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    assert_eq!(status(&dir.join("none"), LIMIT).unwrap().slots, []);
    let (mut one, _) = open(dir, LIMIT);
    one.append(&ticks(0..2_000)).unwrap();
    let (mut two, _) = open(dir, LIMIT);
    two.append(&ticks(2_000..2_010)).unwrap();
    drop(two);
    let seen = status(dir, LIMIT).unwrap();
    assert_eq!((seen.batches, seen.ticks), (3, 2_010));
    let held: Vec<bool> = seen.slots.iter().map(|slot| slot.held).collect();
    assert_eq!(held, [true, false]);
    assert_eq!(seen.slots[0].database.as_deref(), Some(DATABASE));
    assert_eq!(seen.slots[0].oldest.as_deref(), Some("2023-11-14T22:13:20.000000Z"));
    assert_eq!(seen.slots[0].newest.as_deref(), Some("2023-11-14T22:13:20.001999Z"));
    let inspected = inspect(dir, 2_005).unwrap();
    assert_eq!(inspected.len(), 2_005, "bounded");
    assert_eq!(inspected.last().unwrap(), &(2, tick(2_004)));
    assert_eq!(inspect(dir, 9_999).unwrap().len(), 2_010);
    assert_eq!(drain(&mut one, 10_000).0.len(), 2_000);
    assert!(
        status(dir, LIMIT)
            .unwrap()
            .to_string()
            .contains("slot 2    nobody uses it; 1 batches, 10 ticks")
    );
}

#[tokio::test]
async fn the_spool_gives_the_buffer_back_and_says_what_waits() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_owned();
    let (spool, found) = Spool::open(dir.clone(), 1 << 20, DATABASE.to_owned()).await.unwrap();
    assert_eq!(found, Found::default());
    let (buffer, done) = spool.append(ticks(0..10)).await;
    done.unwrap();
    assert!(buffer.is_empty() && buffer.capacity() >= 10);
    spool.until_empty_is(false).await;
    let mut next = 10;
    let kept = loop {
        let (kept, done) = spool.append(ticks(next..next + 1_000)).await;
        next += 1_000;
        if done.is_err() {
            break kept;
        }
    };
    assert_eq!(kept, ticks(next - 1_000..next), "what does not fit stays with the caller");
    drop(spool);
    let (spool, found) = Spool::open(dir, 1 << 20, DATABASE.to_owned()).await.unwrap();
    assert_eq!((found.backlog.ticks, found.backlog), (next - 1_000, spool.backlog()));
    while let Some(oldest) = spool.oldest(10_000).await.unwrap() {
        spool.remove(oldest.position).await.unwrap();
    }
    spool.until_empty_is(true).await;
}
