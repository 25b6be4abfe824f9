//! The embedded database: a private PostgreSQL cluster for those who have none.
//!
//! [`Cluster::start`] makes it where it is missing, starts it where it is stopped, and joins it where it runs.
//! Promised:
//!
//! - What is committed is on disk; a kill of this program, of the server or of the machine at any moment leaves
//!   a cluster that the next start brings up, and never half of one.
//! - The server stops with the last recorder that uses it, and not before, also when that one is killed or its start
//!   fails midway ([`stop_servers_when_killed`]); where it could not be stopped the next recorder takes it over. One
//!   that was started by `db start` ([`command::start`]) is stopped by `db stop` only.
//! - Many may start it at once: one does, the others join.
//! - It runs as an unprivileged user, under root too, and only its user and root get to it: its socket lies in
//!   a folder of its own. It listens on a loopback port only where that is asked for, and asks there for a password
//!   that a file keeps.
//! - A directory or a version that does not fit is refused, and the message says what to do. A port that another program
//!   has taken gives way to a free one, and that is said.
//!
//! Not promised: that it is reachable from other machines, or tuned for more than a recorder.
//!
//! Who uses it is known by locks that the kernel releases when a process dies, so no dead owner is ever believed
//! to be alive; what lies where is told in `home`.

mod binaries;
pub mod command;
mod environment;
mod error;
mod furnish;
mod home;
mod locks;
mod nameless;
mod names;
mod owner;
mod remove;
mod server;
mod socket;
mod strangers;
mod watchdog;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::config::DatabaseSettings;
use crate::store::password;
use crate::store::postgres::url_encoded;

use binaries::Binaries;
pub use error::EmbeddedError;
use home::Home;
pub use home::default_data_dir;
pub(crate) use names::of_the_trades;
use server::{Endpoint, Postmaster, Started, Wait};
use watchdog::Watchdog;
pub use watchdog::stop_servers_when_killed;

/// The database in the cluster.
pub const DATABASE: &str = "trading_core";
/// The cluster's owner.
pub const USER: &str = "trading_core";

/// The folder of the simulated market, below the directory of the real one: the two never share a database or a spool.
pub const SIMULATED: &str = "simulated";

/// What a command is given to mean the database of the simulated market, with a blank before it; for that of the real
/// exchanges nothing.
#[must_use]
pub const fn flag(simulated: bool) -> &'static str {
    if simulated { " --simulated" } else { "" }
}

/// How long another process may hold the right to start or stop the server.
const LOCK_WAIT: Duration = Duration::from_secs(120);
/// How long a start that met a passing trouble (a port taken meanwhile, children of a killed server) is tried again.
const RETRY_WAIT: Duration = Duration::from_secs(20);
/// The pause between such tries.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// What is kept when the machine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Everything committed.
    #[default]
    Full,
    /// Nothing: for tests, which throw the cluster away.
    None,
}

/// Where the cluster lies and how it is run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Its directory; `None`: [`default_data_dir`].
    pub data_dir: Option<PathBuf>,
    /// The cluster of the simulated market instead, in the folder [`SIMULATED`] of that directory.
    pub simulated: bool,
    /// The folder of the server's programs (`PG_BIN`); `None`: searched for.
    pub bin_dir: Option<PathBuf>,
    /// What is kept when the machine stops.
    pub durability: Durability,
    /// A new cluster takes any free port of the system's choice, instead of the first from 5433 on: for many
    /// throw-away clusters beside each other.
    pub any_port: bool,
    /// Listens on 127.0.0.1 beside its socket: for programs of other users, who may not enter the socket's folder, and
    /// for those that know no sockets.
    pub tcp: bool,
}

impl Options {
    /// From the settings, and `PG_BIN` where it is set.
    #[must_use]
    pub fn new(settings: &DatabaseSettings, bin_dir: Option<PathBuf>) -> Self {
        let DatabaseSettings { data_dir, simulated, tcp, .. } = settings;
        let (data_dir, simulated, tcp) = (data_dir.clone(), *simulated, *tcp);
        Self { data_dir, simulated, bin_dir, tcp, ..Self::default() }
    }

    /// The directory that holds the cluster of the real exchanges, and that of the simulated market in a folder.
    fn base(&self) -> Result<PathBuf, EmbeddedError> {
        self.data_dir.clone().map_or_else(default_data_dir, Ok)
    }

    /// The directory of the cluster.
    ///
    /// # Errors
    ///
    /// When nobody says where it is: the user has no home directory.
    pub fn folder(&self) -> Result<PathBuf, EmbeddedError> {
        let base = self.base()?;
        Ok(if self.simulated { base.join(SIMULATED) } else { base })
    }

    /// The same with the other kind of trades.
    #[must_use]
    pub fn other(&self) -> Self {
        Self { simulated: !self.simulated, ..self.clone() }
    }
}

/// How a cluster came to be ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// We started the server.
    Started,
    /// It ran already: another process uses it, or one that was killed left it, or `db start` keeps it.
    Joined,
}

/// How a cluster was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// The server is stopped.
    Stopped,
    /// It was stopped before, by `db stop` or by a crash.
    WasStopped,
    /// Others still use it; the last of them stops it.
    LeftToOthers,
    /// `db start` keeps it running.
    KeptRunning,
}

/// The running cluster, in use by this process until [`Cluster::stop`] or the end of the process.
///
/// Dropping it is what a kill is: a watchdog stops the server, where there is one ([`stop_servers_when_killed`]).
#[derive(Debug)]
pub struct Cluster {
    home: Home,
    options: Options,
    arrival: Arrival,
    endpoint: Endpoint,
    /// The server, when it is our child.
    child: Mutex<Option<Child>>,
    /// Our place among the users; the kernel ends it with the process.
    place: File,
    /// Stops the server when this process is killed.
    watchdog: Option<Watchdog>,
}

impl Cluster {
    /// Starts or joins the cluster; on return it answers and holds the database.
    ///
    /// Cancelled midway it may leave a running server: [`command::stop_unused`] stops it.
    ///
    /// # Errors
    ///
    /// When no server is installed, when directory, port or version do not fit, or when the server does not start. A
    /// server that was started for it is stopped again.
    pub async fn start(options: &Options) -> Result<Self, EmbeddedError> {
        Self::start_as(options, false).await
    }

    /// [`Cluster::start`]; `keep` makes the server outlive its users.
    async fn start_as(options: &Options, keep: bool) -> Result<Self, EmbeddedError> {
        let (home, lock) = Home::open_locked(options, LOCK_WAIT).await?;
        let lock = Arc::new(lock);
        let watchdog = Watchdog::start(&home);
        let Up { arrival, endpoint, mut child } = Box::pin(bring_up(&home, options, &lock)).await?;
        let place = match furnished(&home, &endpoint, keep, arrival).await {
            Ok(place) => place,
            Err(error) => {
                if arrival == Arrival::Started
                    && let Err(still_running) = server::shut_down(&home, &mut child).await
                {
                    tracing::warn!(%still_running, "The embedded database was not stopped");
                }
                return Err(error);
            }
        };
        drop(lock);
        let cluster = Self {
            home,
            options: options.clone(),
            arrival,
            endpoint,
            child: Mutex::new(child),
            place,
            watchdog,
        };
        tracing::info!(
            data_dir = %cluster.home.folder().display(),
            port = cluster.endpoint.port,
            "Embedded database {}",
            match arrival {
                Arrival::Started => "started",
                Arrival::Joined => "joined: it was running",
            }
        );
        if options.tcp && !cluster.endpoint.tcp {
            tracing::warn!(
                "The embedded database was started without database.tcp and does not listen on 127.0.0.1 until it is \
                 started anew"
            );
        }
        Ok(cluster)
    }

    /// Brings the server back after a crash, and says whether it had to. A server that was stopped on purpose
    /// (`db stop`) stays stopped. For the store's probe, when the database does not answer.
    ///
    /// # Errors
    ///
    /// As for [`Cluster::start`].
    pub async fn ensure_running(&self) -> Result<bool, EmbeddedError> {
        let lock = Arc::new(self.home.lock_changes(LOCK_WAIT).await?);
        // A server that ends in order takes its pid file with it.
        let crashed = Postmaster::find(&self.home)?.is_none()
            && self.home.data().join("postmaster.pid").exists();
        if !crashed {
            return Ok(false);
        }
        tracing::warn!("the embedded database has crashed; starting it again");
        let up = Box::pin(bring_up(&self.home, &self.options, &lock)).await?;
        let old = std::mem::replace(&mut *self.child.lock().await, up.child);
        if let Some(mut old) = old {
            drop(old.try_wait());
        }
        drop(lock);
        Ok(true)
    }

    /// Gives up our use of the server, and stops it where nobody else uses it and `db start` does not keep it.
    ///
    /// # Errors
    ///
    /// When the server does not stop in time; it is then still running, and the message says so.
    pub async fn stop(self) -> Result<Departure, EmbeddedError> {
        let lock = self.home.lock_changes(LOCK_WAIT).await?;
        // Released by name: a child being spawned by another thread may hold a copy of the file for a moment.
        self.place.unlock().map_err(EmbeddedError::io("leave", self.home.folder()))?;
        let departure = if self.home.has_users()? {
            Departure::LeftToOthers
        } else if self.home.is_kept_running() {
            Departure::KeptRunning
        } else if server::shut_down(&self.home, &mut *self.child.lock().await).await? {
            Departure::Stopped
        } else {
            Departure::WasStopped
        };
        drop(lock);
        if let Some(watchdog) = self.watchdog {
            watchdog.dismiss();
        }
        tracing::info!(
            "Embedded database {}",
            match departure {
                Departure::Stopped => "stopped",
                Departure::WasStopped => "had been stopped before",
                Departure::LeftToOthers => "left running: another recorder uses it",
                Departure::KeptRunning => "left running, as `db start` asked",
            }
        );
        Ok(departure)
    }

    /// How to connect, as its owner, over the Unix socket. `PG*` variables of the environment mean another server, and
    /// have no part in it.
    #[must_use]
    pub fn connect_options(&self) -> PgConnectOptions {
        self.endpoint.options(DATABASE)
    }

    /// For sqlx and psql alike, over the Unix socket; holds no password.
    #[must_use]
    pub fn url(&self) -> String {
        url(&self.endpoint)
    }

    /// Whether we started it or joined it.
    #[must_use]
    pub fn arrival(&self) -> Arrival {
        self.arrival
    }

    /// Its directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.home.folder()
    }

    /// Its port: of its loopback address, which asks for the password in [`Cluster::pgpass`], and in its socket's name.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.endpoint.port
    }

    /// The file with the password for TCP, as `PGPASSFILE` takes it.
    #[must_use]
    pub fn pgpass(&self) -> PathBuf {
        self.home.pgpass()
    }
}

/// A server that answers.
struct Up {
    arrival: Arrival,
    endpoint: Endpoint,
    child: Option<Child>,
}

/// Makes what is missing in a server that answers, and joins its users.
async fn furnished(
    home: &Home,
    endpoint: &Endpoint,
    keep: bool,
    arrival: Arrival,
) -> Result<File, EmbeddedError> {
    furnish::furnish(home, endpoint).await?;
    let place = home.join_users()?;
    if keep || arrival == Arrival::Started {
        home.set_kept_running(keep)?;
    }
    Ok(place)
}

/// Finds the running server or starts one. Under the change lock, which a start holds to its end, also when nobody
/// waits for that any more.
async fn bring_up(home: &Home, options: &Options, lock: &Arc<File>) -> Result<Up, EmbeddedError> {
    let deadline = Instant::now() + RETRY_WAIT;
    loop {
        let mut started = None;
        if Postmaster::find(home)?.is_none() {
            let (home, options, lock) = (home.clone(), options.clone(), Arc::clone(lock));
            let launch = move || {
                let launched = launch(&home, &options);
                drop(lock);
                launched
            };
            started = Some(blocking(launch).await?);
        }
        let wait = server::wait_ready(home, started.as_mut()).await;
        match (wait, started) {
            (Ok(Wait::Ready(endpoint)), started) => {
                home.save_port(endpoint.port)?;
                let arrival = if started.is_some() { Arrival::Started } else { Arrival::Joined };
                return Ok(Up { arrival, endpoint, child: started.map(|started| started.child) });
            }
            (Ok(Wait::Gone), _) if Instant::now() < deadline => sleep(RETRY_PAUSE).await,
            (Ok(Wait::Gone), _) => return Err(server::gave_up(home)),
            (Err(error), started) => {
                // A server of ours that never answered is not left behind.
                if let Some(Started { child, .. }) = started {
                    server::shut_down(home, &mut Some(child)).await?;
                }
                return Err(error);
            }
        }
    }
}

/// Everything between "nothing runs" and "a server is starting". Blocks.
fn launch(home: &Home, options: &Options) -> Result<Started, EmbeddedError> {
    let version = home.data_version()?;
    let binaries = find_binaries(home, options)?;
    if version.is_none() {
        server::init(home, &binaries, options.durability)?;
    }
    let port = server::settle_port(home, options)?;
    server::spawn(home, &binaries, port, options)
}

fn find_binaries(home: &Home, options: &Options) -> Result<Binaries, EmbeddedError> {
    let version = home.data_version()?;
    binaries::find(options.bin_dir.as_deref(), &home.data(), version.as_deref())
}

/// The programs for a cluster that is not made yet.
fn find_new(options: &Options) -> Result<Binaries, EmbeddedError> {
    binaries::find(options.bin_dir.as_deref(), Path::new(""), None)
}

/// `postgres://…?host=<socket folder>&port=…`, which libpq and sqlx read alike.
fn url(endpoint: &Endpoint) -> String {
    let host = url_encoded(&endpoint.socket_dir.to_string_lossy());
    format!("postgres://{USER}@localhost/{DATABASE}?host={host}&port={}", endpoint.port)
}

/// Letters and digits of chance, for names and passwords.
fn random_text(len: usize) -> Result<String, EmbeddedError> {
    password::random_text(len).map_err(EmbeddedError::io("read", Path::new(password::SOURCE)))
}

/// Runs what waits for the disk or a program, away from the runtime's own threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EmbeddedError> + Send + 'static,
) -> Result<T, EmbeddedError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(EmbeddedError::Io {
            what: "finish work for",
            path: PathBuf::from("the embedded database"),
            source: std::io::Error::other(error),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use sqlx::postgres::PgConnectOptions;

    use super::*;

    #[test]
    fn the_url_is_read_back_as_it_was_meant_with_blanks_in_the_path_too() {
        let socket_dir = PathBuf::from("/Users/a b/Library/Application Support/trading-core/run");
        let text = url(&Endpoint { port: 5433, socket_dir: socket_dir.clone(), tcp: false });
        assert!(!text.contains(' '), "{text}");
        let options = PgConnectOptions::from_str(&text).unwrap();
        assert_eq!(options.get_socket(), Some(&socket_dir));
        assert_eq!(options.get_port(), 5433);
        assert_eq!(options.get_database(), Some(DATABASE));
        assert_eq!(options.get_username(), USER);
    }
}
