//! A batch as one INSERT: for small batches over TCP, and for those that hold ticks which are there already.

use std::sync::LazyLock;

use sqlx::PgConnection;

use super::rows::Arrays;
use super::tick_data;
use crate::domain::Tick;

/// One array a column, unfolded row by row. `unnest` in the select list streams; in FROM each array would first be
/// copied into a store of its own (a fifth slower, measured by `benches/write.rs`).
static STATEMENT: LazyLock<String> = LazyLock::new(|| {
    let values: Vec<String> =
        tick_data::arrays().iter().map(|array| format!("unnest({array})")).collect();
    format!("INSERT INTO tick_data ({}) SELECT {}", tick_data::names(), values.join(", "))
});

/// The same, where ticks that are there already are left out.
static STATEMENT_FOR_NEW: LazyLock<String> =
    LazyLock::new(|| format!("{} ON CONFLICT DO NOTHING", *STATEMENT));

/// What to do with ticks that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conflicts {
    /// Fail, and store nothing: the common case has none, and must not pay for looking.
    Refuse,
    /// Leave them out. The rows go in in the order of their keys: two writers of the same ticks then wait for each
    /// other in one direction only, and never in a circle.
    Skip,
}

/// Inserts a batch, and returns how many rows were stored.
pub(super) async fn insert(
    connection: &mut PgConnection,
    batch: &[Tick],
    conflicts: Conflicts,
) -> Result<u64, sqlx::Error> {
    let done = match conflicts {
        Conflicts::Refuse => arrays(batch)?.bind(&STATEMENT),
        Conflicts::Skip => {
            let mut ordered: Vec<(&Tick, String)> =
                batch.iter().map(|tick| (tick, tick.trade_id.to_string())).collect();
            ordered.sort_by(|(one, one_id), (other, other_id)| {
                tick_data::key(one, one_id).cmp(&tick_data::key(other, other_id))
            });
            arrays(ordered.into_iter().map(|(tick, _)| tick))?.bind(&STATEMENT_FOR_NEW)
        }
    };
    Ok(done.execute(connection).await?.rows_affected())
}

fn arrays<'a>(ticks: impl IntoIterator<Item = &'a Tick>) -> Result<Arrays, sqlx::Error> {
    let (mut arrays, mut text) = (Arrays::default(), String::new());
    for tick in ticks {
        tick_data::put(tick, &mut text, &mut arrays).map_err(sqlx::Error::Encode)?;
        arrays.end_row();
    }
    Ok(arrays)
}
