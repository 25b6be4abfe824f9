//! Programs that some tests need beside PostgreSQL.
//!
//! `cargo test` passes where they are missing, and says which test was skipped; `scripts/test` installs them and sets
//! `TRADING_CORE_REQUIRE_TOOLS`, so that none is skipped there.

use std::path::PathBuf;

/// Debian's libfaketime: a program that is started with it in `LD_PRELOAD` sees the clock of `FAKETIME`.
const FAKETIME: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];
const PGBOUNCER: [&str; 3] =
    ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];

/// The settings of a child that sees its clock off by `offset` ("-3d", "+60d"), its monotonic clock as it is.
pub(crate) fn faketime(test: &str, offset: &str) -> Option<[(String, String); 4]> {
    let library = faketime_library(test)?;
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Some([
        pair("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        pair("FAKETIME_NO_CACHE", "1"),
        pair("FAKETIME", offset),
        pair("LD_PRELOAD", library.to_str().unwrap()),
    ])
}

/// What is preloaded into a program so that it sees another clock.
pub(crate) fn faketime_library(test: &str) -> Option<PathBuf> {
    find(test, "libfaketime", &FAKETIME)
}

/// The connection pooler.
pub(crate) fn pgbouncer(test: &str) -> Option<PathBuf> {
    find(test, "pgbouncer", &PGBOUNCER)
}

/// A shell that completes.
pub(crate) fn shell(test: &str, name: &'static str) -> Option<PathBuf> {
    let places = ["/usr/bin", "/bin", "/usr/local/bin"].map(|folder| format!("{folder}/{name}"));
    find(test, name, &places.each_ref().map(String::as_str))
}

fn find(test: &str, tool: &str, places: &[&str]) -> Option<PathBuf> {
    let found = places.iter().map(PathBuf::from).find(|place| place.exists());
    if found.is_none() {
        let names = trading_core::config::environment();
        assert!(!names.contains_key("TRADING_CORE_REQUIRE_TOOLS"), "{tool} is missing");
        eprintln!("SKIPPED {test}: {tool} is missing");
    }
    found
}
