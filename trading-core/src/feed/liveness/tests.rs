use super::*;
use crate::domain::testing::{self, instrument};

const SECOND: Duration = Duration::from_secs(1);

fn symbol(name: &str) -> Instrument {
    instrument("kraken", name)
}

fn tick(name: &str, exchange_at: Timestamp, received_at: Timestamp) -> Tick {
    Tick { instrument: symbol(name), exchange_at, received_at, ..testing::tick(1) }
}

/// One connection, and its time.
struct World {
    symbols: &'static [&'static str],
    liveness: Liveness,
    start: Instant,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self::of(&["BTC-USD", "ETH-USD"])
    }

    fn of(symbols: &'static [&'static str]) -> Self {
        let start = Instant::now() + Duration::from_hours(1);
        let mut world =
            Self { symbols, liveness: Liveness::new(LivenessRules::default()), start, now: start };
        world.connect();
        world
    }

    fn connect(&mut self) {
        self.liveness.begin();
        for name in self.symbols {
            self.liveness.record_confirmed(symbol(name), self.now);
        }
    }

    /// The exchange's time, which is ours.
    fn at(&self) -> Timestamp {
        Timestamp::from_micros((self.now - self.start).as_micros().try_into().unwrap()).unwrap()
    }

    fn trade(&mut self, name: &str) {
        let at = self.at();
        self.liveness.record_trade(&tick(name, at, at), self.now);
    }

    fn check(&mut self) -> Option<Alarm> {
        self.liveness.check(self.now, Duration::ZERO)
    }

    /// Lets both trade once in two seconds, so that their rates are known.
    fn learn(&mut self) {
        for _ in 0..=KNOWN_MIN {
            self.now += SECOND * 2;
            self.trade("BTC-USD");
            self.trade("ETH-USD");
            assert_eq!(self.check(), None);
        }
    }

    /// Ether trades on, bitcoin does not, for at most so many seconds.
    fn without_bitcoin(&mut self, seconds: u32) -> Option<(u32, Alarm)> {
        (1..=seconds).find_map(|second| {
            self.now += SECOND;
            self.trade("ETH-USD");
            self.check().map(|alarm| (second, alarm))
        })
    }
}

/// Numbers between 0 and 1, the same each time (splitmix64).
fn random(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let high = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap();
    (f64::from(high) + 0.5) / 4_294_967_296.0
}

#[test]
fn markets_that_trade_at_random_are_never_taken_for_dead() {
    for (seed, mean) in [(1, 0.2), (2, 2.0), (3, 20.0), (4, 200.0), (5, 2_000.0)] {
        let (mut world, mut state) = (World::of(&["BTC-USD"]), seed);
        for trade in 0..100_000 {
            let wait = Duration::from_secs_f64(-random(&mut state).ln() * mean);
            world.now += wait;
            // Just before it trades its silence is the longest.
            assert_eq!(world.check(), None, "trade {trade}, one in {mean} s on average");
            world.trade("BTC-USD");
        }
    }
}

#[test]
fn bursts_are_moments_and_the_time_between_them_is_no_silence() {
    let (mut world, mut state) = (World::of(&["BTC-USD"]), 6);
    for _ in 0..2_000 {
        world.now += Duration::from_secs_f64(-random(&mut state).ln() * 40.0);
        assert_eq!(world.check(), None);
        for _ in 0..100 {
            world.now += Duration::from_millis(1);
            world.trade("BTC-USD");
        }
    }
}

#[test]
fn a_dead_symbol_is_subscribed_anew_and_wants_another_connection_when_that_does_not_help() {
    let mut world = World::new();
    world.learn();
    let mean = SECOND * 2;
    let (second, alarm) = world.without_bitcoin(200).unwrap();
    assert_eq!((second, alarm), (100, Alarm::Silent(symbol("BTC-USD"), mean * 50, mean)));
    let (second, alarm) = world.without_bitcoin(200).unwrap();
    assert_eq!((second, alarm), (100, Alarm::Incurable(symbol("BTC-USD"), mean * 100)));
}

#[test]
fn a_cured_symbol_is_judged_as_before() {
    let mut world = World::new();
    world.learn();
    for _ in 0..5 {
        assert_eq!(world.without_bitcoin(200).unwrap().0, 100);
        world.trade("BTC-USD");
    }
}

#[test]
fn a_market_that_went_quiet_is_asked_ever_less_and_costs_few_connections() {
    let mut world = World::new();
    world.learn();
    let (mut asked, mut reconnected, mut longest) = (0, 0, 0);
    let mut waited = 0;
    while world.now < world.start + Duration::from_hours(48) {
        let Some((second, alarm)) = world.without_bitcoin(8_000) else { break };
        waited += second;
        longest = longest.max(second);
        match alarm {
            Alarm::Silent(..) => asked += 1,
            Alarm::Incurable(..) => {
                reconnected += 1;
                world.connect();
            }
            Alarm::NeverTraded(_) => panic!("it has traded"),
        }
    }
    assert_eq!(reconnected, 6, "at 100, 200, … 3,200 s");
    assert_eq!(longest, 3_600 * 2, "an hour, and an hour after it was asked");
    assert!(asked < 40 && waited > 47 * 3_600, "{asked} in {waited} s");
}

#[test]
fn patience_is_forgiven_to_a_symbol_that_trades_on() {
    let mut world = World::new();
    world.learn();
    world.without_bitcoin(100).unwrap();
    // Long after: it was the market.
    assert_eq!(world.without_bitcoin(50), None);
    for _ in 0..FORGIVEN / KNOWN_MIN + 1 {
        world.learn();
    }
    // The long silence still weighs a little in the mean.
    assert_eq!(world.without_bitcoin(200).unwrap().0, 101);
}

#[test]
fn what_is_sent_again_after_subscribing_is_no_sign_of_life() {
    let mut world = World::new();
    world.learn();
    let old = world.at();
    world.without_bitcoin(200).unwrap();
    world.now += SECOND;
    world.liveness.record_trade(&tick("BTC-USD", old, world.at()), world.now);
    let (second, alarm) = world.without_bitcoin(200).unwrap();
    assert!(matches!(alarm, Alarm::Incurable(..)));
    assert_eq!(second, 99);
}

#[test]
fn a_stamp_of_the_future_makes_no_trade_after_it_look_old() {
    let mut world = World::new();
    world.learn();
    for ahead in [240, 36 * 3_600] {
        let wrong = world.at().plus_micros(ahead * 1_000_000);
        world.liveness.record_trade(&tick("BTC-USD", wrong, world.at()), world.now);
        for _ in 0..300 {
            world.now += SECOND * 2;
            world.trade("BTC-USD");
            world.trade("ETH-USD");
            assert_eq!(world.check(), None);
        }
        // Nor on the next connection.
        world.connect();
    }
}

#[test]
fn where_an_exchange_puts_its_clock_back_new_trades_are_signs_of_life_all_the_same() {
    let mut world = World::new();
    world.learn();
    for _ in 0..300 {
        world.now += SECOND * 2;
        world.trade("ETH-USD");
        let old = Timestamp::EPOCH;
        world.liveness.record_trade(&tick("BTC-USD", old, world.at()), world.now);
        world.liveness.record_new(symbol("BTC-USD"), world.now);
        assert_eq!(world.check(), None);
    }
}

#[test]
fn a_symbol_that_was_acknowledged_and_never_trades_is_asked_about_once() {
    let mut world = World::new();
    let (second, alarm) = world.without_bitcoin(1_000).unwrap();
    assert_eq!((second, alarm), (60, Alarm::NeverTraded(symbol("BTC-USD"))));
    assert_eq!(world.without_bitcoin(10_000), None);
    world.connect();
    assert_eq!(world.without_bitcoin(10_000), None, "on no later connection either");
    assert!(world.liveness.is_doubted(symbol("BTC-USD")));
    assert!(!world.liveness.is_doubted(symbol("ETH-USD")), "it trades");
    world.trade("BTC-USD");
    assert!(!world.liveness.is_doubted(symbol("BTC-USD")), "it trades after all");
}

#[test]
fn a_symbol_that_is_not_confirmed_is_not_awaited() {
    let mut world = World::new();
    world.liveness.begin();
    assert_eq!(world.without_bitcoin(1_000), None);
}

#[test]
fn where_nothing_comes_at_all_no_symbol_is_blamed() {
    let mut world = World::new();
    world.learn();
    for second in 1..1_000 {
        world.now += SECOND;
        assert_eq!(world.liveness.check(world.now, SECOND * (second + 10)), None);
    }
    let mut world = World::new();
    world.now += Duration::from_hours(1);
    assert_eq!(world.check(), None, "heartbeats, and no symbol that ever traded");
}

#[test]
fn time_in_which_we_did_not_read_is_nobody_s_silence() {
    let mut world = World::new();
    world.learn();
    world.liveness.excuse(Duration::from_mins(10));
    world.now += Duration::from_mins(10);
    assert_eq!(world.without_bitcoin(99), None);
    assert!(world.without_bitcoin(1).is_some());
}
