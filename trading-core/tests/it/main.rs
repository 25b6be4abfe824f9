//! Everything that is tested through real parts: one binary, one file a promise.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests fail the test"
)]

mod embedded;
mod support;
