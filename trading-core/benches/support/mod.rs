//! What the benchmarks share.

pub(crate) mod server;

/// Says whether an aim of the contract is reached.
pub(crate) fn verdict(name: &str, ratio: f64, aim: f64) {
    let word = if ratio >= aim { "reached" } else { "MISSED" };
    println!("{name:<40} ratio {ratio:.2}  aim {aim:.2}  {word}");
}
