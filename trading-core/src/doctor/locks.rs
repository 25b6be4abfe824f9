//! Whether the server has room for the locks of a query over all days.

use sqlx::postgres::PgConnection;

use super::Check;

const AREA: &str = "database";
/// Of each day a query over all of them locks the table and its index.
const LOCKS_PER_DAY: i64 = 2;
/// What `live` and a few other sessions lock beside it.
const OTHER_LOCKS: i64 = 500;
/// With fewer days nothing is reported yet.
const DAYS_TELLING: i64 = 100;
/// What the embedded server is given, and is enough for decades of days.
const ENOUGH: i64 = 1_024;

/// Looks how many days there are, and for how many locks the server has room.
pub(super) async fn check(connection: &mut PgConnection) -> Result<Option<Check>, sqlx::Error> {
    let (days, room, sessions): (i64, i64, i64) = sqlx::query_as(
        "WITH settings AS (SELECT current_setting('max_locks_per_transaction')::bigint AS locks, \
             current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint AS sessions) \
         SELECT (SELECT count(*) FROM pg_inherits WHERE inhparent = 'tick_data'::regclass), locks * sessions, sessions \
         FROM settings",
    )
    .fetch_one(connection)
    .await?;
    Ok(judge(days, room, sessions))
}

/// Says so before the room is used up: a year of days ahead.
fn judge(days: i64, room: i64, sessions: i64) -> Option<Check> {
    let needed = |days: i64| days.saturating_mul(LOCKS_PER_DAY).saturating_add(OTHER_LOCKS);
    if days < DAYS_TELLING || needed(days.saturating_add(365)) <= room {
        return None;
    }
    let found = format!(
        "tick_data has {days} days: a query over all of them takes {} locks, and the server has room for about {room}",
        needed(days)
    );
    let wanted = needed(days.saturating_mul(2)).div_euclid(sessions.max(1)).saturating_add(1);
    let remedy = format!(
        "set max_locks_per_transaction to {} in postgresql.conf and restart PostgreSQL, or give queries a range of time",
        wanted.max(ENOUGH)
    );
    Some(Check::warn(AREA, found, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn room_for_the_locks_is_asked_for_a_year_before_it_is_used_up() {
        assert_eq!(judge(1_000, 64 * 60, 60), None, "five years more");
        let check = judge(1_400, 64 * 60, 60).unwrap();
        assert_eq!(check.level, Level::Warn);
        assert!(
            check.found.contains("1400 days") && check.found.contains("3300 locks"),
            "{check:?}"
        );
        assert!(check.remedy.unwrap().contains("max_locks_per_transaction to 1024"));
        assert_eq!(judge(5_000, 1_024 * 60, 60), None);
        let many = judge(100_000, 64 * 60, 60).unwrap();
        assert!(many.remedy.unwrap().contains("max_locks_per_transaction to 6676"));
    }
}
