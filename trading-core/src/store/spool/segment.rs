//! One file of records: how it begins, how each record is framed, and what a crash or a bad disk leaves of it.
//!
//! ```text
//! TCSPOOL1                                    eight bytes: what this is, and the version of the format
//! length  ticks  crc32 of payload  crc32 of these 12 bytes   payload      the head: which database, since when
//! length  ticks  crc32 of payload  crc32 of these 12 bytes   payload      a record, and so on to the end
//! ```
//!
//! Numbers are 32 bits, little endian. A tail that is shorter than it says, or all zeros, is torn: a crash cut it short
//! before anybody was told that it was written. Everything else that does not check is damage, and never deleted.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use super::record::{Encoded, RECORD_BYTES_MAX};
use crate::domain::Tick;

const MAGIC: [u8; 8] = *b"TCSPOOL1";
const MAGIC_BYTES: u64 = 8;
const FRAME_BYTES: usize = 16;

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
    /// Ticks in the record.
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
        let bounded = usize::try_from(frame.length).ok()? <= RECORD_BYTES_MAX;
        (bounded && crc32fast::hash(numbers).to_le_bytes() == own).then_some(frame)
    }

    /// Where the next one begins.
    pub(super) fn end(self) -> u64 {
        self.payload_at() + u64::from(self.length)
    }

    fn payload_at(self) -> u64 {
        self.at + u64::try_from(FRAME_BYTES).unwrap_or_default()
    }
}

/// What stands at a place of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A record.
    Record(Frame),
    /// The end of the file.
    End,
    /// Something that a crash cut short.
    Torn,
    /// Something that is not what was written.
    Damaged,
}

/// What the beginning of the file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Beginning {
    /// A segment; its first record is at this place.
    Head(Head, u64),
    /// A crash came before the segment was made: it never held anything.
    Torn,
    /// No segment.
    Damaged,
}

/// What a file holds, by its frames; payloads are checked when they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contents {
    /// Records.
    pub(super) records: u64,
    /// Ticks in them.
    pub(super) ticks: u64,
    /// The end of the last one.
    pub(super) end: u64,
    /// Where the last one begins, if there is one.
    pub(super) last: Option<u64>,
    /// What stands at the end: never a record.
    pub(super) tail: Place,
}

/// A segment that is read.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    length: u64,
}

impl Reader {
    /// Opens a file as it is now; what is appended later is not seen.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }

    /// Bytes of the file.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// What the beginning is.
    pub(super) fn beginning(&self) -> io::Result<Beginning> {
        let mut magic = [0; 8];
        if self.length < MAGIC_BYTES || self.is_zero_from(0)? {
            return Ok(Beginning::Torn);
        }
        self.file.read_exact_at(&mut magic, 0)?;
        if magic != MAGIC {
            return Ok(Beginning::Damaged);
        }
        match self.place(MAGIC_BYTES)? {
            Place::Record(frame) => {
                let payload = self.payload(frame)?;
                let head = payload.and_then(|payload| postcard::from_bytes(&payload).ok());
                Ok(head.map_or(Beginning::Damaged, |head| Beginning::Head(head, frame.end())))
            }
            Place::End | Place::Torn => Ok(Beginning::Torn),
            Place::Damaged => Ok(Beginning::Damaged),
        }
    }

    /// What stands there.
    pub(super) fn place(&self, at: u64) -> io::Result<Place> {
        let mut bytes = [0; FRAME_BYTES];
        let rest = self.length.saturating_sub(at);
        if rest == 0 {
            return Ok(Place::End);
        }
        if rest < u64::try_from(FRAME_BYTES).unwrap_or_default() {
            return Ok(Place::Torn);
        }
        self.file.read_exact_at(&mut bytes, at)?;
        match Frame::parse(at, bytes) {
            Some(frame) if frame.end() <= self.length => Ok(Place::Record(frame)),
            Some(_longer_than_the_file) => Ok(Place::Torn),
            None if self.is_zero_from(at)? => Ok(Place::Torn),
            None => Ok(Place::Damaged),
        }
    }

    /// The bytes of a record; `None` when they are not what was written.
    pub(super) fn payload(&self, frame: Frame) -> io::Result<Option<Vec<u8>>> {
        let length = usize::try_from(frame.length).unwrap_or(RECORD_BYTES_MAX);
        let mut payload = vec![0; length];
        self.file.read_exact_at(&mut payload, frame.payload_at())?;
        Ok((crc32fast::hash(&payload) == frame.checksum).then_some(payload))
    }

    /// Walks from frame to frame, from the first record's place to the end.
    pub(super) fn contents(&self, first: u64) -> io::Result<Contents> {
        let (mut records, mut ticks, mut end, mut last) = (0, 0, first, None);
        loop {
            match self.place(end)? {
                Place::Record(frame) => {
                    records += 1;
                    ticks += u64::from(frame.ticks);
                    last = Some(end);
                    end = frame.end();
                }
                tail => return Ok(Contents { records, ticks, end, last, tail }),
            }
        }
    }

    fn is_zero_from(&self, mut at: u64) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        while at < self.length {
            let read = self.file.read_at(&mut bytes, at)?;
            let seen = bytes.get(..read).unwrap_or_default();
            if read == 0 || seen.iter().any(|byte| *byte != 0) {
                return Ok(read == 0);
            }
            at += u64::try_from(read).unwrap_or(u64::MAX);
        }
        Ok(true)
    }
}
