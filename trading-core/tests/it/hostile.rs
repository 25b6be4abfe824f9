//! The whole program against an exchange that means harm: its memory stays bounded, the other exchange is recorded, and
//! the log says what happened.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use trading_core::simulator::SimulatorOptions;

use crate::support::exchanges::Exchanges;
use crate::support::postgres::{TestDatabase, database};
use crate::support::process::{Program, setting};
use crate::support::waiting::until;

/// What the recorder may use at the most, whatever comes.
const MEMORY_MAX: u64 = 64 * 1024 * 1024;

/// A frame as a server sends it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ ..126 => frame.push(u8::try_from(short).unwrap()),
        long => {
            frame.push(127);
            frame.extend(u64::try_from(long).unwrap().to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

/// A server that answers each request with `answer`, or opens a WebSocket where there is none, and then sends this
/// without an end and reads nothing.
struct Hostile {
    address: String,
    _servers: JoinSet<()>,
}

impl Hostile {
    async fn serve(answer: Option<String>, sent: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut servers = JoinSet::new();
        let (answer, sent) = (Arc::new(answer), Arc::new(sent));
        servers.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(attack(stream, Arc::clone(&answer), Arc::clone(&sent)));
            }
        });
        Self { address, _servers: servers }
    }
}

async fn attack(mut stream: TcpStream, answer: Arc<Option<String>>, sent: Arc<Vec<u8>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    if let Some(answer) = answer.as_deref() {
        stream.write_all(answer.as_bytes()).await.unwrap();
        return;
    }
    let head = String::from_utf8(head).unwrap();
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let accept = derive_accept_key(key.as_bytes());
    let upgrade = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let acknowledged = frame(0x81, br#"{"result":null,"id":1}"#);
    stream.write_all(&acknowledged).await.unwrap();
    // Until the recorder has had enough.
    while stream.write_all(&sent).await.is_ok() {}
}

/// A recorder of a hostile Binance and a simulated Kraken.
struct Attacked {
    program: Program,
    pool: sqlx::PgPool,
    _world: (Hostile, TestDatabase, tempfile::TempDir, Exchanges),
}

impl Attacked {
    async fn start(hostile: Hostile) -> Self {
        let database = database().await;
        let folder = tempfile::tempdir().unwrap();
        let exchanges = Exchanges::with(SimulatorOptions::default()).await;
        let settings = [
            ("DATABASE_URL".to_owned(), database.url.clone()),
            setting("SPOOL__DIR", folder.path().join("spool").display()),
            setting("EXCHANGES__BINANCE__WS_URL", format!("ws://{}", hostile.address)),
            setting("EXCHANGES__KRAKEN__WS_URL", exchanges.url("ws", "kraken")),
            setting("EXCHANGES__KRAKEN__REST_URL", exchanges.url("http", "kraken")),
            setting("BATCH__MAX_TIME", "500ms"),
        ];
        let arguments = ["live", "--exchange", "binance,kraken"];
        let program = Program::start(folder.path(), &arguments, &settings);
        let pool = database.pool.clone();
        Self { program, pool, _world: (hostile, database, folder, exchanges) }
    }

    /// Waits until Kraken has `by` more rows than now.
    async fn kraken_grows(&self, by: i64) {
        let sql = "SELECT count(*) FROM tick_data WHERE exchange = 'kraken'";
        let mut goal = None;
        until(async || {
            let count = sqlx::query_scalar::<_, i64>(sql).fetch_one(&self.pool).await;
            if count.is_ok_and(|count| count >= *goal.get_or_insert(count + by)) {
                return Ok(());
            }
            Err(format!("kraken does not grow:\n{}", self.program.log()))
        })
        .await;
    }

    async fn end(mut self) {
        let peak = self.program.peak_memory();
        assert!(peak < MEMORY_MAX, "{peak} bytes");
        assert!(self.program.stop().await.success(), "{}", self.program.log());
    }
}

#[tokio::test]
async fn a_peer_that_pings_and_takes_no_answer_is_left_with_its_reason_and_memory_stays_bounded() {
    let pings = frame(0x89, &[b'x'; 125]).repeat(1_000);
    let mut attacked = Attacked::start(Hostile::serve(None, pings).await).await;
    attacked.program.logged("has taken nothing of what is sent to it for 10 s").await;
    attacked.kraken_grows(200).await;
    attacked.end().await;
}

#[tokio::test]
async fn a_flood_of_texts_of_eight_mebibytes_stays_within_bounds_and_is_kept_in_part() {
    let text = frame(0x81, &vec![b'x'; (8 << 20) - 1]);
    let mut attacked = Attacked::start(Hostile::serve(None, text).await).await;
    attacked.program.logged("frame not understood").await;
    attacked.kraken_grows(500).await;
    let kept = "SELECT max(octet_length(frame)) FROM quarantined_frames WHERE exchange = 'binance'";
    // The journal writes on its own time, behind what is logged.
    let bytes: i32 = until(async || {
        let longest: Option<i32> =
            sqlx::query_scalar(kept).fetch_one(&attacked.pool).await.unwrap();
        longest.ok_or_else(|| format!("no frame is kept:\n{}", attacked.program.log()))
    })
    .await;
    assert!(bytes <= 8 << 10, "{bytes}");
    attacked.end().await;
}

#[tokio::test]
async fn what_a_page_says_in_the_place_of_a_websocket_is_told_with_what_can_be_done() {
    let page = "<html><title>Restricted</title>\x1b[2J\u{202e}Service unavailable from a restricted location</html>";
    let answer = format!(
        "HTTP/1.1 451 Unavailable For Legal Reasons\r\nContent-Length: {}\r\n\r\n{page}",
        page.len()
    );
    let mut attacked = Attacked::start(Hostile::serve(Some(answer), Vec::new()).await).await;
    let line = attacked.program.logged("Feed disconnected: not connected").await;
    for part in [
        "451 Unavailable For Legal Reasons",
        "Restricted [2JService unavailable from a restricted location",
        "set exchanges.binance.ws_url to the exchange's site for your region, or network.proxy",
    ] {
        assert!(line.contains(part), "{line}");
    }
    attacked.kraken_grows(50).await;
    attacked.end().await;
}

#[tokio::test]
async fn a_ban_is_said_once_with_its_end_and_nobody_knocks_before() {
    let answer =
        "HTTP/1.1 418 I'm a teapot\r\nRetry-After: 3600\r\n\r\n{\"code\":-1003,\"msg\":\"banned\"}";
    let hostile = Hostile::serve(Some(answer.to_owned()), Vec::new()).await;
    let mut attacked = Attacked::start(hostile).await;
    let line = attacked.program.logged("binance sends this address away until").await;
    assert!(line.contains("418 at its WebSocket") && line.contains("banned"), "{line}");
    attacked.program.logged("retry_in=1h").await;
    attacked.kraken_grows(200).await;
    let log = attacked.program.log();
    assert_eq!(log.matches("binance sends this address away").count(), 1, "{log}");
    assert_eq!(log.matches("Feed disconnected").count(), 1, "{log}");
    attacked.end().await;
}
