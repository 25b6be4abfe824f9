//! The journal's statements. Each may be done twice: what a lost answer leaves in doubt is written again.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::types::chrono::{DateTime, Utc};

use super::gaps::{retract_gap, write_gap};
use super::{Note, QuarantinedFrame};
use crate::domain::bounds::SESSION_DEAD;
use crate::domain::{APART_MICROS, ENDED_WITHOUT_A_WORD, HeldSince, SessionEnd, SessionStart};

/// Different unreadable frames that are kept per exchange; of those kept already, repeats are counted for ever.
const QUARANTINED_MAX: i64 = 8_192;
/// Their bytes together, which earlier versions reached with fewer frames.
const QUARANTINED_BYTES_MAX: i64 = 64 * 1024 * 1024;
/// Of a frame this much is kept, in bytes.
const FRAME_BYTES_MAX: usize = 8 * 1024;
/// Of what is wrong with it this much is kept, in bytes.
const REASON_BYTES_MAX: usize = 200;
/// Our clock may be ahead of the database's by this much: beyond it, it is corrected.
const CLOCKS_APART: Duration = Duration::from_micros(APART_MICROS);
/// From the socket to where it is counted as held, a tick needs less than this.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

/// Names a connection's row, together with the recorder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    exchange: &'static str,
    feed: String,
    connected_at: DateTime<Utc>,
}

impl Key {
    pub(super) fn of(start: &SessionStart) -> Self {
        Self {
            exchange: start.exchange,
            feed: start.feed.clone(),
            connected_at: start.connected_at.to_datetime(),
        }
    }
}

pub(super) async fn note(
    pool: &PgPool,
    recorder: &str,
    held: &HeldSince,
    note: &Note,
) -> Result<(), sqlx::Error> {
    match note {
        Note::Gap(gap) => write_gap(pool, gap).await,
        Note::Retracted(instrument, ids) => retract_gap(pool, *instrument, *ids).await,
        Note::Started(start, _) => write_session(pool, recorder, held, start, None).await,
        Note::Ended(start, end) => write_session(pool, recorder, held, start, Some(end)).await,
        Note::Frame { frame, .. } => write_frame(pool, frame).await,
    }
}

/// The end of a connection is written over whatever is there: its start, nothing (that note was dropped), or the end
/// that another recorder gave it while this one was cut off. A start is written over nothing.
async fn write_session(
    pool: &PgPool,
    recorder: &str,
    held: &HeldSince,
    start: &SessionStart,
    end: Option<&SessionEnd>,
) -> Result<(), sqlx::Error> {
    let count = |read: fn(&SessionEnd) -> i64| end.map_or(0, read);
    sqlx::query(
        "INSERT INTO feed_sessions (recorder, exchange, feed, connected_at, seen_at, symbols, ended_at, reason, frames, \
             ticks, duplicates, malformed, stored_until) \
         VALUES ($1, $2, $3, $4, now(), $5, CASE WHEN $6::timestamptz IS NOT NULL THEN greatest($4, least($6, now() + $12)) END, $7, $8, $9, $10, $11, now() - $13) \
         ON CONFLICT (recorder, exchange, feed, connected_at) DO UPDATE SET \
             seen_at = EXCLUDED.seen_at, ended_at = EXCLUDED.ended_at, reason = EXCLUDED.reason, \
             frames = EXCLUDED.frames, ticks = EXCLUDED.ticks, duplicates = EXCLUDED.duplicates, \
             malformed = EXCLUDED.malformed, \
             stored_until = greatest(feed_sessions.stored_until, EXCLUDED.stored_until) \
         WHERE EXCLUDED.ended_at IS NOT NULL",
    )
    .bind(recorder)
    .bind(start.exchange)
    .bind(&start.feed)
    .bind(start.connected_at.to_datetime())
    .bind(&start.symbols)
    .bind(end.map(|end| end.ended_at.to_datetime()))
    .bind(end.map(|end| end.reason.as_str()))
    .bind(count(|end| end.frames))
    .bind(count(|end| end.ticks))
    .bind(count(|end| end.duplicates))
    .bind(count(|end| end.malformed))
    .bind(CLOCKS_APART)
    .bind(not_stored(held))
    .execute(pool)
    .await
    .map(|_done| ())
}

/// Notes that these connections are open, also of those that another recorder has taken for dead.
pub(super) async fn refresh_sessions<'a>(
    pool: &PgPool,
    recorder: &str,
    held: &HeldSince,
    open: impl Iterator<Item = &'a Key> + Clone + Send,
) -> Result<(), sqlx::Error> {
    let exchanges: Vec<&str> = open.clone().map(|key| key.exchange).collect();
    let feeds: Vec<&str> = open.clone().map(|key| key.feed.as_str()).collect();
    let times: Vec<DateTime<Utc>> = open.map(|key| key.connected_at).collect();
    sqlx::query(
        "UPDATE feed_sessions SET seen_at = now(), ended_at = NULL, reason = NULL, \
             stored_until = greatest(stored_until, now() - $5) \
         FROM unnest($2::text[], $3::text[], $4::timestamptz[]) AS open (exchange, feed, connected_at) \
         WHERE feed_sessions.recorder = $1 AND feed_sessions.exchange = open.exchange \
             AND feed_sessions.feed = open.feed AND feed_sessions.connected_at = open.connected_at",
    )
    .bind(recorder)
    .bind(exchanges)
    .bind(feeds)
    .bind(times)
    .bind(not_stored(held))
    .execute(pool)
    .await?;
    // What those brought that have ended meanwhile may be held still.
    sqlx::query(
        "UPDATE feed_sessions SET stored_until = now() - $2 \
         WHERE recorder = $1 AND ended_at IS NOT NULL AND stored_until < ended_at AND stored_until < now() - $2",
    )
    .bind(recorder)
    .bind(not_stored(held))
    .execute(pool)
    .await
    .map(|_done| ())
}

/// Notes that everything which this recorder has taken is in the store, or in its spool: it ends in order.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn note_all_stored(pool: &PgPool, recorder: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE feed_sessions SET stored_until = greatest(stored_until, ended_at) \
         WHERE recorder = $1 AND ended_at IS NOT NULL",
    )
    .bind(recorder)
    .execute(pool)
    .await
    .map(|_done| ())
}

/// What of the past may be in memory only.
fn not_stored(held: &HeldSince) -> Duration {
    held.age() + ON_ITS_WAY
}

/// Closes the connections of every recorder that has died, and answers how many.
pub(super) async fn close_dead_sessions(pool: &PgPool) -> Result<u64, sqlx::Error> {
    sqlx::query(
        "UPDATE feed_sessions SET ended_at = now(), \
             reason = $2 || ', last seen ' \
                 || to_char(seen_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC' \
         WHERE ended_at IS NULL AND seen_at < now() - $1",
    )
    .bind(SESSION_DEAD)
    .bind(ENDED_WITHOUT_A_WORD)
    .execute(pool)
    .await
    .map(|done| done.rows_affected())
}

/// What has no room is counted in one row of the exchange, under the key of nothing.
async fn write_frame(pool: &PgPool, frame: &QuarantinedFrame) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO quarantined_frames (exchange, hash, frame, reason, first_seen, last_seen) \
         SELECT $1, CASE WHEN fits THEN key ELSE '' END, CASE WHEN fits THEN $2 ELSE '' END, \
             CASE WHEN fits THEN $3 ELSE 'beyond the frames that are kept of an exchange: only counted' END, $4, $4 \
         FROM (SELECT key, EXISTS (SELECT FROM quarantined_frames WHERE exchange = $1 AND hash = key) \
                 OR (SELECT count(*) < $5 AND coalesce(sum(octet_length(frame)), 0) + octet_length($2) <= $6 \
                     FROM quarantined_frames WHERE exchange = $1 AND hash <> '') AS fits \
             FROM sha256(convert_to($2, 'UTF8')) AS key) AS frame \
         ON CONFLICT (exchange, hash) DO UPDATE SET \
             count = quarantined_frames.count + 1, \
             last_seen = greatest(quarantined_frames.last_seen, EXCLUDED.last_seen)",
    )
    .bind(frame.exchange)
    .bind(begin_of(&frame.frame, FRAME_BYTES_MAX))
    .bind(begin_of(&frame.reason, REASON_BYTES_MAX))
    .bind(frame.seen_at.to_datetime())
    .bind(QUARANTINED_MAX)
    .bind(QUARANTINED_BYTES_MAX)
    .execute(pool)
    .await
    .map(|_done| ())
}

/// A text up to `bytes_max` bytes, without half a character at its end.
fn begin_of(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default()
}
