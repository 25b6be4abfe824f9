//! What another table knows better is never passed over: refused trades, gaps that only reach into the time, connections
//! that brought more than is stored, days that were detached; and what nothing speaks against is complete.

use trading_core::domain::Timestamp;
use trading_core::verify::{Kind, Report, Scope, Sessions, Verdict, verify};

use super::{DAY_MICROS, Recorded, run};

const BINANCE: &str = "exchange = 'binance' AND symbol = 'BTCUSDT'";
/// What a table says of the live rows of each exchange, in the sessions of it that have ended.
const COUNT: &str = "UPDATE feed_sessions AS it SET ticks = (SELECT count(*) FROM tick_data AS tick \
    WHERE tick.exchange = it.exchange AND symbol = ANY (symbols) AND received_at BETWEEN connected_at AND ended_at)";

fn counts(report: &Report) -> Vec<(Kind, u64)> {
    report.counts.iter().map(|(kind, count)| (*kind, *count)).collect()
}

async fn look(recorded: &Recorded, from: Option<Timestamp>, to: Timestamp) -> Report {
    let scope = Scope { from, to, ..recorded.scope() };
    verify(&recorded.database.pool, &scope, 2).await.unwrap()
}

/// A refused row of this id and time, received then.
fn refused(id: &str, time: Timestamp, received_at: Timestamp) -> String {
    format!(
        "INSERT INTO rejected_ticks (time, received_at, exchange, symbol, trade_id, side, price, quantity, source, reason, \
             rejected_at) \
         VALUES ('{time}', '{received_at}', 'binance', 'BTCUSDT', '{id}', 'buy', 1, 1, 'live', 'test', '{received_at}')"
    )
}

#[tokio::test]
async fn refused_trades_count_before_the_first_stored_id_and_after_the_last() {
    let recorded = Recorded::new(10).await;
    let (first, last) = (
        recorded.id_at("binance", "BTCUSDT", 0).await,
        recorded.id_at("binance", "BTCUSDT", 1_000).await,
    );
    let end = recorded.end().plus_micros(1_000_000);
    for (id, time) in [(first - 1, recorded.begin), (last + 1, end), (last + 2, end)] {
        recorded.run(refused(&id.to_string(), time, time)).await;
    }
    let report = recorded.verify().await;
    assert_eq!(counts(&report), [(Kind::Rejected, 3)], "{report}");
    assert_eq!((report.symbols[0].missing.rejected, report.symbols[0].complete), (3, false));

    // What is stored in spite of it is no loss; nor is what went with a day that was dropped.
    recorded.run("DELETE FROM rejected_ticks").await;
    recorded.run(refused(&last.to_string(), end, end)).await;
    let long_ago = recorded.begin.plus_micros(-9 * DAY_MICROS);
    recorded.run(refused("1", long_ago, long_ago)).await;
    let report = recorded.verify().await;
    assert!(report.complete, "{report}");
}

#[tokio::test]
async fn a_refused_trade_with_a_time_that_cannot_be_counts_where_it_was_received() {
    let recorded = Recorded::new(10).await;
    let noon = recorded.begin.plus_micros(DAY_MICROS / 2);
    let hour = |hours: i64| noon.plus_micros(hours * 3_600_000_000);
    recorded.run(refused("1", noon.plus_micros(-900 * DAY_MICROS), noon)).await;
    recorded.run(refused("2", noon.plus_micros(900 * DAY_MICROS), noon)).await;
    let report = look(&recorded, Some(hour(-1)), hour(1)).await;
    assert_eq!(counts(&report), [(Kind::Rejected, 2)], "{report}");
    let report = look(&recorded, Some(hour(1)), hour(2)).await;
    assert!(report.complete, "{report}");
    assert_eq!(counts(&recorded.verify().await), [(Kind::Rejected, 2)]);

    recorded.run("DELETE FROM rejected_ticks").await;
    recorded
        .run(format!(
            "CREATE TABLE IF NOT EXISTS rejected_overflow (exchange text, symbol text, reason text, count bigint, \
                 first_time timestamptz, last_time timestamptz, first_seen timestamptz, last_seen timestamptz); \
             INSERT INTO rejected_overflow VALUES ('okx', 'BTCUSDT', 'test', 5000, '1970-01-01', '1970-01-02', '{}', '{}')",
            hour(0), hour(0)
        ))
        .await;
    let report = look(&recorded, Some(hour(-1)), hour(1)).await;
    assert_eq!(counts(&report), [(Kind::Rejected, 5_000)], "{report}");
    assert!(report.to_string().contains("rejected_overflow"), "{report}");
    assert!(look(&recorded, Some(hour(1)), hour(2)).await.complete);
}

#[tokio::test]
async fn a_gap_that_only_reaches_into_the_time_speaks_against_it() {
    let recorded = Recorded::new(10).await;
    let first = recorded.id_at("binance", "BTCUSDT", 0).await;
    let last = recorded.id_at("binance", "BTCUSDT", 1_000).await;
    let at = |hours: i64| recorded.begin.plus_micros(hours * 3_600_000_000);
    let gap = |ids: (u64, u64), from: Timestamp, to: Timestamp| {
        format!(
            "DELETE FROM tick_gaps; \
             INSERT INTO tick_gaps (exchange, symbol, first_id, last_id, from_time, to_time, cause) \
             VALUES ('binance', 'BTCUSDT', '{}', '{}', '{from}', '{to}', 'test')",
            ids.0, ids.1
        )
    };
    // The recorder did not run from a day that was dropped since until a kept one; and a trade stamped in the future.
    for (ids, from, to) in [
        ((1, first - 1), at(-240), at(11)),
        ((last + 1, u64::MAX - 1), at(70), at(240)),
        ((1, u64::MAX), at(-240), at(240)),
    ] {
        recorded.run(gap(ids, from, to)).await;
        let report = recorded.verify().await;
        assert_eq!(counts(&report), [(Kind::OpenGap, 1)], "{report}");
        assert!(!report.symbols[0].complete, "{report}");
    }
    recorded.run(gap((1, first - 1), at(-240), at(11))).await;
    let (touched, after) =
        (look(&recorded, Some(at(9)), at(30)).await, look(&recorded, Some(at(12)), at(30)).await);
    assert_eq!(counts(&touched), [(Kind::OpenGap, 1)], "{touched}");
    assert!(after.complete, "{after}");

    recorded.run(gap((1, first - 1), at(-240), at(-239))).await;
    assert!(recorded.verify().await.complete, "what went with dropped days is no loss");
}

#[tokio::test]
async fn what_came_over_a_connection_and_is_not_stored_is_found_where_no_id_misses_it() {
    let recorded = Recorded::new(10).await;
    recorded.run(COUNT).await;
    let report = recorded.verify().await;
    assert!(report.complete && report.sessions.judged == 3, "{report}");
    assert!(report.to_string().contains("the counts of 3 ended connections"), "{report}");

    // At both ends; and where ids prove nothing, in the middle.
    recorded
        .run(
            "DELETE FROM tick_data WHERE exchange = 'binance' AND time < (SELECT min(time) FROM tick_data) + interval '1 hour'; \
             DELETE FROM tick_data WHERE exchange = 'kraken' AND time > (SELECT max(time) FROM tick_data) - interval '1 hour'; \
             DELETE FROM tick_data WHERE exchange = 'bybit' AND trade_id IN \
                 (SELECT trade_id FROM tick_data WHERE exchange = 'bybit' ORDER BY time OFFSET 900 LIMIT 10)",
        )
        .await;
    let missing: i64 = sqlx::query_scalar(
        "SELECT ((SELECT sum(ticks) FROM feed_sessions) - (SELECT count(*) FROM tick_data))::bigint",
    )
    .fetch_one(&recorded.database.pool)
    .await
    .unwrap();
    let report = recorded.verify().await;
    assert_eq!(
        counts(&report),
        [(Kind::ReceivedNotStored, u64::try_from(missing).unwrap())],
        "{report}"
    );
    assert_eq!(report.findings.len(), 3, "{report}");
    assert!(report.symbols.iter().all(|symbol| !symbol.complete), "{report}");

    // An hour of one symbol only cannot be held against counts of more; it says so.
    let scope = Scope { symbols: vec!["ETHUSD".parse().unwrap()], ..recorded.scope() };
    recorded.run("UPDATE feed_sessions SET symbols = symbols || '{BTCUSDT}'").await;
    let report = verify(&recorded.database.pool, &scope, 2).await.unwrap();
    assert_eq!((report.sessions.judged, report.sessions.not_judged), (0, 1), "{report}");
    assert!(report.to_string().contains("not those of 1 more"), "{report}");
}

#[tokio::test]
async fn a_table_that_was_emptied_while_it_was_recorded_into_is_not_complete() {
    let recorded = Recorded::new(10).await;
    recorded.run(COUNT).await;
    recorded.run("DELETE FROM tick_data WHERE time < (SELECT max(time) FROM tick_data) - interval '20 hours'").await;
    let report = recorded.verify().await;
    assert_eq!(
        report.counts.keys().copied().collect::<Vec<_>>(),
        [Kind::ReceivedNotStored],
        "{report}"
    );
    assert_eq!(report.findings.len(), 3, "{report}");

    // Days that retention dropped are no loss, and their connections are not judged.
    let recorded = Recorded::new(10).await;
    recorded.run(COUNT).await;
    let day = |days: i64| {
        let day = recorded.begin.plus_micros(days * DAY_MICROS).to_string();
        day.chars().take(10).filter(char::is_ascii_digit).collect::<String>()
    };
    recorded.run(format!("DROP TABLE tick_data_{}", day(0))).await;
    let report = recorded.verify().await;
    assert!(report.complete, "{report}");
    assert_eq!((report.sessions.judged, report.sessions.not_judged), (0, 3));

    // A detached one is there, and nobody sees it.
    recorded.run(format!("ALTER TABLE tick_data DETACH PARTITION tick_data_{}", day(1))).await;
    let report = recorded.verify().await;
    assert_eq!(counts(&report), [(Kind::Detached, 1)], "{report}");
    let text = report.to_string();
    assert!(text.contains(&format!("tick_data_{}", day(1))) && text.contains("ATTACH"), "{text}");
    let report =
        look(&recorded, Some(recorded.begin.plus_micros(2 * DAY_MICROS)), recorded.scope().to)
            .await;
    assert!(report.complete, "nothing of this time is in it: {report}");
}

#[tokio::test]
async fn several_connections_and_recorders_that_share_their_trades_are_no_loss() {
    let recorded = Recorded::new(10).await;
    let (begin, end) = (recorded.begin, recorded.end().plus_micros(1_000_000));
    let noon = recorded.begin.plus_micros(DAY_MICROS / 2);
    // A recorder with two connections, of which each brought a part first; and a second recorder that saw everything.
    let session = |recorder: &str, feed: &str, from: Timestamp, to: Timestamp, ticks: &str| {
        format!(
            "INSERT INTO feed_sessions (recorder, exchange, feed, connected_at, ended_at, seen_at, reason, symbols, ticks, \
                 duplicates) SELECT '{recorder}', 'binance', '{feed}', '{from}', '{to}', now(), 'stopped', '{{BTCUSDT}}', \
                 {ticks} FROM tick_data WHERE {BINANCE}"
        )
    };
    recorded.run("DELETE FROM feed_sessions WHERE exchange = 'binance'").await;
    recorded.run(session("one", "a", begin, end, "count(*), count(*) / 3")).await;
    recorded
        .run(session("one", "b", begin.plus_micros(1), end, "count(*), count(*) - count(*) / 3"))
        .await;
    recorded.run(session("two", "a", begin, end, "count(*) + 50, 50")).await;
    // One that was killed has no count, and one that ended a moment ago has what is not judged yet.
    recorded
        .run(format!(
            "INSERT INTO feed_sessions (recorder, exchange, feed, connected_at, ended_at, seen_at, reason, symbols) \
             VALUES ('three', 'binance', 'a', '{begin}', now(), '{noon}', 'its recorder ended without a word', '{{BTCUSDT}}')"
        ))
        .await;
    let report = recorded.verify().await;
    assert!(report.complete, "{report}");
    let Sessions { judged, not_judged, not_counted } = report.sessions;
    assert_eq!((judged, not_judged, not_counted), (3, 0, 1), "{report}");

    // A part of it was fetched from the exchange's history, after the live one had been lost.
    recorded
        .run(format!(
            "UPDATE tick_data SET source = 'backfill', received_at = now() WHERE {BINANCE} AND time < '{noon}'"
        ))
        .await;
    let report = recorded.verify().await;
    assert!(report.complete, "{report}");
    recorded.run(format!("DELETE FROM tick_data WHERE {BINANCE} AND time < '{noon}'")).await;
    let report = recorded.verify().await;
    assert_eq!(
        report.counts.keys().copied().collect::<Vec<_>>(),
        [Kind::ReceivedNotStored],
        "{report}"
    );
}

/// A trade a second at Bybit over two connections, of which the first ended and the second began so many milliseconds
/// after the beginning; three trades of the time between them are not stored.
async fn bybit(ended: i64, began: i64) -> (Recorded, Timestamp) {
    let recorded = Recorded::new(10).await;
    let noon = recorded.begin.plus_micros(DAY_MICROS / 2);
    let at = |millis: i64| noon.plus_micros(millis * 1_000);
    run(
        &recorded.database.pool,
        format!(
            "TRUNCATE tick_data, feed_sessions; \
             INSERT INTO tick_data SELECT '{noon}'::timestamptz + number * interval '1 s', \
                 '{noon}'::timestamptz + number * interval '1 s' + interval '6 ms', 'bybit', 'BTCUSDT', 'trade-' || number, \
                 'buy', 1, 1, 'live' FROM generate_series(0, 100) AS number \
                 WHERE number * 1000 <= {ended} OR number * 1000 >= {began}; \
             INSERT INTO feed_sessions (recorder, exchange, feed, connected_at, ended_at, seen_at, reason, symbols) VALUES \
                 ('one', 'bybit', 'a', '{}', '{}', '{}', 'closed', '{{BTCUSDT}}'), \
                 ('one', 'bybit', 'a', '{}', '{}', now(), 'stopped', '{{BTCUSDT}}')",
            at(-500), at(ended), at(ended), at(began), at(100_500)
        ),
    )
    .await;
    (recorded, noon)
}

fn time_gap(from: Timestamp, to: Timestamp) -> String {
    format!(
        "DELETE FROM tick_gaps; \
         INSERT INTO tick_gaps (exchange, symbol, from_time, to_time, cause, status, closed_at) \
         VALUES ('bybit', 'BTCUSDT', '{from}', '{to}', 'no connection', 'repaired', now())"
    )
}

#[tokio::test]
async fn a_time_away_that_is_listed_elsewhere_is_not_listed() {
    let (recorded, noon) = bybit(43_154, 46_525).await;
    let at = |millis: i64| noon.plus_micros(millis * 1_000);
    // From the return to a stamp of the future, as a false stamp makes it; and some seconds beside it.
    for (from, to) in [(47_000, 129_000), (30_000, 42_500), (44_500, 45_000)] {
        recorded.run(time_gap(at(from), at(to))).await;
        let report = recorded.verify().await;
        assert!(!report.complete, "{from} to {to}: {report}");
        assert!(report.counts.keys().all(|kind| *kind == Kind::UnlistedDisconnect), "{report}");
    }
    // The last trade before it bears a stamp of the future itself, nearer than the return or further.
    for (stamp, from, to) in [(2, 45_000, 47_000), (90, 47_000, 133_000)] {
        recorded
            .run(format!(
                "UPDATE tick_data SET time = received_at + interval '{stamp} s' WHERE trade_id = 'trade-43'"
            ))
            .await;
        recorded.run(time_gap(at(from), at(to))).await;
        let report = recorded.verify().await;
        assert!(!report.complete, "{stamp}: {report}");
    }
    recorded
        .run(
            "UPDATE tick_data SET time = received_at - interval '6 ms' WHERE trade_id = 'trade-43'",
        )
        .await;
    recorded.run(time_gap(at(43_000), at(47_000))).await;
    let report = recorded.verify().await;
    assert!(report.complete, "{report}");
    // The exchange's clock may be hours away from the recorder's.
    recorded
        .run(
            "UPDATE tick_data SET time = time + interval '3 h'; \
             UPDATE tick_gaps SET from_time = from_time + interval '3 h', to_time = to_time + interval '3 h'; \
             UPDATE feed_sessions SET ended_at = ended_at + interval '4 h' WHERE connected_at = (SELECT max(connected_at) FROM feed_sessions)",
        )
        .await;
    let report = recorded.verify().await;
    assert!(report.complete, "{report}");
}

#[tokio::test]
async fn a_connection_is_believed_no_longer_than_the_server_saw_it_live() {
    // Its recorder's clock had been put ahead: the end that it noted lies an hour after it was last seen.
    let (recorded, noon) = bybit(43_154, 46_525).await;
    recorded
        .run(
            "UPDATE feed_sessions SET ended_at = ended_at + interval '1 h' \
             WHERE connected_at = (SELECT min(connected_at) FROM feed_sessions)",
        )
        .await;
    let report = recorded.verify().await;
    assert_eq!(counts(&report), [(Kind::UnlistedDisconnect, 1)], "{report}");
    let at = |millis: i64| noon.plus_micros(millis * 1_000);
    assert_eq!(
        (report.findings[0].from, report.findings[0].to),
        (Some(at(43_000)), Some(at(47_000)))
    );
    // And one that died without a word is closed when somebody notices.
    recorded
        .run(
            "UPDATE feed_sessions SET ended_at = now() + interval '9 h', reason = 'its recorder ended without a word' \
             WHERE connected_at = (SELECT min(connected_at) FROM feed_sessions)",
        )
        .await;
    assert_eq!(counts(&recorded.verify().await), [(Kind::UnlistedDisconnect, 1)]);
}

#[tokio::test]
async fn rows_that_are_gone_of_two_connections_soon_after_each_other_are_found() {
    let (recorded, noon) = bybit(43_154, 46_525).await;
    recorded.run(time_gap(noon.plus_micros(43_000_000), noon.plus_micros(47_000_000))).await;
    recorded.run(COUNT).await;
    assert!(recorded.verify().await.complete);
    recorded.run("DELETE FROM tick_data WHERE trade_id IN ('trade-0', 'trade-1')").await;
    let report = recorded.verify().await;
    assert_eq!(counts(&report), [(Kind::ReceivedNotStored, 2)], "{report}");
    assert_eq!(report.findings.len(), 1, "{report}");
}

#[tokio::test]
async fn what_was_only_fetched_proves_nothing_where_ids_prove_nothing() {
    let (recorded, noon) = bybit(43_154, 46_525).await;
    recorded.run("UPDATE tick_data SET source = 'backfill'; TRUNCATE feed_sessions").await;
    let report = recorded.verify().await;
    assert_eq!(counts(&report), [(Kind::UnlistedDisconnect, 1)], "{report}");
    let known = (report.known_from, report.known_to);
    assert_eq!(known, (Some(noon), Some(noon.plus_micros(100_000_000))));
    // It was listed, and filled.
    recorded.run(time_gap(noon, noon.plus_micros(100_000_000))).await;
    assert!(recorded.verify().await.complete);
}

#[tokio::test]
async fn ids_that_begin_anew_are_named_and_no_good_row_is_blamed() {
    let recorded = Recorded::new(10).await;
    let noon = recorded.begin.plus_micros(DAY_MICROS / 2);
    recorded
        .run(format!(
            "TRUNCATE tick_data, feed_sessions; \
             INSERT INTO tick_data SELECT '{noon}'::timestamptz + number * interval '1 s', now(), 'binance', 'BTCUSDT', \
                 (CASE WHEN number < 11 THEN 1000 + number ELSE 49 + number END)::text, 'buy', 1, 1, 'backfill' \
             FROM generate_series(0, 92) AS number"
        ))
        .await;
    let report = recorded.verify().await;
    assert_eq!(counts(&report), [(Kind::CountedAnew, 1)], "{report}");
    let finding = &report.findings[0];
    let ids = (finding.first_id.as_deref(), finding.last_id.as_deref());
    assert_eq!(ids, (Some("1010"), Some("60")), "{report}");
    // Within each count ids prove what they always do.
    recorded.run("DELETE FROM tick_data WHERE trade_id IN ('100', '101', '1005')").await;
    let report = recorded.verify().await;
    assert_eq!(counts(&report), [(Kind::UnlistedHole, 3), (Kind::CountedAnew, 1)], "{report}");
}

#[tokio::test]
async fn an_empty_table_with_gaps_or_refused_trades_is_not_complete_and_not_just_empty() {
    let recorded = Recorded::new(10).await;
    recorded.run("TRUNCATE tick_data").await;
    assert_eq!(recorded.verify().await.verdict, Verdict::NothingToJudge);
    recorded.run(COUNT.replace("tick_data AS tick", "generate_series(1, 9) AS tick (exchange)").replace(
        "WHERE tick.exchange = it.exchange AND symbol = ANY (symbols) AND received_at BETWEEN connected_at AND ended_at", "",
    ))
    .await;
    let report = recorded.verify().await;
    assert_eq!(report.verdict, Verdict::NotComplete, "{report}");
    assert_eq!(
        counts(&report),
        [(Kind::NothingStored, 1), (Kind::ReceivedNotStored, 27)],
        "{report}"
    );
}
