//! Stored ticks, read back in the order in which they are traded.
//!
//! Read in slices of the exchange's time through the index of each instrument, so that other days and other symbols
//! are not touched; no slice sorts more than some 100,000 rows, and memory does not grow with the range. Within the
//! reader [`Arrivals`] puts the ticks in order of arrival. What came live arrived when it was received; what was
//! fetched later counts at the exchange's time, after the live tick before it.
//!
//! The order is exact while the recorder's clock is less than [`LEAD`] behind the exchange's, and while less waits
//! for its turn than fits; a tick for which that does not hold is counted as displaced.

use std::ops::Range;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use rust_decimal::Decimal;
use rustc_hash::FxHashMap;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::arrivals::Arrivals;
use super::error::PaperError;
use crate::domain::{Instrument, Side, Source, Tick, Timestamp, TradeId};

/// The rows of the instruments between two times.
macro_rules! rows_between {
    () => {
        " FROM tick_data WHERE exchange = ANY($1) AND symbol = ANY($2) AND time >= $3 AND time < $4"
    };
}

/// How far the recorder's clock may be behind an exchange's: a tick can arrive this long before it was traded.
pub(super) const LEAD: Duration = Duration::from_secs(60);
/// How long after its trade a tick may arrive and still be read: snapshots bring old trades.
pub(super) const LAG: Duration = Duration::from_secs(3_600);
/// Ticks that may wait for their turn: some 100 MB.
const WAITING_MAX: usize = 1_000_000;
/// Rows that a slice should have: enough to be worth a query, few enough to be sorted in memory.
const SLICE_ROWS: u64 = 50_000;
const SLICE_START: Duration = Duration::from_secs(10);
const SLICE_MIN: Duration = Duration::from_millis(100);
const SLICE_MAX: Duration = Duration::from_secs(3_600);
/// Rows that go to the reader's other end at once, and how often that may be ahead.
const CHUNK_ROWS: usize = 1_000;
const CHUNKS_MAX: usize = 16;

/// Which ticks are read.
#[derive(Debug, Clone)]
pub struct TickQuery {
    /// Of these instruments, each from this exchange time on: what of the table is looked at.
    pub instruments: Vec<(Instrument, Timestamp)>,
    /// Traded before this exchange time.
    pub traded_before: Timestamp,
    /// That arrived within this time.
    pub arrived: Range<Timestamp>,
    /// Only those that came as they were traded, not those fetched later.
    pub as_received: bool,
    /// The longest time that one query may be about. Slow readers choose it short, so that no query stays open long.
    pub slice_max: Duration,
}

impl TickQuery {
    /// Everything of these instruments that arrived within this time.
    #[must_use]
    pub fn new(
        instruments: impl IntoIterator<Item = Instrument>,
        arrived: Range<Timestamp>,
        as_received: bool,
    ) -> Self {
        let since = earlier(arrived.start, LAG);
        Self {
            instruments: instruments.into_iter().map(|instrument| (instrument, since)).collect(),
            traded_before: later(arrived.end, LEAD),
            arrived,
            as_received,
            slice_max: SLICE_MAX,
        }
    }

    fn columns(&self) -> (Vec<&'static str>, Vec<&'static str>, Vec<DateTime<Utc>>) {
        let column = |(instrument, since): &(Instrument, Timestamp)| {
            (instrument.exchange(), instrument.symbol().as_str(), since.to_datetime())
        };
        self.instruments.iter().map(column).collect()
    }

    /// About how many these are: counted where that takes no longer than a second, else what PostgreSQL's planner thinks.
    /// The planner knows little of tables that were filled a moment ago, and those are soon counted.
    ///
    /// # Errors
    ///
    /// When the database cannot be asked.
    pub async fn estimate(&self, pool: &PgPool) -> Result<Option<u64>, PaperError> {
        match self.counted(pool).await {
            Ok(rows) => return Ok(u64::try_from(rows).ok()),
            Err(error) if is_too_long(&error) => {}
            Err(error) => return Err(unread(error)),
        }
        let (exchanges, symbols, since) = self.columns();
        let plan: String = sqlx::query_scalar(concat!("EXPLAIN SELECT", rows_between!()))
            .bind(exchanges)
            .bind(symbols)
            .bind(since.into_iter().min())
            .bind(self.traded_before.to_datetime())
            .fetch_one(pool)
            .await
            .map_err(unread)?;
        let rows = plan.split_once("rows=").and_then(|(_, rest)| rest.split(' ').next());
        Ok(rows.and_then(|rows| rows.parse().ok()))
    }

    async fn counted(&self, pool: &PgPool) -> Result<i64, sqlx::Error> {
        let (exchanges, symbols, since) = self.columns();
        let mut transaction = pool.begin().await?;
        sqlx::raw_sql("SET LOCAL statement_timeout = '1s'").execute(&mut *transaction).await?;
        let rows = sqlx::query_scalar(concat!("SELECT count(*)", rows_between!()))
            .bind(exchanges)
            .bind(symbols)
            .bind(since.into_iter().min())
            .bind(self.traded_before.to_datetime())
            .fetch_one(&mut *transaction)
            .await?;
        transaction.rollback().await?;
        Ok(rows)
    }
}

fn is_too_long(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|it| it.code()).as_deref() == Some("57014")
}

/// A time before or after another, as far as times go.
pub(super) fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(at.as_micros().saturating_sub(by).max(0)).unwrap_or(at)
}

pub(super) fn later(at: Timestamp, by: Duration) -> Timestamp {
    let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(at.as_micros().saturating_add(by)).unwrap_or(at)
}

/// Ticks on their way from the table. Dropping it ends the reading.
#[derive(Debug)]
pub struct TickStream {
    rows: mpsc::Receiver<Result<Vec<Tick>, PaperError>>,
    arrivals: Arrivals,
    /// When the newest live tick of each instrument arrived.
    live: FxHashMap<Instrument, Timestamp>,
    read_until: Timestamp,
    has_ended: bool,
    _reader: JoinSet<()>,
}

impl TickStream {
    /// Starts reading.
    #[must_use]
    pub fn start(pool: PgPool, query: TickQuery) -> Self {
        let (sender, rows) = mpsc::channel(CHUNKS_MAX);
        let mut reader = JoinSet::new();
        let read_until = query.arrived.start;
        reader.spawn(async move {
            let mut reader = Reader { query, chunk: Vec::new(), sender };
            if let Err(error) = reader.run(&pool).await {
                // Without a receiver nobody wants to know any more.
                reader.sender.send(Err(error)).await.ok();
            }
        });
        Self {
            rows,
            arrivals: Arrivals::new(WAITING_MAX),
            live: FxHashMap::default(),
            read_until,
            has_ended: false,
            _reader: reader,
        }
    }

    /// These ticks, as if they had been read.
    #[cfg(test)]
    pub(super) fn of(ticks: Vec<Tick>) -> Self {
        let (sender, rows) = mpsc::channel(1);
        sender.try_send(Ok(ticks)).unwrap();
        Self {
            rows,
            arrivals: Arrivals::new(WAITING_MAX),
            live: FxHashMap::default(),
            read_until: Timestamp::EPOCH,
            has_ended: false,
            _reader: JoinSet::new(),
        }
    }

    /// The next tick and when it arrived; `None` after the last. Cancel-safe.
    ///
    /// # Errors
    ///
    /// When the database cannot be asked, or holds what this program never writes.
    pub async fn next(&mut self) -> Result<Option<(Timestamp, Tick)>, PaperError> {
        loop {
            if self.has_ended {
                return Ok(self.arrivals.pop());
            }
            if let Some(next) = self.arrivals.pop_before(earlier(self.read_until, LEAD)) {
                return Ok(Some(next));
            }
            match self.rows.recv().await {
                Some(rows) => rows?.into_iter().for_each(|tick| self.take(tick)),
                None => self.has_ended = true,
            }
        }
    }

    /// Ticks that were handed out after one that arrived later.
    #[must_use]
    pub const fn displaced(&self) -> u64 {
        self.arrivals.displaced()
    }

    fn take(&mut self, tick: Tick) {
        self.read_until = tick.exchange_at;
        let live = self.live.entry(tick.instrument).or_insert(tick.exchange_at);
        let arrived_at = if tick.source == Source::Backfill {
            tick.exchange_at.max(*live)
        } else {
            *live = tick.received_at.max(*live);
            tick.received_at
        };
        self.arrivals.push(arrived_at, tick);
    }
}

/// The end that reads.
struct Reader {
    query: TickQuery,
    chunk: Vec<Tick>,
    sender: mpsc::Sender<Result<Vec<Tick>, PaperError>>,
}

impl Reader {
    async fn run(&mut self, pool: &PgPool) -> Result<(), PaperError> {
        let mut length = SLICE_START.min(self.query.slice_max);
        let mut next = self.bounds(pool, Timestamp::EPOCH).await?;
        while let Some(Range { start, end }) = next {
            if self.sender.is_closed() {
                return Ok(());
            }
            let until = later(start, length).min(end);
            let rows = self.slice(pool, start..until).await?;
            length = next_length(length, rows, self.query.slice_max);
            // Days without a tick are stepped over.
            next = if rows == 0 { self.bounds(pool, until).await? } else { Some(until..end) };
            next = next.filter(|next| !next.is_empty());
        }
        self.flush().await;
        Ok(())
    }

    /// From the first tick after this time to just after the last of the query's range: what lies outside need not be
    /// looked at.
    async fn bounds(
        &self,
        pool: &PgPool,
        from: Timestamp,
    ) -> Result<Option<Range<Timestamp>>, PaperError> {
        let (exchanges, symbols, since) = self.query.columns();
        let row = sqlx::query(
            "SELECT min(first.time), max(last.time) \
             FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS i (exchange, symbol, since) \
             LEFT JOIN LATERAL (SELECT time FROM tick_data AS t \
                 WHERE t.exchange = i.exchange AND t.symbol = i.symbol AND time >= i.since AND time >= $5 AND time < $4 \
                 ORDER BY time LIMIT 1) AS first ON true \
             LEFT JOIN LATERAL (SELECT time FROM tick_data AS t \
                 WHERE t.exchange = i.exchange AND t.symbol = i.symbol AND time >= i.since AND time >= $5 AND time < $4 \
                 ORDER BY time DESC LIMIT 1) AS last ON true",
        )
        .bind(exchanges)
        .bind(symbols)
        .bind(since)
        .bind(self.query.traded_before.to_datetime())
        .bind(from.to_datetime())
        .fetch_one(pool)
        .await
        .map_err(unread)?;
        let first: Option<DateTime<Utc>> = row.try_get(0).map_err(unread)?;
        let last: Option<DateTime<Utc>> = row.try_get(1).map_err(unread)?;
        let (Some(first), Some(last)) = (first, last) else { return Ok(None) };
        Ok(Some(timestamp(first)?..later(timestamp(last)?, Duration::from_micros(1))))
    }

    /// Reads the ticks traded within this time; how many there were.
    async fn slice(&mut self, pool: &PgPool, traded: Range<Timestamp>) -> Result<u64, PaperError> {
        let (exchanges, symbols, since) = self.query.columns();
        let mut rows = sqlx::query(
            "SELECT i.number, t.trade_id, t.side = 'buy', t.price, t.quantity, t.source, t.time, t.received_at \
             FROM unnest($1::text[], $2::text[], $8::timestamptz[]) WITH ORDINALITY \
                 AS i (exchange, symbol, since, number) \
             CROSS JOIN LATERAL (SELECT * FROM tick_data AS t \
                 WHERE t.exchange = i.exchange AND t.symbol = i.symbol \
                   AND t.time >= $3 AND t.time >= i.since AND t.time < $4 \
                   AND CASE WHEN t.source <> 'backfill' THEN t.received_at WHEN NOT $7 THEN t.time END >= $5 \
                   AND CASE WHEN t.source <> 'backfill' THEN t.received_at ELSE t.time END < $6) AS t \
             ORDER BY t.time, i.number, length(t.trade_id), t.trade_id",
        )
        .bind(exchanges)
        .bind(symbols)
        .bind(traded.start.to_datetime())
        .bind(traded.end.to_datetime())
        .bind(self.query.arrived.start.to_datetime())
        .bind(self.query.arrived.end.to_datetime())
        .bind(self.query.as_received)
        .bind(since)
        .fetch(pool);
        let mut count = 0_u64;
        while let Some(row) = rows.try_next().await.map_err(unread)? {
            count = count.saturating_add(1);
            self.chunk.push(tick(&row, &self.query.instruments)?);
            if self.chunk.len() >= CHUNK_ROWS {
                send(&self.sender, &mut self.chunk).await;
            }
        }
        Ok(count)
    }

    async fn flush(&mut self) {
        send(&self.sender, &mut self.chunk).await;
    }
}

/// Sends what was read on. A receiver that has gone is seen before the next slice, which is not read then.
async fn send(sender: &mpsc::Sender<Result<Vec<Tick>, PaperError>>, chunk: &mut Vec<Tick>) {
    let full = std::mem::replace(chunk, Vec::with_capacity(CHUNK_ROWS));
    sender.send(Ok(full)).await.ok();
}

/// How long the slice after one of this length should be, by the rows that it had.
fn next_length(length: Duration, rows: u64, max: Duration) -> Duration {
    let next = if rows > 2 * SLICE_ROWS {
        length / 2
    } else if rows < SLICE_ROWS / 2 {
        length.saturating_mul(2)
    } else {
        length
    };
    next.min(max).max(SLICE_MIN)
}

const fn unread(source: sqlx::Error) -> PaperError {
    PaperError::Database { action: "read", source }
}

fn corrupt(what: &impl std::fmt::Display) -> PaperError {
    PaperError::CorruptTick { what: what.to_string() }
}

fn timestamp(at: DateTime<Utc>) -> Result<Timestamp, PaperError> {
    Timestamp::from_micros(at.timestamp_micros()).map_err(|error| corrupt(&error))
}

fn tick(row: &PgRow, instruments: &[(Instrument, Timestamp)]) -> Result<Tick, PaperError> {
    let number: i64 = row.try_get(0).map_err(unread)?;
    let place = usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
    let source: &str = row.try_get(5).map_err(unread)?;
    Ok(Tick {
        instrument: instruments.get(place).ok_or_else(|| corrupt(&number))?.0,
        trade_id: TradeId::from_text(row.try_get(1).map_err(unread)?),
        price: row.try_get::<Decimal, _>(3).map_err(unread)?,
        quantity: row.try_get::<Decimal, _>(4).map_err(unread)?,
        side: if row.try_get(2).map_err(unread)? { Side::Buy } else { Side::Sell },
        source: Source::from_name(source).ok_or_else(|| corrupt(&source))?,
        exchange_at: timestamp(row.try_get(6).map_err(unread)?)?,
        received_at: timestamp(row.try_get(7).map_err(unread)?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paper::testing::{at, instrument, tick};

    /// A live tick, received this long after its trade.
    fn live(id: u64, traded: i64, after: i64) -> Tick {
        Tick { received_at: at(traded + after), ..tick(id, traded, "1", "1") }
    }

    async fn order(ticks: Vec<Tick>) -> (Vec<u64>, u64) {
        let mut stream = TickStream::of(ticks);
        let mut ids = Vec::new();
        while let Some((_, tick)) = stream.next().await.unwrap() {
            ids.push(tick.trade_id.number().unwrap());
        }
        (ids, stream.displaced())
    }

    #[tokio::test]
    async fn live_ticks_come_as_they_arrived() {
        let eth = Tick { instrument: instrument("ETHUSDT"), ..live(2, 101, 5) };
        let ticks = vec![live(1, 100, 50), eth, live(3, 102, 60), live(4, 103, 70)];
        assert_eq!(order(ticks).await, (vec![2, 1, 3, 4], 0));
    }

    #[tokio::test]
    async fn a_fetched_tick_comes_at_its_time_after_the_live_one_before_it() {
        let fetched = |id, traded| Tick { source: Source::Backfill, ..live(id, traded, 1_000_000) };
        // 2 was traded before 1 was received, of which it must not get ahead; 4 has its own time.
        let ticks = vec![live(1, 100, 50), fetched(2, 110), live(3, 120, 60), fetched(4, 500)];
        assert_eq!(order(ticks).await, (vec![1, 2, 3, 4], 0));
    }

    #[tokio::test]
    async fn a_clock_that_is_too_far_behind_is_told() {
        let minute = 60_000_000;
        // The last was received two minutes before its trade, by when the others have gone on.
        let first = live(1, 10 * minute, 0);
        let last = live(3, 13 * minute, -4 * minute);
        let ticks = vec![first, live(2, 12 * minute, 0), last];
        assert_eq!(order(ticks.clone()).await, (vec![3, 1, 2], 0), "read at once, it is in order");
        let mut stream = TickStream::of(ticks[..2].to_vec());
        assert!(stream.next().await.unwrap().is_some());
        stream.take(ticks[2].clone());
        assert_eq!(stream.displaced(), 1);
    }

    #[test]
    fn slices_grow_in_quiet_times_and_shrink_in_busy_ones() {
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3_600));
        assert_eq!(next_length(second, 0, hour), 2 * second);
        assert_eq!(next_length(second, SLICE_ROWS, hour), second);
        assert_eq!(next_length(second, 10 * SLICE_ROWS, hour), second / 2);
        assert_eq!(next_length(hour, 0, hour), hour);
        assert_eq!(next_length(SLICE_MIN, 10 * SLICE_ROWS, hour), SLICE_MIN);
    }
}
