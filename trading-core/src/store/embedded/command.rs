//! What `trading-core db start|stop|status|psql` do; the program prints what they return.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Serialize;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use super::environment::for_psql;
use super::home::{Home, bytes_below};
pub use super::remove::{Content, Removal, remove, survey as survey_removal};
use super::server::{self, Endpoint, Postmaster};
use super::{
    Arrival, Cluster, DATABASE, EmbeddedError, LOCK_WAIT, Options, SIMULATED, USER, blocking,
    find_binaries, find_new, flag, url,
};

/// How long a running server may take to say its version.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How often it is looked whether the last user is gone.
const USERS_POLL: Duration = Duration::from_millis(100);

/// The cluster as [`status`] and [`start`] found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Its directory.
    pub data_dir: PathBuf,
    /// The major version that made it; `None`: it was not made yet.
    pub data_version: Option<String>,
    /// Bytes that it takes on disk.
    pub data_bytes: u64,
    /// Whether it is that of the simulated market.
    pub simulated: bool,
    /// The directory of the other one, of real exchanges or of the simulated market, where that is made.
    pub other_dir: Option<PathBuf>,
    /// The server, if it runs.
    pub server: Option<RunningServer>,
}

/// A server that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunningServer {
    /// Its process.
    pub pid: i32,
    /// Its version, as it says itself; `None`: it does not answer (yet).
    pub version: Option<String>,
    /// Its port: in its socket's name, and on 127.0.0.1.
    pub port: u16,
    /// Whether it listens on 127.0.0.1 (`database.tcp`).
    pub tcp: bool,
    /// The folder of its Unix socket.
    pub socket_dir: PathBuf,
    /// For psql and other programs of the same user; holds no password.
    pub url: String,
    /// The password for TCP is in this file.
    pub pgpass: PathBuf,
    /// Whether a process of trading-core uses it now.
    pub in_use: bool,
    /// Whether it runs until `db stop`.
    pub kept_running: bool,
}

impl RunningServer {
    /// How to connect, as its owner, over the Unix socket; as [`Cluster::connect_options`].
    #[must_use]
    pub fn connect_options(&self) -> PgConnectOptions {
        let (port, socket_dir, tcp) = (self.port, self.socket_dir.clone(), self.tcp);
        let endpoint = Endpoint { port, socket_dir, tcp };
        endpoint.options(DATABASE)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = flag(self.simulated);
        match &self.server {
            Some(server) => server.tell(f, own)?,
            None if self.data_version.is_none() => {
                let live = if self.simulated { "live --simulate" } else { "live" };
                writeln!(
                    f,
                    "not made yet; `trading-core {live}` or `trading-core db start{own}` makes it"
                )?;
            }
            None => writeln!(f, "stopped; `trading-core db start{own}` starts it")?,
        }
        write!(f, "data      {} ({})", self.data_dir.display(), ByteSize(self.data_bytes))?;
        if let Some(folder) = &self.other_dir {
            let name = if self.simulated { "real" } else { SIMULATED };
            let other = flag(!self.simulated);
            write!(f, "\n{name:9} {} (`trading-core db status{other}`)", folder.display())?;
        }
        Ok(())
    }
}

impl RunningServer {
    fn tell(&self, f: &mut fmt::Formatter<'_>, flag: &str) -> fmt::Result {
        match &self.version {
            Some(version) => writeln!(f, "running   PostgreSQL {version}, pid {}", self.pid)?,
            None => writeln!(f, "running   pid {}, does not answer", self.pid)?,
        }
        let end = match (self.kept_running, self.in_use) {
            (true, _) => format!("`trading-core db stop{flag}`"),
            (false, true) => "the last recorder that uses it stops".to_owned(),
            (false, false) => format!(
                "`trading-core db stop{flag}` (its recorder was killed), or the next recorder stops"
            ),
        };
        writeln!(f, "until     {end}")?;
        writeln!(f, "psql      psql '{}'", self.url)?;
        if !self.tcp {
            return writeln!(f, "tcp       off; database.tcp = true turns it on at the next start");
        }
        let (port, pgpass) = (self.port, self.pgpass.display());
        writeln!(
            f,
            "tcp       PGPASSFILE='{pgpass}' psql -h 127.0.0.1 -p {port} -U {USER} {DATABASE}"
        )
    }
}

/// What `db start` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Start {
    /// Whether it ran before.
    pub ran_already: bool,
    /// How it is now.
    pub status: Status,
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = if self.ran_already { "ran already" } else { "started" };
        let flag = flag(self.status.simulated);
        write!(
            f,
            "the embedded database {done}, and runs until `trading-core db stop{flag}`\n{}",
            self.status
        )
    }
}

/// What `db stop` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// It is stopped.
    Stopped,
    /// It is stopped, under a recorder that was using it.
    StoppedInUse,
    /// It did not run.
    NotRunning,
    /// It was left running: it is used, or `db start` keeps it.
    LeftRunning,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "the embedded database is stopped",
            Self::StoppedInUse => {
                "the embedded database is stopped; a running trading-core was using it, and records into its spool \
                 until `trading-core db start`"
            }
            Self::NotRunning => "the embedded database was not running",
            Self::LeftRunning => {
                "the embedded database was left running: a trading-core uses it, or `db start` keeps it"
            }
        })
    }
}

/// `db start`: starts the server, or joins the one that runs, and keeps it running until [`stop`].
///
/// # Errors
///
/// As for [`Cluster::start`].
pub async fn start(options: &Options) -> Result<Start, EmbeddedError> {
    let mut cluster = Cluster::start_as(options, true).await?;
    let ran_already = cluster.arrival() == Arrival::Joined;
    // Our own use ends here; the server does not.
    if let Some(watchdog) = cluster.watchdog.take() {
        watchdog.dismiss();
    }
    drop(cluster);
    Ok(Start { ran_already, status: status(options).await? })
}

/// `db stop`: stops the server, whoever uses it: who types it means it, and a recorder spools until it
/// is back.
///
/// # Errors
///
/// When the server does not stop in time.
pub async fn stop(options: &Options) -> Result<Stop, EmbeddedError> {
    let Some(home) = existing(options).await? else { return Ok(Stop::NotRunning) };
    let _lock = match home.lock_changes(LOCK_WAIT).await {
        Err(EmbeddedError::Removed { .. }) => return Ok(Stop::NotRunning),
        lock => lock?,
    };
    let in_use = home.has_users()?;
    home.set_kept_running(false)?;
    Ok(match (server::shut_down(&home, &mut None).await?, in_use) {
        (false, _) => Stop::NotRunning,
        (true, false) => Stop::Stopped,
        (true, true) => Stop::StoppedInUse,
    })
}

/// `db stop --if-unused`, and the end of a start that is given up: stops a server that nobody uses and that `db start`
/// does not keep. A user may take `patience` to be gone: the kernel closes the files of a killed one one by one.
///
/// # Errors
///
/// When the server does not stop in time.
pub async fn stop_unused(options: &Options, patience: Duration) -> Result<Stop, EmbeddedError> {
    let Some(home) = existing(options).await? else { return Ok(Stop::NotRunning) };
    let deadline = Instant::now() + patience;
    loop {
        let lock = match home.lock_changes(LOCK_WAIT).await {
            Err(EmbeddedError::Removed { .. }) => return Ok(Stop::NotRunning),
            lock => lock?,
        };
        if home.is_kept_running() {
            return Ok(Stop::LeftRunning);
        }
        if !home.has_users()? {
            return Ok(match server::shut_down(&home, &mut None).await? {
                true => Stop::Stopped,
                false => Stop::NotRunning,
            });
        }
        drop(lock);
        if Instant::now() >= deadline {
            return Ok(Stop::LeftRunning);
        }
        sleep(USERS_POLL).await;
    }
}

/// Whether there is a cluster.
///
/// # Errors
///
/// When the directory is refused or cannot be read.
pub async fn is_made(options: &Options) -> Result<bool, EmbeddedError> {
    Ok(existing(options).await?.is_some())
}

/// `db status`: changes nothing, waits for nobody.
///
/// # Errors
///
/// When the directory is refused or cannot be read.
pub async fn status(options: &Options) -> Result<Status, EmbeddedError> {
    let Some(home) = existing(options).await? else {
        let data_dir = options.folder()?;
        let (simulated, other_dir) = (options.simulated, other_dir(options).await);
        return Ok(Status {
            data_dir,
            data_version: None,
            data_bytes: 0,
            simulated,
            other_dir,
            server: None,
        });
    };
    let server = match Postmaster::find(&home)? {
        Some(Postmaster { pid, endpoint: Some(endpoint) }) => {
            let version = timeout(ANSWER_WAIT, version(&endpoint)).await.ok().flatten();
            Some(RunningServer {
                pid,
                version,
                port: endpoint.port,
                tcp: endpoint.tcp,
                url: url(&endpoint),
                socket_dir: endpoint.socket_dir,
                pgpass: home.pgpass(),
                in_use: in_use(&home).await?,
                kept_running: home.is_kept_running(),
            })
        }
        _ => None,
    };
    let data = home.data();
    let data_bytes = blocking(move || Ok(bytes_below(&data))).await?;
    Ok(Status {
        data_dir: home.folder().to_owned(),
        data_version: home.data_version()?,
        data_bytes,
        simulated: options.simulated,
        other_dir: other_dir(options).await,
        server,
    })
}

/// Where the other one lies, if it is made. It may be another user's; this is not about it.
async fn other_dir(options: &Options) -> Option<PathBuf> {
    let other = options.other();
    let is_made = is_made(&other).await.unwrap_or(false);
    is_made.then(|| other.folder().ok()).flatten()
}

/// The port on 127.0.0.1 that the next start will not get, because another program listens there; `None`: it runs already,
/// or no port is in its way.
///
/// # Errors
///
/// When the directory is refused or cannot be read.
pub async fn taken_port(options: &Options) -> Result<Option<u16>, EmbeddedError> {
    let Some(home) = existing(options).await?.filter(|_| options.tcp) else { return Ok(None) };
    if Postmaster::find(&home)?.is_some() {
        return Ok(None);
    }
    Ok(home.saved_port()?.filter(|port| server::is_taken(*port)))
}

/// The version of the server that would run the cluster: that of the data where there is some, else the newest.
///
/// # Errors
///
/// When there is no server, or none of the version wanted; when the directory is refused.
pub async fn server_version(options: &Options) -> Result<String, EmbeddedError> {
    let home = existing(options).await?;
    let options = options.clone();
    blocking(move || match home {
        Some(home) => Ok(find_binaries(&home, &options)?.version().to_owned()),
        None => Ok(find_new(&options)?.version().to_owned()),
    })
    .await
}

/// `db psql`: the command that opens psql on the running database, with `args` added. The caller replaces itself
/// with it (`CommandExt::exec`), so that the terminal, signals and the exit code are psql's own.
///
/// # Errors
///
/// When the server does not run, or psql is not found beside it.
pub async fn psql(options: &Options, args: Vec<OsString>) -> Result<Command, EmbeddedError> {
    let not_running = |folder: PathBuf| EmbeddedError::NotRunning { folder };
    let Some(home) = existing(options).await? else {
        return Err(not_running(options.folder()?));
    };
    let Some(Postmaster { endpoint: Some(endpoint), .. }) = Postmaster::find(&home)? else {
        return Err(not_running(home.folder().to_owned()));
    };
    let options = options.clone();
    blocking(move || {
        let beside = find_binaries(&home, &options)?.program("psql");
        // Some distributions put the client elsewhere: then the search path has it.
        let mut command = for_psql(if beside.is_file() { beside } else { "psql".into() });
        // As an option, so that every form of `args` may follow, a file or a database name too.
        command.arg("--dbname").arg(url(&endpoint)).args(args);
        Ok(command)
    })
    .await
}

pub(super) async fn existing(options: &Options) -> Result<Option<Home>, EmbeddedError> {
    let options = options.clone();
    blocking(move || Home::open_existing(&options)).await
}

/// Asked under the change lock, or a recorder that stops meanwhile would take our look for another user.
async fn in_use(home: &Home) -> Result<bool, EmbeddedError> {
    match home.lock_changes(Duration::ZERO).await {
        Ok(_lock) => home.has_users(),
        // Somebody is starting or stopping it just now.
        Err(EmbeddedError::Busy { .. }) => Ok(true),
        Err(EmbeddedError::Removed { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn version(endpoint: &Endpoint) -> Option<String> {
    let mut connection = PgConnection::connect_with(&endpoint.options("postgres")).await.ok()?;
    let version = sqlx::query_scalar("SHOW server_version").fetch_one(&mut connection).await.ok();
    connection.close().await.ok();
    version
}
