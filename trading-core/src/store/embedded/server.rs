//! The server process of the private cluster: made, started, found, asked and stopped.
//!
//! Whether a server runs is read from `postmaster.pid` and checked against the process itself: after a power
//! cut, or in a container, that number may have gone to another program. Nothing here waits a fixed time:
//! ready means that it answered.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::time::{Instant, sleep, timeout_at};

use super::binaries::Binaries;
use super::environment::clean;
use super::home::Home;
use super::nameless::Name;
use super::{Durability, EmbeddedError, Options, USER};
use crate::store::folder::Folder;

/// How long a server may say nothing after its start.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// How long a server that says it is recovering may go on: it reads up to `max_wal_size` of log.
const RECOVERY_WAIT: Duration = Duration::from_secs(30 * 60);
/// A recovery longer than this is told.
const RECOVERY_TOLD_AFTER: Duration = Duration::from_secs(2);
/// How long a stop may take: it writes what is in memory to disk.
const STOP_WAIT: Duration = Duration::from_secs(60);
/// How often another process is looked at.
const POLL: Duration = Duration::from_millis(10);
/// How much of the log's end goes into an error.
const TAIL_BYTES: u64 = 4_000;
/// A log longer than this is moved aside at the next start.
const LOG_BYTES_MAX: u64 = 8 << 20;
/// The ports that are tried for a new cluster: beside PostgreSQL's own, below those that the system gives away.
const PORTS: std::ops::RangeInclusive<u16> = 5433..=5499;
/// Where it listens, when TCP is asked for.
const LOOPBACK: &str = "127.0.0.1";
/// A query over all days locks each day's table and its indexes: room for decades of days. Given at every start, for
/// clusters that were made before this was known; a line of the operator's in `postgresql.conf` goes before it.
const LOCKS: &str = "max_locks_per_transaction=1024";
/// "The database system is starting up".
const STARTING_UP: &str = "57P03";

/// Settings of a recorder, put at the end of `postgresql.conf`, where the operator may change them.
const SETTINGS: &str = "
# --- trading-core: a recorder's settings. Written once, when the database was made; change them as you like.
max_connections = 50
shared_buffers = 128MB
# Every commit is on disk when it returns; batches make that cheap.
fsync = on
full_page_writes = on
synchronous_commit = on
# Few, spread checkpoints: a recorder only appends.
max_wal_size = 4GB
checkpoint_timeout = 15min
checkpoint_completion_target = 0.9
# Compiling a query takes longer than running any of ours.
jit = off
# Freshly written days are made visible to index-only scans early.
autovacuum_vacuum_insert_scale_factor = 0.05
# Errors of statements go to who sent them; the log keeps what happens to the server, and stays small.
log_min_messages = log
log_checkpoints = off
timezone = 'UTC'
log_timezone = 'UTC'
";

/// Who may connect how.
const ACCESS: &str = "\
# Written by trading-core. The socket lies in a folder that only the server's user and root may enter;
# over TCP every user of this machine could knock, so there the password in the file pgpass is asked for.
local  all  all                trust
host   all  all  127.0.0.1/32  scram-sha-256
host   all  all  ::1/128       scram-sha-256
";

/// A server process, as its `postmaster.pid` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Postmaster {
    pub(super) pid: i32,
    /// Missing for a moment while the server starts.
    pub(super) endpoint: Option<Endpoint>,
}

/// Where a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) port: u16,
    pub(super) socket_dir: PathBuf,
    /// Whether it listens on 127.0.0.1 too.
    pub(super) tcp: bool,
}

impl Endpoint {
    /// How to connect, as the cluster's owner. Says everything itself: `PG*` variables mean another server.
    pub(super) fn options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket_dir)
            .port(self.port)
            .username(USER)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
            // Nothing of ours that is worth reading, at any level.
            .disable_statement_logging()
    }

    fn socket(&self) -> PathBuf {
        self.socket_dir.join(format!(".s.PGSQL.{}", self.port))
    }
}

impl Postmaster {
    /// The server that runs on this data, if one does.
    pub(super) fn find(home: &Home) -> Result<Option<Self>, EmbeddedError> {
        let Some(text) = home.read_data("postmaster.pid")? else { return Ok(None) };
        let Some(found) = Self::parse(&text) else { return Ok(None) };
        Ok(runs_on(found.pid, &home.data()).then_some(found))
    }

    /// Lines: pid, data directory, start time, port, socket directory, …; the last ones come later.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok().filter(|pid| *pid > 1)?;
        let port = lines.nth(2).and_then(|line| line.trim().parse().ok());
        // The next line must be there before this one is known to be whole.
        let socket_dir = lines.next().filter(|line| !line.is_empty());
        let addresses = lines.next();
        let endpoint = port.zip(socket_dir).zip(addresses).map(|((port, folder), addresses)| {
            let tcp = !addresses.trim().is_empty();
            Endpoint { port, socket_dir: PathBuf::from(folder), tcp }
        });
        Some(Self { pid, endpoint })
    }
}

/// Whether the process lives and is a server on this data: a server works in its data directory.
fn runs_on(pid: i32, data: &Path) -> bool {
    if kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH) {
        return false;
    }
    match fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(folder) => folder == data,
        // Alive, and hidden from us.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => true,
        // Dead and not yet collected by its parent.
        Err(_) if Path::new("/proc/self/cwd").exists() => false,
        Err(_) => clean("ps")
            .args(["-o", "command=", "-p", &pid.to_string()])
            .output()
            .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("postgres")),
    }
}

/// Makes the cluster. It is complete or not there: it grows in a folder beside and is renamed when it is done.
pub(super) fn init(
    home: &Home,
    binaries: &Binaries,
    durability: Durability,
) -> Result<(), EmbeddedError> {
    tracing::info!(data_dir = %home.data().display(), version = binaries.version(), "Making the embedded database");
    let name = Name::find(home)?;
    let staging = home.make_staging()?;
    let data = staging.join("data");
    let program = binaries.program("initdb");
    let command = name.command(home, &program, &staging);
    let mut command = command.map_err(EmbeddedError::io("write into", &staging))?;
    command.arg("-D").arg(&data).args(["-U", USER, "-E", "UTF8", "--locale=C", "--auth=trust"]);
    // A flipped bit on disk is found, not served.
    command.arg("--data-checksums");
    if durability == Durability::None {
        command.arg("--no-sync");
    }
    let output = command.output().map_err(EmbeddedError::io("run", &program))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        return Err(EmbeddedError::Initdb { folder: home.data(), said });
    }
    let access = data.join("pg_hba.conf");
    rewrite(&access, ACCESS, true).map_err(EmbeddedError::io("write", &access))?;
    let settings = data.join("postgresql.conf");
    let compression = best_compression(home, binaries, &data);
    let text = format!("{SETTINGS}wal_compression = {compression}\n");
    rewrite(&settings, &text, false).map_err(EmbeddedError::io("write", &settings))?;
    home.publish(&staging)
}

/// Writes into a file of the server's user that is there, with that user's rights; never through a link.
fn rewrite(path: &Path, text: &str, whole: bool) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut file = Folder::open(path.parent().unwrap_or(path))?.write(&name)?;
    if whole {
        file.set_len(0)?;
    }
    file.seek(SeekFrom::End(0))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The best kind that this build knows; `on` is known to all.
fn best_compression(home: &Home, binaries: &Binaries, data: &Path) -> &'static str {
    let known = |kind: &&str| {
        home.command(&binaries.program("postgres"))
            .arg("-D")
            .arg(data)
            .args(["-C", "wal_compression", "-c"])
            .arg(format!("wal_compression={kind}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    ["zstd", "lz4"].into_iter().find(known).unwrap_or("on")
}

/// The port, and whether the server listens on it: that of earlier runs, else one that is free. It is in the socket's name
/// too; without TCP nobody can be in its way.
///
/// A port that another program has taken meanwhile is no reason not to record. A new one is taken, and kept for later runs.
/// Where recorders use the database already (it crashed, or was stopped under them) they know its socket by the old name:
/// then it does without TCP until its next start.
pub(super) fn settle_port(home: &Home, options: &Options) -> Result<(u16, bool), EmbeddedError> {
    let Some(saved) = home.saved_port()? else {
        return Ok((free_port(home, options)?, options.tcp));
    };
    if !options.tcp || !is_taken(saved) {
        return Ok((saved, options.tcp));
    }
    if home.has_users()? {
        tracing::warn!(
            "Port {saved} of 127.0.0.1 is in use by another program: the embedded database does without TCP until it is \
             started anew. Recording goes on over its socket"
        );
        return Ok((saved, false));
    }
    let port = free_port(home, options)?;
    tracing::warn!(
        "Port {saved} of 127.0.0.1 is in use by another program: the embedded database takes port {port}, now and at later \
         starts. Give that port to programs that connect over TCP; or end the other program and write {saved} into {}, \
         which holds from the next start on",
        home.port_file().display()
    );
    Ok((port, true))
}

fn free_port(home: &Home, options: &Options) -> Result<u16, EmbeddedError> {
    if !options.any_port
        && let Some(port) = PORTS.into_iter().find(|port| bind(*port).is_ok())
    {
        return Ok(port);
    }
    bind(0)
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(EmbeddedError::io("choose a port for", home.folder()))
}

/// Whether another program listens there. What else may be wrong with a port the server itself says better.
pub(super) fn is_taken(port: u16) -> bool {
    bind(port).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

/// A server that was just started.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) child: Child,
    /// Where its words begin in the log.
    log_from: u64,
}

/// Starts the server; it is not ready yet.
pub(super) fn spawn(
    home: &Home,
    binaries: &Binaries,
    (port, tcp): (u16, bool),
    options: &Options,
) -> Result<Started, EmbeddedError> {
    let folder = home.make_socket_dir()?;
    clear_stale(home, &folder)?;
    let log = home.open_log(LOG_BYTES_MAX)?;
    let log_from = log.metadata().map_or(0, |about| about.len());
    let errors = log.try_clone().map_err(EmbeddedError::io("open", &home.log()))?;
    // A list in which a name may hold a comma or a blank: quoted.
    let quoted = folder.to_string_lossy().replace('"', "\"\"");
    let program = binaries.program("postgres");
    let mut command = home.command(&program);
    command.arg("-D").arg(home.data()).args(["-p", &port.to_string()]);
    // Over TCP every user of the machine could take all connections without knowing the password.
    command.arg("-k").arg(format!("\"{quoted}\"")).args(["-h", if tcp { LOOPBACK } else { "" }]);
    if !says_locks(home) {
        command.args(["-c", LOCKS]);
    }
    if options.durability == Durability::None {
        for setting in ["fsync=off", "synchronous_commit=off", "full_page_writes=off"] {
            command.args(["-c", setting]);
        }
    }
    let child =
        command.stdout(log).stderr(errors).spawn().map_err(EmbeddedError::io("run", &program))?;
    Ok(Started { child, log_from })
}

/// Whether the operator has settled how many locks there are.
fn says_locks(home: &Home) -> bool {
    let name = LOCKS.split('=').next().unwrap_or_default();
    ["postgresql.conf", "postgresql.auto.conf"].iter().any(|file| {
        let text = home.read_data(file).ok().flatten().unwrap_or_default();
        text.lines().any(|line| line.trim_start().starts_with(name))
    })
}

/// Clears what a dead server left that a live process would be mistaken for. Only under the change lock, and
/// only when no server runs on this data.
fn clear_stale(home: &Home, folder: &Path) -> Result<(), EmbeddedError> {
    // The folder is this cluster's alone.
    let clear = || {
        let place = Folder::open(folder)?;
        let mut sockets = Vec::new();
        place.names(|name| {
            if name.starts_with(".s.PGSQL.") {
                sockets.push(name.to_owned());
            }
        })?;
        sockets.iter().try_for_each(|name| place.remove(name))
    };
    clear().map_err(EmbeddedError::io("clear", folder))?;
    // The number of a server that died with the machine may be another program's by now, which PostgreSQL
    // would take for the server. The file stays, for the key of the shared memory in it: it guards against
    // children that outlived their server. Our own number, the parent's, is the one that is never in the way.
    let path = home.data().join("postmaster.pid");
    let Some(text) = home.read_data("postmaster.pid")? else { return Ok(()) };
    let Some((pid, rest)) = text.split_once('\n') else { return Ok(()) };
    let taken = pid
        .trim()
        .parse()
        .is_ok_and(|pid| pid > 0 && kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH));
    if taken {
        tracing::warn!(
            pid = pid.trim(),
            "the server's old process number is another program's now"
        );
        let text = format!("{}\n{rest}", std::process::id());
        rewrite(&path, &text, true).map_err(EmbeddedError::io("write", &path))?;
    }
    Ok(())
}

/// How the wait for a server ended, where it is no error.
#[derive(Debug)]
pub(super) enum Wait {
    /// It answers there.
    Ready(Endpoint),
    /// It is no more: this one can be tried again, with another port or when its forerunner's children are gone.
    Gone,
}

/// Waits until the server answers; `started` when it is our own child.
pub(super) async fn wait_ready(
    home: &Home,
    mut started: Option<&mut Started>,
) -> Result<Wait, EmbeddedError> {
    let begun = Instant::now();
    let last = begun + RECOVERY_WAIT;
    let mut deadline = begun + ANSWER_WAIT;
    let mut told = false;
    loop {
        if let Some(started) = started.as_deref_mut()
            && let Some(_status) =
                started.child.try_wait().map_err(EmbeddedError::io("watch", &home.data()))?
        {
            return ended(home, started.log_from);
        }
        let found = Postmaster::find(home)?;
        match &found {
            Some(Postmaster { endpoint: Some(endpoint), .. }) => {
                match timeout_at(deadline, knock(endpoint)).await {
                    Ok(Knock::Open) => return Ok(Wait::Ready(endpoint.clone())),
                    Ok(Knock::StartingUp) => {
                        if !told && begun.elapsed() > RECOVERY_TOLD_AFTER {
                            told = true;
                            tracing::info!("the embedded database is recovering");
                        }
                        deadline = last.min(Instant::now() + ANSWER_WAIT);
                    }
                    Ok(Knock::Shut) | Err(_) => {}
                }
            }
            Some(_) => {}
            None if started.is_none() => return Ok(Wait::Gone),
            None => {}
        }
        if Instant::now() >= deadline {
            return Err(silent(home, found));
        }
        sleep(POLL).await;
    }
}

enum Knock {
    Open,
    StartingUp,
    Shut,
}

async fn knock(endpoint: &Endpoint) -> Knock {
    match PgConnection::connect_with(&endpoint.options("postgres")).await {
        Ok(connection) => {
            // Ready is ready, however the good-bye went.
            drop(connection.close().await);
            Knock::Open
        }
        Err(error) => {
            let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
            if code.is_some_and(|code| code == STARTING_UP) {
                Knock::StartingUp
            } else {
                Knock::Shut
            }
        }
    }
}

/// What the log of a server that ended at once means.
fn ended(home: &Home, log_from: u64) -> Result<Wait, EmbeddedError> {
    let tail = tail(home, log_from);
    // The children of a server that was killed take a moment to notice.
    if tail.contains("is still in use") {
        return Ok(Wait::Gone);
    }
    // Taken by another program since we looked: another port will do.
    if tail.contains("could not create any TCP/IP sockets") {
        return Ok(Wait::Gone);
    }
    Err(EmbeddedError::Start { log: home.log(), tail })
}

/// The error for a start that met passing troubles for too long.
pub(super) fn gave_up(home: &Home) -> EmbeddedError {
    EmbeddedError::Start { log: home.log(), tail: tail(home, 0) }
}

fn silent(home: &Home, found: Option<Postmaster>) -> EmbeddedError {
    let (pid, endpoint) = found.map_or((0, None), |found| (found.pid, found.endpoint));
    EmbeddedError::Silent {
        pid,
        socket: endpoint.map_or_else(|| home.data(), |endpoint| endpoint.socket()),
        waited: ANSWER_WAIT,
        log: home.log(),
        tail: tail(home, 0),
    }
}

/// The end of a log, from `from` on at the earliest.
fn tail(home: &Home, from: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = home.place().read("postgres.log")?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(len.saturating_sub(TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    read().unwrap_or_else(|error| format!("(the log cannot be read: {error})"))
}

/// Stops the server: sessions are cut, everything committed is written, the process is gone on return.
pub(super) async fn shut_down(
    home: &Home,
    child: &mut Option<Child>,
) -> Result<bool, EmbeddedError> {
    let Some(found) = Postmaster::find(home)? else { return Ok(false) };
    if let Err(error) = kill(Pid::from_raw(found.pid), Signal::SIGINT)
        && error != Errno::ESRCH
    {
        return Err(EmbeddedError::io("stop the server in", home.folder())(error.into()));
    }
    let deadline = Instant::now() + STOP_WAIT;
    while runs_on(found.pid, &home.data()) {
        if let Some(child) = child.as_mut() {
            // Collects it when it is ours; a dead child would look alive otherwise.
            drop(child.try_wait());
        }
        if Instant::now() >= deadline {
            let log = home.log();
            return Err(EmbeddedError::StillRunning { pid: found.pid, waited: STOP_WAIT, log });
        }
        sleep(POLL).await;
    }
    if let Some(child) = child.as_mut() {
        drop(child.try_wait());
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "4711\n/data/postgres\n1700000000\n5433\n/data/run\n127.0.0.1\n  5433001   98304\nready   \n";

    #[test]
    fn a_whole_pid_file_names_the_process_and_where_it_answers() {
        let found = Postmaster::parse(WHOLE).unwrap();
        let mut endpoint = Endpoint { port: 5433, socket_dir: "/data/run".into(), tcp: true };
        assert_eq!(found, Postmaster { pid: 4711, endpoint: Some(endpoint.clone()) });
        let found = Postmaster::parse(&WHOLE.replace("127.0.0.1", "")).unwrap();
        endpoint.tcp = false;
        assert_eq!(found.endpoint, Some(endpoint));
    }

    #[test]
    fn a_pid_file_still_being_written_names_no_endpoint() {
        for end in 6..WHOLE.find("127").unwrap() {
            let part: String = WHOLE.chars().take(end).collect();
            assert_eq!(Postmaster::parse(&part).unwrap().endpoint, None, "{part:?}");
        }
        assert_eq!(Postmaster::parse(""), None);
        assert_eq!(Postmaster::parse("-1\n"), None);
    }

    #[test]
    fn a_living_process_that_works_elsewhere_is_no_server_of_ours() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(!runs_on(own, Path::new("/nonexistent")));
    }
}
