//! The spool's folder as a stranger sees it: files that hold batches, files that were set aside, and how a crash leaves the last one.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::plan::Random;

/// What a segment begins with.
const MAGIC: &[u8] = b"TCSPOOL2";
/// Before each block: the length of its payload, little endian, and twelve bytes more.
const FRAME: usize = 16;

/// Files below the folder whose name ends so. They come and go while this looks.
fn files(spool: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect::<Vec<_>>()
    };
    let slots = entries(spool).into_iter().filter(|path| path.is_dir());
    slots
        .flat_map(|slot| entries(&slot))
        .filter(|path| path.extension().is_some_and(|end| end == extension))
        .collect()
}

/// How many files hold batches.
pub(crate) fn segments(spool: &Path) -> usize {
    files(spool, "segment").len()
}

/// The bytes of those files.
pub(crate) fn bytes(spool: &Path) -> u64 {
    let sizes = files(spool, "segment").into_iter().filter_map(|path| fs::metadata(path).ok());
    sizes.map(|about| about.len()).sum()
}

/// Files that were set aside because something in them could not be read.
pub(crate) fn damaged(spool: &Path) -> Vec<PathBuf> {
    files(spool, "damaged")
}

/// Appends the first part of a real block to the newest file of a dead recorder, as a crash in the middle of a write leaves
/// it; says what was done.
pub(crate) fn tear(spool: &Path, random: &mut Random) -> Option<String> {
    let abandoned = files(spool, "segment").into_iter().filter(|path| is_abandoned(path));
    let newest = abandoned.max_by_key(|path| (path.parent().map(Path::to_owned), path.clone()))?;
    let content = fs::read(&newest).unwrap();
    let block = last_block(&content)?;
    let cut = random.index(block.len() - 1) + 1;
    let mut file = OpenOptions::new().append(true).open(&newest).unwrap();
    file.write_all(&block[..cut]).unwrap();
    let name = newest.file_name().unwrap().display();
    Some(format!("a block of {} bytes torn after {cut}, at the end of {name}", block.len()))
}

/// Whether nobody holds the slot that a file lies in.
fn is_abandoned(segment: &Path) -> bool {
    File::open(segment.with_file_name("slot.lock")).is_ok_and(|lock| lock.try_lock().is_ok())
}

/// The last whole block, its frame included; none in a file that holds only its own head.
fn last_block(content: &[u8]) -> Option<&[u8]> {
    let mut rest = content.strip_prefix(MAGIC)?;
    let mut blocks = Vec::new();
    while let Some(length) = rest.first_chunk::<4>() {
        let end = FRAME + usize::try_from(u32::from_le_bytes(*length)).unwrap();
        let Some((block, after)) = rest.split_at_checked(end) else { break };
        blocks.push(block);
        rest = after;
    }
    blocks.split_off(1.min(blocks.len())).pop()
}
