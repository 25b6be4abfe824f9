//! Numbers that several rooms rely on together: each is written once, what follows from another is derived from it, and
//! what must hold between them is tested (`tests/it/bounds.rs`; for the numbers of verify, which keeps its own on
//! purpose, `verify/bounds.rs`).

use std::time::Duration;

/// How often a recorder notes that its connections are open.
pub const SESSION_REFRESH: Duration = Duration::from_secs(10);
/// A recorder that has noted nothing for this long is dead: six notes are missing.
pub const SESSION_DEAD: Duration = Duration::from_secs(6 * SESSION_REFRESH.as_secs());
/// How long an exchange may take to confirm what was asked: a connection carries a symbol from then on at the latest.
pub const ACKNOWLEDGE_MAX: Duration = Duration::from_secs(15);
/// The longest that a connection may be without a frame, at any exchange, before it is taken for dead: for this long
/// before its last note it may have been dead already.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Trades younger than this may still be on their way between two recorders and the store. What one recorder holds for
/// longer, it notes in the database.
pub const SETTLED: Duration = Duration::from_secs(60);
/// How much later than it was made a trade is received, unless the exchange or the way hangs.
pub const LATENESS_MAX: Duration = Duration::from_secs(5);
/// How long a new connection may take to a symbol's first trade: up to then trades may be missing.
pub const FIRST_TRADE_MAX: Duration = Duration::from_secs(5);
/// A write without an answer for this long is given up where the spool can take its batch: writing it again is harmless,
/// and the feeds do not wait for it.
pub const WRITE_MAX: Duration = Duration::from_secs(10);
/// Trades younger than this may still be on their way in another recorder, whose writes are given up in time.
pub const WRITTEN_MAX: Duration = Duration::from_secs(3 * WRITE_MAX.as_secs());
/// Trades may be stamped by up to this much against the order in which they are counted.
pub const DISORDER_MAX: Duration = Duration::from_secs(1);

/// Ids further apart than this do not support each other. No symbol trades this much between two of its trades that come
/// one after the other; after an outage the next few show that the count goes on there.
pub const JUMP_MAX: u64 = 1_000;
/// Trades with ids far above the last, near each other, that show that the count goes on there.
pub const JUMP_CONFIRMED: usize = 4;
