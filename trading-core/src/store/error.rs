//! What can go wrong with a store, sorted by what to do about it.

use std::time::Duration;

/// A write that failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The server is away, or has no room or time for us now.
    #[error("the database cannot take the batch now")]
    Away(#[source] sqlx::Error),
    /// No answer for so long that the connection was given up.
    #[error("the database has not answered for {} s", .0.as_secs())]
    Silent(Duration),
    /// The server refused the values of a row.
    #[error("the database refused a row")]
    Refused(#[source] sqlx::Error),
    /// The server's tables or our rights are not what they must be.
    #[error("the database is not set up for writing ticks")]
    Unusable(#[source] sqlx::Error),
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// It can pass: write again later.
    Retry,
    /// It will not pass: find the rows that are refused and set them aside.
    Reject,
    /// A person must act; until then the batch is kept.
    Stop,
}

impl StoreError {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Away(_) | Self::Silent(_) => Remedy::Retry,
            Self::Refused(_) => Remedy::Reject,
            Self::Unusable(_) => Remedy::Stop,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(refusal) => match remedy_of(refusal.code().as_deref()) {
                Remedy::Retry => Self::Away(error),
                Remedy::Reject => Self::Refused(error),
                Remedy::Stop => Self::Unusable(error),
            },
            sqlx::Error::Encode(_) => Self::Refused(error),
            sqlx::Error::Configuration(_) | sqlx::Error::Migrate(_) => Self::Unusable(error),
            _ => Self::Away(error),
        }
    }
}

/// The remedy for an SQLSTATE, by class unless a code of its own is listed.
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn remedy_of(sqlstate: Option<&str>) -> Remedy {
    let Some(code) = sqlstate else { return Remedy::Retry };
    match (code.get(..2).unwrap_or_default(), code) {
        // A value of a row: data exception, constraint violation, more than an index or a row can hold.
        ("22" | "23" | "54", _) => Remedy::Reject,
        // Connection, rolled back (serialization, deadlock), resources, lock or state, operator, system.
        ("08" | "40" | "53" | "55" | "57" | "58", _) => Remedy::Retry,
        // A server that is switching over or was restored read-only.
        (_, "25006") => Remedy::Retry,
        _ => Remedy::Stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sqlstate_has_its_remedy() {
        let table = [
            ("08006", Remedy::Retry),  // connection_failure
            ("57P01", Remedy::Retry),  // admin_shutdown
            ("57P03", Remedy::Retry),  // cannot_connect_now
            ("53300", Remedy::Retry),  // too_many_connections
            ("53100", Remedy::Retry),  // disk_full
            ("40001", Remedy::Retry),  // serialization_failure
            ("40P01", Remedy::Retry),  // deadlock_detected
            ("55P03", Remedy::Retry),  // lock_not_available
            ("57014", Remedy::Retry),  // query_canceled (statement_timeout)
            ("25006", Remedy::Retry),  // read_only_sql_transaction
            ("58030", Remedy::Retry),  // io_error
            ("22021", Remedy::Reject), // character_not_in_repertoire
            ("22003", Remedy::Reject), // numeric_value_out_of_range
            ("23514", Remedy::Reject), // check_violation
            ("23502", Remedy::Reject), // not_null_violation
            ("54000", Remedy::Reject), // program_limit_exceeded (index row too large)
            ("42P01", Remedy::Stop),   // undefined_table
            ("42501", Remedy::Stop),   // insufficient_privilege
            ("28P01", Remedy::Stop),   // invalid_password
            ("3D000", Remedy::Stop),   // invalid_catalog_name
        ];
        for (code, remedy) in table {
            assert_eq!(remedy_of(Some(code)), remedy, "{code}");
        }
    }
}
