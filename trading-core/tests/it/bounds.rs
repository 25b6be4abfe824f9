//! The numbers that several rooms rely on agree with each other, and with what the exchanges demand.

use trading_core::domain::bounds::{
    ACKNOWLEDGE_MAX, FIRST_TRADE_MAX, LATENESS_MAX, SESSION_DEAD, SESSION_REFRESH, SETTLED,
    SILENCE_MAX, WRITE_MAX, WRITTEN_MAX,
};
use trading_core::exchange;
use trading_core::store::postgres::gaps::LEASE;

#[test]
fn a_recorder_is_taken_for_dead_only_after_several_notes_are_missing() {
    assert!(SESSION_DEAD >= SESSION_REFRESH * 6);
    assert!(SETTLED >= SESSION_DEAD, "what a dead recorder held is in doubt before it is judged");
    assert!(LEASE >= SESSION_REFRESH * 3, "a gap is held at least as steadily as a connection");
}

#[test]
fn what_is_judged_as_missing_is_older_than_what_may_be_on_its_way() {
    assert!(WRITTEN_MAX >= WRITE_MAX * 3, "a write that is given up is in the spool by then");
    assert!(WRITTEN_MAX >= LATENESS_MAX + WRITE_MAX);
    assert!(SETTLED >= WRITTEN_MAX, "verify waits for longer than the audit");
    assert!(FIRST_TRADE_MAX < ACKNOWLEDGE_MAX);
}

#[test]
fn no_exchange_is_silent_for_longer_than_all_rooms_reckon_with() {
    for exchange in exchange::all() {
        assert!(exchange.limits().silence <= SILENCE_MAX, "{}", exchange.name());
        assert!(ACKNOWLEDGE_MAX < exchange.limits().idle, "{}", exchange.name());
    }
}
