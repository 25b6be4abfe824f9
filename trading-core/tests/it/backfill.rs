//! The command `backfill`, run as its user runs it, beside a database and a simulator.

use std::process::Output;

use serde_json::Value;
use sqlx::Executor as _;
use trading_core::exchange::history::Depth;
use trading_core::exchange::{Exchange, all};
use trading_core::simulator::SimulatorOptions;

use crate::support::place::{Place, options};
use crate::support::process::{command, shown};
use crate::support::truth::stored;

/// Runs it to its end, on the place's database and simulator.
async fn backfill(place: &Place, arguments: &[&str]) -> Output {
    let rest_url = ("REST_URL", place.venue.rest_url.as_str());
    backfill_with(place, arguments, &[rest_url]).await
}

async fn backfill_with(place: &Place, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let exchange = place.instrument.exchange();
    let mut command = command();
    command
        .args(["backfill", "--exchange", exchange])
        .args(arguments)
        .env("DATABASE_URL", &place.database.url)
        .env("TRADING_CORE__BATCH__MAX_TIME", "1s");
    for (key, value) in settings {
        let exchange = exchange.to_uppercase();
        command.env(format!("TRADING_CORE__EXCHANGES__{exchange}__{key}"), value);
    }
    // Not on this thread: the simulator is served by it.
    let running = tokio::task::spawn_blocking(move || command.output().unwrap());
    running.await.unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", shown(output)))
}

#[tokio::test]
async fn open_gaps_of_any_age_are_repaired_and_the_end_says_what_came_of_each() {
    let place = Place::new("binance", options()).await;
    let last = place.latest() - 10;
    place.store([last - 300, last - 200, last - 100, last]).await;
    place.gap(last - 299, last - 201).await;
    place.gap(last - 199, last - 101).await;
    // Older than what `live` looks at, waiting for long, and somebody else's who works on it no more.
    place
        .pool()
        .execute(
            "UPDATE tick_gaps SET retry_at = now() + interval '1 h', claimed_by = 'another', \
             claimed_until = now() + interval '2 s', opened_at = now() - interval '30 d'",
        )
        .await
        .unwrap();
    let output = backfill(&place, &[]).await;
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    assert_eq!(text.matches("binance:BTCUSDT").count(), 2, "{text}");
    let ids = format!("repaired  ids {} to {}", last - 299, last - 201);
    assert!(text.contains(&ids), "{text}");
    assert!(text.contains("gaps: 2 repaired, 0 no loss, 0 unrecoverable, 0 open"), "{text}");
    assert_eq!(place.missing(last - 300, last - 100).await, [0_u64; 0]);

    let again = backfill(&place, &["--json"]).await;
    assert!(again.status.success(), "{}", shown(&again));
    assert_eq!(
        (&json(&again)["complete"], &json(&again)["gaps"]),
        (&true.into(), &Value::Array(vec![]))
    );
    place.close().await;
}

#[tokio::test]
async fn what_cannot_be_had_is_said_and_exits_2() {
    let place = Place::new("bybit", options()).await;
    let last = place.latest();
    place.store([last - 500]).await;
    place.list(None, (place.time(last - 500), place.time(last))).await;
    let output = backfill(&place, &["--json"]).await;
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    let answer = json(&output);
    let status = |n: usize| answer["gaps"][n]["status"].as_str().unwrap().to_owned();
    assert_eq!([status(0), status(1)], ["unrecoverable", "repaired"], "{answer}");
    assert_eq!(answer["complete"], false);

    let output = backfill(&place, &["--from", "1h", "--symbol", "BTC-USDT"]).await;
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    assert!(text.contains("only the newest trades"), "{text}");
    place.close().await;

    // Nobody answers there.
    let place = Place::new("okx", options()).await;
    let last = place.latest() - 10;
    place.store([last - 20, last]).await;
    place.gap(last - 19, last - 1).await;
    place.pool().execute("UPDATE tick_gaps SET attempts = 9").await.unwrap();
    let away = [("REST_URL", "http://127.0.0.1:9")];
    let output = backfill_with(&place, &["--json"], &away).await;
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    let answer = json(&output);
    assert_eq!(answer["gaps"][0]["status"], "open", "{answer}");
    assert!(answer["gaps"][0]["note"].as_str().unwrap().contains("not reached"), "{answer}");
    place.close().await;
}

#[tokio::test]
async fn a_range_is_loaded_whole_over_what_is_there_and_opens_no_gaps() {
    let reaching =
        all().filter(|it| it.history().rules().depth == Depth::Whole).map(Exchange::name);
    for exchange in reaching {
        let unissued = "0.02".parse().unwrap();
        let place = Place::new(exchange, SimulatorOptions { unissued, ..options() }).await;
        let last = place.latest() - 100;
        let first = last - 2_500;
        place.store(first + 700..=first + 900).await;
        place
            .list(Some((first + 10, first + 20)), (place.time(first + 9), place.time(first + 21)))
            .await;
        place
            .pool()
            .execute("UPDATE tick_gaps SET status = 'unrecoverable', closed_at = now()")
            .await
            .unwrap();
        let symbol = place.instrument.symbol().to_string();
        let (from, to) = (place.time(first).to_string(), place.time(last).to_string());
        let arguments = ["--json", "--symbol", &symbol, "--from", &from, "--to", &to];
        let output = backfill(&place, &arguments).await;
        assert!(output.status.success(), "{exchange}: {}", shown(&output));
        let answer = json(&output);
        assert_eq!(answer["ranges"][0]["error"], Value::Null, "{exchange}: {answer}");
        assert_eq!(place.missing(first, last).await, [0_u64; 0], "{exchange}");
        let table = stored(place.pool(), &place.market).await;
        let rows = table.values().next().unwrap().ids.len();
        let there = (first + 700..=first + 900).filter(|id| place.tick(*id).is_some()).count();
        let stored_now = usize::try_from(answer["ticks"]["stored"].as_u64().unwrap()).unwrap();
        assert_eq!(stored_now + there, rows, "{exchange}: {answer}");
        // What was given up there was looked for again, and is there.
        let gaps = place.gaps().await;
        let closed = gaps
            .iter()
            .all(|(_, _, status, _)| ["repaired", "not_a_loss"].contains(&status.as_str()));
        assert!(closed, "{exchange}: {gaps:?}");
        place.close().await;
    }
}

#[tokio::test]
async fn quarantined_frames_are_read_again_and_go_when_their_ticks_are_stored() {
    let place = Place::new("binance", options()).await;
    let id = place.latest() - 10;
    let tick = place.tick(id).unwrap();
    let frame = format!(
        r#"{{"stream":"btcusdt@trade","data":{{"e":"trade","E":{at},"s":"BTCUSDT","t":{id},"p":"{}","q":"{}","T":{at},"m":{},"M":true}}}}"#,
        tick.price,
        tick.quantity,
        tick.side.as_str() == "sell",
        at = tick.exchange_at.as_millis(),
    );
    for (text, reason) in [(frame.as_str(), "an older version"), ("{\"no\":\"frame\"", "torn")] {
        sqlx::query(
            "INSERT INTO quarantined_frames (exchange, hash, frame, reason, first_seen, last_seen) \
             VALUES ('binance', sha256(convert_to($1, 'UTF8')), $1, $2, now(), now())",
        )
        .bind(text)
        .bind(reason)
        .execute(place.pool())
        .await
        .unwrap();
    }
    let output = backfill(&place, &["--quarantined"]).await;
    assert_eq!(output.status.code(), Some(2), "one is left: {}", shown(&output));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(text.contains("1  frames read, 1 still cannot be"), "{text}");
    let left: Vec<String> = sqlx::query_scalar("SELECT reason FROM quarantined_frames")
        .fetch_all(place.pool())
        .await
        .unwrap();
    assert_eq!(left, ["torn"]);
    assert_eq!(place.missing(id, id).await, [0_u64; 0]);
    stored(place.pool(), &place.market).await;
    place.close().await;
}

#[tokio::test]
async fn real_history_is_never_mixed_with_simulated_trades() {
    let place = Place::new("binance", options()).await;
    place
        .pool()
        .execute("INSERT INTO recorded_from (origin, detail) VALUES ('a simulated market', '')")
        .await
        .unwrap();
    let output = backfill_with(&place, &[], &[]).await;
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(shown(&output).contains("set exchanges.binance.rest_url"), "{}", shown(&output));
    assert!(backfill(&place, &[]).await.status.success());
    // Another server's trades, whose history nobody names.
    let ws_url = [("WS_URL", "ws://127.0.0.1:9")];
    place.pool().execute("DELETE FROM recorded_from").await.unwrap();
    let output = backfill_with(&place, &[], &ws_url).await;
    assert!(shown(&output).contains("ws_url is set and rest_url is not"), "{}", shown(&output));
    place.close().await;
}

#[tokio::test]
async fn a_range_that_is_none_is_a_usage_error() {
    let place = Place::new("binance", options()).await;
    for arguments in [
        &["--from", "1h", "--to", "2h"][..],
        &["--to", "2h"],
        &["--from", "yesterday"],
        &["--quarantined", "--from", "1h"],
    ] {
        let output = backfill(&place, arguments).await;
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", shown(&output));
    }
    place.close().await;
}
