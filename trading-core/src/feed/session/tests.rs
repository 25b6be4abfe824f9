use super::*;
use crate::exchange::{Binance, Bybit, Coinbase, Exchange, Kraken};

fn instruments(exchange: &dyn Exchange, number: usize) -> Vec<Instrument> {
    let symbol = |n: usize| format!("COIN{n}-USDT").parse().unwrap();
    (0..number).map(|n| Instrument::intern(exchange.name(), &symbol(n)).unwrap()).collect()
}

fn session(exchange: &dyn Exchange, number: usize, one_by_one: bool, now: Instant) -> Session {
    let instruments = instruments(exchange, number);
    let requests = requests(exchange, &instruments, one_by_one);
    Session::new(exchange.limits(), exchange.keepalive(), requests, now)
}

/// Sends what may be sent, as often as the exchange allows, until nothing is left but keepalives.
fn send_requests(session: &mut Session, mut now: Instant) -> (usize, Instant) {
    let mut sent = 0;
    while !session.to_send.is_empty() {
        sent += usize::from(session.next_to_send(now).is_some());
        now += Duration::from_millis(100);
    }
    (sent, now)
}

#[test]
fn requests_are_spaced_as_the_exchange_demands() {
    let start = Instant::now();
    let mut session = session(&Binance, 3, true, start);
    assert!(session.next_to_send(start).is_some());
    assert!(session.next_to_send(start).is_none());
    assert!(session.next_to_send(start + Binance.limits().send_interval).is_some());
}

#[test]
fn a_session_is_subscribed_when_every_request_is_acknowledged() {
    let now = Instant::now();
    // Ninety streams a request: two requests, of which Binance confirms each as a whole.
    let mut session = session(&Binance, 100, false, now);
    assert_eq!(send_requests(&mut session, now).0, 2);
    assert_eq!(session.on_message(Message::Acknowledged(Vec::new()), now), []);
    assert_eq!(session.on_message(Message::Acknowledged(Vec::new()), now), [Event::Subscribed]);
}

#[test]
fn who_delivers_is_subscribed_without_an_acknowledgement() {
    let now = Instant::now();
    let mut session = session(&Kraken, 2, false, now);
    let all = instruments(&Kraken, 2);
    assert_eq!(session.record_trades([all[0]].into_iter(), now), []);
    assert_eq!(session.record_trades([all[1]].into_iter(), now), [Event::Subscribed]);
    assert_eq!(session.record_trades([all[1]].into_iter(), now), [], "told once");
}

#[test]
fn what_comes_right_after_a_subscription_may_be_old() {
    let start = Instant::now();
    let mut session = session(&Coinbase, 2, false, start);
    let (_, sent) = send_requests(&mut session, start + Duration::from_secs(60));
    assert!(session.may_answer_with_old_trades(sent));
    assert!(!session.may_answer_with_old_trades(sent + SNAPSHOT));
}

#[test]
fn a_refused_symbol_is_named_and_the_others_are_recorded() {
    let now = Instant::now();
    let mut session = session(&Kraken, 2, false, now);
    let all = instruments(&Kraken, 2);
    assert_eq!(session.on_message(Message::Acknowledged(vec![all[0]]), now), []);
    let refusal = Message::Refused { instrument: Some(all[1]), reason: "no such pair".into() };
    let refused = Event::SymbolRefused(all[1], "no such pair".into());
    assert_eq!(session.on_message(refusal, now), [refused, Event::Subscribed]);
}

#[test]
fn a_refusal_without_a_name_ends_the_session_unless_one_symbol_was_asked_for() {
    let now = Instant::now();
    let refusal = || Message::Refused { instrument: None, reason: "bad".into() };
    let mut many = session(&Bybit, 3, false, now);
    send_requests(&mut many, now);
    assert_eq!(many.on_message(refusal(), now), [Event::Ended(End::RequestRefused("bad".into()))]);

    let mut single = session(&Bybit, 3, true, now);
    assert_eq!(send_requests(&mut single, now).0, 3);
    let all = instruments(&Bybit, 3);
    assert_eq!(single.on_message(Message::Acknowledged(Vec::new()), now), []);
    assert_eq!(single.on_message(refusal(), now), [Event::SymbolRefused(all[1], "bad".into())]);
    assert_eq!(single.on_message(Message::Acknowledged(Vec::new()), now), [Event::Subscribed]);
}

#[test]
fn a_session_whose_every_symbol_is_refused_ends() {
    let now = Instant::now();
    let mut session = session(&Bybit, 1, true, now);
    send_requests(&mut session, now);
    let events =
        session.on_message(Message::Refused { instrument: None, reason: "bad".into() }, now);
    assert_eq!(events.last(), Some(&Event::Ended(End::AllRefused)));
}

#[test]
fn heartbeats_do_not_hide_that_no_trade_comes() {
    let start = Instant::now();
    let mut session = session(&Kraken, 1, false, start);
    let (_, mut now) = send_requests(&mut session, start);
    session.on_message(Message::Acknowledged(instruments(&Kraken, 1)), now);
    let limits = Kraken.limits();
    while now < start + limits.idle {
        session.on_message(Message::Heartbeat(None), now);
        session.record_frame(now);
        assert_eq!(session.overdue(now), None);
        now += Duration::from_secs(1);
    }
    session.record_frame(now);
    assert_eq!(session.overdue(now), Some(End::Idle(limits.idle)));
}

#[test]
fn silence_and_missing_acknowledgements_end_a_session() {
    let start = Instant::now();
    let mut session = session(&Binance, 1, false, start);
    let limits = Binance.limits();
    let (_, _) = send_requests(&mut session, start);
    session.record_frame(start + Duration::from_secs(10));
    let late = start + ACKNOWLEDGE_MAX + Duration::from_secs(1);
    assert_eq!(session.overdue(late), Some(End::NotAcknowledged(1)));
    session.on_message(Message::Acknowledged(Vec::new()), late);
    assert_eq!(session.overdue(late), None);
    let silent = start + Duration::from_secs(10) + limits.silence;
    assert_eq!(session.overdue(silent), Some(End::Silent(limits.silence)));
}

#[test]
fn time_spent_waiting_for_our_own_channel_is_not_the_exchange_s_silence() {
    let start = Instant::now();
    let mut session = session(&Binance, 1, false, start);
    let (_, _) = send_requests(&mut session, start);
    let blocked = Binance.limits().idle * 2;
    session.excuse(blocked);
    assert_eq!(session.overdue(start + blocked), None);
    assert!(session.overdue(start + blocked + Binance.limits().silence).is_some());
}

#[test]
fn a_keepalive_is_sent_when_the_exchange_wants_it() {
    let start = Instant::now();
    let mut session = session(&Bybit, 1, false, start);
    let (_, now) = send_requests(&mut session, start);
    let keepalive = Bybit.keepalive().unwrap();
    assert_eq!(session.next_to_send(now), None);
    let due = start + keepalive.every;
    assert_eq!(session.next_to_send(due).as_deref(), Some(keepalive.text));
    assert_eq!(session.next_to_send(due + keepalive.every / 2), None);
    assert!(session.next_to_send(due + keepalive.every).is_some());
}

#[test]
fn a_refused_symbol_is_asked_for_again_and_may_be_confirmed_then() {
    let now = Instant::now();
    let mut session = session(&Bybit, 2, false, now);
    send_requests(&mut session, now);
    let all = instruments(&Bybit, 2);
    session.on_message(Message::Acknowledged(vec![all[0]]), now);
    let refusal = || Message::Refused { instrument: None, reason: "later".into() };
    session.on_message(Message::Refused { instrument: Some(all[1]), reason: "no".into() }, now);
    assert!(session.is_settled() && session.is_refused(all[1]));
    assert_eq!(session.refused_due(now + REFUSED_INTERVAL - Duration::from_secs(1)), None);

    let later = now + REFUSED_INTERVAL;
    assert_eq!(session.refused_due(later), Some(all[1]));
    assert_eq!(session.refused_due(later), None, "not in a loop");
    session.ask(requests(&Bybit, &[all[1]], true), later);
    assert!(!session.is_settled());
    send_requests(&mut session, later);
    // Without a name, but nothing else was asked for.
    let refused = Event::SymbolRefused(all[1], "later".into());
    assert_eq!(session.on_message(refusal(), later), [refused]);

    let latest = later + REFUSED_INTERVAL * 2;
    assert_eq!(session.refused_due(latest), Some(all[1]));
    session.ask(requests(&Bybit, &[all[1]], true), latest);
    send_requests(&mut session, latest);
    let confirmed = session.on_message(Message::Acknowledged(vec![all[1]]), latest);
    assert_eq!(confirmed, [Event::SymbolConfirmed(all[1])]);
    assert!(!session.is_refused(all[1]));
}

#[test]
fn what_is_subscribed_anew_must_be_acknowledged_and_the_answer_to_unsubscribing_is_no_news() {
    for exchange in crate::exchange::all() {
        let now = Instant::now();
        let mut session = session(exchange, 2, false, now);
        let all = instruments(exchange, 2);
        let (_, now) = send_requests(&mut session, now);
        session.on_message(Message::Acknowledged(all.clone()), now);
        assert!(session.is_settled());
        session.ask(requests_anew(exchange, all[0]), now);
        let (sent, now) = send_requests(&mut session, now);
        assert_eq!(sent, 2, "{exchange:?}");
        session.on_message(Message::Other, now);
        // Coinbase lists what is subscribed still.
        session.on_message(Message::Acknowledged(vec![all[1]]), now);
        assert!(!session.is_settled(), "{exchange:?}");
        session.record_frame(now + ACKNOWLEDGE_MAX);
        assert_eq!(session.overdue(now + ACKNOWLEDGE_MAX), Some(End::NotAcknowledged(1)));
        let confirmed = session.on_message(Message::Acknowledged(vec![all[0]]), now);
        assert_eq!(confirmed, [Event::SymbolConfirmed(all[0])]);
    }
}

fn refusal() -> Message {
    Message::Refused { instrument: None, reason: "bad".into() }
}

#[test]
fn an_error_that_answers_no_request_is_reported_and_nothing_else() {
    let now = Instant::now();
    let all = instruments(&Kraken, 2);
    let reported = [Event::Reported("bad".into())];

    let mut subscribed = session(&Kraken, 2, false, now);
    send_requests(&mut subscribed, now);
    subscribed.on_message(Message::Acknowledged(all.clone()), now);
    assert_eq!(subscribed.on_message(refusal(), now), reported);
    let named = Message::Refused { instrument: Some(all[0]), reason: "bad".into() };
    assert_eq!(subscribed.on_message(named, now), reported, "it is confirmed already");
    assert!(!subscribed.is_refused(all[0]));
    assert!(subscribed.is_whole());

    let mut delivering = session(&Kraken, 2, true, now);
    send_requests(&mut delivering, now);
    delivering.record_trades([all[0]].into_iter(), now);
    let refused = Event::SymbolRefused(all[1], "bad".into());
    assert_eq!(delivering.on_message(refusal(), now), [refused, Event::Subscribed]);
    assert!(!delivering.is_whole());

    let mut not_asked_yet = session(&Kraken, 2, false, now);
    assert_eq!(not_asked_yet.on_message(refusal(), now), reported);
}

#[test]
fn an_exchange_that_wants_fewer_messages_is_asked_again_later_and_by_fewer() {
    let now = Instant::now();
    let mut session = session(&Kraken, 4, true, now);
    let all = instruments(&Kraken, 4);
    assert_eq!(send_requests(&mut session, now).0, 4);
    session.on_message(Message::Acknowledged(vec![all[0], all[1]]), now);
    let slow = || Message::TooFrequent { reason: "rate".into() };
    assert_eq!(session.on_message(slow(), now), [Event::Slowed("rate".into(), PAUSE)]);
    // Its answer was under way.
    session.on_message(Message::Acknowledged(vec![all[2]]), now);

    let end = now + PAUSE;
    assert_eq!(session.postponed_due(end - Duration::from_millis(1)), []);
    assert_eq!(session.overdue(end), None, "not asked, and so not overdue");
    let postponed = session.postponed_due(end);
    assert_eq!(postponed, [all[3]]);
    assert_eq!(session.postponed_due(end), [], "once");
    session.ask(requests(&Kraken, &postponed, false), end);
    assert!(session.next_to_send(end).is_some());
    assert_eq!(session.on_message(slow(), end), [Event::Slowed("rate".into(), PAUSE * 2)]);

    let again = end + PAUSE * 2;
    let postponed = session.postponed_due(again);
    session.ask(requests(&Kraken, &postponed, false), again);
    assert_eq!(session.on_message(Message::Acknowledged(vec![all[3]]), again), [Event::Subscribed]);
    assert_eq!(session.confirmed(), 4);
    let longest = (0..9).map(|_| session.on_message(slow(), again)).last();
    assert_eq!(longest, Some(vec![Event::Slowed("rate".into(), PAUSE_MAX)]));
    assert_eq!(session.slowness, SLOWNESS_MAX);
}

#[test]
fn a_refused_symbol_is_asked_for_again_soon_and_then_ever_more_seldom() {
    let mut now = Instant::now();
    let mut session = session(&Kraken, 2, false, now);
    let all = instruments(&Kraken, 2);
    session.on_message(Message::Acknowledged(vec![all[0]]), now);
    let refusal = || Message::Refused { instrument: Some(all[1]), reason: "bad".into() };
    session.on_message(refusal(), now);
    let mut waits = Vec::new();
    for _ in 0..8 {
        let since = now;
        while session.refused_due(now).is_none() {
            now += Duration::from_secs(1);
        }
        waits.push((now - since).as_secs());
        session.ask(requests(&Kraken, &[all[1]], true), now);
        session.on_message(refusal(), now);
    }
    assert_eq!(waits, [15, 30, 60, 120, 240, 480, 600, 600]);
}
