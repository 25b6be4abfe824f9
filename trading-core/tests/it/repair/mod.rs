//! What is missing comes back from the exchanges' history, once, with its exact values; and where it does not, the table
//! of gaps says so.

mod audit;
mod lies;
mod time;

use std::time::Duration;

use sqlx::Executor as _;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use trading_core::domain::{GapPart, GapStatus, IdRange, Timestamp};
use trading_core::exchange::{self, Exchange, IdRule};
use trading_core::pipeline::Spooling;
use trading_core::simulator::{
    Action, RestFault, RestLimit, RestLimits, SimulatorOptions, Switches, Target, Venue,
};
use trading_core::store::postgres::gaps::{GapScope, Gaps};
use trading_core::store::spool::Spool;

use crate::support::place::{Place, options};
use crate::support::process::Program;
use crate::support::truth::stored;

/// The exchanges whose ids are consecutive, and whose past can be asked for.
fn counting() -> impl Iterator<Item = &'static str> {
    exchange::all().filter(|it| it.ids() == IdRule::Consecutive).map(Exchange::name)
}

#[tokio::test]
async fn a_gap_in_the_middle_comes_back_at_every_exchange() {
    for exchange in counting() {
        let place = Place::new(exchange, options()).await;
        let last = place.latest() - 10;
        let first = last - 3_000;
        // More than a page of any of them.
        let gap = (first + 500, last - 500);
        place.store((first..gap.0).chain(gap.1 + 1..=last)).await;
        place.gap(gap.0, gap.1).await;
        let repairing = place.repair("one");
        assert_eq!(place.closed().await, ["repaired"], "{exchange}");
        let reading = repairing.stop().await;
        assert_eq!(reading.stored, gap.1 - gap.0 + 1, "{exchange}: nothing is fetched twice");
        assert_eq!(place.missing(first, last).await, [0_u64; 0], "{exchange}");
        let table = stored(place.pool(), &place.market).await;
        assert_eq!(table.len(), 1, "{exchange}");
        place.close().await;
    }
}

#[tokio::test]
async fn what_came_late_by_itself_is_not_fetched() {
    let place = Place::new("binance", options()).await;
    let last = place.latest() - 10;
    place.store(last - 100..=last).await;
    place.gap(last - 50, last - 40).await;
    let repairing = place.repair("one");
    assert_eq!(place.closed().await, ["repaired"]);
    assert_eq!(repairing.stop().await.received, 0);
    place.close().await;
}

#[tokio::test]
async fn ticks_that_wait_in_the_spool_leave_their_gap_open_until_they_are_stored() {
    let place = Place::new("binance", options()).await;
    let last = place.latest() - 10;
    place.store((last - 100..last - 50).chain(last - 39..=last)).await;
    place.gap(last - 50, last - 40).await;
    let folder = tempfile::tempdir().unwrap();
    let spooling = || async {
        let (path, database) = (folder.path().join("spool"), "a database".to_owned());
        let (spool, found) = Spool::open(path, 1 << 20, database).await.unwrap();
        (Spooling { spool, spool_now: CancellationToken::new(), seed: 7 }, found.backlog.ticks)
    };
    // The table can be read, and the pipeline's connections fail.
    let nowhere = place.database.socket().socket(folder.path());
    let mut away = place.pipeline_to("away", nowhere, Some(spooling().await.0));
    place.repair_by(&mut away);
    while away.ledger.read().spooled < 11 {
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(place.gaps().await[0].2, "open");
    let reading = away.stop().await;
    assert_eq!((reading.received, reading.spooled), (11, 11), "{reading}");

    let (spooling, found) = spooling().await;
    assert_eq!(found, 11);
    let back = place.pipeline_to("back", place.database.socket(), Some(spooling));
    assert_eq!(back.stop().await.stored, 11);
    sqlx::query("UPDATE tick_gaps SET retry_at = now()").execute(place.pool()).await.unwrap();
    let repairing = place.repair("one");
    assert_eq!(place.closed().await, ["repaired"]);
    assert_eq!(repairing.stop().await.received, 0, "it is not fetched again");
    place.close().await;
}

#[tokio::test]
async fn a_gap_whose_ticks_wait_in_the_spool_is_closed_once_they_are_stored() {
    let place = Place::new("binance", options()).await;
    let last = place.latest() - 10;
    place.store((last - 100..last - 50).chain(last - 39..=last)).await;
    place.gap(last - 50, last - 40).await;
    let folder = tempfile::tempdir().unwrap();
    let (path, database) = (folder.path().join("spool"), "a database".to_owned());
    let (spool, _) = Spool::open(path, 1 << 20, database).await.unwrap();
    let spooling = Spooling { spool, spool_now: CancellationToken::new(), seed: 7 };
    let here = place.database.socket();
    let name = format!(".s.PGSQL.{}", here.get_port());
    let socket = here.get_socket().unwrap().join(&name);
    // The pipeline's connections fail, until the server's socket is there.
    let mut one = place.pipeline_to("one", here.socket(folder.path()), Some(spooling));
    place.repair_by(&mut one);
    while one.ledger.read().spooled < 11 {
        sleep(Duration::from_millis(20)).await;
    }
    std::os::unix::fs::symlink(socket, folder.path().join(name)).unwrap();
    assert_eq!(place.closed().await, ["repaired"]);
    let attempts: i64 = sqlx::query_scalar("SELECT sum(attempts)::bigint FROM tick_gaps")
        .fetch_one(place.pool())
        .await
        .unwrap();
    assert_eq!(attempts, 0, "it was not postponed");
    let reading = one.stop().await;
    assert_eq!((reading.received, reading.stored), (11, 11), "{reading}");
    place.close().await;
}

#[tokio::test]
async fn ids_that_were_never_issued_are_no_loss() {
    for exchange in counting() {
        let unissued = "0.05".parse().unwrap();
        let place = Place::new(exchange, SimulatorOptions { unissued, ..options() }).await;
        let last =
            (0..).map(|back| place.latest() - 10 - back).find(|id| place.tick(*id).is_some());
        let last = last.unwrap();
        let first = (0..).map(|back| last - 400 - back).find(|id| place.tick(*id).is_some());
        let first = first.unwrap();
        place.store([first, last]).await;
        place.gap(first + 1, last - 1).await;
        let repairing = place.repair("one");
        place.closed().await;
        repairing.stop().await;
        assert_eq!(place.missing(first, last).await, [0_u64; 0], "{exchange}");
        let mut never_issued = 0;
        for (from, to, status, _) in place.gaps().await {
            let ids = from.unwrap().parse::<u64>().unwrap()..=to.unwrap().parse().unwrap();
            for id in ids {
                let expected = if place.tick(id).is_some() { "repaired" } else { "not_a_loss" };
                assert_eq!(status, expected, "{exchange} {id}");
                never_issued += u32::from(status == "not_a_loss");
            }
        }
        assert!(never_issued > 5, "{exchange}: {never_issued} were to be found");
        place.close().await;
    }
}

#[tokio::test]
async fn a_history_that_is_down_is_asked_again_and_one_that_is_busy_is_left_alone() {
    let place = Place::new("okx", options()).await;
    let last = place.latest() - 10;
    place.store([last - 100, last]).await;
    place.gap(last - 99, last - 1).await;
    place.faults.switch(Switches { rest: Some(RestFault::Down), ..Switches::default() });
    let repairing = place.repair("one");
    place
        .until("SELECT note LIKE '%503%' AND attempts > 0 AND status = 'open' FROM tick_gaps")
        .await;
    place.faults.switch(Switches::default());
    assert_eq!(place.closed().await, ["repaired"]);
    repairing.stop().await;
    assert_eq!(place.missing(last - 100, last).await, [0_u64; 0]);
    place.close().await;

    // One request a second: the second page is refused, and the exchange says for how long.
    let limit = RestLimit { burst: 1, per_second: 1 };
    let rest_limits = RestLimits([(Venue::OKX, limit)].into());
    let place = Place::new("okx", SimulatorOptions { rest_limits, ..options() }).await;
    let last = place.latest() - 10;
    place.store([last - 300, last]).await;
    place.gap(last - 299, last - 1).await;
    let repairing = place.repair("one");
    assert_eq!(place.closed().await, ["repaired"]);
    repairing.stop().await;
    assert_eq!(place.missing(last - 300, last).await, [0_u64; 0]);
    place.close().await;
}

#[tokio::test]
async fn two_recorders_share_the_gaps_and_fetch_none_twice() {
    let place = Place::new("coinbase", options()).await;
    let last = place.latest() - 10;
    let gaps: Vec<(u64, u64)> =
        (0..40).map(|n| (last - 2_000 + n * 50, last - 1_970 + n * 50)).collect();
    let is_missing = |id: &u64| gaps.iter().any(|(first, last)| (first..=last).contains(&id));
    place.store((last - 2_001..=last).filter(|id| !is_missing(id))).await;
    for (first, last) in &gaps {
        place.gap(*first, *last).await;
    }
    let (one, two) = (place.repair("one"), place.repair("two"));
    assert_eq!(place.closed().await, ["repaired"; 40]);
    let (one, two) = (one.stop().await, two.stop().await);
    assert_eq!(one.received + two.received, 40 * 31);
    assert_eq!(one.duplicates + two.duplicates, 0);
    assert_eq!(place.missing(last - 2_001, last).await, [0_u64; 0]);
    place.close().await;
}

#[tokio::test]
async fn a_killed_worker_s_gap_is_its_own_until_the_lease_runs_out_and_then_the_next_one_s() {
    let place = Place::new("binance", options()).await;
    let last = place.latest() - 10;
    place.store([last - 400, last - 300, last - 200, last]).await;
    place.gap(last - 199, last - 1).await;
    place.faults.switch(Switches {
        rest: Some(RestFault::Slow(Duration::from_secs(600))),
        ..Switches::default()
    });
    let killed = place.repair("killed");
    place.until("SELECT claimed_by LIKE 'killed%' FROM tick_gaps").await;
    killed.kill().await;
    place.faults.switch(Switches::default());

    let next = place.repair("next");
    place.gap(last - 399, last - 301).await;
    place.until("SELECT bool_or(status = 'repaired') FROM tick_gaps").await;
    let of_the_dead = "SELECT status = 'open' AND claimed_by LIKE 'killed%' FROM tick_gaps ORDER BY from_time DESC LIMIT 1";
    assert!(sqlx::query_scalar::<_, bool>(of_the_dead).fetch_one(place.pool()).await.unwrap());
    place
        .pool()
        .execute("UPDATE tick_gaps SET claimed_until = now() WHERE status = 'open'")
        .await
        .unwrap();
    assert_eq!(place.closed().await, ["repaired"; 2]);
    next.stop().await;
    assert_eq!(place.missing(last - 200, last).await, [0_u64; 0]);
    place.close().await;
}

#[tokio::test]
async fn a_long_gap_is_worked_off_in_slices_that_are_kept() {
    let place = Place::new("okx", options()).await;
    let last = place.latest() - 10;
    // A hundred pages of a hundred trades are one slice.
    let first = last - 12_000;
    place.store([first, last]).await;
    place.gap(first + 1, last - 1).await;
    let repairing = place.repair("one");
    place.until("SELECT count(*) = 2 AND bool_or(status = 'repaired') FROM tick_gaps").await;
    assert_eq!(place.closed().await, ["repaired"; 2]);
    let reading = repairing.stop().await;
    assert_eq!(reading.stored, 11_999);
    assert_eq!(place.missing(first, last).await, [0_u64; 0]);
    place.close().await;
}

#[tokio::test]
async fn refused_ticks_are_unrecoverable_and_say_where_they_are() {
    let place = Place::new("binance", options()).await;
    let last = place.latest() - 10;
    place.store([last - 100, last]).await;
    // A rule that the real table does not have, so that the database refuses one trade.
    let refused = last - 50;
    let rule = format!("ALTER TABLE tick_data ADD CONSTRAINT odd CHECK (trade_id <> '{refused}')");
    place.pool().execute(sqlx::AssertSqlSafe(rule)).await.unwrap();
    place.gap(last - 99, last - 1).await;
    let repairing = place.repair("one");
    place.closed().await;
    repairing.stop().await;
    let gaps = place.gaps().await;
    let told: Vec<_> = gaps.iter().map(|(_, _, status, _)| status.as_str()).collect();
    assert_eq!(told, ["repaired", "unrecoverable", "repaired"]);
    assert_eq!(gaps[1].0.as_deref(), Some(refused.to_string().as_str()));
    assert!(gaps[1].3.as_deref().unwrap().contains("rejected_ticks"), "{gaps:?}");
    place.close().await;
}

#[tokio::test]
async fn repair_waits_while_recording_has_much_to_store() {
    let place = Place::new("binance", options()).await;
    let last = place.latest() - 10;
    place.store((last - 1_000..=last).step_by(10)).await;
    let busy = place.repair("busy");
    // As much as a store that is away leaves behind.
    busy.ledger.record_received(10_000, 0, 10_000);
    for n in 1..=20 {
        place.gap(last - 50 * n + 1, last - 50 * n + 9).await;
    }
    // All of them are there to be taken: another recorder, which has nothing else to do, takes them.
    let idle = place.repair("idle");
    assert_eq!(place.closed().await, ["repaired"; 20]);
    assert_eq!(idle.stop().await.stored, 20 * 9);
    assert_eq!(busy.ledger.read().received, 10_000);

    place.gap(last - 9, last - 1).await;
    busy.ledger.record_dropped(10_000);
    place.closed().await;
    assert_eq!(busy.stop().await.stored, 9);
    place.close().await;
}

#[tokio::test]
async fn what_came_of_a_gap_is_written_by_who_holds_it_and_replaces_what_was_known() {
    let place = Place::new("binance", options()).await;
    let times = (place.time(place.latest()), place.time(place.latest()));
    place.list(Some((1_000, 1_099)), times).await;
    place.list(Some((1_050, 1_099)), times).await;
    let scope = GapScope {
        exchange: "binance",
        symbols: None,
        max_age: None,
        settled: Duration::ZERO,
        newest_first: false,
    };
    let gaps = |name: &str| Gaps::new(place.pool().clone(), name.to_owned());
    let gap = gaps("one").claim(&scope).await.unwrap().unwrap();
    assert_eq!(gap.ids, IdRange::new(1_000, 1_099));
    let other = gaps("two").claim(&scope).await.unwrap().unwrap();
    assert_eq!(other.ids, IdRange::new(1_050, 1_099));
    assert!(gaps("three").claim(&scope).await.unwrap().is_none(), "each is somebody's");

    let part = |first, last, status| GapPart {
        ids: IdRange::new(first, last),
        times: gap.times,
        status,
        note: None,
        attempts: 0,
    };
    let parts = [part(1_000, 1_049, GapStatus::Repaired), part(1_050, 1_099, GapStatus::NotALoss)];
    assert!(!gaps("two").settle(&gap, &parts).await.unwrap(), "not the holder");
    assert!(gaps("one").settle(&gap, &parts).await.unwrap());
    assert!(!gaps("one").settle(&gap, &parts).await.unwrap(), "settled already");
    assert!(!gaps("two").renew(&other).await.unwrap(), "it was settled as part of the other");
    let told: Vec<_> =
        place.gaps().await.into_iter().map(|(first, _, status, _)| (first, status)).collect();
    assert_eq!(
        told,
        [
            (Some("1000".to_owned()), "repaired".to_owned()),
            (Some("1050".to_owned()), "not_a_loss".to_owned())
        ]
    );
    place.close().await;
}

#[tokio::test]
async fn a_gap_of_more_ranges_than_are_known_at_once_is_repaired_all_the_same() {
    let place = Place::new("binance", options()).await;
    let last = place.latest() - 10;
    let first = last - 12_000;
    // Every other trade is there: six thousand ranges are missing, and five thousand are looked at.
    place.store((first..=last).step_by(2)).await;
    place.gap(first + 1, last - 1).await;
    let repairing = place.repair("one");
    assert_eq!(place.closed().await, ["repaired"; 2]);
    assert_eq!(repairing.stop().await.stored, 6_000);
    assert_eq!(place.missing(first, last).await, [0_u64; 0]);
    place.close().await;
}

#[tokio::test]
async fn more_refused_ranges_than_are_known_at_once_are_none_of_them_called_repaired() {
    let place = Place::new("binance", options()).await;
    let last = place.latest() - 10;
    let first = last - 12_000;
    place.store((first..=last).step_by(2)).await;
    let refused = format!(
        "INSERT INTO rejected_ticks SELECT 'binance', 'BTCUSDT', id::text, now(), now(), 'buy', 1, 1, 'live', '23514', 'a test' \
         FROM generate_series({}, {last}, 2) AS id",
        first + 1
    );
    place.pool().execute(sqlx::AssertSqlSafe(refused)).await.unwrap();
    place.gap(first + 1, last - 1).await;
    let repairing = place.repair("one");
    place.closed().await;
    assert_eq!(repairing.stop().await.received, 0, "nothing is absent");
    let mut at = first + 1;
    for (from, to, status, _) in place.gaps().await {
        // Refused and stored ones take turns.
        let (from, to) =
            (from.unwrap().parse::<u64>().unwrap(), to.unwrap().parse::<u64>().unwrap());
        let expected = if (from - first).is_multiple_of(2) { "repaired" } else { "unrecoverable" };
        assert_eq!((from, to, status.as_str()), (at, at, expected));
        at += 1;
    }
    assert_eq!(at, last);
    place.close().await;
}

#[tokio::test]
async fn a_trade_that_came_both_ways_is_kept_as_it_came_over_the_socket() {
    let place = Place::new("kraken", options()).await;
    let last = place.latest() - 10;
    // A hundred in a row: ten of them end in any one digit.
    place.store(last - 99..=last).await;
    // As the history stamps it.
    let copied = "INSERT INTO tick_data SELECT time + interval '1 us', received_at, exchange, symbol, trade_id, side, \
                  price, quantity, 'backfill' FROM tick_data WHERE right(trade_id, 1) = '7'";
    let copies = place.pool().execute(copied).await.unwrap().rows_affected();
    assert_eq!(copies, 10);
    place.gap(last - 98, last - 1).await;
    let repairing = place.repair("one");
    assert_eq!(place.closed().await, ["repaired"]);
    repairing.stop().await;
    let table = stored(place.pool(), &place.market).await;
    assert_eq!(table.values().next().unwrap().ids.len(), 100);
    place.close().await;
}

#[tokio::test]
async fn what_came_over_the_socket_after_its_gap_was_closed_is_stored_once_in_the_end() {
    let place = Place::new("kraken", SimulatorOptions { rate: 50.into(), ..options() }).await;
    let last = place.latest() - 6_000;
    place.store(last - 99..=last).await;
    let copied = "INSERT INTO tick_data SELECT time + interval '1 us', received_at, exchange, symbol, trade_id, side, \
                  price, quantity, 'backfill' FROM tick_data WHERE trade_id = $1";
    let late = (last - 50).to_string();
    sqlx::query(copied).bind(late).execute(place.pool()).await.unwrap();
    let mut pipeline = place.pipeline("one");
    place.audit(&mut pipeline);
    place.until_checked(last).await;
    pipeline.stop().await;
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM tick_data").fetch_one(place.pool()).await.unwrap();
    assert_eq!(left, 100);
    place.close().await;
}

#[tokio::test]
async fn a_recorder_fetches_by_itself_what_its_exchange_did_not_send() {
    for exchange in counting() {
        let place = Place::new(exchange, SimulatorOptions { rate: 50.into(), ..options() }).await;
        let setting = |key: &str, value: String| (format!("TRADING_CORE__{key}"), value);
        let rest_url = place.venue.rest_url.clone();
        let url = |kind| format!("EXCHANGES__{}__{kind}_URL", exchange.to_uppercase());
        let settings = [
            ("DATABASE_URL".to_owned(), place.database.url.clone()),
            setting("BATCH__MAX_TIME", "500ms".to_owned()),
            setting(&url("WS"), rest_url.replacen("http", "ws", 1)),
            setting(&url("REST"), rest_url),
        ];
        let folder = tempfile::tempdir().unwrap();
        let symbol = place.instrument.symbol().to_string();
        let arguments = ["live", "--exchange", exchange, "--symbol", &symbol];
        let mut program = Program::start(folder.path(), &arguments, &settings);
        place.until("SELECT count(*) > 20 FROM tick_data").await;
        let skip =
            |trades| place.faults.act(&Target::default(), Action::Skip(trades), Timestamp::now());
        skip(7).unwrap();
        place.until("SELECT bool_and(status = 'repaired') FROM tick_gaps").await;
        skip(1).unwrap();
        place.until("SELECT count(*) > 1 AND bool_and(status = 'repaired') FROM tick_gaps").await;
        assert!(program.logged("Gap repaired: ").await.contains(&place.instrument.to_string()));
        assert!(program.stop().await.success(), "{}", program.log());
        let from_history = "SELECT count(*) FROM tick_data WHERE source = 'backfill'";
        let fetched: i64 = sqlx::query_scalar(from_history).fetch_one(place.pool()).await.unwrap();
        assert_eq!(fetched, 8, "{exchange}");

        // And what was traded while it did not run: more than Kraken sends again.
        let last_stored = place.latest();
        while place.latest() < last_stored + 100 {
            sleep(Duration::from_millis(50)).await;
        }
        let mut program = Program::start(folder.path(), &arguments, &settings);
        place
            .until(
                "SELECT bool_or(cause = 'the recorder was not running') AND bool_and(status = 'repaired') \
                 FROM tick_gaps",
            )
            .await;
        assert!(program.stop().await.success(), "{}", program.log());
        let table = stored(place.pool(), &place.market).await;
        assert_eq!(table.values().next().unwrap().missing(), [0_u64; 0], "{exchange}");
        place.close().await;
    }
}
