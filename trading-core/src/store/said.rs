//! What a database said, in words for people: the one place where errors of the driver become text.
//!
//! The driver's own text ends with a line number of PostgreSQL's C source, which reads like one of a user's file, and
//! leaves out what the server adds: details, hints. A missing right is said with the GRANT that gives it.

use std::error::Error;
use std::fmt;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

use crate::domain::{Lines, escaped};

/// An error as it is shown. Made by [`said`].
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    error: &'a (dyn Error + 'static),
    cures: bool,
}

/// An error as it is shown: that of a database in its own words, any other as it says itself.
#[must_use]
pub fn said<'a>(error: &'a (dyn Error + 'static)) -> Said<'a> {
    Said { error, cures: true }
}

/// What is behind an error, as a field of a line of the log: what a database said is said in its own words.
#[must_use]
pub fn cause_of(error: &dyn Error) -> Option<tracing::field::DisplayValue<Said<'_>>> {
    error.source().map(|source| tracing::field::display(said(source)))
}

impl Said<'_> {
    /// Without what could be done about it, where that is said already.
    #[must_use]
    pub const fn without_cure(self) -> Self {
        Self { cures: false, ..self }
    }
}

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(error) = self.error.downcast_ref::<sqlx::Error>() {
            return self.driver(error, f);
        }
        if let Some(refusal) = self.error.downcast_ref::<Box<dyn DatabaseError>>() {
            return self.server(&**refusal, f);
        }
        // Some errors repeat their cause in their own text.
        let text = self.error.to_string();
        match self.error.source() {
            Some(cause) => {
                let its_own = cause.to_string();
                let shown = Self { error: cause, ..*self }.to_string();
                if its_own.is_empty() || its_own == shown {
                    return f.write_str(&text);
                }
                f.write_str(&text.replace(&its_own, &shown))
            }
            None => f.write_str(&text),
        }
    }
}

impl Said<'_> {
    fn driver(self, error: &sqlx::Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match error {
            sqlx::Error::Database(refusal) => self.server(&**refusal, f),
            sqlx::Error::Io(error) => write!(f, "{error}"),
            sqlx::Error::Tls(error) => write!(f, "TLS: {error}"),
            sqlx::Error::PoolTimedOut => f.write_str("no connection to it became free in time"),
            sqlx::Error::PoolClosed => f.write_str("its connections are closed already"),
            other => write!(f, "{other}"),
        }
    }

    fn server(self, refusal: &dyn DatabaseError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(refusal.message())?;
        let about = refusal.try_downcast_ref::<PgDatabaseError>();
        let more = about.into_iter().flat_map(|it| [it.detail(), it.hint()]).flatten();
        for more in more {
            write!(f, " ({more})")?;
        }
        if self.cures
            && refusal.code().as_deref() == Some("42501")
            && let Some(cure) = cure(refusal.message())
        {
            write!(f, " ({cure})")?;
        }
        Ok(())
    }
}

/// The GRANT that gives a right which the server names as missing.
fn cure(message: &str) -> Option<String> {
    let (kind, name) = message.strip_prefix("permission denied for ")?.split_once(' ')?;
    Some(match kind {
        "table" | "view" | "relation" => format!(
            "its owner lets this user read with GRANT SELECT ON {name} TO …; to record, INSERT, UPDATE, DELETE are needed too"
        ),
        "schema" => format!("its owner lets this user in with GRANT USAGE ON SCHEMA {name} TO …"),
        "database" => {
            format!("its owner lets this user in with GRANT CONNECT ON DATABASE {name} TO …")
        }
        "sequence" => format!("its owner gives the right with GRANT USAGE ON SEQUENCE {name} TO …"),
        "function" => {
            format!("its owner gives the right with GRANT EXECUTE ON FUNCTION {name} TO …")
        }
        _ => return None,
    })
}

/// An error with the causes behind it. Causes are words of others, each on one line; our own text may have several.
#[must_use]
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = said(error).to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let (its_own, words) = (cause.to_string(), said(cause));
        let words = if text.contains("GRANT ") { words.without_cure() } else { words };
        let shown = words.to_string();
        let shown = escaped(&shown, Lines::One);
        // Some errors repeat their cause in their own text.
        let is_replaced =
            !its_own.is_empty() && its_own != *shown && text.contains(its_own.as_str());
        if is_replaced {
            text = text.replace(&its_own, &shown);
        }
        // Only at the end is it surely the cause: a short one may be part of any word.
        let with_cure = said(cause).to_string();
        let is_said = text.ends_with(&*shown) || text.ends_with(&*escaped(&with_cure, Lines::One));
        if !is_replaced && !is_said {
            text.push_str(": ");
            text.push_str(&shown);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_is_said_with_the_grant_that_gives_it() {
        for (message, part) in [
            ("permission denied for table tick_data", "GRANT SELECT ON tick_data TO"),
            ("permission denied for view open_gaps", "GRANT SELECT ON open_gaps TO"),
            ("permission denied for schema public", "GRANT USAGE ON SCHEMA public TO"),
            ("permission denied for database \"a b\"", "GRANT CONNECT ON DATABASE \"a b\" TO"),
            ("permission denied for sequence s", "GRANT USAGE ON SEQUENCE s TO"),
            ("permission denied for function f", "GRANT EXECUTE ON FUNCTION f TO"),
        ] {
            assert!(cure(message).unwrap().contains(part), "{message}");
        }
        assert_eq!(cure("permission denied to create role"), None);
        assert_eq!(cure("keine Berechtigung für Tabelle tick_data"), None);
    }

    #[derive(Debug, thiserror::Error)]
    enum Ours {
        #[error("the ticks cannot be read")]
        Apart(#[source] sqlx::Error),
        #[error("it said {0}")]
        Repeats(#[source] sqlx::Error),
        #[error(transparent)]
        Same(sqlx::Error),
    }

    #[test]
    fn what_the_driver_says_is_said_once_and_for_people() {
        let refused = || sqlx::Error::Io(std::io::Error::other("Connection refused"));
        assert_eq!(said(&refused()).to_string(), "Connection refused");
        assert_eq!(
            with_causes(&Ours::Apart(refused())),
            "the ticks cannot be read: Connection refused"
        );
        assert_eq!(with_causes(&Ours::Repeats(refused())), "it said Connection refused");
        let short = sqlx::Error::Io(std::io::Error::other("ticks"));
        assert_eq!(with_causes(&Ours::Apart(short)), "the ticks cannot be read: ticks");
        let same = with_causes(&Ours::Same(sqlx::Error::PoolTimedOut));
        assert!(same.contains("pool timed out"), "{same}");
        assert_eq!(
            said(&sqlx::Error::PoolTimedOut).to_string(),
            "no connection to it became free in time"
        );
    }
}
