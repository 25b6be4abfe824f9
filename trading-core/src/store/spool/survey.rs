//! The spool as somebody sees it who only looks: a running recorder is not disturbed, and nothing is changed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use bytesize::ByteSize;
use serde::Serialize;
use tracing::warn;

use super::files::{self, FILES_MAX, Skipped, Slots, skip};
use super::segment::{Beginning, Contents, Reader, Step};
use super::slot;
use super::{SpoolError, recover::Losses};
use crate::domain::{Tick, Timestamp};
use crate::store::folder::{Folder, is_missing};
use crate::telemetry::{Grouped, Page, Text, Tone};

/// Columns of the names on the left.
const NAME_WIDTH: usize = 8;

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
    /// What is no part of it, or cannot be used.
    pub skipped: Vec<Skipped>,
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
    /// Bytes in its files that cannot be read.
    pub unreadable_bytes: u64,
    /// Files set aside because something in them could not be read.
    pub damaged: u64,
    /// Their bytes.
    pub damaged_bytes: u64,
    /// Ticks that can be read in them. They were stored when the files were set aside.
    pub damaged_ticks: u64,
}

/// What lies in a spool. A folder that is not there holds nothing.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn status(dir: &Path, max_bytes: u64) -> Result<Status, SpoolError> {
    let (slots, skipped) = match open_dir(dir)? {
        Some(folder) => look(&folder)?,
        None => Default::default(),
    };
    Ok(Status {
        dir: dir.to_owned(),
        max_bytes,
        batches: slots.iter().map(|slot| slot.batches).sum(),
        ticks: slots.iter().map(|slot| slot.ticks).sum(),
        bytes: slots.iter().map(|slot| slot.bytes).sum(),
        slots,
        skipped,
    })
}

fn look(dir: &Folder) -> Result<(Vec<SlotStatus>, Vec<Skipped>), SpoolError> {
    let Slots { folders, mut skipped } = files::slots(dir)?;
    let held = slot::held(dir, &folders)?;
    let mut slots = Vec::new();
    for ((number, folder), held) in folders.iter().zip(held) {
        match slot_status(*number, folder, held, &mut skipped) {
            Ok(slot) => slots.push(slot),
            Err(error) => skip(&mut skipped, folder.path().to_owned(), error),
        }
    }
    Ok((slots, skipped))
}

/// How many ticks there are to [`inspect`].
///
/// # Errors
///
/// When the folder cannot be read.
pub fn inspectable(dir: &Path, damaged: bool) -> Result<u64, SpoolError> {
    let slots = status(dir, 0)?.slots;
    let ticks = |slot: &SlotStatus| if damaged { slot.damaged_ticks } else { slot.ticks };
    Ok(slots.iter().map(ticks).sum())
}

/// The ticks that wait, slot by slot in the order in which they are drained, up to so many of them; or those that can be
/// read in the files that were set aside.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn inspect(
    dir: &Path,
    ticks_max: usize,
    damaged: bool,
) -> Result<Vec<(u32, Tick)>, SpoolError> {
    let mut ticks = Vec::new();
    let Some(dir) = open_dir(dir)? else { return Ok(ticks) };
    for (number, folder) in files::slots(&dir)?.folders {
        let Ok(listing) = files::list(&folder, FILES_MAX) else { continue };
        let waiting = listing.segments.into_iter().map(|(_, name)| name).collect();
        for name in if damaged { listing.damaged } else { waiting } {
            let room = ticks_max.saturating_sub(ticks.len());
            match first_ticks(&folder, &name, room) {
                Ok(read) => ticks.extend(read.into_iter().map(|tick| (number, tick))),
                Err(error) if is_missing(&error) => {}
                Err(error) => {
                    let path = folder.path().join(&name);
                    warn!(path = %path.display(), %error, "A part of the spool cannot be read");
                }
            }
            if ticks.len() >= ticks_max {
                return Ok(ticks);
            }
        }
    }
    Ok(ticks)
}

/// When a recorder last wrote into it; `None`: nothing waits there.
///
/// # Errors
///
/// When a folder cannot be read.
pub fn written_at(dir: &Path) -> Result<Option<Timestamp>, SpoolError> {
    let Some(folder) = open_dir(dir)? else { return Ok(None) };
    let mut newest = None;
    for (_number, slot) in files::slots(&folder)?.folders {
        let Some((_number, name)) = files::list(&slot, FILES_MAX)?.segments.pop() else { continue };
        let written = slot.read(&name).and_then(|file| file.metadata()?.modified());
        match written {
            Ok(written) => {
                // A time before 1970 or after 2262 is older than any that counts.
                let micros = written.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
                let written = i64::try_from(micros)
                    .ok()
                    .and_then(|micros| Timestamp::from_micros(micros).ok());
                newest = newest.max(written);
            }
            // It was drained meanwhile.
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(SpoolError::io("read", slot.path())(error)),
        }
    }
    Ok(newest)
}

/// `None`: it is not there.
fn open_dir(dir: &Path) -> Result<Option<Folder>, SpoolError> {
    match Folder::open(dir) {
        Ok(folder) => Ok(Some(folder)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(SpoolError::at(dir)(error)),
    }
}

fn slot_status(
    number: u32,
    folder: &Folder,
    held: bool,
    skipped: &mut Vec<Skipped>,
) -> Result<SlotStatus, SpoolError> {
    let mut status = SlotStatus { slot: number, held, ..SlotStatus::default() };
    let listing = files::list(folder, FILES_MAX)?;
    for one in listing.skipped {
        skip(skipped, one.path, one.why);
    }
    for (_, name) in &listing.segments {
        match add(&mut status, folder, name, skipped) {
            Ok(()) => {}
            // A running recorder may have drained it meanwhile.
            Err(error) if is_missing(&error) => {}
            Err(error) => skip(skipped, folder.path().join(name), error),
        }
    }
    for name in &listing.damaged {
        match Reader::open(folder, name).and_then(|reader| Ok((contents(&reader)?, reader))) {
            Ok((found, reader)) => {
                status.damaged += 1;
                status.damaged_bytes += reader.length();
                status.damaged_ticks += found.map_or(0, |(_, contents)| contents.records);
            }
            Err(error) => skip(skipped, folder.path().join(name), error),
        }
    }
    Ok(status)
}

/// The database, where the file says it, and what it holds; nothing where it is not one of this version.
fn contents(reader: &Reader<Tick>) -> io::Result<Option<(Option<String>, Contents)>> {
    Ok(match reader.beginning()? {
        Beginning::Head { head, first, .. } => Some((Some(head.database), reader.contents(first)?)),
        Beginning::Lost => Some((None, reader.contents(0)?)),
        Beginning::Torn | Beginning::Unknown(_) => None,
    })
}

fn add(
    status: &mut SlotStatus,
    folder: &Folder,
    name: &str,
    skipped: &mut Vec<Skipped>,
) -> io::Result<()> {
    let reader = Reader::open(folder, name)?;
    if let Beginning::Unknown(why) = reader.beginning()? {
        skip(skipped, folder.path().join(name), why);
        return Ok(());
    }
    status.segments += 1;
    status.bytes += reader.length();
    let Some((database, contents)) = contents(&reader)? else { return Ok(()) };
    if let Some(database) = database {
        status.database.get_or_insert(database);
    }
    status.batches += contents.blocks;
    status.ticks += contents.records;
    status.unreadable_bytes += contents.damage.bytes;
    let received = |tick: Option<&Tick>| tick.map(|tick| tick.received_at.to_string());
    if let (Some(first), Some(last)) = (contents.first, contents.last) {
        if status.oldest.is_none() {
            status.oldest = received(reader.records_at(first)?.first());
        }
        if let Some(newest) = received(reader.records_at(last)?.last()) {
            status.newest = Some(newest);
        }
    }
    Ok(())
}

fn first_ticks(folder: &Folder, name: &str, ticks_max: usize) -> io::Result<Vec<Tick>> {
    let mut ticks = Vec::new();
    let reader = Reader::open(folder, name)?;
    let mut at = match reader.beginning()? {
        Beginning::Head { first, .. } => first,
        Beginning::Lost => 0,
        Beginning::Torn | Beginning::Unknown(_) => return Ok(ticks),
    };
    let mut unread = Losses::default();
    while ticks.len() < ticks_max {
        match reader.step(at)? {
            Step::Block(frame) => {
                match reader.records(frame)? {
                    Some(read) => ticks.extend(read),
                    None => {
                        let within = reader.within(frame)?;
                        let missing = u64::try_from(within.len()).unwrap_or_default();
                        unread.ticks += u64::from(frame.records).saturating_sub(missing);
                        ticks.extend(within);
                    }
                }
                at = frame.end();
            }
            Step::Damage { to, records, bytes } => {
                unread.ticks += u64::from(records);
                unread.bytes += bytes;
                at = to;
            }
            Step::Torn | Step::End => break,
        }
    }
    if !unread.is_none() {
        warn!("{}: {unread}", folder.path().join(name).display());
    }
    ticks.truncate(ticks_max);
    Ok(ticks)
}

impl Status {
    /// For people.
    #[must_use]
    pub fn page(&self) -> Page {
        let mut page = Page::default();
        page.entry("spool", NAME_WIDTH, self.dir.display().to_string());
        let (bytes, max_bytes) = (ByteSize(self.bytes), ByteSize(self.max_bytes));
        let (batches, ticks) = (Grouped(self.batches), Grouped(self.ticks));
        page.entry(
            "holds",
            NAME_WIDTH,
            format!(
                "{batches} batches, {ticks} ticks, {bytes}; a recorder writes up to {max_bytes}"
            ),
        );
        for slot in &self.slots {
            page.entry(&format!("slot {}", slot.slot), NAME_WIDTH, slot.text());
        }
        for skipped in &self.skipped {
            page.entry("skipped", NAME_WIDTH, Text::of(Tone::Notice, skipped.to_string()));
        }
        page
    }
}

impl SlotStatus {
    fn text(&self) -> Text {
        let mut parts = vec![
            if self.held { "a running recorder uses it" } else { "nobody uses it" }.to_owned(),
        ];
        if self.segments == 0 {
            parts.push("empty".to_owned());
        } else {
            let (files, bytes) = (Grouped(self.segments), ByteSize(self.bytes));
            let (batches, ticks) = (Grouped(self.batches), Grouped(self.ticks));
            let database = self.database.as_ref();
            let database = database.map(|it| format!(", for database {}", it.escape_debug()));
            let database = database.unwrap_or_default();
            parts.push(format!(
                "{batches} batches, {ticks} ticks, {bytes} in {files} files{database}"
            ));
        }
        let unreadable = (self.unreadable_bytes > 0)
            .then(|| format!("{} of them cannot be read", ByteSize(self.unreadable_bytes)));
        let received = self.oldest.as_ref().zip(self.newest.as_ref());
        let received = received.map(|(oldest, newest)| format!("received {oldest} to {newest}"));
        let damaged = (self.damaged > 0).then(|| {
            format!(
                "{} files set aside as damaged ({}, of which {} ticks can be read)",
                Grouped(self.damaged),
                ByteSize(self.damaged_bytes),
                Grouped(self.damaged_ticks)
            )
        });
        let bad = |text: String| Text::of(Tone::Plain, "; ").and(Tone::Bad, text);
        let mut text = Text::from(parts.join("; "));
        text = unreadable.map(bad).into_iter().fold(text, Text::then);
        if let Some(received) = received {
            text = text.and(Tone::Plain, format!("; {received}"));
        }
        damaged.map(bad).into_iter().fold(text, Text::then)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.page().fmt(f)
    }
}
