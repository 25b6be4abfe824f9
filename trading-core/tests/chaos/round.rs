//! One round: recorders are started, faults happen as planned, everything is given time to heal, the recorders are stopped,
//! and the database is checked.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use trading_core::domain::Timestamp;
use trading_core::simulator::{Action, Switches, Target};

use crate::checks::Ran;
use crate::plan::{Event, Line, Moment, Plan, Random, Server, Stop};
use crate::proxy::Proxy;
use crate::recorder::{Keeper, Recorder};
use crate::report::{Problems, Row};
use crate::world::World;
use crate::{checks, logs, spool, table};

/// How often everything is looked at.
const LOOK: Duration = Duration::from_millis(40);
/// How long the first trade may take on a new database.
const BEGUN_WITHIN: Duration = Duration::from_secs(90);
/// How long healing may take. Reached only when something is broken.
const HEALED_WITHIN: Duration = Duration::from_secs(300);
/// How long an orderly stop may take.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
/// After the faults a trap that has not sprung is taken away.
const TRAPS_LAST: Duration = Duration::from_secs(15);
/// How long after its faults a database explains that a recorder could not start.
const UNEASY: Duration = Duration::from_secs(30);
/// Stops that may each find a gap of the very last moment.
const STOPS: u32 = 3;
/// The spool grows when it takes so many bytes more: a batch, not only the beginning of a file.
const GROWTH: u64 = 500;

/// A place for a recorder.
#[derive(Debug, Default)]
struct Slot<'a> {
    recorder: Option<Recorder<'a>>,
    /// Asked to stop; then started again so much later.
    stopping: Option<Duration>,
    start_at: Option<Instant>,
}

/// A trap that is set.
#[derive(Debug, Clone, Copy)]
struct Set {
    who: usize,
    moment: Moment,
    down: Duration,
    /// When what it waits for was seen to begin.
    begun: Option<Instant>,
    /// What was in the spool before.
    before: u64,
}

/// A round that runs.
#[derive(Debug)]
struct Round<'a> {
    world: &'a mut World,
    plan: &'a Plan,
    keeper: &'a Keeper,
    folder: &'a Path,
    random: Random,
    begun: Instant,
    slots: Vec<Slot<'a>>,
    traps: Vec<Set>,
    /// The database was taken away and not brought back yet.
    is_away: bool,
    /// Until when a recorder that cannot start is the database's fault.
    uneasy: Instant,
    logs: Vec<PathBuf>,
    orderly: Vec<PathBuf>,
    problems: Problems,
    row: Row,
}

/// Runs a round; says what came of it, with the problems on standard output.
pub(crate) async fn run(
    world: &mut World,
    plan: &Plan,
    keeper: &Keeper,
    folder: &Path,
    seed: u64,
) -> Row {
    let server = match world.era.server {
        Server::Own if world.era.is_pooled => "pooled",
        Server::Own => "external",
        Server::Embedded => "embedded",
    };
    let now = Instant::now();
    let mut round = Round {
        world,
        plan,
        keeper,
        folder,
        random: Random::new(seed, 2_000_000 + plan.number),
        begun: now,
        slots: (0..plan.recorders).map(|_| Slot::default()).collect(),
        traps: Vec::new(),
        is_away: false,
        uneasy: now,
        logs: Vec::new(),
        orderly: Vec::new(),
        problems: Problems::default(),
        row: Row { round: plan.number, server, faults: plan.to_string(), ..Row::default() },
    };
    if let Err(problem) = round.all().await {
        round.problems.add(problem);
    }
    // What still runs after a problem.
    round.slots.clear();
    round.row.passed = round.problems.is_empty();
    round.row.took = round.begun.elapsed();
    if !round.row.passed {
        round.problems.print();
        for log in round.logs.iter().rev().take(plan.recorders) {
            println!("--- the end of {}\n{}", log.display(), logs::tail(log));
        }
    }
    round.row
}

impl<'a> Round<'a> {
    async fn all(&mut self) -> Result<(), String> {
        self.migrate().await?;
        let now = Instant::now();
        self.slots.iter_mut().for_each(|slot| slot.start_at = Some(now));
        self.until_recording().await?;
        self.storm().await?;
        let mut stops = 0;
        let pool = loop {
            self.heal().await?;
            self.stop().await?;
            // Its last recorder has stopped an embedded one.
            self.world.bring_back().await?;
            let pool = self.world.pool().await?;
            stops += 1;
            let gaps = table::gaps(&pool).await.map_err(|error| error.to_string())?;
            let open = gaps.iter().filter(|gap| gap.status == "open").count();
            if open == 0 || stops == STOPS {
                break pool;
            }
            // Found as the recorder stopped: it is told, and the next start repairs it.
            self.say(&format!("{open} gaps of the last moment; started again"));
            let now = Instant::now();
            self.slots.iter_mut().for_each(|slot| slot.start_at = Some(now));
        };
        let ran = Ran {
            logs: &self.logs,
            orderly: &self.orderly,
            is_disturbed: self.uneasy > self.begun,
            sets_clocks: self.plan.sets_clocks(),
            settings: self.world.settings(self.plan, 0),
        };
        checks::all(self.world, &pool, &ran, &mut self.row, &mut self.problems)
            .await
            .map_err(|error| error.to_string())
    }

    fn say(&self, what: &str) {
        println!("  {:6.1}s  {what}", self.begun.elapsed().as_secs_f64());
    }

    fn start(&mut self, who: usize) {
        let number = self.logs.len() + 1;
        let log = self.folder.join(format!(
            "round-{}-start-{number}-recorder-{}.log",
            self.plan.number,
            who + 1
        ));
        let settings = self.world.settings(self.plan, who);
        let recorder = Recorder::start(self.keeper, &log, &["live"], settings);
        self.logs.push(log);
        self.slots[who].recorder = Some(recorder);
    }

    /// Kills recorders that have just begun on an empty database.
    async fn migrate(&mut self) -> Result<(), String> {
        for wait in &self.plan.migrations {
            self.start(0);
            sleep(*wait).await;
            self.kill(
                0,
                &format!("SIGKILL {} ms after the start on a fresh database", wait.as_millis()),
            );
        }
        Ok(())
    }

    fn kill(&mut self, who: usize, why: &str) {
        match self.slots[who].recorder.take() {
            Some(mut recorder) => {
                recorder.kill();
                self.row.peak = self.row.peak.max(recorder.peak());
                self.row.kills += 1;
                self.slots[who].stopping = None;
                self.say(why);
            }
            None => self.say(&format!("{why}: it does not run")),
        }
    }

    /// A database that is made takes longer than some faults.
    async fn until_recording(&mut self) -> Result<(), String> {
        let from = Instant::now();
        loop {
            self.look().await?;
            if self.slots.iter().all(|slot| slot.recorder.is_some()) {
                let pool = self.world.pool().await?;
                let asked = sqlx::query_scalar("SELECT EXISTS (SELECT FROM tick_data)");
                if asked.fetch_one(&pool).await.unwrap_or(false) {
                    return Ok(());
                }
            }
            if from.elapsed() > BEGUN_WITHIN {
                return Err("nothing is recorded".to_owned());
            }
            sleep(LOOK).await;
        }
    }

    /// The faults, as planned, and whatever they set off.
    async fn storm(&mut self) -> Result<(), String> {
        let from = Instant::now();
        let mut events = self.plan.events.iter();
        let mut next = events.next();
        while next.is_some() || from.elapsed() < self.plan.length {
            while let Some((_, event)) = next.filter(|(at, _)| *at <= from.elapsed()) {
                self.happen(event).await?;
                next = events.next();
            }
            self.look().await?;
            sleep(LOOK).await;
        }
        Ok(())
    }

    async fn happen(&mut self, event: &Event) -> Result<(), String> {
        match *event {
            Event::Kill { who, down } => {
                self.kill(
                    who,
                    &format!("SIGKILL recorder {}, for {} ms", who + 1, down.as_millis()),
                );
                self.slots[who].start_at = Some(Instant::now() + down);
            }
            Event::Terminate { who, down } => {
                let slot = &mut self.slots[who];
                if let Some(recorder) = &slot.recorder {
                    recorder.terminate();
                    slot.stopping = Some(down);
                }
                self.say(&format!("SIGTERM recorder {}", who + 1));
            }
            Event::Away(how) => self.take_away(how).await?,
            Event::Back => {
                self.world.bring_back().await?;
                self.is_away = false;
                self.uneasy = Instant::now() + UNEASY;
                self.say("database back");
            }
            Event::Line { who, what } => {
                let lasting = match what {
                    Line::Cut => Duration::ZERO,
                    Line::Refuse(lasting) | Line::Stall(lasting) | Line::Slow(_, lasting) => {
                        lasting
                    }
                };
                self.uneasy = self.uneasy.max(Instant::now() + lasting + UNEASY);
                self.world.proxies[who].act(what);
                self.say(&format!("database line of recorder {}: {what:?}", who + 1));
            }
            Event::Trap { who, moment, down } => {
                if let Moment::Write { place, after, .. } = moment {
                    self.world.proxies[who].arm(place, after);
                }
                let before = spool::bytes(self.world.spool());
                self.traps.push(Set { who, moment, down, begun: None, before });
            }
            Event::Exchange { venue, action } => {
                let target = Target { exchange: venue, ..Target::default() };
                self.world
                    .faults
                    .act(&target, action, Timestamp::now())
                    .map_err(|error| error.to_string())?;
                let whom = venue.map_or("every exchange", |venue| venue.name());
                self.say(&format!("{whom}: {}", told(action)));
            }
            Event::Switch(text) => {
                let switches = text.parse::<Switches>().map_err(|error| error.to_string())?;
                self.world.faults.switch(switches);
                self.say(&format!("every exchange: {text}"));
            }
            Event::Clock { who, off } => {
                self.world.set_clock(who, off);
                self.say(&format!("clock of recorder {}: {off:+} s", who + 1));
            }
        }
        Ok(())
    }

    async fn take_away(&mut self, how: Stop) -> Result<(), String> {
        // What is on its way fails from here on.
        self.uneasy = Instant::now() + Duration::from_secs(3_600);
        self.is_away = true;
        let was_up = self.world.take_away(how).await?;
        self.say(&format!("database away ({how:?}){}", if was_up { "" } else { ": it was" }));
        Ok(())
    }

    /// Starts what is due, springs traps, and sees that what runs is well.
    async fn look(&mut self) -> Result<(), String> {
        self.row.spooled = self.row.spooled.max(spool::bytes(self.world.spool()));
        self.spring().await;
        for who in 0..self.slots.len() {
            let slot = &mut self.slots[who];
            if slot.recorder.is_none() && slot.start_at.is_some_and(|at| at <= Instant::now()) {
                slot.start_at = None;
                self.start(who);
                self.say(&format!("recorder {} started", who + 1));
            }
            let Some(recorder) = &mut self.slots[who].recorder else { continue };
            let ended = recorder.look();
            self.row.peak = self.row.peak.max(recorder.peak());
            if let Some(status) = ended {
                self.ended(who, status)?;
            }
        }
        Ok(())
    }

    /// A recorder has ended that was not killed.
    fn ended(&mut self, who: usize, status: ExitStatus) -> Result<(), String> {
        let slot = &mut self.slots[who];
        let recorder = slot.recorder.take().ok_or("nothing has ended")?;
        let log = recorder.log().to_owned();
        let is_uneasy = Instant::now() < self.uneasy;
        let again = match (slot.stopping.take(), status.code()) {
            (Some(down), Some(0)) => {
                self.orderly.push(log);
                down
            }
            // It names what it left in the spool.
            (Some(down), Some(70)) if is_uneasy => down,
            // It could not begin; whoever supervises it starts it again.
            (None, Some(1)) if is_uneasy => Duration::from_secs(2),
            (Some(down), Some(1)) if is_uneasy => down,
            // Asked before it could listen.
            (Some(down), None) if status.signal() == Some(15) && logs::is_empty(&log) => down,
            _ => {
                return Err(format!(
                    "recorder {} ended by itself: {status}\n{}",
                    who + 1,
                    logs::tail(&log)
                ));
            }
        };
        self.slots[who].start_at = Some(Instant::now() + again);
        self.say(&format!("recorder {} has ended: {status}", who + 1));
        Ok(())
    }

    /// Springs each trap whose moment has come.
    async fn spring(&mut self) {
        let mut at = 0;
        while at < self.traps.len() {
            if self.has_come(at).await {
                let Set { who, moment, down, .. } = self.traps.remove(at);
                self.sprung(who, moment, down);
            } else {
                at += 1;
            }
        }
    }

    async fn has_come(&mut self, at: usize) -> bool {
        let Set { who, moment, before, .. } = self.traps[at];
        let (has_begun, after) = match moment {
            Moment::Write { .. } => return self.world.proxies[who].holds(),
            Moment::Repair { after } => (self.is_repairing(who).await.unwrap_or(false), after),
            Moment::Spool { after, .. } => {
                (spool::bytes(self.world.spool()) > before + GROWTH, after)
            }
        };
        let set = &mut self.traps[at];
        if set.begun.is_none() && has_begun {
            set.begun = Some(Instant::now());
        }
        set.begun.is_some_and(|begun| begun.elapsed() >= after)
    }

    /// Whether a recorder works on a gap. While the database is away none does.
    async fn is_repairing(&mut self, who: usize) -> Result<bool, String> {
        let Some(recorder) = &self.slots[who].recorder else { return Ok(false) };
        if self.is_away {
            return Ok(false);
        }
        // Host, process, start.
        let claims = format!("%:{}:%", recorder.pid());
        let pool = self.world.pool().await?;
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM tick_gaps WHERE status = 'open' AND claimed_by LIKE $1)",
        )
        .bind(claims)
        .fetch_one(&pool)
        .await
        .map_err(|error| error.to_string())
    }

    fn sprung(&mut self, who: usize, moment: Moment, down: Duration) {
        match moment {
            Moment::Write { place, kills, .. } => {
                if kills {
                    self.kill(who, &format!("SIGKILL recorder {} in a write, {place:?}", who + 1));
                } else {
                    self.say(&format!(
                        "connection of recorder {} cut in a write, {place:?}",
                        who + 1
                    ));
                }
                self.world.proxies[who].release();
                if !kills {
                    return;
                }
            }
            Moment::Repair { .. } => {
                self.kill(who, &format!("SIGKILL recorder {} in a repair", who + 1));
            }
            Moment::Spool { torn, .. } => {
                self.kill(who, &format!("SIGKILL recorder {} in a spool write", who + 1));
                if torn && let Some(torn) = spool::tear(self.world.spool(), &mut self.random) {
                    self.say(&torn);
                }
            }
        }
        self.slots[who].start_at = Some(Instant::now() + down);
    }

    /// Takes all faults away, and waits until everything is whole again.
    async fn heal(&mut self) -> Result<(), String> {
        self.world.faults.switch(Switches::default());
        self.world.proxies.iter().for_each(Proxy::calm);
        (0..self.plan.recorders).for_each(|who| self.world.set_clock(who, 0));
        self.world.bring_back().await?;
        let from = Instant::now();
        let symbols = self.world.era.symbols * trading_core::exchange::names().len();
        let mut told = Instant::now();
        loop {
            self.look().await?;
            if from.elapsed() > TRAPS_LAST && !self.traps.is_empty() {
                self.world.proxies.iter().for_each(Proxy::disarm);
                for set in std::mem::take(&mut self.traps) {
                    self.say(&format!("{:?} never came", set.moment));
                }
            }
            let waits = self.waits(symbols).await;
            if waits.is_empty() {
                self.say(&format!(
                    "at rest {:.0} s after the last fault",
                    from.elapsed().as_secs_f64()
                ));
                return Ok(());
            }
            if from.elapsed() > HEALED_WITHIN {
                return Err(format!(
                    "not at rest within {} s: {}",
                    HEALED_WITHIN.as_secs(),
                    waits.join("; ")
                ));
            }
            if told.elapsed() > Duration::from_secs(15) {
                told = Instant::now();
                self.say(&format!("not yet at rest: {}", waits.join("; ")));
            }
            for _ in 0..10 {
                self.look().await?;
                sleep(LOOK).await;
            }
        }
    }

    /// What keeps everything from being at rest.
    async fn waits(&mut self, symbols: usize) -> Vec<String> {
        let mut waits: Vec<String> = Vec::new();
        if !self.traps.is_empty() {
            waits.push("a trap is set".to_owned());
        }
        if self.slots.iter().any(|slot| slot.recorder.is_none() || slot.stopping.is_some()) {
            waits.push("a recorder does not run".to_owned());
        }
        let spooled = spool::segments(self.world.spool());
        if spooled > 0 {
            waits.push(format!("{spooled} files in the spool"));
        }
        if !waits.is_empty() {
            return waits;
        }
        match self.world.pool().await {
            Ok(pool) => table::unrest(&pool, symbols)
                .await
                .unwrap_or_else(|error| vec![format!("the database says: {error}")]),
            Err(error) => vec![error],
        }
    }

    /// Stops every recorder in order.
    async fn stop(&mut self) -> Result<(), String> {
        for slot in &mut self.slots {
            if let Some(recorder) = &slot.recorder {
                recorder.terminate();
                slot.stopping = Some(Duration::ZERO);
            }
        }
        let from = Instant::now();
        for who in 0..self.slots.len() {
            loop {
                let recorder =
                    self.slots[who].recorder.as_mut().ok_or("a recorder does not run")?;
                if let Some(status) = recorder.look() {
                    self.row.peak = self.row.peak.max(recorder.peak());
                    if status.code() != Some(0) {
                        return Err(format!(
                            "recorder {} ended with {status}\n{}",
                            who + 1,
                            logs::tail(recorder.log())
                        ));
                    }
                    self.orderly.push(recorder.log().to_owned());
                    self.slots[who] = Slot::default();
                    break;
                }
                if from.elapsed() > STOPPED_WITHIN {
                    return Err(format!(
                        "recorder {} does not stop\n{}",
                        who + 1,
                        logs::tail(recorder.log())
                    ));
                }
                sleep(LOOK).await;
            }
        }
        Ok(())
    }
}

fn told(action: Action) -> String {
    match action {
        Action::Cut => "cut".to_owned(),
        Action::Skip(trades) => format!("{trades} trades skipped"),
        Action::Repeat(trades) => format!("{trades} trades repeated"),
        Action::Malformed(trades) => format!("{trades} trades malformed"),
        Action::Misdate(trades) => format!("{trades} trades dated years ahead"),
        Action::Stall(lasting) => format!("silent for {} ms", lasting.as_millis()),
        Action::Refuse(lasting) => format!("refuses for {} ms", lasting.as_millis()),
        Action::Ban(lasting) => format!("bans for {} ms", lasting.as_millis()),
        Action::Shutdown(notice) => format!("shuts down in {} ms", notice.as_millis()),
    }
}
