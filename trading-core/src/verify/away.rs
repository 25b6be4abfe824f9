//! Times without a connection, where ids prove nothing: which trades came last before each and first after it.

use std::time::Duration;

use sqlx::types::chrono::{DateTime, Utc};

use crate::domain::Timestamp;

use super::Scope;
use super::error::VerifyError;
use super::ids::{Span, hull};
use super::read::{Key, instant};
use super::snapshot::Snapshot;

/// The first trade after a time away may be stamped this much earlier than the last one before it.
const STAMPS_BACK_MAX: Duration = Duration::from_secs(5);

/// Rows that were received in one bucket of time: its number, and when they were traded.
type Bucket = (i64, Span);

/// A time away, when the rows before it were traded, and the rows after it.
type Edge = (Span, Option<Span>, Span);

/// A time between two connections, by the recorder's clock, and where the rows at its edges are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hole {
    at: Span,
    before: Option<Bucket>,
    after: Option<Bucket>,
}

/// All of one symbol, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Holes(Vec<Hole>);

/// A time without a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Away {
    /// By the recorder's clock.
    pub(super) at: Span,
    /// When the last trade before it and the first after it were made, by the exchange's clock.
    pub(super) between: Span,
}

impl Holes {
    /// Between these times of connection, which are ascending and do not overlap.
    pub(super) fn between(connected: &[Span]) -> Self {
        let hole = |pair: &[Span]| match pair {
            [one, next] => Some(Hole { at: (one.1, next.0), before: None, after: None }),
            _ => None,
        };
        Self(connected.windows(2).filter_map(hole).collect())
    }

    /// Adds live rows: `received` from then to then, all within the bucket, and traded `at` that time.
    pub(super) fn add(&mut self, bucket: i64, received: Span, at: Span) {
        let first = self.0.partition_point(|hole| hole.at.1 <= received.0);
        let end = self.0.partition_point(|hole| hole.at.1 <= received.1);
        // What lies between two others is carried on from its neighbour at the end.
        for hole in self.0.iter_mut().take(end + 1).skip(first) {
            hole.before = Some(match hole.before {
                Some((number, span)) if number == bucket => (bucket, hull(span, at)),
                Some(later) if later.0 > bucket => later,
                _ => (bucket, at),
            });
        }
        for hole in self.0.iter_mut().take(end).skip(first.saturating_sub(1)) {
            hole.after = Some(match hole.after {
                Some((number, span)) if number == bucket => (bucket, hull(span, at)),
                Some(earlier) if earlier.0 < bucket => earlier,
                _ => (bucket, at),
            });
        }
    }

    /// Each hole with the times in which the rows at its edges were traded.
    fn edges(&self) -> Vec<Edge> {
        let mut before = None;
        let befores: Vec<Option<Bucket>> = self
            .0
            .iter()
            .map(|hole| {
                before = hole.before.or(before);
                before
            })
            .collect();
        let mut after = None;
        let mut edges: Vec<Edge> = Vec::new();
        for (hole, before) in self.0.iter().zip(befores).rev() {
            after = hole.after.or(after);
            // Nothing has come since: what is missing will be listed with the next trade.
            if let Some((_, after)) = after {
                edges.push((hole.at, before.map(|(_, at)| at), after));
            }
        }
        edges.reverse();
        edges
    }
}

/// A number, and the times of the trades before and after.
type Row = (i64, Option<DateTime<Utc>>, Option<DateTime<Utc>>);

/// The times without a connection between two trades, in the scope.
pub(super) async fn away(
    snapshot: &Snapshot,
    (exchange, symbol): &Key,
    holes: &Holes,
    scope: &Scope,
) -> Result<Vec<Away>, VerifyError> {
    let edges = holes.edges();
    if edges.is_empty() {
        return Ok(Vec::new());
    }
    let times = |which: fn(&Edge) -> Option<Timestamp>| -> Vec<Option<DateTime<Utc>>> {
        edges.iter().map(|edge| which(edge).map(Timestamp::to_datetime)).collect()
    };
    let mut look = snapshot.look().await?;
    // The last one before is the last that was received, not the one with the latest stamp: that may be false. So may be the
    // stamp of the last one: it is believed as far as it fits those before it.
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT number, coalesce( \
                 (SELECT least((array_agg(time ORDER BY received_at DESC, time DESC))[1], max(received_at) \
                         + percentile_cont(0.5) WITHIN GROUP (ORDER BY time - received_at) + interval '1 second') \
                     FROM (SELECT time, received_at FROM tick_data WHERE exchange = $1 AND symbol = $2 AND source = 'live' \
                         AND time BETWEEN since AND until AND received_at < back ORDER BY received_at DESC LIMIT 9) AS last), \
                 (SELECT time FROM tick_data WHERE exchange = $1 AND symbol = $2 AND source = 'live' \
                     AND since IS NULL AND time < $8 ORDER BY time DESC LIMIT 1)), \
             (SELECT time FROM tick_data WHERE exchange = $1 AND symbol = $2 AND source = 'live' \
                 AND time BETWEEN later_since AND later_until AND received_at >= back ORDER BY received_at, time LIMIT 1) \
         FROM unnest($3::timestamptz[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[]) \
             WITH ORDINALITY AS hole (back, since, until, later_since, later_until, number) ORDER BY number",
    )
    .bind(exchange)
    .bind(symbol)
    .bind(times(|edge| Some(edge.0.1)))
    .bind(times(|edge| Some(edge.1?.0)))
    .bind(times(|edge| Some(edge.1?.1)))
    .bind(times(|edge| Some(edge.2.0)))
    .bind(times(|edge| Some(edge.2.1)))
    .bind(scope.from.map(Timestamp::to_datetime))
    .persistent(false)
    .fetch_all(&mut *look)
    .await?;
    let away = edges.iter().zip(rows).filter_map(|((at, ..), (_, last, first))| {
        let (last, first) = (instant(last?), instant(first?));
        if first + STAMPS_BACK_MAX < last {
            // The stamps are of no use: the time itself must be listed.
            return Some(Away { at: *at, between: *at });
        }
        (last < first).then_some(Away { at: *at, between: (last, first) })
    });
    Ok(away.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000).unwrap()
    }

    fn span(from: i64, to: i64) -> Span {
        (at(from), at(to))
    }

    #[test]
    fn the_edges_of_each_time_away_are_in_the_buckets_beside_it() {
        let connected = [span(0, 100), span(200, 300), span(310, 320), span(400, 500)];
        let mut holes = Holes::between(&connected);
        // Nothing came over the third connection; the order of reading does not matter.
        for (bucket, from, to) in
            [(7, 450, 460), (3, 210, 250), (0, 10, 60), (1, 64, 100), (4, 260, 300)]
        {
            holes.add(bucket, span(from, to), span(from + 1_000, to + 1_000));
        }
        holes.add(1, span(90, 91), span(5_000, 5_001));
        let edges = holes.edges();
        let expected = [
            (span(100, 200), Some(span(1_064, 5_001)), span(1_210, 1_250)),
            (span(300, 310), Some(span(1_260, 1_300)), span(1_450, 1_460)),
            (span(320, 400), Some(span(1_260, 1_300)), span(1_450, 1_460)),
        ];
        assert_eq!(edges, expected);
    }

    #[test]
    fn rows_of_both_sides_of_a_time_away_in_one_bucket_are_at_both_of_its_edges() {
        let mut holes = Holes::between(&[span(0, 10), span(12, 30)]);
        holes.add(0, span(8, 14), span(8, 14));
        assert_eq!(holes.edges(), [(span(10, 12), Some(span(8, 14)), span(8, 14))]);
        let mut holes = Holes::between(&[span(0, 10), span(12, 30)]);
        holes.add(0, span(8, 9), span(8, 9));
        assert_eq!(holes.edges(), [], "nothing has come since");
    }
}
