//! What happens in a round: a pure function of the seed and the round's number, so that a failure can be repeated.
//!
//! The first two rounds are a fixed list that holds every kind of fault, with drawn parameters; later ones draw the kinds too.

use std::fmt;
use std::time::Duration;

use trading_core::exchange::{IdRule, all};
use trading_core::simulator::{Action, Venue};

/// Rounds that share a database, after the first two, which have one each.
const ROUNDS_PER_ERA: u64 = 4;
/// Rounds whose kinds of faults are a fixed list.
pub(crate) const FIXED: u64 = 2;
/// The time from one fault of a fixed list to the next.
const APART: Duration = Duration::from_secs(4);
/// The least time after the last fault before a round's end.
const CALM: Duration = Duration::from_secs(3);

/// Numbers that look like chance and are the same for the same seed (splitmix64).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut mixed = Self(seed);
        Self(mixed.draw() ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03))
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `least` to `most`, both included.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.draw() % (most - least + 1)
    }

    /// Milliseconds from `least` to `most`.
    pub(crate) fn ms(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.between(least, most))
    }

    pub(crate) fn one_in(&mut self, many: u64) -> bool {
        self.between(1, many) == 1
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.draw() % u64::try_from(len).unwrap()).unwrap()
    }
}

/// Whose PostgreSQL it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    /// The harness runs it; each recorder reaches it through a proxy of its own.
    Own,
    /// The recorder's embedded one.
    Embedded,
}

/// What consecutive rounds share: a market, a database and what is recorded into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Era {
    pub(crate) number: u64,
    pub(crate) server: Server,
    /// Whether a pooler in session mode is before it; only where it is ours.
    pub(crate) is_pooled: bool,
    /// Trades a second of each symbol.
    pub(crate) rate: u64,
    /// Symbols of each of the five exchanges.
    pub(crate) symbols: usize,
}

impl Era {
    pub(crate) fn of(seed: u64, round: u64) -> Self {
        let number =
            if round <= FIXED { round } else { FIXED + 1 + (round - FIXED - 1) / ROUNDS_PER_ERA };
        let mut random = Random::new(seed, 1_000_000 + number);
        let drawn = if random.one_in(3) { Server::Embedded } else { Server::Own };
        let server = match number {
            1 => Server::Own,
            2 => Server::Embedded,
            _ => drawn,
        };
        let is_pooled = server == Server::Own && (number == 1 || random.one_in(3));
        let drawn = random.pick(&[(20, 10), (30, 10), (40, 10), (60, 6), (60, 4)]);
        let (rate, symbols) = if number <= FIXED { (40, 10) } else { drawn };
        Self { number, server, is_pooled, rate, symbols }
    }

    /// Whether a round is the first on its database.
    pub(crate) const fn begins_with(round: u64) -> bool {
        round <= FIXED || (round - FIXED - 1).is_multiple_of(ROUNDS_PER_ERA)
    }
}

/// How a server goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Fast,
    Immediate,
    Kill,
}

/// What happens to the way between a recorder and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// Every connection breaks; new ones are taken.
    Cut,
    /// Connections break, and new ones too, for so long.
    Refuse(Duration),
    /// No byte goes either way for so long.
    Stall(Duration),
    /// Each piece takes so much longer, for so long.
    Slow(Duration, Duration),
}

/// Where a write is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The server has all rows, and not the word to commit them.
    Uncommitted,
    /// The server commits, and its answer does not arrive.
    Unanswered,
}

/// A moment that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// So many writes later one is held there; then the recorder is killed, or only its connection.
    Write { place: Place, after: u32, kills: bool },
    /// So long after it began to repair a gap.
    Repair { after: Duration },
    /// So long after the spool began to grow; with a torn record at its end, as a crash may leave it.
    Spool { after: Duration, torn: bool },
}

/// One thing that is done.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// SIGKILL; started again so much later.
    Kill {
        who: usize,
        down: Duration,
    },
    /// SIGTERM; started again so long after it ended.
    Terminate {
        who: usize,
        down: Duration,
    },
    /// The server goes.
    Away(Stop),
    /// The server comes back.
    Back,
    Line {
        who: usize,
        what: Line,
    },
    /// SIGKILL at a moment that comes by itself.
    Trap {
        who: usize,
        moment: Moment,
        down: Duration,
    },
    Exchange {
        venue: Option<Venue>,
        action: Action,
    },
    /// Faults of all exchanges that stay on, in the simulator's words.
    Switch(&'static str),
    /// The wall clock that a recorder sees is so many seconds off from now on.
    Clock {
        who: usize,
        off: i64,
    },
}

/// What is drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kill,
    KillTwice,
    KillInWrite,
    CutInWrite,
    KillInSpool,
    KillInRepair,
    Line,
    LineStall,
    Away,
    AwayShort,
    Quota,
    TerminateAway,
    Terminate,
    Trades,
    Sockets,
    Stall,
    Rest,
    Ban,
    Clock,
}

impl Kind {
    const ANYWHERE: [Self; 14] = [
        Self::Kill,
        Self::KillTwice,
        Self::KillInSpool,
        Self::KillInRepair,
        Self::Away,
        Self::AwayShort,
        Self::Quota,
        Self::TerminateAway,
        Self::Terminate,
        Self::Trades,
        Self::Sockets,
        Self::Stall,
        Self::Rest,
        Self::Ban,
    ];
    /// These need the proxies, or a database with a clock of its own.
    const WITH_OWN_SERVER: [Self; 5] =
        [Self::KillInWrite, Self::CutInWrite, Self::Line, Self::LineStall, Self::Clock];

    /// Whether it does not hinder the others.
    const fn is_beside(self) -> bool {
        matches!(
            self,
            Self::Trades | Self::Sockets | Self::Stall | Self::Rest | Self::Ban | Self::Clock
        )
    }

    /// The server can be away once in a drawn round.
    const fn takes_the_server(self) -> bool {
        matches!(
            self,
            Self::KillInSpool | Self::Away | Self::AwayShort | Self::Quota | Self::TerminateAway
        )
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::KillTwice => "kill twice",
            Self::KillInWrite => "kill before commit",
            Self::CutInWrite => "cut before commit",
            Self::KillInSpool => "kill in spool write",
            Self::KillInRepair => "kill in repair",
            Self::Line => "database line",
            Self::LineStall => "database line silent",
            Self::Away => "database away",
            Self::AwayShort => "database restarted",
            Self::Quota => "spool full",
            Self::TerminateAway => "stop without database",
            Self::Terminate => "stop and start",
            Self::Trades => "skip, repeat, malform, misdate",
            Self::Sockets => "cut, refuse, shut down",
            Self::Stall => "sockets silent",
            Self::Rest => "history away",
            Self::Ban => "ban",
            Self::Clock => "clock steps",
        }
    }
}

/// One round.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) number: u64,
    pub(crate) recorders: usize,
    /// Sockets per feed.
    pub(crate) connections: u64,
    /// The longest that a tick waits in its batch.
    pub(crate) batch_time: Duration,
    /// The wait before the first retry of a write.
    pub(crate) retry_delay: Duration,
    pub(crate) spool_bytes: &'static str,
    /// Kills of a recorder that has just begun on an empty database, each so long after its start.
    pub(crate) migrations: Vec<Duration>,
    pub(crate) length: Duration,
    /// What happens when, in order.
    pub(crate) events: Vec<(Duration, Event)>,
    kinds: Vec<Kind>,
}

impl Plan {
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        let era = Era::of(seed, number);
        let mut random = Random::new(seed, number);
        let (kinds, recorders, connections) = match number {
            1 => (first_list(), 2, 1),
            2 => (second_list(), 1, 2),
            _ => (
                drawn_list(&mut random, era.server),
                random.pick(&[1, 1, 2]),
                random.pick(&[1, 1, 2]),
            ),
        };
        let migrations = if Era::begins_with(number) && (number <= FIXED || random.one_in(2)) {
            // An embedded server is made first, which takes seconds.
            let most = if era.server == Server::Own { 400 } else { 6_000 };
            (0..random.between(1, 3)).map(|_| random.ms(0, most)).collect()
        } else {
            Vec::new()
        };
        let mut events = Vec::new();
        let mut end = Duration::ZERO;
        for kind in &kinds {
            let mut part = script(*kind, recorders, &mut random);
            part.sort_by_key(|(at, _)| *at);
            if number <= FIXED && !kind.is_beside() {
                // One after the other, so that each is seen to happen.
                let first = part.first().map_or(Duration::ZERO, |(at, _)| *at);
                part.iter_mut().for_each(|(at, _)| *at = *at + end + APART - first);
                end = part.last().map_or(end, |(at, _)| *at);
            }
            events.extend(part);
        }
        events.sort_by_key(|(at, _)| *at);
        let last = events.last().map_or(Duration::ZERO, |(at, _)| *at);
        let drawn = random.ms(15_000, 40_000);
        Self {
            number,
            recorders,
            connections,
            batch_time: random.ms(300, 2_000),
            retry_delay: random.ms(50, 500),
            spool_bytes: if kinds.contains(&Kind::Quota) { "1MiB" } else { "64MiB" },
            migrations,
            length: (last + CALM).max(if number <= FIXED { CALM } else { drawn }),
            events,
            kinds,
        }
    }
}

impl Plan {
    /// Whether the recorders see a clock that is set.
    pub(crate) fn sets_clocks(&self) -> bool {
        self.kinds.contains(&Kind::Clock)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.recorders > 1 {
            parts.push("two recorders");
        }
        if self.connections > 1 {
            parts.push("two sockets");
        }
        if !self.migrations.is_empty() {
            parts.push("kill in migration");
        }
        parts.extend(self.kinds.iter().map(|kind| kind.name()));
        f.write_str(&parts.join(", "))
    }
}

/// Half of the kinds, for a server of our own.
fn first_list() -> Vec<Kind> {
    use Kind::{Clock, CutInWrite, KillInSpool, KillInWrite, Line, Sockets, Trades};
    vec![KillInWrite, CutInWrite, KillInSpool, Line, Sockets, Trades, Clock]
}

/// The other half, for an embedded server.
fn second_list() -> Vec<Kind> {
    use Kind::{AwayShort, Ban, KillInRepair, KillTwice, Quota, Rest, Stall, Terminate};
    vec![KillTwice, KillInRepair, Quota, AwayShort, Terminate, Stall, Rest, Ban]
}

fn drawn_list(random: &mut Random, server: Server) -> Vec<Kind> {
    let mut pool = Kind::ANYWHERE.to_vec();
    if server == Server::Own {
        pool.extend(Kind::WITH_OWN_SERVER);
    }
    let mut kinds: Vec<Kind> = Vec::new();
    for _ in 0..random.between(1, 4) {
        let kind = pool.swap_remove(random.index(pool.len()));
        let taken = kinds.iter().any(|other| other.takes_the_server());
        if !(taken && kind.takes_the_server()) {
            kinds.push(kind);
        }
    }
    kinds
}

/// When a kind of fault does what.
fn script(kind: Kind, recorders: usize, random: &mut Random) -> Vec<(Duration, Event)> {
    let at = random.ms(500, 12_000);
    let who = random.index(recorders);
    let down = random.ms(0, 3_000);
    let kill = |at: Duration, down: Duration| (at, Event::Kill { who, down });
    let trap = |moment: Moment| (at, Event::Trap { who, moment, down });
    let line = |at: Duration, what: Line| (at, Event::Line { who, what });
    match kind {
        Kind::Kill => vec![kill(at, down)],
        Kind::KillTwice => {
            let again = at + Duration::from_millis(200) + random.ms(0, 2_500);
            vec![kill(at, Duration::from_millis(100)), kill(again, down)]
        }
        Kind::KillInWrite | Kind::CutInWrite => {
            let place = random.pick(&[Place::Uncommitted, Place::Unanswered]);
            let after = u32::try_from(random.between(0, 4)).unwrap();
            vec![trap(Moment::Write { place, after, kills: kind == Kind::KillInWrite })]
        }
        // The kill makes the gap that is repaired.
        Kind::KillInRepair => {
            vec![kill(at, down), trap(Moment::Repair { after: random.ms(0, 1_500) })]
        }
        Kind::Line => {
            let lasting = random.ms(2_000, 8_000);
            let slow = Line::Slow(random.ms(100, 900), lasting);
            (0..random.between(2, 4))
                .map(|_| {
                    let what = random.pick(&[Line::Cut, Line::Refuse(lasting), slow]);
                    line(random.ms(500, 15_000), what)
                })
                .collect()
        }
        Kind::LineStall => vec![line(at, Line::Stall(random.ms(15_000, 45_000)))],
        Kind::KillInSpool | Kind::Away | Kind::AwayShort | Kind::Quota | Kind::TerminateAway => {
            outage(kind, who, down, random)
        }
        Kind::Terminate => vec![(at, Event::Terminate { who, down })],
        Kind::Trades => trades(random),
        Kind::Sockets => sockets(random),
        Kind::Stall => {
            let action = Action::Stall(random.ms(1_000, 20_000));
            vec![(at, Event::Exchange { venue: venue(random), action })]
        }
        Kind::Rest => {
            let fault = random.pick(&["rest=down", "rest=down", "rest=2s"]);
            let over = at + random.ms(5_000, 20_000);
            vec![(at, Event::Switch(fault)), (over, Event::Switch("none"))]
        }
        Kind::Ban => ban(random),
        Kind::Clock => clock(who, random),
    }
}

/// Everybody is cut and banned, by one exchange or by all.
fn ban(random: &mut Random) -> Vec<(Duration, Event)> {
    let (at, venue) = (random.ms(1_000, 12_000), venue(random));
    let ban = Action::Ban(random.ms(3_000, 12_000));
    [ban, Action::Cut].map(|action| (at, Event::Exchange { venue, action })).into()
}

/// A clock is put forward or back, once or twice, and put right.
fn clock(who: usize, random: &mut Random) -> Vec<(Duration, Event)> {
    const OFF: [i64; 6] = [-3 * 86_400, -3_600, -90, 40, 7_200, 3 * 86_400];
    let mut at = random.ms(1_000, 6_000);
    let mut events = Vec::new();
    for _ in 0..random.between(1, 2) {
        events.push((at, Event::Clock { who, off: random.pick(&OFF) }));
        at += random.ms(3_000, 10_000);
    }
    events.push((at, Event::Clock { who, off: 0 }));
    events
}

/// The server goes and comes back; what else happens meanwhile.
fn outage(kind: Kind, who: usize, down: Duration, random: &mut Random) -> Vec<(Duration, Event)> {
    let mut how = random.pick(&[Stop::Fast, Stop::Immediate, Stop::Kill]);
    let gone = random.ms(2_000, 6_000);
    let (least, most) = match kind {
        Kind::AwayShort => (500, 4_000),
        Kind::KillInSpool => (10_000, 16_000),
        Kind::Quota => (18_000, 32_000),
        Kind::TerminateAway => (5_000, 20_000),
        _ => (8_000, 40_000),
    };
    let mut events = Vec::new();
    match kind {
        Kind::KillInSpool => {
            let moment = Moment::Spool { after: random.ms(0, 3_000), torn: !random.one_in(8) };
            events.push((gone, Event::Trap { who, moment, down }));
        }
        Kind::TerminateAway => {
            events.push((gone + random.ms(100, 8_000), Event::Terminate { who, down }));
        }
        // The guard of an embedded server would bring a killed one back at once.
        Kind::Quota if how == Stop::Kill => how = Stop::Fast,
        _ => {}
    }
    let back = gone + random.ms(least, most);
    events.extend([(gone, Event::Away(how)), (back, Event::Back)]);
    events
}

fn venue(random: &mut Random) -> Option<Venue> {
    random.one_in(2).then(|| random.pick(Venue::ALL))
}

/// What happens to single trades, where their ids tell of one that was not sent.
fn trades(random: &mut Random) -> Vec<(Duration, Event)> {
    let counting = all().filter(|it| it.ids() == IdRule::Consecutive);
    let venues: Vec<Venue> = counting.map(|it| it.name().parse().unwrap()).collect();
    let mut events = Vec::new();
    for _ in 0..random.between(2, 5) {
        let count = random.between(1, 200);
        let action = random.pick(&[
            Action::Skip(count),
            Action::Repeat(count),
            Action::Malformed(count),
            Action::Misdate(count),
        ]);
        let venue = Some(random.pick(&venues));
        events.push((random.ms(1_000, 15_000), Event::Exchange { venue, action }));
    }
    events
}

/// What happens to connections.
fn sockets(random: &mut Random) -> Vec<(Duration, Event)> {
    let mut events = Vec::new();
    for _ in 0..random.between(2, 4) {
        let refuse = Action::Refuse(random.ms(1_000, 8_000));
        let shutdown = Action::Shutdown(random.ms(500, 4_000));
        let action = random.pick(&[Action::Cut, Action::Cut, refuse, shutdown]);
        let (at, venue) = (random.ms(1_000, 15_000), venue(random));
        events.push((at, Event::Exchange { venue, action }));
        // Who is refused was connected before.
        if matches!(action, Action::Refuse(_)) {
            events.push((at, Event::Exchange { venue, action: Action::Cut }));
        }
    }
    events
}
