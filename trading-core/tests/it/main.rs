//! The promises that span rooms, in one binary: one file a promise.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod tidy;
