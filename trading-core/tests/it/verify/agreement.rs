//! A plain reading in SQL, which shares nothing with `verify`, comes to the same numbers on a table that was damaged at
//! random.

use sqlx::PgPool;
use trading_core::domain::Timestamp;

use super::Recorded;

/// Repeats a run, when it stands in the environment.
pub(super) const SEED: &str = "TRADING_CORE_VERIFY_SEED";
const ROUNDS: u64 = 5;

/// The next of a row of numbers that only the seed decides (splitmix64).
pub(super) fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// The seed of the environment, or another one each time.
pub(super) fn first_seed() -> u64 {
    let given = trading_core::config::environment().get(SEED).map(|seed| seed.parse().unwrap());
    let clock = u64::try_from(Timestamp::now().as_micros()).unwrap();
    given.unwrap_or(clock)
}

async fn damage(recorded: &Recorded, random: &mut u64) {
    let (first, last) = (
        recorded.id_at("binance", "BTCUSDT", 0).await,
        recorded.id_at("binance", "BTCUSDT", 1_000).await,
    );
    let condition = "exchange = 'binance' AND symbol = 'BTCUSDT'";
    for step in 0..12_u64 {
        let id = first + next(random) % (last - first);
        let len = 1 + next(random) % 40;
        let sql = match next(random) % 4 {
            0 | 1 => format!(
                "DELETE FROM tick_data WHERE {condition} AND trade_id::bigint BETWEEN {id} AND {id} + {len}"
            ),
            2 => format!(
                "INSERT INTO tick_data SELECT time + interval '{len} microseconds', received_at, exchange, symbol, trade_id, \
                     side, price, quantity, source \
                 FROM tick_data WHERE {condition} AND trade_id::bigint BETWEEN {id} AND {id} + {len} ON CONFLICT DO NOTHING"
            ),
            // Far from everything, and far from the end, where there is nothing after it to say that it is wrong.
            _ => format!(
                "UPDATE tick_data SET trade_id = '{}' WHERE {condition} AND trade_id::bigint = {id} \
                     AND time < (SELECT max(time) FROM tick_data) - interval '12 hours'",
                900_000_000_000 + step * 1_000
            ),
        };
        recorded.run(sql).await;
        if next(random).is_multiple_of(2) {
            let status = ["open", "unrecoverable", "not_a_loss", "repaired"]
                [usize::try_from(next(random) % 4).unwrap()];
            let closed = if status == "open" { "NULL" } else { "now()" };
            let (from, to) = (id.saturating_sub(next(random) % 20), id + next(random) % 30);
            recorded
                .run(format!(
                    "INSERT INTO tick_gaps (exchange, symbol, first_id, last_id, from_time, to_time, cause, status, closed_at) \
                     VALUES ('binance', 'BTCUSDT', '{from}', '{to}', '{}', '{}', 'test', '{status}', {closed}) \
                     ON CONFLICT DO NOTHING",
                    recorded.begin, recorded.end()
                ))
                .await;
        }
    }
}

/// Rows too many, rows with ids of another time, and the missing ids: in no way listed, open, unrecoverable, said to be
/// repaired, never issued; what is listed counts also before the first stored trade and after the last.
type Counts = (i64, i64, i64, i64, i64, i64, i64);

async fn plain_reading(pool: &PgPool) -> Counts {
    sqlx::query_as(
        "WITH ticks AS ( \
             SELECT trade_id::bigint AS id, time FROM tick_data WHERE exchange = 'binance' AND symbol = 'BTCUSDT' \
         ), strays AS ( \
             SELECT id FROM ticks AS one WHERE (SELECT count(*) FROM ticks AS later \
                 WHERE later.time > one.time + interval '1 second' AND later.id < one.id) > 100 \
         ), good AS ( \
             SELECT id FROM ticks WHERE id NOT IN (SELECT id FROM strays) \
         ), missing AS ( \
             (SELECT generate_series((SELECT min(id) FROM good), (SELECT max(id) FROM good)) AS id \
             UNION SELECT generate_series(first_id::bigint, last_id::bigint) FROM tick_gaps) \
             EXCEPT SELECT id FROM good \
         ), told AS ( \
             SELECT id, (SELECT max(CASE status WHEN 'open' THEN 4 WHEN 'unrecoverable' THEN 3 WHEN 'not_a_loss' THEN 2 ELSE 1 END) \
                 FROM tick_gaps WHERE missing.id BETWEEN first_id::bigint AND last_id::bigint) AS weight FROM missing \
         ) \
         SELECT (SELECT count(*) - count(DISTINCT id) FROM good), (SELECT count(*) FROM strays), \
             count(*) FILTER (WHERE weight IS NULL), count(*) FILTER (WHERE weight = 4), \
             count(*) FILTER (WHERE weight = 3), count(*) FILTER (WHERE weight = 1), count(*) FILTER (WHERE weight = 2) \
         FROM told",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_plain_reading_of_a_table_damaged_at_random_says_the_same() {
    let first_seed = first_seed();
    for seed in first_seed..first_seed + ROUNDS {
        let mut random = seed;
        let recorded = Recorded::new(10).await;
        damage(&recorded, &mut random).await;
        let report = recorded.verify().await;
        let symbol = &report.symbols[0];
        let number = |count: u64| i64::try_from(count).unwrap();
        let strays = report.counts.get(&trading_core::verify::Kind::AgainstTime);
        let missing = symbol.missing;
        let found: Counts = (
            number(symbol.duplicates),
            number(strays.copied().unwrap_or_default()),
            number(missing.unlisted),
            number(missing.open),
            number(missing.unrecoverable),
            number(missing.repaired),
            number(missing.not_a_loss),
        );
        let plain = plain_reading(&recorded.database.pool).await;
        assert_eq!(found, plain, "{SEED}={seed} repeats it\n{report}");
        let others = report.symbols.iter().skip(1).all(|other| other.complete);
        assert!(others && !symbol.complete, "{SEED}={seed}\n{report}");
    }
}
