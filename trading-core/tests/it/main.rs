//! The promises that span rooms, in one binary: one file a promise.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "in a test a panic is the report, and what is skipped is said aloud; helpers are not covered by allow-in-tests"
)]

mod backfill;
mod bounds;
mod captures;
mod clock;
mod completions;
mod databases;
mod days;
mod docs;
mod doctor;
mod embedded;
mod embedded_program;
mod feed;
mod hostile;
mod install;
mod journal;
mod killed;
mod market;
mod names;
mod paper;
mod places;
mod queries;
mod recorder;
mod recording;
mod repair;
mod replay;
mod resume;
mod settings;
mod signals;
mod spool;
mod sqlstate;
mod store;
mod support;
mod terminal;
mod texts;
mod tidy;
mod venues;
mod verify;
