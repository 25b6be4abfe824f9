//! Texts of databases and settings on their way to the operator: nothing in them forges a line or moves a cursor.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Stdio;

use crate::support::postgres::database;
use crate::support::process::{Program, command, setting};

#[tokio::test]
async fn an_error_that_a_trigger_raises_is_one_line_of_the_log() {
    let database = database().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("DATABASE_URL".to_owned(), database.url.clone()),
        setting("SPOOL__DIR", folder.path().join("spool").display()),
        setting("BATCH__MAX_TIME", "100ms"),
        setting("BATCH__MAX_RETRY_ATTEMPTS", "1"),
        setting("SIMULATE__RATE", "5"),
    ];
    let arguments = ["live", "--simulate", "--symbol", "BTCUSDT,C0USDT", "--exchange", "binance"];
    let mut program = Program::start(folder.path(), &arguments, &settings);
    // What the simulated exchange does not have is said at once.
    program.logged("ERROR binance:C0USDT is not listed by the exchange").await;
    program.logged("Feed connected").await;
    sqlx::raw_sql(
        "CREATE FUNCTION forge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         RAISE EXCEPTION USING ERRCODE = '53200', MESSAGE = \
         E'boom \\x1b[31mRED\\n2026-11-27T00:00:00.000000Z ERROR forged line\\r\\u202e\\u009b1m币安'; END $$; \
         CREATE TRIGGER forge BEFORE INSERT ON tick_data FOR EACH ROW EXECUTE FUNCTION forge()",
    )
    .execute(&database.pool)
    .await
    .unwrap();
    let line = program.logged("Store circuit OPEN").await;
    let shown =
        r"boom \u001b[31mRED\n2026-11-27T00:00:00.000000Z ERROR forged line\r\u202e\u009b1m币安";
    assert!(line.contains(shown), "{line}");
    program.stop().await;
    let log = program.log();
    assert!(!log.lines().any(|line| line.starts_with("2026-11-27T00:00:00.000000Z")), "{log}");
    assert!(!log.chars().any(|it| it.is_control() && it != '\n'), "{log:?}");
}

#[test]
fn what_a_false_server_answers_to_a_login_is_one_line() {
    let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("postgres://me@{}/x?sslmode=disable", server.local_addr().unwrap());
    let child = command()
        .args(["verify"])
        .env("DATABASE_URL", url)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut client, _) = server.accept().unwrap();
    assert!(client.read(&mut [0; 1024]).unwrap() > 0);
    let fields = b"SFATAL\0VFATAL\0C28P01\0Mno \x1b[2J\nerror: forged\r\0\0";
    let mut answer = vec![b'E'];
    answer.extend(u32::try_from(fields.len() + 4).unwrap().to_be_bytes());
    answer.extend(fields);
    client.write_all(&answer).unwrap();
    drop((client, server));
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    // The first line names the settings.
    assert_eq!(told.lines().count(), 2, "{told:?}");
    assert!(told.contains(r"no \u001b[2J\nerror: forged\r"), "{told:?}");
}
