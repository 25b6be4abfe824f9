//! The queue on disk: appended at one end, read and removed at the other. Blocks; [`super::Spool`] runs it aside.
//!
//! A batch is appended with one write and one fsync, whole or not at all. What is drained is remembered in memory and
//! forgotten with the process: a segment is deleted when all of it is drained, and one that is drained twice after a
//! crash stores nothing twice.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tracing::{error, warn};

use super::block::{self, Encoded, Spooled};
use super::files;
use super::recover::{Losses, Remarks, clear_away, set_aside, take_over};
use super::segment::{Frame, Head, Reader, Step, frame};
use super::slot::{self, Foreign, Slot, SpoolNames};
use super::{Backlog, Oldest, Position, SpoolError};
use crate::domain::count;
use crate::store::folder::{Folder, is_missing};

/// Bytes of a segment that is full: small enough that a drained part of the spool soon gives its room back.
const SEGMENT_BYTES_MAX: u64 = 8 << 20;
/// A small spool has small segments, for the same reason.
const SEGMENTS_MIN: u64 = 8;

/// Names that are tried for a new file: those before may be taken by what is not ours.
const NAMES_TRIED: u32 = 1_000;

/// One file of the queue.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) folder: Folder,
    pub(super) name: String,
    pub(super) since: i64,
    /// Bytes that it takes on disk.
    pub(super) bytes: u64,
    /// The end of its last block.
    pub(super) end: u64,
    /// The first block that is not drained yet.
    pub(super) cursor: u64,
    /// Blocks and records from there on.
    pub(super) blocks: u64,
    pub(super) records: u64,
    /// Records before that, which could not be read.
    pub(super) unreadable: u64,
    /// Something in it cannot be read: it is set aside in the end, not deleted.
    pub(super) damaged: bool,
}

impl Segment {
    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue<R> {
    kind: PhantomData<fn() -> R>,
    dir: PathBuf,
    database: String,
    max_bytes: u64,
    /// Ours; the first is written to.
    slots: Vec<Slot>,
    /// The oldest first.
    segments: VecDeque<Segment>,
    /// The last segment, while it is written to.
    open: Option<File>,
    bytes: u64,
    /// Bytes that were cut off when it was opened.
    torn: u64,
    losses: Losses,
    /// It was said that files may not grow to their full size.
    told_limit: bool,
}

impl<R: Spooled> Queue<R> {
    /// Claims slots and looks through what they hold; gives what waits there for other databases. With `salvage` what was
    /// set aside waits too.
    pub(super) fn open(
        dir: &Path,
        max_bytes: u64,
        names: impl Into<SpoolNames>,
        salvage: bool,
    ) -> Result<(Self, Vec<Foreign>), SpoolError> {
        let names = names.into();
        let claimed = slot::claim::<R>(&slot::open_dir(dir)?, &names, salvage)?;
        let losses = Losses { skipped: claimed.skipped, ..Losses::default() };
        let mut remarks = Remarks { torn: 0, losses };
        let (mut slots, mut segments) = (Vec::new(), Vec::new());
        for (slot, files) in claimed.slots {
            segments.extend(
                files.iter().filter_map(|file| take_over::<R>(&slot.folder, file, &mut remarks)),
            );
            slots.push(slot);
        }
        segments.sort_by(|one, other| (one.since, &one.name).cmp(&(other.since, &other.name)));
        let mut queue = Self {
            kind: PhantomData,
            dir: dir.to_owned(),
            database: names.database,
            max_bytes,
            slots,
            bytes: segments.iter().map(|segment| segment.bytes).sum(),
            segments: segments.into(),
            open: None,
            torn: remarks.torn,
            losses: remarks.losses,
            told_limit: false,
        };
        queue.release_slots();
        Ok((queue, claimed.foreign))
    }

    /// Bytes that were cut off because a crash had cut them short.
    pub(super) const fn torn(&self) -> u64 {
        self.torn
    }

    /// What could not be given back.
    pub(super) const fn losses(&self) -> &Losses {
        &self.losses
    }

    /// What waits.
    pub(super) fn backlog(&self) -> Backlog {
        Backlog {
            batches: self.segments.iter().map(|segment| segment.blocks).sum(),
            ticks: self.segments.iter().map(|segment| segment.records).sum(),
            bytes: self.bytes,
        }
    }

    /// Appends a batch: durable when this returns, or not there at all.
    pub(super) fn append(&mut self, batch: &[R]) -> Result<(), SpoolError> {
        let blocks = block::encode(batch)?;
        if blocks.is_empty() {
            return Ok(());
        }
        self.look_after_place();
        let begun = self.open.is_some() && self.segments.back().is_some_and(|it| it.blocks > 0);
        match self.append_blocks(batch, &blocks) {
            // Where files may not grow to their full size, smaller ones take as much.
            Err(error) if begun && error.is_file_limit() => {
                if !std::mem::replace(&mut self.told_limit, true) {
                    let dir = self.dir.display();
                    warn!(
                        "Files of the spool at {dir} may not grow to their full size ({error}: {}); it makes more of them. \
                         `ulimit -f` or LimitFSIZE= sets that limit",
                        error.cause()
                    );
                }
                self.append_blocks(batch, &blocks)
            }
            done => done,
        }
    }

    fn append_blocks(&mut self, batch: &[R], blocks: &[Encoded]) -> Result<(), SpoolError> {
        let mut bytes = Vec::new();
        blocks.iter().for_each(|block| frame(block, &mut bytes));
        let written = count(bytes.len());
        self.make_room(batch, written)?;
        let (Some(file), Some(segment)) = (&self.open, self.segments.back_mut()) else {
            return Ok(());
        };
        let done = file.write_all_at(&bytes, segment.end).and_then(|()| file.sync_data());
        if let Err(source) = done {
            let path = segment.path();
            self.take_back();
            return Err(SpoolError::Io { what: "write to", path, source });
        }
        segment.blocks += u64::try_from(blocks.len()).unwrap_or_default();
        segment.records += u64::try_from(batch.len()).unwrap_or_default();
        segment.end += written;
        segment.bytes = segment.end;
        self.bytes += written;
        Ok(())
    }

    /// Nothing is written to a file or into a folder that somebody has removed, or put another disk over.
    fn look_after_place(&mut self) {
        if let (Some(file), Some(segment)) = (&self.open, self.segments.back())
            && !segment.folder.holds(&segment.name, file)
        {
            // What is lost with it is counted when its turn comes.
            self.open = None;
        }
        if self.slots.first().is_some_and(|slot| !slot.is_in_place()) {
            self.open = None;
        }
    }

    /// Makes sure that so many bytes fit below the limit, and that the last segment is open and not full.
    fn make_room(&mut self, batch: &[R], written: u64) -> Result<(), SpoolError> {
        let full = SEGMENT_BYTES_MAX.min(self.max_bytes / SEGMENTS_MIN);
        let is_full = self.segments.back().is_none_or(|segment| segment.bytes >= full);
        let goes_on = self.open.is_some() && !is_full;
        if !goes_on {
            self.open = None;
            self.move_if_gone()?;
        }
        let head = Head::new(&self.database, batch);
        let head_bytes = head.to_bytes().map_err(SpoolError::io("begin a file in", &self.dir))?;
        let bytes = if goes_on { 0 } else { count(head_bytes.len()) };
        if self.bytes.saturating_add(bytes).saturating_add(written) > self.max_bytes {
            return Err(SpoolError::Full { bytes: self.bytes, max_bytes: self.max_bytes });
        }
        if goes_on {
            return Ok(());
        }
        let Some(slot) = self.slots.first_mut() else { return Ok(()) };
        let (file, name) = begin(slot, &head_bytes)?;
        self.open = Some(file);
        self.bytes += bytes;
        self.segments.push_back(Segment {
            folder: slot.folder.clone(),
            name,
            since: head.since,
            bytes,
            end: bytes,
            cursor: bytes,
            blocks: 0,
            records: 0,
            unreadable: 0,
            damaged: false,
        });
        Ok(())
    }

    /// Takes a new slot where ours is no more.
    fn move_if_gone(&mut self) -> Result<(), SpoolError> {
        if self.slots.first().is_some_and(Slot::is_in_place) {
            return Ok(());
        }
        let slot = slot::claim_new(&slot::open_dir(&self.dir)?)?;
        let (dir, place) = (self.dir.display(), slot.folder.path().display());
        error!("The spool's place at {dir} was removed by somebody else; it goes on in {place}");
        self.slots.insert(0, slot);
        // What is gone takes no room. Its records are counted when their turn comes.
        for segment in &mut self.segments {
            if !segment.folder.has(&segment.name) {
                self.bytes = self.bytes.saturating_sub(std::mem::take(&mut segment.bytes));
            }
        }
        self.release_slots();
        Ok(())
    }

    /// Lets go of slots of which nothing is left to drain: what else is in them may be another database's.
    fn release_slots(&mut self) {
        let segments = &self.segments;
        let mut is_first = true;
        self.slots.retain(|slot| {
            std::mem::take(&mut is_first)
                || segments.iter().any(|segment| segment.folder.is_same(&slot.folder))
        });
    }

    /// After a write that failed: nothing of it stays, and the next batch begins a new segment.
    fn take_back(&mut self) {
        let (Some(file), Some(segment)) = (self.open.take(), self.segments.back()) else { return };
        if let Err(error) = file.set_len(segment.end) {
            warn!(%error, path = %segment.path().display(), "Half a batch was left in the spool; it is not read");
        }
        if segment.blocks == 0
            && let Some(segment) = self.segments.pop_back()
        {
            self.settle(&segment);
        }
    }

    /// The blocks that wait longest, up to so many records, but one block at least.
    pub(super) fn oldest(&mut self, records_max: usize) -> Result<Option<Oldest<R>>, SpoolError> {
        let Some(segment) = self.segments.front_mut() else { return Ok(None) };
        if segment.blocks == 0 {
            return Ok(None);
        }
        let path = segment.path();
        let mut oldest = Oldest::starting(path.clone(), segment.cursor);
        match Reader::open(&segment.folder, &segment.name) {
            Ok(reader) => gather(&reader, segment, &mut oldest, records_max)
                .map_err(SpoolError::io("read", &path))?,
            Err(error) if is_missing(&error) => {
                error!(path = %path.display(), ticks = segment.records, "A part of the spool was removed by somebody else");
                pass_rest(&mut oldest, segment);
                // What is written to a file without a name is lost too.
                if self.segments.len() == 1 {
                    self.open = None;
                }
            }
            Err(error) => return Err(SpoolError::io("read", &path)(error)),
        }
        Ok(Some(oldest))
    }

    /// Removes what [`Queue::oldest`] gave.
    pub(super) fn remove(&mut self, oldest: &Position) {
        let Some(segment) = self.segments.front_mut() else { return };
        if segment.path() != oldest.path || segment.cursor != oldest.from {
            return;
        }
        segment.cursor = oldest.to;
        segment.blocks = segment.blocks.saturating_sub(oldest.blocks);
        segment.records = segment.records.saturating_sub(oldest.records);
        segment.unreadable = segment.unreadable.saturating_add(oldest.unreadable);
        self.losses.counted = self.losses.counted.saturating_add(oldest.unreadable);
        if segment.blocks > 0 {
            return;
        }
        if self.segments.len() == 1 {
            self.open = None;
        }
        if let Some(segment) = self.segments.pop_front() {
            self.settle(&segment);
            self.release_slots();
        }
    }

    /// A segment that is drained goes; one that was damaged is set aside.
    fn settle(&mut self, segment: &Segment) {
        let path = segment.path();
        self.bytes = self.bytes.saturating_sub(segment.bytes);
        let gone = if segment.damaged {
            set_aside(segment, &mut self.losses)
        } else {
            clear_away(&segment.folder, &segment.name)
        };
        if let Err(error) = gone
            && segment.folder.has(&segment.name)
        {
            // It is drained again after the next start, which stores nothing twice.
            warn!(%error, path = %path.display(), "A drained part of the spool was not removed");
        }
    }
}

/// Makes a segment in a slot, durably.
fn begin(slot: &mut Slot, head: &[u8]) -> Result<(File, String), SpoolError> {
    let mut tried = 0;
    loop {
        let name = files::segment_name(slot.next);
        slot.next += 1;
        tried += 1;
        let path = slot.folder.path().join(&name);
        let file = match slot.folder.create(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tried < NAMES_TRIED => {
                continue;
            }
            Err(error) => return Err(SpoolError::io("make", &path)(error)),
        };
        let write = || {
            file.write_all_at(head, 0)?;
            file.sync_all()?;
            slot.folder.sync()
        };
        let written = write();
        if written.is_err() {
            // Not there, or without a block: the next start clears it away where it cannot be done now.
            drop(slot.folder.remove(&name));
        }
        return written.map(|()| (file, name)).map_err(SpoolError::io("make", &path));
    }
}

/// Reads blocks up to so many records. One that is not what was written is passed over, and its segment kept.
fn gather<R: Spooled>(
    reader: &Reader<R>,
    segment: &mut Segment,
    oldest: &mut Oldest<R>,
    records_max: usize,
) -> io::Result<()> {
    while oldest.position.to < segment.end {
        let at = oldest.position.to;
        let frame = match reader.step(at)? {
            Step::Block(frame) => frame,
            Step::Damage { to, .. } if to < segment.end => {
                tell_damage(segment, at);
                oldest.position.to = to;
                continue;
            }
            _ => {
                tell_damage(segment, at);
                break;
            }
        };
        let records = usize::try_from(frame.records).unwrap_or(usize::MAX);
        if oldest.position.blocks > 0 && oldest.records.len().saturating_add(records) > records_max
        {
            return Ok(());
        }
        match reader.records(frame)? {
            Some(read) => oldest.records.extend(read),
            None => {
                let within = reader.within(frame)?;
                let missing = records.saturating_sub(within.len());
                oldest.pass_unread(u64::try_from(missing).unwrap_or_default());
                oldest.records.extend(within);
                tell_damage(segment, at);
            }
        }
        pass(&mut oldest.position, frame);
    }
    pass_rest(oldest, segment);
    Ok(())
}

fn pass(position: &mut Position, frame: Frame) {
    position.to = frame.end();
    position.blocks += 1;
    position.records += u64::from(frame.records);
}

/// Nothing more is found in the segment: what was to be there cannot be read.
fn pass_rest<R>(oldest: &mut Oldest<R>, segment: &Segment) {
    oldest.pass_unread(segment.records.saturating_sub(oldest.position.records));
    oldest.position.to = segment.end;
    oldest.position.blocks = segment.blocks;
    oldest.position.records = segment.records;
}

/// Said once of each file.
fn tell_damage(segment: &mut Segment, at: u64) {
    if std::mem::replace(&mut segment.damaged, true) {
        return;
    }
    let path = segment.path();
    let path = path.display();
    error!(
        "The spool is damaged: what stands at byte {at} of {path} cannot be read; what can be read after it is stored, and \
         the file is set aside"
    );
}

#[cfg(test)]
impl<R: Spooled> Queue<R> {
    /// Stands in for a disk that refuses, until the next look at the file's place: no test can fill one.
    pub(super) fn replace_open_file(&mut self, file: File) {
        self.open = Some(file);
    }

    /// The next batch is written here: beyond any file's size.
    pub(super) fn write_next_at(&mut self, end: u64) {
        self.segments.back_mut().unwrap().end = end;
    }

    /// Appends without that look.
    pub(super) fn append_now(&mut self, batch: &[R]) -> Result<(), SpoolError> {
        self.append_blocks(batch, &block::encode(batch)?)
    }

    /// Where the last batch lies in its file, if it was one block.
    pub(super) fn last_written(&self) -> std::ops::Range<usize> {
        let segment = self.segments.back().unwrap();
        let reader = Reader::<R>::open(&segment.folder, &segment.name).unwrap();
        let mut at = segment.cursor;
        loop {
            let Step::Block(frame) = reader.step(at).unwrap() else { panic!("no block at {at}") };
            if frame.end() == segment.end {
                return usize::try_from(at).unwrap()..usize::try_from(frame.end()).unwrap();
            }
            at = frame.end();
        }
    }
}
