//! What is noted beside the ticks is there when it is asked for: connections while they stand, gaps once, and where
//! recording goes on.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use trading_core::domain::testing::{self, instrument};
use trading_core::domain::{
    GapCause, GapRecord, HeldSince, IdRange, Instrument, LastStored, SessionEnd, SessionStart,
    Source, Tick, TimeRange, Timestamp, TradeId, steady_micros,
};
use trading_core::store::journal::{
    FRAME_BYTES_MAX, Journal, QuarantinedFrame, journal, note_all_stored,
};
use trading_core::store::postgres::PostgresStore;
use trading_core::store::postgres::latest::{in_doubt_since, last_stored, list_time_until_now};
use trading_core::store::{Store as _, StoreError};

use crate::support::postgres::migrated;
use crate::support::waiting::{in_time, spawn, until};

/// A recorder's journal that is being written.
struct Writing {
    journal: Journal,
    writer: AbortOnDropHandle<()>,
}

impl Writing {
    fn start(recorder: &str, pool: &PgPool) -> Self {
        let (journal, writer) = journal(recorder.to_owned());
        let writer = spawn(writer.run(pool.clone()));
        Self { journal, writer }
    }

    async fn end(self) {
        drop(self.journal);
        in_time(self.writer).await.unwrap();
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + second * 1_000).unwrap()
}

fn start(feed: &str) -> SessionStart {
    let symbols = vec!["BTCUSDT".to_owned()];
    SessionStart { exchange: "binance", feed: feed.to_owned(), connected_at: at(0), symbols }
}

fn end() -> SessionEnd {
    let reason = "closed by the exchange".to_owned();
    SessionEnd { ended_at: at(9), reason, frames: 4, ticks: 3, duplicates: 2, malformed: 1 }
}

type Session = (String, Option<String>, i64);

/// Recorder, reason and ticks of each connection.
async fn sessions(pool: &PgPool) -> Vec<Session> {
    sqlx::query_as("SELECT recorder, reason, ticks FROM feed_sessions ORDER BY recorder, feed")
        .fetch_all(pool)
        .await
        .unwrap()
}

/// Waits until the connections are like this.
async fn sessions_until(pool: &PgPool, are_so: impl Fn(&[Session]) -> bool + Sync) -> Vec<Session> {
    until(async || {
        let sessions = sessions(pool).await;
        if are_so(&sessions) { Ok(sessions) } else { Err(format!("{sessions:?}")) }
    })
    .await
}

#[tokio::test]
async fn a_connection_has_a_row_while_it_stands_and_its_end_is_written_over_it() {
    let database = migrated().await;
    let writing = Writing::start("one", &database.pool);
    let session = writing.journal.session(start("binance-1"));
    let open = sessions_until(&database.pool, |sessions| !sessions.is_empty()).await;
    assert_eq!(open, [("one".to_owned(), None, 0)]);
    assert!(doubted(&database.pool).await.is_some(), "it has not ended");
    writing.journal.session_ended(session, end());
    let closed = sessions_until(&database.pool, |sessions| sessions[0].1.is_some()).await;
    assert_eq!(closed, [("one".to_owned(), Some("closed by the exchange".to_owned()), 3)]);
    assert_eq!(doubted(&database.pool).await, None, "what it had taken is written");
    writing.end().await;
}

/// As a recorder leaves them that is killed, or cut off, for so many seconds.
async fn leave(pool: &PgPool, seconds: i32) {
    let sql = "UPDATE feed_sessions SET seen_at = now() - make_interval(secs => $1)";
    sqlx::query(sql).bind(f64::from(seconds)).execute(pool).await.unwrap();
}

#[tokio::test]
async fn the_connections_of_a_recorder_that_died_are_closed_by_the_next_one() {
    let database = migrated().await;
    let dying = Writing::start("dies", &database.pool);
    let session = dying.journal.session(start("binance-1"));
    sessions_until(&database.pool, |sessions| !sessions.is_empty()).await;
    dying.writer.abort();
    drop(session);
    leave(&database.pool, 59).await;
    // A recorder that starts looks at once; this one is not dead yet.
    Writing::start("next", &database.pool).end().await;
    assert_eq!(sessions(&database.pool).await[0].1, None);
    leave(&database.pool, 61).await;
    let writing = Writing::start("later", &database.pool);
    let closed = sessions_until(&database.pool, |sessions| sessions[0].1.is_some()).await;
    let reason = closed[0].1.as_deref().unwrap();
    assert!(reason.starts_with("its recorder ended without a word, last seen 20"), "{reason}");
    let (is_now,): (bool,) = sqlx::query_as(
        "SELECT ended_at > now() - interval '50 seconds' FROM feed_sessions WHERE recorder = 'dies'",
    )
    .fetch_one(&database.pool)
    .await
    .unwrap();
    assert!(is_now, "it ended when that was noticed");
    let since = doubted(&database.pool).await.expect("what was in its memory is lost");
    writing.end().await;
    list_time_until_now(&database.pool, bitcoin(), since).await.unwrap();
    assert_eq!(doubted(&database.pool).await, None, "it is listed");
}

/// Since when trades may have been in the memory only of a recorder that has died.
async fn doubted(pool: &PgPool) -> Option<Timestamp> {
    let since = in_doubt_since(pool, "binance", Duration::from_secs(5)).await.unwrap();
    since.get("BTCUSDT").copied()
}

#[tokio::test]
async fn what_a_recorder_holds_in_memory_is_in_doubt_from_its_oldest_tick_on_until_it_ends_in_order()
 {
    let database = migrated().await;
    let held = HeldSince::default();
    let hour = 3_600_000_000;
    held.set(Some(steady_micros() - hour));
    let (journal, writer) = journal("one".to_owned());
    let running = writer.with_held(held.clone()).run(database.pool.clone());
    let running = spawn(running);
    let standing = journal.session(start("binance-1"));
    // What this one brought is held as well, though it has ended in order.
    let gone = journal.session(start("binance-2"));
    journal.session_ended(gone, SessionEnd { ended_at: Timestamp::now(), ..end() });
    sessions_until(&database.pool, |sessions| sessions.len() == 2 && sessions[1].1.is_some()).await;
    let ago = |since: Timestamp| Timestamp::now().as_micros() - since.as_micros();
    let one_hour = |since| (hour..hour + 60_000_000).contains(&ago(since));
    assert!(doubted(&database.pool).await.is_some_and(one_hour), "an hour, and what it took here");
    journal.session_ended(standing, SessionEnd { ended_at: Timestamp::now(), ..end() });
    drop(journal);
    in_time(running).await.unwrap();
    assert!(doubted(&database.pool).await.is_some_and(one_hour), "the pipeline still holds it");
    note_all_stored(&database.pool, "another").await.unwrap();
    assert!(doubted(&database.pool).await.is_some());
    note_all_stored(&database.pool, "one").await.unwrap();
    assert_eq!(doubted(&database.pool).await, None);
}

#[tokio::test]
async fn a_recorder_that_was_only_cut_off_opens_its_connections_again() {
    let database = migrated().await;
    let writing = Writing::start("one", &database.pool);
    let standing = writing.journal.session(start("binance-1"));
    let gone = writing.journal.session(start("binance-2"));
    sessions_until(&database.pool, |sessions| sessions.len() == 2).await;
    // The end of the second found no room in the queue: nobody keeps it fresh.
    drop(gone);
    // What another recorder does when it takes this one for dead.
    sqlx::query("UPDATE feed_sessions SET ended_at = now(), reason = 'without a word'")
        .execute(&database.pool)
        .await
        .unwrap();
    let reopened = sessions_until(&database.pool, |sessions| sessions[0].1.is_none()).await;
    assert!(reopened[1].1.is_some(), "{reopened:?}");
    writing.journal.session_ended(standing, end());
    sessions_until(&database.pool, |sessions| sessions[0].2 == 3).await;
    writing.end().await;
}

fn bitcoin() -> Instrument {
    Instrument::intern("binance", &"BTCUSDT".parse().unwrap()).unwrap()
}

fn gap(ids: Option<(u64, u64)>, cause: GapCause) -> GapRecord {
    let ids = ids.map(|(first, last)| IdRange::between(first, last));
    let times = TimeRange::new(at(1), at(5));
    GapRecord { instrument: bitcoin(), ids, times, cause, seen_at: at(6) }
}

/// Status, first id and cause of each gap.
async fn gaps(pool: &PgPool) -> Vec<(String, Option<String>, String)> {
    sqlx::query_as("SELECT status, first_id, cause FROM tick_gaps ORDER BY id")
        .fetch_all(pool)
        .await
        .unwrap()
}

async fn settle(pool: &PgPool, status: &str) {
    sqlx::query("UPDATE tick_gaps SET status = $1, closed_at = now()")
        .bind(status)
        .execute(pool)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_gap_that_is_found_again_is_one_gap_and_open_again_only_when_it_was_repaired() {
    let database = migrated().await;
    let list = async || {
        let writing = Writing::start("one", &database.pool);
        writing.journal.gap(gap(Some((7, 9)), GapCause::Jumped));
        writing.journal.gap(gap(None, GapCause::NoConnection));
        writing.end().await;
        let gaps = gaps(&database.pool).await;
        let causes: Vec<&str> = gaps.iter().map(|(.., cause)| cause.as_str()).collect();
        assert_eq!(causes, ["the ids jumped", "no connection"]);
        assert_eq!((gaps[0].1.as_deref(), gaps[1].1.as_deref()), (Some("7"), None));
        gaps.into_iter().map(|(status, ..)| status).collect::<Vec<_>>()
    };
    assert_eq!(list().await, ["open", "open"]);
    assert_eq!(list().await, ["open", "open"]);
    settle(&database.pool, "repaired").await;
    assert_eq!(list().await, ["open", "open"]);
    for settled in ["unrecoverable", "not_a_loss"] {
        settle(&database.pool, settled).await;
        assert_eq!(list().await, [settled, settled]);
    }
}

#[tokio::test]
async fn a_flood_of_broken_frames_and_connections_drops_no_gap_and_what_is_dropped_is_counted() {
    let database = migrated().await;
    let (journal, writer) = journal("one".to_owned());
    for number in 0..1_001 {
        let frame = QuarantinedFrame::of("binance", b"{broken", "unreadable", at(number));
        journal.quarantine(frame);
        let session = journal.session(start(&format!("binance-{number}")));
        drop(session);
    }
    assert_eq!(journal.dropped(), 2);
    for id in 0..10_001 {
        // Of one symbol there are not so many.
        let symbol = format!("COIN{}-USDT", id / 100).parse().unwrap();
        let instrument = Instrument::intern("binance", &symbol).unwrap();
        journal.gap(GapRecord { instrument, ..gap(Some((id, id)), GapCause::Jumped) });
    }
    assert_eq!(journal.dropped(), 3);
    drop(journal);
    in_time(writer.run(database.pool.clone())).await;
    assert_eq!(gaps(&database.pool).await.len(), 10_000);
    assert_eq!(sessions(&database.pool).await.len(), 1_000);
}

#[tokio::test]
async fn frames_that_wait_take_a_mebibyte_at_most_and_the_rest_is_counted() {
    let database = migrated().await;
    let (journal, writer) = journal("one".to_owned());
    let large = vec![b'x'; 8 << 20];
    for number in 0..1_000 {
        journal.quarantine(QuarantinedFrame::of("binance", &large, "unreadable", at(number)));
    }
    // 8 KiB and the reason each.
    assert_eq!(journal.dropped(), 1_000 - 127);
    drop(journal);
    in_time(writer.run(database.pool.clone())).await;
    let kept: (i32, i64) =
        sqlx::query_as("SELECT octet_length(frame), count FROM quarantined_frames")
            .fetch_one(&database.pool)
            .await
            .unwrap();
    assert_eq!(kept, (8 << 10, 127));
}

#[test]
fn a_frame_is_cut_by_bytes_between_characters_and_what_cannot_be_stored_is_replaced() {
    let kept = |bytes: &[u8]| QuarantinedFrame::of("okx", bytes, "x", at(1)).frame;
    assert_eq!(kept(b"a\0b\xffc\xf0\x9f"), "a\u{fffd}b\u{fffd}c\u{fffd}");
    // Four bytes each, and one before them.
    let wide = format!("x{}", "\u{1f600}".repeat(10_000));
    assert_eq!(kept(wide.as_bytes()).len(), 1 + 2_047 * 4);
    // What is replaced takes three bytes in the place of one.
    assert!(kept(&vec![0; 100_000]).len() <= FRAME_BYTES_MAX);
    assert!(kept(&vec![0xff; 100_000]).len() <= FRAME_BYTES_MAX);
    let reason = "r".repeat(1 << 20);
    assert_eq!(QuarantinedFrame::of("okx", b"", &reason, at(1)).reason.len(), 1 << 10);
}

/// Of each gap the ids, the status, and the seconds from which to which it lasts.
async fn stretches(pool: &PgPool) -> Vec<(Option<String>, Option<String>, String, i64, i64)> {
    sqlx::query_as(
        "SELECT first_id, last_id, status, extract(epoch FROM from_time)::bigint - 1790000000, \
             extract(epoch FROM to_time)::bigint - 1790000000 FROM tick_gaps ORDER BY id",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_gap_in_time_that_goes_on_is_one_gap() {
    let database = migrated().await;
    let writing = Writing::start("one", &database.pool);
    let in_time = |from: i64, to: i64| GapRecord {
        times: TimeRange::new(at(from), at(to)),
        ..gap(None, GapCause::NoConnection)
    };
    for (from, to) in [(10, 20), (10, 30), (30, 45), (12, 14), (50, 60)] {
        writing.journal.gap(in_time(from, to));
    }
    writing.end().await;
    let open = |from, to| (None, None, "open".to_owned(), from, to);
    assert_eq!(stretches(&database.pool).await, [open(10, 45), open(50, 60)]);
    // Of what is settled already nothing is made longer.
    settle(&database.pool, "repaired").await;
    let writing = Writing::start("two", &database.pool);
    writing.journal.gap(in_time(45, 70));
    writing.end().await;
    assert_eq!(stretches(&database.pool).await[2], open(45, 70));
}

#[tokio::test]
async fn the_gaps_of_a_symbol_are_bounded_and_hold_every_id_that_was_listed() {
    let database = migrated().await;
    let writing = Writing::start("one", &database.pool);
    for id in 0..1_100 {
        writing.journal.gap(gap(Some((id * 2, id * 2)), GapCause::Jumped));
    }
    writing.end().await;
    let rows = stretches(&database.pool).await;
    assert_eq!(rows.len(), 1_000);
    let widest = rows.iter().filter(|(first, last, ..)| first != last).collect::<Vec<_>>();
    assert_eq!(widest.len(), 1);
    assert_eq!((widest[0].0.as_deref(), widest[0].1.as_deref()), (Some("1998"), Some("2198")));
}

#[tokio::test]
async fn what_is_retracted_of_a_gap_is_no_loss_and_what_lies_below_stays_open() {
    let database = migrated().await;
    let writing = Writing::start("one", &database.pool);
    let bogus = u64::MAX - 6;
    writing.journal.gap(gap(Some((11, bogus)), GapCause::Jumped));
    writing.journal.gap(gap(Some((5, 6)), GapCause::Jumped));
    writing.journal.retract(bitcoin(), IdRange::between(19, bogus));
    // Once more, as when the answer was lost.
    writing.journal.retract(bitcoin(), IdRange::between(19, bogus));
    writing.end().await;
    let row = |first: u64, last: u64, status: &str| {
        (Some(first.to_string()), Some(last.to_string()), status.to_owned(), 1, 5)
    };
    let all = [row(19, bogus, "not_a_loss"), row(5, 6, "open"), row(11, 18, "open")];
    assert_eq!(stretches(&database.pool).await, all);
    let note: String = sqlx::query_scalar("SELECT note FROM tick_gaps WHERE status = 'not_a_loss'")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert!(note.starts_with("retracted"), "{note}");
}

#[tokio::test]
async fn a_wrong_stamp_or_id_is_not_where_recording_goes_on() {
    let database = migrated().await;
    let store = PostgresStore::new(database.socket());
    let mut ticks: Vec<Tick> =
        (0..20).map(|n| tick("BTCUSDT", &(1_000 + n).to_string(), n - 100)).collect();
    let true_end = ticks[19].clone();
    // A day ahead, as late as the store takes it, and a bogus id now.
    ticks.push(Tick { received_at: true_end.received_at, ..tick("BTCUSDT", "1025", 86_000) });
    ticks.push(tick("BTCUSDT", "18446744073709551615", -70));
    store.write(&ticks).await.unwrap();
    sqlx::query(
        "INSERT INTO tick_gaps (exchange, symbol, first_id, last_id, from_time, to_time, cause) \
         VALUES ('binance', 'BTCUSDT', '990', '995', now(), now(), 'x'), \
             ('binance', 'BTCUSDT', '993', '997', now(), now(), 'x'), \
             ('binance', 'BTCUSDT', '1020', '18446744073709551614', now(), now(), 'x')",
    )
    .execute(&database.pool)
    .await
    .unwrap();
    let found = last_stored(&database.pool, &[true_end.instrument]).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].trade_id, TradeId::Number(1_019));
    assert_eq!(found[0].exchange_at, true_end.exchange_at);
    assert!(found[0].until <= Timestamp::now());
    assert_eq!(found[0].missing, [IdRange::between(990, 997)]);
}

/// A fetched trade, `second` seconds from now.
fn tick(symbol: &str, id: &str, second: i64) -> Tick {
    let exchange_at =
        Timestamp::from_millis(Timestamp::now().as_millis() + second * 1_000).unwrap();
    let (instrument, trade_id) = (instrument("binance", symbol), TradeId::from_text(id));
    let fetched = Tick { instrument, trade_id, source: Source::Backfill, ..testing::tick(0) };
    Tick { exchange_at, ..fetched.at(Timestamp::now()) }
}

#[tokio::test]
async fn recording_goes_on_at_the_newest_trade_by_time_then_by_number_over_many_days() {
    const DAY: i64 = 86_400;
    let database = migrated().await;
    let store = PostgresStore::new(database.socket());
    let last = tick("BTCUSDT", "1000", -3);
    let mut ticks: Vec<Tick> = (0..100).map(|day| tick("BTCUSDT", "7", -day * DAY - 4)).collect();
    // Of one moment, and 1000 is more than 999.
    ticks.push(Tick { trade_id: TradeId::Number(999), ..last.clone() });
    ticks.push(last.clone());
    let text = tick("ETHUSDT", "20f43950-d8dd-5b31-9112-a178eb6023af", -90 * DAY);
    ticks.push(text.clone());
    ticks.push(tick("SOLUSDT", "1", -5));
    // A hundred days are made in as many writes as their time needs.
    while let Err(StoreError::Days(days)) = store.write(&ticks).await {
        assert!(days.goes_on, "{days}");
    }
    let never = Instrument::intern("binance", &"XRPUSDT".parse().unwrap()).unwrap();
    let elsewhere = Instrument::intern("okx", &"BTCUSDT".parse().unwrap()).unwrap();
    let asked = [never, text.instrument, elsewhere, last.instrument];
    let mut found = last_stored(&database.pool, &asked).await.unwrap();
    found.sort_by_key(|last| last.instrument);
    let expected = [last, text].map(|tick| LastStored {
        instrument: tick.instrument,
        trade_id: tick.trade_id,
        exchange_at: tick.exchange_at,
        until: tick.exchange_at,
        missing: Vec::new(),
        is_carried: false,
    });
    assert_eq!(found, expected);
}

#[tokio::test]
async fn only_a_recorder_that_lived_after_the_last_stored_trade_may_hold_what_follows_it() {
    let database = migrated().await;
    let store = PostgresStore::new(database.socket());
    let at = |symbol: &str, second: i64| {
        let tick = tick(symbol, "1", second);
        Tick { received_at: tick.exchange_at, ..tick }
    };
    // The last sign of life was twelve seconds ago, as of a recorder that was killed seven seconds ago.
    sqlx::query(
        "INSERT INTO feed_sessions (recorder, exchange, feed, connected_at, seen_at, symbols) \
         VALUES ('killed', 'binance', 'binance-1', now() - interval '1 min', now() - interval '12 s', \
             '{BTCUSDT,ETHUSDT}')",
    )
    .execute(&database.pool)
    .await
    .unwrap();
    let (stored, held) = (at("BTCUSDT", -7), at("ETHUSDT", -40));
    let asked = [stored.instrument, held.instrument, at("SOLUSDT", 0).instrument];
    store.write(&[stored.clone(), held.clone(), at("SOLUSDT", -40)]).await.unwrap();
    let carried = async || {
        let mut found = last_stored(&database.pool, &asked).await.unwrap();
        found.sort_by_key(|last| asked.iter().position(|it| *it == last.instrument));
        found.iter().map(|last| last.is_carried).collect::<Vec<_>>()
    };
    assert_eq!(carried().await, [false, true, false]);
    // Somebody stores what is traded now: between two of its signs of life it lives all the same.
    let now = Tick { trade_id: TradeId::Number(2), ..at("BTCUSDT", 4) };
    store.write(&[now]).await.unwrap();
    assert_eq!(carried().await, [true, true, false]);
    sqlx::query("UPDATE feed_sessions SET ended_at = now(), reason = 'stopped'")
        .execute(&database.pool)
        .await
        .unwrap();
    assert_eq!(carried().await, [false, false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_at_the_end_is_waited_for_once_and_not_with_each_note() {
    let nowhere = tempfile::tempdir().unwrap();
    let options = PgConnectOptions::new_without_pgpass().socket(nowhere.path());
    let writing = Writing::start("one", &PgPoolOptions::new().connect_lazy_with(options));
    let journal = writing.journal.clone();
    let connections: Vec<_> = (0..100).map(|n| journal.session(start(&n.to_string()))).collect();
    let begin = Instant::now();
    drop((connections, journal));
    writing.end().await;
    // The clock is the test's own: with each note it would be minutes.
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
}

/// How often frames came that are not kept, and how many are, with their bytes.
async fn quarantined(pool: &PgPool) -> (Option<i64>, i64, i64) {
    sqlx::query_as(
        "SELECT (SELECT count FROM quarantined_frames WHERE hash = ''), count(*), sum(octet_length(frame))::bigint \
         FROM quarantined_frames WHERE hash <> ''",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

fn unreadable(text: &str) -> QuarantinedFrame {
    QuarantinedFrame {
        exchange: "binance",
        frame: text.to_owned(),
        reason: "no trade".repeat(100),
        seen_at: at(0),
    }
}

#[tokio::test]
async fn of_unreadable_frames_so_many_bytes_are_kept_and_the_others_are_counted() {
    let database = migrated().await;
    let writing = Writing::start("one", &database.pool);
    writing.journal.quarantine(unreadable(&"é".repeat(50_000)));
    writing.end().await;
    assert_eq!(quarantined(&database.pool).await, (None, 1, 8_192), "of a long frame its begin");

    // As many as there may be; and as many bytes, which an earlier version kept of fewer frames.
    for filler in [
        "SELECT 'binance', int4send(n), 'a frame', '', 1, now(), now() FROM generate_series(2, 8192) AS n",
        "SELECT 'binance', int4send(n), repeat('x', 1048576), '', 1, now(), now() FROM generate_series(1, 64) AS n",
    ] {
        sqlx::query("DELETE FROM quarantined_frames WHERE hash = '' OR frame LIKE 'a frame%'")
            .execute(&database.pool)
            .await
            .unwrap();
        let sql = format!("INSERT INTO quarantined_frames {filler}");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&database.pool).await.unwrap();
        let before = quarantined(&database.pool).await;
        let writing = Writing::start("one", &database.pool);
        for text in ["new", "newer", "new"] {
            writing.journal.quarantine(unreadable(text));
        }
        writing.journal.quarantine(unreadable(&"é".repeat(50_000)));
        writing.end().await;
        let after = quarantined(&database.pool).await;
        assert_eq!(
            after,
            (Some(3), before.1, before.2),
            "a repeat of what is kept is counted there"
        );
    }
}
