//! What is noted beside the ticks: each connection to an exchange, gaps, and frames that could not be read.
//!
//! A note is never worth a tick: its queue is bounded, a note that does not fit is dropped and counted, and recording
//! does not wait for it. Gaps, connections and frames each have a queue of their own, so that a flood of the one drops
//! none of the others; gaps are written first.

mod gaps;
mod standing;
mod write;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, info, warn};

use super::postgres::remedy;
use super::{Remedy, said, with_causes};
use crate::domain::bounds::SESSION_REFRESH;
use crate::domain::{
    GapRecord, HeldSince, IdRange, Instrument, SessionEnd, SessionStart, Timestamp,
};
pub use standing::{Standing, standing};
use write::Key;
pub use write::note_all_stored;

/// Gaps that may wait: an hour without a database in which every symbol of a large recorder loses some each minute.
const GAPS_MAX: usize = 10_000;
/// Connections that may wait, and as many frames.
const NOTES_MAX: usize = 1_000;
/// Of a frame, this much is kept; the largest that any exchange sends with a trade in it is smaller.
pub const FRAME_BYTES_MAX: usize = 8 << 10;
/// Of what is said of a frame, this much is kept.
const REASON_BYTES_MAX: usize = 1 << 10;
/// What the frames that wait may take in memory, together.
const FRAMES_BYTES_MAX: usize = 1 << 20;
/// The wait before a note is written again to a database that is away.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// Attempts that may fail when the recorder stops, before what is not written yet is dropped.
const ATTEMPTS_AT_END_MAX: u32 = 2;

/// A connection that was noted: as long as this lives, its row is kept fresh.
#[derive(Debug)]
pub struct OpenSession {
    start: Arc<SessionStart>,
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

impl QuarantinedFrame {
    /// As much of a frame as is kept, as text: what is no UTF-8, and what PostgreSQL's text cannot hold, is replaced.
    #[must_use]
    pub fn of(exchange: &'static str, frame: &[u8], reason: &str, seen_at: Timestamp) -> Self {
        Self {
            exchange,
            frame: kept(frame, FRAME_BYTES_MAX),
            reason: kept(reason.as_bytes(), REASON_BYTES_MAX),
            seen_at,
        }
    }

    fn bytes(&self) -> u32 {
        u32::try_from(self.frame.len() + self.reason.len()).unwrap_or(u32::MAX)
    }
}

/// The beginning of a text, cut before it is copied; no longer than this when what cannot be stored is replaced.
fn kept(bytes: &[u8], most: usize) -> String {
    let mut text = String::new();
    let cut = bytes.get(..most).unwrap_or(bytes);
    let is_cut = cut.len() < bytes.len();
    let mut chunks = cut.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        // A character that the cut went through is left out.
        let is_cut_here = is_cut && chunks.peek().is_none();
        if !chunk.invalid().is_empty() && !is_cut_here {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    if text.contains('\0') {
        text = text.replace('\0', "\u{fffd}");
    }
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.shrink_to_fit();
    text
}

#[derive(Debug)]
enum Note {
    Gap(GapRecord),
    /// Ids that were listed, and were never traded.
    Retracted(Instrument, IdRange),
    Started(SessionStart, Weak<SessionStart>),
    Ended(Arc<SessionStart>, SessionEnd),
    /// With its part of the memory that frames may take, which it gives back when it is written or dropped.
    Frame {
        frame: QuarantinedFrame,
        _room: OwnedSemaphorePermit,
    },
}

/// Takes notes.
#[derive(Debug, Clone)]
pub struct Journal {
    gaps: mpsc::Sender<Note>,
    sessions: mpsc::Sender<Note>,
    frames: mpsc::Sender<Note>,
    /// Bytes that are free for frames that wait.
    room: Arc<Semaphore>,
    dropped: Arc<AtomicU64>,
}

/// Writes notes down.
#[derive(Debug)]
pub struct JournalWriter {
    recorder: String,
    held: HeldSince,
    gaps: mpsc::Receiver<Note>,
    sessions: mpsc::Receiver<Note>,
    frames: mpsc::Receiver<Note>,
    /// The connections whose start is written and whose end is not. Bounded by what the feeds hold open.
    open: Vec<(Key, Weak<SessionStart>)>,
    /// Attempts that failed since nothing more could come.
    failures_at_end: u32,
    dropped: Arc<AtomicU64>,
}

/// A journal and its writer, for the run of a recorder that is named by this text: no other run has the same.
#[must_use]
pub fn journal(recorder: String) -> (Journal, JournalWriter) {
    let (gaps, gaps_receiver) = mpsc::channel(GAPS_MAX);
    let (sessions, sessions_receiver) = mpsc::channel(NOTES_MAX);
    let (frames, frames_receiver) = mpsc::channel(NOTES_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let writer = JournalWriter {
        recorder,
        held: HeldSince::default(),
        gaps: gaps_receiver,
        sessions: sessions_receiver,
        frames: frames_receiver,
        open: Vec::new(),
        failures_at_end: 0,
        dropped: Arc::clone(&dropped),
    };
    let room = Arc::new(Semaphore::new(FRAMES_BYTES_MAX));
    (Journal { gaps, sessions, frames, room, dropped }, writer)
}

impl Journal {
    /// Notes a connection that was opened.
    pub fn session(&self, start: SessionStart) -> OpenSession {
        let start = Arc::new(start);
        let note = Note::Started(SessionStart::clone(&start), Arc::downgrade(&start));
        self.offer(&self.sessions, note);
        OpenSession { start }
    }

    /// Notes the end of a connection.
    pub fn session_ended(&self, session: OpenSession, end: SessionEnd) {
        self.offer(&self.sessions, Note::Ended(session.start, end));
    }

    /// Lists a gap.
    pub fn gap(&self, gap: GapRecord) {
        self.offer(&self.gaps, Note::Gap(gap));
    }

    /// Takes back what was listed of these ids: they were never traded.
    pub fn retract(&self, instrument: Instrument, ids: IdRange) {
        self.offer(&self.gaps, Note::Retracted(instrument, ids));
    }

    /// Keeps a frame that could not be read, where there is room: those that wait take 1 MiB of memory at most.
    pub fn quarantine(&self, frame: QuarantinedFrame) {
        match Arc::clone(&self.room).try_acquire_many_owned(frame.bytes()) {
            Ok(room) => self.offer(&self.frames, Note::Frame { frame, _room: room }),
            Err(_full) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn offer(&self, queue: &mpsc::Sender<Note>, note: Note) {
        if queue.try_send(note).is_err() {
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
    /// Notes with the connections how far what they brought is stored; without it, all of it counts as stored.
    #[must_use]
    pub fn with_held(self, held: HeldSince) -> Self {
        Self { held, ..self }
    }

    /// Writes until the last [`Journal`] has gone and every note is written or dropped.
    pub async fn run(mut self, pool: PgPool) {
        let mut refresh = tokio::time::interval(SESSION_REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let note = tokio::select! {
                biased;
                _ = refresh.tick() => {
                    self.refresh(&pool).await;
                    continue;
                }
                note = self.next() => note,
            };
            let Some(note) = note else { break };
            // A database that is away at the end is not waited for once more with each note.
            if self.failures_at_end >= ATTEMPTS_AT_END_MAX {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            } else if let Err(error) = self.write_patiently(&pool, &note).await {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                warn!(error = %with_causes(&error), "Note dropped");
            }
            self.remember(&note);
        }
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > 0 {
            warn!("{dropped} notes of gaps, connections and unreadable frames were dropped");
        }
        debug!("Journal closed");
    }

    /// The next note, gaps first; `None` when no more will come. Cancel-safe.
    async fn next(&mut self) -> Option<Note> {
        tokio::select! {
            biased;
            Some(note) = self.gaps.recv() => Some(note),
            Some(note) = self.sessions.recv() => Some(note),
            Some(note) = self.frames.recv() => Some(note),
            else => None,
        }
    }

    /// Keeps count of the open connections.
    fn remember(&mut self, note: &Note) {
        match note {
            Note::Started(start, alive) => self.open.push((Key::of(start), Weak::clone(alive))),
            Note::Ended(start, _) => {
                let key = Key::of(start);
                self.open.retain(|(open, _)| *open != key);
            }
            Note::Gap(_) | Note::Retracted(..) | Note::Frame { .. } => {}
        }
    }

    /// Notes that the open connections still live, and closes those of recorders that have died.
    async fn refresh(&mut self, pool: &PgPool) {
        // The end of one may have found the queue full.
        self.open.retain(|(_, alive)| alive.strong_count() > 0);
        let open = self.open.iter().map(|(key, _)| key);
        let refreshed = write::refresh_sessions(pool, &self.recorder, &self.held, open).await;
        let closed = match refreshed {
            Ok(()) => write::close_dead_sessions(pool).await,
            Err(error) => Err(error),
        };
        match closed {
            Ok(0) => {}
            Ok(closed) => info!(
                sessions = closed,
                "Connections of a recorder that ended without a word are closed in feed_sessions"
            ),
            Err(error) => debug!(error = %said(&error), "Connections not refreshed"),
        }
    }

    /// Tries for as long as the error can pass; once nothing more will come, only so often.
    async fn write_patiently(&mut self, pool: &PgPool, note: &Note) -> Result<(), sqlx::Error> {
        loop {
            let written = write::note(pool, &self.recorder, &self.held, note).await;
            let Err(error) = written else { return Ok(()) };
            self.failures_at_end += u32::from(self.gaps.is_closed());
            if remedy(&error) != Remedy::Retry || self.failures_at_end >= ATTEMPTS_AT_END_MAX {
                return Err(error);
            }
            debug!(error = %with_causes(&error), "Note not written");
            tokio::time::sleep_until(Instant::now() + RETRY_DELAY).await;
        }
    }
}
