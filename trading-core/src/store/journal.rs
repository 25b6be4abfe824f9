//! What is noted beside the ticks: each connection to an exchange, gaps of its ids, and frames that could not be read.
//!
//! A note is never worth a tick: the queue is bounded, a note that does not fit is dropped and counted, and recording
//! does not wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{Remedy, StoreError};
use crate::domain::{Instrument, Timestamp};

/// Notes that may wait.
const NOTES_MAX: usize = 1_000;
/// Different unreadable frames that are kept per exchange; of those kept already, repeats are counted for ever.
const QUARANTINED_MAX: i64 = 10_000;
/// Of a frame, this much is kept.
const FRAME_CHARS_MAX: usize = 65_536;
/// The wait before a note is written again to a database that is away.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// Attempts at one note when the recorder stops.
const ATTEMPTS_AT_END_MAX: u32 = 2;

/// One connection to an exchange, from start to end.
#[derive(Debug, Clone)]
pub struct SessionRecord {
    /// The exchange's name.
    pub exchange: &'static str,
    /// The feed's name.
    pub feed: String,
    /// When the connection stood.
    pub connected_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Why it ended.
    pub reason: String,
    /// What it was to carry.
    pub symbols: Vec<String>,
    /// Frames read.
    pub frames: i64,
    /// Ticks decoded, duplicates included.
    pub ticks: i64,
    /// Ticks that had been seen before.
    pub duplicates: i64,
    /// Frames that could not be read.
    pub malformed: i64,
}

/// A frame that could not be read.
#[derive(Debug, Clone)]
pub struct QuarantinedFrame {
    /// The exchange's name.
    pub exchange: &'static str,
    /// The raw text.
    pub frame: String,
    /// What was wrong with it.
    pub reason: String,
    /// When it was read from the socket.
    pub seen_at: Timestamp,
}

/// Trade ids that an exchange never sent us.
#[derive(Debug, Clone, Copy)]
pub struct GapRecord {
    /// Whose.
    pub instrument: Instrument,
    /// The first that is missing.
    pub first_id: u64,
    /// The last that is missing.
    pub last_id: u64,
    /// When the trade after it was read from the socket.
    pub seen_at: Timestamp,
}

#[derive(Debug)]
enum Note {
    Session(SessionRecord),
    Gap(GapRecord),
    Frame(QuarantinedFrame),
}

/// Takes notes.
#[derive(Debug, Clone)]
pub struct Journal {
    notes: mpsc::Sender<Note>,
    dropped: Arc<AtomicU64>,
}

/// Writes notes down.
#[derive(Debug)]
pub struct JournalWriter {
    notes: mpsc::Receiver<Note>,
    dropped: Arc<AtomicU64>,
}

/// A journal and its writer.
#[must_use]
pub fn journal() -> (Journal, JournalWriter) {
    let (sender, receiver) = mpsc::channel(NOTES_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    (
        Journal { notes: sender, dropped: Arc::clone(&dropped) },
        JournalWriter { notes: receiver, dropped },
    )
}

impl Journal {
    /// Notes a connection that has ended.
    pub fn session(&self, record: SessionRecord) {
        self.offer(Note::Session(record));
    }

    /// Lists a gap.
    pub fn gap(&self, gap: GapRecord) {
        self.offer(Note::Gap(gap));
    }

    /// Keeps a frame that could not be read, as much of it as is kept.
    pub fn quarantine(&self, mut frame: QuarantinedFrame) {
        // PostgreSQL's text cannot hold NUL.
        let kept = frame.frame.chars().take(FRAME_CHARS_MAX);
        frame.frame = kept.map(|it| if it == '\0' { '\u{fffd}' } else { it }).collect();
        self.offer(Note::Frame(frame));
    }

    fn offer(&self, note: Note) {
        if self.notes.try_send(note).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that were dropped, because too many waited or the database refused them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl JournalWriter {
    /// Writes until the last [`Journal`] has gone and every note is written or dropped.
    pub async fn run(mut self, pool: PgPool) {
        while let Some(note) = self.notes.recv().await {
            if let Err(error) = self.write_patiently(&pool, &note).await {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                warn!(%error, "Note dropped");
            }
        }
        debug!(dropped = self.dropped.load(Ordering::Relaxed), "Journal closed");
    }

    /// Tries for as long as the error can pass; once nothing more will come, only so often.
    async fn write_patiently(&self, pool: &PgPool, note: &Note) -> Result<(), StoreError> {
        let mut attempts_at_end = 0;
        loop {
            let Err(error) = write(pool, note).await.map_err(StoreError::from) else {
                return Ok(());
            };
            attempts_at_end += u32::from(self.notes.is_closed());
            if error.remedy() != Remedy::Retry || attempts_at_end == ATTEMPTS_AT_END_MAX {
                return Err(error);
            }
            debug!(%error, "Note not written");
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }
}

async fn write(pool: &PgPool, note: &Note) -> Result<(), sqlx::Error> {
    match note {
        Note::Session(record) => write_session(pool, record).await,
        Note::Gap(gap) => write_gap(pool, gap).await,
        Note::Frame(frame) => write_frame(pool, frame).await,
    }
}

async fn write_session(pool: &PgPool, record: &SessionRecord) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO feed_sessions \
             (exchange, feed, connected_at, ended_at, reason, symbols, frames, ticks, duplicates, malformed) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
    )
    .bind(record.exchange)
    .bind(&record.feed)
    .bind(record.connected_at.to_datetime())
    .bind(record.ended_at.to_datetime())
    .bind(&record.reason)
    .bind(&record.symbols)
    .bind(record.frames)
    .bind(record.ticks)
    .bind(record.duplicates)
    .bind(record.malformed)
    .execute(pool)
    .await
    .map(|_done| ())
}

async fn write_gap(pool: &PgPool, gap: &GapRecord) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO tick_gaps (exchange, symbol, first_id, last_id, cause, opened_at) \
         VALUES ($1, $2, $3, $4, 'the ids jumped', $5)",
    )
    .bind(gap.instrument.exchange())
    .bind(gap.instrument.symbol().as_str())
    .bind(gap.first_id.to_string())
    .bind(gap.last_id.to_string())
    .bind(gap.seen_at.to_datetime())
    .execute(pool)
    .await
    .map(|_done| ())
}

async fn write_frame(pool: &PgPool, frame: &QuarantinedFrame) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO quarantined_frames (exchange, hash, frame, reason, first_seen, last_seen) \
         SELECT $1, key, $2, $3, $4, $4 FROM sha256(convert_to($2, 'UTF8')) AS key \
         WHERE (SELECT count(*) FROM quarantined_frames WHERE exchange = $1) < $5 \
            OR EXISTS (SELECT FROM quarantined_frames WHERE exchange = $1 AND hash = key) \
         ON CONFLICT (exchange, hash) DO UPDATE SET \
             count = quarantined_frames.count + 1, \
             last_seen = greatest(quarantined_frames.last_seen, EXCLUDED.last_seen)",
    )
    .bind(frame.exchange)
    .bind(&frame.frame)
    .bind(&frame.reason)
    .bind(frame.seen_at.to_datetime())
    .bind(QUARANTINED_MAX)
    .execute(pool)
    .await
    .map(|_done| ())
}
