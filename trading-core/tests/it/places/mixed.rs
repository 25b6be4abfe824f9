//! A start that would mix real and simulated trades is refused, and says what to type; what it says is done here.

use trading_core::store::postgres::origin::Origin;

use super::{made, of_a_market, settings};
use crate::support::exchanges::Exchanges;
use crate::support::postgres::{Scratch, migrated};
use crate::support::process::{self, Program, program, setting};

/// The indented lines of a message: what is to be typed, with the program by its path.
fn commands(log: &str) -> Vec<String> {
    let program = env!("CARGO_BIN_EXE_trading-core");
    let typed = log.lines().filter_map(|line| line.strip_prefix("    "));
    typed.map(|line| line.trim_start().replace("trading-core ", &format!("{program} "))).collect()
}

#[tokio::test]
async fn simulated_trades_of_an_older_version_are_moved_by_what_the_message_says() {
    let exchanges = Exchanges::start(10).await;
    let scratch = Scratch::new("");
    made(&scratch, &of_a_market()).await;
    let mut settings = settings(&scratch);
    settings.extend(exchanges.settings.clone());
    let (code, _, log) = program("live", &settings);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("holds trades of a simulated market"), "{log}");
    let [remove, stop, keep] = commands(&log).try_into().unwrap();
    assert!(remove.ends_with(" db remove"), "{log}");
    for line in [stop, keep] {
        let mut shell = process::command();
        shell.env("LINE", &line);
        let status = std::process::Command::new("sh")
            .args(["-c", &line])
            .envs(settings.iter().cloned())
            .status()
            .unwrap();
        assert!(status.success(), "{line}");
    }
    let (code, _, log) = program("db status --simulated", &settings);
    assert_eq!(code, Some(0), "{log}");
    let mut psql = process::command();
    psql.args(["db", "psql", "--simulated", "--", "-Atc", "SELECT count(*) FROM tick_data"]);
    let output = psql.envs(settings.iter().cloned()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n", "{output:?}");

    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Program::start(folder.path(), &["live"], &settings);
    recorder.logged("Feed connected").await;
    assert!(recorder.stop().await.success(), "{}", recorder.log());
}

#[tokio::test]
async fn the_demo_goes_on_beside_an_older_directory_and_says_so_once() {
    let scratch = Scratch::new("");
    made(&scratch, &of_a_market()).await;
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&scratch);
    settings.push(setting("SIMULATE__RATE", "1"));
    for is_said in [true, false] {
        let mut recorder = Program::start(folder.path(), &["live", "--simulate"], &settings);
        recorder.logged("Feed connected").await;
        assert!(recorder.stop().await.success(), "{}", recorder.log());
        let line = format!("The one in {} is left as it is", scratch.path().display());
        assert_eq!(recorder.log().contains(&line), is_said, "{}", recorder.log());
    }
}

#[tokio::test]
async fn another_servers_database_of_the_other_kind_is_refused_with_what_to_type() {
    let exchanges = Exchanges::start(10).await;
    for (line, held) in [("live", of_a_market()), ("live --simulate", Origin::Exchanges)] {
        let database = migrated().await;
        trading_core::store::postgres::origin::claim(&database.pool, &held).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut settings = exchanges.settings.clone();
        settings.push(("DATABASE_URL".to_owned(), database.url.clone()));
        settings.push(setting("SPOOL__DIR", folder.path().join("spool").display()));
        let (code, _, log) = program(line, &settings);
        assert_eq!(code, Some(1), "{log}");
        let typed = commands(&log);
        let other = if line == "live" { "live --simulate" } else { "--database-url embedded" };
        assert!(typed.iter().any(|line| line.ends_with(other)), "{log}");
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM tick_data")
            .fetch_one(&database.pool)
            .await
            .unwrap();
        assert_eq!(rows, 0);
    }
}
