//! Numbers that look random and are a function of their place: the same on every machine, each time.
//!
//! Integers only. A price's path is fractal value noise over time: octaves of interpolated lattice values, each four
//! times as long and twice as high as the one before, which is how a random walk looks at every scale.

/// Hashes a place in a stream to 64 bits.
pub(in super::super) const fn hash(stream: u64, place: u64) -> u64 {
    mix(stream ^ mix(place.wrapping_add(GAMMA)))
}

/// The step of SplitMix64.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finaliser of SplitMix64.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Hashes a text to a stream of its own.
pub(in super::super) fn stream(seed: u64, parts: &[&str]) -> u64 {
    parts.iter().flat_map(|part| part.bytes().chain([0])).fold(mix(seed), |hashed, byte| {
        mix(hashed.wrapping_mul(0x0100_0000_01B3) ^ u64::from(byte))
    })
}

/// The factor 1, as walks count it.
pub(super) const ONE: i64 = 1 << 30;
/// A thousandth of a percent of [`ONE`]: a tenth of a basis point.
const TENTH_BASIS_POINT: i64 = ONE / 100_000;

/// Lattice values lie within plus and minus this power of two.
const LATTICE_BITS: u32 = 20;
const LATTICE: i64 = 1 << LATTICE_BITS;

/// A value that wanders around zero as time passes, never by a jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walk {
    stream: u64,
    /// The first octave's cells are this power of two long, in microseconds.
    first_bits: u32,
    octaves: u32,
    /// How far the first octave reaches either way; each further one reaches twice as far.
    reach: i64,
}

impl Walk {
    /// The first octave has cells of 2^`first_bits` microseconds and reaches `tenths` tenths of a basis point either
    /// way. The last octave's cells must be no longer than 2^42 microseconds (51 days).
    pub(super) const fn new(stream: u64, first_bits: u32, octaves: u32, tenths: i64) -> Self {
        debug_assert!(first_bits + 2 * octaves <= 44, "the cells are too long for the arithmetic");
        Self { stream, first_bits, octaves, reach: tenths * TENTH_BASIS_POINT }
    }

    /// The value at a time in microseconds, in parts of [`ONE`].
    pub(super) fn at(&self, time_us: u64) -> i64 {
        let sum: i64 = (0..self.octaves).map(|octave| self.octave(time_us, octave) << octave).sum();
        (sum * self.reach) >> LATTICE_BITS
    }

    /// What it never passes either way, in parts of [`ONE`].
    #[cfg(test)]
    pub(super) const fn limit(&self) -> i64 {
        self.reach * ((1 << self.octaves) - 1)
    }

    /// How much it can move in a microsecond, times 2^`first_bits`, in parts of [`ONE`].
    #[cfg(test)]
    pub(super) const fn slope(&self) -> (i64, u32) {
        // Each octave moves half as fast as the one before, the first at twice its reach in a cell.
        (4 * self.reach, self.first_bits)
    }

    fn octave(&self, time_us: u64, octave: u32) -> i64 {
        let bits = self.first_bits + octave * 2;
        let cell = time_us >> bits;
        let inside = (time_us & ((1 << bits) - 1)).cast_signed();
        let stream = self.stream.wrapping_add(u64::from(octave) << 56);
        let (from, to) = (lattice(stream, cell), lattice(stream, cell + 1));
        from + (((to - from) * inside) >> bits)
    }
}

const fn lattice(stream: u64, cell: u64) -> i64 {
    (mix(stream.wrapping_add(cell.wrapping_mul(GAMMA))) >> (63 - LATTICE_BITS)).cast_signed()
        - LATTICE
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn prop_a_walk_stays_within_its_limit_and_never_jumps(
            stream: u64, time in 0..1_u64 << 52, later in 0..1_u64 << 22,
        ) {
            let walk = Walk::new(stream, 20, 12, 16);
            let (before, after) = (walk.at(time), walk.at(time + later));
            prop_assert!(before.abs() <= walk.limit());
            let (slope, bits) = walk.slope();
            // The octaves are rounded, which comes to a hundredth of a basis point.
            let reachable = ((slope * later.cast_signed()) >> bits) + 2_000;
            prop_assert!((after - before).abs() <= reachable, "{before} {after} {reachable}");
        }
    }

    /// A walk of n steps is some root of n from where it began, at every scale.
    #[test]
    fn a_walk_is_as_restless_as_a_random_one() {
        let walk = Walk::new(stream(7, &["walk"]), 20, 12, 10);
        let spread = |after_s: u64| {
            let moves = (0..2_000_u64).map(|n| {
                let at = n * 7_919_000_000;
                let moved = walk.at(at + after_s * 1_000_000) - walk.at(at);
                i128::from(moved).pow(2)
            });
            (moves.sum::<i128>() / 2_000).isqrt() * 1_000_000 / i128::from(ONE)
        };
        // In millionths: a year of such seconds moves by half.
        assert!((70..110).contains(&spread(1)), "{}", spread(1));
        assert!((600..850).contains(&spread(60)), "{}", spread(60));
        assert!((4_500..6_500).contains(&spread(3_600)), "{}", spread(3_600));
    }

    #[test]
    fn a_stream_depends_on_where_its_parts_end() {
        assert_ne!(stream(1, &["ab", "c"]), stream(1, &["a", "bc"]));
        assert_ne!(stream(1, &["ab"]), stream(2, &["ab"]));
    }
}
