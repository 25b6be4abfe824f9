//! One client's connection without its socket: what it subscribed to, and the next trade of each symbol.
//!
//! Pure: texts and times go in, frames come out. A symbol's place is one number, the next id, so a client that
//! reads slowly makes nothing grow: its trades wait in the market until the socket takes them. Every trade of a
//! subscription is sent, or is in the journal as skipped or malformed.

use std::sync::Arc;

use super::faults::{Fate, FaultsHandle, Turn};
use super::journal::{Entry, EntryKind};
use super::market::Listing;
use super::outbox::Outbox;
use super::venue::Venue;
use domain::Timestamp;

/// Trades of one symbol that one turn sends at most, before the socket is asked to take them.
const TURN_TRADES: u64 = 1_024;

/// The mean year of the calendar.
const YEAR_MILLIS: i64 = 31_556_952_000;

/// What a message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    /// Every trade.
    Trades,
    /// Taker's orders, each a sum of its trades.
    Orders,
}

/// One symbol that a client follows.
#[derive(Debug, Clone)]
pub(super) struct Subscription {
    /// The symbol.
    pub(super) listing: Arc<Listing>,
    /// What its messages carry.
    pub(super) channel: Channel,
    /// The id of the next trade to send.
    pub(super) next: u64,
    /// When the client asked for it.
    pub(super) since: Timestamp,
    /// It is silent.
    pub(super) is_silent: bool,
}

/// What a protocol may use while it answers.
#[derive(Debug)]
pub(super) struct Context<'a> {
    /// The time.
    pub(super) now: Timestamp,
    /// What the client follows.
    pub(super) subscriptions: &'a mut Vec<Subscription>,
    /// Where answers go.
    pub(super) out: &'a mut Outbox,
}

impl Context<'_> {
    /// Follows a symbol from the next trade on; false when it is followed already.
    pub(super) fn subscribe(&mut self, listing: &Arc<Listing>, channel: Channel) -> bool {
        if self.place(listing, channel).is_some() {
            return false;
        }
        let next = listing.due(self.now).map_or(listing.first_id(), |id| id + 1);
        let listing = Arc::clone(listing);
        let since = self.now;
        self.subscriptions.push(Subscription { listing, channel, next, since, is_silent: false });
        true
    }

    /// Follows a symbol no more; false when it was not followed.
    pub(super) fn unsubscribe(&mut self, listing: &Arc<Listing>, channel: Channel) -> bool {
        let place = self.place(listing, channel);
        if let Some(place) = place {
            self.subscriptions.remove(place);
        }
        place.is_some()
    }

    fn place(&self, listing: &Arc<Listing>, channel: Channel) -> Option<usize> {
        self.subscriptions
            .iter()
            .position(|known| Arc::ptr_eq(&known.listing, listing) && known.channel == channel)
    }
}

/// A venue's WebSocket protocol, seen from the venue.
pub(super) trait Protocol: Send {
    /// The client has connected.
    fn opened(&mut self, context: &mut Context<'_>);

    /// The client has sent a text message.
    fn text(&mut self, text: &str, context: &mut Context<'_>);

    /// The client has answered a ping.
    fn pong(&mut self, _now: Timestamp) {}

    /// Time has passed: heartbeats, pings, and the end of clients that keep no rules. After the turn's trades.
    fn tick(&mut self, context: &mut Context<'_>);

    /// The venue announces that it will end the connection, where it has words for it.
    fn shutdown(&mut self, _context: &mut Context<'_>) {}

    /// Writes the messages of some trades, one after the other; whole orders where the channel carries orders.
    fn write(&mut self, of: &Subscription, first: u64, last: u64, now: Timestamp, out: &mut Outbox);
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    /// All that was due is written.
    Current,
    /// More is due already: take another turn as soon as the socket has taken this one.
    Behind,
    /// Nothing goes in or out for now.
    Stalled,
    /// A fault ends the connection, without a word to the client.
    Cut,
}

/// One client's connection to one venue.
pub(super) struct Session {
    venue: Venue,
    connection: u64,
    protocol: Box<dyn Protocol>,
    subscriptions: Vec<Subscription>,
    faults: FaultsHandle,
    opened_at: Timestamp,
    turned_at: Timestamp,
    /// Millionths of a trade that a slowed connection has saved up.
    allowance: u64,
    stalled: bool,
    announced: bool,
}

impl Session {
    pub(super) fn open(
        venue: Venue,
        connection: u64,
        protocol: Box<dyn Protocol>,
        faults: FaultsHandle,
        now: Timestamp,
        out: &mut Outbox,
    ) -> Self {
        let mut session = Self {
            venue,
            connection,
            protocol,
            subscriptions: Vec::new(),
            faults,
            opened_at: now,
            turned_at: now,
            allowance: 0,
            stalled: false,
            announced: false,
        };
        session.with_protocol(now, out, |protocol, context| protocol.opened(context));
        session
    }

    /// The client has sent a text message.
    pub(super) fn text(&mut self, text: &str, now: Timestamp, out: &mut Outbox) {
        self.with_protocol(now, out, |protocol, context| protocol.text(text, context));
    }

    /// The client has answered a ping.
    pub(super) fn pong(&mut self, now: Timestamp) {
        self.protocol.pong(now);
    }

    /// Writes what is due.
    pub(super) fn turn(&mut self, now: Timestamp, out: &mut Outbox) -> Turned {
        let mut turn = self.faults.turn(self.venue, self.connection, self.opened_at, now);
        if turn.cut {
            self.record(EntryKind::Cut, now, None);
            return Turned::Cut;
        }
        if turn.stalled != self.stalled {
            self.stalled = turn.stalled;
            self.record(if turn.stalled { EntryKind::Stall } else { EntryKind::Resume }, now, None);
        }
        let passed = (now.as_micros() - self.turned_at.as_micros()).max(0).cast_unsigned();
        self.turned_at = now;
        if self.stalled {
            return Turned::Stalled;
        }
        let budget = turn.trades_per_second.map_or(u64::MAX, |rate| {
            // No more than a second's worth is saved.
            self.allowance =
                self.allowance.saturating_add(passed.saturating_mul(rate)).min(rate * 1_000_000);
            self.allowance / 1_000_000
        });
        let sent = self.trades(&mut turn, budget, now, out);
        self.allowance = self.allowance.saturating_sub(sent.count * 1_000_000);
        let is_announced = turn.is_announced;
        self.faults.give_back(turn);
        if is_announced && !self.announced {
            self.announced = true;
            self.with_protocol(now, out, |protocol, context| protocol.shutdown(context));
        }
        self.with_protocol(now, out, |protocol, context| protocol.tick(context));
        if sent.behind { Turned::Behind } else { Turned::Current }
    }

    fn trades(&mut self, turn: &mut Turn, budget: u64, now: Timestamp, out: &mut Outbox) -> Sent {
        let mut sent = Sent { count: 0, behind: false };
        let mut subscriptions = std::mem::take(&mut self.subscriptions);
        for subscription in &mut subscriptions {
            let symbol = subscription.listing.symbol().as_str();
            let is_silent = turn.is_silent(symbol, subscription.since);
            if is_silent != subscription.is_silent {
                subscription.is_silent = is_silent;
                let kind = if is_silent { EntryKind::Stall } else { EntryKind::Resume };
                self.record_symbol(kind, now, symbol);
            }
            if is_silent {
                continue;
            }
            let Some(due) = subscription.listing.due(now) else { continue };
            let room = TURN_TRADES.min(budget.saturating_sub(sent.count));
            if due < subscription.next || room == 0 {
                continue;
            }
            let mut last = due.min(subscription.next + room - 1);
            if subscription.channel == Channel::Orders {
                last = subscription.listing.order(last).map_or(last, |order| order.last);
            }
            if turn.is_harmless() {
                self.protocol.write(subscription, subscription.next, last, now, out);
            } else {
                self.faulty(turn, subscription, last, now, out);
            }
            sent.count += last + 1 - subscription.next;
            // Behind its allowance is where a slowed client belongs: only the socket's pace is caught up.
            sent.behind |= last < due && room == TURN_TRADES;
            subscription.next = last + 1;
        }
        self.subscriptions = subscriptions;
        sent
    }

    /// Writes trades one by one, each with its own fate.
    fn faulty(
        &mut self,
        turn: &mut Turn,
        subscription: &Subscription,
        last: u64,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        let listing = &subscription.listing;
        // Trades that nothing happens to are written together, up to the next one that something happens to.
        let mut clean_from = subscription.next;
        let mut first = subscription.next;
        while first <= last {
            let end = match subscription.channel {
                Channel::Trades => first,
                Channel::Orders => listing.order(first).map_or(first, |order| order.last),
            };
            // Nothing can happen to a trade that is none.
            let fate =
                if listing.is_issued(first) { turn.fate(listing, first) } else { Fate::Deliver };
            if fate != Fate::Deliver {
                let until = if fate == Fate::Repeat { end } else { first - 1 };
                if clean_from <= until {
                    self.protocol.write(subscription, clean_from, until, now, out);
                }
                if fate != Fate::Skip {
                    self.protocol.write(subscription, first, end, now, out);
                }
                if fate == Fate::Malform {
                    out.garble_last();
                }
                if fate == Fate::Misdate {
                    misdate(listing, first, out);
                }
                self.record(fate.kind(), now, Some((listing.symbol().as_str(), first, end)));
                clean_from = end + 1;
            }
            first = end + 1;
        }
        if clean_from <= last {
            self.protocol.write(subscription, clean_from, last, now, out);
        }
    }

    fn record(&self, kind: EntryKind, at: Timestamp, trades: Option<(&str, u64, u64)>) {
        self.faults.record(Entry::new(at, self.venue, self.connection, kind, trades));
    }

    fn record_symbol(&self, kind: EntryKind, at: Timestamp, symbol: &str) {
        let entry = Entry::new(at, self.venue, self.connection, kind, None);
        self.faults.record(Entry { symbol: Some(symbol.to_owned()), ..entry });
    }

    fn with_protocol(
        &mut self,
        now: Timestamp,
        out: &mut Outbox,
        then: impl FnOnce(&mut dyn Protocol, &mut Context<'_>),
    ) {
        let mut context = Context { now, subscriptions: &mut self.subscriptions, out };
        then(&mut *self.protocol, &mut context);
    }
}

/// Gives the trade in the last frame another time: as if its exchange's clock were sixteen years ahead.
fn misdate(listing: &Listing, id: u64, out: &mut Outbox) {
    let Some(trade) = listing.trade(id) else { return };
    let true_millis = trade.at.as_millis();
    out.replace_in_last(&true_millis.to_string(), &(true_millis + 16 * YEAR_MILLIS).to_string());
    let date = trade.at.to_string();
    if let Some((date, true_year)) = date.get(..10).zip(date.get(..4)) {
        let moved = true_year.parse::<u32>().map_or(2042, |year| year + 16);
        out.replace_in_last(date, &date.replacen(true_year, &moved.to_string(), 1));
    }
}

#[derive(Debug)]
struct Sent {
    count: u64,
    behind: bool,
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::super::harness::{Client, Example, numbers};
    use super::super::market::{Market, MarketOptions};
    use super::*;

    #[test]
    fn an_id_that_was_never_issued_is_not_sent() {
        for venue in Venue::ALL.iter().copied() {
            let Example { path, subscribe, id } = venue.0.example();
            let symbol = &format!("BTC{}", venue.facts().quotes[0]);
            for faults in ["", "repeat=0.2"] {
                let options = MarketOptions {
                    rate: Decimal::ONE_HUNDRED,
                    unissued: Decimal::new(1, 1),
                    ..MarketOptions::default()
                };
                let market = Market::new(&options).unwrap();
                let mut client = Client::on(market, venue, path, "", faults);
                let first = client.newest(symbol).id + 1;
                client.say(subscribe);
                let frames: Vec<String> = (0..50).flat_map(|_| client.wait(77)).collect();
                assert!(frames.iter().all(|frame| !frame.contains(r#""data":[]"#)), "{venue:?}");
                let mut sent = numbers(&frames, id);
                sent.dedup();
                let listing = client.listing(symbol);
                let issued = listing.trades(first..=client.newest(symbol).id);
                let issued: Vec<u64> = issued.map(|trade| trade.id).collect();
                assert_eq!(sent, issued, "{venue:?} {faults}");
                assert!(*issued.last().unwrap() - first > issued.len() as u64, "some are missing");
            }
        }
    }

    #[test]
    fn an_order_is_told_without_the_ids_that_were_never_issued() {
        let options = MarketOptions {
            rate: Decimal::ONE_HUNDRED,
            unissued: Decimal::new(1, 1),
            ..MarketOptions::default()
        };
        let market = Market::new(&options).unwrap();
        let mut binance = Client::on(market.clone(), Venue::BINANCE, "ws/btcusdt@aggTrade", "", "");
        let frames: Vec<String> = (0..50).flat_map(|_| binance.wait(77)).collect();
        let listing = binance.listing("BTCUSDT");
        let (first, last) = (numbers(&frames, "f"), numbers(&frames, "l"));
        assert!(first.iter().chain(&last).all(|id| listing.is_issued(*id)));
        let numbered = numbers(&frames, "a");
        assert!(numbered.len() > 100 && numbered.windows(2).all(|two| two[1] == two[0] + 1));

        let mut okx = Client::on(market, Venue::OKX, "ws/v5/public", "", "");
        okx.say(r#"{"op":"subscribe","args":[{"channel":"trades","instId":"BTC-USDT"}]}"#);
        let newest = okx.newest("BTCUSDT").id;
        let frames: Vec<String> = (0..50).flat_map(|_| okx.wait(77)).collect();
        let listing = okx.listing("BTCUSDT");
        let issued = listing.trades(newest + 1..=okx.newest("BTCUSDT").id).count();
        assert_eq!(numbers(&frames, "count").iter().sum::<u64>(), issued as u64);
        assert!(numbers(&frames, "tradeId").iter().all(|id| listing.is_issued(*id)));
    }
}
