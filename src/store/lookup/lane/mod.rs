//! What takes batches from the queue and asks a database: one task a lane.

pub(super) mod postgres;
pub(super) mod replica;
pub(super) mod sqlite;
