//! The lanes: tasks that take batches of look-ups from a queue and query the database.

pub(super) mod postgres;
pub(super) mod replica;
pub(super) mod sqlite;
