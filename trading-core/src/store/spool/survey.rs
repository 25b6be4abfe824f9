//! The spool as somebody sees it who only looks: a running recorder is not disturbed, and nothing is changed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use serde::Serialize;
use tracing::warn;

use super::segment::{Beginning, Place, Reader};
use super::{SpoolError, files, record, slot};
use crate::domain::Tick;

/// A spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Its folder.
    pub dir: PathBuf,
    /// The most bytes that one recorder writes there.
    pub max_bytes: u64,
    /// Batches in all slots.
    pub batches: u64,
    /// Ticks in them.
    pub ticks: u64,
    /// Bytes of the files that hold them.
    pub bytes: u64,
    /// The slots.
    pub slots: Vec<SlotStatus>,
}

/// The place of one process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SlotStatus {
    /// Its number.
    pub slot: u32,
    /// Whether a process uses it now.
    pub held: bool,
    /// Names the database that its batches wait for; `None`: it is empty.
    pub database: Option<String>,
    /// Files.
    pub segments: u64,
    /// Batches in them; those that a running recorder has drained already count until their file is drained.
    pub batches: u64,
    /// Ticks in them.
    pub ticks: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// When the first tick was received.
    pub oldest: Option<String>,
    /// When the last tick was received.
    pub newest: Option<String>,
    /// Files set aside because something in them could not be read.
    pub damaged: u64,
    /// Their bytes.
    pub damaged_bytes: u64,
}

/// What lies in a spool. A folder that is not there holds nothing.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn status(dir: &Path, max_bytes: u64) -> Result<Status, SpoolError> {
    let folders = slot_folders(dir)?;
    let held = slot::held(dir, &folders)?;
    let slots: Vec<SlotStatus> = folders
        .iter()
        .zip(held)
        .map(|((number, folder), held)| slot_status(*number, folder, held))
        .collect::<Result<_, _>>()?;
    Ok(Status {
        dir: dir.to_owned(),
        max_bytes,
        batches: slots.iter().map(|slot| slot.batches).sum(),
        ticks: slots.iter().map(|slot| slot.ticks).sum(),
        bytes: slots.iter().map(|slot| slot.bytes).sum(),
        slots,
    })
}

/// The ticks that wait, slot by slot in the order in which they are drained, up to so many of them.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn inspect(dir: &Path, ticks_max: usize) -> Result<Vec<(u32, Tick)>, SpoolError> {
    let mut ticks = Vec::new();
    for (number, folder) in slot_folders(dir)? {
        for (_, path) in files::list(&folder)?.segments {
            let Some(reader) = open(&path)? else { continue };
            let room = ticks_max - ticks.len();
            let read = first_ticks(&reader, &path, room).map_err(SpoolError::io("read", &path))?;
            ticks.extend(read.into_iter().map(|tick| (number, tick)));
            if ticks.len() >= ticks_max {
                return Ok(ticks);
            }
        }
    }
    Ok(ticks)
}

fn slot_folders(dir: &Path) -> Result<Vec<(u32, PathBuf)>, SpoolError> {
    if dir.exists() { files::slot_folders(dir) } else { Ok(Vec::new()) }
}

fn slot_status(number: u32, folder: &Path, held: bool) -> Result<SlotStatus, SpoolError> {
    let mut status = SlotStatus { slot: number, held, ..SlotStatus::default() };
    let listing = files::list(folder)?;
    for (_, path) in &listing.segments {
        // A running recorder may have drained it meanwhile.
        let Some(reader) = open(path)? else { continue };
        add(&mut status, &reader).map_err(SpoolError::io("read", path))?;
    }
    for path in &listing.damaged {
        status.damaged += 1;
        status.damaged_bytes += open(path)?.map_or(0, |reader| reader.length());
    }
    Ok(status)
}

fn open(path: &Path) -> Result<Option<Reader>, SpoolError> {
    match Reader::open(path) {
        Ok(reader) => Ok(Some(reader)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SpoolError::io("open", path)(error)),
    }
}

fn add(status: &mut SlotStatus, reader: &Reader) -> io::Result<()> {
    status.segments += 1;
    status.bytes += reader.length();
    let Beginning::Head(head, first) = reader.beginning()? else { return Ok(()) };
    let contents = reader.contents(first)?;
    status.database.get_or_insert(head.database);
    status.batches += contents.records;
    status.ticks += contents.ticks;
    let received = |tick: Option<&Tick>| tick.map(|tick| tick.received_at.to_string());
    if let Some(last) = contents.last {
        if status.oldest.is_none() {
            status.oldest = received(ticks_at(reader, first)?.first());
        }
        if let Some(newest) = received(ticks_at(reader, last)?.last()) {
            status.newest = Some(newest);
        }
    }
    Ok(())
}

fn ticks_at(reader: &Reader, at: u64) -> io::Result<Vec<Tick>> {
    let Place::Record(frame) = reader.place(at)? else { return Ok(Vec::new()) };
    let ticks = reader.payload(frame)?.and_then(|payload| record::decode(&payload));
    Ok(ticks.unwrap_or_default())
}

fn first_ticks(reader: &Reader, path: &Path, ticks_max: usize) -> io::Result<Vec<Tick>> {
    let mut ticks = Vec::new();
    let Beginning::Head(_, mut at) = reader.beginning()? else { return Ok(ticks) };
    while ticks.len() < ticks_max
        && let Place::Record(frame) = reader.place(at)?
    {
        match reader.payload(frame)?.and_then(|payload| record::decode(&payload)) {
            Some(read) => ticks.extend(read),
            None => warn!(path = %path.display(), at, "A batch cannot be read"),
        }
        at = frame.end();
    }
    ticks.truncate(ticks_max);
    Ok(ticks)
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "spool     {}", self.dir.display())?;
        let (bytes, max_bytes) = (ByteSize(self.bytes), ByteSize(self.max_bytes));
        writeln!(
            f,
            "holds     {} batches, {} ticks, {bytes}; a recorder writes up to {max_bytes}",
            self.batches, self.ticks
        )?;
        for slot in &self.slots {
            writeln!(f, "{slot}")?;
        }
        Ok(())
    }
}

impl fmt::Display for SlotStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let use_ = if self.held { "a running recorder uses it" } else { "nobody uses it" };
        write!(f, "slot {:<4} {use_}", self.slot)?;
        match &self.database {
            None => write!(f, "; empty")?,
            Some(database) => {
                let (files, bytes) = (self.segments, ByteSize(self.bytes));
                write!(
                    f,
                    "; {} batches, {} ticks, {bytes} in {files} files, for database {database}",
                    self.batches, self.ticks
                )?;
            }
        }
        if let (Some(oldest), Some(newest)) = (&self.oldest, &self.newest) {
            write!(f, "; received {oldest} to {newest}")?;
        }
        if self.damaged > 0 {
            let bytes = ByteSize(self.damaged_bytes);
            write!(f, "; {} files set aside as damaged ({bytes})", self.damaged)?;
        }
        Ok(())
    }
}
