//! What can end paper trading. Recording goes on in every case.

use super::strategy::Problem;
use crate::domain::InstrumentError;
use crate::store::{Remedy, postgres};

/// Why paper trading stopped.
#[derive(Debug, thiserror::Error)]
pub enum PaperError {
    /// Settings that [`super::check`] would have refused.
    #[error("settings that paper trading cannot work with: {}", keys(.0))]
    Settings(Vec<Problem>),
    /// A stored account that is not the one of the settings.
    #[error(
        "account {account} is stored with {what} {stored}, the settings say {configured}: \
         give the strategy another name"
    )]
    OtherAccount {
        /// The strategy's name.
        account: String,
        /// What differs.
        what: &'static str,
        /// As stored.
        stored: String,
        /// As configured.
        configured: String,
    },
    /// The database could not be asked, or refused.
    #[error("ticks or paper tables could not be {action}")]
    Database {
        /// `read` or `written`.
        action: &'static str,
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },
    /// A stored value that this program never writes.
    #[error("account {account} is stored with a value that cannot be: {what}")]
    Corrupt {
        /// The account.
        account: String,
        /// Which value.
        what: String,
    },
    /// A stored tick that this program never writes.
    #[error("a tick is stored with a value that cannot be: {what}")]
    CorruptTick {
        /// Which value.
        what: String,
    },
    /// Another process writes the same accounts.
    #[error(
        "account {account} was changed by another process: run paper trading once per database"
    )]
    Taken {
        /// The account.
        account: String,
    },
    /// The database stayed away until the end of the run, or did not get the ticks that the rows are about.
    #[error("{rows} rows of paper trading were not stored: the next run goes on from before them")]
    NotStored {
        /// How many.
        rows: usize,
        /// What the database said last; nothing where the ticks are not stored.
        #[source]
        source: Option<Box<PaperError>>,
    },
    /// More instruments than the process can know.
    #[error(transparent)]
    Instruments(#[from] InstrumentError),
    /// The thread of the strategies could not be started.
    #[error("the thread of the strategies could not be started")]
    Thread(#[source] std::io::Error),
    /// A strategy panicked.
    #[error("a strategy panicked")]
    Panicked,
}

impl PaperError {
    /// What to do about it: try again where the database is away; everything else ends paper trading.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Database { source, .. } if is_away(source) => Remedy::Retry,
            _ => Remedy::Stop,
        }
    }
}

/// Whether the database was away, or had no room or time. A value that cannot be read stays as it is, and a pool that was
/// closed will not open again.
fn is_away(error: &sqlx::Error) -> bool {
    let of_the_server = matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::BeginFailed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Database(_)
    );
    of_the_server && postgres::remedy(error) == Remedy::Retry
}

fn keys(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("{} = {}: {}", problem.key, problem.value, problem.allowed))
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_away_is_tried_again_and_what_will_not_pass_ends_paper_trading() {
        let remedy = |source| PaperError::Database { action: "read", source }.remedy();
        for passing in [
            sqlx::Error::PoolTimedOut,
            sqlx::Error::WorkerCrashed,
            sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()),
        ] {
            assert_eq!(remedy(passing), Remedy::Retry);
        }
        for lasting in [
            sqlx::Error::PoolClosed,
            sqlx::Error::RowNotFound,
            sqlx::Error::ColumnNotFound("cash".to_owned()),
        ] {
            assert_eq!(remedy(lasting), Remedy::Stop);
        }
        assert_eq!(PaperError::Panicked.remedy(), Remedy::Stop);
    }
}
