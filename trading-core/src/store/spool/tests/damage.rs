//! Damage costs the blocks that it touches, and no others.

use std::ops::Range;

use super::super::segment::{Beginning, Contents, Reader};
use super::*;

/// A spool of one file with four batches, the file's bytes, and where each batch lies in it.
fn four_batches(dir: &Path, format: Format) -> (PathBuf, Vec<u8>, Vec<Range<usize>>) {
    let (mut queue, _) = open(dir, LIMIT);
    let mut places = batches(&mut queue, 0..4);
    drop(queue);
    let path = files_of(dir, "segment").remove(0);
    format.rewrite(&path, &mut places);
    let bytes = fs::read(&path).unwrap();
    (path, bytes, places)
}

/// What a file is written in.
#[derive(Debug, Clone, Copy)]
enum Format {
    /// Without a kind, as it was written once.
    One,
    /// As it is written now.
    Two,
}

impl Format {
    /// Gives a file its head in this format; its blocks are the same, and their places move.
    fn rewrite(self, path: &Path, places: &mut [Range<usize>]) {
        if matches!(self, Self::Two) {
            return;
        }
        let bytes = fs::read(path).unwrap();
        let blocks = &bytes[kinds::HEAD_2.len() / 2..];
        let old = [kinds::bytes(kinds::HEAD_1).as_slice(), blocks].concat();
        let shorter = bytes.len() - old.len();
        fs::write(path, old).unwrap();
        for place in places {
            *place = place.start - shorter..place.end - shorter;
        }
    }
}

/// Appends batches of three ticks; where they lie in their file.
fn batches(queue: &mut Queue<Tick>, numbers: Range<u64>) -> Vec<Range<usize>> {
    let mut places = Vec::new();
    for number in numbers {
        queue.append(&ticks(number * 3..(number + 1) * 3)).unwrap();
        places.push(queue.last_written());
    }
    places
}

/// The ticks of these batches.
fn of_batches(numbers: impl IntoIterator<Item = u64>) -> Vec<Tick> {
    numbers.into_iter().flat_map(|number| ticks(number * 3..(number + 1) * 3)).collect()
}

fn reader(path: &Path) -> Reader<Tick> {
    let folder = Folder::open(path.parent().unwrap()).unwrap();
    Reader::open(&folder, path.file_name().unwrap().to_str().unwrap()).unwrap()
}

#[test]
fn cut_at_any_byte_it_gives_back_exactly_the_whole_batches_before() {
    [Format::One, Format::Two].into_iter().for_each(cut_at_any_byte);
}

fn cut_at_any_byte(format: Format) {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes, places) = four_batches(folder.path(), format);
    for length in 0..=bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        let whole = places.iter().filter(|place| place.end <= length).count() as u64;
        let (mut queue, _) = open(folder.path(), LIMIT);
        assert!(queue.losses().is_none(), "cut at {length}: {}", queue.losses());
        assert_eq!(drain(&mut queue, 10_000), (ticks(0..whole * 3), 0), "cut at {length}");
        assert!(files_of(folder.path(), "damaged").is_empty(), "cut at {length}");
        drop(queue);
        // A disk may have made the file longer before it wrote what belongs there.
        let mut zeros = bytes[..length].to_vec();
        zeros.resize(bytes.len() + 100, 0);
        fs::write(&path, &zeros).unwrap();
        let mut queue = open_all(folder.path());
        let (back, _) = drain(&mut queue, 10_000);
        let whole = usize::try_from(whole * 3).unwrap();
        assert_eq!(back.get(..whole), Some(ticks(0..12).split_at(whole).0), "zeros from {length}");
        files_of(folder.path(), "damaged").iter().for_each(|path| fs::remove_file(path).unwrap());
    }
}

#[test]
fn a_flipped_byte_costs_the_batch_that_it_is_in_and_no_other() {
    flip_each_byte(Format::One, &[0x01]);
    flip_each_byte(Format::Two, &[0x01, 0x80, 0xff]);
}

fn flip_each_byte(format: Format, flips: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes, places) = four_batches(folder.path(), format);
    for at in 0..bytes.len() {
        for flip in flips {
            let mut flipped = bytes.clone();
            flipped[at] ^= flip;
            fs::write(&path, &flipped).unwrap();
            let hit = places.iter().position(|place| place.contains(&at));
            let good = of_batches((0..4).filter(|number| hit != usize::try_from(*number).ok()));
            let is_head = (8..places[0].start).contains(&at);
            if is_head {
                // Nothing else says whose it is: it waits, and is named.
                let (queue, _) = open(folder.path(), LIMIT);
                assert_eq!(queue.backlog().batches, 0, "byte {at}");
                let told = queue.losses().to_string();
                assert!(told.contains("no other file beside it says"), "byte {at}: {told}");
                assert!(told.contains("0000000001.segment"), "byte {at}: {told}");
            }
            let mut queue = open_all(folder.path());
            let (back, unreadable) = drain(&mut queue, 10_000);
            assert_eq!(back, good, "byte {at}");
            assert!(!queue.losses().is_none(), "byte {at} is not told");
            let known = unreadable + queue.losses().uncounted();
            assert_eq!(known > 0, hit.is_some() || is_head, "byte {at}: {known}");
            let set_aside = files_of(folder.path(), "damaged");
            assert_eq!(set_aside.len(), 1, "byte {at}: kept, for somebody to look at");
            assert_eq!(queue.losses().files, set_aside, "byte {at}");
            assert_eq!(fs::read(&set_aside[0]).unwrap(), flipped);
            fs::remove_file(&set_aside[0]).unwrap();
        }
    }
}

#[test]
fn each_kind_of_damage_costs_only_what_it_touches() {
    type Damage = fn(&mut Vec<u8>, &[Range<usize>]);
    let kinds: [(&str, Damage, &[u64]); 11] = [
        ("a flipped bit in a payload", |bytes, at| bytes[at[1].start + 20] ^= 4, &[1]),
        ("a flipped bit in a length", |bytes, at| bytes[at[1].start] ^= 4, &[1]),
        ("a flipped bit in a number of ticks", |bytes, at| bytes[at[1].start + 4] ^= 1, &[1]),
        ("a flipped bit in the magic", |bytes, _| bytes[2] ^= 4, &[]),
        ("a flipped bit in the version", |bytes, _| bytes[7] ^= 2, &[]),
        ("a flipped bit in the head", |bytes, at| bytes[at[0].start - 3] ^= 1, &[]),
        (
            "sixteen bytes between two blocks",
            |bytes, at| drop(bytes.splice(at[2].start..at[2].start, [7; 16])),
            &[],
        ),
        ("bytes before the beginning", |bytes, _| drop(bytes.splice(0..0, *b"not ours")), &[]),
        (
            "a sector of zeros over a boundary",
            |bytes, at| bytes[at[1].end - 20..at[2].start + 20].fill(0),
            &[1, 2],
        ),
        (
            "bytes taken out of a payload",
            |bytes, at| drop(bytes.drain(at[1].start + 30..at[1].start + 60)),
            &[1],
        ),
        ("the first block's beginning lost", |bytes, at| bytes[..at[0].start + 3].fill(0xee), &[0]),
    ];
    for ((kind, damage, cost), format) in
        kinds.into_iter().flat_map(|kind| [Format::One, Format::Two].map(|format| (kind, format)))
    {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let (path, mut bytes, places) = four_batches(dir, format);
        // A second file of the slot says whose the first one is.
        let (mut queue, _) = open_for(&dir.join("more"), LIMIT, DATABASE);
        batches(&mut queue, 4..5);
        drop(queue);
        let other = files_of(&dir.join("more"), "segment").remove(0);
        fs::rename(other, path.with_file_name("0000000002.segment")).unwrap();
        fs::remove_dir_all(dir.join("more")).unwrap();
        damage(&mut bytes, &places);
        fs::write(&path, &bytes).unwrap();
        let seen = status(dir, LIMIT).unwrap();
        let good = of_batches((0..5).filter(|number| !cost.contains(number)));
        let (mut queue, _) = open(dir, LIMIT);
        assert_eq!(drain(&mut queue, 10_000).0, good, "{kind}");
        assert!(!queue.losses().is_none(), "{kind} is not told");
        assert!(seen.batches >= 5 - cost.len() as u64, "{kind}: {seen}");
        drop(queue);
        let aside = files_of(dir, "damaged");
        assert_eq!((aside.len(), fs::read(&aside[0]).unwrap()), (1, bytes), "{kind}");
        // What can be read of it can be read again, and stored again.
        let readable = of_batches((0..4).filter(|number| !cost.contains(number)));
        let inspected: Vec<Tick> =
            inspect(dir, 100, true).unwrap().into_iter().map(|(_, tick)| tick).collect();
        assert_eq!(inspected, readable, "{kind}");
        assert!(inspect(dir, 100, false).unwrap().is_empty(), "{kind}");
        assert_eq!(drain(&mut open_all(dir), 10_000).0, readable, "{kind}");
        assert_eq!(files_of(dir, "damaged"), aside, "{kind}: it stays");
    }
}

#[test]
fn a_record_is_found_where_as_many_bytes_as_it_has_were_taken_out_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(folder.path(), LIMIT);
    let mut places = Vec::new();
    for ids in [0..20, 20..21, 21..40] {
        queue.append(&ticks(ids)).unwrap();
        places.push(queue.last_written());
    }
    drop(queue);
    let path = files_of(folder.path(), "segment").remove(0);
    let mut bytes = fs::read(&path).unwrap();
    // The first block now ends, by its length, where the third begins.
    let at = places[0].start + 30;
    bytes.drain(at..at + places[1].len());
    fs::write(&path, bytes).unwrap();
    let inspected = inspect(folder.path(), 100, false).unwrap();
    assert_eq!(inspected.len(), 20);
    let (mut queue, _) = open(folder.path(), LIMIT);
    assert_eq!(drain(&mut queue, 100), (ticks(20..40), 19));
}

/// A change to a file.
#[derive(Debug, Clone)]
enum Change {
    Flip(u8),
    Zero(usize),
    Insert(Vec<u8>),
    Delete(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..8_u8).prop_map(|bit| Change::Flip(1 << bit)),
        (1..600_usize).prop_map(Change::Zero),
        prop::collection::vec(any::<u8>(), 1..40).prop_map(Change::Insert),
        (1..200_usize).prop_map(Change::Delete),
        Just(Change::Delete(usize::MAX)),
    ]
}

/// A byte, and where it was.
type Byte = (u8, Option<usize>);

impl Change {
    fn apply(&self, bytes: &mut Vec<Byte>, at: usize) {
        let end = |length: usize| at.saturating_add(length).min(bytes.len());
        match self {
            Self::Flip(mask) => bytes[at].0 ^= mask,
            Self::Zero(length) => {
                let range = at..end(*length);
                bytes[range].iter_mut().for_each(|byte| byte.0 = 0);
            }
            Self::Insert(more) => drop(bytes.splice(at..at, more.iter().map(|byte| (*byte, None)))),
            Self::Delete(length) => drop(bytes.drain(at..end(*length))),
        }
    }
}

/// Whether what was at a place is still there as a whole, wherever that is now.
fn is_whole(bytes: &[Byte], before: &[u8], place: &Range<usize>) -> bool {
    let Some(at) = bytes.iter().position(|byte| byte.1 == Some(place.start)) else { return false };
    let now = bytes[at..].iter().copied();
    let then = place.clone().map(|at| (before[at], Some(at)));
    then.clone().count() <= now.len() && now.zip(then).all(|(now, then)| now == then)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn prop_what_damage_does_not_touch_is_read_and_nothing_else(
        changes in prop::collection::vec((any::<prop::sample::Index>(), change()), 1..6),
        sizes in prop::collection::vec(1..30_u64, 2..12),
        format in prop::sample::select(&[Format::One, Format::Two][..]),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let (mut queue, _) = open(dir, LIMIT);
        let (mut places, mut next) = (Vec::new(), 0);
        for size in sizes {
            queue.append(&ticks(next..next + size)).unwrap();
            places.push((queue.last_written(), next..next + size));
            next += size;
        }
        drop(queue);
        let path = files_of(dir, "segment").remove(0);
        let mut whereabouts: Vec<_> = places.iter().map(|(place, _)| place.clone()).collect();
        format.rewrite(&path, &mut whereabouts);
        let ids = places.into_iter().map(|(_, ids)| ids);
        let places: Vec<_> = whereabouts.into_iter().zip(ids).collect();
        let before = fs::read(&path).unwrap();
        let mut bytes: Vec<Byte> = before.iter().copied().zip((0..).map(Some)).collect();
        for (at, change) in &changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                change.apply(&mut bytes, at);
            }
        }
        fs::write(&path, bytes.iter().map(|byte| byte.0).collect::<Vec<_>>()).unwrap();
        let whole = places.iter().filter(|(place, _)| is_whole(&bytes, &before, place));
        let expected: Vec<Tick> = whole.flat_map(|(_, ids)| ticks(ids.clone())).collect();
        // Without a second file only an explicit word says whose it is, where the head is hit.
        let mut queue = open_all(dir);
        let (back, _) = drain(&mut queue, 10_000);
        // What is touched may be what it was all the same: a zero made zero.
        let missing: Vec<&Tick> = expected.iter().filter(|tick| !back.contains(tick)).collect();
        prop_assert!(missing.is_empty(), "{:?}: {:?}", changes, missing);
        let mut all = ticks(0..next).into_iter();
        prop_assert!(back.iter().all(|tick| all.any(|it| it == *tick)), "{:?}: {:?}", changes, back);
    }
}

#[test]
fn bytes_that_only_pretend_to_be_records_are_given_up_and_cost_no_time() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes, places) = four_batches(folder.path(), Format::Two);
    // As many frames as fit, each with a checksum of its own that holds, over a payload of half a file that does not.
    let mut hostile = bytes.clone();
    let mut header = Vec::new();
    header.extend_from_slice(&499_999_u32.to_le_bytes());
    header.extend_from_slice(&1_u32.to_le_bytes());
    header.extend_from_slice(&0_u32.to_le_bytes());
    header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
    while hostile.len() < 1_000_000 {
        hostile.extend_from_slice(&header);
    }
    hostile.extend_from_slice(&bytes[places[3].clone()]);
    fs::write(&path, &hostile).unwrap();
    let reader = reader(&path);
    let Beginning::Head { first, .. } = reader.beginning().unwrap() else { panic!("no head") };
    let Contents { blocks, damage, .. } = reader.contents(first).unwrap();
    assert_eq!((blocks, damage.at), (4, Some(bytes.len() as u64)), "the rest is given up");
    assert!(reader.is_patience_lost());
    let (mut queue, _) = open(folder.path(), LIMIT);
    assert_eq!(drain(&mut queue, 10_000).0, ticks(0..12));
    assert!(queue.losses().uncounted() > 1_000, "{}", queue.losses());
}

#[test]
fn a_batch_damaged_while_the_recorder_runs_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(folder.path(), LIMIT);
    let places = batches(&mut queue, 0..3);
    let path = files_of(folder.path(), "segment").remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[places[2].end - 1] ^= 0xff;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(drain(&mut queue, 10_000), (ticks(0..6), 3));
    // A frame that does not hold hides nothing that comes after it.
    let places = batches(&mut queue, 0..3);
    let path = files_of(folder.path(), "segment").remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[places[1].start] ^= 0xff;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(drain(&mut queue, 10_000), (of_batches([0, 2]), 3));
    assert_eq!(files_of(folder.path(), "damaged").len(), 2);
    assert_eq!((queue.losses().counted, queue.losses().uncounted()), (6, 0));
}
