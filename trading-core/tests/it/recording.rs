//! `trading-core db recording` answers a health check: does somebody record now?

use std::fs;
use std::fs::File;
use std::time::Duration;

use serde_json::Value;

use crate::support::postgres::Scratch;
use crate::support::process::{Program, command, setting};
use crate::support::waiting::until;

/// The exit code, and what was printed.
fn asked(settings: &[(String, String)], arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = command();
    command.args(["db", "recording"]).args(arguments).envs(settings.iter().cloned());
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[tokio::test]
async fn a_recorder_that_runs_is_recording_and_one_that_stopped_is_not() {
    let scratch = Scratch::new("");
    let folder = tempfile::tempdir().unwrap();
    let settings = vec![
        setting("DATABASE__DATA_DIR", scratch.path().display()),
        setting("SIMULATE__RATE", "5"),
    ];
    let (code, said) = asked(&settings, SIMULATED);
    assert!(code == Some(2) && said.starts_with("not recording: "), "{said}");
    assert!(said.contains("the embedded database does not run"), "{said}");

    let arguments = ["live", "--simulate", "--exchange", "binance,kraken"];
    let mut program = Program::start(folder.path(), &arguments, &settings);
    program.logged("Feed connected").await;
    let said = until(async || {
        let (code, said) = asked(&settings, SIMULATED);
        if code == Some(0) && said.contains("binance, kraken") { Ok(said) } else { Err(said) }
    })
    .await;
    assert!(said.starts_with("recording: 2 connections to binance, kraken; "), "{said}");
    let (code, said) = asked(&settings, &[SIMULATED, &["--json"]].concat());
    let answer: Value = serde_json::from_str(&said).unwrap();
    assert!(code == Some(0) && answer["recording"] == true && answer["to"] == "database", "{said}");
    // Where only that database is made, a check need not know that the market is simulated.
    let (code, said) = asked(&settings, &[]);
    assert!(code == Some(0) && said.starts_with("recording: 2 connections"), "{said}");
    assert!(said.contains("(the simulated market: no other database is made yet)"), "{said}");
    let (_, said) = asked(&settings, &["--json"]);
    let answer: Value = serde_json::from_str(&said).unwrap();
    assert!(answer["recording"] == true && answer["simulated"] == true, "{said}");
    // What came a moment ago is never known to be stored.
    let (code, said) = asked(&settings, &[SIMULATED, &["--within", "0s"]].concat());
    assert!(code == Some(2) && said.contains("is stored"), "{said}");

    assert!(program.stop().await.success(), "{}", program.log());
    let (code, said) = asked(&settings, SIMULATED);
    assert!(code == Some(2) && said.starts_with("not recording: "), "{said}");
}

#[test]
fn a_spool_that_grows_is_recording_while_the_database_is_away() {
    let spool = tempfile::tempdir().unwrap();
    let settings = vec![
        // Nothing listens on this port.
        setting("DATABASE__URL", "postgres://nobody@127.0.0.1:1/none?connect_timeout=2"),
        setting("SPOOL__DIR", spool.path().display()),
    ];
    let (code, said) = asked(&settings, &[]);
    assert!(code == Some(2) && said.starts_with("not recording: "), "{said}");
    assert!(said.contains("the database does not answer"), "{said}");

    let slot = spool.path().join("1");
    fs::create_dir(&slot).unwrap();
    let segment = File::create(slot.join("0000000001.segment")).unwrap();
    let (code, said) = asked(&settings, &[]);
    assert!(code == Some(0) && said.starts_with("recording to disk: "), "{said}");
    let (_, said) = asked(&settings, &["--json"]);
    let answer: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(answer["to"], "spool", "{said}");

    // What was written long ago waits there, and nobody adds to it.
    let written = segment.metadata().unwrap().modified().unwrap();
    segment.set_modified(written - Duration::from_secs(150)).unwrap();
    let (code, said) = asked(&settings, &[]);
    assert!(code == Some(2) && said.starts_with("not recording: "), "{said}");
    let (code, said) = asked(&settings, &["--within", "5m"]);
    assert!(code == Some(0), "{said}");
}

/// The database of `live --simulate`.
const SIMULATED: &[&str] = &["--simulated"];
