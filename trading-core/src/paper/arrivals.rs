//! Ticks in the one order in which they are traded, live and in a replay: that of their arrival.
//!
//! Ticks that arrived at the same microsecond, as those of one frame do, go by instrument, then by the exchange's time,
//! then by id. Connections run beside each other, so that their ticks come a little out of this order; here they wait
//! until nobody can come before them any more. Who does so all the same is handed out next, and counted as displaced:
//! the order is then not the one in which somebody else would sort the same ticks.
//!
//! Pure, and bounded: when it is full the oldest is handed out before its time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::domain::{Tick, Timestamp};

/// Ticks that wait for those which may come before them.
#[derive(Debug)]
pub(super) struct Arrivals {
    waiting: BinaryHeap<Reverse<Arrival>>,
    waiting_max: usize,
    handed_out: Option<Timestamp>,
    displaced: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Arrival {
    at: Timestamp,
    tick: Tick,
}

impl Arrivals {
    /// Room for this many ticks, of some 100 bytes each.
    pub(super) const fn new(waiting_max: usize) -> Self {
        Self { waiting: BinaryHeap::new(), waiting_max, handed_out: None, displaced: 0 }
    }

    /// Takes a tick that arrived at this time.
    pub(super) fn push(&mut self, at: Timestamp, mut tick: Tick) {
        if self.handed_out.is_some_and(|last| at <= last) {
            self.displaced = self.displaced.saturating_add(1);
        }
        // The store keeps a number's value and not always its zeros; with them gone arithmetic is the same for both.
        tick.price = tick.price.normalize();
        tick.quantity = tick.quantity.normalize();
        self.waiting.push(Reverse(Arrival { at, tick }));
    }

    /// The next tick, with the time of its arrival, if that was before this time or there is no more room.
    pub(super) fn pop_before(&mut self, before: Timestamp) -> Option<(Timestamp, Tick)> {
        let Reverse(next) = self.waiting.peek()?;
        if next.at < before || self.waiting.len() > self.waiting_max { self.pop() } else { None }
    }

    /// The next tick, with the time of its arrival.
    pub(super) fn pop(&mut self) -> Option<(Timestamp, Tick)> {
        let Reverse(Arrival { at, tick }) = self.waiting.pop()?;
        self.handed_out = self.handed_out.max(Some(at));
        Some((at, tick))
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Ticks that came too late for their place.
    pub(super) const fn displaced(&self) -> u64 {
        self.displaced
    }
}

impl Ord for Arrival {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |arrival: &Self| (arrival.at, arrival.tick.instrument, arrival.tick.exchange_at);
        key(self).cmp(&key(other)).then_with(|| self.tick.trade_id.cmp(&other.tick.trade_id))
    }
}

impl PartialOrd for Arrival {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::paper::testing::{at, instrument, tick};

    fn ids(arrivals: &mut Arrivals, before: i64) -> Vec<u64> {
        let taken = std::iter::from_fn(|| arrivals.pop_before(at(before)));
        taken.filter_map(|(_, tick)| tick.trade_id.number()).collect()
    }

    #[test]
    fn one_frame_goes_by_instrument_time_and_id() {
        let mut arrivals = Arrivals::new(1_000);
        let eth = instrument("ETHUSDT");
        for tick in [
            Tick { instrument: eth, ..tick(1, 5, "1", "1") },
            tick(10, 7, "1", "1"),
            tick(9, 7, "1", "1"),
            tick(11, 6, "1", "1"),
        ] {
            arrivals.push(at(100), tick);
        }
        assert!(ids(&mut arrivals, 100).is_empty());
        assert_eq!(ids(&mut arrivals, 101), [11, 9, 10, 1]);
        assert_eq!(arrivals.displaced(), 0);
        arrivals.push(at(100), tick(12, 7, "1", "1"));
        assert_eq!((ids(&mut arrivals, 101), arrivals.displaced()), (vec![12], 1));
    }

    #[test]
    fn a_full_one_hands_out_the_oldest_before_its_time() {
        let mut arrivals = Arrivals::new(3);
        for id in [3, 2, 1, 0] {
            arrivals.push(at(i64::try_from(id).unwrap()), tick(id, 0, "1", "1"));
        }
        assert_eq!(ids(&mut arrivals, 0), [0]);
    }

    proptest! {
        #[test]
        fn prop_what_waits_long_enough_comes_out_sorted_whatever_the_connections_did(
            delays in proptest::collection::vec(0_i64..50, 1..200),
        ) {
            // Tick n arrives at n, and comes here up to 50 later.
            let mut coming: Vec<(i64, i64)> = delays.iter().zip(0..).map(|(delay, n)| (n + delay, n)).collect();
            coming.sort_unstable();
            let mut arrivals = Arrivals::new(1_000);
            let mut out = Vec::new();
            for (now, n) in coming {
                arrivals.push(at(n), tick(n.unsigned_abs(), 0, "1", "1"));
                out.extend(ids(&mut arrivals, (now - 50).max(0)));
            }
            out.extend(ids(&mut arrivals, 1_000));
            let sorted: Vec<u64> = (0..u64::try_from(delays.len()).unwrap()).collect();
            prop_assert_eq!((out, arrivals.displaced()), (sorted, 0));
        }
    }
}
