//! The names in the spool's folders: what is whose.

use std::collections::BinaryHeap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::SLOTS_MAX;
use super::SpoolError;
use crate::store::folder::Folder;

/// How a segment's name ends.
const SEGMENT: &str = ".segment";
/// How the name of one ends that was set aside.
const DAMAGED: &str = ".damaged";
/// Files of a slot that are looked at: many times what the spool of one recorder has. The others wait for the next start.
pub(super) const FILES_MAX: usize = 4_096;
/// Things that are named, of all that are not ours.
const SKIPPED_MAX: usize = 64;
/// No segment of ours will have a larger number: one in each microsecond of thirty years.
const NUMBER_MAX: u64 = 1_000_000_000_000_000;

/// Something in the spool that was left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// What.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, why) = (self.path.display().to_string(), &self.why);
        write!(f, "{} was left alone: {}", path.escape_debug(), why.escape_debug())
    }
}

/// Notes what is left alone. What is too much to be named is not.
pub(super) fn skip(skipped: &mut Vec<Skipped>, path: PathBuf, why: impl fmt::Display) {
    if skipped.len() < SKIPPED_MAX {
        skipped.push(Skipped { path, why: why.to_string() });
    }
}

/// The name of a segment.
pub(super) fn segment_name(number: u64) -> String {
    format!("{number:010}{SEGMENT}")
}

/// Whether a file was set aside.
pub(super) fn is_set_aside(name: &str) -> bool {
    name.ends_with(DAMAGED)
}

/// The names that a file may get that is set aside, the first free one first.
pub(super) fn names_aside(name: &str) -> impl Iterator<Item = String> {
    let stem = name.strip_suffix(SEGMENT).unwrap_or(name).to_owned();
    (1_u32..).map(move |turn| match turn {
        1 => format!("{stem}{DAMAGED}"),
        _ => format!("{stem}-{turn}{DAMAGED}"),
    })
}

/// What a slot's folder holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Segments by number.
    pub(super) segments: Vec<(u64, String)>,
    /// Segments that were set aside.
    pub(super) damaged: Vec<String>,
    /// What has a segment's name but for the number.
    pub(super) skipped: Vec<Skipped>,
    /// A number that no file has had.
    pub(super) next: u64,
}

/// Lists a slot's folder: the oldest files up to `files_max`. Files of other names are left alone.
pub(super) fn list(folder: &Folder, files_max: usize) -> Result<Listing, SpoolError> {
    let mut listing = Listing { next: 1, ..Listing::default() };
    let (mut segments, mut damaged) = (BinaryHeap::new(), BinaryHeap::new());
    let mut left_off = 0_u64;
    let each = |name: &str| {
        if let Some(stem) = name.strip_suffix(SEGMENT) {
            let Ok(number) = stem.parse::<u64>() else {
                let why = "its name is no number of a segment";
                skip(&mut listing.skipped, folder.path().join(name), why);
                return;
            };
            listing.next = next_after(listing.next, number);
            segments.push((number, name.to_owned()));
        } else if let Some(stem) = name.strip_suffix(DAMAGED) {
            let number = stem.split('-').next().and_then(|stem| stem.parse::<u64>().ok());
            listing.next = next_after(listing.next, number.unwrap_or_default());
            damaged.push(name.to_owned());
        }
        for is_left_off in [
            segments.len() > files_max && segments.pop().is_some(),
            damaged.len() > files_max && damaged.pop().is_some(),
        ] {
            left_off += u64::from(is_left_off);
        }
    };
    folder.names(each).map_err(SpoolError::io("list", folder.path()))?;
    if left_off > 0 {
        let why =
            format!("more than {files_max} files: {left_off} of them wait for the next start");
        skip(&mut listing.skipped, folder.path().to_owned(), why);
    }
    listing.segments = segments.into_sorted_vec();
    listing.damaged = damaged.into_sorted_vec();
    Ok(listing)
}

fn next_after(next: u64, number: u64) -> u64 {
    if number < NUMBER_MAX { next.max(number.saturating_add(1)) } else { next }
}

/// The slots of a spool.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// Those that can be used, by number.
    pub(super) folders: Vec<(u32, Folder)>,
    /// What has the name of a slot or nearly so.
    pub(super) skipped: Vec<Skipped>,
}

/// The folders of the slots.
pub(super) fn slots(dir: &Folder) -> Result<Slots, SpoolError> {
    let mut slots = Slots::default();
    let mut numbers = Vec::new();
    let each = |name: &str| {
        let Ok(number) = name.parse::<u32>() else { return };
        if (1..=SLOTS_MAX).contains(&number) && number.to_string() == name {
            numbers.push(number);
        } else {
            let why = format!("a slot's name is a number from 1 to {SLOTS_MAX}");
            skip(&mut slots.skipped, dir.path().join(name), why);
        }
    };
    dir.names(each).map_err(SpoolError::io("list", dir.path()))?;
    numbers.sort_unstable();
    for number in numbers {
        let name = number.to_string();
        match dir.subfolder(&name) {
            Ok(folder) => slots.folders.push((number, folder)),
            Err(error) => skip(&mut slots.skipped, dir.path().join(name), error),
        }
    }
    Ok(slots)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_folder_with_too_many_files_gives_the_oldest_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        for number in [7, 3, 12, 5, 1] {
            fs::write(dir.path().join(segment_name(number)), "").unwrap();
        }
        let folder = Folder::open(dir.path()).unwrap();
        let listing = list(&folder, 3).unwrap();
        let numbers: Vec<u64> = listing.segments.iter().map(|(number, _)| *number).collect();
        assert_eq!((numbers, listing.next), (vec![1, 3, 5], 13));
        assert!(listing.skipped[0].why.contains("2 of them wait"), "{:?}", listing.skipped);
        assert!(list(&folder, 5).unwrap().skipped.is_empty());
    }

    #[test]
    fn names_that_no_slot_and_no_segment_has_are_named_and_count_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["18446744073709551615.segment", "x.segment", "notes.txt", "4.damaged"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let folder = Folder::open(dir.path()).unwrap();
        let listing = list(&folder, 100).unwrap();
        assert_eq!((listing.segments.len(), listing.damaged.len(), listing.next), (1, 1, 5));
        assert_eq!(listing.skipped.len(), 1, "{:?}", listing.skipped);
        for name in ["1", "64", "65", "01", "4294967295", "x"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("2"), "").unwrap();
        symlink(dir.path().join("1"), dir.path().join("3")).unwrap();
        let slots = slots(&folder).unwrap();
        let numbers: Vec<u32> = slots.folders.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 64]);
        let mut told: Vec<String> = slots.skipped.iter().map(ToString::to_string).collect();
        told.sort_unstable();
        assert_eq!(told.len(), 5, "{told:#?}");
        assert!(told[1].ends_with("/2 was left alone: it is a file, not a folder"), "{told:#?}");
        assert!(told[2].contains("it is a symbolic link"), "{told:#?}");
    }

    #[test]
    fn hostile_names_forge_no_line() {
        let skipped = Skipped { path: "/s/\u{1b}[31m\n1.segment".into(), why: "a\rb".into() };
        let told = skipped.to_string();
        assert!(!told.chars().any(char::is_control), "{told:?}");
    }
}
