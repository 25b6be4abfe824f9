//! An exchange's history, over REST: which page to ask for next, and how to read it.
//!
//! Pure like the rest of a venue: [`Pages`] says a URL, is given the body, says the next URL. Each venue pages in its
//! own way (by id, by time, newest first, or only the last few); a [`Span`] and a [`Reach`] hide the difference.

use std::num::NonZeroU32;
use std::time::Duration;

use rust_decimal::Decimal;

use super::{DecodeError, reason_text};
use domain::{IdRange, Instrument, Tick, TimeRange, Timestamp};

/// Ids beside a span that are read as well where a venue pages by id: whatever trade is found among them proves
/// that the reading has passed the span's end, also where the very next id was never issued.
pub(super) const BESIDE: u64 = 20;

/// A stretch of one symbol's past that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Whose.
    pub instrument: Instrument,
    /// The wanted trade ids; `None`: everything in the time.
    pub ids: Option<IdRange>,
    /// The wanted time. Where ids are wanted: the times of the trades known on either side.
    pub times: TimeRange,
}

/// How far a reading of the history has come: everything between the two ends was read without a break, so that what
/// was not in it is not in the exchange's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The ids that were read, the neighbours of the span included.
    pub ids: Option<IdRange>,
    /// The time that was read, by the exchange's clock. Of the trades of its two ends themselves, others may lie
    /// beyond it.
    pub times: TimeRange,
}

/// The pages of one span, asked for one after the other.
pub trait Pages: Send + std::fmt::Debug {
    /// The URL of the next page, the same until [`Self::take`] has read it; `None`: nothing more is to be had.
    fn next(&self) -> Option<String>;

    /// Reads the page that [`Self::next`] named. The trades of it that lie in the span are appended, in any order,
    /// with [`domain::Source::Backfill`]; those outside only widen the reach.
    ///
    /// # Errors
    ///
    /// When the body is not understood; the page may be asked for again.
    fn take(
        &mut self,
        body: &str,
        received_at: Timestamp,
        ticks: &mut Vec<Tick>,
    ) -> Result<(), HistoryError>;

    /// What has been read so far; `None`: nothing yet from which something can be concluded.
    fn reach(&self) -> Option<Reach>;
}

/// How far back a venue's history reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Any past time can be asked for.
    Whole,
    /// Everything that was traded within this time up to now.
    Last(Duration),
    /// Only the newest few trades of a symbol.
    Newest,
}

/// What a venue's history demands and offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryRules {
    /// Requests that may be made in [`Self::per`], by one client.
    pub requests: NonZeroU32,
    /// See `requests`.
    pub per: Duration,
    /// How far back it reaches.
    pub depth: Depth,
    /// How far a trade's time here may be from its time in the WebSocket's frames; `None`: they are the same, to the
    /// microsecond. Where they differ, a trade that came both ways may be stored twice: its id shows that.
    pub times_apart: Option<Duration>,
}

/// One minute of a venue's own candles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candle {
    /// When the minute begins.
    pub minute: Timestamp,
    /// Traded in it, in units of base.
    pub volume: Decimal,
    /// How many trades, where the venue says so.
    pub trades: Option<u64>,
}

/// A symbol that a venue lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// In the venue's spelling, as in [`super::Exchange::venue_symbol`].
    pub spelling: String,
    /// Whether it is traded now, where the list says so.
    pub is_traded: Option<bool>,
}

/// A venue's REST side.
pub trait History: Send + Sync + std::fmt::Debug {
    /// What it demands and offers.
    fn rules(&self) -> HistoryRules;

    /// The pages of a span, from a base such as [`super::Endpoints::rest_url`] (no trailing slash).
    fn pages(&self, base: &str, span: Span) -> Box<dyn Pages>;

    /// The URL of the one-minute candles of the minutes in which `from` and `to` fall and of those between them;
    /// where the venue gives fewer at once, of the first ones. Minutes without a trade may be left out, and later
    /// ones may be added.
    fn candles_url(
        &self,
        base: &str,
        instrument: Instrument,
        from: Timestamp,
        to: Timestamp,
    ) -> String;

    /// Reads candles, oldest first.
    ///
    /// # Errors
    ///
    /// When the body is not understood.
    fn decode_candles(&self, body: &str) -> Result<Vec<Candle>, HistoryError>;

    /// The URL of the venue's clock.
    fn clock_url(&self, base: &str) -> String;

    /// Reads the clock.
    ///
    /// # Errors
    ///
    /// When the body is not understood.
    fn decode_clock(&self, body: &str) -> Result<Timestamp, HistoryError>;

    /// The URL that answers whether a symbol is traded: with an error, or a body without it, where it is not.
    fn symbol_url(&self, base: &str, venue_symbol: &str) -> String;

    /// Reads that answer: whether the symbol is traded now.
    ///
    /// # Errors
    ///
    /// When the body is not understood, or refuses because there is no such symbol.
    fn decode_symbol(&self, body: &str) -> Result<bool, HistoryError>;

    /// The URLs whose answers together list every symbol of the venue, in as few bytes as the venue has them.
    fn listing_urls(&self, base: &str) -> Vec<String>;

    /// Reads one of these answers.
    ///
    /// # Errors
    ///
    /// When the body is not understood.
    fn decode_listing(&self, body: &str) -> Result<Vec<Listed>, HistoryError>;
}

/// An answer of a venue's REST side that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Not what its documentation shows.
    #[error(transparent)]
    Unreadable(DecodeError),
    /// Trades that were not asked for, so that nothing can be concluded from those that are missing.
    #[error("the answer does not begin where it was asked to: it holds trade {0}")]
    Elsewhere(String),
    /// The venue refuses, in its own words (cut to 200 characters), with a 200 or not.
    #[error("refused: {0}")]
    Refused(String),
    /// The venue wants fewer requests.
    #[error("too many requests")]
    TooMany,
}

impl HistoryError {
    /// The venue refuses, in its own words.
    pub(super) fn refused(words: &str) -> Self {
        Self::Refused(reason_text(words))
    }
}

/// Whatever a frame can be refused for, an answer can be.
impl<E> From<E> for HistoryError
where
    DecodeError: From<E>,
{
    fn from(error: E) -> Self {
        Self::Unreadable(error.into())
    }
}

/// What the pages of every venue have in common: what is wanted, and how far the reading has come.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) span: Span,
    reach: Option<Reach>,
}

impl Reading {
    pub(super) const fn new(span: Span) -> Self {
        Self { span, reach: None }
    }

    /// Keeps the wanted trades of a page; those beside the span only widen the reach.
    pub(super) fn keep(&mut self, page: Vec<Tick>, ticks: &mut Vec<Tick>) {
        ticks.extend(page.into_iter().filter(|tick| self.wants(tick)));
    }

    /// As [`Self::keep`] for one trade: whether it is wanted.
    pub(super) fn wants(&mut self, tick: &Tick) -> bool {
        self.widen(tick);
        !self.is_before(tick) && !self.is_after(tick)
    }

    /// Whether a trade lies before the span.
    pub(super) fn is_before(&self, tick: &Tick) -> bool {
        match (self.span.ids, tick.trade_id.number()) {
            (Some(ids), Some(id)) => id < ids.first(),
            _ => tick.exchange_at < self.span.times.from,
        }
    }

    /// Whether a trade lies after the span.
    pub(super) fn is_after(&self, tick: &Tick) -> bool {
        match (self.span.ids, tick.trade_id.number()) {
            (Some(ids), Some(id)) => id > ids.last(),
            _ => tick.exchange_at > self.span.times.to,
        }
    }

    /// The venue was asked for all trades from this time on: there is none before the first that it sent.
    pub(super) fn reaches_from(&mut self, time: Timestamp) {
        if let Some(reach) = &mut self.reach {
            reach.times.from = reach.times.from.min(time);
        }
    }

    pub(super) const fn reach(&self) -> Option<Reach> {
        self.reach
    }

    fn widen(&mut self, tick: &Tick) {
        let ids = tick.trade_id.number().map(IdRange::one);
        let times = TimeRange::at(tick.exchange_at);
        let reach = self.reach.get_or_insert(Reach { ids, times });
        reach.ids = reach.ids.zip(ids).map(|(read, own)| read.hull(own));
        reach.times = reach.times.hull(times);
    }
}

/// A venue's spelling of a symbol as a part of a URL: what is no letter or digit of ASCII is percent-encoded.
pub(super) fn encoded(spelling: &str) -> String {
    url::form_urlencoded::byte_serialize(spelling.as_bytes()).collect()
}

/// From the lowest to the highest id of a page; `None` for a page without a trade.
pub(super) fn ids_of(page: &[Tick]) -> Option<IdRange> {
    IdRange::around(page.iter().filter_map(|tick| tick.trade_id.number()))
}
