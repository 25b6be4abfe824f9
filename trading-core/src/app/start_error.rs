//! Why a command cannot start: the settings, the database, the spool or the exchanges are not as it needs them.

use std::path::PathBuf;

use sqlx::migrate::MigrateError;

use super::market_hours::HoursError;
use super::mixed::MixedTrades;
use super::venues::VenueError;
use crate::config::{ServerUrlError, Settings};
use crate::simulator::SimulatorError;
use crate::store::embedded::EmbeddedError;
use crate::store::postgres::maintenance::MaintenanceError;
use crate::store::postgres::origin::OriginError;
use crate::store::postgres::pooler::Pooler;
use crate::store::postgres::{is_away, refusal};
use crate::store::spool::SpoolError;

/// There is no database yet.
#[derive(Debug, thiserror::Error)]
pub enum NothingRecorded {
    /// Neither of the two, or not the one that was asked for and the other cannot be read.
    #[error("nothing is recorded in {} yet: `trading-core {}` begins", folder.display(), begins(*simulated))]
    Here {
        /// Where it would be.
        folder: PathBuf,
        /// Which of the two.
        simulated: bool,
    },
    /// Only that of the simulated market.
    #[error(
        "nothing of real exchanges is recorded in {} yet: `trading-core live` begins. There is the database of the \
         simulated market:\n  trading-core {command} --simulated",
        folder.display()
    )]
    OnlySimulated {
        /// Where the other one would be.
        folder: PathBuf,
        /// As it is typed.
        command: &'static str,
    },
    /// Only that of the real exchanges.
    #[error(
        "nothing of a simulated market is recorded in {} yet: `trading-core live --simulate` begins. There is the other \
         database, in {}:\n  trading-core {command}",
        folder.display(), other.display()
    )]
    OnlyReal {
        /// Where that of the simulated market would be.
        folder: PathBuf,
        /// Where this one is.
        other: PathBuf,
        /// As it is typed.
        command: &'static str,
    },
}

const fn begins(simulated: bool) -> &'static str {
    if simulated { "live --simulate" } else { "live" }
}

/// Why a command cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No signals can be listened for.
    #[error("signals cannot be listened for")]
    Signals(#[source] std::io::Error),
    /// The settings name an unknown exchange.
    #[error(transparent)]
    Venue(#[from] VenueError),
    /// The simulated exchanges cannot be served.
    #[error(transparent)]
    Simulator(#[from] SimulatorError),
    /// The simulated market's hours cannot be kept.
    #[error(transparent)]
    Hours(#[from] HoursError),
    /// No simulated exchanges are served there.
    #[error(
        "no simulated exchanges are at {address} ({reason}): `trading-core simulate` serves them, and says where"
    )]
    NoSimulator {
        /// The address that was given.
        address: String,
        /// What is there instead.
        reason: String,
    },
    /// The database holds trades of the market that `live --simulate` makes, which was closed at times.
    #[error(
        "the simulated database holds trades of the market that `live --simulate` makes and that is closed while nobody records \
         it; the one at {0} was open all the time, and has other trades. To record that one, throw the others away with \
         `trading-core db remove --simulated`, or set another TRADING_CORE__DATABASE__DATA_DIR"
    )]
    OtherHours(String),
    /// There is no database yet.
    #[error(transparent)]
    NothingRecorded(#[from] NothingRecorded),
    /// The embedded database does not run.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The URL of the database is none.
    #[error("database.url: {0}")]
    Url(#[from] ServerUrlError),
    /// A pooler between us and the database keeps no sessions.
    #[error("the database at {url}: {pooler}")]
    Pooler {
        /// The URL, without its password.
        url: String,
        /// What it does.
        pooler: Pooler,
    },
    /// The database of this address is not the one that ticks were spooled for.
    #[error(
        "the database is not the one that ticks are spooled for ({spooled}): correct database.url, or, if that one is gone for \
         good, `trading-core spool drain --adopt {}` stores them here",
        spool_id(spooled)
    )]
    Another {
        /// What names the one that they are spooled for.
        spooled: String,
    },
    /// The database cannot be reached.
    #[error("the database at {url} {}", refusal(error))]
    Database {
        /// The URL, without its password.
        url: String,
        /// Its answer.
        #[source]
        error: sqlx::Error,
    },
    /// The database holds trades of another kind, and what to type.
    #[error("{0}")]
    Mixed(Box<MixedTrades>),
    /// The database holds trades of another kind, or whose trades it holds cannot be asked.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The schema cannot be brought up to date.
    #[error(transparent)]
    Maintenance(#[from] MaintenanceError),
    /// The spool cannot be used.
    #[error("the spool cannot be used; spool.dir names another place for it")]
    Spool(#[from] SpoolError),
}

impl StartError {
    /// Says what to type where trades would be mixed.
    pub(super) fn with_commands(self, settings: &Settings) -> Self {
        match self {
            Self::Origin(OriginError::Mixed { held, wanted }) => {
                Self::Mixed(Box::new(MixedTrades::new(settings, held, wanted)))
            }
            other => other,
        }
    }

    /// Whether the database may answer otherwise a moment later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Database { error, .. }
            | Self::Origin(OriginError::Database(error))
            | Self::Maintenance(
                MaintenanceError::Database(error)
                | MaintenanceError::Migrate(
                    MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _),
                ),
            ) => is_away(error),
            _ => false,
        }
    }
}

/// What names a database in a command: its id, without whose trades it holds.
pub(super) fn spool_id(name: &str) -> &str {
    name.rsplit_once(", ").map_or(name, |(id, _origin)| id)
}
