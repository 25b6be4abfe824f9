//! Paper trading.

mod account;
mod fills;
mod money;
mod strategy;
#[cfg(test)]
mod testing;
