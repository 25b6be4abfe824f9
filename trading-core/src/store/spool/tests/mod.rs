//! The spool's promises, on a real disk.

mod damage;
pub(crate) mod kinds;
mod odd;
mod others;
mod place;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use rust_decimal::Decimal;

use super::*;
use crate::domain::testing;
use crate::domain::{Instrument, Side, Source, Tick, Timestamp, TradeId};
use crate::store::folder::Folder;

const DATABASE: &str = "11111111-2222 real exchanges";
const LIMIT: u64 = 64 << 20;

pub(super) fn tick(id: u64) -> Tick {
    let exchange_at = Timestamp::from_micros(1_700_000_000_000_000).unwrap();
    Tick { exchange_at, received_at: exchange_at + Duration::from_micros(id), ..testing::tick(id) }
}

fn ticks(ids: std::ops::Range<u64>) -> Vec<Tick> {
    ids.map(tick).collect()
}

/// Any tick that there can be; its instruments are few, as those of a process are.
pub(super) fn any_tick() -> impl Strategy<Value = Tick> {
    let instrument = (0..3_usize, 0..8_usize).prop_map(|(exchange, symbol)| {
        let exchange = ["binance", "okx", "kraken"][exchange];
        // The same letters, parted in two ways, are two symbols; so are a small letter and its capital.
        let symbol = [
            "BTC-USDT",
            "ETHUSD",
            "BNB-USD",
            "BN-BUSD",
            "币安人生-USDT",
            "AAPLx/USD",
            "AAPLX/USD",
            "ETH2.S/ETH",
        ][symbol];
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

fn open(dir: &Path, max_bytes: u64) -> (Queue<Tick>, Vec<Foreign>) {
    open_for(dir, max_bytes, DATABASE)
}

fn open_for(
    dir: &Path,
    max_bytes: u64,
    names: impl Into<SpoolNames>,
) -> (Queue<Tick>, Vec<Foreign>) {
    Queue::open(dir, max_bytes, names, false).unwrap()
}

/// Also what was set aside, and what is nameless.
fn open_all(dir: &Path) -> Queue<Tick> {
    Queue::open(dir, LIMIT, DATABASE, true).unwrap().0
}

/// The folders of the slots.
fn slots(dir: &Path) -> Vec<PathBuf> {
    let slots = files::slots(&Folder::open(dir).unwrap()).unwrap();
    slots.folders.iter().map(|(_, folder)| folder.path().to_owned()).collect()
}

/// Everything that can be read, in order, and how many records could not be.
fn drain<R: Spooled>(queue: &mut Queue<R>, records_max: usize) -> (Vec<R>, u64) {
    let (mut records, mut unreadable) = (Vec::new(), 0);
    while let Some(oldest) = queue.oldest(records_max).unwrap() {
        records.extend(oldest.records);
        unreadable += oldest.unreadable;
        queue.remove(&oldest.position);
    }
    assert_eq!(queue.backlog(), Backlog::default());
    (records, unreadable)
}

/// The files of a kind, in all slots.
fn files_of(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = slots(dir)
        .into_iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()))
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
    assert_eq!(oldest.records.len(), 200, "whole batches, up to the limit");
    let oldest = queue.oldest(1).unwrap().unwrap();
    assert_eq!(oldest.records.len(), 100, "one batch at least");
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
    let (mut queue, _) = open(folder.path(), LIMIT);
    assert!(queue.torn() == 0 && queue.losses().is_none(), "{:?}", queue.losses());
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
        stored.extend(oldest.records);
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
    // A file that only takes reading, and no room for another one.
    let path = files_of(folder.path(), "segment").remove(0);
    queue.replace_open_file(fs::File::open(&path).unwrap());
    let before = queue.backlog();
    let error = queue.append_now(&ticks(10..20)).unwrap_err();
    assert!(error.to_string().starts_with("cannot write to"), "{error}");
    assert_eq!(queue.backlog(), before);
    queue.append(&ticks(10..20)).unwrap();
    drop(queue);
    let (mut queue, _) = open(folder.path(), LIMIT);
    assert!(queue.torn() == 0 && queue.losses().is_none(), "{:?}", queue.losses());
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
    assert_eq!(slots(folder.path()).len(), 3, "slots are used again");
    let (mut all, _) = open(folder.path(), LIMIT);
    assert_eq!(drain(&mut all, 10_000).0, ticks(0..30));
}

#[test]
fn all_slots_taken_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let held: Vec<Queue<Tick>> = (0..SLOTS_MAX).map(|_| open(folder.path(), LIMIT).0).collect();
    let error = Queue::<Tick>::open(folder.path(), LIMIT, DATABASE, false).unwrap_err();
    assert!(error.to_string().starts_with("all 64 slots of the spool"), "{error}");
    drop(held);
    open(folder.path(), LIMIT);
}

#[test]
fn what_belongs_to_another_database_is_left_alone_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let (mut other, _) = open_for(folder.path(), LIMIT, "another database");
    other.append(&ticks(0..10)).unwrap();
    drop(other);
    let (mut queue, foreign) = open(folder.path(), LIMIT);
    let left = Foreign { folder: folder.path().join("1"), database: "another database".into() };
    assert_eq!(foreign, [left]);
    queue.append(&ticks(10..20)).unwrap();
    assert_eq!(drain(&mut queue, 10_000).0, ticks(10..20));
    drop(queue);
    let (mut other, foreign) = open_for(folder.path(), LIMIT, "another database");
    assert_eq!(foreign, []);
    assert_eq!(drain(&mut other, 10_000).0, ticks(0..10));
}

#[test]
fn what_was_written_under_another_name_of_the_database_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["as it was called", "somebody else's"] {
        let (mut before, _) = open_for(folder.path(), LIMIT, name);
        before.append(&ticks(0..10)).unwrap();
    }
    let names = SpoolNames { database: DATABASE.into(), also: vec!["as it was called".into()] };
    let (mut queue, foreign) = open_for(folder.path(), LIMIT, names);
    let left = Foreign { folder: folder.path().join("2"), database: "somebody else's".into() };
    assert_eq!(foreign, [left]);
    queue.append(&ticks(10..20)).unwrap();
    drop(queue);
    // What is new is written under the name of now.
    let (_, foreign) = open_for(folder.path(), LIMIT, "as it was called");
    let held: Vec<_> = foreign.iter().map(|it| it.database.as_str()).collect();
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
    let inspected = inspect(dir, 2_005, false).unwrap();
    assert_eq!(inspected.len(), 2_005, "bounded");
    assert_eq!(inspected.last().unwrap(), &(2, tick(2_004)));
    assert_eq!(inspect(dir, 9_999, false).unwrap().len(), 2_010);
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
    let (spool, found) = Spool::<Tick>::open(dir, 1 << 20, DATABASE.to_owned()).await.unwrap();
    assert_eq!((found.backlog.ticks, found.backlog), (next - 1_000, spool.backlog()));
    while let Some(oldest) = spool.oldest(10_000).await.unwrap() {
        spool.remove(oldest.position).await.unwrap();
    }
    spool.until_empty_is(true).await;
}
