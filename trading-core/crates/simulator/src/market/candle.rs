//! One-minute candles: what the trades of a minute come to, folded when somebody asks.

use rust_decimal::Decimal;

use super::listing::Listing;
use domain::Timestamp;

const MINUTE_US: i64 = 60_000_000;

/// One minute of a symbol's trades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candle {
    /// When the minute begins.
    pub minute: Timestamp,
    /// The first price; without a trade, the last one before the minute, as in the three below.
    pub open: Decimal,
    /// The highest price.
    pub high: Decimal,
    /// The lowest price.
    pub low: Decimal,
    /// The last price.
    pub close: Decimal,
    /// Traded in units of base.
    pub volume: Decimal,
    /// Traded in units of quote.
    pub value: Decimal,
    /// How many trades.
    pub trades: u64,
}

impl Listing {
    /// The candle of the minute in which a time falls, of the trades until now; `None` before the first trade.
    #[must_use]
    pub fn candle(&self, time: Timestamp, now: Timestamp) -> Option<Candle> {
        let minute = time.minute();
        let first = self.first_since(minute);
        let until = minute.plus_micros(MINUTE_US - 1).min(now);
        let ids = first..=self.due(until)?;
        let price = match self.trades(ids.clone()).next() {
            Some(trade) => trade.price,
            // Nothing yet in this minute, nor anything before it: no price at all.
            None => self.trade(self.latest(until)?)?.price,
        };
        let zero = Decimal::ZERO;
        let (open, high, low, close) = (price, price, price, price);
        let none = Candle { minute, open, high, low, close, volume: zero, value: zero, trades: 0 };
        Some(self.trades(ids).fold(none, |candle, trade| Candle {
            high: candle.high.max(trade.price),
            low: candle.low.min(trade.price),
            close: trade.price,
            volume: candle.volume + trade.quantity,
            value: candle.value + trade.price * trade.quantity,
            trades: candle.trades + 1,
            ..candle
        }))
    }

    /// The candles of the minutes in which two times fall and of those between them, oldest first.
    pub(in super::super) fn candles(
        &self,
        from: Timestamp,
        to: Timestamp,
        now: Timestamp,
    ) -> impl DoubleEndedIterator<Item = Candle> {
        let number = |time: Timestamp| time.as_micros() / MINUTE_US;
        let minutes = number(from)..=number(to.min(now));
        minutes.filter_map(move |minute| {
            self.candle(Timestamp::from_micros(minute * MINUTE_US).ok()?, now)
        })
    }
}
