//! Days and rights: a schema may belong to somebody else, who makes the days and drops them.

use sqlx::PgConnection;
use sqlx::types::chrono::NaiveDate;

/// Days that must be there from today on, today among them.
const DAYS_AHEAD: i32 = 3;

/// What days are there, and who may change that.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Days {
    /// The user may make the partition of a day.
    pub may_make: bool,
    /// The user may drop one.
    pub may_drop: bool,
    /// Whether today's is there.
    pub has_today: bool,
    /// From today on, how many days in a row are there.
    pub ahead: i32,
    /// The last of them.
    pub until: NaiveDate,
    /// The schema of the tables.
    pub schema: String,
    /// Who asks.
    pub user: String,
    /// Who owns the ticks.
    pub owner: String,
}

/// Asks for them.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub async fn days(connection: &mut PgConnection) -> Result<Days, sqlx::Error> {
    // A day is there where some partition takes its noon, whatever it is called.
    sqlx::query_as(
        "WITH ticks AS (SELECT pg_class.oid, nspname::text AS schema, relowner, relnamespace \
             FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE pg_class.oid = 'tick_data'::regclass), \
         bounds AS (SELECT pg_get_expr(relpartbound, child.oid) AS bound FROM pg_inherits \
             JOIN pg_class AS child ON child.oid = inhrelid, ticks WHERE inhparent = ticks.oid), \
         ranges AS (SELECT (regexp_match(bound, $$FROM \\('([^']+)'\\)$$))[1]::timestamptz AS low, \
             (regexp_match(bound, $$TO \\('([^']+)'\\)$$))[1]::timestamptz AS high FROM bounds), \
         wanted AS (SELECT number, (now() AT TIME ZONE 'UTC')::date + number AS day \
             FROM generate_series(0, 400) AS number), \
         missing AS (SELECT min(number) AS first FROM wanted WHERE NOT EXISTS (SELECT FROM ranges \
             WHERE (day + time '12:00') AT TIME ZONE 'UTC' BETWEEN low AND high)), \
         ahead AS (SELECT coalesce(first, 400) AS ahead FROM missing) \
         SELECT pg_has_role(relowner, 'USAGE') AND has_schema_privilege(relnamespace, 'CREATE') \
                 OR coalesce((SELECT bool_or(prosecdef) FROM pg_proc \
                     WHERE pronamespace = relnamespace AND proname = 'ensure_tick_partition'), false) AS may_make, \
             pg_has_role(relowner, 'USAGE') AS may_drop, ahead > 0 AS has_today, ahead, \
             (now() AT TIME ZONE 'UTC')::date + greatest(ahead - 1, 0) AS until, \
             schema, current_user::text AS \"user\", pg_get_userbyid(relowner)::text AS owner FROM ticks, ahead",
    )
    .fetch_one(connection)
    .await
}

impl Days {
    /// What is wrong with them, and what to do about it; `None`: the user makes them, or enough are there.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if self.may_make || self.ahead >= DAYS_AHEAD {
            return None;
        }
        let Self { user, schema, owner, until, .. } = self;
        let there = if self.has_today {
            format!("the days of tick_data end with {until}")
        } else {
            "today's partition of tick_data is missing, and ticks wait in the spool until it is there".to_owned()
        };
        Some(format!(
            "{there}, and user {user} may not make more: let {owner} run SELECT ensure_tick_partition(current_date + n) \
             FROM generate_series(0, 7) n every day, or GRANT {owner} TO {user} and CREATE ON SCHEMA {schema}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_who_may_not_make_days_is_told_when_they_end() {
        let days = Days {
            may_make: false,
            may_drop: false,
            has_today: true,
            ahead: 3,
            until: NaiveDate::from_ymd_opt(2026, 11, 29).unwrap(),
            schema: "public".to_owned(),
            user: "recorder".to_owned(),
            owner: "dba".to_owned(),
        };
        assert_eq!(days.problem(), None);
        let ending = Days { ahead: 2, ..days.clone() }.problem().unwrap();
        assert!(
            ending.contains("end with 2026-11-29") && ending.contains("let dba run"),
            "{ending}"
        );
        let none = Days { ahead: 0, has_today: false, ..days.clone() };
        assert!(none.problem().unwrap().contains("today's partition"), "{none:?}");
        assert_eq!(Days { may_make: true, ..none }.problem(), None);
    }
}
