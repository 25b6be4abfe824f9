//! What the tests share.

pub(crate) mod exchanges;
pub(crate) mod page;
pub(crate) mod place;
pub(crate) mod pooler;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod ticks;
pub(crate) mod tools;
pub(crate) mod truth;
pub(crate) mod waiting;
