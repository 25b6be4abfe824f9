//! This machine: room on its disks, and open files.

use std::path::Path;

use bytesize::ByteSize;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use rust_decimal::prelude::ToPrimitive as _;

use super::Check;
use super::stored::Load;
use crate::config::Settings;
use crate::domain::count;
use crate::store::{spool, with_causes};
use crate::telemetry::Grouped;

/// Files that are open beside sockets to exchanges and database: logs, locks, segments of the spool, room to spare.
const FILES_BESIDE: u64 = 64;
/// With less room than this the database stops soon.
const FREE_LEAST: u64 = 256 * 1024 * 1024;
/// Days of recording that the disk should hold without anybody looking at it.
const DAYS_LEAST: u64 = 7;
const DAY_SECONDS: u64 = 86_400;

/// Whether enough files may be open.
pub(super) fn files(settings: &Settings) -> Check {
    let feeds: usize = settings
        .exchanges
        .iter()
        .filter(|venue| venue.enabled)
        .map(|venue| venue.connections.get() * (venue.symbols.len() / 50 + 1))
        .sum();
    let feeds = count(feeds);
    let needed = feeds + u64::from(settings.database.max_connections.get()) + FILES_BESIDE;
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((allowed, _)) => judge_files(allowed, needed),
        Err(error) => {
            Check::warn("files", format!("the limit cannot be read: {error}"), "ulimit -n")
        }
    }
}

fn judge_files(allowed: u64, needed: u64) -> Check {
    if allowed < needed {
        let found =
            format!("{} files may be open, and about {needed} are needed", Grouped(allowed));
        return Check::fail("files", found, format!("ulimit -n {}", needed * 2));
    }
    let found = format!("{} files may be open; about {needed} are needed", Grouped(allowed));
    Check::ok("files", found)
}

/// Whether the database's disk holds what is to come. `database`: its folder, where it lies on this machine.
pub(super) fn disks(
    settings: &Settings,
    load: Option<Load>,
    database: Option<&Path>,
) -> Vec<Check> {
    let mut checks = vec![expected(load)];
    match database {
        Some(folder) => checks.push(database_disk(settings, load, folder)),
        None => checks.push(Check::ok(
            "disk",
            "the database's disk is that of its server, and is not seen from here",
        )),
    }
    checks
}

fn expected(load: Option<Load>) -> Check {
    let Some(load) = load else {
        let remedy = "look again after an hour of recording";
        return Check::warn("load", "how much will come is not known", remedy);
    };
    let from = if load.is_stored {
        "as in the newest hour stored"
    } else {
        "by the exchanges' newest trades"
    };
    let per_day = ByteSize(load.bytes_per_day());
    let a_second = Grouped(load.rows_per_second.round().to_u64().unwrap_or(u64::MAX));
    Check::ok("load", format!("about {a_second} ticks a second, {per_day} a day ({from})"))
}

fn database_disk(settings: &Settings, load: Option<Load>, folder: &Path) -> Check {
    let free = match free(folder) {
        Ok(free) => free,
        Err(found) => {
            return Check::fail(
                "disk",
                found,
                "set database.data_dir to a folder that can be written",
            );
        }
    };
    let kept_days = settings.database.retention.map(|kept| kept.as_secs().div_ceil(DAY_SECONDS));
    judge_disk(free, load.map(Load::bytes_per_day), kept_days, folder)
}

fn judge_disk(free: u64, per_day: Option<u64>, kept_days: Option<u64>, folder: &Path) -> Check {
    let room = format!("{} free for the database in {}", ByteSize(free), folder.display());
    let remedy = "make room, or set database.retention";
    if free < FREE_LEAST {
        return Check::fail("disk", room, remedy);
    }
    let Some(days) = per_day.filter(|bytes| *bytes > 0).map(|bytes| free / bytes) else {
        return Check::ok("disk", room);
    };
    // What is dropped by then makes room for what comes.
    if kept_days.is_some_and(|kept| kept <= days) {
        return Check::ok("disk", format!("{room}: enough for the days that are kept"));
    }
    let found = format!("{room}: full in about {days} days");
    match days {
        0 => Check::fail("disk", found, remedy),
        1..DAYS_LEAST => Check::warn("disk", found, remedy),
        _ => Check::ok("disk", found),
    }
}

/// Whether the spool may grow to its limit, and what lies in it.
pub(super) async fn spool(settings: &Settings) -> Vec<Check> {
    let (max_bytes, remedy) =
        (settings.spool.max_bytes, "set spool.dir to a folder that can be written");
    let folder = match spool::folder(&settings.spool, &settings.database) {
        Ok(folder) => folder,
        Err(error) => return vec![Check::fail("spool", with_causes(&error), remedy)],
    };
    let mut checks = vec![spool_disk(settings, &folder)];
    let looked = tokio::task::spawn_blocking(move || spool::status(&folder, max_bytes)).await;
    match looked {
        Ok(Ok(status)) => checks.extend(judge_leftovers(&status)),
        Ok(Err(error)) => checks.push(Check::fail("spool", with_causes(&error), remedy)),
        Err(error) => {
            checks.push(Check::warn("spool", error.to_string(), "`trading-core spool status`"));
        }
    }
    checks
}

fn judge_leftovers(status: &spool::Status) -> Vec<Check> {
    let mut checks = Vec::new();
    let damaged: u64 = status.slots.iter().map(|slot| slot.damaged).sum();
    if damaged > 0 {
        let found = format!("{damaged} damaged files are set aside in {}", status.dir.display());
        checks.push(Check::warn("spool", found, "`trading-core spool status` says more"));
    }
    for skipped in &status.skipped {
        checks.push(Check::warn("spool", skipped.to_string(), "move it elsewhere"));
    }
    if status.ticks > 0 {
        let found = format!("{} ticks wait in it", Grouped(status.ticks));
        checks.push(Check::warn(
            "spool",
            found,
            "`live` stores them, or `trading-core spool drain`",
        ));
    }
    checks
}

fn spool_disk(settings: &Settings, folder: &Path) -> Check {
    match free(folder) {
        Ok(free) => judge_spool(free, settings.spool.max_bytes, folder),
        Err(found) => Check::fail("spool", found, "set spool.dir to a folder that can be written"),
    }
}

fn judge_spool(free: u64, max_bytes: u64, folder: &Path) -> Check {
    let (room, most) = (ByteSize(free), ByteSize(max_bytes));
    let found = format!("{room} free for the spool in {}; it takes up to {most}", folder.display());
    if free < FREE_LEAST {
        return Check::fail("spool", found, "make room, or set spool.dir");
    }
    if free < max_bytes {
        return Check::warn("spool", found, "make room, or lower spool.max_bytes");
    }
    Check::ok("spool", found)
}

/// Bytes that this user may still write where a folder is or will be; or why not.
fn free(folder: &Path) -> Result<u64, String> {
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    access(there, AccessFlags::W_OK)
        .map_err(|error| format!("{} cannot be written: {error}", there.display()))?;
    let about =
        statvfs(there).map_err(|error| format!("{} cannot be asked: {error}", there.display()))?;
    Ok(about.blocks_available().saturating_mul(about.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    const GIB: u64 = 1 << 30;

    #[test]
    fn few_files_fail() {
        assert_eq!(judge_files(1_024, 80).level, Level::Ok);
        assert_eq!(judge_files(79, 80).level, Level::Fail);
    }

    #[test]
    fn a_disk_is_judged_by_how_long_it_lasts() {
        let level = |free, per_day, kept| judge_disk(free, per_day, kept, Path::new("/data")).level;
        assert_eq!(level(100 * GIB, Some(GIB), None), Level::Ok);
        assert_eq!(level(6 * GIB, Some(GIB), None), Level::Warn);
        assert_eq!(level(6 * GIB, Some(GIB), Some(5)), Level::Ok);
        assert_eq!(level(6 * GIB, Some(GIB), Some(30)), Level::Warn);
        assert_eq!(level(GIB, Some(2 * GIB), None), Level::Fail);
        assert_eq!(level(FREE_LEAST - 1, None, None), Level::Fail);
        assert_eq!(level(FREE_LEAST, None, None), Level::Ok);
    }

    #[test]
    fn a_spool_that_cannot_grow_to_its_limit_is_told() {
        let level = |free| judge_spool(free, 4 * GIB, Path::new("/spool")).level;
        assert_eq!(level(4 * GIB), Level::Ok);
        assert_eq!(level(4 * GIB - 1), Level::Warn);
        assert_eq!(level(FREE_LEAST - 1), Level::Fail);
    }

    #[test]
    fn a_folder_that_is_not_there_yet_lies_where_its_parents_lie() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free(&folder.path().join("a/b")).unwrap() > 0);
    }
}
