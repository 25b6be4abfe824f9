//! The queue on disk: appended at one end, read and removed at the other. Blocks; [`super::Spool`] runs it aside.
//!
//! A batch is appended with one write and one fsync, whole or not at all. What is drained is remembered in memory and
//! forgotten with the process: a segment is deleted when all of it is drained, and one that is drained twice after a
//! crash stores nothing twice.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tracing::{error, warn};

use super::files::{self, Files};
use super::record;
use super::segment::{Beginning, Contents, Frame, Head, Place, Reader, frame};
use super::slot::{self, Foreign, Slot, SpoolNames};
use super::{Backlog, Oldest, Position, SpoolError};
use crate::domain::Tick;

/// Bytes of a segment that is full: small enough that a drained part of the spool soon gives its room back.
const SEGMENT_BYTES_MAX: u64 = 8 << 20;
/// A small spool has small segments, for the same reason.
const SEGMENTS_MIN: u64 = 8;

/// One file of the queue.
#[derive(Debug)]
struct Segment {
    path: PathBuf,
    since: i64,
    /// Bytes that it takes on disk.
    bytes: u64,
    /// The end of its last record.
    end: u64,
    /// The first record that is not drained yet.
    cursor: u64,
    /// Records and ticks from there on.
    records: u64,
    ticks: u64,
    /// Something in it cannot be read: it is set aside in the end, not deleted.
    damaged: bool,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    files: Files,
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
}

/// What [`Queue::open`] came upon beside ticks.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    pub(super) foreign: Vec<Foreign>,
    pub(super) torn: u64,
    pub(super) damaged: u64,
}

impl Queue {
    /// Claims slots and looks through what they hold.
    pub(super) fn open(
        dir: &Path,
        max_bytes: u64,
        names: impl Into<SpoolNames>,
    ) -> Result<(Self, Remarks), SpoolError> {
        let files = Files::at(dir)?;
        let names = names.into();
        let claimed = slot::claim(files, dir, &names)?;
        let mut remarks = Remarks { foreign: claimed.foreign, ..Remarks::default() };
        let mut queue = Self {
            files,
            dir: dir.to_owned(),
            database: names.database,
            max_bytes,
            slots: Vec::new(),
            segments: VecDeque::new(),
            open: None,
            bytes: 0,
        };
        let mut segments = Vec::new();
        for (slot, listing) in claimed.slots {
            let newest = listing.segments.last().map(|(number, _)| *number);
            for (number, path) in listing.segments {
                segments.extend(take_over(path, Some(number) == newest, &mut remarks)?);
            }
            queue.slots.push(slot);
        }
        segments.sort_by(|one, other| (one.since, &one.path).cmp(&(other.since, &other.path)));
        queue.bytes = segments.iter().map(|segment| segment.bytes).sum();
        queue.segments = segments.into();
        Ok((queue, remarks))
    }

    /// What waits.
    pub(super) fn backlog(&self) -> Backlog {
        Backlog {
            batches: self.segments.iter().map(|segment| segment.records).sum(),
            ticks: self.segments.iter().map(|segment| segment.ticks).sum(),
            bytes: self.bytes,
        }
    }

    /// Appends a batch: durable when this returns, or not there at all.
    pub(super) fn append(&mut self, batch: &[Tick]) -> Result<(), SpoolError> {
        let records = record::encode(batch)?;
        if records.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        records.iter().for_each(|record| frame(record, &mut bytes));
        let written = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.make_room(batch, written)?;
        let (Some(file), Some(segment)) = (&self.open, self.segments.back_mut()) else {
            return Ok(());
        };
        let done = file.write_all_at(&bytes, segment.end).and_then(|()| file.sync_data());
        if let Err(source) = done {
            let path = segment.path.clone();
            self.take_back();
            return Err(SpoolError::Io { what: "write to", path, source });
        }
        segment.records += u64::try_from(records.len()).unwrap_or_default();
        segment.ticks += u64::try_from(batch.len()).unwrap_or_default();
        segment.end += written;
        segment.bytes = segment.end;
        self.bytes += written;
        Ok(())
    }

    /// Makes sure that so many bytes fit below the limit, and that the last segment is open and not full.
    fn make_room(&mut self, batch: &[Tick], written: u64) -> Result<(), SpoolError> {
        let full = SEGMENT_BYTES_MAX.min(self.max_bytes / SEGMENTS_MIN);
        let is_full = self.segments.back().is_none_or(|segment| segment.bytes >= full);
        let goes_on = self.open.is_some() && !is_full;
        let head = Head::new(&self.database, batch);
        let head_bytes = head.to_bytes().map_err(SpoolError::io("begin a file in", &self.dir))?;
        let bytes = if goes_on { 0 } else { u64::try_from(head_bytes.len()).unwrap_or(u64::MAX) };
        if self.bytes.saturating_add(bytes).saturating_add(written) > self.max_bytes {
            return Err(SpoolError::Full { bytes: self.bytes, max_bytes: self.max_bytes });
        }
        if goes_on {
            return Ok(());
        }
        self.open = None;
        let Some(slot) = self.slots.first_mut() else { return Ok(()) };
        let path = files::segment_path(&slot.folder, slot.next);
        slot.next += 1;
        let make = || {
            let file = self.files.create(&path)?;
            file.write_all_at(&head_bytes, 0)?;
            file.sync_all()?;
            Ok(file)
        };
        let made = make().map_err(SpoolError::io("make", &path)).and_then(|made| {
            files::sync_folder(&slot.folder)?;
            Ok(made)
        });
        let file = match made {
            Ok(file) => file,
            Err(error) => {
                // Not there, or without a record: the next start clears it away where it cannot be done now.
                drop(fs::remove_file(&path));
                return Err(error);
            }
        };
        self.open = Some(file);
        self.bytes += bytes;
        self.segments.push_back(Segment {
            path,
            since: head.since,
            bytes,
            end: bytes,
            cursor: bytes,
            records: 0,
            ticks: 0,
            damaged: false,
        });
        Ok(())
    }

    /// After a write that failed: nothing of it stays, and the next batch begins a new segment.
    fn take_back(&mut self) {
        let (Some(file), Some(segment)) = (self.open.take(), self.segments.back()) else { return };
        if let Err(error) = file.set_len(segment.end) {
            warn!(%error, path = %segment.path.display(), "Half a batch was left in the spool; it is not read");
        }
        if segment.records == 0 {
            let segment = self.segments.pop_back();
            if let Some(segment) = segment {
                self.settle(&segment);
            }
        }
    }

    /// The records that wait longest, up to so many ticks, but one record at least.
    pub(super) fn oldest(&mut self, ticks_max: usize) -> Result<Option<Oldest>, SpoolError> {
        let Some(segment) = self.segments.front_mut() else { return Ok(None) };
        if segment.records == 0 {
            return Ok(None);
        }
        let path = segment.path.clone();
        let mut oldest = Oldest::starting(path.clone(), segment.cursor);
        match Reader::open(&path) {
            Ok(reader) => gather(&reader, segment, &mut oldest, ticks_max)
                .map_err(SpoolError::io("read", &path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                error!(path = %path.display(), ticks = segment.ticks, "A part of the spool was removed by somebody else");
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
    pub(super) fn remove(&mut self, position: &Position) {
        let Some(segment) = self.segments.front_mut() else { return };
        if segment.path != position.path || segment.cursor != position.from {
            return;
        }
        segment.cursor = position.to;
        segment.records = segment.records.saturating_sub(position.records);
        segment.ticks = segment.ticks.saturating_sub(position.ticks);
        if segment.records > 0 {
            return;
        }
        if self.segments.len() == 1 {
            self.open = None;
        }
        if let Some(segment) = self.segments.pop_front() {
            self.settle(&segment);
        }
    }

    /// A segment that is drained goes; one that was damaged is set aside.
    fn settle(&mut self, segment: &Segment) {
        let path = &segment.path;
        self.bytes = self.bytes.saturating_sub(segment.bytes);
        let gone = if segment.damaged { set_aside(path) } else { remove_file(path) };
        if let Err(error) = gone
            && path.exists()
        {
            // It is drained again after the next start, which stores nothing twice.
            warn!(%error, path = %path.display(), "A drained part of the spool was not removed");
        }
    }
}

/// Reads records up to so many ticks. One that is not what was written is passed over, and its segment kept.
fn gather(
    reader: &Reader,
    segment: &mut Segment,
    oldest: &mut Oldest,
    ticks_max: usize,
) -> io::Result<()> {
    while oldest.position.to < segment.end {
        let at = oldest.position.to;
        let Place::Record(frame) = reader.place(at)? else {
            // Damaged since it was looked through: what follows cannot be found any more.
            pass_rest(oldest, segment);
            tell_damage(segment, at);
            return Ok(());
        };
        let ticks = usize::try_from(frame.ticks).unwrap_or(usize::MAX);
        if oldest.position.records > 0 && oldest.ticks.len().saturating_add(ticks) > ticks_max {
            return Ok(());
        }
        let read = reader.payload(frame)?.and_then(|payload| record::decode(&payload));
        match read.filter(|read| read.len() == ticks) {
            Some(read) => oldest.ticks.extend(read),
            None => {
                oldest.unreadable += u64::from(frame.ticks);
                tell_damage(segment, at);
            }
        }
        pass(&mut oldest.position, frame);
    }
    Ok(())
}

fn pass(position: &mut Position, frame: Frame) {
    position.to = frame.end();
    position.records += 1;
    position.ticks += u64::from(frame.ticks);
}

/// The rest of the segment cannot be read.
fn pass_rest(oldest: &mut Oldest, segment: &Segment) {
    oldest.unreadable += segment.ticks.saturating_sub(oldest.position.ticks);
    oldest.position.to = segment.end;
    oldest.position.records = segment.records;
    oldest.position.ticks = segment.ticks;
}

fn tell_damage(segment: &mut Segment, at: u64) {
    segment.damaged = true;
    let path = segment.path.display();
    error!(
        "The spool is damaged: what stands at byte {at} of {path} cannot be read; the file is set aside"
    );
}

/// A segment of an earlier process: looked through, mended where a crash cut it short, set aside where it is none.
fn take_over(
    path: PathBuf,
    is_newest: bool,
    remarks: &mut Remarks,
) -> Result<Option<Segment>, SpoolError> {
    let read = || {
        let reader = Reader::open(&path)?;
        let beginning = reader.beginning()?;
        let contents = match &beginning {
            Beginning::Head(_, first) => Some(reader.contents(*first)?),
            _ => None,
        };
        Ok((reader.length(), beginning, contents))
    };
    let (length, beginning, contents) = read().map_err(SpoolError::io("read", &path))?;
    let (Beginning::Head(head, first), Some(contents)) = (beginning.clone(), contents) else {
        if beginning == Beginning::Torn {
            warn!(path = %path.display(), "A part of the spool was being made when its recorder was killed");
            remarks.torn += length;
            remove_file(&path)?;
        } else {
            error!(path = %path.display(), "The spool is damaged: this is no part of it; it is set aside");
            remarks.damaged += length;
            set_aside(&path)?;
        }
        return Ok(None);
    };
    let Contents { records, ticks, end, tail, .. } = contents;
    let rest = length - end;
    let mut segment = Segment {
        path,
        since: head.since,
        bytes: length,
        end,
        cursor: first,
        records,
        ticks,
        damaged: false,
    };
    match tail {
        Place::Torn if is_newest => {
            cut(&segment.path, end)?;
            segment.bytes = end;
            remarks.torn += rest;
            let path = segment.path.display();
            warn!(%path, bytes = rest, "The spool ends in half a batch, cut short by a crash; it is cut off");
        }
        Place::Torn | Place::Damaged => {
            remarks.damaged += rest;
            tell_damage(&mut segment, end);
        }
        Place::End | Place::Record(_) => {}
    }
    if segment.records == 0 {
        if segment.damaged {
            set_aside(&segment.path)?;
        } else {
            remove_file(&segment.path)?;
        }
        return Ok(None);
    }
    Ok(Some(segment))
}

fn cut(path: &Path, end: u64) -> Result<(), SpoolError> {
    let cut = || {
        let file = File::options().write(true).open(path)?;
        file.set_len(end)?;
        file.sync_all()
    };
    cut().map_err(SpoolError::io("cut", path))
}

fn remove_file(path: &Path) -> Result<(), SpoolError> {
    fs::remove_file(path).map_err(SpoolError::io("remove", path))?;
    files::sync_folder(path.parent().unwrap_or(path))
}

fn set_aside(path: &Path) -> Result<(), SpoolError> {
    fs::rename(path, path.with_extension(files::DAMAGED))
        .map_err(SpoolError::io("set aside", path))?;
    files::sync_folder(path.parent().unwrap_or(path))
}

#[cfg(test)]
impl Queue {
    /// Stands in for a disk that refuses: no test can fill one.
    pub(super) fn replace_open_file(&mut self, file: File) {
        self.open = Some(file);
    }
}
