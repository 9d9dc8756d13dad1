//! A lane on the replicas of PostgreSQL: what one of them does not know, the primary is asked.
//!
//! Whom a replica does not know may have registered a moment ago, so nobody is told by a replica that there is no such user.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;

use super::{
    super::queue::{Queue, Waiting},
    postgres::{answer_with, find_all, tokens},
};
use crate::store::connection::replicas::Replicas;

/// Answers for as long as it is not aborted; those whom it cannot answer wait for the primary then.
pub(in super::super) async fn run(replicas: Arc<Replicas>, queue: Arc<Queue>, primary: Arc<Queue>) {
    loop {
        let batch = queue.batch().await;
        if AssertUnwindSafe(answer(&replicas, &primary, batch)).catch_unwind().await.is_err() {
            tracing::error!("A look-up on a replica panicked; its callers are told that it is not available");
        }
    }
}

async fn answer(replicas: &Replicas, primary: &Queue, batch: Vec<Waiting>) {
    let Some(replica) = replicas.pick() else { return primary.pass_on(batch) };
    let tokens = tokens(&batch);
    let Ok(users) = replica.ask(async |connection| find_all(connection, tokens).await).await else {
        return primary.pass_on(batch);
    };
    let is_known = |caller: &Waiting| caller.tokens().iter().all(|token| users.contains_key(token.as_uuid()));
    let (known, others) = batch.into_iter().partition(is_known);
    answer_with(known, &Ok(users));
    primary.pass_on(others);
}
