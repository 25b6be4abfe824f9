//! Which run of which process on which machine: the name that a recorder leaves in the tables it shares with others.

use nix::unistd::gethostname;

use crate::domain::Timestamp;

/// Host, process id and start, such as `db1:4711:2026-09-02T07:44:10.104422Z`: no two runs have the same.
#[must_use]
pub(super) fn identity(started_at: Timestamp) -> String {
    let host = gethostname().ok().and_then(|name| name.into_string().ok());
    let host = host.unwrap_or_else(|| "unknown".to_owned());
    format!("{host}:{}:{started_at}", std::process::id())
}
