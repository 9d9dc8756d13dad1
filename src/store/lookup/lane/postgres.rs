//! A lane on PostgreSQL. One query takes all tokens of a batch as an array.

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc};

use diesel::{ExpressionMethods, QueryDsl, SelectableHelper};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::FutureExt;
use uuid::Uuid;

use super::super::pending::{PendingLookup, Queue, ReadyAnswer};
use crate::{
    database::{
        DatabaseError,
        columns::UuidColumn,
        postgres::{PostgresPool, QueryError},
    },
    domain::{AuthToken, User},
    store::{schema::core_user, tables::users::UserRow},
};

/// Answers batches until the task is aborted.
pub(in super::super) async fn run(pool: PostgresPool, queue: Arc<Queue>) {
    loop {
        let batch = queue.batch().await;
        // A panic must not end the lane: without lanes, every look-up would wait until its time limit.
        if AssertUnwindSafe(answer(&pool, batch)).catch_unwind().await.is_err() {
            tracing::error!("PostgreSQL look-up panicked; its callers receive an error");
        }
    }
}

async fn answer(pool: &PostgresPool, batch: Vec<PendingLookup>) {
    let tokens = tokens(&batch);
    let same_tokens = tokens.clone();
    let users = match pool.query(async |connection| find_all(connection, tokens).await).await {
        // The server may work although the connection is of no use, so the look-up is tried once more.
        Err(QueryError::ConnectionLost(_)) => {
            pool.query_on_new_connection(async |connection| find_all(connection, same_tokens).await).await
        }
        answer => answer.map_err(QueryError::into_error),
    };
    answer_with(batch, &users);
}

/// Users by their `auth_token`.
pub(super) type Users = HashMap<Uuid, User>;

/// Returns the tokens of a batch.
pub(super) fn tokens(batch: &[PendingLookup]) -> Vec<UuidColumn> {
    batch.iter().flat_map(PendingLookup::tokens).map(|token| UuidColumn(*token.as_uuid())).collect()
}

/// Returns the users with these tokens, by one query.
pub(super) async fn find_all(
    connection: &mut AsyncPgConnection,
    tokens: Vec<UuidColumn>,
) -> Result<Users, DatabaseError> {
    let query = core_user::table.filter(core_user::auth_token.eq_any(tokens)).select(UserRow::as_select());
    let rows: Vec<UserRow> = query.load(connection).await?;
    Ok(rows.into_iter().map(User::from).map(|user| (*user.auth_token.as_uuid(), user)).collect())
}

/// Answers each look-up of the batch with its own users.
pub(super) fn answer_with(batch: Vec<PendingLookup>, users: &Result<Users, DatabaseError>) {
    let find = |token: AuthToken| match users {
        Ok(users) => Ok(users.get(token.as_uuid()).cloned()),
        Err(error) => Err(error.clone()),
    };
    // Sent together at the end: the callers on one connection wake up together, and their answers leave in
    // one packet.
    let answers: Vec<ReadyAnswer> = batch.into_iter().map(|lookup| lookup.answer(find)).collect();
    answers.into_iter().for_each(ReadyAnswer::send);
}
