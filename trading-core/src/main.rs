//! The `trading-core` program.

fn main() {}
