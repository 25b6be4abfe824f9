//! The stored ids are looked through: what is missing there is found once, and what is not is left alone.

use sqlx::Executor as _;
use trading_core::simulator::SimulatorOptions;

use super::counting;
use crate::support::place::{Place, options};

#[tokio::test]
async fn rows_that_went_missing_are_found_once_and_come_back() {
    for exchange in counting() {
        let place = Place::new(exchange, SimulatorOptions { rate: 50.into(), ..options() }).await;
        let last = place.latest() - 6_000;
        let first = last - 2_000;
        place.store(first..=last).await;
        let mut repairing = place.repair("one");
        place.audit(&mut repairing);
        place.until("SELECT count(*) = 1 FROM checked_until").await;
        assert_eq!(place.gaps().await, [], "{exchange}: nothing is missing yet");
        repairing.stop().await;

        // Later ones, of which some went missing, beside a gap that is known, and a trade that is stamped late.
        let gone = [(last + 10, last + 20), (last + 300, last + 300), (last + 500, last + 600)];
        let is_gone = |id: &u64| gone.iter().any(|(first, last)| (first..=last).contains(&id));
        place.store((last + 1..=last + 1_000).filter(|id| !is_gone(id))).await;
        place.gap(last + 10, last + 20).await;
        place
            .pool()
            .execute("UPDATE tick_gaps SET status = 'unrecoverable', closed_at = now()")
            .await
            .unwrap();
        let mut repairing = place.repair("two");
        place.audit(&mut repairing);
        let newest = last + 1_000;
        place.until_checked(newest).await;
        let causes: Vec<String> =
            sqlx::query_scalar("SELECT cause FROM tick_gaps ORDER BY from_time")
                .fetch_all(place.pool())
                .await
                .unwrap();
        assert_eq!(causes[..1], ["a test"], "{exchange}: what is explained is not opened again");
        assert_eq!(causes[1..], ["found missing in the database"; 2], "{exchange}");
        assert_eq!(place.closed().await, ["unrecoverable", "repaired", "repaired"], "{exchange}");
        repairing.stop().await;
        let expected: Vec<u64> = (last + 10..=last + 20).collect();
        assert_eq!(place.missing(first, newest).await, expected, "{exchange}");
        place.close().await;
    }
}

#[tokio::test]
async fn a_look_at_many_jumps_goes_step_by_step_and_names_each_once() {
    let place = Place::new("binance", options()).await;
    let last = place.latest() - 2_000;
    // Some thirteen minutes, with more jumps in ten of them than one step names.
    let first = last - 8_000;
    place.store((first..=last).step_by(2)).await;
    let mut pipeline = place.pipeline("one");
    place.audit(&mut pipeline);
    place.until_checked(last).await;
    pipeline.stop().await;
    let gaps = place.gaps().await;
    let named: Vec<u64> =
        gaps.iter().map(|(id, ..)| id.as_ref().unwrap().parse().unwrap()).collect();
    assert_eq!(named, (first + 1..last).step_by(2).collect::<Vec<_>>());
    place.close().await;
}

#[tokio::test]
async fn trades_that_are_stamped_late_or_counted_anew_are_not_missing() {
    let place = Place::new("okx", options()).await;
    let last = place.latest() - 2_000;
    place.store(last - 500..=last).await;
    // One of them bears a time far from its neighbours'; then the exchange begins to count at 1.
    let odd = format!(
        "UPDATE tick_data SET time = time + interval '20 s' WHERE trade_id = '{}'",
        last - 400
    );
    place.pool().execute(sqlx::AssertSqlSafe(odd)).await.unwrap();
    let anew = "INSERT INTO tick_data SELECT max(time) + (70 + n) * interval '1 s', max(time), 'okx', 'BTCUSDT', n::text, \
                'buy', 1, 1, 'live' FROM tick_data, generate_series(1, 50) AS n WHERE n <> 25 GROUP BY n";
    place.pool().execute(anew).await.unwrap();
    let mut pipeline = place.pipeline("one");
    place.audit(&mut pipeline);
    place.until_checked(50).await;
    pipeline.stop().await;
    let gaps = place.gaps().await;
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0].0.as_deref(), Some("25"));
    place.close().await;
}

#[tokio::test]
async fn a_bogus_id_and_a_row_with_a_wrong_time_show_no_gap_and_stop_no_look() {
    let place = Place::new("binance", options()).await;
    let last = place.latest() - 2_000;
    place.store((last - 900..=last).filter(|id| *id != last - 50)).await;
    // One is stored hours away from its neighbours, and two bogus ids are stored among the others.
    let odd = format!(
        "UPDATE tick_data SET time = time + interval '4 hours' WHERE trade_id = '{}'",
        last - 400
    );
    place.pool().execute(sqlx::AssertSqlSafe(odd)).await.unwrap();
    let bogus = format!(
        "INSERT INTO tick_data SELECT time + interval '1 ms', received_at, exchange, symbol, bogus, side, price, quantity, \
             source FROM tick_data, unnest('{{1000000000000000,{}}}'::text[]) AS bogus WHERE trade_id = '{}'",
        last + 100_000,
        last - 300
    );
    place.pool().execute(sqlx::AssertSqlSafe(bogus)).await.unwrap();
    let mut pipeline = place.pipeline("one");
    place.audit(&mut pipeline);
    place.until_checked(last).await;
    pipeline.stop().await;
    let gaps = place.gaps().await;
    let ids: Vec<_> = gaps.iter().map(|(id, ..)| id.clone()).collect();
    assert_eq!(ids, [Some((last - 50).to_string())], "and what is missing is found");
    place.close().await;
}

#[tokio::test]
async fn a_repaired_gap_whose_trades_are_gone_again_is_opened_again() {
    let place = Place::new("coinbase", options()).await;
    let last = place.latest() - 2_000;
    place.store([last - 20, last]).await;
    place.gap(last - 19, last - 1).await;
    place
        .pool()
        .execute("UPDATE tick_gaps SET status = 'repaired', closed_at = now()")
        .await
        .unwrap();
    let mut repairing = place.repair("one");
    place.audit(&mut repairing);
    place.until("SELECT count(*) = 21 FROM tick_data").await;
    assert_eq!(place.closed().await, ["repaired"]);
    repairing.stop().await;
    place.close().await;
}
