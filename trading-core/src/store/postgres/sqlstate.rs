//! What to do about an error of PostgreSQL, by its SQLSTATE.

use std::time::Duration;

use crate::store::{Remedy, StoreError};

/// A statement of a write that failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server or the connection to it refused.
    Database(sqlx::Error),
    /// No answer for this long.
    Silent(Duration),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl<R> From<Failure> for StoreError<R> {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Silent(waited) => Self::Silent(waited),
            Failure::Database(error) => match remedy(&error) {
                Remedy::Retry => Self::Away(error.into()),
                Remedy::Reject => Self::Refused(error.into()),
                Remedy::Stop => Self::Unusable(error.into()),
            },
        }
    }
}

/// What to do about an error of the database.
#[must_use]
pub fn remedy(error: &sqlx::Error) -> Remedy {
    match error {
        sqlx::Error::Database(refusal) => remedy_of(refusal.code().as_deref()),
        sqlx::Error::Encode(_) => Remedy::Reject,
        sqlx::Error::Configuration(_) | sqlx::Error::Migrate(_) => Remedy::Stop,
        _ => Remedy::Retry,
    }
}

/// The remedy for an SQLSTATE, by class.
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn remedy_of(sqlstate: Option<&str>) -> Remedy {
    let Some(code) = sqlstate else { return Remedy::Retry };
    match code.get(..2).unwrap_or_default() {
        // A value of a row: data exception, constraint violation, more than an index or a row can hold.
        "22" | "23" | "54" => Remedy::Reject,
        // Connection, state of the transaction (a server that is switching over or was restored is read-only), rolled
        // back (serialization, deadlock), resources, lock or state, operator, system.
        "08" | "25" | "40" | "53" | "55" | "57" | "58" => Remedy::Retry,
        _ => Remedy::Stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_tried_again() {
        for code in [
            "08000", // connection_exception
            "08001", // sqlclient_unable_to_establish_sqlconnection
            "08003", // connection_does_not_exist
            "08004", // sqlserver_rejected_establishment_of_sqlconnection
            "08006", // connection_failure
            "08007", // transaction_resolution_unknown
            "08P01", // protocol_violation
            "25006", // read_only_sql_transaction
            "25P02", // in_failed_sql_transaction
            "25P03", // idle_in_transaction_session_timeout
            "40000", // transaction_rollback
            "40001", // serialization_failure
            "40003", // statement_completion_unknown
            "40P01", // deadlock_detected
            "53000", // insufficient_resources
            "53100", // disk_full
            "53200", // out_of_memory
            "53300", // too_many_connections
            "53400", // configuration_limit_exceeded
            "55000", // object_not_in_prerequisite_state
            "55006", // object_in_use
            "55P03", // lock_not_available
            "57000", // operator_intervention
            "57014", // query_canceled (statement_timeout)
            "57P01", // admin_shutdown
            "57P02", // crash_shutdown
            "57P03", // cannot_connect_now
            "57P04", // database_dropped
            "57P05", // idle_session_timeout
            "58000", // system_error
            "58030", // io_error
            "58P01", // undefined_file
        ] {
            assert_eq!(remedy_of(Some(code)), Remedy::Retry, "{code}");
        }
        assert_eq!(remedy_of(None), Remedy::Retry, "no answer of the server's");
    }

    #[test]
    fn a_row_that_is_refused_is_set_aside() {
        for code in [
            "22000", // data_exception
            "22001", // string_data_right_truncation
            "22003", // numeric_value_out_of_range
            "22008", // datetime_field_overflow
            "22021", // character_not_in_repertoire
            "22P02", // invalid_text_representation
            "22P03", // invalid_binary_representation
            "22P05", // untranslatable_character
            "23000", // integrity_constraint_violation
            "23502", // not_null_violation
            "23503", // foreign_key_violation
            "23505", // unique_violation, of an index that is not ours
            "23514", // check_violation, and no partition for the row
            "54000", // program_limit_exceeded (index row too large)
        ] {
            assert_eq!(remedy_of(Some(code)), Remedy::Reject, "{code}");
        }
    }

    #[test]
    fn what_a_person_must_mend_is_neither() {
        for code in [
            "0A000", // feature_not_supported
            "28000", // invalid_authorization_specification
            "28P01", // invalid_password
            "3D000", // invalid_catalog_name
            "3F000", // invalid_schema_name
            "42501", // insufficient_privilege
            "42601", // syntax_error
            "42703", // undefined_column
            "42804", // datatype_mismatch
            "42883", // undefined_function
            "42P01", // undefined_table
            "F0000", // config_file_error
            "P0001", // raise_exception: a trigger that somebody made
            "XX000", // internal_error
            "XX001", // data_corrupted
            "XX002", // index_corrupted
        ] {
            assert_eq!(remedy_of(Some(code)), Remedy::Stop, "{code}");
        }
    }
}
