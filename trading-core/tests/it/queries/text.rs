//! Finds the SQL in Markdown.

use std::collections::BTreeSet;
use std::path::Path;

use chrono::{Days, NaiveDate};

use crate::support::page::Page;

/// A statement of the docs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    /// The line in its file on which its block begins.
    pub(super) line: usize,
    /// The statement, as psql would send it.
    pub(super) sql: String,
    /// What the comment before its block says of it.
    pub(super) exempt: Option<String>,
}

/// Every statement of the `sql` blocks, and of psql's `-c` in the `sh` blocks.
pub(super) fn queries(page: &Page) -> Vec<Query> {
    let mut found = Vec::new();
    for block in page.blocks() {
        let statements = match block.language.as_str() {
            "sql" => statements(&block.text()),
            "sh" | "bash" | "console" => {
                commands(&block.text()).iter().flat_map(|sql| statements(sql)).collect()
            }
            _ => Vec::new(),
        };
        let exempt =
            block.before.strip_prefix("<!-- query: ").and_then(|it| it.strip_suffix(" -->"));
        found.extend(statements.into_iter().map(|sql| Query {
            line: block.line,
            sql,
            exempt: exempt.map(str::to_owned),
        }));
    }
    found
}

/// What psql is given by `-c` in a shell script.
fn commands(script: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = script;
    while let Some((before, after)) = rest.split_once(" -c ") {
        rest = after;
        let line = before.rsplit('\n').next().unwrap_or(before);
        let Some(quote) = after.chars().next().filter(|it| matches!(it, '"' | '\'')) else {
            continue;
        };
        if !line.contains("psql") {
            continue;
        }
        let mut sql = String::new();
        let mut letters = after.chars().skip(1);
        while let Some(letter) = letters.next() {
            match letter {
                _ if letter == quote => break,
                '\\' if quote == '"' => match letters.next() {
                    Some(escaped @ ('"' | '\\' | '$' | '`')) => sql.push(escaped),
                    Some(other) => sql.extend(['\\', other]),
                    None => {}
                },
                _ => sql.push(letter),
            }
        }
        found.push(sql);
    }
    found
}

/// The statements of a script of psql: those of SQL, and what `\copy` asks.
fn statements(script: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut current = String::new();
    let mut quote: Option<char> = None;
    for line in script.lines() {
        if current.trim().is_empty()
            && let Some(command) = line.trim_start().strip_prefix('\\')
        {
            found.extend(copied(command));
            continue;
        }
        let mut letters = line.chars().peekable();
        while let Some(letter) = letters.next() {
            match (quote, letter) {
                (None, '-') if letters.peek() == Some(&'-') => break,
                (None, ';') => found.push(std::mem::take(&mut current)),
                (None, '\'' | '"') => quote = Some(letter),
                (Some(open), _) if open == letter => quote = None,
                _ => {}
            }
            if !(quote.is_none() && letter == ';') {
                current.push(letter);
            }
        }
        current.push('\n');
    }
    found.push(current);
    let mut found: Vec<String> = found.iter().map(|sql| sql.trim().to_owned()).collect();
    found.retain(|sql| !sql.is_empty());
    found
}

/// What a `copy (…) TO …` of psql reads.
fn copied(command: &str) -> Option<String> {
    let what = command.strip_prefix("copy ")?.trim_start();
    let Some(query) = what.strip_prefix('(') else {
        return what.split_once(" TO ").map(|(table, _)| format!("SELECT * FROM {table}"));
    };
    query
        .rsplit_once(") TO ")
        .or_else(|| query.rsplit_once(") to "))
        .map(|(query, _)| query.to_owned())
}

/// With Grafana's macros and variables filled in, and its dates moved: the newest of them is today.
pub(super) fn filled(sql: &str, today: NaiveDate) -> String {
    let mut sql = sql.to_owned();
    while let Some((before, after)) = sql.split_once("$__timeFilter(") {
        let (column, after) = after.split_once(')').expect("a closed macro");
        sql = format!("{before}{column} BETWEEN $__timeFrom() AND $__timeTo(){after}");
    }
    for (name, value) in [
        ("$__timeFrom()", format!("'{today}T00:00:00Z'")),
        ("$__timeTo()", format!("'{today}T23:59:59.999Z'")),
        ("$__interval", "5m".to_owned()),
        ("$exchange", "binance".to_owned()),
        ("$symbol", "BTCUSDT".to_owned()),
    ] {
        sql = sql.replace(name, &value);
    }
    let is_date = |at: usize| sql.get(at..at + 10).and_then(|it| it.parse::<NaiveDate>().ok());
    let dates: BTreeSet<NaiveDate> = (0..sql.len()).filter_map(is_date).collect();
    let mut moved = sql.clone();
    // Through names that are no dates, so that none is moved twice.
    for (ago, date) in dates.iter().rev().enumerate() {
        moved = moved.replace(&date.to_string(), &format!("<{ago}>"));
    }
    for ago in 0..dates.len() {
        let day = today - Days::new(ago.try_into().expect("few dates"));
        moved = moved.replace(&format!("<{ago}>"), &day.to_string());
    }
    moved
}

#[test]
fn queries_are_found_in_every_kind_of_block() {
    let markdown = "Text; with SELECT nothing;\n\n```sql\nSELECT 1; -- one; two\nSELECT ';', \"a;b\"\n FROM x;\n\\copy (SELECT (2)) TO 'f' CSV\n\\timing on\n```\n\
        <!-- query: reads everything, because it counts -->\n```sh\ntrading-core db psql -- -c \"SELECT \\\"a\\\" FROM y; SELECT 3\"\n\
        gcc -c 'x'\npsql \"$URL\" -c '\\copy z TO f'\n```\n```text\nSELECT 4;\n```\n";
    let query = |line, sql: &str, exempt: Option<&str>| Query {
        line,
        sql: sql.to_owned(),
        exempt: exempt.map(str::to_owned),
    };
    let reason = Some("reads everything, because it counts");
    assert_eq!(
        queries(&Page::of(Path::new("page.md"), markdown)),
        [
            query(3, "SELECT 1", None),
            query(3, "SELECT ';', \"a;b\"\n FROM x", None),
            query(3, "SELECT (2)", None),
            query(11, "SELECT \"a\" FROM y", reason),
            query(11, "SELECT 3", reason),
            query(11, "SELECT * FROM z", reason),
        ]
    );
}

#[test]
fn macros_are_filled_in_and_dates_are_moved_to_today() {
    let today = "2030-02-01".parse().unwrap();
    assert_eq!(
        filled(
            "x $__timeFilter(a.time) AND '2026-11-28Z' > '2026-11-27 10:00Z' AND s = '$symbol'",
            today
        ),
        "x a.time BETWEEN '2030-02-01T00:00:00Z' AND '2030-02-01T23:59:59.999Z' AND '2030-01-31Z' > '2030-01-30 10:00Z' \
         AND s = 'BTCUSDT'"
    );
    assert_eq!(filled("'2026-11-28Z' '2026-11-27Z'", today), "'2030-02-01Z' '2030-01-31Z'");
}
