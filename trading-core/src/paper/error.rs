//! What can end paper trading. Recording goes on in every case.

use super::strategy::Problem;
use crate::domain::InstrumentError;

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

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// It can pass: try again.
    Retry,
    /// It cannot: paper trading ends.
    Stop,
}

impl PaperError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Database { source, .. } => database_remedy(source),
            Self::Settings(_)
            | Self::OtherAccount { .. }
            | Self::Corrupt { .. }
            | Self::CorruptTick { .. }
            | Self::Taken { .. }
            | Self::NotStored { .. }
            | Self::Instruments(_)
            | Self::Thread(_)
            | Self::Panicked => Remedy::Stop,
        }
    }
}

fn database_remedy(error: &sqlx::Error) -> Remedy {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::BeginFailed
        | sqlx::Error::WorkerCrashed => Remedy::Retry,
        // Connection lost, rolled back by a conflict, out of resources, locked, stopped by an operator, system
        // error, read-only while it switches over:
        // https://www.postgresql.org/docs/current/errcodes-appendix.html
        sqlx::Error::Database(refusal) => match refusal.code() {
            Some(code)
                if matches!(code.get(..2), Some("08" | "40" | "53" | "55" | "57" | "58"))
                    || code == "25006" =>
            {
                Remedy::Retry
            }
            _ => Remedy::Stop,
        },
        _ => Remedy::Stop,
    }
}

fn keys(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("{} = {}: {}", problem.key, problem.value, problem.allowed))
        .collect::<Vec<_>>()
        .join("; ")
}
