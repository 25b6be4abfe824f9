//! Where ticks end: PostgreSQL, and the private cluster that the program keeps for those who have none.

pub mod embedded;
