//! Whose clock is off: this machine's, the database's, or an exchange's. Pure, from what each says at one moment.
//!
//! Each clock has one voice, this machine's included. A database that runs here and agrees has none: it reads the same
//! clock. The largest company that agrees on a time has it. One other voice against this machine's alone counts as
//! right: such a clock is kept by somebody, and what follows from it is bounded. Where companies are of one size,
//! nothing is concluded.

/// Clocks that are no further apart than this agree, in microseconds: exchanges deliver late, and round trips are halved.
pub const APART_MICROS: u64 = 5_000_000;

/// What another clock is ahead of this machine's, in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// The exchange's name, or `the database`.
    pub name: String,
    /// See [`Witness`].
    pub ahead: i64,
    /// Whether it reads this machine's clock, as far as is known: then it proves nothing while it agrees.
    pub is_here: bool,
}

/// What the clocks say together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Consensus {
    /// What must be added to this machine's clock, in microseconds; 0: it is right, or nothing speaks against it.
    pub offset: i64,
    /// By whose clocks: those that agree with the true time as it was found.
    pub by: Vec<String>,
    /// Whose clocks are off, and how far they are ahead of the true time.
    pub off: Vec<(String, i64)>,
    /// Whether this machine's clock may be off, and nothing is proven.
    pub is_undecided: bool,
}

/// Lets the clocks vote.
#[must_use]
pub fn consensus(witnesses: &[Witness]) -> Consensus {
    let agree = |one: i64, other: i64| one.abs_diff(other) <= APART_MICROS;
    let voices = || witnesses.iter().filter(|it| !(it.is_here && agree(it.ahead, 0)));
    let company = |ahead: i64| voices().filter(move |it| agree(it.ahead, ahead)).count();
    let ours = company(0) + 1;
    let against = || voices().filter(|it| !agree(it.ahead, 0));
    let theirs = against().map(|it| company(it.ahead)).max().unwrap_or(0);
    let mut leaders = against().filter(|it| company(it.ahead) == theirs);
    // The most exact of them: the database is asked, and exchanges only deliver.
    let leader = leaders.clone().find(|it| it.name == DATABASE).or_else(|| leaders.next());
    let one_company = leader.is_some_and(|leader| {
        against().filter(|it| company(it.ahead) == theirs).all(|it| agree(it.ahead, leader.ahead))
    });
    let is_ours_off = one_company && (theirs > ours || (theirs == 1 && ours == 1));
    let offset = leader.filter(|_| is_ours_off).map_or(0, |leader| leader.ahead);
    Consensus {
        offset,
        by: voices().filter(|it| agree(it.ahead, offset)).map(|it| it.name.clone()).collect(),
        off: voices()
            .filter(|it| !agree(it.ahead, offset))
            .map(|it| (it.name.clone(), it.ahead.saturating_sub(offset)))
            .collect(),
        is_undecided: !is_ours_off && theirs > 0 && theirs >= ours,
    }
}

/// What the database is called among the witnesses.
pub const DATABASE: &str = "the database";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000;
    const DAY: i64 = 86_400 * SECOND;

    fn exchange(name: &str, ahead: i64) -> Witness {
        Witness { name: name.to_owned(), ahead, is_here: false }
    }

    fn database(ahead: i64, is_here: bool) -> Witness {
        Witness { name: DATABASE.to_owned(), ahead, is_here }
    }

    fn off(witnesses: &[Witness]) -> (i64, Vec<String>, bool) {
        let found = consensus(witnesses);
        let off = found.off.into_iter().map(|(name, _)| name).collect();
        (found.offset / SECOND, off, found.is_undecided)
    }

    const NOBODY: Vec<String> = Vec::new();

    #[test]
    fn a_database_of_its_own_and_the_exchanges_agree_that_our_clock_is_off() {
        let found = consensus(&[
            database(3 * DAY, false),
            exchange("binance", 3 * DAY - SECOND),
            exchange("okx", 3 * DAY - 2 * SECOND),
        ]);
        assert_eq!((found.offset, found.by.len()), (3 * DAY, 3), "by the database, which is exact");
        assert_eq!((found.off, found.is_undecided), (vec![], false));
        let here = [database(-3 * DAY, true), exchange("okx", -3 * DAY)];
        assert_eq!(
            off(&here),
            (-3 * 86_400, NOBODY, false),
            "it runs here, and reads another clock"
        );
    }

    #[test]
    fn one_exchange_alone_is_off_and_not_we() {
        let okx = vec!["okx".to_owned()];
        let stray = exchange("okx", 90 * SECOND);
        assert_eq!(off(&[database(0, false), stray.clone()]), (0, okx.clone(), false));
        assert_eq!(
            off(&[database(0, true), stray.clone(), exchange("kraken", 0)]),
            (0, okx.clone(), false)
        );
        let all = [
            database(DAY, false),
            exchange("okx", 0),
            exchange("bybit", DAY),
            exchange("kraken", DAY),
        ];
        let found = consensus(&all);
        assert_eq!(
            (found.offset, found.off),
            (DAY, vec![("okx".to_owned(), -DAY)]),
            "as wrong as we are"
        );
    }

    #[test]
    fn the_database_alone_is_off_where_an_exchange_agrees_with_us() {
        let found = consensus(&[database(DAY, false), exchange("okx", -SECOND)]);
        assert_eq!((found.offset, found.off), (0, vec![(DATABASE.to_owned(), DAY)]));
        assert_eq!(found.by, ["okx"]);
    }

    #[test]
    fn a_database_that_reads_our_clock_is_no_witness() {
        let found = consensus(&[database(0, true)]);
        assert_eq!((found.offset, found.by), (0, vec![]));
        let alone = [database(0, true), exchange("okx", DAY)];
        assert_eq!(off(&alone), (86_400, NOBODY, false), "one exchange against our clock alone");
        let two = [database(0, true), exchange("okx", DAY), exchange("kraken", DAY)];
        assert_eq!(off(&two), (86_400, NOBODY, false));
    }

    #[test]
    fn where_nobody_agrees_nothing_is_concluded() {
        let apart = [database(0, true), exchange("okx", DAY), exchange("kraken", -DAY)];
        let (offset, _, is_undecided) = off(&apart);
        assert_eq!((offset, is_undecided), (0, true));
        let halves = [database(0, false), exchange("okx", DAY), exchange("kraken", DAY)];
        let (offset, _, is_undecided) = off(&halves);
        assert_eq!((offset, is_undecided), (0, true), "two against two");
        assert_eq!(consensus(&[]), Consensus::default());
    }

    #[test]
    fn seconds_are_nothing() {
        let found = consensus(&[database(5 * SECOND, false), exchange("kraken", -5 * SECOND)]);
        assert_eq!((found.offset, found.off, found.by.len()), (0, vec![], 2));
        assert_eq!(consensus(&[database(5 * SECOND + 1, false)]).offset, 5 * SECOND + 1);
    }

    proptest! {
        /// Fewer liars than clocks that are right never move this machine's clock.
        #[test]
        fn prop_a_right_clock_is_not_moved_by_the_smaller_number(
            right in 1_usize..5,
            lies in prop::collection::vec(-9 * DAY..9 * DAY, 0..5),
        ) {
            prop_assume!(lies.len() <= right);
            let mut all: Vec<Witness> = (0..right).map(|_| exchange("right", -SECOND)).collect();
            all.extend(lies.into_iter().map(|ahead| exchange("liar", ahead)));
            prop_assert_eq!(consensus(&all).offset, 0);
        }

        /// A clock that is off is found however few liars agree with it.
        #[test]
        fn prop_a_clock_that_is_off_is_found_by_the_larger_number(
            ahead in prop_oneof![-9 * DAY..-20 * SECOND, 20 * SECOND..9 * DAY],
            liars in 0_usize..3,
        ) {
            let mut all: Vec<Witness> = (0..liars + 2).map(|_| exchange("right", ahead)).collect();
            all.extend((0..liars).map(|_| exchange("liar", 0)));
            prop_assert_eq!(consensus(&all).offset, ahead);
        }
    }
}
