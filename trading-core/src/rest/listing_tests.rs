//! What simulated exchanges, and servers that are none, say of names.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::tests::{direct, unlimited};
use super::*;
use crate::domain::Symbol;
use crate::exchange::{self, Exchange};
use crate::simulator::{RestLimits, Simulator, SimulatorOptions};

async fn serve() -> (String, JoinSet<()>) {
    let options =
        SimulatorOptions { rest_limits: RestLimits::none(), ..SimulatorOptions::default() };
    let simulator = Simulator::bind(options).await.unwrap();
    let address = simulator.address();
    let mut serving = JoinSet::new();
    serving.spawn(async move { simulator.run(CancellationToken::new()).await.unwrap() });
    (format!("http://{address}"), serving)
}

/// A server that gives this answer to every request.
async fn answers(status: &'static str, body: &'static str) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut asked = [0; 4_096];
            assert!(socket.read(&mut asked).await.unwrap() > 0);
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (format!("http://{address}"), serving)
}

async fn asked(
    exchange: &'static dyn Exchange,
    base: &str,
    symbols: &[&str],
    one_by_one_max: usize,
) -> Vec<Listing> {
    let client = RestClient::new(unlimited(), &direct(), std::sync::Arc::default()).unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let asking = Asking { exchange, base, client: &client, deadline, one_by_one_max };
    let symbols: Vec<Symbol> = symbols.iter().map(|symbol| symbol.parse().unwrap()).collect();
    let mut settled = 0;
    let listings = asking.listings(&symbols, || settled += 1).await;
    assert_eq!(settled, symbols.len());
    listings
}

fn is_unknown(listing: &Listing, meant: &[&str]) -> bool {
    matches!(listing, Listing::Unknown { nearest, .. } if nearest.iter().map(String::as_str).eq(meant.iter().copied()))
}

#[tokio::test]
async fn each_venue_knows_its_names_and_says_which_may_have_been_meant() {
    let (base, _serving) = serve().await;
    for exchange in exchange::all() {
        let (name, base) = (exchange.name(), format!("{base}/{}", exchange.name()));
        let listings = asked(exchange, &base, &["BTC-USDT", "NOSUCH-XYZ", "BTC-USTD"], 10).await;
        assert_eq!(listings[0], Listing::Traded, "{name}");
        assert!(is_unknown(&listings[1], &[]), "{name}: {listings:?}");
        let meant = exchange.venue_symbol(&"BTC-USDT".parse().unwrap());
        let Listing::Unknown { nearest, .. } = &listings[2] else { panic!("{name}: {listings:?}") };
        assert_eq!(nearest[0], meant, "{name}");
        assert!(nearest.len() <= 3, "{name}: {nearest:?}");
    }
    let kraken = exchange::by_name("kraken").unwrap();
    let base = format!("{base}/kraken");
    let listings =
        asked(kraken, &base, &["AAPLx/USD", "ETH2.S/ETH", "XBTUSD", "aaplx/usd"], 10).await;
    assert_eq!(listings[..3], [Listing::Traded, Listing::Traded, Listing::Traded]);
    assert!(is_unknown(&listings[3], &["AAPLx/USD"]), "{listings:?}");
}

#[tokio::test]
async fn of_many_symbols_no_more_than_a_few_are_asked_for_one_by_one() {
    let (base, _serving) = serve().await;
    let binance = exchange::by_name("binance").unwrap();
    let symbols = ["BTC-USDT", "NOSUCH-XYZ", "ETH-USDT", "NOR-THIS"];
    let listings = asked(binance, &format!("{base}/binance"), &symbols, 2).await;
    assert_eq!((&listings[0], &listings[2]), (&Listing::Traded, &Listing::Traded));
    assert!(is_unknown(&listings[1], &[]), "{listings:?}");
    let Listing::NotAsked(why) = &listings[3] else { panic!("{listings:?}") };
    assert!(why.contains("too many"), "{why}");
}

#[tokio::test]
async fn nothing_is_concluded_from_answers_that_are_about_no_name() {
    let html = "<html>Access denied</html>";
    for exchange in exchange::all() {
        for (status, body) in [
            ("403 Forbidden", html),
            ("404 Not Found", html),
            ("451 Unavailable", html),
            ("500 Internal Server Error", html),
            ("200 OK", html),
            ("200 OK", ""),
        ] {
            let (base, _serving) = answers(status, body).await;
            let listings = asked(exchange, &base, &["BTC-USDT", "NOSUCH-USDT"], 10).await;
            for listing in listings {
                assert!(
                    matches!(listing, Listing::NotAsked(_)),
                    "{exchange:?} {status}: {listing:?}"
                );
            }
        }
        let listings = asked(exchange, "http://127.0.0.1:1", &["BTC-USDT"], 10).await;
        assert!(matches!(&listings[0], Listing::NotAsked(_)), "{exchange:?}: {listings:?}");
    }
}

#[tokio::test]
async fn a_list_that_is_cut_off_makes_no_name_unknown() {
    let binance = exchange::by_name("binance").unwrap();
    // The same body answers both questions: as a list it is empty, as a symbol it is not understood.
    let (base, _serving) = answers("200 OK", "[]").await;
    let listings = asked(binance, &base, &["BTC-USDT"], 10).await;
    assert!(matches!(&listings[0], Listing::NotAsked(_)), "{listings:?}");
    let listings = asked(binance, &base, &["BTC-USDT"], 0).await;
    assert!(matches!(&listings[0], Listing::NotAsked(_)), "{listings:?}");
}
