//! How a server is reached: once for all who connect, so that what one of them is refused all of them are.
//!
//! What a session needs (`statement_timeout`, the `options` of the URL) is set after the connect, in a statement of the
//! simple protocol, and never at the start of the connection: a pooler refuses it there.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, PgConnection, Row as _};

use super::sqlstate::remedy;
use crate::config::{ServerUrl, ServerUrlError, TargetSession, environment, session_settings};
use crate::store::Remedy;

/// Where `main` puts what it finds in `PGOPTIONS`, which sqlx would send at the start of every connection.
pub const SESSION_OPTIONS: &str = "TRADING_CORE_PGOPTIONS";

/// How long a server may take to let us in, where no URL says otherwise.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long the pool waits for a connection: longer than a server takes to restart.
const ACQUIRE_MAX: Duration = Duration::from_secs(30);

/// A server and a database on it.
#[derive(Clone)]
pub struct Server {
    options: PgConnectOptions,
    settings: Vec<(String, String)>,
    connect_max: Duration,
    target: TargetSession,
    files: Vec<PathBuf>,
    /// The user has named its sessions.
    is_named: bool,
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Its name in `pg_stat_activity`, unless the URL gives one.
    pub name: &'static str,
    /// The server's time for one statement; `None`: as the server has it.
    pub statement_max: Option<Duration>,
}

/// Says nothing of the options: they may hold a password.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// A server that needs nothing set in its sessions.
impl From<PgConnectOptions> for Server {
    fn from(options: PgConnectOptions) -> Self {
        Self {
            options,
            settings: Vec::new(),
            connect_max: CONNECT_MAX,
            target: TargetSession::Any,
            files: Vec::new(),
            is_named: false,
        }
    }
}

impl Server {
    /// The server of a URL. What the URL leaves out is taken from `PG*` variables and the password file, as psql does.
    ///
    /// # Errors
    ///
    /// When it is no URL, or holds what is not known.
    pub fn from_url(text: &str) -> Result<Self, ServerUrlError> {
        let url = ServerUrl::parse(text)?;
        let options = match url.connect().parse::<PgConnectOptions>() {
            // Their text form changes with the version, and PostgreSQL has had this one as its default since 12.
            Ok(options) => options.extra_float_digits(None),
            // What the driver would say may hold a value of the URL.
            Err(_secret) => return Err(ServerUrlError::not_taken()),
        };
        let inherited = environment().remove(SESSION_OPTIONS).unwrap_or_default();
        let mut settings = session_settings(&inherited)
            .map_err(|error| ServerUrlError::of_variable("PGOPTIONS", &error))?;
        settings.extend_from_slice(url.session());
        Ok(Self {
            is_named: options.get_application_name().is_some(),
            options,
            settings,
            connect_max: url.connect_max(),
            target: url.target(),
            files: url.files().to_vec(),
        })
    }

    /// Whether it is reached through a Unix socket, where no acknowledgement is waited for.
    pub(super) fn is_local_socket(&self) -> bool {
        super::connections::is_local_socket(&self.options)
    }

    /// Whether it runs on this machine, as far as its address tells.
    #[must_use]
    pub fn is_on_this_machine(&self) -> bool {
        super::is_on_this_machine(&self.options)
    }

    /// What names its address: host or folder of the socket, port, user and database; no password.
    #[must_use]
    pub fn address(&self) -> String {
        let options = &self.options;
        let host = match options.get_socket() {
            Some(folder) => folder.to_string_lossy(),
            None => options.get_host().into(),
        };
        let (user, port) = (options.get_username(), options.get_port());
        format!("{user}@{host}:{port}/{}", options.get_database().unwrap_or(user))
    }

    /// A URL for another user of the same database, for psql and other programs; holds no password.
    #[must_use]
    pub fn url_of(&self, user: &str) -> String {
        let options = &self.options;
        let database = url_encoded(options.get_database().unwrap_or(options.get_username()));
        let (user, port) = (url_encoded(user), options.get_port());
        if let Some(folder) = options.get_socket() {
            let folder = url_encoded(&folder.to_string_lossy());
            return format!("postgres://{user}@localhost/{database}?host={folder}&port={port}");
        }
        let host = match options.get_host() {
            bare if bare.contains(':') && !bare.starts_with('[') => format!("[{bare}]"),
            host => host.to_owned(),
        };
        let tls = match options.get_ssl_mode() {
            PgSslMode::Require => "?sslmode=require",
            PgSslMode::VerifyCa => "?sslmode=verify-ca",
            PgSslMode::VerifyFull => "?sslmode=verify-full",
            PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer => "",
        };
        format!("postgres://{user}@{host}:{port}/{database}{tls}")
    }

    /// Connects, and sets what the session needs.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached in time, refuses, or is not of the wanted kind.
    pub async fn connect(&self, session: Session) -> Result<PgConnection, sqlx::Error> {
        for path in &self.files {
            // The driver would say neither which file nor that it is one of the URL.
            std::fs::File::open(path).map_err(|error| {
                let text = format!("{} cannot be read: {error}", path.display());
                sqlx::Error::Configuration(text.into())
            })?;
        }
        let options = self.named(session.name).disable_statement_logging();
        let connect = async {
            let mut connection = options.connect().await?;
            self.prepare(&mut connection, session).await?;
            Ok(connection)
        };
        tokio::time::timeout(self.connect_max, connect).await.unwrap_or_else(|_elapsed| {
            let text = format!("no answer within {} s", self.connect_max.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, text).into())
        })
    }

    /// A pool of up to so many sessions, each as [`Server::connect`] makes it. It connects when it is used.
    #[must_use]
    pub fn pool(&self, connections: u32, session: Session) -> PgPool {
        let server = self.clone();
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_MAX.max(self.connect_max))
            .after_connect(move |connection, _about| {
                let server = server.clone();
                Box::pin(async move { server.prepare(connection, session).await })
            })
            .connect_lazy_with(self.named(session.name).disable_statement_logging())
    }

    fn named(&self, name: &str) -> PgConnectOptions {
        let options = self.options.clone();
        if self.is_named { options } else { options.application_name(name) }
    }

    async fn prepare(
        &self,
        connection: &mut PgConnection,
        session: Session,
    ) -> Result<(), sqlx::Error> {
        let timeout = session.statement_max.map(|it| it.as_millis().to_string());
        let timeout = timeout.as_deref().map(|value| ("statement_timeout", value));
        // What the user sets comes last, and holds.
        let own = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let all: Vec<String> = timeout.into_iter().chain(own).map(set).collect();
        if !all.is_empty() {
            let statement = format!("SELECT {}", all.join(", "));
            connection.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await?;
        }
        if self.target == TargetSession::Any {
            return Ok(());
        }
        let kind = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::boolean";
        let row = connection.fetch_one(sqlx::raw_sql(kind)).await?;
        let (is_standby, is_read_only): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
        let is_wanted = match self.target {
            TargetSession::Any => true,
            TargetSession::ReadWrite => !is_read_only,
            TargetSession::ReadOnly => is_read_only,
            TargetSession::Primary => !is_standby,
            TargetSession::Standby => is_standby,
        };
        // It may become one: after a failover the address leads elsewhere.
        let other = || io::Error::other("the server is not what target_session_attrs asks for");
        if is_wanted { Ok(()) } else { Err(other().into()) }
    }
}

/// What a database did that could not be connected to, and what to do about it; its own words come after it.
#[must_use]
pub fn refusal(error: &sqlx::Error) -> &'static str {
    let refused = error.as_database_error();
    match (refused.and_then(|it| it.code()).as_deref(), refused.map(|it| it.message())) {
        (Some("28P01"), _) => "refuses the password (give the right one in DATABASE_URL)",
        (Some("28000"), _) => {
            "does not let this user in (look whether the role may log in, and at pg_hba.conf)"
        }
        (Some("3D000"), _) => "is not there (CREATE DATABASE makes it)",
        (Some("42501"), _) => "refuses a right that the user needs",
        (_, Some(said)) if said.contains("startup parameter") => {
            "is behind a pooler that refuses what every connection says (add it to ignore_startup_parameters)"
        }
        _ => "cannot be reached",
    }
}

/// Whether a connection that failed so may succeed a while later, with nothing changed here: the server starts, its name
/// is not known yet, it has no connection free.
#[must_use]
pub fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Database(said) => {
            // A pooler has one code for all that it refuses.
            let is_final = ["no such", "startup parameter", "not allowed", "authentication"];
            remedy(error) == Remedy::Retry
                && !is_final.iter().any(|part| said.message().contains(part))
        }
        _ => false,
    }
}

/// As a part of a URL. A blank too: `+` means a plus to libpq.
pub(in crate::store) fn url_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// One setting. Escaped by itself, whatever `standard_conforming_strings` is.
fn set((name, value): (&str, &str)) -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    format!("pg_catalog.set_config(E'{}', E'{}', false)", quoted(name), quoted(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_another_user_holds_no_password_and_encodes_what_is_odd() {
        let url = |text: &str| Server::from_url(text).unwrap().url_of("o'\"x @");
        assert_eq!(
            url("postgres://me:hunter2@[::1]:5433/a%20b?sslmode=verify-full"),
            "postgres://o%27%22x%20%40@[::1]:5433/a%20b?sslmode=verify-full"
        );
        assert_eq!(
            url("postgres://me:hunter2@localhost/db?host=/run/pg&port=5433"),
            "postgres://o%27%22x%20%40@localhost/db?host=/run/pg&port=5433"
        );
    }

    #[test]
    fn a_setting_is_escaped_and_a_server_shows_nothing_of_its_url() {
        assert_eq!(
            set(("search_path", r#"a\', "b"#)),
            r#"pg_catalog.set_config(E'search_path', E'a\\\', "b', false)"#
        );
        let server = Server::from_url("postgres://me:hunter2@host/db?options=-c a.b=hunter2");
        assert!(!format!("{server:?}").contains("hunter2"));
    }
}
