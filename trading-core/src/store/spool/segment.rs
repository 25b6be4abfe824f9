//! One file of blocks: how it begins, how each block is framed, and what a crash or a bad disk leaves of it.
//!
//! ```text
//! TCSPOOL2                                    eight bytes: what this is, and the version of the format
//! length  records  crc32 of payload  crc32 of these 12 bytes   payload      the head: database, since when, which kind
//! length  records  crc32 of payload  crc32 of these 12 bytes   payload      a block, and so on to the end
//! ```
//!
//! A segment holds records of one kind, which its head names. Format 1 is the same without the kind: it holds ticks. It is
//! still read, and no longer written; a program that only knows format 1 leaves later ones alone, and names them.
//!
//! Numbers are 32 bits, little endian. A tail that is shorter than it says, or all zeros, is torn: a crash cut it short
//! before anybody was told that it was written. Everything else that does not check is damage, and never deleted; it costs
//! the blocks that it touches and no others, since the next whole block is searched for behind it.
//!
//! A later version begins with a later number, and with a head that this version does not take for its own: that is how
//! its files are told apart from one flipped bit, and left alone. So are files of a kind that this version does not know.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use super::block::{BLOCK_BYTES_MAX, BLOCK_RECORDS_MAX, Encoded, Spooled};
use crate::domain::{Record, Tick, count};
use crate::store::folder::Folder;

/// Of what is written.
const MAGIC: [u8; 8] = *b"TCSPOOL2";
/// Of files without a kind.
const MAGIC_1: [u8; 8] = *b"TCSPOOL1";
const MAGIC_BYTES: u64 = 8;
const FRAME_BYTES: usize = 16;
const FRAME_LEN: u64 = 16;
/// Bytes of a head at most: a name and a time. It begins within as many bytes.
const HEAD_BYTES_MAX: u32 = 4_096;
/// What a disk loses at once.
const SECTOR_BYTES: usize = 512;
/// Bytes that are looked at together.
const WINDOW_BYTES: usize = 64 << 10;
/// Bytes of a file at most: many times what a full one has with the largest batch. A larger one is none of ours.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// What a segment says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The database that its records belong to.
    pub(super) database: String,
    /// When its first record was received, in microseconds since 1970: segments are drained in this order.
    pub(super) since: i64,
    /// What its records are.
    pub(super) kind: String,
}

/// What a segment of format 1 says of itself.
#[derive(Deserialize)]
struct Head1 {
    database: String,
    since: i64,
}

impl Head {
    /// Of a segment that begins with this batch.
    pub(super) fn new<R: Record>(database: &str, batch: &[R]) -> Self {
        let since = batch.first().map_or(0, |record| record.received_at().as_micros());
        Self { database: database.to_owned(), since, kind: R::KIND.to_owned() }
    }

    /// Reads a head, and gives the first bytes of a file that begins with it. The head of one format is never taken for the
    /// other's: it would be too short, or too long.
    fn parse(payload: &[u8]) -> Option<(Self, [u8; 8])> {
        if let Ok((head, [])) = postcard::take_from_bytes::<Self>(payload) {
            return Some((head, MAGIC));
        }
        let Ok((Head1 { database, since }, [])) = postcard::take_from_bytes(payload) else {
            return None;
        };
        Some((Self { database, since, kind: Tick::KIND.to_owned() }, MAGIC_1))
    }

    /// The first bytes of the file.
    pub(super) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let payload = postcard::to_allocvec(self).map_err(io::Error::other)?;
        let mut bytes = MAGIC.to_vec();
        frame(&Encoded { payload, records: 0 }, &mut bytes);
        Ok(bytes)
    }
}

/// Appends a block with its frame.
pub(super) fn frame(block: &Encoded, out: &mut Vec<u8>) {
    let length = u32::try_from(block.payload.len()).unwrap_or(u32::MAX);
    let at = out.len();
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&block.records.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&block.payload).to_le_bytes());
    let own = crc32fast::hash(out.get(at..).unwrap_or_default());
    out.extend_from_slice(&own.to_le_bytes());
    out.extend_from_slice(&block.payload);
}

/// The frame of one block, whose own checksum holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    at: u64,
    length: u32,
    checksum: u32,
    /// Records in the block; 0: it is the head.
    pub(super) records: u32,
}

impl Frame {
    fn parse<R: Spooled>(at: u64, bytes: [u8; FRAME_BYTES]) -> Option<Self> {
        let (numbers, own) = bytes.split_at(FRAME_BYTES - 4);
        let number = |index: usize| -> Option<u32> {
            let bytes = bytes.get(index * 4..index * 4 + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let frame = Self { at, length: number(0)?, records: number(1)?, checksum: number(2)? };
        let length = usize::try_from(frame.length).ok()?;
        let records = usize::try_from(frame.records).ok()?;
        // What can be is asked first: it is the cheaper question where every byte is tried.
        let possible = length <= BLOCK_BYTES_MAX
            && records <= BLOCK_RECORDS_MAX
            && length >= records.saturating_mul(R::BYTES_MIN);
        (possible && crc32fast::hash(numbers).to_le_bytes() == own).then_some(frame)
    }

    /// Where the next one begins.
    pub(super) fn end(self) -> u64 {
        self.payload_at() + u64::from(self.length)
    }

    fn payload_at(self) -> u64 {
        self.at + FRAME_LEN
    }
}

/// What stands at a place of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A frame, with as many bytes behind it as it says.
    Frame(Frame),
    /// The end of the file.
    End,
    /// The file ends before what begins here does, or is zeros from here on.
    Torn,
    /// Something that is not what was written.
    Damaged,
}

/// The next thing in the file, from a place on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A block. Its payload is checked when it is read.
    Block(Frame),
    /// Bytes that cannot be read, up to the next block or the end.
    Damage {
        /// Where the next block is, or the end.
        to: u64,
        /// Records that were in them, as far as a frame still says so.
        records: u32,
        /// Bytes of which no frame says anything.
        bytes: u64,
    },
    /// The rest of the file was cut short by a crash.
    Torn,
    /// The end of the file.
    End,
}

/// What the beginning of the file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Beginning {
    /// A segment.
    Head {
        /// What it says of itself.
        head: Head,
        /// Where its first block is.
        first: u64,
        /// Something before that is not what was written.
        is_damaged: bool,
    },
    /// A crash came before the segment was made: it never held anything.
    Torn,
    /// A later version of this program wrote it, in a format or of a kind that this one does not know. It is left alone; why,
    /// for its user.
    Unknown(String),
    /// It does not say what it is. There may be blocks in it.
    Lost,
}

/// What a file holds, by its frames; payloads are checked when they are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// Blocks.
    pub(super) blocks: u64,
    /// Records in them.
    pub(super) records: u64,
    /// Where the first one begins, if there is one.
    pub(super) first: Option<u64>,
    /// Where the last one begins.
    pub(super) last: Option<u64>,
    /// Where the last one ends.
    pub(super) end: u64,
    /// What cannot be read.
    pub(super) damage: Damage,
    /// Bytes at the end that a crash cut short.
    pub(super) torn: u64,
}

/// What of a file cannot be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Damage {
    /// Where it begins.
    pub(super) at: Option<u64>,
    /// Records, as far as frames still say.
    pub(super) records: u64,
    /// Bytes of which nothing is known.
    pub(super) bytes: u64,
}

impl Damage {
    fn add(&mut self, at: u64, records: u32, bytes: u64) {
        self.at.get_or_insert(at);
        self.records += u64::from(records);
        self.bytes += bytes;
    }
}

/// A segment that is read.
#[derive(Debug)]
pub(super) struct Reader<R> {
    file: File,
    length: u64,
    kind: PhantomData<fn() -> R>,
    /// Bytes that searches may still check in vain.
    patience: Cell<u64>,
}

impl<R: Spooled> Reader<R> {
    /// Opens a file as it is now; what is appended later is not seen.
    pub(super) fn open(folder: &Folder, name: &str) -> io::Result<Self> {
        let file = folder.read(name)?;
        let length = file.metadata()?.len();
        if length > FILE_BYTES_MAX {
            return Err(io::Error::other(format!(
                "it is larger than any file of the spool ({})",
                bytesize::ByteSize(length)
            )));
        }
        // Blocks do not overlap: in vain are checked no more bytes than there are, but for a file that was made for it.
        let patience = Cell::new(length.saturating_mul(2).saturating_add(1 << 20));
        Ok(Self { file, length, kind: PhantomData, patience })
    }

    /// Bytes of the file.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// What the beginning is.
    pub(super) fn beginning(&self) -> io::Result<Beginning> {
        let mut magic = [0; 8];
        let known = usize::try_from(self.length.min(MAGIC_BYTES)).unwrap_or_default();
        self.file.read_exact_at(magic.get_mut(..known).unwrap_or_default(), 0)?;
        let is_begun =
            known < magic.len() && magic.iter().zip(MAGIC).take(known).all(|(a, b)| *a == b);
        if is_begun || self.is_zero_from(0)? {
            return Ok(Beginning::Torn);
        }
        let place = self.place(MAGIC_BYTES)?;
        let head = match place {
            Place::Frame(frame) => self.head(frame)?.map(|(head, its)| (head, its, frame.end())),
            _ => None,
        };
        let flipped = |its: [u8; 8]| -> u32 {
            magic.iter().zip(its).map(|(byte, its)| (byte ^ its).count_ones()).sum()
        };
        let version = magic.last().copied().map_or('0', char::from);
        let is_later = magic.iter().zip(MAGIC).take(7).all(|(byte, ours)| *byte == ours)
            && ('3'..='9').contains(&version);
        // One flipped bit before a head that is known is damage. Later versions have another head.
        if is_later && head.as_ref().is_none_or(|(_, its, _)| flipped(*its) > 1) {
            return Ok(Beginning::Unknown(format!(
                "a newer trading-core wrote it (format {version}); that one stores it"
            )));
        }
        if let Some((head, its, first)) = head {
            return Ok(Self::of_kind(head, first, flipped(its) > 0));
        }
        let is_whole = magic == MAGIC || magic == MAGIC_1;
        if is_whole && matches!(place, Place::End | Place::Torn) && self.search(0)?.is_none() {
            return Ok(Beginning::Torn);
        }
        // It may have been moved by what was put before it.
        let found = self.search_head()?;
        Ok(found.map_or(Beginning::Lost, |(head, first)| Self::of_kind(head, first, true)))
    }

    fn of_kind(head: Head, first: u64, is_damaged: bool) -> Beginning {
        if head.kind == R::KIND {
            return Beginning::Head { head, first, is_damaged };
        }
        Beginning::Unknown(format!(
            "it holds {}, which this trading-core does not know; the one that wrote it stores them",
            head.kind
        ))
    }

    /// What a head says, and the first bytes of a file that begins with it.
    fn head(&self, frame: Frame) -> io::Result<Option<(Head, [u8; 8])>> {
        if frame.records > 0 || frame.length > HEAD_BYTES_MAX {
            return Ok(None);
        }
        Ok(self.payload(frame)?.and_then(|payload| Head::parse(&payload)))
    }

    /// Looks near the beginning only: further on are blocks.
    fn search_head(&self) -> io::Result<Option<(Head, u64)>> {
        let length = self.length.min(u64::from(HEAD_BYTES_MAX));
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, 0)?;
        for (at, bytes) in (0..).zip(bytes.windows(FRAME_BYTES)) {
            let Ok(bytes) = <[u8; FRAME_BYTES]>::try_from(bytes) else { continue };
            if let Some(frame) = Frame::parse::<R>(at, bytes)
                && frame.end() <= self.length
                && let Some((head, _)) = self.head(frame)?
            {
                return Ok(Some((head, frame.end())));
            }
        }
        Ok(None)
    }

    fn place(&self, at: u64) -> io::Result<Place> {
        let mut bytes = [0; FRAME_BYTES];
        let rest = self.length.saturating_sub(at);
        if rest == 0 {
            return Ok(Place::End);
        }
        if rest < FRAME_LEN {
            return Ok(Place::Torn);
        }
        if !self.read_at(&mut bytes, at)? {
            return Ok(Place::Damaged);
        }
        match Frame::parse::<R>(at, bytes) {
            Some(frame) if frame.end() <= self.length => Ok(Place::Frame(frame)),
            Some(_longer_than_the_file) => Ok(Place::Torn),
            None if bytes == [0; FRAME_BYTES] && self.is_zero_from(at)? => Ok(Place::Torn),
            None => Ok(Place::Damaged),
        }
    }

    /// What comes next. Where bytes are not what was written, the next block is searched for: one whose two checksums
    /// hold and whose records can be read.
    pub(super) fn step(&self, at: u64) -> io::Result<Step> {
        match self.place(at)? {
            Place::End => Ok(Step::End),
            Place::Frame(frame) if frame.records > 0 => {
                // Where another one follows, or the end, nothing was put in or taken out.
                let next = self.place(frame.end())?;
                if matches!(next, Place::Frame(_) | Place::End) || self.holds(frame)? {
                    return Ok(Step::Block(frame));
                }
                let to = self.search(frame.payload_at())?.unwrap_or(self.length);
                let bytes = to.saturating_sub(frame.end());
                Ok(Step::Damage { to, records: frame.records, bytes })
            }
            place => match self.search(at.saturating_add(1))? {
                None if place == Place::Torn => Ok(Step::Torn),
                to => {
                    let to = to.unwrap_or(self.length);
                    Ok(Step::Damage { to, records: 0, bytes: to.saturating_sub(at) })
                }
            },
        }
    }

    /// Reads bytes; `false`: the disk does not give them back (a bad sector), or somebody has cut the file.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<bool> {
        match self.file.read_exact_at(bytes, at) {
            Ok(()) => Ok(true),
            Err(error) if is_lost(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads bytes sector by sector; zeros stand in for those that the disk does not give back.
    fn read_sectors(&self, bytes: &mut [u8], mut at: u64) -> io::Result<()> {
        for sector in bytes.chunks_mut(SECTOR_BYTES) {
            if !self.read_at(sector, at)? {
                sector.fill(0);
            }
            at = at.saturating_add(count(sector.len()));
        }
        Ok(())
    }

    /// The bytes of a block; `None` when they are not what was written.
    fn payload(&self, frame: Frame) -> io::Result<Option<Vec<u8>>> {
        let length = usize::try_from(frame.length).unwrap_or(BLOCK_BYTES_MAX);
        let mut payload = vec![0; length];
        if !self.read_at(&mut payload, frame.payload_at())? {
            return Ok(None);
        }
        Ok((crc32fast::hash(&payload) == frame.checksum).then_some(payload))
    }

    /// The records of a block; `None` when they are not what was written.
    pub(super) fn records(&self, frame: Frame) -> io::Result<Option<Vec<R>>> {
        let wanted = usize::try_from(frame.records).unwrap_or(usize::MAX);
        let records = self.payload(frame)?.and_then(|payload| R::decode(&payload));
        Ok(records.filter(|records| records.len() == wanted))
    }

    /// Whether the records of a block can be read. Asked in vain too often, it says no without looking.
    fn holds(&self, frame: Frame) -> io::Result<bool> {
        let holds = self.patience.get() > 0 && self.records(frame)?.is_some();
        if !holds {
            let left = self.patience.get().saturating_sub(u64::from(frame.length).max(1));
            self.patience.set(left);
        }
        Ok(holds)
    }

    /// The records of whole blocks within a damaged one: bytes were taken out of it, as many as those blocks have. Never
    /// more records than it had, by which it was counted.
    pub(super) fn within(&self, frame: Frame) -> io::Result<Vec<R>> {
        let (mut found, mut at) = (Vec::new(), frame.payload_at());
        while let Some(inner) = self.search_until(at, frame.end())? {
            let Step::Block(inner) = self.step(inner)? else { break };
            let records = self.records(inner)?.unwrap_or_default();
            if found.len() + records.len() > usize::try_from(frame.records).unwrap_or_default() {
                break;
            }
            found.extend(records);
            at = inner.end();
        }
        Ok(found)
    }

    /// The records of the block at a place; none where there is no such block.
    pub(super) fn records_at(&self, at: u64) -> io::Result<Vec<R>> {
        let Step::Block(frame) = self.step(at)? else { return Ok(Vec::new()) };
        Ok(self.records(frame)?.unwrap_or_default())
    }

    /// Where the next whole block is, from a place on. Looks at each byte once; blocks that only pretend are given up
    /// after as many bytes as two files have.
    fn search(&self, from: u64) -> io::Result<Option<u64>> {
        self.search_until(from, self.length)
    }

    fn search_until(&self, from: u64, until: u64) -> io::Result<Option<u64>> {
        let length = usize::try_from(until.saturating_sub(from)).unwrap_or(WINDOW_BYTES);
        let mut window = vec![0; length.min(WINDOW_BYTES)];
        let mut at = from;
        while at.saturating_add(FRAME_LEN) <= until {
            let rest = usize::try_from(until - at).unwrap_or(WINDOW_BYTES);
            let bytes = window.get_mut(..rest.min(WINDOW_BYTES)).unwrap_or_default();
            if !self.read_at(bytes, at)? {
                self.read_sectors(bytes, at)?;
            }
            for (offset, bytes) in (0_u64..).zip(bytes.windows(FRAME_BYTES)) {
                let Ok(bytes) = <[u8; FRAME_BYTES]>::try_from(bytes) else { continue };
                let Some(frame) = Frame::parse::<R>(at + offset, bytes) else { continue };
                if frame.records == 0 || frame.end() > until {
                    continue;
                }
                if self.holds(frame)? {
                    return Ok(Some(frame.at));
                }
                if self.patience.get() == 0 {
                    return Ok(None);
                }
            }
            // The last bytes of the window are the first of the next one: a frame may begin there.
            at += count(bytes.len().saturating_sub(FRAME_BYTES - 1));
        }
        Ok(None)
    }

    /// Walks from block to block, from a place on to the end.
    pub(super) fn contents(&self, from: u64) -> io::Result<Contents> {
        let mut found = Contents { end: from, ..Contents::default() };
        let mut at = from;
        loop {
            match self.step(at)? {
                Step::Block(frame) => {
                    found.blocks += 1;
                    found.records += u64::from(frame.records);
                    found.first.get_or_insert(at);
                    found.last = Some(at);
                    at = frame.end();
                    found.end = at;
                }
                Step::Damage { to, records, bytes } => {
                    found.damage.add(at, records, bytes);
                    at = to;
                }
                Step::Torn => {
                    found.torn = self.length.saturating_sub(at);
                    return Ok(found);
                }
                Step::End => return Ok(found),
            }
        }
    }

    fn is_zero_from(&self, mut at: u64) -> io::Result<bool> {
        let mut bytes = vec![0; WINDOW_BYTES];
        while at < self.length {
            let read = self.file.read_at(&mut bytes, at)?;
            let seen = bytes.get(..read).unwrap_or_default();
            if read == 0 || seen.iter().any(|byte| *byte != 0) {
                return Ok(read == 0);
            }
            at += count(read);
        }
        Ok(true)
    }
}

/// Whether an error means that these bytes are gone, and not that reading may go better later.
fn is_lost(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof || error.raw_os_error() == Some(nix::libc::EIO)
}

#[cfg(test)]
impl<R> Reader<R> {
    /// Whether searches were given up.
    pub(super) const fn is_patience_lost(&self) -> bool {
        self.patience.get() == 0
    }
}
