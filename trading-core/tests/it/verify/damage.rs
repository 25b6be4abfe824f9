//! What is done to a complete table on purpose is found, named and counted, and nothing else is.

use std::collections::BTreeMap;

use trading_core::domain::Timestamp;
use trading_core::verify::{Kind, Report, Scope, verify};

use super::{DAY_MICROS, Recorded};

const BINANCE: &str = "exchange = 'binance' AND symbol = 'BTCUSDT'";
const BYBIT: &str = "exchange = 'bybit' AND symbol = 'BTCUSDT'";

/// Everything found: how much of each kind.
fn counts(report: &Report) -> Vec<(Kind, u64)> {
    report.counts.iter().map(|(kind, count)| (*kind, *count)).collect()
}

/// The ids that findings of one kind name.
fn named(report: &Report, kind: Kind) -> Vec<(String, String)> {
    let of_kind = report.findings.iter().filter(|finding| finding.kind == kind);
    of_kind.map(|it| (it.first_id.clone().unwrap(), it.last_id.clone().unwrap())).collect()
}

fn range(first: u64, last: u64) -> (String, String) {
    (first.to_string(), last.to_string())
}

fn gap(ids: (u64, u64), status: &str, at: &Recorded) -> String {
    let (first, last) = ids;
    let closed = if status == "open" { "NULL" } else { "now()" };
    let (from, to) = (at.begin, at.end());
    format!(
        "INSERT INTO tick_gaps (exchange, symbol, first_id, last_id, from_time, to_time, cause, status, closed_at) \
         VALUES ('binance', 'BTCUSDT', '{first}', '{last}', '{from}', '{to}', 'test', '{status}', {closed})"
    )
}

#[tokio::test]
async fn a_table_of_the_markets_own_trades_is_complete() {
    let recorded = Recorded::new(10).await;
    let report = recorded.verify().await;
    assert!(report.complete, "{report}");
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM tick_data")
        .fetch_one(&recorded.database.pool)
        .await
        .unwrap();
    assert_eq!((i64::try_from(report.rows).unwrap(), report.days), (rows, 3), "{report}");
    let binance = &report.symbols[0];
    assert_eq!((binance.exchange.as_str(), binance.ids), ("binance", "consecutive"));
    assert_eq!(binance.last_id.unwrap() - binance.first_id.unwrap() + 1, binance.rows);
    assert!(report.to_string().contains("\nCOMPLETE: "), "{report}");
}

#[tokio::test]
async fn a_table_that_is_empty_or_was_asked_for_something_else_proves_nothing() {
    let recorded = Recorded::new(10).await;
    let mut scope = recorded.scope();
    scope.exchanges = vec!["okx".to_owned()];
    let report = verify(&recorded.database.pool, &scope, 2).await.unwrap();
    assert_eq!(counts(&report), [(Kind::NothingStored, 1)]);
    assert!(!report.complete);
}

#[tokio::test]
async fn rows_that_were_deleted_are_named_by_their_ids() {
    let recorded = Recorded::new(10).await;
    let middle = recorded.id_at("binance", "BTCUSDT", 400).await;
    recorded
        .run(format!(
            "DELETE FROM tick_data WHERE {BINANCE} AND trade_id::bigint BETWEEN {middle} AND {middle} + 4"
        ))
        .await;
    // At the edge of a partition: the last two of the first day, the first two of the second.
    let midnight = recorded.begin.as_micros() + DAY_MICROS;
    let midnight = Timestamp::from_micros(midnight).unwrap();
    let last = recorded.market.latest("kraken", &"ETHUSD".parse().unwrap(), midnight).unwrap();
    recorded
        .run(format!(
            "DELETE FROM tick_data WHERE exchange = 'kraken' AND trade_id::bigint BETWEEN {last} - 1 AND {last} + 2"
        ))
        .await;
    let report = recorded.verify().await;
    assert_eq!(counts(&report), [(Kind::UnlistedHole, 9)], "{report}");
    let expected = [range(middle, middle + 4), range(last - 1, last + 2)];
    assert_eq!(named(&report, Kind::UnlistedHole), expected);
    let text = report.to_string();
    assert!(text.contains(&format!("ids {middle} to {}", middle + 4)), "{text}");
    assert!(text.contains("; 9 trades missing and not listed;"), "{text}");
}

#[tokio::test]
async fn a_day_that_was_dropped_is_missing_of_every_symbol_that_counts() {
    let recorded = Recorded::new(10).await;
    let day = Timestamp::from_micros(recorded.begin.as_micros() + DAY_MICROS).unwrap();
    let name = day.to_string().chars().take(10).filter(char::is_ascii_digit).collect::<String>();
    let held: Vec<(String, i64)> = sqlx::query_as(
        "SELECT exchange, count(*) FROM tick_data WHERE time >= $1 AND time < $1 + interval '1 day' \
         GROUP BY 1 ORDER BY 1",
    )
    .bind(day.to_datetime())
    .fetch_all(&recorded.database.pool)
    .await
    .unwrap();
    recorded.run(format!("DROP TABLE tick_data_{name}")).await;
    let report = recorded.verify().await;
    let missing: Vec<(String, i64)> = report
        .symbols
        .iter()
        .filter(|symbol| symbol.ids == "consecutive")
        .map(|symbol| (symbol.exchange.clone(), symbol.missing.unlisted.try_into().unwrap()))
        .collect();
    let counting: Vec<_> = held.into_iter().filter(|(exchange, _)| exchange != "bybit").collect();
    assert_eq!(missing, counting, "{report}");
    assert_eq!(report.findings.len(), 2, "{report}");
}

#[tokio::test]
async fn a_row_that_is_there_twice_is_named_whether_ids_are_counted_or_not() {
    let recorded = Recorded::new(10).await;
    let mut expected = Vec::new();
    for (condition, exchange, moved) in [
        (BINANCE, "binance", "1 microsecond"),
        (BINANCE, "binance", "1 day"),
        (BYBIT, "bybit", "1 day"),
    ] {
        let id = recorded.id_at(exchange, "BTCUSDT", 300 + i64::from(moved == "1 day")).await;
        expected.push(range(id, id));
        recorded
            .run(format!(
                "INSERT INTO tick_data SELECT time + interval '{moved}', received_at, exchange, symbol, trade_id, side, \
                 price, quantity, source FROM tick_data WHERE {condition} AND trade_id = '{id}'"
            ))
            .await;
    }
    let report = recorded.verify().await;
    assert_eq!(counts(&report), [(Kind::Duplicate, 3)], "{report}");
    assert_eq!(named(&report, Kind::Duplicate), expected);
    let doubled: Vec<u64> = report.symbols.iter().map(|symbol| symbol.duplicates).collect();
    assert_eq!(doubled, [2, 1, 0], "{report}");
}

#[tokio::test]
async fn an_altered_id_is_a_missing_trade_and_a_row_of_another_time() {
    let recorded = Recorded::new(10).await;
    let far = recorded.id_at("binance", "BTCUSDT", 200).await;
    let (taker, taken) = (
        recorded.id_at("kraken", "ETHUSD", 250).await,
        recorded.id_at("kraken", "ETHUSD", 750).await,
    );
    recorded
        .run(format!(
            "UPDATE tick_data SET trade_id = '900000000000' WHERE {BINANCE} AND trade_id = '{far}'; \
             DELETE FROM tick_data WHERE exchange = 'kraken' AND trade_id = '{taken}'; \
             UPDATE tick_data SET trade_id = '{taken}' WHERE exchange = 'kraken' AND trade_id = '{taker}'"
        ))
        .await;
    let report = recorded.verify().await;
    assert_eq!(counts(&report), [(Kind::UnlistedHole, 3), (Kind::AgainstTime, 2)], "{report}");
    let holes = [range(far, far), range(taker, taker), range(taken, taken)];
    assert_eq!(named(&report, Kind::UnlistedHole), holes);
    let strays = [range(900_000_000_000, 900_000_000_000), range(taken, taken)];
    assert_eq!(named(&report, Kind::AgainstTime), strays);
}

#[tokio::test]
async fn a_doubled_row_whose_id_was_altered_does_not_belong_there_twice() {
    let recorded = Recorded::new(10).await;
    let id = recorded.id_at("binance", "BTCUSDT", 600).await;
    recorded
        .run(format!(
            "INSERT INTO tick_data SELECT time + interval '1 microsecond', received_at, exchange, symbol, trade_id, side, \
                 price, quantity, source FROM tick_data WHERE {BINANCE} AND trade_id = '{id}'; \
             UPDATE tick_data SET trade_id = '900000000000' WHERE {BINANCE} AND trade_id = '{id}'"
        ))
        .await;
    let report = recorded.verify().await;
    assert_eq!(counts(&report), [(Kind::UnlistedHole, 1), (Kind::AgainstTime, 2)], "{report}");
    assert_eq!(named(&report, Kind::UnlistedHole), [range(id, id)]);
}

#[tokio::test]
async fn an_id_that_is_no_number_is_named_and_its_trade_missing() {
    let recorded = Recorded::new(10).await;
    let id = recorded.id_at("binance", "BTCUSDT", 500).await;
    for altered in
        ["x".to_owned(), format!("0{}", id + 1), "99999999999999999999".to_owned(), "-7".to_owned()]
            .into_iter()
            .enumerate()
            .map(|(at, text)| {
                format!(
                    "UPDATE tick_data SET trade_id = '{text}' WHERE {BINANCE} AND trade_id = '{}'",
                    id + u64::try_from(at).unwrap()
                )
            })
    {
        recorded.run(altered).await;
    }
    let report = recorded.verify().await;
    assert_eq!(counts(&report), [(Kind::UnlistedHole, 4), (Kind::OddId, 4)], "{report}");
    assert_eq!(named(&report, Kind::UnlistedHole), [range(id, id + 3)]);
    let odd: Vec<String> =
        named(&report, Kind::OddId).into_iter().map(|(first, _)| first).collect();
    let written = [
        "x".to_owned(),
        format!("0{}", id + 1),
        "99999999999999999999".to_owned(),
        "-7".to_owned(),
    ];
    assert_eq!(odd, written);
}

#[tokio::test]
async fn a_hole_is_told_by_what_is_listed_of_it_and_what_was_never_issued_is_no_loss() {
    let recorded = Recorded::new(10).await;
    let id = recorded.id_at("binance", "BTCUSDT", 500).await;
    recorded
        .run(format!(
            "DELETE FROM tick_data WHERE {BINANCE} AND trade_id::bigint BETWEEN {id} AND {id} + 9"
        ))
        .await;
    recorded.run(gap((id, id + 9), "not_a_loss", &recorded)).await;
    let report = recorded.verify().await;
    assert!(report.complete, "{report}");
    assert_eq!(report.symbols[0].missing.not_a_loss, 10);

    // Only the first seven of them, in two rows; the next two are lost for good, one is not listed.
    recorded.run("DELETE FROM tick_gaps").await;
    recorded.run(gap((id, id + 3), "not_a_loss", &recorded)).await;
    recorded.run(gap((id + 4, id + 6), "open", &recorded)).await;
    recorded.run(gap((id + 7, id + 8), "unrecoverable", &recorded)).await;
    let report = recorded.verify().await;
    let expected = [(Kind::UnlistedHole, 1), (Kind::OpenGap, 1), (Kind::UnrecoverableGap, 1)];
    assert_eq!(counts(&report), expected, "{report}");
    assert_eq!(named(&report, Kind::UnlistedHole), [range(id + 9, id + 9)]);
    let missing = report.symbols[0].missing;
    let by_status = (missing.not_a_loss, missing.open, missing.unrecoverable, missing.unlisted);
    assert_eq!((by_status, missing.lost()), ((4, 3, 2, 1), 6));
}

#[tokio::test]
async fn a_row_of_tick_gaps_that_is_not_true_is_named() {
    let recorded = Recorded::new(10).await;
    let id = recorded.id_at("binance", "BTCUSDT", 500).await;
    recorded.run(gap((id - 50, id - 40), "repaired", &recorded)).await;
    recorded.run(gap((id - 30, id - 20), "open", &recorded)).await;
    recorded.run(gap((id, id + 9), "repaired", &recorded)).await;
    recorded
        .run(format!("DELETE FROM tick_data WHERE {BINANCE} AND trade_id = '{}'", id + 3))
        .await;
    let report = recorded.verify().await;
    let expected = [(Kind::UntrueRepair, 1), (Kind::StoredOpenGap, 1)];
    assert_eq!(counts(&report), expected, "{report}");
    assert_eq!(named(&report, Kind::UntrueRepair), [range(id, id + 9)]);
    assert_eq!(named(&report, Kind::StoredOpenGap), [range(id - 30, id - 20)]);
    assert_eq!(report.symbols[0].missing.repaired, 1);
}

#[tokio::test]
async fn what_the_table_refused_is_missing_and_its_place_is_known() {
    let recorded = Recorded::new(10).await;
    let id = recorded.id_at("binance", "BTCUSDT", 500).await;
    recorded
        .run(format!(
            "WITH gone AS (DELETE FROM tick_data WHERE {BINANCE} AND trade_id::bigint IN ({id}, {id} + 1) RETURNING *) \
             INSERT INTO rejected_ticks (time, received_at, exchange, symbol, trade_id, side, price, quantity, source, reason) \
             SELECT time, received_at, exchange, symbol, trade_id, side, price, quantity, source, 'test' FROM gone \
             WHERE trade_id = '{id}'"
        ))
        .await;
    let report = recorded.verify().await;
    assert_eq!(counts(&report), [(Kind::UnlistedHole, 1), (Kind::Rejected, 1)], "{report}");
    assert_eq!(named(&report, Kind::UnlistedHole), [range(id + 1, id + 1)]);
    assert_eq!((report.symbols[0].rejected, report.symbols[0].missing.rejected), (1, 1));
}

#[tokio::test]
async fn live_rows_outside_every_session_are_counted_and_others_need_none() {
    let recorded = Recorded::new(10).await;
    let noon = Timestamp::from_micros(recorded.begin.as_micros() + DAY_MICROS / 2).unwrap();
    // From noon on nobody was connected to Kraken, and at Binance the connection did not carry the symbol.
    recorded
        .run(format!(
            "UPDATE feed_sessions SET ended_at = '{noon}' WHERE exchange = 'kraken'; \
             UPDATE feed_sessions SET symbols = '{{ETHUSDT}}' WHERE exchange = 'binance'"
        ))
        .await;
    let outside: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM tick_data WHERE exchange = 'binance' OR (exchange = 'kraken' AND received_at > $1)",
    )
    .bind(noon.to_datetime())
    .fetch_one(&recorded.database.pool)
    .await
    .unwrap();
    let report = recorded.verify().await;
    let outside = u64::try_from(outside).unwrap();
    assert_eq!(counts(&report), [(Kind::OutOfSession, outside)], "{report}");

    recorded.run("UPDATE tick_data SET source = 'backfill' WHERE exchange = 'binance'").await;
    recorded
        .run("UPDATE feed_sessions SET ended_at = NULL, reason = NULL WHERE exchange = 'kraken'")
        .await;
    let report = recorded.verify().await;
    assert!(report.complete, "a session that stands covers what comes: {report}");
    assert_eq!(report.open_sessions, 1);
}

#[tokio::test]
async fn where_ids_prove_nothing_each_time_without_a_connection_must_be_listed() {
    let recorded = Recorded::new(10).await;
    let (away, back) = (DAY_MICROS / 2, DAY_MICROS / 2 + 600_000_000);
    let at = |micros: i64| Timestamp::from_micros(recorded.begin.as_micros() + micros).unwrap();
    recorded
        .run(format!(
            "UPDATE feed_sessions SET ended_at = '{}' WHERE exchange = 'bybit'; \
             INSERT INTO feed_sessions (recorder, exchange, feed, connected_at, seen_at, symbols) \
             VALUES ('test', 'bybit', 'bybit-1', '{}', now(), '{{BTCUSDT}}'); \
             DELETE FROM tick_data WHERE {BYBIT} AND received_at > '{}' AND received_at < '{}'",
            at(away),
            at(back),
            at(away),
            at(back)
        ))
        .await;
    let report = recorded.verify().await;
    assert_eq!(counts(&report), [(Kind::UnlistedDisconnect, 1)], "{report}");
    for (status, found) in [
        ("open", vec![(Kind::OpenGap, 1)]),
        ("unrecoverable", vec![(Kind::UnrecoverableGap, 1)]),
        ("repaired", vec![]),
    ] {
        let closed = if status == "open" { "NULL" } else { "now()" };
        recorded
            .run(format!(
                "DELETE FROM tick_gaps; \
                 INSERT INTO tick_gaps (exchange, symbol, from_time, to_time, cause, status, closed_at) \
                 VALUES ('bybit', 'BTCUSDT', '{}', '{}', 'no connection', '{status}', {closed})",
                at(away - 1_000_000), at(back + 1_000_000)
            ))
            .await;
        assert_eq!(counts(&recorded.verify().await), found, "{status}");
    }
}

#[tokio::test]
async fn values_that_cannot_be_and_frames_that_were_not_read_are_found() {
    let recorded = Recorded::new(10).await;
    let id = recorded.id_at("kraken", "ETHUSD", 500).await;
    recorded
        .run(format!(
            "UPDATE tick_data SET price = 'NaN' WHERE exchange = 'kraken' AND trade_id = '{id}'; \
             UPDATE tick_data SET received_at = 'infinity' WHERE exchange = 'kraken' AND trade_id = '{}'; \
             INSERT INTO quarantined_frames (exchange, hash, frame, reason, count, first_seen, last_seen) \
             SELECT name, 'x', '?', 'test', 3, '{}', '{}' FROM unnest(ARRAY['bybit', 'kraken']) AS name",
            id + 1, recorded.begin, recorded.begin
        ))
        .await;
    let report = recorded.verify().await;
    assert_eq!(counts(&report), [(Kind::OutOfDomain, 2), (Kind::UnreadFrames, 3)], "{report}");
    assert_eq!(named(&report, Kind::OutOfDomain), [range(id, id), range(id + 1, id + 1)]);
    assert_eq!(report.quarantined.len(), 2, "Kraken's ids prove that nothing was in its frames");
}

#[tokio::test]
async fn a_window_judges_what_lies_in_it() {
    let recorded = Recorded::new(10).await;
    let id = recorded.id_at("binance", "BTCUSDT", 100).await;
    recorded.run(format!("DELETE FROM tick_data WHERE {BINANCE} AND trade_id = '{id}'")).await;
    let at = |part: i64| {
        Timestamp::from_micros(recorded.begin.as_micros() + part * DAY_MICROS / 2).unwrap()
    };
    let look = async |from, to| {
        let scope = Scope {
            from: Some(from),
            to,
            symbols: vec!["BTC-USDT".parse().unwrap()],
            ..recorded.scope()
        };
        verify(&recorded.database.pool, &scope, 2).await.unwrap()
    };
    let (first, rest) = (look(at(0), at(1)).await, look(at(1), at(5)).await);
    assert_eq!(counts(&first), [(Kind::UnlistedHole, 1)], "{first}");
    assert!(rest.complete, "{rest}");
    assert_eq!((first.days, rest.days), (1, 3));
    let symbols: BTreeMap<&str, u64> =
        rest.symbols.iter().map(|it| (it.exchange.as_str(), it.rows)).collect();
    assert_eq!(symbols.keys().copied().collect::<Vec<_>>(), ["binance", "bybit"]);
}
