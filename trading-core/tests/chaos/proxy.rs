//! The way between one recorder and its PostgreSQL: a TCP proxy that can break, hold and delay it, and that stops a write
//! between its rows and its commit.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::plan::{Line, Place};

/// The message that ends a COPY, and commits it.
const COPY_DONE: u8 = b'c';
/// The message that carries the values of a statement.
const BIND: u8 = b'B';
/// The message that commits a statement outside of a transaction.
const SYNC: u8 = b'S';
/// Values of so many bytes are a batch of ticks.
const BATCH_BYTES: usize = 2_000;

/// A proxy that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    way: Arc<Way>,
    _serving: JoinSet<()>,
}

/// What all connections of a proxy share.
#[derive(Debug, Default)]
struct Way {
    state: Mutex<State>,
    /// A write is held.
    held: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Breaks the connections that stand.
    cut: CancellationToken,
    refused_until: Option<Instant>,
    stalled_until: Option<Instant>,
    slow: Option<(Duration, Instant)>,
    /// Where the next write but so many is held; one after the other.
    traps: VecDeque<(Place, u32)>,
    /// One has sprung and is not over.
    springing: bool,
}

impl Proxy {
    /// Listens on a port of the system's choice, for the server at `server`.
    pub(crate) async fn start(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let way = Arc::new(Way::default());
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, server, Arc::clone(&way)));
        Self { port, way, _serving: serving }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn act(&self, line: Line) {
        let now = Instant::now();
        let mut state = self.way.state.lock().unwrap();
        match line {
            Line::Cut => state.break_all(),
            Line::Refuse(lasting) => {
                state.refused_until = Some(now + lasting);
                state.break_all();
            }
            Line::Stall(lasting) => state.stalled_until = Some(now + lasting),
            Line::Slow(each, lasting) => state.slow = Some((each, now + lasting)),
        }
    }

    /// Holds the next write but `after` at this place, once what was armed before is over.
    pub(crate) fn arm(&self, place: Place, after: u32) {
        self.way.state.lock().unwrap().traps.push_back((place, after));
    }

    /// Whether a write is held.
    pub(crate) fn holds(&self) -> bool {
        self.way.held.load(Ordering::SeqCst)
    }

    /// Breaks the held connection, and all others.
    pub(crate) fn release(&self) {
        self.way.held.store(false, Ordering::SeqCst);
        let mut state = self.way.state.lock().unwrap();
        state.springing = false;
        state.break_all();
    }

    /// Ends what lasts; connections stay as they are.
    pub(crate) fn calm(&self) {
        let mut state = self.way.state.lock().unwrap();
        state.refused_until = None;
        state.stalled_until = None;
        state.slow = None;
    }

    /// Takes the traps away.
    pub(crate) fn disarm(&self) {
        self.way.state.lock().unwrap().traps.clear();
        self.release();
    }
}

impl State {
    fn break_all(&mut self) {
        std::mem::take(&mut self.cut).cancel();
    }
}

async fn serve(listener: TcpListener, server: u16, way: Arc<Way>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        let cut = {
            let state = way.state.lock().unwrap();
            if state.refused_until.is_some_and(|until| Instant::now() < until) {
                continue;
            }
            state.cut.clone()
        };
        let way = Arc::clone(&way);
        connections.spawn(async move {
            tokio::select! {
                () = cut.cancelled() => {}
                () = join(client, server, &way) => {}
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Carries bytes both ways until either end closes.
async fn join(client: TcpStream, server: u16, way: &Way) {
    // A server that is away is a connection that ends.
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else { return };
    let ((client_in, client_out), (server_in, server_out)) =
        (client.into_split(), server.into_split());
    // Set where this connection's answers are held.
    let mute = AtomicBool::new(false);
    tokio::select! {
        () = carry_up(client_in, server_out, way, &mute) => {}
        () = carry_down(server_in, client_out, way, &mute) => {}
    }
}

async fn carry_up(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: &Way, mute: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    let mut messages = Messages::default();
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..length];
        way.pass().await;
        for (begin, end) in messages.commits(bytes) {
            let Some(place) = way.springs() else { continue };
            let upto = match place {
                Place::Uncommitted => begin,
                Place::Unanswered => end,
            };
            mute.store(true, Ordering::SeqCst);
            let written = to.write_all(&bytes[..upto]).await;
            way.held.store(true, Ordering::SeqCst);
            if written.is_err() {
                return;
            }
            // Until the connection is broken, by the harness or by the death of the recorder.
            while from.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
            return;
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

async fn carry_down(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: &Way, mute: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        way.pass().await;
        if !mute.load(Ordering::SeqCst) && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

impl Way {
    /// Waits as long as the faults of the moment say.
    async fn pass(&self) {
        let slow = self.state.lock().unwrap().slow;
        if let Some((each, until)) = slow
            && Instant::now() < until
        {
            sleep(each).await;
        }
        loop {
            let stalled = self.state.lock().unwrap().stalled_until;
            match stalled {
                Some(until) if Instant::now() < until => {
                    // Looked at again now and then: the end of a round takes all faults away.
                    sleep_until(until.min(Instant::now() + Duration::from_millis(200))).await;
                }
                _ => return,
            }
        }
    }

    /// Whether this write is the one to hold, and where.
    fn springs(&self) -> Option<Place> {
        let mut state = self.state.lock().unwrap();
        let (_, after) = state.traps.front_mut()?;
        if let Some(fewer) = after.checked_sub(1) {
            *after = fewer;
            return None;
        }
        // The next one waits until this one is over.
        if state.springing {
            return None;
        }
        state.springing = true;
        state.traps.pop_front().map(|(place, _)| place)
    }
}

/// Finds messages in what a client of PostgreSQL sends, however it is cut into pieces
/// (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).
#[derive(Debug, Default)]
struct Messages {
    /// The first message has no type.
    begun: bool,
    head: Vec<u8>,
    /// Bytes of the current message that are still to come.
    rest: usize,
    /// The next Sync commits a batch.
    batch: bool,
}

impl Messages {
    /// Where in these bytes each message begins and ends that commits a batch.
    fn commits(&mut self, bytes: &[u8]) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            if self.rest > 0 {
                let taken = self.rest.min(bytes.len() - at);
                self.rest -= taken;
                at += taken;
                continue;
            }
            self.head.push(bytes[at]);
            at += 1;
            let kind_bytes = usize::from(self.begun);
            if self.head.len() == kind_bytes + 4 {
                let length: [u8; 4] = self.head[kind_bytes..].try_into().unwrap();
                self.rest = usize::try_from(u32::from_be_bytes(length)).unwrap().saturating_sub(4);
                let kind = self.begun.then_some(self.head[0]);
                self.batch |= kind == Some(BIND) && self.rest > BATCH_BYTES;
                let commits = kind == Some(COPY_DONE)
                    || (kind == Some(SYNC) && std::mem::take(&mut self.batch));
                // Neither has a body. One whose head is cut in two is let through.
                if commits && at >= 5 {
                    found.push((at - 5, at));
                }
                // An eight byte first message asks for TLS; the startup message follows it.
                self.begun |= self.rest != 4;
                self.head.clear();
            }
        }
        found
    }
}
