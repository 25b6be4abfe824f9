//! Numbers that look random and are a function of their place: the same on every machine, each time.
//!
//! Integers only. The price's path is fractal value noise: octaves of interpolated lattice values, each four
//! times as long and twice as high as the one before, which is how a random walk looks at every scale.

/// Hashes a place in a stream to 64 bits.
pub(in crate::simulator) const fn hash(stream: u64, place: u64) -> u64 {
    mix(stream ^ mix(place.wrapping_add(0x9E37_79B9_7F4A_7C15)))
}

/// The finaliser of SplitMix64.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Hashes a text to a stream of its own.
pub(in crate::simulator) fn stream(seed: u64, parts: &[&str]) -> u64 {
    parts.iter().flat_map(|part| part.bytes().chain([0])).fold(mix(seed), |hashed, byte| {
        mix(hashed.wrapping_mul(0x0100_0000_01B3) ^ u64::from(byte))
    })
}

/// Lattice values lie within plus and minus this.
const LATTICE: i64 = 1 << 20;
/// Octaves of 2^2, 2^4 … 2^26 places.
const OCTAVES: u32 = 13;
/// What all octaves together can reach, at most.
const REACH: i64 = LATTICE * ((1 << (OCTAVES + 1)) - 2);

/// The noise at a place, scaled so that it never passes `limit` either way. The limit is at most 2^32.
pub(super) fn fractal(stream: u64, place: u64, limit: i64) -> i64 {
    let sum: i64 = (1..=OCTAVES).map(|octave| value(stream, place, octave) << octave).sum();
    // Four bits are given up so that the product fits 64.
    limit.saturating_mul(sum >> 4) / (REACH >> 4)
}

fn value(stream: u64, place: u64, octave: u32) -> i64 {
    let bits = octave * 2;
    let cell = place >> bits;
    let inside = (place & ((1 << bits) - 1)).cast_signed();
    let stream = stream.wrapping_add(u64::from(octave) << 56);
    let (from, to) = (lattice(stream, cell), lattice(stream, cell + 1));
    from + (((to - from) * inside) >> bits)
}

const fn lattice(stream: u64, cell: u64) -> i64 {
    (hash(stream, cell) >> 43).cast_signed() - LATTICE
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn prop_noise_stays_within_its_limit(
            stream: u64, place in 0..u64::MAX / 2, limit in 0..1_000_000_000_i64,
        ) {
            prop_assert!(fractal(stream, place, limit).abs() <= limit);
        }
    }

    #[test]
    fn neighbours_are_near_and_far_places_are_not_all_alike() {
        let path: Vec<i64> =
            (0..2_000_000).step_by(1_000).map(|place| fractal(7, place, 1_000_000)).collect();
        let step =
            (0..1_000).map(|n| (fractal(7, n, 1_000_000) - fractal(7, n + 1, 1_000_000)).abs());
        assert!(step.max().unwrap() < 1_000, "one place moves less than a thousandth");
        let spread = path.iter().max().unwrap() - path.iter().min().unwrap();
        assert!(spread > 50_000, "{spread}");
    }

    #[test]
    fn a_stream_depends_on_where_its_parts_end() {
        assert_ne!(stream(1, &["ab", "c"]), stream(1, &["a", "bc"]));
        assert_ne!(stream(1, &["ab"]), stream(2, &["ab"]));
    }
}
