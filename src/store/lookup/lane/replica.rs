//! A lane on the PostgreSQL replicas. Look-ups that a replica cannot answer completely go on to the primary.
//!
//! A user that is missing on a replica may have registered a moment ago, so only the primary may report that
//! a user does not exist.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;

use super::{
    super::pending::{PendingLookup, Queue, move_to},
    postgres::{answer_with, find_all, tokens},
};
use crate::database::replicas::Replicas;

/// Answers batches until the task is aborted. Look-ups that no replica can answer move to the queue of the
/// primary.
pub(in super::super) async fn run(replicas: Arc<Replicas>, queue: Arc<Queue>, primary: Arc<Queue>) {
    loop {
        let batch = queue.batch().await;
        if AssertUnwindSafe(answer(&replicas, &primary, batch)).catch_unwind().await.is_err() {
            tracing::error!("Replica look-up panicked; its callers receive an error");
        }
    }
}

async fn answer(replicas: &Replicas, primary: &Queue, batch: Vec<PendingLookup>) {
    let Some(replica) = replicas.pick() else { return move_to(primary, batch) };
    let tokens = tokens(&batch);
    let Ok(users) = replica.query(async |connection| find_all(connection, tokens).await).await else {
        return move_to(primary, batch);
    };
    let is_known =
        |lookup: &PendingLookup| lookup.tokens().iter().all(|token| users.contains_key(token.as_uuid()));
    let (known, others) = batch.into_iter().partition(is_known);
    answer_with(known, &Ok(users));
    move_to(primary, others);
}
