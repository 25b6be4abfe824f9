//! Watches how far this machine's clock is off, sets the recorder's clock by it, and logs it for as long as it is.
//!
//! Each reading of another clock is kept as what it is ahead of the steady clock: so a step of this machine's clock changes
//! none of them, and is judged at once by those that are known already.

use std::time::Duration;

use futures_util::future::join_all;
use sqlx::{Connection as _, PgPool};
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::venues::Venue;
use crate::domain::{
    APART_MICROS, Consensus, DATABASE, ExchangeStamps, RecorderClock, Timestamp, Witness,
    consensus, steady_micros,
};
use crate::feed::FeedBoard;
use crate::store::said;
use crate::telemetry::{Lasting, RepeatLimiter};

/// How often this machine's clock is read.
const PULSE: Duration = Duration::from_millis(200);
/// A pulse that is this late, in microseconds, means that the process or the machine was stopped: what was received is old
/// then.
const STOOD_STILL_MICROS: i64 = 2_000_000;
/// A machine's clock that moved by more than this against the steady one was set, in microseconds.
const STEP_MICROS: u64 = 1_000_000;
/// How often the database is asked for its time.
const DATABASE_INTERVAL: Duration = Duration::from_secs(60);
/// How long it may take to answer; half of a longer way is too inexact.
const DATABASE_MAX: Duration = Duration::from_secs(4);
/// How long the exchanges may take to answer.
const EXCHANGES_MAX: Duration = Duration::from_secs(5);
/// How often they are asked at the most.
const EXCHANGES_INTERVAL: Duration = Duration::from_secs(60);
/// A reading that is older is not used any more, in microseconds.
const READING_MAX_MICROS: i64 = 150_000_000;
/// An offset that changes by less is left as it is, so that stamps run evenly.
const SMOOTH_MICROS: u64 = 500_000;
/// From here on it is an error, in microseconds; below, from [`APART_MICROS`] on, a warning.
const FAR_OFF_MICROS: u64 = 60_000_000;
/// How often it is logged that a clock is off.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

const CURE: &str = "let it be kept right (timedatectl set-ntp true, or chrony)";

/// A reading of a clock: what it is ahead of the steady clock, and when that was, both in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ClockReading {
    lead: i64,
    steady: i64,
}

impl ClockReading {
    const fn is_fresh(&self, steady: i64) -> bool {
        steady.saturating_sub(self.steady) <= READING_MAX_MICROS
    }
}

/// One exchange, and the readings of its clocks.
#[derive(Debug)]
struct Exchange {
    venue: Venue,
    stamps: ExchangeStamps,
    /// By the stamps of its trades: the last answer, and whether the one before agreed with it.
    stamped: Option<(ClockReading, bool)>,
    /// When it was asked.
    answered: Option<ClockReading>,
}

impl Exchange {
    /// Reads the stamps since the last time.
    fn read_stamps(&mut self, steady: i64) {
        let Some(lead) = self.stamps.take() else { return };
        let before = self.stamped.filter(|(reading, _)| reading.is_fresh(steady));
        let agrees = before.is_some_and(|(reading, _)| reading.lead.abs_diff(lead) <= APART_MICROS);
        self.stamped = Some((ClockReading { lead, steady }, agrees));
    }

    /// By its stamps, where two readings in a row agreed.
    fn stamped(&self, steady: i64) -> Option<i64> {
        let (reading, is_sure) = self.stamped?;
        (is_sure && reading.is_fresh(steady)).then_some(reading.lead)
    }

    /// By its answer, else by its stamps.
    fn lead(&self, steady: i64) -> Option<i64> {
        let answered =
            self.answered.filter(|reading| reading.is_fresh(steady)).map(|reading| reading.lead);
        answered.or_else(|| self.stamped(steady))
    }
}

/// The watch.
#[derive(Debug)]
pub(super) struct ClockWatch {
    clock: RecorderClock,
    pool: PgPool,
    /// Whether the database runs on this machine.
    is_database_here: bool,
    database: Option<ClockReading>,
    exchanges: Vec<Exchange>,
    /// What the machine's clock was ahead of the steady one at the last pulse, and when that was.
    machine: ClockReading,
    asked_at: Option<Instant>,
    blocked: Duration,
    limiter: RepeatLimiter,
    limiter_others: RepeatLimiter,
    limiter_undecided: RepeatLimiter,
    /// What was logged last of this machine's clock.
    level: Level,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Right,
    Off,
    FarOff,
}

impl Level {
    fn of(offset: i64) -> Self {
        match offset.unsigned_abs() {
            0 => Self::Right,
            off if off < FAR_OFF_MICROS => Self::Off,
            _ => Self::FarOff,
        }
    }
}

fn read_machine() -> ClockReading {
    let steady = steady_micros();
    ClockReading { lead: Timestamp::now().as_micros().saturating_sub(steady), steady }
}

impl ClockWatch {
    /// Asks the database, and the exchanges where that says another time than this machine: the recorder's clock is set
    /// by it before anything is received.
    pub(super) async fn start(
        clock: RecorderClock,
        pool: PgPool,
        is_database_here: bool,
        venues: &[Venue],
    ) -> Self {
        let exchanges = venues.iter().map(|venue| Exchange {
            stamps: venue.stamps(),
            venue: venue.clone(),
            stamped: None,
            answered: None,
        });
        let mut watch = Self {
            clock,
            pool,
            is_database_here,
            database: None,
            exchanges: exchanges.collect(),
            machine: read_machine(),
            asked_at: None,
            blocked: Duration::ZERO,
            limiter: RepeatLimiter::new(LOG_INTERVAL),
            limiter_others: RepeatLimiter::new(LOG_INTERVAL),
            limiter_undecided: RepeatLimiter::new(LOG_INTERVAL),
            level: Level::Right,
        };
        watch.ask_database().await;
        watch.settle().await;
        watch
    }

    /// Watches until it is stopped.
    pub(super) async fn run(mut self, board: FeedBoard, stop: CancellationToken) {
        let watching = async {
            let mut pulse = tokio::time::interval(PULSE);
            pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut ask_at = Instant::now() + DATABASE_INTERVAL;
            loop {
                pulse.tick().await;
                let has_stepped = self.read_clocks(&board);
                if has_stepped || Instant::now() >= ask_at {
                    self.ask_database().await;
                    ask_at = Instant::now() + DATABASE_INTERVAL;
                }
                self.settle().await;
            }
        };
        stop.run_until_cancelled(watching).await;
    }

    /// Reads this machine's clock and the stamps of the exchanges; whether the clock was set.
    fn read_clocks(&mut self, board: &FeedBoard) -> bool {
        let before = std::mem::replace(&mut self.machine, read_machine());
        let now = self.machine;
        let stood_still = now.steady.saturating_sub(before.steady) > STOOD_STILL_MICROS;
        let blocked = board.exchanges().values().map(|counts| counts.blocked).sum();
        let is_late = stood_still || std::mem::replace(&mut self.blocked, blocked) != blocked;
        for exchange in &mut self.exchanges {
            if is_late {
                exchange.stamps.forget();
            }
            exchange.read_stamps(now.steady);
        }
        let step = now.lead.saturating_sub(before.lead);
        let has_stepped = step.unsigned_abs() > STEP_MICROS;
        if has_stepped {
            let way = if step > 0 { "forward" } else { "back" };
            warn!(
                "The clock of this machine was set {way} by {}; times of what is received go on evenly where other \
                 clocks say that they are right",
                shown(step)
            );
            if self.is_database_here {
                // It may read the same clock, and has to be asked again.
                self.database = None;
            }
        }
        has_stepped
    }

    async fn ask_database(&mut self) {
        let asking = async {
            let mut connection = self.pool.acquire().await?;
            connection.ping().await?;
            let before = steady_micros();
            let time: chrono::DateTime<chrono::Utc> =
                sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut *connection).await?;
            let after = steady_micros();
            let steady = before.midpoint(after);
            Ok::<_, sqlx::Error>(ClockReading {
                lead: time.timestamp_micros().saturating_sub(steady),
                steady,
            })
        };
        match timeout(DATABASE_MAX, asking).await {
            Ok(Ok(reading)) => self.database = Some(reading),
            // A database that is away is reported by the writers.
            Ok(Err(error)) => {
                debug!(error = %said(&error), "The database was not asked for its time");
            }
            Err(_elapsed) => debug!("The database did not answer with its time soon enough"),
        }
    }

    async fn ask_exchanges(&mut self) {
        self.asked_at = Some(Instant::now());
        let asked = self.exchanges.iter().map(|exchange| async {
            let before = steady_micros();
            let time = timeout(EXCHANGES_MAX, exchange.venue.time()).await.ok().flatten()?;
            let steady = before.midpoint(steady_micros());
            Some(ClockReading { lead: time.as_micros().saturating_sub(steady), steady })
        });
        let answered = join_all(asked).await;
        for (exchange, answered) in self.exchanges.iter_mut().zip(answered) {
            exchange.answered = answered.or(exchange.answered);
        }
    }

    /// Judges all clocks, sets ours, and logs what is wrong.
    async fn settle(&mut self) {
        let mut found = self.judge();
        let is_new = found.offset.abs_diff(self.clock.offset().micros()) > APART_MICROS;
        let may_ask = self.asked_at.is_none_or(|at| at.elapsed() >= EXCHANGES_INTERVAL);
        if (is_new && found.offset != 0 || found.is_undecided) && may_ask {
            // What is received may only be late: before a clock is called off, each exchange is asked.
            self.ask_exchanges().await;
            found = self.judge();
        }
        let applied = self.clock.offset().micros();
        let is_near = (found.offset == 0) == (applied == 0)
            && found.offset.abs_diff(applied) <= SMOOTH_MICROS;
        let offset = if is_near { applied } else { found.offset };
        self.clock.set(self.machine.lead, offset);
        self.log(&found, offset);
    }

    fn judge(&self) -> Consensus {
        let ClockReading { lead: ours, steady } = self.machine;
        let witness = |name: &str, lead: i64, is_here| Witness {
            name: name.to_owned(),
            ahead: lead.saturating_sub(ours),
            is_here,
        };
        let database = self.database.filter(|reading| reading.is_fresh(steady));
        let database =
            database.map(|reading| witness(DATABASE, reading.lead, self.is_database_here));
        let exchanges = self.exchanges.iter().filter_map(|exchange| {
            Some(witness(exchange.venue.name(), exchange.lead(steady)?, false))
        });
        let witnesses: Vec<Witness> = database.into_iter().chain(exchanges).collect();
        let mut found = consensus(&witnesses);
        // Stamps alone may be anything: one exchange against our clock is believed when it answers with its time.
        let has_answered = |name: &str| {
            let exchange = self.exchanges.iter().find(|it| it.venue.name() == name);
            exchange.is_none_or(|it| it.answered.is_some_and(|reading| reading.is_fresh(steady)))
        };
        if found.offset != 0 && matches!(found.by.as_slice(), [one] if !has_answered(one)) {
            found = Consensus { off: found.off, is_undecided: true, ..Consensus::default() };
        }
        // An exchange whose clock is right may stamp its trades by another one.
        for exchange in &self.exchanges {
            let name = exchange.venue.name();
            let ahead = exchange.stamped(steady).map(|lead| lead - ours - found.offset);
            if let Some(ahead) = ahead.filter(|ahead| ahead.unsigned_abs() > APART_MICROS)
                && found.off.iter().all(|(other, _)| other != name)
            {
                found.off.push((name.to_owned(), ahead));
            }
        }
        found
    }

    fn log(&mut self, found: &Consensus, offset: i64) {
        let now = Instant::now();
        let level = Level::of(offset);
        let was = std::mem::replace(&mut self.level, level);
        if level != was {
            // A change is logged at once.
            self.limiter = RepeatLimiter::new(LOG_INTERVAL);
        }
        if level == Level::Right {
            if was != Level::Right {
                info!("The clock of this machine is right again{}", against(&found.by));
            }
        } else if self.limiter.admit(now).is_some() {
            let side = if offset > 0 { "behind" } else { "ahead of" };
            let (by, apart) = (found.by.join(", "), shown(offset));
            if level == Level::FarOff {
                error!(
                    "The clock of this machine is {apart} {side} the true time, by {by}: {CURE}. Recording goes on, with \
                     times corrected by that; gaps are filled, and none is given up, until it is right"
                );
            } else {
                warn!(
                    "The clock of this machine is {apart} {side} the true time, by {by}: {CURE}. Times of what is \
                     received are corrected by that"
                );
            }
        }
        if !found.off.is_empty() && !found.is_undecided && self.limiter_others.admit(now).is_some()
        {
            for (name, ahead) in &found.off {
                let side = if *ahead > 0 { "ahead of" } else { "behind" };
                let whose = if name == DATABASE { "The clock" } else { "The stamps" };
                let by = against(&found.by);
                warn!(
                    "{whose} of {name} are {} {side} the true time{by}: not this machine's clock. What it says is \
                     stored as it is",
                    shown(*ahead)
                );
            }
        }
        if found.is_undecided && self.limiter_undecided.admit(now).is_some() {
            let others: Vec<String> = found
                .off
                .iter()
                .map(|(name, ahead)| {
                    let side = if *ahead > 0 { "ahead" } else { "behind" };
                    format!("{name} {} {side}", shown(*ahead))
                })
                .collect();
            warn!(
                "Other clocks differ from this machine's, and not in the same way ({}): which is right is not known. Check \
                 whether this machine's clock is kept right (timedatectl)",
                others.join(", ")
            );
        }
    }
}

fn against(by: &[String]) -> String {
    if by.is_empty() { String::new() } else { format!(", by {}", by.join(", ")) }
}

/// For people: `3days 2s`.
fn shown(micros: i64) -> Lasting {
    Lasting(Duration::from_micros(micros.unsigned_abs()))
}
