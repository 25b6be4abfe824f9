//! What an earlier process left, looked through when the spool is opened: mended where a crash cut it short, set aside
//! where it holds nothing that can be read. Nothing that is wrong with one file is a reason to leave another.

use std::fmt;
use std::io;
use std::path::PathBuf;

use bytesize::ByteSize;
use serde::Serialize;
use tracing::{error, warn};

use super::block::Spooled;
use super::files::{Skipped, is_set_aside, names_aside, skip};
use super::queue::Segment;
use super::segment::{Beginning, Contents, Damage, Reader};
use super::slot::Waiting;
use crate::store::folder::{Folder, is_missing};

/// Bytes of a tick on disk, for an estimate.
const TICK_BYTES: u64 = 65;
/// Files that are named.
const NAMED_MAX: usize = 16;

/// What the spool could not give back in this run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// Ticks that could not be read, as far as their files still tell, and that were counted as waiting never.
    pub ticks: u64,
    /// Bytes besides, of which nobody can tell how many ticks were in them.
    pub bytes: u64,
    /// Ticks that were counted as waiting and could not be read.
    pub counted: u64,
    /// The files that keep what could not be read.
    pub files: Vec<PathBuf>,
    /// What was left alone.
    pub skipped: Vec<Skipped>,
}

impl Losses {
    /// Whether there are none.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.ticks == 0
            && self.bytes == 0
            && self.counted == 0
            && self.files.is_empty()
            && self.skipped.is_empty()
    }

    /// Ticks that were never counted as waiting: those that are known, and an estimate of the others.
    #[must_use]
    pub const fn uncounted(&self) -> u64 {
        self.ticks + self.bytes.div_ceil(TICK_BYTES)
    }

    pub(super) fn keep(&mut self, file: PathBuf) {
        if self.files.len() < NAMED_MAX && !self.files.contains(&file) {
            self.files.push(file);
        }
    }

    fn add(&mut self, damage: &Damage) {
        self.ticks += damage.records;
        self.bytes += damage.bytes;
    }
}

impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.ticks + self.counted;
        match (known, self.bytes) {
            (0, 0) if self.files.is_empty() => {}
            (0, 0) => write!(f, "no tick is known to be lost")?,
            (known, 0) => write!(f, "{known} ticks could not be read")?,
            (known, bytes) => {
                let more = bytes.div_ceil(TICK_BYTES);
                let size = ByteSize(bytes);
                write!(
                    f,
                    "{known} ticks, and {size} more that held about {more} ticks, could not be read"
                )?;
            }
        }
        if !self.files.is_empty() {
            write!(f, "; kept in ")?;
            for (number, file) in self.files.iter().enumerate() {
                let comma = if number > 0 { ", " } else { "" };
                write!(f, "{comma}{}", file.display().to_string().escape_debug())?;
            }
        }
        for (number, skipped) in self.skipped.iter().enumerate() {
            let is_first = number == 0 && known == 0 && self.bytes == 0 && self.files.is_empty();
            write!(f, "{}{skipped}", if is_first { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// What [`super::queue::Queue::open`] came upon beside ticks.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    /// Bytes cut off.
    pub(super) torn: u64,
    pub(super) losses: Losses,
}

/// A file of an earlier process, as a part of the queue; `None`: there is nothing in it to drain.
pub(super) fn take_over<R: Spooled>(
    folder: &Folder,
    waiting: &Waiting,
    remarks: &mut Remarks,
) -> Option<Segment> {
    let taken = look_through::<R>(folder, waiting, remarks);
    taken.unwrap_or_else(|error| {
        if !is_missing(&error) {
            skip(&mut remarks.losses.skipped, folder.path().join(&waiting.name), error);
        }
        None
    })
}

fn look_through<R: Spooled>(
    folder: &Folder,
    waiting: &Waiting,
    remarks: &mut Remarks,
) -> io::Result<Option<Segment>> {
    let Waiting { name, is_newest } = waiting;
    let path = folder.path().join(name);
    let reader = Reader::<R>::open(folder, name)?;
    let (head, first, is_damaged) = match reader.beginning()? {
        Beginning::Head { head, first, is_damaged } => (Some(head), first, is_damaged),
        Beginning::Lost => (None, 0, true),
        Beginning::Unknown(_) => return Ok(None),
        Beginning::Torn if is_set_aside(name) => return Ok(None),
        Beginning::Torn => {
            warn!(path = %path.display(), "A part of the spool was being made when its recorder was killed");
            remarks.torn += reader.length();
            return clear_away(folder, name).map(|()| None);
        }
    };
    let contents = reader.contents(first)?;
    let Contents { blocks, records, end, damage, torn, .. } = contents;
    let since = match head {
        Some(head) => head.since,
        None => first_received(&reader, &contents)?,
    };
    let mut segment = Segment {
        folder: folder.clone(),
        name: name.clone(),
        since,
        bytes: reader.length(),
        end,
        cursor: first,
        blocks,
        records,
        unreadable: 0,
        damaged: is_damaged || damage.at.is_some() || is_set_aside(name),
    };
    if torn > 0 && *is_newest && damage.at.is_none() {
        warn!(path = %path.display(), bytes = torn, "The spool ends in half a batch, cut short by a crash; it is cut off");
        remarks.torn += torn;
        // What cannot be cut off is not read either.
        match folder.write(name).and_then(|file| file.set_len(end).and_then(|()| file.sync_all())) {
            Ok(()) => segment.bytes = end,
            Err(error) => {
                warn!(%error, path = %path.display(), "Half a batch was left in the spool; it is not read");
            }
        }
    } else if torn > 0 || is_damaged || damage.at.is_some() {
        segment.damaged = true;
        remarks.losses.add(&damage);
        remarks.losses.bytes += torn;
        tell(&path, &contents, is_damaged);
    }
    if blocks > 0 {
        return Ok(Some(segment));
    }
    if segment.damaged {
        set_aside(&segment, &mut remarks.losses)?;
    } else {
        clear_away(folder, name)?;
    }
    Ok(None)
}

fn tell(path: &std::path::Path, contents: &Contents, is_headless: bool) {
    let Contents { blocks: batches, records: ticks, damage, torn, .. } = contents;
    let at = match (is_headless, damage.at) {
        (true, _) => 0,
        (false, at) => at.unwrap_or(contents.end),
    };
    let (path, bytes) = (path.display(), ByteSize(damage.bytes + torn));
    error!(
        "The spool is damaged: from byte {at} of {path} on not all is what was written: {} ticks and {bytes} more cannot be \
         read; {batches} batches ({ticks} ticks) can, and are stored; the file is kept as .damaged",
        damage.records
    );
}

fn first_received<R: Spooled>(reader: &Reader<R>, contents: &Contents) -> io::Result<i64> {
    let Some(first) = contents.first else { return Ok(0) };
    let records = reader.records_at(first)?;
    Ok(records.first().map_or(0, |record| record.received_at().as_micros()))
}

/// Keeps a file, under a name by which it is not drained again.
pub(super) fn set_aside(segment: &Segment, losses: &mut Losses) -> io::Result<()> {
    let (folder, name) = (&segment.folder, &segment.name);
    if is_set_aside(name) {
        losses.keep(segment.path());
        return Ok(());
    }
    let Some(aside) = names_aside(name).find(|aside| !folder.has(aside)) else { return Ok(()) };
    folder.rename(name, &aside)?;
    losses.keep(folder.path().join(aside));
    folder.sync()
}

/// Removes a file.
pub(super) fn clear_away(folder: &Folder, name: &str) -> io::Result<()> {
    folder.remove(name)?;
    folder.sync()
}
