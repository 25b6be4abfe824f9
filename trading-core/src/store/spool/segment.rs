//! One file of records: how it begins, how each record is framed, and what a crash or a bad disk leaves of it.
//!
//! ```text
//! TCSPOOL1                                    eight bytes: what this is, and the version of the format
//! length  ticks  crc32 of payload  crc32 of these 12 bytes   payload      the head: which database, since when
//! length  ticks  crc32 of payload  crc32 of these 12 bytes   payload      a record, and so on to the end
//! ```
//!
//! Numbers are 32 bits, little endian. A tail that is shorter than it says, or all zeros, is torn: a crash cut it short
//! before anybody was told that it was written. Everything else that does not check is damage, and never deleted; it costs
//! the records that it touches and no others, since the next whole record is searched for behind it.
//!
//! A later version begins with a later number, and with a head that this version does not take for its own: that is how
//! its files are told apart from one flipped bit, and left alone.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use super::record::{self, Encoded, RECORD_BYTES_MAX, RECORD_TICKS_MAX, TICK_BYTES_MIN};
use crate::domain::{Tick, count};
use crate::store::folder::Folder;

const MAGIC: [u8; 8] = *b"TCSPOOL1";
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
    /// The database that its ticks belong to.
    pub(super) database: String,
    /// When its first tick was received, in microseconds since 1970: segments are drained in this order.
    pub(super) since: i64,
}

impl Head {
    /// Of a segment that begins with this batch.
    pub(super) fn new(database: &str, batch: &[Tick]) -> Self {
        let since = batch.first().map_or(0, |tick| tick.received_at.as_micros());
        Self { database: database.to_owned(), since }
    }

    /// The first bytes of the file.
    pub(super) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let payload = postcard::to_allocvec(self).map_err(io::Error::other)?;
        let mut bytes = MAGIC.to_vec();
        frame(&Encoded { payload, ticks: 0 }, &mut bytes);
        Ok(bytes)
    }
}

/// Appends a record with its frame.
pub(super) fn frame(record: &Encoded, out: &mut Vec<u8>) {
    let length = u32::try_from(record.payload.len()).unwrap_or(u32::MAX);
    let at = out.len();
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&record.ticks.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&record.payload).to_le_bytes());
    let own = crc32fast::hash(out.get(at..).unwrap_or_default());
    out.extend_from_slice(&own.to_le_bytes());
    out.extend_from_slice(&record.payload);
}

/// The frame of one record, whose own checksum holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    at: u64,
    length: u32,
    checksum: u32,
    /// Ticks in the record; 0: it is the head.
    pub(super) ticks: u32,
}

impl Frame {
    fn parse(at: u64, bytes: [u8; FRAME_BYTES]) -> Option<Self> {
        let (numbers, own) = bytes.split_at(FRAME_BYTES - 4);
        let number = |index: usize| -> Option<u32> {
            let bytes = bytes.get(index * 4..index * 4 + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let frame = Self { at, length: number(0)?, ticks: number(1)?, checksum: number(2)? };
        let length = usize::try_from(frame.length).ok()?;
        let ticks = usize::try_from(frame.ticks).ok()?;
        // What can be is asked first: it is the cheaper question where every byte is tried.
        let possible = length <= RECORD_BYTES_MAX
            && ticks <= RECORD_TICKS_MAX
            && length >= ticks.saturating_mul(TICK_BYTES_MIN);
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
    /// A record. Its payload is checked when it is read.
    Record(Frame),
    /// Bytes that cannot be read, up to the next record or the end.
    Damage {
        /// Where the next record is, or the end.
        to: u64,
        /// Ticks that were in them, as far as a frame still says so.
        ticks: u32,
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
        /// Where its first record is.
        first: u64,
        /// Something before that is not what was written.
        is_damaged: bool,
    },
    /// A crash came before the segment was made: it never held anything.
    Torn,
    /// A later version of this program wrote it, in this version of the format.
    Newer(char),
    /// It does not say what it is. There may be records in it.
    Lost,
}

/// What a file holds, by its frames; payloads are checked when they are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// Records.
    pub(super) records: u64,
    /// Ticks in them.
    pub(super) ticks: u64,
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
    /// Ticks that frames still tell.
    pub(super) ticks: u64,
    /// Bytes of which nothing is known.
    pub(super) bytes: u64,
}

impl Damage {
    fn add(&mut self, at: u64, ticks: u32, bytes: u64) {
        self.at.get_or_insert(at);
        self.ticks += u64::from(ticks);
        self.bytes += bytes;
    }
}

/// A segment that is read.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    length: u64,
    /// Bytes that searches may still check in vain.
    patience: Cell<u64>,
}

impl Reader {
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
        // Records do not overlap: in vain are checked no more bytes than there are, but for a file that was made for it.
        let patience = Cell::new(length.saturating_mul(2).saturating_add(1 << 20));
        Ok(Self { file, length, patience })
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
        let flipped: u32 =
            magic.iter().zip(MAGIC).map(|(byte, ours)| (byte ^ ours).count_ones()).sum();
        let place = self.place(MAGIC_BYTES)?;
        let head = match place {
            Place::Frame(frame) => self.head(frame)?.map(|head| (head, frame.end())),
            _ => None,
        };
        let version = magic.last().copied().map_or('0', char::from);
        let is_version = magic.iter().zip(MAGIC).take(7).all(|(byte, ours)| *byte == ours)
            && ('2'..='9').contains(&version);
        // One flipped bit before a head of this version is damage. Later versions have another head.
        if is_version && (flipped > 1 || head.is_none()) {
            return Ok(Beginning::Newer(version));
        }
        if let Some((head, first)) = head {
            return Ok(Beginning::Head { head, first, is_damaged: flipped > 0 });
        }
        if flipped == 0 && matches!(place, Place::End | Place::Torn) && self.search(0)?.is_none() {
            return Ok(Beginning::Torn);
        }
        // It may have been moved by what was put before it.
        Ok(self.search_head()?.map_or(Beginning::Lost, |(head, first)| Beginning::Head {
            head,
            first,
            is_damaged: true,
        }))
    }

    fn head(&self, frame: Frame) -> io::Result<Option<Head>> {
        if frame.ticks > 0 || frame.length > HEAD_BYTES_MAX {
            return Ok(None);
        }
        let Some(payload) = self.payload(frame)? else { return Ok(None) };
        let head = postcard::take_from_bytes::<Head>(&payload).ok();
        Ok(head.and_then(|(head, rest)| rest.is_empty().then_some(head)))
    }

    /// Looks near the beginning only: further on stand records.
    fn search_head(&self) -> io::Result<Option<(Head, u64)>> {
        let length = self.length.min(u64::from(HEAD_BYTES_MAX));
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, 0)?;
        for (at, bytes) in (0..).zip(bytes.windows(FRAME_BYTES)) {
            let Ok(bytes) = <[u8; FRAME_BYTES]>::try_from(bytes) else { continue };
            if let Some(frame) = Frame::parse(at, bytes)
                && frame.end() <= self.length
                && let Some(head) = self.head(frame)?
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
        match Frame::parse(at, bytes) {
            Some(frame) if frame.end() <= self.length => Ok(Place::Frame(frame)),
            Some(_longer_than_the_file) => Ok(Place::Torn),
            None if bytes == [0; FRAME_BYTES] && self.is_zero_from(at)? => Ok(Place::Torn),
            None => Ok(Place::Damaged),
        }
    }

    /// What comes next. Where bytes are not what was written, the next record is searched for: one whose two checksums
    /// hold and whose ticks can be read.
    pub(super) fn step(&self, at: u64) -> io::Result<Step> {
        match self.place(at)? {
            Place::End => Ok(Step::End),
            Place::Frame(frame) if frame.ticks > 0 => {
                // Where another one follows, or the end, nothing was put in or taken out.
                let next = self.place(frame.end())?;
                if matches!(next, Place::Frame(_) | Place::End) || self.holds(frame)? {
                    return Ok(Step::Record(frame));
                }
                let to = self.search(frame.payload_at())?.unwrap_or(self.length);
                let bytes = to.saturating_sub(frame.end());
                Ok(Step::Damage { to, ticks: frame.ticks, bytes })
            }
            place => match self.search(at.saturating_add(1))? {
                None if place == Place::Torn => Ok(Step::Torn),
                to => {
                    let to = to.unwrap_or(self.length);
                    Ok(Step::Damage { to, ticks: 0, bytes: to.saturating_sub(at) })
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

    /// The bytes of a record; `None` when they are not what was written.
    fn payload(&self, frame: Frame) -> io::Result<Option<Vec<u8>>> {
        let length = usize::try_from(frame.length).unwrap_or(RECORD_BYTES_MAX);
        let mut payload = vec![0; length];
        if !self.read_at(&mut payload, frame.payload_at())? {
            return Ok(None);
        }
        Ok((crc32fast::hash(&payload) == frame.checksum).then_some(payload))
    }

    /// The ticks of a record; `None` when they are not what was written.
    pub(super) fn ticks(&self, frame: Frame) -> io::Result<Option<Vec<Tick>>> {
        let wanted = usize::try_from(frame.ticks).unwrap_or(usize::MAX);
        let ticks = self.payload(frame)?.and_then(|payload| record::decode(&payload));
        Ok(ticks.filter(|ticks| ticks.len() == wanted))
    }

    /// Whether the ticks of a record can be read. Asked in vain too often, it says no without looking.
    fn holds(&self, frame: Frame) -> io::Result<bool> {
        let holds = self.patience.get() > 0 && self.ticks(frame)?.is_some();
        if !holds {
            let left = self.patience.get().saturating_sub(u64::from(frame.length).max(1));
            self.patience.set(left);
        }
        Ok(holds)
    }

    /// The ticks of whole records within a damaged one: bytes were taken out of it, as many as those records have. Never
    /// more ticks than it had, by which it was counted.
    pub(super) fn within(&self, frame: Frame) -> io::Result<Vec<Tick>> {
        let (mut found, mut at) = (Vec::new(), frame.payload_at());
        while let Some(inner) = self.search_until(at, frame.end())? {
            let Step::Record(inner) = self.step(inner)? else { break };
            let ticks = self.ticks(inner)?.unwrap_or_default();
            if found.len() + ticks.len() > usize::try_from(frame.ticks).unwrap_or_default() {
                break;
            }
            found.extend(ticks);
            at = inner.end();
        }
        Ok(found)
    }

    /// The ticks of the record at a place; none where there is no such record.
    pub(super) fn ticks_at(&self, at: u64) -> io::Result<Vec<Tick>> {
        let Step::Record(frame) = self.step(at)? else { return Ok(Vec::new()) };
        Ok(self.ticks(frame)?.unwrap_or_default())
    }

    /// Where the next whole record is, from a place on. Looks at each byte once; records that only pretend are given up
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
                let Some(frame) = Frame::parse(at + offset, bytes) else { continue };
                if frame.ticks == 0 || frame.end() > until {
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

    /// Walks from record to record, from a place on to the end.
    pub(super) fn contents(&self, from: u64) -> io::Result<Contents> {
        let mut found = Contents { end: from, ..Contents::default() };
        let mut at = from;
        loop {
            match self.step(at)? {
                Step::Record(frame) => {
                    found.records += 1;
                    found.ticks += u64::from(frame.ticks);
                    found.first.get_or_insert(at);
                    found.last = Some(at);
                    at = frame.end();
                    found.end = at;
                }
                Step::Damage { to, ticks, bytes } => {
                    found.damage.add(at, ticks, bytes);
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
impl Reader {
    /// Whether searches were given up.
    pub(super) const fn is_patience_lost(&self) -> bool {
        self.patience.get() == 0
    }
}
