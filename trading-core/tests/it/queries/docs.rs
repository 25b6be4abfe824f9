//! Every query of README.md and docs/*.md is run as it is written, and reads no day in vain.

use std::fmt::Write as _;

use chrono::Utc;

use super::text::{filled, queries};
use super::{history, look};
use crate::support::page::pages;
use crate::support::postgres::migrated;

/// Days of history that the documents' queries meet.
const DAYS: i32 = 120;
/// No query of theirs asks for what is older.
const OLDEST: i32 = -90;
/// How a comment before a block begins that says why its queries are not held to this.
const READS_EVERYTHING: &str = "reads everything, because ";
const NOT_RUN: &str = "not run, because ";

#[tokio::test]
async fn every_query_of_the_documents_runs_and_reads_no_day_in_vain() {
    let database = migrated().await;
    history(&database.pool, DAYS).await;
    let (mut problems, mut number) = (String::new(), 0);
    for page in pages() {
        for query in queries(&page) {
            let place = page.at(query.line);
            let reason = query.exempt.as_deref();
            if let Some(reason) = reason {
                eprintln!("{place}: {reason}: {}", query.sql);
            }
            if reason.is_some_and(|it| it.starts_with(NOT_RUN)) {
                continue;
            }
            number += 1;
            let looked = look(&database.pool, &filled(&query.sql, Utc::now().date_naive())).await;
            let old: Vec<i32> = looked.read.range(..OLDEST).copied().collect();
            let problem = match (looked.error, reason) {
                (Some(error), _) => format!("fails: {error}"),
                (None, Some(reason)) if !reason.starts_with(READS_EVERYTHING) => format!(
                    "the comment before it begins neither with {READS_EVERYTHING:?} nor with {NOT_RUN:?}"
                ),
                (None, Some(_)) if old.is_empty() => {
                    "does not read everything: take the comment before it away".to_owned()
                }
                (None, None) if !old.is_empty() => format!(
                    "reads {} days of more than {} days ago: give it a range of time, or say before its block why not",
                    old.len(),
                    -OLDEST
                ),
                _ => continue,
            };
            writeln!(problems, "{place}: {problem}:\n{}\n", query.sql).unwrap();
        }
    }
    assert!(number >= 10, "only {number} queries were found");
    assert!(problems.is_empty(), "{problems}");
}

#[tokio::test]
async fn a_day_that_is_read_in_vain_is_noticed() {
    let database = migrated().await;
    history(&database.pool, DAYS).await;
    for sql in [
        "SELECT count(*) FROM tick_data",
        "SELECT count(*) FROM tick_data WHERE date_trunc('minute', time) > now() - interval '1 hour'",
        "SELECT FROM tick_data WHERE exchange = 'binance' AND symbol = 'BTCUSDT' AND trade_id = '1'",
        "SELECT FROM candles('binance', 'BTCUSDT', '-infinity')",
    ] {
        let looked = look(&database.pool, sql).await;
        assert!(looked.error.is_none() && looked.read.first() == Some(&-DAYS), "{sql}: {looked:?}");
    }
}
