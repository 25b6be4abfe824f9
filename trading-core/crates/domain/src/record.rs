//! What moves through the pipeline: records of one kind at a time.

use std::fmt;

use super::{Instrument, Tick, Timestamp};

/// One record of one instrument. Channel, batcher, writers, spool and store work on batches of one kind and ask no more of
/// a record than this; [`Tick`] is the only kind so far.
pub trait Record: Clone + fmt::Debug + Send + Sync + Unpin + 'static {
    /// The kind in the plural, as in log lines and in the files of the spool: on disk it outlives the program, so it never
    /// changes.
    const KIND: &'static str;

    /// What the record is about.
    fn instrument(&self) -> Instrument;

    /// When it happened, by the exchange's clock: decides the partition that it is stored in.
    fn exchange_at(&self) -> Timestamp;

    /// When it was received, by our clock.
    fn received_at(&self) -> Timestamp;

    /// What a log line says of it: `Symbol: BTCUSDT, Price: 97123.40`.
    fn summary(&self) -> impl fmt::Display;
}

impl Record for Tick {
    const KIND: &'static str = "ticks";

    fn instrument(&self) -> Instrument {
        self.instrument
    }

    fn exchange_at(&self) -> Timestamp {
        self.exchange_at
    }

    fn received_at(&self) -> Timestamp {
        self.received_at
    }

    fn summary(&self) -> impl fmt::Display {
        format!("Symbol: {}, Price: {}", self.instrument.symbol(), self.price)
    }
}
