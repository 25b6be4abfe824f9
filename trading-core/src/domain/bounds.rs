//! Times that several rooms rely on together: each is written once, and what must hold between them is tested.

use std::time::Duration;

/// How often a recorder notes that its connections stand.
pub const SESSION_REFRESH: Duration = Duration::from_secs(10);
/// A recorder that has noted nothing for so long is dead: six notes are missing.
pub const SESSION_DEAD: Duration = Duration::from_secs(60);
/// How long an exchange may take to confirm what was asked: a connection carries a symbol from then on at the latest.
pub const ACKNOWLEDGE_MAX: Duration = Duration::from_secs(15);
/// The longest that a connection may be without a frame, at any exchange, before it is taken for dead: so much before
/// the last note of it, it may have been dead already.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
/// What was traded so lately may still be on its way between two recorders and the store. Of what one recorder holds for
/// longer, the database is told.
pub const SETTLED: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange;
    use crate::store::postgres::gaps::LEASE;

    #[test]
    fn a_recorder_is_taken_for_dead_only_after_several_notes_are_missing() {
        assert!(SESSION_DEAD >= SESSION_REFRESH * 6);
        assert!(
            SETTLED >= SESSION_DEAD,
            "what a dead recorder held is in doubt before it is judged"
        );
        assert!(LEASE >= SESSION_REFRESH * 3, "a gap is held at least as steadily as a connection");
    }

    #[test]
    fn no_exchange_is_silent_for_longer_than_all_rooms_reckon_with() {
        for exchange in exchange::all() {
            assert!(exchange.limits().silence <= SILENCE_MAX, "{}", exchange.name());
            assert!(ACKNOWLEDGE_MAX < exchange.limits().idle, "{}", exchange.name());
        }
    }
}
