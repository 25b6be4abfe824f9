//! Looks the stored ids through once, and opens what is missing: what a kill lost between two writers, a note that was
//! dropped, rows that somebody deleted.
//!
//! Where the last look ended is kept in `checked_until`; the first look at a symbol begins with its first stored trade
//! within `backfill.max_age`. Only trades older than half a minute, and than all that the pipeline holds, are judged, and only while nothing waits for the store:
//! what is on its way is not missing.

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::admission::Admission;
use super::says::Says;
use super::{RANGES_MAX, RepairContext, RepairVenue};
use crate::domain::bounds::{LATENESS_MAX, WRITTEN_MAX};
use crate::domain::{IdRange, IdSet, Instrument, TimeRange, Timestamp};
use crate::exchange::IdRule;
use crate::store::postgres::audit::{
    AuditStep, Jump, audit_step, checked_until, first_stored, listed, note_audit,
};
use crate::store::postgres::gaps::{Gaps, remove_doubles, repaired_lately};
use crate::store::postgres::remedy;
use crate::store::{Remedy, said};

/// How often the ids are looked through.
const INTERVAL: Duration = Duration::from_secs(30);

/// Looks through what is stored of these venues, now and every half minute, until it is stopped.
pub async fn audit(
    context: RepairContext,
    venues: Vec<RepairVenue>,
    max_age: Duration,
    stop: CancellationToken,
) {
    let auditor = Auditor {
        gaps: Gaps::new(context.pool.clone(), context.recorder.clone()),
        admission: Admission::new(&context.ledger),
        says: Says::default(),
        context,
        max_age,
    };
    let rounds = async {
        loop {
            auditor.round(&venues, auditor.context.clock.now()).await;
            auditor.says.tell();
            sleep(INTERVAL).await;
        }
    };
    stop.run_until_cancelled(rounds).await;
    auditor.says.tell_rest();
}

struct Auditor {
    gaps: Gaps,
    admission: Admission,
    says: Says,
    context: RepairContext,
    max_age: Duration,
}

impl Auditor {
    async fn round(&self, venues: &[RepairVenue], now: Timestamp) {
        for venue in venues {
            let (ids, rules) = (venue.exchange.ids(), venue.exchange.history().rules());
            // Of an exchange's symbols what is missing is said together.
            self.says.tell();
            for instrument in &venue.instruments {
                let done = match (ids, rules.times_apart) {
                    (IdRule::Consecutive, apart) => {
                        self.look_through(*instrument, apart, now).await
                    }
                    (IdRule::Unique, Some(apart)) => {
                        self.remove_late_doubles(*instrument, apart).await
                    }
                    (IdRule::Unique, None) => Ok(()),
                };
                let Err(error) = done else { continue };
                // That the database is away is logged by the writers.
                if remedy(&error) == Remedy::Retry {
                    debug!(error = %said(&error), "The stored ids of {instrument} are looked through later");
                    return;
                }
                warn!(error = %said(&error), "The stored ids of {instrument} could not be looked through");
                // It is hardly this symbol's alone; other exchanges may be asked other things.
                break;
            }
        }
    }

    /// What was fetched may have come over a socket after all, after its gap was closed: out of a spool, or by way of
    /// another recorder.
    async fn remove_late_doubles(
        &self,
        instrument: Instrument,
        apart: Duration,
    ) -> Result<(), sqlx::Error> {
        let pool = &self.context.pool;
        for times in repaired_lately(pool, instrument).await? {
            self.admission.wait(&self.context.sender).await;
            remove_doubles(pool, instrument, times, apart).await?;
        }
        Ok(())
    }

    async fn look_through(
        &self,
        instrument: Instrument,
        times_apart: Option<Duration>,
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        let pool = &self.context.pool;
        // Some writes may end long before others that began earlier.
        let until = now - WRITTEN_MAX.max(self.context.held.age() + LATENESS_MAX);
        let mut mark = match checked_until(pool, instrument).await? {
            Some(mark) => mark,
            None => match first_stored(pool, instrument, now - self.max_age).await? {
                Some(first) => first,
                None => return Ok(()),
            },
        };
        loop {
            self.admission.wait(&self.context.sender).await;
            let Some(AuditStep { jumps, next }) = audit_step(pool, instrument, mark, until).await?
            else {
                return Ok(());
            };
            if let Some(apart) = times_apart {
                // What was fetched may have come over a socket after all, after its gap was closed.
                remove_doubles(pool, instrument, TimeRange::new(mark.time, next.time), apart)
                    .await?;
            }
            let found = self.missing(pool, instrument, &jumps).await?;
            note_audit(pool, instrument, &found, next).await?;
            debug!(%instrument, id = next.id, jumps = found.len(), "Looked through");
            mark = next;
        }
    }

    /// Of these jumps, what is neither stored out of order nor listed.
    async fn missing(
        &self,
        pool: &PgPool,
        instrument: Instrument,
        jumps: &[Jump],
    ) -> Result<Vec<Jump>, sqlx::Error> {
        let mut found = Vec::new();
        for jump in jumps {
            let absent = self.gaps.absent(instrument, jump.ids, jump.times, RANGES_MAX).await?;
            let absent: IdSet = match absent.first() {
                // Too many to name: whoever works on it looks again.
                Some(first) if absent.len() == RANGES_MAX => {
                    IdSet::span(first.first(), jump.ids.last())
                }
                _ => absent.into_iter().collect(),
            };
            let listed: IdSet = listed(pool, instrument, jump.ids).await?.into_iter().collect();
            let missing = absent.without(&listed);
            found.extend(missing.runs().map(|ids| Jump { ids, times: jump.times }));
        }
        self.without_misdated(instrument, found).await
    }

    /// These jumps without the trades that are stored with a time of another step: they are not missing.
    async fn without_misdated(
        &self,
        instrument: Instrument,
        jumps: Vec<Jump>,
    ) -> Result<Vec<Jump>, sqlx::Error> {
        let ids = jumps.iter().map(|jump| jump.ids).reduce(IdRange::hull);
        let times = jumps.iter().map(|jump| jump.times).reduce(TimeRange::hull);
        let Some((ids, times)) = ids.zip(times) else { return Ok(jumps) };
        let elsewhere = self.gaps.stored_elsewhere(instrument, ids, times, RANGES_MAX).await?;
        let elsewhere: IdSet = elsewhere.into_iter().collect();
        let mut found = Vec::new();
        for jump in jumps {
            let missing = IdSet::from(jump.ids).without(&elsewhere);
            found.extend(missing.runs().map(|ids| Jump { ids, times: jump.times }));
        }
        self.says.found(instrument, &found.iter().map(|jump| jump.ids).collect());
        Ok(found)
    }
}
