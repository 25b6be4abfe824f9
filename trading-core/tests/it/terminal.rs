//! What is printed fits the terminal where it is shown, and is one line a record where there is none.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;
use std::process::Stdio;

use nix::pty::{Winsize, openpty};
use trading_core::store::embedded::Cluster;
use trading_core::store::postgres::origin::{Origin, claim};

use crate::support::postgres::{Scratch, TestDatabase, migrated};
use crate::support::process::{command, setting};

/// A database with a symbol of wide letters, a gap in its ids, and a long remark.
async fn recorded() -> TestDatabase {
    let database = migrated().await;
    let sql = "SELECT ensure_tick_partition(((now() - interval '10 min') AT TIME ZONE 'UTC')::date); \
         INSERT INTO feed_sessions (recorder, exchange, feed, connected_at, ended_at, seen_at, reason, symbols) \
             VALUES ('test', 'binance', 'binance-1', now() - interval '20 min', now(), now(), 'stopped', '{BTCUSDT,币安人生USDT}'); \
         INSERT INTO tick_data SELECT now() - interval '10 min', now() - interval '10 min', 'binance', symbol, id::text, \
             'buy', 1, 1, 'live' FROM generate_series(2180147194, 2180147200) AS id, \
             unnest(ARRAY['BTCUSDT', '币安人生USDT']) AS symbol WHERE id <> 2180147197";
    sqlx::raw_sql(sql).execute(&database.pool).await.unwrap();
    database
}

/// What the program shows on a terminal of so many columns, and how it ends.
fn on_terminal(
    columns: u16,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> (Option<i32>, String) {
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let ends = openpty(Some(&size), None).unwrap();
    let end = || Stdio::from(ends.slave.try_clone().unwrap());
    let mut command = command();
    for name in ["NO_COLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command.env("TERM", "xterm").envs(variables.iter().copied()).args(arguments);
    let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    // It holds the terminal's other end as long as it lives, and nobody else does.
    drop(command);
    drop(ends.slave);
    let mut shown = Vec::new();
    let mut screen = File::from(ends.master);
    let mut part = [0; 4_096];
    loop {
        match screen.read(&mut part) {
            Ok(0) => break,
            Ok(read) => shown.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The other end is closed.
            Err(_closed) => break,
        }
    }
    let code = child.wait().unwrap().code();
    (code, String::from_utf8(shown).unwrap().replace("\r\n", "\n"))
}

/// Without what a terminal obeys.
fn plain(shown: &str) -> String {
    let mut parts = shown.split('\x1b');
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        text.push_str(part.split_once(|it: char| it.is_ascii_alphabetic()).map_or("", |it| it.1));
    }
    text
}

/// The lines of a result: those of the log begin with a time.
fn results(shown: &str) -> Vec<String> {
    let text = plain(shown);
    let log = |line: &str| line.get(8..9) == Some(".") && line.get(12..13) == Some("Z");
    let last = |line: &str| line.rsplit('\r').next().unwrap_or_default().to_owned();
    text.lines().map(last).filter(|line| !log(line)).collect()
}

fn width(line: &str) -> usize {
    line.chars().map(|it| if u32::from(it) > 0x2e80 { 2 } else { 1 }).sum()
}

#[tokio::test]
async fn a_result_fits_its_terminal_and_says_all_that_it_says_in_a_pipe() {
    let database = recorded().await;
    let url = [("DATABASE_URL", database.url.as_str())];
    let piped = command().arg("verify").envs(url).output().unwrap();
    let piped = String::from_utf8(piped.stdout).unwrap();
    assert!(!piped.contains('\x1b'), "{piped}");
    let record = piped.lines().find(|line| line.contains("币安人生USDT  ")).unwrap();
    assert!(record.contains("NOT COMPLETE") && record.contains("2180147200"), "{piped}");
    for columns in [40, 80, 120] {
        let (code, shown) = on_terminal(columns, &["verify"], &url);
        assert_eq!(code, Some(2), "{shown}");
        assert!(shown.contains("\x1b[31mNOT COMPLETE\x1b[0m: "), "{shown}");
        let lines = results(&shown);
        for line in &lines {
            let is_one_word = !line.trim_start().contains(' ');
            assert!(width(line) <= usize::from(columns) || is_one_word, "{columns}: {line:?}");
        }
        for word in ["币安人生USDT", "2180147200", "missing", "twice", "NOT COMPLETE"] {
            assert!(
                lines.iter().any(|line| line.contains(word)),
                "{word} at {columns}: {lines:#?}"
            );
        }
    }
}

#[tokio::test]
async fn colours_are_left_out_where_they_are_not_wanted() {
    let database = recorded().await;
    let url = ("DATABASE_URL", database.url.as_str());
    for variable in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let (_, shown) = on_terminal(80, &["verify"], &[url, variable]);
        assert!(shown.contains("NOT COMPLETE: "), "{shown}");
        assert!(!shown.contains("\x1b[3"), "{variable:?}: {shown}");
    }
    let forced = command().arg("verify").envs([url, ("CLICOLOR_FORCE", "1")]).output().unwrap();
    assert!(String::from_utf8(forced.stdout).unwrap().contains("\x1b[31mNOT COMPLETE"));
}

#[tokio::test]
async fn a_log_line_is_short_on_a_terminal_and_whole_in_a_file() {
    let database = recorded().await;
    let url = [("DATABASE_URL", database.url.as_str())];
    let (_, shown) = on_terminal(200, &["verify"], &url);
    let line = plain(&shown);
    let line = line.lines().find(|line| line.contains(" INFO Looking closer")).unwrap().to_owned();
    let time = line.rsplit('\r').next().unwrap().split(' ').next().unwrap();
    assert_eq!((time.len(), time.ends_with('Z')), ("09:04:52.123Z".len(), true), "{line}");
    let piped = command().arg("verify").envs(url).output().unwrap();
    let told = String::from_utf8(piped.stderr).unwrap();
    let line = told.lines().find(|line| line.contains(" INFO Looking closer")).unwrap();
    let time = line.split(' ').next().unwrap();
    assert_eq!(time.len(), "2026-11-21T09:04:52.123456Z".len(), "{line}");
}

#[tokio::test]
async fn no_terminal_is_too_narrow_to_print_on() {
    let database = recorded().await;
    let url = [("DATABASE_URL", database.url.as_str())];
    let settings = ("TRADING_CORE__DATABASE__URL", "no url at all");
    for columns in [1, 10, 39] {
        for (arguments, code) in [
            (&["verify"][..], 2),
            (&["config", "show"], 0),
            (&["spool", "status"], 0),
            (&["replay", "--paper-trading"], 0),
        ] {
            let (ended, shown) = on_terminal(columns, arguments, &url);
            assert_eq!(ended, Some(code), "{columns} {arguments:?}: {shown}");
            assert!(!shown.contains("panicked"), "{columns} {arguments:?}: {shown}");
        }
        let (ended, shown) = on_terminal(columns, &["config", "check"], &[settings]);
        assert_eq!(ended, Some(64), "{shown}");
    }
}

#[tokio::test]
async fn a_command_to_be_copied_is_one_line_for_the_terminal_however_narrow_it_is() {
    let database = migrated().await;
    let simulated = Origin::Simulated("a test".to_owned());
    claim(&database.pool, &simulated).await.unwrap();
    let url = [("DATABASE_URL", database.url.as_str())];
    let scratch = Scratch::new("");
    let cluster = Cluster::start(&scratch.options()).await.unwrap();
    let (name, value) = setting("DATABASE__DATA_DIR", scratch.path().display());
    let data_dir = [(name.as_str(), value.as_str())];
    for columns in [40, 80] {
        let (code, shown) = on_terminal(columns, &["live"], &url);
        assert_eq!(code, Some(1), "{shown}");
        let is_whole = |line: &str| {
            line.starts_with("    psql ") && line.ends_with(" -c 'CREATE DATABASE real_trades'")
        };
        assert!(plain(&shown).lines().any(is_whole), "{columns}: {shown}");
        let (code, shown) = on_terminal(columns, &["db", "status"], &data_dir);
        assert_eq!(code, Some(0), "{shown}");
        let entry = format!("psql      psql '{}'", cluster.url());
        assert!(results(&shown).contains(&entry), "{columns}: {shown}");
    }
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_error() {
    let database = recorded().await;
    let url = [("DATABASE_URL", database.url.as_str())];
    for (arguments, code) in [
        (&["verify"][..], 2),
        (&["verify", "--json"], 2),
        (&["config", "show"], 0),
        (&["replay", "--paper-trading", "--fills"], 0),
        (&["completions", "bash"], 0),
        (&["--help"], 0),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = command().args(arguments).envs(url).stdout(writer).output().unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {told}");
        let is_quiet = !told.contains("error") && !told.contains("panicked");
        assert!(is_quiet, "{arguments:?}: {told}");
    }
}

#[test]
fn durations_that_are_shown_have_one_form_and_only_what_is_read_again_has_another() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    // Settings and faults are written as they are read.
    let read_again = ["config/", "simulator/", "paper/strategy/"];
    let mut folders = vec![src.clone()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let name = path.strip_prefix(&src).unwrap().display().to_string();
            let is_free = read_again.iter().any(|room| name.starts_with(room));
            let is_other = text.contains("format_duration(");
            assert!(is_free || !is_other, "{name}: use telemetry::Lasting");
        }
    }
    assert!(files > 100, "{files} files");
}
